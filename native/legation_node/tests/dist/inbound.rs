//! Frames out of a stream of bytes.

use legation_node::dist::inbound::{Inbound, InboundConfig, InboundError};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{binary, case, config, frame, message, read, send_sender, versioned, whole_frame, Came, Case};

/// A stream, and what is to come of it.
fn stream(cases: &[Case], header: bool) -> (Vec<u8>, Vec<Came>) {
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for case in cases {
        if case.name.len() % 3 == 0 {
            bytes.extend_from_slice(&[0; 4]);
            expected.push(Came::Tick);
        }
        bytes.extend_from_slice(&case.frame(header));
        expected.push(moved(case));
    }
    (bytes, expected)
}

fn moved(case: &Case) -> Came {
    message(&case.expected(), &case.expected_payload())
}

/// The limit of [`config`].
const LIMIT: usize = 1 << 20;

/// A message whose payload has exactly so many bytes, version byte included.
fn message_of(header: bool, payload: usize, fill: u8) -> (Vec<u8>, Vec<u8>) {
    let term = binary(payload - 6, fill);
    (whole_frame(header, &send_sender(1, 2), Some(&term)), versioned(&term))
}

fn sent(payload: &[u8]) -> Came {
    let control = send_sender(1, 2);
    let (control, _) = legation_node::dist::control::decode(&control).expect("a control message");
    message(&control, payload)
}

fn head(came: &Came) -> &[u8] {
    match came {
        Came::Oversized(_, head) => head,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_stream_is_read_the_same_however_it_is_cut(
        cases in vec(case(), 0..8), header: bool, cut in prop_oneof![1..20usize, 1..3_000usize, Just(usize::MAX)],
    ) {
        let (bytes, expected) = stream(&cases, header);
        let mut inbound = Inbound::new(config(header));
        prop_assert_eq!(read(&mut inbound, &bytes, cut), Ok(expected.clone()));
        let ticks = expected.iter().filter(|came| **came == Came::Tick).count() as u64;
        prop_assert_eq!(inbound.counters().ticks, ticks);
        prop_assert_eq!(inbound.counters().messages, cases.len() as u64);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..2_000), header: bool, cut in 1..500usize) {
        let mut inbound = Inbound::new(config(header));
        let _ = read(&mut inbound, &bytes, cut);
        prop_assert!(inbound.space().len() <= 256 * 1024);
    }

    #[test]
    fn arbitrary_frames_do_no_harm(frames in vec((0..4usize, vec(any::<u8>(), 0..100)), 0..20), cut in 1..500usize) {
        let heads: [&[u8]; 4] = [&[131, 68, 0], &[131, 69, 0, 0, 0, 0, 0, 0, 0], &[131, 70, 0, 0, 0, 0, 0, 0, 0], &[131]];
        let bytes: Vec<u8> = frames.iter().flat_map(|(head, body)| frame(&[heads[*head], body])).collect();
        let _ = read(&mut Inbound::new(config(true)), &bytes, cut);
    }

    #[test]
    fn damaged_streams_do_no_harm(
        cases in vec(case(), 1..5), header: bool, damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in 1..500usize,
    ) {
        let (mut bytes, _) = stream(&cases, header);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut inbound = Inbound::new(config(header));
        let _ = read(&mut inbound, &bytes, cut);
        prop_assert!(inbound.space().len() <= LIMIT + 128 * 1024);
    }
}

