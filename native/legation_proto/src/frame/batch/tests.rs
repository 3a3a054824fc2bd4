use super::*;
use proptest::prelude::*;

fn header(mode: Mode, engine: &str) -> Header<'_> {
    Header {
        session: [1; 32],
        source: RealmId([2; 32]),
        destination: RealmId([3; 32]),
        first_sequence: 9,
        mode,
        engine,
    }
}

fn message<'a>(destination: &'a str, payload: &'a [u8], aligned: bool) -> Message<'a> {
    Message { kind: kind::CAST, aligned, call_id: 0, caller: 0, detail: 0, source: "", destination, payload }
}

fn body(header: &Header<'_>, messages: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(header, messages.iter().copied(), |_| [7; 64], &mut out);
    out.split_off(HEADER_BYTES)
}

fn encoded(messages: &[Message<'_>]) -> Vec<u8> {
    body(&header(Mode::Engine, "ping"), messages)
}

/// The body of a batch of one engine's with this table and these payloads.
fn with_table(mode: Mode, count: u16, table: &[u8], payloads: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let lengths = put_header(&header(mode, ""), &mut out);
    out.put(table);
    out.put(payloads);
    put_lengths(0, lengths, count, table.len(), payloads.len(), &mut out);
    out.put(&[7; 64]);
    out
}

#[test]
fn a_batch_reads_as_it_was_written() {
    let messages = [message("a", b"one", false), message("b", b"", false), message("c", b"three", true)];
    let bytes = encoded(&messages);
    let batch = Batch::parse(&bytes).unwrap();
    assert_eq!(batch.header, header(Mode::Engine, "ping"));
    assert_eq!(batch.signature, Some(&[7; 64]));
    let items: Vec<_> = batch.messages().collect();
    for (item, message) in items.iter().zip(&messages) {
        assert_eq!(
            (item.row.source, item.row.destination, item.payload),
            ("ping", message.destination, message.payload)
        );
    }
    assert_eq!(items[2].offset % ALIGNMENT, 0);
    assert_eq!(batch.signed.len() % ALIGNMENT, 0);
    for (index, item) in items.iter().enumerate() {
        let (_, row, offset) = locate(&batch.signed[..batch.table_end], batch.signed.len(), index as u16).unwrap();
        assert_eq!((row, offset), (item.row, item.offset));
    }
    assert!(locate(&batch.signed[..batch.table_end], batch.signed.len(), 3).is_err());
}

#[test]
fn a_table_is_laid_out_as_the_specification_draws_it() {
    let call = Message { kind: kind::GENCALL, call_id: 300, caller: 1, detail: 1, ..message("pong", b"xy", false) };
    let messages = [message("pong", b"one", false), message("ping", b"", false), call];
    let bytes = encoded(&messages);
    let table = b"\x02\x01\x04pong\x03\x02\x01\x04ping\x00\x43\x02\x02\xac\x02\x01\x01";
    assert_eq!(&bytes[120..120 + table.len()], table);

    let from = |source, message| Message { source, ..message };
    let messages =
        [from("ping", call), from("pong", message("ping", b"", false)), from("", message("ping", b"", false))];
    let bytes = body(&header(Mode::Delegated, ""), &messages);
    let table = b"\x43\x01\x04ping\x01\x04pong\x02\xac\x02\x01\x01\x02\x03\x02\x00\x02\x00\x02\x00";
    assert_eq!(&bytes[116..116 + table.len()], table);
    let batch = Batch::parse(&bytes).unwrap();
    let sources: Vec<_> = batch.messages().map(|item| item.row.source).collect();
    assert_eq!(sources, ["ping", "pong", ""]);
    assert!(batch.messages().all(|item| usize::from(item.row.source_place) < batch.names()));
}

#[test]
fn an_address_is_read_as_it_is_written() {
    for number in [1, 15, 16, 0xdead_beef, u64::MAX] {
        assert_eq!(Address::parse(&Address::of_handle(number)), Some(Address::Handle(number)));
    }
    assert_eq!(Address::parse("ping"), Some(Address::Engine("ping")));
    assert_eq!(Address::parse("ping@bob"), None);
    assert_eq!(Address::parse(""), None);
}

#[test]
fn every_cut_of_a_batch_is_malformed() {
    let bytes = encoded(&[message("a", b"one", true), message("b", b"two", false)]);
    for cut in 0..bytes.len() {
        assert!(Batch::parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_gap_that_is_not_zero_is_malformed() {
    let bytes = encoded(&[message("a", b"one", false), message("a", b"two", true)]);
    let batch = Batch::parse(&bytes).unwrap();
    let offsets: Vec<_> = batch.messages().map(|item| item.offset).collect();
    for place in [batch.table_end, offsets[0] - 1, offsets[0] + 3, offsets[1] - 1, bytes.len() - 65] {
        let mut altered = bytes.clone();
        altered[place] = 1;
        assert_eq!(Batch::parse(&altered).unwrap_err(), InvalidFrame::Value("alignment"), "{place}");
    }
}

#[test]
fn lengths_that_lie_are_malformed_at_every_place() {
    let bytes = encoded(&[message("a", b"one", false)]);
    // count, table length, payload length
    for place in [104, 112, 116] {
        for value in [0u32, 1, 3, 1 << 31, u32::MAX] {
            let mut altered = bytes.clone();
            altered[place..place + 4].copy_from_slice(&value.to_le_bytes());
            if altered != bytes {
                assert!(Batch::parse(&altered).is_err(), "{value} at {place}");
            }
        }
    }
    for length in [
        &b"\x02"[..],
        b"\x04",
        b"\x83\x80\x80\x80\x10",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        let table = [b"\x02\x01\x01a", length].concat();
        assert!(Batch::parse(&with_table(Mode::Engine, 1, &table, b"one")).is_err(), "{length:?}");
    }
}

#[test]
fn a_table_has_one_form() {
    let good: [(Mode, u16, &[u8]); 3] = [
        (Mode::Engine, 1, b"\x02\x01\x01a\x00"),
        (Mode::Engine, 2, b"\x02\x01\x01a\x00\x02\x02\x00"),
        (Mode::Delegated, 2, b"\x02\x01\x01a\x02\x00\x02\x02\x02\x00"),
    ];
    for (mode, count, table) in good {
        assert!(Batch::parse(&with_table(mode, count, table, b"")).is_ok(), "{table:?}");
    }
    let bad: [(&str, Mode, u16, &[u8]); 14] = [
        ("a bit that is zero", Mode::Engine, 1, b"\x82\x01\x01a\x00"),
        ("call fields that are all zero", Mode::Engine, 1, b"\x42\x01\x01a\x00\x00\x00\x00"),
        ("a name of no bytes", Mode::Engine, 1, b"\x07\x01\x00\x00"),
        ("a name that is not there yet", Mode::Engine, 1, b"\x02\x02\x00"),
        ("a name that is not there", Mode::Engine, 2, b"\x02\x01\x01a\x00\x02\x03\x00"),
        ("a name of a number that is none", Mode::Engine, 1, b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"),
        ("a name that has a number", Mode::Engine, 2, b"\x02\x01\x01a\x00\x02\x01\x01a\x00"),
        ("a name that is no text", Mode::Engine, 1, b"\x07\x01\x01\xff\x00"),
        ("a number that could be shorter", Mode::Engine, 1, b"\x02\x01\x01a\x80\x00"),
        ("a name's number that could be shorter", Mode::Engine, 1, b"\x02\x81\x00\x01a\x00"),
        ("a row too few", Mode::Engine, 2, b"\x02\x01\x01a\x00"),
        ("a row too many", Mode::Engine, 1, b"\x02\x01\x01a\x00\x02\x02\x00"),
        ("a process for a source", Mode::Delegated, 1, b"\x02\x01\x02@1\x01\x01a\x00"),
        (
            "a number of eleven bytes",
            Mode::Engine,
            1,
            b"\x43\x01\x01a\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x01\x01",
        ),
    ];
    for (what, mode, count, table) in bad {
        assert!(Batch::parse(&with_table(mode, count, table, b"")).is_err(), "{what}");
    }
    let mut named = with_table(Mode::Engine, 1, b"\x02\x01\x01a\x00", b"");
    named[106] = Mode::Delegated as u8;
    // Without a source the table is another.
    assert!(Batch::parse(&named).is_err());
    let mut named = encoded(&[message("a", b"", false)]);
    named[106] = Mode::Delegated as u8;
    assert_eq!(Batch::parse(&named).unwrap_err(), InvalidFrame::Value("batch engine"));
}

#[test]
fn a_name_that_is_given_twice_is_found_among_thousands() {
    let names: Vec<String> = (0..BATCH_MESSAGES_MAX).map(|number| format!("engine {number}")).collect();
    let mut table = Vec::new();
    for name in &names {
        table.put_u8(kind::CAST);
        table.put_u8(1);
        table.put_str8(name);
        table.put_u8(0);
    }
    let count = BATCH_MESSAGES_MAX as u16;
    assert!(Batch::parse(&with_table(Mode::Engine, count, &table, b"")).is_ok());
    // The last one becomes one of the same length.
    let last = table.len() - 2;
    table[last] -= 1;
    assert_eq!(
        Batch::parse(&with_table(Mode::Engine, count, &table, b"")).unwrap_err(),
        InvalidFrame::Value("row name (twice)")
    );
}

#[test]
fn fields_that_a_kind_does_not_have_are_malformed() {
    for (kind, call_id, caller, destination) in [
        (kind::SEND, 1, 0, "a"),
        (kind::CAST, 0, 1, "a"),
        (kind::CAST, 0, 0, ""),
        (kind::CAST, 0, 0, "a@b"),
        (kind::GENCALL, 0, 1, "a"),
        (kind::GENCALL, 1, 0, "a"),
        (kind::REPLY, 0, 0, ""),
        (kind::REPLY, 1, 0, "a"),
        (kind::ERROR, 1, 1, ""),
        (kind::SEND, 0, 0, "@"),
        (kind::SEND, 0, 0, "@0"),
        (kind::SEND, 0, 0, "@01"),
        (kind::SEND, 0, 0, "@1F"),
        (kind::SEND, 0, 0, "@1g"),
        (kind::SEND, 0, 0, "@+1"),
        (kind::SEND, 0, 0, "@11111111111111111"),
        (kind::EXIT, 0, 0, "a"),
        (kind::EXIT, 1, 1, "a"),
        (kind::EXIT, 0, 1, ""),
        (kind::DOWN, 0, 1, "a"),
        (kind::DOWN, 1, 1, ""),
    ] {
        let message = Message { kind, call_id, caller, ..message(destination, b"", false) };
        assert!(Batch::parse(&encoded(&[message])).is_err(), "{message:?}");
    }
}

/// All bytes of a frame of 64 messages but their payloads, per message.
fn overhead(mode: Mode, message: impl Fn(u64) -> (u8, u64, String, String)) -> f64 {
    let rows: Vec<_> = (0..64).map(message).collect();
    let messages = rows.iter().map(|(kind, call_id, source, destination)| Message {
        kind: *kind,
        aligned: false,
        call_id: *call_id,
        caller: if *kind == kind::GENCALL { 1_000 } else { 0 },
        detail: u8::from(*kind == kind::GENCALL),
        source,
        destination,
        payload: &[131; 256],
    });
    let mut out = Vec::new();
    let engine = if mode == Mode::Engine { "a source" } else { "" };
    encode(&header(mode, engine), messages, |_| [7; 64], &mut out);
    assert!(Batch::parse(&out[HEADER_BYTES..]).is_ok());
    (out.len() - 64 * 256) as f64 / 64.0
}

#[test]
fn a_message_in_a_batch_of_64_costs_at_most_12_bytes_on_the_wire() {
    let (one, own) = ("an engine".to_owned(), "a source".to_owned());
    let casts = overhead(Mode::Engine, |_| (kind::CAST, 0, own.clone(), one.clone()));
    let calls = overhead(Mode::Engine, |number| (kind::GENCALL, 100_000 + number, own.clone(), one.clone()));
    let replies = overhead(Mode::Engine, |number| (kind::REPLY, 100_000 + number, own.clone(), String::new()));
    let spread = overhead(Mode::Engine, |number| (kind::CAST, 0, own.clone(), format!("engine {number:02}")));
    let delegated = overhead(Mode::Delegated, |_| (kind::CAST, 0, own.clone(), one.clone()));
    let all = overhead(Mode::Delegated, |number| (kind::CAST, 0, format!("source {number:02}"), one.clone()));
    println!(
        "bytes a message of 64: casts {casts:.1}, calls {calls:.1}, replies {replies:.1}, casts to 64 engines {spread:.1}, \
         casts in delegated mode {delegated:.1}, from 64 engines {all:.1}"
    );
    assert!(casts <= 12.0, "{casts}");
    assert!(calls <= 16.0, "{calls}");
    assert!(replies <= 14.0, "{replies}");
    assert!(spread <= 20.0, "{spread}");
    assert!(delegated <= 12.0, "{delegated}");
    assert!(all <= 20.0, "{all}");
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-e]{1,2}", "[^@\\p{Cc}]{1,60}"]
}

/// Kind, call fields, source, destination, payload: as the kind allows.
fn any_message() -> impl Strategy<Value = (u8, (u64, u64, u8), String, String, Vec<u8>, bool)> {
    let fields = (any::<u64>(), any::<u64>(), any::<u8>());
    let source = prop_oneof![Just(String::new()), any_name()];
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    (0..16u8, fields, source, any_name(), payload, any::<bool>()).prop_map(
        |(kind, (call_id, caller, detail), source, destination, payload, aligned)| {
            let (fields, destination, payload) = match kind {
                kind::SEND | kind::CAST => ((0, 0, 0), destination, payload),
                kind::GENCALL => ((call_id | 1, caller | 1, detail), destination, payload),
                kind::EXIT => ((0, caller | 1, detail), destination, payload),
                kind::DOWN => ((0, caller, 0), String::new(), payload),
                kind::REPLY => ((call_id | 1, 0, 0), String::new(), payload),
                kind::ERROR => ((call_id | 1, 0, detail), String::new(), Vec::new()),
                _ => ((call_id, caller, detail), destination, payload),
            };
            (kind, fields, source, destination, payload, aligned)
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_in_every_mode(
        messages in prop::collection::vec(any_message(), 1..40), delegated: bool, aligned: bool,
    ) {
        let (mode, engine) = if delegated { (Mode::Delegated, "") } else { (Mode::Engine, "ping") };
        let messages: Vec<_> = messages.iter().map(|(kind, fields, source, destination, payload, apart)| Message {
            kind: *kind, aligned: aligned && *apart, call_id: fields.0, caller: fields.1, detail: fields.2,
            source: if delegated { source } else { engine }, destination, payload,
        }).collect();
        let bytes = body(&header(mode, engine), &messages);
        let batch = Batch::parse(&bytes).unwrap();
        prop_assert_eq!(batch.messages().len(), messages.len());
        for (item, message) in batch.messages().zip(&messages) {
            let Item { row, payload, offset } = item;
            prop_assert_eq!(
                (row.kind, row.aligned, row.call_id, row.caller, row.detail, row.source, row.destination, payload),
                (message.kind, message.aligned, message.call_id, message.caller, message.detail, message.source,
                 message.destination, message.payload)
            );
            prop_assert!(!row.aligned || offset % ALIGNMENT == 0);
        }
        let last = batch.count - 1;
        let (_, row, offset) = locate(&batch.signed[..batch.table_end], batch.signed.len(), last).unwrap();
        let item = batch.message(last).unwrap();
        prop_assert_eq!((row, offset), (item.row, item.offset));
    }

    #[test]
    fn a_table_of_arbitrary_bytes_is_one_or_not(
        table in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..60), count in 1..6u16, delegated: bool,
    ) {
        let mode = if delegated { Mode::Delegated } else { Mode::Engine };
        if let Ok(batch) = Batch::parse(&with_table(mode, count, &table, b"")) {
            // There is but one way to write it.
            let items: Vec<_> = batch.messages().collect();
            let messages: Vec<_> = items.iter().map(|item| Message {
                kind: item.row.kind, aligned: item.row.aligned, call_id: item.row.call_id, caller: item.row.caller,
                detail: item.row.detail, source: item.row.source, destination: item.row.destination, payload: item.payload,
            }).collect();
            if !items[0].row.staged {
                let again = body(&header(mode, ""), &messages);
                prop_assert_eq!(&again[116..116 + table.len()], &table[..]);
            }
        }
    }
}
