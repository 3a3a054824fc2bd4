//! The reader of a connection: opens it, feeds what arrives to the link, and does what the link's events say.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use legation_channel::knock::KnockRefused;
use legation_channel::link::{Link, LinkConfig, LinkEvent, LinkFault, LinkRandom, Resume};
use legation_proto::error::CloseCode;
use legation_proto::frame::hello::Offer;
use legation_proto::hello::{Role, SignRequest};
use legation_proto::identity::RealmId;
use legation_proto::session::{Event, Session, Wake};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::{sleep, sleep_until, timeout, timeout_at, Instant};

use super::control::{Control, Wanted};
use super::writer::Writer;
use crate::config::{CarrierConfig, PeerConfig};
use crate::net::carrier::{profile_name, CarrierError, Label, ReadHalf, Stream};
use crate::net::listener::Listener;
use crate::peers::{fill_random, unix_ms, DialPlan, LinkEnd, LinkStatus, LinkUp, PeerSession, Peers, Verdict};

/// Much fits into one read, one decryption, one batch. Strangers get little of our time at once; a hello fits.
const READ_BYTES: usize = 256 * 1024;
const STRANGERS_READ_BYTES: usize = 4 * 1024;
/// Who says a handshake in more than `handshake_reads` pieces is read once in so long from then on: by the thousands, a byte at a time, they
/// would have us do nothing else. A handshake that is meant comes in a few.
const SLOW_READ: Duration = Duration::from_millis(250);
/// After a read of more than this others get a turn.
const TURN_BYTES: usize = 32 * 1024;
/// Reads in which a goodbye is looked for when nothing can be sent any more.
const LAST_READS_MAX: usize = 64;
/// The longest goodbye where it is not we who want to leave: a peer that is on another link by now, or breaks the rules, or takes too little,
/// must not have us keep many links that it lets hang.
const HASTY: Duration = Duration::from_millis(1_000);
/// What the writer has in any case: to be scheduled, and to hand over what there is.
const FLUSH: Duration = Duration::from_millis(100);
/// How often who waits to leave looks whether all of us stop, and there is less time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A connection that is to be.
pub(crate) struct Connection {
    pub peers: Arc<Peers>,
    pub tag: u64,
    pub control: Arc<Control>,
    pub origin: Origin,
}

pub(crate) enum Origin {
    /// The initiator knows its peer.
    Dial {
        realm: Arc<str>,
        generation: u64,
        config: Arc<PeerConfig>,
        plan: DialPlan,
    },
    Accepted {
        listener: Arc<Listener>,
        stream: Stream,
    },
}

/// From opening to end. Ends by itself, or soon after its [`Control`] is told so; aborted, it says no goodbye, and everybody
/// who has to hear of its end does all the same.
pub(crate) async fn run(connection: Connection) {
    let Connection { peers, tag, control, origin } = connection;
    let mut reader = Reader {
        peers,
        tag,
        control,
        listener: None,
        realm: None,
        phase: Phase::Opening,
        knocked: false,
        link: None,
        writer: None,
        session: None,
        carrier: "",
        label: Label::Unknown,
        index: None,
        asked: None,
        end: None,
        woken: Wake::default(),
        read: false,
        sooner: None,
        reported: false,
        leaving_since: None,
    };
    let mut half = None;
    let why = reader.open_and_read(origin, &mut half).await;
    reader.finish(why, half).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No link yet.
    Opening,
    Handshake,
    Up,
    /// The peer isn't welcome; its CLOSE is queued.
    Refused,
}

/// What the link asks and can't be told while it is at work.
enum Asked {
    Sign(SignRequest),
    Hello { peer: RealmId, key: [u8; 32], offer: Option<Offer> },
}

struct Reader {
    peers: Arc<Peers>,
    tag: u64,
    control: Arc<Control>,
    /// Of a responder.
    listener: Option<Arc<Listener>>,
    /// The peer's name, once it is known, and which of its lives on the list this link belongs to.
    realm: Option<(Arc<str>, u64)>,
    phase: Phase,
    knocked: bool,
    link: Option<Arc<Link>>,
    writer: Option<Writer>,
    /// Once the link is up.
    session: Option<Arc<PeerSession>>,
    carrier: &'static str,
    label: Label,
    /// Of the address that was dialled.
    index: Option<usize>,

