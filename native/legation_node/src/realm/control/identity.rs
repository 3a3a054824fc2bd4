//! Why a key wasn't replaced or revoked, as a term: what `Legation.rotate_key/2` says with the embedded transport, too.

use erl_dist::term::Term;
use legation_proto::keyring::KeyringError;

use super::bad_key_name;
use crate::identity::RotateError;
use crate::realm::identity::NewKeyError;
use crate::realm::terms::{atom, binary, tuple};

pub(super) fn error_term(reason: &NewKeyError) -> Term {
    let keyring = match reason {
        NewKeyError::Rotate(RotateError::Keyring(reason)) => reason,
        NewKeyError::Rotate(RotateError::KeyFile { code, .. }) => return tuple(vec![atom("key_file"), atom(code)]),
        NewKeyError::Sign(reason) => return tuple(vec![atom("keyholder"), binary(reason.to_string())]),
        NewKeyError::Stopping => return atom("closed"),
    };
    let word = match keyring {
        KeyringError::External => "external",
        KeyringError::Revoked => "revoked",
        KeyringError::TooManyRotations => "too_many",
        KeyringError::UsedBefore => "used_before",
        KeyringError::Public(reason) => bad_key_name(*reason),
        _ => "raced",
    };
    tuple(vec![atom("rotation"), atom(word)])
}
