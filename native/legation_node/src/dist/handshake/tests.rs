//! The other side is bytes written by hand.

use proptest::prelude::*;

use super::*;

const COOKIE: &str = "biscuit";
/// What OTP 25 offers.
const OTP_25: u64 = 0xD_07DF_7FBD;
const OURS: u64 = 0xC_07DF_4FBC;
const CHALLENGE: u32 = 0xDEAD_BEEF;

fn local(name: &str) -> LocalNode {
    LocalNode { name: node(name), creation: 77, flags: OURS, cookie: zeroize::Zeroizing::new(COOKIE.to_string()) }
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a good name")
}

fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut frame = u16::try_from(body.len()).expect("short").to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn name_frame(flags: u64, creation: u32, name: &str) -> Vec<u8> {
    let length = u16::try_from(name.len()).expect("short").to_be_bytes();
    framed(&[b"N", &flags.to_be_bytes(), &creation.to_be_bytes(), &length, name.as_bytes()])
}

fn challenge_frame(flags: u64, name: &str) -> Vec<u8> {
    let length = u16::try_from(name.len()).expect("short").to_be_bytes();
    let (challenge, creation) = (CHALLENGE.to_be_bytes(), 5u32.to_be_bytes());
    framed(&[b"N", &flags.to_be_bytes(), &challenge, &creation, &length, name.as_bytes()])
}

fn digest(cookie: &str, challenge: u32) -> [u8; 16] {
    md5::compute(format!("{cookie}{challenge}")).0
}

fn status(text: &str) -> Vec<u8> {
    framed(&[b"s", text.as_bytes()])
}

/// What the machine has to send, as frames without their lengths.
fn sent(handshake: &mut Handshake) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    handshake.poll_transmit(&mut out);
    let mut frames = Vec::new();
    while let Some(frame) = take_frame(&mut out).expect("our own frames") {
        frames.push(frame[2..].to_vec());
    }
    assert!(out.is_empty(), "half a frame was sent");
    frames
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// Cuts `bytes` into pieces of these sizes, over and over.
fn feed(handshake: &mut Handshake, bytes: &[u8], cuts: &[usize]) {
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            return;
        }
        let (piece, after) = rest.split_at((*cut).clamp(1, rest.len()));
        handshake.handle_bytes(piece);
        rest = after;
    }
}

/// A node dials us: its name, our verdict, and what it answers with this cookie; `tail` comes right behind.
fn be_dialled(handshake: &mut Handshake, name: &[u8], cookie: &str, tail: &[u8], cuts: &[usize]) -> Option<Outcome> {
    feed(handshake, name, cuts);
    match handshake.poll_outcome() {
        Some(Outcome::Caller(_)) => handshake.answer(Verdict::Ok),
        other => return other,
    }
    let frames = sent(handshake);
    assert_eq!(frames[0], b"sok");
    let answer = framed(&[b"r", &CHALLENGE.to_be_bytes(), &digest(cookie, number(&frames[1][9..13]))]);
    feed(handshake, &[&answer, tail].concat(), cuts);
    handshake.poll_outcome()
}

/// We dial a node, which answers with this; what it acknowledges is made of our own challenge.
fn dial(
    handshake: &mut Handshake,
    status: &[u8],
    challenge: &[u8],
    cookie: &str,
    tail: &[u8],
    cuts: &[usize],
) -> Option<Outcome> {
    sent(handshake);
    feed(handshake, &[status, challenge].concat(), cuts);
    if let Some(outcome) = handshake.poll_outcome() {
        return Some(outcome);
    }
    let frames = sent(handshake);
    let reply = frames.last().expect("an answer to the challenge");
    assert_eq!((reply[0], &reply[5..]), (b'r', &digest(COOKIE, CHALLENGE)[..]));
    let acknowledgement = framed(&[b"a", &digest(cookie, number(&reply[1..5]))]);
    feed(handshake, &[&acknowledgement, tail].concat(), cuts);
    handshake.poll_outcome()
}

fn beam() -> Established {
    Established { name: node("beam@10.0.0.1"), creation: 5, flags: OTP_25, rest: Vec::new() }
}

fn dialling() -> Handshake {
    Handshake::initiator(local("legation@10.0.0.1"), node("beam@10.0.0.1"))
}

