//! Payloads that come, or go, in pieces.
//!
//! [`Staging`] is the receiver's: what of large payloads has come, ahead of their batches. [`Transfers`] is the sender's:
//! what of them still has to go, a fragment of each in turn.
//!
//! **Invariants.** Both keep to the same bounds: at most [`TRANSFERS_MAX`] at a time, of at most [`staged_bytes_max`] in all,
//! where each counts as a whole from its first fragment to its batch. A transfer that has begun is always finished. So a peer
//! that goes past the bounds doesn't follow the protocol, and the link ends. What is staged takes its room once, when
//! the first fragment tells how much it will be.

use std::collections::VecDeque;

use crate::error::{InvalidFrame, LinkError, PeerMisbehaved};
use crate::frame::fragment::{Fragment, BYTES_MAX};
use crate::frame::staged::{Piece, StagedBatch, Whole};

/// Payloads that are on their way in fragments at the same time.
pub(crate) const TRANSFERS_MAX: usize = 4;

/// What they come to on top of one largest message: room for smaller ones beside it.
const BESIDE_BYTES: usize = 1024 * 1024;

/// Bytes of payload that may be on their way in fragments, by the receiver's message limit.
pub(crate) fn staged_bytes_max(message_bytes_max: u32) -> usize {
    message_bytes_max as usize + BESIDE_BYTES
}

/// What of large payloads has come.
#[derive(Debug)]
pub(crate) struct Staging {
    pieces: Vec<Staged>,
    /// The sum of their totals.
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Staged {
    transfer: u32,
    total: usize,
    piece: Piece,
}

impl Staging {
    pub fn new(message_bytes_max: u32) -> Staging {
        Staging { pieces: Vec::new(), bytes: 0, bytes_max: staged_bytes_max(message_bytes_max) }
    }

    /// What all payloads on their way will come to.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// # Errors
    /// When a bound is passed, or the fragment contradicts those before it.
    pub fn take_in(&mut self, fragment: &Fragment<'_>) -> Result<(), LinkError> {
        let total = fragment.total as usize;
        let known = self.pieces.iter().position(|staged| staged.transfer == fragment.transfer);
        let index = match known {
            Some(index) => index,
            None => {
                let bytes = self.bytes.saturating_add(total);
                if self.pieces.len() >= TRANSFERS_MAX {
                    return Err(PeerMisbehaved::TooManyTransfers.into());
                }
                if bytes > self.bytes_max {
                    let (bytes, limit) = (bytes as u64, self.bytes_max as u64);
                    return Err(InvalidFrame::TooLarge { what: "staged payloads", bytes, limit }.into());
                }
                self.bytes = bytes;
                self.pieces.push(Staged { transfer: fragment.transfer, total, piece: Piece::with_room_for(total) });
                self.pieces.len() - 1
            }
        };
        let staged = &mut self.pieces[index];
        if staged.total != total || staged.piece.payload_bytes() + fragment.bytes.len() > total {
            return Err(InvalidFrame::Value("fragment total").into());
        }
        staged.piece.extend(fragment.bytes);
        Ok(())
    }

    /// Puts the batch together whose payload has come; its transfer is over.
    ///
    /// # Errors
    /// When there is no such transfer, or it is not complete.
    pub fn close(&mut self, batch: &StagedBatch<'_>) -> Result<Whole, LinkError> {
        let index = self.pieces.iter().position(|staged| staged.transfer == batch.transfer);
        let index = index.ok_or(InvalidFrame::Value("batch transfer"))?;
        let staged = self.pieces.swap_remove(index);
        self.bytes -= staged.total;
        Ok(staged.piece.close(batch)?)
    }
}

/// A large message on its way out: `T` is what else is known of it.
#[derive(Debug)]
pub(crate) struct Transfer<T> {
    number: u32,
    piece: Piece,
    sent: usize,
    pub message: T,
}

impl<T> Transfer<T> {
    fn left(&self) -> usize {
        self.piece.payload_bytes() - self.sent
    }
}

/// What of large payloads still has to go.
#[derive(Debug)]
pub(crate) struct Transfers<T> {
    /// The first is the next to have its turn.
    under_way: VecDeque<Transfer<T>>,
    bytes: usize,
    bytes_max: usize,
    next_number: u32,
}

impl<T> Transfers<T> {
    /// By the peer's message limit.
    pub fn new(peer_message_bytes_max: u32) -> Transfers<T> {
        let bytes_max = staged_bytes_max(peer_message_bytes_max);
        Transfers { under_way: VecDeque::new(), bytes: 0, bytes_max, next_number: 1 }
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Payload bytes of the largest.
    pub fn largest(&self) -> usize {
        self.under_way.iter().map(|transfer| transfer.piece.payload_bytes()).max().unwrap_or(0)
    }

    pub fn has_room_for(&self, payload_bytes: usize) -> bool {
        self.under_way.len() < TRANSFERS_MAX && self.bytes + payload_bytes <= self.bytes_max
    }

    /// The caller has looked whether there is room.
    pub fn begin(&mut self, piece: Piece, message: T) {
        debug_assert!(self.has_room_for(piece.payload_bytes()) && piece.payload_bytes() > 0);
        self.bytes += piece.payload_bytes();
        self.under_way.push_back(Transfer { number: self.next_number, piece, sent: 0, message });
        // At most four at a time: a number that comes round again has been free for long.
        self.next_number = self.next_number.wrapping_add(1);
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.under_way.iter().map(|transfer| &transfer.message)
    }

    /// Appends the next fragment of the one whose turn it is, among those that `chosen` names. Gives the transfer back
    /// when that was its last: its batch is due.
    pub fn send_next(
        &mut self,
        fragment_bytes: usize,
        out: &mut Vec<u8>,
        chosen: impl Fn(&T) -> bool,
    ) -> Sent<Transfer<T>> {
        let Some(index) = self.under_way.iter().position(|transfer| chosen(&transfer.message)) else {
            return Sent::Nothing;
        };
        let Some(mut transfer) = self.under_way.remove(index) else { return Sent::Nothing };
        let count = transfer.left().min(fragment_bytes.clamp(1, BYTES_MAX));
        Fragment {
            transfer: transfer.number,
            total: transfer.piece.payload_bytes() as u32,
            bytes: &transfer.piece.payload()[transfer.sent..transfer.sent + count],
        }
        .encode(out);
        transfer.sent += count;
        if transfer.left() > 0 {
            self.under_way.push_back(transfer);
            return Sent::Fragment;
        }
        self.bytes -= transfer.piece.payload_bytes();
        Sent::Last(transfer)
    }

    /// All of them, in the order of their next turns: they begin again in another session.
    pub fn drain(&mut self) -> impl Iterator<Item = (Piece, T)> + '_ {
        self.bytes = 0;
        self.under_way.drain(..).map(|transfer| (transfer.piece, transfer.message))
    }
}

impl<T> Transfer<T> {
    /// Number, payload, and what else is known of it.
    pub fn into_parts(self) -> (u32, Piece, T) {
        (self.number, self.piece, self.message)
    }
}

/// What a turn came to.
#[derive(Debug)]
pub(crate) enum Sent<T> {
    /// There was nothing to send.
    Nothing,
    Fragment,
    Last(T),
}

#[cfg(test)]
mod tests;
