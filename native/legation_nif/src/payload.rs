//! Payloads on their way to Elixir: small ones decoded here, large ones as binaries for the BEAM's yielding decoder.

use rustler::{Binary, Encoder, Env, NewBinary, OwnedBinary, Term};

use crate::atoms;

/// Above this the NIF doesn't decode: `enif_binary_to_term` can't yield.
pub const DECODED_BYTES_MAX: usize = 16 * 1024;

pub fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    NewBinary::from_slice(env, bytes).into()
}

/// `{:t, term}` or `{:b, binary}`; None when the term holds an atom that this VM doesn't know.
pub fn decode<'a>(env: Env<'a>, bytes: &[u8]) -> Option<Term<'a>> {
    if bytes.len() > DECODED_BYTES_MAX {
        return Some((atoms::b(), binary(env, bytes)).encode(env));
    }
    // Safe mode: unknown atoms are refused, not made.
    let (term, used) = env.binary_to_term(bytes)?;
    (used == bytes.len()).then(|| (atoms::t(), term).encode(env))
}

pub fn large_binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    // Never on the process's heap, however small: it goes to the carrier, or to another process.
    Binary::from_owned(OwnedBinary::from_slice(bytes), env).encode(env)
}
