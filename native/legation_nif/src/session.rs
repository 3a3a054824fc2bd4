//! The session resource: pushes, replies, the sweep. All but the dirty variants are done in about a microsecond.

use std::sync::Arc;

use legation_proto::frame::batch::Refusal;
use legation_proto::frame::FrameType;
use legation_proto::session::{Delivery, NewCall, PushError, Session};
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Resource, ResourceArc, Term};

use crate::atoms;
use crate::error::push_reason;

pub struct SessionResource(pub Arc<Session>);

#[rustler::resource_impl]
impl Resource for SessionResource {}

type SessionArc = ResourceArc<SessionResource>;

fn woken(wake: bool) -> Atom {
    if wake {
        atoms::wake()
    } else {
        atoms::ok()
    }
}

fn pushed(env: Env<'_>, result: Result<bool, PushError>) -> Term<'_> {
    match result {
        Ok(wake) => woken(wake).encode(env),
        Err(reason) => (atoms::error(), push_reason(reason)).encode(env),
    }
}

fn push<'a>(
    env: Env<'a>,
    session: &SessionArc,
    destination: &str,
    kind: Atom,
    source: &str,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    let delivery = if kind == atoms::cast() {
        Delivery::Cast
    } else if kind == atoms::send() {
        Delivery::Send
    } else {
        return Err(Error::BadArg);
    };
    Ok(pushed(env, session.0.push(delivery, source, destination, payload.as_slice(), false)))
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
    push(env, &session, destination, kind, source, payload)
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
    push(env, &session, destination, kind, source, payload)
}

fn push_call<'a>(
    env: Env<'a>,
    session: &SessionArc,
    destination: &str,
    label: u8,
    source: &str,
    from: Term<'a>,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    let (pid, _tag): (Term, Term) = from.decode()?;
    // `from` stays at home, as the bytes of a term: a tag is opaque.
    let (caller, context) = (pid.to_binary(), from.to_binary());
    let call = NewCall {
        destination,
        label,
        source,
        caller: caller.as_slice(),
        context: context.as_slice(),
        payload: payload.as_slice(),
    };
    Ok(match session.0.push_call(crate::channel::now_ms(), &call) {
        Ok(pushed) => (woken(pushed.wake), pushed.new_caller).encode(env),
        Err(reason) => (atoms::error(), push_reason(reason)).encode(env),
    })
}

#[rustler::nif]
fn session_push_call<'a>(
    env: Env<'a>,
    session: SessionArc,
    destination: &str,
    label: u8,
    source: &str,
    from: Term<'a>,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    push_call(env, &session, destination, label, source, from, payload)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_push_call_dirty<'a>(
    env: Env<'a>,
    session: SessionArc,
    destination: &str,
    label: u8,
    source: &str,
    from: Term<'a>,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    push_call(env, &session, destination, label, source, from, payload)
}

#[rustler::nif]
fn session_reply<'a>(env: Env<'a>, session: SessionArc, call_id: u64, payload: Binary<'a>) -> Term<'a> {
    pushed(env, session.0.reply(call_id, payload.as_slice()))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_reply_dirty<'a>(env: Env<'a>, session: SessionArc, call_id: u64, payload: Binary<'a>) -> Term<'a> {
    pushed(env, session.0.reply(call_id, payload.as_slice()))
}

#[rustler::nif]
fn session_refuse(env: Env<'_>, session: SessionArc, call_id: u64, reason: Atom) -> NifResult<Atom> {
    let name = reason.to_term(env).atom_to_string()?;
    let refusal = Refusal::ALL.into_iter().find(|refusal| refusal.name() == name).ok_or(Error::BadArg)?;
    Ok(woken(session.0.refuse(call_id, refusal)))
}

/// The process that was to answer a remote caller is gone.
#[rustler::nif]
fn session_abandon(session: SessionArc, caller: u64) -> Atom {
    woken(session.0.abandon(caller))
}

#[rustler::nif]
fn session_announce(session: SessionArc, kind: Atom, signed: Binary) -> NifResult<Atom> {
    let kind = if kind == atoms::learn() {
        FrameType::Learn
    } else if kind == atoms::forget() {
        FrameType::Forget
    } else if kind == atoms::cert() {
        FrameType::Cert
    } else {
        return Err(Error::BadArg);
    };
    Ok(woken(session.0.announce(kind, signed.as_slice())))
}

#[rustler::nif]
fn session_release(session: SessionArc, caller: u64) -> Atom {
    woken(session.0.release_caller(caller))
}

#[rustler::nif]
fn session_cancel(session: SessionArc, call_id: u64) -> Atom {
    woken(session.0.cancel(call_id))
}

#[rustler::nif]
fn session_pending(session: SessionArc, engine: &str) -> usize {
    session.0.calls_pending_at(engine)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_sweep<'a>(env: Env<'a>, session: SessionArc, age_ms: u64) -> Vec<Term<'a>> {
    let mut old = Vec::new();
    // The clock that `push_call` entered the calls by.
    session.0.sweep(crate::channel::now_ms(), age_ms, |call_id, pending| {
        let caller = env.binary_to_term(&pending.context).and_then(|(from, _)| from.decode::<(Term, Term)>().ok());
        if let Some((pid, _tag)) = caller {
            old.push((call_id, &*pending.destination, pid).encode(env));
        }
    });
    old
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_receipts(session: SessionArc, engines: Vec<String>) -> Atom {
    session.0.make_receipts_for(engines.into_iter().map(String::into_boxed_str));
    atoms::ok()
}

#[rustler::nif]
fn session_end(session: SessionArc) -> Atom {
    session.0.end();
    atoms::ok()
}

#[rustler::nif]
fn session_counters(env: Env<'_>, session: SessionArc) -> NifResult<Term<'_>> {
    let mut map = Term::map_new(env);
    for (name, value) in session.0.counters().all() {
        map = map.map_put(Atom::from_str(env, name)?, value)?;
    }
    Ok(map)
}
