//! Whoever goes away in the middle of a handshake, or stays in it, leaves nothing behind: no task, no socket, no place.
//!
//! Sockets are counted for the whole process, so one test runs at a time, with a runtime that is gone before the next.

mod peers_support;

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use legation_channel::channel::Profile;
use legation_node::config::Limits;
use legation_node::peers::{LinkEnd, PeerState};
use legation_proto::limits::Limits as SessionLimits;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use peers_support::client::Client;
use peers_support::{at, identity, key_of, limits, peer, until, Realm};

const ALICE: u8 = 1;
const BOB: u8 = 2;
const PROFILES: [Profile; 2] = [Profile::Tls, Profile::Plain];
/// How many go through it at once.
const AT_ONCE: usize = 64;

/// Runs a test that is told how many sockets there are without it.
fn alone<F: Future<Output = ()>>(test: impl FnOnce(usize) -> F) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = sockets();
    runtime.block_on(test(before));
}

fn sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let is_socket = |path: std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    files.filter(|file| file.as_ref().is_ok_and(|file| is_socket(file.path()))).count()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// A whole handshake, and how many bytes each end sends in it at least.
async fn whole_handshake(alice: &mut Realm, address: std::net::SocketAddr, profile: Profile) -> (usize, usize) {
    let mut client = Client::dial(address, &identity(BOB), &key_of(ALICE), profile).await;
    client.run(usize::MAX).await;
    assert!(client.outcome.up);
    drop(alice.up().await);
    drop(client.stream);
    alice.ended().await;
    (client.outcome.sent, client.outcome.received)
}

/// But the listener and who waits on it.
async fn nothing_is_left(alice: &Realm, sockets_before: usize) {
    until(|| alice.peers.open_connections() == 0).await;
    assert_eq!(alice.places(), (0, 0));
    until(|| tasks() == 1 && sockets() == sockets_before + 1).await;
}

#[test]
fn who_closes_at_any_byte_of_the_handshake_leaves_nothing_behind() {
    alone(who_closes_at_any_byte_of_the_handshake);
}

async fn who_closes_at_any_byte_of_the_handshake(sockets_before: usize) {
    for profile in PROFILES {
        let mut alice = Realm::start(ALICE);
        alice.expect("bob", BOB);
        let address = alice.listen_tcp(profile);
        let (bytes, _) = whole_handshake(&mut alice, address, profile).await;
        nothing_is_left(&alice, sockets_before).await;
        let cuts: Vec<usize> = (0..bytes).collect();
        for cuts in cuts.chunks(AT_ONCE) {
            let clients = cuts.iter().map(|cut| async move {
                let mut client = Client::dial(address, &identity(BOB), &key_of(ALICE), profile).await;
                client.run(*cut).await;
                assert!(!client.outcome.up);
            });
            join_all(clients).await;
        }
        nothing_is_left(&alice, sockets_before).await;
        assert_eq!(alice.state("bob"), PeerState::Listening);
        assert_eq!(alice.counter("connections_accepted"), bytes as u64 + 1);
        assert_eq!(alice.counter("handshakes_failed"), bytes as u64);
        whole_handshake(&mut alice, address, profile).await;
        alice.stop().await;
    }
}

#[test]
fn who_stalls_at_any_byte_of_the_handshake_leaves_nothing_behind() {
    alone(who_stalls_at_any_byte_of_the_handshake);
}

