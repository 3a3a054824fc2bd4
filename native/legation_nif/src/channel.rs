//! The channel resource: one link, driven by Reader (bytes in, events out) and Writer (flush).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use legation_channel::channel::Profile;
use legation_channel::knock::{KnockMemory, KnockSettings};
use legation_channel::link::{Link, LinkConfig, LinkEvent, LinkRandom, Resume};
use legation_proto::error::CloseCode;
use legation_proto::etf::TermLimits;
use legation_proto::frame::batch::Refusal;
use legation_proto::limits::{Limits, Overflow, FLUSH_TARGET};
use legation_proto::session::{Acknowledge, Rest, Session, Slice, Wake};
use legation_proto::signing::{Mode, Modes};
use rustler::{Atom, Binary, Encoder, Env, Error, LocalPid, NifResult, Resource, ResourceArc, Term};

use crate::atoms;
use crate::error::error;
use crate::events::{facts, link_event, session_event};
use crate::keyring::{array, random, KeyringResource, NetworkResource};
use crate::payload::large_binary;
use crate::session::SessionResource;

pub struct ChannelResource {
    link: Link,
    /// Unlike that of any other channel.
    number: u64,
    /// The session that it may turn out to be a link of.
    resume: Mutex<Option<SessionArc>>,
    session: OnceLock<SessionArc>,
}

#[rustler::resource_impl]
impl Resource for ChannelResource {}

impl ChannelResource {
    fn new(link: Link, resume: Option<SessionArc>) -> ChannelResource {
        static LAST: AtomicU64 = AtomicU64::new(0);
        ChannelResource {
            link: link.deferring(),
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            resume: Mutex::new(resume),
            session: OnceLock::new(),
        }
    }

    /// One session is one resource, whatever links it has.
    fn begin(&self, session: Arc<Session>) -> SessionArc {
        let known = self.resume.lock().unwrap_or_else(PoisonError::into_inner).take();
        let resumed = known.filter(|known| Arc::ptr_eq(&known.session, &session));
        let resource = resumed.unwrap_or_else(|| ResourceArc::new(SessionResource::new(session)));
        self.session.get_or_init(|| resource).clone()
    }
}

/// The knock memory of one instance.
pub struct GuardResource(Arc<Mutex<KnockMemory>>);

#[rustler::resource_impl]
impl Resource for GuardResource {}

type ChannelArc = ResourceArc<ChannelResource>;
type SessionArc = ResourceArc<SessionResource>;

/// For ages of calls only; everything that the protocol judges by time gets its `now` from Elixir.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[derive(rustler::NifMap)]
struct GuardSettings {
    window_ms: u64,
    boot_ms: u64,
    entries_max: usize,
}

#[rustler::nif]
fn guard_new(_network: ResourceArc<NetworkResource>, settings: GuardSettings, now: u64) -> ResourceArc<GuardResource> {
    let GuardSettings { window_ms, boot_ms, entries_max } = settings;
    let memory = KnockMemory::new(KnockSettings { window_ms, boot_ms, entries_max }, now);
    ResourceArc::new(GuardResource(Arc::new(Mutex::new(memory))))
}

#[derive(rustler::NifMap)]
struct ChannelSettings {
    knock: bool,
    message_bytes_max: u32,
    depth_max: u16,
    engines_max: u32,
    queue_bytes_max: usize,
    resume_bytes_max: usize,
    credit_bytes: u32,
    fragment_bytes: usize,
    message_ttl_ms: Bound,
    room_waiters_max: usize,
    signing: Atom,
    accept_signing: Vec<Atom>,
    checkpoint_ms: u64,
    checkpoint_patience_ms: u64,
    unproven_messages_max: u64,
    unproven_bytes_max: u64,
    engine_queue_bytes_max: Bound,
    calls_max: usize,
    callers_max: usize,
    handles_max: usize,
    references_max: usize,
    handshake_ms: u64,
    ping_ms: u64,
    failures_max: u32,
    failures_window_ms: u64,
    overflow: Atom,
}

