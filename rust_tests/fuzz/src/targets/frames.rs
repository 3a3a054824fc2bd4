//! Every frame's body. The first byte says of which type, the rest is the body.
//!
//! What can be read is written again, and reads the same: a frame has no two meanings. Where it also has one form only, the bytes are the same.

use legation_proto::frame::batch::{self, Batch, Message};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::close::Close;
use legation_proto::frame::forget::Forget;
use legation_proto::frame::fragment::Fragment;
use legation_proto::frame::hello::Hello;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::resume::Resume;
use legation_proto::frame::staged::{Piece, StagedBatch};
use legation_proto::frame::{self, ack, credit, handle_release, head, ping, FrameType, Head, HEADER_BYTES};
use legation_proto::limits::Limits;
use legation_proto::rotation::{Revocation, Rotation};

use crate::Target;

pub const TARGET: Target =
    Target { name: "frames", what: "every frame's header and body", run, seeds, bytes_max: 4_096 };

fn run(input: &[u8]) {
    stream(input);
    let Some((&kind, body)) = input.split_first() else { return };
    let Some(kind) = FrameType::known(kind) else { return };
    match kind {
        FrameType::Hello => hello(body),
        FrameType::Resume => exact(body, Resume::decode, |resume, out| resume.encode(out)),
        FrameType::Batch => any_batch(body),
        FrameType::Checkpoint => exact(body, Checkpoint::decode, |(checkpoint, signature), out| {
            checkpoint.encode(signature, out);
        }),
        FrameType::Fragment => {
            if let Ok(fragment) = Fragment::decode(body) {
                let mut out = Vec::new();
                fragment.encode(&mut out);
                assert_eq!(&out[HEADER_BYTES..], body);
            }
        }
        FrameType::Ack => exact(body, ack::decode, |sequence, out| ack::encode(*sequence, out)),
        FrameType::Ping | FrameType::Pong => exact(body, ping::decode, |token, out| ping::encode_ping(*token, out)),
        FrameType::Credit => exact(body, grants, |grants, out| {
            credit::encode(grants, out);
        }),
        FrameType::HandleRelease => releases(body),
        FrameType::Learn => signed(body, Learn::decode, Learn::body),
        FrameType::Forget => signed(body, Forget::decode, Forget::body),
        FrameType::Cert => signed(body, Cert::decode, Cert::body),
        FrameType::Rotate => {
            if let Ok(rotation) = Rotation::decode(body) {
                assert_eq!(rotation.encode(), body);
            }
        }
        FrameType::Revoke => {
            if let Ok(revocation) = Revocation::decode(body) {
                assert_eq!(revocation.encode(), body);
            }
        }
        FrameType::Close => close(body),
        other => panic!("{other:?} has a meaning now, and no place here"),
    }
}

/// What comes is cut into frames; each is whole in what it says it takes, and in nothing less.
fn stream(input: &[u8]) {
    let limits = Limits::default();
    let mut rest = input;
    loop {
        let bytes = match head(rest, &limits) {
            Ok(Head::Frame { kind, body, bytes }) => {
                assert!(bytes == HEADER_BYTES + body.len() && body.len() <= kind.body_bytes_max(&limits));
                let mut again = Vec::new();
                frame::encode(kind, body, &mut again);
                assert_eq!(again, rest[..bytes]);
                bytes
            }
            Ok(Head::Skip { bytes }) => bytes,
            Ok(Head::Partial) | Err(_) => return,
        };
        assert!(bytes >= HEADER_BYTES);
        assert_eq!(head(&rest[..bytes - 1], &limits), Ok(Head::Partial), "a byte is missing");
        rest = &rest[bytes..];
    }
}

/// Of types with one form for each value.
fn exact<T, E>(body: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>, encode: impl Fn(&T, &mut Vec<u8>)) {
    let Ok(value) = decode(body) else { return };
    let mut out = Vec::new();
    encode(&value, &mut out);
    assert_eq!(&out[HEADER_BYTES..], body, "another form");
    let cut = body.len() / 2;
    assert!(decode(&body[..cut]).is_err() && decode(&[body, &[0]].concat()).is_err(), "leftovers");
}

/// Of types that are signed; extensions and attributes that we don't know are not written again.
fn signed<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<(T, [u8; 64]), E>,
    written: impl Fn(&T) -> Vec<u8>,
) {
    let Ok((value, signature)) = decode(body) else { return };
    assert_eq!(body.last_chunk(), Some(&signature));
    let again = [&written(&value)[..], &signature].concat();
    assert!(again.len() <= body.len(), "no longer than it came");
    assert_eq!(decode(&again).unwrap(), (value, signature));
}

