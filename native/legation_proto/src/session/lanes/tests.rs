use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const WINDOW: u32 = 1_000;
const CAST: Want = Want { class: Class::Droppable, large: false, payload_bytes: 100 };
const CALL: Want = Want { class: Class::Kept, ..CAST };
const ANSWER: Want = Want { class: Class::Answer, ..CAST };

fn held(want: Want, tag: u64, since: u32) -> Held {
    let facts = Facts {
        kind: 2,
        detail: 0,
        aligned: false,
        large: want.large,
        handles: false,
        to: 0,
        class: want.class,
        since,
        share: 0,
        call_id: tag,
        caller: 0,
        cost: want.payload_bytes + 1,
    };
    let payload = vec![0; want.payload_bytes];
    let piece = want.large.then(|| Box::new(Piece::of(&payload)));
    Held::new(facts, "ping", &payload, piece)
}

/// Offers a message as a flush would. True when it goes at once.
fn offer(lanes: &mut Lanes, destination: &str, want: Want, tag: u64) -> bool {
    let goes = lanes.admit(destination, want, true);
    if !goes {
        lanes.hold(destination, held(want, tag, 0));
    }
    goes
}

/// The next one alone.
fn next_with(lanes: &mut Lanes, room_for: impl Fn(usize) -> bool) -> Option<(Arc<str>, Held)> {
    let mut out = Vec::new();
    lanes.let_go(1, room_for, &mut out);
    assert!(out.len() <= 1);
    out.pop()
}

fn next(lanes: &mut Lanes) -> Option<u64> {
    next_with(lanes, |_| true).map(|(_, held)| held.call_id)
}

/// Uses up the window of a destination: 164 bytes each.
fn fill(lanes: &mut Lanes, destination: &str) {
    (0..7).for_each(|tag| assert!(offer(lanes, destination, CAST, tag)));
}

#[test]
fn what_is_past_the_window_waits_until_there_is_credit_and_others_go_on() {
    let mut lanes = Lanes::new(WINDOW, false);
    fill(&mut lanes, "slow");
    assert!(!offer(&mut lanes, "slow", CAST, 10) && !offer(&mut lanes, "slow", CALL, 11));
    assert!(offer(&mut lanes, "fast", CAST, 1));
    assert_eq!(next(&mut lanes), None);
    assert!(lanes.granted("slow", 400));
    assert!(!offer(&mut lanes, "slow", CAST, 12), "behind those that wait");
    assert_eq!([next(&mut lanes), next(&mut lanes), next(&mut lanes)], [Some(10), Some(11), None]);
    assert!(lanes.granted("slow", u64::MAX));
    assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(12), None]);
    lanes.granted("slow", u64::MAX);
    lanes.granted("fast", u64::MAX);
    assert_eq!(lanes.destinations(), 0);
}

#[test]
fn an_answer_needs_no_credit_but_waits_for_a_large_message_to_its_caller() {
    let mut lanes = Lanes::new(WINDOW, false);
    fill(&mut lanes, "@7");
    assert!(!offer(&mut lanes, "@7", CAST, 20));
    assert!(offer(&mut lanes, "@7", ANSWER, 21));
    let large = Want { large: true, payload_bytes: 5_000, ..ANSWER };
    assert!(offer(&mut lanes, "@7", large, 22));
    assert!(!offer(&mut lanes, "@7", ANSWER, 23));
    assert!(offer(&mut lanes, "@8", ANSWER, 24), "another caller's");
    assert!(lanes.answer_waits("ping") && !lanes.answer_waits("pong"));
    assert_eq!(next(&mut lanes), None);
    lanes.large_done("@7");
    assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(23), None], "the cast still has no credit");
    assert!(!lanes.answer_waits("ping"));
}

#[test]
fn without_a_window_only_large_messages_make_others_wait() {
    let mut lanes = Lanes::new(0, false);
    assert!((0..1_000).all(|tag| offer(&mut lanes, "ping", CAST, tag)));
    assert_eq!(lanes.destinations(), 0);
    assert!(offer(&mut lanes, "ping", Want { large: true, ..CAST }, 1));
    assert!(!offer(&mut lanes, "ping", CAST, 2) && offer(&mut lanes, "pong", CAST, 3));
    lanes.large_done("ping");
    assert_eq!(next(&mut lanes), Some(2));
    assert!(offer(&mut lanes, "ping", CAST, 4));
    assert_eq!(next(&mut lanes), None);
    assert_eq!(lanes.destinations(), 0);
}

