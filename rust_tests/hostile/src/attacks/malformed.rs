//! What has a defined answer (`protocol.md` 1.3, 6.3, 9.2, 10.1, 11): each on a link of its own, `name=outcome`.

use crate::batch::{varint, RawBatch, RawMessage, CALL, RESERVED};
use crate::frame::{self, frame};
use crate::link::Link;
use crate::options::{Options, ANSWER_WAIT, E1};
use crate::peer::DELEGATE;
use crate::term;

pub fn all(options: &Options) -> Result<(), String> {
    let mut sent = 0;
    for (name, act) in acts() {
        let mut link = options.up_again()?;
        act(&mut link, &options.engine);
        sent += 1;
        println!("{name}={}", link.state(ANSWER_WAIT));
    }
    println!("sent={sent}");
    Ok(())
}

type Act = Box<dyn Fn(&mut Link, &str)>;

/// A batch that is not as it should be, signed as it is.
fn batch(change: fn(&mut RawBatch)) -> Act {
    Box::new(move |link, engine| {
        let mut batch = link.peer.batch(E1, vec![RawMessage::cast(engine, &term::text("malformed"))]);
        change(&mut batch);
        let body = link.peer.sealed(&batch, E1);
        link.peer.write_frame(frame::BATCH, &body);
    })
}

/// One cast, of whose row this is the table.
fn row(table: fn(&[u8]) -> Vec<u8>) -> Act {
    Box::new(move |link, engine| {
        let name = [&[1, engine.len() as u8][..], engine.as_bytes()].concat();
        let mut batch = link.peer.batch(E1, vec![RawMessage::cast(engine, &term::text("malformed"))]);
        batch.table = Some(table(&name));
        let body = link.peer.sealed(&batch, E1);
        link.peer.write_frame(frame::BATCH, &body);
    })
}

fn to(destination: &'static [u8]) -> Act {
    Box::new(move |link, _| {
        let message = RawMessage { destination: destination.into(), ..RawMessage::cast("", &term::text("malformed")) };
        link.peer.send(E1, vec![message]);
    })
}

fn raw(kind: u8, flags: u8, length: u32, body: &'static [u8]) -> Act {
    Box::new(move |link, _| link.peer.write(&frame(kind, flags, length, body)))
}

/// An announcement with these attributes, and these bytes behind them.
fn learn(attributes: Vec<u8>, trailing: &'static [u8]) -> Act {
    Box::new(move |link, _| {
        let mut learn = link.peer.learn("e3");
        learn.attributes = attributes.clone();
        let signed = link.peer.signed("learn", &[&learn.body()[..], trailing].concat());
        link.peer.write_frame(frame::LEARN, &signed);
    })
}

/// `term::text("malformed")` is so long.
const LENGTH: u8 = 15;

