//! One realm: its processes, names, engines.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};

use crate::config::Config;
use crate::identity::Identity;
use crate::net::control_socket::{Admin, AdminError, Later};

/// Why a realm did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

pub struct Realm {
    config: Config,
    identity: Identity,
}

impl Realm {
    /// # Errors
    /// When an address can't be listened on, say.
    pub async fn start(config: Config, identity: Identity) -> Result<Arc<Realm>, StartError> {
        Ok(Arc::new(Realm { config, identity }))
    }

    /// Listens no more, waits until no call is open in either direction, at most so long, and says goodbye.
    pub async fn drain(&self, _within: Duration) {}

    /// Says goodbye at once, and waits at most so long for it to go out.
    pub async fn stop(&self, _within: Duration) {}

    /// Peers and exports of a new configuration.
    pub fn reload(&self, _config: &Config) {}

    pub fn admin(self: &Arc<Realm>) -> Arc<dyn Admin> {
        self.clone()
    }

    pub fn node_name(&self) -> &str {
        &self.config.node.name
    }

    /// Where BEAM nodes dial us.
    pub fn node_port(&self) -> u16 {
        self.config.node.listen_port
    }
}

impl Admin for Realm {
    fn status(&self) -> Value {
        json!({
            "realm": self.config.realm,
            "key": legation_proto::key_text::format_public_key(&self.identity.key),
            "node": self.node_name(),
        })
    }

    fn peers(&self) -> Value {
        json!([])
    }

    fn engines(&self) -> Value {
        json!([])
    }

    fn connections(&self) -> Value {
        json!([])
    }

    fn counters(&self) -> Value {
        json!({})
    }

    fn connect(&self, realm: &str) -> Result<(), AdminError> {
        Err(AdminError::new("unknown_realm", format!("there is no peer {realm:?}")))
    }

    fn disconnect(&self, realm: &str) -> Result<(), AdminError> {
        self.connect(realm)
    }

    fn drain(&self, _within: Duration) -> Later<'_, Value> {
        Box::pin(async { json!([]) })
    }
}
