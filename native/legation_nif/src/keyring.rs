//! Keys: from file to Rust memory, never a term. Also everything that is computed from public keys and names.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use legation_channel::tls::{LinkKey, TlsContext};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::learn::Learn;
use legation_proto::identity::{check_public_key, checked_public_key, verify_message, NetworkKey, Purpose, RealmId};
use legation_proto::key_text::{identity_pem, parse_network_key};
use legation_proto::keyring::{Keyring, KeyringError};
use rustler::{Atom, Binary, Encoder, Env, Error, NifResult, Resource, ResourceArc, Term};
use zeroize::Zeroizing;

use crate::atoms;
use crate::error::{error, io_reason, key_reason};
use crate::payload::binary;
use crate::rotation;

/// A realm's keys and the link key of this process.
pub struct KeyringResource {
    pub keyring: Arc<Keyring>,
    pub tls: Arc<TlsContext>,
    /// Where the identity stands; none for one that is held elsewhere. Held while it is replaced.
    pub file: Mutex<Option<PathBuf>>,
}

#[rustler::resource_impl]
impl Resource for KeyringResource {}

pub struct NetworkResource(pub NetworkKey);

#[rustler::resource_impl]
impl Resource for NetworkResource {}

/// Fresh randomness from the operating system.
///
/// # Errors
/// When there is none: nothing may go on then.
pub fn random<const N: usize>() -> NifResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Term(Box::new(atoms::random())))?;
    Ok(bytes)
}

pub fn array<const N: usize>(bytes: &Binary) -> NifResult<[u8; N]> {
    bytes.as_slice().try_into().map_err(|_| Error::BadArg)
}

fn resource(keyring: Keyring, file: Option<PathBuf>) -> NifResult<ResourceArc<KeyringResource>> {
    let tls = TlsContext::new(&LinkKey::generate(random()?));
    Ok(ResourceArc::new(KeyringResource { keyring: Arc::new(keyring), tls, file: Mutex::new(file) }))
}

/// The key in the file, or the one that has replaced it.
#[rustler::nif(schedule = "DirtyIo")]
fn keyring_load<'a>(env: Env<'a>, path: Binary<'a>) -> NifResult<Term<'a>> {
    let online = Zeroizing::new(random()?);
    match rotation::load(as_path(&path)?, &online) {
        Ok(loaded) => Ok((atoms::ok(), resource(loaded.keyring, Some(loaded.path))?).encode(env)),
        Err(reason) => Ok(error(env, atoms::key_file(), rotation::file_reason(&reason))),
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn keyring_external<'a>(env: Env<'a>, public: Binary<'a>) -> NifResult<Term<'a>> {
    let online = Zeroizing::new(random()?);
    match Keyring::external(array(&public)?, random()?, &online) {
        Ok(keyring) => Ok((atoms::ok(), resource(keyring, None)?).encode(env)),
        Err(KeyringError::Public(reason)) => Ok(error(env, atoms::bad_key(), key_reason(reason))),
        Err(_) => Err(Error::BadArg),
    }
}

/// Writes a new identity. Never over a file: an overwritten identity can't be had back.
#[rustler::nif(schedule = "DirtyIo")]
fn keyring_generate<'a>(env: Env<'a>, path: Binary<'a>) -> NifResult<Term<'a>> {
    let seed = Zeroizing::new(random::<32>()?);
    let (pem, public) = identity_pem(&seed).map_err(|_| Error::BadArg)?;
    match write_new(as_path(&path)?, pem.as_bytes()) {
        Ok(()) => Ok((atoms::ok(), binary(env, &public)).encode(env)),
        Err(reason) => Ok(error(env, atoms::key_file(), io_reason(&reason))),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub fn as_path<'a>(path: &Binary<'a>) -> NifResult<&'a Path> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Path::new(std::ffi::OsStr::from_bytes(path.as_slice())))
}

#[rustler::nif]
fn keyring_public<'a>(env: Env<'a>, keyring: ResourceArc<KeyringResource>) -> Term<'a> {
    binary(env, keyring.keyring.public())
}

#[rustler::nif(schedule = "DirtyCpu")]
fn keyring_sign<'a>(
    env: Env<'a>,
    keyring: ResourceArc<KeyringResource>,
    network: ResourceArc<NetworkResource>,
    purpose: Atom,
    body: Binary<'a>,
) -> NifResult<Term<'a>> {
    match keyring.keyring.sign(purpose_of(purpose)?, &network.0.id(), body.as_slice()) {
        Ok(signature) => Ok((atoms::ok(), binary(env, &signature)).encode(env)),
        Err(_) => Ok(error(env, atoms::external(), purpose)),
    }
}

