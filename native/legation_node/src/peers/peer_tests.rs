use std::path::PathBuf;

use legation_channel::channel::Profile;
use legation_proto::hello::Agreed;
use legation_proto::identity::{check_public_key, NetworkKey};
use legation_proto::keyring::Keyring;
use legation_proto::session::{Event, Exported};
use legation_proto::signing::Modes;

use super::*;
use crate::config::{Export, Operations, PeerLimits, Reasons, Uids};
use crate::peers::SessionEvents;

const HANDSHAKE_MS: u64 = 5_000;

fn closed() -> LinkEnd {
    LinkEnd::Carrier("closed".into())
}

fn address(name: &str) -> CarrierConfig {
    CarrierConfig::Unix { path: name.into(), profile: Profile::Local, uids: Uids::Own, send_timeout_ms: 1 }
}

fn keyring() -> Keyring {
    Keyring::new(&[2; 32], &[3; 32])
}

fn peer(addresses: &[&str]) -> Peer {
    peer_with(addresses, 1, PeerLimits::default())
}

fn peer_with(addresses: &[&str], links: u8, limits: PeerLimits) -> Peer {
    let config = PeerConfig {
        realm: "bob".into(),
        key: *keyring().public(),
        connect: addresses.iter().map(|name| address(name)).collect(),
        export: Export::All,
        allow: Operations::DEFAULT,
        filter: false,
        reasons: Reasons::Class,
        links,
        signing: None,
        accept_signing: None,
        limits,
    };
    // Ours is the lower id.
    Peer::new(config, &RealmId([0; 32]), 1, &Limits::default())
}

/// Which address is dialled, and somebody answers.
fn dial(peer: &mut Peer, tag: u64) -> Option<PathBuf> {
    let control = Arc::<Control>::default();
    control.connected();
    match peer.dial(tag, &control, 0)?.address {
        CarrierConfig::Unix { path, .. } => Some(path),
        CarrierConfig::Tcp { .. } => None,
    }
}

fn failed(peer: &mut Peer, tag: u64) -> Option<u64> {
    peer.ended(tag, &LinkEnd::Connect("enoent".into()), 0, 0).redial
}

struct Deaf;

impl SessionEvents for Deaf {
    fn session_up(&self, _session: &Arc<PeerSession>) {}
    fn session_event(&self, _session: &Arc<PeerSession>, _event: Event<'_>) -> bool {
        false
    }
    fn session_delivered(&self, _session: &Arc<PeerSession>) {}
    fn session_room(&self, _session: &Arc<PeerSession>, _tokens: Vec<u64>) {}
    fn session_exported(&self, _session: &Arc<PeerSession>, _exported: &[Exported]) {}

    fn session_lost(&self, _session: &Arc<PeerSession>, _why: &LinkEnd) {}
    fn session_resumed(&self, _session: &Arc<PeerSession>) {}
    fn session_ended(&self, _session: &Arc<PeerSession>, _why: &LinkEnd) {}
}

fn status() -> LinkStatus {
    LinkStatus {
        key: [0; 32],
        profile: "local",
        role: "initiator",
        version: 1,
        signing: "engine",
        carrier: "unix",
        address: String::new(),
        since_ms: 0,
        active: true,
        rtt_ms: None,
    }
}

fn session(tag: u64, initiator: bool) -> Arc<PeerSession> {
    let keyring = keyring();
    let agreed = Agreed {
        role: if initiator { Role::Initiator } else { Role::Responder },
        profile: 2,
        version: 1,
        network: NetworkKey::none().id(),
        session: [tag as u8; 32],
        resumed: false,
        additional: false,
        own: RealmId([0; 32]),
        peer: keyring.realm_id(),
        own_key: [0; 32],
        peer_key: check_public_key(keyring.public()).unwrap(),
        own_rotations: 0,
        peer_chain: Vec::new(),
        peer_message_bytes_max: 1,
        peer_engines_max: 1,
        peer_credit_bytes: 0,
        peer_accepts: Modes::of([]),
    };
    let core = Session::new(agreed, legation_proto::limits::Limits::default(), Arc::new(keyring));
    Arc::new(PeerSession::new(tag, "bob".into(), Arc::new(core), status(), Arc::default()))
}

