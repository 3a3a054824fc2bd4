//! Pids and references on their way between payloads and the tables of [`super::handles`].
//!
//! **Out**: the places are found without a lock, counted under it, and rewritten. A payload that gives a process away for
//! the first time is queued under the same lock: the driver hears of the new export with the push, or not at all.
//!
//! **In**: an event says that its payload holds handles, and the driver, when it gets to it, has it translated or discards
//! it. Until then a copy counts as being on its way, so nothing that the driver still has in its hands is dropped by
//! either side.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::etf::{has_key_twice, identifiers, rewrite, IdentifierKind, Owner, Place, Wire};
use crate::frame::batch::{exit, kind, Address, Refusal};
use crate::frame::forget::ForgetReason;
use crate::limits::STRAYS_MAX;
use crate::session::calls::Calls;
use crate::session::handles::{Counted, DropOutcome, Exported, NoRoom, NotCounted};
use crate::session::message::{NewMessage, NewPayload, BOXED_ABOVE};
use crate::session::{check_destination, lock, PushError, Pushed, Session};

/// What an EXIT stands for (`protocol.md` 10.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitKind {
    /// A process that was linked to the destination has ended.
    Linked = exit::LINKED,
    /// `Process.exit(destination, reason)` by a process that lives on.
    Sent = exit::SENT,
}

impl ExitKind {
    pub(crate) fn from_wire(detail: u8) -> Option<ExitKind> {
        match detail {
            exit::LINKED => Some(ExitKind::Linked),
            exit::SENT => Some(ExitKind::Sent),
            _ => None,
        }
    }
}

/// What a driver supplies for the identifiers of a payload that has come. Everything is in external term format without the
/// leading 131. No lock of the session is held but in [`Locals::used`].
pub trait Locals {
    /// A stand-in for this process of the peer's. Asked once: it is remembered until [`Session::drop_import`]. None when
    /// there can't be one: [`TranslateError::Full`].
    fn pid(&mut self, number: u64) -> Option<Vec<u8>>;
    /// Our process that is published under this name to this peer. None: it gets a pid of nobody.
    fn engine(&mut self, name: &str) -> Option<Vec<u8>>;
    /// A fresh reference.
    fn reference(&mut self) -> Vec<u8>;
    /// The pid of a process that has ended, or never was: another one each time.
    fn nobody(&mut self) -> Vec<u8>;

    /// A stand-in that was made before comes up again: it is not idle. [`Session::drop_import_if`] waits meanwhile, and nothing
    /// may be asked of the session.
    fn used(&mut self, stand_in: &[u8]) {
        let _ = stand_in;
    }
}

/// What [`Session::translate_in`] would ask [`Locals`] for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Processes of the peer's without a stand-in.
    pub pids: Vec<u64>,
    /// Names of our engines.
    pub engines: Vec<String>,
    /// References, of the peer's that come for the first time, and of ours that nobody knows any more.
    pub references: usize,
    /// Pids of ours that nobody knows any more. Each engine that there isn't makes one more.
    pub nobodies: usize,
}

/// Why a payload can't be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// Nothing has been settled: make room with [`Session::drop_import`] and try again, or give it to [`Session::discard_in`].
    #[error("no room for another stand-in")]
    Full,
    /// Two identifiers of it are one here, and a map would have a key twice; or it brings home too many that nobody knows.
    /// It has been discarded.
    #[error("the payload can't be a term here")]
    Undecodable,
}

impl From<NotCounted> for PushError {
    fn from(error: NotCounted) -> PushError {
        match error {
            NotCounted::Full => PushError::Overload,
            NotCounted::Unknown => PushError::UnknownHandle,
        }
    }
}

/// A message whose payload holds identifiers, or that goes to a process of the peer's.
pub(super) struct Crossing<'a> {
    pub to: Option<u64>,
    /// Who an EXIT is from.
    pub from: Option<&'a [u8]>,
    pub payload: &'a [u8],
    pub places: Vec<Place<'a>>,
}

impl<'a> Crossing<'a> {
    /// `holds`: what the scan has said.
    pub fn of(payload: &'a [u8], holds: bool, to: Option<u64>) -> Crossing<'a> {
        let places = if holds { identifiers(payload).collect() } else { Vec::new() };
        Crossing { to, from: None, payload, places }
    }

    /// The payload as it goes over.
    fn rewritten(&self, counted: &Counted) -> Vec<u8> {
        let mut sent = counted.sent.iter();
        let done = rewrite(self.payload, self.places.iter().copied(), |_, out| {
            sent.next().ok_or(())?.wire().put(out);
            Ok::<(), ()>(())
        });
        // Each place has been counted.
        done.unwrap_or_default()
    }
}

impl Session {
    // Out.