    // What one step of the link has brought.
    asked: Option<Asked>,
    end: Option<LinkEnd>,
    woken: Wake,
    /// Bytes have come.
    read: bool,
    /// The link has to be looked after sooner than it said.
    sooner: Option<Duration>,

    reported: bool,
    /// Once we are about to leave.
    leaving_since: Option<Instant>,
}

impl Reader {
    async fn open_and_read(&mut self, origin: Origin, half: &mut Option<ReadHalf>) -> LinkEnd {
        let opened = match origin {
            Origin::Dial { realm, generation, config, plan } => {
                self.realm = Some((realm, generation));
                self.index = Some(plan.index);
                self.dial(&config, plan).await
            }
            Origin::Accepted { listener, stream } => {
                self.listener = Some(listener.clone());
                self.open(stream, &listener.config, None)
            }
        };
        match opened {
            Ok(opened) => self.read(half.insert(opened)).await,
            Err(end) => end,
        }
    }

    async fn dial(&mut self, config: &PeerConfig, plan: DialPlan) -> Result<ReadHalf, LinkEnd> {
        let within = Duration::from_millis(self.peers.limits.connect_ms);
        let stream = tokio::select! {
            biased;
            wanted = self.control.wanted() => return Err(wanted.into()),
            stream = Stream::connect(&plan.address, within) => stream.map_err(not_connected)?,
        };
        self.open(stream, &plan.address, Some((config, &plan)))
    }

    /// `peer`: whom we have dialled, and what for.
    fn open(
        &mut self,
        stream: Stream,
        config: &CarrierConfig,
        peer: Option<(&PeerConfig, &DialPlan)>,
    ) -> Result<ReadHalf, LinkEnd> {
        self.carrier = config.name();
        self.label = stream.label();
        stream.check_peer(config).map_err(not_connected)?;
        let link = self.new_link(config, peer)?;
        let (reading, writing) = stream.into_halves();
        self.control.opened(&link);
        let (control, events) = (self.control.clone(), self.peers.events.clone());
        let writer = Writer::start(link.clone(), writing, control, events, config.send_timeout());
        self.link = Some(link);
        self.writer = Some(writer);
        self.phase = Phase::Handshake;
        Ok(reading)
    }

    fn new_link(&self, config: &CarrierConfig, peer: Option<(&PeerConfig, &DialPlan)>) -> Result<Arc<Link>, LinkEnd> {
        let (peers, identity) = (&self.peers, &self.peers.identity);
        config.check_profile().map_err(not_connected)?;
        let random = link_random().ok_or_else(|| LinkEnd::Connect("no_randomness".into()))?;
        let link_config = LinkConfig {
            profile: config.profile(),
            keyring: identity.keyring.clone(),
            network: identity.network.clone(),
            tls: identity.tls.clone(),
            limits: peer.map_or_else(|| peers.limits.session.clone(), |(peer, _)| peer.session_limits(&peers.limits)),
            random,
            now: unix_ms(),
        };
        let link = match peer {
            Some((peer, plan)) => {
                let resume = plan.resume.as_ref().map(|session| session.core.clone());
                let resume = resume.map(|session| Resume { session, additional: plan.additional });
                Link::connect(link_config, &peer.key, config.knock(), resume)
            }
            None => Link::accept_from(link_config, config.knock().then(|| peers.knocks.clone())),
        };
        link.map(Arc::new).map_err(|error| LinkEnd::Connect(format!("channel {error}")))
    }

