//! How links come, go and come back.

mod peers_support;

use std::sync::atomic::Ordering;

use legation_channel::channel::Profile;
use legation_node::config::{CarrierConfig, Limits, Operations, PeerConfig, Uids};
use legation_node::peers::{AddPeerError, LinkEnd, PeerState};
use legation_proto::identity::NetworkKey;
use legation_proto::limits::Limits as SessionLimits;

use peers_support::proxy::{Mode, Proxy};
use peers_support::{
    at, binary_term, cast, identity, identity_in, key_of, limits, link, now_ms, nowhere, peer, socket_path, tcp, unix,
    until, Heard, Realm,
};

const ALICE: u8 = 1;
const BOB: u8 = 2;

/// Bob dials alice and messages go both ways.
async fn messages_go_both_ways(alice: &mut Realm, bob: &mut Realm, carrier: CarrierConfig) {
    let (at_bob, at_alice) = link(bob, alice, carrier).await;
    for number in 0..10u8 {
        cast(&at_bob, "engine", &binary_term(&[number])).unwrap();
        cast(&at_alice, "engine", &binary_term(&[number + 100])).unwrap();
    }
    for number in 0..10u8 {
        assert_eq!(alice.delivery().await, ("engine".into(), binary_term(&[number])));
        assert_eq!(bob.delivery().await, ("engine".into(), binary_term(&[number + 100])));
    }
    for (realm, name, role) in [(&*alice, "bob", "responder"), (&*bob, "alice", "initiator")] {
        let status = realm.status(name);
        assert_eq!((status.state, status.attempts, &status.last_error), (PeerState::Up, 0, &None));
        let link = status.link().unwrap();
        assert_eq!((link.role, link.version), (role, 1));
        assert_eq!(realm.peers.sessions().len(), 1);
    }
    assert_eq!(at_bob.core.agreed().session, at_alice.core.agreed().session);
}

#[tokio::test]
async fn two_realms_link_over_tcp_with_tls() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    messages_go_both_ways(&mut alice, &mut bob, at(address, Profile::Tls)).await;
    let link = bob.status("alice").links.remove(0);
    assert_eq!((link.carrier, link.profile, link.address), ("tcp", "tls", address.to_string()));
    assert_eq!(link.key, key_of(ALICE));
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn two_realms_link_over_tcp_without_encryption() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Plain);
    messages_go_both_ways(&mut alice, &mut bob, at(address, Profile::Plain)).await;
    assert_eq!(bob.status("alice").links.remove(0).profile, "plain");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_realms_link_over_a_unix_socket() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let path = alice.listen_unix(Uids::Own);
    messages_go_both_ways(&mut alice, &mut bob, unix(&path, Uids::Own)).await;
    let link = bob.status("alice").links.remove(0);
    assert_eq!((link.carrier, link.profile), ("unix", "local"));
    assert!(link.address.starts_with("uid "), "{}", link.address);
    alice.stop().await;
    assert!(!path.exists(), "the socket file is gone with its listener");
    bob.stop().await;
}