fn listening() -> Handshake {
    Handshake::acceptor(local("legation@10.0.0.1"))
}

#[test]
fn our_name_goes_out_with_the_very_flags_that_we_offer() {
    let frames = sent(&mut dialling());
    let name = name_frame(OURS, 77, "legation@10.0.0.1");
    assert_eq!(frames, [name[2..].to_vec()]);
}

#[test]
fn a_node_that_dials_us_is_taken_in_and_what_it_sends_behind_is_handed_on() {
    let mut handshake = listening();
    let name = name_frame(OTP_25, 5, "beam@10.0.0.1");
    let outcome = be_dialled(&mut handshake, &name, COOKIE, b"\0\0\0\0", &[1_000]);
    assert_eq!(outcome, Some(Outcome::Up(Established { rest: b"\0\0\0\0".to_vec(), ..beam() })));
    assert_eq!(sent(&mut handshake), [[b"a", &digest(COOKIE, CHALLENGE)[..]].concat()]);
    assert_eq!(handshake.poll_outcome(), None);
}

#[test]
fn a_node_that_we_dial_takes_us_in() {
    for word in ["ok", "ok_simultaneous"] {
        let mut handshake = dialling();
        let challenge = challenge_frame(OTP_25, "beam@10.0.0.1");
        let outcome = dial(&mut handshake, &status(word), &challenge, COOKIE, b"rest", &[1_000]);
        assert_eq!(outcome, Some(Outcome::Up(Established { rest: b"rest".to_vec(), ..beam() })));
    }
}

#[test]
fn what_a_later_version_appends_to_a_name_is_skipped() {
    let mut name = name_frame(OTP_25, 5, "beam@10.0.0.1");
    name.extend(b"more");
    name[1] += 4;
    let outcome = be_dialled(&mut listening(), &name, COOKIE, b"", &[1_000]);
    assert_eq!(outcome, Some(Outcome::Up(beam())));
}

#[test]
fn a_name_in_the_old_form_is_completed_by_a_second_frame() {
    let low = u32::try_from(OTP_25 & u64::from(u32::MAX)).expect("half");
    let name = framed(&[b"n", &5u16.to_be_bytes(), &low.to_be_bytes(), b"beam@10.0.0.1"]);
    let mut handshake = listening();
    handshake.handle_bytes(&name);
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Caller(node("beam@10.0.0.1"))));
    handshake.answer(Verdict::Ok);
    let challenge = number(&sent(&mut handshake)[1][9..13]);
    let high = u32::try_from(OTP_25 >> 32).expect("half");
    handshake.handle_bytes(&framed(&[b"c", &high.to_be_bytes(), &5u32.to_be_bytes()]));
    handshake.handle_bytes(&framed(&[b"r", &CHALLENGE.to_be_bytes(), &digest(COOKIE, challenge)]));
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Up(beam())));

    // The same, but the upper half lacks a flag: our acknowledgement doesn't leave.
    let mut handshake = listening();
    handshake.handle_bytes(&name);
    handshake.poll_outcome();
    handshake.answer(Verdict::Ok);
    let challenge = number(&sent(&mut handshake)[1][9..13]);
    handshake.handle_bytes(&framed(&[b"c", &[0; 4], &5u32.to_be_bytes()]));
    handshake.handle_bytes(&framed(&[b"r", &CHALLENGE.to_be_bytes(), &digest(COOKIE, challenge)]));
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(lacks(&["V4_NC"]))));
    assert_eq!(sent(&mut handshake), Vec::<Vec<u8>>::new());
}

