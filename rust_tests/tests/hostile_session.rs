//! A listed peer with valid keys that turns hostile once the hellos are through: numbers, links, fragments, credit, handles. What
//! each attack comes to is what `protocol.md` says, and honest traffic goes on.

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::etf::{Owner, Wire};
use legation_proto::frame::batch::{kind, label, Address, Refusal};
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::hello::Offer;
use legation_proto::frame::FrameType;
use legation_proto::limits::{Limits, RELEASES_MAX, STRAYS_MAX};
use legation_proto::session::{DropOutcome, Locals, PushError, TranslateError};
use rust_tests::another::Another;
use rust_tests::pair::Seen;
use rust_tests::raw_batch::{critical, fragment, staged, RawMessage, STAGED};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::realm::Realm;
use rust_tests::term;

const MIB: usize = 1024 * 1024;

fn limits() -> Limits {
    Limits { identifiers: true, credit_bytes: 0, ..Limits::default() }
}

fn versus_with(limits: Limits) -> Versus {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Local), limits);
    versus.side.stand_ins = false;
    versus
}

fn versus() -> Versus {
    versus_with(limits())
}

/// One more link of the same realm, whose hello asks for the session `id`. `run` tells its randomness.
fn another(first: &Versus, id: [u8; 32], additional: bool, run: u32) -> Versus {
    another_of(Realm::alice(), first, id, additional, run)
}

fn another_of(realm: Realm, first: &Versus, id: [u8; 32], additional: bool, run: u32) -> Versus {
    let offer = Offer { session: id, additional };
    // The driver is as careless as can be: it gives its session to whoever comes.
    let another = Another { realm, offer, given: Some(first.side.session()), limits: limits(), run }.link(first);
    assert!(another.side.is_up(), "{:?}", another.side.fault);
    another
}

fn id(versus: &Versus) -> [u8; 32] {
    versus.side.session().agreed().session
}

fn resume(versus: &mut Versus, session: [u8; 32], received: u64, next: u64) {
    let body = [&session[..], &received.to_le_bytes(), &next.to_le_bytes()].concat();
    versus.peer.write_frame(FrameType::Resume, &body);
    versus.settle();
}

fn wire(wire: Wire<'_>) -> Vec<u8> {
    let mut raw = Vec::new();
    wire.put(&mut raw);
    raw
}

fn theirs(number: u64) -> Vec<u8> {
    wire(Wire::Pid { number, owner: Owner::Sender })
}

fn home(number: u64) -> Vec<u8> {
    wire(Wire::Pid { number, owner: Owner::Receiver })
}

fn their_reference(number: u64) -> Vec<u8> {
    wire(Wire::Reference { number, owner: Owner::Sender })
}

fn home_reference(number: u64) -> Vec<u8> {
    wire(Wire::Reference { number, owner: Owner::Receiver })
}

fn list(elements: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let elements: Vec<Vec<u8>> = elements.collect();
    term::payload(&term::list(&elements, &[106]))
}

/// The body of a HANDLE_RELEASE.
fn release(entries: &[(u8, u64, Vec<u8>)]) -> Vec<u8> {
    let mut body = (entries.len() as u16).to_le_bytes().to_vec();
    for (what, number, then) in entries {
        body.push(*what);
        body.extend(number.to_le_bytes());
        body.extend(then);
    }
    body
}

fn copies(count: u64) -> Vec<u8> {
    count.to_le_bytes().to_vec()
}

/// Bob's Erlang system.
#[derive(Default)]
struct Beam {
    last: u32,
    engines: Vec<(&'static str, Vec<u8>)>,
}

impl Beam {
    fn next(&mut self) -> Vec<u8> {
        self.last += 1;
        term::pid("n@bob", 1_000 + self.last)
    }
}

impl Locals for Beam {
    fn pid(&mut self, _: u64) -> Option<Vec<u8>> {
        Some(self.next())
    }

    fn engine(&mut self, name: &str) -> Option<Vec<u8>> {
        self.engines.iter().find(|(known, _)| *known == name).map(|(_, pid)| pid.clone())
    }

    fn reference(&mut self) -> Vec<u8> {
        self.last += 1;
        term::reference("n@bob", self.last)
    }

    fn nobody(&mut self) -> Vec<u8> {
        self.next()
    }
}

/// Bob gives his process `id` away. Its number.
fn given(versus: &mut Versus, id: u32) -> u64 {
    versus.side.cast("b", "e1", &term::payload(&term::pid("n@bob", id))).unwrap();
    versus.settle();
    versus.side.exported.last().unwrap().number
}

// RESUME, links and sessions.

#[test]
fn a_resume_that_does_not_fit_closes_its_link_and_says_so() {
    type Change = fn(&mut [u8; 32], &mut u64, &mut u64);
    let attacks: [(&str, Change); 6] = [
        ("next too high", |_, _, next| *next += 1),
        ("next at the end of numbers", |_, _, next| *next = u64::MAX),
        ("next 0", |_, _, next| *next = 0),
        ("received beyond sent", |_, received, _| *received = 1_000),
        ("received at the end of numbers", |_, received, _| *received = u64::MAX),
        ("another session", |session, _, _| session[0] ^= 1),
    ];
    for (name, change) in attacks {
        let first = versus();
        let mut second = another(&first, id(&first), true, 1);
        let (mut session, mut received, mut next) = (id(&first), 0, first.peer.next_sequence);
        change(&mut session, &mut received, &mut next);
        resume(&mut second, session, received, next);
        assert_eq!(second.side.fault_code(), Some(CloseCode::Protocol), "{name}");
        assert_eq!(second.peer.told_code(), Some(CloseCode::Protocol), "{name}");
    }
    // Of the right length and no other.
    for length in [0, 47, 49] {
        let first = versus();
        let mut second = another(&first, id(&first), true, 1);
        second.peer.write(&critical(FrameType::Resume, &vec![1; length]));
        second.settle();
        assert!(second.side.fault.is_some(), "{length}");
    }
}

type Attack = Box<dyn Fn(&mut Versus)>;

#[test]
fn nothing_sequenced_is_taken_on_another_link_before_a_resume() {
    let cast = |versus: &mut Versus| drop(versus.peer.cast("e1", "b", &term::text("x")));
    let attacks: [(&str, Attack); 6] = [
        ("batch", Box::new(cast)),
        ("fragment", Box::new(|versus| versus.peer.write_frame(FrameType::Fragment, &fragment(1, 9, b"x")))),
        ("credit", Box::new(|versus| versus.peer.write_frame(FrameType::Credit, &[1, 0, 1, b'b', 1, 0, 0, 0]))),
        ("release", Box::new(|versus| versus.peer.write_frame(FrameType::HandleRelease, &release(&[])))),
        (
            "learn",
            Box::new(|versus| {
                let learn = versus.peer.learn("e3");
                versus.peer.write_learn(&learn);
            }),
        ),
        ("cert", Box::new(|versus| versus.peer.announce(&[]))),
    ];
    for (name, attack) in attacks {
        let mut first = versus();
        let mut second = another(&first, id(&first), true, 1);
        attack(&mut second);
        second.settle();
        assert_eq!(second.side.fault_code(), Some(CloseCode::Protocol), "{name}");
        assert!(second.side.take_payloads().is_empty());
        // The session has had nothing of it.
        first.assert_alive();
    }
}

#[test]
fn kept_frames_that_are_sent_again_and_again_are_passed_over() {
    let mut first = versus();
    let begin = first.peer.next_sequence;
    let kept: Vec<Vec<u8>> = (0..5).map(|number| first.peer.cast("e1", "b", &term::number(number))).collect();
    first.settle();
    assert_eq!(first.side.take_payloads().len(), 5);
    let mut second = another(&first, id(&first), true, 1);
    for _ in 0..200 {
        resume(&mut second, id(&first), 0, begin);
        for body in &kept {
            second.peer.write(&critical(FrameType::Batch, body));
        }
        second.settle();
    }
    assert!(second.side.take_payloads().is_empty());
    assert_eq!((second.side.count("replayed"), second.side.count("duplicate")), (1_000, 0));
    second.assert_alive();
    // From the first of all, with other frames than those that were there.
    resume(&mut second, id(&first), 0, 1);
    for number in 0..5 {
        let mut batch = second.peer.batch("e1", vec![RawMessage::cast("b", &term::text("another"))]);
        batch.first_sequence = 1 + number;
        second.peer.next_sequence -= 1;
        let body = second.peer.sealed(&batch, "e1");
        second.peer.write(&critical(FrameType::Batch, &body));
    }
    second.settle();
    assert!(second.side.take_payloads().is_empty());
    let next = second.peer.next_sequence;
    resume(&mut second, id(&first), 0, next);
    second.assert_alive();
}

#[test]
fn a_resume_on_the_first_link_sets_its_position_and_brings_nothing_back() {
    let mut versus = versus();
    let (session, begin) = (id(&versus), versus.peer.next_sequence);
    let body = versus.peer.send("e1", vec![RawMessage::cast("b", &[131, 106]), RawMessage::cast("b", &[131, 106])]);
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), 2);
    resume(&mut versus, session, 0, begin);
    versus.peer.write(&critical(FrameType::Batch, &body));
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    versus.assert_alive();
}

