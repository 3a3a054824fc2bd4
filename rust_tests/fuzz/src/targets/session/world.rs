//! The session that is played, with its links, and what must hold of it.

use std::collections::HashMap;

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::hello::Offer;
use legation_proto::frame::FrameType;
use legation_proto::limits::Limits;
use legation_proto::signing::{Mode, Modes};
use rust_tests::another::Another;
use rust_tests::pair::Seen;
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::realm::Realm;

use super::script::OPERATIONS_MAX;

const LINKS_MAX: usize = 4;

pub(super) struct World {
    pub links: Vec<Versus>,
    pub current: usize,
    pub runs: u32,
    pub limits: Limits,
    pub numbers: u32,
    /// By number where those in good batches go.
    pub sent: HashMap<u32, String>,
    /// The last number that was delivered: each link brings what it is given at once, so what is written later has to come later.
    pub delivered: u32,
    pub calls: u32,
    pub ended: HashMap<Vec<u8>, u32>,
    pub asked: Vec<u64>,
    pub chain: [u8; 32],
    /// What no checkpoint covers yet.
    pub open: Option<(u64, u64)>,
}

impl World {
    pub(super) fn new(bounds: u8) -> World {
        let mut limits = Limits {
            identifiers: bounds & 1 != 0,
            credit_bytes: if bounds & 2 != 0 { 4_096 } else { 0 },
            accept_signing: Modes::of(Mode::ALL),
            ..Limits::default()
        };
        if bounds & 4 != 0 {
            limits.message_bytes_max = 256;
            limits.engines_max = 3;
            limits.calls_max = 2;
            limits.callers_max = 2;
            limits.handles_max = 3;
            limits.references_max = 2;
            limits.resume_bytes_max = 2_048;
            limits.unproven_messages_max = 4;
            limits.unproven_bytes_max = 2_048;
            limits.queue_bytes_max = 1_024;
        }
        if bounds & 8 != 0 {
            limits.fragment_bytes = 16;
            limits.signing = Mode::ALL[usize::from(bounds >> 4) % 3];
        }
        let config = RawPeerConfig {
            limits: Limits { credit_bytes: 0, accept_signing: Modes::of(Mode::ALL), ..Limits::default() },
            ..RawPeerConfig::dialling(Profile::Local)
        };
        let mut versus = Versus::up_with(config, limits.clone());
        versus.side.stand_ins = bounds & 16 != 0;
        let agreed = versus.peer.agreed.as_ref().expect("it is up");
        let begin = [agreed.session, agreed.own.0].concat();
        World {
            links: vec![versus],
            current: 0,
            runs: 0,
            limits,
            numbers: 0,
            sent: HashMap::new(),
            delivered: 0,
            calls: 0,
            ended: HashMap::new(),
            asked: Vec::new(),
            chain: blake3::derive_key("legation/1/checkpoint", &begin),
            open: None,
        }
    }

    pub(super) fn link(&mut self) -> &mut Versus {
        &mut self.links[self.current]
    }

    pub(super) fn write(&mut self, kind: FrameType, body: &[u8]) {
        self.link().peer.write_frame(kind, body);
    }

    /// One more link, whose hello asks for the session.
    pub(super) fn another(&mut self, additional: bool, right: bool) {
        if self.links.len() >= LINKS_MAX {
            return;
        }
        self.runs += 1;
        let first = &self.links[0];
        let session = first.side.session();
        let id = if right { session.agreed().session } else { [1; 32] };
        let offer = Offer { session: id, additional };
        let given = right.then_some(session);
        let another = Another { realm: Realm::alice(), offer, given, limits: self.limits.clone(), run: self.runs };
        let versus = another.link(first);
        // A new session is no part of what is known here.
        let resumed = versus.side.events.iter().any(|event| matches!(event, Seen::Resumed { .. }));
        if !resumed || !versus.side.is_up() {
            return;
        }
        self.links.push(versus);
        self.current = self.links.len() - 1;
    }

    pub(super) fn check(&mut self) {
        for versus in &mut self.links {
            versus.settle();
        }
        for index in 0..self.links.len() {
            let versus = &mut self.links[index];
            if let (Some(code), false) = (versus.side.fault_code(), versus.side.told().is_some()) {
                assert!(!matches!(code, CloseCode::Normal | CloseCode::Shutdown | CloseCode::WrongRealm), "{code:?}");
            }
            for event in versus.side.take_events() {
                self.seen(event);
            }
        }
    }

    pub(super) fn seen(&mut self, event: Seen) {
        match event {
            Seen::Deliver { destination, payload, .. } => self.delivered(&destination, &payload),
            Seen::Call { destination, payload, call_id, .. } => {
                self.asked.push(call_id);
                self.delivered(&destination, &payload);
            }
            Seen::Exit { destination, payload, .. } => self.delivered(&destination, &payload),
            Seen::Reply { context, .. } | Seen::Refused { context, .. } => {
                let times = self.ended.entry(context).or_default();
                *times += 1;
                assert_eq!(*times, 1, "a call ends once");
            }
            _ => {}
        }
    }

    pub(super) fn delivered(&mut self, to: &str, payload: &[u8]) {
        let Some(number) = number_of(payload) else { return };
        let Some(destination) = self.sent.get(&number) else { panic!("{number} was in no good batch") };
        assert_eq!(destination, to, "to another");
        assert!(number > self.delivered, "{number} twice, or behind {}", self.delivered);
        self.delivered = number;
    }

    pub(super) fn end(&mut self) {
        let versus = &mut self.links[0];
        let session = versus.side.session();
        let count = |name: &str| session.counters().all().into_iter().find(|(known, _)| *known == name).map(|(_, n)| n);
        assert!(count("messages_in").unwrap_or(0) <= u64::from(self.numbers) + 6 * OPERATIONS_MAX as u64);
    }
}

/// The number of a message that has one.
fn number_of(payload: &[u8]) -> Option<u32> {
    match payload {
        [131, 98, a, b, c, d] => Some(u32::from_be_bytes([*a, *b, *c, *d])).filter(|number| *number < 1 << 24),
        [131, 104, 2, 109, .., 98, a, b, c, d] if payload.len() > 300 => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}
