//! Every bound of the core, with its reason. All are settings; these are the first values.

use crate::etf::TermLimits;
use crate::frame::batch::ROW_BYTES_MAX;
use crate::signing::{Mode, Modes};

/// The version of the protocol that this crate speaks, lowest and highest.
pub const VERSION_MIN: u16 = 1;
pub const VERSION_MAX: u16 = 1;

/// Most messages in one batch: a table row must have arrived for each, and one signature over this many costs nothing
/// per message any more.
pub const BATCH_MESSAGES_MAX: usize = 4_096;

/// Payload bytes after which a batch is closed and the next begun: large enough that a signature is lost in it, small
/// enough that the receiver's verification overlaps with the sender's next batch.
pub const BATCH_PAYLOAD_TARGET: usize = 256 * 1024;

/// What one flush hands to the carrier at most, but for a single message that is larger.
pub const FLUSH_TARGET: usize = 512 * 1024;

/// A batch's header, table and padding on top of the message limit.
pub const BATCH_OVERHEAD_MAX: usize = 64 * 1024;

/// Clocks of two realms may differ by this much, in ms, where validity is checked.
pub const CLOCK_SKEW_MS: u64 = 30_000;

/// How long a link key is certified for. It is made anew at each start of a process.
pub const LINK_CERTIFICATE_MS: u64 = 24 * 60 * 60 * 1000;

/// The longest an online key may be certified for: 24 h (`protocol.md` 11.3).
pub const ONLINE_KEY_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Rotations of one realm, in all. They stand in each of its hellos, and so many fit there (`protocol.md` 7.1); with one a
/// year it is a long time.
pub const ROTATIONS_MAX: usize = 16;

/// For so long after a new identity key is in force, announcements by the one before are taken, too: an agent may have been
/// at work on one (`protocol.md` 11.7).
pub const OLD_KEY_MS: u64 = 60_000;

/// An ACK goes out by itself after this many sequence numbers or bytes, otherwise with other frames or when the driver says
/// so ([`crate::session::Session::acknowledge_now`]).
pub const ACK_AFTER_MESSAGES: u64 = 256;
pub const ACK_AFTER_BYTES: u64 = 256 * 1024;

/// Destinations of the peer's, engines and handles, with messages that have not been granted back: what else is for a new one
/// waits, and what comes for one more is dropped. As many as there may be engines and handles.
pub const DESTINATIONS_MAX: usize = 2 * 65_536;

/// Receipts made of one read, bytes. Each holds the table of its batch, so those of a batch of thousands of small messages
/// would come to thousands of times what was received.
pub const RECEIPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Entries of HANDLE_RELEASE that may wait, but for those that there can be only so many of. A peer that sends handles that are
/// not wanted, and doesn't read, would have more and more of them waiting; past this its own table keeps them.
pub const RELEASES_MAX: usize = 256 * 1024;

/// Different identifiers in one payload that come home and are not known, and engines. Each may cost its receiver a process, and
/// a peer can write half a million of them into one message.
pub const STRAYS_MAX: usize = 4_096;

