//! One peer that is on the list: which link lives, which address is dialled next and when. Decides, and owns no socket.
//!
//! ```text
//!  start ──► dialling ──► up ──► ended ──► waiting ──► dialling …
//!               └──── failed ────────────────┘
//! ```

use std::sync::Arc;

use legation_proto::error::CloseCode;
use legation_proto::identity::RealmId;
use tokio::task::AbortHandle;

use super::backoff::Backoff;
use super::links::{self, Current, Facts};
use super::{LinkEnd, PeerLink, PeerState, PeerStatus};
use crate::config::{CarrierConfig, Limits, PeerConfig};
use crate::net::peer_connection::Control;

pub(super) struct Peer {
    pub config: Arc<PeerConfig>,
    pub realm: Arc<str>,
    pub realm_id: RealmId,
    /// Another one each time that the peer is put on the list or taken up again. What belongs to an earlier one is ignored.
    pub generation: u64,
    /// Not so after a disconnect.
    pub connected: bool,
    /// The wait for the next dial.
    pub timer: Option<AbortHandle>,
    backoff: Backoff,
    /// Whether our realm id is the lower of the two.
    lower: bool,
    handshake_ms: u64,
    drained: bool,
    dial: Option<Dial>,
    link: Option<Up>,
    /// How the last link or dial ended.
    lost: Option<LinkEnd>,
    /// Dials since the last link.
    attempts: u64,
    /// How many addresses were tried since the last back-off.
    tried: usize,
    index: usize,
}

/// The link that we are trying.
struct Dial {
    tag: u64,
    started_ms: u64,
    control: Arc<Control>,
}

/// The link that is up.
#[derive(Clone)]
pub(super) struct Up {
    pub tag: u64,
    pub initiator: bool,
    pub up_ms: u64,
    pub link: Arc<PeerLink>,
    pub control: Arc<Control>,
}

/// Which links must go for the one that is up now.
#[derive(Default)]
pub(super) struct Taken {
    pub replaced: Option<Up>,
    pub dial: Option<Arc<Control>>,
}

impl Peer {
    pub fn new(config: PeerConfig, own: &RealmId, generation: u64, limits: &Limits) -> Peer {
        let realm_id = RealmId::of(&config.key);
        Peer {
            realm: config.realm.as_str().into(),
            config: Arc::new(config),
            realm_id,
            generation,
            connected: true,
            timer: None,
            backoff: Backoff::new(limits.reconnect_min_ms, limits.reconnect_max_ms),
            lower: *own < realm_id,
            handshake_ms: limits.session.handshake_ms,
            drained: false,
            dial: None,
            link: None,
            lost: None,
            attempts: 0,
            tried: 0,
            index: 0,
        }
    }

    /// The address to dial now, if there is to be a dial; it is under way then.
    pub fn dial(&mut self, tag: u64, control: &Arc<Control>, now_ms: u64) -> Option<CarrierConfig> {
        // A link is up or on its way, or there is no address: the peer dials us.
        if self.link.is_some() || self.dial.is_some() || self.drained || !self.connected {
            return None;
        }
        let address = self.config.connect.get(self.index)?.clone();
        self.dial = Some(Dial { tag, started_ms: now_ms, control: control.clone() });
        self.attempts += 1;
        Some(address)
    }

    /// The peer dialled and said hello: may it come in?
    pub fn hello(&self, now_ms: u64) -> Result<(), CloseCode> {
        if self.drained {
            return Err(CloseCode::Shutdown);
        }
        let dial_ms = self.dial.as_ref().map(|dial| dial.started_ms);
        match links::hello_is_welcome(&self.facts(now_ms), dial_ms) {
            true => Ok(()),
            false => Err(CloseCode::Duplicate),
        }
    }

    /// A link is up. If it stays, others go.
    pub fn up(&mut self, up: Up) -> Result<Taken, CloseCode> {
        // A dial that was on its way when the drain began.
        if self.drained {
            return Err(CloseCode::Shutdown);
        }
        if !links::takes_over(&self.facts(up.up_ms), up.initiator) {
            return Err(CloseCode::Duplicate);
        }
        self.cancel_timer();
        let dial = self.dial.take().filter(|dial| dial.tag != up.tag).map(|dial| dial.control);
        self.lost = None;
        self.tried = 0;
        self.attempts = 0;
        Ok(Taken { replaced: self.link.replace(up), dial })
    }

