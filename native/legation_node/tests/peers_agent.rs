//! Links of a realm whose key is with an agent.

mod peers_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use legation_channel::channel::Profile;
use legation_node::config::{self, Limits, Uids};
use legation_node::identity::agent_server::AgentServer;
use legation_node::identity::Identity;
use legation_node::net::private_socket::PrivateSocket;
use legation_node::peers::LinkEnd;
use legation_proto::keyring::Keyring;
use legation_proto::limits::Limits as SessionLimits;
use tokio::task::JoinHandle;

use peers_support::{
    at, binary_term, cast, identity_in, key_of, limits, link, socket_path, unix, until, Realm, PATIENCE,
};

const ALICE: u8 = 1;
const BOB: u8 = 2;

/// The agent of a realm, and how to end it.
struct Agent {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(seed: u8) -> Agent {
        let path = socket_path();
        let socket = PrivateSocket::bind(&path, &[]).unwrap();
        let server = Arc::new(AgentServer::new(Keyring::new(&[seed; 32], &[0; 32]), None, 8));
        Agent { path, task: tokio::spawn(async move { server.serve(&socket).await }) }
    }

    async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }

    async fn identity(&self) -> Identity {
        let text = format!(
            "realm = \"r\"\nagent = {:?}\n[node]\nname = \"legation@127.0.0.1\"\ncookie = \"cookie\"\n",
            self.path
        );
        Identity::load(&config::parse("test", &text, Path::new("/")).unwrap().config).await.unwrap()
    }
}

#[tokio::test]
async fn both_ends_may_have_their_keys_with_agents() {
    for profile in [Profile::Tls, Profile::Plain, Profile::Local] {
        let (of_alice, of_bob) = (Agent::start(ALICE), Agent::start(BOB));
        let mut alice = Realm::with_agent(of_alice.identity().await, limits()).await;
        let mut bob = Realm::with_agent(of_bob.identity().await, limits()).await;
        assert_eq!(alice.identity.key, key_of(ALICE));
        let address = match profile {
            Profile::Local => unix(&alice.listen_unix(Uids::Own), Uids::Own),
            profile => at(alice.listen_tcp(profile), profile),
        };
        let (at_bob, at_alice) = link(&mut bob, &mut alice, address).await;
        cast(&at_bob, "engine", &binary_term(b"to alice")).unwrap();
        cast(&at_alice, "engine", &binary_term(b"to bob")).unwrap();
        assert_eq!(alice.delivery().await.1, binary_term(b"to alice"));
        assert_eq!(bob.delivery().await.1, binary_term(b"to bob"));
        bob.stop().await;
        alice.stop().await;
        of_alice.stop().await;
        of_bob.stop().await;
    }
}

fn no_network(seed: u8) -> Identity {
    identity_in(seed, legation_proto::identity::NetworkKey::none())
}

#[tokio::test]
async fn an_agent_that_is_gone_ends_the_handshake_and_is_found_when_it_is_back() {
    let mut alice = Realm::with(no_network(ALICE), limits());
    let agent = Agent::start(BOB);
    let mut bob = Realm::with_agent(agent.identity().await, limits()).await;
    let (path, address) = (agent.path.clone(), alice.listen_tcp(Profile::Tls));
    agent.stop().await;
    alice.expect("bob", BOB);
    bob.dial("alice", ALICE, at(address, Profile::Tls));
    let error = bob.dial_error("alice").await;
    assert!(matches!(error, LinkEnd::Keyholder(_)), "{error:?}");
    until(|| bob.counter("handshakes_failed") >= 1).await;

    let socket = PrivateSocket::bind(&path, &[]).unwrap();
    let server = Arc::new(AgentServer::new(Keyring::new(&[BOB; 32], &[0; 32]), None, 8));
    let serving = tokio::spawn(async move { server.serve(&socket).await });
    bob.up().await;
    alice.up().await;
    bob.stop().await;
    alice.stop().await;
    serving.abort();
}

#[tokio::test]
async fn an_agent_that_does_not_answer_holds_up_no_longer_than_a_handshake() {
    let alice = Realm::with(no_network(ALICE), limits());
    let agent = Agent::start(BOB);
    let session = SessionLimits { handshake_ms: 500, ..SessionLimits::default() };
    let bob = Realm::with_agent(agent.identity().await, Limits { session, ..limits() }).await;
    let (path, address) = (agent.path.clone(), alice.listen_tcp(Profile::Tls));
    agent.stop().await;
    let _mute = tokio::net::UnixListener::bind(&path).unwrap();
    alice.expect("bob", BOB);
    bob.dial("alice", ALICE, at(address, Profile::Tls));
    // A machine that is busy may not come so far in its first handshakes.
    until(|| bob.status("alice").last_error == Some(LinkEnd::Keyholder("timeout".into()))).await;
    // Nor a shutdown.
    let begun = std::time::Instant::now();
    bob.stop().await;
    assert!(begun.elapsed() < PATIENCE / 4);
    alice.stop().await;
    std::fs::remove_file(path).unwrap();
}
