//! A realm: keys, clock, processes and peers, as one boot of a system has them; and what it keeps on disk over a crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use legation_channel::knock::{KnockMemory, KnockSettings};
use legation_channel::tls::{LinkKey, TlsContext};
use legation_proto::error::CloseCode;
use legation_proto::identity::{NetworkKey, RealmId};
use legation_proto::keyring::Keyring;
use legation_proto::rotation::{Revocation, Rotation};
use legation_proto::session::Session;
use legation_proto::UnixMs;

use crate::keyholding::Agent;
use crate::ledger::{SessionId, Target};
use crate::payload::Process;

/// When virtual time begins.
pub const START: UnixMs = 1_800_000_000_000;

pub fn network() -> NetworkKey {
    NetworkKey::new([9; 32])
}

/// What a restart finds.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub seed: [u8; 32],
    pub chain: Vec<Rotation>,
    pub revocation: Option<Revocation>,
    pub heads: BTreeMap<[u8; 32], Vec<u8>>,
}

pub struct Realm {
    pub id: u8,
    /// The first identity key: what others have on their lists.
    pub key: [u8; 32],
    pub realm_id: RealmId,
    pub disk: Disk,
    pub keyring: Arc<Keyring>,
    /// Who has the identity key, where the keyring has not.
    pub agent: Option<Agent>,
    pub tls: Arc<TlsContext>,
    pub knocks: Arc<Mutex<KnockMemory>>,
    pub boot: u32,
    pub alive: bool,
    /// It takes nobody in and dials nobody.
    pub drained: bool,
    pub revoked: bool,
    pub rotated_us: u64,
    pub clock_ms: i64,
    pub clock_ppm: i64,
    pub serial: u64,
    pub engines: BTreeMap<String, Process>,
    pub clients: Vec<Process>,
    pub last_process: u32,
    /// By the number of the other realm; None at its own.
    pub peers: Vec<Option<Peer>>,
}

