//! Pids and references in payloads, between two sessions whose drivers are played here: what crosses, what it is on
//! the other side, how long it lives.

use std::collections::HashMap;

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::etf::{Owner, Wire};
use legation_proto::frame::batch::{kind, Address, Refusal};
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::FrameType;
use legation_proto::limits::{Limits, Overflow, REASONS_MAX, STRAYS_MAX};
use legation_proto::session::{Delivery, DropOutcome, ExitKind, Locals, NoRoom, PushError, TranslateError, Wanted};
use rust_tests::pair::{End, Pair, PairConfig, Seen};
use rust_tests::raw_batch::RawMessage;
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::term;

fn limits() -> Limits {
    Limits { identifiers: true, ..Limits::default() }
}

/// Stand-ins are the tests' own.
fn up_as(config: PairConfig) -> Pair {
    let mut pair = Pair::up(config);
    pair.alice.stand_ins = false;
    pair.bob.stand_ins = false;
    pair
}

fn up_with(limits: Limits) -> Pair {
    up_as(PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Plain) })
}

fn up() -> Pair {
    up_with(limits())
}

/// One Erlang system as far as its processes' names go.
struct Beam {
    node: &'static str,
    last: u32,
    engines: HashMap<String, Vec<u8>>,
    /// What has been asked for.
    nobodies: Vec<Vec<u8>>,
    fresh: Vec<Vec<u8>>,
}

impl Beam {
    fn new(node: &'static str) -> Beam {
        Beam { node, last: 1_000, engines: HashMap::new(), nobodies: Vec::new(), fresh: Vec::new() }
    }

    fn next(&mut self) -> Vec<u8> {
        self.last += 1;
        term::pid(self.node, self.last)
    }
}

impl Locals for Beam {
    fn pid(&mut self, _: u64) -> Option<Vec<u8>> {
        Some(self.next())
    }

    fn engine(&mut self, name: &str) -> Option<Vec<u8>> {
        self.engines.get(name).cloned()
    }

    fn reference(&mut self) -> Vec<u8> {
        self.last += 1;
        self.fresh.push(term::reference(self.node, self.last));
        term::reference(self.node, self.last)
    }

    fn nobody(&mut self) -> Vec<u8> {
        let pid = self.next();
        self.nobodies.push(pid.clone());
        pid
    }
}

fn alice() -> Beam {
    Beam::new("n@alice")
}

fn bob() -> Beam {
    Beam::new("n@bob")
}

/// What has come, as the receiver's processes would see it.
fn delivered(pair: &mut Pair, end: End, beam: &mut Beam) -> Vec<Vec<u8>> {
    pair.settle();
    let session = pair[end].session();
    let payloads = pair[end].take_payloads();
    payloads.iter().map(|payload| session.translate_in(payload, beam).unwrap()).collect()
}

fn casts(pair: &mut Pair, from: End, beam: &mut Beam, element: &[u8]) -> Vec<u8> {
    let engine = if from == End::Alice { "b" } else { "a" };
    pair[from].cast("", engine, &term::payload(element)).unwrap();
    let got = delivered(pair, from.other(), beam);
    assert_eq!(got.len(), 1);
    got[0][1..].to_vec()
}

fn wire(wire: Wire<'_>) -> Vec<u8> {
    let mut raw = Vec::new();
    wire.put(&mut raw);
    raw
}

fn sizes(pair: &Pair, end: End) -> [u64; 4] {
    ["handles_exported", "handles_imported", "references_exported", "references_imported"]
        .map(|name| pair[end].count(name))
}

const NOTHING: [[u64; 4]; 2] = [[0; 4]; 2];

fn both(pair: &Pair) -> [[u64; 4]; 2] {
    [sizes(pair, End::Alice), sizes(pair, End::Bob)]
}

#[test]
fn a_pid_at_any_depth_becomes_one_stand_in_and_comes_home_as_itself() {
    let (mut pair, mut alice, mut bob) = (up(), alice(), bob());
    let pid = term::pid("n@alice", 1);
    let deep = (0..200).fold(term::tuple(&[pid.clone(), term::small(1)]), |inner, _| term::list(&[inner], &[106]));
    let got = casts(&mut pair, End::Alice, &mut bob, &deep);
    let stand_in = term::pid("n@bob", 1_001);
    let expected =
        (0..200).fold(term::tuple(&[stand_in.clone(), term::small(1)]), |inner, _| term::list(&[inner], &[106]));
    assert_eq!(got, expected);
    // Again it is the same, and nobody else is asked to be watched.
    assert_eq!(casts(&mut pair, End::Alice, &mut bob, &pid), stand_in);
    assert_eq!(pair.alice.exported.len(), 1);
    assert_eq!(*pair.alice.exported[0].pid, *pid);
    // Home.
    let map = [&[116, 0, 0, 0, 1][..], &stand_in, &stand_in].concat();
    assert_eq!(casts(&mut pair, End::Bob, &mut alice, &map), [&[116, 0, 0, 0, 1][..], &pid, &pid].concat());
    assert_eq!(pair.bob.exported.len(), 0);
}

#[test]
fn a_proxys_pid_goes_home_as_the_engine_that_it_stands_for() {
    let (mut pair, mut bob) = (up(), bob());
    let (proxy, engine) = (term::pid("n@alice", 7), term::pid("n@bob", 3));
    bob.engines.insert("b".into(), engine.clone());
    pair.alice.session().bind_engine(&proxy, "b");
    assert_eq!(casts(&mut pair, End::Alice, &mut bob, &proxy), engine);
    assert_eq!(both(&pair), NOTHING);
    // One that isn't there (for this peer) is nobody.
    bob.engines.clear();
    let got = casts(&mut pair, End::Alice, &mut bob, &proxy);
    assert_eq!(got, bob.nobodies[0]);
    pair.alice.session().unbind(&proxy);
    casts(&mut pair, End::Alice, &mut bob, &proxy);
    assert_eq!(sizes(&pair, End::Alice)[0], 1, "a process like any other");
}

