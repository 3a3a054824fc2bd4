//! Erlang distribution without sockets: bytes in, messages out, and back.
//!
//! Knows nothing of Legation and could be a crate of its own. Time, bytes and randomness are arguments.
//!
//! ```text
//!  bytes read ──► handshake ──► Inbound::next ──► Control + payload ──► (the caller)
//!  bytes to write ◄── handshake ◄── Outbound::take ◄── Outbound::push ◄── control::encode, term::put_…
//! ```
//!
//! * [`term`]: walks and writes external terms that hold identifiers; bounded, no recursion.
//! * [`control`]: the control messages, both directions.
//! * [`inbound`]: frames out of a stream of bytes, fragments put together, each message once.
//! * [`outbound`]: messages into frames, large ones in fragments that small ones overtake.
//! * [`handshake`]: both sides of the handshake, by `erl_dist`, over a pipe in memory.
//! * [`flags`]: what we offer, and why.
//!
//! # What the caller does
//! A payload is a term in external format that nobody has looked into. It goes from the stream to the caller and from the caller to the stream
//! as bytes, and is neither decoded nor copied on the way, but once into the buffer that is written.
//!
//! The caller has the processes. It answers a [`Link`](control::Control::Link) or [`MonitorP`](control::Control::MonitorP) for what it doesn't
//! have with `noproc`, an [`UnlinkId`](control::Control::UnlinkId) with its acknowledgement, a
//! [`SpawnRequest`](control::Control::SpawnRequest) with `notsup`; compares creations ([`OwnNode::owns`](term::OwnNode::owns)); writes a tick
//! when it has long had nothing else to write. And it reads always: a BEAM suspends the processes that send to a node that doesn't.
//!
//! # An example
//! ```
//! use legation_node::dist::control::{encode, Control};
//! use legation_node::dist::inbound::{Inbound, InboundConfig, Incoming};
//! use legation_node::dist::outbound::{Outbound, OutboundConfig};
//! use legation_node::dist::term::{self, OwnNode};
//!
//! let us = OwnNode::new("legation@127.0.0.1", 7);
//! let (mut from, mut control, mut hello) = (Vec::new(), Vec::new(), Vec::new());
//! us.pid(&mut from, 1, 0);
//! encode::reg_send(&mut control, &from, "logger");
//! term::put_atom(&mut hello, "hello");
//!
//! let mut outbound = Outbound::new(OutboundConfig { header: true, queue_bytes_max: 1 << 20 });
//! outbound.push(0, &control, &[&hello])?;
//! let mut bytes = Vec::new();
//! outbound.take(&mut bytes, 256 * 1024);
//!
//! let mut inbound = Inbound::new(InboundConfig {
//!     header: true,
//!     message_bytes_max: 1 << 20,
//!     fragmented_max: 100,
//!     fragmented_bytes_max: 1 << 24,
//! });
//! inbound.space()[..bytes.len()].copy_from_slice(&bytes);
//! inbound.filled(bytes.len());
//! match inbound.next()? {
//!     Some(Incoming::Message { control: Control::RegSend { name, from }, payload }) => {
//!         assert!(name == b"logger" && us.owns(&from) && payload[0] == term::VERSION && payload[1..] == hello[..]);
//!     }
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limitations and assumptions
//! * Nodes of OTP 25 and later. What older ones send is read as far as it has not been dropped since; they are refused in the handshake.
//! * No atom cache, in either direction: it is not offered, and a frame that refers to one ends the connection.
//! * No spawning: requests can be read and refused, and there is no encoder for our own.
//! * Compressed terms, the textual float, records (OTP 29) and the encodings that are local to a VM are no terms here. None is
//!   sent to whom offers [`flags::OFFERED`].
//! * Names of nodes and processes are UTF-8. A control message with one in latin1 that isn't ASCII is left out, and counted.
//! * Trace tokens are dropped: what a traced process sends arrives, and its trace ends here.
//! * All fragments of a message but the last are as large as the first, as ERTS makes them. If they aren't, a message within the limit may be
//!   refused by what its first fragment lets expect; no bound is exceeded.
//! * A fragmented message that is begun is ended, or the connection is: ERTS lets no process die halfway. Otherwise its place stays
//!   taken as long as the connection lives.
//! * Exits and `DOWN`s whose reason is part of the control message, and doesn't fit into a frame of the size that is allowed, are left out, and counted.
//! * Frames have less than 4 GiB, and so has a message that is not cut.
//! * 64-bit sequence numbers of fragmented messages don't run out.

pub mod control;
pub mod flags;
pub mod handshake;
pub mod inbound;
pub mod outbound;
pub mod term;
