//! How a realm begins, changes, and ends.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use legation_proto::frame::cert::Cert;
use legation_proto::frame::FrameType;
use legation_proto::identity::{KeyError, Purpose};
use legation_proto::limits::ONLINE_KEY_MS_MAX;

use crate::config::{Config, PeerConfig};
use crate::dist::term::OwnNode;
use crate::identity::{Identity, SignError};
use crate::net::beam::{self, Bound};
use crate::peers::{AddPeerError, ListenError, Peers};

use crate::realm::counters::Counters;
use crate::realm::engines::{Engines, Serials};
use crate::realm::gate::Gate;
use crate::realm::incoming::Context;
use crate::realm::names::Names;
use crate::realm::policy::Policy;
use crate::realm::providers::Turns;
use crate::realm::space::{Space, AGENT};
use crate::realm::subscribers::Subscribers;
use crate::realm::{lock, now_ms, write, Body, Nodes, Own, Realm};

/// The identity certifies the online key for a day, every half day.
const CERTIFICATE_RENEW: Duration = Duration::from_millis(ONLINE_KEY_MS_MAX / 2);
const CERTIFICATE_RETRY: Duration = Duration::from_secs(60);

/// How often orphaned calls and unanswered questions are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How long a node may take to say whether it knows an atom.
const ATOMS_ANSWER_MS: u64 = 5_000;

