//! Two tables against each other, with messages that wait in lanes and releases that pass them.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const PROCESSES: u8 = 6;

/// A message on its way: what it holds, and to whom it is.
#[derive(Debug)]
struct Message {
    copies: Vec<Wire<'static>>,
    to: Option<u64>,
}

#[derive(Debug)]
enum Frame {
    Message(Message),
    Release(Release),
}

struct Side {
    handles: Handles,
    /// Each in its order, in any order among them.
    lanes: [VecDeque<Message>; 3],
    wire: VecDeque<Frame>,
    /// Processes by number, and which incarnation each is: a new one has other bytes.
    incarnations: [u32; PROCESSES as usize],
    /// What the driver watches: raw bytes by export number.
    watched: HashMap<u64, Arc<[u8]>>,
    /// Numbers whose process has ended.
    ended: HashSet<u64>,
    /// Numbers for which it has stand-ins.
    stand_ins: Vec<u64>,
    next_stand_in: u64,
    name: u8,
}

impl Side {
    fn new(name: u8, handles_max: usize, references_max: usize) -> Side {
        Side {
            handles: Handles::new(handles_max, references_max),
            lanes: Default::default(),
            wire: VecDeque::new(),
            incarnations: [0; PROCESSES as usize],
            watched: HashMap::new(),
            ended: HashSet::new(),
            stand_ins: Vec::new(),
            next_stand_in: 0,
            name,
        }
    }

    fn raw(&self, process: u8) -> Vec<u8> {
        [&[self.name, process][..], &self.incarnations[usize::from(process)].to_be_bytes()].concat()
    }

    fn is_alive(&self, raw: &[u8]) -> bool {
        (0..PROCESSES).any(|process| self.raw(process) == *raw)
    }

    fn send(&mut self, lane: usize, raws: &[Vec<u8>], references: &[u8], to: Option<u64>) {
        if to.is_some_and(|number| !self.handles.address(number)) {
            return;
        }
        let mut copies = Vec::new();
        for raw in raws {
            let mut exported = Vec::new();
            let Ok(sent) = self.handles.send_pid(raw, &mut exported) else { continue };
            if let Sent::Pid { number, owner } = sent {
                copies.push(Wire::Pid { number, owner });
            }
            for export in exported {
                // What is dead when it is first watched is told at once.
                let alive = self.is_alive(&export.pid);
                self.watched.insert(export.number, export.pid);
                if !alive {
                    self.watched.remove(&export.number);
                    self.ended.insert(export.number);
                    self.handles.export_ended(export.number, ForgetReason::Noproc);
                }
            }
        }
        for reference in references {
            if let Sent::Reference { number, owner } = self.handles.send_reference(&[self.name, b'r', *reference]) {
                copies.push(Wire::Reference { number, owner });
            }
        }
        self.lanes[lane].push_back(Message { copies, to });
        self.tell();
    }

    fn tell(&mut self) {
        self.wire.extend(self.handles.releases.drain(..).map(Frame::Release));
        for number in self.handles.unexported.drain(..) {
            assert!(self.watched.remove(&number).is_some(), "what was told is what was watched");
        }
    }

    fn flush(&mut self, lane: usize) {
        if let Some(message) = self.lanes[lane].pop_front() {
            let to = message.to.map(|number| Wire::Pid { number, owner: Owner::Receiver });
            let copies: Vec<_> = message.copies.iter().copied().chain(to).collect();
            self.wire.push_back(Frame::Message(message));
            copies.into_iter().for_each(|copy| self.handles.left(copy));
            self.tell();
        }
    }

    fn lose(&mut self, lane: usize) {
        if let Some(message) = self.lanes[lane].pop_front() {
            let to = message.to.map(|number| Wire::Pid { number, owner: Owner::Receiver });
            message.copies.iter().copied().chain(to).for_each(|copy| self.handles.unsend(copy));
            self.tell();
        }
    }