fn link(tag: u64, index: Option<usize>, up_ms: u64) -> Up {
    Up { tag, initiator: index.is_some(), up_ms, index, status: status(), control: Arc::default() }
}

/// A link is up, and a session begins with it.
fn begin(peer: &mut Peer, tag: u64, index: Option<usize>, up_ms: u64) -> (Arc<PeerSession>, Taken) {
    let session = session(tag, index.is_some());
    let joins = Joins { resumed: false, additional: false };
    let taken = peer.up(link(tag, index, up_ms), &session, joins).unwrap();
    session.tell(&Deaf);
    (session, taken)
}

fn join(
    peer: &mut Peer,
    tag: u64,
    index: Option<usize>,
    session: &Arc<PeerSession>,
    additional: bool,
) -> Result<Taken, CloseCode> {
    peer.up(link(tag, index, 0), session, Joins { resumed: true, additional })
}

fn offer(session: &PeerSession, additional: bool) -> Offer {
    Offer { session: session.core.agreed().session, additional }
}

fn active(peer: &Peer) -> u64 {
    let active: Vec<_> = peer.links.iter().filter(|up| up.tag == peer.active).map(|up| up.tag).collect();
    assert_eq!((active.len(), peer.links().iter().filter(|link| link.active).count()), (1, 1));
    active[0]
}

