use super::*;
use crate::session::message::ENTRY_COST;

fn cast(payload: &[u8]) -> NewMessage<'_> {
    NewMessage {
        kind: 2,
        detail: 0,
        aligned: false,
        handles: false,
        call_id: 0,
        caller: 0,
        source: "",
        destination: "d",
        payload: NewPayload::Slice(payload),
    }
}

const COST: usize = 10 + 1 + ENTRY_COST;

/// A queue with what it has counted.
struct Counted {
    queue: Queue,
    lanes: Mutex<Lanes>,
    counters: Counters,
}

fn queue(bytes_max: usize, engine_bytes_max: Option<usize>, overflow: Overflow) -> Counted {
    Counted {
        queue: Queue::new(bytes_max, engine_bytes_max, overflow),
        lanes: Mutex::new(Lanes::new(0, overflow == Overflow::Oldest)),
        counters: Counters::default(),
    }
}

impl Counted {
    fn push(&mut self, message: NewMessage<'_>) -> Result<bool, Full> {
        self.queue.push(message, false, &self.lanes, &self.counters)
    }

    /// Refused or dropped; those of them that met the bound of their engine.
    fn lost(&self) -> (u64, u64) {
        let Counters { overload_out, dropped_oldest, engine_queue_over_limit, .. } = &self.counters;
        (overload_out.get() + dropped_oldest.get(), engine_queue_over_limit.get())
    }

    /// What a flush does.
    fn send_all(&mut self) {
        let mut taken = Taken::default();
        self.queue.take(&mut taken);
        self.queue.sent(&taken.entries, taken.entries.iter().map(Entry::cost).sum());
    }

    fn payloads(&mut self) -> Vec<Vec<u8>> {
        let mut taken = Taken::default();
        self.queue.take(&mut taken);
        let arena = &taken.arena;
        taken
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Message(message) if !message.dropped => Some(message.payload(arena).to_vec()),
                _ => None,
            })
            .collect()
    }
}

fn to<'a>(destination: &'a str, payload: &'a [u8]) -> NewMessage<'a> {
    NewMessage { destination, ..cast(payload) }
}

fn call_to<'a>(destination: &'a str, payload: &'a [u8]) -> NewMessage<'a> {
    NewMessage { kind: kind::GENCALL, call_id: 1, caller: 1, ..to(destination, payload) }
}

#[test]
fn the_first_push_wakes_and_the_next_does_not_until_settled() {
    let mut queue = queue(1_000, None, Overflow::Newest);
    assert!(queue.push(cast(b"a")).unwrap());
    assert!(!queue.push(cast(b"b")).unwrap());
    assert!(!queue.queue.settle(), "something waits");
    queue.queue.take(&mut Taken::default());
    assert!(queue.queue.settle());
    assert!(queue.push(cast(b"c")).unwrap());
}

#[test]
fn a_queue_takes_what_fits_exactly_and_refuses_one_byte_more() {
    let mut queue = queue(2 * COST, None, Overflow::Newest);
    assert!(queue.push(cast(&[1; 10])).is_ok());
    assert_eq!(queue.push(cast(&[2; 11])), Err(Full::Refused));
    assert!(queue.push(cast(&[2; 10])).is_ok());
    assert_eq!(queue.push(cast(b"")), Err(Full::Refused));
    queue.queue.sent(&[], COST);
    assert!(queue.push(cast(b"")).is_ok());
}

#[test]
fn oldest_casts_give_way_when_configured_and_memory_stays_bounded() {
    let mut queue = queue(10 * COST, None, Overflow::Oldest);
    for number in 0..10_000u32 {
        let mut payload = [0; 10];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        queue.push(cast(&payload)).unwrap();
        assert!(queue.queue.waiting.arena.len() <= 20 * COST);
        assert!(queue.queue.waiting.entries.len() <= 20);
    }
    assert_eq!(queue.lost(), (9_990, 0));
    let left: Vec<u32> = queue.payloads().iter().map(|p| u32::from_le_bytes([p[0], p[1], p[2], p[3]])).collect();
    assert_eq!(left, (9_990..10_000).collect::<Vec<_>>());
}

#[test]
fn calls_are_never_dropped_for_newer_casts() {
    let mut queue = queue(2 * COST, None, Overflow::Oldest);
    for _ in 0..2 {
        queue.push(NewMessage { kind: 3, call_id: 1, caller: 1, ..cast(&[9; 10]) }).unwrap();
    }
    assert_eq!(queue.push(cast(&[1; 10])), Err(Full::Refused));
    assert_eq!(queue.payloads().len(), 2);
}

#[test]
fn an_engine_has_what_fits_its_bound_exactly_and_not_one_byte_more_and_others_have_theirs() {
    let mut queue = queue(1_000_000, Some(2 * COST), Overflow::Newest);
    assert!(queue.push(to("d", &[1; 10])).is_ok());
    assert_eq!(queue.push(to("d", &[2; 11])), Err(Full::Refused));
    assert!(queue.push(call_to("d", &[2; 10])).is_ok());
    assert_eq!(queue.push(to("d", b"")), Err(Full::Refused));
    assert_eq!(queue.push(call_to("d", b"")), Err(Full::Refused));
    assert!(queue.push(to("e", &[3; 10])).is_ok());
    // What a flush has taken counts until it is sent.
    let mut taken = Taken::default();
    queue.queue.take(&mut taken);
    assert_eq!(queue.push(to("d", b"")), Err(Full::Refused));
    queue.queue.sent(&taken.entries[..1], COST);
    assert!(queue.push(to("d", &[4; 10])).is_ok());
    assert_eq!(queue.push(to("d", b"")), Err(Full::Refused));
}

