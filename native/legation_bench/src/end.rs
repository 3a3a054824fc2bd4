//! The two realms of the benchmark, and what their links are made of. Their keys are no secret.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use legation_channel::channel::Profile;
use legation_channel::knock::{KnockMemory, KnockSettings};
use legation_channel::link::{Link, LinkConfig, LinkRandom};
use legation_channel::tls::{LinkKey, TlsContext};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::identity::{NetworkKey, Purpose};
use legation_proto::keyring::Keyring;
use legation_proto::limits::Limits;
use legation_proto::session::Session;
use legation_proto::UnixMs;

use crate::Outcome;

#[derive(Clone, Copy)]
pub enum Role {
    Client = 1,
    Server = 2,
}

pub struct Realm {
    pub keyring: Arc<Keyring>,
    pub tls: Arc<TlsContext>,
    knocks: Arc<Mutex<KnockMemory>>,
}

impl Realm {
    pub fn new(role: Role) -> Realm {
        Realm::numbered(role, 0)
    }

    /// One of many that have the same role.
    pub fn numbered(role: Role, number: u64) -> Realm {
        let seed = |part: u8| {
            let mut seed = [part; 32];
            seed[0] = role as u8;
            seed[1..9].copy_from_slice(&number.to_le_bytes());
            seed
        };
        // As if it had been up for long: nobody has to wait for it.
        let knocks = KnockMemory::new(KnockSettings::default(), now().saturating_sub(60_000));
        Realm {
            keyring: Arc::new(Keyring::new(&seed(1), &seed(2))),
            tls: TlsContext::new(&LinkKey::generate(seed(3))),
            knocks: Arc::new(Mutex::new(knocks)),
        }
    }

    /// Dials the realm with this key. On tcp strangers could, so there is a knock.
    pub fn connect(&self, profile: Profile, peer: &[u8; 32]) -> Outcome<Link> {
        Ok(Link::connect(self.config(profile)?, peer, profile != Profile::Local, None)?)
    }

    pub fn accept(&self, profile: Profile) -> Outcome<Link> {
        let knocks = (profile != Profile::Local).then(|| self.knocks.clone());
        Ok(Link::accept_from(self.config(profile)?, knocks)?)
    }

    fn config(&self, profile: Profile) -> Outcome<LinkConfig> {
        Ok(LinkConfig {
            profile,
            keyring: self.keyring.clone(),
            network: NetworkKey::none(),
            tls: self.tls.clone(),
            limits: Limits::default(),
            random: random()?,
            now: now(),
        })
    }

    /// Tells the peer our online key, and of our engines: what these send is signed with their own keys then.
    pub fn announce(&self, session: &Session, engines: &[String]) -> Outcome<()> {
        let (realm, now) = (self.keyring.realm_id(), now());
        let key = self.keyring.online_public();
        let cert = Cert { realm, key, not_before: now - 60_000, not_after: now + 3_600_000, serial: now };
        self.signed(session, FrameType::Cert, Purpose::Cert, cert.body())?;
        for (engine, serial) in engines.iter().zip(now + 1..) {
            let learn = Learn {
                realm,
                engine: engine.clone(),
                key: self.keyring.engine_public(engine),
                serial,
                not_before: 0,
                not_after: 0,
                version: 0,
                operations: 7,
                delegate: true,
            };
            self.signed(session, FrameType::Learn, Purpose::Learn, learn.body())?;
        }
        Ok(())
    }

    fn signed(&self, session: &Session, kind: FrameType, purpose: Purpose, mut body: Vec<u8>) -> Outcome<()> {
        let signature = self.keyring.sign(purpose, &NetworkKey::none().id(), &body)?;
        body.extend_from_slice(&signature);
        session.announce(kind, &body);
        Ok(())
    }
}

/// Sources and engines have the names that the BEAMs' have.
pub fn names(letter: char, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{letter}{number}")).collect()
}

pub fn now() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as UnixMs)
}

pub fn random() -> Outcome<LinkRandom> {
    fn fill<const N: usize>() -> Outcome<[u8; N]> {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes)?;
        Ok(bytes)
    }
    Ok(LinkRandom { knock: fill()?, nonce: fill()?, ephemeral: fill()?, session: fill()? })
}

/// The term `{payload, <<…>>}`, which the BEAMs cast, too.
pub fn term(bytes: usize) -> Vec<u8> {
    let mut term = vec![131, 104, 2, 119, 7];
    term.extend_from_slice(b"payload");
    term.push(109);
    term.extend_from_slice(&(bytes as u32).to_be_bytes());
    term.resize(term.len() + bytes, 0x5a);
    term
}

/// The term `<<Number:64>>`.
pub fn number_term(number: u64) -> Vec<u8> {
    let mut term = vec![131, 109, 0, 0, 0, 8];
    term.extend_from_slice(&number.to_be_bytes());
    term
}

/// What [`number_term`] holds.
pub fn number_of(term: &[u8]) -> Option<u64> {
    let digits: [u8; 8] = term.strip_prefix(&[131, 109, 0, 0, 0, 8])?.try_into().ok()?;
    Some(u64::from_be_bytes(digits))
}
