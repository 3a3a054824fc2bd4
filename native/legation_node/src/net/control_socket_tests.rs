use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;

/// A realm with one peer, bob.
struct Small;

impl Admin for Small {
    fn status(&self) -> Value {
        json!({"realm": "alice"})
    }

    fn peers(&self) -> Value {
        json!([{"realm": "bob"}])
    }

    fn engines(&self) -> Value {
        json!([])
    }

    fn connections(&self) -> Value {
        json!([])
    }

    fn counters(&self) -> Value {
        json!({"calls_refused": 3})
    }

    fn connect(&self, realm: &str) -> Result<(), AdminError> {
        match realm {
            "bob" => Ok(()),
            _ => Err(AdminError::new("unknown_realm", format!("there is no peer {realm:?}"))),
        }
    }

    fn disconnect(&self, realm: &str) -> Result<(), AdminError> {
        self.connect(realm)
    }

    fn revoke(&self, realm: &str) -> Result<(), AdminError> {
        self.connect(realm)
    }

    fn rotate_key(&self, path: PathBuf) -> Later<'_, Result<Value, AdminError>> {
        Box::pin(async move { Ok(json!({"key": path})) })
    }

    fn revoke_own_key(&self) -> Later<'_, Result<(), AdminError>> {
        Box::pin(async { Err(AdminError::new("key", "an agent has it")) })
    }

    fn drain(&self, within: Duration) -> Later<'_, Value> {
        Box::pin(async move { json!({"within": within.as_millis() as u64}) })
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    async fn connect(path: &Path) -> Client {
        Client(BufReader::new(UnixStream::connect(path).await.unwrap()))
    }

    async fn send(&mut self, request: &str) {
        // A connection that is refused may be closed before.
        let _ = self.0.get_mut().write_all(request.as_bytes()).await;
    }

    /// Null when there is no more.
    async fn answer(&mut self) -> Value {
        let mut line = String::new();
        match self.0.read_line(&mut line).await {
            Ok(1..) => serde_json::from_str(&line).unwrap(),
            _ => Value::Null,
        }
    }

    async fn ask(&mut self, request: &str) -> Value {
        self.send(&format!("{request}\n")).await;
        self.answer().await
    }
}

struct Fixture {
    directory: tempfile::TempDir,
    reloads: mpsc::Receiver<Reload>,
    _socket: ControlSocket,
}

impl Fixture {
    fn start(control_connections_max: usize) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { control_connections_max, ..Limits::default() };
        let (reload, reloads) = mpsc::channel(1);
        let bound = BoundControlSocket::bind(&directory.path().join("s")).unwrap();
        let socket = bound.serve(&limits, Arc::new(Small), reload);
        Fixture { directory, reloads, _socket: socket }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.directory.path().join("s")).await
    }
}

#[tokio::test]
async fn each_operation_is_answered_under_the_id_of_its_request() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client().await;
    assert_eq!(client.ask(r#"{"id": 1, "op": "status"}"#).await, json!({"id": 1, "ok": {"realm": "alice"}}));
    assert_eq!(client.ask(r#"{"id": "x", "op": "peers"}"#).await, json!({"id": "x", "ok": [{"realm": "bob"}]}));
    assert_eq!(client.ask(r#"{"op": "connect", "realm": "bob"}"#).await, json!({"id": null, "ok": null}));
    assert_eq!(
        client.ask(r#"{"id": 2, "op": "disconnect", "realm": "eve"}"#).await,
        json!({"id": 2, "error": {"code": "unknown_realm", "message": "there is no peer \"eve\""}})
    );
    assert_eq!(client.ask(r#"{"op": "drain", "timeout_ms": 7}"#).await["ok"], json!({"within": 7}));
    client.send("{\"id\": 1, \"op\": \"engines\"}\n{\"id\": 2, \"op\": \"connections\"}\n").await;
    assert_eq!((client.answer().await["id"].clone(), client.answer().await["id"].clone()), (json!(1), json!(2)));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_counted() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client().await;
    for bad in [
        "nonsense",
        "[]",
        "{}",
        r#"{"op": 7}"#,
        r#"{"op": "stop"}"#,
        r#"{"op": "status", "realm": "bob"}"#,
        r#"{"op": "connect"}"#,
        r#"{"op": "drain", "timeout_ms": -1}"#,
        r#"{"op": "drain", "timeout_ms": 4294967296}"#,
    ] {
        assert_eq!(client.ask(bad).await["error"]["code"], "bad_request", "{bad}");
    }
    let counters = client.ask(r#"{"op": "counters"}"#).await["ok"].clone();
    assert_eq!(
        counters,
        json!({"calls_refused": 3, "control_socket_requests": 0, "control_socket_requests_refused": 9, "control_socket_connections": 1,
               "control_socket_connections_refused": 0})
    );
}

#[tokio::test]
async fn a_request_is_read_at_its_bound_and_refused_one_past_it() {
    let fixture = Fixture::start(1);
    let mut client = fixture.client().await;
    let request = |bytes: usize| {
        let request = r#"{"op": "status"}"#;
        format!("{request}{}", " ".repeat(bytes - request.len()))
    };
    assert_eq!(client.ask(&request(REQUEST_BYTES_MAX)).await["ok"]["realm"], "alice");
    assert_eq!(client.ask(&request(REQUEST_BYTES_MAX + 1)).await["error"]["code"], "too_large");
    assert_eq!(client.answer().await, Value::Null);
    // Also when its end never comes.
    let mut client = fixture.client().await;
    client.send(&request(REQUEST_BYTES_MAX + 1)).await;
    assert_eq!(client.answer().await["error"]["code"], "too_large");
}

#[tokio::test]
async fn a_connection_past_the_bound_is_told_so_and_a_place_is_free_again_when_one_ends() {
    let fixture = Fixture::start(2);
    let (mut first, mut second) = (fixture.client().await, fixture.client().await);
    assert_eq!(first.ask(r#"{"op": "status"}"#).await["ok"]["realm"], "alice");
    assert_eq!(second.ask(r#"{"op": "status"}"#).await["ok"]["realm"], "alice");
    let mut third = fixture.client().await;
    assert_eq!(third.answer().await["error"]["code"], "busy");
    assert_eq!(third.answer().await, Value::Null);
    // Its end has been seen when the other end is closed, too.
    first.0.get_mut().shutdown().await.unwrap();
    assert_eq!(first.answer().await, Value::Null);
    let mut counters = Value::Null;
    while counters.is_null() {
        counters = fixture.client().await.ask(r#"{"op": "counters"}"#).await["ok"].clone();
    }
    assert!(counters["control_socket_connections_refused"].as_u64() >= Some(1));
}

#[tokio::test]
async fn a_reload_is_done_by_who_started_the_realm() {
    let mut fixture = Fixture::start(1);
    let mut client = fixture.client().await;
    client.send("{\"id\": 1, \"op\": \"reload\"}\n").await;
    let reload = fixture.reloads.recv().await.unwrap();
    reload.send(Err(AdminError::new("config", "a.toml:1:1: no"))).unwrap();
    assert_eq!(client.answer().await, json!({"id": 1, "error": {"code": "config", "message": "a.toml:1:1: no"}}));
    fixture.reloads.close();
    assert_eq!(client.ask(r#"{"op": "reload"}"#).await["error"]["code"], "stopping");
}
