//! Frames of all sorts behind a good handshake.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Attack;
use crate::batch::{kind, RawBatch, RawMessage};
use crate::frame::{self, critical, frame, str8};
use crate::link::Link;
use crate::options::{Options, ANSWER_WAIT, E1, E2};
use crate::random::Random;
use crate::term;

/// Frames that are laid out as they should be, signed and in sequence, of values that nobody ever agreed upon. When a link is closed for
/// it there is another, until so many frames have gone.
pub fn plausible(options: &Options) -> Result<(), String> {
    let mut random = Random::of(options.seed);
    let mut outcomes = BTreeMap::new();
    let mut sent = 0;
    let mut links = 0;
    while sent < options.count {
        let mut link = options.up_again()?;
        links += 1;
        let begun = sent;
        while sent < options.count && sent - begun < 40 && link.peer.told.is_none() && !link.closed {
            one_plausible(&mut link, options, &mut random);
            sent += 1;
            link.run(Duration::from_millis(random.below(3)), |_| false);
        }
        // Whoever reads a whole frame has an answer to a PING; a frame may have asked for more than ever comes.
        *outcomes.entry(link.state(ANSWER_WAIT)).or_insert(0) += 1;
    }
    println!("sent={sent}\nlinks={links}");
    print_outcomes(&outcomes);
    println!("link={}", options.up_again()?.state(ANSWER_WAIT));
    Ok(())
}

pub(super) fn print_outcomes(outcomes: &BTreeMap<String, usize>) {
    let all: Vec<String> =
        outcomes.iter().map(|(state, count)| format!("{}:{count}", state.replace(':', "-"))).collect();
    println!("outcomes={}", all.join(","));
}

const KINDS: [u8; 7] = [kind::SEND, kind::GENCALL, kind::REPLY, kind::ERROR, 6, kind::EXIT, 13];

/// What counters, sizes and numbers go wrong with.
fn number(random: &mut Random) -> u64 {
    let edge =
        random.of_these(&[0, 1, 2, 3, 7, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, 1 << 63, u64::MAX]);
    match random.below(3) {
        0 => random.below(20),
        1 => edge,
        _ => random.next(),
    }
}

fn name(random: &mut Random, options: &Options) -> String {
    match random.below(8) {
        0..3 => options.engine.clone(),
        3 => E1.into(),
        4 => format!("@{:x}", number(random).max(1)),
        5 => format!("made up {}", random.below(50)),
        6 => "x".repeat(255),
        _ => random.of_these(&["init", "count", "private", "é", "a/b"]).into(),
    }
}

/// What no engine ever gets: the engines of a test tell what they are given, and must be told nothing. A call may hold what looks like
/// something else, as it does not look so to who is called.
fn payload(random: &mut Random, kind: u8) -> Vec<u8> {
    match random.below(6) {
        0 if kind != kind::GENCALL => term::disguises()[random.below(20) as usize].1.clone(),
        1 => term::payload(&term::pid("nobody@nowhere", random.next() as u32)),
        2 => {
            let length = random.below(60) as usize;
            [vec![131, 108], random.bytes(length)].concat()
        }
        3 => term::payload(&term::atom(&format!("unknown_{:x}", random.next()))),
        4 if kind != kind::GENCALL => {
            term::payload(&term::tuple(&[term::atom("EXIT"), term::small(1), term::small(2)]))
        }
        _ => vec![131, 108, 255, 255, 255, 255],
    }
}