#[test]
fn a_process_is_sent_to_cast_to_and_called_by_its_handle() {
    let (mut pair, mut bob) = (up(), bob());
    let pid = term::pid("n@alice", 1);
    casts(&mut pair, End::Alice, &mut bob, &pid);
    let number = pair.alice.exported[0].number;
    let address = Address::of_handle(number);
    let now = pair.now;
    pair.bob.send("b", &address, &term::text("one")).unwrap();
    pair.bob.cast("b", &address, &term::text("two")).unwrap();
    pair.bob.call(now, &address, b"\x58w\x00caller456789", b"context", &term::text("three")).unwrap();
    pair.settle();
    let events = pair.alice.take_events();
    assert!(
        matches!(&events[0], Seen::Deliver { delivery: Delivery::Send, destination, .. } if *destination == address)
    );
    assert!(
        matches!(&events[1], Seen::Deliver { delivery: Delivery::Cast, destination, .. } if *destination == address)
    );
    let Seen::Call { call_id, destination, .. } = &events[2] else { panic!("{events:?}") };
    assert_eq!(*destination, address);
    assert_eq!(pair.alice.session().export_pid(number).as_deref(), Some(&pid[..]));
    pair.alice.reply(*call_id, &term::text("done")).unwrap();
    pair.settle();
    let reply = Seen::Reply { context: b"context".to_vec(), payload: term::text("done") };
    // Nobody has bound a stand-in for the caller: it goes with its call.
    let unexported = Seen::Unexported { number: pair.bob.exported[0].number };
    assert_eq!(pair.bob.take_events(), [reply, unexported]);
    assert_eq!(pair.bob.send("b", "@ffff", &term::text("x")), Err(PushError::UnknownHandle));
    assert_eq!(pair.bob.count("unknown_handle"), 1);
}

#[test]
fn a_caller_and_the_same_pid_in_a_payload_are_one_handle() {
    let (mut pair, mut bob) = (up(), bob());
    let (pid, now) = (term::pid("n@alice", 1), pair.now);
    pair.alice.call(now, "b", &pid, b"c", &term::payload(&pid)).unwrap();
    pair.settle();
    let events = pair.bob.take_events();
    let [Seen::Call { call_id, caller, payload, .. }] = &events[..] else { panic!("{events:?}") };
    let session = pair.bob.session();
    let stand_in = bob.next();
    session.bind_import(*caller, &stand_in).unwrap();
    assert_eq!(session.translate_in(payload, &mut bob).unwrap(), term::payload(&stand_in));
    assert_eq!((pair.alice.exported.len(), pair.alice.exported[0].number), (1, *caller));
    assert_eq!(session.drop_import(*caller), DropOutcome::InUse, "its call is being served");
    pair.bob.reply(*call_id, &term::payload(&stand_in)).unwrap();
    pair.settle();
    let mut alice = alice();
    let [Seen::Reply { payload, .. }] = &pair.alice.take_events()[..] else { panic!("the reply") };
    assert_eq!(pair.alice.session().translate_in(payload, &mut alice).unwrap(), term::payload(&pid));
    let outcome = session.drop_import(*caller);
    assert_eq!(outcome, DropOutcome::Dropped { wake: true });
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(pair.alice.take_events(), [Seen::Unexported { number: *caller }]);
    assert_eq!(both(&pair), NOTHING);
}

#[test]
fn the_end_of_a_process_is_told_with_its_class_and_ends_calls_to_it() {
    for reason in ForgetReason::ALL {
        let (mut pair, mut bob) = (up(), bob());
        casts(&mut pair, End::Alice, &mut bob, &term::pid("n@alice", 1));
        let (number, now) = (pair.alice.exported[0].number, pair.now);
        let address = Address::of_handle(number);
        pair.bob.call(now, &address, &term::pid("n@bob", 9), b"c", &term::text("x")).unwrap();
        pair.settle();
        let [Seen::Call { call_id, .. }] = pair.alice.take_events()[..] else { panic!("the call") };
        let pushed = pair.alice.session().export_ended(number, reason, None);
        pair.alice.pushed(pushed);
        pair.settle();
        let unexported = Seen::Unexported { number: pair.bob.exported[0].number };
        assert_eq!(pair.bob.take_events(), [Seen::HandleEnded { number, reason }, unexported]);
        assert_eq!((pair.bob.count("calls_pending"), pair.alice.count("calls_served")), (0, 0));
        assert_eq!(pair.alice.reply(call_id, &term::text("late")), Err(PushError::UnknownCall));
        assert_eq!(pair.bob.send("b", &address, &term::text("x")), Err(PushError::UnknownHandle));
        let DropOutcome::Dropped { wake } = pair.bob.session().drop_import(number) else { panic!("its stand-in") };
        pair.bob.woken(wake);
        pair.settle();
        assert_eq!(pair.alice.take_events(), [], "what has ended is not watched any more");
        assert_eq!(sizes(&pair, End::Alice), [0; 4]);
    }
}

#[test]
fn a_dropped_stand_in_is_made_anew_with_another_number() {
    let (mut pair, mut bob) = (up(), bob());
    let pid = term::pid("n@alice", 1);
    let first = casts(&mut pair, End::Alice, &mut bob, &pid);
    let number = pair.alice.exported[0].number;
    let DropOutcome::Dropped { wake } = pair.bob.session().drop_import(number) else { panic!("it is idle") };
    pair.bob.woken(wake);
    pair.settle();
    assert_eq!(pair.alice.take_events(), [Seen::Unexported { number }]);
    assert_eq!(both(&pair), NOTHING);
    assert_ne!(casts(&mut pair, End::Alice, &mut bob, &pid), first);
    assert_ne!(pair.alice.exported[1].number, number);
}

#[test]
fn a_copy_on_its_way_keeps_a_handle_that_is_dropped_meanwhile() {
    let (mut pair, mut bob) = (up(), bob());
    let pid = term::pid("n@alice", 1);
    casts(&mut pair, End::Alice, &mut bob, &pid);
    let number = pair.alice.exported[0].number;
    pair.alice.cast("", "b", &term::payload(&pid)).unwrap();
    let DropOutcome::Dropped { wake } = pair.bob.session().drop_import(number) else { panic!("it is idle") };
    pair.bob.woken(wake);
    let got = delivered(&mut pair, End::Bob, &mut bob);
    assert_eq!(pair.alice.take_events(), []);
    let pushed = pair.bob.session().push(Delivery::Send, "", &Address::of_handle(number), &got[0], false).unwrap();
    pair.bob.pushed(pushed);
    let home = delivered(&mut pair, End::Alice, &mut alice());
    assert_eq!(home, [term::payload(&pid)]);
}