    fn die(&mut self, process: u8) {
        let raw = self.raw(process);
        self.incarnations[usize::from(process)] += 1;
        let ended: Vec<u64> =
            self.watched.iter().filter(|(_, pid)| ***pid == *raw).map(|(number, _)| *number).collect();
        for number in ended {
            self.watched.remove(&number);
            self.ended.insert(number);
            assert!(self.handles.export_ended(number, ForgetReason::Crashed));
        }
        self.tell();
    }

    /// One frame of the peer's. `use_it`: the driver delivers it, or not.
    fn receive(&mut self, frame: Frame, use_it: bool) {
        match frame {
            Frame::Message(message) => {
                if let Some(number) = message.to {
                    assert!(self.knows(number), "it is known as long as it lives and somebody writes to it");
                }
                for copy in message.copies {
                    match copy {
                        Wire::Pid { number, owner: Owner::Sender } => self.take(number, use_it),
                        Wire::Pid { number, owner: Owner::Receiver } => {
                            assert!(self.knows(number), "it is known as long as it lives and may come home");
                        }
                        Wire::Reference { number, owner: Owner::Sender } => {
                            if use_it && self.handles.reference(number).is_none() {
                                self.next_stand_in += 1;
                                let raw = [&[self.name, b'i'][..], &self.next_stand_in.to_be_bytes()].concat();
                                self.handles.bind_reference(number, &raw);
                            }
                            self.handles.settle_reference(number);
                        }
                        _ => unreachable!("nobody sends it here"),
                    }
                }
            }
            Frame::Release(Release::Ended { number, .. }) => {
                self.handles.import_ended(number);
                if let Some(at) = self.stand_ins.iter().position(|known| *known == number) {
                    self.stand_ins.swap_remove(at);
                }
                let outcome = self.handles.drop_import(number, false);
                assert_ne!(outcome, DropOutcome::InUse);
            }
            Frame::Release(Release::Dropped { number, count }) => self.handles.dropped(number, count).unwrap(),
            Frame::Release(Release::DroppedReference { number, count }) => {
                self.handles.dropped_reference(number, count).unwrap();
            }
            Frame::Release(Release::Call(_)) => unreachable!("nobody calls here"),
        }
        self.tell();
    }

    fn knows(&self, number: u64) -> bool {
        self.ended.contains(&number) || self.handles.is_exported(number)
    }

    fn take(&mut self, number: u64, use_it: bool) {
        if use_it && self.handles.import(number).is_none() {
            self.next_stand_in += 1;
            let raw = [&[self.name, b's'][..], &self.next_stand_in.to_be_bytes()].concat();
            if self.handles.bind_import(number, &raw).is_ok() {
                self.stand_ins.push(number);
            }
        }
        self.handles.settle(number);
    }

    fn drop_one(&mut self, which: usize) {
        if self.stand_ins.is_empty() {
            return;
        }
        let at = which % self.stand_ins.len();
        match self.handles.drop_import(self.stand_ins[at], false) {
            DropOutcome::Dropped { .. } => drop(self.stand_ins.swap_remove(at)),
            DropOutcome::InUse => {}
            DropOutcome::Unknown => panic!("a stand-in that the table doesn't know"),
        }
        self.tell();
    }

