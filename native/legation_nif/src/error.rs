//! Errors of the core as terms: `{:error, {kind, detail}}` of atoms, numbers and binaries.

use legation_proto::identity::KeyError;
use legation_proto::session::PushError;
use rustler::{Atom, Encoder, Env, Term};

use crate::atoms;

pub fn error<'a>(env: Env<'a>, kind: Atom, detail: impl Encoder) -> Term<'a> {
    (atoms::error(), (kind, detail)).encode(env)
}

pub fn key_reason(error: KeyError) -> Atom {
    match error {
        KeyError::NotAPoint => atoms::not_a_point(),
        KeyError::NotCanonical => atoms::not_canonical(),
        KeyError::Weak => atoms::weak(),
        KeyError::Torsion => atoms::torsion(),
    }
}

pub fn push_reason(error: PushError) -> Atom {
    match error {
        PushError::Overload => atoms::overload(),
        PushError::TooLarge => atoms::too_large(),
        PushError::Identifiers => atoms::identifiers(),
        PushError::UnknownCall => atoms::unknown_call(),
        PushError::BadName => atoms::bad_name(),
        PushError::UnknownHandle => atoms::unknown_handle(),
        PushError::Disconnect => atoms::disconnect(),
        PushError::Ended => atoms::ended(),
        _ => atoms::bad_term(),
    }
}

pub fn io_reason(error: &std::io::Error) -> Atom {
    match error.kind() {
        std::io::ErrorKind::NotFound => atoms::enoent(),
        std::io::ErrorKind::PermissionDenied => atoms::eacces(),
        std::io::ErrorKind::AlreadyExists => atoms::exists(),
        _ => atoms::io(),
    }
}
