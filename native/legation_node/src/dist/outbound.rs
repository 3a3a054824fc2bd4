//! From messages to a stream of bytes.

/// What waits to go to one node.
#[derive(Debug)]
pub struct Outbound {}