#[test]
fn ranges_that_overlap_what_has_come_close_the_link() {
    for (from, count) in [(0u64, 3), (1, 2), (1, 4_096)] {
        let mut versus = versus();
        let (session, begin) = (id(&versus), versus.peer.next_sequence);
        versus.peer.send("e1", vec![RawMessage::cast("b", &[131, 106]); 2]);
        versus.settle();
        versus.side.take_events();
        resume(&mut versus, session, 0, begin + from);
        let mut batch = versus.peer.batch("e1", vec![RawMessage::cast("b", &[131, 106]); count]);
        batch.first_sequence = begin + from;
        let body = versus.peer.sealed(&batch, "e1");
        versus.peer.write(&critical(FrameType::Batch, &body));
        versus.settle();
        assert!(versus.side.take_payloads().is_empty(), "{from} {count}");
        versus.assert_closed(CloseCode::Protocol);
    }
}

#[test]
fn numbers_at_the_end_of_their_range_close_the_link_without_coming_round() {
    for first in [u64::MAX, u64::MAX - 1] {
        let mut versus = versus();
        let mut batch = versus.peer.batch("e1", vec![RawMessage::cast("b", &[131, 106]); 3]);
        batch.first_sequence = first;
        let body = versus.peer.sealed(&batch, "e1");
        versus.peer.write(&critical(FrameType::Batch, &body));
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
    }
}

#[test]
fn a_session_that_is_guessed_is_not_resumed_and_a_new_one_begins() {
    let mut first = versus();
    let mut guessed = id(&first);
    guessed[31] ^= 1;
    for guess in [guessed, [0; 32], [255; 32]] {
        let other = another(&first, guess, false, 1);
        assert!(other.side.events.contains(&Seen::Up));
        assert_ne!(id(&other), id(&first));
    }
    first.assert_alive();
}

#[test]
fn another_realm_that_knows_a_sessions_id_does_not_get_into_it() {
    let mut first = versus();
    let mallory = another_of(Realm::number(7), &first, id(&first), false, 1);
    assert_ne!(id(&mallory), id(&first), "a link of mallory's in alice's session");
    // Nor does alice get into one that she has not asked for.
    let other = another(&first, [7; 32], false, 2);
    assert_ne!(id(&other), id(&first));
    first.assert_alive();
}

#[test]
fn links_without_end_leave_the_session_as_it_was() {
    let mut first = versus();
    for run in 0..60 {
        let mut more = another(&first, id(&first), true, run);
        let next = first.peer.next_sequence;
        resume(&mut more, id(&first), 0, next);
        more.assert_alive();
        more.side.lose();
        // Those that come by another link are passed over on this one.
        first.peer.next_sequence = more.peer.next_sequence;
        resume(&mut first, id(&more), 0, more.peer.next_sequence);
        first.assert_alive();
    }
    assert_eq!(first.side.count("duplicate") + first.side.count("bad_signature"), 0);
}

// Fragments.

fn large(versus: &mut Versus, bytes: usize, sequence_after: u64) -> (Vec<u8>, Vec<u8>) {
    let payload = term::of_size(bytes);
    let message = RawMessage { flags: STAGED, ..RawMessage::cast("b", &payload) };
    let mut batch = versus.peer.batch("e1", vec![message]);
    batch.first_sequence += sequence_after;
    (versus.peer.sealed(&batch, "e1"), payload)
}

#[test]
fn fragments_that_contradict_each_other_close_the_link() {
    let attacks: [(&str, Vec<Vec<u8>>); 6] = [
        ("another total", vec![fragment(1, 9, b"x"), fragment(1, 10, b"x")]),
        ("more than the total", vec![fragment(1, 2, b"xx"), fragment(1, 2, b"x")]),
        ("more than the total at once", vec![fragment(1, 1, b"xx")]),
        ("a total of 0", vec![fragment(1, 0, b"x")]),
        ("no bytes", vec![fragment(1, 9, b"")]),
        ("cut", vec![vec![1, 0, 0, 0, 9, 0, 0]]),
    ];
    for (name, bodies) in attacks {
        let mut versus = versus();
        for body in bodies {
            versus.peer.write_frame(FrameType::Fragment, &body);
        }
        versus.settle();
        assert_eq!(versus.side.fault_code(), Some(CloseCode::Protocol), "{name}");
        assert!(versus.side.count("staged_bytes") <= 9 * MIB as u64);
    }
    let mut versus = versus();
    versus.peer.write_frame(FrameType::Fragment, &fragment(1, u32::MAX as usize, b"x"));
    versus.settle();
    versus.assert_closed(CloseCode::TooLarge);
}