#[test]
fn an_answer_with_a_reference_that_was_given_is_delivered_and_any_other_is_a_disguise() {
    let (mut pair, mut bob) = (up(), bob());
    let (pid, reference) = (term::pid("n@alice", 1), term::reference("n@alice", 5));
    let got = casts(&mut pair, End::Alice, &mut bob, &term::tuple(&[pid.clone(), reference.clone()]));
    let stand_in = &bob.fresh[0];
    assert!(got.ends_with(stand_in));
    let address = Address::of_handle(pair.alice.exported[0].number);
    let alias = term::list(&[term::atom("alias")], stand_in);
    let nested = term::list(std::slice::from_ref(&alias), stand_in);
    for tag in [stand_in.clone(), alias, nested] {
        pair.bob.send("b", &address, &term::payload(&term::tuple(&[tag, term::small(1)]))).unwrap();
    }
    let home = delivered(&mut pair, End::Alice, &mut alice());
    let alias = term::list(&[term::atom("alias")], &reference);
    assert_eq!(home[0], term::payload(&term::tuple(&[reference.clone(), term::small(1)])));
    assert_eq!(home[1], term::payload(&term::tuple(&[alias, term::small(1)])));
    assert_eq!(home.len(), 3);

    let own = term::reference("n@bob", 5);
    pair.bob.send("b", &address, &term::payload(&term::tuple(&[own.clone(), stand_in.clone()]))).unwrap();
    assert_eq!(delivered(&mut pair, End::Alice, &mut alice()).len(), 0);
    assert_eq!(pair.alice.count("disguised"), 1);
    assert_eq!(sizes(&pair, End::Bob)[2], 0, "and its copy is given back");
}

#[test]
fn exit_signals_go_to_engines_and_processes_with_whom_they_are_from() {
    let (mut pair, mut bob) = (up(), bob());
    let (pid, from) = (term::pid("n@bob", 1), term::pid("n@alice", 2));
    casts(&mut pair, End::Bob, &mut alice(), &pid);
    let address = Address::of_handle(pair.bob.exported[0].number);
    let session = pair.alice.session();
    let reason = term::payload(&term::tuple(&[term::atom("why"), from.clone()]));
    for (destination, exit) in [("b", ExitKind::Linked), (address.as_str(), ExitKind::Sent)] {
        let pushed = session.push_exit("a", destination, &from, exit, &reason).unwrap();
        pair.alice.pushed(pushed);
    }
    pair.settle();
    assert_eq!(pair.alice.exported.len(), 1);
    let number = pair.alice.exported[0].number;
    let events = pair.bob.take_events();
    let [Seen::Exit { exit: ExitKind::Linked, from, destination, source, payload }, Seen::Exit { exit: ExitKind::Sent, destination: to, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*from, destination.as_str(), source.as_str(), to), (number, "b", "a", &address));
    // The first is used, the other is not.
    let session = pair.bob.session();
    let stand_in = bob.next();
    session.bind_import(number, &stand_in).unwrap();
    session.settle_handle(number);
    let translated = session.translate_in(payload, &mut bob).unwrap();
    assert_eq!(translated, term::payload(&term::tuple(&[term::atom("why"), stand_in])));
    session.settle_handle(number);
    session.discard_in(payload);
    let DropOutcome::Dropped { .. } = session.drop_import(number) else { panic!("it is idle") };
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(sizes(&pair, End::Alice)[0], 0);
    assert_eq!(session.push_exit("b", "@77", &pid, ExitKind::Sent, &reason), Err(PushError::UnknownHandle));
}

#[test]
fn reasons_as_terms_come_with_the_end_that_they_belong_to() {
    let (mut pair, mut bob) = (up(), bob());
    casts(&mut pair, End::Alice, &mut bob, &term::tuple(&[term::pid("n@alice", 1), term::pid("n@alice", 2)]));
    let numbers: Vec<u64> = pair.alice.exported.iter().map(|exported| exported.number).collect();
    let why = |word| term::payload(&term::tuple(&[term::atom(word), term::pid("n@alice", 3)]));
    let session = pair.alice.session();
    for (number, word) in numbers.iter().zip(["first", "second"]) {
        let pushed = session.export_ended(*number, ForgetReason::Crashed, Some(&why(word)));
        pair.alice.pushed(pushed);
    }
    let pushed = session.push_reason("a", &why("engine")).unwrap();
    pair.alice.pushed(pushed);
    pair.alice.withdraw("a", ForgetReason::Killed);
    pair.settle();
    assert_eq!(pair.alice.exported.len(), 3);
    let mut explained = HashMap::new();
    for event in pair.bob.take_events() {
        let Seen::Explained { whose, reason, term } = event else { panic!("{event:?}") };
        let term = pair.bob.session().translate_in(&term, &mut bob).unwrap();
        explained.insert(whose, (reason, term));
    }
    let stand_in = term::pid("n@bob", bob.last);
    let why = |word| term::payload(&term::tuple(&[term::atom(word), stand_in.clone()]));
    assert_eq!(explained[&Address::of_handle(numbers[0])], (ForgetReason::Crashed, why("first")));
    assert_eq!(explained[&Address::of_handle(numbers[1])], (ForgetReason::Crashed, why("second")));
    assert_eq!(explained["a"], (ForgetReason::Killed, why("engine")));
    // What can't go as a term is told by its class, and so is what is unknown: not at all.
    let large = term::of_size(40_000);
    let last = pair.alice.exported[2].number;
    let pushed = session.export_ended(last, ForgetReason::Normal, Some(&large));
    pair.alice.pushed(pushed);
    let pushed = session.export_ended(999, ForgetReason::Normal, Some(&term::text("x")));
    pair.alice.pushed(pushed);
    pair.settle();
    assert_eq!(pair.bob.take_events(), [Seen::HandleEnded { number: last, reason: ForgetReason::Normal }]);
}

