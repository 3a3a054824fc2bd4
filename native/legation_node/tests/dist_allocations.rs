//! Small frames are read and written without allocating. A test program of its own, since it counts what everything in it allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use legation_node::dist::control::encode::{self, TargetTerm};
use legation_node::dist::inbound::{Inbound, InboundConfig, Incoming};
use legation_node::dist::outbound::{Outbound, OutboundConfig};
use legation_node::dist::term::OwnNode;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's work; counting touches no memory that it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: passed on as it came.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

/// The three frames of a call, many times over, and ticks, written and read again.
#[test]
fn small_frames_are_written_and_read_without_allocating() {
    let (client, server) = (OwnNode::new("client@127.0.0.1", 5), OwnNode::new("legation@127.0.0.1", 7));
    let (mut from, mut to, mut reference) = (Vec::new(), Vec::new(), Vec::new());
    client.pid(&mut from, 1, 0);
    server.pid(&mut to, 2, 0);
    client.reference(&mut reference, [1, 2, 3]);
    for header in [true, false] {
        let mut outbound = Outbound::new(OutboundConfig { header, queue_bytes_max: 1 << 24 });
        let mut inbound = Inbound::new(InboundConfig {
            header,
            message_bytes_max: 1 << 23,
            fragmented_max: 10,
            fragmented_bytes_max: 1 << 24,
        });
        let (mut bytes, mut control) = (Vec::new(), Vec::new());
        let mut round = |count: usize| {
            for _ in 0..100 {
                outbound.tick();
                control.clear();
                encode::monitor_p(&mut control, &from, TargetTerm::Pid(&to), &reference);
                outbound.push(1, &control, &[]).expect("room");
                control.clear();
                encode::send_sender(&mut control, &from, &to);
                outbound.push(1, &control, &[&[104, 2], &[106], &[106]]).expect("room");
                control.clear();
                encode::demonitor_p(&mut control, &from, TargetTerm::Name(b"engine"), &reference);
                outbound.push(1, &control, &[]).expect("room");
            }
            bytes.clear();
            outbound.take(&mut bytes, 256 * 1024);
            let mut came = 0;
            for part in bytes.chunks(1_000) {
                inbound.space()[..part.len()].copy_from_slice(part);
                inbound.filled(part.len());
                while let Some(incoming) = inbound.next().expect("our own frames") {
                    came += usize::from(matches!(incoming, Incoming::Tick | Incoming::Message { .. }));
                }
            }
            assert_eq!(came, count);
        };
        // Buffers grow to their size.
        (0..3).for_each(|_| round(400));
        let before = allocations();
        (0..10).for_each(|_| round(400));
        assert_eq!(allocations(), before, "header: {header}");
    }
}
