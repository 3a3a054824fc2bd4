//! Two realms, each a daemon beside a node of its own.

#![allow(dead_code)]

use crate::cli_support::{done, Home, Running};
use crate::common::{Epmd, Erl, ErlOptions, COOKIE};

/// `near` calls through alice; `far` has bob's engines. Each daemon is connected with its own node only.
pub struct Pair {
    pub near: Erl,
    pub far: Erl,
    _daemons: [Running; 2],
    _homes: [Home; 2],
    _epmd: Epmd,
}

/// The engine `sink@bob` keeps what it gets, and answers calls only when it is told to. Its node has the atom, and has never told bob.
const SINK: &str = "
    Sink = spawn(fun Loop() ->
        receive
            {answer_all, Reply} ->
                (fun All() -> receive {'$gen_call', From, _} -> gen_server:reply(From, Reply), All() after 0 -> ok end end)(),
                Loop()
        end
    end),
    register(sink, Sink),
    _ = an_atom_that_bob_has_not_seen,
    gen_server:call({legation, 'bob@127.0.0.1'}, {publish, <<\"sink\">>, Sink, []}).";

impl Pair {
    /// `alice`, `bob`: their limits. `filter`: bob shows the gate what alice sends.
    pub async fn start(alice_limits: &str, bob_limits: &str, filter: bool) -> Pair {
        Pair::with(alice_limits, "", bob_limits, &format!("filter = {filter}\n")).await
    }

    /// The same with what stands in the other's entry in each one's list besides.
    pub async fn with(alice_limits: &str, alice_peer: &str, bob_limits: &str, bob_peer: &str) -> Pair {
        let epmd = Epmd::start();
        let near = Erl::start("near", &ErlOptions::epmd(epmd.port)).await;
        let mut far = Erl::start("far", &ErlOptions::epmd(epmd.port)).await;
        let (alice, bob) = (Home::new("alice", "", ""), Home::new("bob", "", ""));
        let key = |home: &Home| done(&["key", "show", &home.text("key.pem")]);
        let configure = |home: &Home, realm: &str, node: &str, rest: &str| {
            let port = epmd.port;
            let own = format!("name = \"{realm}@127.0.0.1\"\ncookie = \"{COOKIE}\"\nepmd_port = {port}\n");
            let own = format!("[node]\n{own}global = false\nconnect = [\"{node}@127.0.0.1\"]\n");
            home.write("config.toml", &format!("realm = \"{realm}\"\nkey = \"key.pem\"\n{own}{rest}"));
        };
        let peer = format!(
            "[[listen]]\nunix = \"in.sock\"\n[[peers]]\nrealm = \"alice\"\nkey = \"{}\"\nexport = \"all\"\n{bob_peer}\n",
            key(&alice)
        );
        configure(&bob, "bob", "far", &format!("{peer}[limits]\n{bob_limits}\n"));
        let connect = format!("connect = [\"unix:{}\"]", bob.text("in.sock"));
        let peer = format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n{connect}\n{alice_peer}\n", key(&bob));
        configure(&alice, "alice", "near", &format!("{peer}[limits]\n{alice_limits}\n"));
        let daemons = [Running::daemon(&bob.config()), Running::daemon(&alice.config())];
        assert_eq!(far.eval(SINK).await, "ok");
        let mut pair = Pair { near, far, _daemons: daemons, _homes: [alice, bob], _epmd: epmd };
        pair.near_until("is_pid(gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"sink@bob\">>}))").await;
        pair
    }

    pub async fn near_until(&mut self, condition: &str) {
        assert_eq!(self.near.eval(&until(condition)).await, "true");
    }

    pub async fn far_until(&mut self, condition: &str) {
        assert_eq!(self.far.eval(&until(condition)).await, "true");
    }
}

/// Asks again until it is so.
pub fn until(condition: &str) -> String {
    format!("(fun Until() -> case {condition} of true -> true; _ -> receive after 10 -> Until() end end end)().")
}

pub fn counter(daemon: &str, name: &str) -> String {
    format!("maps:get({name}, gen_server:call({{legation, '{daemon}@127.0.0.1'}}, counters))")
}

/// Of bob's session with alice.
pub fn of_session(name: &str) -> String {
    format!(
        "maps:get({name}, maps:get(<<\"alice\">>, maps:get(sessions, gen_server:call({{legation, 'bob@127.0.0.1'}}, counters))))"
    )
}
