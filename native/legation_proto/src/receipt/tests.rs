use super::*;
use crate::frame::batch::{encode, kind, Header, Message};
use crate::frame::HEADER_BYTES;
use crate::identity::signing_input;
use crate::signing::Mode;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;

const NETWORK: NetworkId = NetworkId([5; 32]);

/// A realm, its engine `ping` and its online key.
struct Source {
    identity: SigningKey,
    engine: SigningKey,
    online: SigningKey,
}

fn source() -> Source {
    let key = |seed| SigningKey::from_bytes(&[seed; 32]);
    Source { identity: key(1), engine: key(2), online: key(3) }
}

impl Source {
    fn identity_key(&self) -> [u8; 32] {
        self.identity.verifying_key().to_bytes()
    }

    fn realm(&self) -> RealmId {
        RealmId::of(&self.identity_key())
    }

    fn signed(&self, purpose: Purpose, mut body: Vec<u8>) -> Vec<u8> {
        let signature = self.identity.sign(&signing_input(purpose, &NETWORK, &body));
        body.put(&signature.to_bytes());
        body
    }

    fn learn(&self, engine: &str) -> Vec<u8> {
        self.announced(engine, false)
    }

    fn announced(&self, engine: &str, delegate: bool) -> Vec<u8> {
        let learn = Learn {
            realm: self.realm(),
            engine: engine.into(),
            key: self.engine.verifying_key().to_bytes(),
            serial: 1,
            not_before: 10,
            not_after: 20,
            version: 0,
            operations: 7,
            delegate,
        };
        self.signed(Purpose::Learn, learn.body())
    }

    fn cert(&self, validity: UnixMs) -> Vec<u8> {
        let key = self.online.verifying_key().to_bytes();
        let cert = Cert { realm: self.realm(), key, not_before: 10, not_after: 10 + validity, serial: 1 };
        self.signed(Purpose::Cert, cert.body())
    }

    /// The body of a BATCH of casts.
    fn batch(&self, engine: &str, messages: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let key = if engine.is_empty() { &self.online } else { &self.engine };
        let header = Header {
            session: [9; 32],
            source: self.realm(),
            destination: RealmId([8; 32]),
            first_sequence: 40,
            mode: Mode::Engine,
            engine,
        };
        let messages = messages.iter().map(|(aligned, payload)| Message {
            kind: kind::CAST,
            aligned: *aligned,
            call_id: 0,
            caller: 0,
            detail: 0,
            source: engine,
            destination: "pong",
            payload,
        });
        let mut out = Vec::new();
        let sign = |body: &[u8]| key.sign(&signing_input(Purpose::Batch, &NETWORK, body)).to_bytes();
        encode(&header, messages, sign, &mut out);
        out.split_off(HEADER_BYTES)
    }

    /// The body of a BATCH of casts that the online key has signed, one from each source.
    fn delegated(&self, sources: &[&str]) -> Vec<u8> {
        let header = Header {
            session: [9; 32],
            source: self.realm(),
            destination: RealmId([8; 32]),
            first_sequence: 40,
            mode: Mode::Delegated,
            engine: "",
        };
        let messages = sources.iter().map(|source| Message {
            kind: kind::CAST,
            aligned: false,
            call_id: 0,
            caller: 0,
            detail: 0,
            source,
            destination: "pong",
            payload: source.as_bytes(),
        });
        let mut out = Vec::new();
        let sign = |body: &[u8]| self.online.sign(&signing_input(Purpose::Batch, &NETWORK, body)).to_bytes();
        encode(&header, messages, sign, &mut out);
        out.split_off(HEADER_BYTES)
    }

    /// Of a message in such a batch.
    fn delegated_receipt(&self, batch: &[u8], index: u16, learn: &[u8]) -> Result<Vec<u8>, ReceiptError> {
        let (identity_key, cert) = (self.identity_key(), self.cert(1_000));
        let parts = ReceiptParts {
            network_id: &NETWORK.0,
            identity_key: &identity_key,
            rotations: &[],
            announcement: &cert,
            batch,
        };
        ReceiptMaker::new(parts)?.make(index, learn)
    }

    fn receipt(&self, engine: &str, announcement: &[u8], batch: &[u8], index: u16) -> Vec<u8> {
        let identity_key = self.identity_key();
        let parts =
            ReceiptParts { network_id: &NETWORK.0, identity_key: &identity_key, rotations: &[], announcement, batch };
        let made = ReceiptMaker::new(parts).and_then(|maker| maker.make(index, &[]));
        made.unwrap_or_else(|error| panic!("{engine}: {error}"))
    }

