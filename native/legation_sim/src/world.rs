//! Everything there is in one run, what happens next, and when.
//!
//! ```text
//!  seed ─► Plan ─► World ── happenings in order of time ──► links, peers, app ──► Ledger
//!                    ▲                                        │
//!                    └──── faults, hostile ◄──────────────────┘        after plan.active_us: quiet
//! ```
//!
//! One thread, one source of randomness, drawn from in the order in which things happen: a seed is a run.

use std::collections::BTreeMap;

use legation_channel::channel::Profile;
use legation_proto::keyring::Keyring;
use rust_tests::realm::Realm as RawRealm;

use crate::keyholding::{self, Ask};
use crate::ledger::{Invariant, Ledger};
use crate::plan::Plan;
use crate::realm::{drawn, Peer, Realm, Sess};
use crate::stats::Stats;
use crate::trace::Trace;
use crate::wire::{At, Conn, End};

/// What happens at a time. `turn`s tell what is still meant from what isn't.
#[derive(Clone, Debug)]
pub enum Happening {
    Arrives {
        conn: usize,
        from: usize,
    },
    Flush {
        at: At,
    },
    Timer {
        at: At,
        turn: u32,
    },
    Dial {
        realm: usize,
        boot: u32,
        peer: usize,
        turn: u32,
    },
    GraceOver {
        realm: usize,
        boot: u32,
        peer: usize,
        turn: u32,
    },
    /// The rest are of one session of a realm's.
    Acknowledge {
        of: Of,
    },
    Prove {
        of: Of,
    },
    Tick {
        of: Of,
    },
    Look {
        of: Of,
        wait_ms: u64,
    },
    Answer {
        of: Of,
        number: u64,
    },
    CallTimeout {
        of: Of,
        message: u64,
    },
    Goodbye {
        of: Of,
        code: u16,
        until_us: u64,
    },
    Operation {
        realm: usize,
    },
    Fault,
    Restart {
        realm: usize,
    },
    Undrain {
        realm: usize,
        boot: u32,
    },
    Heal {
        one: usize,
        other: usize,
    },
    LiarDials {
        liar: usize,
    },
    LiarActs {
        conn: usize,
    },
    /// An agent answers. None: it refuses.
    Signed {
        ask: u64,
        signature: Option<Box<[u8; 64]>>,
    },
    GivesUp {
        ask: u64,
    },
    AskAgain {
        realm: usize,
        boot: u32,
        end: keyholding::End,
    },
}

/// A session, for as long as it is that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    pub realm: usize,
    pub peer: usize,
    pub tag: u64,
}

/// A fault of the checker's own, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    DeliverTwice,
    Swap,
    Drop,
    Corrupt,
    Misdeliver,
    Forge,
    EndCallTwice,
    LoseAnswer,
    FireTwice,
    LoseDown,
    ForgetLearned,
    BreakRule,
    NameAnother,
    /// The cores are given wider bounds than were asked for.
    WidenBounds,
    /// Nobody is told how much was lost with a session.
    HideGap,
    /// Who listens draws the same randomness each time.
    RepeatRandomness,
    /// A receipt is changed before somebody else looks at it.
    ChangeReceipt,
    /// An impostor has the network key.
    TellImpostor,
    /// What an agent has signed is put under something else.
    MixSignatures,
    /// An engine is announced again before its end is signed.
    OvertakeEnd,
}

impl Sabotage {
    pub const ALL: [Sabotage; 20] = [
        Sabotage::DeliverTwice,
        Sabotage::Swap,
        Sabotage::Drop,
        Sabotage::Corrupt,
        Sabotage::Misdeliver,
        Sabotage::Forge,
        Sabotage::EndCallTwice,
        Sabotage::LoseAnswer,
        Sabotage::FireTwice,
        Sabotage::LoseDown,
        Sabotage::ForgetLearned,
        Sabotage::BreakRule,
        Sabotage::NameAnother,
        Sabotage::WidenBounds,
        Sabotage::HideGap,
        Sabotage::RepeatRandomness,
        Sabotage::ChangeReceipt,
        Sabotage::TellImpostor,
        Sabotage::MixSignatures,
        Sabotage::OvertakeEnd,
    ];
}

pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub random: fastrand::Rng,
    pub now_us: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    turn: u64,
    pub realms: Vec<Realm>,
    pub liars: Vec<RawRealm>,
    pub conns: Vec<Conn>,
    /// Pairs of realms, lower first, between which nothing goes.
    pub apart: Vec<(usize, usize)>,
    pub ledger: Ledger,
    pub trace: Trace,
    pub stats: Stats,
    /// Things are done, and go wrong.
    pub active: bool,
    /// When it was last looked whether all is quiet.
    pub looked_us: u64,
    pub last_tag: u64,
    pub last_monitor: u64,
    /// Counted by sessions that have ended as dropped on its way out, by realm and peer.
    pub dropped: BTreeMap<(u8, u8), u64>,
    pub sabotage: Option<Sabotage>,
    pub held_back: Option<crate::incoming::Came>,
    /// What agents were asked for, by number.
    pub asks: BTreeMap<u64, Ask>,
    pub last_ask: u64,
    /// The last signature, for who is given another's.
    pub mixed: Option<Box<[u8; 64]>>,
}

