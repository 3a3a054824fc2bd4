//! Our engines: BEAM processes that were published, announced to the peers that may know of them.
//!
//! Serials rise across restarts (`protocol.md` 11.4): microseconds since 1970. LEARN and FORGET are signed by the identity, which
//! may sit in an agent; an engine is out of the table at once when it is withdrawn, and announced once it is signed. What becomes of
//! an end that is not signed at once is `ends.rs`'s.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use legation_proto::frame::batch::Refusal;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::identity::{is_engine_name, Purpose};

use crate::config::Operations;
use crate::dist::control::encode;
use crate::dist::term;
use crate::identity::SignError;
use crate::peers::PeerSession;
use crate::realm::ends;
use crate::realm::incoming::key_of;
use crate::realm::node::{Node, Question, Watch};
use crate::realm::policy::{Policy, To};
use crate::realm::{lock, read, write, Realm};

/// One of our engines.
#[derive(Debug)]
pub struct Publication {
    pub name: Box<str>,
    /// Its process, raw.
    pub pid: Box<[u8]>,
    /// Published by this registered name: messages go to whoever has it when they arrive.
    pub registered: Option<Box<str>>,
    pub options: PublishOptions,
    pub key: [u8; 32],
    /// LEARN with its signature.
    pub(super) signed: Box<[u8]>,
    /// The number of our monitor of the process.
    pub(super) watch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishOptions {
    pub to: To,
    pub version: u32,
    /// What peers are told that it can do; the policy decides.
    pub operations: Operations,
    /// The realm's online key may sign for it.
    pub delegate: bool,
    /// Who gets receipts, raw.
    pub receipts: Option<Box<[u8]>>,
}

impl Default for PublishOptions {
    fn default() -> Self {
        // As of the embedded transport: what one does with an engine. That it may be watched need not be said.
        let operations = Operations(Operations::CALL | Operations::CAST | Operations::SEND);
        PublishOptions { to: To::All, version: 0, operations, delegate: true, receipts: None }
    }
}

/// What to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishTarget {
    Pid(Box<[u8]>),
    /// Registered on the node that asks.
    Name(Box<str>),
}

/// Why an engine was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    #[error("no engine may have this name")]
    BadName,
    #[error("there is no such process")]
    Noproc,
    #[error("the name is another process's")]
    AlreadyPublished(Box<[u8]>),
    #[error("the process's node is not connected")]
    Noconnection,
    #[error("a bound on engines is reached")]
    Overload,
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Where a message goes.
#[derive(Debug)]
pub enum Reach {
    Engine(ReachedEngine),
    /// The node of a process that waits for a reply.
    Caller(Arc<Node>),
}

#[derive(Debug)]
pub struct ReachedEngine {
    pub node: Arc<Node>,
    /// Its process, raw.
    pub pid: Box<[u8]>,
    /// Messages go to whoever has this name.
    pub registered: Option<Box<str>>,
    pub receipts: Option<Box<[u8]>>,
    pub key: u64,
    pub ask_gate: bool,
    /// A filter has to agree.
    pub filtered: bool,
    pub operation: u16,
}

impl Reach {
    pub fn node(&self) -> &Arc<Node> {
        match self {
            Reach::Engine(engine) => &engine.node,
            Reach::Caller(node) => node,
        }
    }

    pub fn asks_gate(&self) -> bool {
        matches!(self, Reach::Engine(engine) if engine.ask_gate)
    }
}

impl ReachedEngine {
    /// The control message that carries something to it.
    pub fn put_control(&self, out: &mut Vec<u8>, from: &[u8]) {
        match &self.registered {
            Some(name) => encode::reg_send(out, from, name.as_bytes()),
            None => encode::send_sender(out, from, &self.pid),
        }
    }
}

/// A clock that never gives the same number twice, across restarts, too.
#[derive(Debug, Default)]
pub struct Serials(AtomicU64);

impl Serials {
    pub fn next(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_micros() as u64);
        let update = |last: u64| Some(now.max(last + 1));
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) {
            Ok(last) | Err(last) => now.max(last + 1),
        }
    }
}