#[test]
fn transfers_that_never_end_cost_their_bound_and_hold_up_nobody() {
    let mut versus = versus();
    for transfer in 0..4 {
        versus.peer.write_frame(FrameType::Fragment, &fragment(transfer, 2 * MIB, &[0; 65_536]));
    }
    versus.settle();
    assert_eq!(versus.side.count("staged_bytes"), 8 * MIB as u64);
    for _ in 0..50 {
        versus.assert_alive();
    }
    assert_eq!(versus.side.count("staged_bytes"), 8 * MIB as u64);
}

#[test]
fn a_transfer_over_the_message_limit_is_dropped_with_its_message() {
    let mut versus = versus();
    let (body, payload) = large(&mut versus, 8 * MIB + 1_000, 129);
    for bytes in payload.chunks(65_536) {
        versus.peer.write_frame(FrameType::Fragment, &fragment(1, payload.len(), bytes));
    }
    versus.peer.write_frame(FrameType::Batch, &staged(&body, 1));
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    assert_eq!((versus.side.count("too_large"), versus.side.count("staged_bytes")), (1, 0), "{:?}", versus.side.fault);
    versus.assert_alive();
}

#[test]
fn a_transfer_that_was_closed_is_closed() {
    let mut versus = versus();
    let (body, payload) = large(&mut versus, 1_000, 1);
    versus.peer.write_frame(FrameType::Fragment, &fragment(1, payload.len(), &payload));
    versus.peer.write_frame(FrameType::Batch, &staged(&body, 1));
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), 1);
    // Its number begins another; a batch of nothing closes the link.
    let (body, payload) = large(&mut versus, 1_000, 1);
    versus.peer.write_frame(FrameType::Fragment, &fragment(1, payload.len(), &payload[..999]));
    versus.peer.write_frame(FrameType::Batch, &staged(&body, 1));
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn going_back_with_a_resume_in_the_middle_of_a_transfer_doubles_nothing() {
    let mut versus = versus();
    let (session, begin) = (id(&versus), versus.peer.next_sequence);
    let (body, payload) = large(&mut versus, 100_000, 2);
    let pieces: Vec<Vec<u8>> = payload.chunks(60_000).map(|bytes| fragment(1, payload.len(), bytes)).collect();
    versus.peer.write(&critical(FrameType::Fragment, &pieces[0]));
    versus.settle();
    for _ in 0..20 {
        resume(&mut versus, session, 0, begin);
        versus.peer.write(&critical(FrameType::Fragment, &pieces[0]));
    }
    versus.peer.write(&critical(FrameType::Fragment, &pieces[1]));
    versus.peer.write(&critical(FrameType::Batch, &staged(&body, 1)));
    versus.peer.next_sequence = begin + 3;
    versus.settle();
    assert!(versus.side.take_payloads() == [payload]);
    // All of it again, and the batch alone where its fragments are not.
    resume(&mut versus, session, 0, begin);
    for piece in &pieces {
        versus.peer.write(&critical(FrameType::Fragment, piece));
    }
    versus.peer.write(&critical(FrameType::Batch, &staged(&body, 1)));
    resume(&mut versus, session, 0, begin + 2);
    versus.peer.write(&critical(FrameType::Batch, &staged(&body, 1)));
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    versus.assert_alive();
}

#[test]
fn a_staged_row_among_others_closes_the_link() {
    let mut versus = versus();
    let row = RawMessage { flags: STAGED, ..RawMessage::cast("b", &[131, 106]) };
    versus.peer.send("e1", vec![RawMessage::cast("b", &[131, 106]), row]);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

// Credit.

fn credit(entries: &[(&str, u32)]) -> Vec<u8> {
    let mut body = (entries.len() as u16).to_le_bytes().to_vec();
    for (name, bytes) in entries {
        body.push(name.len() as u8);
        body.extend(name.as_bytes());
        body.extend(bytes.to_le_bytes());
    }
    body
}

/// A raw peer that gives bob a window.
fn versus_that_grants(bytes: u32) -> Versus {
    let config = RawPeerConfig {
        limits: Limits { credit_bytes: bytes, ..Limits::default() },
        ..RawPeerConfig::dialling(Profile::Local)
    };
    Versus::up_with(config, limits())
}

#[test]
fn credit_without_end_gives_no_more_than_the_window() {
    let mut versus = versus_that_grants(10_000);
    for _ in 0..20 {
        let entries = vec![("e1", u32::MAX); 1_000];
        versus.peer.write_frame(FrameType::Credit, &credit(&entries));
    }
    versus.settle();
    let sent = |versus: &Versus| versus.peer.got().iter().filter(|got| got.destination == "e1").count();
    for round in 1..3 {
        for _ in 0..30 {
            versus.side.cast("b", "e1", &term::of_size(936)).unwrap();
        }
        versus.settle();
        assert_eq!(sent(&versus), 10 * round + 20 * (round - 1), "no more than the window");
        // Two times more than is in use in one frame counts as what is in use.
        versus.peer.write_frame(FrameType::Credit, &credit(&[("e1", u32::MAX), ("e1", u32::MAX)]));
        versus.settle();
        versus.peer.write_frame(FrameType::Credit, &credit(&[("e1", u32::MAX)]));
        versus.settle();
        assert_eq!(sent(&versus), 30 * round);
        versus.peer.write_frame(FrameType::Credit, &credit(&[("e1", u32::MAX)]));
        versus.settle();
    }
    versus.assert_alive();
}

#[test]
fn credit_for_a_hundred_thousand_destinations_that_nobody_knows_leaves_nothing() {
    let mut versus = versus_that_grants(10_000);
    for round in 0..25 {
        let names: Vec<String> = (0..4_000).map(|number| format!("x{}", round * 4_000 + number)).collect();
        let entries: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), u32::MAX)).collect();
        versus.peer.write_frame(FrameType::Credit, &credit(&entries));
        versus.settle();
    }
    versus.assert_alive();
}

#[test]
fn credit_that_is_malformed_closes_the_link_and_nothing_of_it_is_granted() {
    for body in [vec![], vec![0, 0], vec![2, 0, 1, b'b', 1, 0, 0, 0], credit(&[("", 1)]), credit(&[("b", 0)])] {
        let mut versus = versus_that_grants(10_000);
        versus.peer.write_frame(FrameType::Credit, &body);
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
    }
}

#[test]
fn a_peer_that_ignores_the_window_loses_what_is_past_it_and_others_are_not_touched() {
    let mut versus = versus_with(Limits { credit_bytes: 10_000, ..limits() });
    versus.side.stingy = true;
    for _ in 0..10 {
        versus.peer.send("e1", vec![RawMessage::cast("b", &term::of_size(936)); 400]);
        let calls = (0..100).map(|number| RawMessage::call("b", 1 + number, 1, &term::of_size(936)));
        versus.peer.send("e1", calls.collect());
    }
    versus.peer.cast("e1", "another", &term::text("goes on"));
    versus.settle();
    let got = versus.side.take_payloads();
    assert_eq!((got.len(), versus.side.count("credit_exceeded")), (11, 4_990));
    assert_eq!(versus.peer.refusals().len(), 1_000);
    assert_eq!((versus.side.count("calls_served"), versus.side.count("handles_imported")), (0, 0));
    let wake = versus.side.session().grant("b", 0);
    versus.side.woken(wake);
    versus.assert_alive();
}

