//! Fixed identities, networks and randomness.

use std::sync::Arc;

use legation_channel::link::LinkRandom;
use legation_channel::tls::{LinkKey, TlsContext};
use legation_proto::identity::{NetworkKey, RealmId};
use legation_proto::keyring::Keyring;
use legation_proto::UnixMs;

/// When virtual time begins.
pub const START: UnixMs = 1_800_000_000_000;

/// A realm with its keys, as one start of a process has them.
#[derive(Clone)]
pub struct Realm {
    pub keyring: Arc<Keyring>,
    pub tls: Arc<TlsContext>,
}

impl Realm {
    /// The realm number `seed`; the same one each time.
    pub fn number(seed: u8) -> Realm {
        Realm::of(Keyring::new(&[seed; 32], &derived(&[seed, 1])), derived(&[seed, 2]))
    }

    pub fn of(keyring: Keyring, link_seed: [u8; 32]) -> Realm {
        Realm { keyring: Arc::new(keyring), tls: TlsContext::new(&LinkKey::generate(link_seed)) }
    }

    pub fn alice() -> Realm {
        Realm::number(1)
    }

    pub fn bob() -> Realm {
        Realm::number(2)
    }

    pub fn id(&self) -> RealmId {
        self.keyring.realm_id()
    }

    pub fn key(&self) -> [u8; 32] {
        *self.keyring.public()
    }
}

pub fn network() -> NetworkKey {
    NetworkKey::new([9; 32])
}

fn derived(input: &[u8]) -> [u8; 32] {
    *blake3::hash(input).as_bytes()
}

/// Randomness for one end of run number `run`, the same each time.
pub fn fixed_random(run: u32, end: u8) -> LinkRandom {
    let part = |which: u8| derived(&[&run.to_le_bytes()[..], &[end, which]].concat());
    let mut knock = [0; 16];
    knock.copy_from_slice(&part(0)[..16]);
    LinkRandom { knock, nonce: part(1), ephemeral: part(2), session: part(3) }
}

/// Real randomness, for real sockets.
///
/// # Panics
/// When the operating system has none.
pub fn fresh_random() -> LinkRandom {
    let mut bytes = [0; 112];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    let part = |at: usize| {
        let mut part = [0; 32];
        part.copy_from_slice(&bytes[at..at + 32]);
        part
    };
    let mut knock = [0; 16];
    knock.copy_from_slice(&bytes[96..]);
    LinkRandom { knock, nonce: part(0), ephemeral: part(32), session: part(64) }
}