    /// Queues a message with its handles.
    pub(super) fn push_crossing(
        &self,
        mut message: NewMessage<'_>,
        crossing: &Crossing<'_>,
        always: bool,
    ) -> Result<Pushed, PushError> {
        let mut exported = Vec::new();
        let mut calls = lock(&self.calls);
        let counted = calls.handles.count(crossing.to, crossing.from, &crossing.places, &mut exported);
        let counted = counted.inspect_err(|error| self.not_counted(&mut calls, *error))?;
        self.gauge(&calls);
        // Nobody else may use an export before somebody watches it.
        let mut held = (!exported.is_empty()).then_some(calls);
        message.handles = true;
        message.caller = counted.caller.unwrap_or(message.caller);
        let pushed = self.rewritten(crossing, &counted).and_then(|bytes| {
            let message = match &bytes {
                Some(bytes) => NewMessage { payload: self.new_payload(bytes), ..message },
                None => message,
            };
            self.enqueue(held.as_deref_mut(), message, always)
        });
        match pushed {
            Ok(wake) => Ok(Pushed { wake, exported }),
            Err(error) => {
                let mut calls = held.unwrap_or_else(|| lock(&self.calls));
                calls.handles.uncount(&counted, crossing.to, &mut exported);
                self.gauge(&calls);
                Err(error)
            }
        }
    }

    pub(super) fn not_counted(&self, calls: &mut Calls, error: NotCounted) {
        match error {
            NotCounted::Full => self.shared.counters.overload_out.one(),
            NotCounted::Unknown => self.shared.counters.unknown_handle.one(),
        }
        self.gauge(calls);
    }

    /// The payload as it goes over, where it is another. A reference may be longer on the wire than at home.
    pub(super) fn rewritten(&self, crossing: &Crossing<'_>, counted: &Counted) -> Result<Option<Vec<u8>>, PushError> {
        if crossing.places.is_empty() {
            return Ok(None);
        }
        let bytes = crossing.rewritten(counted);
        if bytes.len() > self.largest_out() {
            self.shared.counters.too_large_out.one();
            return Err(PushError::TooLarge);
        }
        Ok(Some(bytes))
    }

    /// An exit signal for an engine or a process of the peer's. `from`: the pid of ours that it comes from; `payload`: the reason.
    ///
    /// # Errors
    /// As [`Session::push`].
    pub fn push_exit(
        &self,
        source: &str,
        destination: &str,
        from: &[u8],
        exit: ExitKind,
        payload: &[u8],
    ) -> Result<Pushed, PushError> {
        let address = check_destination(destination)?;
        let holds = self.check_push(source, payload)?;
        let mut crossing = Crossing::of(payload, holds, handle(address));
        crossing.from = Some(from);
        let message = NewMessage {
            kind: kind::EXIT,
            detail: exit as u8,
            ..NewMessage::new(source, destination, self.new_payload(payload))
        };
        self.push_crossing(message, &crossing, false)
    }

    /// Why an engine of ours has ended, as a term, for a peer that is told more than the class. To be called before the
    /// FORGET is announced.
    ///
    /// # Errors
    /// As [`Session::push`]: the peer then hears the class alone.
    pub fn push_reason(&self, engine: &str, payload: &[u8]) -> Result<Pushed, PushError> {
        self.push_down(engine, 0, payload)
    }

    fn push_down(&self, source: &str, number: u64, payload: &[u8]) -> Result<Pushed, PushError> {
        let holds = self.check_push(source, payload)?;
        // In fragments it would come after the end that it belongs to.
        if payload.len() > BOXED_ABOVE.min(self.shared.limits.fragment_bytes) / 2 {
            return Err(PushError::TooLarge);
        }
        let message =
            NewMessage { kind: kind::DOWN, caller: number, ..NewMessage::new(source, "", NewPayload::Slice(payload)) };
        match holds {
            true => self.push_crossing(message, &Crossing::of(payload, holds, None), false),
            false => self.enqueue(None, message, false).map(|wake| Pushed { wake, exported: Vec::new() }),
        }
    }