#[test]
fn messages_to_more_destinations_than_there_may_be_are_forgotten_when_mailboxes_are_empty() {
    let mut versus = versus_with(Limits { credit_bytes: 10_000, ..limits() });
    versus.side.stingy = true;
    let mut sent = 0;
    while sent < 135_000 {
        let casts = (sent..sent + 3_000).map(|number| RawMessage::cast(&format!("x{number}"), &[131, 106]));
        versus.peer.send("e1", casts.collect());
        sent += 3_000;
        versus.settle();
        // They are looked at, and at this time have let nothing go.
        versus.side.session().debts(|_, _| {});
        versus.side.take_events();
    }
    assert_eq!(versus.side.count("credit_exceeded"), 135_000 - 131_072);
    // From now on they are empty.
    versus.side.stingy = false;
    versus.peer.cast("e1", "x1", &[131, 106]);
    versus.settle();
    versus.side.take_events();
    versus.assert_alive();
}

// Handles.

#[test]
fn releases_of_what_was_never_given_do_nothing() {
    let mut versus = versus();
    let number = given(&mut versus, 1);
    let mut entries = Vec::new();
    for other in [0, number + 1, 77, u64::MAX] {
        entries.push((3, other, copies(1)));
        entries.push((3, other, copies(u64::MAX)));
        entries.push((4, other, copies(u64::MAX)));
        entries.push((2, other, Vec::new()));
    }
    versus.peer.write_frame(FrameType::HandleRelease, &release(&entries));
    versus.settle();
    assert_eq!((versus.side.take_events(), versus.side.count("handles_exported")), (vec![], 1));
    versus.assert_alive();
    // The last copy, and once more: by then it is unknown.
    versus.side.take_events();
    for _ in 0..2 {
        versus.peer.write_frame(FrameType::HandleRelease, &release(&[(3, number, copies(1))]));
        versus.settle();
    }
    assert_eq!(versus.side.take_events(), [Seen::Unexported { number }]);
    versus.assert_alive();
}

#[test]
fn more_copies_than_were_sent_close_the_link_for_pids_and_references() {
    for (what, count) in [(3, 2), (3, u64::MAX), (4, 2), (4, u64::MAX)] {
        let mut versus = versus();
        let element = term::tuple(&[term::pid("n@bob", 1), term::reference("n@bob", 1)]);
        versus.side.cast("b", "e1", &term::payload(&element)).unwrap();
        versus.settle();
        versus.peer.write_frame(FrameType::HandleRelease, &release(&[(what, 1, copies(count))]));
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
    }
}

#[test]
fn releases_that_are_malformed_close_the_link() {
    let bodies = [
        vec![],
        vec![1, 0],
        vec![255, 255, 1],
        release(&[(0, 1, vec![])]),
        release(&[(5, 1, copies(1))]),
        release(&[(1, 1, vec![8])]),
        release(&[(3, 1, copies(0))]),
        release(&[(4, 1, copies(0))]),
        [release(&[(2, 1, vec![])]), vec![0]].concat(),
    ];
    for body in bodies {
        let mut versus = versus();
        versus.peer.write_frame(FrameType::HandleRelease, &body);
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
    }
}

#[test]
fn ends_of_processes_that_never_came_leave_nothing_behind() {
    let mut versus = versus();
    versus.side.stand_ins = true;
    for round in 0..20u64 {
        let entries: Vec<_> = (0..5_000).map(|number| (1, 1 + number + 5_000 * (round / 2), vec![1])).collect();
        versus.peer.write_frame(FrameType::HandleRelease, &release(&entries));
        versus.settle();
        assert_eq!(versus.side.take_events().len(), 5_000);
        assert_eq!(versus.side.count("handles_imported"), 0);
    }
    versus.assert_alive();
}

#[test]
fn a_process_that_has_ended_and_calls_again_is_served_and_leaves_nothing() {
    let mut versus = versus();
    versus.peer.send("e1", vec![RawMessage::call("b", 1, 5, &term::text("x"))]);
    versus.peer.write_frame(FrameType::HandleRelease, &release(&[(1, 5, vec![1])]));
    versus.peer.send("e1", vec![RawMessage::call("b", 2, 5, &term::text("y"))]);
    versus.settle();
    let session = versus.side.session();
    assert_eq!(versus.side.count("calls_served"), 1);
    assert!(matches!(session.drop_import(5), DropOutcome::Dropped { .. }));
    let calls: Vec<u64> = versus
        .side
        .take_events()
        .into_iter()
        .filter_map(|event| if let Seen::Call { call_id, .. } = event { Some(call_id) } else { None })
        .collect();
    assert_eq!(versus.side.reply(calls[0], &term::text("late")), Err(PushError::UnknownCall));
    versus.side.reply(calls[1], &term::text("answer")).unwrap();
    versus.settle();
    assert_eq!((versus.side.count("calls_served"), versus.side.count("handles_imported")), (0, 0));
    versus.assert_alive();
}

#[test]
fn an_answer_to_a_call_that_was_released_is_not_given_to_a_later_one_of_the_same_number() {
    for ended in [false, true] {
        let mut versus = versus();
        versus.side.export("c");
        versus.settle();
        versus.peer.send("e1", vec![RawMessage::call("b", 9, 5, &term::text("first"))]);
        let entry = if ended { (1, 5, vec![1]) } else { (2, 9, vec![]) };
        versus.peer.write_frame(FrameType::HandleRelease, &release(&[entry]));
        versus.peer.send("e1", vec![RawMessage::call("c", 9, 6, &term::text("second"))]);
        versus.settle();
        let calls: Vec<(String, u64)> = versus
            .side
            .take_events()
            .into_iter()
            .filter_map(|event| match event {
                Seen::Call { call_id, destination, .. } => Some((destination, call_id)),
                _ => None,
            })
            .collect();
        // What `b` says is never signed by `c`.
        let late = versus.side.reply(calls[0].1, &term::text("of b's"));
        assert_eq!((calls[0].0.as_str(), late), ("b", Err(PushError::UnknownCall)));
        if let Some((engine, call_id)) = calls.get(1) {
            versus.side.reply(*call_id, &term::text("of c's")).unwrap();
            versus.settle();
            let reply = versus.peer.got().pop().unwrap();
            assert_eq!((engine.as_str(), reply.source.as_str(), reply.call_id), ("c", "c", 9));
            assert_eq!(reply.payload, term::text("of c's"));
        }
        versus.assert_alive();
    }
}