#[tokio::test]
async fn a_host_may_be_a_name() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let port = alice.listen_tcp(Profile::Tls).port();
    link(&mut bob, &mut alice, tcp("localhost", port, Profile::Tls)).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn who_has_another_network_key_gets_not_one_byte() {
    let alice = Realm::start(ALICE);
    let mallory = Realm::with(identity_in(BOB, NetworkKey::new([8; 32])), limits());
    let proxy = Proxy::start(alice.listen_tcp(Profile::Tls)).await;
    alice.expect("bob", BOB);
    mallory.dial("alice", ALICE, at(proxy.address, Profile::Tls));
    until(|| mallory.status("alice").attempts >= 3).await;
    assert_eq!(mallory.dial_error("alice").await, LinkEnd::NoAnswer);
    assert!(proxy.to_listener.load(Ordering::Relaxed) > 0);
    assert_eq!(proxy.to_dialler.load(Ordering::Relaxed), 0);
    until(|| alice.counter("knocks_refused") >= 2).await;
    assert_eq!(alice.counter("hellos_unlisted"), 0);
    assert_eq!(alice.state("bob"), PeerState::Listening);
    mallory.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn without_a_knock_another_network_key_shows_in_the_answer() {
    let alice = Realm::start(ALICE);
    let mallory = Realm::with(identity_in(BOB, NetworkKey::new([8; 32])), limits());
    let path = alice.listen_unix(Uids::Own);
    alice.expect("bob", BOB);
    mallory.dial("alice", ALICE, unix(&path, Uids::Own));
    let error = mallory.dial_error("alice").await;
    assert!(matches!(error, LinkEnd::Fault { code: "answer", .. }), "{error:?}");
    assert!(error.to_string().contains("has not shown our network key"));
    until(|| mallory.counter("answers_refused") >= 1).await;
    mallory.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_realm_that_is_not_on_the_list_is_refused_and_told() {
    let (mut alice, bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    bob.dial("alice", ALICE, at(address, Profile::Tls));
    let error = bob.dial_error("alice").await;
    assert!(matches!(error, LinkEnd::Closed { code: "unlisted", .. }), "{error:?}");
    assert!(error.to_string().contains("not on the allow-list"));
    assert!(alice.counter("hellos_unlisted") >= 1);
    until(|| alice.counter("handshakes_failed") >= 1).await;
    // And when it is on the list it gets in.
    alice.expect("bob", BOB);
    alice.up().await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn another_realm_than_the_one_that_was_pinned_is_none() {
    for knocking in [true, false] {
        let (carol, bob) = (Realm::start(3), Realm::start(BOB));
        carol.expect("bob", BOB);
        let address = match knocking {
            true => at(carol.listen_tcp(Profile::Tls), Profile::Tls),
            false => unix(&carol.listen_unix(Uids::Own), Uids::Own),
        };
        bob.dial("alice", ALICE, address);
        let error = bob.dial_error("alice").await;
        match knocking {
            true => assert_eq!(error, LinkEnd::NoAnswer),
            false => assert!(matches!(error, LinkEnd::Closed { code: "wrong_realm", .. }), "{error:?}"),
        }
        assert_eq!(carol.state("bob"), PeerState::Listening);
        bob.stop().await;
        carol.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_dial_each_other_at_once_one_link_remains() {
    for round in 0..20u8 {
        let (mut alice, mut bob) = (Realm::start(ALICE + round % 2), Realm::start(BOB - round % 2));
        let (at_alice, at_bob) = (alice.listen_tcp(Profile::Tls), bob.listen_tcp(Profile::Tls));
        let bob_peer = PeerConfig { key: bob.identity.key, ..peer("bob", 0, vec![at(at_bob, Profile::Tls)]) };
        let alice_peer = PeerConfig { key: alice.identity.key, ..peer("alice", 0, vec![at(at_alice, Profile::Tls)]) };
        alice.peers.add_peer(bob_peer).unwrap();
        bob.peers.add_peer(alice_peer).unwrap();
        let agree = || {
            let (one, other) = (alice.peers.sessions(), bob.peers.sessions());
            let session = |sessions: &[std::sync::Arc<legation_node::peers::PeerSession>]| {
                sessions.first().map(|session| session.core.agreed().session)
            };
            session(&one).is_some() && session(&one) == session(&other)
        };
        until(|| agree() && alice.peers.open_connections() == 1 && bob.peers.open_connections() == 1).await;
        assert!(agree());
        cast(&alice.peers.sessions()[0], "engine", &binary_term(b"to bob")).unwrap();
        cast(&bob.peers.sessions()[0], "engine", &binary_term(b"to alice")).unwrap();
        assert_eq!(bob.delivery().await.1, binary_term(b"to bob"));
        assert_eq!(alice.delivery().await.1, binary_term(b"to alice"));
        alice.stop().await;
        bob.stop().await;
    }
}

#[tokio::test]
async fn a_peer_that_restarts_is_found_again() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    let (at_bob, _) = link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    alice.stop().await;
    let (ended, why) = bob.ended().await;
    assert_eq!(ended.tag, at_bob.tag);
    assert!(matches!(why, LinkEnd::Closed { code: "shutdown", .. }), "{why:?}");
    let error = LinkEnd::Connect("econnrefused".into());
    until(|| bob.status("alice").last_error == Some(error.clone())).await;
    assert!(bob.status("alice").attempts > 0);

    let mut alice = Realm::start(ALICE);
    let again = legation_node::config::ListenConfig { id: "tcp".into(), carrier: at(address, Profile::Tls) };
    alice.peers.listen(again).unwrap();
    alice.expect("bob", BOB);
    let (new, _) = (bob.up().await, alice.up().await);
    // Nothing of the old session is valid in the new one.
    assert_ne!(new.core.agreed().session, at_bob.core.agreed().session);
    assert_eq!(bob.status("alice").attempts, 0);
    assert!(cast(&at_bob, "engine", &binary_term(b"late")).is_err());
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_peer_that_comes_back_replaces_a_link_that_only_seems_alive() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let proxy = Proxy::start(alice.listen_tcp(Profile::Tls)).await;
    let (_, at_alice) = link(&mut bob, &mut alice, at(proxy.address, Profile::Tls)).await;
    proxy.set(Mode::Stall);
    bob.stop().await;
    assert_eq!(alice.state("bob"), PeerState::Up);

    proxy.set(Mode::Stall);
    let mut again = Realm::start(BOB);
    let address = peers_support::tcp_address(&alice.peers.listeners()[0]);
    again.dial("alice", ALICE, at(address, Profile::Tls));
    let (old, why) = alice.ended().await;
    assert_eq!((old.tag, why), (at_alice.tag, LinkEnd::Local("replaced")));
    let new = alice.up().await;
    again.up().await;
    assert_ne!(new.tag, old.tag);
    assert_eq!(alice.peers.sessions().len(), 1);
    again.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let (alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let good = at(alice.listen_tcp(Profile::Tls), Profile::Tls);
    alice.expect("bob", BOB);
    let connect = vec![at(nowhere(), Profile::Tls), unix(&socket_path(), Uids::Own), good];
    bob.peers.add_peer(peer("alice", ALICE, connect)).unwrap();
    bob.up().await;
    assert_eq!(bob.status("alice").links.remove(0).carrier, "tcp");
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_link_that_is_cut_comes_back() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let proxy = Proxy::start(alice.listen_tcp(Profile::Tls)).await;
    link(&mut bob, &mut alice, at(proxy.address, Profile::Tls)).await;
    proxy.set(Mode::Cut);
    for realm in [&mut alice, &mut bob] {
        assert_eq!(realm.ended().await.1, LinkEnd::Carrier("closed".into()));
    }
    proxy.set(Mode::Pass);
    alice.up().await;
    bob.up().await;
    assert_eq!(bob.status("alice").last_error, None);
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_silent_peer_is_asked_and_given_up() {
    let session = SessionLimits { ping_ms: 50, ..SessionLimits::default() };
    let mut alice = Realm::with(identity(ALICE), Limits { session, ..limits() });
    let mut bob = Realm::start(BOB);
    let proxy = Proxy::start(alice.listen_tcp(Profile::Tls)).await;
    let (_, at_alice) = link(&mut bob, &mut alice, at(proxy.address, Profile::Tls)).await;
    // The peer that answers lives.
    until(|| at_alice.core.counters().rtt_ms.get() > 0 || at_alice.status().since_ms + 200 < now_ms()).await;
    assert_eq!(alice.state("bob"), PeerState::Up);
    proxy.set(Mode::Stall);
    let (_, why) = alice.ended().await;
    assert!(matches!(why, LinkEnd::Fault { code: "timeout", .. }), "{why:?}");
    assert_eq!(alice.counter("links_silent"), 1);
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn peers_are_disconnected_and_taken_up_again() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = at(alice.listen_tcp(Profile::Tls), Profile::Tls);
    assert_eq!(bob.peers.connect("alice"), Err(AddPeerError::UnknownRealm));
    assert!(!bob.peers.disconnect("alice"));
    let (at_bob, _) = link(&mut bob, &mut alice, address.clone()).await;
    assert_eq!(bob.peers.add_peer(peer("alice", ALICE, vec![])), Err(AddPeerError::AlreadyConnected));
    assert_eq!(bob.peers.connect("alice"), Ok(()));

    assert!(bob.peers.disconnect("alice"));
    // At once, for who pushes.
    assert!(at_bob.has_ended());
    assert!(bob.peers.sessions().is_empty());
    let status = bob.status("alice");
    assert_eq!((status.state, status.attempts, status.last_error), (PeerState::Disconnected, 0, None));
    assert_eq!(bob.ended().await.1, LinkEnd::Local("normal"));
    assert!(matches!(alice.ended().await.1, LinkEnd::Closed { code: "normal", .. }));

    // Nor may alice in, until bob says so.
    let back = at(bob.listen_tcp(Profile::Tls), Profile::Tls);
    alice.peers.update_peer(peer("bob", BOB, vec![back])).unwrap();
    assert!(matches!(alice.dial_error("bob").await, LinkEnd::Closed { code: "unlisted", .. }));
    assert_eq!(bob.peers.connect("alice"), Ok(()));
    bob.up().await;
    alice.up().await;

    assert!(bob.peers.remove_peer("alice"));
    assert!(!bob.peers.remove_peer("alice"));
    assert!(bob.peers.statuses().is_empty());
    assert_eq!(bob.ended().await.1, LinkEnd::Local("normal"));
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_taken_up_while_its_link_closes_gets_a_new_one() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = at(alice.listen_tcp(Profile::Tls), Profile::Tls);
    link(&mut bob, &mut alice, address).await;
    for _ in 0..20 {
        bob.peers.disconnect("alice");
        bob.peers.connect("alice").unwrap();
        bob.up().await;
    }
    until(|| bob.peers.open_connections() == 1 && alice.peers.open_connections() == 1).await;
    assert_eq!(bob.state("alice"), PeerState::Up);
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn what_cannot_be_a_peer_is_refused() {
    let alice = Realm::start(ALICE);
    assert_eq!(alice.peers.add_peer(peer("me", ALICE, vec![])), Err(AddPeerError::OwnKey));
    alice.expect("bob", BOB);
    assert_eq!(alice.peers.add_peer(peer("bob2", BOB, vec![])), Err(AddPeerError::SameKey("bob".into())));
    let weak = PeerConfig { key: [0; 32], ..peer("weak", 0, vec![]) };
    assert!(matches!(alice.peers.add_peer(weak.clone()), Err(AddPeerError::BadKey(_))));
    assert!(matches!(
        alice.peers.update_peer(PeerConfig { realm: "bob".into(), ..weak }),
        Err(AddPeerError::BadKey(_))
    ));
    assert_eq!(alice.peers.statuses().len(), 1);
    // The key of one that was disconnected is free, and then taken.
    alice.peers.disconnect("bob");
    alice.expect("bob2", BOB);
    assert_eq!(alice.peers.connect("bob"), Err(AddPeerError::SameKey("bob2".into())));
    alice.stop().await;
}

#[tokio::test]
async fn other_settings_keep_the_link_while_key_and_addresses_stay() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = at(alice.listen_tcp(Profile::Tls), Profile::Tls);
    let (at_bob, _) = link(&mut bob, &mut alice, address.clone()).await;
    let strict = PeerConfig { allow: Operations(0), ..peer("alice", ALICE, vec![address.clone()]) };
    bob.peers.update_peer(strict.clone()).unwrap();
    assert_eq!(*bob.peers.peer_config("alice").unwrap(), strict);
    assert!(!at_bob.has_ended());

    let elsewhere = PeerConfig { connect: vec![at(nowhere(), Profile::Tls), address], ..strict };
    bob.peers.update_peer(elsewhere).unwrap();
    let (old, why) = bob.ended().await;
    assert_eq!((old.tag, why), (at_bob.tag, LinkEnd::Local("normal")));
    bob.up().await;

    // Another key: the peer of before is not that one any more.
    bob.peers.update_peer(peer("alice", 7, vec![])).unwrap();
    assert_eq!(bob.ended().await.1, LinkEnd::Local("normal"));
    assert_eq!(bob.state("alice"), PeerState::Listening);
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn an_updated_peer_that_is_new_is_dialled() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = at(alice.listen_tcp(Profile::Tls), Profile::Tls);
    alice.expect("bob", BOB);
    bob.peers.update_peer(peer("alice", ALICE, vec![address])).unwrap();
    bob.up().await;
    alice.up().await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn who_is_not_there_is_dialled_again_and_again() {
    let bob = Realm::start(BOB);
    bob.dial("alice", ALICE, at(nowhere(), Profile::Tls));
    bob.dial("carol", 3, unix(&socket_path(), Uids::Own));
    until(|| bob.status("alice").attempts >= 5 && bob.status("carol").attempts >= 5).await;
    assert_eq!(bob.dial_error("alice").await, LinkEnd::Connect("econnrefused".into()));
    assert_eq!(bob.dial_error("carol").await, LinkEnd::Connect("enoent".into()));
    assert!(matches!(bob.state("alice"), PeerState::Waiting | PeerState::Connecting));
    bob.stop().await;
}

#[tokio::test]
async fn a_name_that_nobody_has_is_an_error_of_the_dial() {
    let bob = Realm::start(BOB);
    bob.dial("alice", ALICE, tcp("no-such-host.invalid", 4040, Profile::Tls));
    assert_eq!(bob.dial_error("alice").await, LinkEnd::Connect("nxdomain".into()));
    bob.stop().await;
}

#[tokio::test]
async fn links_of_several_realms_do_not_touch_each_other() {
    let mut alice = Realm::start(ALICE);
    let address = at(alice.listen_tcp(Profile::Tls), Profile::Tls);
    let mut others = Vec::new();
    for seed in 10..20u8 {
        let mut other = Realm::start(seed);
        alice.expect(&format!("realm{seed}"), seed);
        other.dial("alice", ALICE, address.clone());
        other.up().await;
        others.push(other);
    }
    until(|| alice.peers.sessions().len() == 10).await;
    for session in alice.peers.sessions() {
        cast(&session, "engine", &binary_term(session.realm.as_bytes())).unwrap();
    }
    for (other, seed) in others.iter_mut().zip(10..) {
        assert_eq!(other.delivery().await.1, binary_term(format!("realm{seed}").as_bytes()));
    }
    alice.heard_so_far();
    others.remove(4).stop().await;
    let (ended, _) = alice.ended().await;
    assert_eq!(&*ended.realm, "realm14");
    assert_eq!(alice.peers.sessions().len(), 9);
    assert!(alice.heard_so_far().iter().all(|heard| !matches!(heard, Heard::Ended { .. })));
    for other in others {
        other.stop().await;
    }
    alice.stop().await;
}

#[tokio::test]
async fn a_crash_of_whoever_hears_events_ends_that_link_and_no_other() {
    let (mut alice, mut bob, mut carol) = (Realm::start(ALICE), Realm::start(BOB), Realm::start(3));
    let address = at(alice.listen_tcp(Profile::Tls), Profile::Tls);
    let (at_bob, _) = link(&mut bob, &mut alice, address.clone()).await;
    alice.expect("carol", 3);
    carol.dial("alice", ALICE, address);
    let at_carol = carol.up().await;
    cast(&at_bob, "crash", &binary_term(b"")).unwrap();
    assert_eq!(alice.ended().await.1, LinkEnd::Local("crashed"));
    assert_eq!(bob.ended().await.1, LinkEnd::Carrier("closed".into()));
    bob.up().await;
    cast(&at_carol, "engine", &binary_term(b"still here")).unwrap();
    assert_eq!(alice.delivery().await.1, binary_term(b"still here"));
    for realm in [bob, carol, alice] {
        realm.stop().await;
    }
}