    /// A process that was exported has ended: nobody waits for its calls, and the peer is told so. `term`: the reason, for a
    /// peer that is told more than the class. Unknown numbers are ignored.
    pub fn export_ended(&self, number: u64, reason: ForgetReason, term: Option<&[u8]>) -> Pushed {
        let known = lock(&self.calls).handles.is_exported(number);
        let term = term.filter(|_| known).and_then(|term| self.push_down("", number, term).ok());
        let mut pushed = term.unwrap_or_default();
        let mut calls = lock(&self.calls);
        calls.export_ended(number, reason);
        self.shared.counters.calls_pending.set(calls.pending() as u64);
        pushed.wake |= self.tell(&mut calls);
        pushed
    }

    /// What the tables have to say goes into the queue. True: wake the active link's writer.
    pub(super) fn tell(&self, calls: &mut Calls) -> bool {
        self.gauge(calls);
        match calls.handles.releases.is_empty() {
            true => false,
            false => lock(&self.queue).release_all(&mut calls.handles.releases, &self.shared.counters),
        }
    }

    pub(super) fn gauge(&self, calls: &Calls) {
        let (counters, handles) = (&self.shared.counters, &calls.handles);
        let [exported, imported, references_exported, references_imported] = handles.sizes();
        counters.handles_exported.set(exported as u64);
        counters.handles_imported.set(imported as u64);
        counters.references_exported.set(references_exported as u64);
        counters.references_imported.set(references_imported as u64);
        counters.handles_over_limit.set(handles.over_limit);
        counters.references_evicted.set(handles.evicted);
        self.shared.exports_ended.store(handles.ended(), Ordering::Release);
    }

    // In.

    /// The payload of an event that holds handles, with local identifiers in their places. Exactly one of this and
    /// [`Session::discard_in`] is called for each, in the order of the events and from one thread.
    ///
    /// # Errors
    /// See [`TranslateError`].
    pub fn translate_in(&self, payload: &[u8], locals: &mut dyn Locals) -> Result<Vec<u8>, TranslateError> {
        let places: Vec<Place<'_>> = identifiers(payload).collect();
        let mut answers = self.ask(payload, &places, locals)?;
        let mut calls = lock(&self.calls);
        for (number, raw) in std::mem::take(&mut answers.pids) {
            if calls.handles.import(number).is_none() && !raw.is_empty() {
                calls.handles.bind_import(number, &raw).map_err(|NoRoom| TranslateError::Full)?;
            }
        }
        let handles = &mut calls.handles;
        let mut found: Vec<Arc<[u8]>> = Vec::with_capacity(places.len());
        for place in &places {
            let local = match Wire::parse(place.raw) {
                Some(Wire::Pid { number, owner: Owner::Sender }) => {
                    handles.settle(number);
                    let local = handles.import(number).cloned();
                    local.inspect(|local| locals.used(local))
                }
                Some(Wire::Pid { number, owner: Owner::Receiver }) => handles.export_pid(number).cloned(),
                Some(Wire::Reference { number, owner: Owner::Sender }) => {
                    let raw = answers.references.get(&number).filter(|raw| !raw.is_empty());
                    if let (None, Some(raw)) = (handles.reference(number), raw) {
                        handles.bind_reference(number, raw);
                    }
                    let local = handles.reference(number).cloned();
                    handles.settle_reference(number);
                    local
                }
                Some(Wire::Reference { number, owner: Owner::Receiver }) => handles.own_reference(number),
                Some(Wire::Engine(_)) | None => None,
            };
            // What is not in the tables was asked for.
            found.push(local.or_else(|| answers.others.get(place.raw).cloned()).unwrap_or_default());
        }
        self.gauge(&calls);
        drop(calls);
        let mut locals = found.iter();
        let written = rewrite(payload, places.iter().copied(), |_, out| {
            out.extend_from_slice(locals.next().filter(|local| !local.is_empty()).ok_or(TranslateError::Undecodable)?);
            Ok(())
        })?;
        // An engine and a pid that comes home may be one process.
        match places.len() > 1 && has_key_twice(&written) {
            true => Err(TranslateError::Undecodable),
            false => Ok(written),
        }
    }

    fn ask<'a>(
        &self,
        payload: &[u8],
        places: &[Place<'a>],
        locals: &mut dyn Locals,
    ) -> Result<Answers<'a>, TranslateError> {
        let missing = {
            let mut calls = lock(&self.calls);
            let missing = Missing::of(places, &calls);
            if missing.are_too_many() {
                drop(calls);
                self.discard(payload);
                return Err(TranslateError::Undecodable);
            }
            if !calls.handles.has_room_for(missing.pids.len()) {
                self.gauge(&calls);
                return Err(TranslateError::Full);
            }
            missing
        };
        let mut answers = Answers::default();
        for number in missing.pids {
            answers.pids.insert(number, locals.pid(number).ok_or(TranslateError::Full)?);
        }
        for number in missing.references {
            answers.references.insert(number, locals.reference());
        }
        for (raw, name) in missing.engines {
            let pid = locals.engine(name).unwrap_or_else(|| locals.nobody());
            answers.others.insert(raw, pid.into());
        }
        for (raw, kind) in missing.strays {
            let local = match kind {
                IdentifierKind::Pid => locals.nobody(),
                _ => locals.reference(),
            };
            answers.others.insert(raw, local.into());
        }
        Ok(answers)
    }