#[test]
fn what_is_not_delivered_leaves_nothing_behind() {
    let mut pair = up();
    let now = pair.now;
    let element = term::list(&[term::pid("n@alice", 1), term::pid("n@alice", 2), term::pid("n@alice", 1)], &[106]);
    let element = term::tuple(&[element, term::reference("n@alice", 3)]);
    pair.alice.cast("", "b", &term::payload(&element)).unwrap();
    pair.alice.call(now, "b", &term::pid("n@alice", 4), b"c", &term::payload(&element)).unwrap();
    pair.settle();
    let session = pair.bob.session();
    for event in pair.bob.take_events() {
        match event {
            Seen::Deliver { payload, .. } => assert!(session.discard_in(&payload)),
            Seen::Call { payload, call_id, .. } => {
                session.discard_in(&payload);
                session.refuse(call_id, Refusal::Forbidden);
            }
            other => panic!("{other:?}"),
        }
    }
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(both(&pair), NOTHING);
    let unexported = pair.alice.take_events().iter().filter(|event| matches!(event, Seen::Unexported { .. })).count();
    assert_eq!((unexported, pair.alice.exported.len()), (3, 3));
}

#[test]
fn replies_that_nobody_waits_for_and_messages_to_nobody_give_their_handles_back() {
    let (mut pair, mut bob) = (up(), bob());
    let now = pair.now;
    let call = pair.alice.call(now, "b", &term::pid("n@alice", 1), b"c", &term::text("x")).unwrap();
    pair.settle();
    pair.bob.reply(call.call_id, &term::payload(&term::pid("n@bob", 1))).unwrap();
    let wake = pair.alice.session().cancel(call.call_id);
    pair.alice.woken(wake);
    pair.settle();
    pair.bob.events.clear();
    assert_eq!(pair.alice.count("late_reply"), 1);
    // To a process that ends before it comes.
    casts(&mut pair, End::Alice, &mut bob, &term::pid("n@alice", 2));
    let number = pair.alice.exported[1].number;
    pair.bob.send("b", &Address::of_handle(number), &term::payload(&term::pid("n@bob", 2))).unwrap();
    pair.bob.call(now, &Address::of_handle(number), &term::pid("n@bob", 3), b"c", &term::text("x")).unwrap();
    let pushed = pair.alice.session().export_ended(number, ForgetReason::Normal, None);
    pair.alice.pushed(pushed);
    pair.settle();
    assert_eq!(pair.alice.count("unknown_handle"), 2);
    pair.bob.session().drop_import(number);
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(both(&pair), NOTHING);
    assert_eq!(pair.bob.count("calls_pending"), 0);
}

#[test]
fn pids_are_bounded_at_the_limit_and_one_past_it_on_both_sides() {
    let mut pair = up_as(PairConfig {
        limits: [Limits { handles_max: 3, ..limits() }, Limits { handles_max: 2, ..limits() }],
        ..PairConfig::of(Profile::Plain)
    });
    let (mut bob, now) = (bob(), pair.now);
    let pids = |numbers: &[u32]| {
        let pids: Vec<_> = numbers.iter().map(|number| term::pid("n@alice", *number)).collect();
        term::payload(&term::list(&pids, &[106]))
    };
    pair.alice.cast("", "b", &pids(&[1, 2])).unwrap();
    assert_eq!(delivered(&mut pair, End::Bob, &mut bob).len(), 1);
    assert_eq!(pair.alice.cast("", "b", &pids(&[2, 3, 4])), Err(PushError::Overload));
    assert_eq!((sizes(&pair, End::Alice)[0], pair.alice.count("handles_over_limit")), (2, 1), "all or nothing");
    assert_eq!(pair.alice.exported.len(), 2);
    pair.alice.cast("", "b", &pids(&[2, 3])).unwrap();
    let fourth = pair.alice.call(now, "b", &term::pid("n@alice", 4), b"c", &term::text("x"));
    assert_eq!(fourth.unwrap_err(), PushError::Overload);
    pair.settle();
    // The receiver has room for two: one has to go before the third is taken.
    let [payload] = &pair.bob.take_payloads()[..] else { panic!("one") };
    let session = pair.bob.session();
    assert_eq!(session.translate_in(payload, &mut bob), Err(TranslateError::Full));
    assert_eq!((pair.bob.count("handles_over_limit"), bob.last), (1, 1_002), "nobody was asked for a stand-in");
    assert_eq!(session.bind_import(77, b"x"), Err(NoRoom));
    assert!(matches!(session.drop_import(pair.alice.exported[0].number), DropOutcome::Dropped { .. }));
    assert!(session.translate_in(payload, &mut bob).is_ok());
    pair.bob.woken(true);
    pair.settle();
    assert_eq!((sizes(&pair, End::Alice)[0], sizes(&pair, End::Bob)[1]), (2, 2));
}

#[test]
fn the_oldest_reference_gives_way_and_comes_home_as_one_that_matches_nothing() {
    let (mut pair, mut alice, mut bob) = (up_with(Limits { references_max: 2, ..limits() }), alice(), bob());
    for number in 1..=3 {
        casts(&mut pair, End::Alice, &mut bob, &term::reference("n@alice", number));
    }
    assert_eq!((sizes(&pair, End::Alice)[2], sizes(&pair, End::Bob)[3]), (2, 2));
    assert_eq!((pair.alice.count("references_evicted"), pair.bob.count("references_evicted")), (1, 1));
    let kept = term::list(&bob.fresh[1..], &[106]);
    let home = casts(&mut pair, End::Bob, &mut alice, &kept);
    assert_eq!(home, term::list(&[term::reference("n@alice", 2), term::reference("n@alice", 3)], &[106]));
    // Alice has forgotten the first, and bob that it was hers.
    let other = bob.fresh[0].clone();
    casts(&mut pair, End::Bob, &mut alice, &other);
    assert_eq!(alice.fresh.len(), 1);
}

#[test]
fn what_comes_home_unknown_is_a_different_nobody_each_time_it_is_another() {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Plain), limits());
    let home = |number| wire(Wire::Pid { number, owner: Owner::Receiver });
    let reference = |number| wire(Wire::Reference { number, owner: Owner::Receiver });
    let map = [&[116, 0, 0, 0, 2][..], &home(7), &home(7), &home(8), &reference(9)].concat();
    versus.peer.cast("e1", "b", &term::payload(&map));
    versus.settle();
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    let (mut beam, session) = (bob(), versus.side.session());
    let wanted = Wanted { nobodies: 2, references: 1, ..Wanted::default() };
    assert_eq!(session.wanted_in(payload), wanted);
    let got = session.translate_in(payload, &mut beam).unwrap();
    let [first, second] = &beam.nobodies[..] else { panic!("two") };
    let expected = [&[116, 0, 0, 0, 2][..], first, first, second, &beam.fresh[0]].concat();
    assert_eq!(got, term::payload(&expected));
}