    fn verify(&self, receipt: &[u8]) -> Result<Verified, ReceiptError> {
        verify(receipt, &self.identity_key(), &NETWORK.0)
    }
}

/// Of a batch's first message.
fn make(parts: ReceiptParts<'_>) -> Result<Vec<u8>, ReceiptError> {
    ReceiptMaker::new(parts)?.make(0, &[])
}

/// Payloads whose bytes tell whose they are.
fn payloads(aligned: bool, lengths: &[usize]) -> Vec<(bool, Vec<u8>)> {
    let marked = lengths.iter().zip((0xA0..=0xFF).cycle());
    marked.map(|(length, mark): (_, u8)| (aligned, vec![mark; *length])).collect()
}

/// Runs of `mark` in `bytes` that are no accident.
fn runs(bytes: &[u8], mark: u8) -> Vec<usize> {
    bytes.split(|byte| *byte != mark).map(<[u8]>::len).filter(|length| *length > 3).collect()
}

#[test]
fn a_receipt_says_who_signed_what_to_whom() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[10, 20, 30]));
    let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
    let expected = Verified {
        source: source.realm(),
        source_engine: "ping".into(),
        destination: RealmId([8; 32]),
        destination_engine: "pong".into(),
        kind: kind::CAST,
        detail: 0,
        call_id: 0,
        session: [9; 32],
        sequence: 41,
        key_not_before: 10,
        key_not_after: 20,
        payload: vec![0xA1; 20],
    };
    assert_eq!(source.verify(&receipt), Ok(expected));
}

#[test]
fn a_message_of_the_realm_itself_is_proved_by_its_online_key() {
    let source = source();
    let batch = source.batch("", &payloads(false, &[10]));
    let receipt = source.receipt("", &source.cert(ONLINE_KEY_MS_MAX), &batch, 0);
    let verified = source.verify(&receipt).unwrap();
    assert_eq!((verified.source_engine.as_str(), verified.payload.as_slice()), ("", &[0xA0; 10][..]));
}

#[test]
fn receipts_of_all_messages_of_all_shapes_of_batches_verify() {
    let source = source();
    let learn = source.learn("ping");
    let long = [0, 1, 1_023, 1_024, 1_025, 0, 5_000, 2_048, 0];
    // 3 bytes a row: these tables end around the chunk's last byte.
    let tables: Vec<Vec<usize>> = (294..304).map(|rows| vec![3; rows]).collect();
    let mut shapes = vec![vec![0], vec![1], vec![900], vec![1_000], vec![70_000], long.to_vec(), vec![9; 4_096]];
    shapes.extend(tables);
    for lengths in shapes {
        for aligned in [false, true] {
            let messages = payloads(aligned && lengths.len() < 1_000, &lengths);
            let batch = source.batch("ping", &messages);
            let identity_key = source.identity_key();
            let maker = ReceiptMaker::new(ReceiptParts {
                network_id: &NETWORK.0,
                rotations: &[],
                identity_key: &identity_key,
                announcement: &learn,
                batch: &batch,
            })
            .unwrap();
            for (index, (_, payload)) in messages.iter().enumerate().step_by(1 + messages.len() / 50) {
                let receipt = maker.make(index as u16, &[]).unwrap();
                let verified = source.verify(&receipt).unwrap();
                assert_eq!((verified.sequence, &verified.payload), (40 + index as u64, payload));
            }
            assert_eq!(maker.make(messages.len() as u16, &[]), Err(ReceiptError::NoSuchMessage(messages.len() as u16)));
        }
    }
}

#[test]
fn a_table_that_ends_with_a_chunk_is_proved_by_that_chunk_alone() {
    let source = source();
    // 108 + name + 8, a row of 8 bytes with the destination's name, and rows of 3: 297 and a name of 12 make 1,024.
    let engine = "a name of 12";
    let batch = source.batch(engine, &payloads(false, &[100; 297]));
    assert_eq!(Batch::parse(&batch).unwrap().table_end, 1_024);
    let receipt = source.receipt(engine, &source.learn(engine), &batch, 31);
    assert_eq!(source.verify(&receipt).unwrap().payload, vec![0xA0 + 31; 100]);
    let fields = Fields::decode(&receipt).unwrap();
    assert_eq!(runs(fields.table, 0xA0), []);
}

