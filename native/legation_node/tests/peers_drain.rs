//! Going in good order, and with those who don't let us.

mod peers_support;

use std::time::Duration;

use legation_channel::channel::Profile;
use legation_node::config::{CarrierConfig, Limits};
use legation_node::peers::{LinkEnd, PeerState};
use legation_proto::session::PushError;

use peers_support::client::Client;
use peers_support::{at, binary_term, call, cast, identity, key_of, limits, link, reply, until, Heard, Realm};

const ALICE: u8 = 1;
const BOB: u8 = 2;

#[tokio::test]
async fn a_drain_waits_for_the_calls_of_both_directions_and_says_goodbye() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    let (at_bob, at_alice) = link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    call(&at_bob, "engine", b"bob's");
    call(&at_alice, "engine", b"alice's");
    let (mut of_bob, mut of_alice) = (None, None);
    while of_bob.is_none() {
        if let Heard::Call { call_id, .. } = alice.heard().await {
            of_bob = Some(call_id);
        }
    }
    while of_alice.is_none() {
        if let Heard::Call { call_id, .. } = bob.heard().await {
            of_alice = Some(call_id);
        }
    }

    let peers = alice.peers.clone();
    let draining = tokio::spawn(async move { peers.drain(Duration::from_secs(30)).await });
    until(|| alice.peers.listeners().is_empty()).await;
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(alice.state("bob"), PeerState::Drained);
    assert_eq!(bob.state("alice"), PeerState::Up);
    reply(&at_alice, of_bob.unwrap());
    assert!(matches!(bob.heard().await, Heard::Reply { context, .. } if context == b"bob's"));
    assert!(!draining.is_finished());
    reply(&at_bob, of_alice.unwrap());
    assert_eq!(draining.await.unwrap(), []);
    assert!(matches!(alice.heard().await, Heard::Reply { context, .. } if context == b"alice's"));
    assert_eq!(alice.ended().await.1, LinkEnd::Local("shutdown"));
    assert!(matches!(bob.ended().await.1, LinkEnd::Closed { code: "shutdown", .. }));
    assert_eq!(alice.state("bob"), PeerState::Drained);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_drain_waits_for_what_a_peer_has_asked_though_nothing_of_ours_is_open() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    let (at_bob, at_alice) = link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    call(&at_bob, "engine", b"bob's");
    let of_bob = loop {
        if let Heard::Call { call_id, .. } = alice.heard().await {
            break call_id;
        }
    };
    let peers = alice.peers.clone();
    let draining = tokio::spawn(async move { peers.drain(Duration::from_secs(30)).await });
    until(|| alice.state("bob") == PeerState::Drained).await;
    assert!(!draining.is_finished());
    reply(&at_alice, of_bob);
    assert!(matches!(bob.heard().await, Heard::Reply { context, .. } if context == b"bob's"));
    assert_eq!(draining.await.unwrap(), []);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn what_is_open_when_the_time_is_over_is_cut_and_reported() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    let (at_bob, _) = link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    call(&at_bob, "slow", b"who waits");
    while !matches!(alice.heard().await, Heard::Call { .. }) {}
    let cut = bob.peers.drain(Duration::from_millis(50)).await;
    assert_eq!(cut.len(), 1);
    assert_eq!((&*cut[0].realm, &*cut[0].engine, &*cut[0].context), ("alice", "slow", b"who waits".as_slice()));
    assert_eq!(bob.ended().await.1, LinkEnd::Local("shutdown"));
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_drain_ends_when_the_link_does() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    let (at_bob, _) = link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    call(&at_bob, "slow", b"who waits");
    while !matches!(alice.heard().await, Heard::Call { .. }) {}
    let peers = bob.peers.clone();
    let draining = tokio::spawn(async move { peers.drain(Duration::from_secs(600)).await });
    until(|| bob.state("alice") == PeerState::Drained).await;
    alice.stop().await;
    assert_eq!(draining.await.unwrap(), []);
    // It is not dialled again.
    assert!(matches!(bob.ended().await.1, LinkEnd::Closed { code: "shutdown", .. }));
    until(|| bob.peers.open_connections() == 0).await;
    assert_eq!(bob.state("alice"), PeerState::Drained);
    bob.stop().await;
}

