//! What the hot path asks the allocator for: the same on every machine, where seconds are not.
//!
//! A bound that fails is a change of what a message costs. Whoever raises one has measured that it is worth it.

use std::ops::AddAssign;

use allocation_counter::measure;
use legation_channel::channel::Profile;
use legation_channel::link::LinkEvent;
use legation_proto::session::{Delivery, Event, NewCall};
use rust_tests::pair::{Pair, PairConfig, Side};

const PROFILES: [Profile; 2] = [Profile::Tls, Profile::Local];

/// A binary as an external term.
fn binary(bytes: usize) -> Vec<u8> {
    let mut term = vec![131, 109];
    term.extend((bytes as u32).to_be_bytes());
    term.resize(6 + bytes, 7);
    term
}

#[derive(Clone, Copy, Debug, Default)]
struct Allocated {
    times: u64,
    bytes: u64,
}

impl AddAssign for Allocated {
    fn add_assign(&mut self, more: Allocated) {
        self.times += more.times;
        self.bytes += more.bytes;
    }
}

/// What `step` allocates, in this thread.
fn allocated(step: impl FnOnce()) -> Allocated {
    let info = measure(step);
    Allocated { times: info.count_total, bytes: info.bytes_total }
}

/// By step, both sides together.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    push: Allocated,
    flush: Allocated,
    receive: Allocated,
}

impl Cost {
    fn total(&self) -> Allocated {
        let mut total = self.push;
        total += self.flush;
        total += self.receive;
        total
    }
}

/// A pair, and the buffer that what is on its way stands in: drivers keep theirs, too.
struct Bench {
    pair: Pair,
    wire: Vec<u8>,
    arrived: u64,
}

impl Bench {
    fn new(profile: Profile) -> Bench {
        Bench { pair: Pair::up(PairConfig::of(profile)), wire: Vec::new(), arrived: 0 }
    }

    /// All that waits at the one side goes to the other, which looks at it and grants what it may.
    fn carry(&mut self, from_alice: bool, cost: &mut Cost) {
        let Pair { alice, bob, now, .. } = &mut self.pair;
        let (from, to): (&Side, &Side) = if from_alice { (alice, bob) } else { (bob, alice) };
        let session = to.session();
        let mut more = true;
        while more {
            self.wire.clear();
            cost.flush += allocated(|| more = from.link.flush(&mut self.wire).unwrap());
            cost.receive += allocated(|| {
                let mut sink = |event: LinkEvent<'_>| match event {
                    LinkEvent::Session(Event::Deliver { .. }) => self.arrived += 1,
                    LinkEvent::Session(Event::Call { call_id, payload, .. }) => {
                        session.reply(call_id, payload).unwrap();
                    }
                    LinkEvent::Session(Event::Reply { .. }) => self.arrived += 1,
                    _ => {}
                };
                to.link.handle_bytes(*now, &self.wire, &mut sink);
                session.delivered();
            });
            let mut due = Vec::new();
            session.debts(|destination, _| due.push(destination.to_owned()));
            for destination in due {
                session.grant(&destination, 0);
            }
        }
    }

    /// Casts that all arrive, as fast as credit lets them.
    fn casts(&mut self, payload: &[u8], casts: u64) -> Cost {
        let (session, target) = (self.pair.alice.session(), self.arrived + casts);
        let mut cost = Cost {
            push: allocated(|| {
                for _ in 0..casts {
                    session.push(Delivery::Cast, "a", "b", payload, false).unwrap();
                }
            }),
            ..Cost::default()
        };
        while self.arrived < target {
            self.carry(true, &mut cost);
            self.carry(false, &mut cost);
        }
        cost
    }

    /// A call at a time by one process.
    fn calls(&mut self, payload: &[u8], calls: u64) -> Cost {
        let session = self.pair.alice.session();
        let now = self.pair.now;
        let call = NewCall { destination: "b", label: 1, source: "a", caller: b"caller", context: b"context", payload };
        let mut cost = Cost::default();
        for _ in 0..calls {
            let arrived = self.arrived;
            cost.push += allocated(|| drop(session.push_call(now, &call).unwrap()));
            while self.arrived == arrived {
                self.carry(true, &mut cost);
                self.carry(false, &mut cost);
            }
        }
        cost
    }
}

/// `times` and `bytes` are what `count` of something may take altogether.
fn assert_within(what: &str, total: Allocated, times: u64, bytes: u64) {
    assert!(total.times <= times, "{what}: {} allocations, {times} at most", total.times);
    assert!(total.bytes <= bytes, "{what}: {} bytes allocated, {bytes} at most", total.bytes);
}

#[test]
fn a_cast_under_load_costs_next_to_no_allocation() {
    for profile in PROFILES {
        let mut bench = Bench::new(profile);
        // Buffers have grown to what they take.
        (0..4).for_each(|_| {
            bench.casts(&binary(250), 500);
        });
        let cost = bench.casts(&binary(250), 500);
        assert_within(&format!("500 casts, {profile:?}, {cost:?}"), cost.total(), 80, 500 * 1_800);
    }
}

#[test]
fn a_cast_that_waits_for_credit_costs_one_allocation() {
    for profile in PROFILES {
        let mut bench = Bench::new(profile);
        bench.casts(&binary(250), 4_000);
        let cost = bench.casts(&binary(250), 4_000);
        assert_within(&format!("4,000 casts, {profile:?}, {cost:?}"), cost.total(), 4_000, 4_000 * 2_500);
    }
}

#[test]
fn a_lone_call_and_its_answer_cost_a_bounded_number_of_allocations() {
    for profile in PROFILES {
        let mut bench = Bench::new(profile);
        bench.calls(&binary(50), 100);
        let cost = bench.calls(&binary(50), 100);
        assert_within(&format!("100 calls, {profile:?}, {cost:?}"), cost.total(), 100 * 36, 100 * 3_600);
    }
}

/// Kept for resumption, sealed, opened, put together: a copy each.
#[test]
fn a_large_payload_is_copied_a_bounded_number_of_times() {
    for profile in PROFILES {
        for (bytes, copies) in [(60_000, 9), (1_000_000, 8)] {
            let mut bench = Bench::new(profile);
            bench.casts(&binary(bytes), 10);
            let cost = bench.casts(&binary(bytes), 10);
            let total = cost.total();
            let what = format!("10 casts of {bytes} bytes, {profile:?}, {cost:?}");
            assert_within(&what, total, 2_000, 10 * copies * bytes as u64);
        }
    }
}
