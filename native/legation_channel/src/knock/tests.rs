//! The memory of knocks against one that forgets nothing, for every order of a few.

use super::*;

const SETTINGS: KnockSettings = KnockSettings { window_ms: 3, boot_ms: 1, entries_max: 3 };
const START: UnixMs = 100;

#[derive(Clone, Copy)]
enum Step {
    Clock(i64),
    Knock(UnixMs, u8),
}

const STEPS: [Step; 10] = [
    Step::Clock(1),
    Step::Clock(4),
    Step::Clock(-3),
    Step::Knock(100, 0),
    Step::Knock(101, 0),
    Step::Knock(101, 1),
    Step::Knock(103, 0),
    Step::Knock(104, 0),
    Step::Knock(106, 0),
    Step::Knock(106, 1),
];

struct Seen {
    steps: u64,
    outcomes: [u64; 5],
}

/// Everything that can follow. `accepted`: all that ever were; `back`: the clock has been set back.
fn go_on(memory: &KnockMemory, now: UnixMs, accepted: &[(UnixMs, u8)], back: bool, left: u32, seen: &mut Seen) {
    if left == 0 {
        return;
    }
    for step in STEPS {
        seen.steps += 1;
        let mut memory = KnockMemory { entries: memory.entries.clone(), ..*memory };
        let (time, random) = match step {
            Step::Clock(by) => {
                let now = now.saturating_add_signed(by);
                go_on(&memory, now, accepted, back || by < 0, left - 1, seen);
                continue;
            }
            Step::Knock(time, random) => (time, random),
        };
        let outcome = memory.check_time(time, now).and_then(|()| memory.remember(time, [random; 16], now));
        let before = accepted.contains(&(time, random));
        let in_time = time > START && time.abs_diff(now) <= SETTINGS.window_ms;
        let number = match outcome {
            Ok(()) => {
                assert!(!before && in_time, "{time} {random} at {now} is accepted, after {accepted:?}");
                0
            }
            Err(KnockRefused::Replayed) => {
                assert!(before, "{time} {random} at {now} did not come before: {accepted:?}");
                1
            }
            // What can still be shown again takes a place, and no more.
            Err(KnockRefused::MemoryFull) => {
                assert!(accepted.len() >= SETTINGS.entries_max);
                2
            }
            Err(KnockRefused::TooEarly) => {
                assert!(time <= START);
                3
            }
            // Where the clock goes forwards nobody is refused for what was forgotten.
            Err(KnockRefused::OutsideWindow) => {
                assert!(!in_time || back, "{time} {random} at {now}: {accepted:?}");
                4
            }
            Err(other) => panic!("{other}"),
        };
        seen.outcomes[number] += 1;
        assert!(memory.len() <= SETTINGS.entries_max);
        let mut accepted = accepted.to_vec();
        if outcome.is_ok() {
            accepted.push((time, random));
        }
        go_on(&memory, now, &accepted, back, left - 1, seen);
    }
}

#[test]
fn exhaustive_no_knock_is_accepted_twice_whatever_the_clock_does() {
    let memory = KnockMemory::new(SETTINGS, START);
    let mut seen = Seen { steps: 0, outcomes: [0; 5] };
    go_on(&memory, START + 1, &[], false, 5, &mut seen);
    assert_eq!(seen.steps, 111_110);
    assert!(seen.outcomes.iter().all(|outcome| *outcome > 0), "{:?}", seen.outcomes);
}