impl Realm {
    /// Publishes a process: peers that may know of it learn of it. `asker`: the node whose registered names count.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        asker: &Arc<Node>,
        name: &str,
        target: PublishTarget,
        options: PublishOptions,
    ) -> Result<(), PublishError> {
        if !is_engine_name(name) {
            return Err(PublishError::BadName);
        }
        let (pid, registered, node) = self.resolve(asker, target).await?;
        // Others are not to wait for an agent that takes its time with that.
        self.ends.are_signed(name).await?;
        // One after the other: two that publish one name at once must not both find it free.
        let _turn = self.publishing.lock().await;
        let before = read(&self.engines).get(name).cloned();
        if let Some(before) = &before {
            if before.pid != pid {
                return Err(PublishError::AlreadyPublished(before.pid.clone()));
            }
        } else if read(&self.engines).len() >= self.limits.session.engines_max as usize {
            return Err(PublishError::Overload);
        }
        self.ends.are_signed(name).await?;
        let key = self.identity.keyring.engine_public(name);
        let learn = Learn {
            realm: self.identity.realm_id,
            engine: name.to_owned(),
            key,
            serial: self.serials.next(),
            not_before: 0,
            not_after: 0,
            version: options.version,
            operations: options.operations.0,
            delegate: options.delegate,
        };
        let mut signed = learn.body();
        let signature = self.identity.signer.sign(&self.identity, Purpose::Learn, &signed).await?;
        signed.extend_from_slice(&signature);
        let watch = self.new_number();
        let publication =
            Arc::new(Publication { name: name.into(), pid, registered, options, key, signed: signed.into(), watch });
        if let Some(before) = &before {
            self.unwatch(&node, &before.pid, before.watch);
        }
        // Entered first: should it end right now, its end finds it.
        self.enter(publication.clone());
        self.watch_as(watch, &node, &publication.pid, Watch::Engine { name: name.into() });
        if !self.is_connected(&node) {
            // Its node has gone meanwhile, and nobody would tell us of its end.
            self.withdraw(name, ForgetReason::Crashed, None);
            return Err(PublishError::Noconnection);
        }
        let old_to = before.as_ref().map(|before| before.options.to.clone());
        let mut untold = Vec::new();
        for session in self.sessions() {
            let Some(policy) = self.policy(&session.realm) else {
                continue;
            };
            if policy.exports(name, &publication.options.to) {
                self.announce_to(&session, &publication);
            } else if old_to.as_ref().is_some_and(|to| policy.exports(name, to)) {
                // It was there for this peer, and is no more.
                untold.push(session);
            }
        }
        if !untold.is_empty() {
            self.forget_at(untold, name, ForgetReason::Withdrawn, None);
        }
        if before.is_none() {
            self.names.published(&publication);
        }
        Ok(())
    }

    /// The process, its registered name, its node; once it is known to live.
    async fn resolve(
        self: &Arc<Self>,
        asker: &Arc<Node>,
        target: PublishTarget,
    ) -> Result<(Box<[u8]>, Option<Box<str>>, Arc<Node>), PublishError> {
        match target {
            PublishTarget::Pid(raw) => {
                let pid = term::pid(&raw).ok_or(PublishError::Noproc)?;
                let node = match self.node_of(&pid) {
                    Some(node) => node,
                    None => self.dial_node(&pid).await.ok_or(PublishError::Noconnection)?,
                };
                let mut arguments = Vec::with_capacity(48);
                term::put_list_header(&mut arguments, 1);
                arguments.extend_from_slice(&raw);
                term::put_nil(&mut arguments);
                let alive = self.call(&node, "erlang", "is_process_alive", &arguments).await;
                let alive = alive.ok_or(PublishError::Noconnection)?;
                match term::atom(&alive).is_some_and(|atom| atom.eq_str("true")) {
                    true => Ok((raw, None, node)),
                    false => Err(PublishError::Noproc),
                }
            }
            PublishTarget::Name(name) => {
                let pid = self.whereis_on(asker, &name).await?;
                Ok((pid, Some(name), asker.clone()))
            }
        }
    }

    async fn whereis_on(self: &Arc<Self>, node: &Arc<Node>, name: &str) -> Result<Box<[u8]>, PublishError> {
        let mut arguments = Vec::with_capacity(48);
        term::put_list_header(&mut arguments, 1);
        term::put_atom(&mut arguments, name);
        term::put_nil(&mut arguments);
        let found = self.call(node, "erlang", "whereis", &arguments).await.ok_or(PublishError::Noconnection)?;
        let pid = term::pid(&found).ok_or(PublishError::Noproc)?;
        Ok(pid.raw.into())
    }

    fn enter(&self, publication: Arc<Publication>) {
        let mut engines = write(&self.engines);
        write(&self.published_as).entry(publication.pid.clone()).or_insert_with(|| publication.name.clone());
        engines.insert(publication.name.clone(), publication);
    }

    /// Takes an engine out of the table and tells the peers that knew of it. `term`: the reason itself, without version byte. False
    /// if it isn't there.
    pub(crate) fn withdraw(self: &Arc<Self>, name: &str, reason: ForgetReason, term: Option<&[u8]>) -> bool {
        let publication = {
            let mut engines = write(&self.engines);
            let Some(publication) = engines.remove(name) else {
                return false;
            };
            let mut published_as = write(&self.published_as);
            if published_as.get(&publication.pid).is_some_and(|first| **first == *name) {
                published_as.remove(&publication.pid);
                // It may be published under another name, too, and signs under that from now on.
                if let Some(other) = engines.values().find(|other| other.pid == publication.pid) {
                    published_as.insert(other.pid.clone(), other.name.clone());
                }
            }
            publication
        };
        if let Some(node) = term::pid(&publication.pid).and_then(|pid| self.node_of(&pid)) {
            self.unwatch(&node, &publication.pid, publication.watch);
        }
        self.names.withdrawn(&publication);
        let exported = |session: &Arc<PeerSession>| {
            let policy = self.policy(&session.realm);
            policy.is_some_and(|policy| policy.exports(name, &publication.options.to))
        };
        // Who may not monitor hears only that it is gone.
        let watches =
            |session: &Arc<PeerSession>| self.policy(&session.realm).is_some_and(|policy| policy.watches(Some(name)));
        let told = self.sessions().into_iter().filter(exported);
        let (watching, others): (Vec<_>, Vec<_>) = told.partition(watches);
        for (sessions, reason, term) in [(watching, reason, term), (others, ForgetReason::Withdrawn, None)] {
            if !sessions.is_empty() {
                self.forget_at(sessions, name, reason, term);
            }
        }
        true
    }

    /// The process of an engine has ended. One that was published by a registered name gets a second look: its supervisor may have
    /// started it again.
    pub(crate) fn engine_ended(self: &Arc<Self>, node: &Arc<Node>, name: &str, watch: u64, reason: &[u8]) {
        let publication = read(&self.engines).get(name).cloned();
        let Some(publication) = publication.filter(|publication| publication.watch == watch) else {
            return;
        };
        self.withdraw(name, reason_class(reason), Some(reason));
        let Some(registered) = publication.registered.clone() else {
            return;
        };
        let (realm, node, name) = (self.clone(), node.clone(), name.to_owned());
        let options = publication.options.clone();
        tokio::spawn(async move {
            for wait in RESTARTED_AFTER {
                tokio::time::sleep(wait).await;
                let target = PublishTarget::Name(registered.clone());
                let result = realm.publish(&node, &name, target, options.clone()).await;
                // Not there yet; or its end, or its return, is not signed yet.
                if !matches!(result, Err(PublishError::Noproc | PublishError::Sign(_))) {
                    return;
                }
            }
            tracing::warn!(engine = %name, registered = %registered, "nobody has taken the name again: the engine stays withdrawn");
        });
    }

    fn forget_at(
        self: &Arc<Self>,
        sessions: Vec<Arc<PeerSession>>,
        name: &str,
        reason: ForgetReason,
        term: Option<&[u8]>,
    ) {
        // First the reason itself, for who is told it.
        for session in term.iter().flat_map(|_| &sessions) {
            let full = self.policy(&session.realm).is_some_and(|policy| policy.tells_reasons());
            if let (true, Some(term)) = (full, term) {
                let payload = [&[term::VERSION], term].concat();
                if let Ok(pushed) = session.core.push_reason(name, &payload) {
                    self.was_pushed(session, pushed.wake, &pushed.exported);
                }
            }
        }
        let forget =
            Forget { realm: self.identity.realm_id, engine: name.to_owned(), serial: self.serials.next(), reason };
        let mut signed = forget.body();
        // At once where the key is ours.
        match self.identity.keyring.sign(Purpose::Forget, &self.identity.network.id(), &signed) {
            Ok(signature) => {
                signed.extend_from_slice(&signature);
                ends::tell(&sessions, &signed);
            }
            Err(_) => self.sign_end(name, signed, sessions),
        }
    }

    pub(super) fn announce_to(&self, session: &Arc<PeerSession>, publication: &Publication) {
        if publication.options.receipts.is_some() {
            session.core.make_receipts_for(std::iter::once(publication.name.clone()));
        }
        if session.core.announce(FrameType::Learn, &publication.signed) {
            session.wake();
        }
    }

    /// A session is up: certificate first, then everything that this peer may know of.
    pub(crate) fn announce_all(&self, session: &Arc<PeerSession>) {
        if let Some(certificate) = &*lock(&self.certificate) {
            if session.core.announce(FrameType::Cert, certificate) {
                session.wake();
            }
        }
        let Some(policy) = self.policy(&session.realm) else {
            return;
        };
        for publication in read(&self.engines).values() {
            if policy.exports(&publication.name, &publication.options.to) {
                self.announce_to(session, publication);
            }
        }
    }

    /// A peer's policy has changed: what it may know of now and did not before, and the other way round.
    pub(crate) fn exports_changed(self: &Arc<Self>, session: &Arc<PeerSession>, before: &Policy, after: &Policy) {
        let engines: Vec<_> = read(&self.engines).values().cloned().collect();
        for publication in engines {
            let to = &publication.options.to;
            match (before.exports(&publication.name, to), after.exports(&publication.name, to)) {
                (false, true) => {
                    // Perhaps after a FORGET: only a new serial is heard.
                    let (realm, publication) = (self.clone(), publication.clone());
                    let (session, serial) = (session.clone(), self.serials.next());
                    tokio::spawn(async move { realm.announce_again(&session, &publication, serial).await });
                }
                (true, false) => {
                    self.forget_at(vec![session.clone()], &publication.name, ForgetReason::Withdrawn, None)
                }
                _ => {}
            }
        }
    }

    /// The serial was taken when it was decided: what is decided later has a higher one.
    async fn announce_again(&self, session: &Arc<PeerSession>, publication: &Publication, serial: u64) {
        let learn = Learn {
            realm: self.identity.realm_id,
            engine: publication.name.to_string(),
            key: publication.key,
            serial,
            not_before: 0,
            not_after: 0,
            version: publication.options.version,
            operations: publication.options.operations.0,
            delegate: publication.options.delegate,
        };
        let mut signed = learn.body();
        match self.identity.signer.sign(&self.identity, Purpose::Learn, &signed).await {
            Ok(signature) => {
                signed.extend_from_slice(&signature);
                if publication.options.receipts.is_some() {
                    session.core.make_receipts_for(std::iter::once(publication.name.clone()));
                }
                if session.core.announce(FrameType::Learn, &signed) {
                    session.wake();
                }
            }
            Err(error) => tracing::error!(engine = %publication.name, %error, "an engine could not be announced"),
        }
    }

    pub(crate) fn reach_engine(
        &self,
        session: &PeerSession,
        engine: &str,
        operation: u16,
        payload: &[u8],
    ) -> Result<Reach, Refusal> {
        let publication = read(&self.engines).get(engine).cloned().ok_or(Refusal::Noproc)?;
        let policy = self.policy(&session.realm).ok_or(Refusal::Noproc)?;
        if !policy.exports(engine, &publication.options.to) {
            return Err(Refusal::Noproc);
        }
        let allowed = policy.allows(engine, operation, payload)?;
        let pid = term::pid(&publication.pid).ok_or(Refusal::Noproc)?;
        let node = self.node_of(&pid).ok_or(Refusal::Noproc)?;
        let key = match &publication.registered {
            Some(_) => u64::MAX,
            None => key_of(&publication.pid),
        };
        let ask_gate = allowed.ask_filter || (self.limits.engine_queue_max.is_some() && self.has_gate());
        let receipts = publication.options.receipts.clone();
        let (pid, registered) = (publication.pid.clone(), publication.registered.clone());
        Ok(Reach::Engine(ReachedEngine {
            node,
            pid,
            registered,
            receipts,
            key,
            ask_gate,
            filtered: allowed.ask_filter,
            operation,
        }))
    }

    /// The same of a process whose pid the peer was given.
    pub(crate) fn reach_process(
        &self,
        session: &PeerSession,
        raw: &[u8],
        operation: u16,
        payload: &[u8],
    ) -> Result<Reach, Refusal> {
        let policy = self.policy(&session.realm).ok_or(Refusal::Noproc)?;
        let allowed = policy.allows_process(operation, payload)?;
        let node = term::pid(raw).and_then(|pid| self.node_of(&pid)).ok_or(Refusal::Noproc)?;
        let ask_gate = allowed.ask_filter || (self.limits.engine_queue_max.is_some() && self.has_gate());
        let (registered, receipts, key) = (None, None, key_of(raw));
        Ok(Reach::Engine(ReachedEngine {
            node,
            pid: raw.into(),
            registered,
            receipts,
            key,
            ask_gate,
            filtered: allowed.ask_filter,
            operation,
        }))
    }

    /// A question to a node's `rex`, and its answer as a term; none when it has none, or its node has gone.
    pub(crate) async fn call(
        &self,
        node: &Arc<Node>,
        module: &str,
        function: &str,
        arguments: &[u8],
    ) -> Option<Vec<u8>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.ask(node, module, function, arguments, Question::Call(sender));
        tokio::time::timeout(CALL_TIMEOUT, receiver).await.ok()?.ok()
    }
}