#[test]
fn while_a_session_is_lost_the_next_dial_is_a_second_away_at_most() {
    for lost in [true, false] {
        let mut peer = peer(&["a"]);
        if lost {
            begin(&mut peer, 1, Some(0), 0);
        }
        peer.backoff = Backoff::new(30_000, 30_000);
        let pauses: Vec<u64> = [0, 1, 999, 1_000, u64::MAX].map(|random| peer.pause(random)).into();
        assert!(pauses.iter().all(|pause| (1..=LOST_MAX_MS).contains(pause) == lost), "{pauses:?}");
    }
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
fn a_link_that_has_lived_and_is_lost_is_dialled_at_once_from_the_first_address_on() {
    let mut peer = peer(&["a", "b"]);
    dial(&mut peer, 1);
    failed(&mut peer, 1);
    assert_eq!(dial(&mut peer, 2), Some("b".into()));
    begin(&mut peer, 2, Some(1), 0);
    assert_eq!((peer.status().state, peer.status().attempts), (PeerState::Up, 0));
    assert_eq!(dial(&mut peer, 3), None);
    assert_eq!(peer.ended(2, &closed(), HANDSHAKE_MS, 0).redial, Some(0));
    assert_eq!(peer.status().last_error, Some(closed()));
    assert_eq!(dial(&mut peer, 3), Some("a".into()));
}

#[test]
fn a_link_that_goes_as_soon_as_it_is_up_is_dialled_after_a_longer_wait_each_time() {
    let limits = Limits::default();
    let mut peer = peer(&["a"]);
    for tag in 0..5 {
        dial(&mut peer, tag);
        failed(&mut peer, tag);
    }
    let mut longer = peer.backoff.clone();
    longer.next(0);
    begin(&mut peer, 10, None, 0);
    assert!(peer.ended(10, &closed(), HANDSHAKE_MS - 1, 0).redial.is_some_and(|delay_ms| delay_ms > 0));
    assert_eq!(peer.backoff, longer);

    begin(&mut peer, 11, None, 0);
    assert_eq!(peer.ended(11, &closed(), HANDSHAKE_MS, 0).redial, Some(0));
    assert_eq!(peer.backoff, Backoff::new(limits.reconnect_min_ms, limits.reconnect_max_ms), "it starts over");
}

#[test]
fn to_be_turned_away_for_another_link_is_no_error() {
    let mut peer = peer(&["a"]);
    dial(&mut peer, 1);
    let duplicate = LinkEnd::Closed { code: "duplicate", text: String::new() };
    assert!(peer.ended(1, &duplicate, 0, 0).redial.is_some());
    assert_eq!(peer.status().last_error, None);
    dial(&mut peer, 2);
    assert!(peer.ended(2, &closed(), 0, 0).redial.is_some());
    assert_eq!(peer.status().last_error, Some(LinkEnd::NoAnswer));
}

#[test]
fn a_link_that_comes_in_ends_our_dial_and_a_newer_one_replaces_it() {
    let mut peer = peer(&["a"]);
    dial(&mut peer, 1);
    let (first, taken) = begin(&mut peer, 2, None, 0);
    assert!(taken.dial.is_some() && taken.replaced.is_empty() && taken.ended.is_none());
    // What has lost ends in silence.
    assert_eq!(failed(&mut peer, 1), None);
    assert_eq!(peer.status().last_error, None);
    let (_, taken) = begin(&mut peer, 3, None, 0);
    assert!(taken.dial.is_none());
    assert!(matches!(taken.replaced[..], [(_, CloseCode::Replaced)]));
    assert_eq!(taken.ended.map(|ended| ended.tag), Some(first.tag));
    assert_eq!(first.standing(), Standing::Ended(LinkEnd::Local("replaced")));
    assert!(taken.adopted.is_some_and(|adopted| Arc::ptr_eq(&adopted, &first.core)));
    let gone = peer.ended(2, &LinkEnd::Local("replaced"), 0, 0);
    assert!(gone.redial.is_none() && gone.session.is_none());
    assert_eq!(peer.status().state, PeerState::Up);
}

#[test]
fn a_session_whose_link_breaks_is_lost_and_taken_up_by_the_next() {
    let mut peer = peer(&["a"]);
    let (session, _) = begin(&mut peer, 1, Some(0), 0);
    let gone = peer.ended(1, &closed(), HANDSHAKE_MS, 0);
    assert!(gone.grace && gone.session.is_some());
    assert_eq!(session.standing(), Standing::Lost(closed()));
    assert_eq!((peer.status().state, peer.links().len()), (PeerState::Lost, 0));
    // The same one is offered to the peer, and its own offer of it is taken.
    let control = Arc::<Control>::default();
    let plan = peer.dial(2, &control, 0).unwrap();
    assert!(!plan.additional && plan.resume.is_some_and(|resume| resume.tag == session.tag));
    assert!(peer.hello(Some(&offer(&session, false)), 0).unwrap().is_some(), "ours may lead nowhere");
    control.connected();
    assert_eq!(peer.hello(Some(&offer(&session, false)), 0).err(), Some(CloseCode::Duplicate), "ours is on its way");
    let hello = peer.hello(Some(&offer(&session, false)), 1_000).unwrap();
    assert!(hello.is_some_and(|resume| resume.tag == session.tag));
    assert!(join(&mut peer, 2, Some(0), &session, false).unwrap().activated);
    assert_eq!((session.standing(), active(&peer)), (Standing::Up, 2));
    assert!(peer.grace_is_over(session.tag).is_none(), "too late");
}

#[test]
fn a_session_ends_by_a_goodbye_a_fault_and_after_its_grace() {
    let goodbye = LinkEnd::Closed { code: "normal", text: String::new() };
    let fault = LinkEnd::Fault { code: "protocol", detail: String::new() };
    for why in [goodbye, fault, LinkEnd::Local("crashed")] {
        let mut peer = peer(&[]);
        let (session, _) = begin(&mut peer, 1, None, 0);
        let gone = peer.ended(1, &why, 0, 0);
        assert!(!gone.grace && gone.session.is_some());
        assert_eq!(session.standing(), Standing::Ended(why));
        assert!(peer.session().is_none() && session.has_ended());
    }
    let mut peer = peer(&[]);
    let (session, _) = begin(&mut peer, 1, None, 0);
    assert!(peer.ended(1, &closed(), 0, 0).grace);
    assert!(peer.grace_is_over(99).is_none(), "another session's");
    assert!(peer.grace_is_over(session.tag).is_some());
    assert_eq!(session.standing(), Standing::Ended(closed()));
    assert_eq!(peer.status().state, PeerState::Listening);
    // Its offer is not heard any more, and what it had not sent goes into the next.
    assert!(peer.hello(Some(&offer(&session, false)), 0).unwrap().is_none());
    assert_eq!(join(&mut peer, 2, None, &session, false).err(), Some(CloseCode::Duplicate));
    assert!(begin(&mut peer, 3, None, 0).1.adopted.is_some());
}

#[test]
fn without_grace_a_session_ends_with_its_last_link() {
    let mut peer = peer_with(&[], 1, PeerLimits { grace_ms: Some(0), ..PeerLimits::default() });
    let (session, _) = begin(&mut peer, 1, None, 0);
    join(&mut peer, 2, None, &session, true).unwrap();
    assert!(peer.ended(1, &closed(), 0, 0).activated.is_some());
    assert!(!session.has_ended(), "another has taken over");
    let gone = peer.ended(2, &closed(), 0, 0);
    assert!(!gone.grace && gone.session.is_some());
    assert_eq!(session.standing(), Standing::Ended(closed()));
}

#[test]
fn a_peer_that_comes_without_the_session_begins_another_whatever_became_of_the_old() {
    for lost in [false, true] {
        let mut peer = peer(&[]);
        let (old, _) = begin(&mut peer, 1, None, 0);
        if lost {
            peer.ended(1, &closed(), 0, 0);
        }
        assert!(peer.hello(None, 0).unwrap().is_none());
        let stranger = session(77, false);
        assert!(peer.hello(Some(&offer(&stranger, false)), 0).unwrap().is_none());
        let (_, taken) = begin(&mut peer, 2, None, 0);
        assert_eq!(taken.ended.map(|ended| ended.tag), Some(old.tag));
        assert_eq!(taken.replaced.len(), usize::from(!lost));
    }
}

#[test]
fn a_session_that_the_realm_has_not_heard_of_yet_takes_no_other_link() {
    let mut peer = peer(&[]);
    let session = session(1, false);
    peer.up(link(1, None, 0), &session, Joins { resumed: false, additional: false }).unwrap();
    assert_eq!(peer.hello(Some(&offer(&session, true)), 0).err(), Some(CloseCode::Duplicate));
    session.tell(&Deaf);
    assert!(peer.hello(Some(&offer(&session, true)), 0).unwrap().is_some());
}

#[test]
fn who_began_the_session_keeps_the_first_addresses_up_and_sends_on_the_first_of_them() {
    let mut peer = peer_with(&["a", "b", "c"], 2, PeerLimits::default());
    dial(&mut peer, 1);
    failed(&mut peer, 1);
    dial(&mut peer, 2);
    let (session, _) = begin(&mut peer, 2, Some(1), 0);
    // From where it was on, and then from the beginning.
    let plan = peer.dial(3, &Arc::default(), 0).unwrap();
    assert!(plan.additional && plan.resume.is_some());
    assert_eq!(plan.address, address("c"));
    assert!(!join(&mut peer, 3, Some(2), &session, true).unwrap().activated);
    assert_eq!(active(&peer), 2);
    // Two are up, but a better one is not.
    assert_eq!(dial(&mut peer, 4), Some("a".into()));
    assert!(failed(&mut peer, 4).is_some_and(|delay_ms| delay_ms > 0), "it is the only one to try");
    assert_eq!(dial(&mut peer, 5), Some("a".into()));
    let taken = join(&mut peer, 5, Some(0), &session, true).unwrap();
    assert!(taken.activated);
    assert!(matches!(taken.replaced[..], [(_, CloseCode::Duplicate)]), "the last is one too many");
    assert_eq!((active(&peer), peer.links.len()), (5, 2));
    assert_eq!(dial(&mut peer, 6), None);

    // And when the one that we send on goes, the other takes over.
    let gone = peer.ended(5, &closed(), HANDSHAKE_MS, 0);
    assert!(gone.activated.is_some() && gone.session.is_none());
    assert_eq!(active(&peer), 2);
    assert_eq!((gone.redial, dial(&mut peer, 7)), (Some(0), Some("a".into())));
    assert_eq!(session.standing(), Standing::Up);
}

#[test]
fn who_was_dialled_stays_with_its_link_takes_four_and_dials_none_beside_them() {
    let mut peer = peer_with(&["a", "b"], 4, PeerLimits::default());
    let (session, _) = begin(&mut peer, 1, None, 0);
    for tag in 2..=4 {
        assert!(peer.hello(Some(&offer(&session, true)), 0).is_ok());
        assert!(!join(&mut peer, tag, None, &session, true).unwrap().activated);
    }
    assert_eq!(peer.hello(Some(&offer(&session, true)), 0).err(), Some(CloseCode::Duplicate));
    assert_eq!(join(&mut peer, 5, None, &session, true).err(), Some(CloseCode::Duplicate));
    assert_eq!((active(&peer), dial(&mut peer, 6)), (1, None));
    peer.ended(1, &closed(), 0, 0);
    assert_eq!(active(&peer), 2, "the oldest of the others");
    // One that is not beside them takes the place of all.
    let taken = join(&mut peer, 7, None, &session, false).unwrap();
    assert_eq!((taken.replaced.len(), taken.activated, active(&peer)), (3, true, 7));
}

#[test]
fn a_goodbye_goes_over_the_link_that_is_sent_on_and_the_others_end_before_it() {
    let mut peer = peer(&[]);
    let (session, _) = begin(&mut peer, 1, None, 0);
    join(&mut peer, 2, None, &session, true).unwrap();
    let codes: Vec<_> = peer.close(session.tag, CloseCode::Shutdown).links.into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [CloseCode::Shutdown, CloseCode::Replaced]);
    assert!(!session.has_ended());
    assert!(peer.ended(2, &LinkEnd::Local("replaced"), 0, 0).session.is_none());
    assert!(peer.ended(1, &LinkEnd::Local("shutdown"), 0, 0).session.is_some());
    assert!(session.has_ended());
}