fn hello(body: &[u8]) {
    let Ok((hello, signature, length)) = Hello::decode(body) else { return };
    assert_eq!(length + 64, body.len(), "all but the signature is signed");
    let again = [&hello.body()[..], &signature].concat();
    assert!(again.len() <= body.len(), "no longer than it came");
    let (once_more, _, _) = Hello::decode(&again).expect("our own");
    assert_eq!(once_more, hello);
}

fn grants(body: &[u8]) -> Result<Vec<(String, u32)>, legation_proto::error::InvalidFrame> {
    let mut grants = Vec::new();
    credit::decode(body, |destination, bytes| grants.push((destination.to_owned(), bytes)))?;
    Ok(grants)
}

fn releases(body: &[u8]) {
    let Ok(entries) = handle_release::decode(body) else { return };
    for entries in entries.chunks(handle_release::ENTRIES_MAX) {
        let mut out = Vec::new();
        handle_release::encode(entries, &mut out);
        assert_eq!(handle_release::decode(&out[HEADER_BYTES..]).as_deref(), Ok(entries));
    }
}

fn close(body: &[u8]) {
    let Ok(close) = Close::decode(body) else { return };
    assert!(!close.text.chars().any(char::is_control), "for a log");
    let mut out = Vec::new();
    close.encode(&mut out);
    let again = Close::decode(&out[HEADER_BYTES..]).expect("our own");
    // What takes the place of a control character is longer, so the end may be cut off.
    assert!(again.code == close.code && close.text.starts_with(&again.text));
}

fn any_batch(body: &[u8]) {
    match StagedBatch::parse(body) {
        Ok(Some(staged)) => staged_batch(&staged),
        Ok(None) => batch(body),
        Err(_) => {}
    }
}

fn batch(body: &[u8]) {
    let Ok(batch) = Batch::parse(body) else { return };
    let items: Vec<_> = batch.messages().collect();
    assert_eq!(items.len(), usize::from(batch.count));
    for (index, item) in items.iter().enumerate() {
        assert_eq!(&batch.signed[item.offset..item.offset + item.payload.len()], item.payload);
        assert!(usize::from(item.row.source_place) <= batch.names(), "room for what is counted by place");
        // A receipt finds it by the beginning alone.
        let prefix = &batch.signed[..batch.table_end];
        let found = batch::locate(prefix, batch.signed.len(), index as u16);
        assert_eq!(found, Ok((batch.header, item.row, item.offset)));
        if index > 64 {
            break;
        }
    }
    let message = |item: &batch::Item<'_>| Message {
        kind: item.row.kind,
        aligned: item.row.aligned,
        call_id: item.row.call_id,
        caller: item.row.caller,
        detail: item.row.detail,
        source: "",
        destination: "",
        payload: b"",
    };
    let messages: Vec<Message<'_>> = items
        .iter()
        .map(|item| Message {
            source: item.row.source,
            destination: item.row.destination,
            payload: item.payload,
            ..message(item)
        })
        .collect();
    let mut out = Vec::new();
    match batch.signature {
        Some(signature) => batch::encode(&batch.header, messages.iter().copied(), |_| *signature, &mut out),
        None => {
            batch::encode_unsigned(&batch.header, messages.iter().copied(), &mut out);
        }
    }
    let again = Batch::parse(&out[HEADER_BYTES..]).expect("our own");
    assert_eq!((again.header, again.count, again.signature), (batch.header, batch.count, batch.signature));
    for (one, other) in again.messages().zip(&items) {
        let row = batch::Row { source_place: other.row.source_place, ..one.row };
        assert_eq!((row, one.payload), (other.row, other.payload));
    }
}

/// The payload is not here, but what is said of it must suit some payload.
fn staged_batch(staged: &StagedBatch<'_>) {
    if staged.payload_bytes > 64 * 1024 {
        return;
    }
    let payload = vec![106; staged.payload_bytes as usize];
    let whole = Piece::of(&payload).close(staged).expect("as long as it says");
    if let Ok(batch) = Batch::parse(whole.body()) {
        assert_eq!(batch.header, staged.header);
        let item = batch.message(0).expect("one message");
        assert!(item.row.staged && item.payload == payload, "its payload");
    }
    assert!(Piece::of(&[&payload[..], &[0]].concat()).close(staged).is_err(), "a byte too many");
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (kind, body) in super::vector_frames() {
        seeds.push([&[kind], &body[..]].concat());
        let mut frame = Vec::new();
        frame::encode(FrameType::known(kind).expect("a known one"), &body, &mut frame);
        seeds.push(frame);
    }
    seeds
}
