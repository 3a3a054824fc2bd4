//! Names in `:global`, where a node has no Elixir side: a real node with two daemons.

mod cli_support;
mod common;

use cli_support::{done, Home, Running};
use common::{Epmd, Erl, ErlOptions, COOKIE};

/// A node that publishes at bob's daemon and calls through alice's, which gives global names.
struct Release {
    node: Erl,
    _daemons: [Running; 2],
    _homes: [Home; 2],
    _epmd: Epmd,
}

impl Release {
    async fn start() -> Release {
        let epmd = Epmd::start();
        let node = Erl::start("release", &ErlOptions::epmd(epmd.port)).await;
        let (alice, bob) = (Home::new("alice", "", ""), Home::new("bob", "", ""));
        let key = |home: &Home| done(&["key", "show", &home.text("key.pem")]);
        let configure = |home: &Home, realm: &str, global: bool, rest: &str| {
            let port = epmd.port;
            let node = format!("name = \"{realm}@127.0.0.1\"\ncookie = \"{COOKIE}\"\nepmd_port = {port}\n");
            let node = format!("[node]\n{node}global = {global}\nconnect = [\"release@127.0.0.1\"]\n");
            home.write("config.toml", &format!("realm = \"{realm}\"\nkey = \"key.pem\"\n{node}{rest}"));
        };
        let peer = format!("[[peers]]\nrealm = \"alice\"\nkey = \"{}\"\nexport = \"all\"\n", key(&alice));
        configure(&bob, "bob", false, &format!("[[listen]]\nunix = \"in.sock\"\n{peer}"));
        let connect = format!("connect = [\"unix:{}\"]", bob.text("in.sock"));
        configure(&alice, "alice", true, &format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n{connect}\n", key(&bob)));
        let daemons = [Running::daemon(&bob.config()), Running::daemon(&alice.config())];
        Release { node, _daemons: daemons, _homes: [alice, bob], _epmd: epmd }
    }

    /// A new process of the node, by this name at bob's.
    async fn publish(&mut self, engine: &str) {
        let publish = format!(
            "gen_server:call({{legation, 'bob@127.0.0.1'}},
                {{publish, <<\"{engine}\">>, spawn(fun() -> receive after infinity -> ok end end), []}})."
        );
        assert_eq!(self.node.eval(&publish).await, "ok");
    }

    async fn withdraw(&mut self, engine: &str) {
        let withdraw = format!("gen_server:call({{legation, 'bob@127.0.0.1'}}, {{withdraw, <<\"{engine}\">>}}).");
        assert_eq!(self.node.eval(&withdraw).await, "ok");
    }

    /// Until the node's `global` has the process that is the engine at alice's now.
    async fn named(&mut self, engine: &str) {
        let named = format!(
            "(fun Named() ->
                Pid = gen_server:call({{legation, 'alice@127.0.0.1'}}, {{whereis, <<\"{engine}@bob\">>}}),
                case is_pid(Pid) andalso global:whereis_name(<<\"{engine}@bob\">>) =:= Pid of
                    true -> named;
                    false -> receive after 10 -> Named() end
                end
            end)()."
        );
        assert_eq!(self.node.eval(&named).await, "named");
    }
}

#[tokio::test]
async fn an_engine_that_comes_back_gets_its_name_though_the_node_has_not_yet_dropped_the_old_one() {
    let mut release = Release::start().await;
    release.publish("ping").await;
    release.named("ping").await;

    assert_eq!(release.node.eval("erlang:suspend_process(whereis(global_name_server)).").await, "true");
    release.withdraw("ping").await;
    release.publish("ping").await;
    // It has not yet read that the old process has ended, and alice's daemon asks for the name of the new one.
    let asked = "
        (fun Asked() ->
            case process_info(whereis(global_name_server), messages) of
                {messages, [{'DOWN', _, process, Old, _}, _Question | _]} -> Old =:= global:whereis_name(<<\"ping@bob\">>);
                _ -> receive after 10 -> Asked() end
            end
        end)().";
    assert_eq!(release.node.eval(asked).await, "true");
    assert_eq!(release.node.eval("erlang:resume_process(whereis(global_name_server)).").await, "true");
    release.named("ping").await;
}
