//! What goes wrong between realms and with them.

use legation_channel::channel::Profile;

use crate::wire::{Actor, Chunk, End, Phase, Why};
use crate::world::{Happening, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A connection breaks, with all that is on its way.
    Cut,
    /// What is on its way arrives in part, and then nothing more.
    Truncate,
    /// One direction is gone, or both, and nobody is told.
    HalfOpen,
    /// Nothing arrives for a while.
    Stall,
    /// Other connections are faster from now on, or slower.
    Latency,
    /// A bit is another.
    Corrupt,
    /// Some bytes are missing.
    Hole,
    /// Some bytes come twice.
    Duplicate,
    /// What somebody has recorded is said to a realm by somebody else.
    Replay,
    /// A realm's system is killed, or its machine dies.
    Crash,
    /// Nothing goes between two realms, for a while.
    Apart,
    /// A clock is set.
    Clock,
    /// A connection of noise.
    Noise,
}

impl Fault {
    pub const ALL: [Fault; 13] = [
        Fault::Cut,
        Fault::Truncate,
        Fault::HalfOpen,
        Fault::Stall,
        Fault::Latency,
        Fault::Corrupt,
        Fault::Hole,
        Fault::Duplicate,
        Fault::Replay,
        Fault::Crash,
        Fault::Apart,
        Fault::Clock,
        Fault::Noise,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::Cut => "cut",
            Fault::Truncate => "truncated",
            Fault::HalfOpen => "half-open",
            Fault::Stall => "stalled",
            Fault::Latency => "latency",
            Fault::Corrupt => "corrupted",
            Fault::Hole => "bytes lost",
            Fault::Duplicate => "bytes twice",
            Fault::Replay => "recording replayed",
            Fault::Crash => "crash",
            Fault::Apart => "partition",
            Fault::Clock => "clock set",
            Fault::Noise => "noise",
        }
    }
}

/// Knocks stand 30 s of difference, and links are silent for a while.
const CLOCK_MAX_MS: i64 = 12_000;

impl World {
    pub fn fault(&mut self) {
        if !self.active {
            return;
        }
        let wait = self.random.u64(1..=2 * self.plan.fault_us);
        self.after(wait, Happening::Fault);
        let all: u32 = self.plan.faults.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.u32(0..all);
        let drawn = self.plan.faults.iter().find(|(_, weight)| {
            let found = at < *weight;
            at = at.wrapping_sub(*weight);
            found
        });
        let Some(fault) = drawn.map(|(fault, _)| *fault) else { return };
        if self.inflict(fault) {
            self.stats.fault(fault.name());
        }
    }

    /// A connection between realms that lives.
    fn some_connection(&mut self) -> Option<usize> {
        let from = self.conns.len().saturating_sub(200);
        let living: Vec<usize> = (from..self.conns.len()).filter(|conn| !self.conns[*conn].is_over()).collect();
        self.pick(&living)
    }

