//! Events of a link and its session as terms. Which there are: `docs/internals.md`.

use legation_channel::knock::KnockRefused;
use legation_channel::link::{Link, LinkEvent, LinkFault};
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::Refusal;
use legation_proto::hello::Role;
use legation_proto::session::{Delivery, Destination, Event, ExitKind, ReasonTerm, Session};
use rustler::types::tuple::make_tuple;
use rustler::{Atom, Encoder, Env, Term};

use crate::atoms;
use crate::channel::{mode_atom, profile_atom};
use crate::keyring::purpose_atom;
use crate::payload::{binary, decode, large_binary};
use crate::session::raw_term;

pub fn link_event<'a>(env: Env<'a>, event: LinkEvent<'_>) -> Term<'a> {
    match event {
        LinkEvent::Sign(request) => {
            let purpose = purpose_atom(request.purpose);
            (atoms::sign(), request.id, purpose, binary(env, &request.body)).encode(env)
        }
        LinkEvent::Decide { peer, key, resume } => {
            let offer = resume.map(|offer| (binary(env, &offer.session), offer.additional));
            (atoms::hello(), binary(env, &peer.0), binary(env, &key), offer).encode(env)
        }
        LinkEvent::Fault(fault) => {
            let code = match &fault {
                LinkFault::Knock(KnockRefused::MemoryFull) => atoms::knock_memory_full(),
                LinkFault::Knock(_) => atoms::knock(),
                LinkFault::Answer(_) => atoms::answer(),
                LinkFault::Channel(_) => atoms::channel_error(),
                LinkFault::Protocol(error) => atom(env, CloseCode::from(error).name()),
            };
            (atoms::fault(), code, fault.to_string()).encode(env)
        }
        // `collect` takes these out before.
        LinkEvent::Up { .. } | LinkEvent::Session(_) => atoms::error().encode(env),
    }
}

/// Only ever called with names from tables in the core, of which there are a few dozen.
fn atom(env: Env<'_>, name: &str) -> Atom {
    Atom::from_str(env, name).unwrap_or_else(|_| atoms::error())
}

/// Profile and role are the link's: a session may have begun on another.
pub fn facts<'a>(env: Env<'a>, link: &Link, session: &Session, resumed: bool, additional: bool) -> Term<'a> {
    let agreed = session.agreed();
    let role = match link.role() {
        Role::Initiator => atoms::initiator(),
        Role::Responder => atoms::responder(),
    };
    let entries: [(Atom, Term<'a>); 9] = [
        (atoms::realm_id(), binary(env, &agreed.peer.0)),
        (atoms::key(), binary(env, agreed.peer_realm_key())),
        (atoms::profile(), profile_atom(link.profile()).encode(env)),
        (atoms::role(), role.encode(env)),
        (atoms::version(), agreed.version.encode(env)),
        (atoms::signing(), mode_atom(session.signing()).encode(env)),
        (atoms::session_id(), binary(env, &agreed.session)),
        (atoms::resumed(), resumed.encode(env)),
        (atoms::additional(), additional.encode(env)),
    ];
    entries.into_iter().fold(Term::map_new(env), |map, (key, value)| map.map_put(key, value).unwrap_or(map))
}