pub fn purpose_of(purpose: Atom) -> NifResult<Purpose> {
    [Purpose::Link, Purpose::Hello, Purpose::Cert, Purpose::Learn, Purpose::Forget]
        .into_iter()
        .find(|candidate| purpose_atom(*candidate) == Some(purpose))
        .ok_or(Error::BadArg)
}

/// None for the purposes that no keyholder is ever asked to sign for.
pub fn purpose_atom(purpose: Purpose) -> Option<Atom> {
    Some(match purpose {
        Purpose::Link => atoms::link(),
        Purpose::Hello => atoms::hello(),
        Purpose::Cert => atoms::cert(),
        Purpose::Learn => atoms::learn(),
        Purpose::Forget => atoms::forget(),
        Purpose::Rotate | Purpose::Revoke | Purpose::Batch | Purpose::Checkpoint => return None,
    })
}

#[rustler::nif(schedule = "DirtyCpu")]
fn keyring_engine_public<'a>(env: Env<'a>, keyring: ResourceArc<KeyringResource>, name: &str) -> Term<'a> {
    binary(env, &keyring.keyring.engine_public(name))
}

#[rustler::nif]
fn keyring_online_public<'a>(env: Env<'a>, keyring: ResourceArc<KeyringResource>) -> Term<'a> {
    binary(env, &keyring.keyring.online_public())
}

/// A network key file holds 32 bytes, or 64 hexadecimal digits and perhaps a newline. `nil`: no network key.
#[rustler::nif(schedule = "DirtyIo")]
fn network_load<'a>(env: Env<'a>, path: Option<Binary<'a>>) -> NifResult<Term<'a>> {
    let Some(path) = path else {
        return Ok((atoms::ok(), ResourceArc::new(NetworkResource(NetworkKey::none()))).encode(env));
    };
    let bytes = match std::fs::read(as_path(&path)?) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(reason) => return Ok(error(env, atoms::network_key_file(), io_reason(&reason))),
    };
    match parse_network_key(&bytes) {
        Some(key) => Ok((atoms::ok(), ResourceArc::new(NetworkResource(key))).encode(env)),
        None => Ok(error(env, atoms::network_key_file(), atoms::not_a_network_key())),
    }
}

#[rustler::nif]
fn network_id<'a>(env: Env<'a>, network: ResourceArc<NetworkResource>) -> Term<'a> {
    binary(env, &network.0.id().0)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn signing_input<'a>(
    env: Env<'a>,
    network: ResourceArc<NetworkResource>,
    purpose: Atom,
    body: Binary<'a>,
) -> NifResult<Term<'a>> {
    let input = legation_proto::identity::signing_input(purpose_of(purpose)?, &network.0.id(), body.as_slice());
    Ok(binary(env, &input))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn key_check<'a>(env: Env<'a>, public: Binary<'a>) -> NifResult<Term<'a>> {
    match check_public_key(&array(&public)?) {
        Ok(_) => Ok(atoms::ok().encode(env)),
        Err(reason) => Ok(error(env, atoms::bad_key(), key_reason(reason))),
    }
}

/// False, too, for what is no point, and for a signature that is not of 64 bytes.
#[rustler::nif(schedule = "DirtyCpu")]
fn verify(public: Binary<'_>, message: Binary<'_>, signature: Binary<'_>) -> NifResult<bool> {
    Ok(match (checked_public_key(&array(&public)?), signature.as_slice().try_into()) {
        (Some(key), Ok(signature)) => verify_message(&key, message.as_slice(), signature),
        _ => false,
    })
}

#[rustler::nif]
fn realm_id<'a>(env: Env<'a>, public: Binary<'a>) -> NifResult<Term<'a>> {
    Ok(binary(env, &RealmId::of(&array(&public)?).0))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn blake3<'a>(env: Env<'a>, bytes: Binary<'a>) -> Term<'a> {
    binary(env, blake3::hash(bytes.as_slice()).as_bytes())
}

/// The fields of the announcements that Elixir makes. Fields that a kind doesn't have may be left out.
#[derive(rustler::NifMap)]
struct LearnFields<'a> {
    realm_id: Binary<'a>,
    name: &'a str,
    key: Binary<'a>,
    serial: u64,
    not_before: u64,
    not_after: u64,
    version: u32,
    // Wider than what it becomes: rustler cuts off what doesn't fit into 16 bits.
    ops: u32,
    delegate: bool,
}

