use std::path::Path;
use std::sync::Arc;

use legation_proto::identity::{check_public_key, verify, NetworkKey};
use legation_proto::keyring::Keyring;
use tokio::net::UnixListener;

use super::super::agent_protocol::{decode_request, encode_answer};
use super::super::agent_server::AgentServer;
use super::super::{Identity, Signer};
use super::*;
use crate::net::private_socket::PrivateSocket;

fn keyring(seed: u8) -> Keyring {
    Keyring::new(&[seed; 32], &[0; 32])
}

/// An agent that is gone when the handle is aborted.
fn agent(
    path: &Path,
    seed: u8,
    network: Option<NetworkId>,
    connections_max: usize,
) -> (Arc<AgentServer>, tokio::task::JoinHandle<()>) {
    let server = Arc::new(AgentServer::new(keyring(seed), network, connections_max));
    let socket = PrivateSocket::bind(path, &[]).unwrap();
    let serving = server.clone();
    (server, tokio::spawn(async move { serving.serve(&socket).await }))
}

fn network() -> NetworkId {
    NetworkKey::none().id()
}

#[tokio::test]
async fn an_agent_signs_many_requests_at_once_and_what_it_signs_is_the_protocols_input() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let (server, _task) = agent(&path, 1, None, 1);
    let client = Arc::new(AgentClient::start(path));
    let public = client.public_key().await.unwrap();
    assert_eq!(&public, keyring(1).public());
    let verifier = check_public_key(&public).unwrap();
    let requests = (0..200u32).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            let body = n.to_be_bytes();
            (body, client.sign(Purpose::Learn, &network(), &body).await.unwrap())
        })
    });
    for request in requests.collect::<Vec<_>>() {
        let (body, signature) = request.await.unwrap();
        assert!(verify(&verifier, Purpose::Learn, &network(), &body, &signature));
    }
    assert_eq!(server.counters().signed.load(std::sync::atomic::Ordering::Relaxed), 200);
}

#[tokio::test]
async fn an_agent_signs_no_batches_and_for_no_other_network() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _agent = agent(&path, 1, Some(NetworkKey::new([7; 32]).id()), 1);
    let client = AgentClient::start(path);
    let refused = |words: &str| Err(SignError::Refused(words.to_owned()));
    assert_eq!(client.sign(Purpose::Batch, &network(), b"").await, refused("not for this purpose"));
    assert_eq!(client.sign(Purpose::Hello, &network(), b"").await, refused("not for this network"));
    assert!(client.sign(Purpose::Hello, &NetworkKey::new([7; 32]).id(), b"").await.is_ok());
}

#[tokio::test]
async fn a_body_at_the_bound_is_signed_and_one_past_it_is_not_sent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _agent = agent(&path, 1, None, 1);
    let client = AgentClient::start(path);
    let body = vec![0; REQUEST_BYTES_MAX - 43];
    assert!(client.sign(Purpose::Hello, &network(), &body).await.is_ok());
    let refused = SignError::Refused("the body is too large".to_owned());
    assert_eq!(client.sign(Purpose::Hello, &network(), &vec![0; REQUEST_BYTES_MAX - 42]).await, Err(refused));
}

#[tokio::test]
async fn an_agent_closes_a_connection_past_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let (server, _task) = agent(&path, 1, None, 2);
    let clients = [(); 3].map(|()| AgentClient::start(path.clone()));
    assert!(clients[0].public_key().await.is_ok());
    assert!(clients[1].public_key().await.is_ok());
    assert!(matches!(clients[2].public_key().await, Err(SignError::Unreachable(_))));
    assert_eq!(server.counters().connections_refused.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_connection_is_made_again_when_the_agent_was_restarted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let client = AgentClient::start_with(path.clone(), Duration::from_secs(60));
    assert!(matches!(client.public_key().await, Err(SignError::Unreachable(_))));
    for _restart in 0..2 {
        let (_, task) = agent(&path, 1, None, 1);
        assert!(client.public_key_at_start().await.is_ok());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_given_up_and_asked_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let client = AgentClient::start_with(path, Duration::from_millis(50));
    assert_eq!(client.public_key().await, Err(SignError::TimedOut));
    let (mut first, _) = listener.accept().await.unwrap();
    // The next request goes over a new connection, and the old one is closed.
    let (asked, second) = tokio::join!(client.public_key(), listener.accept());
    assert_eq!(asked, Err(SignError::TimedOut));
    assert!(second.is_ok());
    let mut left = Vec::new();
    assert_eq!(first.read_to_end(&mut left).await.unwrap(), 14);
}

#[tokio::test]
async fn answers_in_another_order_and_answers_nobody_asked_for_find_who_they_are_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let client = AgentClient::start(path);
    let agent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut frames, mut piece, mut ids) = (Frames::new(REQUEST_BYTES_MAX), [0; 256], Vec::new());
        while ids.len() < 2 {
            let bytes = stream.read(&mut piece).await.unwrap();
            frames.push(&piece[..bytes]);
            while let Some(frame) = frames.next_frame().unwrap() {
                let (id, request) = decode_request(&frame).unwrap();
                ids.push((id, matches!(request, Ok(Request::PublicKey))));
            }
        }
        let mut out = Vec::new();
        encode_answer(99, &Answer::PublicKey([9; 32]), &mut out);
        for (id, asks_for_key) in ids.into_iter().rev() {
            let answer = if asks_for_key { Answer::PublicKey([1; 32]) } else { Answer::Signature([2; 64]) };
            encode_answer(id, &answer, &mut out);
        }
        stream.write_all(&out).await.unwrap();
        stream
    };
    let network = network();
    let (key, signature, _stream) =
        tokio::join!(client.public_key(), client.sign(Purpose::Link, &network, b"x"), agent);
    assert_eq!((key, signature), (Ok([1; 32]), Ok([2; 64])));
}

#[tokio::test]
async fn garbage_breaks_the_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let client = AgentClient::start(path);
    let agent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0xff; 4]).await.unwrap();
        stream
    };
    let (answer, _stream) = tokio::join!(client.public_key(), agent);
    assert_eq!(answer, Err(SignError::Unreachable("the connection broke".to_owned())));
}

#[tokio::test]
async fn a_signature_by_another_key_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _agent = agent(&path, 2, None, 1);
    let ours = keyring(1);
    let verifier = check_public_key(ours.public()).unwrap();
    let signer = Signer { agent: Some((AgentClient::start(path), verifier)) };
    let identity = Identity::of_keyring(ours, NetworkKey::none()).unwrap();
    assert_eq!(signer.sign(&identity, Purpose::Hello, b"x").await, Err(SignError::NotOurs));
    let own = identity.signer.sign(&identity, Purpose::Hello, b"x").await.unwrap();
    assert!(verify(&verifier, Purpose::Hello, &network(), b"x", &own));
}