#[test]
fn a_map_that_would_have_a_key_twice_here_is_undecodable_and_leaves_nothing() {
    let (mut versus, mut beam) = (Versus::up_with(RawPeerConfig::dialling(Profile::Plain), limits()), bob());
    let engine = term::pid("n@bob", 1);
    beam.engines.insert("b".into(), engine.clone());
    versus.side.cast("b", "e1", &term::payload(&engine)).unwrap();
    versus.settle();
    let number = versus.side.exported[0].number;
    let home = wire(Wire::Pid { number, owner: Owner::Receiver });
    let theirs = wire(Wire::Pid { number: 5, owner: Owner::Sender });
    let map = [&[116, 0, 0, 0, 2][..], &home, &theirs, &wire(Wire::Engine("b")), &[106]].concat();
    versus.peer.cast("e1", "b", &term::payload(&map));
    versus.settle();
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    let session = versus.side.session();
    assert_eq!(session.wanted_in(payload), Wanted { pids: vec![5], engines: vec!["b".into()], ..Wanted::default() });
    assert_eq!(session.translate_in(payload, &mut beam), Err(TranslateError::Undecodable));
    // In its place a tuple of the same is fine.
    versus.peer.cast("e1", "b", &term::payload(&[&[104, 2][..], &home, &wire(Wire::Engine("b"))].concat()));
    versus.settle();
    let [payload] = &versus.side.take_payloads()[..] else { panic!("one") };
    assert_eq!(
        session.translate_in(payload, &mut beam).unwrap(),
        term::payload(&term::tuple(&[engine.clone(), engine]))
    );
    versus.assert_alive();
}

#[test]
fn identifiers_that_are_not_in_their_form_are_refused_and_the_link_lives() {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Plain), limits());
    for element in
        [term::pid("n@bob", 1), term::reference("n@bob", 1), term::port("n@bob", 1), term::export("a", "b", 1)]
    {
        versus.peer.cast("e1", "b", &term::payload(&element));
    }
    versus.peer.send("e1", vec![RawMessage::call("b", 1, 9, &term::payload(&term::pid("n@bob", 1)))]);
    versus.settle();
    assert_eq!((versus.side.count("identifiers"), versus.side.take_events().len()), (5, 0));
    assert_eq!(versus.peer.refusals(), [(1, Refusal::Identifiers as u8)]);
    versus.assert_alive();
    for element in [term::port("n@alice", 1), term::export("a", "b", 1)] {
        assert_eq!(versus.side.cast("b", "e1", &term::payload(&element)), Err(PushError::Identifiers));
    }
}

#[test]
fn where_identifiers_may_not_cross_they_are_refused_either_way_and_given_back() {
    let mut pair = up_as(PairConfig { limits: [limits(), Limits::default()], ..PairConfig::of(Profile::Plain) });
    pair.alice.cast("", "b", &term::payload(&term::pid("n@alice", 1))).unwrap();
    pair.settle();
    assert_eq!((pair.bob.count("identifiers"), pair.bob.take_events().len()), (1, 0));
    assert_eq!(both(&pair), NOTHING);
    assert_eq!(pair.bob.cast("", "a", &term::payload(&term::pid("n@bob", 1))), Err(PushError::Identifiers));
}

#[test]
fn a_message_that_gives_way_in_the_queue_gives_its_handles_back() {
    let mut pair = up_with(Limits { queue_bytes_max: 1_000, overflow: Overflow::Oldest, ..limits() });
    let element = term::tuple(&[term::pid("n@alice", 1), term::reference("n@alice", 2)]);
    pair.alice.cast("", "b", &term::payload(&element)).unwrap();
    assert_eq!(sizes(&pair, End::Alice), [1, 0, 1, 0]);
    pair.alice.cast("", "b", &term::of_size(930)).unwrap();
    assert_eq!(pair.alice.count("dropped_oldest"), 1);
    assert_eq!(sizes(&pair, End::Alice), [0; 4]);
    // Its own message was refused: nothing was given away.
    let result = pair.alice.cast("", "b", &term::payload(&term::tuple(&[element, term::binary(&[0; 950])])));
    assert_eq!(result, Err(PushError::Overload));
    assert_eq!((sizes(&pair, End::Alice), pair.alice.exported.len()), ([0; 4], 1));
    pair.settle();
    pair.bob.cast("", "a", &term::text("x")).unwrap();
    pair.settle();
    let number = pair.alice.exported[0].number;
    assert!(pair.alice.take_events().contains(&Seen::Unexported { number }));
}

#[test]
fn the_end_of_a_process_comes_behind_its_large_answers_and_what_waits_behind_those() {
    let (mut pair, mut bob) = (up(), bob());
    casts(&mut pair, End::Alice, &mut bob, &term::pid("n@alice", 1));
    let (number, now) = (pair.alice.exported[0].number, pair.now);
    let address = Address::of_handle(number);
    for context in [b"1", b"2"] {
        pair.bob.call(now, &address, &term::pid("n@bob", 9), context, &term::text("?")).unwrap();
    }
    pair.settle();
    let [Seen::Call { call_id: first, .. }, Seen::Call { call_id: second, .. }] = pair.alice.take_events()[..] else {
        panic!("two calls")
    };
    pair.alice.reply(first, &term::of_size(3_000_000)).unwrap();
    pair.alice.reply(second, &term::text("!")).unwrap();
    let pushed = pair.alice.session().export_ended(number, ForgetReason::Normal, None);
    pair.alice.pushed(pushed);
    // Others don't wait for it.
    pair.alice.cast("a", "b", &term::text("goes on")).unwrap();
    pair.settle();
    let seen: Vec<String> = pair
        .bob
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Seen::Deliver { .. } => Some("other".to_owned()),
            Seen::Reply { context, .. } => Some(String::from_utf8(context).unwrap()),
            Seen::HandleEnded { number: ended, .. } => Some(format!("end {}", ended == number)),
            _ => None,
        })
        .collect();
    assert_eq!(seen, ["other", "1", "2", "end true"]);
}

