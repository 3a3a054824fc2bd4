//! One message of a verified batch: what it is, whom it is for, whether it may be that. What passes is an event.

use crate::etf;
use crate::frame::batch::{kind, label, Address, Item, Refusal};
use crate::session::calls::{NotServed, Served};
use crate::session::crossing::ExitKind;
use crate::session::reasons::{Put, Reason, Reasons, Whose};
use crate::session::{lock, Delivery, Destination, Event, Session};

/// True: the active link's writer has to be woken.
pub(super) fn deliver(
    session: &Session,
    item: &Item<'_>,
    receipt: Option<Vec<u8>>,
    sink: &mut dyn FnMut(Event<'_>),
) -> bool {
    match item.row.kind {
        kind::SEND | kind::CAST => deliver_message(session, item, receipt, sink),
        kind::GENCALL => deliver_call(session, item, receipt, sink),
        kind::REPLY | kind::ERROR => deliver_answer(session, item, sink),
        kind::EXIT => deliver_exit(session, item, sink),
        _ => {
            session.shared.counters.unknown_kind.one();
            false
        }
    }
}

fn deliver_message(
    session: &Session,
    item: &Item<'_>,
    receipt: Option<Vec<u8>>,
    sink: &mut dyn FnMut(Event<'_>),
) -> bool {
    let (row, payload, counters) = (&item.row, item.payload, &session.shared.counters);
    let handles = match check_payload(session, payload) {
        Ok(handles) => handles,
        Err(NotChecked { wake, .. }) => return wake,
    };
    if row.kind == kind::SEND && is_disguised(session, payload) {
        return discard(session, payload, handles);
    }
    let Some(destination) = find(session, row.destination) else {
        counters.unknown_handle.one();
        return discard(session, payload, handles);
    };
    let delivery = if row.kind == kind::SEND { Delivery::Send } else { Delivery::Cast };
    sink(Event::Deliver { delivery, destination, source: row.source, payload, handles, receipt });
    false
}

/// A plain message that OTP would take for something else; it is counted.
fn is_disguised(session: &Session, payload: &[u8]) -> bool {
    let given = |number| lock(&session.calls).handles.knows_own_reference(number);
    let disguised = etf::disguise(payload, &given).is_some();
    if disguised {
        session.shared.counters.disguised.one();
    }
    disguised
}

fn deliver_call(session: &Session, item: &Item<'_>, receipt: Option<Vec<u8>>, sink: &mut dyn FnMut(Event<'_>)) -> bool {
    let (row, payload, shared) = (&item.row, item.payload, &session.shared);
    let served = Served { call_id: row.call_id, caller: row.caller, engine: row.destination.into() };
    let outcome = {
        let mut calls = lock(&session.calls);
        let outcome = calls.serve(served, &shared.limits);
        shared.counters.calls_served.set(calls.being_served() as u64);
        outcome
    };
    let call_id = match outcome {
        Ok(call_id) => call_id,
        Err(NotServed::Duplicate) => {
            shared.counters.duplicate_call.one();
            return discard_unchecked(session, payload);
        }
        Err(NotServed::Full(bound)) => {
            shared.counters.over(bound);
            shared.counters.overload_in.one();
            return refuse_unserved(session, item) | discard_unchecked(session, payload);
        }
    };
    let handles = match check_payload(session, payload) {
        Ok(handles) => handles,
        Err(NotChecked { refusal, wake }) => return session.refuse(call_id, refusal) | wake,
    };
    let refuse = |refusal| session.refuse(call_id, refusal) | discard(session, payload, handles);
    let allowed = match row.detail {
        label::GEN_CALL | label::SYSTEM | label::CALLER | label::CAST => true,
        label::SEND => !is_disguised(session, payload),
        _ => false,
    };
    if !allowed {
        return refuse(Refusal::Forbidden);
    }
    let Some(destination) = find(session, row.destination) else {
        shared.counters.unknown_handle.one();
        return refuse(Refusal::Noproc);
    };
    sink(Event::Call {
        destination,
        source: row.source,
        label: row.detail,
        call_id,
        caller: row.caller,
        payload,
        handles,
        receipt,
    });
    false
}

fn deliver_answer(session: &Session, item: &Item<'_>, sink: &mut dyn FnMut(Event<'_>)) -> bool {
    let (row, payload, counters) = (&item.row, item.payload, &session.shared.counters);
    let mut calls = lock(&session.calls);
    // An engine answers its own calls; the realm, for one that is not announced (any more), and for other processes.
    if !row.source.is_empty() && calls.destination(row.call_id).is_some_and(|called| called != row.source) {
        drop(calls);
        counters.foreign_reply.one();
        return discard_unchecked(session, payload);
    }
    let finished = calls.finish(row.call_id);
    counters.calls_pending.set(calls.pending() as u64);
    drop(calls);
    let Some(pending) = finished else {
        counters.late_reply.one();
        return discard_unchecked(session, payload);
    };
    let context = &pending.context;
    if row.kind == kind::ERROR {
        let refusal = Refusal::from_wire(row.detail).unwrap_or(Refusal::Forbidden);
        sink(Event::Refused { context, refusal });
        return false;
    }
    match check_payload(session, payload) {
        Ok(handles) => {
            sink(Event::Reply { context, payload, handles });
            false
        }
        Err(NotChecked { refusal, wake }) => {
            sink(Event::Refused { context, refusal });
            wake
        }
    }
}

