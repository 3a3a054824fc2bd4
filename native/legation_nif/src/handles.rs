//! Pids and references that cross: what Elixir is asked for, and the tables of the session.
//!
//! Processes can't be made here. So Elixir gets a payload with handles as bytes, asks what is wanted for it, makes that, and has it
//! translated. Identifiers are given as external term format without the version byte, as Elixir encodes them in payloads:
//! the runtime's own encoding may be another.

use std::collections::HashMap;

use legation_proto::frame::forget::ForgetReason;
use legation_proto::session::{DropOutcome, ExitKind, Locals, TranslateError};
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, ResourceArc, Term};

use crate::atoms;
use crate::payload::decode;
use crate::session::{raw_term, SessionResource};

type SessionArc = ResourceArc<SessionResource>;

fn reason_of(env: Env<'_>, reason: Atom) -> NifResult<ForgetReason> {
    let name = reason.to_term(env).atom_to_string()?;
    ForgetReason::ALL.into_iter().find(|candidate| candidate.name() == name).ok_or(Error::BadArg)
}

/// An exit signal from `from`, `:linked` (it has ended) or `:sent`.
#[rustler::nif]
fn session_push_exit<'a>(
    env: Env<'a>,
    session: SessionArc,
    destination: &str,
    source: &str,
    from: Binary<'a>,
    exit: Atom,
    payload: Binary<'a>,
) -> NifResult<Term<'a>> {
    let exit = if exit == atoms::linked() {
        ExitKind::Linked
    } else if exit == atoms::sent() {
        ExitKind::Sent
    } else {
        return Err(Error::BadArg);
    };
    let pushed = session.session.push_exit(source, destination, from.as_slice(), exit, payload.as_slice());
    Ok(session.pushed(env, pushed))
}

/// Why an engine of ours has ended, before its FORGET.
#[rustler::nif]
fn session_push_reason<'a>(env: Env<'a>, session: SessionArc, engine: &str, payload: Binary<'a>) -> Term<'a> {
    session.pushed(env, session.session.push_reason(engine, payload.as_slice()))
}

#[rustler::nif]
fn session_export_ended<'a>(
    env: Env<'a>,
    session: SessionArc,
    number: u64,
    reason: Atom,
    term: Option<Binary<'a>>,
) -> NifResult<Term<'a>> {
    let reason = reason_of(env, reason)?;
    let term = term.as_ref().map(Binary::as_slice);
    Ok(session.pushed(env, Ok(session.session.export_ended(number, reason, term))))
}

/// The process of ours behind a number, while the peer has it.
#[rustler::nif]
fn session_export_pid<'a>(env: Env<'a>, session: SessionArc, number: u64) -> Option<Term<'a>> {
    raw_term(env, &session.session.export_pid(number)?)
}

/// `{numbers, engines, references, nobodies}`: what [`session_translate`] is to be given.
#[rustler::nif]
fn session_wanted(session: SessionArc, payload: Binary) -> (Vec<u64>, Vec<String>, usize, usize) {
    wanted(&session, &payload)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_wanted_dirty(session: SessionArc, payload: Binary) -> (Vec<u64>, Vec<String>, usize, usize) {
    wanted(&session, &payload)
}

fn wanted(session: &SessionArc, payload: &[u8]) -> (Vec<u64>, Vec<String>, usize, usize) {
    let wanted = session.session.wanted_in(payload);
    (wanted.pids, wanted.engines, wanted.references, wanted.nobodies)
}

/// What Elixir has made. An engine that isn't there is nobody.
struct Made {
    pids: HashMap<u64, Vec<u8>>,
    engines: HashMap<String, Vec<u8>>,
    references: Vec<Vec<u8>>,
    nobodies: Vec<Vec<u8>>,
}

impl Locals for Made {
    fn pid(&mut self, number: u64) -> Option<Vec<u8>> {
        self.pids.remove(&number)
    }

    fn engine(&mut self, name: &str) -> Option<Vec<u8>> {
        self.engines.get(name).cloned()
    }

    // Fewer than there should be: what came in between has changed it. Nothing is found then, and the payload is undecodable.
    fn reference(&mut self) -> Vec<u8> {
        self.references.pop().unwrap_or_default()
    }

    fn nobody(&mut self) -> Vec<u8> {
        self.nobodies.pop().unwrap_or_default()
    }
}

type MadeTerms<'a> = (Vec<(u64, Binary<'a>)>, Vec<(String, Binary<'a>)>, Vec<Binary<'a>>, Vec<Binary<'a>>);

fn translate<'a>(env: Env<'a>, session: &SessionArc, payload: &[u8], made: MadeTerms<'a>) -> Term<'a> {
    let (pids, engines, references, nobodies) = made;
    let bytes = |binaries: Vec<Binary<'a>>| binaries.iter().map(|raw| raw.to_vec()).collect();
    let mut made = Made {
        pids: pids.iter().map(|(number, raw)| (*number, raw.to_vec())).collect(),
        engines: engines.into_iter().map(|(name, raw)| (name, raw.to_vec())).collect(),
        references: bytes(references),
        nobodies: bytes(nobodies),
    };
    match session.session.translate_in(payload, &mut made) {
        Ok(translated) => decode(env, &translated).unwrap_or_else(|| undecodable(env, session)),
        Err(TranslateError::Full) => atoms::full().encode(env),
        Err(TranslateError::Undecodable) => undecodable(env, session),
    }
}

fn undecodable<'a>(env: Env<'a>, session: &SessionArc) -> Term<'a> {
    session.session.counters().undecodable.one();
    atoms::undecodable().encode(env)
}

/// `{:t, term}`, `{:b, binary}`, `:full` (nothing has happened yet) or `:undecodable`.
#[rustler::nif]
fn session_translate<'a>(env: Env<'a>, session: SessionArc, payload: Binary<'a>, made: MadeTerms<'a>) -> Term<'a> {
    translate(env, &session, &payload, made)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn session_translate_dirty<'a>(
    env: Env<'a>,
    session: SessionArc,
    payload: Binary<'a>,
    made: MadeTerms<'a>,
) -> Term<'a> {
    translate(env, &session, &payload, made)
}

#[rustler::nif]
fn session_discard(env: Env<'_>, session: SessionArc, payload: Binary) -> Atom {
    session.woken(env, session.session.discard_in(payload.as_slice()))
}

#[rustler::nif]
fn session_bind_import(session: SessionArc, number: u64, raw: Binary) -> Atom {
    match session.session.bind_import(number, raw.as_slice()) {
        Ok(()) => atoms::ok(),
        Err(_) => atoms::full(),
    }
}

#[rustler::nif]
fn session_settle_handle(env: Env<'_>, session: SessionArc, number: u64) -> Atom {
    session.woken(env, session.session.settle_handle(number))
}

#[rustler::nif]
fn session_drop_import(env: Env<'_>, session: SessionArc, number: u64) -> Atom {
    match session.session.drop_import(number) {
        DropOutcome::Dropped { wake } => {
            session.woken(env, wake);
            atoms::dropped()
        }
        DropOutcome::InUse => atoms::in_use(),
        DropOutcome::Unknown => atoms::unknown(),
    }
}

#[rustler::nif]
fn session_bind_engine(session: SessionArc, raw: Binary, name: &str) -> Atom {
    session.session.bind_engine(raw.as_slice(), name);
    atoms::ok()
}

#[rustler::nif]
fn session_unbind(session: SessionArc, raw: Binary) -> Atom {
    session.session.unbind(raw.as_slice());
    atoms::ok()
}