    /// What [`Session::translate_in`] would ask for: for a driver that has to make it somewhere else first. What comes in
    /// between may change it. Nothing, for a payload that it would not take.
    pub fn wanted_in(&self, payload: &[u8]) -> Wanted {
        let places: Vec<Place<'_>> = identifiers(payload).collect();
        let missing = Missing::of(&places, &lock(&self.calls));
        if missing.are_too_many() {
            return Wanted::default();
        }
        let stray = |kind| missing.strays.values().filter(|stray| **stray == kind).count();
        Wanted {
            references: missing.references.len() + stray(IdentifierKind::Reference),
            nobodies: stray(IdentifierKind::Pid),
            pids: missing.pids.into_iter().collect(),
            engines: missing.engines.into_values().map(str::to_owned).collect(),
        }
    }

    /// The payload of an event that holds handles is not delivered. True: wake the active link's writer.
    pub fn discard_in(&self, payload: &[u8]) -> bool {
        self.discard(payload);
        self.tell(&mut lock(&self.calls))
    }

    /// What there is to tell goes out with the next that is said.
    fn discard(&self, payload: &[u8]) {
        let mut calls = lock(&self.calls);
        for place in identifiers(payload) {
            match Wire::parse(place.raw) {
                Some(Wire::Pid { number, owner: Owner::Sender }) => calls.handles.settle(number),
                Some(Wire::Reference { number, owner: Owner::Sender }) => calls.handles.settle_reference(number),
                _ => {}
            }
        }
    }

    /// What stands here for a process of the peer's, if something does.
    pub fn import(&self, number: u64) -> Option<Arc<[u8]>> {
        lock(&self.calls).handles.import(number).cloned()
    }

    /// Gives a process of the peer's its stand-in, for a call's caller or for who an EXIT is from.
    ///
    /// # Errors
    /// [`NoRoom`]: make room with [`Session::drop_import`].
    pub fn bind_import(&self, number: u64, raw: &[u8]) -> Result<(), NoRoom> {
        let mut calls = lock(&self.calls);
        let bound = calls.handles.bind_import(number, raw);
        self.gauge(&calls);
        bound
    }

    /// The number in an [`Event::Exit`](super::Event::Exit) has been used, its stand-in being bound, or is not wanted. To
    /// be called once for each. True: wake the active link's writer.
    pub fn settle_handle(&self, number: u64) -> bool {
        let mut calls = lock(&self.calls);
        calls.handles.settle(number);
        self.tell(&mut calls)
    }

    /// A stand-in goes: it is idle, or its process has ended.
    pub fn drop_import(&self, number: u64) -> DropOutcome {
        self.drop_import_if(number, || true)
    }

    /// The same, if the driver agrees, who is asked when nothing here speaks against it: [`DropOutcome::InUse`] if not. While it is
    /// asked nothing that names the number is handed in, so what it takes out of its own tables then is gone there and here at once.
    /// Of the session nothing may be asked in there.
    pub fn drop_import_if(&self, number: u64, may: impl FnOnce() -> bool) -> DropOutcome {
        let mut calls = lock(&self.calls);
        match calls.drop_import(number, may) {
            DropOutcome::Dropped { .. } => DropOutcome::Dropped { wake: self.tell(&mut calls) },
            other => other,
        }
    }

    /// The proxy that stands for an engine of the peer's: its pid in a payload goes home as the engine.
    pub fn bind_engine(&self, raw: &[u8], name: &str) {
        lock(&self.calls).handles.bind_engine(raw, name);
    }

    /// That proxy has gone.
    pub fn unbind(&self, raw: &[u8]) {
        lock(&self.calls).handles.unbind(raw);
    }

    /// The raw pid of ours behind a number, while the peer has it.
    pub fn export_pid(&self, number: u64) -> Option<Arc<[u8]>> {
        lock(&self.calls).handles.export_pid(number).cloned()
    }

