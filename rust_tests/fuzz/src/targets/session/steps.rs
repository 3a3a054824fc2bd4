//! Steps of a peer that keeps the rules, and of our own side: whatever was before, each finds a link that it can go over, or makes one.

use legation_proto::codec::Writer;
use legation_proto::frame::batch::Refusal;
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use rust_tests::raw_batch::{fragment, staged, RawMessage, STAGED};
use rust_tests::term;

use super::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Valid {
    /// Some messages to `b`, signed in one of the three ways.
    Say {
        engine: u8,
        count: u8,
        mode: u8,
    },
    Ask {
        engine: u8,
    },
    /// Our side answers one that was asked.
    Serve {
        which: u8,
        refuse: bool,
    },
    /// Our side asks.
    Call {
        engine: u8,
    },
    /// The peer answers one that has come to it.
    Reply {
        which: u8,
        refuse: bool,
    },
    /// Our side says something.
    Tell {
        engine: u8,
        count: u8,
        large: bool,
    },
    /// A message in fragments.
    Joined {
        pieces: u8,
        between: bool,
    },
    /// The peer's mailboxes are empty.
    Grant,
    /// The peer has all that came.
    Acknowledge,
    /// The link breaks under what the peer (`lost`) and our side say, and another takes its place.
    Break {
        lost: u8,
        ours: u8,
        again: u8,
    },
    /// On another link of the session, which is there or is made.
    Over {
        to: u8,
        again: u8,
    },
    Prove,
    Time {
        twenty_ms: u8,
    },
    /// Engines come and go, theirs and ours.
    Announce {
        what: u8,
        engine: u8,
    },
}

impl Valid {
    pub fn of(tag: u8, one: u8, other: u8) -> Valid {
        match tag % 16 {
            0..=2 => Valid::Say { engine: one, count: 1 + other % 4, mode: other / 4 },
            3 => Valid::Ask { engine: one },
            4 => Valid::Serve { which: one, refuse: other % 4 == 3 },
            5 => Valid::Call { engine: one },
            6 => Valid::Reply { which: one, refuse: other % 4 == 3 },
            7 | 8 => Valid::Tell { engine: one, count: 1 + other % 4, large: other / 4 % 4 == 3 },
            9 => Valid::Joined { pieces: one, between: other % 2 == 1 },
            10 => Valid::Grant,
            11 => Valid::Acknowledge,
            12 => Valid::Break { lost: one % 4, ours: one / 4 % 4, again: other },
            13 => Valid::Over { to: one, again: other },
            14 if one.is_multiple_of(2) => Valid::Prove,
            14 => Valid::Time { twenty_ms: other },
            _ => Valid::Announce { what: one, engine: other },
        }
    }

    /// What a script may begin with, so that what follows finds something under way; and a bit of the bounds for it.
    pub fn opening(number: u8) -> (u8, Vec<Valid>) {
        let say = |mode| Valid::Say { engine: 0, count: 2, mode };
        let tell = |large| Valid::Tell { engine: 0, count: 3, large };
        match number % 16 {
            1 => (0, vec![say(0), say(2)]),
            2 => {
                (0, vec![Valid::Ask { engine: 0 }, Valid::Serve { which: 0, refuse: false }, Valid::Ask { engine: 1 }])
            }
            3 => (
                0,
                vec![Valid::Call { engine: 0 }, Valid::Reply { which: 0, refuse: false }, Valid::Call { engine: 1 }],
            ),
            4 => (0, vec![say(0), tell(false), Valid::Break { lost: 2, ours: 2, again: 6 }]),
            5 => (WINDOW, vec![tell(true), tell(false), Valid::Grant, tell(true)]),
            6 => (0, vec![Valid::Joined { pieces: 100, between: true }]),
            7 => (0, vec![say(3), Valid::Prove, say(3)]),
            8 => (0, vec![say(0), Valid::Over { to: 1, again: 1 }, tell(false)]),
            9 => (WINDOW, vec![tell(true), tell(true), Valid::Break { lost: 1, ours: 1, again: 0 }]),
            _ => (0, Vec::new()),
        }
    }
}