#[test]
fn any_flipped_byte_is_found_and_another_index_never_proves_what_was_not_sent() {
    let source = source();
    for (engine, announcement, lengths) in [
        ("ping", source.learn("ping"), vec![700, 1_500, 2_000]),
        ("ping", source.learn("ping"), vec![30, 0, 30]),
        ("", source.cert(1_000), vec![5, 5, 5]),
    ] {
        let batch = source.batch(engine, &payloads(false, &lengths));
        let receipt = source.receipt(engine, &announcement, &batch, 1);
        assert!(source.verify(&receipt).is_ok());
        for at in 0..receipt.len() {
            let flips: &[u8] = if at < FIXED_BYTES { &[1, 2, 4, 8, 16, 32, 64, 128, 255] } else { &[1, 255] };
            for flip in flips {
                let mut altered = receipt.clone();
                altered[at] ^= flip;
                match source.verify(&altered) {
                    Err(_) => {}
                    // What stands in the same chunks whole is proved as well (`protocol.md` 14.5).
                    Ok(other) if at == 65 => {
                        let index = usize::from(1 ^ flip);
                        assert_eq!(other.sequence, 40 + index as u64);
                        assert_eq!(other.payload, vec![0xA0 + index as u8; lengths[index]]);
                    }
                    Ok(_) => panic!("byte {at} of {}, {flip}", receipt.len()),
                }
            }
        }
    }
}

#[test]
fn a_receipt_cut_short_or_followed_by_anything_is_refused() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[10, 2_000]));
    let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
    for cut in 0..receipt.len() {
        assert!(source.verify(&receipt[..cut]).is_err(), "{cut}");
    }
    assert!(source.verify(&[&receipt[..], &[0]].concat()).is_err());
}

#[test]
fn bytes_behind_a_slice_are_refused() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[10, 0]));
    for index in [0, 1] {
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, index);
        let fields = Fields::decode(&receipt).unwrap();
        for (extra_table, extra_payload, error) in
            [(&[0][..], &[][..], ReceiptError::TableSlice), (&[], &[0], ReceiptError::PayloadSlice)]
        {
            let mut altered = receipt[..FIXED_BYTES].to_vec();
            let table = [fields.table, extra_table].concat();
            let payload = [fields.payload, extra_payload].concat();
            for field in [fields.announcement, &table, &payload] {
                altered.put_u32(field.len() as u32);
                altered.put(field);
            }
            assert_eq!(source.verify(&altered), Err(error));
        }
    }
}

#[test]
fn at_most_1023_bytes_of_a_neighbour_show_at_each_edge() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[5_000, 3_333, 5_000]));
    let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
    for mark in [0xA0, 0xA2] {
        let shown = runs(&receipt, mark);
        assert!(!shown.is_empty() && shown.iter().all(|run| *run <= 1_023), "{mark:#x}: {shown:?}");
    }
    // The first message shows behind the table as well.
    assert_eq!((runs(&receipt, 0xA0).len(), runs(&receipt, 0xA2).len()), (2, 1));
}

#[test]
fn no_byte_of_a_neighbour_shows_where_all_rows_are_aligned() {
    let source = source();
    let lengths = [5_000, 7, 1_024, 0, 3_333, 5_000];
    let batch = source.batch("ping", &payloads(true, &lengths));
    for (index, length) in lengths.into_iter().enumerate() {
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, index as u16);
        let fields = Fields::decode(&receipt).unwrap();
        for (mark, other) in (0xA0..).zip(0..lengths.len()) {
            let shown: usize = runs(fields.table, mark).iter().chain(&runs(fields.payload, mark)).sum();
            assert_eq!(shown, if other == index { length } else { 0 }, "{other} in the receipt of {index}");
        }
    }
}

#[test]
fn a_message_without_payload_shows_nobodys() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[3_000, 0, 3_000]));
    let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
    assert_eq!(Fields::decode(&receipt).unwrap().payload, &[0; 0]);
    assert_eq!(source.verify(&receipt).unwrap().payload, &[0; 0]);
}

