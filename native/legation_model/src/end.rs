//! A realm's driver: what it has published, what it has learned, whom it has called, and its session. It does what NIF and daemon do when
//! a link comes up, brings something, or ends.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use legation_proto::frame::batch::Refusal;
use legation_proto::frame::cert::Cert;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use legation_proto::session::{Acknowledge, NewCall, Session};
use rust_tests::pair::Seen;
use rust_tests::realm::{network, Realm, START};

use crate::action::{Planted, Who};

/// `ping`, and the like.
pub fn name(engine: u8) -> String {
    format!("e{engine}")
}

/// An atom, in external term format.
const PAYLOAD: &[u8] = b"\x83w\x02hi";
/// A pid on `a`.
const CALLER: &[u8] = b"Xw\x01a\0\0\0\x01\0\0\0\0\0\0\0\x01";

/// What has been seen on the way here that is worth to have been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seldom {
    pub answered: bool,
    /// A call ended with its engine, or was refused because that had gone.
    pub engine_gone: bool,
    /// A call ended with its session.
    pub session_gone: bool,
    pub learned_again: bool,
    /// Something came again on another link, and was passed over.
    pub replayed: bool,
    pub replaced: bool,
}

pub struct End {
    pub who: Who,
    pub realm: Realm,
    pub session: Option<Arc<Session>>,
    /// The link that the session has.
    pub link: Option<u8>,
    /// With the serial of its last announcement.
    pub published: BTreeMap<String, u64>,
    pub serial: u64,
    pub learned: BTreeMap<String, u64>,
    /// Whatever was ever learned, over sessions and restarts.
    pub newest: BTreeMap<String, u64>,
    /// Calls of ours, by what they are given with, and to whom.
    pub open: BTreeMap<u64, String>,
    pub called: u64,
    pub ended: BTreeSet<u64>,
    /// An acknowledgement waits for its timer.
    pub acknowledging: bool,
    pub seldom: Seldom,
    /// What does not hold.
    pub wrong: Option<String>,
    /// All that it has been given that it can tell.
    pub history: u64,
    planted: Option<Planted>,
    /// There are messages to be signed.
    certifies: bool,
    /// With [`Planted::ForgetIsOvertaken`].
    held_back: Vec<(bool, String)>,
}

impl End {
    pub fn new(who: Who, certifies: bool, planted: Option<Planted>) -> End {
        let realm = match who {
            Who::Alice => Realm::alice(),
            Who::Bob => Realm::bob(),
        };
        End {
            who,
            realm,
            session: None,
            link: None,
            published: BTreeMap::new(),
            serial: START * 1_000,
            learned: BTreeMap::new(),
            newest: BTreeMap::new(),
            open: BTreeMap::new(),
            called: 0,
            ended: BTreeSet::new(),
            acknowledging: false,
            seldom: Seldom::default(),
            wrong: None,
            history: 0,
            planted,
            certifies,
            held_back: Vec::new(),
        }
    }