#[test]
fn pids_and_references_that_come_home_and_were_never_given_are_nobody() {
    let mut versus = versus();
    let number = given(&mut versus, 1);
    let guesses = [number + 1, number + 2, 1 << 32, u64::MAX];
    let elements = guesses.iter().flat_map(|number| [home(*number), home_reference(*number)]);
    versus.peer.cast("e1", "b", &list(elements));
    versus.settle();
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    let mut beam = Beam::default();
    let got = versus.side.session().translate_in(payload, &mut beam).unwrap();
    assert_eq!(beam.last as usize, 2 * guesses.len(), "each is another that nobody has");
    let other = term::pid("n@bob", 1);
    assert!(!got.windows(other.len()).any(|bytes| bytes == other), "none is the one that was given");
    assert_eq!(versus.side.count("handles_imported") + versus.side.count("references_imported"), 0);
    versus.assert_alive();
}

#[test]
fn identifiers_in_any_other_spelling_are_refused() {
    let mut versus = versus();
    let mut odd = vec![home(0), theirs(0), home_reference(0), their_reference(0)];
    for creation in [0, 3, 4, 255] {
        for base in [home(1), home_reference(1)] {
            let mut raw = base.clone();
            let at = if raw[0] == 88 { raw.len() - 1 } else { 8 };
            raw[at] = creation;
            odd.push(raw);
        }
    }
    let engine = |name: &str, tail: &[u8]| [&[88, 119, name.len() as u8][..], name.as_bytes(), tail].concat();
    let tail = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    odd.extend([engine("", &tail), engine("a@b", &tail), engine("a\n", &tail)]);
    for (at, value) in [(7, 1), (8, 1), (11, 2), (11, 1)] {
        let mut tail = tail;
        tail[at] = value;
        odd.push(engine("b", &tail));
    }
    // The same in atoms of other tags, and a reference of other lengths.
    odd.push([&[88, 100, 0, 0][..], &home(1)[3..]].concat());
    odd.push([&[88, 118, 0, 0][..], &home(1)[3..]].concat());
    odd.push([&[90, 0, 1, 119, 0, 0, 0, 0, 2][..], &[0, 0, 0, 1]].concat());
    odd.push([&[90, 0, 3, 119, 0, 0, 0, 0, 2][..], &[0; 12]].concat());
    odd.push([&[103, 119, 0][..], &[0, 0, 0, 1, 0, 0, 0, 0, 2]].concat());
    odd.push([&[114, 0, 2, 119, 0, 2][..], &[0; 8]].concat());
    let count = odd.len() as u64;
    for raw in odd {
        versus.peer.cast("e1", "b", &term::payload(&raw));
        versus.peer.send("e1", vec![RawMessage::send("b", &term::payload(&term::tuple(&[raw, term::small(1)])))]);
    }
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    let refused = versus.side.count("identifiers") + versus.side.count("bad_term");
    assert_eq!(refused, 2 * count, "{:?}", versus.side.fault);
    versus.assert_alive();
}

#[test]
fn engines_that_are_not_there_are_nobody_and_those_that_are_one_process_are_no_two_keys() {
    let mut versus = versus();
    let engine = |name| wire(Wire::Engine(name));
    versus.peer.cast("e1", "b", &list(["b", "secret", "another"].into_iter().map(engine)));
    // One process under two names, as the keys of a map inside a key of a map.
    let map = [&[116, 0, 0, 0, 2][..], &engine("b"), &[106], &engine("same"), &[106]].concat();
    let outer = [&[116, 0, 0, 0, 1][..], &map, &map].concat();
    versus.peer.cast("e1", "b", &term::payload(&outer));
    let twice = [&[116, 0, 0, 0, 2][..], &map, &[106], &engine("b"), &[106]].concat();
    versus.peer.cast("e1", "b", &term::payload(&term::tuple(&[twice])));
    versus.settle();
    let mut beam =
        Beam { engines: vec![("b", term::pid("n@bob", 3)), ("same", term::pid("n@bob", 3))], ..Beam::default() };
    let payloads = versus.side.take_payloads();
    let session = versus.side.session();
    assert!(session.translate_in(&payloads[0], &mut beam).is_ok());
    assert_eq!(beam.last, 2, "two are nobody");
    for payload in &payloads[1..] {
        assert_eq!(session.translate_in(payload, &mut beam), Err(TranslateError::Undecodable));
    }
    versus.assert_alive();
}

#[test]
fn keys_that_become_equal_in_their_depths_are_found() {
    let mut versus = versus();
    let number = given(&mut versus, 1);
    let keys = [home(number), wire(Wire::Engine("b"))];
    let in_tuple = |key: &Vec<u8>| term::tuple(&[term::small(1), term::list(std::slice::from_ref(key), &[106])]);
    let [one, two] = [in_tuple(&keys[0]), in_tuple(&keys[1])];
    let map = [&[116, 0, 0, 0, 2][..], &one, &[106], &two, &[106]].concat();
    versus.peer.send("e1", vec![RawMessage::call("b", 1, 1, &term::payload(&map))]);
    versus.settle();
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    let mut beam = Beam { engines: vec![("b", term::pid("n@bob", 1))], ..Beam::default() };
    assert_eq!(versus.side.session().translate_in(payload, &mut beam), Err(TranslateError::Undecodable));
    versus.assert_alive();
}

