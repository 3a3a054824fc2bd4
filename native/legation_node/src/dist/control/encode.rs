//! Writing control messages. Each function appends one term without a version byte, as
//! [`Outbound::push`](crate::dist::outbound::Outbound::push) takes it. Pids, references and ids are encoded terms,
//! such as [`Pid::raw`](crate::dist::term::Pid).
//!
//! Only the forms that every BEAM since OTP 25 reads, and none of those that it writes to nodes without [our flags](crate::dist::flags).

use crate::dist::term;

/// Whom a monitor or a `DOWN` speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetTerm<'a> {
    /// An encoded pid.
    Pid(&'a [u8]),
    /// The text of a registered name (UTF-8). A `DOWN` repeats the one that the monitor was set with.
    Name(&'a [u8]),
}

pub fn link(out: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    head(out, 3, 1);
    terms(out, &[from, to]);
}

/// Payload: the message.
pub fn send_sender(out: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    head(out, 3, 22);
    terms(out, &[from, to]);
}

/// Payload: the message.
pub fn send(out: &mut Vec<u8>, to: &[u8]) {
    head(out, 3, 2);
    terms(out, &[UNUSED, to]);
}

/// Payload: the message. `name`: text (UTF-8).
pub fn reg_send(out: &mut Vec<u8>, from: &[u8], name: impl AsRef<[u8]>) {
    head(out, 4, 6);
    terms(out, &[from, UNUSED]);
    put_name(out, name.as_ref());
}

/// Payload: the message. When the alias is gone, it is dropped over there.
pub fn alias_send(out: &mut Vec<u8>, from: &[u8], alias: &[u8]) {
    head(out, 3, 33);
    terms(out, &[from, alias]);
}

/// A linked process has ended. Payload: the reason.
pub fn payload_exit(out: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    head(out, 3, 24);
    terms(out, &[from, to]);
}

/// `exit/2`. Payload: the reason.
pub fn payload_exit2(out: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    head(out, 3, 26);
    terms(out, &[from, to]);
}

pub fn unlink_id(out: &mut Vec<u8>, id: &[u8], from: &[u8], to: &[u8]) {
    head(out, 4, 35);
    terms(out, &[id, from, to]);
}

/// `from` is whom the [`UnlinkId`](super::Control::UnlinkId) went to, `to` whom it came from.
pub fn unlink_id_ack(out: &mut Vec<u8>, id: &[u8], from: &[u8], to: &[u8]) {
    head(out, 4, 36);
    terms(out, &[id, from, to]);
}

pub fn monitor_p(out: &mut Vec<u8>, from: &[u8], target: TargetTerm<'_>, reference: &[u8]) {
    head(out, 4, 19);
    terms(out, &[from]);
    put_target(out, target);
    terms(out, &[reference]);
}

pub fn demonitor_p(out: &mut Vec<u8>, from: &[u8], target: TargetTerm<'_>, reference: &[u8]) {
    head(out, 4, 20);
    terms(out, &[from]);
    put_target(out, target);
    terms(out, &[reference]);
}

/// The `DOWN`. Payload: the reason.
pub fn payload_monitor_p_exit(out: &mut Vec<u8>, target: TargetTerm<'_>, to: &[u8], reference: &[u8]) {
    head(out, 4, 28);
    put_target(out, target);
    terms(out, &[to, reference]);
}

/// The answer to a [`SpawnRequest`](super::Control::SpawnRequest): nothing is spawned here.
pub fn spawn_reply_notsup(out: &mut Vec<u8>, id: &[u8], to: &[u8]) {
    head(out, 5, 31);
    terms(out, &[id, to]);
    term::put_u64(out, 0);
    term::put_atom(out, "notsup");
}

/// An atom without characters, where a cookie stood once.
const UNUSED: &[u8] = &[term::tag::SMALL_ATOM_UTF8, 0];

fn head(out: &mut Vec<u8>, arity: u8, op: u8) {
    out.extend_from_slice(&[term::tag::SMALL_TUPLE, arity, term::tag::SMALL_INTEGER, op]);
}

fn terms(out: &mut Vec<u8>, terms: &[&[u8]]) {
    for term in terms {
        out.extend_from_slice(term);
    }
}

fn put_target(out: &mut Vec<u8>, target: TargetTerm<'_>) {
    match target {
        TargetTerm::Pid(pid) => out.extend_from_slice(pid),
        TargetTerm::Name(name) => put_name(out, name),
    }
}

fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    term::put_atom(out, &String::from_utf8_lossy(name));
}
