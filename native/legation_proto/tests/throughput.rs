//! A measurement, not a check: `cargo test --release -p legation_proto throughput -- --ignored --nocapture`.
//!
//! `THROUGHPUT="256 B, 1 engines, with credit"` measures what stands in a line that holds this, alone.
//!
//! Two sessions with nothing between them: what the core itself costs, both sides on one thread.

use std::sync::Arc;
use std::time::Instant;

use legation_proto::error::LinkError;
use legation_proto::frame::cert::Cert;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::hello::{Agreed, Role};
use legation_proto::identity::{check_public_key, NetworkKey, Purpose};
use legation_proto::keyring::Keyring;
use legation_proto::limits::Limits;
use legation_proto::session::{Attachment, Delivery, Session};
use legation_proto::signing::Mode;

const NOW: u64 = 1_800_000_000_000;

/// Seconds that this thread had a core, where that is known: what else the machine does hardly matters then.
fn seconds(begun: Instant) -> f64 {
    let on_core = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = on_core.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    nanoseconds.map_or(begun.elapsed().as_secs_f64(), |nanoseconds| nanoseconds as f64 / 1e9)
}

struct Side {
    session: Session,
    link: Arc<Attachment>,
}

fn side(own: &Arc<Keyring>, peer: &Keyring, role: Role, limits: &Limits) -> Side {
    let agreed = Agreed {
        role,
        profile: 2,
        version: 1,
        network: NetworkKey::none().id(),
        session: [7; 32],
        resumed: false,
        additional: false,
        own: own.realm_id(),
        peer: peer.realm_id(),
        own_key: *own.public(),
        peer_key: check_public_key(peer.public()).unwrap(),
        peer_message_bytes_max: limits.message_bytes_max,
        own_rotations: 0,
        peer_chain: Default::default(),
        peer_engines_max: limits.engines_max,
        peer_credit_bytes: limits.credit_bytes,
        peer_accepts: limits.accept_signing,
    };
    let session = Session::new(agreed, limits.clone(), own.clone());
    let link = session.attach(true, 1, NOW);
    let cert = Cert {
        realm: own.realm_id(),
        key: own.online_public(),
        not_before: NOW,
        not_after: NOW + 3_600_000,
        serial: 1,
    };
    let body = cert.body();
    let signature = own.sign(Purpose::Cert, &NetworkKey::none().id(), &body).unwrap();
    session.announce(FrameType::Cert, &[&body[..], &signature].concat());
    Side { session, link }
}

/// Everything that waits goes over; how many events came of it.
fn carry(from: &Side, to: &Side, wire: &mut Vec<u8>) -> u64 {
    let mut events = 0;
    loop {
        wire.clear();
        let more = from.session.flush(&from.link, wire);
        let decrypt = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(wire);
            Ok::<(), LinkError>(())
        };
        to.session.handle_bytes(&to.link, NOW, decrypt, &mut |_| events += 1).1.unwrap();
        to.session.delivered();
        let mut due = Vec::new();
        to.session.debts(|destination, _| due.push(destination.to_owned()));
        for destination in due {
            to.session.grant(&destination, 0);
        }
        if !more {
            return events;
        }
    }
}

/// The peer is told of an engine.
fn announce(side: &Side, own: &Keyring, engine: &str, serial: u64) {
    let learn = Learn {
        realm: own.realm_id(),
        engine: engine.to_owned(),
        key: own.engine_public(engine),
        serial,
        not_before: 0,
        not_after: 0,
        version: 0,
        operations: 7,
        delegate: true,
    };
    let body = learn.body();
    let signature = own.sign(Purpose::Learn, &NetworkKey::none().id(), &body).unwrap();
    side.session.announce(FrameType::Learn, &[&body[..], &signature].concat());
}

/// Messages per second to `engines` engines in turn, from `sources` engines in turn; 0: from the realm itself.
fn rate(bytes: usize, total: u64, sources: usize, engines: usize, limits: &Limits) -> f64 {
    let [alice, bob] = [[1; 32], [2; 32]].map(|seed| Arc::new(Keyring::new(&seed, &[9; 32])));
    let keyring = alice.clone();
    let (alice, bob) = (side(&alice, &bob, Role::Initiator, limits), side(&bob, &alice, Role::Responder, limits));
    let mut payload = vec![131, 109];
    payload.extend((bytes as u32 - 6).to_be_bytes());
    payload.resize(bytes, 0);
    let names: Vec<String> = (0..engines).map(|number| format!("engine {number}")).collect();
    let (mut wire, mut sent, mut arrived) = (Vec::new(), 0, 0);
    let speakers: Vec<String> = (0..sources).map(|number| format!("source {number}")).collect();
    speakers.iter().zip(1..).for_each(|(name, serial)| announce(&alice, &keyring, name, serial));
    carry(&alice, &bob, &mut wire);
    let begun = Instant::now();
    let before = seconds(begun);
    while arrived < total {
        // What collects while a flush is on its way.
        let burst = (256 * 1024 / bytes as u64).max(4).min(total - sent);
        for _ in 0..burst {
            let name = &names[sent as usize % engines];
            let source = if sources == 0 { "" } else { &speakers[sent as usize % sources] };
            if alice.session.push(Delivery::Cast, source, name, &payload, false).is_err() {
                break;
            }
            sent += 1;
        }
        arrived += carry(&alice, &bob, &mut wire);
        carry(&bob, &alice, &mut wire);
    }
    total as f64 / (seconds(begun) - before)
}

#[test]
#[ignore = "a measurement"]
fn throughput_of_two_sessions() {
    let only = std::env::var("THROUGHPUT").unwrap_or_default();
    let credit = Limits::default();
    let without = Limits { credit_bytes: 0, ..Limits::default() };
    for (bytes, total) in [(256, 2_000_000), (4_096, 300_000), (65_536, 30_000), (65_600, 30_000), (1 << 20, 2_000)] {
        for engines in [1, 16] {
            for (name, limits) in [("without credit", &without), ("with credit", &credit)] {
                let what = format!("{bytes} B, {engines} engines, {name}");
                if !what.contains(&only) {
                    continue;
                }
                let rates: Vec<f64> = (0..3).map(|_| rate(bytes, total, 0, engines, limits)).collect();
                let best = rates.iter().copied().fold(0.0, f64::max);
                println!("{what:<36}: {best:>10.0}/s, {:>5.2} GB/s", best * bytes as f64 / 1e9);
            }
        }
    }
}

/// How much it costs that messages come from many engines.
#[test]
#[ignore = "a measurement"]
fn throughput_from_many_engines() {
    let only = std::env::var("THROUGHPUT").unwrap_or_default();
    for (mode, sources, total) in [
        (Mode::Engine, 1, 1_000_000),
        (Mode::Delegated, 1, 1_000_000),
        (Mode::Delegated, 100, 1_000_000),
        (Mode::Engine, 100, 300_000),
    ] {
        let limits = Limits { signing: mode, ..Limits::default() };
        let what = format!("{}, {sources} sources", mode.name());
        if what.contains(&only) {
            let rates: Vec<f64> = (0..3).map(|_| rate(256, total, sources, 1, &limits)).collect();
            println!("{what:<36}: {:>10.0}/s", rates.iter().copied().fold(0.0, f64::max));
        }
    }
}
