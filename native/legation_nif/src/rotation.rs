//! Another identity key for a keyring that is in use, the end of one, and what is known of others' keys.
//!
//! What is decided is written down before it is true: a restart must not come back with less than peers have seen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;

use legation_proto::identity::RealmId;
use legation_proto::key_file::{self, chain_path, ChainFile, KeyFileError, Loaded, CHAIN_BYTES_MAX};
use legation_proto::keyring::{Keyring, KeyringError};
use rustler::{Atom, Binary, Encoder, Env, NifResult, ResourceArc, Term};
use zeroize::Zeroizing;

use crate::atoms;
use crate::error::{error, io_reason, key_reason};
use crate::keyring::{array, as_path, random, KeyringResource, NetworkResource};
use crate::payload::binary;

/// The key of a file with its rotations, or the key that has replaced it.
pub fn load(path: &Path, online: &[u8; 32]) -> Result<Loaded, KeyFileError> {
    let mut pem = |path: &Path| {
        let read = std::fs::read_to_string(path).map(Zeroizing::new);
        let pem = read.map_err(|error| KeyFileError::Io { path: path.to_owned(), error })?;
        Keyring::from_pem(&pem, online).map_err(|error| KeyFileError::Key { path: path.to_owned(), error })
    };
    key_file::load(path, &mut pem, &mut |path| {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // One that is longer is none, and is found to be cut short.
        let mut content = Vec::new();
        file.take(CHAIN_BYTES_MAX).read_to_end(&mut content)?;
        Ok(Some(content))
    })
}

pub fn file_reason(reason: &KeyFileError) -> Atom {
    match reason {
        KeyFileError::Io { error, .. } => io_reason(error),
        KeyFileError::Key { error: KeyringError::NotPkcs8Ed25519, .. } => atoms::not_pkcs8_ed25519(),
        _ => atoms::bad_chain(),
    }
}

fn reason(env: Env<'_>, reason: KeyringError) -> Term<'_> {
    let reason = match reason {
        KeyringError::External => atoms::external(),
        KeyringError::Revoked => atoms::revoked(),
        KeyringError::TooManyRotations => atoms::too_many(),
        KeyringError::UsedBefore => atoms::used_before(),
        KeyringError::Public(reason) => key_reason(reason),
        _ => atoms::raced(),
    };
    error(env, atoms::rotation(), reason)
}

/// A file that is there whole, or as it was before.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let written = Path::new(&name);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(written)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(written, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether peers in this network will accept our rotations.
#[rustler::nif(schedule = "DirtyCpu")]
fn keyring_check(
    env: Env<'_>,
    keyring: ResourceArc<KeyringResource>,
    network: ResourceArc<NetworkResource>,
    now: u64,
) -> Term<'_> {
    match keyring.keyring.check(&network.0.id(), now) {
        Ok(()) => atoms::ok().encode(env),
        Err(_) => error(env, atoms::key_file(), atoms::bad_chain()),
    }
}

/// The identity key in force; peers know the realm by its first one.
#[rustler::nif]
fn keyring_identity<'a>(env: Env<'a>, keyring: ResourceArc<KeyringResource>) -> Term<'a> {
    let identity = keyring.keyring.identity();
    (binary(env, identity.public()), identity.chain().len() as u64, identity.revocation().is_some()).encode(env)
}

/// The key in the file is the identity from now on.
#[rustler::nif(schedule = "DirtyIo")]
fn keyring_rotate<'a>(
    env: Env<'a>,
    keyring: ResourceArc<KeyringResource>,
    network: ResourceArc<NetworkResource>,
    path: Binary<'a>,
    now: u64,
) -> NifResult<Term<'a>> {
    let mut file = keyring.file.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(old_path) = file.clone() else { return Ok(reason(env, KeyringError::External)) };
    let io = |error_: std::io::Error| error(env, atoms::key_file(), io_reason(&error_));
    let path = match std::path::absolute(as_path(&path)?) {
        Ok(path) => path,
        Err(error) => return Ok(io(error)),
    };
    let pem = match std::fs::read_to_string(&path) {
        Ok(pem) => Zeroizing::new(pem),
        Err(error) => return Ok(io(error)),
    };
    let Ok(next) = Keyring::from_pem(&pem, &Zeroizing::new(random()?)) else {
        return Ok(error(env, atoms::key_file(), atoms::not_pkcs8_ed25519()));
    };
    let rotation = match keyring.keyring.sign_rotation(next.public(), &network.0.id(), now) {
        Ok(rotation) => rotation,
        Err(error) => return Ok(reason(env, error)),
    };
    let old = ChainFile { next: Some(path.clone()), ..ChainFile::of(&keyring.keyring) };
    let mut new = ChainFile::of(&keyring.keyring);
    new.rotations.push(rotation.clone());
    let (Some(old), Some(new)) = (old.format(), new.format()) else {
        return Ok(error(env, atoms::key_file(), atoms::bad_path()));
    };
    if let Err(error) = write(&chain_path(&path), &new).and_then(|()| write(&chain_path(&old_path), &old)) {
        return Ok(io(error));
    }
    if let Err(error) = keyring.keyring.rotate(&next, rotation) {
        return Ok(reason(env, error));
    }
    *file = Some(path);
    Ok((atoms::ok(), binary(env, next.public())).encode(env))
}

/// The realm has ended.
#[rustler::nif(schedule = "DirtyIo")]
fn keyring_revoke<'a>(
    env: Env<'a>,
    keyring: ResourceArc<KeyringResource>,
    network: ResourceArc<NetworkResource>,
) -> Term<'a> {
    let file = keyring.file.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(path) = &*file else { return reason(env, KeyringError::External) };
    let revocation = match keyring.keyring.sign_revocation(&network.0.id()) {
        Ok(revocation) => revocation,
        Err(error) => return reason(env, error),
    };
    let ended = ChainFile { revocation: Some(revocation.clone()), ..ChainFile::of(&keyring.keyring) };
    let text = ended.format().unwrap_or_default();
    if let Err(reason) = write(&chain_path(path), &text) {
        return error(env, atoms::key_file(), io_reason(&reason));
    }
    match keyring.keyring.revoke(revocation) {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => reason(env, error),
    }
}

/// We have decided so: none of the realm's keys is accepted any more.
#[rustler::nif]
fn realm_revoke<'a>(keyring: ResourceArc<KeyringResource>, realm_id: Binary<'a>) -> NifResult<Atom> {
    keyring.keyring.heads().revoke(&RealmId(array(&realm_id)?));
    Ok(atoms::ok())
}

#[rustler::nif]
fn realm_revoked<'a>(keyring: ResourceArc<KeyringResource>, realm_id: Binary<'a>) -> NifResult<bool> {
    Ok(keyring.keyring.heads().is_revoked(&RealmId(array(&realm_id)?)))
}

/// What is known of others' keys and was not known at the last time: `[{realm_id, bytes}]`, for the next start.
#[rustler::nif]
fn heads_changed<'a>(env: Env<'a>, keyring: ResourceArc<KeyringResource>) -> Vec<Term<'a>> {
    let changed = keyring.keyring.heads().take_changed();
    changed.iter().map(|(realm, bytes)| (binary(env, &realm.0), binary(env, bytes)).encode(env)).collect()
}

#[rustler::nif]
fn heads_restore<'a>(env: Env<'a>, keyring: ResourceArc<KeyringResource>, bytes: Binary<'a>) -> Term<'a> {
    match keyring.keyring.heads().restore(bytes.as_slice()) {
        Ok(_) => atoms::ok().encode(env),
        Err(_) => error(env, atoms::rotation(), atoms::bad_chain()),
    }
}
