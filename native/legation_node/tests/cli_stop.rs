//! How the daemon ends while a call is open: a real node calls through two daemons.

mod cli_support;
mod common;

use cli_support::{command, done, Home, Running};
use common::{Epmd, Erl, ErlOptions, COOKIE};

/// A node, and two daemons that it is connected with. An engine at bob's has a call of that node, through alice, and waits to be
/// told to answer.
struct OpenCall {
    node: Erl,
    alice: Running,
    _bob: Running,
    _homes: [Home; 2],
    _epmd: Epmd,
}

impl OpenCall {
    async fn start(shutdown_ms: u64, arguments: &[&str]) -> OpenCall {
        let epmd = Epmd::start();
        let node = Erl::start("release", &ErlOptions::epmd(epmd.port)).await;
        let (alice, bob) = (Home::new("alice", "", ""), Home::new("bob", "", ""));
        let key = |home: &Home| done(&["key", "show", &home.text("key.pem")]);
        let configure = |home: &Home, realm: &str, rest: &str| {
            let node =
                format!("[node]\nname = \"{realm}@127.0.0.1\"\ncookie = \"{COOKIE}\"\nepmd_port = {}\n", epmd.port);
            home.write("config.toml", &format!("realm = \"{realm}\"\nkey = \"key.pem\"\n{node}{rest}"));
        };
        let peer = format!("[[peers]]\nrealm = \"alice\"\nkey = \"{}\"\nexport = \"all\"\n", key(&alice));
        configure(&bob, "bob", &format!("[[listen]]\nunix = \"in.sock\"\n{peer}"));
        let connect = format!("connect = [\"unix:{}\"]", bob.text("in.sock"));
        let peer = format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n{connect}\n", key(&bob));
        configure(&alice, "alice", &format!("{peer}[limits]\nshutdown_ms = {shutdown_ms}\n"));

        let at_bob = Running::daemon(&bob.config());
        let at_alice = Running::start(command().args(["run", "--config", &alice.config()]).args(arguments));
        at_alice.logged("ready realm=alice");
        let mut call = OpenCall { node, alice: at_alice, _bob: at_bob, _homes: [alice, bob], _epmd: epmd };
        call.open().await;
        call
    }

    async fn open(&mut self) {
        let engine = "
            Main = self(),
            Engine = spawn(fun() ->
                receive {'$gen_call', From, hi} -> Main ! asked end,
                receive answer -> gen_server:reply(From, done) end
            end),
            register(engine, Engine),
            gen_server:call({legation, 'bob@127.0.0.1'}, {publish, <<\"slow\">>, Engine, []}).";
        assert_eq!(self.node.eval(engine).await, "ok");
        let learned = "
            {ok, Ref, Now} = gen_server:call({legation, 'alice@127.0.0.1'}, monitor_peers),
            case maps:is_key(<<\"slow@bob\">>, maps:get(engines, Now)) of
                true -> ok;
                false -> receive {legation, Ref, {engine_learned, <<\"slow@bob\">>, _}} -> ok end
            end.";
        assert_eq!(self.node.eval(learned).await, "ok");
        let call = "
            Main = self(),
            spawn(fun() -> Main ! {ended, catch gen_server:call({'slow@bob', 'alice@127.0.0.1'}, hi, infinity)} end),
            receive asked -> ok end.";
        assert_eq!(self.node.eval(call).await, "ok");
    }

    /// What the caller got.
    async fn ended(&mut self) -> String {
        self.node.eval("receive {ended, Result} -> Result end.").await
    }
}

#[tokio::test]
async fn a_stop_waits_for_an_open_call() {
    let mut call = OpenCall::start(60_000, &[]).await;
    call.alice.signal("TERM");
    call.alice.logged("stopping: waiting for open calls");
    assert_eq!(call.node.eval("engine ! answer.").await, "answer");
    assert_eq!(call.ended().await, "done");
    assert_eq!(call.alice.end().0, 0);
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_it_was_told() {
    let mut call = OpenCall::start(50, &[]).await;
    call.alice.signal("TERM");
    let ended = call.ended().await;
    assert!(ended.starts_with("{'EXIT',{"), "{ended}");
    let (code, _, log) = call.alice.end();
    assert_eq!(code, 0);
    assert!(log.iter().any(|line| line.ends_with("open calls were cut realm=alice calls=1")), "{log:?}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut call = OpenCall::start(60_000, &[]).await;
    call.alice.signal("TERM");
    call.alice.logged("stopping: waiting for open calls");
    call.alice.signal("INT");
    let (code, _, log) = call.alice.end();
    assert_eq!(code, 1);
    assert_eq!(log.last().unwrap(), "legation: interrupted while waiting for open calls");
    assert_eq!(
        call.node.eval("receive {ended, {'EXIT', {Reason, _}}} -> Reason end.").await,
        "{nodedown,'alice@127.0.0.1'}"
    );
}

#[tokio::test]
async fn the_end_of_its_owner_waits_for_no_call() {
    let mut call = OpenCall::start(60_000, &["--supervised"]).await;
    call.alice.close_stdin();
    assert_eq!(call.alice.end().0, 0);
    assert!(call.node.eval("receive {ended, Result} -> Result end.").await.starts_with("{'EXIT',{"));
}
