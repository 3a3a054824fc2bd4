//! The processes of our node: numbers, names, who watches whom.
//!
//! ```text
//!  pid <0.id.serial>  ◄── number = serial << 28 | id, never given twice
//!  name 'ping@bob'    ──► number
//!  number ──► Process { body, monitors, links }
//! ```
//!
//! Pure data behind one lock; nothing here sends. What ends a process returns who has to be told.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dist::term::Pid;

/// What a process number looks like as a pid: 28 bits of id, and the rest as serial.
const ID_BITS: u32 = 28;

/// The process that speaks for the node itself: it asks, watches, and sends what has no other sender.
pub const AGENT: u64 = 1;

/// Of one process of ours, for one incarnation of this node.
#[derive(Debug)]
pub struct Space<B> {
    next: u64,
    processes: HashMap<u64, Process<B>>,
    names: HashMap<Box<str>, u64>,
}

#[derive(Debug)]
pub struct Process<B> {
    pub body: Arc<B>,
    /// Registered names of this process.
    names: Vec<Box<str>>,
    monitors: HashMap<MonitorKey, Monitor>,
    /// Pids (raw) of BEAM processes linked to it, with the connection they came by.
    links: HashMap<Box<[u8]>, u64>,
}

/// A monitor is known by the connection and its reference: the watcher's node makes a reference once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MonitorKey {
    pub node: u64,
    pub words: [u32; 5],
}

/// Who watches, and what has to be repeated in the `DOWN`.
#[derive(Debug)]
pub struct Monitor {
    /// Pid and reference, raw, one behind the other.
    terms: Box<[u8]>,
    pid_bytes: usize,
    /// By which name it watches; none: by pid.
    pub name: Option<Box<[u8]>>,
    /// The call that this monitor guards: session and call id.
    pub call: Option<(u64, u64)>,
}

impl Monitor {
    pub fn new(watcher: &[u8], reference: &[u8], name: Option<&[u8]>) -> Monitor {
        let terms = [watcher, reference].concat().into_boxed_slice();
        Monitor { terms, pid_bytes: watcher.len(), name: name.map(Box::from), call: None }
    }

    pub fn watcher(&self) -> &[u8] {
        &self.terms[..self.pid_bytes]
    }

    pub fn reference(&self) -> &[u8] {
        &self.terms[self.pid_bytes..]
    }
}

/// Who has to be told that a process has ended.
#[derive(Debug)]
pub struct Ended<B> {
    pub body: Arc<B>,
    pub monitors: HashMap<MonitorKey, Monitor>,
    pub links: HashMap<Box<[u8]>, u64>,
}

/// The pid of a process number: id and serial.
pub fn pid_of(number: u64) -> (u32, u32) {
    ((number & ((1 << ID_BITS) - 1)) as u32, (number >> ID_BITS) as u32)
}

/// The process number of a pid. No pid of ours has a larger id, so such a one gives a number that nobody has.
pub fn number_of(pid: &Pid<'_>) -> Option<u64> {
    (pid.id < 1 << ID_BITS).then_some(u64::from(pid.serial) << ID_BITS | u64::from(pid.id))
}

impl<B> Space<B> {
    pub fn new() -> Space<B> {
        Space { next: AGENT, processes: HashMap::new(), names: HashMap::new() }
    }

    pub fn spawn(&mut self, body: Arc<B>) -> u64 {
        let number = self.next;
        self.next += 1;
        let process = Process { body, names: Vec::new(), monitors: HashMap::new(), links: HashMap::new() };
        self.processes.insert(number, process);
        number
    }

