//! What is counted besides the nodes' own connections.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dist::inbound::InboundCounters;

/// Since the node started, but for `nodes` and `handshakes`, which are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeamCounters {
    /// Connected now.
    pub nodes: u64,
    /// Under way now, but for those with nodes that the configuration has us dial.
    pub handshakes: u64,
    /// Connections that came up.
    pub connections: u64,
    /// Of those that dialled us: closed unheard, because too many handshakes were under way.
    pub handshakes_refused: u64,
    /// Refused because too many nodes were connected.
    pub nodes_refused: u64,
    /// Handshakes that came to nothing, for whatever reason but the two above.
    pub handshakes_failed: u64,
    /// Of these: the cookies differed.
    pub cookies_differed: u64,
    /// Connections that ended because the node was silent.
    pub nodes_silent: u64,
    /// Connections that we ended because of what the node sent.
    pub streams_broken: u64,
    /// Connections that we ended because more waited than may.
    pub queues_full: u64,
    /// Messages of nodes.
    pub messages: u64,
    /// Of these: put together from fragments.
    pub fragmented: u64,
    /// Messages over the bound; also those that too many fragmented ones at once left no room for.
    pub oversized: u64,
    pub fragmented_refused: u64,
    /// Fragments that belong to no message that is being put together.
    pub fragments_dropped: u64,
    /// Well-formed frames that are no message we know of.
    pub undecodable: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) handshakes_refused: AtomicU64,
    pub(super) nodes_refused: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) cookies_differed: AtomicU64,
    pub(super) nodes_silent: AtomicU64,
    pub(super) streams_broken: AtomicU64,
    pub(super) queues_full: AtomicU64,
    messages: AtomicU64,
    fragmented: AtomicU64,
    oversized: AtomicU64,
    fragmented_refused: AtomicU64,
    fragments_dropped: AtomicU64,
    undecodable: AtomicU64,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// What one connection has counted since `before`, which is brought up to date.
    pub(super) fn add(&self, before: &mut InboundCounters, now: &InboundCounters) {
        let add = |counter: &AtomicU64, before: u64, now: u64| {
            if now != before {
                counter.fetch_add(now - before, Ordering::Relaxed);
            }
        };
        add(&self.messages, before.messages, now.messages);
        add(&self.fragmented, before.fragmented, now.fragmented);
        add(&self.oversized, before.oversized, now.oversized);
        add(&self.fragmented_refused, before.fragmented_refused, now.fragmented_refused);
        add(&self.fragments_dropped, before.fragments_dropped, now.fragments_dropped);
        add(&self.undecodable, before.undecodable, now.undecodable);
        *before = *now;
    }

    pub(super) fn read(&self, nodes: usize, handshakes: usize) -> BeamCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BeamCounters {
            nodes: nodes as u64,
            handshakes: handshakes as u64,
            connections: read(&self.connections),
            handshakes_refused: read(&self.handshakes_refused),
            nodes_refused: read(&self.nodes_refused),
            handshakes_failed: read(&self.handshakes_failed),
            cookies_differed: read(&self.cookies_differed),
            nodes_silent: read(&self.nodes_silent),
            streams_broken: read(&self.streams_broken),
            queues_full: read(&self.queues_full),
            messages: read(&self.messages),
            fragmented: read(&self.fragmented),
            oversized: read(&self.oversized),
            fragmented_refused: read(&self.fragmented_refused),
            fragments_dropped: read(&self.fragments_dropped),
            undecodable: read(&self.undecodable),
        }
    }
}