#[test]
fn addresses_in_odd_spellings_close_the_link() {
    let odd = [
        "@",
        "@0",
        "@00",
        "@01",
        "@A",
        "@1F",
        "@g",
        "@-1",
        "@+1",
        "@ 1",
        "@1 ",
        "@0x1",
        "@10000000000000000",
        "@00000000000000001",
        "b@1",
        "@1@",
        "@\u{0661}",
        "a\nb",
        "\u{7f}",
    ];
    for address in odd {
        let mut versus = versus();
        given(&mut versus, 1);
        versus.peer.send("e1", vec![RawMessage::send(address, &[131, 106])]);
        versus.settle();
        assert!(versus.side.take_payloads().is_empty(), "{address}");
        assert_eq!(versus.side.fault_code(), Some(CloseCode::Protocol), "{address:?}");
    }
    let mut versus = versus();
    let mut message = RawMessage::send("b", &[131, 106]);
    message.destination = vec![b'@', 0xff];
    versus.peer.send("e1", vec![message]);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn messages_of_all_kinds_to_processes_that_were_never_given_go_nowhere() {
    let mut versus = versus();
    let number = given(&mut versus, 1);
    let mut dropped = 0;
    for other in (number + 1..number + 200).chain([u64::MAX]) {
        let to = Address::of_handle(other);
        let exit = RawMessage { kind: kind::EXIT, caller: 3, detail: 2, ..RawMessage::send(&to, &[131, 106]) };
        let pid = term::payload(&theirs(other));
        versus.peer.send(
            "e1",
            vec![
                RawMessage::send(&to, &pid),
                RawMessage::cast(&to, &pid),
                RawMessage::call(&to, other, 3, &pid),
                exit.clone(),
                RawMessage { detail: 1, ..exit },
            ],
        );
        dropped += 5;
    }
    versus.settle();
    assert_eq!((versus.side.count("unknown_handle"), versus.side.take_events()), (dropped, vec![]));
    assert!(versus.peer.refusals().iter().all(|(_, reason)| *reason == Refusal::Noproc as u8));
    assert_eq!(versus.peer.refusals().len(), 200);
    assert_eq!((versus.side.count("calls_served"), versus.side.count("handles_imported")), (0, 0));
    versus.assert_alive();
}

#[test]
fn a_hundred_thousand_pids_in_one_payload_or_over_many_are_bounded() {
    let mut versus = versus();
    let most = limits().handles_max as u64;
    versus.peer.cast("e1", "b", &list((1..=100_000).map(theirs)));
    versus.settle();
    let (mut beam, session) = (Beam::default(), versus.side.session());
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    assert_eq!(session.translate_in(payload, &mut beam), Err(TranslateError::Full));
    assert_eq!((beam.last, versus.side.count("handles_imported")), (0, 0), "nobody was asked for a stand-in");
    assert!(session.discard_in(payload));
    versus.side.woken(true);
    versus.settle();
    let mut full = 0;
    for some in (1..=100_000u64).collect::<Vec<_>>().chunks(10_000) {
        versus.peer.cast("e1", "b", &list(some.iter().copied().map(theirs)));
        versus.settle();
        for payload in versus.side.take_payloads() {
            if session.translate_in(&payload, &mut beam) == Err(TranslateError::Full) {
                full += 1;
                session.discard_in(&payload);
            }
        }
    }
    assert_eq!((full, versus.side.count("handles_imported")), (4, 60_000));
    assert!(versus.side.count("handles_imported") <= most);
    assert_eq!(versus.side.count("handles_over_limit"), 5);
    versus.assert_alive();
    // Honest ones, when others have gone.
    assert!(matches!(session.drop_import(1), DropOutcome::Dropped { .. }));
    versus.peer.cast("e1", "b", &term::payload(&theirs(200_000)));
    versus.settle();
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    assert!(session.translate_in(payload, &mut beam).is_ok());
}

#[test]
fn a_hundred_thousand_references_push_each_other_out() {
    let mut versus = versus();
    versus.peer.cast("e1", "b", &list((1..=100_000).map(their_reference)));
    versus.settle();
    let (mut beam, session) = (Beam::default(), versus.side.session());
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    assert!(session.translate_in(payload, &mut beam).is_ok());
    assert_eq!(versus.side.count("references_imported"), 65_536);
    assert_eq!(versus.side.count("references_evicted"), 100_000 - 65_536);
    versus.assert_alive();
}

#[test]
fn pids_that_come_with_what_is_dropped_leave_nothing() {
    let mut versus = versus();
    let pids = list((1..=1_000).map(theirs));
    let element = &pids[1..];
    let disguised = term::payload(&term::tuple(&[term::atom("EXIT"), element.to_vec()]));
    let unknown = RawMessage { kind: kind::EXIT, caller: 3, detail: 9, ..RawMessage::send("b", &pids) };
    let forbidden = RawMessage { detail: 77, ..RawMessage::call("b", 1, 3, &pids) };
    versus.peer.send("e1", vec![RawMessage::send("b", &disguised), unknown, forbidden, RawMessage::reply(9, &pids)]);
    versus.settle();
    assert_eq!(versus.side.take_events(), []);
    let counts = ["disguised", "unknown_kind", "late_reply", "handles_imported", "calls_served"];
    assert_eq!(counts.map(|name| versus.side.count(name)), [1, 1, 1, 0, 0]);
    assert_eq!(versus.peer.refusals(), [(1, Refusal::Forbidden as u8)]);
    versus.assert_alive();
}

#[test]
fn exits_from_handles_that_nobody_has_heard_of_are_counted_and_settled() {
    let mut versus = versus();
    let exit = |from, reason: &[u8]| RawMessage {
        kind: kind::EXIT,
        caller: from,
        detail: 2,
        ..RawMessage::send("b", &term::payload(reason))
    };
    let kill = term::atom("kill");
    versus.peer.send("e1", vec![exit(u64::MAX, &kill), exit(1, &term::tuple(&[kill.clone(), theirs(u64::MAX)]))]);
    versus.settle();
    let session = versus.side.session();
    for event in versus.side.take_events() {
        let Seen::Exit { from, payload, .. } = event else { panic!("{event:?}") };
        session.settle_handle(from);
        session.discard_in(&payload);
    }
    assert_eq!(versus.side.count("handles_imported"), 0);
    versus.assert_alive();
    // Nobody's is malformed.
    versus.peer.send("e1", vec![exit(0, &kill)]);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn reasons_are_bounded_in_depth_and_bytes_and_are_told_for_their_own_ends_alone() {
    let mut versus = versus();
    let down = |engine: &str, number, payload: &[u8], versus: &mut Versus| {
        versus
            .peer
            .send(engine, vec![RawMessage { kind: kind::DOWN, caller: number, ..RawMessage::send("", payload) }]);
    };
    let deep = (0..300).fold(term::small(1), |inner, _| term::tuple(&[inner]));
    down("e1", 1, &term::payload(&deep), &mut versus);
    for number in 2..6 {
        down("e1", number, &term::of_size(3 * MIB), &mut versus);
    }
    // `e1` says why `e1` has ended, whatever it says, and not why `e2` has.
    down("e1", 0, &term::text("mine"), &mut versus);
    versus.settle();
    assert_eq!((versus.side.count("bad_term"), versus.side.count("reasons_over_limit")), (1, 3));
    let forget = versus.peer.forget("e2");
    versus.peer.write_forget(&forget);
    versus.settle();
    let ended = Seen::Forgotten { engine: "e2".into(), reason: ForgetReason::Withdrawn };
    assert_eq!(versus.side.take_events(), [ended]);
    // Numbers are of the peer's own: a process of bob's with the same number is none of its business.
    let number = given(&mut versus, 1);
    down("e1", number, &term::payload(&theirs(5)), &mut versus);
    versus.settle();
    assert_eq!((versus.side.count("handles_exported"), versus.side.take_events()), (1, vec![]));
    versus.assert_alive();
}

#[test]
fn reasons_that_replace_each_other_without_end_keep_one_and_give_back_the_others() {
    let mut versus = versus();
    for _ in 0..20 {
        let downs = (0..500).map(|number| RawMessage {
            kind: kind::DOWN,
            caller: 1,
            ..RawMessage::send("", &term::payload(&theirs(1_000 + number)))
        });
        versus.peer.send("e1", downs.collect());
    }
    versus.settle();
    assert_eq!(versus.side.count("reasons_over_limit"), 0);
    assert_eq!((versus.side.count("handles_imported"), versus.side.count("releases_over_limit")), (0, 0));
    versus.assert_alive();
}

#[test]
fn messages_that_answer_with_a_reference_of_somebody_elses_are_disguises() {
    let mut versus = versus();
    versus.side.cast("b", "e1", &term::payload(&term::reference("n@bob", 1))).unwrap();
    versus.settle();
    let known = home_reference(1);
    let alias = |tail: &[u8]| term::list(&[term::atom("alias")], tail);
    let good = [known.clone(), alias(&known), term::list(&[alias(&known)], &known)];
    let bad = [
        home_reference(2),
        their_reference(1),
        alias(&home_reference(2)),
        alias(&their_reference(1)),
        term::list(&[alias(&known)], &home_reference(2)),
        term::list(&[alias(&home_reference(2))], &known),
        term::list(&[term::list(&[alias(&known)], &known)], &known),
        term::list(&[term::atom("alias"), known.clone()], &known),
        alias(&[106]),
    ];
    let pair = |tag: &Vec<u8>| term::payload(&term::tuple(&[tag.clone(), term::small(1)]));
    for tag in &bad {
        versus.peer.send("e1", vec![RawMessage::send("b", &pair(tag))]);
    }
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    assert_eq!(versus.side.count("disguised"), bad.len() as u64);
    // As label 6, with its refusal; a cast (5) wraps it, and nothing else may.
    let calls = bad.iter().enumerate();
    let calls = calls
        .map(|(at, tag)| RawMessage { detail: label::SEND, ..RawMessage::call("b", 1 + at as u64, 1, &pair(tag)) });
    versus.peer.send("e1", calls.collect());
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    assert_eq!(versus.peer.refusals().len(), bad.len());
    assert!(versus.peer.refusals().iter().all(|(_, reason)| *reason == Refusal::Forbidden as u8));
    for tag in &good {
        versus.peer.send("e1", vec![RawMessage::send("b", &pair(tag))]);
    }
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), good.len());
    // A reference that the peer has given back is not one that it may answer with.
    versus.peer.write_frame(FrameType::HandleRelease, &release(&[(4, 1, copies(1))]));
    versus.peer.send("e1", vec![RawMessage::send("b", &pair(&known))]);
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    versus.assert_alive();
}