#[test]
fn a_large_message_waits_for_room_and_holds_up_its_own_lane_only() {
    let mut lanes = Lanes::new(0, false);
    let large = Want { large: true, payload_bytes: 5_000, ..CAST };
    assert!(!lanes.admit("ping", large, false));
    lanes.hold("ping", held(large, 1, 0));
    assert!(!offer(&mut lanes, "ping", CAST, 2) && offer(&mut lanes, "pong", CAST, 3));
    assert!(next_with(&mut lanes, |bytes| bytes < 5_000).is_none());
    assert_eq!(next(&mut lanes), None, "parked until another's is done");
    lanes.large_done("another");
    // `another` is unknown: nothing of ours has gone out.
    assert_eq!(next(&mut lanes), None);
    assert!(offer(&mut lanes, "another", large, 4));
    lanes.large_done("another");
    assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(1), None]);
    lanes.large_done("ping");
    assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(2), None]);
}

#[test]
fn lanes_have_their_turns() {
    let mut lanes = Lanes::new(100, false);
    for destination in ["a", "b"] {
        assert!(offer(&mut lanes, destination, CAST, 0));
        (1..1_000).for_each(|tag| assert!(!offer(&mut lanes, destination, CAST, tag)));
    }
    let mut order = String::new();
    while lanes.granted("a", 164) | lanes.granted("b", 164) {
        let Some((destination, _)) = next_with(&mut lanes, |_| true) else { break };
        order.push_str(&destination);
    }
    let first_b = order.find('b').unwrap();
    assert!(first_b * 100 <= 2 * TURN_BYTES, "{first_b} of one lane before the other");
}

#[test]
fn the_oldest_gives_way_over_all_lanes_or_in_one_and_calls_and_answers_never_do() {
    let mut lanes = Lanes::new(1, true);
    ["a", "b", "@7"].iter().for_each(|destination| assert!(offer(&mut lanes, destination, CAST, 0)));
    for (tag, (destination, want)) in
        [("a", CALL), ("b", CAST), ("a", CAST), ("b", CAST), ("a", CAST), ("a", CALL)].into_iter().enumerate()
    {
        assert!(!offer(&mut lanes, destination, want, tag as u64 + 1));
    }
    let tags = |held: Option<Held>| held.map(|held| held.call_id);
    assert_eq!(tags(lanes.drop_oldest()), Some(2));
    assert_eq!(tags(lanes.drop_oldest_of("a")), Some(3));
    assert_eq!(tags(lanes.drop_oldest_of("c")), None);
    assert_eq!(tags(lanes.drop_oldest()), Some(4));
    assert_eq!(tags(lanes.drop_oldest_of("a")), Some(5));
    assert_eq!((tags(lanes.drop_oldest()), tags(lanes.drop_oldest_of("a"))), (None, None));
    assert_eq!(lanes.held(), 2);
    lanes.granted("a", u64::MAX);
    assert_eq!(next(&mut lanes), Some(1));
    lanes.granted("a", u64::MAX);
    assert_eq!(next(&mut lanes), Some(6));
}

#[test]
fn what_has_waited_too_long_goes_and_answers_stay() {
    let mut lanes = Lanes::new(1, false);
    assert!(offer(&mut lanes, "a", Want { large: true, ..ANSWER }, 0));
    for (tag, want) in [CAST, CALL, ANSWER, CAST].into_iter().enumerate() {
        lanes.hold("a", held(want, tag as u64, 10 * tag as u32));
    }
    let mut expired = Vec::new();
    lanes.expire(|since| since <= 20, |held| expired.push(held.call_id));
    assert_eq!((expired, lanes.held()), (vec![0, 1], 2));
    lanes.large_done("a");
    assert_eq!([next(&mut lanes), next(&mut lanes)], [Some(2), Some(3)]);
}

#[test]
fn everything_that_waits_can_be_taken_in_its_order() {
    let mut lanes = Lanes::new(1, true);
    for (tag, destination) in ["a", "b", "a", "b", "a"].into_iter().enumerate() {
        lanes.admit(destination, CAST, true);
        lanes.hold(destination, held(if tag == 2 { CALL } else { CAST }, tag as u64, 0));
    }
    let all: Vec<_> = lanes.drain().into_iter().map(|(name, held)| (name.to_string(), held.call_id)).collect();
    let expected = [("a", 0), ("b", 1), ("a", 2), ("b", 3), ("a", 4)].map(|(name, tag)| (name.to_owned(), tag));
    assert_eq!(all, expected);
    assert_eq!((lanes.held(), lanes.destinations()), (0, 0));
}