    fn stand_in(&self, which: usize) -> Option<u64> {
        (!self.stand_ins.is_empty()).then(|| self.stand_ins[which % self.stand_ins.len()])
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send { side: usize, lane: usize, processes: Vec<u8>, home: Vec<usize>, references: Vec<u8>, to: Option<usize> },
    Flush { side: usize, lane: usize },
    Lose { side: usize, lane: usize },
    Deliver { side: usize, use_it: bool },
    Die { side: usize, process: u8 },
    Drop { side: usize, which: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let few = |range: std::ops::Range<u8>| prop::collection::vec(range, 0..3);
    let side = 0..2usize;
    let lane = 0..3usize;
    prop_oneof![
        4 => (
            side.clone(),
            lane.clone(),
            few(0..PROCESSES),
            prop::collection::vec(0..9usize, 0..2),
            few(0..9),
            prop::option::of(0..9usize)
        )
            .prop_map(|(side, lane, processes, home, references, to)| Step::Send {
                side, lane, processes, home, references, to
            }),
        4 => (side.clone(), lane.clone()).prop_map(|(side, lane)| Step::Flush { side, lane }),
        1 => (side.clone(), lane).prop_map(|(side, lane)| Step::Lose { side, lane }),
        5 => (side.clone(), prop::bool::weighted(0.8)).prop_map(|(side, use_it)| Step::Deliver { side, use_it }),
        1 => (side.clone(), 0..PROCESSES).prop_map(|(side, process)| Step::Die { side, process }),
        2 => (side, 0..9usize).prop_map(|(side, which)| Step::Drop { side, which }),
    ]
}

fn run(sides: &mut [Side; 2], step: Step) {
    match step {
        Step::Send { side, lane, processes, home, references, to } => {
            let sender = &mut sides[side];
            let mut raws: Vec<_> = processes.into_iter().map(|process| sender.raw(process)).collect();
            let home = home.into_iter().filter_map(|which| sender.stand_in(which));
            raws.extend(home.filter_map(|number| sender.handles.import(number).map(|raw| raw.to_vec())));
            let to = to.and_then(|which| sender.stand_in(which));
            sender.send(lane, &raws, &references, to);
        }
        Step::Flush { side, lane } => sides[side].flush(lane),
        Step::Lose { side, lane } => sides[side].lose(lane),
        Step::Deliver { side, use_it } => {
            if let Some(frame) = sides[1 - side].wire.pop_front() {
                sides[side].receive(frame, use_it);
            }
        }
        Step::Die { side, process } => sides[side].die(process),
        Step::Drop { side, which } => sides[side].drop_one(which),
    }
}

/// Everything is sent and delivered, until nothing is left to say.
fn settle(sides: &mut [Side; 2]) {
    loop {
        for side in sides.iter_mut() {
            for lane in 0..3 {
                while !side.lanes[lane].is_empty() {
                    side.flush(lane);
                }
            }
        }
        let mut quiet = true;
        for side in 0..2 {
            while let Some(frame) = sides[1 - side].wire.pop_front() {
                quiet = false;
                sides[side].receive(frame, true);
            }
        }
        if quiet {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_crosses_in_whatever_order_nothing_is_lost_early_and_nothing_is_left(
        steps in prop::collection::vec(any_step(), 0..200),
        handles_max in prop_oneof![Just(3usize), Just(1_000)],
        references_max in prop_oneof![Just(2usize), Just(1_000)],
    ) {
        let mut sides = [Side::new(b'A', handles_max, references_max), Side::new(b'B', handles_max, references_max)];
        for step in steps {
            run(&mut sides, step);
            for side in &sides {
                prop_assert!(side.handles.bound <= handles_max);
                prop_assert!(side.handles.sizes()[2..].iter().all(|references| *references <= references_max));
            }
        }
        settle(&mut sides);
        // What has ended has been told: all that is left is alive, and is known to who gave it.
        for (side, other) in [(0, 1), (1, 0)] {
            for number in sides[side].stand_ins.clone() {
                let raw = sides[other].handles.export_pid(number).cloned();
                prop_assert!(raw.is_some_and(|raw| sides[other].is_alive(&raw)));
            }
            let numbers: HashSet<_> = sides[side].stand_ins.iter().collect();
            prop_assert_eq!(numbers.len(), sides[side].handles.bound);
        }
        for side in &mut sides {
            while !side.stand_ins.is_empty() {
                side.drop_one(0);
            }
        }
        settle(&mut sides);
        for side in &mut sides {
            prop_assert!(side.watched.is_empty());
            let references = side.handles.their_references.by_number.len();
            prop_assert!(references <= references_max);
            // References have no end but the session's: as if each had been pushed out by a newer one.
            let theirs = &mut side.handles;
            theirs.references_max = 0;
            theirs.bind_reference(u64::MAX, b"last");
            while let Some((number, oldest)) = theirs.their_references.evict(0) {
                theirs.locals.remove(&oldest.raw);
                if oldest.count > 0 {
                    theirs.releases.push(Release::DroppedReference { number, count: oldest.count });
                }
            }
            side.tell();
        }
        settle(&mut sides);
        for side in &sides {
            prop_assert!(side.handles.is_empty(), "{:?}", side.handles);
        }
    }
}

#[test]
fn a_million_pids_leave_nothing_behind() {
    let mut sides = [Side::new(b'A', 65_536, 65_536), Side::new(b'B', 65_536, 65_536)];
    for number in 0..1_000_000u32 {
        sides[0].incarnations[0] = number;
        let raw = sides[0].raw(0);
        sides[0].send(0, &[raw], &[], None);
        sides[0].flush(0);
        if number % 1_000 == 999 {
            settle(&mut sides);
            // Half of them end, half become idle.
            let watched: Vec<u64> = sides[0].watched.keys().copied().collect();
            for number in watched.into_iter().filter(|number| number % 2 == 0) {
                sides[0].watched.remove(&number);
                assert!(sides[0].handles.export_ended(number, ForgetReason::Normal));
            }
            sides[0].tell();
            settle(&mut sides);
            assert_eq!(sides[1].stand_ins.len(), 500);
            while !sides[1].stand_ins.is_empty() {
                sides[1].drop_one(0);
            }
            settle(&mut sides);
        }
    }
    assert!(sides[0].handles.is_empty() && sides[1].handles.is_empty());
    assert_eq!(sides[0].handles.exports.last, 1_000_000, "each had a number of its own");
}

fn export(handles: &mut Handles, raw: &[u8]) -> u64 {
    handles.export(raw, &mut Vec::new()).unwrap()
}

#[test]
fn exports_are_bounded_at_the_limit_and_one_past_it() {
    let mut handles = Handles::new(2, 2);
    let first = export(&mut handles, b"1");
    export(&mut handles, b"2");
    assert_eq!(handles.export(b"3", &mut Vec::new()), Err(NoRoom));
    assert_eq!(export(&mut handles, b"1"), first, "what is known needs no room");
    assert_eq!(handles.over_limit, 1);
    handles.dropped(first, 2).unwrap();
    assert_eq!(handles.unexported, [first]);
    assert_ne!(export(&mut handles, b"3"), first);
}

#[test]
fn stand_ins_are_bounded_at_the_limit_and_one_past_it() {
    let mut handles = Handles::new(2, 2);
    handles.bind_import(1, b"1").unwrap();
    handles.bind_import(2, b"2").unwrap();
    assert_eq!(handles.bind_import(3, b"3"), Err(NoRoom));
    assert!(handles.bind_import(2, b"4").is_ok(), "another one in its place");
    assert_eq!(handles.drop_import(1, false), DropOutcome::Dropped { wake: false });
    assert!(handles.bind_import(3, b"3").is_ok());
}

#[test]
fn the_longest_unused_reference_gives_way() {
    let mut handles = Handles::new(2, 2);
    let mut number = |raw: &[u8]| match handles.send_reference(raw) {
        Sent::Reference { number, owner: Owner::Sender } => number,
        sent => panic!("{sent:?}"),
    };
    let (first, second) = (number(b"1"), number(b"2"));
    assert_eq!(number(b"1"), first, "used once more");
    let third = number(b"3");
    assert!(handles.knows_own_reference(first) && handles.knows_own_reference(third));
    assert!(!handles.knows_own_reference(second));
    assert_eq!(handles.evicted, 1);

    handles.bind_reference(7, b"seven");
    handles.settle_reference(7);
    handles.bind_reference(8, b"eight");
    handles.settle_reference(8);
    assert_eq!(handles.send_reference(b"seven"), Sent::Reference { number: 7, owner: Owner::Receiver });
    handles.bind_reference(9, b"nine");
    assert_eq!(handles.releases, [Release::DroppedReference { number: 8, count: 1 }]);
    assert!(matches!(handles.send_reference(b"eight"), Sent::Reference { owner: Owner::Sender, .. }));
}

#[test]
fn more_copies_than_were_sent_cannot_be_dropped() {
    let mut handles = Handles::new(2, 2);
    let number = export(&mut handles, b"1");
    assert_eq!(handles.dropped(number, 2), Err(MoreThanSent));
    assert_eq!(handles.dropped(number + 1, 2), Ok(()), "an unknown number is nobody's");
    handles.send_reference(b"r");
    assert_eq!(handles.dropped_reference(1, 2), Err(MoreThanSent));
}

#[test]
fn a_pid_that_has_ended_and_is_sent_again_has_a_new_number() {
    let mut handles = Handles::new(2, 2);
    let number = export(&mut handles, b"1");
    assert!(handles.export_ended(number, ForgetReason::Killed));
    assert_eq!(handles.releases, [Release::Ended { number, reason: ForgetReason::Killed }]);
    assert!(handles.export_pid(number).is_some() && !handles.is_exported(number));
    assert_ne!(export(&mut handles, b"1"), number);
    handles.dropped(number, 1).unwrap();
    assert_eq!(handles.export_pid(number), None);
    assert_eq!(handles.unexported, [], "its end was the driver's news");
}

#[test]
fn a_copy_that_leaves_the_queue_after_the_end_is_followed_by_the_end() {
    let mut handles = Handles::new(2, 2);
    let number = export(&mut handles, b"1");
    handles.export_ended(number, ForgetReason::Crashed);
    handles.releases.clear();
    handles.left(Wire::Pid { number, owner: Owner::Sender });
    assert_eq!(handles.releases, [Release::Ended { number, reason: ForgetReason::Crashed }]);
}

#[test]
fn a_proxy_goes_home_as_its_engine_until_it_is_unbound() {
    let mut handles = Handles::new(2, 2);
    handles.bind_engine(b"p1", "ping");
    handles.bind_engine(b"p2", "ping");
    let mut exported = Vec::new();
    assert_eq!(handles.send_pid(b"p2", &mut exported), Ok(Sent::Engine("ping".into())));
    assert!(matches!(handles.send_pid(b"p1", &mut exported), Ok(Sent::Pid { owner: Owner::Sender, .. })), "replaced");
    handles.unbind(b"p2");
    assert!(matches!(handles.send_pid(b"p2", &mut exported), Ok(Sent::Pid { owner: Owner::Sender, .. })));
    assert_eq!(exported.len(), 2);
}

#[test]
fn copies_that_nobody_wants_are_told_together() {
    let mut handles = Handles::new(2, 2);
    handles.settle(1);
    handles.settle(1);
    handles.settle(2);
    handles.settle_reference(2);
    assert_eq!(
        handles.releases,
        [
            Release::Dropped { number: 1, count: 2 },
            Release::Dropped { number: 2, count: 1 },
            Release::DroppedReference { number: 2, count: 1 }
        ]
    );
}

#[test]
fn a_copy_that_is_used_after_the_end_has_come_has_a_stand_in_that_goes_with_it() {
    let mut handles = Handles::new(2, 2);
    handles.import_ended(7);
    handles.bind_import(7, b"stand-in").unwrap();
    handles.settle(7);
    assert!(!handles.address(7), "nobody writes to it any more");
    assert_eq!(handles.drop_import(7, true), DropOutcome::Dropped { wake: false });
    assert_eq!(handles.releases, [Release::Dropped { number: 7, count: 1 }]);
    assert_eq!(handles.sizes(), [0; 4]);
}