#[test]
fn disguises_with_pids_in_them_get_no_further_by_label_6_or_to_a_process() {
    let mut versus = versus();
    let to = Address::of_handle(given(&mut versus, 1));
    let all = term::disguises();
    for (at, (name, payload)) in all.iter().enumerate() {
        let asked = RawMessage { detail: label::SEND, ..RawMessage::call(&to, 1 + at as u64, 1, payload) };
        versus.peer.send("e1", vec![RawMessage::send(&to, payload), asked]);
        versus.settle();
        assert!(versus.side.take_payloads().is_empty(), "{name}");
    }
    assert_eq!(versus.side.count("disguised"), 2 * all.len() as u64);
    assert_eq!(versus.peer.refusals().len(), all.len());
    versus.assert_alive();
}

#[test]
fn strays_are_bounded_in_each_payload_however_they_are_spelled() {
    let mut versus = versus();
    let names: Vec<String> = (0..STRAYS_MAX / 2).map(|number| format!("x{number}")).collect();
    let engines = names.iter().map(|name| wire(Wire::Engine(name)));
    let strays = (0..STRAYS_MAX as u64 / 4).flat_map(|number| [home(100 + number), home_reference(100 + number)]);
    let most: Vec<Vec<u8>> = engines.chain(strays).collect();
    versus.peer.cast("e1", "b", &list(most.iter().cloned()));
    versus.peer.cast("e1", "b", &list(most.into_iter().chain([home(99)])));
    versus.settle();
    let (mut beam, session) = (Beam::default(), versus.side.session());
    let payloads = versus.side.take_payloads();
    assert!(session.translate_in(&payloads[0], &mut beam).is_ok());
    assert_eq!(session.translate_in(&payloads[1], &mut beam), Err(TranslateError::Undecodable));
    assert_eq!(beam.last as usize, STRAYS_MAX);
    versus.assert_alive();
}

#[test]
fn a_hello_that_gives_next_to_no_room_stalls_its_own_session_alone() {
    let smallest = Limits { credit_bytes: 1, message_bytes_max: 0, engines_max: 0, ..Limits::default() };
    let config = RawPeerConfig { limits: smallest, ..RawPeerConfig::dialling(Profile::Local) };
    let mut versus = Versus::up_with(config, limits());
    assert_eq!(versus.side.cast("b", "e1", &[131, 106]), Err(PushError::TooLarge));
    versus.peer.send("e1", vec![RawMessage::call("b", 1, 1, &[131, 106]), RawMessage::call("b", 2, 1, &[131, 106])]);
    versus.settle();
    let calls: Vec<u64> = versus
        .side
        .take_events()
        .into_iter()
        .filter_map(|event| if let Seen::Call { call_id, .. } = event { Some(call_id) } else { None })
        .collect();
    for call_id in calls {
        versus.side.reply(call_id, &term::text("too large for it")).unwrap();
    }
    versus.settle();
    assert_eq!(versus.peer.refusals(), [(1, Refusal::TooLarge as u8), (2, Refusal::TooLarge as u8)]);
    versus.assert_alive();
}

#[test]
fn copies_that_are_dropped_while_they_wait_to_go_out_hurt_only_who_says_so() {
    let config = RawPeerConfig {
        limits: Limits { credit_bytes: 1, identifiers: true, ..Limits::default() },
        ..RawPeerConfig::dialling(Profile::Local)
    };
    let mut versus = Versus::up_with(config, limits());
    let pid = term::payload(&term::pid("n@bob", 1));
    versus.side.cast("b", "e1", &pid).unwrap();
    versus.side.cast("b", "e1", &pid).unwrap();
    versus.settle();
    // One has gone, the other waits for credit. It says that it has forgotten both.
    versus.peer.write_frame(FrameType::HandleRelease, &release(&[(3, 1, copies(2))]));
    versus.settle();
    assert_eq!(versus.side.count("handles_exported"), 0);
    versus.side.cast("b", "e1", &pid).unwrap();
    assert_eq!(versus.side.exported.last().unwrap().number, 2, "never the same number");
    versus.peer.write_frame(FrameType::Credit, &credit(&[("e1", 1_000)]));
    versus.settle();
    versus.peer.send("e1", vec![RawMessage::send("@1", &[131, 106]), RawMessage::send("@2", &[131, 106])]);
    versus.settle();
    assert_eq!((versus.side.take_payloads().len(), versus.side.count("unknown_handle")), (1, 1));
    versus.peer.write_frame(FrameType::HandleRelease, &release(&[(3, 2, copies(2))]));
    versus.settle();
    assert_eq!(versus.side.fault_code(), Some(CloseCode::Protocol));
}

