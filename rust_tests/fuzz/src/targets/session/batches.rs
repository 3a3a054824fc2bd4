//! Batches, fragments and checkpoints of the peer's.

use legation_proto::etf::{Owner, Wire};
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::FrameType;
use rust_tests::raw_batch::{fragment, staged, RawMessage, ALIGNED, STAGED};
use rust_tests::term;

use super::script::{Batch, Message, Payload};
use super::world::World;
use super::{destination, engine, mostly_known, rarely};
use crate::targets::{elements, Few};

impl World {
    /// A batch, signed; and whether what is in it may be delivered.
    pub(super) fn batch(&mut self, batch: &Batch, payload: Option<&[u8]>) -> (Vec<u8>, bool) {
        let mode = if batch.mode >= 250 { batch.mode } else { 1 + batch.mode % 3 };
        // Those that are known, more often than not.
        let name = mostly_known(batch.engine);
        let signer = if batch.signer % 8 == 7 { engine(batch.signer / 8) } else { name };
        let mut numbers = Vec::new();
        let messages: Vec<RawMessage> = batch
            .messages
            .0
            .iter()
            .map(|message| {
                let kind = if message.kind < 240 {
                    [1, 2, 3, 2, 4, 5, 1][usize::from(message.kind % 7)]
                } else {
                    message.kind % 13
                };
                // Whether there are call fields.
                let calls = matches!(kind, 3..=5) || message.kind >= 250;
                let payload = match (payload, &message.payload) {
                    (Some(payload), _) => payload.to_vec(),
                    (None, payload) if matches!(payload, Payload::Number) || message.flags.is_multiple_of(2) => {
                        self.numbers += 1;
                        numbers.push((self.numbers, destination(message.destination)));
                        term::number(self.numbers)
                    }
                    (None, other) => bytes_of(other),
                };
                RawMessage {
                    kind,
                    flags: message.flags & (ALIGNED | if message.flags >= 0xe0 { 0xe0 } else { 0 }),
                    call_id: if calls { 1 + u64::from(message.call_id % 8) } else { 0 },
                    caller: if kind == 3 { 1 + u64::from(message.caller % 4) } else { 0 },
                    detail: match kind {
                        3 => 1 + message.detail % 6,
                        5 => 1 + message.detail % 11,
                        _ if calls => message.detail,
                        _ => 0,
                    },
                    source: if message.source < 200 { engine(message.source % 2) } else { engine(message.source) }
                        .into(),
                    destination: if matches!(kind, 4 | 5) { String::new() } else { destination(message.destination) }
                        .into(),
                    payload,
                    length: message.length.filter(|_| message.flags >= 0xf0),
                }
            })
            .collect();
        let peer = &mut self.link().peer;
        peer.next_sequence = peer.next_sequence.saturating_add_signed(rarely(batch.sequence)).max(1);
        let mut raw = peer.batch(if mode == 1 { name } else { "" }, messages);
        raw.mode = mode;
        let wrong = if batch.wrong >= 0xe0 { batch.wrong << 3 } else { 0 };
        raw.count = batch.count.filter(|_| wrong & 8 != 0);
        if wrong & 0x10 != 0 {
            raw.session[0] ^= 1;
        }
        if wrong & 0x20 != 0 {
            raw.source[0] ^= 1;
        }
        if wrong & 0x40 != 0 {
            raw.destination[0] ^= 1;
        }
        let body = match mode {
            1 => peer.sealed(&raw, signer),
            3 => raw.body(),
            _ => peer.sealed(&raw, if batch.signer % 8 == 7 { signer } else { "" }),
        };
        let right = match mode {
            // Engines that were made by this realm have its key for them, whenever they were announced.
            1 => signer == name,
            2 => batch.signer % 8 != 7 || signer.is_empty(),
            3 => true,
            _ => false,
        };
        let good = right && wrong & 0x70 == 0;
        if good {
            for (number, destination) in numbers {
                self.sent.insert(number, destination);
            }
        }
        if mode == 3 {
            self.opened(raw.first_sequence, raw.messages.len().max(1) as u64, &body);
        }
        (body, good)
    }