    /// Takes a message over from the session before, whose numbers mean nothing in this one. None: there is no room.
    pub(super) fn adopt_handles(&self, old: &Calls, message: NewMessage<'_>) -> Option<Vec<Exported>> {
        let payload = message.payload.bytes();
        let raws: Vec<(Place<'_>, Option<Arc<[u8]>>)> = identifiers(payload)
            .map(|place| (place, Wire::parse(place.raw).and_then(|wire| old.handles.raw_of(wire))))
            .collect();
        // Engines stay what they are. A number that means nothing any more, as its process has ended or too many came after it, would be
        // another's in this session.
        let known = raws.iter().filter_map(|(place, raw)| Some(Place { raw: raw.as_deref()?, ..*place }));
        let known: Vec<Place<'_>> = known.collect();
        let mut exported = Vec::new();
        let mut calls = lock(&self.calls);
        let counted = calls.handles.count(None, None, &known, &mut exported);
        // Also that there was no room.
        self.gauge(&calls);
        let counted = counted.ok()?;
        let mut sent = counted.sent.iter();
        let mut raws = raws.iter().filter(|(place, _)| !matches!(Wire::parse(place.raw), Some(Wire::Engine(_))));
        let places: Vec<Place<'_>> = raws.clone().map(|(place, _)| *place).collect();
        // What differed still does: the keys of a map, or members of a set.
        let mut nobodies: HashMap<&[u8], usize> = HashMap::new();
        let written = rewrite(payload, places.into_iter(), |place, out| {
            match raws.next() {
                Some((_, Some(_))) => sent.next().ok_or(())?.wire().put(out),
                _ => {
                    let next = nobodies.len();
                    Wire::nobody(place.kind, *nobodies.entry(place.raw).or_insert(next)).put(out);
                }
            }
            Ok::<(), ()>(())
        });
        let written = written.unwrap_or_default();
        let new = NewMessage { handles: true, payload: self.new_payload(&written), ..NewMessage::like(&message) };
        if self.enqueue(Some(&mut calls), new, false).is_err() {
            calls.handles.uncount(&counted, None, &mut exported);
            return None;
        }
        Some(exported)
    }
}

/// The number in an address, if it is one of a process.
pub(super) fn handle(address: Address<'_>) -> Option<u64> {
    match address {
        Address::Handle(number) => Some(number),
        Address::Engine(_) => None,
    }
}

/// What a reply that can't go is refused with.
pub(super) fn refusal_of(error: PushError) -> Refusal {
    match error {
        PushError::TooLarge => Refusal::TooLarge,
        PushError::Identifiers => Refusal::Identifiers,
        PushError::Overload => Refusal::Overload,
        _ => Refusal::Undecodable,
    }
}

/// What the tables don't have, each once.
#[derive(Default)]
struct Missing<'a> {
    pids: BTreeSet<u64>,
    references: BTreeSet<u64>,
    /// By their bytes.
    engines: BTreeMap<&'a [u8], &'a str>,
    /// Ours that come home unknown.
    strays: BTreeMap<&'a [u8], IdentifierKind>,
}

impl<'a> Missing<'a> {
    /// A driver makes a process for each that is nobody.
    fn are_too_many(&self) -> bool {
        self.strays.len() + self.engines.len() > STRAYS_MAX
    }

    fn of(places: &[Place<'a>], calls: &Calls) -> Missing<'a> {
        let (handles, mut missing) = (&calls.handles, Missing::default());
        for place in places {
            match Wire::parse(place.raw) {
                Some(Wire::Pid { number, owner: Owner::Sender }) if handles.import(number).is_none() => {
                    missing.pids.insert(number);
                }
                Some(Wire::Pid { number, owner: Owner::Receiver }) if handles.export_pid(number).is_none() => {
                    missing.strays.insert(place.raw, place.kind);
                }
                Some(Wire::Reference { number, owner: Owner::Sender }) if handles.reference(number).is_none() => {
                    missing.references.insert(number);
                }
                Some(Wire::Reference { number, owner: Owner::Receiver }) if !handles.knows_own_reference(number) => {
                    missing.strays.insert(place.raw, place.kind);
                }
                Some(Wire::Engine(name)) => {
                    missing.engines.insert(place.raw, name);
                }
                _ => {}
            }
        }
        missing
    }
}

/// What [`Locals`] has said.
#[derive(Default)]
struct Answers<'a> {
    pids: HashMap<u64, Vec<u8>>,
    references: HashMap<u64, Vec<u8>>,
    others: HashMap<&'a [u8], Arc<[u8]>>,
}
