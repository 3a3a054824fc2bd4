//! Where peers come in, and how many may be on their way.

mod peers_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use legation_channel::channel::Profile;
use legation_node::config::{CarrierConfig, Limits, ListenConfig, Uids};
use legation_node::net::carrier::CarrierError;
use legation_node::peers::{BoundAddress, LinkEnd, ListenError, PeerState};
use legation_proto::limits::Limits as SessionLimits;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use peers_support::client::Client;
use peers_support::{
    at, binary_term, cast, identity, key_of, limits, link, peer, socket_path, tcp, tcp_address, unix, until, Realm,
};

const ALICE: u8 = 1;
const BOB: u8 = 2;
const STRANGER: u8 = 9;

fn listen(id: &str, carrier: CarrierConfig) -> ListenConfig {
    ListenConfig { id: id.into(), carrier }
}

fn refused(code: &'static str) -> ListenError {
    ListenError::Carrier(CarrierError::System(code))
}

#[tokio::test]
async fn port_0_is_read_back_and_listeners_are_stopped_alone() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let first = tcp_address(&alice.peers.listen(listen("first", tcp("127.0.0.1", 0, Profile::Tls))).unwrap());
    let second = tcp_address(&alice.peers.listen(listen("second", tcp("127.0.0.1", 0, Profile::Plain))).unwrap());
    assert!(first.port() != 0 && second.port() != 0 && first != second);
    let again = alice.peers.listen(listen("second", tcp("127.0.0.1", 0, Profile::Tls)));
    assert_eq!(again, Err(ListenError::AlreadyListening("second".into())));
    let listeners = alice.peers.listeners();
    assert_eq!(
        listeners.iter().map(|one| (&*one.id, one.profile)).collect::<Vec<_>>(),
        [("first", "tls"), ("second", "plain")]
    );

    // A link that came in by one stays when that one is stopped.
    let (at_bob, _) = link(&mut bob, &mut alice, at(second, Profile::Plain)).await;
    assert!(alice.peers.unlisten("second"));
    assert!(!alice.peers.unlisten("second"));
    assert!(std::net::TcpStream::connect(second).is_err(), "closed when it returns");
    assert!(std::net::TcpStream::connect(first).is_ok());
    cast(&at_bob, "engine", &binary_term(b"still here")).unwrap();
    assert_eq!(alice.delivery().await.1, binary_term(b"still here"));

    // And the port is free again.
    let again = alice.peers.listen(listen("again", at(second, Profile::Tls))).unwrap();
    assert_eq!(tcp_address(&again), second);
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn ipv6_is_listened_on_and_dialled() {
    let (mut alice, mut bob) = (Realm::start(ALICE), Realm::start(BOB));
    let address = tcp_address(&alice.peers.listen(listen("tcp", tcp("::1", 0, Profile::Tls))).unwrap());
    link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    assert_eq!(bob.status("alice").links.remove(0).address, format!("[::1]:{}", address.port()));
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_an_error_in_a_word() {
    let alice = Realm::start(ALICE);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let on = |carrier| alice.peers.listen(listen("tcp", carrier));
    assert_eq!(on(at(taken.local_addr().unwrap(), Profile::Tls)), Err(refused("eaddrinuse")));
    assert_eq!(on(tcp("203.0.113.7", 0, Profile::Tls)), Err(refused("eaddrnotavail")));
    assert_eq!(on(tcp("no address", 0, Profile::Tls)), Err(refused("einval")));
    // Strangers reach it: what nobody vouches for is not left as it is.
    assert_eq!(on(tcp("127.0.0.1", 0, Profile::Local)), Err(refused("einval")));
    assert_eq!(on(unix("/no/such/folder/socket".as_ref(), Uids::Own)), Err(refused("enoent")));
    assert!(alice.peers.listeners().is_empty());
    alice.stop().await;
    assert_eq!(alice_after_stop().await, Err(ListenError::Stopping));
}

async fn alice_after_stop() -> Result<(), ListenError> {
    let alice = Realm::start(ALICE);
    let peers = alice.peers.clone();
    alice.stop().await;
    peers.listen(listen("late", tcp("127.0.0.1", 0, Profile::Tls))).map(drop)
}

#[tokio::test]
async fn without_a_host_all_of_this_machines_ipv4_is_listened_on() {
    let alice = Realm::start(ALICE);
    let info = alice.peers.listen(listen("tcp", tcp("", 0, Profile::Tls))).unwrap();
    assert!(matches!(info.address, BoundAddress::Tcp(address) if address.ip().is_unspecified() && address.is_ipv4()));
    alice.stop().await;
}

#[tokio::test]
async fn a_socket_file_is_open_to_others_only_if_other_users_may_come() {
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    let alice = Realm::start(ALICE);
    let cases = [
        (Uids::Own, 0o600),
        (Uids::These(vec![own]), 0o600),
        (Uids::Any, 0o666),
        (Uids::These(vec![own, own + 1]), 0o666),
    ];
    for (number, (uids, mode)) in cases.into_iter().enumerate() {
        let path = socket_path();
        alice.peers.listen(listen(&number.to_string(), unix(&path, uids))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
    alice.stop().await;
}

#[tokio::test]
async fn a_socket_on_which_nobody_listens_gives_way() {
    let alice = Realm::start(ALICE);
    let path = socket_path();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    alice.peers.listen(listen("unix", unix(&path, Uids::Own))).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    // But one on which somebody listens does not, nor what is no socket.
    assert_eq!(alice.peers.listen(listen("twice", unix(&path, Uids::Own))), Err(refused("eaddrinuse")));
    assert!(alice.peers.unlisten("unix"));
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(alice.peers.listen(listen("unix", unix(&path, Uids::Own))), Err(refused("eaddrinuse")));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    alice.stop().await;
}

#[tokio::test]
async fn somebody_elses_file_is_not_removed() {
    let alice = Realm::start(ALICE);
    let path = alice.listen_unix(Uids::Own);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another's").unwrap();
    assert!(alice.peers.unlisten("unix"));
    assert_eq!(std::fs::read(&path).unwrap(), b"another's");
    std::fs::remove_file(&path).unwrap();
    alice.stop().await;
}

#[tokio::test]
async fn the_other_end_of_a_unix_socket_must_be_of_a_user_that_may_be_there() {
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    let not_ours = Uids::These(vec![own + 1]);
    // At the listener's end: the dialler hears nothing.
    let (alice, bob) = (Realm::start(ALICE), Realm::start(BOB));
    let path = alice.listen_unix(not_ours.clone());
    alice.expect("bob", BOB);
    bob.dial("alice", ALICE, unix(&path, Uids::Own));
    assert_eq!(bob.dial_error("alice").await, LinkEnd::NoAnswer);
    assert_eq!(alice.state("bob"), PeerState::Listening);
    // And at the dialler's.
    let path = socket_path();
    alice.peers.listen(listen("any", unix(&path, Uids::Any))).unwrap();
    bob.peers.update_peer(peer("alice", ALICE, vec![unix(&path, not_ours)])).unwrap();
    assert_eq!(bob.dial_error("alice").await, LinkEnd::Connect(format!("uid_not_allowed {own}")));
    bob.stop().await;
    alice.stop().await;
}

fn patient(limits: Limits) -> Limits {
    Limits { session: SessionLimits { handshake_ms: 60_000, ..limits.session }, ..limits }
}

/// Whether the other side has closed.
fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [0];
    match stream.try_read(&mut byte) {
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        Ok(_) => true,
    }
}

#[tokio::test]
async fn before_the_knock_all_stay_at_the_limit_and_one_past_it_one_goes() {
    let mut alice = Realm::with(identity(ALICE), patient(Limits { pending_connections_max: 8, ..limits() }));
    let address = alice.listen_tcp(Profile::Tls);
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(TcpStream::connect(address).await.unwrap());
    }
    until(|| alice.places() == (8, 0)).await;
    assert_eq!(alice.counter("connections_evicted"), 0);
    assert!(!streams.iter().any(is_closed));

    streams.push(TcpStream::connect(address).await.unwrap());
    until(|| alice.counter("connections_evicted") == 1).await;
    until(|| streams.iter().filter(|stream| is_closed(stream)).count() == 1).await;
    assert_eq!(alice.places(), (8, 0));
    assert_eq!(alice.counter("connections_accepted"), 9);

    // Who fills all places evicts mostly itself, and an honest peer gets through.
    let mut bob = Realm::start(BOB);
    for _ in 0..200 {
        streams.push(TcpStream::connect(address).await.unwrap());
    }
    link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    drop(streams);
    until(|| alice.places() == (0, 0)).await;
    until(|| alice.peers.open_connections() == 1).await;
    bob.stop().await;
    alice.stop().await;
}

/// Until its knock is through and it has an answer.
async fn knocking(address: std::net::SocketAddr, profile: Profile) -> Client {
    let client = Client::dial(address, &identity(BOB), &key_of(ALICE), profile).await;
    let mut out = Vec::new();
    client.link.flush(&mut out).unwrap();
    client.stream.writable().await.unwrap();
    assert_eq!(client.stream.try_write(&out).unwrap(), out.len());
    client
}

#[tokio::test]
async fn behind_the_knock_the_newcomer_is_turned_away_without_a_byte() {
    for profile in [Profile::Tls, Profile::Plain] {
        let alice = Realm::with(identity(ALICE), patient(Limits { handshakes_max: 3, ..limits() }));
        let address = alice.listen_tcp(profile);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(knocking(address, profile).await);
        }
        until(|| alice.places() == (0, 3)).await;
        assert_eq!(alice.counter("handshakes_refused"), 0);

        let mut next = knocking(address, profile).await;
        let mut received = Vec::new();
        next.stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"");
        assert_eq!(alice.counter("handshakes_refused"), 1);
        assert_eq!(alice.places(), (0, 3));
        drop(clients);
        until(|| alice.places() == (0, 0)).await;
        alice.stop().await;
    }
}

