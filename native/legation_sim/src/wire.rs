//! Carriers between realms: two streams of bytes, and what a network does to them.
//!
//! ```text
//!  end 0 (dialled) ─ flights[0] ─► end 1          chunks, each with the time at which it arrives; never out of order
//!  end 0           ◄─ flights[1] ─ end 1
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use legation_channel::channel::Profile;
use legation_channel::link::Link;
use legation_proto::error::CloseCode;
use legation_proto::frame::hello::Offer;
use legation_proto::hello::SignRequest;
use legation_proto::identity::RealmId;
use legation_proto::session::Wake;
use rust_tests::raw_peer::RawPeer;

/// What of a dialler's bytes is kept for who records them.
const RECORDED_BYTES: usize = 64 * 1024;

/// One end of a connection.
pub type At = (usize, usize);

pub enum Actor {
    /// A realm, in this boot.
    Realm { realm: usize, boot: u32 },
    /// A peer with a good key that keeps no rule.
    Liar { liar: usize, raw: Box<RawPeer>, said: u32 },
    /// Who is dialled, is not who was meant, and lacks the network key.
    Impostor { raw: Box<RawPeer> },
    /// Who has nothing but bytes.
    Ghost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    Up,
    Over,
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Carrier(&'static str),
    Closed(CloseCode),
    Fault { code: Option<CloseCode>, text: String },
    Local(CloseCode),
}

impl Why {
    pub fn keeps_session(&self) -> bool {
        match self {
            Why::Carrier(_) | Why::Fault { code: None, .. } => true,
            Why::Closed(code) | Why::Local(code) | Why::Fault { code: Some(code), .. } => code.keeps_session(),
        }
    }
}

pub struct End {
    pub actor: Actor,
    pub link: Option<Arc<Link>>,
    /// The other realm, once it is known.
    pub peer: Option<usize>,
    pub phase: Phase,
    pub initiator: bool,
    pub asked: Option<(RealmId, Option<Offer>)>,
    /// Of whoever has the realm's key.
    pub unsigned: Option<SignRequest>,
    pub why: Option<Why>,
    /// The carrier broke, of which a link is not told.
    pub broke: bool,
    pub woken: Wake,
    pub flushing: bool,
    /// More waits than the carrier takes.
    pub blocked: bool,
    pub timer_turn: u32,
    pub sooner_ms: Option<u64>,
    /// Of the session that it is a link of.
    pub tag: u64,
}

impl End {
    pub fn new(actor: Actor, link: Option<Arc<Link>>, peer: Option<usize>, initiator: bool) -> End {
        End {
            actor,
            link,
            peer,
            phase: Phase::Handshake,
            initiator,
            asked: None,
            unsigned: None,
            why: None,
            broke: false,
            woken: Wake::default(),
            flushing: false,
            blocked: false,
            timer_turn: 0,
            sooner_ms: None,
            tag: 0,
        }
    }
}

pub enum Chunk {
    Bytes(Vec<u8>),
    /// Nothing comes after it.
    Fin,
}

pub struct Flight {
    pub chunks: VecDeque<(u64, Chunk)>,
    pub bytes: usize,
    pub last_us: u64,
    pub latency_us: u64,
    /// What is sent is gone, and nobody hears of it.
    pub black: bool,
    /// Nothing arrives before this.
    pub held_us: u64,
    pub finished: bool,
}

pub struct Conn {
    pub profile: Profile,
    pub ends: [End; 2],
    pub flights: [Flight; 2],
    /// Somebody has changed bytes on it.
    pub touched: bool,
    /// A stranger has said what was recorded here, and may have come ahead of it.
    pub copied: bool,
    pub begun_us: u64,
    pub recorded: Vec<u8>,
    /// What the one that was dialled has said first.
    pub answer: Vec<u8>,
}

impl Conn {
    pub fn new(profile: Profile, ends: [End; 2], latencies_us: [u64; 2], begun_us: u64) -> Conn {
        let flight = |latency_us| Flight {
            chunks: VecDeque::new(),
            bytes: 0,
            last_us: 0,
            latency_us,
            black: false,
            held_us: 0,
            finished: false,
        };
        Conn {
            profile,
            ends,
            flights: latencies_us.map(flight),
            touched: false,
            copied: false,
            begun_us,
            recorded: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// When it arrives; None: never.
    pub fn send(&mut self, from: usize, now_us: u64, chunk: Chunk) -> Option<u64> {
        if let (0, Chunk::Bytes(bytes)) = (from, &chunk) {
            let room = RECORDED_BYTES - self.recorded.len().min(RECORDED_BYTES);
            self.recorded.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        if let (1, true, Chunk::Bytes(bytes)) = (from, self.answer.is_empty(), &chunk) {
            self.answer.clone_from(bytes);
        }
        let flight = &mut self.flights[from];
        if flight.black || flight.finished {
            return None;
        }
        match &chunk {
            Chunk::Bytes(bytes) => flight.bytes += bytes.len(),
            Chunk::Fin => flight.finished = true,
        }
        let at = (now_us + flight.latency_us).max(flight.last_us).max(flight.held_us);
        flight.last_us = at;
        flight.chunks.push_back((at, chunk));
        Some(at)
    }

    /// Takes what is on its way.
    pub fn take_flight(&mut self, from: usize) -> Vec<Vec<u8>> {
        let flight = &mut self.flights[from];
        flight.bytes = 0;
        let bytes = |(_, chunk)| match chunk {
            Chunk::Bytes(bytes) => Some(bytes),
            Chunk::Fin => None,
        };
        flight.chunks.drain(..).filter_map(bytes).collect()
    }

    pub fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.phase == Phase::Over)
    }
}