/// Reason terms that wait for the end they belong to, and their bytes. Past either the end is told by its class.
pub const REASONS_MAX: usize = 4_096;
pub const REASON_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Settings of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload accepted from the peer and pushed to it, bytes.
    pub message_bytes_max: u32,
    /// Engines learned from the peer.
    pub engines_max: u32,
    /// Bytes of payload that may wait in the outbound queue.
    pub queue_bytes_max: usize,
    /// Of these, bytes of calls, casts and sends to one engine, so that a flooded one leaves room for others. Nothing is
    /// kept per engine where there is no such bound. A message may be larger than it if nothing else of its engine waits.
    pub engine_queue_bytes_max: Option<usize>,
    /// Calls in flight, each way.
    pub calls_max: usize,
    /// Processes of the peer that call here, and of ours that have calls in flight there.
    pub callers_max: usize,
    /// Whether payloads may hold pids and references. If not they are refused as `identifiers`, either way.
    pub identifiers: bool,
    /// Processes that each side has of the other's: pids that were given away, and stand-ins for those that came.
    pub handles_max: usize,
    /// The same of references. The oldest gives way to a new one.
    pub references_max: usize,
    /// From the carrier's start to the peer's hello.
    pub handshake_ms: u64,
    /// Between two PINGs; twice as long a silence ends the link.
    pub ping_ms: u64,
    /// Bytes that were sent and are kept until the peer acknowledges them; at it nothing more is signed until then. 0: nothing
    /// is kept, and the session ends with its link.
    pub resume_bytes_max: usize,
    /// Failed verifications within the window that close the link.
    pub failures_max: u32,
    pub failures_window_ms: u64,
    /// A checkpoint goes out so long after the first batch that waits for one, ms; not 0.
    pub checkpoint_ms: u64,
    /// For so long a batch of the peer's may wait for its checkpoint, ms.
    pub checkpoint_patience_ms: u64,
    /// Messages, and bytes of batches, that were delivered and may wait for their checkpoint; a batch of more bytes may come alone.
    /// Past either the session ends. A sender doesn't wait for its time with a quarter of the first values open.
    pub unproven_messages_max: u64,
    pub unproven_bytes_max: u64,
    /// What goes when the outbound queue is full, or an engine's part of it: a new cast or send, the oldest ones, or the link.
    pub overflow: Overflow,
    /// The window that the peer has for each engine and handle of ours: bytes that it may have sent, and we not granted back
    /// ([`crate::session::Session::grant`]). Half of it must hold a usual message. 0: the peer needs no credit.
    pub credit_bytes: u32,
    /// Payloads over this go in fragments of at most so many bytes (never more than 64 KiB, nor less than 1), between which others go; not 0.
    /// The first value is half of what a batch of many is closed at: longer ones have a signature of their own anyway.
    pub fragment_bytes: usize,
    /// Casts, sends and calls that wait for longer don't go any more, ms. None: they wait for as long as it takes.
    pub message_ttl_ms: Option<u64>,
    /// Callers that wait for room in the queue.
    pub room_waiters_max: usize,
    /// How we sign, if the peer takes it.
    pub signing: Mode,
    /// What we take from the peer, whatever it has been told.
    pub accept_signing: Modes,
    pub term: TermLimits,
}

/// Casts and sends past the queue's bound: which are dropped. A call past it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    Newest,
    Oldest,
    /// None: the push fails with [`crate::session::PushError::Disconnect`], and the driver closes the link with `overload`.
    Disconnect,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes_max: 8 * 1024 * 1024,
            engines_max: 65_536,
            queue_bytes_max: 16 * 1024 * 1024,
            engine_queue_bytes_max: None,
            calls_max: 65_536,
            callers_max: 65_536,
            identifiers: false,
            handles_max: 65_536,
            references_max: 65_536,
            handshake_ms: 5_000,
            ping_ms: 15_000,
            resume_bytes_max: 16 * 1024 * 1024,
            failures_max: 10,
            failures_window_ms: 60_000,
            checkpoint_ms: 5,
            checkpoint_patience_ms: 1_000,
            unproven_messages_max: 65_536,
            unproven_bytes_max: 16 * 1024 * 1024,
            overflow: Overflow::Newest,
            credit_bytes: 1024 * 1024,
            fragment_bytes: 128 * 1024,
            message_ttl_ms: None,
            room_waiters_max: 16_384,
            signing: Mode::Engine,
            accept_signing: Modes::default(),
            term: TermLimits::default(),
        }
    }
}

impl Limits {
    /// The longest BATCH body accepted, bytes.
    pub fn batch_bytes_max(&self) -> usize {
        // A batch of many messages stops at the target, one of a single message at the message limit.
        (self.message_bytes_max as usize).max(2 * BATCH_PAYLOAD_TARGET)
            + BATCH_OVERHEAD_MAX
            + BATCH_MESSAGES_MAX * ROW_BYTES_MAX
    }
}