#[derive(rustler::NifMap)]
struct ForgetFields<'a> {
    realm_id: Binary<'a>,
    name: &'a str,
    serial: u64,
    reason: Atom,
}

#[derive(rustler::NifMap)]
struct CertFields<'a> {
    realm_id: Binary<'a>,
    key: Binary<'a>,
    serial: u64,
    not_before: u64,
    not_after: u64,
}

/// The unsigned body of an announcement (`protocol.md` 11).
#[rustler::nif]
fn announcement<'a>(env: Env<'a>, kind: Atom, fields: Term<'a>) -> NifResult<Term<'a>> {
    let body = if kind == atoms::learn() {
        let fields: LearnFields = fields.decode()?;
        Learn {
            realm: RealmId(array(&fields.realm_id)?),
            engine: engine_name(fields.name)?,
            key: array(&fields.key)?,
            serial: fields.serial,
            not_before: fields.not_before,
            not_after: fields.not_after,
            version: fields.version,
            operations: u16::try_from(fields.ops).map_err(|_| Error::BadArg)?,
            delegate: fields.delegate,
        }
        .body()
    } else if kind == atoms::forget() {
        let fields: ForgetFields = fields.decode()?;
        let reason = fields.reason.to_term(env).atom_to_string()?;
        let reason = ForgetReason::ALL.into_iter().find(|candidate| candidate.name() == reason);
        Forget {
            realm: RealmId(array(&fields.realm_id)?),
            engine: engine_name(fields.name)?,
            serial: fields.serial,
            reason: reason.ok_or(Error::BadArg)?,
        }
        .body()
    } else if kind == atoms::cert() {
        let fields: CertFields = fields.decode()?;
        Cert {
            realm: RealmId(array(&fields.realm_id)?),
            key: array(&fields.key)?,
            serial: fields.serial,
            not_before: fields.not_before,
            not_after: fields.not_after,
        }
        .body()
    } else {
        return Err(Error::BadArg);
    };
    Ok(binary(env, &body))
}

fn engine_name(name: &str) -> NifResult<String> {
    match legation_proto::identity::is_engine_name(name) {
        true => Ok(name.to_owned()),
        false => Err(Error::BadArg),
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn scan<'a>(env: Env<'a>, bytes: Binary<'a>) -> Term<'a> {
    match legation_proto::etf::scan(bytes.as_slice(), &legation_proto::etf::TermLimits::default()) {
        Ok(()) => atoms::ok().encode(env),
        Err(reason) if reason.is_identifiers() => error(env, atoms::identifiers(), reason.offset as u64),
        Err(reason) => error(env, atoms::bad_term(), reason.offset as u64),
    }
}

/// What a receipt proves, or why it proves nothing.
#[rustler::nif(schedule = "DirtyCpu")]
fn verify_receipt<'a>(
    env: Env<'a>,
    receipt: Binary<'a>,
    identity_key: Binary<'a>,
    network_id: Binary<'a>,
) -> NifResult<Term<'a>> {
    let verified = legation_proto::receipt::verify(receipt.as_slice(), &array(&identity_key)?, &array(&network_id)?);
    let verified = match verified {
        Ok(verified) => verified,
        Err(reason) => return Ok(error(env, atoms::receipt(), binary(env, reason.to_string().as_bytes()))),
    };
    let entries: Vec<(&str, Term<'a>)> = vec![
        ("source_realm_id", binary(env, &verified.source.0)),
        ("source_engine", verified.source_engine.encode(env)),
        ("destination_realm_id", binary(env, &verified.destination.0)),
        ("destination_engine", verified.destination_engine.encode(env)),
        ("kind", verified.kind.encode(env)),
        ("detail", verified.detail.encode(env)),
        ("call_id", verified.call_id.encode(env)),
        ("session_id", binary(env, &verified.session)),
        ("sequence", verified.sequence.encode(env)),
        ("key_not_before", verified.key_not_before.encode(env)),
        ("key_not_after", verified.key_not_after.encode(env)),
        ("payload", binary(env, &verified.payload)),
    ];
    let mut map = Term::map_new(env);
    for (name, value) in entries {
        map = map.map_put(Atom::from_str(env, name)?, value)?;
    }
    Ok((atoms::ok(), map).encode(env))
}