#[test]
fn another_network_realm_or_engine_is_refused() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[10]));
    let receipt = source.receipt("ping", &source.learn("ping"), &batch, 0);
    let identity_key = source.identity_key();
    assert_eq!(verify(&receipt, &identity_key, &[6; 32]), Err(ReceiptError::OtherNetwork));
    let engine_key = source.engine.verifying_key().to_bytes();
    assert_eq!(verify(&receipt, &engine_key, &NETWORK.0), Err(ReceiptError::OtherRealm));

    let parts = |announcement, identity_key| ReceiptParts {
        network_id: &NETWORK.0,
        rotations: &[],
        identity_key,
        announcement,
        batch: &batch,
    };
    let other_engine = source.learn("pong");
    assert_eq!(make(parts(&other_engine, &identity_key)), Err(ReceiptError::OtherSource));
    let learn = source.learn("ping");
    assert_eq!(make(parts(&learn, &engine_key)), Err(ReceiptError::OtherSource));
    let cert = source.cert(1_000);
    assert!(make(parts(&cert, &identity_key)).is_err());
}

#[test]
fn another_realm_can_t_pass_the_message_off_as_its_own() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[10]));
    let receipt = source.receipt("ping", &source.learn("ping"), &batch, 0);
    let fields = Fields::decode(&receipt).unwrap();
    // It announces the very same engine key under its own identity.
    let thief = Source { identity: SigningKey::from_bytes(&[4; 32]), ..self::source() };
    let learn = thief.learn("ping");
    let mut altered = receipt.clone();
    altered[33..65].copy_from_slice(&thief.identity_key());
    altered.truncate(FIXED_BYTES);
    for field in [&learn, fields.table, fields.payload] {
        altered.put_u32(field.len() as u32);
        altered.put(field);
    }
    assert_eq!(thief.verify(&altered), Err(ReceiptError::OtherSource));
}

#[test]
fn an_announcement_or_a_batch_signed_by_somebody_else_is_refused() {
    let honest = source();
    let forger = Source { identity: SigningKey::from_bytes(&[4; 32]), ..source() };
    let batch = honest.batch("ping", &payloads(false, &[10]));
    // The honest realm's LEARN, with the forger's signature.
    let mut learn = honest.learn("ping");
    let body = learn[..learn.len() - 64].to_vec();
    learn = forger.signed(Purpose::Learn, body);
    let receipt = honest.receipt("ping", &learn, &batch, 0);
    assert_eq!(honest.verify(&receipt), Err(ReceiptError::AnnouncementSignature));

    let forger = Source { engine: SigningKey::from_bytes(&[4; 32]), ..source() };
    let batch = forger.batch("ping", &payloads(false, &[10]));
    let receipt = honest.receipt("ping", &honest.learn("ping"), &batch, 0);
    assert_eq!(honest.verify(&receipt), Err(ReceiptError::BatchSignature));
}

#[test]
fn an_online_key_certified_for_longer_than_a_day_proves_nothing() {
    let source = source();
    let batch = source.batch("", &payloads(false, &[10]));
    let identity_key = source.identity_key();
    let announcement = source.cert(ONLINE_KEY_MS_MAX + 1);
    let parts = ReceiptParts {
        network_id: &NETWORK.0,
        rotations: &[],
        identity_key: &identity_key,
        announcement: &announcement,
        batch: &batch,
    };
    assert_eq!(make(parts), Err(InvalidFrame::Value("cert not-after").into()));
}