#[test]
fn callers_and_calls_without_end_are_bounded_and_answered() {
    let mut versus = versus_with(Limits { calls_max: 100, callers_max: 50, ..limits() });
    for some in (1..=4_000u64).collect::<Vec<_>>().chunks(1_000) {
        let calls = some.iter().map(|number| RawMessage::call("b", *number, number % 60 + 1, &[131, 106]));
        versus.peer.send("e1", calls.collect());
    }
    versus.settle();
    assert_eq!((versus.side.count("calls_served"), versus.side.count("handles_imported")), (100, 50));
    let refusals = versus.peer.refusals();
    assert_eq!((refusals.len(), versus.side.count("overload_in")), (3_900, 3_900));
    assert!(refusals.iter().all(|(_, reason)| *reason == Refusal::Overload as u8));
    // Their callers end, and their calls with them.
    let entries: Vec<_> = (1..=60).map(|number| (1, number, vec![1])).collect();
    versus.peer.write_frame(FrameType::HandleRelease, &release(&entries));
    versus.settle();
    for number in 1..=60 {
        versus.side.session().drop_import(number);
    }
    versus.side.take_events();
    versus.peer.send("e1", vec![RawMessage::call("b", 1, 1, &[131, 106])]);
    versus.settle();
    assert_eq!((versus.side.take_payloads().len(), versus.side.count("handles_imported")), (1, 1));
    versus.assert_alive();
}

#[test]
fn releases_that_are_owed_to_a_peer_that_does_not_read_are_bounded() {
    let mut versus = versus();
    let mut wake = false;
    // The link is not flushed meanwhile.
    for round in 0..4u64 {
        versus.peer.cast("e1", "b", &list((1..=100_000).map(|number| theirs(round * 100_000 + number))));
        let bytes = versus.peer.take_out();
        versus.side.handle(versus.now, &bytes);
        for payload in versus.side.take_payloads() {
            wake |= versus.side.session().discard_in(&payload);
        }
    }
    assert_eq!(versus.side.count("releases_over_limit"), 400_000 - RELEASES_MAX as u64);
    versus.side.woken(wake);
    versus.settle();
    versus.assert_alive();
}

#[test]
fn identifiers_at_the_greatest_depth_and_in_great_numbers_are_translated_or_refused() {
    let mut versus = versus();
    let nest = |depth: usize| {
        (0..depth).fold(theirs(1), |inner, _| [&[116, 0, 0, 0, 1][..], &inner, &inner[..0], &[106]].concat())
    };
    versus.peer.cast("e1", "b", &term::payload(&nest(256)));
    versus.peer.cast("e1", "b", &term::payload(&nest(257)));
    // One pid half a million times.
    versus.peer.cast("e1", "b", &list((0..500_000).map(|_| theirs(1))));
    versus.settle();
    let payloads = versus.side.take_payloads();
    assert_eq!((payloads.len(), versus.side.count("bad_term")), (2, 1));
    let (mut beam, session) = (Beam::default(), versus.side.session());
    for payload in &payloads {
        session.translate_in(payload, &mut beam).unwrap();
    }
    assert_eq!((beam.last, versus.side.count("handles_imported")), (1, 1));
    // All copies are told of when it is dropped.
    assert!(matches!(session.drop_import(1), DropOutcome::Dropped { .. }));
    versus.side.woken(true);
    versus.settle();
    let told = versus.peer.frames.iter().filter(|frame| frame.kind == FrameType::HandleRelease as u8);
    let told: Vec<Vec<u8>> = told.map(|frame| frame.body.clone()).collect();
    assert_eq!(told, [release(&[(3, 1, copies(500_001))])]);
    versus.assert_alive();
}

#[test]
fn a_map_of_a_hundred_thousand_pids_as_keys_costs_no_more_than_it_should() {
    let mut versus = versus();
    let numbers = 1..=60_000u64;
    let pairs: Vec<u8> = numbers.clone().flat_map(|number| [theirs(number), vec![106]].concat()).collect();
    let map = [&[116][..], &60_000u32.to_be_bytes(), &pairs].concat();
    versus.peer.cast("e1", "b", &term::payload(&map));
    let twice = [&[116][..], &60_001u32.to_be_bytes(), &pairs, &theirs(30_000), &[106]].concat();
    versus.peer.cast("e1", "b", &term::payload(&twice));
    versus.settle();
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    assert_eq!(versus.side.count("bad_term"), 1);
    let begun = std::time::Instant::now();
    assert!(versus.side.session().translate_in(payload, &mut Beam::default()).is_ok());
    // Each with each would take minutes.
    assert!(begun.elapsed().as_secs() < 20);
    versus.assert_alive();
}

#[test]
fn announcements_without_end_are_bounded() {
    let mut versus = versus_with(Limits { engines_max: 50, ..limits() });
    for number in 0..300 {
        let learn = versus.peer.learn(&format!("x{number}"));
        versus.peer.write_learn(&learn);
    }
    versus.settle();
    let learned = versus.side.take_events().iter().filter(|event| matches!(event, Seen::Learned(_))).count();
    assert_eq!((learned, versus.side.count("engines_over_limit")), (48, 252));
    for _ in 0..3 {
        for number in 0..300 {
            let forget = versus.peer.forget(&format!("x{number}"));
            versus.peer.write_forget(&forget);
        }
    }
    versus.settle();
    assert_eq!(versus.side.count("unknown_forget"), 900 - 48);
    versus.assert_alive();
}

#[test]
fn a_call_that_comes_twice_over_two_links_is_served_once() {
    let mut first = versus();
    let begin = first.peer.next_sequence;
    let body = first.peer.send("e1", vec![RawMessage::call("b", 9, 5, &[131, 106])]);
    first.settle();
    let mut second = another(&first, id(&first), true, 1);
    resume(&mut second, id(&first), 0, begin);
    second.peer.write(&critical(FrameType::Batch, &body));
    // And under a number that is new.
    second.peer.send("e1", vec![RawMessage::call("b", 9, 5, &[131, 106])]);
    second.settle();
    assert_eq!((first.side.take_payloads().len(), second.side.take_payloads().len()), (1, 0));
    let counts = ["replayed", "duplicate_call", "calls_served"].map(|name| second.side.count(name));
    assert_eq!(counts, [1, 1, 1]);
    second.assert_alive();
}

#[test]
fn replayed_batches_on_one_link_close_it_at_the_tenth_and_the_session_has_them_once() {
    let mut versus = versus();
    let body = versus.peer.cast("e1", "b", &[131, 106]);
    for _ in 0..9 {
        versus.peer.write(&critical(FrameType::Batch, &body));
    }
    versus.settle();
    assert_eq!((versus.side.take_payloads().len(), versus.side.count("duplicate")), (1, 9));
    assert!(versus.side.is_up());
    versus.peer.write(&critical(FrameType::Batch, &body));
    versus.settle();
    versus.assert_closed(CloseCode::Abuse);
}