/// A realm on another's list.
pub struct Peer {
    pub key: [u8; 32],
    pub realm_id: RealmId,
    pub dials: bool,
    pub session: Option<Sess>,
    /// Connections that are up, the oldest first.
    pub links: Vec<Up>,
    pub active: Option<usize>,
    pub closing: Option<CloseCode>,
    /// What was queued there goes into the next session.
    pub before: Option<Arc<Session>>,
    pub dial: Option<Dial>,
    /// Of the wait for the next dial, and of the session's grace: what was begun before another of it is nothing.
    pub dial_turn: u32,
    pub grace_turn: u32,
    pub attempts: u32,
    pub revoked: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Up {
    pub conn: usize,
    pub initiator: bool,
    pub up_us: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Dial {
    pub conn: usize,
    pub started_us: u64,
    pub additional: bool,
}

/// A session as its driver and the processes that use it know it.
pub struct Sess {
    pub tag: u64,
    pub core: Arc<Session>,
    pub id: SessionId,
    /// There is no link.
    pub lost: bool,
    pub draining: bool,
    pub acknowledging: bool,
    pub looking: bool,
    pub goodbye: bool,
    /// Engines of the peer's, their proxies here, and their keys.
    pub learned: BTreeMap<String, (Process, [u8; 32])>,
    /// FORGETs that we have sent of a name, and that have come.
    pub forgets_sent: BTreeMap<String, u32>,
    pub forgets_came: BTreeMap<String, u32>,
    pub calls: BTreeMap<u64, OpenCall>,
    /// Calls of the peer's that are being served, by the core's number: the message's.
    pub serving: BTreeMap<u64, u64>,
    pub stand_ins: BTreeMap<u64, Process>,
    pub exports: BTreeMap<u64, Process>,
    pub monitors: BTreeMap<u64, Watched>,
    pub waiters: BTreeMap<u64, String>,
}

#[derive(Clone, Debug)]
pub struct OpenCall {
    pub call_id: u64,
    pub target: Target,
    /// The peer's number for the process, of a call to one.
    pub number: Option<u64>,
    pub caller: Process,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    Engine(String),
    StandIn(u64),
}

impl Sess {
    pub fn new(tag: u64, core: Arc<Session>) -> Sess {
        Sess {
            tag,
            id: core.agreed().session,
            core,
            lost: false,
            draining: false,
            acknowledging: false,
            looking: false,
            goodbye: false,
            learned: BTreeMap::new(),
            forgets_sent: BTreeMap::new(),
            forgets_came: BTreeMap::new(),
            calls: BTreeMap::new(),
            serving: BTreeMap::new(),
            stand_ins: BTreeMap::new(),
            exports: BTreeMap::new(),
            monitors: BTreeMap::new(),
            waiters: BTreeMap::new(),
        }
    }
}

impl Peer {
    pub fn new(key: [u8; 32], dials: bool) -> Peer {
        Peer {
            key,
            realm_id: RealmId::of(&key),
            dials,
            session: None,
            links: Vec::new(),
            active: None,
            closing: None,
            before: None,
            dial: None,
            dial_turn: 0,
            grace_turn: 0,
            attempts: 0,
            revoked: false,
        }
    }

    /// Everything that a crash takes.
    pub fn restarted(&self) -> Peer {
        Peer {
            dial_turn: self.dial_turn + 1,
            grace_turn: self.grace_turn + 1,
            revoked: self.revoked,
            ..Peer::new(self.key, self.dials)
        }
    }
}

impl Realm {
    pub fn new(id: u8, random: &mut fastrand::Rng, clock: (i64, i64), external: bool) -> Realm {
        let mut disk = Disk::default();
        random.fill(&mut disk.seed);
        let mut keyring = Keyring::new(&disk.seed, &drawn(random));
        let key = *keyring.public();
        let agent = external.then(|| Agent::new(&disk.seed, &drawn(random)));
        if external {
            keyring = held_elsewhere(key, random);
        }
        Realm {
            id,
            key,
            realm_id: RealmId::of(&key),
            disk,
            keyring: Arc::new(keyring),
            agent,
            tls: TlsContext::new(&LinkKey::generate(drawn(random))),
            // It has been up for a while.
            knocks: knocks((START as i64 + clock.0) as u64 - 60_000),
            boot: 1,
            alive: true,
            drained: false,
            revoked: false,
            rotated_us: 0,
            clock_ms: clock.0,
            clock_ppm: clock.1,
            serial: 0,
            engines: BTreeMap::new(),
            clients: Vec::new(),
            last_process: 0,
            peers: Vec::new(),
        }
    }

    pub fn unix_ms(&self, now_us: u64) -> UnixMs {
        let drifted = now_us as i64 / 1_000 * (1_000_000 + self.clock_ppm) / 1_000_000;
        (START as i64 + self.clock_ms + drifted) as u64
    }

    /// How long it takes until this clock has gone on by so much, µs.
    pub fn wait_us(&self, ms: u64) -> u64 {
        (ms as i64 * 1_000 * 1_000_000 / (1_000_000 + self.clock_ppm)) as u64
    }

    /// Microseconds since 1970, or one more than the last (`protocol.md` 11.4).
    pub fn next_serial(&mut self, now_us: u64) -> u64 {
        self.serial = (self.serial + 1).max(self.unix_ms(now_us) * 1_000);
        self.serial
    }

    pub fn spawn(&mut self) -> Process {
        self.last_process += 1;
        Process { realm: self.id, boot: self.boot, number: self.last_process }
    }

    /// Another boot, with what is on disk. `heads`: what it has seen of others' keys is there, too.
    pub fn boot(&mut self, heads: bool, random: &mut fastrand::Rng, now_us: u64) {
        self.boot += 1;
        let keyring = match &mut self.agent {
            Some(agent) => {
                *agent = Agent::new(&self.disk.seed, &drawn(random));
                held_elsewhere(self.key, random)
            }
            None => Keyring::new(&self.disk.seed, &drawn(random)),
        };
        let chained = keyring.with_chain(self.disk.chain.clone(), self.disk.revocation.clone());
        self.keyring = Arc::new(chained.expect("what a realm has written down itself"));
        if heads {
            for head in self.disk.heads.values() {
                self.keyring.heads().restore(head).expect("what a realm has written down itself");
            }
        }
        self.tls = TlsContext::new(&LinkKey::generate(drawn(random)));
        self.knocks = knocks(self.unix_ms(now_us));
        (self.alive, self.drained) = (true, false);
        self.serial = 0;
        self.engines.clear();
        self.clients.clear();
        self.last_process = 0;
        self.peers = self.peers.iter().map(|peer| peer.as_ref().map(Peer::restarted)).collect();
    }

    /// What is to be found after a crash.
    pub fn write_heads(&mut self) {
        for (realm, head) in self.keyring.heads().take_changed() {
            self.disk.heads.insert(realm.0, head);
        }
    }
}

/// Its engines have other keys after each start.
fn held_elsewhere(key: [u8; 32], random: &mut fastrand::Rng) -> Keyring {
    Keyring::external(key, drawn(random), &drawn(random)).expect("a public key as good as any")
}

fn knocks(now: UnixMs) -> Arc<Mutex<KnockMemory>> {
    Arc::new(Mutex::new(KnockMemory::new(KnockSettings::default(), now)))
}

pub fn drawn<const N: usize>(random: &mut fastrand::Rng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}