fn lacks(missing: &[&'static str]) -> HandshakeError {
    HandshakeError::MissingFlags { node: "beam@10.0.0.1".to_string(), missing: missing.to_vec() }
}

#[test]
fn a_node_that_lacks_flags_is_refused_by_their_names() {
    let required = |bit: &u64| flags::REQUIRED & bit != 0;
    for bit in (0..64).map(|bit| 1 << bit).filter(required) {
        let name = flags::names(bit).next().expect("a name");
        // The digest and what it stands for do for each other.
        let without = if bit == flags::MANDATORY_25_DIGEST { bit | flags::MAP_TAG } else { bit };
        let flags = OTP_25 & !without;
        let mut handshake = listening();
        handshake.handle_bytes(&name_frame(flags, 5, "beam@10.0.0.1"));
        assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(lacks(&[name]))));
        assert_eq!(sent(&mut handshake), [b"snot_allowed".to_vec()]);

        let mut handshake = dialling();
        let challenge = challenge_frame(flags, "beam@10.0.0.1");
        let outcome = dial(&mut handshake, &status("ok"), &challenge, COOKIE, b"", &[1_000]);
        assert_eq!(outcome, Some(Outcome::Failed(lacks(&[name]))));
        assert_eq!(sent(&mut handshake), Vec::<Vec<u8>>::new(), "no digest for a node that we don't want");
    }
    assert_eq!(
        lacks(&["UNLINK_ID", "V4_NC"]).to_string(),
        "node beam@10.0.0.1 lacks what is required: UNLINK_ID, V4_NC"
    );
}

#[test]
fn the_digest_of_otp_25_stands_for_its_flags() {
    let flags = flags::REQUIRED;
    let outcome = be_dialled(&mut listening(), &name_frame(flags, 5, "beam@10.0.0.1"), COOKIE, b"", &[1_000]);
    let flags = flags | flags::MANDATORY_25;
    assert!(matches!(outcome, Some(Outcome::Up(Established { flags: found, .. })) if found == flags));
}

#[test]
fn another_cookie_is_called_by_its_name() {
    let mut handshake = listening();
    let name = name_frame(OTP_25, 5, "beam@10.0.0.1");
    let outcome = be_dialled(&mut handshake, &name, "another", b"", &[1_000]);
    assert_eq!(outcome, Some(Outcome::Failed(HandshakeError::Cookie)));
    assert_eq!(sent(&mut handshake), Vec::<Vec<u8>>::new());

    let challenge = challenge_frame(OTP_25, "beam@10.0.0.1");
    let outcome = dial(&mut dialling(), &status("ok"), &challenge, "another", b"", &[1_000]);
    assert_eq!(outcome, Some(Outcome::Failed(HandshakeError::Cookie)));

    // A BEAM closes.
    let mut handshake = dialling();
    feed(&mut handshake, &[status("ok"), challenge].concat(), &[1_000]);
    handshake.handle_end();
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(HandshakeError::CookieRefused)));
}

#[test]
fn verdicts_that_are_no_end_the_handshake_when_they_are_sent() {
    for (verdict, word) in [(Verdict::Nok, "nok"), (Verdict::NotAllowed, "not_allowed")] {
        let mut handshake = listening();
        handshake.handle_bytes(&name_frame(OTP_25, 5, "beam@10.0.0.1"));
        assert_eq!(handshake.poll_outcome(), Some(Outcome::Caller(node("beam@10.0.0.1"))));
        handshake.answer(verdict);
        assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(HandshakeError::Refused(verdict))));
        assert_eq!(sent(&mut handshake), [[b"s", word.as_bytes()].concat()]);
    }
    let words = [("nok", HandshakeError::Busy), ("not_allowed", HandshakeError::NotAllowed)];
    for (word, error) in words {
        let mut handshake = dialling();
        handshake.handle_bytes(&status(word));
        assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(error)));
    }
    for word in ["named:\0\x03a@b\0\0\0\x01", "fine", ""] {
        let mut handshake = dialling();
        handshake.handle_bytes(&status(word));
        assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(HandshakeError::Malformed("the status"))));
    }
}

#[test]
fn told_that_we_are_alive_we_say_whether_to_go_on() {
    let mut handshake = dialling();
    sent(&mut handshake);
    handshake.handle_bytes(&status("alive"));
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Alive));
    handshake.answer_alive(true);
    assert_eq!(sent(&mut handshake), [b"strue".to_vec()]);
    let outcome = dial(&mut handshake, b"", &challenge_frame(OTP_25, "beam@10.0.0.1"), COOKIE, b"", &[1_000]);
    assert_eq!(outcome, Some(Outcome::Up(beam())));

    let mut handshake = dialling();
    sent(&mut handshake);
    handshake.handle_bytes(&status("alive"));
    handshake.poll_outcome();
    handshake.answer_alive(false);
    assert_eq!(sent(&mut handshake), [b"sfalse".to_vec()]);
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(HandshakeError::Connected)));
}