    /// False: there was nothing to do it to.
    fn inflict(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Replay => self.replay(),
            Fault::Noise => self.noise(),
            Fault::Crash => self.crash(),
            Fault::Apart => self.part(),
            Fault::Clock => self.set_clock(),
            _ => {
                let Some(conn) = self.some_connection() else { return false };
                let from = self.random.usize(0..2);
                self.note(format_args!("connection {conn}: {}, from end {from}", fault.name()));
                self.spoil(fault, conn, from)
            }
        }
    }

    fn spoil(&mut self, fault: Fault, conn: usize, from: usize) -> bool {
        let authenticated = self.conns[conn].profile != Profile::Local;
        match fault {
            Fault::Cut => self.cut(conn),
            Fault::Truncate => {
                let flights = [0, 1].map(|from| self.conns[conn].take_flight(from));
                for (from, bytes) in flights.into_iter().enumerate() {
                    let bytes = bytes.concat();
                    let part = self.random.usize(0..=bytes.len());
                    if part > 0 && self.conns[conn].ends[1 - from].phase != Phase::Over {
                        let now = self.now_us;
                        self.conns[conn].flights[from].chunks.push_back((now, Chunk::Bytes(bytes[..part].to_vec())));
                        self.conns[conn].flights[from].bytes += part;
                        self.arrives(conn, from);
                    }
                }
                self.cut(conn);
            }
            Fault::HalfOpen => {
                self.conns[conn].flights[from].black = true;
                self.conns[conn].take_flight(from);
                if self.chance(50) {
                    self.conns[conn].flights[1 - from].black = true;
                    self.conns[conn].take_flight(1 - from);
                }
            }
            Fault::Stall => {
                let until = self.now_us + self.random.u64(10_000..5_000_000);
                let flight = &mut self.conns[conn].flights[from];
                flight.held_us = until;
                flight.last_us = flight.last_us.max(until);
                flight.chunks.iter_mut().for_each(|(at, _)| *at = (*at).max(until));
            }
            Fault::Latency => {
                let latencies = self.latencies();
                (0..2).for_each(|from| self.conns[conn].flights[from].latency_us = latencies[from]);
            }
            Fault::Corrupt | Fault::Hole | Fault::Duplicate => {
                // `local` is for carriers whose other end the operating system vouches for.
                let chunks = self.conns[conn].flights[from].chunks.len();
                let honest = self.conns[conn].ends.iter().all(|end| matches!(end.actor, Actor::Realm { .. }));
                if !authenticated || !honest || chunks == 0 {
                    return false;
                }
                self.conns[conn].touched = true;
                let at = self.random.usize(0..chunks);
                let (place, bit) = (self.random.usize(..), self.random.u8(0..8));
                let flight = &mut self.conns[conn].flights[from];
                let (_, Chunk::Bytes(bytes)) = &mut flight.chunks[at] else { return false };
                let place = place % bytes.len();
                let before = bytes.len();
                match fault {
                    Fault::Corrupt => bytes[place] ^= 1 << bit,
                    Fault::Hole => drop(bytes.drain(place..)),
                    _ => bytes.extend_from_within(place..),
                }
                flight.bytes = flight.bytes + bytes.len() - before;
            }
            _ => {}
        }
        true
    }

    /// Both ends hear of it.
    pub fn cut(&mut self, conn: usize) {
        for from in 0..2 {
            self.conns[conn].take_flight(from);
            self.conns[conn].flights[from].black = true;
        }
        for end in 0..2 {
            self.finish((conn, end), Why::Carrier("reset"));
        }
    }

    fn replay(&mut self) -> bool {
        let recorded: Vec<usize> =
            (0..self.conns.len()).filter(|conn| self.conns[*conn].recorded.len() > 100).collect();
        let Some(of) = self.pick(&recorded) else { return false };
        let bytes = self.conns[of].recorded.clone();
        let profile = self.conns[of].profile;
        let (same, another) = (self.chance(80), self.random.usize(0..self.plan.realms));
        let to = match self.conns[of].ends[1].actor {
            Actor::Realm { realm, .. } if same => realm,
            _ => another,
        };
        let whole = self.chance(50);
        let part = if whole { bytes.len() } else { self.random.usize(1..=bytes.len()) };
        let shown = self.ghost(to, profile, bytes[..part].to_vec());
        self.conns[of].copied |= shown;
        shown
    }

    fn noise(&mut self) -> bool {
        let profile = self.pick(&[Profile::Tls, Profile::Plain, Profile::Local]).unwrap_or(Profile::Local);
        let length = self.random.usize(1..2_000);
        let mut bytes = vec![0; length];
        self.random.fill(&mut bytes);
        let to = self.random.usize(0..self.plan.realms);
        self.ghost(to, profile, bytes)
    }

    /// Somebody connects who has these bytes.
    fn ghost(&mut self, to: usize, profile: Profile, bytes: Vec<u8>) -> bool {
        if !self.realms[to].alive {
            return false;
        }
        let accepted = self.accepting(to, profile);
        let ghost = End::new(Actor::Ghost, None, None, true);
        let conn = self.connection(profile, [ghost, accepted]);
        self.note(format_args!("connection {conn} to {to}: a stranger says {} bytes", bytes.len()));
        self.set_timer((conn, 1), 0);
        self.transmit((conn, 0), bytes);
        true
    }

    fn crash(&mut self) -> bool {
        let living: Vec<usize> = (0..self.plan.realms).filter(|realm| self.realms[*realm].alive).collect();
        let Some(realm) = self.pick(&living) else { return false };
        // A killed process's connections are reset; of a dead machine nobody hears.
        let silent = self.chance(40);
        self.note(format_args!("{realm} dies{}", if silent { " without a sound" } else { "" }));
        self.realms[realm].write_heads();
        self.realms[realm].alive = false;
        self.ledger.crashed(realm as u8);
        for peer in 0..self.realms[realm].peers.len() {
            let session = self.realms[realm].peers[peer].as_mut().and_then(|peer| peer.session.take());
            if let Some(session) = session {
                session.core.end();
            }
        }
        let own = &self.realms[realm];
        let (clients, engines) = (own.clients.clone(), own.engines.values().copied().collect::<Vec<_>>());
        clients.into_iter().chain(engines).for_each(|process| self.ledger.died(process));
        for conn in 0..self.conns.len() {
            if self.conns[conn].is_over() {
                continue;
            }
            let Some(end) = self.own_end(conn, realm) else { continue };
            self.conns[conn].ends[end].phase = Phase::Over;
            self.conns[conn].take_flight(end);
            self.conns[conn].flights[end].black = true;
            self.conns[conn].take_flight(1 - end);
            self.conns[conn].flights[1 - end].black = true;
            if !silent {
                self.finish((conn, 1 - end), Why::Carrier("reset"));
            }
        }
        let wait = self.random.u64(50_000..5_000_000);
        self.after(wait, Happening::Restart { realm });
        true
    }

    pub fn restart(&mut self, realm: usize) {
        if self.realms[realm].alive {
            return;
        }
        // Sessions are gone in any case.
        let heads = self.chance(50);
        self.note(format_args!(
            "{realm} starts again{}",
            if heads { "" } else { ", and has forgotten what it has seen of keys" }
        ));
        let now = self.now_us;
        self.realms[realm].boot(heads, &mut self.random, now);
        self.stats.operation(if heads { "restarts with state" } else { "restarts without state" });
        self.begin(realm);
    }

    fn part(&mut self) -> bool {
        let one = self.random.usize(0..self.plan.realms);
        let other = self.random.usize(0..self.plan.realms);
        if one == other || self.are_apart(one, other) {
            return false;
        }
        self.note(format_args!("{one} and {other} are apart"));
        self.apart.push((one.min(other), one.max(other)));
        for conn in 0..self.conns.len() {
            if self.conns[conn].is_over() || self.own_end(conn, one).is_none() || self.own_end(conn, other).is_none() {
                continue;
            }
            for from in 0..2 {
                self.conns[conn].take_flight(from);
                self.conns[conn].flights[from].black = true;
            }
        }
        let wait = self.random.u64(100_000..10_000_000);
        self.after(wait, Happening::Heal { one, other });
        true
    }

    pub fn heal(&mut self, one: usize, other: usize) {
        self.apart.retain(|apart| *apart != (one.min(other), one.max(other)));
    }

    fn set_clock(&mut self) -> bool {
        let realm = self.random.usize(0..self.plan.realms);
        let by = self.random.i64(-2_000..2_000);
        let clock = &mut self.realms[realm].clock_ms;
        *clock = (*clock + by).clamp(-CLOCK_MAX_MS, CLOCK_MAX_MS);
        self.note(format_args!("{realm}'s clock is set by {by} ms"));
        true
    }
}
