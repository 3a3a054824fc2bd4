//! The session resource: pushes, replies, the sweep. All but the dirty variants are done in about a microsecond, or say `:busy`.
//!
//! Links come and go, so the session knows the Writer of the link that it is sent on, and whoever leaves something to be sent
//! wakes it. And it knows whose turn it is: what one link's read brought is in mailboxes before another's is handled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use legation_proto::frame::batch::Refusal;
use legation_proto::frame::FrameType;
use legation_proto::session::{Delivery, Event, Exported, NewCall, PushError, Pushed, PushedCall, Room, Session};
use legation_proto::sync::lock;
use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifResult, Resource, ResourceArc, Term};

use crate::atoms;
use crate::channel::now_ms;
use crate::error::push_reason;

pub struct SessionResource {
    pub session: Arc<Session>,
    draining: AtomicBool,
    writer: Mutex<Option<LocalPid>>,
    turn: Mutex<Turn>,
    /// Processes that wait for room, by token.
    waiters: Mutex<HashMap<u64, LocalPid>>,
}

#[rustler::resource_impl]
impl Resource for SessionResource {}

type SessionArc = ResourceArc<SessionResource>;

/// Which link's events are being delivered, by its number, and which Readers wait for that to end.
#[derive(Default)]
struct Turn {
    holder: Option<u64>,
    waiting: Vec<LocalPid>,
}

impl SessionResource {
    pub fn new(session: Arc<Session>) -> SessionResource {
        SessionResource {
            session,
            draining: AtomicBool::new(false),
            writer: Mutex::new(None),
            turn: Mutex::new(Turn::default()),
            waiters: Mutex::default(),
        }
    }

    /// From now on this process sends.
    pub fn set_writer(&self, writer: LocalPid) {
        *lock(&self.writer) = Some(writer);
    }

    /// Has the Writer flush. While there is none nothing is lost: the next one begins with a flush.
    pub fn wake(&self, env: Env<'_>) {
        let writer = *lock(&self.writer);
        if let Some(writer) = writer {
            // One that has gone is about to be replaced.
            let _ = env.send(&writer, atoms::wake());
        }
    }

    /// False: another link's events are being delivered; the calling process will be sent `:free`.
    pub fn take_turn(&self, env: Env<'_>, link: u64) -> bool {
        let mut turn = lock(&self.turn);
        if turn.holder.is_some_and(|holder| holder != link) {
            turn.waiting.push(env.pid());
            return false;
        }
        turn.holder = Some(link);
        true
    }

    pub fn has_turn(&self, link: u64) -> bool {
        lock(&self.turn).holder == Some(link)
    }

    /// All that the link's read brought has been delivered, or never will be.
    pub fn end_turn(&self, env: Env<'_>, link: u64) {
        let waiting = {
            let mut turn = lock(&self.turn);
            if turn.holder != Some(link) {
                return;
            }
            turn.holder = None;
            std::mem::take(&mut turn.waiting)
        };
        for reader in waiting {
            let _ = env.send(&reader, atoms::free());
        }
    }

    /// Tells those for whom there is room by now: after each flush and tick, and when the session has ended.
    pub fn room_is_there(&self, env: Env<'_>) {
        for token in self.session.take_room() {
            let waiter = lock(&self.waiters).remove(&token);
            if let Some(waiter) = waiter {
                let _ = env.send(&waiter, (atoms::legation_room(), token));
            }
        }
    }

    pub fn woken(&self, env: Env<'_>, wake: bool) -> Atom {
        if wake {
            self.wake(env);
        }
        atoms::ok()
    }

    /// `{:ok, exported}`: processes of ours that the peer has been given by it, as `{number, pid}`. `:busy`: the same is to be
    /// pushed by the function for dirty schedulers.
    pub fn pushed<'a>(&self, env: Env<'a>, result: Result<Pushed, PushError>) -> Term<'a> {
        match result {
            Ok(pushed) => self.exported(env, pushed.wake, &pushed.exported),
            Err(reason) => not_pushed(env, reason),
        }
    }

    fn exported<'a>(&self, env: Env<'a>, wake: bool, exported: &[Exported]) -> Term<'a> {
        let exported: Vec<Term<'a>> =
            exported.iter().filter_map(|new| Some((new.number, raw_term(env, &new.pid)?).encode(env))).collect();
        (self.woken(env, wake), exported).encode(env)
    }
}

fn not_pushed(env: Env<'_>, reason: PushError) -> Term<'_> {
    match reason {
        PushError::Busy => atoms::busy().encode(env),
        reason => (atoms::error(), push_reason(reason)).encode(env),
    }
}

/// From an identifier without the version byte to a term.
pub fn raw_term<'a>(env: Env<'a>, raw: &[u8]) -> Option<Term<'a>> {
    let bytes = [&[131], raw].concat();
    env.binary_to_term(&bytes).map(|(term, _)| term)
}