#[test]
fn who_is_drained_or_off_the_list_is_not_dialled() {
    let mut drained = peer(&["a"]);
    dial(&mut drained, 1);
    assert!(drained.drain().is_none());
    assert_eq!(drained.hello(None, 0).err(), Some(CloseCode::Shutdown));
    let joins = Joins { resumed: false, additional: false };
    assert_eq!(drained.up(link(1, Some(0), 0), &session(1, true), joins).err(), Some(CloseCode::Shutdown));
    assert_eq!(dial(&mut drained, 2), None);
    assert_eq!(drained.status().state, PeerState::Drained);

    let mut stopped = peer(&["a"]);
    let (session, _) = begin(&mut stopped, 1, Some(0), 0);
    let left = stopped.stop();
    assert!(matches!(left.links[..], [(_, CloseCode::Normal)]) && left.session.is_some());
    assert!(session.has_ended());
    assert_eq!(dial(&mut stopped, 2), None);
    assert_eq!(stopped.status().state, PeerState::Disconnected);
    stopped.start(2);
    assert_eq!(dial(&mut stopped, 3), Some("a".into()));
    assert!(begin(&mut stopped, 3, Some(0), 0).1.adopted.is_none(), "what waited went with it");
    assert_eq!(peer(&[]).status().state, PeerState::Listening);
}

