//! Numbers that can't be, at every place of every frame.

use std::collections::BTreeMap;

use super::frames::print_outcomes;
use crate::batch::{RawBatch, RawMessage};
use crate::frame::{self, frame, str8};
use crate::link::Link;
use crate::options::{Options, ANSWER_WAIT, E1};
use crate::random::Random;
use crate::term;

const NUMBERS: [u32; 5] = [0, 1, 3, 1 << 31, u32::MAX];

/// A frame as it should be, but for its signature: type, purpose of the signature or none, body.
type Frame = (u8, Option<&'static str>, Vec<u8>);

/// Each on a link of its own: `--count` of all cases, chosen by the seed, or all for 0.
pub fn everywhere(options: &Options) -> Result<(), String> {
    let sample = frames(&mut options.up_again()?, options);
    let mut cases = Vec::new();
    for (number, (_, _, body)) in sample.iter().enumerate() {
        // From the length in the header on.
        let places = 2..6 + body.len().min(200);
        cases.extend(places.flat_map(|place| NUMBERS.map(|value| (number, place, value))));
    }
    let all = cases.len();
    if options.count > 0 {
        let mut random = Random::of(options.seed);
        cases = (0..options.count).map(|_| random.of_these(&cases)).collect();
    }
    let mut outcomes = BTreeMap::new();
    for (number, place, value) in &cases {
        let mut link = options.up_again()?;
        let (kind, purpose, body) = frames(&mut link, options).swap_remove(*number);
        let signature = |link: &mut Link, body: &[u8]| match purpose {
            Some("batch") => crate::keys::sign(link.peer.keys.of(E1), "batch", &link.peer.network, body).to_vec(),
            Some(purpose) => crate::keys::sign(&link.peer.keys.identity, purpose, &link.peer.network, body).to_vec(),
            None => vec![],
        };
        // What stands in the body is signed with it.
        let mut body = body;
        if *place >= 6 {
            lie(&mut body, *place - 6, *value);
        }
        let signature = signature(&mut link, &body);
        body.extend(signature);
        let mut whole = frame(kind, 1, body.len() as u32, &body);
        if *place < 6 {
            lie(&mut whole, *place, *value);
        }
        link.peer.write(&whole);
        // A length that is a little too large would be waited for: frames that are skipped come behind it.
        link.peer.write(&vec![0; if *place < 6 { 240_000 } else { 60 }]);
        let state = link.state(ANSWER_WAIT);
        *outcomes.entry(state).or_insert(0) += 1;
    }
    println!("cases={all}\nsent={}", cases.len());
    print_outcomes(&outcomes);
    println!("link={}", options.up_again()?.state(ANSWER_WAIT));
    Ok(())
}

/// Over what is there, as far as it goes.
fn lie(bytes: &mut [u8], place: usize, value: u32) {
    for (byte, new) in bytes[place..].iter_mut().zip(value.to_le_bytes()) {
        *byte = new;
    }
}

/// One of each type. Their sequence numbers are the next.
fn frames(link: &mut Link, options: &Options) -> Vec<Frame> {
    let peer = &mut link.peer;
    let session = peer.session.unwrap_or_default();
    let realm = peer.keys.realm();
    // To nobody: these tests show that nothing is delivered.
    let messages = vec![
        RawMessage::cast("nobody", &term::text("as it should be")),
        RawMessage::call("nobody", 300, 1, &term::text("as it should be")),
    ];
    let batch = RawBatch { first_sequence: peer.next_sequence, ..peer.batch(E1, messages) };
    peer.next_sequence = batch.first_sequence;
    let learn = peer.learn("e3").body();
    let forget = peer.forget(&realm, E1);
    let cert = peer.cert();
    let one = 1u64.to_le_bytes();
    let rotation = [&realm[..], &peer.keys.public(), &[7; 32], &one, &one].concat();
    let revocation = [&realm[..], &[7; 32], &one].concat();
    let credit =
        [vec![2, 0], str8(options.engine.as_bytes()), vec![1, 0, 0, 0], str8(b"count"), vec![1, 0, 0, 0]].concat();
    let release = [&[2, 0, 1][..], &one, &[1, 3], &one, &one].concat();
    vec![
        (frame::BATCH, Some("batch"), batch.body()),
        (frame::LEARN, Some("learn"), learn),
        (frame::FORGET, Some("forget"), forget),
        (frame::CERT, Some("cert"), cert),
        // These two are signed for another purpose: whoever is believed here has locked himself out.
        (frame::ROTATE, Some("hello"), rotation),
        (frame::REVOKE, Some("hello"), revocation),
        (frame::RESUME, None, [&session[..], &[0; 8], &one].concat()),
        (frame::CHECKPOINT, None, [&one[..], &one, &[7; 96]].concat()),
        (frame::FRAGMENT, None, [&[1, 0, 0, 0, 100, 0, 0, 0][..], &[7; 50]].concat()),
        (frame::ACK, None, vec![0; 8]),
        (frame::CREDIT, None, credit),
        (frame::HANDLE_RELEASE, None, release),
        (frame::PING, None, vec![1; 8]),
        (frame::CLOSE, None, [&[0, 0, 5][..], b"hello"].concat()),
    ]
}