fn deliver_exit(session: &Session, item: &Item<'_>, sink: &mut dyn FnMut(Event<'_>)) -> bool {
    let (row, payload, counters) = (&item.row, item.payload, &session.shared.counters);
    let not_wanted = |handles| session.settle_handle(row.caller) | discard(session, payload, handles);
    let Some(exit) = ExitKind::from_wire(row.detail) else {
        counters.unknown_kind.one();
        return session.settle_handle(row.caller) | discard_unchecked(session, payload);
    };
    let handles = match check_payload(session, payload) {
        Ok(handles) => handles,
        Err(NotChecked { wake, .. }) => return session.settle_handle(row.caller) | wake,
    };
    let Some(destination) = find(session, row.destination) else {
        counters.unknown_handle.one();
        return not_wanted(handles);
    };
    sink(Event::Exit { exit, from: row.caller, destination, source: row.source, payload, handles });
    false
}

/// A message for which there was no credit.
pub(super) fn turn_away(session: &Session, item: &Item<'_>) -> bool {
    let refused = item.row.kind == kind::GENCALL && refuse_unserved(session, item);
    let counted = matches!(item.row.kind, kind::GENCALL | kind::EXIT) && session.settle_handle(item.row.caller);
    refused | counted | discard_unchecked(session, item.payload)
}

/// A call that met a bound.
fn refuse_unserved(session: &Session, item: &Item<'_>) -> bool {
    let served = Served { call_id: item.row.call_id, caller: item.row.caller, engine: "".into() };
    session.push_refusal(&served, Refusal::Overload)
}

/// A DOWN: the reason waits for the end that it belongs to.
pub(super) fn keep_reason(session: &Session, reasons: &mut Reasons, item: &Item<'_>) -> bool {
    let (row, payload) = (&item.row, item.payload);
    let handles = match check_payload(session, payload) {
        Ok(handles) => handles,
        Err(NotChecked { wake, .. }) => return wake,
    };
    let whose = match row.caller {
        0 => Whose::Engine(row.source.into()),
        number => Whose::Handle(number),
    };
    match reasons.put(whose, Reason { payload: payload.into(), handles }) {
        Put::Kept => false,
        Put::Replaced(earlier) => discard(session, &earlier.payload, earlier.handles),
        Put::Full(refused) => {
            session.shared.counters.reasons_over_limit.one();
            discard(session, &refused.payload, refused.handles)
        }
    }
}

/// Whom a message is for. None: a process that is not known (any more), or has ended.
fn find<'a>(session: &Session, destination: &'a str) -> Option<Destination<'a>> {
    match Address::parse(destination)? {
        Address::Engine(name) => Some(Destination::Engine(name)),
        Address::Handle(number) => {
            let calls = lock(&session.calls);
            let pid = calls.handles.export_pid(number).filter(|_| calls.handles.is_exported(number))?;
            Some(Destination::Process { number, pid: pid.clone() })
        }
    }
}

struct NotChecked {
    refusal: Refusal,
    wake: bool,
}

/// Size, form and contents of a payload, counted when they fail. True: it holds handles.
fn check_payload(session: &Session, payload: &[u8]) -> Result<bool, NotChecked> {
    let (limits, counters) = (&session.shared.limits, &session.shared.counters);
    let refused = |refusal| Err(NotChecked { refusal, wake: false });
    if payload.len() > limits.message_bytes_max as usize {
        counters.too_large.one();
        return refused(Refusal::TooLarge);
    }
    match etf::scan_wire(payload, &limits.term) {
        Ok(handles) if !handles || limits.identifiers => Ok(handles),
        Ok(_) => {
            counters.identifiers.one();
            Err(NotChecked { refusal: Refusal::Identifiers, wake: session.discard_in(payload) })
        }
        Err(error) if error.is_identifiers() => {
            counters.identifiers.one();
            refused(Refusal::Identifiers)
        }
        Err(_) => {
            counters.bad_term.one();
            refused(Refusal::Undecodable)
        }
    }
}

fn discard(session: &Session, payload: &[u8], handles: bool) -> bool {
    handles && session.discard_in(payload)
}

/// Of a message that is dropped before its payload is looked at.
fn discard_unchecked(session: &Session, payload: &[u8]) -> bool {
    let limits = &session.shared.limits;
    let fits = payload.len() <= limits.message_bytes_max as usize;
    fits && etf::scan_wire(payload, &limits.term) == Ok(true) && session.discard_in(payload)
}
