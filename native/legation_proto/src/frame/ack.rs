//! ACK: all up to a sequence number was handed to mailboxes (`protocol.md` 12.1).
//!
//! ```text
//!  0 sequence u64
//! ```

use crate::codec::Reader;
use crate::error::InvalidFrame;
use crate::frame::{self, FrameType};

pub fn encode(sequence: u64, out: &mut Vec<u8>) {
    frame::encode(FrameType::Ack, &sequence.to_le_bytes(), out);
}

pub fn decode(body: &[u8]) -> Result<u64, InvalidFrame> {
    let mut reader = Reader::new(body);
    let sequence = reader.u64("ack sequence")?;
    reader.finish("ack")?;
    Ok(sequence)
}
