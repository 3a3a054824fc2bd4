//! Identities that are held elsewhere (`key-agent.md`): a realm asks its agent for each signature, and goes on meanwhile.
//!
//! ```text
//!  link, publication, withdrawal, certificate ── ask ──► agent      after a drawn while, in any order: a signature,
//!        ▲                                                 │        a refusal, one by another key, or nothing
//!        └───────────────── answer, by its number ◄────────┘
//! ```
//!
//! A link that doesn't get signed doesn't come about; an engine that doesn't is not published; the end of one is asked for until it is
//! signed, and nobody takes its name before.

use std::collections::{BTreeMap, BTreeSet};

use legation_proto::error::CloseCode;
use legation_proto::frame::cert::Cert;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::hello::SignRequest;
use legation_proto::identity::{check_public_key, verify, Purpose};
use legation_proto::keyring::{Keyring, KeyringError};
use legation_proto::session::Wake;

use crate::ledger::Invariant;
use crate::payload::Process;
use crate::peers::CERT_MS;
use crate::realm::{drawn, network};
use crate::wire::{At, Phase, Why};
use crate::world::{Happening, Of, Sabotage, World};

/// A realm waits for no answer longer than that.
const ANSWER_US: u64 = 5_000_000;
/// When nothing goes wrong any more, agents are no slower than that.
const PROMPT_US: u64 = 100_000;
/// Between one try to have an end signed and the next.
const RETRY_US: u64 = 1_000_000;

/// Who holds a realm's key, and what has been signed for this boot of the realm.
pub struct Agent {
    keyring: Keyring,
    certificate: Vec<u8>,
    /// The LEARN of each engine that is published.
    learns: BTreeMap<String, Vec<u8>>,
    /// Engines whose LEARN is with the agent, and those whose FORGET is.
    publishing: BTreeSet<String>,
    forgetting: BTreeSet<String>,
    certifying: bool,
}

/// What a signature was asked for.
pub struct Ask {
    realm: usize,
    boot: u32,
    request: u64,
    purpose: Purpose,
    body: Vec<u8>,
    what: What,
    /// Nobody waits any more: it was answered, or has taken too long.
    over: bool,
}

/// The end of an engine, which these sessions are to hear of.
#[derive(Clone, Debug)]
pub struct End {
    name: String,
    sessions: Vec<Of>,
    reason: ForgetReason,
}

#[derive(Clone, Debug)]
enum What {
    Link(At),
    Publication { name: String, process: Process },
    End(End),
    Certificate,
}

/// How an agent comes to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Signature,
    Twice,
    Refusal,
    AnotherKey,
    Nothing,
}

impl Agent {
    pub fn new(seed: &[u8; 32], online_seed: &[u8; 32]) -> Agent {
        Agent {
            keyring: Keyring::new(seed, online_seed),
            certificate: Vec::new(),
            learns: BTreeMap::new(),
            publishing: BTreeSet::new(),
            forgetting: BTreeSet::new(),
            certifying: false,
        }
    }

    pub fn learn(&self, name: &str) -> Option<Vec<u8>> {
        self.learns.get(name).cloned()
    }

    pub fn certificate(&self) -> Vec<u8> {
        self.certificate.clone()
    }
}

impl World {
    /// A realm with an agent has its online key certified before anything else: without that it doesn't start.
    pub fn certify_at_start(&mut self, realm: usize) {
        let body = self.certificate_body(realm);
        if let Some(agent) = self.realms[realm].agent.as_mut() {
            agent.certificate = signed(&agent.keyring, Purpose::Cert, body);
        }
    }

    /// Before the certificate in force runs out there is another; one at a time is asked for.
    pub fn certify(&mut self, realm: usize) {
        let Some(agent) = self.realms[realm].agent.as_mut() else { return };
        if !std::mem::replace(&mut agent.certifying, true) {
            self.stats.operation("certificates");
            let body = self.certificate_body(realm);
            self.ask(realm, 0, Purpose::Cert, body, What::Certificate);
        }
    }

    pub fn certificate_body(&mut self, realm: usize) -> Vec<u8> {
        let (realm, now) = (&mut self.realms[realm], self.now_us);
        let not_before = realm.unix_ms(now);
        let serial = realm.next_serial(now);
        let key = realm.keyring.online_public();
        Cert { realm: realm.realm_id, key, not_before, not_after: not_before + CERT_MS, serial }.body()
    }

    pub fn learn_body(&mut self, realm: usize, name: &str) -> Vec<u8> {
        let realm = &mut self.realms[realm];
        let serial = realm.next_serial(self.now_us);
        let learn = Learn {
            realm: realm.realm_id,
            engine: name.to_owned(),
            key: realm.keyring.engine_public(name),
            serial,
            not_before: 0,
            not_after: 0,
            version: 0,
            operations: 0xff,
            // Some engines sign for themselves in all modes.
            delegate: !name.ends_with('1'),
        };
        learn.body()
    }

