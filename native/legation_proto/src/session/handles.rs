//! The tables of handles: which pids and references each side has given to the other, and for how long (`protocol.md` 13.5).
//!
//! ```text
//!   our process ── raw pid ──► Export ── number ──►  wire  ──► Import ── raw pid ──► its stand-in
//!                              sent: copies           │        received: copies
//!                                                     ◄─────── dropped{number, received}
//!                              ended{number} ─────────►
//! ```
//!
//! **Exports** are ours. An export is made when an identifier is first sent, and is forgotten when the peer has dropped
//! every copy that was sent. **Imports** are the peer's. An import is made when a number first comes, and goes when the
//! driver drops its stand-in. *Raw* is the identifier in external term format, as the driver writes it.
//!
//! Invariants, for pids and for references:
//!
//! 1. `sent` = copies that wait in our queue + copies on their way + copies that the peer's driver has been handed but has not
//!    settled + `received` at the peer + `dropped` that is on its way back. So 0 means that the peer has nothing of it.
//! 2. A number is given once. What a peer still says of one that we have forgotten can't hit another process.
//! 3. An export whose process has ended stays until 1 is 0, but is found by its number alone: a new pid with the same
//!    bytes gets a new number. Whenever a copy of it leaves the queue its end is told once more, as the peer may have dropped
//!    it in between. So every import of a process that has ended is told so after it was made.
//! 4. An import without a stand-in exists only while something of it is in service (`Calls`), or from its end until the driver has
//!    heard of it.
//! 5. An import is not dropped while a copy of it waits in our queue to go home (`queued`): the exporter knows each
//!    handle that comes home, as long as its process lives.
//! 6. Stand-ins and numbers are one to one, and an engine has one proxy: two different handles are two different pids.
//!
//! Nothing here is told to anybody: what must go to the peer collects in `releases`, what the driver must hear in `unexported`.

mod references;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::etf::{IdentifierKind, Owner, Place, Wire};
use crate::frame::forget::ForgetReason;
use crate::frame::handle_release::Release;

use references::References;

/// A process of ours that the peer has been given for the first time: the driver watches it, and says
/// [`crate::session::Session::export_ended`] when it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub number: u64,
    /// External term format without the leading 131.
    pub pid: Arc<[u8]>,
}

/// No room for another: `handles_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of handles is full")]
pub struct NoRoom;

/// What has become of a request to drop a stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropOutcome {
    /// It is forgotten. True: wake the Writer.
    Dropped {
        wake: bool,
    },
    /// Calls from it or to it are in flight, or messages that name it wait to go out.
    InUse,
    Unknown,
}

/// The peer says that it has dropped more copies than we have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoreThanSent;

#[derive(Debug)]
pub(crate) struct Handles {
    handles_max: usize,
    references_max: usize,
    exports: Exports,
    /// Under the raw bytes of what stands here for something of the peer's.
    locals: HashMap<Arc<[u8]>, Local>,
    engines: HashMap<Arc<str>, Arc<[u8]>>,
    imports: HashMap<u64, Import>,
    /// Imports that have a stand-in.
    bound: usize,
    own_references: References,
    their_references: References,
    /// For the peer, in order.
    pub releases: Vec<Release>,
    /// For the driver: exports that it need not watch any more.
    pub unexported: Vec<u64>,
    /// References that gave way to newer ones.
    pub evicted: u64,
    /// How often there was no room.
    pub over_limit: u64,
}

#[derive(Clone, Debug)]
enum Local {
    Pid(u64),
    Engine(Arc<str>),
    Reference(u64),
}

#[derive(Debug, Default)]
struct Exports {
    last: u64,
    by_raw: HashMap<Arc<[u8]>, u64>,
    by_number: HashMap<u64, Export>,
    /// How many of them have ended.
    ended: usize,
}

#[derive(Debug)]
struct Export {
    raw: Arc<[u8]>,
    sent: u64,
    /// Our calls in flight whose caller it is: the driver has to hear of its end.
    calls: u32,
    ended: Option<ForgetReason>,
}

#[derive(Debug, Default)]
struct Import {
    received: u64,
    local: Option<Arc<[u8]>>,
    queued: u32,
    ended: bool,
}

/// What an identifier of an outgoing payload is, once it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Pid { number: u64, owner: Owner },
    Engine(Arc<str>),
    Reference { number: u64, owner: Owner },
}