#[test]
fn what_waits_for_credit_keeps_the_handle_that_it_is_for_and_is_followed_by_an_end_that_came_before_it() {
    let mut pair = up_with(Limits { credit_bytes: 1_024, ..limits() });
    pair.alice.stingy = true;
    let (mut alice, mut bob) = (alice(), bob());
    casts(&mut pair, End::Alice, &mut bob, &term::pid("n@alice", 1));
    let number = pair.alice.exported[0].number;
    let address = Address::of_handle(number);
    // The window is used up by the first; the second waits.
    pair.bob.send("", &address, &term::of_size(2_000)).unwrap();
    pair.bob.send("", &address, &term::payload(&term::pid("n@bob", 2))).unwrap();
    pair.settle();
    assert_eq!((pair.alice.take_payloads().len(), pair.bob.count("lanes_held")), (1, 1));
    assert_eq!(pair.bob.session().drop_import(number), DropOutcome::InUse);
    // The process that waits in it ends, and that is told before the message goes.
    let theirs = pair.bob.exported[0].number;
    let pushed = pair.bob.session().export_ended(theirs, ForgetReason::Shutdown, None);
    pair.bob.pushed(pushed);
    pair.settle();
    let ended = Seen::HandleEnded { number: theirs, reason: ForgetReason::Shutdown };
    assert_eq!(pair.alice.take_events(), std::slice::from_ref(&ended));
    assert_eq!(
        pair.alice.session().drop_import(theirs),
        DropOutcome::Dropped { wake: false },
        "nothing of it had come"
    );
    pair.alice.session().debts(|_, _| {});
    assert!(pair.alice.session().grant(&address, 0));
    pair.alice.woken(true);
    pair.settle();
    let events = pair.alice.take_events();
    let [Seen::Deliver { payload, .. }, again] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*again, ended);
    assert!(pair.alice.session().translate_in(payload, &mut alice).is_ok());
    assert!(matches!(pair.alice.session().drop_import(theirs), DropOutcome::Dropped { .. }));
    assert!(matches!(pair.bob.session().drop_import(number), DropOutcome::Dropped { .. }));
    pair.alice.woken(true);
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(both(&pair), NOTHING);
}

#[test]
fn a_call_that_expires_gives_its_caller_back() {
    let mut pair = up_with(Limits { credit_bytes: 1_024, message_ttl_ms: Some(50), ..limits() });
    pair.bob.stingy = true;
    let now = pair.now;
    pair.alice.session().tick(now, &mut |_| {});
    pair.alice.cast("", "b", &term::of_size(2_000)).unwrap();
    pair.alice.call(now, "b", &term::pid("n@alice", 1), b"c", &term::payload(&term::pid("n@alice", 2))).unwrap();
    pair.settle();
    assert_eq!(sizes(&pair, End::Alice)[0], 2);
    let mut expired = Vec::new();
    for ms in 1..=12 {
        pair.alice.session().tick(now + 10 * ms, &mut |event| expired.push(Seen::from(event)));
    }
    assert_eq!(expired, [Seen::Refused { context: b"c".to_vec(), refusal: Refusal::Expired }]);
    assert_eq!(sizes(&pair, End::Alice), [0; 4]);
}

#[test]
fn large_payloads_with_pids_go_in_fragments() {
    let (mut pair, mut bob) = (up(), bob());
    let element = |pid: Vec<u8>| term::tuple(&[term::binary(&vec![7; 500_000]), pid, term::binary(&vec![8; 200_000])]);
    let got = casts(&mut pair, End::Alice, &mut bob, &element(term::pid("n@alice", 1)));
    assert_eq!(got, element(term::pid("n@bob", 1_001)));
    let home = casts(&mut pair, End::Bob, &mut alice(), &element(term::pid("n@bob", 1_001)));
    assert_eq!(home, element(term::pid("n@alice", 1)));
    let number = pair.alice.exported[0].number;
    assert!(matches!(pair.bob.session().drop_import(number), DropOutcome::Dropped { .. }));
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(both(&pair), NOTHING);
}

#[test]
fn a_payload_that_grows_over_the_limit_on_its_way_out_is_too_large() {
    let mut pair = up_with(Limits { message_bytes_max: 1_000, ..limits() });
    // Longer on the wire by 17 - 13 - 1 bytes.
    let reference = term::reference("n", 1);
    let fill = |bytes: usize| term::payload(&term::tuple(&[reference.clone(), term::binary(&vec![0; bytes])]));
    let most = 1_000 - 3 - 17 - 5;
    assert_eq!(pair.alice.cast("", "b", &fill(most + 1)), Err(PushError::TooLarge));
    assert_eq!((sizes(&pair, End::Alice), pair.alice.count("too_large_out")), ([0; 4], 1));
    pair.alice.cast("", "b", &fill(most)).unwrap();
}

#[test]
fn handles_outlive_links() {
    let config = PairConfig { limits: [limits(), limits()], ..PairConfig::of(Profile::Plain) };
    let (mut pair, mut bob) = (up_as(config.clone()), bob());
    let pid = term::pid("n@alice", 1);
    let stand_in = casts(&mut pair, End::Alice, &mut bob, &pid);
    // Two copies are lost with the link, one each way, and a process ends.
    pair.alice.cast("", "b", &term::payload(&pid)).unwrap();
    pair.bob.cast("", "a", &term::payload(&stand_in)).unwrap();
    pair.alice.flush();
    pair.bob.flush();
    pair.lose();
    let number = pair.alice.exported[0].number;
    let mut pair = pair.another(&config, false);
    pair.settle();
    let session = pair.bob.session();
    let payloads = pair.bob.take_payloads();
    assert_eq!(payloads.len(), 1);
    assert_eq!(session.translate_in(&payloads[0], &mut bob).unwrap(), term::payload(&stand_in));
    assert_eq!(delivered(&mut pair, End::Alice, &mut alice()), [term::payload(&pid)]);
    let DropOutcome::Dropped { .. } = session.drop_import(number) else { panic!("it is idle") };
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(both(&pair), NOTHING);
}