    /// The number of a process that there isn't, and never was.
    pub fn nobody(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Somebody monitors it, or is linked to it.
    pub fn is_watched(&self, number: u64) -> bool {
        let watched = |process: &Process<B>| !process.monitors.is_empty() || !process.links.is_empty();
        self.processes.get(&number).is_some_and(watched)
    }

    /// False when the name is taken, or there is no such process.
    pub fn register(&mut self, name: &str, number: u64) -> bool {
        if self.names.contains_key(name) {
            return false;
        }
        let Some(process) = self.processes.get_mut(&number) else {
            return false;
        };
        process.names.push(name.into());
        self.names.insert(name.into(), number);
        true
    }

    pub fn whereis(&self, name: &[u8]) -> Option<u64> {
        std::str::from_utf8(name).ok().and_then(|name| self.names.get(name)).copied()
    }

    pub fn get(&self, number: u64) -> Option<&Arc<B>> {
        self.processes.get(&number).map(|process| &process.body)
    }

    pub fn len(&self) -> usize {
        self.processes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Arc<B>)> {
        self.processes.iter().map(|(number, process)| (*number, &process.body))
    }

    /// False when there is no such process.
    pub fn monitor(&mut self, number: u64, key: MonitorKey, monitor: Monitor) -> bool {
        match self.processes.get_mut(&number) {
            Some(process) => {
                process.monitors.insert(key, monitor);
                true
            }
            None => false,
        }
    }

    pub fn demonitor(&mut self, number: u64, key: &MonitorKey) -> Option<Monitor> {
        self.processes.get_mut(&number)?.monitors.remove(key)
    }

    /// The monitor guards this call: when it goes, nobody waits for the answer any more.
    pub fn guard_call(&mut self, number: u64, key: &MonitorKey, session: u64, call_id: u64) {
        let process = self.processes.get_mut(&number);
        if let Some(monitor) = process.and_then(|process| process.monitors.get_mut(key)) {
            monitor.call = Some((session, call_id));
        }
    }

    /// False when there is no such process.
    pub fn link(&mut self, number: u64, pid: &[u8], node: u64) -> bool {
        match self.processes.get_mut(&number) {
            Some(process) => {
                process.links.insert(pid.into(), node);
                true
            }
            None => false,
        }
    }

    pub fn unlink(&mut self, number: u64, pid: &[u8]) -> bool {
        self.processes.get_mut(&number).is_some_and(|process| process.links.remove(pid).is_some())
    }

    /// Ends a process: its names are free, and its watchers are the caller's to tell.
    pub fn end(&mut self, number: u64) -> Option<Ended<B>> {
        let process = self.processes.remove(&number)?;
        for name in &process.names {
            self.names.remove(name);
        }
        Some(Ended { body: process.body, monitors: process.monitors, links: process.links })
    }

    /// A connection is over: what its processes watched is watched no more. Returns the calls that were guarded.
    pub fn forget_node(&mut self, node: u64) -> Vec<(u64, u64)> {
        let mut calls = Vec::new();
        for process in self.processes.values_mut() {
            process.links.retain(|_, by| *by != node);
            if process.monitors.is_empty() {
                continue;
            }
            process.monitors.retain(|key, monitor| {
                let keep = key.node != node;
                if let (false, Some(call)) = (keep, monitor.call) {
                    calls.push(call);
                }
                keep
            });
        }
        calls
    }
}

impl<B> Default for Space<B> {
    fn default() -> Self {
        Space::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: u64, word: u32) -> MonitorKey {
        MonitorKey { node, words: [word, 0, 0, 0, 0] }
    }

    fn pid(id: u32, serial: u32) -> Pid<'static> {
        Pid { raw: b"", node: b"n@h", id, serial, creation: 1 }
    }

    #[test]
    fn the_first_process_is_the_agent_and_numbers_are_never_given_twice() {
        let mut space = Space::new();
        assert_eq!(space.spawn(Arc::new(())), AGENT);
        let second = space.spawn(Arc::new(()));
        space.end(second);
        let nobody = space.nobody();
        assert!(nobody > second && space.get(nobody).is_none());
        assert!(space.spawn(Arc::new(())) > nobody);
    }

    #[test]
    fn a_pid_and_its_number_are_the_same_thing() {
        for number in [1, (1 << ID_BITS) - 1, 1 << ID_BITS, (1 << 40) + 77] {
            let (id, serial) = pid_of(number);
            assert_eq!(number_of(&pid(id, serial)), Some(number));
        }
        assert_eq!(number_of(&pid(1 << ID_BITS, 0)), None, "no second spelling");
    }

    #[test]
    fn a_name_is_taken_once_and_free_when_its_process_ends() {
        let mut space = Space::new();
        let (one, two) = (space.spawn(Arc::new(1)), space.spawn(Arc::new(2)));
        assert!(space.register("a", one));
        assert!(!space.register("a", two));
        assert_eq!(space.whereis(b"a"), Some(one));
        space.end(one);
        assert_eq!(space.whereis(b"a"), None);
        assert!(space.register("a", two));
        assert!(!space.register("b", one), "it has ended");
    }

    #[test]
    fn a_process_that_ends_gives_its_watchers() {
        let mut space = Space::new();
        let number = space.spawn(Arc::new(()));
        assert!(space.monitor(number, key(1, 7), Monitor::new(b"pid", b"reference", Some(b"name"))));
        assert!(space.monitor(number, key(2, 7), Monitor::new(b"other", b"ref", None)));
        assert!(space.is_watched(number));
        assert!(space.link(number, b"linked", 1));
        let ended = space.end(number).unwrap();
        assert_eq!((ended.monitors.len(), ended.links.len()), (2, 1));
        let monitor = &ended.monitors[&key(1, 7)];
        assert_eq!((monitor.watcher(), monitor.reference()), (&b"pid"[..], &b"reference"[..]));
        assert!(!space.monitor(number, key(1, 8), Monitor::new(b"", b"", None)));
        assert!(!space.link(number, b"linked", 1));
    }

    #[test]
    fn a_connection_that_is_over_takes_its_monitors_links_and_calls_along() {
        let mut space = Space::new();
        let number = space.spawn(Arc::new(()));
        space.monitor(number, key(1, 1), Monitor::new(b"p", b"r", None));
        space.guard_call(number, &key(1, 1), 5, 9);
        space.monitor(number, key(2, 1), Monitor::new(b"q", b"r", None));
        space.link(number, b"p", 1);
        space.link(number, b"q", 2);
        assert_eq!(space.forget_node(1), [(5, 9)]);
        let ended = space.end(number).unwrap();
        assert_eq!((ended.monitors.len(), ended.links.len()), (1, 1));
    }
}