#[test]
fn a_payload_may_be_written_to() {
    let mut inbound = Inbound::new(config(true));
    let (bytes, payload) = message_of(true, 100, 7);
    inbound.space()[..bytes.len()].copy_from_slice(&bytes);
    inbound.filled(bytes.len());
    match inbound.next() {
        Ok(Some(legation_node::dist::inbound::Incoming::Message { payload: lent, .. })) => {
            assert_eq!(lent, payload);
            lent.fill(0);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(inbound.next(), Ok(None)));
}

#[test]
fn a_message_at_the_limit_is_handed_out() {
    for header in [true, false] {
        for cut in [1_000, usize::MAX] {
            let mut inbound = Inbound::new(config(header));
            let (bytes, payload) = message_of(header, LIMIT, 7);
            assert_eq!(read(&mut inbound, &bytes, cut), Ok(vec![sent(&payload)]));
            assert_eq!(inbound.counters().oversized, 0);
        }
    }
}

#[test]
fn a_message_one_byte_over_the_limit_is_told_and_the_stream_goes_on() {
    for header in [true, false] {
        for cut in [1_000, usize::MAX] {
            let mut inbound = Inbound::new(config(header));
            let (oversized, payload) = message_of(header, LIMIT + 1, 7);
            let (small, small_payload) = message_of(header, 50, 8);
            let came = read(&mut inbound, &[oversized, small].concat(), cut).expect("both");
            assert_eq!(head(&came[0]), payload);
            assert_eq!(came[1..], [sent(&small_payload)]);
            assert_eq!((inbound.counters().oversized, inbound.counters().messages), (1, 1));
        }
    }
}

#[test]
fn a_frame_far_over_the_limit_is_told_once_and_thrown_away_as_it_comes() {
    for header in [true, false] {
        for cut in [999, 65_536, usize::MAX] {
            let mut inbound = Inbound::new(config(header));
            let (oversized, payload) = message_of(header, 5 * LIMIT, 7);
            let (small, small_payload) = message_of(header, 50, 8);
            // The first 64 KiB of the frame suffice, and are kept in the buffer that is there anyway.
            let beginning = read(&mut inbound, &oversized[..4 + 65_536], cut).expect("its beginning");
            assert_eq!(beginning.len(), 1);
            let head = head(&beginning[0]);
            assert!(head.len() > 65_000 && payload.starts_with(head));
            assert_eq!(read(&mut inbound, &oversized[4 + 65_536..], cut), Ok(vec![]));
            assert!(inbound.space().len() <= 256 * 1024);
            assert_eq!(read(&mut inbound, &small, cut), Ok(vec![sent(&small_payload)]));
            assert_eq!(inbound.counters().oversized, 1);
        }
    }
}

#[test]
fn the_longest_frame_there_is_takes_no_memory() {
    for header in [true, false] {
        let mut inbound = Inbound::new(config(header));
        let mut bytes = whole_frame(header, &send_sender(1, 2), Some(&binary(70_000, 1)));
        bytes[..4].copy_from_slice(&[255; 4]);
        let came = read(&mut inbound, &bytes, 5_000).expect("its beginning");
        assert_eq!(head(&came[0])[0], 131);
        assert!(inbound.space().len() <= 256 * 1024);
    }
}

#[test]
fn room_grows_with_what_comes_and_shrinks_again() {
    let mut inbound = Inbound::new(config(false));
    let (bytes, payload) = message_of(false, LIMIT, 7);
    read(&mut inbound, &bytes[..10], usize::MAX).expect("its beginning");
    assert!(inbound.space().len() <= 256 * 1024, "the length alone makes no room");
    assert_eq!(read(&mut inbound, &bytes[10..bytes.len() - 1], usize::MAX), Ok(vec![]));
    assert_eq!(read(&mut inbound, &bytes[bytes.len() - 1..], usize::MAX), Ok(vec![sent(&payload)]));
    assert_eq!(inbound.space().len(), 256 * 1024);
    // Also when there is never nothing to read.
    assert_eq!(read(&mut inbound, &bytes, usize::MAX).map(|came| came.len()), Ok(1));
    inbound.space()[0] = 0;
    inbound.filled(1);
    assert!(matches!(inbound.next(), Ok(None)));
    assert_eq!(inbound.space().len(), 256 * 1024 - 1);
}

#[test]
fn there_is_always_room() {
    let mut inbound = Inbound::new(config(true));
    for _ in 0..40 {
        let room = inbound.space().len();
        assert!(room > 0);
        inbound.filled(room);
    }
    // More than there was room for is not believed.
    inbound.filled(usize::MAX);
    assert!(!inbound.space().is_empty());
}

#[test]
fn what_is_no_message_that_we_know_of_is_counted_and_left_out() {
    let pid = [&[88, 119, 3][..], b"a@b", &[0; 12]].concat();
    let unknown = [104, 2, 97, 99, 106];
    let node_link = [104, 1, 97, 5];
    let send_to_nobody = [104, 3, 97, 22, 106, 106];
    let link = [&[104, 3, 97, 1][..], &pid, &pid].concat();
    let exit_with_reason = [&[104, 4, 97, 3][..], &pid, &pid, &[106]].concat();
    for header in [true, false] {
        let mut inbound = Inbound::new(config(header));
        let (small, payload) = message_of(header, 50, 8);
        let bytes = [
            whole_frame(header, &unknown, None),
            whole_frame(header, &unknown, Some(&[106])),
            whole_frame(header, &node_link, None),
            whole_frame(header, &send_to_nobody, Some(&[106])),
            // Nothing where something should be, and the other way round.
            whole_frame(header, &send_sender(1, 2), None),
            whole_frame(header, &link, Some(&[106])),
            whole_frame(header, &exit_with_reason, Some(&[106])),
            small,
        ];
        assert_eq!(read(&mut inbound, &bytes.concat(), 7), Ok(vec![sent(&payload)]));
        assert_eq!(inbound.counters().undecodable, 7);
    }
    // Passed through, a payload begins with 131.
    let mut inbound = Inbound::new(config(false));
    let bytes = frame(&[&[112, 131], &send_sender(1, 2), &[106]]);
    assert_eq!(read(&mut inbound, &bytes, 7), Ok(vec![]));
    assert_eq!(inbound.counters().undecodable, 1);
}

#[test]
fn a_stream_that_cannot_be_trusted_ends() {
    let control = send_sender(1, 2);
    let cut_short = &control[..control.len() - 1];
    let cases: [(bool, Vec<u8>, InboundError); 12] = [
        (false, frame(&[&[131, 68, 0], &control, &[106]]), InboundError::Frame),
        (false, frame(&[&[112]]), InboundError::Frame),
        (false, frame(&[&[112, 104, 0]]), InboundError::Frame),
        (false, frame(&[&[112, 131], cut_short]), InboundError::Control),
        (true, frame(&[&[112, 131], &control, &[131, 106]]), InboundError::Frame),
        (true, frame(&[&[131]]), InboundError::Frame),
        (true, frame(&[&[131, 68]]), InboundError::Frame),
        (true, frame(&[&[131, 71, 0]]), InboundError::Frame),
        (true, frame(&[&[131, 68, 1], &control, &[106]]), InboundError::AtomCache),
        (true, frame(&[&[131, 69], &[0; 16], &[1], &control]), InboundError::AtomCache),
        (true, frame(&[&[131, 69], &[0; 15]]), InboundError::Frame),
        (true, frame(&[&[131, 68, 0], cut_short]), InboundError::Control),
    ];
    for (header, bytes, error) in cases {
        for cut in [1, usize::MAX] {
            assert_eq!(read(&mut Inbound::new(config(header)), &bytes, cut), Err(error), "{bytes:?}");
        }
    }
}

#[test]
fn a_message_over_a_limit_of_nothing_is_told() {
    let nothing = InboundConfig { message_bytes_max: 0, ..config(true) };
    let mut inbound = Inbound::new(nothing);
    let (bytes, payload) = message_of(true, 100, 7);
    let came = read(&mut inbound, &bytes, 3).expect("a message");
    assert_eq!(head(&came[0]), payload);
}
