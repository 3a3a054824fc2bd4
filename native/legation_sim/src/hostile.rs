//! Who keeps no rule: peers with a good key that say anything, impostors without the network key, and strangers that have only bytes.

use legation_channel::channel::Profile;
use legation_proto::frame::FrameType;
use legation_proto::hello::Role;
use legation_proto::identity::NetworkKey;
use legation_proto::limits::Limits;
use rust_tests::raw_batch::RawMessage;
use rust_tests::raw_peer::{RawPeer, RawPeerConfig};
use rust_tests::realm::Realm as RawRealm;

use crate::ledger::Invariant;
use crate::payload;
use crate::realm::{drawn, network};
use crate::wire::{Actor, At, End, Phase};
use crate::world::{Happening, Sabotage, World};

/// What one of them says on one connection.
const SAYS_MAX: u32 = 60;

impl World {
    pub fn hostile_receives(&mut self, at: At, bytes: &[u8]) {
        let conn = at.0;
        match &mut self.end(at).actor {
            Actor::Ghost => {
                // Bytes that somebody recorded must not bring anybody through. Until it is asked for its own proof a stranger may be
                // answered: with a nonce on `local`, and by TLS.
                if self.conns[conn].ends[1 - at.1].phase == Phase::Up {
                    self.violate(Invariant::StrangersStayOut, format!("a stranger has a link: connection {conn}"));
                }
            }
            Actor::Liar { raw, .. } => {
                raw.receive(bytes);
                // Whatever comes is nothing to it.
                raw.frames.clear();
                let out = raw.take_out();
                self.transmit(at, out);
            }
            Actor::Impostor { raw } => {
                raw.receive(bytes);
                let (behind, out) = (raw.entry.behind, raw.take_out());
                // Who dials waits for the answer behind its opening, and after a wrong one says nothing.
                if behind > 0 {
                    self.violate(Invariant::StrangersStayOut, format!("an impostor is told more: connection {conn}"));
                }
                self.transmit(at, out);
            }
            Actor::Realm { .. } => {}
        }
    }

    /// Now and then somebody else is where a realm was dialled. He answers by a network key of his own, with anything, or with what
    /// that realm has answered before.
    pub fn impostor(&mut self, to: usize, profile: Profile) -> Option<End> {
        if !self.active || !self.chance(2) {
            return None;
        }
        let told = self.sabotage == Some(Sabotage::TellImpostor);
        let network = if told { network() } else { NetworkKey::new(drawn(&mut self.random)) };
        let random = self.link_random();
        let now = self.realms[to].unix_ms(self.now_us);
        let mut raw = RawPeer::new(RawPeerConfig {
            realm: RawRealm::number(99),
            network,
            role: Role::Responder,
            knock: profile != Profile::Local,
            random,
            now,
            ..RawPeerConfig::dialled(profile)
        });
        let mut says = match self.random.u8(0..3) {
            0 => Vec::new(),
            1 => {
                let mut noise = vec![0; self.random.usize(1..5_000)];
                self.random.fill(&mut noise);
                noise
            }
            _ => self.recorded_answer(to, profile),
        };
        if !told && !says.is_empty() {
            raw.entry.twist = Some(Box::new(move |answer| *answer = std::mem::take(&mut says)));
        }
        self.stats.fault("impostor");
        Some(End::new(Actor::Impostor { raw: Box::new(raw) }, None, None, false))
    }

    /// What a realm has said first to somebody who dialled it. Empty: nothing that anybody could have recorded.
    fn recorded_answer(&mut self, of: usize, profile: Profile) -> Vec<u8> {
        let answers = |conn: &usize| {
            let conn = &self.conns[*conn];
            let its = matches!(conn.ends[1].actor, Actor::Realm { realm, .. } if realm == of);
            its && conn.profile == profile && !conn.answer.is_empty()
        };
        let recorded: Vec<usize> = (0..self.conns.len()).filter(answers).collect();
        self.pick(&recorded).map(|conn| self.conns[conn].answer.clone()).unwrap_or_default()
    }

    pub fn liar_dials(&mut self, liar: usize) {
        if !self.active {
            return;
        }
        let wait = self.random.u64(100_000..3_000_000);
        self.after(wait, Happening::LiarDials { liar });
        let to = self.random.usize(0..self.plan.realms);
        if !self.realms[to].alive {
            return;
        }
        let number = self.plan.realms + liar;
        let profile = self.plan.profile(number, to);
        let random = self.link_random();
        let now = self.realms[to].unix_ms(self.now_us);
        let raw = RawPeer::new(RawPeerConfig {
            realm: self.liars[liar].clone(),
            network: network(),
            profile,
            role: Role::Initiator,
            knock: profile != Profile::Local,
            peer: self.realms[to].key,
            limits: Limits { credit_bytes: 0, ..Limits::default() },
            random,
            now,
        });
        let accepted = self.accepting(to, profile);
        let actor = Actor::Liar { liar, raw: Box::new(raw), said: 0 };
        let conn = self.connection(profile, [End::new(actor, None, None, true), accepted]);
        self.note(format_args!("liar {liar} dials {to}: connection {conn}"));
        self.set_timer((conn, 1), 0);
        if let Actor::Liar { raw, .. } = &mut self.conns[conn].ends[0].actor {
            let out = raw.take_out();
            self.transmit((conn, 0), out);
        }
        self.after(20_000, Happening::LiarActs { conn });
    }