    /// A link or a dial has ended. Returns in how many ms to dial again. `random` is any number.
    pub fn ended(&mut self, tag: u64, why: &LinkEnd, now_ms: u64, random: u64) -> Option<u64> {
        if let Some(link) = self.link.take_if(|link| link.tag == tag) {
            // One that goes as soon as it is up must not be dialled again at once each time.
            if now_ms.saturating_sub(link.up_ms) >= self.handshake_ms {
                self.backoff.reset();
            }
            self.lost = Some(why.clone());
            self.tried = self.config.connect.len();
            return self.redial(random);
        }
        self.dial.take_if(|dial| dial.tag == tag)?;
        match why {
            // Turned away because there is a link, or the peer's own dial is on its way: no error.
            LinkEnd::Closed { code: "duplicate", .. } => {}
            // A responder that doesn't accept us closes without a word (`protocol.md` 4.4).
            LinkEnd::Carrier(reason) if reason == "closed" => self.lost = Some(LinkEnd::NoAnswer),
            why => self.lost = Some(why.clone()),
        }
        match self.link {
            Some(_) => None,
            None => self.redial(random),
        }
    }

    /// It leaves the list or its link, and everything is as at the start. Returns what has to be closed.
    pub fn stop(&mut self) -> impl Iterator<Item = Arc<Control>> {
        self.connected = false;
        self.cancel_timer();
        self.lost = None;
        self.attempts = 0;
        self.tried = 0;
        self.index = 0;
        self.backoff.reset();
        let dial = self.dial.take().map(|dial| dial.control);
        // Its reader says so in its own time; nothing can be pushed any more from now on.
        let link = self.link.take().map(|up| {
            up.link.end();
            up.control
        });
        dial.into_iter().chain(link)
    }

    /// Takes it up again.
    pub fn start(&mut self, generation: u64) {
        self.generation = generation;
        self.connected = true;
        self.drained = false;
    }

    /// No dial and no hello from now on. Returns the link that is up.
    pub fn drain(&mut self) -> Option<Up> {
        self.drained = true;
        self.cancel_timer();
        self.link.clone()
    }

    pub fn link(&self) -> Option<&Arc<PeerLink>> {
        self.link.as_ref().map(|up| &up.link)
    }

    pub fn status(&self) -> PeerStatus {
        let link = self.link().filter(|link| !link.has_ended());
        PeerStatus {
            realm: self.realm.clone(),
            key: self.config.key,
            state: self.state(link.is_some()),
            attempts: self.attempts,
            last_error: self.lost.clone(),
            link: link.map(|link| link.status.clone()),
        }
    }

    fn state(&self, up: bool) -> PeerState {
        match () {
            () if !self.connected => PeerState::Disconnected,
            () if self.drained => PeerState::Drained,
            () if up => PeerState::Up,
            () if self.dial.is_some() => PeerState::Connecting,
            // Nothing to dial: the peer comes to us.
            () if self.config.connect.is_empty() => PeerState::Listening,
            () => PeerState::Waiting,
        }
    }

    /// Each address is tried once, one right after the other; then we back off.
    fn redial(&mut self, random: u64) -> Option<u64> {
        let addresses = self.config.connect.len();
        if addresses == 0 || self.drained || !self.connected {
            return None;
        }
        self.cancel_timer();
        self.index = (self.index + 1) % addresses;
        self.tried += 1;
        if self.tried < addresses {
            return Some(0);
        }
        self.tried = 0;
        Some(self.backoff.next(random))
    }

    pub fn cancel_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }

    fn facts(&self, now_ms: u64) -> Facts {
        let current = self.link.as_ref().map(|up| Current { initiator: up.initiator, up_ms: up.up_ms });
        Facts { current, lower: self.lower, now_ms, handshake_ms: self.handshake_ms }
    }
}
