//! Which messages of a flush share a batch, and so a signature.
//!
//! Messages of one signer share a batch: of one engine, or of all for which the realm's online key signs. Messages to one engine keep
//! the order in which they were pushed, whoever they are from: a message joins its signer's open batch only when no later batch holds
//! a message to the same engine (`protocol.md` 9.6).

use std::collections::HashMap;

use crate::frame::batch::same;
use crate::limits::{BATCH_MESSAGES_MAX, BATCH_PAYLOAD_TARGET};
use crate::session::announced::Signer;
use crate::signing::Mode;

/// One batch to be.
pub(crate) struct Group {
    pub mode: Mode,
    pub engine: Box<str>,
    pub members: Vec<Member>,
    pub payload_bytes: usize,
    /// With the gaps around aligned payloads.
    batch_bytes: usize,
}

impl Group {
    fn has_room_for(&self, batch_bytes: usize) -> bool {
        self.members.len() < BATCH_MESSAGES_MAX && self.batch_bytes + batch_bytes <= BATCH_PAYLOAD_TARGET
    }
}

/// A message of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Into the lanes' messages, and behind them into the taken entries.
    pub index: usize,
    /// As in [`Signer`].
    pub as_realm: bool,
}

/// Batches to be, and which of them a message joins.
#[derive(Default)]
pub(crate) struct Groups<'a> {
    pub groups: Vec<Group>,
    /// Which group last took a message to an engine; kept only once there are two groups.
    last: HashMap<&'a str, usize>,
    /// Destinations of the first group's, until there is a second.
    first: Vec<&'a str>,
}

impl<'a> Groups<'a> {
    pub fn add(
        &mut self,
        index: usize,
        signer: Signer<'_>,
        destination: &'a str,
        payload_bytes: usize,
        batch_bytes: usize,
    ) {
        let Signer { mode, engine, as_realm } = signer;
        let not_before = match destination {
            // An answer goes to a call, not to an engine: its own engine's batches keep their order by themselves.
            "" => 0,
            _ => self.last.get(destination).copied().unwrap_or(0),
        };
        let open = self.groups.iter().rposition(|group| group.mode == mode && same(&group.engine, engine));
        let place = match open {
            Some(place) if place >= not_before && self.groups[place].has_room_for(batch_bytes) => place,
            _ => {
                if self.groups.len() == 1 {
                    self.last.extend(self.first.drain(..).map(|destination| (destination, 0)));
                }
                let (engine, members) = (engine.into(), Vec::new());
                self.groups.push(Group { mode, engine, members, payload_bytes: 0, batch_bytes: 0 });
                self.groups.len() - 1
            }
        };
        let group = &mut self.groups[place];
        group.members.push(Member { index, as_realm });
        group.payload_bytes += payload_bytes;
        group.batch_bytes += batch_bytes;
        if self.groups.len() > 1 {
            self.last.insert(destination, place);
        } else if self.first.last() != Some(&destination) {
            self.first.push(destination);
        }
    }
}