fn acts() -> Vec<(&'static str, Act)> {
    vec![
        ("nothing", Box::new(|_, _| {})),
        // Trailing bytes and bytes that are missing.
        ("trailing-ack", raw(frame::ACK, 1, 9, &[0; 9])),
        ("short-ack", raw(frame::ACK, 1, 7, &[0; 7])),
        ("trailing-ping", raw(frame::PING, 1, 9, &[0; 9])),
        ("trailing-batch", batch(|batch| batch.trailing = vec![0])),
        ("trailing-learn", learn(DELEGATE.to_vec(), &[0])),
        ("trailing-credit", raw(frame::CREDIT, 1, 9, &[1, 0, 1, b'a', 1, 0, 0, 0, 0])),
        ("trailing-release", raw(frame::HANDLE_RELEASE, 1, 12, &[1, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        // Counts of nothing and of more than is there.
        ("credit-of-nothing", raw(frame::CREDIT, 1, 2, &[0, 0])),
        ("credit-of-more", raw(frame::CREDIT, 1, 8, &[2, 0, 1, b'a', 1, 0, 0, 0])),
        ("batch-of-nothing", batch(|batch| batch.count = Some(0))),
        ("batch-of-more", batch(|batch| batch.count = Some(2))),
        ("batch-of-4097", batch(|batch| batch.count = Some(4_097))),
        ("table-longer", batch(|batch| batch.table_length = Some(u32::MAX))),
        ("payloads-longer", batch(|batch| batch.payloads_length = Some(u32::MAX))),
        // Numbers that are not in as few bytes as it takes.
        ("long-length", row(|name| [&[2][..], name, &[LENGTH | 128, 0]].concat())),
        ("long-name-number", row(|name| [&[2, 0x81, 0][..], &name[1..], &[LENGTH]].concat())),
        (
            "length-of-70-bits",
            row(|name| [&[2][..], name, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 127]].concat()),
        ),
        (
            "length-of-2-to-the-32",
            row(|name| {
                let mut table = [&[2][..], name].concat();
                varint(1 << 32, &mut table);
                table
            }),
        ),
        // Rows.
        ("call-fields-of-nothing", row(|name| [&[2 | CALL][..], name, &[LENGTH, 0, 0, 0]].concat())),
        ("number-of-no-name", row(|_| vec![2, 2, LENGTH])),
        ("reserved-bit", batch(|batch| batch.messages[0].flags = RESERVED)),
        ("unknown-mode", batch(|batch| batch.mode = 9)),
        ("engine-in-mode-2", batch(|batch| batch.mode = 2)),
        ("sequence-0", batch(|batch| batch.first_sequence = 0)),
        ("call-without-number", row(|name| [&[3 | CALL][..], name, &[LENGTH, 0, 1, 1]].concat())),
        ("unknown-kind", batch(|batch| batch.messages[0].kind = 14)),
        // Names.
        ("name-of-latin-1", to(b"caf\xe9")),
        ("name-with-at", to(b"engine@alice")),
        ("name-with-control", to(b"a\x07b")),
        ("no-name", to(b"")),
        ("address-0", to(b"@0")),
        ("address-with-zeros", to(b"@01")),
        ("address-in-capitals", to(b"@A")),
        ("address-of-17-digits", to(b"@11111111111111111")),
        // Frames.
        ("flags", raw(frame::PING, 3, 8, &[0; 8])),
        ("known-and-uncritical", raw(frame::PING, 0, 8, &[0; 8])),
        ("unknown-and-critical", raw(0x40, 1, 0, &[])),
        ("reserved-and-critical", raw(0x0e, 1, 0, &[])),
        ("unknown-and-uncritical", raw(0x40, 0, 3, &[1, 2, 3])),
        ("unknown-and-too-large", raw(0x40, 0, 65_537, &[])),
        ("ack-too-large", raw(frame::ACK, 1, 100, &[])),
        ("batch-too-large", raw(frame::BATCH, 1, 1 << 30, &[])),
        (
            "hello-again",
            Box::new(|link, _| {
                let hello = link.peer.hello_sent.clone();
                link.peer.write_frame(frame::HELLO, &hello);
            }),
        ),
        ("ack-of-what-never-came", raw(frame::ACK, 1, 8, &[255, 255, 255, 255, 0, 0, 0, 0])),
        ("resume-of-another-session", raw(frame::RESUME, 1, 48, &[7; 48])),
        ("fragment-of-too-much", raw(frame::FRAGMENT, 1, 9, &[1, 0, 0, 0, 255, 255, 255, 255, 1])),
        ("fragment-of-nothing", raw(frame::FRAGMENT, 1, 8, &[1, 0, 0, 0, 100, 0, 0, 0])),
        ("unknown-release", raw(frame::HANDLE_RELEASE, 1, 11, &[1, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0])),
        ("unknown-close-code", raw(frame::CLOSE, 1, 3, &[255, 255, 0])),
        // Announcements.
        ("unknown-attribute", learn(vec![9, 0, 1, 0, 7], &[])),
        ("attribute-twice", learn([DELEGATE, DELEGATE].concat(), &[])),
        ("attribute-longer", learn(vec![1, 0, 200, 0], &[])),
        (
            "forget-for-no-reason",
            Box::new(|link, _| {
                let realm = link.peer.keys.realm();
                let mut forget = link.peer.forget(&realm, E1);
                *forget.last_mut().expect("a reason") = 99;
                let signed = link.peer.signed("forget", &forget);
                link.peer.write_frame(frame::FORGET, &signed);
            }),
        ),
    ]
}