#[test]
fn after_alive_the_challenge_waits_for_the_answer() {
    let begin = || {
        let mut handshake = listening();
        handshake.handle_bytes(&name_frame(OTP_25, 5, "beam@10.0.0.1"));
        handshake.poll_outcome();
        handshake.answer(Verdict::Alive);
        assert_eq!(sent(&mut handshake), [b"salive".to_vec()]);
        handshake
    };
    let mut handshake = begin();
    handshake.handle_bytes(&status("true"));
    let challenge = number(&sent(&mut handshake)[0][9..13]);
    handshake.handle_bytes(&framed(&[b"r", &CHALLENGE.to_be_bytes(), &digest(COOKIE, challenge)]));
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Up(beam())));

    let answers = [("false", HandshakeError::Connected), ("yes", HandshakeError::Malformed("the answer to `alive`"))];
    for (word, error) in answers {
        let mut handshake = begin();
        handshake.handle_bytes(&status(word));
        assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(error)));
        assert_eq!(sent(&mut handshake), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn names_that_can_not_be_are_refused() {
    let refused = |flags: u64, name: &str| {
        let mut handshake = listening();
        handshake.handle_bytes(&name_frame(flags, 5, name));
        assert_eq!(sent(&mut handshake), [b"snot_allowed".to_vec()], "{name}");
        match handshake.poll_outcome() {
            Some(Outcome::Failed(error)) => error,
            other => panic!("{name}: {other:?}"),
        }
    };
    assert_eq!(refused(OTP_25, "beam"), HandshakeError::Name(InvalidName::Form));
    assert_eq!(refused(OTP_25, "be\u{7}am@10.0.0.1"), HandshakeError::Name(InvalidName::Characters));
    assert_eq!(refused(OTP_25, &format!("{}@10.0.0.1", "b".repeat(247))), HandshakeError::Name(InvalidName::TooLong));
    assert_eq!(refused(OTP_25 | NAME_ME, "10.0.0.1"), HandshakeError::NameWanted);
    assert_eq!(refused(OTP_25, "legation@10.0.0.1"), HandshakeError::OwnName(node("legation@10.0.0.1")));
    let short = refused(OTP_25, "beam@host");
    assert_eq!(short, HandshakeError::NameLength { node: node("beam@host"), long: false });
    assert_eq!(short.to_string(), "node beam@host has a short name, ours is long");
}

#[test]
fn the_node_that_answers_must_be_the_one_that_was_dialled() {
    let outcome =
        dial(&mut dialling(), &status("ok"), &challenge_frame(OTP_25, "other@10.0.0.1"), COOKIE, b"", &[1_000]);
    let expected = HandshakeError::OtherNode { expected: node("beam@10.0.0.1"), found: node("other@10.0.0.1") };
    assert_eq!(outcome, Some(Outcome::Failed(expected)));

    let mut handshake = Handshake::initiator(local("legation@10.0.0.1"), node("beam@host"));
    let expected = HandshakeError::NameLength { node: node("beam@host"), long: false };
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(expected)));
    assert_eq!(sent(&mut handshake), Vec::<Vec<u8>>::new());
}

#[test]
fn a_frame_is_as_long_as_may_be_and_no_longer() {
    let mut name = name_frame(OTP_25, 5, "beam@10.0.0.1");
    name.resize(2 + FRAME_BYTES_MAX, 0);
    name[..2].copy_from_slice(&u16::try_from(FRAME_BYTES_MAX).expect("short").to_be_bytes());
    let mut handshake = listening();
    handshake.handle_bytes(&name);
    assert!(matches!(handshake.poll_outcome(), Some(Outcome::Caller(_))));

    let mut handshake = listening();
    handshake.handle_bytes(&u16::try_from(FRAME_BYTES_MAX + 1).expect("short").to_be_bytes());
    let error = HandshakeError::TooLarge { bytes: FRAME_BYTES_MAX + 1 };
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(error)));
    handshake.handle_bytes(&[0; 100_000]);
    assert!(handshake.raw.is_empty(), "nothing is kept of a connection that failed");
}