#[tokio::test]
async fn an_address_that_had_a_session_within_the_hour_has_as_many_places_again() {
    let mut alice = Realm::with(identity(ALICE), patient(Limits { handshakes_max: 3, ..limits() }));
    let mut bob = Realm::start(BOB);
    let address = alice.listen_tcp(Profile::Tls);
    link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(knocking(address, Profile::Tls).await);
    }
    until(|| alice.places() == (0, 6)).await;
    let mut next = knocking(address, Profile::Tls).await;
    assert!(!next.read().await);
    assert_eq!(alice.counter("handshakes_refused"), 1);
    drop(clients);
    until(|| alice.places() == (0, 0)).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn an_address_that_fails_too_often_within_a_second_is_turned_away_for_the_rest_of_it() {
    let alice = Realm::with(identity(ALICE), Limits { failed_handshakes_per_s: 5, ..limits() });
    alice.expect("bob", BOB);
    let address = alice.listen_tcp(Profile::Plain);
    let stranger = identity(STRANGER);
    let mut refused = 0;
    // A second may end between any two: then there is another.
    for number in 0..100 {
        let mut client = Client::dial(address, &stranger, &key_of(ALICE), Profile::Plain).await;
        client.run(usize::MAX).await;
        // The next one comes when this one has failed in alice's eyes, too.
        until(|| alice.peers.open_connections() == 0).await;
        match client.outcome.closed {
            Some(code) => assert_eq!(code, "unlisted"),
            None => {
                assert!(number >= 5, "no five in a row are refused before five have failed");
                assert_eq!(client.outcome.received, 0);
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(alice.counter("connections_refused"), refused);
    assert_eq!(alice.counter("hellos_unlisted"), 100 - refused);
    // And who is on the list gets in when the second is over.
    let mut bob = Realm::start(BOB);
    bob.dial("alice", ALICE, at(address, Profile::Plain));
    bob.up().await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn knocks_are_remembered_up_to_the_limit_and_then_the_answer_is_no() {
    let mut alice = Realm::with(identity(ALICE), Limits { knock_entries_max: 3, ..limits() });
    let mut bob = Realm::start(BOB);
    let address = alice.listen_tcp(Profile::Tls);
    // Bob's is one of them.
    let (at_bob, _) = link(&mut bob, &mut alice, at(address, Profile::Tls)).await;
    let stranger = identity(STRANGER);
    for _ in 0..2 {
        let mut client = Client::dial(address, &stranger, &key_of(ALICE), Profile::Tls).await;
        client.run(usize::MAX).await;
        assert_eq!(client.outcome.closed, Some("unlisted"));
    }
    assert_eq!(alice.counter("knock_memory_full"), 0);
    let mut client = Client::dial(address, &stranger, &key_of(ALICE), Profile::Tls).await;
    client.run(usize::MAX).await;
    assert_eq!((client.outcome.received, client.outcome.closed), (0, None));
    until(|| alice.counter("knock_memory_full") == 1).await;
    // The links that are up are none of its business.
    cast(&at_bob, "engine", &binary_term(b"still")).unwrap();
    assert_eq!(alice.delivery().await.1, binary_term(b"still"));
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_knock_from_before_our_start_is_refused_however_fresh() {
    let alice = Realm::with(identity(ALICE), Limits { knock_boot_ms: 60_000, ..limits() });
    let bob = Realm::start(BOB);
    alice.expect("bob", BOB);
    bob.dial("alice", ALICE, at(alice.listen_tcp(Profile::Tls), Profile::Tls));
    assert_eq!(bob.dial_error("alice").await, LinkEnd::NoAnswer);
    until(|| alice.counter("knocks_refused") >= 1).await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_handshake_that_stops_halfway_is_timed_out() {
    let session = SessionLimits { handshake_ms: 100, ..SessionLimits::default() };
    let alice = Realm::with(identity(ALICE), Limits { session, ..limits() });
    let address = alice.listen_tcp(Profile::Tls);
    let silent = TcpStream::connect(address).await.unwrap();
    let knocked = knocking(address, Profile::Tls).await;
    until(|| alice.counter("handshakes_timed_out") == 2).await;
    assert_eq!(alice.counter("handshakes_failed"), 2);
    until(|| is_closed(&silent) && is_closed(&knocked.stream)).await;
    until(|| alice.peers.open_connections() == 0).await;
    assert_eq!(alice.places(), (0, 0));
    alice.stop().await;
}

#[tokio::test]
async fn a_dial_that_nobody_takes_up_is_timed_out() {
    // Takes the connection and says nothing.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let session = SessionLimits { handshake_ms: 100, ..SessionLimits::default() };
    let bob = Realm::with(identity(BOB), Limits { session, ..limits() });
    bob.dial("alice", ALICE, at(mute.local_addr().unwrap(), Profile::Tls));
    let (_held, _) = tokio::time::timeout(Duration::from_secs(20), mute.accept()).await.unwrap().unwrap();
    assert!(matches!(bob.dial_error("alice").await, LinkEnd::Fault { code: "timeout", .. }));
    bob.stop().await;
}
