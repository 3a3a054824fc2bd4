//! `[limits]`: every bound, its default and what it may be. Names, values and rules are those of `Legation.Options`.

use legation_proto::limits::Overflow;

use super::document::Section;
use super::{Limits, PeerLimits};

/// A timer of the VM can't be longer, and one configuration serves both transports.
pub const MS_MAX: u64 = u32::MAX as u64;

/// A frame's length and its overhead are a u32 (`protocol.md` 6.1, 6.2); a gibibyte in one piece is beyond what anybody wants.
const MESSAGE_BYTES_MAX: u64 = 1 << 30;

/// What Elixir takes for a number without a bound of its own.
const POSITIVE_MAX: u64 = 0xFFFF_FFFF_FFFF;

/// More than a machine has: a number that is no size.
const BYTES_MAX: u64 = 1 << 40;

const MIB: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            session: legation_proto::limits::Limits {
                // Half of what may wait for a peer: an engine that takes nothing leaves room for the others, who share the
                // daemon with it. A larger message goes all the same when nothing else of its engine waits.
                engine_queue_bytes_max: Some(8 * MIB),
                ..legation_proto::limits::Limits::default()
            },
            engine_queue_max: None,
            // A cable that is pulled and put back, a switch that starts again. Who has to know sooner has it shorter.
            grace_ms: 60_000,
            // Longer than any answer that an acknowledgement could go with, and short beside what a peer keeps for it.
            ack_ms: 50,
            call_age_ms: 30_000,
            // Long enough for a pid that is kept to be used at times, and short beside the life of a session.
            handle_idle_ms: 600_000,
            pending_connections_max: 1_024,
            handshakes_max: 100,
            failed_handshakes_per_s: 20,
            knock_window_ms: 30_000,
            knock_boot_ms: 1_000,
            knock_entries_max: 65_536,
            // As long as the handshake that follows.
            connect_ms: 5_000,
            handshake_reads: 16,
            send_timeout_ms: 15_000,
            goodbye_ms: 5_000,
            shutdown_ms: 5_000,
            reconnect_min_ms: 50,
            reconnect_max_ms: 30_000,
            // A node that is slow for a second at the rate of a fast link; signals may take four times as much.
            beam_queue_bytes_max: 64 * MIB,
            // A fully connected cluster doesn't get larger.
            beam_nodes_max: 1_024,
            // As for peers: more at once are no cluster that starts but somebody who tries cookies.
            beam_handshakes_max: 100,
            // A process has one message under way at most, so these are processes that send large ones at the same time.
            beam_fragmented_max: 1_024,
            // Eight of the largest message that a peer takes.
            beam_fragmented_bytes_max: 64 * MIB,
            // Each call is a monitor while it lasts; sixteen peers' worth of calls.
            beam_monitors_max: 1_048_576,
            // Not all that a node has but those that it has sent us; some 4 MiB of them per node.
            known_atoms_max: 65_536,
            // Asking the node takes a round trip on the same machine: what a peer sends meanwhile.
            held_messages_max: 65_536,
            held_bytes_max: 16 * MIB,
            // People and monitors that look in at the same time.
            control_connections_max: 16,
        }
    }
}