#[test]
fn who_talks_before_it_is_answered_is_not_listened_to_for_long() {
    let mut handshake = listening();
    handshake.handle_bytes(&name_frame(OTP_25, 5, "beam@10.0.0.1"));
    assert!(matches!(handshake.poll_outcome(), Some(Outcome::Caller(_))));
    handshake.handle_bytes(&[0; FRAME_BYTES_MAX]);
    assert_eq!(handshake.poll_outcome(), None);
    handshake.handle_bytes(&[0]);
    let error = HandshakeError::TooLarge { bytes: FRAME_BYTES_MAX + 1 };
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(error)));
}

#[test]
fn a_connection_that_closes_says_what_was_awaited() {
    let mut handshake = listening();
    handshake.handle_bytes(b"\0");
    handshake.handle_end();
    let error = HandshakeError::Closed("a name");
    assert_eq!(error.to_string(), "the connection was closed while we awaited a name");
    assert_eq!(handshake.poll_outcome(), Some(Outcome::Failed(error)));
    handshake.handle_end();
    assert_eq!(handshake.poll_outcome(), None);
}

fn any_cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..60usize, 1..8)
}

proptest! {
    #[test]
    fn however_the_stream_is_cut_the_outcome_is_the_same(
        cuts in any_cuts(), cookie_is_right in any::<bool>(), flags_are_there in any::<bool>(), tail in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let cookie = if cookie_is_right { COOKIE } else { "another" };
        let flags = if flags_are_there { OTP_25 } else { OTP_25 & !(1 << 34) };
        let (name, challenge) = (name_frame(flags, 5, "beam@10.0.0.1"), challenge_frame(flags, "beam@10.0.0.1"));
        // What comes after the outcome goes to the connection: all of it that was given in one piece is counted here.
        let without_rest = |handshake: &mut Handshake, outcome| match outcome {
            Some(Outcome::Up(mut established)) => {
                established.rest.append(&mut handshake.raw);
                Some(Outcome::Up(established))
            }
            other => other,
        };
        let mut whole = listening();
        let mut pieces = listening();
        let first = be_dialled(&mut whole, &name, cookie, &tail, &[10_000]);
        let second = be_dialled(&mut pieces, &name, cookie, &tail, &cuts);
        prop_assert_eq!(without_rest(&mut whole, first), without_rest(&mut pieces, second));
        prop_assert_eq!(sent(&mut whole), sent(&mut pieces));

        let (mut whole, mut pieces) = (dialling(), dialling());
        let first = dial(&mut whole, &status("ok"), &challenge, cookie, &tail, &[10_000]);
        let second = dial(&mut pieces, &status("ok"), &challenge, cookie, &tail, &cuts);
        prop_assert_eq!(without_rest(&mut whole, first), without_rest(&mut pieces, second));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in any_cuts(), verdict in 0..5usize) {
        let verdict = [Verdict::Ok, Verdict::OkSimultaneous, Verdict::Nok, Verdict::NotAllowed, Verdict::Alive][verdict];
        for mut handshake in [listening(), dialling()] {
            feed(&mut handshake, &bytes, &cuts);
            handshake.answer(verdict);
            handshake.answer_alive(true);
            let outcome = handshake.poll_outcome();
            prop_assert!(!matches!(outcome, Some(Outcome::Up(_))));
            handshake.handle_end();
        }
    }

    #[test]
    fn one_byte_changed_on_the_way_never_panics_and_never_passes_for_another_node(
        at in 0..60usize, to in any::<u8>(), cuts in any_cuts(),
    ) {
        let mut name = name_frame(OTP_25, 5, "beam@10.0.0.1");
        let mut challenge = challenge_frame(OTP_25, "beam@10.0.0.1");
        let (of_name, of_challenge) = (at % name.len(), at % challenge.len());
        name[of_name] = to;
        challenge[of_challenge] = to;
        let mut handshake = listening();
        handshake.handle_bytes(&name);
        handshake.answer(Verdict::Ok);
        let _ = sent(&mut handshake);
        let mut handshake = dialling();
        feed(&mut handshake, &[status("ok"), challenge].concat(), &cuts);
        handshake.handle_end();
        prop_assert!(matches!(handshake.poll_outcome(), Some(Outcome::Failed(_))));
    }
}
