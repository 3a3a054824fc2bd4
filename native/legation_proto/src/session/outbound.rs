//! The sending half: turns what waits into frames, one signature per batch.
//!
//! **Group commit.** A flush takes all that has been queued since the last one. Messages of one source share a batch.
//! Messages to one engine keep the order in which they were pushed, whoever they are from: a message joins its source's
//! open batch only when no later batch holds a message to the same engine (`protocol.md` 9.6).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::Mutex;

use crate::frame::batch::{self, Header};
use crate::frame::resume::Resume;
use crate::frame::{self, ack, forget, handle_release, learn, FrameType};
use crate::limits::{BATCH_MESSAGES_MAX, BATCH_PAYLOAD_TARGET, FLUSH_TARGET};
use crate::session::queue::{Entry, Message, Queue, Taken};
use crate::session::replay::Replay;
use crate::session::{lock, Shared};

/// An arena that a burst has blown up beyond this is given back instead of kept for the next flush.
const ARENA_KEPT_MAX: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outbound {
    taken: Taken,
    /// The next entry of `taken` to go out.
    at: usize,
    /// Engines of ours that the peer has been told of, with their keys; others' messages go as the realm's.
    announced: HashMap<Box<str>, [u8; 32]>,
}

/// What has not been signed: it may go out in another session.
impl Outbound {
    pub fn unsigned(&self) -> (&[Entry], &[u8]) {
        (&self.taken.entries[self.at..], &self.taken.arena)
    }
}

/// Members of one batch to be, as indices into the taken entries.
struct Group {
    source: Box<str>,
    members: Vec<usize>,
    payload_bytes: usize,
    /// With the gaps around aligned payloads.
    batch_bytes: usize,
}

impl Group {
    fn has_room_for(&self, message: &Message) -> bool {
        self.members.len() < BATCH_MESSAGES_MAX && self.batch_bytes + message.batch_bytes() <= BATCH_PAYLOAD_TARGET
    }
}

impl Outbound {
    /// The first frame on a link that this side goes over to. From now on everything unacknowledged is sent again.
    pub fn resume(&self, shared: &Shared, replay: &Mutex<Replay>, out: &mut Vec<u8>) {
        let next = lock(replay).rewind().unwrap_or_else(|| shared.sent_sequence.load(Ordering::Relaxed) + 1);
        let received = shared.delivered.load(Ordering::Acquire);
        Resume { session: shared.agreed.session, received, next }.encode(out);
    }

    /// Appends frames to `out`. True when more waits than one flush takes.
    pub fn flush(&mut self, shared: &Shared, queue: &Mutex<Queue>, replay: &Mutex<Replay>, out: &mut Vec<u8>) -> bool {
        if let Some(sequence) = lock(queue).ack.take() {
            ack::encode(sequence, out);
        }
        {
            let mut replay = lock(replay);
            if replay.send(out, FLUSH_TARGET) {
                return true;
            }
            // What has been taken goes; the window is looked at before more is.
            if self.at == self.taken.entries.len() && self.taken.releases.is_empty() {
                if replay.must_wait() {
                    return false;
                }
                drop(replay);
                self.recycle();
                lock(queue).take(&mut self.taken);
            }
        }

        let before = self.at;
        while self.at < self.taken.entries.len() && out.len() < FLUSH_TARGET {
            match &self.taken.entries[self.at] {
                Entry::Announcement(kind, signed) => {
                    note_announced(&mut self.announced, *kind, signed);
                    let start = out.len();
                    frame::encode(*kind, signed, out);
                    sent(shared, replay, 1, 0, &out[start..]);
                    self.at += 1;
                }
                Entry::Message(_) => self.write_messages(shared, replay, out),
            }
        }
        let gone = &self.taken.entries[before..self.at];
        let cost = gone.iter().map(Entry::cost).sum();
        let drained = self.at == self.taken.entries.len();
        if drained {
            for entries in self.taken.releases.chunks(handle_release::ENTRIES_MAX) {
                let start = out.len();
                handle_release::encode(entries, out);
                sent(shared, replay, 1, 0, &out[start..]);
            }
            self.taken.releases.clear();
        }

        let mut queue = lock(queue);
        queue.sent(gone, cost);
        shared.counters.queue_bytes.set(queue.bytes() as u64);
        !drained || !queue.settle()
    }

    fn recycle(&mut self) {
        self.at = 0;
        self.taken.entries.clear();
        self.taken.arena.clear();
        if self.taken.arena.capacity() > ARENA_KEPT_MAX {
            self.taken = Taken::default();
        }
    }

