//! What a peer costs that stops, in one way or another, while a gibibyte is offered to it: the bounds and no more. Alone in its
//! file: the memory of the whole process is looked at.
#![cfg(target_os = "linux")]

use legation_channel::channel::Profile;
use legation_proto::limits::{Limits, Overflow};
use legation_proto::session::PushError;
use rust_tests::pair::{Pair, PairConfig};
use rust_tests::term;

const MIB: usize = 1024 * 1024;
const OFFERED: usize = 1024 * MIB;
/// All told (the outbound queue and what is kept for another link have 16 MiB each).
const COSTS_MAX: usize = 64 * MIB;

/// How the peer stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stalls {
    /// Its carrier takes nothing.
    Carrier,
    /// It takes everything and acknowledges nothing.
    Acknowledges,
    /// One of its engines takes nothing.
    Engine,
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn offer(stalls: Stalls, payload_bytes: usize, overflow: Overflow) {
    let limits = Limits { overflow, engine_queue_bytes_max: Some(8 * MIB), ..Limits::default() };
    let mut pair = Pair::up(PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Local) });
    let payload = term::of_size(payload_bytes);
    let before = resident_bytes();
    let (mut most, mut refused, mut others) = (0, 0, 0);
    let mut out = Vec::new();
    pair.bob.stingy = true;
    // What costs time is done now and then.
    let every = 8 * MIB / payload_bytes;
    for number in 0..OFFERED / payload_bytes {
        match pair.alice.cast("a", "b", &payload) {
            Ok(()) => {}
            Err(PushError::Overload) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if number % every > 0 {
            continue;
        }
        match stalls {
            Stalls::Carrier => {}
            Stalls::Acknowledges => {
                while pair.alice.link.flush(&mut out).unwrap() {
                    out.clear();
                }
                out.clear();
            }
            Stalls::Engine => {
                pair.alice.cast("a", "another", &term::text("goes on")).unwrap();
                pair.settle();
                others += pair.bob.take_payloads().iter().filter(|payload| **payload == term::text("goes on")).count();
                // Neither do we keep what has arrived, nor does the simulated carrier.
                pair.alice.sent = Vec::new();
                let wake = pair.bob.session().grant("another", 0);
                pair.bob.woken(wake);
            }
        }
        most = most.max(resident_bytes());
    }
    let lost = refused + pair.alice.count("dropped_oldest") as usize;
    assert!(lost > OFFERED / payload_bytes / 2, "{stalls:?}: only {lost} were lost");
    assert!(
        most < before + COSTS_MAX,
        "{stalls:?}, {payload_bytes} bytes each, {overflow:?}: {} MiB",
        (most - before) / MIB
    );
    assert!(pair.alice.count("queue_bytes") as usize <= 16 * MIB);
    if stalls == Stalls::Engine {
        assert_eq!(others, 128, "another engine of the same peer");
    }
}

#[test]
fn a_gibibyte_for_a_stalled_peer_or_engine_costs_the_bounds_and_no_more() {
    for stalls in [Stalls::Carrier, Stalls::Acknowledges, Stalls::Engine] {
        for payload_bytes in [4 * 1024, 64 * 1024, MIB] {
            for overflow in [Overflow::Newest, Overflow::Oldest] {
                offer(stalls, payload_bytes, overflow);
            }
        }
    }
}
