//! From a stream of bytes to messages.

use super::control::Control;

/// What a connection brings.
#[derive(Debug)]
pub enum Incoming<'a> {
    Tick,
    /// `payload` is a whole external term, version byte (131) at its front, and may be written to: a message without a payload has
    /// an empty one.
    Message {
        control: Control<'a>,
        payload: &'a mut [u8],
    },
    /// A message over the limit. What comes of it is thrown away; `head` is its beginning (131 first), as much as had
    /// come at once, so that a caller can be told.
    Oversized {
        control: Control<'a>,
        head: &'a mut [u8],
    },
}