#[test]
fn destinations_with_credit_in_use_are_bounded_at_the_limit_and_one_past_it() {
    let mut lanes = Lanes::new(WINDOW, false);
    assert!((0..DESTINATIONS_MAX).all(|number| lanes.admit(&number.to_string(), CAST, true)));
    assert!(!offer(&mut lanes, "one more", CAST, 1));
    assert!(offer(&mut lanes, "0", CAST, 2), "one that is known");
    assert_eq!(next(&mut lanes), None);
    assert!(!lanes.granted("0", 1));
    assert!(lanes.granted("0", u64::MAX));
    assert_eq!(next(&mut lanes), Some(1));
}

#[derive(Clone, Debug)]
enum Step {
    Offer { destination: u8, want: Want },
    Grant { destination: u8, bytes: u64 },
    Next,
    LargeDone,
    DropOldest(Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop_oneof![3 => Just(Class::Droppable), 1 => Just(Class::Kept), 1 => Just(Class::Answer)];
    let want = (class, 0usize..600, any::<bool>()).prop_map(|(class, payload_bytes, large)| Want {
        class,
        payload_bytes,
        large: large && payload_bytes > 300,
    });
    prop_oneof![
        6 => (0u8..3, want).prop_map(|(destination, want)| Step::Offer { destination, want }),
        3 => (0u8..3, 1u64..900).prop_map(|(destination, bytes)| Step::Grant { destination, bytes }),
        5 => Just(Step::Next),
        2 => Just(Step::LargeDone),
        1 => prop::option::of(0u8..3).prop_map(Step::DropOldest),
    ]
}

/// What is watched from outside.
#[derive(Default)]
struct Watch {
    used: HashMap<u8, u64>,
    under_way: Vec<u8>,
    /// Numbers in the order in which they went, per destination: those that need credit, and answers.
    gone: HashMap<(u8, bool), Vec<u64>>,
}

impl Watch {
    fn goes(&mut self, destination: u8, want: Want, tag: u64) -> Result<(), TestCaseError> {
        let answer = want.class == Class::Answer;
        prop_assert!(!self.under_way.contains(&destination), "past a large one");
        if !answer {
            let used = self.used.entry(destination).or_default();
            prop_assert!(*used < u64::from(WINDOW), "past the window");
            *used += credit::cost(want.payload_bytes);
        }
        if want.large {
            prop_assert!(self.under_way.len() < 2);
            self.under_way.push(destination);
        }
        let gone = self.gone.entry((destination, answer)).or_default();
        prop_assert!(gone.last().is_none_or(|last| *last < tag), "out of order");
        gone.push(tag);
        Ok(())
    }
}

proptest! {
    #[test]
    fn order_is_kept_windows_are_kept_and_nothing_is_lost(steps in prop::collection::vec(step(), 1..200)) {
        let mut lanes = Lanes::new(WINDOW, true);
        let mut watch = Watch::default();
        let (mut offered, mut dropped) = (0u64, 0);
        let finish = (0..2_000).flat_map(|_| {
            [Step::LargeDone, Step::Grant { destination: 0, bytes: 900 }, Step::Grant { destination: 1, bytes: 900 },
             Step::Grant { destination: 2, bytes: 900 }, Step::Next]
        });
        for step in steps.into_iter().chain(finish) {
            match step {
                Step::Offer { destination, want } => {
                    offered += 1;
                    let name = destination.to_string();
                    if lanes.admit(&name, want, watch.under_way.len() < 2) {
                        watch.goes(destination, want, offered)?;
                    } else {
                        lanes.hold(&name, held(want, offered, 0));
                    }
                }
                Step::Grant { destination, bytes } => {
                    lanes.granted(&destination.to_string(), bytes);
                    let used = watch.used.entry(destination).or_default();
                    *used = used.saturating_sub(bytes);
                }
                Step::Next => {
                    let room = watch.under_way.len() < 2;
                    if let Some((name, held)) = next_with(&mut lanes, |_| room) {
                        let want = Want { class: held.class, large: held.large, payload_bytes: held.payload().len() };
                        watch.goes(name.parse().unwrap(), want, held.call_id)?;
                    }
                }
                Step::LargeDone => {
                    if let Some(destination) = watch.under_way.pop() {
                        lanes.large_done(&destination.to_string());
                    }
                }
                Step::DropOldest(of) => {
                    let held = match of {
                        Some(destination) => lanes.drop_oldest_of(&destination.to_string()),
                        None => lanes.drop_oldest(),
                    };
                    if let Some(held) = held {
                        prop_assert_eq!(held.class, Class::Droppable);
                        dropped += 1;
                    }
                }
            }
        }
        let gone: usize = watch.gone.values().map(Vec::len).sum();
        prop_assert_eq!((lanes.held(), lanes.destinations()), (0, 0));
        prop_assert_eq!(gone + dropped, offered as usize);
        prop_assert!(lanes.heads.as_ref().unwrap().is_empty() && !lanes.any_ready() && lanes.busy == 0);
    }
}