impl Sent {
    pub fn wire(&self) -> Wire<'_> {
        match self {
            Sent::Pid { number, owner } => Wire::Pid { number: *number, owner: *owner },
            Sent::Engine(name) => Wire::Engine(name),
            Sent::Reference { number, owner } => Wire::Reference { number: *number, owner: *owner },
        }
    }
}

/// What a message has been counted for.
#[derive(Debug)]
pub(crate) struct Counted {
    /// The number of who it is from, if it has to say so.
    pub caller: Option<u64>,
    /// Of each place in its payload.
    pub sent: Vec<Sent>,
}

/// Why a message can't be counted. Nothing of it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotCounted {
    Full,
    /// It is to a process that is not known (any more).
    Unknown,
}

impl Handles {
    pub fn new(handles_max: usize, references_max: usize) -> Handles {
        Handles {
            handles_max,
            references_max,
            exports: Exports::default(),
            locals: HashMap::new(),
            engines: HashMap::new(),
            imports: HashMap::new(),
            bound: 0,
            own_references: References::default(),
            their_references: References::default(),
            releases: Vec::new(),
            unexported: Vec::new(),
            evicted: 0,
            over_limit: 0,
        }
    }

    // What goes out.

    /// Counts all that a message gives away or brings home: who it is to and from, and the places in its payload.
    pub fn count(
        &mut self,
        to: Option<u64>,
        from: Option<&[u8]>,
        places: &[Place<'_>],
        exported: &mut Vec<Exported>,
    ) -> Result<Counted, NotCounted> {
        if to.is_some_and(|number| !self.address(number)) {
            return Err(NotCounted::Unknown);
        }
        let mut counted = Counted { caller: None, sent: Vec::with_capacity(places.len()) };
        let mut all = || {
            if let Some(raw) = from {
                counted.caller = Some(self.export(raw, exported)?);
            }
            for place in places {
                let sent = match place.kind {
                    IdentifierKind::Pid => self.send_pid(place.raw, exported)?,
                    _ => self.send_reference(place.raw),
                };
                counted.sent.push(sent);
            }
            Ok::<(), NoRoom>(())
        };
        match all() {
            Ok(()) => Ok(counted),
            Err(NoRoom) => {
                self.uncount(&counted, to, exported);
                Err(NotCounted::Full)
            }
        }
    }

    /// Takes it all back: the message doesn't go. What was exported with it was not told to the driver.
    pub fn uncount(&mut self, counted: &Counted, to: Option<u64>, exported: &mut Vec<Exported>) {
        let caller = counted.caller.map(|number| Wire::Pid { number, owner: Owner::Sender });
        let to = to.map(|number| Wire::Pid { number, owner: Owner::Receiver });
        for copy in counted.sent.iter().map(Sent::wire).chain(caller).chain(to) {
            self.unsend(copy);
        }
        self.never_told(exported, 0);
    }

    /// Counts a pid that goes into a payload: one of ours, or one that goes home.
    pub fn send_pid(&mut self, raw: &[u8], exported: &mut Vec<Exported>) -> Result<Sent, NoRoom> {
        match self.locals.get(raw) {
            Some(Local::Pid(number)) => {
                let number = *number;
                self.queue_for(number);
                Ok(Sent::Pid { number, owner: Owner::Receiver })
            }
            Some(Local::Engine(name)) => Ok(Sent::Engine(name.clone())),
            _ => self.export(raw, exported).map(|number| Sent::Pid { number, owner: Owner::Sender }),
        }
    }

    /// Counts a pid of ours that the peer is given, whatever stands behind it here.
    pub fn export(&mut self, raw: &[u8], exported: &mut Vec<Exported>) -> Result<u64, NoRoom> {
        let Exports { last, by_raw, by_number, .. } = &mut self.exports;
        if let Some(number) = by_raw.get(raw) {
            if let Some(export) = by_number.get_mut(number) {
                export.sent += 1;
                return Ok(*number);
            }
        }
        if by_number.len() >= self.handles_max {
            self.over_limit += 1;
            return Err(NoRoom);
        }
        *last += 1;
        let pid: Arc<[u8]> = raw.into();
        by_raw.insert(pid.clone(), *last);
        by_number.insert(*last, Export { raw: pid.clone(), sent: 1, calls: 0, ended: None });
        exported.push(Exported { number: *last, pid });
        Ok(*last)
    }

    /// Counts a reference that goes into a payload.
    pub fn send_reference(&mut self, raw: &[u8]) -> Sent {
        match self.locals.get(raw) {
            Some(Local::Reference(number)) => {
                let number = *number;
                self.their_references.touch(number);
                Sent::Reference { number, owner: Owner::Receiver }
            }
            _ => {
                let number = self.own_references.count_own(raw);
                if self.own_references.evict(self.references_max).is_some() {
                    self.evicted += 1;
                }
                Sent::Reference { number, owner: Owner::Sender }
            }
        }
    }

    /// Counts a message to one of the peer's processes. False: it is not known here (any more), or has ended.
    pub fn address(&mut self, number: u64) -> bool {
        let alive = self.imports.get(&number).is_some_and(|import| !import.ended);
        if alive {
            self.queue_for(number);
        }
        alive
    }

    fn queue_for(&mut self, number: u64) {
        if let Some(import) = self.imports.get_mut(&number) {
            import.queued += 1;
        }
    }

    /// A copy has left the queue. If its process has ended meanwhile the peer is told so behind it.
    pub fn left(&mut self, copy: Wire<'_>) {
        match copy {
            Wire::Pid { number, owner: Owner::Sender } => {
                if let Some(reason) = self.exports.by_number.get(&number).and_then(|export| export.ended) {
                    self.releases.push(Release::Ended { number, reason });
                }
            }
            Wire::Pid { number, owner: Owner::Receiver } => {
                if let Some(import) = self.imports.get_mut(&number) {
                    import.queued = import.queued.saturating_sub(1);
                }
            }
            Wire::Engine(_) | Wire::Reference { .. } => {}
        }
    }

    /// A copy was never sent: its message was dropped, or there was no room for it.
    pub fn unsend(&mut self, copy: Wire<'_>) {
        match copy {
            Wire::Pid { number, owner: Owner::Sender } => {
                if let Some(export) = self.exports.by_number.get_mut(&number) {
                    export.sent = export.sent.saturating_sub(1);
                    self.forget_unused(number);
                }
            }
            Wire::Reference { number, owner: Owner::Sender } => {
                let _ = self.own_references.subtract(number, 1);
            }
            Wire::Pid { owner: Owner::Receiver, .. } => self.left(copy),
            Wire::Engine(_) | Wire::Reference { .. } => {}
        }
    }

    /// A copy of a process of ours was never sent, and what was exported from `before` on with it is nobody's to watch.
    pub fn unsend_pid(&mut self, number: u64, exported: &mut Vec<Exported>, before: usize) {
        self.unsend(Wire::Pid { number, owner: Owner::Sender });
        self.never_told(exported, before);
    }

    /// Exports that the driver was not told of need no end.
    pub fn never_told(&mut self, exported: &mut Vec<Exported>, before: usize) {
        let numbers: HashSet<u64> = exported.drain(before..).map(|export| export.number).collect();
        if !numbers.is_empty() {
            self.unexported.retain(|number| !numbers.contains(number));
        }
    }

    /// A call of one of our processes is in flight: its export stays, whatever the peer drops.
    pub fn hold(&mut self, number: u64) {
        if let Some(export) = self.exports.by_number.get_mut(&number) {
            export.calls += 1;
        }
    }

    /// Such a call is over.
    pub fn unhold(&mut self, number: u64) {
        if let Some(export) = self.exports.by_number.get_mut(&number) {
            export.calls = export.calls.saturating_sub(1);
            self.forget_unused(number);
        }
    }

    /// A process of ours has ended. True: it was known, and not yet ended.
    pub fn export_ended(&mut self, number: u64, reason: ForgetReason) -> bool {
        let Some(export) = self.exports.by_number.get_mut(&number).filter(|export| export.ended.is_none()) else {
            return false;
        };
        export.ended = Some(reason);
        export.calls = 0;
        self.exports.by_raw.remove(&export.raw);
        self.exports.ended += 1;
        if export.sent > 0 {
            self.releases.push(Release::Ended { number, reason });
        }
        self.forget_unused(number);
        true
    }

    /// The peer has dropped copies of a process of ours.
    pub fn dropped(&mut self, number: u64, count: u64) -> Result<(), MoreThanSent> {
        let Some(export) = self.exports.by_number.get_mut(&number) else { return Ok(()) };
        export.sent = export.sent.checked_sub(count).ok_or(MoreThanSent)?;
        self.forget_unused(number);
        Ok(())
    }

    /// The peer has dropped copies of a reference of ours.
    pub fn dropped_reference(&mut self, number: u64, count: u64) -> Result<(), MoreThanSent> {
        self.own_references.subtract(number, count)
    }

    fn forget_unused(&mut self, number: u64) {
        let Exports { by_raw, by_number, ended, .. } = &mut self.exports;
        let unused = by_number.get(&number).is_some_and(|export| export.sent == 0 && export.calls == 0);
        if !unused {
            return;
        }
        if let Some(export) = by_number.remove(&number) {
            match export.ended {
                Some(_) => *ended -= 1,
                None => {
                    by_raw.remove(&export.raw);
                    self.unexported.push(number);
                }
            }
        }
    }

    /// The pid of ours behind a number, also after its end until the peer has heard of it.
    pub fn export_pid(&self, number: u64) -> Option<&Arc<[u8]>> {
        self.exports.by_number.get(&number).map(|export| &export.raw)
    }

    /// What is meant here by an identifier that we have sent. None for engines.
    pub fn raw_of(&self, wire: Wire<'_>) -> Option<Arc<[u8]>> {
        match wire {
            Wire::Pid { number, owner: Owner::Sender } => self.export_pid(number).cloned(),
            Wire::Pid { number, owner: Owner::Receiver } => self.import(number).cloned(),
            Wire::Reference { number, owner: Owner::Sender } => {
                self.own_references.by_number.get(&number).map(|reference| reference.raw.clone())
            }
            Wire::Reference { number, owner: Owner::Receiver } => self.reference(number).cloned(),
            Wire::Engine(_) => None,
        }
    }

    /// Exports whose process has ended, and that the peer has not dropped.
    pub fn ended(&self) -> usize {
        self.exports.ended
    }

    /// The process behind it lives, as far as we have heard.
    pub fn is_exported(&self, number: u64) -> bool {
        self.exports.by_number.get(&number).is_some_and(|export| export.ended.is_none())
    }

    /// The reference of ours behind a number.
    pub fn own_reference(&mut self, number: u64) -> Option<Arc<[u8]>> {
        self.own_references.touch(number);
        self.own_references.by_number.get(&number).map(|reference| reference.raw.clone())
    }

    pub fn knows_own_reference(&self, number: u64) -> bool {
        self.own_references.by_number.contains_key(&number)
    }

    // What comes in.

    /// What stands here for a process of the peer's.
    pub fn import(&self, number: u64) -> Option<&Arc<[u8]>> {
        self.imports.get(&number)?.local.as_ref()
    }

    /// Gives a process of the peer's its stand-in, in the place of an earlier one.
    pub fn bind_import(&mut self, number: u64, raw: &[u8]) -> Result<(), NoRoom> {
        if self.import(number).is_none() && self.bound >= self.handles_max {
            self.over_limit += 1;
            return Err(NoRoom);
        }
        self.unbind(raw);
        let raw: Arc<[u8]> = raw.into();
        let import = self.imports.entry(number).or_default();
        match import.local.replace(raw.clone()) {
            Some(earlier) => drop(self.locals.remove(&earlier)),
            None => self.bound += 1,
        }
        self.locals.insert(raw, Local::Pid(number));
        Ok(())
    }

    /// Whether so many more stand-ins can be bound.
    pub fn has_room_for(&mut self, more: usize) -> bool {
        let room = self.bound + more <= self.handles_max || more == 0;
        self.over_limit += u64::from(!room);
        room
    }

    /// A copy has come and has been used, or not. Without a stand-in for it nothing is kept.
    pub fn settle(&mut self, number: u64) {
        match self.imports.get_mut(&number) {
            Some(import) => import.received += 1,
            None => put_dropped(&mut self.releases, Release::Dropped { number, count: 1 }),
        }
    }

    /// A copy has come with something that is served for it: it is kept until [`Handles::served`], stand-in or not.
    pub fn serve(&mut self, number: u64) {
        self.imports.entry(number).or_default().received += 1;
    }

    /// Nothing is served for it any more: without a stand-in it is dropped.
    pub fn served(&mut self, number: u64) {
        if self.imports.get(&number).is_some_and(|import| import.local.is_none() && !import.ended) {
            self.remove_import(number);
        }
    }

    /// The peer says that it has ended. It is remembered, known or not, until the driver drops it: copies of before that the driver
    /// has not settled yet still get a stand-in, which nobody can use any more.
    pub fn import_ended(&mut self, number: u64) {
        self.imports.entry(number).or_default().ended = true;
    }

    /// A message that names it waits to go out.
    pub fn import_is_queued(&self, number: u64) -> bool {
        self.imports.get(&number).is_some_and(|import| import.queued > 0)
    }

    /// Forgets a process of the peer's, unless it is `in_use` or a message that names it waits to go out. One that has
    /// ended is forgotten in any case. [`DropOutcome::Dropped`] says nothing of the Writer here.
    pub fn drop_import(&mut self, number: u64, in_use: bool) -> DropOutcome {
        match self.imports.get(&number) {
            None => DropOutcome::Unknown,
            Some(import) if !import.ended && (in_use || import.queued > 0) => DropOutcome::InUse,
            Some(_) => {
                self.remove_import(number);
                DropOutcome::Dropped { wake: false }
            }
        }
    }

    fn remove_import(&mut self, number: u64) {
        let Some(import) = self.imports.remove(&number) else { return };
        if let Some(raw) = import.local {
            self.locals.remove(&raw);
            self.bound -= 1;
        }
        if import.received > 0 {
            self.releases.push(Release::Dropped { number, count: import.received });
        }
    }

    /// The proxy of an engine of the peer's, in the place of an earlier one.
    pub fn bind_engine(&mut self, raw: &[u8], name: &str) {
        self.unbind(raw);
        let (raw, name): (Arc<[u8]>, Arc<str>) = (raw.into(), name.into());
        if let Some(earlier) = self.engines.insert(name.clone(), raw.clone()) {
            self.locals.remove(&earlier);
        }
        self.locals.insert(raw, Local::Engine(name));
    }

    /// What these bytes stand for is forgotten, if it is an engine.
    pub fn unbind(&mut self, raw: &[u8]) {
        if let Some(Local::Engine(name)) = self.locals.get(raw) {
            let name = name.clone();
            self.engines.remove(&name);
            self.locals.remove(raw);
        }
    }

    /// What stands here for a reference of the peer's.
    pub fn reference(&self, number: u64) -> Option<&Arc<[u8]>> {
        self.their_references.by_number.get(&number).map(|reference| &reference.raw)
    }

    /// A reference of the peer's has come for the first time, and `raw` stands for it.
    pub fn bind_reference(&mut self, number: u64, raw: &[u8]) {
        let raw: Arc<[u8]> = raw.into();
        self.locals.insert(raw.clone(), Local::Reference(number));
        self.their_references.insert(number, raw, 0);
        if let Some((number, oldest)) = self.their_references.evict(self.references_max) {
            self.locals.remove(&oldest.raw);
            self.evicted += 1;
            if oldest.count > 0 {
                self.releases.push(Release::DroppedReference { number, count: oldest.count });
            }
        }
    }

    /// A copy of a reference has come and has been used, or not.
    pub fn settle_reference(&mut self, number: u64) {
        match self.their_references.by_number.get_mut(&number) {
            Some(reference) => {
                reference.count += 1;
                self.their_references.touch(number);
            }
            None => put_dropped(&mut self.releases, Release::DroppedReference { number, count: 1 }),
        }
    }

    /// Exported pids, imported pids, exported references, imported references.
    pub fn sizes(&self) -> [usize; 4] {
        [
            self.exports.by_number.len(),
            self.imports.len(),
            self.own_references.by_number.len(),
            self.their_references.by_number.len(),
        ]
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.sizes() == [0; 4]
            && self.exports.by_raw.is_empty()
            && self.locals.is_empty()
            && self.bound == 0
            && self.own_references.is_empty()
            && self.their_references.is_empty()
    }
}

/// Copies in one payload come one after the other, and are told together.
fn put_dropped(releases: &mut Vec<Release>, release: Release) {
    match (releases.last_mut(), release) {
        (Some(Release::Dropped { number: last, count: sum }), Release::Dropped { number, count })
        | (Some(Release::DroppedReference { number: last, count: sum }), Release::DroppedReference { number, count })
            if *last == number =>
        {
            *sum += count;
        }
        _ => releases.push(release),
    }
}

#[cfg(test)]
mod tests;
