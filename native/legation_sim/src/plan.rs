//! What one seed is a run of. Each seed draws its own sizes, bounds, profiles, rates and faults, so that rare things meet in some of
//! them: a run in which everything happens a little shows less than many in which a few things happen a lot.

use legation_channel::channel::Profile;
use legation_proto::limits::{Limits, Overflow};
use legation_proto::signing::{Mode, Modes};

use crate::faults::Fault;

/// Times are in virtual microseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    pub realms: usize,
    /// Peers with a good key that keep no rule, each listed by all realms.
    pub liars: usize,
    /// Between each two realms, as `pair` numbers them.
    pub profiles: Vec<Profile>,
    /// Whether the higher realm of a pair dials, too.
    pub both_dial: Vec<bool>,
    pub limits: Vec<Limits>,
    pub accept: Vec<Modes>,
    /// Of each realm's clock: how far off it is, ms, and how much too fast, millionths.
    pub clocks: Vec<(i64, i64)>,
    pub latency_us: (u64, u64),
    pub window_bytes: usize,
    pub active_us: u64,
    pub operation_us: u64,
    pub fault_us: u64,
    /// What may happen, and how often in relation to the others.
    pub faults: Vec<(Fault, u32)>,
    pub grace_ms: u64,
    pub ack_ms: u64,
    pub burst_max: usize,
    pub large_bytes_max: usize,
    pub engines: usize,
    pub clients: usize,
    /// Receipts are made for all that comes.
    pub receipts: bool,
    /// Realms whose identity key is with an agent.
    pub external: Vec<bool>,
    /// How long an agent takes.
    pub signing_us: (u64, u64),
    /// What it is asked for, and does not sign as it should.
    pub unsigned_percent: u32,
}

/// The number of the pair of two realms.
pub fn pair(one: usize, other: usize) -> usize {
    let (low, high) = (one.min(other), one.max(other));
    high * (high - 1) / 2 + low
}

impl Plan {
    /// `seconds`: of virtual time in which there are faults. None: drawn, too.
    pub fn draw(random: &mut fastrand::Rng, seconds: Option<u64>) -> Plan {
        let realms = random.usize(2..=5);
        let pairs = realms * (realms - 1) / 2;
        let mode = random.choice(Mode::ALL).unwrap_or_default();
        // One engine's destination has a window, and its peer's queue a bound: now narrow, now wide.
        let tight = random.u8(0..3) == 0;
        let identifiers = random.u8(0..4) != 0;
        let limits = (0..realms).map(|_| limits(random, tight, identifiers, mode)).collect();
        let accept = (0..realms)
            .map(|_| match random.u8(0..3) {
                0 => Modes::of([Mode::Delegated]),
                _ => Modes::of(Mode::ALL),
            })
            .collect();
        let mut faults = Vec::new();
        for fault in Fault::ALL {
            if random.u8(0..3) != 0 {
                faults.push((fault, random.u32(1..=10)));
            }
        }
        faults.push((Fault::Cut, 5));
        // TLS draws randomness of its own, and is slow to stand: the cores behind it are the same.
        let profile = |random: &mut fastrand::Rng| match random.u8(0..10) {
            0 => Profile::Tls,
            1..=5 => Profile::Plain,
            _ => Profile::Local,
        };
        let agents = random.u8(0..2) == 0;
        let slowest = random.choice([300, 5_000, 50_000, 200_000]).unwrap_or(300);
        Plan {
            realms,
            liars: usize::from(random.u8(0..3) == 0),
            profiles: (0..pairs).map(|_| profile(random)).collect(),
            both_dial: (0..pairs).map(|_| random.bool()).collect(),
            limits,
            accept,
            clocks: (0..realms).map(|_| (random.i64(-10_000..10_000), random.i64(-200..200))).collect(),
            latency_us: (50, slowest),
            window_bytes: random.choice([16 * 1024, 256 * 1024, 4 * 1024 * 1024]).unwrap_or(256 * 1024),
            active_us: seconds.unwrap_or_else(|| random.u64(5..40)) * 1_000_000,
            operation_us: random.u64(3_000..30_000),
            fault_us: random.u64(20_000..500_000),
            faults,
            grace_ms: random.choice([300, 5_000, 60_000]).unwrap_or(5_000),
            ack_ms: random.u64(1..=50),
            burst_max: random.choice([1, 20, 300]).unwrap_or(20),
            large_bytes_max: random.choice([1_000, 20_000, 300_000]).unwrap_or(1_000),
            engines: random.usize(1..=6),
            clients: random.usize(1..=5),
            receipts: random.u8(0..4) == 0,
            external: (0..realms).map(|_| agents && random.bool()).collect(),
            // Now and then longer than anybody waits.
            signing_us: (50, random.choice([2_000, 100_000, 1_000_000, 8_000_000]).unwrap_or(2_000)),
            unsigned_percent: random.choice([0, 5, 20]).unwrap_or(0),
        }
    }

    pub fn profile(&self, one: usize, other: usize) -> Profile {
        // Liars come to whoever listens, by any.
        self.profiles.get(pair(one, other)).copied().unwrap_or(Profile::Plain)
    }

    pub fn dials(&self, realm: usize, peer: usize) -> bool {
        peer < self.realms && (realm < peer || self.both_dial[pair(realm, peer)])
    }
}

fn limits(random: &mut fastrand::Rng, tight: bool, identifiers: bool, mode: Mode) -> Limits {
    let choose = |random: &mut fastrand::Rng, small: usize, large: usize| {
        if tight {
            small
        } else {
            random.choice([small, large]).unwrap_or(large)
        }
    };
    Limits {
        message_bytes_max: 1024 * 1024,
        engines_max: 64,
        queue_bytes_max: choose(random, 64 * 1024, 16 * 1024 * 1024),
        engine_queue_bytes_max: random.bool().then(|| choose(random, 16 * 1024, 1024 * 1024)),
        calls_max: choose(random, 8, 4_096),
        callers_max: choose(random, 4, 4_096),
        identifiers,
        handles_max: choose(random, 16, 65_536),
        references_max: choose(random, 16, 65_536),
        ping_ms: random.choice([500, 2_000, 15_000]).unwrap_or(2_000),
        resume_bytes_max: match random.u8(0..10) {
            0 => 0,
            _ => choose(random, 32 * 1024, 16 * 1024 * 1024),
        },
        overflow: random.choice([Overflow::Newest, Overflow::Oldest, Overflow::Disconnect]).unwrap_or(Overflow::Newest),
        credit_bytes: random.choice([0, 8 * 1024, 1024 * 1024]).unwrap_or(0),
        fragment_bytes: random.choice([1_000, 16 * 1024, 128 * 1024]).unwrap_or(16 * 1024),
        message_ttl_ms: (random.u8(0..4) == 0).then(|| random.u64(100..5_000)),
        room_waiters_max: 32,
        signing: mode,
        ..Limits::default()
    }
}
