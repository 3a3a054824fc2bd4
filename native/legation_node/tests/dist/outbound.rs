//! Messages into frames.

use std::collections::HashMap;

use legation_node::dist::control::encode;
use legation_node::dist::inbound::{Inbound, InboundConfig, Incoming};
use legation_node::dist::outbound::{Full, Outbound, OutboundConfig};
use legation_node::dist::term;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{binary, frame, send_sender};

const KIB: usize = 1024;

fn outbound(header: bool) -> Outbound {
    Outbound::new(OutboundConfig { header, queue_bytes_max: 16 << 20 })
}

fn taken(outbound: &mut Outbound) -> Vec<u8> {
    let mut bytes = Vec::new();
    while outbound.take(&mut bytes, 1) {}
    bytes
}

/// Key, number and payload of each message, in the order in which they are complete.
fn read(header: bool, mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let config =
        InboundConfig { header, message_bytes_max: 1 << 24, fragmented_max: 100, fragmented_bytes_max: 1 << 26 };
    let mut inbound = Inbound::new(config);
    let mut came = Vec::new();
    while !bytes.is_empty() {
        let space = inbound.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        inbound.filled(count);
        bytes = &bytes[count..];
        while let Some(incoming) = inbound.next().expect("our own frames") {
            match incoming {
                Incoming::Message { control, payload } => {
                    let legation_node::dist::control::Control::Send { from: Some(from), to } = control else {
                        panic!("{control:?}");
                    };
                    came.push((to.id, from.id, payload.to_vec()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    came
}

#[derive(Clone, Debug)]
enum Step {
    Push { key: u32, size: usize, pieces: usize },
    Take { target: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![5 => 0..2_000usize, 1 => 60 * KIB..70 * KIB, 2 => 65 * KIB..700 * KIB];
    prop_oneof![
        3 => (0..4u32, size, 1..4usize).prop_map(|(key, size, pieces)| Step::Push { key, size, pieces }),
        1 => (1..400 * KIB).prop_map(|target| Step::Take { target }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn everything_arrives_and_messages_of_one_key_in_their_order(steps in vec(step(), 0..40), header: bool) {
        let mut outbound = outbound(header);
        let mut stream = Vec::new();
        let mut expected: HashMap<u32, Vec<(u32, Vec<u8>)>> = HashMap::new();
        for (number, step) in steps.iter().enumerate() {
            match *step {
                Step::Push { key, size, pieces } => {
                    let term = binary(size, number as u8);
                    let pieces: Vec<&[u8]> = term.chunks(term.len().div_ceil(pieces)).collect();
                    let before = outbound.bytes();
                    prop_assert!(outbound.push(u64::from(key), &send_sender(number as u32, key), &pieces).is_ok());
                    prop_assert!(outbound.bytes() > before + size);
                    expected.entry(key).or_default().push((number as u32, [&[131][..], &term].concat()));
                }
                Step::Take { target } => {
                    let mut bytes = Vec::new();
                    let waiting = outbound.bytes();
                    let more = outbound.take(&mut bytes, target);
                    prop_assert_eq!(outbound.bytes(), waiting - bytes.len());
                    prop_assert_eq!(more, !outbound.is_empty());
                    stream.extend_from_slice(&bytes);
                }
            }
        }
        stream.extend_from_slice(&taken(&mut outbound));
        prop_assert!(outbound.is_empty());
        let mut came: HashMap<u32, Vec<(u32, Vec<u8>)>> = HashMap::new();
        for (key, number, payload) in read(header, &stream) {
            came.entry(key).or_default().push((number, payload));
        }
        prop_assert_eq!(came, expected);
    }
}

#[test]
fn small_messages_of_other_keys_overtake_a_large_one_and_its_own_do_not() {
    let mut outbound = outbound(true);
    let large = binary(1_000 * KIB, 1);
    let small = binary(10, 2);
    outbound.push(1, &send_sender(1, 1), &[&large]).expect("room");
    let mut bytes = Vec::new();
    assert!(outbound.take(&mut bytes, 256 * KIB));
    outbound.push(1, &send_sender(2, 1), &[&small]).expect("room");
    outbound.push(2, &send_sender(3, 2), &[&small]).expect("room");
    let mut next = Vec::new();
    assert!(outbound.take(&mut next, 256 * KIB));
    bytes.append(&mut next);
    let order = |bytes: &[u8]| read(true, bytes).into_iter().map(|(_, number, _)| number).collect::<Vec<_>>();
    assert_eq!(order(&bytes), [3]);
    bytes.append(&mut taken(&mut outbound));
    assert_eq!(order(&bytes), [3, 1, 2]);
}

#[test]
fn large_messages_of_different_keys_take_turns() {
    let mut outbound = outbound(true);
    for key in 1..=3 {
        outbound.push(key, &send_sender(key as u32, 1), &[&binary(300 * KIB, 0)]).expect("room");
    }
    let bytes = taken(&mut outbound);
    let mut sequences = Vec::new();
    let mut rest = &bytes[..];
    while let Some(length) = rest.first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        sequences.push(rest[13]);
        assert!(length <= 64 * KIB + 19);
        rest = &rest[4 + length..];
    }
    assert_eq!(sequences, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_stream_of_small_messages_does_not_keep_a_large_one_waiting() {
    let mut outbound = outbound(true);
    outbound.push(1, &send_sender(1, 1), &[&binary(200 * KIB, 0)]).expect("room");
    let mut bytes = Vec::new();
    for _ in 0..4 {
        (0..50).for_each(|_| outbound.push(2, &send_sender(2, 2), &[&binary(10, 0)]).expect("room"));
        let mut part = Vec::new();
        // The small ones alone are more than asked for.
        outbound.take(&mut part, 100);
        bytes.append(&mut part);
    }
    assert!(outbound.is_empty());
    assert_eq!(read(true, &bytes).last().map(|(_, number, _)| *number), Some(1));
}

#[test]
fn messages_behind_a_large_one_of_their_key_go_many_at_a_time() {
    let mut outbound = outbound(true);
    outbound.push(1, &send_sender(0, 1), &[&binary(70 * KIB, 0)]).expect("room");
    (1..=1_000).for_each(|number| outbound.push(1, &send_sender(number, 1), &[&binary(10, 0)]).expect("room"));
    let mut takes = 0;
    let mut bytes = Vec::new();
    loop {
        takes += 1;
        let mut part = Vec::new();
        let more = outbound.take(&mut part, 1);
        bytes.append(&mut part);
        if !more {
            break;
        }
    }
    assert!(takes <= 5, "{takes}");
    let numbers: Vec<_> = read(true, &bytes).into_iter().map(|(_, number, _)| number).collect();
    assert_eq!(numbers, (0..=1_000).collect::<Vec<_>>());
}

#[test]
fn the_queue_takes_as_much_as_it_may_and_not_a_byte_more() {
    for header in [true, false] {
        let control = send_sender(1, 2);
        // A length, three bytes of head or versions, and an empty list.
        let small = 4 + 3 + control.len() + 1;
        let limit = 10 * small;
        let mut outbound = Outbound::new(OutboundConfig { header, queue_bytes_max: limit });
        (0..10).for_each(|_| outbound.push(1, &control, &[&[106]]).expect("room"));
        assert_eq!(outbound.bytes(), limit);
        assert_eq!(outbound.push(1, &control, &[&[106]]), Err(Full));
        assert_eq!((outbound.bytes(), outbound.counters().refused), (limit, 1));
        // One byte less of room is too little.
        let mut outbound = Outbound::new(OutboundConfig { header, queue_bytes_max: limit - 1 });
        (0..9).for_each(|_| outbound.push(1, &control, &[&[106]]).expect("room"));
        assert_eq!(outbound.push(1, &control, &[&[106]]), Err(Full));
        // What has been taken makes room.
        taken(&mut outbound);
        assert_eq!(outbound.push(1, &control, &[&[106]]), Ok(()));
    }
}

#[test]
fn a_large_message_counts_with_all_its_frames() {
    let control = send_sender(1, 2);
    let large = binary(200 * KIB, 0);
    let frames = control.len() + large.len() + 4 * 22 + 1;
    let mut outbound = Outbound::new(OutboundConfig { header: true, queue_bytes_max: frames });
    assert_eq!(outbound.push(1, &control, &[&large]), Ok(()));
    assert_eq!(outbound.bytes(), frames);
    assert_eq!(taken(&mut outbound).len(), frames);
    let mut outbound = Outbound::new(OutboundConfig { header: true, queue_bytes_max: frames - 1 });
    assert_eq!(outbound.push(1, &control, &[&large]), Err(Full));
    assert!(outbound.is_empty());
}

#[test]
fn signals_go_four_times_as_far() {
    let mut control = Vec::new();
    encode::link(&mut control, &[106], &[106]);
    let small = 4 + 3 + control.len();
    let mut outbound = Outbound::new(OutboundConfig { header: true, queue_bytes_max: 5 * small });
    (0..5).for_each(|_| outbound.push(1, &control, &[]).expect("room"));
    assert_eq!(outbound.push(1, &control, &[]), Err(Full));
    (5..20).for_each(|_| outbound.push_signal(1, &control, &[]).expect("room"));
    assert_eq!(outbound.push_signal(1, &control, &[]), Err(Full));
    assert_eq!(outbound.bytes(), 20 * small);
    assert_eq!(outbound.counters().refused, 2);
}

#[test]
fn frames_are_written_to_the_byte() {
    let control = [104, 1, 97, 99];
    let payload: &[&[u8]] = &[&[104, 1], &[106]];
    let mut with_header = outbound(true);
    with_header.push(1, &control, payload).expect("room");
    with_header.tick();
    with_header.push(1, &control, &[]).expect("room");
    let expected = [
        0, 0, 0, 10, 131, 68, 0, 104, 1, 97, 99, 104, 1, 106, //
        0, 0, 0, 0, //
        0, 0, 0, 7, 131, 68, 0, 104, 1, 97, 99,
    ];
    assert_eq!(taken(&mut with_header), expected);
    let mut passed_through = outbound(false);
    passed_through.push(1, &control, payload).expect("room");
    passed_through.push(1, &control, &[]).expect("room");
    let expected = [
        0, 0, 0, 10, 112, 131, 104, 1, 97, 99, 131, 104, 1, 106, //
        0, 0, 0, 6, 112, 131, 104, 1, 97, 99,
    ];
    assert_eq!(taken(&mut passed_through), expected);
}

#[test]
fn fragments_have_the_sizes_that_erts_gives_them() {
    let control = send_sender(1, 2);
    let mut outbound = outbound(true);
    let body = |bytes: usize| binary(bytes - control.len() - 5, 7);
    let lengths = |bytes: &[u8]| {
        let mut lengths = Vec::new();
        let mut rest = bytes;
        while let Some(length) = rest.first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            lengths.push(length);
            rest = &rest[4 + length..];
        }
        lengths
    };
    outbound.push(1, &control, &[&body(200_050)]).expect("room");
    let bytes = taken(&mut outbound);
    assert_eq!(lengths(&bytes), [65_555, 65_554, 65_554, 3_460]);
    let head = [0, 1, 0, 19, 131, 69, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    assert_eq!(bytes[..head.len()], head);
    let second = [0, 1, 0, 18, 131, 70, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3];
    assert_eq!(bytes[65_559..][..second.len()], second);
    // What fits into one is not cut.
    outbound.push(1, &control, &[&body(64 * KIB)]).expect("room");
    assert_eq!(lengths(&taken(&mut outbound)), [64 * KIB + 3]);
    outbound.push(1, &control, &[&body(64 * KIB + 1)]).expect("room");
    assert_eq!(lengths(&taken(&mut outbound)), [64 * KIB + 19, 19]);
    assert_eq!(outbound.counters().fragmented, 2);
}

#[test]
fn a_control_message_larger_than_a_fragment_stays_whole() {
    let mut control = vec![104, 4, 97, 3];
    [1, 2].iter().for_each(|id| term::put_pid(&mut control, &[119, 1, b'n'], *id, 0, 1));
    control.extend_from_slice(&binary(100_000, 7));
    let mut outbound = outbound(true);
    outbound.push(1, &control, &[]).expect("room");
    let bytes = taken(&mut outbound);
    assert_eq!(bytes.len(), control.len() + 23);
    assert_eq!(bytes, frame(&[&[131, 69, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0], &control]));
}

#[test]
fn what_is_ready_is_taken_by_swapping_buffers() {
    let mut outbound = outbound(true);
    let mut buffer = Vec::with_capacity(100_000);
    let first = buffer.as_ptr();
    outbound.push(1, &send_sender(1, 1), &[&[106]]).expect("room");
    assert!(!outbound.take(&mut buffer, 256 * KIB));
    let second = buffer.as_ptr();
    assert_ne!(first, second);
    buffer.clear();
    outbound.push(1, &send_sender(1, 1), &[&[106]]).expect("room");
    assert!(!outbound.take(&mut buffer, 256 * KIB));
    assert_eq!(buffer.as_ptr(), first);
    // One that isn't empty is added to.
    let before = buffer.len();
    outbound.push(1, &send_sender(1, 1), &[&[106]]).expect("room");
    assert!(!outbound.take(&mut buffer, 256 * KIB));
    assert_eq!((buffer.as_ptr(), buffer.len()), (first, 2 * before));
}