    /// Writes the messages from `self.at` up to the next announcement or the flush's target.
    fn write_messages(&mut self, shared: &Shared, replay: &Mutex<Replay>, out: &mut Vec<u8>) {
        let arena = &self.taken.arena;
        let mut groups: Vec<Group> = Vec::new();
        // Which group last took a message to an engine; kept only once there are two groups.
        let mut last_group: HashMap<&str, usize> = HashMap::new();
        let mut budget = out.len();
        while let Some(Entry::Message(message)) = self.taken.entries.get(self.at) {
            if message.dropped {
                self.at += 1;
                continue;
            }
            if budget >= FLUSH_TARGET {
                break;
            }
            budget += message.batch_bytes() + batch::ROW_BYTES;
            let source = message.source(arena);
            let source = if self.announced.contains_key(source) { source } else { "" };
            let destination = message.destination(arena);
            let not_before = match destination {
                // An answer goes to a call, not to an engine: nothing to keep it in order with.
                "" => 0,
                _ => last_group.get(destination).copied().unwrap_or(0),
            };
            let open = groups.iter().rposition(|group| *group.source == *source);
            let index = match open {
                Some(index) if index >= not_before && groups[index].has_room_for(message) => index,
                _ => {
                    if groups.len() == 1 {
                        for member in &groups[0].members {
                            if let Entry::Message(earlier) = &self.taken.entries[*member] {
                                last_group.insert(earlier.destination(arena), 0);
                            }
                        }
                    }
                    groups.push(Group { source: source.into(), members: Vec::new(), payload_bytes: 0, batch_bytes: 0 });
                    groups.len() - 1
                }
            };
            groups[index].members.push(self.at);
            groups[index].payload_bytes += message.payload_bytes();
            groups[index].batch_bytes += message.batch_bytes();
            if groups.len() > 1 {
                last_group.insert(destination, index);
            }
            self.at += 1;
        }
        for group in &groups {
            self.write_batch(shared, replay, group, out);
        }
    }

    fn write_batch(&self, shared: &Shared, replay: &Mutex<Replay>, group: &Group, out: &mut Vec<u8>) {
        let start = out.len();
        let first_sequence = shared.sent_sequence.load(Ordering::Relaxed) + 1;
        let header = Header {
            session: shared.agreed.session,
            source: shared.agreed.own,
            destination: shared.agreed.peer,
            first_sequence,
            engine: &group.source,
        };
        let arena = &self.taken.arena;
        let messages = group.members.iter().filter_map(|member| match &self.taken.entries[*member] {
            Entry::Message(message) => Some(batch::Message {
                kind: message.kind,
                aligned: message.aligned,
                call_id: message.call_id,
                caller: message.caller,
                detail: message.detail,
                destination: message.destination(arena),
                payload: message.payload(arena),
            }),
            Entry::Announcement(..) => None,
        });
        let (keyring, network) = (&shared.keyring, &shared.agreed.network);
        let sign = |body: &[u8]| match self.announced.get(&group.source) {
            Some(told) => keyring.sign_batch_as(&group.source, told, network, body),
            None => keyring.sign_batch(&group.source, network, body),
        };
        batch::encode(&header, messages, sign, out);
        let count = group.members.len() as u64;
        sent(shared, replay, count, count, &out[start..]);
        shared.counters.messages_out.add(count);
        shared.counters.payload_bytes_out.add(group.payload_bytes as u64);
        shared.counters.batches_out.one();
        shared.counters.signed.one();
    }
}

/// A sequenced frame goes out, before its bytes leave: the peer's ACK can't come earlier than this.
fn sent(shared: &Shared, replay: &Mutex<Replay>, count: u64, messages: u64, frame: &[u8]) {
    let first = shared.sent_sequence.fetch_add(count, Ordering::Release) + 1;
    let mut replay = lock(replay);
    replay.keep(first, count, messages, frame);
    shared.counters.resume_bytes.set(replay.bytes() as u64);
}

fn note_announced(announced: &mut HashMap<Box<str>, [u8; 32]>, kind: FrameType, signed: &[u8]) {
    match kind {
        FrameType::Learn => {
            if let Ok((learn, _)) = learn::Learn::decode(signed) {
                announced.insert(learn.engine.into(), learn.key);
            }
        }
        FrameType::Forget => {
            if let Ok((forget, _)) = forget::Forget::decode(signed) {
                announced.remove(&*forget.engine);
            }
        }
        _ => {}
    }
}
