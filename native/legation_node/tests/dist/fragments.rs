//! Messages in fragments.

use legation_node::dist::control::decode;
use legation_node::dist::inbound::{Inbound, InboundConfig, InboundError};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{
    binary, config, first_fragment, message, next_fragment, read, send_sender, versioned, whole_frame, Came,
};

/// A message cut as ERTS cuts it.
struct Cut {
    sequence: u64,
    control: Vec<u8>,
    term: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

impl Cut {
    /// The payload has so many bytes, version byte included.
    fn new(sequence: u64, payload: usize, fragment: usize) -> Cut {
        let control = send_sender(sequence as u32, 2);
        let term = binary(payload - 6, sequence as u8);
        let body = [&control[..], &term].concat();
        // The control message stays whole.
        let first = fragment.max(control.len()).min(body.len());
        let parts: Vec<&[u8]> = std::iter::once(&body[..first]).chain(body[first..].chunks(fragment)).collect();
        let frames = parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let number = (parts.len() - index) as u64;
                if index == 0 {
                    first_fragment(sequence, number, part)
                } else {
                    next_fragment(sequence, number, part)
                }
            })
            .collect();
        Cut { sequence, control, term, frames }
    }

    fn whole(&self) -> Came {
        let (control, _) = decode(&self.control).expect("a control message");
        message(&control, &versioned(&self.term))
    }
}

const KIB: usize = 1024;

fn is_head_of(came: &Came, cut: &Cut) -> bool {
    let whole = versioned(&cut.term);
    matches!(came, Came::Oversized(_, head) if whole.starts_with(head) && head.first() == Some(&131))
}

#[test]
fn fragments_of_the_sizes_that_erts_sends_are_put_together() {
    let cut = Cut::new(0x2a8_0000_0553, 200_051 - send_sender(1, 2).len(), 64 * KIB);
    let sizes: Vec<_> = cut.frames.iter().map(|frame| frame.len() - 4).collect();
    assert_eq!(sizes, [65_555, 65_554, 65_554, 3_460]);
    for size in [1, 1_000, 100_000, usize::MAX] {
        let mut inbound = Inbound::new(config(true));
        let came = read(&mut inbound, &cut.frames.concat(), size);
        assert_eq!(came, Ok(vec![cut.whole()]));
        assert_eq!(inbound.counters().fragmented, 1);
    }
}

#[test]
fn a_message_of_one_fragment_is_whole() {
    let cut = Cut::new(5, 300, 64 * KIB);
    let mut inbound = Inbound::new(config(true));
    assert_eq!(
        read(&mut inbound, &[cut.frames[0].clone(), cut.frames[0].clone()].concat(), 9).map(|came| came.len()),
        Ok(2)
    );
}