    /// It has been given this.
    pub fn note(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.history, what).hash(&mut hasher);
        self.history = hasher.finish();
    }

    /// Nothing is left of its past but this, whatever it was.
    fn forget_history(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (what, &self.published, self.serial, &self.newest, &self.learned, &self.open).hash(&mut hasher);
        (self.called, &self.ended, self.seldom, &self.wrong, &self.held_back).hash(&mut hasher);
        self.history = hasher.finish();
    }

    pub fn is_wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// A session without a link.
    pub fn is_lost(&self) -> bool {
        self.session.is_some() && self.link.is_none()
    }

    pub fn count(&self, counter: &str) -> u64 {
        let all = self.session.iter().flat_map(|session| session.counters().all());
        all.filter(|(name, _)| *name == counter).map(|(_, value)| value).sum()
    }

    // What its user does. True: the writer has to be woken.

    pub fn publish(&mut self, engine: u8) -> bool {
        let name = name(engine);
        self.note(("publish", engine));
        self.published.insert(name.clone(), 0);
        self.announce(true, &name)
    }

    pub fn withdraw(&mut self, engine: u8) -> bool {
        let name = name(engine);
        self.note(("withdraw", engine));
        let last = self.published.remove(&name).unwrap_or_default();
        if self.planted == Some(Planted::ForgetIsNotNewer) {
            self.serial = last - 1;
        }
        self.announce(false, &name)
    }

    fn announce(&mut self, learn: bool, name: &str) -> bool {
        if self.is_lost() {
            match self.planted {
                Some(Planted::ForgetIsLost) if !learn => return false,
                Some(Planted::ForgetIsOvertaken) => {
                    self.held_back.push((learn, name.to_owned()));
                    self.held_back.sort_by_key(|(learn, _)| !learn);
                    return false;
                }
                _ => {}
            }
        }
        self.say(learn, name)
    }

    fn say(&mut self, learn: bool, name: &str) -> bool {
        let Some(session) = self.session.clone() else { return false };
        self.serial += 1;
        let (realm, engine, serial) = (self.realm.id(), name.to_owned(), self.serial);
        let (kind, purpose, body) = match learn {
            true => {
                let key = self.realm.keyring.engine_public(name);
                let (not_before, not_after, version, operations, delegate) = (0, 0, 0, 7, true);
                let learn = Learn { realm, engine, key, serial, not_before, not_after, version, operations, delegate };
                if let Some(last) = self.published.get_mut(name) {
                    *last = serial;
                }
                (FrameType::Learn, Purpose::Learn, learn.body())
            }
            false => {
                let forget = Forget { realm, engine, serial, reason: ForgetReason::Withdrawn };
                (FrameType::Forget, Purpose::Forget, forget.body())
            }
        };
        self.signed(&session, kind, purpose, body)
    }

    /// The key that signs for the realm while the session lasts.
    fn certify(&mut self) -> bool {
        let Some(session) = self.session.clone() else { return false };
        self.serial += 1;
        let key = self.realm.keyring.online_public();
        let (not_before, not_after) = (START, START + 3_600_000);
        let cert = Cert { realm: self.realm.id(), key, not_before, not_after, serial: self.serial };
        self.signed(&session, FrameType::Cert, Purpose::Cert, cert.body())
    }

    fn signed(&self, session: &Session, kind: FrameType, purpose: Purpose, mut body: Vec<u8>) -> bool {
        let signature = self.realm.keyring.sign(purpose, &network().id(), &body).expect("the identity is here");
        body.extend_from_slice(&signature);
        session.announce(kind, &body)
    }

    pub fn call(&mut self, engine: u8) -> bool {
        let (name, context) = (name(engine), self.called);
        self.note(("call", engine));
        self.called += 1;
        let Some(session) = self.session.clone() else { return false };
        let context_bytes = context.to_be_bytes();
        let call = NewCall {
            destination: &name,
            label: 1,
            source: "",
            caller: CALLER,
            context: &context_bytes,
            payload: PAYLOAD,
        };
        match session.push_call(START, &call) {
            Ok(pushed) => {
                self.open.insert(context, name);
                pushed.wake
            }
            Err(error) => {
                self.is_wrong(format!("a call is refused: {error}"));
                false
            }
        }
    }

    // What a link brings.

    /// A link is up with a session of its own: what was before has ended.
    pub fn begins(&mut self, session: Arc<Session>, link: u8, came: u64) -> bool {
        self.end_session();
        self.session = Some(session);
        self.link = Some(link);
        self.acknowledging = false;
        self.forget_history(("begins", link, came));
        let names: Vec<String> = match self.planted {
            Some(Planted::NewSessionIsNotTold) => Vec::new(),
            _ => self.published.keys().cloned().collect(),
        };
        let certified = self.certifies && self.certify();
        names.iter().fold(certified, |wake, name| self.say(true, name) | wake)
    }

    /// The session has another link.
    pub fn goes_on(&mut self, link: u8) -> bool {
        self.link = Some(link);
        std::mem::take(&mut self.held_back).iter().fold(false, |wake, (learn, name)| self.say(*learn, name) | wake)
    }

    pub fn link_is_gone(&mut self, link: u8) {
        self.note(("gone", link));
        if self.link == Some(link) {
            self.link = None;
        }
    }

    /// True: the writer has to be woken.
    pub fn event(&mut self, event: Seen) -> bool {
        match event {
            Seen::Learned(learn) => {
                let newest = self.newest.insert(learn.engine.clone(), learn.serial);
                if newest.is_some_and(|newest| newest >= learn.serial) {
                    self.is_wrong(format!("{} is learned again, and is no newer", learn.engine));
                }
                self.seldom.learned_again |= newest.is_some();
                self.learned.insert(learn.engine, learn.serial);
                false
            }
            Seen::Forgotten { engine, .. } => {
                if self.learned.remove(&engine).is_none() {
                    self.is_wrong(format!("{engine} is forgotten, and was not known"));
                }
                let to: Vec<u64> = self.open.iter().filter(|(_, to)| **to == engine).map(|(call, _)| *call).collect();
                self.seldom.engine_gone |= !to.is_empty();
                if self.planted != Some(Planted::CallsOutliveEngine) {
                    to.into_iter().for_each(|call| self.call_ends(call));
                }
                false
            }
            Seen::Call { destination, call_id, .. } => {
                let Some(session) = self.session.clone() else { return false };
                match self.published.contains_key(&destination) {
                    true => session.reply(call_id, PAYLOAD).is_ok_and(|pushed| pushed.wake),
                    false => session.refuse(call_id, Refusal::Noproc),
                }
            }
            Seen::Reply { context, .. } => {
                self.seldom.answered = true;
                self.call_ends(number(&context));
                false
            }
            Seen::Refused { context, .. } => {
                self.seldom.engine_gone = true;
                self.call_ends(number(&context));
                false
            }
            _ => false,
        }
    }

    fn call_ends(&mut self, call: u64) {
        if self.open.remove(&call).is_none() || !self.ended.insert(call) {
            self.is_wrong(format!("call {call} ends again, or was never made"));
        }
    }

    /// All that a read has brought is handled. True: the writer has to be woken.
    pub fn delivered(&mut self) -> bool {
        let Some(session) = self.session.clone() else { return false };
        self.seldom.replayed |= self.count("replayed") > 0;
        match session.delivered() {
            Acknowledge::Wake => true,
            Acknowledge::Later => {
                self.acknowledging = true;
                false
            }
            Acknowledge::Nothing => false,
        }
    }

    pub fn acknowledge(&mut self) -> bool {
        self.note("acknowledge");
        self.acknowledging = false;
        self.session.as_ref().is_some_and(|session| session.acknowledge_now())
    }

    // Ends.

    pub fn grace_is_over(&mut self) {
        self.end_session();
        self.forget_history("grace");
    }

    fn end_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        session.end();
        self.seldom.replaced = true;
        self.link = None;
        self.acknowledging = false;
        self.held_back.clear();
        if self.planted != Some(Planted::DirectoryOutlivesSession) {
            self.learned.clear();
        }
        if self.planted != Some(Planted::CallsOutliveSession) {
            let open: Vec<u64> = self.open.keys().copied().collect();
            self.seldom.session_gone |= !open.is_empty();
            open.into_iter().for_each(|call| self.call_ends(call));
        }
    }

    /// Its callers have ended with it, and its proxies. Engines start with the system.
    pub fn restart(&mut self) {
        self.session = None;
        self.link = None;
        self.acknowledging = false;
        self.learned.clear();
        self.open.clear();
        self.held_back.clear();
        if self.planted == Some(Planted::SerialsBeginAgain) {
            self.serial = START * 1_000;
        }
        self.forget_history("restart");
    }
}

fn number(context: &[u8]) -> u64 {
    context.try_into().map_or(u64::MAX, u64::from_be_bytes)
}