#[test]
fn a_message_larger_than_its_engines_bound_goes_alone() {
    let mut queue = queue(1_000_000, Some(COST), Overflow::Newest);
    assert!(queue.push(to("d", &[1; 5_000])).is_ok());
    assert_eq!(queue.push(to("d", b"")), Err(Full::Refused));
    queue.send_all();
    assert!(queue.push(to("d", b"")).is_ok());
    assert_eq!(queue.push(to("d", &[1; 5_000])), Err(Full::Refused));
}

#[test]
fn answers_count_against_no_engine() {
    let mut queue = queue(1_000_000, Some(COST), Overflow::Newest);
    for kind in [kind::REPLY, kind::ERROR] {
        for _ in 0..10 {
            let answer = NewMessage { kind, ..call_to("", &[1; 10]) };
            queue.queue.push(answer, true, &queue.lanes, &queue.counters).unwrap();
        }
    }
    assert!(queue.push(to("", &[1; 10])).is_ok());
    assert_eq!(queue.push(to("", &[1; 10])), Err(Full::Refused));
    assert_eq!(queue.lost(), (1, 1));
}

#[test]
fn the_oldest_of_the_same_engine_give_way_and_nobody_elses() {
    let mut queue = queue(1_000_000, Some(3 * COST), Overflow::Oldest);
    queue.push(to("e", &[100; 10])).unwrap();
    queue.push(call_to("d", &[101; 10])).unwrap();
    for number in 0..100 {
        queue.push(to("d", &[number; 10])).unwrap();
        queue.push(to(&format!("other {number}"), &[102; 10])).unwrap();
    }
    assert_eq!(queue.lost(), (98, 98));
    let left = queue.payloads();
    assert_eq!(
        left.iter().filter(|payload| payload[0] < 102).map(|payload| payload[0]).collect::<Vec<_>>(),
        [100, 101, 98, 99]
    );
    assert_eq!(left.len(), 104);
}

#[test]
fn an_engine_with_nothing_but_calls_and_what_is_on_its_way_refuses() {
    let mut queue = queue(1_000_000, Some(2 * COST), Overflow::Oldest);
    queue.push(to("d", &[1; 10])).unwrap();
    let mut taken = Taken::default();
    queue.queue.take(&mut taken);
    queue.push(call_to("d", &[2; 10])).unwrap();
    assert_eq!(queue.push(to("d", &[3; 10])), Err(Full::Refused));
    queue.queue.sent(&taken.entries, COST);
    queue.push(to("d", &[4; 10])).unwrap();
    assert_eq!(queue.lost(), (1, 1));
    queue.push(to("d", &[5; 10])).unwrap();
    assert_eq!(queue.lost(), (2, 2));
    // Too large for what can give way: that is gone and has been counted, too.
    assert_eq!(queue.push(to("d", &[6; 11])), Err(Full::Refused));
    assert_eq!(queue.lost(), (4, 4));
    assert_eq!(queue.payloads(), [[2; 10]]);
}

#[test]
fn both_bounds_hold_and_memory_stays_bounded_whichever_is_met() {
    let mut queue = queue(10 * COST, Some(4 * COST), Overflow::Oldest);
    let mut random = 1u32;
    let (mut pushed, mut lost) = (0, 0);
    for number in 0..20_000u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let engine = ["a", "b", "c", "d"][(random >> 30) as usize];
        let mut payload = [0; 10];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        let (before, _) = queue.lost();
        queue.push(to(engine, &payload)).unwrap();
        pushed += 1;
        lost += queue.lost().0 - before;
        assert!(queue.queue.waiting.arena.len() <= 20 * COST && queue.queue.waiting.entries.len() <= 20);
        assert!(queue.queue.bytes <= 10 * COST);
        if number % 97 == 0 {
            queue.send_all();
            (pushed, lost) = (0, 0);
        }
        let waiting = |engine: &str| {
            let is_its = |entry: &&Entry| match entry {
                Entry::Message(message) => {
                    !message.dropped && message.destination(&queue.queue.waiting.arena) == engine
                }
                Entry::Announcement(..) => false,
            };
            queue.queue.waiting.entries.iter().filter(is_its).count()
        };
        let waiting = ["a", "b", "c", "d"].map(waiting);
        assert!(waiting.iter().all(|count| *count <= 4), "{waiting:?}");
        assert_eq!(waiting.iter().sum::<usize>() as u64, pushed - lost);
    }
    let (lost, of_engine) = queue.lost();
    assert!(of_engine > 100 && lost > of_engine + 100, "{lost} {of_engine}: both were met");
}

#[test]
fn releases_of_what_was_dropped_are_bounded_at_the_limit_and_one_past_it_and_others_are_not() {
    let (mut queue, counters) = (Queue::new(1_000, None, Overflow::Newest), Counters::default());
    let dropped = |number| Release::Dropped { number, count: 1 };
    queue.release_all(&mut (0..RELEASES_MAX as u64).map(dropped).collect(), &counters);
    assert_eq!((queue.waiting.releases.len(), counters.releases_over_limit.get()), (RELEASES_MAX, 0));
    queue.release_all(&mut vec![dropped(7), Release::Call(8)], &counters);
    assert_eq!((queue.waiting.releases.len(), counters.releases_over_limit.get()), (RELEASES_MAX + 1, 1));
    assert_eq!(queue.waiting.releases.last(), Some(&Release::Call(8)));
}
