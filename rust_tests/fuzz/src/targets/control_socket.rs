//! The control socket: lines that are anything, on a real socket, to a realm that writes down what it is asked. Each line has one answer, in JSON, in
//! order.

use std::future::ready;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use legation_node::config::Limits;
use legation_node::net::control_socket::{
    Admin, AdminError, BoundControlSocket, ControlSocket, Later, REQUEST_BYTES_MAX,
};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use crate::Target;

pub const TARGET: Target =
    Target { name: "control_socket", what: "requests at the daemon's control socket", run, seeds, bytes_max: 1_024 };

#[derive(Default)]
struct Asked(AtomicU64);

impl Asked {
    fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn realm(&self, realm: &str) -> Result<(), AdminError> {
        self.one();
        match realm {
            "bob" => Ok(()),
            _ => Err(AdminError::new("unknown_realm", format!("there is no peer {realm:?}"))),
        }
    }
}

impl Admin for Asked {
    fn status(&self) -> Value {
        self.one();
        json!({"realm": "alice"})
    }
    fn peers(&self) -> Value {
        json!([])
    }
    fn engines(&self) -> Value {
        json!([])
    }
    fn connections(&self) -> Value {
        json!([])
    }
    fn counters(&self) -> Value {
        json!({"n": 1})
    }
    fn connect(&self, realm: &str) -> Result<(), AdminError> {
        self.realm(realm)
    }
    fn disconnect(&self, realm: &str) -> Result<(), AdminError> {
        self.realm(realm)
    }
    fn revoke(&self, realm: &str) -> Result<(), AdminError> {
        self.realm(realm)
    }
    fn rotate_key(&self, path: PathBuf) -> Later<'_, Result<Value, AdminError>> {
        Box::pin(ready(Ok(json!({ "key": path.display().to_string() }))))
    }
    fn revoke_own_key(&self) -> Later<'_, Result<(), AdminError>> {
        Box::pin(ready(Ok(())))
    }
    fn drain(&self, within: Duration) -> Later<'_, Value> {
        Box::pin(ready(json!(within.as_millis() as u64)))
    }
}

struct World {
    runtime: Runtime,
    path: PathBuf,
    _socket: ControlSocket,
    _directory: tempfile::TempDir,
}

/// One for all executions; nothing stays of a connection.
fn world() -> &'static Mutex<World> {
    static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let (reloads, mut asked) = tokio::sync::mpsc::channel::<legation_node::net::control_socket::Reload>(4);
        let socket = {
            let _entered = runtime.enter();
            tokio::spawn(async move {
                while let Some(reload) = asked.recv().await {
                    let _ = reload.send(Ok(()));
                }
            });
            let bound = BoundControlSocket::bind(&path).expect("a socket");
            bound.serve(&Limits::default(), Arc::new(Asked::default()), reloads)
        };
        Mutex::new(World { runtime, path, _socket: socket, _directory: directory })
    });
    &WORLD
}

fn run(input: &[u8]) {
    let world = world().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let answers = world.runtime.block_on(async {
        let mut stream = UnixStream::connect(&world.path).await.expect("it listens");
        // It may have closed: a line was too long.
        let _ = stream.write_all(input).await;
        let _ = stream.shutdown().await;
        let mut answers = Vec::new();
        let _ = stream.read_to_end(&mut answers).await;
        answers
    });
    let lines = input.split(|byte| *byte == b'\n').count() - 1;
    let answers: Vec<&[u8]> = answers.split(|byte| *byte == b'\n').collect();
    let (last, answers) = answers.split_last().expect("there is one at least");
    assert!(last.is_empty(), "a line that doesn't end");
    let too_long = input.split(|byte| *byte == b'\n').any(|line| line.len() > REQUEST_BYTES_MAX);
    assert!(too_long || answers.len() == lines, "{} answers to {lines} lines", answers.len());
    for (answer, line) in answers.iter().zip(input.split(|byte| *byte == b'\n')) {
        let answer: Value = serde_json::from_slice(answer).expect("JSON");
        let answer = answer.as_object().expect("an object");
        assert!(answer.contains_key("id") && (answer.contains_key("ok") ^ answer.contains_key("error")));
        if answer.contains_key("ok") {
            let request: Value = serde_json::from_slice(line).expect("what is done is JSON");
            assert!(request["op"].is_string());
            assert_eq!(request.get("id").unwrap_or(&Value::Null), &answer["id"], "whose answer it is");
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"id": 1, "op": "status"}"#,
        r#"{"op": "connect", "realm": "bob"}"#,
        r#"{"id": "x", "op": "disconnect", "realm": "carol"}"#,
        r#"{"id": null, "op": "revoke", "realm": 7}"#,
        r#"{"id": [1], "op": "drain", "timeout_ms": 5000}"#,
        r#"{"op": "rotate_key", "path": "/k.pem"}"#,
        r#"{"op": "revoke_own_key"}"#,
        r#"{"op": "reload"}"#,
        r#"{"op": "counters", "more": 1}"#,
        r#"{"op": "peers"}{"op": "engines"}"#,
        r#"[1, 2]"#,
        r#"{"id": 1, "id": 2, "op": "connections"}"#,
        "{",
        "",
    ];
    let mut seeds: Vec<Vec<u8>> = lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
    seeds.push(lines.join("\n").into_bytes());
    seeds
}