    /// A batch without a signature is on its way.
    pub(super) fn opened(&mut self, first: u64, count: u64, body: &[u8]) {
        let begun = self.open.map_or(first, |(first, _)| first);
        self.open = Some((begun, first + count - 1));
        self.chain = *blake3::hash(&[self.chain, *blake3::hash(body).as_bytes()].concat()).as_bytes();
    }

    pub(super) fn staged(&mut self, transfer: u8, ahead: i8, pieces: u8, batch: &Batch) {
        let Some(message) = batch.messages.0.first() else { return };
        self.numbers += 1;
        let number = self.numbers;
        let payload = term::payload(&term::tuple(&[term::binary(&[7; 300]), term::number(number)[1..].to_vec()]));
        let message = Message { flags: message.flags | 0x80, length: None, payload: Payload::Number, ..*message };
        let to = destination(message.destination);
        let is_staged = message.flags & STAGED != 0;
        let one = Batch { messages: Few(vec![message]), mode: batch.mode % 2, ..*batch };
        let transfer = u32::from(transfer % 4);
        // Fragments take numbers, too, and come before the batch. One that is not staged after all goes as it is.
        if is_staged {
            let total = payload.len().saturating_add_signed(ahead.into());
            for piece in payload.chunks(1 + usize::from(pieces)) {
                let body = fragment(transfer, total, piece);
                self.write(FrameType::Fragment, &body);
            }
        }
        let (whole, good) = self.batch(&one, Some(&payload));
        if good {
            self.sent.insert(number, to);
        }
        match is_staged {
            false => self.write(FrameType::Batch, &whole),
            true if whole.len() > 200 => self.write(FrameType::Batch, &staged(&whole, transfer)),
            true => {}
        }
    }

    pub(super) fn checkpoint(&mut self, first: i8, last: i8, chain: bool, signed: bool) {
        let wrong = first % 16 == 7;
        let (open, chain_now) = (self.open.take(), self.chain);
        let peer = &mut self.link().peer;
        let checkpoint = match (wrong, open) {
            (false, None) => return,
            (false, Some((first, last))) => Checkpoint { first, last, chain: chain_now },
            (true, _) => Checkpoint {
                first: peer.next_sequence.saturating_add_signed(i64::from(first) / 16).max(1),
                last: peer.next_sequence.saturating_add_signed(i64::from(last) / 16),
                chain: if chain { chain_now } else { [5; 32] },
            },
        };
        let signed = signed || !wrong;
        let signature = match signed {
            true => rust_tests::raw_chain::signature(peer, &checkpoint),
            false => [6; 64],
        };
        rust_tests::raw_chain::say(peer, &checkpoint, &signature);
    }
}

fn bytes_of(payload: &Payload) -> Vec<u8> {
    let identifier = |wire: Wire<'_>| {
        let mut raw = vec![131];
        wire.put(&mut raw);
        raw
    };
    let owner = |home: bool| if home { Owner::Receiver } else { Owner::Sender };
    match payload {
        Payload::Number => Vec::new(),
        Payload::Element(number) => {
            let all = elements();
            term::payload(&all[usize::from(*number) % all.len()])
        }
        Payload::Bytes(bytes) => bytes.clone(),
        Payload::Pid { number, home } => identifier(Wire::Pid { number: (number % 6).into(), owner: owner(*home) }),
        Payload::Reference { number, home } => {
            identifier(Wire::Reference { number: (number % 6).into(), owner: owner(*home) })
        }
        Payload::Engine(number) => identifier(Wire::Engine(engine(*number))),
        Payload::Tagged(tag, number) => {
            let tags = ["ok", "$gen_call", "system", "EXIT", "DOWN", "io_request"];
            let second = elements().swap_remove(usize::from(*number) % elements().len());
            term::payload(&term::tuple(&[term::atom(tags[usize::from(tag % 6)]), second, term::small(1)]))
        }
    }
}