/// Reads the table; what is not in it has its default.
pub fn limits(section: Option<Section<'_>>) -> Limits {
    let mut limits = Limits::default();
    let Some(section) = section else { return limits };
    let reader = Reader(&section);

    let session = &mut limits.session;
    reader.set("message_bytes_max", &mut session.message_bytes_max, 1, MESSAGE_BYTES_MAX);
    reader.set("depth_max", &mut session.term.depth_max, 1, u64::from(legation_proto::etf::DEPTH_MAX));
    reader.set("engines_max", &mut session.engines_max, 1, u64::from(u32::MAX));
    reader.positive("queue_bytes_max", &mut session.queue_bytes_max);
    reader.or_infinity("engine_queue_bytes_max", &mut session.engine_queue_bytes_max);
    reader.positive("calls_max", &mut session.calls_max);
    reader.positive("callers_max", &mut session.callers_max);
    reader.set("handshake_ms", &mut session.handshake_ms, 1, MS_MAX);
    reader.set("ping_ms", &mut session.ping_ms, 1, MS_MAX);
    reader.bytes("resume_bytes_max", &mut session.resume_bytes_max);
    reader.set("failures_max", &mut session.failures_max, 1, u64::from(u32::MAX));
    reader.set("failures_window_ms", &mut session.failures_window_ms, 1, MS_MAX);
    reader.overflow(&mut session.overflow);
    reader.set("credit_bytes", &mut session.credit_bytes, 0, u64::from(u32::MAX));
    reader.set("fragment_bytes", &mut session.fragment_bytes, 1, BYTES_MAX);
    reader.or_infinity("message_ttl_ms", &mut session.message_ttl_ms);
    reader.positive("room_waiters_max", &mut session.room_waiters_max);
    reader.set("checkpoint_ms", &mut session.checkpoint_ms, 1, MS_MAX);
    reader.set("checkpoint_patience_ms", &mut session.checkpoint_patience_ms, 1, MS_MAX);
    reader.positive("unproven_messages_max", &mut session.unproven_messages_max);
    reader.positive("unproven_bytes_max", &mut session.unproven_bytes_max);
    reader.or_infinity("engine_queue_max", &mut limits.engine_queue_max);
    reader.set("grace_ms", &mut limits.grace_ms, 0, MS_MAX);
    reader.set("ack_ms", &mut limits.ack_ms, 1, MS_MAX);
    reader.positive("handles_max", &mut session.handles_max);
    reader.positive("references_max", &mut session.references_max);
    reader.set("handle_idle_ms", &mut limits.handle_idle_ms, 1, MS_MAX);
    reader.set("call_age_ms", &mut limits.call_age_ms, 1, MS_MAX);
    reader.positive("pending_connections_max", &mut limits.pending_connections_max);
    reader.positive("handshakes_max", &mut limits.handshakes_max);
    reader.positive("failed_handshakes_per_s", &mut limits.failed_handshakes_per_s);
    reader.set("knock_window_ms", &mut limits.knock_window_ms, 1, MS_MAX);
    reader.set("knock_boot_ms", &mut limits.knock_boot_ms, 0, MS_MAX);
    reader.positive("knock_entries_max", &mut limits.knock_entries_max);
    reader.set("connect_ms", &mut limits.connect_ms, 1, MS_MAX);
    reader.set("handshake_reads", &mut limits.handshake_reads, 1, 10_000);
    reader.set("send_timeout_ms", &mut limits.send_timeout_ms, 1, MS_MAX);
    reader.set("goodbye_ms", &mut limits.goodbye_ms, 0, MS_MAX);
    reader.set("shutdown_ms", &mut limits.shutdown_ms, 0, MS_MAX);
    reader.set("reconnect_min_ms", &mut limits.reconnect_min_ms, 1, MS_MAX);
    reader.set("reconnect_max_ms", &mut limits.reconnect_max_ms, 1, MS_MAX);
    reader.positive("beam_queue_bytes_max", &mut limits.beam_queue_bytes_max);
    reader.positive("beam_nodes_max", &mut limits.beam_nodes_max);
    reader.positive("beam_handshakes_max", &mut limits.beam_handshakes_max);
    reader.positive("beam_fragmented_max", &mut limits.beam_fragmented_max);
    reader.positive("beam_fragmented_bytes_max", &mut limits.beam_fragmented_bytes_max);
    reader.positive("beam_monitors_max", &mut limits.beam_monitors_max);
    reader.positive("known_atoms_max", &mut limits.known_atoms_max);
    reader.positive("held_messages_max", &mut limits.held_messages_max);
    reader.positive("held_bytes_max", &mut limits.held_bytes_max);
    reader.positive("control_connections_max", &mut limits.control_connections_max);

    if limits.reconnect_max_ms < limits.reconnect_min_ms {
        let words = format!("at least `reconnect_min_ms` ({})", limits.reconnect_min_ms);
        match section.value("reconnect_max_ms") {
            Some(value) => value.expected(&words),
            None => section.problem(format!("expected `reconnect_max_ms` ({}) to be {words}", limits.reconnect_max_ms)),
        }
    }
    section.finish();
    limits
}