    async fn read(&mut self, half: &mut ReadHalf) -> LinkEnd {
        let control = self.control.clone();
        let mut timer = pin!(sleep(Duration::ZERO));
        // None once the link has nothing to wait for: its end is on its way.
        let mut next = self.handle_timeout();
        let mut opening = true;
        let mut pause = pin!(sleep(Duration::ZERO));
        // Of the handshake; and whether a further one has to wait.
        let (mut reads, mut paused) = (0, false);
        loop {
            if let Some(end) = self.end.take() {
                return end;
            }
            if opening && self.phase == Phase::Up {
                // From now on the heartbeat counts, and no longer the handshake's end.
                opening = false;
                next = self.handle_timeout();
                continue;
            }
            if let Some(asked) = self.asked.take() {
                self.answer(asked).await;
                continue;
            }
            if let Some(wait) = next.take().into_iter().chain(self.sooner.take()).min() {
                timer.as_mut().reset(tokio::time::Instant::now() + wait);
            }
            if self.phase != Phase::Handshake {
                paused = false;
            } else if reads == self.peers.limits.handshake_reads && !paused {
                self.peers.counters.handshakes_slowed.one();
                reads += 1;
                paused = true;
                pause.as_mut().reset(tokio::time::Instant::now() + SLOW_READ);
            }
            tokio::select! {
                biased;
                wanted = control.wanted() => match wanted {
                    Wanted::Evict if self.phase == Phase::Up => {}
                    Wanted::Broken(_) => {
                        self.read_what_is_there(half).await;
                        return self.end.take().unwrap_or(wanted.into());
                    }
                    Wanted::Close(code) if !code.keeps_session() => {
                        let why = LinkEnd::from(wanted);
                        if leaves(&why) {
                            // From now on nothing more waits, and nothing is delivered.
                            self.report(&why);
                            self.wait_for_credit(half, &why).await;
                        }
                        return self.end.take().unwrap_or(why);
                    }
                    wanted => return wanted.into(),
                },
                () = &mut timer => {
                    next = self.handle_timeout();
                    if next.is_none() && self.end.is_none() {
                        return LinkEnd::Local("crashed");
                    }
                }
                () = &mut pause, if paused => paused = false,
                read = poll_fn(|cx| self.poll_read(half, cx)), if !paused => match read {
                    Ok(0) => return LinkEnd::Carrier(CarrierError::CLOSED.to_string()),
                    // Others of this thread get a turn, however much comes.
                    Ok(bytes) if bytes > TURN_BYTES => tokio::task::yield_now().await,
                    Ok(_) if self.phase != Phase::Handshake => {}
                    Ok(_) if reads < self.peers.limits.handshake_reads => reads += 1,
                    Ok(_) => {
                        paused = true;
                        pause.as_mut().reset(tokio::time::Instant::now() + SLOW_READ);
                    }
                    Err(error) => return LinkEnd::Carrier(CarrierError::broken(&error).to_string()),
                },
            }
        }
    }