/// Why a realm did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("{0}")]
    Beam(#[from] beam::StartError),
    #[error("can't listen on {id}: {reason}")]
    Listen { id: String, reason: ListenError },
    #[error("the peer {realm:?}: {reason}")]
    Peer { realm: String, reason: AddPeerError },
    #[error("the online key could not be certified: {0}")]
    Sign(#[from] SignError),
    #[error("the identity's key can't be used: {0}")]
    Key(#[from] KeyError),
}

impl Realm {
    /// Starts everything: our node, links, listeners. Returns when peers can dial and BEAM nodes can connect.
    ///
    /// # Errors
    /// What can't be bound, certified, or meant.
    pub async fn start(config: Config, identity: Identity) -> Result<Arc<Realm>, StartError> {
        let realm = Realm::new(config.clone(), identity.clone());
        realm.certify().await?;
        let peers = Peers::new(identity, config.limits.clone(), realm.clone());
        let _ = realm.peers.set(peers.clone());
        for peer in &config.peers {
            realm.set_policy(peer);
        }
        let bound = Bound::new(&config.node, &config.limits).await?;
        let node = OwnNode::new(&bound.node().to_string(), bound.creation());
        let (id, serial) = crate::realm::space::pid_of(AGENT);
        let mut agent = Vec::with_capacity(48);
        node.pid(&mut agent, id, serial);
        let _ = realm.own.set(Own { node, agent: agent.into() });
        let _ = realm.beam.set(bound.start(realm.clone()));
        for listen in config.listen {
            let id = listen.id.clone();
            peers.listen(listen).map_err(|reason| StartError::Listen { id, reason })?;
        }
        for peer in config.peers {
            let name = peer.realm.clone();
            match peers.add_peer(peer.clone()) {
                Err(AddPeerError::Revoked) => {
                    tracing::warn!(realm = name, "the key of a peer was revoked: take it out of the configuration");
                    peers.add_revoked(peer);
                }
                added => added.map_err(|reason| StartError::Peer { realm: name, reason })?,
            }
        }
        tokio::spawn(realm.clone().keep_names());
        tokio::spawn(keep_certified(Arc::downgrade(&realm)));
        tokio::spawn(keep_house(Arc::downgrade(&realm)));
        Ok(realm)
    }

    fn new(config: Config, identity: Identity) -> Arc<Realm> {
        let names = Names::new(
            config.node.register_global,
            config.node.global_suffix.clone(),
            config.realm.clone(),
            config.import.clone(),
        );
        let mut space = Space::new();
        space.spawn(Arc::new(Body::Agent));
        let control = space.spawn(Arc::new(Body::Control));
        space.register("legation", control);
        let net_kernel = space.spawn(Arc::new(Body::NetKernel));
        space.register("net_kernel", net_kernel);
        if config.node.echo {
            let echo = space.spawn(Arc::new(Body::Echo));
            space.register("legation_echo", echo);
        }
        Arc::new_cyclic(|me| Realm {
            me: me.clone(),
            limits: config.limits.clone(),
            config: Mutex::new(config),
            identity,
            own: OnceLock::new(),
            beam: OnceLock::new(),
            peers: OnceLock::new(),
            counters: Counters::default(),
            events: Mutex::new(Subscribers::default()),
            nodes: RwLock::new(Nodes::default()),
            stand_ins: Mutex::default(),
            exports: Mutex::default(),
            engines: RwLock::new(Engines::new()),
            published_as: RwLock::default(),
            space: Mutex::new(space),
            policies: RwLock::default(),
            sessions: RwLock::default(),
            publishing: tokio::sync::Mutex::new(()),
            ends: Arc::default(),
            serials: Serials::default(),
            certificate: Mutex::new(None),
            names,
            turns: Turns::default(),
            gate: Mutex::new(Gate::default()),
            mailboxes: Mutex::default(),
            room: Mutex::default(),
            released: tokio::sync::Notify::new(),
            dialling: Mutex::default(),
            ended: Mutex::new(HashMap::new()),
            next_number: AtomicU64::new(1),
            drops_logged: Mutex::default(),
        })
    }

    /// The identity's word for the online key, which signs what has no source engine.
    pub(super) async fn certify(&self) -> Result<(), SignError> {
        let now = now_ms();
        let cert = Cert {
            realm: self.identity.realm_id,
            key: self.identity.keyring.online_public(),
            not_before: now,
            not_after: now + ONLINE_KEY_MS_MAX,
            serial: self.serials.next(),
        };
        let mut signed = cert.body();
        let signature = self.identity.signer.sign(&self.identity, Purpose::Cert, &signed).await?;
        signed.extend_from_slice(&signature);
        for session in self.sessions() {
            if session.core.announce(FrameType::Cert, &signed) {
                session.wake();
            }
        }
        *lock(&self.certificate) = Some(signed.into());
        Ok(())
    }

    // Peers that change.

    /// The policy that was in force before.
    pub(crate) fn set_policy(&self, peer: &PeerConfig) -> Option<Arc<Policy>> {
        let policy = Arc::new(Policy::compile(peer));
        write(&self.policies).insert(peer.realm.as_str().into(), policy)
    }

    pub(crate) fn restore_policy(&self, realm: &str, before: Option<Arc<Policy>>) {
        let mut policies = write(&self.policies);
        match before {
            Some(before) => drop(policies.insert(realm.into(), before)),
            None => drop(policies.remove(realm)),
        }
    }

    /// A listed peer with other settings: what it may know of is announced and forgotten at once; a link with the same key stays.
    pub(crate) fn change_peer(self: &Arc<Self>, peer: PeerConfig) -> Result<(), AddPeerError> {
        let peers = self.peers().ok_or(AddPeerError::UnknownRealm)?;
        let before = self.set_policy(&peer);
        let realm = peer.realm.clone();
        if let Err(reason) = peers.update_peer(peer) {
            self.restore_policy(&realm, before);
            return Err(reason);
        }
        let after = self.policy(&realm);
        if let (Some(before), Some(after)) = (before, after) {
            for session in self.sessions().iter().filter(|session| *session.realm == *realm) {
                self.exports_changed(session, &before, &after);
            }
        }
        Ok(())
    }

    /// Takes up peers and exports of a changed configuration; the rest needs a restart. Returns what could not be taken up, in words.
    pub fn reload(self: &Arc<Self>, new: Config) -> Vec<String> {
        let mut problems = Vec::new();
        let old = std::mem::replace(&mut *lock(&self.config), new.clone());
        let Some(peers) = self.peers() else {
            return problems;
        };
        for gone in old.peers.iter().filter(|old| !new.peers.iter().any(|new| new.realm == old.realm)) {
            peers.remove_peer(&gone.realm);
            write(&self.policies).remove(gone.realm.as_str());
        }
        for peer in new.peers {
            let realm = peer.realm.clone();
            let result = match old.peers.iter().find(|old| old.realm == peer.realm) {
                Some(same) if *same == peer => Ok(()),
                Some(_) => self.change_peer(peer),
                None => {
                    let before = self.set_policy(&peer);
                    peers.add_peer(peer).inspect_err(|_| self.restore_policy(&realm, before))
                }
            };
            if let Err(reason) = result {
                problems.push(format!("the peer {realm:?}: {reason}"));
            }
        }
        problems
    }

    // The end.

    /// Listens no more, waits until no call is open in either direction, closes each link. Calls of ours that were cut:
    /// full name, and the caller's raw pid.
    pub async fn drain(&self, timeout: Duration) -> Vec<(String, Vec<u8>)> {
        let Some(peers) = self.peers() else {
            return Vec::new();
        };
        let deadline = tokio::time::Instant::now() + timeout;
        let cut = peers.drain(timeout).await.into_iter();
        self.release_held(deadline).await;
        cut.filter_map(|call| {
            let pid = Context::decode(&call.context)?.pid.to_vec();
            Some((format!("{}@{}", call.engine, call.realm), pid))
        })
        .collect()
    }

    /// A reply that has come may still wait for its node's word on an atom in it.
    async fn release_held(&self, deadline: tokio::time::Instant) {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // Asked for before we look, so that one that comes right then is not missed.
            released.as_mut().enable();
            if self.connected_nodes().iter().all(|node| lock(&node.holds).is_empty()) {
                return;
            }
            if tokio::time::timeout_at(deadline, released).await.is_err() {
                return;
            }
        }
    }

    /// Goodbyes to peers, then to the BEAM.
    pub async fn stop(&self, timeout: Duration) {
        if let Some(peers) = self.peers() {
            peers.shutdown(timeout).await;
        }
        if let Some(beam) = self.beam.get() {
            beam.stop().await;
        }
        self.identity.keep_heads();
    }
}

async fn keep_certified(realm: std::sync::Weak<Realm>) {
    let mut wait = CERTIFICATE_RENEW;
    loop {
        tokio::time::sleep(wait).await;
        let Some(realm) = realm.upgrade() else {
            return;
        };
        let _turn = realm.publishing.lock().await;
        wait = match realm.certify().await {
            Ok(()) => CERTIFICATE_RENEW,
            Err(error) => {
                tracing::error!(%error, "the online key could not be certified");
                CERTIFICATE_RETRY
            }
        };
    }
}

async fn keep_house(realm: std::sync::Weak<Realm>) {
    let mut interval = tokio::time::interval(HOUSEKEEPING);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look_for_idle = 0;
    loop {
        interval.tick().await;
        let Some(realm) = realm.upgrade() else {
            return;
        };
        realm.sweep();
        realm.sessions().iter().for_each(|session| realm.keep_room(session));
        let identity = realm.identity.clone();
        // It may write files.
        tokio::task::spawn_blocking(move || identity.keep_heads());
        let now = now_ms();
        if now >= look_for_idle {
            look_for_idle = realm.forget_idle(now);
        }
        for node in realm.connected_nodes() {
            // Who asked has given up.
            lock(&node.questions).retain(|_, question| !question.is_abandoned());
            let silent = |hold: &crate::realm::node::Hold| hold.question != 0 && hold.since + ATOMS_ANSWER_MS <= now;
            let late: Vec<_> = lock(&node.holds)
                .iter()
                .filter(|(_, hold)| silent(hold))
                .map(|(link, hold)| (*link, hold.question))
                .collect();
            for (link, question) in late {
                // Its answer, should it come, finds no question.
                lock(&node.questions).remove(&question);
                realm.atoms_answered(&node, link, question, None);
            }
        }
    }
}