/// `limits` of a peer: what it has of its own.
pub fn peer_limits(section: Section<'_>) -> PeerLimits {
    let reader = Reader(&section);
    let mut limits = PeerLimits::default();
    // The same rules as in `[limits]`: each is read as if it stood there.
    let (mut grace_ms, mut resume, mut queue, mut engine_queue, mut overflow) = (0, 0, 0, None, Overflow::Newest);
    let mut message_ttl_ms = None;
    reader.set("grace_ms", &mut grace_ms, 0, MS_MAX);
    reader.bytes("resume_bytes_max", &mut resume);
    reader.positive("queue_bytes_max", &mut queue);
    reader.or_infinity("engine_queue_bytes_max", &mut engine_queue);
    reader.overflow(&mut overflow);
    reader.or_infinity("message_ttl_ms", &mut message_ttl_ms);
    let is_there = |name: &'static str| section.value(name).is_some();
    limits.grace_ms = is_there("grace_ms").then_some(grace_ms);
    limits.resume_bytes_max = is_there("resume_bytes_max").then_some(resume);
    limits.queue_bytes_max = is_there("queue_bytes_max").then_some(queue);
    limits.engine_queue_bytes_max = is_there("engine_queue_bytes_max").then_some(engine_queue);
    limits.overflow = is_there("overflow").then_some(overflow);
    limits.message_ttl_ms = is_there("message_ttl_ms").then_some(message_ttl_ms);
    section.finish();
    limits
}

struct Reader<'s, 'd>(&'s Section<'d>);

impl Reader<'_, '_> {
    fn set<T: TryFrom<u64>>(&self, name: &'static str, limit: &mut T, min: u64, max: u64) {
        let Some(value) = self.0.value(name) else { return };
        if let Some(number) = value.integer(min, max).and_then(|number| T::try_from(number).ok()) {
            *limit = number;
        }
    }

    /// What doesn't fit into the type that we count with is no bound at all.
    fn positive<T: TryFrom<u64> + Saturated>(&self, name: &'static str, limit: &mut T) {
        let Some(value) = self.0.value(name) else { return };
        if let Some(number) = value.integer(1, POSITIVE_MAX) {
            *limit = T::try_from(number).unwrap_or(T::MAX);
        }
    }

    /// 0 turns it off.
    fn bytes(&self, name: &'static str, limit: &mut usize) {
        let Some(value) = self.0.value(name) else { return };
        if let Some(number) = value.integer(0, BYTES_MAX) {
            *limit = usize::try_from(number).unwrap_or(usize::MAX);
        }
    }

    fn overflow(&self, limit: &mut Overflow) {
        let Some(value) = self.0.value("overflow") else { return };
        match value.as_str() {
            Some("newest") => *limit = Overflow::Newest,
            Some("oldest") => *limit = Overflow::Oldest,
            Some("disconnect") => *limit = Overflow::Disconnect,
            _ => value.expected("\"newest\", \"oldest\" or \"disconnect\""),
        }
    }

    fn or_infinity<T: TryFrom<u64> + Saturated>(&self, name: &'static str, limit: &mut Option<T>) {
        let Some(value) = self.0.value(name) else { return };
        match (value.as_str(), value.as_integer()) {
            (Some("infinity"), _) => *limit = None,
            (_, Some(number @ 1..=POSITIVE_MAX)) => *limit = Some(T::try_from(number).unwrap_or(T::MAX)),
            _ => value.expected("a positive integer or \"infinity\""),
        }
    }
}

trait Saturated {
    const MAX: Self;
}

impl Saturated for usize {
    const MAX: usize = usize::MAX;
}

impl Saturated for u64 {
    const MAX: u64 = u64::MAX;
}

impl Saturated for u32 {
    const MAX: u32 = u32::MAX;
}