impl World {
    pub fn new(seed: u64, seconds: Option<u64>) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan::draw(&mut random, seconds);
        let mut realms: Vec<Realm> =
            (0..plan.realms).map(|id| Realm::new(id as u8, &mut random, plan.clocks[id], plan.external[id])).collect();
        let liars: Vec<RawRealm> = (0..plan.liars)
            .map(|_| RawRealm::of(Keyring::new(&drawn(&mut random), &drawn(&mut random)), drawn(&mut random)))
            .collect();
        let keys: Vec<[u8; 32]> = realms.iter().map(|realm| realm.key).chain(liars.iter().map(RawRealm::key)).collect();
        for (id, realm) in realms.iter_mut().enumerate() {
            let peer = |(other, key): (usize, &[u8; 32])| (other != id).then(|| Peer::new(*key, plan.dials(id, other)));
            realm.peers = keys.iter().enumerate().map(peer).collect();
        }
        let mut world = World {
            seed,
            plan,
            random,
            now_us: 0,
            queue: BTreeMap::new(),
            turn: 0,
            realms,
            liars,
            conns: Vec::new(),
            apart: Vec::new(),
            ledger: Ledger::default(),
            trace: Trace::default(),
            stats: Stats::default(),
            active: true,
            looked_us: 0,
            last_tag: 0,
            last_monitor: 0,
            dropped: BTreeMap::new(),
            sabotage: None,
            held_back: None,
            asks: BTreeMap::new(),
            last_ask: 0,
            mixed: None,
        };
        for realm in 0..world.plan.realms {
            world.begin(realm);
            world.after(world.plan.operation_us, Happening::Operation { realm });
        }
        world.after(world.plan.fault_us, Happening::Fault);
        for liar in 0..world.plan.liars {
            world.after(100_000, Happening::LiarDials { liar });
        }
        world
    }

    /// Until it is over, or something doesn't hold.
    pub fn run(&mut self) {
        while self.ledger.violations.is_empty() {
            if self.active && self.now_us >= self.plan.active_us {
                self.becomes_quiet();
            }
            if !self.active && self.is_settled() {
                break;
            }
            let Some(((at, _), happening)) = self.queue.pop_first() else { break };
            self.now_us = self.now_us.max(at);
            self.happens(happening);
        }
        self.stats.virtual_us = self.now_us;
        self.stats.delivered = self.ledger.delivered;
        self.stats.calls = self.ledger.calls_ended;
        self.stats.monitors = self.ledger.monitors_fired;
    }

    pub fn after(&mut self, wait_us: u64, happening: Happening) {
        self.turn += 1;
        self.queue.insert((self.now_us + wait_us, self.turn), happening);
    }

    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now_us, what);
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(0..100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = (!from.is_empty()).then(|| self.random.usize(0..from.len()));
        at.map(|at| from[at].clone())
    }

    pub fn end(&mut self, at: At) -> &mut End {
        &mut self.conns[at.0].ends[at.1]
    }

    /// Of realms in their boot of now.
    pub fn session(&mut self, of: Of) -> Option<&mut Sess> {
        let realm = &mut self.realms[of.realm];
        if !realm.alive {
            return None;
        }
        realm.peers[of.peer].as_mut()?.session.as_mut().filter(|session| session.tag == of.tag)
    }

    pub fn of(&self, realm: usize, peer: usize) -> Option<Of> {
        let session = self.realms[realm].peers[peer].as_ref()?.session.as_ref()?;
        Some(Of { realm, peer, tag: session.tag })
    }

    pub fn is_liar(&self, peer: usize) -> bool {
        peer >= self.plan.realms
    }

    pub fn are_apart(&self, one: usize, other: usize) -> bool {
        self.apart.contains(&(one.min(other), one.max(other)))
    }

    pub fn violate(&mut self, invariant: Invariant, what: String) {
        self.trace.line(self.now_us, format_args!("VIOLATION {invariant:?}: {what}"));
        self.ledger.violate(invariant, what);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives { conn, from } => self.arrives(conn, from),
            Happening::Flush { at } => self.flush(at),
            Happening::Timer { at, turn } => self.timer(at, turn),
            Happening::Dial { realm, boot, peer, turn } => self.dial_is_due(realm, boot, peer, turn),
            Happening::GraceOver { realm, boot, peer, turn } => self.grace_is_over(realm, boot, peer, turn),
            Happening::Acknowledge { of } => self.acknowledge(of),
            Happening::Prove { of } => self.prove(of),
            Happening::Tick { of } => self.tick(of),
            Happening::Look { of, wait_ms } => self.look(of, wait_ms),
            Happening::Answer { of, number } => self.answer(of, number),
            Happening::CallTimeout { of, message } => self.call_times_out(of, message),
            Happening::Goodbye { of, code, until_us } => self.goodbye(of, code, until_us),
            Happening::Operation { realm } => {
                self.operation(realm);
                (0..self.realms[realm].peers.len()).for_each(|peer| self.check_counters(realm, peer));
            }
            Happening::Fault => self.fault(),
            Happening::Restart { realm } => self.restart(realm),
            Happening::Undrain { realm, boot } => self.undrain(realm, boot),
            Happening::Heal { one, other } => self.heal(one, other),
            Happening::LiarDials { liar } => self.liar_dials(liar),
            Happening::LiarActs { conn } => self.liar_acts(conn),
            Happening::Signed { ask, signature } => self.signed(ask, signature),
            Happening::GivesUp { ask } => self.gives_up(ask),
            Happening::AskAgain { realm, boot, end } => self.ask_again(realm, boot, end),
        }
    }

    pub fn latencies(&mut self) -> [u64; 2] {
        let (low, high) = self.plan.latency_us;
        [self.random.u64(low..=high), self.random.u64(low..=high)]
    }

    /// A new connection. Whoever is at its ends is told nothing yet.
    pub fn connection(&mut self, profile: Profile, ends: [End; 2]) -> usize {
        let latencies = self.latencies();
        self.conns.push(Conn::new(profile, ends, latencies, self.now_us));
        self.conns.len() - 1
    }
}