#[test]
fn what_goes_over_into_the_next_session_means_the_same_there() {
    let config = PairConfig { limits: [limits(), limits()], ..PairConfig::of(Profile::Plain) };
    let mut pair = up_as(config.clone());
    let proxy = term::pid("n@alice", 7);
    pair.alice.session().bind_engine(&proxy, "b");
    let stand_in = casts(&mut pair, End::Bob, &mut alice(), &term::pid("n@bob", 1));
    pair.settle();
    pair.lose();
    let (pid, reference) = (term::pid("n@alice", 1), term::reference("n@alice", 2));
    let element = |pid: &[u8], reference: &[u8], proxy: &[u8], other: &[u8]| {
        term::tuple(&[pid.to_vec(), reference.to_vec(), proxy.to_vec(), other.to_vec()])
    };
    let old = pair.alice.session();
    let payload = term::payload(&element(&pid, &reference, &proxy, &stand_in));
    old.push(Delivery::Cast, "", "b", &payload, false).unwrap();
    let number = pair.bob.exported[0].number;
    old.push(Delivery::Cast, "", &Address::of_handle(number), &term::text("to nobody any more"), false).unwrap();
    old.end();
    let mut next = up_as(PairConfig { run: 2, ..config });
    let (adopted, exported) = next.alice.session().adopt(&old);
    // The peer's process has ended with its session: its stand-in is a process of ours like any other.
    let pids: Vec<_> = exported.iter().map(|exported| exported.pid.to_vec()).collect();
    assert_eq!((adopted, pids), (1, vec![pid, stand_in]));
    next.alice.woken(true);
    let mut bob = bob();
    bob.engines.insert("b".into(), term::pid("n@bob", 3));
    let got = delivered(&mut next, End::Bob, &mut bob);
    let expected =
        element(&term::pid("n@bob", 1_001), &bob.fresh[0], &term::pid("n@bob", 3), &term::pid("n@bob", 1_002));
    assert_eq!(got, [term::payload(&expected)]);
}

#[test]
fn what_has_come_to_mean_nothing_means_nothing_in_the_next_session_either() {
    let limits = Limits { credit_bytes: 1_024, references_max: 1, ..limits() };
    let config = PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Plain) };
    let mut pair = up_as(config.clone());
    let stand_in = casts(&mut pair, End::Bob, &mut alice(), &term::pid("n@bob", 1));
    let number = pair.bob.exported[0].number;
    // It waits for a window, and meanwhile the process ends that it names, and the reference gives way to another.
    pair.bob.stingy = true;
    pair.alice.cast("", "b", &term::of_size(2_000)).unwrap();
    let reference = term::reference("n@alice", 1);
    let named = term::payload(&term::tuple(&[stand_in, reference]));
    pair.alice.cast("", "b", &named).unwrap();
    pair.alice.cast("", "other", &term::payload(&term::reference("n@alice", 2))).unwrap();
    pair.bob.session().export_ended(number, ForgetReason::Crashed, None);
    pair.bob.woken(true);
    pair.settle();
    let old = pair.alice.session();
    assert!(matches!(old.drop_import(number), DropOutcome::Dropped { .. }));
    pair.lose();
    old.end();

    // Their numbers are others' there.
    let mut next = up_as(PairConfig { run: 2, ..config });
    assert_eq!(next.alice.session().adopt(&old), (1, vec![]));
    next.bob
        .cast("", "a", &term::payload(&term::tuple(&[term::pid("n@bob", 2), term::reference("n@bob", 3)])))
        .unwrap();
    assert_eq!(next.bob.exported[0].number, number);
    next.alice.woken(true);
    let mut bob = bob();
    let got = delivered(&mut next, End::Bob, &mut bob);
    assert_eq!(got, [term::payload(&term::tuple(&[bob.nobodies[0].clone(), bob.fresh[0].clone()]))]);
}

#[test]
fn what_differed_and_means_nothing_any_more_still_differs_in_the_next_session() {
    let limits = Limits { credit_bytes: 1_024, ..limits() };
    let config = PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Plain) };
    let (mut pair, mut alice) = (up_as(config.clone()), alice());
    let [one, two] = [1, 2].map(|number| casts(&mut pair, End::Bob, &mut alice, &term::pid("n@bob", number)));
    let numbers: Vec<u64> = pair.bob.exported.iter().map(|exported| exported.number).collect();
    pair.bob.stingy = true;
    pair.alice.cast("", "b", &term::of_size(2_000)).unwrap();
    let map = |one: &[u8], two: &[u8]| [&[116, 0, 0, 0, 2][..], one, &term::small(1), two, &term::small(2)].concat();
    pair.alice.cast("", "b", &term::payload(&map(&one, &two))).unwrap();
    for number in &numbers {
        pair.bob.session().export_ended(*number, ForgetReason::Crashed, None);
    }
    pair.bob.woken(true);
    pair.settle();
    let old = pair.alice.session();
    for number in numbers {
        assert!(matches!(old.drop_import(number), DropOutcome::Dropped { .. }));
    }
    pair.lose();
    old.end();
    let mut next = up_as(PairConfig { run: 2, ..config });
    assert_eq!(next.alice.session().adopt(&old), (1, vec![]));
    next.alice.woken(true);
    let mut bob = bob();
    let got = delivered(&mut next, End::Bob, &mut bob);
    // They are numbered downwards.
    assert_eq!(got, [term::payload(&map(&bob.nobodies[1], &bob.nobodies[0]))]);
}

#[test]
fn what_finds_no_room_for_its_pids_in_the_next_session_is_counted_at_once() {
    let config = PairConfig { limits: [limits(), limits()], ..PairConfig::of(Profile::Plain) };
    let mut pair = up_as(config.clone());
    pair.lose();
    let old = pair.alice.session();
    let two = term::tuple(&[term::pid("n@alice", 1), term::pid("n@alice", 2)]);
    old.push(Delivery::Cast, "", "b", &term::payload(&two), false).unwrap();
    old.end();
    let narrow = Limits { handles_max: 1, ..limits() };
    let next = up_as(PairConfig { run: 2, limits: [narrow, limits()], ..config });
    assert_eq!(next.alice.session().adopt(&old), (0, vec![]));
    assert_eq!(next.alice.count("handles_over_limit"), 1);
}