async fn who_stalls_at_any_byte_of_the_handshake(sockets_before: usize) {
    for profile in PROFILES {
        let session = SessionLimits { handshake_ms: 1_000, ..SessionLimits::default() };
        let many = Limits { session, pending_connections_max: 10_000, handshakes_max: 10_000, ..limits() };
        let mut alice = Realm::with(identity(ALICE), many);
        alice.expect("bob", BOB);
        let address = alice.listen_tcp(profile);
        let (bytes, _) = whole_handshake(&mut alice, address, profile).await;
        nothing_is_left(&alice, sockets_before).await;
        let stalls: Vec<usize> = (0..bytes).collect();
        // As many files as a process may commonly have open.
        for stalls in stalls.chunks(256) {
            let clients = stalls.iter().map(|stall| async move {
                let mut client = Client::dial(address, &identity(BOB), &key_of(ALICE), profile).await;
                client.run(*stall).await;
                // Until alice has had enough.
                while client.read().await {}
                assert!(!client.outcome.up);
            });
            join_all(clients).await;
        }
        nothing_is_left(&alice, sockets_before).await;
        assert_eq!(alice.counter("handshakes_timed_out"), bytes as u64);
        whole_handshake(&mut alice, address, profile).await;
        alice.stop().await;
    }
}

/// Alice dials somebody who answers so many bytes.
async fn dial_somebody_who_answers(bytes: usize, profile: Profile, stalls: bool) -> LinkEnd {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Who waits for an end that comes by itself waits long enough for a busy machine.
    let handshake_ms = if stalls { 500 } else { SessionLimits::default().handshake_ms };
    let session = SessionLimits { handshake_ms, ..SessionLimits::default() };
    let mut alice = Realm::with(identity(ALICE), Limits { session, ..limits() });
    let address = at(listener.local_addr().unwrap(), profile);
    alice.peers.add_peer(peer("bob", BOB, vec![address])).unwrap();
    let mut client = answer(&listener, profile).await;
    client.run(bytes).await;
    while stalls && client.read().await {}
    drop(client.stream);
    let error = alice.dial_error("bob").await;
    alice.peers.shutdown(peers_support::PATIENCE).await;
    assert!(alice.heard_so_far().is_empty(), "it was never up");
    assert_eq!(alice.peers.open_connections(), 0);
    error
}

async fn answer(listener: &TcpListener, profile: Profile) -> Client {
    let (stream, _) = listener.accept().await.unwrap();
    Client::answer(stream, &identity(BOB), profile).await
}

#[test]
fn a_dial_that_breaks_or_stalls_at_any_byte_of_the_answer_leaves_nothing_behind() {
    alone(a_dial_that_breaks_or_stalls_at_any_byte_of_the_answer);
}

async fn a_dial_that_breaks_or_stalls_at_any_byte_of_the_answer(sockets_before: usize) {
    for profile in PROFILES {
        let mut alice = Realm::start(ALICE);
        alice.expect("bob", BOB);
        let address = alice.listen_tcp(profile);
        let (_, bytes) = whole_handshake(&mut alice, address, profile).await;
        alice.stop().await;
        // What comes behind the hello is the session's; the hello's last byte makes the link.
        let bytes = bytes.min(answer_bytes(profile).await);
        let all: Vec<usize> = (0..bytes).collect();
        for stalls in [false, true] {
            for cuts in all.chunks(AT_ONCE) {
                let ends = join_all(cuts.iter().map(|cut| dial_somebody_who_answers(*cut, profile, stalls))).await;
                for end in ends {
                    match stalls {
                        true => assert!(matches!(end, LinkEnd::Fault { code: "timeout", .. }), "{end:?}"),
                        false => assert_eq!(end, LinkEnd::NoAnswer),
                    }
                }
            }
        }
        until(|| tasks() == 0 && sockets() == sockets_before).await;
    }
}

/// What an answering client sends until its session is up.
async fn answer_bytes(profile: Profile) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut alice = Realm::start(ALICE);
    let address = at(listener.local_addr().unwrap(), profile);
    alice.peers.add_peer(peer("bob", BOB, vec![address])).unwrap();
    let mut client = answer(&listener, profile).await;
    client.run(usize::MAX).await;
    tokio::time::timeout(Duration::from_secs(20), alice.up()).await.unwrap();
    alice.peers.shutdown(peers_support::PATIENCE).await;
    client.outcome.sent
}