impl ChannelSettings {
    fn limits(&self) -> NifResult<Limits> {
        let overflow = match self.overflow {
            overflow if overflow == newest::newest() => Overflow::Newest,
            overflow if overflow == newest::oldest() => Overflow::Oldest,
            overflow if overflow == atoms::disconnect() => Overflow::Disconnect,
            _ => return Err(Error::BadArg),
        };
        Ok(Limits {
            message_bytes_max: self.message_bytes_max,
            engines_max: self.engines_max,
            queue_bytes_max: self.queue_bytes_max,
            resume_bytes_max: self.resume_bytes_max,
            credit_bytes: self.credit_bytes,
            fragment_bytes: self.fragment_bytes,
            message_ttl_ms: Option::from(&self.message_ttl_ms).map(|ms: usize| ms as u64),
            room_waiters_max: self.room_waiters_max,
            signing: mode_of(self.signing)?,
            accept_signing: Modes::of(
                self.accept_signing.iter().map(|mode| mode_of(*mode)).collect::<NifResult<Vec<_>>>()?,
            ),
            checkpoint_ms: self.checkpoint_ms,
            checkpoint_patience_ms: self.checkpoint_patience_ms,
            unproven_messages_max: self.unproven_messages_max,
            unproven_bytes_max: self.unproven_bytes_max,
            engine_queue_bytes_max: Option::from(&self.engine_queue_bytes_max),
            calls_max: self.calls_max,
            callers_max: self.callers_max,
            handles_max: self.handles_max,
            references_max: self.references_max,
            handshake_ms: self.handshake_ms,
            ping_ms: self.ping_ms,
            failures_max: self.failures_max,
            failures_window_ms: self.failures_window_ms,
            overflow,
            identifiers: true,
            term: TermLimits { depth_max: self.depth_max, ..TermLimits::default() },
        })
    }
}

mod newest {
    rustler::atoms! { newest, oldest }
}

#[derive(rustler::NifUntaggedEnum)]
enum Bound {
    Number(usize),
    None(Infinity),
}

#[derive(rustler::NifUnitEnum)]
enum Infinity {
    Infinity,
}

impl From<&Bound> for Option<usize> {
    fn from(bound: &Bound) -> Self {
        match bound {
            Bound::Number(number) => Some(*number),
            Bound::None(Infinity::Infinity) => None,
        }
    }
}

fn mode_of(mode: Atom) -> NifResult<Mode> {
    Mode::ALL.into_iter().find(|candidate| mode_atom(*candidate) == mode).ok_or(Error::BadArg)
}

pub fn mode_atom(mode: Mode) -> Atom {
    match mode {
        Mode::Engine => atoms::engine(),
        Mode::Delegated => atoms::delegated(),
        Mode::Checkpoint => atoms::checkpoint(),
    }
}

fn profile_of(profile: Atom) -> NifResult<Profile> {
    [Profile::Tls, Profile::Local, Profile::Plain]
        .into_iter()
        .find(|candidate| profile_atom(*candidate) == profile)
        .ok_or(Error::BadArg)
}

pub fn profile_atom(profile: Profile) -> Atom {
    match profile {
        Profile::Tls => atoms::tls(),
        Profile::Local => atoms::local(),
        Profile::Plain => atoms::plain(),
    }
}

fn config(
    profile: Atom,
    keyring: &KeyringResource,
    network: &NetworkResource,
    settings: &ChannelSettings,
    now: u64,
) -> NifResult<LinkConfig> {
    Ok(LinkConfig {
        profile: profile_of(profile)?,
        keyring: keyring.keyring.clone(),
        network: network.0.clone(),
        tls: keyring.tls.clone(),
        limits: settings.limits()?,
        random: LinkRandom { knock: random()?, nonce: random()?, ephemeral: random()?, session: random()? },
        now,
    })
}

