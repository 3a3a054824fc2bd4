//! BATCH frames by hand, and frames of the core's types.

use legation_proto::frame::FrameType;

pub use hostile::batch::*;
pub use hostile::frame::frame;

/// A frame as it should be.
pub fn critical(kind: FrameType, body: &[u8]) -> Vec<u8> {
    frame(kind as u8, 1, body.len() as u32, body)
}
