//! Messages into batches: who signs what, which message goes on and which waits in its lane, and how it is written (`protocol.md` 9).

use std::sync::{Arc, Mutex};

use crate::frame::batch::{self, kind, same};
use crate::recent::Recent;
use crate::session::fragments::Transfers;
use crate::session::groups::{Group, Groups, Member};
use crate::session::lanes::{Class, Held, Lanes, Want};
use crate::session::message::{Entry, Message, Taken};
use crate::session::outbound::{
    count_batch, header, lane_of_answers, sent, signed, wire_caller, wire_destination, wire_held, Large, Outbound,
};
use crate::session::replay::Replay;
use crate::session::{lock, Session, Shared};
use crate::signing::Mode;

/// What writing a message costs besides its bytes, in bytes that would take as long; and what moving it to a lane does.
const WRITTEN_COST: usize = 64;
const MOVED_COST: usize = 512;

impl Outbound {
    /// Writes what lanes have let go, and the messages from `self.at` up to the next announcement or the flush's target.
    pub(super) fn write_messages(
        &mut self,
        session: &Session,
        let_go: &[(Arc<str>, Held)],
        moved: &mut usize,
        out: &mut Vec<u8>,
    ) {
        let (target, moved_target) = (self.target, self.moved_target());
        let Taken { entries, arena, .. } = &mut self.taken;
        let arena = &arena[..];
        let mut groups = Groups::default();
        let mode = self.mode;
        let mut budget = out.len();
        for (index, (lane, held)) in let_go.iter().enumerate() {
            let signer = self.announced.signer(if held.aligned { signed(mode) } else { mode }, held.source());
            let batch_bytes = batch_bytes(held.payload().len(), held.aligned);
            budget += batch_bytes + WRITTEN_COST;
            groups.add(index, signer, wire_destination(lane, held), held.payload().len(), batch_bytes);
        }
        // Most come from the same source as the one before, or from one of a few.
        let mut last = ("", self.announced.signer(mode, ""));
        let mut recent = Recent::new();
        let mut lanes = lock(&session.lanes);
        while let Some(Entry::Message(message)) = entries.get_mut(self.at) {
            if message.dropped {
                self.at += 1;
                continue;
            }
            if budget >= target || *moved >= moved_target {
                break;
            }
            let large = message.payload_bytes() > session.shared.limits.fragment_bytes && message.piece.is_some();
            // A piece is not copied.
            let moves = MOVED_COST + if message.piece.is_some() { 0 } else { message.payload_bytes() };
            let asks = large || !lanes.is_quiet_for(message.class());
            if asks && !admit(message, arena, large, &mut lanes, &mut self.transfers) {
                *moved += moves;
                self.at += 1;
                continue;
            }
            let source = message.source(arena);
            if !same(source, last.0) {
                let signer = recent.get(source).unwrap_or_else(|| {
                    let signer = self.announced.signer(mode, source);
                    // A lone one needs no list.
                    if !last.0.is_empty() {
                        recent.keep(source, signer);
                    }
                    signer
                });
                last = (source, signer);
            }
            let signer = match message.aligned && mode == Mode::Checkpoint {
                true => self.announced.signer(signed(mode), source),
                false => last.1,
            };
            budget += message.batch_bytes() + WRITTEN_COST;
            let index = let_go.len() + self.at;
            groups.add(index, signer, message.destination(arena), message.payload_bytes(), message.batch_bytes());
            self.at += 1;
        }
        drop(lanes);
        let groups = groups.groups;
        for group in &groups {
            self.write_batch(&session.shared, &session.replay, group, let_go, out);
        }
    }

    fn write_batch(
        &mut self,
        shared: &Shared,
        replay: &Mutex<Replay>,
        group: &Group,
        let_go: &[(Arc<str>, Held)],
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let arena = &self.taken.arena;
        let messages = group.members.iter().filter_map(|Member { index, as_realm }| {
            let named = !as_realm && group.mode != Mode::Engine;
            let Some((lane, held)) = let_go.get(*index) else {
                return match &self.taken.entries[*index - let_go.len()] {
                    Entry::Message(message) => {
                        Some(wire_message(message, if named { message.source(arena) } else { "" }, arena))
                    }
                    Entry::Announcement(..) => None,
                };
            };
            let source = if named { held.source() } else { "" };
            Some(wire_held(held, source, wire_destination(lane, held), held.payload()))
        });
        let count = group.members.len() as u64;
        let header = header(shared, group.mode, &group.engine);
        if header.mode == Mode::Checkpoint {
            let body = batch::encode_unsigned(&header, messages, out);
            self.proving.chain.add(header.first_sequence, count, &out[body..]);
        } else {
            let sign = |body: &[u8]| self.sign(shared, &group.engine, body);
            batch::encode(&header, messages, sign, out);
            shared.counters.signed.one();
        }
        sent(shared, replay, count, count, &out[start..]);
        count_batch(shared, count, group.payload_bytes);
    }

    /// By the key of the engine that the peer has been told of, or by the realm's online key.
    pub(super) fn sign(&self, shared: &Shared, engine: &str, body: &[u8]) -> [u8; 64] {
        let (keyring, network) = (&shared.keyring, &shared.agreed.network);
        match self.announced.key(engine) {
            Some(key) => keyring.sign_batch_as(engine, key, network, body),
            None => keyring.sign_batch(engine, network, body),
        }
    }
}

/// Whether a message goes on with the flush. If not it has left for its lane, or for its way out in fragments.
fn admit(
    message: &mut Message,
    arena: &[u8],
    large: bool,
    lanes: &mut Lanes,
    transfers: &mut Transfers<Large>,
) -> bool {
    let of_answers;
    let lane = match message.class() {
        Class::Answer => {
            // The number in a DOWN is another's.
            of_answers = lane_of_answers(if message.kind == kind::DOWN { 0 } else { message.caller });
            &of_answers
        }
        _ => message.destination(arena),
    };
    let payload_bytes = message.payload_bytes();
    let want = Want { class: message.class(), large, payload_bytes };
    let room = !large || transfers.has_room_for(payload_bytes);
    match (lanes.admit(lane, want, room), large) {
        (true, false) => true,
        (true, true) => {
            let mut held = message.leave(arena, large);
            if let Some(piece) = held.piece.take() {
                transfers.begin(*piece, Large { lane: lane.into(), held });
            }
            false
        }
        (false, _) => {
            lanes.hold(lane, message.leave(arena, large));
            false
        }
    }
}

fn wire_message<'a>(message: &'a Message, source: &'a str, arena: &'a [u8]) -> batch::Message<'a> {
    batch::Message {
        kind: message.kind,
        aligned: message.aligned,
        call_id: message.call_id,
        caller: wire_caller(message.kind, message.caller),
        detail: message.detail,
        source,
        destination: message.destination(arena),
        payload: message.payload(arena),
    }
}

/// What a message takes of a batch at most, gaps included.
fn batch_bytes(payload_bytes: usize, aligned: bool) -> usize {
    payload_bytes + if aligned { 2 * batch::ALIGNMENT } else { 0 }
}