#[test]
fn dropping_more_than_was_sent_closes_the_link() {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Plain), limits());
    versus.side.cast("b", "e1", &term::payload(&term::pid("n@bob", 1))).unwrap();
    versus.settle();
    let number = versus.side.exported[0].number;
    let release = [&[1, 0, 3][..], &number.to_le_bytes(), &2u64.to_le_bytes()].concat();
    versus.peer.write_frame(FrameType::HandleRelease, &release);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn a_peer_can_name_no_process_that_it_was_not_given() {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Plain), limits());
    versus.side.cast("b", "e1", &term::payload(&term::pid("n@bob", 1))).unwrap();
    versus.settle();
    let number = versus.side.exported[0].number;
    for other in [number + 1, number + 2, u64::MAX] {
        versus.peer.send("e1", vec![RawMessage::send(&Address::of_handle(other), &term::text("x"))]);
    }
    let exit =
        |to: &str| RawMessage { kind: kind::EXIT, caller: 3, detail: 2, ..RawMessage::send(to, &term::text("x")) };
    versus.peer.send("e1", vec![exit(&Address::of_handle(number + 1)), RawMessage::call("@7", 1, 3, &term::text("x"))]);
    versus.settle();
    assert_eq!((versus.side.count("unknown_handle"), versus.side.take_events().len()), (5, 0));
    assert_eq!(versus.peer.refusals(), [(1, Refusal::Noproc as u8)]);
    versus.peer.send("e1", vec![exit(&Address::of_handle(number))]);
    versus.settle();
    assert!(matches!(versus.side.take_events()[..], [Seen::Exit { from: 3, .. }]));
    versus.assert_alive();
}

#[test]
fn fifty_thousand_pids_that_come_and_go_leave_nothing_behind() {
    let (mut pair, mut bob) = (up(), bob());
    for round in 0..50u32 {
        let pids: Vec<_> = (0..1_000).map(|number| term::pid("n@alice", round * 1_000 + number)).collect();
        for pids in pids.chunks(100) {
            let list = [&[108][..], &100u32.to_be_bytes(), &pids.concat(), &[106]].concat();
            pair.alice.cast("", "b", &term::payload(&list)).unwrap();
        }
        delivered(&mut pair, End::Bob, &mut bob);
        for (index, exported) in std::mem::take(&mut pair.alice.exported).into_iter().enumerate() {
            if index % 2 == 0 {
                let pushed = pair.alice.session().export_ended(exported.number, ForgetReason::Normal, None);
                pair.alice.pushed(pushed);
            } else if let DropOutcome::Dropped { wake } = pair.bob.session().drop_import(exported.number) {
                pair.bob.woken(wake);
            }
        }
        pair.settle();
        for event in pair.bob.take_events() {
            let Seen::HandleEnded { number, .. } = event else { panic!("{event:?}") };
            let DropOutcome::Dropped { wake } = pair.bob.session().drop_import(number) else { panic!("{number}") };
            pair.bob.woken(wake);
        }
        pair.settle();
        assert_eq!(pair.alice.take_events().len(), 500, "those that were dropped need not be watched");
        assert_eq!(both(&pair), NOTHING);
    }
}

#[test]
fn strangers_that_come_home_are_bounded_at_the_limit_and_one_past_it() {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Plain), limits());
    let home = |count: usize| {
        let pids = (1..=count as u64).map(|number| wire(Wire::Pid { number: number + 1_000, owner: Owner::Receiver }));
        let theirs = wire(Wire::Pid { number: 3, owner: Owner::Sender });
        let list = pids.chain([theirs]).collect::<Vec<_>>().concat();
        term::payload(&[&[108][..], &(count as u32 + 1).to_be_bytes(), &list, &[106]].concat())
    };
    versus.peer.cast("e1", "b", &home(STRAYS_MAX));
    versus.peer.cast("e1", "b", &home(STRAYS_MAX + 1));
    versus.settle();
    let [most, more] = &versus.side.take_payloads()[..] else { panic!("two") };
    let (mut beam, session) = (bob(), versus.side.session());
    assert_eq!(session.wanted_in(more), Wanted::default());
    assert_eq!(session.translate_in(more, &mut beam), Err(TranslateError::Undecodable));
    assert_eq!((beam.last, beam.nobodies.len()), (1_000, 0), "nobody was made");
    assert_eq!(session.wanted_in(most).nobodies, STRAYS_MAX);
    assert!(session.translate_in(most, &mut beam).is_ok());
    assert_eq!(beam.nobodies.len(), STRAYS_MAX);
    // What was discarded is told with what comes next.
    versus.peer.ping(1);
    versus.settle();
    let told = versus.peer.frames.iter().any(|frame| frame.kind == FrameType::HandleRelease as u8);
    assert!(told);
}

#[test]
fn reasons_that_come_in_too_great_a_number_are_left_away_and_ends_are_told_all_the_same() {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Plain), limits());
    versus.side.stand_ins = false;
    let down = |number| RawMessage { kind: kind::DOWN, caller: number, ..RawMessage::send("", &term::text("why")) };
    let numbers = 1..=REASONS_MAX as u64 + 1;
    for some in numbers.clone().collect::<Vec<_>>().chunks(4_000) {
        versus.peer.send("e1", some.iter().copied().map(down).collect());
    }
    versus.settle();
    assert_eq!((versus.side.count("reasons_over_limit"), versus.side.take_events().len()), (1, 0));
    for some in numbers.collect::<Vec<_>>().chunks(3_000) {
        let entries = some.iter().flat_map(|number| [&[1][..], &number.to_le_bytes(), &[2]].concat());
        let body = (some.len() as u16).to_le_bytes().into_iter().chain(entries).collect::<Vec<_>>();
        versus.peer.write_frame(FrameType::HandleRelease, &body);
    }
    versus.settle();
    let events = versus.side.take_events();
    let explained = events.iter().filter(|event| matches!(event, Seen::Explained { .. })).count();
    assert_eq!((explained, events.len()), (REASONS_MAX, REASONS_MAX + 1));
    let last = Seen::HandleEnded { number: REASONS_MAX as u64 + 1, reason: ForgetReason::Shutdown };
    assert_eq!(events.last(), Some(&last));
}