// One for each thing that a dial is made of.
#[allow(clippy::too_many_arguments)]
#[rustler::nif(schedule = "DirtyCpu")]
fn channel_connect<'a>(
    env: Env<'a>,
    profile: Atom,
    keyring: ResourceArc<KeyringResource>,
    network: ResourceArc<NetworkResource>,
    peer: Binary<'a>,
    settings: ChannelSettings,
    now: u64,
    session: Option<SessionArc>,
    additional: bool,
) -> NifResult<Term<'a>> {
    let config = config(profile, &keyring, &network, &settings, now)?;
    // It may have ended since it was looked at.
    let session = session.filter(|session| session.session.can_resume());
    let resume = session.as_ref().map(|session| Resume { session: session.session.clone(), additional });
    Ok(match Link::connect(config, &array(&peer)?, settings.knock, resume) {
        Ok(link) => (atoms::ok(), ResourceArc::new(ChannelResource::new(link, session))).encode(env),
        Err(reason) => error(env, atoms::channel_error(), reason.to_string()),
    })
}

#[rustler::nif(schedule = "DirtyCpu")]
fn channel_accept<'a>(
    env: Env<'a>,
    profile: Atom,
    keyring: ResourceArc<KeyringResource>,
    network: ResourceArc<NetworkResource>,
    guard: Option<ResourceArc<GuardResource>>,
    settings: ChannelSettings,
    now: u64,
) -> NifResult<Term<'a>> {
    let config = config(profile, &keyring, &network, &settings, now)?;
    let memory = match (settings.knock, guard) {
        (true, Some(guard)) => Some(guard.0.clone()),
        (true, None) => return Ok(error(env, atoms::channel_error(), atoms::knock_required())),
        (false, _) => None,
    };
    Ok(match Link::accept_from(config, memory) {
        Ok(link) => (atoms::ok(), ResourceArc::new(ChannelResource::new(link, None))).encode(env),
        Err(reason) => error(env, atoms::channel_error(), reason.to_string()),
    })
}

#[rustler::nif(schedule = "DirtyCpu")]
fn channel_handle_bytes<'a>(env: Env<'a>, channel: ChannelArc, bytes: Binary<'a>, now: u64) -> Term<'a> {
    handle_slice(env, &channel, &bytes, now, &mut Slice::unbounded())
}

/// [`channel_handle_bytes`] on the scheduler at hand, for input of at most [`SLICE_BYTES`], as far as half a millisecond goes. Going to
/// a dirty scheduler and back costs more than what there is to do for most reads. Handshakes have to, and so has who would
/// have to wait for the Writer: `:dirty`.
#[rustler::nif]
fn channel_handle_slice<'a>(env: Env<'a>, channel: ChannelArc, bytes: Binary<'a>, now: u64) -> NifResult<Term<'a>> {
    if bytes.len() > SLICE_BYTES {
        return Err(Error::BadArg);
    }
    if channel.session.get().is_none() || !channel.link.is_free() {
        return Ok(atoms::dirty().encode(env));
    }
    let mut slice = Slice::of_ns(SLICE_NS);
    let handled = handle_slice(env, &channel, &bytes, now, &mut slice);
    consume_timeslice(env, usize::from(slice.used_percent()) / 2 + bytes.len() / BYTES_PER_PERCENT);
    Ok(handled)
}

/// `{events, wake, :done | :more | :large}`. The caller has its turn until [`channel_delivered`] or [`channel_detach`].
fn handle_slice<'a>(env: Env<'a>, channel: &ChannelArc, bytes: &[u8], now: u64, slice: &mut Slice) -> Term<'a> {
    if channel.session.get().is_some_and(|session| !session.take_turn(env, channel.number)) {
        return atoms::busy().encode(env);
    }
    let mut rest = atoms::done();
    let (events, wake) = collect(env, channel, |link, sink| {
        let (wake, left) = link.handle_slice(now, bytes, slice, sink);
        rest = match left {
            Rest::Nothing => atoms::done(),
            Rest::More => atoms::more(),
            Rest::Large => atoms::large(),
        };
        wake
    });
    (events, wake, rest).encode(env)
}

