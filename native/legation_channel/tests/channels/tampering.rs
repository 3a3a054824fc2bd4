//! Somebody between the two ends changes, drops or repeats bytes.

use legation_channel::channel::{Channel, Profile};

use crate::pair::{sealed, waiting, Pair, PROFILES};

const PROTECTED: [Profile; 2] = [Profile::Tls, Profile::Plain];

#[test]
fn a_change_to_any_byte_of_a_record_fails() {
    for profile in PROTECTED {
        let length = sealed(&mut *Pair::established(profile, 0).initiator, b"sixteen bytes ..").len();
        for at in 0..length {
            for bit in [0x01, 0x80] {
                let mut pair = Pair::established(profile, 0);
                let mut record = sealed(&mut *pair.initiator, b"sixteen bytes ..");
                record[at] ^= bit;
                // A changed length may wait for more; give it some.
                let mut bytes = record;
                bytes.extend(sealed(&mut *pair.initiator, &[0; 200_000]));
                let mut plaintext = Vec::new();
                let result = pair.responder.handle_bytes(&bytes, &mut plaintext);
                if profile == Profile::Tls && at < 3 && result.is_ok() {
                    // Outer type and version say nothing: RFC 8446 5.1 has the version ignored, rustls ignores the
                    // type of what it decrypts. What comes out is what went in.
                    assert!(plaintext.starts_with(b"sixteen bytes ..") && plaintext[16..] == [0; 200_000]);
                    continue;
                }
                let error = result.expect_err(&format!("{profile:?}: a change of byte {at} was taken"));
                assert!(error.is_peers_fault(), "{error:?}");
                assert!(plaintext.is_empty(), "{profile:?}: plaintext came out of a changed record, byte {at}");
                // And so it stays.
                assert_eq!(pair.responder.handle_bytes(b"", &mut plaintext), Err(error.clone()));
                let good = sealed(&mut *pair.initiator, b"good");
                assert_eq!(pair.responder.handle_bytes(&good, &mut plaintext), Err(error.clone()));
                assert!(pair.responder.seal(b"answer", &mut Vec::new()).is_err());
                assert!(plaintext.is_empty());
            }
        }
    }
}

#[test]
fn records_before_a_changed_one_come_out_and_none_after_it() {
    for profile in PROTECTED {
        let mut pair = Pair::established(profile, 0);
        let mut bytes = sealed(&mut *pair.initiator, b"good");
        let start = bytes.len();
        bytes.extend(sealed(&mut *pair.initiator, b"bad"));
        bytes[start + 5] ^= 1;
        bytes.extend(sealed(&mut *pair.initiator, b"good"));
        assert!(pair.responder.handle_bytes(&bytes, &mut pair.at_responder).is_err());
        assert_eq!(pair.at_responder, b"good");
    }
}

#[test]
fn a_dropped_a_repeated_and_a_reflected_record_fail() {
    for profile in PROTECTED {
        let mut pair = Pair::established(profile, 0);
        let _dropped = sealed(&mut *pair.initiator, b"one");
        let second = sealed(&mut *pair.initiator, b"two");
        assert!(pair.responder.handle_bytes(&second, &mut pair.at_responder).is_err());

        let mut pair = Pair::established(profile, 1);
        let record = sealed(&mut *pair.initiator, b"one");
        pair.responder.handle_bytes(&record, &mut pair.at_responder).unwrap();
        assert!(pair.responder.handle_bytes(&record, &mut pair.at_responder).is_err());
        assert_eq!(pair.at_responder, b"one");

        // Nor does any but the next pass later on.
        for wrong in [0, 1, 2, 4] {
            let mut pair = Pair::established(profile, 1);
            let records: Vec<_> = (b'0'..b'5').map(|number| sealed(&mut *pair.initiator, &[number])).collect();
            records[..3].iter().for_each(|record| pair.responder.handle_bytes(record, &mut pair.at_responder).unwrap());
            assert!(
                pair.responder.handle_bytes(&records[wrong], &mut pair.at_responder).is_err(),
                "{profile:?} {wrong}"
            );
            assert_eq!(pair.at_responder, b"012");
        }

        let mut pair = Pair::established(profile, 2);
        let record = sealed(&mut *pair.initiator, b"one");
        assert!(pair.initiator.handle_bytes(&record, &mut pair.at_initiator).is_err());
        assert!(pair.at_initiator.is_empty());
    }
}

#[test]
fn a_record_of_one_channel_fails_in_another() {
    for profile in PROTECTED {
        let mut first = Pair::established(profile, 0);
        let mut second = Pair::established(profile, 1);
        let record = sealed(&mut *first.initiator, b"one");
        assert!(second.responder.handle_bytes(&record, &mut second.at_responder).is_err());
        assert!(second.at_responder.is_empty());
    }
}

#[test]
fn a_changed_handshake_shows_in_an_error_or_in_the_binding() {
    for profile in PROFILES {
        for flight in 0..3 {
            let mut at = 0;
            while changed_handshake_is_noticed(profile, flight, at) {
                at += 1;
            }
        }
    }
}

/// Changes byte `at` of the handshake's flight number `flight`. False when there is no such byte.
fn changed_handshake_is_noticed(profile: Profile, flight: usize, at: usize) -> bool {
    let mut pair = Pair::new(profile, 0);
    for number in 0..6 {
        let (from, to): (&mut Box<dyn Channel>, _) = match number % 2 {
            0 => (&mut pair.initiator, (&mut pair.responder, &mut pair.at_responder)),
            _ => (&mut pair.responder, (&mut pair.initiator, &mut pair.at_initiator)),
        };
        let mut bytes = waiting(&mut **from);
        if number == flight {
            let Some(byte) = bytes.get_mut(at) else {
                return false;
            };
            *byte ^= 0x20;
        }
        if to.0.handle_bytes(&bytes, to.1).is_err() {
            return true;
        }
    }
    let (Some(initiator), Some(responder)) = (pair.initiator.established(), pair.responder.established()) else {
        return true;
    };
    if profile == Profile::Tls {
        // The version in a record is to be ignored, and no part of the handshake. Nothing else gets here.
        assert_eq!(initiator.binding, responder.binding, "flight {flight}, byte {at}");
    } else {
        assert_ne!(initiator.binding, responder.binding, "{profile:?}: flight {flight}, byte {at}");
    }
    if profile == Profile::Plain {
        let record = sealed(&mut *pair.initiator, b"data");
        assert!(pair.responder.handle_bytes(&record, &mut pair.at_responder).is_err());
    }
    assert!(pair.at_initiator.is_empty() && pair.at_responder.is_empty());
    true
}
