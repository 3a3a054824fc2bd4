//! What strangers and floods do to links: nothing.

mod peers_support;

use std::sync::Arc;

use futures::future::join_all;
use legation_channel::channel::Profile;
use legation_node::config::{CarrierConfig, Limits, Uids};
use legation_node::peers::PeerSession;
use legation_proto::identity::NetworkKey;
use legation_proto::limits::Limits as SessionLimits;
use legation_proto::session::PushError;

use peers_support::client::Client;
use peers_support::{at, binary_term, cast, identity, identity_in, key_of, limits, link, unix, until, Realm};

const ALICE: u8 = 1;
const BOB: u8 = 2;

#[tokio::test]
async fn after_a_thousand_wrong_network_keys_the_right_one_gets_in() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    for round in 0..20u8 {
        let clients = (0..50u8).map(|number| async move {
            let wrong = identity_in(BOB, NetworkKey::new([100 + number; 32]));
            let mut client = Client::dial(address, &wrong, &key_of(ALICE), Profile::Tls).await;
            client.run(usize::MAX).await;
            assert!(client.outcome.end_of_stream, "round {round}");
            assert_eq!(client.outcome.received, 0);
        });
        join_all(clients).await;
    }
    until(|| alice.counter("knocks_refused") == 1_000).await;
    assert_eq!(alice.counter("handshakes_failed"), 1_000);
    assert_eq!(alice.counter("connections_accepted"), 1_000);
    until(|| alice.peers.open_connections() == 0).await;
    assert_eq!(alice.places(), (0, 0));
    link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn after_a_thousand_keys_that_are_not_on_the_list_the_right_one_gets_in() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = alice.listen_tcp(Profile::Plain);
    for _ in 0..20 {
        let clients = (100..150u8).map(|seed| async move {
            let mut client = Client::dial(address, &identity(seed), &key_of(ALICE), Profile::Plain).await;
            client.run(usize::MAX).await;
            assert_eq!(client.outcome.closed, Some("unlisted"));
            assert!(!client.outcome.up);
        });
        join_all(clients).await;
    }
    assert_eq!(alice.counter("hellos_unlisted"), 1_000);
    until(|| alice.peers.open_connections() == 0).await;
    link(&mut bob, &mut alice, at(address, Profile::Plain)).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn noise_instead_of_a_handshake_is_closed_without_a_byte() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let alice = Realm::start(ALICE);
    let address = alice.listen_tcp(Profile::Tls);
    for length in [1, 59, 60, 61, 300, 5_000] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut noise = vec![0; length];
        getrandom::fill(&mut noise).unwrap();
        // A version that there is none of; anything behind it.
        noise[0] = 0x16;
        // It may be closed while we write.
        let _ = stream.write_all(&noise).await;
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        assert_eq!(received, b"", "after {length} bytes");
    }
    until(|| alice.counter("knocks_refused") == 6).await;
    until(|| alice.peers.open_connections() == 0).await;
    alice.stop().await;
}

/// Both directions are full most of the time, and more than what fits anywhere on the way goes each way.
async fn saturate(alice: &mut Realm, bob: &mut Realm, carrier: CarrierConfig) {
    const MESSAGES: usize = 1_500;
    alice.count_deliveries();
    bob.count_deliveries();
    let (at_bob, at_alice) = link(bob, alice, carrier).await;
    let pushing = |link: Arc<PeerSession>| async move {
        let payload = binary_term(&vec![7; 64 * 1024]);
        let mut pushed = 0;
        while pushed < MESSAGES {
            match cast(&link, "engine", &payload) {
                Ok(()) => pushed += 1,
                Err(PushError::Overload) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::join!(pushing(at_bob.clone()), pushing(at_alice.clone()));
    until(|| alice.delivered() == MESSAGES && bob.delivered() == MESSAGES).await;
    assert!(!at_bob.has_ended() && !at_alice.has_ended());
}

fn narrow() -> Limits {
    Limits { session: SessionLimits { queue_bytes_max: 4 * 1024 * 1024, ..SessionLimits::default() }, ..limits() }
}

#[tokio::test]
async fn both_directions_full_do_not_deadlock_on_one_thread() {
    let (mut alice, mut bob) = (Realm::with(identity(ALICE), narrow()), Realm::with(identity(BOB), narrow()));
    let address = alice.listen_tcp(Profile::Tls);
    saturate(&mut alice, &mut bob, at(address, Profile::Tls)).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_full_do_not_deadlock_on_two_threads() {
    let (mut alice, mut bob) = (Realm::with(identity(ALICE), narrow()), Realm::with(identity(BOB), narrow()));
    let address = alice.listen_tcp(Profile::Plain);
    saturate(&mut alice, &mut bob, at(address, Profile::Plain)).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn both_directions_full_do_not_deadlock_over_a_unix_socket() {
    let (mut alice, mut bob) = (Realm::with(identity(ALICE), narrow()), Realm::with(identity(BOB), narrow()));
    let path = alice.listen_unix(Uids::Own);
    saturate(&mut alice, &mut bob, unix(&path, Uids::Own)).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_flood_on_one_link_does_not_hold_up_another() {
    let (mut alice, mut bob) = (Realm::with(identity(ALICE), narrow()), Realm::with(identity(BOB), narrow()));
    let mut carol = Realm::start(3);
    let address = alice.listen_tcp(Profile::Plain);
    let (at_bob, _) = link(&mut bob, &mut alice, at(address, Profile::Plain)).await;
    alice.expect("carol", 3);
    carol.dial("alice", ALICE, at(address, Profile::Plain));
    let (at_carol, at_alice) = (carol.up().await, alice.up().await);
    let flooding = tokio::spawn(async move {
        let payload = binary_term(&vec![7; 64 * 1024]);
        while !matches!(cast(&at_bob, "engine", &payload), Err(PushError::Ended)) {
            tokio::task::yield_now().await;
        }
    });
    alice.count_deliveries();
    for number in 0..100u8 {
        let before = at_carol.core.counters().messages_in.get();
        cast(&at_alice, "engine", &binary_term(&[number])).unwrap();
        assert_eq!(carol.delivery().await.1, binary_term(&[number]));
        assert!(at_carol.core.counters().messages_in.get() > before);
    }
    bob.stop().await;
    flooding.await.unwrap();
    carol.stop().await;
    alice.stop().await;
}