/// Appends the event as a term. A call that can't be decoded becomes none: its id is returned, to be refused once the
/// link's locks are free.
pub fn session_event<'a>(env: Env<'a>, link: &Link, event: Event<'_>, events: &mut Vec<Term<'a>>) -> Option<u64> {
    let count_undecodable = || {
        if let Some(session) = link.session() {
            session.counters().undecodable.one();
        }
    };
    let receipt_term = |receipt: Option<Vec<u8>>| receipt.map(|receipt| large_binary(env, &receipt));
    // With handles it has to be translated, by who can make processes.
    let payload_term = |payload: &[u8], handles: bool| match handles {
        true => Some((atoms::h(), binary(env, payload)).encode(env)),
        false => decode(env, payload),
    };
    // Of what nobody waits for it is told all the same: Elixir drops it as it drops others, with an event and a line in the log.
    let or_undecodable = |payload: Option<Term<'a>>| {
        payload.unwrap_or_else(|| {
            count_undecodable();
            atoms::undecodable().encode(env)
        })
    };
    let destination_term = |destination: &Destination<'_>| match destination {
        Destination::Engine(name) => Some(name.encode(env)),
        Destination::Process { pid, .. } => raw_term(env, pid),
    };
    let reason_term =
        |term: Option<ReasonTerm<'_>>| term.map(|term| or_undecodable(payload_term(term.payload, term.handles)));
    let term = match event {
        Event::Deliver { delivery, destination, source, payload, handles, receipt } => {
            let payload = or_undecodable(payload_term(payload, handles));
            let kind = match delivery {
                Delivery::Send => atoms::send(),
                Delivery::Cast => atoms::cast(),
            };
            (kind, destination_term(&destination)?, source, payload, receipt_term(receipt)).encode(env)
        }
        Event::Call { destination, source, label, call_id, caller, payload, handles, receipt } => {
            let (Some(destination), Some(payload)) = (destination_term(&destination), payload_term(payload, handles))
            else {
                return Some(call_id);
            };
            // Longer than the tuples that rustler encodes by itself.
            let elements = [
                atoms::call().encode(env),
                destination,
                source.encode(env),
                label.encode(env),
                call_id.encode(env),
                caller.encode(env),
                payload,
                receipt_term(receipt).encode(env),
            ];
            make_tuple(env, &elements)
        }
        Event::Exit { exit, from, destination, source, payload, handles } => {
            let payload = or_undecodable(payload_term(payload, handles));
            let exit = match exit {
                ExitKind::Linked => atoms::linked(),
                ExitKind::Sent => atoms::sent(),
            };
            (atoms::exit(), exit, from, destination_term(&destination)?, source, payload).encode(env)
        }
        Event::Reply { context, payload, handles } => {
            let (from, _) = env.binary_to_term(context)?;
            match payload_term(payload, handles) {
                Some(payload) => (atoms::reply(), from, payload).encode(env),
                None => {
                    count_undecodable();
                    (atoms::refused(), from, atom(env, Refusal::Undecodable.name())).encode(env)
                }
            }
        }
        Event::Refused { context, refusal } => {
            let (from, _) = env.binary_to_term(context)?;
            (atoms::refused(), from, atom(env, refusal.name())).encode(env)
        }
        Event::Learned(learn) => {
            let entries: [(Atom, Term<'a>); 4] = [
                (atoms::key(), binary(env, &learn.key)),
                (atoms::serial(), learn.serial.encode(env)),
                (atoms::version(), learn.version.encode(env)),
                (atoms::ops(), learn.operations.encode(env)),
            ];
            let map = entries
                .into_iter()
                .fold(Term::map_new(env), |map, (key, value)| map.map_put(key, value).unwrap_or(map));
            (atoms::learn(), learn.engine.as_str(), map).encode(env)
        }
        Event::Forgotten { engine, reason, term } => {
            (atoms::forget(), engine, atom(env, reason.name()), reason_term(term)).encode(env)
        }
        Event::HandleEnded { number, reason, term } => {
            (atoms::handle_ended(), number, atom(env, reason.name()), reason_term(term)).encode(env)
        }
        Event::TimeoutIn(ms) => (atoms::timeout_in(), ms).encode(env),
        Event::Unexported { number } => (atoms::unexported(), number).encode(env),
        Event::Rotated(rotation) => (atoms::rotated(), rotation.serial, binary(env, &rotation.new)).encode(env),
        Event::Closed { code, text } => (atoms::closed(), atom(env, code.name()), text).encode(env),
    };
    events.push(term);
    None
}
