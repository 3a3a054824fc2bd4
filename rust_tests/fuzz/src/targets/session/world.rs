//! The session that is played, with its links, and what must hold of it.

use std::collections::HashMap;

use legation_channel::channel::Profile;
use legation_channel::link::LinkFault;
use legation_proto::codec::Writer;
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::{kind, Batch};
use legation_proto::frame::hello::Offer;
use legation_proto::frame::resume::Resume;
use legation_proto::frame::FrameType;
use legation_proto::limits::Limits;
use legation_proto::signing::{Mode, Modes};
use rust_tests::another::Another;
use rust_tests::counted;
use rust_tests::pair::Seen;
use rust_tests::raw_batch::critical;
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::realm::{fixed_random, Realm};

use super::reached::Reached;
use super::script::OPERATIONS_MAX;
use super::steps::WINDOW;

/// In one session, and sessions in one script: each costs a handshake.
const LINKS_MAX: usize = 6;
const SESSIONS_MAX: u32 = 3;

pub(super) struct World {
    pub lines: Vec<Line>,
    pub current: usize,
    /// How many links and sessions there have been.
    runs: u32,
    sessions: u32,
    bounds: u8,
    limits: Limits,
    pub numbers: u32,
    /// By number where those in good batches go.
    pub sent: HashMap<u32, String>,
    /// The last number that was delivered: each link brings what it is given at once, so what is written later has to come later.
    delivered: u32,
    pub calls: u32,
    ended: HashMap<Vec<u8>, u32>,
    pub asked: Vec<u64>,
    pub asks: u64,
    pub transfers: u32,
    pub chain: [u8; 32],
    /// What no checkpoint covers yet.
    pub open: Option<(u64, u64)>,
    /// The peer's sequenced frames, with their numbers.
    said: Vec<Said>,
    /// The last number that has come to the peer, over all links, and what it has said of that.
    pub heard: u64,
    pub acknowledged: u64,
    /// What of the windows of the peer's engines is in use.
    pub used: HashMap<String, u64>,
    /// Calls that have come to the peer: their ids, whom they ask, and what they are known by at home.
    pub pending: Vec<(u64, String, Vec<u8>)>,
    /// By the number in an answer, what it answers.
    pub replied: HashMap<u32, Vec<u8>>,
    pub reached: Reached,
}

/// A sequenced frame of the peer's.
struct Said {
    number: u64,
    count: u64,
    kind: FrameType,
    body: Vec<u8>,
}

/// A link of the session, and how far both sides are on it.
pub(super) struct Line {
    pub versus: Versus,
    /// The peer may say sequenced frames on it.
    ready: bool,
    /// How many of the frames that have come to the peer were looked at.
    looked_at: usize,
    /// The number of the next sequenced one, once that is known.
    position: Option<u64>,
    /// What our side has, by its RESUME.
    received: Option<u64>,
    /// The peer's CLOSE.
    closed: Option<CloseCode>,
}