    /// One read, handled. The buffer belongs to the thread: an idle link holds none.
    fn poll_read(&mut self, half: &mut ReadHalf, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        thread_local! {
            static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut buffer = BUFFER.take();
        buffer.resize(READ_BYTES, 0);
        let most = if self.phase == Phase::Up { READ_BYTES } else { STRANGERS_READ_BYTES };
        let mut into = ReadBuf::new(&mut buffer[..most]);
        let polled = Pin::new(half).poll_read(cx, &mut into);
        let bytes = into.filled();
        if !bytes.is_empty() {
            self.read = true;
            self.step(|link, sink| link.handle_bytes(unix_ms(), bytes, sink));
        }
        let read = bytes.len();
        BUFFER.set(buffer);
        ready!(polled)?;
        Poll::Ready(Ok(read))
    }

    /// For what waits, and a goodbye behind it; as long again for the peer to take it and close.
    fn goodbye_time(&self, why: &LinkEnd) -> Duration {
        let time = self.peers.goodbye_time();
        if leaves(why) {
            time
        } else {
            time.min(HASTY)
        }
    }

    /// Until when it may leave. Sooner once all of us stop.
    fn goodbye_until(&mut self, why: &LinkEnd) -> Instant {
        *self.leaving_since.get_or_insert_with(Instant::now) + self.goodbye_time(why)
    }

    /// What was pushed before a goodbye goes before it, and some of it may need the peer's leave: half of the time, so that the goodbye has the
    /// other.
    async fn wait_for_credit(&mut self, half: &mut ReadHalf, why: &LinkEnd) {
        let Some(session) = self.session.clone() else { return };
        // What waits is known when a flush has gone for it.
        let mut flushed = None;
        loop {
            let half_time = self.goodbye_until(why) - self.goodbye_time(why) / 2;
            let mut activity = pin!(session.activity.notified());
            activity.as_mut().enable();
            if flushed.is_none() {
                flushed = Some(false);
                self.control.wake.notify_one();
            }
            if self.end.is_some() || Instant::now() >= half_time || (flushed == Some(true) && !self.waits()) {
                return;
            }
            tokio::select! {
                biased;
                // And looks whether there is less time by now.
                () = sleep_until(half_time.min(Instant::now() + LOOK_AGAIN)) => {}
                read = poll_fn(|cx| self.poll_read(half, cx)) => match read {
                    // The session wakes no link any more.
                    Ok(1..) => self.control.wake.notify_one(),
                    _ => return,
                },
                () = activity => flushed = Some(true),
            }
        }
    }

    /// The peer may have said why it takes nothing any more.
    async fn read_what_is_there(&mut self, half: &mut ReadHalf) {
        for _ in 0..LAST_READS_MAX {
            let read = poll_fn(|cx| Poll::Ready(self.poll_read(half, cx))).await;
            if self.end.is_some() || !matches!(read, Poll::Ready(Ok(1..))) {
                return;
            }
        }
    }

    /// Time-out of the handshake, heartbeat of the link. Returns how long to wait until the next.
    fn handle_timeout(&mut self) -> Option<Duration> {
        let now = unix_ms();
        let mut next = None;
        self.step(|link, sink| {
            let (wake, at) = link.handle_timeout(now, sink);
            next = at.map(|at| Duration::from_millis(at.saturating_sub(now).max(1)));
            Wake { link: wake, session: false }
        });
        next
    }

    /// Has the link do something and delivers what comes of it; then each writer that has to be is woken once.
    fn step(&mut self, work: impl FnOnce(&Link, &mut dyn FnMut(LinkEvent<'_>)) -> Wake) {
        let Some(link) = self.link.clone() else { return };
        let mut wake = work(&link, &mut |event| self.handle_event(event));
        wake |= std::mem::take(&mut self.woken);
        let read = std::mem::take(&mut self.read);
        if let Some(session) = &self.session {
            if read {
                wake.session |= session.delivered(self.peers.limits.ack_ms);
                self.peers.events.session_delivered(session);
            }
            if wake.session {
                session.wake();
            }
            session.activity.notify_waiters();
        }
        if !wake.link {
            return;
        }
        // A responder that has something to say has accepted the knock.
        if let (Some(listener), false, Phase::Handshake) = (&self.listener, self.knocked, self.phase) {
            self.knocked = true;
            if !listener.knocked(self.tag) {
                self.peers.counters.handshakes_refused.one();
                self.end = Some(Wanted::Evict.into());
                return;
            }
        }
        self.control.wake.notify_one();
    }

    fn handle_event(&mut self, event: LinkEvent<'_>) {
        match event {
            LinkEvent::Session(Event::Closed { code, text }) => {
                self.end.get_or_insert(LinkEnd::Closed { code: code.name(), text });
            }
            LinkEvent::Session(Event::TimeoutIn(ms)) => self.sooner = Some(Duration::from_millis(ms)),
            LinkEvent::Session(event) => {
                // Nothing is delivered of a link that was not wanted.
                if let Some(session) = &self.session {
                    self.woken.session |= session.deliver(self.peers.events.as_ref(), event);
                }
            }
            LinkEvent::Sign(request) => self.asked = Some(Asked::Sign(request)),
            LinkEvent::Decide { peer, key, resume } => self.asked = Some(Asked::Hello { peer, key, offer: resume }),
            LinkEvent::Up { session, resumed, additional } => self.up(session, resumed, additional),
            LinkEvent::Fault(fault) => {
                self.end.get_or_insert_with(|| fault_end(&fault));
            }
        }
    }

    fn up(&mut self, core: Arc<Session>, resumed: bool, additional: bool) {
        // The session is only now to be seen by the writer: it must look again, whatever it was told before.
        self.woken.link = true;
        let Some((realm, generation)) = self.realm.clone() else {
            self.end = Some(LinkEnd::Local(CloseCode::Unlisted.name()));
            return;
        };
        let agreed = core.agreed();
        let (key, version, signing) = (*agreed.peer_realm_key(), agreed.version, core.signing().name());
        // Of this link; the session may have begun the other way round.
        let (initiator, role) = match self.link.as_ref().map(|link| link.role()) {
            Some(Role::Initiator) => (true, "initiator"),
            _ => (false, "responder"),
        };
        let status = LinkStatus {
            key,
            profile: self.link.as_ref().map_or("", |link| profile_name(link.profile())),
            role,
            version,
            signing,
            carrier: self.carrier,
            address: self.label.to_string(),
            since_ms: unix_ms(),
            active: true,
            rtt_ms: None,
        };
        let up = LinkUp {
            tag: self.tag,
            realm: &realm,
            generation,
            core: core.clone(),
            resumed,
            additional,
            initiator,
            index: self.index,
            status,
            control: &self.control,
        };
        match self.peers.link_up(up) {
            Ok(session) => {
                if let Some(listener) = &self.listener {
                    listener.up(self.tag);
                }
                self.phase = Phase::Up;
                self.control.joined(&session);
                self.session = Some(session);
            }
            Err(code) => {
                if resumed {
                    // The session lives on other links: what comes on this one, right behind the hello too, is for them to bring. Taken
                    // here it would be acknowledged, and delivered to nobody.
                    self.detach();
                } else {
                    core.end();
                }
                self.end = Some(LinkEnd::Local(code.name()));
            }
        }
    }

    async fn answer(&mut self, asked: Asked) {
        match asked {
            Asked::Hello { peer, key, offer } => match self.peers.hello(&peer, &key, offer.as_ref()) {
                Verdict::Welcome { realm, generation, resume, limits } => {
                    self.realm = Some((realm, generation));
                    let resume = resume.map(|session| session.core.clone());
                    self.step(|link, sink| link.accept(unix_ms(), resume, Some(*limits), sink));
                }
                Verdict::Refused(code) => {
                    self.close(code, "refused");
                    self.phase = Phase::Refused;
                    self.end = Some(LinkEnd::Local(code.name()));
                }
            },
            Asked::Sign(request) => self.sign(request).await,
        }
    }

    /// The key may be with an agent that takes its time, but not more than a handshake has.
    async fn sign(&mut self, request: SignRequest) {
        let control = self.control.clone();
        let identity = self.peers.identity.clone();
        let limit = Duration::from_millis(self.peers.limits.session.handshake_ms);
        let signed = tokio::select! {
            biased;
            wanted = control.wanted() => {
                self.end = Some(wanted.into());
                return;
            }
            signed = timeout(limit, identity.signer.sign(&identity, request.purpose, &request.body)) => signed,
        };
        match signed {
            Ok(Ok(signature)) => {
                self.step(|link, sink| link.handle_signature(unix_ms(), request.id, &signature, sink));
            }
            Ok(Err(error)) => self.end = Some(LinkEnd::Keyholder(error.to_string())),
            Err(_) => self.end = Some(LinkEnd::Keyholder("timeout".into())),
        }
    }

    fn close(&self, code: CloseCode, text: &str) {
        if self.link.as_ref().is_some_and(|link| link.close(code, text)) {
            self.control.wake.notify_one();
        }
    }

    /// First those who wait hear of it: their calls end now, not when the last bytes have left, and the peer can be
    /// dialled again. Then the last bytes.
    async fn finish(&mut self, why: LinkEnd, half: Option<ReadHalf>) {
        // A session that goes on does so elsewhere, and here only the goodbye of the link is left. One that ends has all that
        // waits flushed before its goodbye.
        if why.keeps_session() {
            self.detach();
        }
        self.report(&why);
        match &why {
            _ if self.phase == Phase::Refused => {}
            LinkEnd::Local(code) => self.close(CloseCode::from_name(code).unwrap_or(CloseCode::Normal), ""),
            LinkEnd::Keyholder(_) => self.close(CloseCode::Overload, ""),
            // Closed already, or queued.
            _ => {}
        }
        // Over a broken carrier nothing leaves any more.
        let (Some(mut writer), Some(mut half), false) = (self.writer.take(), half, matches!(why, LinkEnd::Carrier(_)))
        else {
            return;
        };
        let up = self.phase == Phase::Up;
        let mut cut = false;
        if writer.finish(self.goodbye_until(&why).max(Instant::now() + FLUSH)).await {
            drop(writer);
            cut |= self.waits();
            // Closing over what has come and was not read, or comes later, would be a reset, and take along what is on its way: the
            // goodbye, and messages before it.
            if up && !matches!(why, LinkEnd::Closed { .. }) {
                // When all of us stop, in the same time.
                let until = match self.peers.is_stopping() {
                    true => self.goodbye_until(&why),
                    false => Instant::now() + self.goodbye_time(&why),
                };
                cut |= timeout_at(until, read_to_end(&mut half)).await.is_err();
            }
        } else {
            // A peer that takes nothing, or too slowly.
            cut = true;
            half.abort();
        }
        if up && cut && leaves(&why) {
            self.peers.counters.goodbyes_cut.one();
        }
    }

    /// Whether anything is still to be sent.
    fn waits(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.core.counters().queue_bytes.get() > 0)
    }

    fn detach(&self) {
        if let Some(link) = &self.link {
            link.detach();
        }
    }

    fn report(&mut self, why: &LinkEnd) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let counters = &self.peers.counters;
        if let Some(session) = &self.session {
            match why {
                LinkEnd::Fault { code: "timeout", .. } => counters.links_silent.one(),
                LinkEnd::Fault { code: "abuse", .. } => counters.links_abused.one(),
                _ => {}
            }
            tracing::info!(realm = &*session.realm, %why, "a link has ended");
        } else if self.phase == Phase::Refused || !matches!(why, LinkEnd::Local(_)) {
            counters.handshakes_failed.one();
            match why {
                LinkEnd::Fault { code: "knock", .. } => counters.knocks_refused.one(),
                LinkEnd::Fault { code: "knock_memory_full", .. } => counters.knock_memory_full.one(),
                LinkEnd::Fault { code: "answer", .. } => counters.answers_refused.one(),
                LinkEnd::Fault { code: "timeout", .. } => counters.handshakes_timed_out.one(),
                LinkEnd::Fault { code: "stale_key", .. } => counters.hellos_stale_key.one(),
                LinkEnd::Fault { code: "revoked", .. } => counters.hellos_revoked.one(),
                _ => {}
            }
            tracing::debug!(carrier = self.carrier, address = %self.label, %why, "a handshake failed");
        }
        if let Some((realm, generation)) = &self.realm {
            self.peers.link_ended(realm, *generation, self.tag, why);
        }
    }
}

/// Whatever ends this task, aborted or not.
impl Drop for Reader {
    fn drop(&mut self) {
        self.report(&LinkEnd::Local(if std::thread::panicking() { "crashed" } else { "shutdown" }));
        self.writer = None;
        self.detach();
        if let Some(listener) = &self.listener {
            listener.ended(self.tag);
        }
        self.peers.connection_gone(self.tag);
    }
}

impl From<Wanted> for LinkEnd {
    fn from(wanted: Wanted) -> LinkEnd {
        match wanted {
            Wanted::Close(code) => LinkEnd::Local(code.name()),
            Wanted::Evict => LinkEnd::Carrier("evicted".into()),
            Wanted::Broken(error) => LinkEnd::Carrier(error.to_string()),
        }
    }
}

fn not_connected(error: CarrierError) -> LinkEnd {
    LinkEnd::Connect(error.to_string())
}

fn fault_end(fault: &LinkFault) -> LinkEnd {
    let code = match fault {
        LinkFault::Knock(KnockRefused::MemoryFull) => "knock_memory_full",
        LinkFault::Knock(_) => "knock",
        LinkFault::Answer(_) => "answer",
        LinkFault::Channel(_) => "channel",
        LinkFault::Protocol(error) => CloseCode::from(error).name(),
    };
    LinkEnd::Fault { code, detail: fault.to_string() }
}

/// Whether it is we who want to leave.
fn leaves(why: &LinkEnd) -> bool {
    matches!(why, LinkEnd::Local("normal" | "shutdown"))
}

async fn read_to_end(half: &mut ReadHalf) {
    let mut buffer = vec![0; STRANGERS_READ_BYTES];
    while let Ok(1..) = half.read(&mut buffer).await {}
}

fn link_random() -> Option<LinkRandom> {
    let mut random = LinkRandom { knock: [0; 16], nonce: [0; 32], ephemeral: [0; 32], session: [0; 32] };
    let LinkRandom { knock, nonce, ephemeral, session } = &mut random;
    let filled = fill_random(knock) && fill_random(nonce) && fill_random(ephemeral) && fill_random(session);
    filled.then_some(random)
}