    pub fn forget_body(&mut self, realm: usize, name: &str, reason: ForgetReason) -> Vec<u8> {
        let realm = &mut self.realms[realm];
        let serial = realm.next_serial(self.now_us);
        Forget { realm: realm.realm_id, engine: name.to_owned(), serial, reason }.body()
    }

    /// An engine is there when it is signed, and no sooner. False: it has no agent's signature to wait for.
    pub fn publish_by_agent(&mut self, realm: usize, name: &str, process: Process) -> bool {
        let overtakes = self.sabotage == Some(Sabotage::OvertakeEnd);
        let Some(agent) = self.realms[realm].agent.as_mut() else { return false };
        if agent.forgetting.contains(name) && !overtakes || !agent.publishing.insert(name.to_owned()) {
            return true;
        }
        let body = self.learn_body(realm, name);
        self.ask(realm, 0, Purpose::Learn, body, What::Publication { name: name.to_owned(), process });
        true
    }

    /// The engine has ended already; who knows it hears of that when it is signed. False: as above.
    pub fn forget_by_agent(&mut self, realm: usize, name: &str, reason: ForgetReason) -> bool {
        let sessions = self.sessions(realm);
        let Some(agent) = self.realms[realm].agent.as_mut() else { return false };
        agent.learns.remove(name);
        agent.forgetting.insert(name.to_owned());
        self.ask_for_end(realm, End { name: name.to_owned(), sessions, reason });
        true
    }

    fn ask_for_end(&mut self, realm: usize, end: End) {
        let body = self.forget_body(realm, &end.name, end.reason);
        self.ask(realm, 0, Purpose::Forget, body, What::End(end));
    }

    pub fn ask_for_link(&mut self, at: At, request: SignRequest) {
        let Some(realm) = self.realm_at(at) else { return };
        if self.realms[realm].agent.is_none() {
            return self.violate(Invariant::RulesKept, format!("{realm} has its key, and is asked for {request:?}"));
        }
        self.ask(realm, request.id, request.purpose, request.body, What::Link(at));
    }

    fn ask(&mut self, realm: usize, request: u64, purpose: Purpose, body: Vec<u8>, what: What) {
        let boot = self.realms[realm].boot;
        self.last_ask += 1;
        let number = self.last_ask;
        self.asks.insert(number, Ask { realm, boot, request, purpose, body, what, over: false });
        self.after(ANSWER_US, Happening::GivesUp { ask: number });
        let (low, mut high) = self.plan.signing_us;
        if !self.active {
            high = high.min(PROMPT_US);
        }
        let wait = self.random.u64(low..=high);
        match self.how_it_answers() {
            Answer::Nothing => self.stats.fault("signature withheld"),
            Answer::Refusal => {
                self.stats.fault("signature refused");
                self.after(wait, Happening::Signed { ask: number, signature: None });
            }
            how => {
                let another = Keyring::new(&drawn(&mut self.random), &[0; 32]);
                let Some(agent) = self.realms[realm].agent.as_ref() else { return };
                let keyring = if how == Answer::AnotherKey { &another } else { &agent.keyring };
                let signature = keyring.sign(purpose, &network().id(), &self.asks[&number].body).ok().map(Box::new);
                if how == Answer::AnotherKey {
                    self.stats.fault("signature by another key");
                }
                if how == Answer::Twice {
                    self.stats.fault("signature twice");
                    let again = wait + self.random.u64(0..=high);
                    self.after(again, Happening::Signed { ask: number, signature: signature.clone() });
                }
                self.after(wait, Happening::Signed { ask: number, signature });
            }
        }
    }

    fn how_it_answers(&mut self) -> Answer {
        let unsigned = self.plan.unsigned_percent;
        if !self.active || !self.chance(unsigned) {
            return Answer::Signature;
        }
        let ways = [Answer::Twice, Answer::Refusal, Answer::AnotherKey, Answer::Nothing];
        self.pick(&ways).unwrap_or(Answer::Signature)
    }

    /// An agent's answer is there, perhaps when nobody waits for it any more. None: a refusal.
    pub fn signed(&mut self, number: u64, signature: Option<Box<[u8; 64]>>) {
        let Some(ask) = self.asks.get(&number) else { return };
        let realm = ask.realm;
        if !self.realms[realm].alive || self.realms[realm].boot != ask.boot {
            return;
        }
        let Ok(key) = check_public_key(&self.realms[realm].key) else { return };
        let ours = |signature: &[u8; 64]| verify(&key, ask.purpose, &network().id(), &ask.body, signature);
        let mixed = self.sabotage == Some(Sabotage::MixSignatures);
        let signature = match signature {
            // What was signed for something else.
            Some(signature) if mixed => Some(self.mixed.replace(signature.clone()).unwrap_or(signature)),
            signature => signature.filter(|signature| ours(signature)),
        };
        let Some(ask) = self.asks.get_mut(&number) else { return };
        let (over, request, what) = (std::mem::replace(&mut ask.over, true), ask.request, ask.what.clone());
        match (what, signature) {
            // The core looks itself which of its requests this answers.
            (What::Link(at), signature) => self.link_is_signed(at, request, signature.as_deref()),
            _ if over => self.stats.fault("signature too late"),
            (what, Some(signature)) => {
                let signed = [&ask.body[..], &signature[..]].concat();
                self.announcement_is_signed(realm, signed, what);
            }
            (what, None) => self.stays_unsigned(realm, what),
        }
    }