fn one_plausible(link: &mut Link, options: &Options, random: &mut Random) {
    let u64_of = |random: &mut Random| number(random).to_le_bytes();
    let peer = &mut link.peer;
    match random.below(16) {
        0..6 => {
            let count = 1 + random.below(4);
            // Most batches are.
            let formed = well_formed(random.below(8) > 0);
            let messages: Vec<RawMessage> = (0..count)
                .map(|_| {
                    let kind = random.of_these(&KINDS);
                    RawMessage {
                        kind,
                        flags: 0,
                        call_id: if random.below(2) == 0 { 0 } else { number(random) },
                        caller: if random.below(2) == 0 { 0 } else { number(random) },
                        detail: random.below(9) as u8,
                        source: Vec::new(),
                        destination: if random.below(6) == 0 { Vec::new() } else { name(random, options).into() },
                        payload: payload(random, kind),
                        length: None,
                    }
                })
                .map(formed)
                .collect();
            let mode = random.of_these(&[1, 1, 1, 2, 3]);
            let source = if mode == 1 { random.of_these(&[E1, E2, ""]) } else { "" };
            let batch = RawBatch { mode, ..peer.batch(source, messages) };
            let body = if mode == 3 { batch.body() } else { peer.sealed(&batch, source) };
            peer.write_frame(frame::BATCH, &body);
        }
        6 => {
            let engine = name(random, options);
            let mut learn = peer.learn("e9");
            learn.engine = engine.into();
            learn.operations = random.next() as u16;
            peer.write_learn(&learn);
        }
        7 => {
            let (realm, engine) = (peer.keys.realm(), name(random, options));
            let forget = peer.forget(&realm, &engine);
            let signed = peer.signed("forget", &forget);
            peer.write_frame(frame::FORGET, &signed);
        }
        8 => {
            let entry =
                [str8(name(random, options).as_bytes()), (number(random) as u32).to_le_bytes().to_vec()].concat();
            peer.write_frame(frame::CREDIT, &[vec![1, 0], entry].concat());
        }
        9 => {
            let what = 1 + random.below(6) as u8;
            let then = match what {
                1 => vec![random.below(9) as u8],
                2 => vec![],
                _ => u64_of(random).to_vec(),
            };
            let entry = [&[1, 0, what][..], &u64_of(random), &then].concat();
            peer.write_frame(frame::HANDLE_RELEASE, &entry);
        }
        10 => {
            let length = 1 + random.below(100) as usize;
            let transfer = (random.below(6) as u32).to_le_bytes();
            let total = random.of_these(&[100u32, 5_000, 9 << 20, u32::MAX]).to_le_bytes();
            peer.write_frame(frame::FRAGMENT, &[&transfer[..], &total, &random.bytes(length)].concat());
        }
        11 => {
            let acknowledged = random.below(4).to_le_bytes();
            peer.write_frame(frame::ACK, &acknowledged);
        }
        12 => {
            let session = peer.session.unwrap_or_default();
            peer.write_frame(frame::RESUME, &[&session[..], &u64_of(random), &u64_of(random)].concat());
        }
        13 => {
            let body = [&u64_of(random)[..], &u64_of(random), &random.bytes(96)].concat();
            peer.write_frame(frame::CHECKPOINT, &body);
        }
        14 => {
            let cert = peer.cert();
            let signed = peer.signed("cert", &cert);
            peer.write_frame(frame::CERT, &signed);
        }
        _ => {
            let length = random.below(50) as usize;
            let bytes = random.bytes(length);
            peer.write(&frame(random.of_these(&[0x08, 0x0e, 0x10, 0x40, 0xff]), 0, length as u32, &bytes));
        }
    }
}

/// The fields that 10.1 wants for the kind, if they are wanted.
fn well_formed(wanted: bool) -> impl Fn(RawMessage) -> RawMessage {
    move |message| {
        let some = |number: u64| number.max(1);
        match message.kind {
            _ if !wanted => message,
            kind::SEND if message.destination.is_empty() => RawMessage { destination: b"e9".to_vec(), ..bare(message) },
            kind::SEND => bare(message),
            kind::GENCALL => RawMessage {
                call_id: some(message.call_id),
                caller: some(message.caller),
                destination: [b"g", &message.destination[..]].concat()[1..].to_vec(),
                ..message
            },
            kind::REPLY => RawMessage { call_id: some(message.call_id), destination: vec![], ..bare(message) },
            kind::ERROR => RawMessage {
                call_id: some(message.call_id),
                detail: message.detail,
                destination: vec![],
                payload: vec![],
                ..bare(message)
            },
            6 => RawMessage { caller: message.caller, destination: vec![], ..bare(message) },
            kind::EXIT => RawMessage { caller: some(message.caller), detail: 1 + message.detail % 2, ..bare(message) },
            _ => message,
        }
    }
}

fn bare(message: RawMessage) -> RawMessage {
    RawMessage { call_id: 0, caller: 0, detail: 0, ..message }
}

impl Attack<'_> {
    /// Whether there is one of this name.
    pub(super) fn frames(&mut self, name: &str, link: &mut Link) -> bool {
        match name {
            "unknown-frames" => {
                for kind in (0x17..=0xff).chain([0x00, 0x08, 0x0e, 0x10, 0x13]) {
                    link.peer.write(&frame(kind, 0, 5, b"hello"));
                    self.sent += 1;
                }
                println!("uncritical={}", link.state(ANSWER_WAIT));
                link.peer.write(&frame(0x40, 1, 5, b"hello"));
                self.sent += 1;
            }
            "garbage" => {
                let mut random = Random::of(self.options.seed);
                for _ in 0..self.options.count {
                    let length = random.below(200) as usize;
                    let kind = if random.below(2) == 0 { random.below(0x18) } else { random.below(256) } as u8;
                    let body = random.bytes(length);
                    link.peer.write(&frame(kind, u8::from(random.below(4) > 0), length as u32, &body));
                    self.sent += 1;
                    link.pump();
                }
            }
            // Each byte in a record and a segment of its own.
            "one-byte" => {
                for number in 0..self.options.count {
                    let cast = RawMessage::cast(&self.options.engine, &term::number(number as u32));
                    let batch = link.peer.batch(E1, vec![cast]);
                    let body = link.peer.sealed(&batch, E1);
                    for byte in critical(frame::BATCH, &body) {
                        link.peer.channel.record(&[byte]);
                        link.pump();
                    }
                    self.sent += 1;
                }
            }
            _ => return false,
        }
        true
    }
}
