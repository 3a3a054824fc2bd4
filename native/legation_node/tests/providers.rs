//! `find` and `providers` of the control engine, as a plain Erlang node asks them: one node with two daemons.

mod cli_support;
mod common;

use cli_support::{done, Home, Running};
use common::{Epmd, Erl, ErlOptions, COOKIE};

/// A node that publishes at both daemons and asks at alice's.
struct Release {
    node: Erl,
    _daemons: [Running; 2],
    _homes: [Home; 2],
    _epmd: Epmd,
}

/// `Publish(Realm, Version)`: a new `store` there, which answers calls with its realm when it is told to go on; `Find(Options)`: whose it is.
const HELPERS: &str = "
    Daemon = fun(Realm) -> {legation, list_to_atom(Realm ++ \"@127.0.0.1\")} end,
    Ask = fun(Realm, Request) -> gen_server:call(Daemon(Realm), Request) end,
    Publish = fun(Realm, Version) ->
        Pid = spawn(fun Loop() ->
            receive
                {'$gen_call', From, who} -> gen_server:reply(From, Realm), Loop();
                {'$gen_call', {Caller, _}, hold} -> Caller ! {held, Realm}, Loop()
            end
        end),
        ok = Ask(Realm, {publish, <<\"store\">>, Pid, [{version, Version}]}),
        Pid
    end,
    Until = fun Until(Is) -> case Is() of true -> ok; _ -> receive after 10 -> Until(Is) end end end,
    Find = fun(Name, Options) ->
        case Ask(\"alice\", {find, Name, Options}) of
            {ok, Pid} -> gen_server:call(Pid, who);
            Other -> Other
        end
    end,
    Pending = fun() -> [P || #{pending := P} <- Ask(\"alice\", {providers, <<\"store\">>, []})] end,
";

impl Release {
    async fn start() -> Release {
        let epmd = Epmd::start();
        let node = Erl::start("release", &ErlOptions::epmd(epmd.port)).await;
        let (alice, bob) = (Home::new("alice", "", ""), Home::new("bob", "", ""));
        let key = |home: &Home| done(&["key", "show", &home.text("key.pem")]);
        let configure = |home: &Home, realm: &str, rest: &str| {
            let port = epmd.port;
            let node = format!("name = \"{realm}@127.0.0.1\"\ncookie = \"{COOKIE}\"\nepmd_port = {port}\n");
            let node = format!("[node]\n{node}global = false\nconnect = [\"release@127.0.0.1\"]\n");
            home.write("config.toml", &format!("realm = \"{realm}\"\nkey = \"key.pem\"\n{node}{rest}"));
        };
        let peer = format!("[[peers]]\nrealm = \"alice\"\nkey = \"{}\"\nexport = \"all\"\n", key(&alice));
        configure(&bob, "bob", &format!("[[listen]]\nunix = \"in.sock\"\n{peer}"));
        let connect = format!("connect = [\"unix:{}\"]", bob.text("in.sock"));
        configure(&alice, "alice", &format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n{connect}\n", key(&bob)));
        let daemons = [Running::daemon(&bob.config()), Running::daemon(&alice.config())];
        Release { node, _daemons: daemons, _homes: [alice, bob], _epmd: epmd }
    }

    async fn eval(&mut self, program: &str) -> String {
        self.node.eval(&format!("(fun() -> {HELPERS} {program} end)().")).await
    }
}

#[tokio::test]
async fn a_version_is_found_from_there_on_and_refused_below() {
    let mut release = Release::start().await;
    let program = "
        None = Find(<<\"store@bob\">>, []),
        Store = Publish(\"bob\", 3),
        Until(fun() -> Find(<<\"store@bob\">>, []) =:= \"bob\" end),
        Found = fun() -> [Find(<<\"store@bob\">>, [{version, V}]) =:= \"bob\" || V <- [0, 3, 4, {4, 6}, {7, 9}, 8, 1 bsl 40]] end,
        Old = Found(),
        ok = Ask(\"bob\", {publish, <<\"store\">>, Store, [{version, 7}]}),
        Until(fun() -> Find(\"store@bob\", #{version => 4}) =:= \"bob\" end),
        {None, Old, Found(), Find('store@carol', [])}";
    assert_eq!(
        release.eval(program).await,
        "{{error,noproc},[true,true,false,false,false,false,false],\
         [true,true,true,false,true,false,false],{error,noproc}}"
    );
}

#[tokio::test]
async fn of_several_providers_one_is_taken_first_in_turn_or_with_the_fewest_calls() {
    let mut release = Release::start().await;
    let program = "
        Nobody = [Find(<<\"store\">>, [{pick, P}]) || P <- [first, round_robin, least_pending]],
        Publish(\"bob\", 5),
        Until(fun() -> Find(<<\"store\">>, []) =:= \"bob\" end),
        Publish(\"alice\", 3),
        First = [Find(<<\"store\">>, O) || O <- [[], [{version, 4}], [{realms, [\"bob\", <<\"alice\">>]}], [{realms, [<<\"carol\">>]}]]],
        Turns = [Find(<<\"store\">>, [{pick, round_robin}]) || _ <- lists:seq(1, 4)],
        Self = self(),
        Holder = spawn(fun() ->
            {ok, Pid} = Ask(\"alice\", {find, <<\"store@bob\">>, []}),
            Pid ! {'$gen_call', {self(), make_ref()}, hold},
            receive nothing -> ok end
        end),
        Until(fun() -> Pending() =:= [0, 1] end),
        Least = [Find(<<\"store\">>, [{pick, least_pending}]) || _ <- lists:seq(1, 3)],
        exit(Holder, kill),
        Until(fun() -> Pending() =:= [0, 0] end),
        Equal = lists:sort([Find(<<\"store\">>, [{pick, least_pending}]) || _ <- lists:seq(1, 4)]),
        {Nobody, First, Turns, Least, Equal}";
    assert_eq!(
        release.eval(program).await,
        "{[{error,noproc},{error,noproc},{error,noproc}],\
         [\"alice\",\"bob\",\"bob\",{error,noproc}],\
         [\"alice\",\"bob\",\"alice\",\"bob\"],\
         [\"alice\",\"alice\",\"alice\"],\
         [\"alice\",\"alice\",\"bob\",\"bob\"]}"
    );
}

#[tokio::test]
async fn what_waits_in_the_mailbox_of_ones_own_engine_is_pending_there() {
    let mut release = Release::start().await;
    let program = "
        Publish(\"bob\", 0),
        Until(fun() -> Find(<<\"store\">>, []) =:= \"bob\" end),
        Own = Publish(\"alice\", 0),
        erlang:suspend_process(Own),
        [Own ! {'$gen_call', {self(), make_ref()}, hold} || _ <- [1, 2]],
        Busy = [Find(<<\"store\">>, [{pick, least_pending}]) || _ <- [1, 2]],
        Waiting = Pending(),
        erlang:resume_process(Own),
        [receive {held, \"alice\"} -> ok end || _ <- [1, 2]],
        [#{name := N1, local := L1, up := U1, version := 0, pid := P1} | _] = Ask(\"alice\", {providers, \"store\", []}),
        {Busy, Waiting, Pending(), {N1, L1, U1, P1 =:= Own}}";
    assert_eq!(release.eval(program).await, "{[\"bob\",\"bob\"],[2,0],[0,0],{<<\"store@alice\">>,true,true,true}}");
}

#[tokio::test]
async fn a_provider_that_has_died_is_found_no_more_and_a_request_that_cannot_be_meant_is_refused() {
    let mut release = Release::start().await;
    let program = "
        Store = Publish(\"bob\", 0),
        Until(fun() -> Find(<<\"store\">>, []) =:= \"bob\" end),
        {ok, Chosen} = Ask(\"alice\", {find, <<\"store\">>, []}),
        exit(Store, kill),
        Until(fun() -> Ask(\"alice\", {find, <<\"store\">>, []}) =:= {error, noproc} end),
        Late = try gen_server:call(Chosen, who) catch exit:{Reason, _} -> Reason end,
        Bad = [Ask(\"alice\", R) || R <- [{find, <<\"store\">>, [{pick, best}]}, {find, 7, []}, {providers, <<\"store\">>, [oops]}]],
        {Late, lists:usort(Bad)}";
    assert_eq!(release.eval(program).await, "{noproc,[{error,bad_request}]}");
}