impl Line {
    fn new(versus: Versus, position: Option<u64>) -> Line {
        Line { versus, ready: position.is_some(), looked_at: 0, position, received: None, closed: None }
    }
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
        let mut world = World {
            lines: Vec::new(),
            current: 0,
            runs: 0,
            sessions: 0,
            bounds,
            limits,
            numbers: 0,
            sent: HashMap::new(),
            delivered: 0,
            calls: 0,
            ended: HashMap::new(),
            asked: Vec::new(),
            asks: 0,
            transfers: 0,
            chain: [0; 32],
            open: None,
            said: Vec::new(),
            heard: 0,
            acknowledged: 0,
            used: HashMap::new(),
            pending: Vec::new(),
            replied: HashMap::new(),
            reached: Reached::default(),
        };
        world.begin();
        world
    }

    /// A session that has nothing to do with one before.
    fn begin(&mut self) {
        self.sessions += 1;
        let config = RawPeerConfig {
            limits: Limits {
                credit_bytes: if self.bounds & WINDOW != 0 { 512 } else { 0 },
                accept_signing: Modes::of(Mode::ALL),
                ..Limits::default()
            },
            random: fixed_random(1_000 + self.sessions, 0),
            ..RawPeerConfig::dialling(Profile::Local)
        };
        let mut versus = Versus::up_with(config, self.limits.clone());
        versus.side.stand_ins = self.bounds & 16 != 0;
        let agreed = versus.peer.agreed.as_ref().expect("it is up");
        let begin = [agreed.session, agreed.own.0].concat();
        self.chain = blake3::derive_key("legation/1/checkpoint", &begin);
        self.open = None;
        self.lines = vec![Line::new(versus, Some(1))];
        self.current = 0;
        (self.heard, self.acknowledged) = (0, 0);
        self.asked.clear();
        self.said.clear();
        self.used.clear();
        self.pending.clear();
    }

    pub(super) fn link(&mut self) -> &mut Versus {
        &mut self.lines[self.current].versus
    }

    pub(super) fn write(&mut self, kind: FrameType, body: &[u8]) {
        let next = self.link().peer.next_sequence;
        if kind.is_sequenced() {
            let (number, count) = numbered(kind, body).unwrap_or((next, 1));
            self.said.push(Said { number, count, kind, body: body.to_vec() });
        }
        self.link().peer.write_frame(kind, body);
    }

    pub(super) fn advance(&mut self, ms: u64) {
        for line in &mut self.lines {
            line.versus.advance(ms);
        }
    }

    /// The link that is used is one that can be, if another one has to be made for it. False: there were too many.
    pub(super) fn mend(&mut self) -> bool {
        let line = &self.lines[self.current];
        if !line.versus.side.is_over() {
            if !line.ready {
                self.resume(0);
            }
            return true;
        }
        if self.another(false, true) {
            self.resume(0);
            return !self.link().side.is_over();
        }
        if self.sessions >= SESSIONS_MAX {
            return false;
        }
        self.begin();
        true
    }

    /// No link has ended the session.
    fn lives(&self) -> bool {
        self.lines.iter().all(|line| {
            let fault = line.versus.side.fault.as_ref();
            fault.is_none_or(LinkFault::keeps_session) && line.closed.is_none_or(CloseCode::keeps_session)
        })
    }

    /// One more link, whose hello asks for the session. False: there is none, or it is not of the session.
    pub(super) fn another(&mut self, additional: bool, right: bool) -> bool {
        if self.lines.len() >= LINKS_MAX || !self.lives() {
            return false;
        }
        self.runs += 1;
        let first = &self.lines[self.current].versus;
        let session = first.side.session();
        let id = if right { session.agreed().session } else { [1; 32] };
        let offer = Offer { session: id, additional };
        let given = right.then_some(session);
        let another = Another { realm: Realm::alice(), offer, given, limits: self.limits.clone(), run: self.runs };
        let versus = another.link(first);
        // A new session is no part of what is known here.
        let resumed = versus.side.events.iter().any(|event| matches!(event, Seen::Resumed { .. }));
        if !resumed || !versus.side.is_up() {
            return false;
        }
        self.reached.resumed += 1;
        self.lines.push(Line::new(versus, None));
        self.current = self.lines.len() - 1;
        self.check();
        true
    }

    /// The peer goes over to this link, rightly: what our side lacks is said again, and up to three frames that it has.
    pub(super) fn resume(&mut self, again: u8) {
        let line = &self.lines[self.current];
        let id = line.versus.side.session().agreed().session;
        let next = line.versus.peer.next_sequence;
        let lacks = line.received.map_or(next, |received| received + 1);
        let place = self.said.iter().position(|said| said.number >= lacks).unwrap_or(self.said.len());
        let earlier = self.said.get(place.saturating_sub(usize::from(again % 4))).map_or(lacks, |said| said.number);
        let (from, kept) = [earlier, lacks]
            .into_iter()
            .find_map(|from| Some((from, self.said_between(from, next)?)))
            .unwrap_or((lacks, Vec::new()));
        let received = if again & 4 == 0 { self.heard } else { self.acknowledged };
        self.acknowledged = received;
        let mut body = id.to_vec();
        body.put_u64(received);
        body.put_u64(from);
        self.write(FrameType::Resume, &body);
        self.reached.said_again += kept.len() as u32;
        for frame in &kept {
            self.link().peer.write(frame);
        }
        // What can't be said again has never been.
        self.link().peer.next_sequence = if kept.is_empty() { from } else { next };
        self.lines[self.current].ready = true;
    }

    /// All that the peer has said from one number to another, if each is there.
    fn said_between(&self, from: u64, to: u64) -> Option<Vec<Vec<u8>>> {
        let (mut at, mut frames) = (from, Vec::new());
        for said in &self.said {
            if said.number == at {
                frames.push(critical(said.kind, &said.body));
                at += said.count;
            }
        }
        (at == to).then_some(frames)
    }

    pub(super) fn check(&mut self) {
        for line in &mut self.lines {
            line.versus.settle();
        }
        for index in 0..self.lines.len() {
            let side = &mut self.lines[index].versus.side;
            if let (Some(code), false) = (side.fault_code(), side.told().is_some()) {
                assert!(!matches!(code, CloseCode::Normal | CloseCode::Shutdown | CloseCode::WrongRealm), "{code:?}");
            }
            for event in side.take_events() {
                if let Seen::Closed { code, .. } = event {
                    self.lines[index].closed = Some(code);
                }
                self.seen(event);
            }
            self.hear(index);
        }
        let session = self.link().side.session();
        assert_eq!(counted::over(&session, &self.limits), [], "what is kept, and how much it may be");
        let held = session.counters().lanes_held.get();
        match (held > 0, self.reached.stalled > self.reached.went_on) {
            (true, false) => self.reached.stalled += 1,
            (false, true) => self.reached.went_on += 1,
            _ => {}
        }
        // What its driver does with a link that has ended.
        for line in self.lines.iter().filter(|line| line.versus.side.is_over()) {
            line.versus.side.link.detach();
        }
    }

    /// What has come to the peer is numbered without a gap, over all links.
    fn hear(&mut self, index: usize) {
        let line = &mut self.lines[index];
        let frames = line.versus.peer.frames[line.looked_at..].to_vec();
        line.looked_at += frames.len();
        for frame in frames {
            let line = &mut self.lines[index];
            let Some(kind) = FrameType::known(frame.kind) else { panic!("a frame of no type") };
            match kind {
                FrameType::Resume => {
                    let resume = Resume::decode(&frame.body).expect("a RESUME of our side");
                    assert!(resume.next <= self.heard + 1, "a gap: {} behind {}", resume.next, self.heard);
                    (line.position, line.received) = (Some(resume.next), Some(resume.received));
                }
                FrameType::Ping if !line.versus.side.is_over() => {
                    line.versus.peer.write_frame(FrameType::Pong, &frame.body);
                    line.versus.settle();
                }
                kind if kind.is_sequenced() => {
                    let position = line.position.expect("a RESUME before what is numbered");
                    let (number, count) = numbered(kind, &frame.body).unwrap_or((position, 1));
                    assert_eq!(number, position, "in its place");
                    line.position = Some(position + count);
                    if position <= self.heard {
                        self.reached.heard_again += 1;
                        continue;
                    }
                    assert_eq!(position, self.heard + 1, "a gap");
                    self.heard += count;
                    if kind == FrameType::Batch {
                        self.batch_came(&frame.body);
                    }
                }
                _ => {}
            }
        }
    }

    fn batch_came(&mut self, body: &[u8]) {
        // One in fragments has its payload elsewhere.
        let Ok(batch) = Batch::parse(body) else { return };
        for item in batch.messages() {
            let to = item.row.destination.to_owned();
            if item.row.kind == kind::GENCALL {
                if let Some(number) = number_of(item.payload) {
                    self.pending.push((item.row.call_id, to.clone(), number.to_le_bytes().to_vec()));
                }
            }
            if !to.is_empty() {
                *self.used.entry(to).or_default() += item.payload.len() as u64 + 64;
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
            Seen::Reply { context, payload } => {
                self.reached.answered += 1;
                if let Some(asked) = number_of(&payload).and_then(|number| self.replied.get(&number)) {
                    assert_eq!(*asked, context, "the answer to another call");
                }
                self.call_ended(context);
            }
            Seen::Refused { context, .. } => self.call_ended(context),
            _ => {}
        }
    }

    fn call_ended(&mut self, context: Vec<u8>) {
        let times = self.ended.entry(context).or_default();
        *times += 1;
        assert_eq!(*times, 1, "a call ends once");
    }

    pub(super) fn delivered(&mut self, to: &str, payload: &[u8]) {
        let Some(number) = number_of(payload) else { return };
        let Some(destination) = self.sent.get(&number) else { panic!("{number} was in no good batch") };
        assert_eq!(destination, to, "to another");
        assert!(number > self.delivered, "{number} twice, or behind {}", self.delivered);
        self.delivered = number;
        self.reached.delivered += 1;
        self.reached.joined += u32::from(payload.len() > 200);
    }

    pub(super) fn end(mut self) -> Reached {
        let session = self.link().side.session();
        let counters = session.counters();
        assert!(counters.messages_in.get() <= u64::from(self.numbers) + 6 * OPERATIONS_MAX as u64);
        self.reached.proven = counters.checkpoints_in.get() as u32;
        self.reached
    }
}

/// Which numbers a frame says that it takes, if it does.
fn numbered(kind: FrameType, body: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(*body.get(at..)?.first_chunk()?));
    let count = || Some(u64::from(u16::from_le_bytes(*body.get(104..)?.first_chunk()?)));
    (kind == FrameType::Batch).then(|| Some((number(96)?, count()?))).flatten()
}

/// The number of a message that has one.
fn number_of(payload: &[u8]) -> Option<u32> {
    match payload {
        [131, 98, a, b, c, d] => Some(u32::from_be_bytes([*a, *b, *c, *d])).filter(|number| *number < 1 << 24),
        [131, 104, 2, 109, .., 98, a, b, c, d] if payload.len() > 200 => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}