/// What is decrypted at once on a normal scheduler.
const SLICE_BYTES: usize = 64 * 1024;
/// And what is done with it, by the core's estimate: half of what a scheduler may be held for.
const SLICE_NS: u64 = 500_000;
/// What one flush on a normal scheduler comes to: hashing, sealing and copying it takes a quarter of a millisecond.
const SLICE_FLUSH_BYTES: usize = 256 * 1024;
/// Bytes that are worth a hundredth of a timeslice, decrypted or flushed.
const BYTES_PER_PERCENT: usize = 10 * 1024;

/// Tells the scheduler how much of a timeslice this call was.
fn consume_timeslice(env: Env<'_>, percent: usize) {
    rustler::schedule::consume_timeslice(env, percent.clamp(2, 100) as i32);
}

/// The time that a flush has named is over: what has gone out without a signature is proven now.
#[rustler::nif]
fn channel_checkpoint(env: Env<'_>, channel: ChannelArc) -> Atom {
    if let Some(session) = channel.session.get() {
        session.session.checkpoint_now();
        session.wake(env);
    }
    atoms::ok()
}

/// What the last read brought is in mailboxes: the peer may be told, and other links have their turn.
#[rustler::nif]
fn channel_delivered(env: Env<'_>, channel: ChannelArc) -> Atom {
    // Without a turn there was nothing, and what another link brought is still on its way.
    let Some(session) = channel.session.get().filter(|session| session.has_turn(channel.number)) else {
        return atoms::ok();
    };
    let acknowledge = session.session.delivered();
    session.end_turn(env, channel.number);
    match acknowledge {
        Acknowledge::Nothing => atoms::ok(),
        Acknowledge::Wake => {
            session.wake(env);
            atoms::ok()
        }
        Acknowledge::Later => atoms::later(),
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn channel_signature<'a>(
    env: Env<'a>,
    channel: ChannelArc,
    id: u64,
    signature: Binary<'a>,
    now: u64,
) -> NifResult<(Vec<Term<'a>>, bool)> {
    let signature = array(&signature)?;
    Ok(collect(env, &channel, |link, sink| link.handle_signature(now, id, &signature, sink)))
}

/// `{:accept, session | nil, limits | nil}` or `{:refuse, code}`.
#[rustler::nif(schedule = "DirtyCpu")]
fn channel_decide<'a>(
    env: Env<'a>,
    channel: ChannelArc,
    decision: Term<'a>,
    now: u64,
) -> NifResult<(Vec<Term<'a>>, bool)> {
    if let Ok((accept, session, settings)) = decision.decode::<(Atom, Option<SessionArc>, Option<ChannelSettings>)>() {
        if accept != atoms::accept() {
            return Err(Error::BadArg);
        }
        let limits = settings.map(|settings| settings.limits()).transpose()?;
        let resume = session.as_ref().map(|session| session.session.clone());
        *channel.resume.lock().unwrap_or_else(PoisonError::into_inner) = session;
        return Ok(collect(env, &channel, |link, sink| link.accept(now, resume, limits, sink)));
    }
    let (refuse, code): (Atom, Term) = decision.decode()?;
    if refuse != atoms::refuse() {
        return Err(Error::BadArg);
    }
    let code = close_code(code)?;
    Ok((Vec::new(), channel.link.close(code, "refused")))
}

