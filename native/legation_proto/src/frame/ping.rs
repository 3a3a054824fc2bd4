//! PING and PONG: eight bytes, and the same eight bytes back (`protocol.md` 12.2).

use crate::codec::Reader;
use crate::error::InvalidFrame;
use crate::frame::{self, FrameType};

pub fn encode_ping(token: u64, out: &mut Vec<u8>) {
    frame::encode(FrameType::Ping, &token.to_le_bytes(), out);
}

pub fn encode_pong(token: u64, out: &mut Vec<u8>) {
    frame::encode(FrameType::Pong, &token.to_le_bytes(), out);
}

/// Either's body.
pub fn decode(body: &[u8]) -> Result<u64, InvalidFrame> {
    let mut reader = Reader::new(body);
    let token = reader.u64("ping token")?;
    reader.finish("ping")?;
    Ok(token)
}