fn delivery_of(kind: Atom) -> NifResult<Delivery> {
    if kind == atoms::cast() {
        Ok(Delivery::Cast)
    } else if kind == atoms::send() {
        Ok(Delivery::Send)
    } else {
        Err(Error::BadArg)
    }
}

#[rustler::nif]
fn session_push<'a>(
    env: Env<'a>,
    session: SessionArc,
    destination: &str,
    kind: Atom,
    source: &str,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    let pushed = session.session.push_soon(delivery_of(kind)?, source, destination, payload.as_slice());
    Ok(session.pushed(env, pushed))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_push_dirty<'a>(
    env: Env<'a>,
    session: SessionArc,
    destination: &str,
    kind: Atom,
    source: &str,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    let pushed = session.session.push(delivery_of(kind)?, source, destination, payload.as_slice(), false);
    Ok(session.pushed(env, pushed))
}

#[allow(clippy::too_many_arguments)]
fn push_call<'a>(
    env: Env<'a>,
    session: &SessionArc,
    push: impl FnOnce(&Session, &NewCall<'_>) -> Result<PushedCall, PushError>,
    destination: &str,
    label: u8,
    source: &str,
    from: Term<'a>,
    caller: Binary<'a>,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    if session.draining.load(Ordering::Relaxed) {
        return Ok((atoms::error(), atoms::draining()).encode(env));
    }
    let (_pid, _tag): (Term, Term) = from.decode()?;
    // `from` stays at home, as the bytes of a term: a tag is opaque.
    let context = from.to_binary();
    let call = NewCall {
        destination,
        label,
        source,
        caller: caller.as_slice(),
        context: context.as_slice(),
        payload: payload.as_slice(),
    };
    Ok(match push(&session.session, &call) {
        Ok(pushed) => session.exported(env, pushed.wake, &pushed.exported),
        Err(reason) => not_pushed(env, reason),
    })
}

#[allow(clippy::too_many_arguments)]
#[rustler::nif]
fn session_push_call<'a>(
    env: Env<'a>,
    session: SessionArc,
    destination: &str,
    label: u8,
    source: &str,
    from: Term<'a>,
    caller: Binary<'a>,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    let push = |session: &Session, call: &NewCall<'_>| session.push_call_soon(now_ms(), call);
    push_call(env, &session, push, destination, label, source, from, caller, payload)
}

#[allow(clippy::too_many_arguments)]
#[rustler::nif(schedule = "DirtyCpu")]
fn session_push_call_dirty<'a>(
    env: Env<'a>,
    session: SessionArc,
    destination: &str,
    label: u8,
    source: &str,
    from: Term<'a>,
    caller: Binary<'a>,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    let push = |session: &Session, call: &NewCall<'_>| session.push_call(now_ms(), call);
    push_call(env, &session, push, destination, label, source, from, caller, payload)
}