/// The bit of the bounds by which the peer gives a window.
pub(super) const WINDOW: u8 = 0x20;

const OURS: [&str; 3] = ["b", "c", "d"];

fn theirs(number: u8) -> &'static str {
    ["e1", "e2"][usize::from(number % 2)]
}

impl World {
    pub(super) fn step(&mut self, step: Valid) {
        // Where no link is left to be made, what our side does is all that there is.
        let usable = self.mend();
        match step {
            Valid::Serve { which, refuse } if !self.asked.is_empty() => {
                let call = self.asked.remove(usize::from(which) % self.asked.len());
                let side = &mut self.link().side;
                if refuse {
                    side.refuse(call, Refusal::Forbidden);
                } else if side.reply(call, &term::number(1)).is_ok() {
                    self.reached.answers_given += 1;
                }
            }
            Valid::Call { engine } => {
                self.call(theirs(engine), engine);
            }
            Valid::Tell { engine, count, large } => self.tell(engine, count, large),
            Valid::Time { twenty_ms } => {
                if usable {
                    self.prove();
                }
                self.advance(20 * u64::from(twenty_ms));
            }
            Valid::Announce { what, engine } if what % 4 == 2 => {
                self.link().side.export(OURS[usize::from(engine % 3)]);
            }
            Valid::Announce { what, engine } if what % 4 == 3 => {
                // Not `b`, to which all is said.
                self.link().side.withdraw(OURS[1 + usize::from(engine % 2)], ForgetReason::Normal);
            }
            _ if !usable => {}
            step => self.peers(step),
        }
    }

    /// What the peer does.
    fn peers(&mut self, step: Valid) {
        match step {
            Valid::Say { engine, count, mode } => self.say(engine, count, mode),
            Valid::Ask { engine } => {
                let payload = self.numbered("b");
                self.asks += 1;
                let ask = RawMessage::call("b", 1_000 + self.asks, 1 + self.asks % 3, &payload);
                self.send(theirs(engine), vec![ask]);
            }
            Valid::Reply { which, refuse } if !self.pending.is_empty() => {
                let (call, engine, context) = self.pending.remove(usize::from(which) % self.pending.len());
                let answer = match refuse {
                    true => RawMessage::error(call, 2),
                    false => {
                        self.numbers += 1;
                        self.replied.insert(self.numbers, context);
                        RawMessage::reply(call, &term::number(self.numbers))
                    }
                };
                self.send(&engine, vec![answer]);
            }
            Valid::Joined { pieces, between } => self.joined(pieces, between),
            Valid::Grant => self.grant(),
            Valid::Acknowledge => {
                self.acknowledged = self.heard;
                let heard = self.heard.to_le_bytes();
                self.write(FrameType::Ack, &heard);
            }
            Valid::Break { lost, ours, again } => {
                self.link().side.lose();
                for _ in 0..lost {
                    self.say(lost, 1, 0);
                }
                if ours > 0 {
                    self.tell(ours, ours, false);
                }
                if self.another(false, true) {
                    self.resume(again);
                }
            }
            Valid::Over { to, again } => {
                let there = usize::from(to) % (self.lines.len() + 1);
                let next = self.link().peer.next_sequence;
                match self.lines.get(there).map(|line| line.versus.side.is_over()) {
                    Some(true) => return,
                    Some(false) => self.current = there,
                    None if self.another(true, true) => {}
                    None => return,
                }
                self.link().peer.next_sequence = next;
                // Our side goes over as well, or stays.
                if again % 2 == 1 {
                    self.link().side.link.activate();
                    self.link().side.woken(true);
                    self.check();
                }
                self.resume(again / 2);
            }
            Valid::Prove => self.prove(),
            Valid::Announce { what, engine } => {
                let name = theirs(engine);
                if what % 4 == 1 {
                    let forget = self.link().peer.forget(name);
                    let body = self.link().peer.signed(Purpose::Forget, forget.body());
                    self.write(FrameType::Forget, &body);
                }
                let learn = self.link().peer.learn(name);
                let body = self.link().peer.signed(Purpose::Learn, learn.body());
                self.write(FrameType::Learn, &body);
            }
            _ => {}
        }
    }

