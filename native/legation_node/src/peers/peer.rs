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

    /// It leaves the list, and everything is as at the start. Returns what has to be closed.
    pub fn stop(&mut self) -> (Option<Up>, Option<Arc<Control>>) {
        self.connected = false;
        self.cancel_timer();
        self.lost = None;
        self.attempts = 0;
        self.tried = 0;
        self.index = 0;
        self.backoff.reset();
        // Its reader tells the rest in its own time; nothing can be pushed any more from now on.
        let link = self.link.take().inspect(|up| up.link.end());
        (link, self.dial.take().map(|dial| dial.control))
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use legation_channel::channel::Profile;
    use legation_proto::hello::{Agreed, Role};
    use legation_proto::identity::NetworkKey;
    use legation_proto::keyring::Keyring;
    use legation_proto::session::Session;

    use super::*;
    use crate::config::{Export, Operations, Uids};
    use crate::peers::LinkStatus;

    const CLOSED: &str = "closed";

    fn address(name: &str) -> CarrierConfig {
        CarrierConfig::Unix { path: name.into(), profile: Profile::Local, uids: Uids::Own, send_timeout_ms: 1 }
    }

    fn keyring() -> Keyring {
        Keyring::new(&[2; 32], &[3; 32])
    }

    fn peer(addresses: &[&str]) -> Peer {
        let config = PeerConfig {
            realm: "bob".into(),
            key: *keyring().public(),
            connect: addresses.iter().map(|name| address(name)).collect(),
            export: Export::All,
            allow: Operations::DEFAULT,
            filter: false,
        };
        // Ours is the lower id.
        Peer::new(config, &RealmId([0; 32]), 1, &Limits::default())
    }

    /// Which address is dialled.
    fn dial(peer: &mut Peer, tag: u64) -> Option<PathBuf> {
        match peer.dial(tag, &Arc::default(), 0)? {
            CarrierConfig::Unix { path, .. } => Some(path),
            CarrierConfig::Tcp { .. } => None,
        }
    }

    fn failed(peer: &mut Peer, tag: u64) -> Option<u64> {
        peer.ended(tag, &LinkEnd::Connect("enoent".into()), 0, 0)
    }

    fn up(tag: u64, initiator: bool, up_ms: u64) -> Up {
        let keyring = keyring();
        let agreed = Agreed {
            role: Role::Initiator,
            profile: 2,
            version: 1,
            network: NetworkKey::none().id(),
            session: [0; 32],
            resumed: false,
            additional: false,
            own: RealmId([0; 32]),
            peer: keyring.realm_id(),
            own_key: [0; 32],
            peer_key: *keyring.public(),
            own_rotations: 0,
            peer_chain: Vec::new(),
            peer_message_bytes_max: 1,
            peer_engines_max: 1,
        };
        let status = LinkStatus {
            key: agreed.peer_key,
            profile: "local",
            role: "initiator",
            version: 1,
            carrier: "unix",
            address: String::new(),
            since_ms: 0,
        };
        let session = Session::new(agreed, legation_proto::limits::Limits::default(), Arc::new(keyring)).unwrap();
        let link = Arc::new(PeerLink::new(tag, "bob".into(), Arc::new(session), status, Arc::default()));
        Up { tag, initiator, up_ms, link, control: Arc::default() }
    }

    #[test]
    fn each_address_is_tried_once_and_then_it_backs_off() {
        let mut peer = peer(&["a", "b", "c"]);
        let min_ms = Limits::default().reconnect_min_ms;
        for round in 0..3 {
            for (number, name) in ["a", "b", "c"].iter().enumerate() {
                let tag = round * 3 + number as u64;
                assert_eq!(dial(&mut peer, tag), Some(name.into()));
                assert_eq!(peer.status().state, PeerState::Connecting);
                assert_eq!(dial(&mut peer, 99), None, "one at a time");
                assert_eq!(failed(&mut peer, tag), Some(if number == 2 { min_ms } else { 0 }));
            }
        }
        let status = peer.status();
        assert_eq!((status.state, status.attempts), (PeerState::Waiting, 9));
        assert_eq!(status.last_error, Some(LinkEnd::Connect("enoent".into())));
    }

    #[test]
    fn a_link_that_is_lost_is_dialled_after_a_wait_at_the_next_address() {
        let mut peer = peer(&["a", "b"]);
        dial(&mut peer, 1);
        assert!(peer.up(up(1, true, 0)).is_ok());
        assert_eq!((peer.status().state, peer.status().attempts), (PeerState::Up, 0));
        assert_eq!(dial(&mut peer, 2), None);
        let ended = peer.ended(1, &LinkEnd::Carrier(CLOSED.into()), 10, 0);
        assert_eq!(ended, Some(Limits::default().reconnect_min_ms));
        assert_eq!(peer.status().last_error, Some(LinkEnd::Carrier(CLOSED.into())));
        assert_eq!(dial(&mut peer, 2), Some("b".into()));
    }

    #[test]
    fn only_a_link_that_has_lived_starts_the_back_off_over() {
        let limits = Limits::default();
        let mut peer = peer(&["a"]);
        for tag in 0..5 {
            dial(&mut peer, tag);
            failed(&mut peer, tag);
        }
        let mut longer = peer.backoff.clone();
        longer.next(0);
        assert!(peer.up(up(10, false, 0)).is_ok());
        assert!(peer.ended(10, &LinkEnd::Carrier(CLOSED.into()), limits.session.handshake_ms - 1, 0).is_some());
        assert_eq!(peer.backoff, longer);

        let mut started_over = Backoff::new(limits.reconnect_min_ms, limits.reconnect_max_ms);
        started_over.next(0);
        assert!(peer.up(up(11, false, 0)).is_ok());
        assert!(peer.ended(11, &LinkEnd::Carrier(CLOSED.into()), limits.session.handshake_ms, 0).is_some());
        assert_eq!(peer.backoff, started_over);
    }

    #[test]
    fn to_be_turned_away_for_another_link_is_no_error() {
        let mut peer = peer(&["a"]);
        dial(&mut peer, 1);
        let duplicate = LinkEnd::Closed { code: "duplicate", text: String::new() };
        assert!(peer.ended(1, &duplicate, 0, 0).is_some());
        assert_eq!(peer.status().last_error, None);
        dial(&mut peer, 2);
        assert!(peer.ended(2, &LinkEnd::Carrier(CLOSED.into()), 0, 0).is_some());
        assert_eq!(peer.status().last_error, Some(LinkEnd::NoAnswer));
    }

    #[test]
    fn a_link_that_comes_in_ends_our_dial_and_a_newer_one_replaces_it() {
        let mut peer = peer(&["a"]);
        dial(&mut peer, 1);
        let taken = peer.up(up(2, false, 0)).unwrap();
        assert!(taken.dial.is_some() && taken.replaced.is_none());
        // What has lost ends in silence.
        assert_eq!(failed(&mut peer, 1), None);
        assert_eq!(peer.status().last_error, None);
        let taken = peer.up(up(3, false, 0)).unwrap();
        assert!(taken.dial.is_none());
        assert_eq!(taken.replaced.map(|up| up.tag), Some(2));
        assert_eq!(peer.ended(2, &LinkEnd::Local("replaced"), 0, 0), None);
        assert_eq!(peer.status().state, PeerState::Up);
    }

    #[test]
    fn who_is_drained_or_off_the_list_is_not_dialled() {
        let mut drained = peer(&["a"]);
        dial(&mut drained, 1);
        assert!(drained.drain().is_none());
        assert_eq!(drained.hello(0), Err(CloseCode::Shutdown));
        assert_eq!(drained.up(up(1, true, 0)).err(), Some(CloseCode::Shutdown));
        assert_eq!(failed(&mut drained, 1), None);
        assert_eq!(dial(&mut drained, 2), None);
        assert_eq!(drained.status().state, PeerState::Drained);

        let mut stopped = peer(&["a"]);
        let link = up(1, true, 0);
        assert!(stopped.up(link.clone()).is_ok());
        assert!(matches!(stopped.stop(), (Some(Up { tag: 1, .. }), None)));
        assert!(link.link.has_ended());
        assert_eq!(dial(&mut stopped, 2), None);
        assert_eq!(stopped.status().state, PeerState::Disconnected);
        stopped.start(2);
        assert_eq!(dial(&mut stopped, 3), Some("a".into()));
        assert_eq!(peer(&[]).status().state, PeerState::Listening);
    }
}
