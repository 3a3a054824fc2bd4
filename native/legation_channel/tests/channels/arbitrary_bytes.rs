//! Whatever comes, nothing panics, and nothing unauthenticated comes out.

use legation_channel::channel::Profile;
use proptest::prelude::*;

use crate::pair::{sealed, waiting, Pair, PROFILES};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_before_the_handshake_never_panic(
        profile in prop::sample::select(&PROFILES[..]),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..8),
        record_type in prop::option::of(20..24_u8),
    ) {
        let mut pair = Pair::new(profile, 0);
        for channel in [&mut pair.initiator, &mut pair.responder] {
            let mut plaintext = Vec::new();
            for piece in &pieces {
                let mut bytes = Vec::new();
                if let Some(record_type) = record_type {
                    // Past the first look of TLS.
                    bytes.extend([record_type, 3, 3, (piece.len() >> 8) as u8, piece.len() as u8]);
                }
                bytes.extend_from_slice(piece);
                if channel.handle_bytes(&bytes, &mut plaintext).is_err() {
                    break;
                }
                waiting(&mut **channel);
            }
            prop_assert!(profile == Profile::Local || plaintext.is_empty());
        }
    }

    #[test]
    fn arbitrary_bytes_after_the_handshake_never_panic_and_give_nothing(
        profile in prop::sample::select(&[Profile::Tls, Profile::Plain][..]),
        bytes in prop::collection::vec(any::<u8>(), 1..2_000),
        header in any::<bool>(),
    ) {
        let mut pair = Pair::established(profile, 0);
        let start = sealed(&mut *pair.initiator, b"x");
        let mut input = if header { start[..5].to_vec() } else { Vec::new() };
        input.extend_from_slice(&bytes);
        let _ = pair.responder.handle_bytes(&input, &mut pair.at_responder);
        waiting(&mut *pair.responder);
        prop_assert!(pair.at_responder.is_empty());
    }
}

#[test]
fn a_handshake_message_without_end_is_cut_off() {
    // A ClientHello that claims 16 MB, in records that never complete it.
    let mut pair = Pair::new(Profile::Tls, 0);
    let mut record = vec![22, 3, 3, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    let mut taken = 0;
    while pair.responder.handle_bytes(&record, &mut pair.at_responder).is_ok() {
        taken += record.len();
        record[5..9].fill(0);
        assert!(taken < 200_000, "a handshake message is buffered without bound");
    }
}