    pub fn liar_acts(&mut self, conn: usize) {
        if !self.active || self.conns[conn].ends[1].phase == Phase::Over {
            return;
        }
        let wait = self.random.u64(1_000..100_000);
        let mut random = self.random.fork();
        let Actor::Liar { raw, said, .. } = &mut self.conns[conn].ends[0].actor else { return };
        if raw.channel_error.is_some() {
            return self.cut(conn);
        }
        if raw.agreed.is_some() {
            *said += 1;
            let over = *said > SAYS_MAX;
            let what = if over { "left" } else { say(raw, *said, &mut random) };
            let out = raw.take_out();
            self.stats.fault(what);
            self.transmit((conn, 0), out);
            if over {
                return self.cut(conn);
            }
        }
        self.after(wait, Happening::LiarActs { conn });
    }
}

/// One thing that a peer should not say, or that is a lot.
fn say(raw: &mut RawPeer, said: u32, random: &mut fastrand::Rng) -> &'static str {
    if said == 1 {
        raw.announce(&["liar", "e0"]);
        return "liar: announced";
    }
    let message = |random: &mut fastrand::Rng, number: u64| {
        RawMessage::cast("e0", &payload::encode(number, random.usize(0..200), &[]))
    };
    match random.u32(0..14) {
        // A flood, in good order.
        0..=3 => {
            for _ in 0..random.usize(1..20) {
                let messages = (0..random.usize(1..200)).map(|_| message(random, u64::MAX)).collect();
                raw.send("liar", messages);
            }
            "liar: flood"
        }
        // What others have sent, as its own.
        4 => {
            let messages = (0..10).map(|number| message(random, number)).collect();
            raw.send("liar", messages);
            "liar: others' words"
        }
        5 => {
            for number in 0..random.usize(1..100) {
                let learn = raw.learn(&format!("liar{number}"));
                raw.write_learn(&learn);
            }
            "liar: many engines"
        }
        6 => {
            let messages = vec![message(random, 1)];
            let batch = raw.batch("liar", messages);
            let mut body = raw.sealed(&batch, "liar");
            let at = random.usize(0..body.len());
            body[at] ^= 1 << random.u8(0..8);
            raw.write_frame(FrameType::Batch, &body);
            "liar: changed batch"
        }
        7 => {
            let batch = raw.batch("e0", vec![message(random, 2)]);
            let body = raw.sealed(&batch, "liar");
            raw.write_frame(FrameType::Batch, &body);
            "liar: another's key"
        }
        8 => {
            raw.next_sequence = random.u64(1..1_000);
            raw.send("liar", vec![message(random, 3)]);
            "liar: another number"
        }
        9 => {
            let body: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            let kinds = [
                FrameType::Batch,
                FrameType::Resume,
                FrameType::Fragment,
                FrameType::Credit,
                FrameType::Ack,
                FrameType::HandleRelease,
                FrameType::Forget,
                FrameType::Checkpoint,
                FrameType::Rotate,
                FrameType::Revoke,
            ];
            let kind = random.choice(kinds).unwrap_or(FrameType::Ack);
            raw.write_frame(kind, &body);
            "liar: noise in a frame"
        }
        10 => {
            raw.write_frame(FrameType::Ack, &random.u64(..).to_le_bytes());
            "liar: acknowledges"
        }
        11 => {
            let mut calls: Vec<RawMessage> = Vec::new();
            for number in 0..random.u64(1..300) {
                calls.push(RawMessage::call("e0", number + 1, random.u64(1..50), &payload::encode(5, 10, &[])));
            }
            raw.send("liar", calls);
            "liar: many calls"
        }
        12 => {
            let bytes: Vec<u8> = (0..random.usize(1..300)).map(|_| random.u8(..)).collect();
            raw.write_carrier(&bytes);
            "liar: noise around the channel"
        }
        _ => {
            let total = random.u32(1..20_000_000);
            let mut body = random.u32(0..8).to_le_bytes().to_vec();
            body.extend(total.to_le_bytes());
            body.extend(vec![7; random.usize(1..60_000)]);
            raw.write_frame(FrameType::Fragment, &body);
            "liar: fragments"
        }
    }
}