#[test]
fn what_drains_and_is_lost_may_be_taken_up_again_to_be_finished() {
    let mut peer = peer(&["a"]);
    let (session, _) = begin(&mut peer, 1, Some(0), 0);
    assert!(peer.drain().is_some() && session.is_draining());
    assert_eq!(dial(&mut peer, 2), None);
    assert!(peer.ended(1, &closed(), HANDSHAKE_MS, 0).grace);
    assert_eq!(dial(&mut peer, 2), Some("a".into()));
    assert!(join(&mut peer, 2, Some(0), &session, false).is_ok());
    assert!(peer.ended(2, &closed(), HANDSHAKE_MS, 0).grace);
    assert!(peer.hello(Some(&offer(&session, false)), 0).unwrap().is_some());
    let closed = peer.close(session.tag, CloseCode::Shutdown);
    assert!(closed.links.is_empty() && closed.session.is_some());
    assert_eq!((dial(&mut peer, 3), session.has_ended()), (None, true));
}

#[test]
fn one_more_link_of_a_session_that_is_not_there_takes_the_place_of_none() {
    let mut acceptor = peer(&[]);
    let stranger = session(77, false);
    begin(&mut acceptor, 1, None, 0);
    assert_eq!(acceptor.hello(Some(&offer(&stranger, true)), 0).err(), Some(CloseCode::Duplicate));
    acceptor.ended(1, &closed(), 0, 0);
    assert!(acceptor.hello(Some(&offer(&stranger, true)), 0).unwrap().is_none(), "there is none any more");

    let mut dialler = peer_with(&["a", "b"], 2, PeerLimits::default());
    dial(&mut dialler, 1);
    let (ours, _) = begin(&mut dialler, 1, Some(0), 0);
    assert!(dialler.dial(2, &Arc::default(), 0).unwrap().additional);
    let joins = Joins { resumed: false, additional: false };
    let other = session(2, true);
    assert_eq!(dialler.up(link(2, Some(1), 0), &other, joins).err(), Some(CloseCode::Duplicate));
    assert!(dialler.ended(2, &LinkEnd::Local("duplicate"), 0, 0).redial.is_some_and(|delay_ms| delay_ms > 0));
    assert_eq!((ours.standing(), active(&dialler)), (Standing::Up, 1));
    // Without a link it is as good as any.
    assert!(dialler.dial(3, &Arc::default(), 0).unwrap().additional);
    assert!(dialler.ended(1, &closed(), 0, 0).grace);
    assert!(dialler.up(link(3, Some(1), 0), &other, joins).is_ok());
}