    /// It has waited for long enough.
    pub fn gives_up(&mut self, number: u64) {
        let Some(ask) = self.asks.get_mut(&number) else { return };
        let (realm, what) = (ask.realm, ask.what.clone());
        let asks = self.realms[realm].alive && self.realms[realm].boot == ask.boot;
        if std::mem::replace(&mut ask.over, true) || !asks {
            return;
        }
        match what {
            What::Link(at) => self.link_is_signed(at, 0, None),
            _ => self.stays_unsigned(realm, what),
        }
    }

    fn link_is_signed(&mut self, at: At, request: u64, signature: Option<&[u8; 64]>) {
        if self.end(at).phase == Phase::Over {
            let Some(signature) = signature else { return };
            self.stats.fault("signature too late");
            return self.sign_what_is_over(at, request, signature);
        }
        match signature {
            Some(signature) => {
                self.step(at, false, |link, ms, sink| link.handle_signature(ms, request, signature, sink));
            }
            None if self.end(at).phase == Phase::Handshake => {
                self.note(format_args!("{at:?}: the hello is not signed"));
                self.finish(at, Why::Local(CloseCode::Overload));
            }
            None => {}
        }
    }

    /// A link that is over says and does nothing more. One whose carrier broke does not know, and its driver lets it rest.
    fn sign_what_is_over(&mut self, at: At, request: u64, signature: &[u8; 64]) {
        if self.end(at).broke {
            return;
        }
        let (Some(realm), Some(link)) = (self.realm_at(at), self.end(at).link.clone()) else { return };
        let ms = self.realms[realm].unix_ms(self.now_us);
        let mut said = Vec::new();
        let wake = link.handle_signature(ms, request, signature, &mut |event| said.push(format!("{event:?}")));
        if wake != Wake::default() || !said.is_empty() {
            let what = format!("{at:?} is over, and a signature has it do {wake:?} and say {said:?}");
            self.violate(Invariant::RulesKept, what);
        }
    }

    fn announcement_is_signed(&mut self, realm: usize, signed: Vec<u8>, what: What) {
        let Some(agent) = self.realms[realm].agent.as_mut() else { return };
        let (kind, to) = match what {
            What::Link(_) => return,
            What::Certificate => {
                agent.certifying = false;
                agent.certificate.clone_from(&signed);
                (FrameType::Cert, self.sessions(realm))
            }
            What::Publication { name, process } => {
                agent.publishing.remove(&name);
                agent.learns.insert(name.clone(), signed.clone());
                self.realms[realm].engines.insert(name, process);
                (FrameType::Learn, self.sessions(realm))
            }
            What::End(End { name, sessions, .. }) => {
                agent.forgetting.remove(&name);
                for of in &sessions {
                    if let Some(session) = self.session(*of) {
                        *session.forgets_sent.entry(name.clone()).or_default() += 1;
                    }
                }
                (FrameType::Forget, sessions)
            }
        };
        to.into_iter().for_each(|of| self.announce(of, kind, &signed));
    }

    fn stays_unsigned(&mut self, realm: usize, what: What) {
        let Some(agent) = self.realms[realm].agent.as_mut() else { return };
        self.trace.line(self.now_us, format_args!("{realm}'s agent does not sign: {what:?}"));
        match what {
            What::Link(_) => {}
            // The one before holds for a while.
            What::Certificate => agent.certifying = false,
            What::Publication { name, process } => {
                agent.publishing.remove(&name);
                self.ledger.died(process);
            }
            What::End(end) => {
                let boot = self.realms[realm].boot;
                self.after(RETRY_US, Happening::AskAgain { realm, boot, end });
            }
        }
    }

    pub fn ask_again(&mut self, realm: usize, boot: u32, end: End) {
        if self.realms[realm].alive && self.realms[realm].boot == boot {
            self.ask_for_end(realm, end);
        }
    }

    /// What an agent holds is neither replaced nor given up by the realm.
    pub fn rotates_here(&mut self, realm: usize) -> bool {
        let own = &self.realms[realm];
        if own.agent.is_none() {
            return true;
        }
        let ms = own.unix_ms(self.now_us);
        let rotation = own.keyring.sign_rotation(&[1; 32], &network().id(), ms).map(drop);
        let revocation = own.keyring.sign_revocation(&network().id()).map(drop);
        if revocation != Err(KeyringError::External) || rotation.is_ok() {
            let what =
                format!("{realm}, whose key is elsewhere, has it replaced or revoked: {rotation:?}, {revocation:?}");
            self.violate(Invariant::RulesKept, what);
        }
        false
    }
}

pub fn signed(keyring: &Keyring, purpose: Purpose, mut body: Vec<u8>) -> Vec<u8> {
    let signature = keyring.sign(purpose, &network().id(), &body).expect("the key is here");
    body.extend_from_slice(&signature);
    body
}