#[tokio::test]
async fn who_comes_while_we_drain_is_told() {
    let (alice, bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    alice.expect("bob", BOB);
    assert_eq!(alice.peers.drain(Duration::from_secs(30)).await, []);
    let again = legation_node::config::ListenConfig { id: "again".into(), carrier: at(address, Profile::Tls) };
    alice.peers.listen(again).unwrap();
    bob.dial("alice", ALICE, at(address, Profile::Tls));
    assert!(matches!(bob.dial_error("alice").await, LinkEnd::Closed { code: "shutdown", .. }));
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn what_was_pushed_before_the_goodbye_arrives_before_it() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    let (at_bob, _) = link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    for number in 0..100u8 {
        cast(&at_bob, "engine", &binary_term(&[number; 10_000])).unwrap();
    }
    bob.stop().await;
    for number in 0..100u8 {
        assert_eq!(alice.delivery().await.1, binary_term(&[number; 10_000]));
    }
    assert!(matches!(alice.ended().await.1, LinkEnd::Closed { code: "shutdown", .. }));
    alice.stop().await;
}

/// A peer that is up and reads nothing any more, with its link full of what waits.
async fn stuck(alice: &mut Realm, client: &mut Client) {
    client.run(usize::MAX).await;
    assert!(client.outcome.up);
    let link = alice.up().await;
    let payload = binary_term(&vec![7; 1024 * 1024]);
    // Whatever the kernel takes: at some time it takes no more.
    let mut refused = 0;
    while refused < 100 {
        match cast(&link, "engine", &payload) {
            Ok(()) => refused = 0,
            Err(PushError::Overload) => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Given up already.
            Err(PushError::Ended) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up() {
    let mut alice = Realm::start(ALICE);
    alice.expect("bob", BOB);
    let carrier = CarrierConfig::Tcp { host: "127.0.0.1".into(), port: 0, profile: Profile::Tls, send_timeout_ms: 100 };
    let info = alice.peers.listen(legation_node::config::ListenConfig { id: "tcp".into(), carrier }).unwrap();
    let mut client =
        Client::dial(peers_support::tcp_address(&info), &identity(BOB), &key_of(ALICE), Profile::Tls).await;
    stuck(&mut alice, &mut client).await;
    assert_eq!(alice.ended().await.1, LinkEnd::Carrier("timeout".into()));
    until(|| alice.peers.open_connections() == 0).await;
    alice.stop().await;
}

#[tokio::test]
async fn a_stuck_link_holds_up_a_shutdown_for_as_long_as_a_goodbye_may_take_and_is_counted() {
    let mut alice = Realm::with(identity(ALICE), Limits { send_timeout_ms: 60_000, goodbye_ms: 200, ..limits() });
    alice.expect("bob", BOB);
    let address = alice.listen_tcp(Profile::Tls);
    let mut client = Client::dial(address, &identity(BOB), &key_of(ALICE), Profile::Tls).await;
    stuck(&mut alice, &mut client).await;
    let peers = alice.peers.clone();
    alice.stop().await;
    assert_eq!(peers.open_connections(), 0);
    assert_eq!(peers.counters().goodbyes_cut.get(), 1);
    // What has not left is thrown away.
    while client.read().await {}
}

#[tokio::test]
async fn a_shutdown_without_time_aborts_and_everybody_hears_of_it() {
    let mut alice = Realm::start(ALICE);
    alice.expect("bob", BOB);
    let address = alice.listen_tcp(Profile::Tls);
    let mut client = Client::dial(address, &identity(BOB), &key_of(ALICE), Profile::Tls).await;
    stuck(&mut alice, &mut client).await;
    let peers = alice.peers.clone();
    peers.shutdown(Duration::ZERO).await;
    assert_eq!(peers.open_connections(), 0);
    assert_eq!(alice.ended().await.1, LinkEnd::Local("shutdown"));
    assert_eq!(std::sync::Arc::strong_count(&peers), 2, "no task holds on to it");
}

#[tokio::test]
async fn after_a_shutdown_nobody_is_dialled() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    bob.dial("nobody", 7, at(peers_support::nowhere(), Profile::Tls));
    bob.peers.shutdown(Duration::from_secs(30)).await;
    assert!(bob.peers.remove_peer("alice"));
    // No wait for a dial is left either.
    until(|| std::sync::Arc::strong_count(&bob.peers) == 1).await;
    bob.dial("alice", ALICE, at(address, Profile::Tls));
    assert_eq!(bob.status("alice").attempts, 0);
    assert_eq!(bob.peers.open_connections(), 0);
    alice.stop().await;
}