#[test]
fn a_goodbye_whose_link_breaks_before_it_is_said_ends_the_session() {
    for others in [false, true] {
        let mut peer = peer_with(&["a", "b"], 2, PeerLimits::default());
        let (session, _) = begin(&mut peer, 1, Some(0), 0);
        if others {
            join(&mut peer, 2, Some(1), &session, true).unwrap();
        }
        assert!(peer.close(session.tag, CloseCode::Overload).session.is_none());
        // Nothing joins any more.
        assert_eq!(dial(&mut peer, 3), None);
        assert_eq!(peer.hello(Some(&offer(&session, true)), 0).err(), Some(CloseCode::Overload));
        assert_eq!(join(&mut peer, 4, None, &session, true).err(), Some(CloseCode::Overload));
        let gone = peer.ended(1, &closed(), HANDSHAKE_MS, 0);
        assert!(!gone.grace && gone.session.is_some());
        assert_eq!(gone.closed.len(), usize::from(others));
        assert_eq!(session.standing(), Standing::Ended(LinkEnd::Local("overload")));
        // And the next one may begin.
        assert_eq!((gone.redial, dial(&mut peer, 5)), (Some(0), Some("a".into())));
        assert!(begin(&mut peer, 5, Some(0), 0).1.activated);
    }
}