#[rustler::nif]
fn session_reply<'a>(env: Env<'a>, session: SessionArc, call_id: u64, payload: Binary<'a>) -> Term<'a> {
    session.pushed(env, session.session.reply_soon(call_id, payload.as_slice()))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_reply_dirty<'a>(env: Env<'a>, session: SessionArc, call_id: u64, payload: Binary<'a>) -> Term<'a> {
    session.pushed(env, session.session.reply(call_id, payload.as_slice()))
}

#[rustler::nif]
fn session_refuse(env: Env<'_>, session: SessionArc, call_id: u64, reason: Atom) -> NifResult<Atom> {
    let name = reason.to_term(env).atom_to_string()?;
    let refusal = Refusal::ALL.into_iter().find(|refusal| refusal.name() == name).ok_or(Error::BadArg)?;
    Ok(session.woken(env, session.session.refuse(call_id, refusal)))
}

/// The process that was to answer a remote caller is gone.
#[rustler::nif]
fn session_abandon(env: Env<'_>, session: SessionArc, caller: u64) -> Atom {
    session.woken(env, session.session.abandon(caller))
}

#[rustler::nif]
fn session_announce(env: Env<'_>, session: SessionArc, kind: Atom, signed: Binary) -> NifResult<Atom> {
    let kind = if kind == atoms::learn() {
        FrameType::Learn
    } else if kind == atoms::forget() {
        FrameType::Forget
    } else if kind == atoms::cert() {
        FrameType::Cert
    } else {
        return Err(Error::BadArg);
    };
    Ok(session.woken(env, session.session.announce(kind, signed.as_slice())))
}

/// Tells the peer what it doesn't know of our key.
#[rustler::nif]
fn session_tell_identity(env: Env<'_>, session: SessionArc) -> Atom {
    session.woken(env, session.session.tell_identity())
}

#[rustler::nif]
fn session_cancel(env: Env<'_>, session: SessionArc, call_id: u64) -> Atom {
    session.woken(env, session.session.cancel(call_id))
}

#[rustler::nif]
fn session_pending(session: SessionArc, engine: &str) -> usize {
    session.session.calls_pending_at(engine)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_callers_at(session: SessionArc, engine: &str) -> Vec<u64> {
    session.session.callers_at(engine)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_sweep<'a>(env: Env<'a>, session: SessionArc, age_ms: u64) -> Vec<Term<'a>> {
    let mut old = Vec::new();
    // The clock that `push_call` entered the calls by.
    session.session.sweep(now_ms(), age_ms, |call_id, pending| {
        let caller = env.binary_to_term(&pending.context).and_then(|(from, _)| from.decode::<(Term, Term)>().ok());
        if let Some((pid, _tag)) = caller {
            old.push((call_id, &*pending.destination, pid).encode(env));
        }
    });
    old
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_receipts(session: SessionArc, engines: Vec<String>) -> Atom {
    session.session.make_receipts_for(engines.into_iter().map(String::into_boxed_str));
    atoms::ok()
}

#[rustler::nif]
fn session_acknowledge(env: Env<'_>, session: SessionArc) -> Atom {
    session.woken(env, session.session.acknowledge_now())
}

#[rustler::nif]
fn session_can_resume(session: SessionArc) -> bool {
    session.session.can_resume()
}

#[rustler::nif]
fn session_drain(session: SessionArc) -> Atom {
    session.draining.store(true, Ordering::Relaxed);
    atoms::ok()
}

#[rustler::nif]
fn session_end(env: Env<'_>, session: SessionArc) -> Atom {
    session.session.end();
    session.room_is_there(env);
    atoms::ok()
}

#[rustler::nif]
fn session_gap(session: SessionArc) -> u64 {
    session.session.gap()
}

/// `{first, last}`: numbers of the messages that the peer has sent and not proven, `nil` when it has proven all.
#[rustler::nif]
fn session_unproven(session: SessionArc) -> Option<(u64, u64)> {
    session.session.unproven()
}

/// Copies what waits, up to the bound of a queue.
#[rustler::nif(schedule = "DirtyCpu")]
fn session_adopt(env: Env<'_>, session: SessionArc, ended: SessionArc) -> Term<'_> {
    let (adopted, exported) = session.session.adopt(&ended.session);
    session.exported(env, adopted > 0, &exported)
}

/// Time passes: what has waited for too long goes. Calls of ours among it are given back, to be refused.
#[rustler::nif(schedule = "DirtyCpu")]
fn session_tick<'a>(env: Env<'a>, session: SessionArc, now: u64) -> Vec<Term<'a>> {
    let mut refused = Vec::new();
    session.session.tick(now, &mut |event| {
        if let Event::Refused { context, refusal } = event {
            let from = env.binary_to_term(context).map(|(from, _)| from);
            let reason = Atom::from_str(env, refusal.name());
            if let (Some(from), Ok(reason)) = (from, reason) {
                refused.push((from, reason).encode(env));
            }
        }
    });
    session.room_is_there(env);
    refused
}

/// Destinations of ours whose mailboxes are to be looked at, each with its mark. An atomic load when there is none.
#[rustler::nif]
fn session_debts(session: SessionArc) -> Vec<(String, u64)> {
    let mut due = Vec::new();
    session.session.debts(|destination, _messages| due.push((destination.to_owned(), 0)));
    due.iter_mut().for_each(|(destination, mark)| *mark = session.session.mark(destination));
    due
}

#[rustler::nif]
fn session_grant(env: Env<'_>, session: SessionArc, destination: &str, left: u64, mark: u64) -> Atom {
    session.woken(env, session.session.grant_up_to(destination, left, mark))
}

/// `:now`, `:full`, or `{:later, token}`: then the calling process gets `{:legation_room, token}`, once.
#[rustler::nif]
fn session_wait_room<'a>(env: Env<'a>, session: SessionArc, destination: &str, payload_bytes: usize) -> Term<'a> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let token = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    // Entered first: it may come back at once.
    lock(&session.waiters).insert(token, env.pid());
    let room = session.session.wait_room(destination, payload_bytes, token);
    if room == Room::Later {
        // It may have ended before, and nobody flushes it any more.
        if session.session.has_ended() {
            session.room_is_there(env);
        }
        return (atoms::later(), token).encode(env);
    }
    lock(&session.waiters).remove(&token);
    match room {
        Room::Now => atoms::now().encode(env),
        _ => atoms::full().encode(env),
    }
}

#[rustler::nif]
fn session_cancel_room(session: SessionArc, token: u64) -> Atom {
    session.session.cancel_room(token);
    lock(&session.waiters).remove(&token);
    atoms::ok()
}

#[rustler::nif]
fn session_counters(env: Env<'_>, session: SessionArc) -> NifResult<Term<'_>> {
    let mut map = Term::map_new(env);
    for (name, value) in session.session.counters().all() {
        map = map.map_put(Atom::from_str(env, name)?, value)?;
    }
    Ok(map)
}