#[test]
fn lengths_of_gigabytes_allocate_nothing() {
    let source = source();
    let batch = source.batch("ping", &payloads(false, &[10]));
    let receipt = source.receipt("ping", &source.learn("ping"), &batch, 0);
    for length in [u64::from(u32::MAX), u64::from(u32::MAX) + 1, 1 << 54, u64::MAX] {
        let mut altered = receipt.clone();
        altered[67..75].copy_from_slice(&length.to_le_bytes());
        // Also where the slices say the same.
        let learn = u32::from_le_bytes(altered[171..175].try_into().unwrap()) as usize;
        altered[179 + learn..187 + learn].copy_from_slice(&length.to_le_bytes());
        assert!(source.verify(&altered).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let source = source();
        prop_assert!(source.verify(&bytes).is_err());
        let mut receipt = vec![VERSION];
        receipt.put(&NETWORK.0);
        receipt.put(&source.identity_key());
        receipt.put(&bytes);
        prop_assert!(source.verify(&receipt).is_err());
    }

    #[test]
    fn slices_of_arbitrary_bytes_never_panic(
        body_bytes in prop_oneof![0..5_000u64, any::<u32>().prop_map(u64::from)],
        table in prop::collection::vec(any::<u8>(), 0..3_000),
        payload in prop::collection::vec(any::<u8>(), 0..3_000),
        offset: u32,
        length: u32,
    ) {
        let slice = |content: &[u8]| [&body_bytes.to_le_bytes()[..], content].concat();
        let (table, payload) = (slice(&table), slice(&payload));
        let fields = Fields {
            network_id: NETWORK.0,
            rotations: Vec::new(),
            learn: None,
            identity_key: [0; 32],
            index: 0,
            body_bytes,
            root: [0; 32],
            signature: [0; 64],
            announcement: &[],
            table: &table,
            payload: &payload,
        };
        prop_assert_eq!(fields.table(), Err(ReceiptError::TableSlice));
        prop_assert_eq!(fields.payload(offset as usize, length.max(1)), Err(ReceiptError::PayloadSlice));
    }
}

#[test]
fn a_message_that_the_online_key_has_signed_for_an_engine_is_proved_with_the_engines_word_for_it() {
    let source = source();
    let batch = source.delegated(&["ping", "", "pong"]);
    let receipts = [
        ("ping", source.delegated_receipt(&batch, 0, &source.announced("ping", true)).unwrap()),
        ("", source.delegated_receipt(&batch, 1, &[]).unwrap()),
        ("pong", source.delegated_receipt(&batch, 2, &source.announced("pong", true)).unwrap()),
    ];
    for (index, (engine, receipt)) in receipts.iter().enumerate() {
        let verified = source.verify(receipt).unwrap();
        assert_eq!((verified.source_engine.as_str(), verified.payload.as_slice()), (*engine, engine.as_bytes()));
        assert_eq!((verified.sequence, verified.key_not_before), (40 + index as u64, 10));
        // The shorter of the two.
        assert_eq!(verified.key_not_after, if engine.is_empty() { 1_010 } else { 20 });
    }
    for (_, receipt) in &receipts {
        for at in 0..receipt.len() {
            let mut altered = receipt.clone();
            altered[at] ^= if at < FIXED_BYTES { 0x10 } else { 1 };
            assert!(source.verify(&altered).is_err(), "byte {at} of {}", receipt.len());
        }
        for cut in 0..receipt.len() {
            assert!(source.verify(&receipt[..cut]).is_err(), "{cut}");
        }
    }
}

#[test]
fn an_engine_that_has_not_said_so_is_not_spoken_for_in_a_receipt() {
    let source = source();
    let batch = source.delegated(&["ping", ""]);
    let made = |index, learn: &[u8]| source.delegated_receipt(&batch, index, learn);
    assert_eq!(made(0, &source.learn("ping")), Err(ReceiptError::NotDelegated));
    assert_eq!(made(0, &source.announced("pong", true)), Err(ReceiptError::OtherSource));
    assert!(matches!(made(0, &[]), Err(ReceiptError::Malformed(_))));

    // The same put together by hand: another LEARN in a good receipt's place.
    let good = made(0, &source.announced("ping", true)).unwrap();
    let fields = Fields::decode(&good).unwrap();
    let forger = Source { identity: SigningKey::from_bytes(&[4; 32]), ..self::source() };
    let with = |learn: Option<&[u8]>| {
        let mut receipt = good[..FIXED_BYTES].to_vec();
        receipt[0] = if learn.is_some() { VERSION_DELEGATED } else { VERSION };
        if learn.is_some() {
            receipt.put_u16(0);
        }
        for field in learn.into_iter().chain([fields.announcement, fields.table, fields.payload]) {
            receipt.put_u32(field.len() as u32);
            receipt.put(field);
        }
        source.verify(&receipt)
    };
    assert!(with(Some(&source.announced("ping", true))).is_ok());
    assert_eq!(with(Some(&source.learn("ping"))), Err(ReceiptError::NotDelegated));
    assert_eq!(with(Some(&source.announced("pong", true))), Err(ReceiptError::OtherSource));
    assert_eq!(with(Some(&forger.announced("ping", true))), Err(ReceiptError::OtherSource));
    let mut unsigned = source.announced("ping", true);
    *unsigned.last_mut().unwrap() ^= 1;
    assert_eq!(with(Some(&unsigned)), Err(ReceiptError::AnnouncementSignature));
    assert!(with(Some(&[])).is_err());
    assert_eq!(with(None), Err(ReceiptError::OtherSource));
}