/// The reason of an exit as it may cross: its class. What crashed and how is nobody's business.
pub fn reason_class(reason: &[u8]) -> ForgetReason {
    let head = match term::tuple(reason) {
        Some((2, first)) => match term::take_atom(first).is_some_and(|(atom, _)| atom.eq_str("shutdown")) {
            true => return ForgetReason::Shutdown,
            false => return ForgetReason::Crashed,
        },
        _ => term::atom(reason),
    };
    match head {
        Some(atom) if atom.eq_str("normal") => ForgetReason::Normal,
        Some(atom) if atom.eq_str("shutdown") => ForgetReason::Shutdown,
        // A process that traps exits can be told to die so, and may do it.
        Some(atom) if atom.eq_str("killed") || atom.eq_str("kill") => ForgetReason::Killed,
        Some(atom) if atom.eq_str("noproc") => ForgetReason::Noproc,
        Some(atom) if atom.eq_str("noconnection") => ForgetReason::Noconnection,
        Some(atom) if atom.eq_str("timeout") => ForgetReason::Timeout,
        _ => ForgetReason::Crashed,
    }
}

/// With which reason our process for a foreign engine ends, as a term.
pub fn put_exit_reason(out: &mut Vec<u8>, reason: ForgetReason) {
    match reason {
        ForgetReason::Withdrawn => term::put_atom(out, "noproc"),
        ForgetReason::Normal
        | ForgetReason::Shutdown
        | ForgetReason::Killed
        | ForgetReason::Noproc
        | ForgetReason::Noconnection
        | ForgetReason::Timeout => term::put_atom(out, reason.name()),
        ForgetReason::Crashed => {
            term::put_tuple_header(out, 2);
            term::put_atom(out, "remote_exit");
            term::put_atom(out, "crashed");
        }
    }
}

pub type Engines = HashMap<Box<str>, Arc<Publication>>;

/// How long an answer of `rex` may take.
pub(crate) const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// When we look again for a process that had a registered name.
const RESTARTED_AFTER: [std::time::Duration; 5] = [
    std::time::Duration::from_millis(20),
    std::time::Duration::from_millis(200),
    std::time::Duration::from_millis(800),
    std::time::Duration::from_secs(2),
    std::time::Duration::from_secs(7),
];