fn close_code(code: Term) -> NifResult<CloseCode> {
    CloseCode::from_name(&code.atom_to_string()?).ok_or(Error::BadArg)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn channel_timeout<'a>(env: Env<'a>, channel: ChannelArc, now: u64) -> (Vec<Term<'a>>, bool, Option<u64>) {
    let mut next = None;
    let (events, wake) = collect(env, &channel, |link, sink| {
        let (wake, at) = link.handle_timeout(now, sink);
        next = at.map(|at| at.saturating_sub(now).max(1));
        Wake { link: wake, session: false }
    });
    (events, wake, next)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn channel_close(channel: ChannelArc, code: Term, text: &str) -> NifResult<bool> {
    Ok(channel.link.close(close_code(code)?, text))
}

/// Waits for a flush of the link before to end.
#[rustler::nif(schedule = "DirtyCpu")]
fn channel_activate(env: Env<'_>, channel: ChannelArc, writer: LocalPid) -> Atom {
    if let Some(session) = channel.session.get() {
        session.set_writer(writer);
        channel.link.activate();
        // In any case: whoever left something to be sent while there was no Writer could not wake it.
        session.wake(env);
    }
    atoms::ok()
}

/// Waits for what is being handled.
#[rustler::nif(schedule = "DirtyCpu")]
fn channel_detach(env: Env<'_>, channel: ChannelArc) -> Atom {
    channel.link.detach();
    if let Some(session) = channel.session.get() {
        session.end_turn(env, channel.number);
    }
    atoms::ok()
}

#[rustler::nif]
fn channel_is_active(channel: ChannelArc) -> bool {
    channel.link.is_active()
}

#[rustler::nif]
fn channel_rtt_ms(channel: ChannelArc) -> Option<u64> {
    channel.link.rtt_ms()
}

/// [`channel_flush`] on the scheduler at hand, of less at a time; `:dirty` when many signatures are to be made, or one over something
/// large, or there is somebody to wait for.
#[rustler::nif]
fn channel_flush_slice<'a>(env: Env<'a>, channel: ChannelArc, _now: u64) -> Term<'a> {
    if !channel.link.session().is_some_and(|session| session.next_flush_is_small()) {
        return atoms::dirty().encode(env);
    }
    let (flushed, bytes) = flush(env, &channel, SLICE_FLUSH_BYTES);
    consume_timeslice(env, bytes / BYTES_PER_PERCENT);
    flushed
}

#[rustler::nif(schedule = "DirtyCpu")]
fn channel_flush<'a>(env: Env<'a>, channel: ChannelArc, _now: u64) -> Term<'a> {
    flush(env, &channel, FLUSH_TARGET).0
}

/// And how many bytes there were.
fn flush<'a>(env: Env<'a>, channel: &ChannelArc, target: usize) -> (Term<'a>, usize) {
    let mut out = Vec::new();
    let more = match channel.link.flush_to(target, &mut out) {
        Ok(true) => atoms::more(),
        Ok(false) => atoms::idle(),
        Err(reason) => return (error(env, atoms::channel_error(), reason.to_string()), 0),
    };
    if let Some(session) = channel.session.get() {
        session.room_is_there(env);
    }
    // Only where our side is sent without signatures.
    let checkpoint_ms = channel.session.get().and_then(|session| session.session.checkpoint_timer());
    let bytes = out.len();
    ((large_binary(env, &out), more, checkpoint_ms).encode(env), bytes)
}

/// Runs one step of the link and turns its events into terms. True: wake the link's own Writer; the session's has been.
fn collect<'a>(
    env: Env<'a>,
    channel: &ChannelArc,
    step: impl FnOnce(&Link, &mut dyn FnMut(LinkEvent<'_>)) -> Wake,
) -> (Vec<Term<'a>>, bool) {
    let mut events = Vec::new();
    let mut refused = Vec::new();
    let mut wake = step(&channel.link, &mut |event| match event {
        LinkEvent::Session(event) => {
            if let Some(call_id) = session_event(env, &channel.link, event, &mut events) {
                refused.push(call_id);
            }
        }
        LinkEvent::Up { session, resumed, additional } => {
            let facts = facts(env, &channel.link, &session, resumed, additional);
            events.push((atoms::up(), channel.begin(session), facts).encode(env));
        }
        event => events.push(link_event(env, event)),
    });
    if let Some(session) = channel.session.get() {
        for call_id in refused {
            session.session.counters().undecodable.one();
            wake.session |= session.session.refuse(call_id, Refusal::Undecodable);
        }
        if wake.session {
            session.wake(env);
        }
    }
    (events, wake.link)
}