#[test]
fn fragments_without_content_do_no_harm() {
    let control = send_sender(1, 2);
    let frames = [
        first_fragment(1, 4, &control),
        next_fragment(1, 3, &[]),
        next_fragment(1, 2, &[106]),
        next_fragment(1, 1, &[]),
    ];
    let (expected, _) = decode(&control).expect("a control message");
    let mut inbound = Inbound::new(config(true));
    assert_eq!(read(&mut inbound, &frames.concat(), 9), Ok(vec![message(&expected, &[131, 106])]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn interleaved_messages_all_come_each_when_it_is_complete(
        shapes in vec((100..5_000usize, 50..1_500usize), 1..8),
        order in vec(any::<prop::sample::Index>(), 0..200),
        cut in prop_oneof![1..100usize, Just(usize::MAX)],
    ) {
        let messages: Vec<_> = shapes.iter().zip(1..).map(|(&(size, fragment), sequence)| Cut::new(sequence, size, fragment)).collect();
        let mut waiting: Vec<_> = messages.iter().map(|message| message.frames.iter()).collect();
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        let mut order = order.into_iter();
        let mut left: Vec<usize> = (0..messages.len()).collect();
        while !left.is_empty() {
            let at = order.next().map_or(0, |index| index.index(left.len()));
            let index = left[at];
            if let Some(frame) = waiting[index].next() {
                bytes.extend_from_slice(frame);
            }
            if waiting[index].len() == 0 {
                expected.push(messages[index].whole());
                left.remove(at);
            }
            if index.is_multiple_of(2) {
                bytes.extend_from_slice(&[0; 4]);
                expected.push(Came::Tick);
            }
        }
        let mut inbound = Inbound::new(config(true));
        prop_assert_eq!(read(&mut inbound, &bytes, cut), Ok(expected));
        prop_assert_eq!(inbound.counters().messages, messages.len() as u64);
    }
}

#[test]
fn a_fragmented_message_at_the_limit_is_handed_out() {
    let cut = Cut::new(1, 1024 * KIB, 64 * KIB);
    let mut inbound = Inbound::new(config(true));
    assert_eq!(read(&mut inbound, &cut.frames.concat(), usize::MAX), Ok(vec![cut.whole()]));
}

#[test]
fn a_fragmented_message_one_byte_over_the_limit_is_told_once_and_the_stream_goes_on() {
    // By how many fragments there are it could be within the limit, so the last one tells.
    let cut = Cut::new(1, 1024 * KIB + 1, 64 * KIB);
    let mut inbound = Inbound::new(config(true));
    let before = cut.frames.len() - 1;
    assert_eq!(read(&mut inbound, &cut.frames[..before].concat(), usize::MAX), Ok(vec![]));
    let came = read(&mut inbound, &cut.frames[before], usize::MAX).expect("its end");
    assert!(is_head_of(&came[0], &cut) && came.len() == 1);
    let small = Cut::new(1, 1_000, 500);
    assert_eq!(read(&mut inbound, &small.frames.concat(), usize::MAX), Ok(vec![small.whole()]));
    assert_eq!((inbound.counters().oversized, inbound.counters().fragments_dropped), (1, 0));
}

#[test]
fn a_fragmented_message_far_over_the_limit_is_told_at_its_first_fragment() {
    let cut = Cut::new(1, 3_000 * KIB, 64 * KIB);
    for size in [1_000, usize::MAX] {
        let mut inbound = Inbound::new(config(true));
        let came = read(&mut inbound, &cut.frames[0], size).expect("its first");
        assert!(is_head_of(&came[0], &cut) && came.len() == 1);
        assert!(matches!(&came[0], Came::Oversized(_, head) if head.len() == 64 * KIB - cut.control.len() + 1));
        assert_eq!(read(&mut inbound, &cut.frames[1..].concat(), size), Ok(vec![]));
        let small = Cut::new(1, 1_000, 500);
        assert_eq!(read(&mut inbound, &small.frames.concat(), size), Ok(vec![small.whole()]));
        assert_eq!(inbound.counters().oversized, 1);
        assert_eq!(inbound.counters().fragments_dropped, cut.frames.len() as u64 - 1);
        assert_eq!(inbound.counters().fragmented_refused, 0);
    }
}

#[test]
fn a_message_that_claims_endless_fragments_takes_no_memory() {
    let mut inbound = Inbound::new(config(true));
    let body = [send_sender(1, 2), vec![106]].concat();
    let came = read(&mut inbound, &first_fragment(1, u64::MAX, &body), usize::MAX).expect("its first");
    assert!(matches!(came[..], [Came::Oversized(..)]));
}

#[test]
fn fragments_that_grow_after_the_first_are_held_to_the_limit_all_the_same() {
    let body = [send_sender(1, 2), vec![109, 0, 255, 0, 0]].concat();
    let part = vec![0; 60 * KIB];
    let mut frames = vec![first_fragment(1, 1_000, &body)];
    frames.extend((1..1_000).rev().map(|number| next_fragment(1, number, &part)));
    let mut inbound = Inbound::new(config(true));
    let came = read(&mut inbound, &frames.concat(), usize::MAX).expect("all");
    assert!(matches!(came[..], [Came::Oversized(..)]));
    assert_eq!(inbound.counters().oversized, 1);
    // 17 were taken: 17 × 60 KiB are within 1 MiB, and the 18th tells.
    assert_eq!(inbound.counters().fragments_dropped, 999 - 18);
}

#[test]
fn as_many_messages_as_may_are_put_together_at_once_and_one_more_is_refused() {
    let messages: Vec<_> = (1..=9).map(|sequence| Cut::new(sequence, 1_000, 600)).collect();
    let mut inbound = Inbound::new(InboundConfig { fragmented_max: 8, ..config(true) });
    for message in &messages[..8] {
        assert_eq!(read(&mut inbound, &message.frames[0], usize::MAX), Ok(vec![]));
    }
    let came = read(&mut inbound, &messages[8].frames[0], usize::MAX).expect("one more");
    assert!(is_head_of(&came[0], &messages[8]));
    assert_eq!((inbound.counters().oversized, inbound.counters().fragmented_refused), (1, 1));
    for message in &messages[..8] {
        assert_eq!(read(&mut inbound, &message.frames[1], usize::MAX), Ok(vec![message.whole()]));
    }
    assert_eq!(read(&mut inbound, &messages[8].frames[1], usize::MAX), Ok(vec![]));
    assert_eq!(inbound.counters().fragments_dropped, 1);
    // There is room again.
    assert_eq!(read(&mut inbound, &messages[8].frames.concat(), usize::MAX), Ok(vec![messages[8].whole()]));
}

#[test]
fn as_many_bytes_as_may_are_put_together_at_once_and_one_more_is_refused() {
    let (first, second) = (Cut::new(1, 1_000, 600), Cut::new(2, 1_000, 600));
    // Each is expected to have two fragments like its first.
    let limits = |bytes| InboundConfig { fragmented_bytes_max: bytes, ..config(true) };
    for (bytes, both) in [(2_400, true), (2_399, false)] {
        let mut inbound = Inbound::new(limits(bytes));
        assert_eq!(read(&mut inbound, &first.frames[0], usize::MAX), Ok(vec![]));
        let came = read(&mut inbound, &second.frames[0], usize::MAX).expect("the second");
        assert_eq!(came.is_empty(), both);
        assert_eq!(inbound.counters().fragmented_refused, u64::from(!both));
        assert_eq!(read(&mut inbound, &first.frames[1], usize::MAX), Ok(vec![first.whole()]));
        let expected = if both { vec![second.whole()] } else { vec![] };
        assert_eq!(read(&mut inbound, &second.frames[1], usize::MAX), Ok(expected));
        // What was taken is given back.
        assert_eq!(read(&mut inbound, &second.frames.concat(), usize::MAX), Ok(vec![second.whole()]));
    }
}

#[test]
fn bytes_that_were_not_expected_are_counted_when_they_come() {
    let control = send_sender(1, 2);
    // Two fragments like the first are expected, and the second is larger by 100.
    let first = [&control[..], &[109, 0, 0, 4, 0]].concat();
    let second = vec![7; first.len() + 100];
    let bytes = 2 * first.len() + 100;
    for (limit, taken) in [(bytes, true), (bytes - 1, false)] {
        let mut inbound = Inbound::new(InboundConfig { fragmented_bytes_max: limit, ..config(true) });
        let frames = [first_fragment(1, 2, &first), next_fragment(1, 1, &second)];
        let came = read(&mut inbound, &frames.concat(), usize::MAX).expect("both");
        assert_eq!(matches!(came[..], [Came::Message(..)]), taken);
        assert_eq!(matches!(came[..], [Came::Oversized(..)]), !taken);
        assert_eq!(inbound.counters().fragmented_refused, u64::from(!taken));
    }
}

#[test]
fn a_fragment_of_nobodys_is_dropped() {
    let mut inbound = Inbound::new(config(true));
    let small = whole_frame(true, &send_sender(1, 2), Some(&[106]));
    let bytes = [next_fragment(77, 3, b"abc"), small, next_fragment(77, 0, &[])].concat();
    assert_eq!(read(&mut inbound, &bytes, 5).map(|came| came.len()), Ok(1));
    assert_eq!(inbound.counters().fragments_dropped, 2);
}

#[test]
fn fragments_out_of_order_end_the_stream() {
    let cut = Cut::new(1, 5_000, 1_000);
    let mut inbound = Inbound::new(config(true));
    let frames = [&cut.frames[0][..], &cut.frames[2]].concat();
    let number = cut.frames.len() as u64 - 2;
    let error = InboundError::FragmentOrder { sequence: 1, expected: number + 1, number };
    assert_eq!(read(&mut inbound, &frames, usize::MAX), Err(error));

    let mut inbound = Inbound::new(config(true));
    let frames = [&cut.frames[0][..], &cut.frames[0]].concat();
    assert_eq!(read(&mut inbound, &frames, usize::MAX), Err(InboundError::SequenceTwice(1)));

    let mut inbound = Inbound::new(config(true));
    let error = InboundError::FragmentOrder { sequence: 1, expected: 1, number: 0 };
    assert_eq!(read(&mut inbound, &first_fragment(1, 0, &cut.control), usize::MAX), Err(error));
}

#[test]
fn a_sequence_may_be_used_again_when_it_is_complete() {
    let (first, second) = (Cut::new(1, 1_000, 600), Cut::new(1, 3_000, 700));
    let mut inbound = Inbound::new(config(true));
    let bytes = [first.frames.concat(), second.frames.concat()].concat();
    assert_eq!(read(&mut inbound, &bytes, 100), Ok(vec![first.whole(), second.whole()]));
}

#[test]
fn a_fragmented_message_that_we_do_not_know_of_is_left_out() {
    let mut inbound = Inbound::new(config(true));
    let bytes = [first_fragment(1, 2, &[104, 1, 97, 99, 106]), next_fragment(1, 1, &[106])].concat();
    assert_eq!(read(&mut inbound, &bytes, usize::MAX), Ok(vec![]));
    assert_eq!((inbound.counters().undecodable, inbound.counters().fragments_dropped), (1, 1));
}

#[test]
fn a_control_message_that_is_not_whole_in_the_first_fragment_ends_the_stream() {
    let control = send_sender(1, 2);
    let bytes = first_fragment(1, 2, &control[..20]);
    assert_eq!(read(&mut Inbound::new(config(true)), &bytes, usize::MAX), Err(InboundError::Control));
}

#[test]
fn a_single_fragment_over_the_limit_is_told() {
    let small = whole_frame(true, &send_sender(1, 2), Some(&[106]));
    let huge = vec![7; 3 << 20];
    let cut = Cut::new(1, 1_000, 600);
    for size in [10_000, usize::MAX] {
        // The first one.
        let mut inbound = Inbound::new(config(true));
        let body = [&cut.control[..], &huge].concat();
        let bytes = [&first_fragment(1, 2, &body)[..], &next_fragment(1, 1, b"a"), &small].concat();
        let came = read(&mut inbound, &bytes, size).expect("all");
        assert!(matches!(came[..], [Came::Oversized(..), Came::Message(..)]));
        assert_eq!(inbound.counters().fragments_dropped, 1);
        // Another one, of a message that was being put together.
        let mut inbound = Inbound::new(config(true));
        let bytes = [&cut.frames[0][..], &next_fragment(1, 1, &huge), &small].concat();
        let came = read(&mut inbound, &bytes, size).expect("all");
        assert!(matches!(came[..], [Came::Oversized(..), Came::Message(..)]));
        assert!(is_head_of(&came[0], &cut));
        // One of nobody's.
        let mut inbound = Inbound::new(config(true));
        let bytes = [&next_fragment(cut.sequence, 1, &huge)[..], &small].concat();
        let came = read(&mut inbound, &bytes, size).expect("all");
        assert!(matches!(came[..], [Came::Message(..)]));
        assert_eq!(inbound.counters().fragments_dropped, 1);
    }
}
