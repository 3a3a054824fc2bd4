//! A realm as its control socket sees it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use legation_proto::key_text::format_public_key;
use serde_json::{json, Value};

use crate::net::control_socket::{Admin, AdminError, Later};
use crate::peers::AddPeerError;
use crate::realm::identity::NewKeyError;
use crate::realm::Realm;

impl Realm {
    pub fn admin(self: &Arc<Realm>) -> Arc<dyn Admin> {
        self.clone()
    }
}

impl Admin for Realm {
    fn status(&self) -> Value {
        self.status_json()
    }

    fn peers(&self) -> Value {
        self.peers_json()
    }

    fn engines(&self) -> Value {
        self.engines_json()
    }

    fn connections(&self) -> Value {
        self.connections_json()
    }

    fn counters(&self) -> Value {
        self.counters_json()
    }

    fn connect(&self, realm: &str) -> Result<(), AdminError> {
        match Realm::peers(self).map(|peers| peers.connect(realm)) {
            Some(Ok(())) => Ok(()),
            Some(Err(AddPeerError::AlreadyConnected)) => {
                Err(AdminError::new("already_connected", format!("the peer {realm:?} is connected already")))
            }
            Some(Err(AddPeerError::UnknownRealm)) | None => Err(unknown(realm)),
            Some(Err(AddPeerError::Revoked)) => Err(AdminError::new("revoked", AddPeerError::Revoked.to_string())),
            Some(Err(AddPeerError::Draining)) => Err(AdminError::new("draining", AddPeerError::Draining.to_string())),
            Some(Err(reason)) => Err(AdminError::new("refused", reason.to_string())),
        }
    }

    fn disconnect(&self, realm: &str) -> Result<(), AdminError> {
        match Realm::peers(self).is_some_and(|peers| peers.disconnect(realm)) {
            true => Ok(()),
            false => Err(unknown(realm)),
        }
    }

    fn revoke(&self, realm: &str) -> Result<(), AdminError> {
        match Realm::peers(self).is_some_and(|peers| peers.revoke(realm)) {
            true => Ok(()),
            false => Err(unknown(realm)),
        }
    }

    fn rotate_key(&self, path: PathBuf) -> Later<'_, Result<Value, AdminError>> {
        Box::pin(async move {
            let realm = self.me().ok_or_else(|| key_error(&NewKeyError::Stopping))?;
            let key = Realm::rotate_key(&realm, path).await.map_err(|reason| key_error(&reason))?;
            Ok(json!({"key": format_public_key(&key)}))
        })
    }

    fn revoke_own_key(&self) -> Later<'_, Result<(), AdminError>> {
        Box::pin(async move {
            let realm = self.me().ok_or_else(|| key_error(&NewKeyError::Stopping))?;
            Realm::revoke_own_key(&realm).await.map_err(|reason| key_error(&reason))
        })
    }

    fn drain(&self, within: Duration) -> Later<'_, Value> {
        Box::pin(async move {
            let cut = Realm::drain(self, within).await;
            cut.into_iter().map(|(engine, caller)| json!({ "engine": engine, "caller": pid_text(&caller) })).collect()
        })
    }
}

fn key_error(reason: &NewKeyError) -> AdminError {
    AdminError::new("key", reason.to_string())
}

fn unknown(realm: &str) -> AdminError {
    AdminError::new("unknown_realm", format!("there is no peer {realm:?}"))
}

/// `<id.serial> at node`: there is no number for a node that would mean anything outside of it.
fn pid_text(raw: &[u8]) -> String {
    match crate::dist::term::pid(raw) {
        Some(pid) => format!("<{}.{}> at {}", pid.id, pid.serial, String::from_utf8_lossy(pid.node)),
        None => String::new(),
    }
}