    /// The number of a message, which goes there, as its payload.
    fn numbered(&mut self, destination: &str) -> Vec<u8> {
        self.numbers += 1;
        self.sent.insert(self.numbers, destination.to_owned());
        term::number(self.numbers)
    }

    fn send(&mut self, engine: &str, messages: Vec<RawMessage>) {
        let peer = &mut self.link().peer;
        let batch = peer.batch(engine, messages);
        let body = peer.sealed(&batch, engine);
        self.write(FrameType::Batch, &body);
    }

    fn say(&mut self, engine: u8, count: u8, mode: u8) {
        let name = theirs(engine);
        let mut messages: Vec<RawMessage> = Vec::new();
        for number in 0..count {
            let payload = self.numbered("b");
            messages.push(match number % 2 {
                0 => RawMessage::cast("b", &payload),
                _ => RawMessage::send("b", &payload),
            });
        }
        let mode = [1, 1, 2, 3][usize::from(mode % 4)];
        if mode == 1 {
            return self.send(name, messages);
        }
        messages.iter_mut().for_each(|message| message.source = name.into());
        // As many as may be open with the tightest bounds.
        if mode == 3 && self.open.is_some_and(|(first, last)| last + 1 - first + u64::from(count) > 4) {
            self.prove();
        }
        let peer = &mut self.link().peer;
        let mut batch = peer.batch("", messages);
        batch.mode = mode;
        let body = if mode == 2 { peer.sealed(&batch, "") } else { batch.body() };
        if mode == 3 {
            self.opened(batch.first_sequence, count.into(), &body);
        }
        self.write(FrameType::Batch, &body);
    }

    fn prove(&mut self) {
        let Some((first, last)) = self.open.take() else { return };
        let checkpoint = Checkpoint { first, last, chain: self.chain };
        let signature = rust_tests::raw_chain::signature(&self.link().peer, &checkpoint);
        let mut body = Vec::new();
        body.put_u64(first);
        body.put_u64(last);
        body.put(&self.chain);
        body.put(&signature);
        self.write(FrameType::Checkpoint, &body);
    }

    fn joined(&mut self, pieces: u8, between: bool) {
        self.numbers += 1;
        let number = self.numbers;
        self.sent.insert(number, "b".to_owned());
        // Within the tightest limit of a message.
        let payload = term::payload(&term::tuple(&[term::binary(&[7; 200]), term::number(number)[1..].to_vec()]));
        self.transfers += 1;
        let transfer = 100 + self.transfers;
        for piece in payload.chunks(20 + usize::from(pieces)) {
            let body = fragment(transfer, payload.len(), piece);
            self.write(FrameType::Fragment, &body);
            if between {
                self.link().peer.ping(9);
            }
        }
        let peer = &mut self.link().peer;
        let message = RawMessage { flags: STAGED, ..RawMessage::cast("b", &payload) };
        let batch = peer.batch("e1", vec![message]);
        let whole = peer.sealed(&batch, "e1");
        self.write(FrameType::Batch, &staged(&whole, transfer));
    }

    fn grant(&mut self) {
        let used: Vec<(String, u64)> = self.used.drain().filter(|(_, bytes)| *bytes > 0).collect();
        if used.is_empty() {
            return;
        }
        let mut body = (used.len() as u16).to_le_bytes().to_vec();
        for (name, bytes) in used {
            body.put_str8(&name);
            body.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
        self.write(FrameType::Credit, &body);
    }

    fn tell(&mut self, engine: u8, count: u8, large: bool) {
        for number in 0..count {
            let payload = if large { term::of_size(400) } else { term::number(number.into()) };
            let side = &mut self.link().side;
            // Refused where there is no room.
            let _ = match number % 2 {
                0 => side.cast("b", theirs(engine), &payload),
                _ => side.send("b", theirs(engine), &payload),
            };
        }
    }
}
