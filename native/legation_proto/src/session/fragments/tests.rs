use super::*;
use crate::frame::batch::{kind, Batch, Header, Message};
use crate::frame::HEADER_BYTES;
use crate::identity::RealmId;
use crate::signing::Mode;
use proptest::prelude::*;

const LIMIT: u32 = 1_000;

fn fragment(transfer: u32, total: usize, bytes: &[u8]) -> Fragment<'_> {
    Fragment { transfer, total: total as u32, bytes }
}

/// The body of the BATCH of a message whose payload is `payload`.
fn batch(transfer: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        session: [1; 32],
        source: RealmId([2; 32]),
        destination: RealmId([3; 32]),
        first_sequence: 1,
        mode: Mode::Engine,
        engine: "ping",
    };
    let message = Message {
        kind: kind::CAST,
        aligned: false,
        call_id: 0,
        caller: 0,
        detail: 0,
        source: "",
        destination: "pong",
        payload,
    };
    let mut out = Vec::new();
    Piece::of(payload).encode(&header, &message, transfer, |_| [0; 64], &mut out);
    out.split_off(HEADER_BYTES)
}

#[test]
fn staged_bytes_are_bounded_at_the_limit_and_one_past_it() {
    let max = staged_bytes_max(LIMIT);
    let mut staging = Staging::new(LIMIT);
    assert!(staging.take_in(&fragment(1, max - 1, b"x")).is_ok());
    assert!(staging.take_in(&fragment(2, 1, b"x")).is_ok());
    assert_eq!(staging.bytes(), max);
    let over = staging.take_in(&fragment(3, 1, b"x"));
    assert!(matches!(over, Err(LinkError::Invalid(InvalidFrame::TooLarge { .. }))), "{over:?}");
}

#[test]
fn transfers_are_bounded_at_the_limit_and_one_past_it() {
    let mut staging = Staging::new(LIMIT);
    for transfer in 0..TRANSFERS_MAX as u32 {
        assert!(staging.take_in(&fragment(transfer, 10, b"x")).is_ok());
    }
    assert_eq!(staging.take_in(&fragment(99, 10, b"x")), Err(PeerMisbehaved::TooManyTransfers.into()));
    assert!(staging.take_in(&fragment(0, 10, b"x")).is_ok(), "one that is known");
}

#[test]
fn a_transfer_whose_batch_has_come_makes_room_and_its_number_may_come_again() {
    let mut staging = Staging::new(LIMIT);
    for round in 0..10 {
        let payload = vec![round; staged_bytes_max(LIMIT)];
        for bytes in payload.chunks(60_000) {
            staging.take_in(&fragment(1, payload.len(), bytes)).unwrap();
        }
        let body = batch(1, &payload);
        let whole = staging.close(&StagedBatch::parse(&body).unwrap().unwrap()).unwrap();
        let item = Batch::parse(whole.body()).unwrap().messages().next().unwrap();
        assert_eq!(item.payload, &payload[..]);
        assert_eq!(staging.bytes(), 0);
    }
}

#[test]
fn a_fragment_that_contradicts_those_before_it_is_refused() {
    for contradiction in [fragment(1, 9, b"x"), fragment(1, 10, b"123456"), fragment(1, 11, b"x")] {
        let mut staging = Staging::new(LIMIT);
        staging.take_in(&fragment(1, 10, b"12345")).unwrap();
        assert!(staging.take_in(&contradiction).is_err());
    }
}

#[test]
fn a_batch_before_its_last_fragment_or_of_no_transfer_is_refused() {
    let body = batch(1, b"12345");
    let batch = StagedBatch::parse(&body).unwrap().unwrap();
    let mut staging = Staging::new(LIMIT);
    assert!(staging.close(&batch).is_err());
    staging.take_in(&fragment(1, 5, b"1234")).unwrap();
    assert!(staging.close(&batch).is_err());
}

/// What is offered, how large fragments are, and in which order the lot comes out.
fn run(sizes: &[usize], fragment_bytes: usize) -> Vec<(usize, Vec<u8>)> {
    let mut transfers = Transfers::new(LIMIT);
    let mut staging = Staging::new(LIMIT);
    let mut waiting: VecDeque<(usize, Vec<u8>)> =
        sizes.iter().enumerate().map(|(index, size)| (index, vec![index as u8; *size])).collect();
    let mut arrived = Vec::new();
    loop {
        while waiting.front().is_some_and(|(_, payload)| transfers.has_room_for(payload.len())) {
            let (index, payload) = waiting.pop_front().unwrap();
            transfers.begin(Piece::of(&payload), index);
        }
        let mut out = Vec::new();
        let sent = transfers.send_next(fragment_bytes, &mut out, |_| true);
        if matches!(sent, Sent::Nothing) {
            assert!(waiting.is_empty() && staging.bytes() == 0);
            return arrived;
        }
        staging.take_in(&Fragment::decode(&out[HEADER_BYTES..]).unwrap()).unwrap();
        if let Sent::Last(transfer) = sent {
            let (number, piece, index) = transfer.into_parts();
            let body = batch(number, piece.payload());
            let whole = staging.close(&StagedBatch::parse(&body).unwrap().unwrap()).unwrap();
            let item = Batch::parse(whole.body()).unwrap().messages().next().unwrap();
            arrived.push((index, item.payload.to_vec()));
        }
    }
}

#[test]
fn a_shorter_payload_is_there_before_a_longer_one_that_began_earlier() {
    let arrived = run(&[900, 100, 500], 50);
    assert_eq!(arrived.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 0]);
}

#[test]
fn chosen_transfers_go_before_others() {
    let mut transfers = Transfers::new(LIMIT);
    transfers.begin(Piece::of(&[0; 100]), "first");
    transfers.begin(Piece::of(&[0; 100]), "chosen");
    let mut out = Vec::new();
    assert!(matches!(transfers.send_next(60, &mut out, |name| *name == "chosen"), Sent::Fragment));
    match transfers.send_next(60, &mut out, |name| *name == "chosen") {
        Sent::Last(transfer) => assert_eq!(transfer.message, "chosen"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(transfers.send_next(60, &mut out, |name| *name == "chosen"), Sent::Nothing));
    assert!(!transfers.is_empty());
}

proptest! {
    #[test]
    fn whatever_is_sent_in_pieces_arrives_whole_and_within_the_receivers_bounds(
        sizes in prop::collection::vec(1usize..400_000, 1..12),
        fragment_bytes in 1_000usize..70_000,
    ) {
        let mut arrived = run(&sizes, fragment_bytes);
        arrived.sort();
        prop_assert_eq!(arrived.len(), sizes.len());
        for ((index, payload), size) in arrived.iter().zip(&sizes) {
            prop_assert!(payload.len() == *size && payload.iter().all(|byte| *byte == *index as u8));
        }
    }

    #[test]
    fn no_fragments_make_staging_hold_more_than_its_bounds(
        fragments in prop::collection::vec((0u32..6, 1usize..600_000, 1usize..5_000), 0..60),
    ) {
        let mut staging = Staging::new(LIMIT);
        let bytes = vec![0; 5_000];
        for (transfer, total, count) in fragments {
            let _ = staging.take_in(&fragment(transfer, total, &bytes[..count.min(total)]));
            prop_assert!(staging.bytes() <= staged_bytes_max(LIMIT));
            prop_assert!(staging.pieces.len() <= TRANSFERS_MAX);
            prop_assert_eq!(staging.bytes(), staging.pieces.iter().map(|staged| staged.total).sum::<usize>());
        }
    }
}
