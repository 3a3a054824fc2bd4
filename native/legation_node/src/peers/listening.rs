//! Listening at run time.

use std::sync::Arc;

use super::{lock, Peers};
use crate::config::ListenConfig;
use crate::net::carrier::CarrierError;
use crate::net::listener::{Listener, ListenerInfo};

/// Why an address can't be listened on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    #[error("a listener has the id {0:?} already")]
    AlreadyListening(String),
    /// As text the word that Elixir has for it: `eaddrinuse`.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    #[error("closed")]
    Stopping,
}

impl Peers {
    /// Listens on one more address.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen(self: &Arc<Peers>, config: ListenConfig) -> Result<ListenerInfo, ListenError> {
        let _runtime = self.runtime.enter();
        let mut listeners = lock(&self.listeners);
        if lock(&self.list).stopping {
            return Err(ListenError::Stopping);
        }
        if listeners.contains_key(&config.id) {
            return Err(ListenError::AlreadyListening(config.id));
        }
        let id = config.id.clone();
        let listener = Arc::new(Listener::bind(config, &self.limits)?);
        listener.start(self);
        let info = listener.info();
        listeners.insert(id, listener);
        Ok(info)
    }

    /// Stops listening on one address. Links that came in by it stay. False: there is no such listener.
    pub fn unlisten(&self, id: &str) -> bool {
        let listener = lock(&self.listeners).remove(id);
        listener.inspect(|listener| listener.close()).is_some()
    }

    /// All listeners, by id.
    pub fn listeners(&self) -> Vec<ListenerInfo> {
        let mut listeners: Vec<ListenerInfo> = lock(&self.listeners).values().map(|listener| listener.info()).collect();
        listeners.sort_by(|one, other| one.id.cmp(&other.id));
        listeners
    }

    pub(super) fn unlisten_all(&self) {
        let listeners = std::mem::take(&mut *lock(&self.listeners));
        listeners.values().for_each(|listener| listener.close());
    }
}
