//! Pids and references that cross between realms, and exit signals: real nodes, and two daemons between them.

mod cli_support;
mod common;
mod realm_support;

use realm_support::{counter, of_session, until, Pair};

/// `echo@bob`, which does what it is told to: gives away pids, watches and links, and tells what it hears.
const ECHO: &str = "
    Echo = spawn(fun() ->
        process_flag(trap_exit, true),
        (fun Loop() ->
            receive
                {'$gen_call', From, 1} ->
                    Parent = self(),
                    Child = spawn(fun() -> receive {say, To, What} -> To ! What end, receive {stop, Why} -> exit(Why) end end),
                    gen_server:reply(From, {Child, Parent, make_ref()}), Loop();
                {'$gen_call', From, {2, Term}} -> gen_server:reply(From, Term), Loop();
                {'$gen_call', From, {3, Pid}} -> put(watched, monitor(process, Pid)), gen_server:reply(From, 0), Loop();
                {'$gen_call', From, {4, Pid}} -> Pid ! {hello, self()}, gen_server:reply(From, 0), Loop();
                {'$gen_call', From, {5, Pid}} -> link(Pid), gen_server:reply(From, 0), Loop();
                {'$gen_call', From, {6, Pid, Why}} -> exit(Pid, Why), gen_server:reply(From, 0), Loop();
                {'$gen_call', From, 7} -> gen_server:reply(From, get(heard)), Loop();
                {'$gen_cast', {8, Pid}} -> put(kept, Pid), Loop();
                {'$gen_call', From, {9, What}} -> get(kept) ! What, gen_server:reply(From, 0), Loop();
                Heard -> put(heard, Heard), Loop()
            end
        end)()
    end),
    register(echo, Echo),
    _ = [say, hello, stop, why, 'DOWN', process, remote_exit, crashed, undecodable, boom],
    gen_server:call({legation, 'bob@127.0.0.1'}, {publish, <<\"echo\">>, Echo, []}).";

const ASK: &str = "Ask = fun(What) -> gen_server:call({'echo@bob', 'alice@127.0.0.1'}, What) end,";

async fn pair(alice_peer: &str, bob_peer: &str, limits: &str) -> Pair {
    pair_with(limits, alice_peer, limits, bob_peer).await
}

async fn pair_with(alice_limits: &str, alice_peer: &str, bob_limits: &str, bob_peer: &str) -> Pair {
    let mut pair = Pair::with(alice_limits, alice_peer, bob_limits, bob_peer).await;
    assert_eq!(pair.far.eval(ECHO).await, "ok");
    pair.near_until("is_pid(gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"echo@bob\">>}))").await;
    // Both nodes have told their daemons the words.
    let words = "_ = [say, hello, stop, why, heard, remote_exit, crashed, boom, undecodable, 'DOWN', process].";
    pair.near.eval(words).await;
    pair
}

async fn near(pair: &mut Pair, text: &str) -> String {
    pair.near.eval(&format!("{ASK} {text}")).await
}

#[tokio::test]
async fn a_pid_that_comes_in_a_reply_is_sent_to_monitored_and_gone_when_its_process_is() {
    let mut pair = pair("", "", "").await;
    let sent = near(
        &mut pair,
        "{Child, _, Ref} = Ask(1), true = is_reference(Ref), 'alice@127.0.0.1' = node(Child), put(child, Child),
         Child ! {say, self(), hello}, receive hello -> heard end.",
    );
    assert_eq!(sent.await, "heard");
    let down = near(
        &mut pair,
        "Child = get(child), Monitor = monitor(process, Child), Child ! {stop, normal},
         receive {'DOWN', Monitor, process, Child, Why} -> Why end.",
    );
    assert_eq!(down.await, "normal");
    assert_eq!(
        pair.near.eval("M = monitor(process, get(child)), receive {'DOWN', M, _, _, Why} -> Why end.").await,
        "noproc"
    );
}

#[tokio::test]
async fn a_pid_of_another_life_of_the_daemon_is_nobody() {
    let mut pair = pair("", "", "").await;
    // The proxy's, but for its creation.
    let earlier = "
        Proxy = gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"echo@bob\">>}),
        Bytes = term_to_binary(Proxy), Size = byte_size(Bytes) - 4, <<Front:Size/binary, Creation:32>> = Bytes,
        Earlier = binary_to_term(<<Front/binary, (Creation bxor 1):32>>), false = Earlier =:= Proxy,";
    let down =
        format!("{earlier} Monitor = monitor(process, Earlier), receive {{'DOWN', Monitor, _, _, Why}} -> Why end.");
    assert_eq!(pair.near.eval(&down).await, "noproc");
    let before = pair.near.eval(&format!("{}.", counter("alice", "stale_pids"))).await;
    assert_eq!(pair.near.eval(&format!("{earlier} Earlier ! hello, ok.")).await, "ok");
    pair.near_until(&format!("{} > {before}", counter("alice", "stale_pids"))).await;
    assert_eq!(near(&mut pair, "Ask(7).").await, "undefined", "it has heard nothing");
}

#[tokio::test]
async fn what_comes_home_is_itself_and_an_engine_is_its_own_proxy() {
    let mut pair = pair("", "", "").await;
    // Ours; twice the same; a reference; the proxy of the engine itself, as it comes to the engine and back.
    let home = near(
        &mut pair,
        "Own = make_ref(), Me = self(),
         {Me, [Me, Own], #{Own := Me}} = Ask({2, {Me, [Me, Own], #{Own => Me}}}),
         {Child, Parent, Theirs} = Ask(1),
         {Child, Theirs} = Ask({2, {Child, Theirs}}),
         Proxy = gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"echo@bob\">>}),
         {Child =:= Parent, is_pid(Parent), Ask({2, Proxy}) =:= Ask({2, Parent})}.",
    );
    assert_eq!(home.await, "{false,true,true}");
}

#[tokio::test]
async fn a_pid_that_was_given_away_is_answered_and_watched_over_there() {
    let mut pair = pair("", "", "").await;
    let answered = near(&mut pair, "0 = Ask({4, self()}), receive {hello, From} -> is_pid(From) end.").await;
    assert_eq!(answered, "true");
    let ended = near(
        &mut pair,
        "Victim = spawn(fun() -> receive {stop, Why} -> exit(Why) end end),
         0 = Ask({3, Victim}), Victim ! {stop, why}, ok.",
    );
    assert_eq!(ended.await, "ok");
    let heard = "case Ask(7) of {'DOWN', _, process, _, {remote_exit, crashed}} -> true; _ -> false end";
    assert_eq!(pair.near.eval(&format!("{ASK} {}", until(heard))).await, "true");
}

#[tokio::test]
async fn a_call_to_a_pid_is_a_call() {
    let mut pair = pair("", "", "").await;
    let called = near(&mut pair, "{_, Parent, _} = Ask(1), gen_server:call(Parent, {2, [self()]}) =:= [self()].").await;
    assert_eq!(called, "true");
    // And to one that is gone, what it would be.
    let gone = near(
        &mut pair,
        "{Child, _, _} = Ask(1), M = monitor(process, Child), Child ! {say, self(), hello}, Child ! {stop, normal},
         receive {'DOWN', M, _, _, normal} -> ok end,
         try gen_server:call(Child, 0) catch exit:{Why, _} -> Why end.",
    );
    assert_eq!(gone.await, "noproc");
}

#[tokio::test]
async fn an_answer_to_an_alias_that_is_no_more_reaches_nobody() {
    let mut pair = pair("", "", "").await;
    let asked = "
        Given = alias(), Kept = alias(), put(kept, Kept), Sink = {'sink@bob', 'alice@127.0.0.1'},
        [Sink ! {'$gen_call', {self(), [alias | Alias]}, 1} || Alias <- [Given, Kept]], unalias(Given).";
    assert_eq!(pair.near.eval(asked).await, "true");
    pair.far_until("element(2, process_info(whereis(sink), message_queue_len)) =:= 2").await;
    pair.far.eval("sink ! {answer_all, 2}, ok.").await;
    // Both are answered, one after the other, and nothing monitors that could have taken a call back.
    let heard = "Kept = get(kept), receive {[alias | Kept], 2} -> process_info(self(), messages) end.";
    assert_eq!(pair.near.eval(heard).await, "{messages,[]}");
}

#[tokio::test]
async fn links_and_exits_cross_only_where_the_policy_says_so() {
    // Who may link may not end anybody whom it likes.
    let mut strict = pair("", "allow = [\"call\", \"cast\", \"send\", \"monitor\", \"link\"]", "").await;
    let exit = "{_, Parent, _} = Ask(1), exit(Parent, why), linked = element(1, {linked, link(Parent)}), ok.";
    assert_eq!(near(&mut strict, exit).await, "ok");
    strict.far_until(&format!("{} =:= 1", counter("bob", "exits_refused"))).await;
    assert_eq!(near(&mut strict, "Ask(7).").await, "undefined");

    let mut open = pair("", "allow = [\"call\", \"cast\", \"send\", \"monitor\", \"link\", \"exit\"]", "").await;
    assert_eq!(near(&mut open, "{_, Parent, _} = Ask(1), exit(Parent, shutdown), ok.").await, "ok");
    let heard = |why: &str| format!("case Ask(7) of {{'EXIT', P, {why}}} when is_pid(P) -> true; _ -> false end");
    assert_eq!(open.near.eval(&format!("{ASK} {}", until(&heard("shutdown")))).await, "true");
    // Nobody could catch it.
    assert_eq!(near(&mut open, "{_, Parent, _} = Ask(1), exit(Parent, kill), 0 = Ask({4, self()}), ok.").await, "ok");
    assert_eq!(open.near.eval(&format!("{}.", counter("alice", "exits_ignored"))).await, "1");
    // A linked process that ends is heard of as one that crashed.
    let linked = "{_, Parent, _} = Ask(1), spawn(fun() -> link(Parent), exit(boom) end), ok.";
    assert_eq!(near(&mut open, linked).await, "ok");
    let crashed = heard("{remote_exit, crashed}");
    assert_eq!(open.near.eval(&format!("{ASK} {}", until(&crashed))).await, "true");
}

#[tokio::test]
async fn a_link_to_a_foreign_process_breaks_with_its_end() {
    let mut pair = pair("", "", "").await;
    let linked = near(
        &mut pair,
        "process_flag(trap_exit, true), {Child, _, _} = Ask(1), link(Child), Child ! {say, self(), hello},
         receive hello -> ok end, Child ! {stop, shutdown}, receive {'EXIT', Child, Why} -> Why end.",
    );
    assert_eq!(linked.await, "shutdown");
}

#[tokio::test]
async fn reasons_cross_whole_where_the_peer_is_told_them() {
    let mut pair = pair("reasons = \"full\"", "reasons = \"full\"", "").await;
    let down = "
        {Child, _, _} = Ask(1), M = monitor(process, Child), Child ! {say, self(), hello}, Child ! {stop, {why, [1, self()]}},
        receive {'DOWN', M, _, _, {why, [1, Me]}} when Me =:= self() -> whole end.";
    assert_eq!(near(&mut pair, down).await, "whole");
    let engine = "
        Proxy = gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"echo@bob\">>}), put(m, monitor(process, Proxy)), ok.";
    assert_eq!(near(&mut pair, engine).await, "ok");
    let died = "
        Dying = spawn(fun() -> receive {stop, Why} -> exit(Why) end end), register(dying, Dying),
        gen_server:call({legation, 'bob@127.0.0.1'}, {publish, <<\"dying\">>, Dying, []}).";
    assert_eq!(pair.far.eval(died).await, "ok");
    let watched = "
        (fun Until() -> case gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"dying@bob\">>}) of
            undefined -> receive after 10 -> Until() end; Dying -> monitor(process, Dying) end end)(), ok.";
    assert_eq!(pair.near.eval(watched).await, "ok");
    pair.far.eval("dying ! {stop, {why, not_heard_of_there}}.").await;
    let undecodable = "receive {'DOWN', _, process, _, {remote_exit, Why}} -> Why end.";
    assert_eq!(pair.near.eval(undecodable).await, "undecodable");
    pair.far.eval("exit(whereis(echo), kill).").await;
    assert_eq!(pair.near.eval("receive {'DOWN', _, process, _, Why} -> Why end.").await, "killed");
}

#[tokio::test]
async fn an_end_with_its_whole_reason_does_not_overtake_the_reply_that_waits_for_the_nodes_word() {
    let mut pair = pair("reasons = \"full\"", "reasons = \"full\"", "").await;
    let dying = "
        Dying = spawn(fun() -> receive {'$gen_call', {P, _} = From, _} ->
            P ! first_word, gen_server:reply(From, second_word), exit(third_word) end end),
        gen_server:call({legation, 'bob@127.0.0.1'}, {publish, <<\"dying\">>, Dying, []}).";
    assert_eq!(pair.far.eval(dying).await, "ok");
    let there = |what: &str| {
        format!("{what}(gen_server:call({{legation, 'alice@127.0.0.1'}}, {{whereis, <<\"dying@bob\">>}}))")
    };
    pair.near_until(&there("is_pid")).await;
    // It has the words, and alice doesn't know that: it has to be asked for each, and doesn't answer.
    let called = "
        Self = self(), [list_to_atom(W ++ \"_word\") || W <- [\"first\", \"second\", \"third\"]], sys:suspend(rex),
        spawn(fun() -> Self ! {got, catch gen_server:call({'dying@bob', 'alice@127.0.0.1'}, ok, infinity)} end), ok.";
    assert_eq!(pair.near.eval(called).await, "ok");
    pair.near_until(&there("is_atom")).await;
    assert_eq!(pair.near.eval("sys:resume(rex), receive {got, Got} -> Got end.").await, "second_word");
}

#[tokio::test]
async fn exits_that_wait_for_a_nodes_word_are_bounded_with_all_that_waits() {
    let mut pair = pair_with("", "", "held_messages_max = 3", "allow = [\"call\", \"cast\", \"exit\"]").await;
    assert_eq!(near(&mut pair, "{_, Parent, _} = Ask(1), put(parent, Parent), ok.").await, "ok");
    pair.far.eval("sys:suspend(rex).").await;
    let twice = "gen_server:cast({'echo@bob', 'alice@127.0.0.1'}, a_word_that_bob_has_not_seen),
        exit(get(parent), shutdown), exit(get(parent), normal), ok.";
    assert_eq!(pair.near.eval(twice).await, "ok");
    pair.far_until(&format!("{} =:= 1", counter("bob", "exits_refused"))).await;
    pair.far.eval("sys:resume(rex).").await;
    let heard = "case Ask(7) of {'EXIT', P, shutdown} when is_pid(P) -> true; _ -> false end";
    assert_eq!(pair.near.eval(&format!("{ASK} {}", until(heard))).await, "true");
}

#[tokio::test]
async fn who_may_not_monitor_hears_only_that_a_process_is_gone() {
    let mut pair = pair("", "allow = [\"call\", \"cast\", \"send\"]", "").await;
    let down = "
        {Child, _, _} = Ask(1), M = monitor(process, Child), Child ! {say, self(), hello}, Child ! {stop, shutdown},
        receive {'DOWN', M, _, _, Why} -> Why end.";
    assert_eq!(near(&mut pair, down).await, "noproc");
}

#[tokio::test]
async fn a_pid_that_nobody_uses_is_forgotten_on_both_sides_and_a_watched_one_is_not() {
    let mut pair = pair("", "", "handle_idle_ms = 100").await;
    let kept =
        near(&mut pair, "{Child, _, _} = Ask(1), monitor(process, Child), put(child, Child), Ask({2, Child}), ok.")
            .await;
    assert_eq!(kept, "ok");
    assert_eq!(near(&mut pair, "[Ask(1) || _ <- lists:seq(1, 50)], ok.").await, "ok");
    pair.near_until(&format!("{} >= 50", counter("alice", "stand_ins_idle"))).await;
    // Those two: the watched child, and the caller itself.
    pair.far_until(&format!("{} =< 3", of_session("handles_exported"))).await;
    assert_eq!(near(&mut pair, "get(child) ! {say, self(), hello}, receive hello -> lives end.").await, "lives");
}

#[tokio::test]
async fn a_pid_that_comes_again_and_again_is_not_forgotten_though_nobody_sends_to_it() {
    let mut pair = pair("", "", "handle_idle_ms = 500").await;
    // Others that were made with it are.
    let told = format!(
        "{{Child, _, _}} = Ask(1), [Ask(1) || _ <- lists:seq(1, 10)],
         (fun Until() -> Child = Ask({{2, Child}}), case {} >= 10 of true -> ok; false -> Until() end end)(),
         Child ! {{say, self(), hello}}, receive hello -> lives after 5000 -> gone end.",
        counter("alice", "stand_ins_idle")
    );
    assert_eq!(near(&mut pair, &told).await, "lives");
}

#[tokio::test]
async fn past_the_bound_those_that_were_not_used_for_longest_give_way() {
    let mut pair = pair_with("handles_max = 80", "", "", "").await;
    let all = "Children = [element(1, Ask(1)) || _ <- lists:seq(1, 300)],
        Last = lists:last(Children), Last ! {say, self(), hello}, receive hello -> ok end, length(Children).";
    assert_eq!(near(&mut pair, all).await, "300");
    let imported = "maps:get(handles_imported, maps:get(<<\"bob\">>, maps:get(sessions, gen_server:call({legation, 'alice@127.0.0.1'}, counters)))) =< 80.";
    assert_eq!(pair.near.eval(imported).await, "true");
    // All in use: the message is refused, and nothing of it is left.
    let full = "Watched = [begin {C, _, _} = Ask(1), monitor(process, C), C end || _ <- lists:seq(1, 79)], put(watched, Watched),
        [Ask(1) || _ <- lists:seq(1, 3)].";
    let refused = near(&mut pair, full).await;
    assert!(refused.contains("{error,{legation,overload}}"), "{refused}");
}

#[tokio::test]
async fn where_both_have_the_same_bound_room_is_made_before_it_is_reached() {
    let mut pair = pair("", "", "handles_max = 80").await;
    assert_eq!(near(&mut pair, "[{_, _, _} = Ask(1) || _ <- lists:seq(1, 75)], ok.").await, "ok");
    let given = |left: u32| format!("{} =< {left}", of_session("handles_exported"));
    pair.far_until(&given(65)).await;
    assert_eq!(near(&mut pair, "[{_, _, _} = Ask(1) || _ <- lists:seq(1, 10)], ok.").await, "ok");
}

#[tokio::test]
async fn many_pids_leave_nothing_behind() {
    let mut pair = pair("", "", "").await;
    // Given away by the thousand, and ended.
    let many = "
        (fun Round(0) -> ok; Round(N) ->
            Pids = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 1000)],
            1000 = length(Ask({2, Pids})), [P ! stop || P <- Pids], Round(N - 1) end)(20).";
    assert_eq!(near(&mut pair, many).await, "ok");
    pair.far_until(&format!("{} =< 2", of_session("handles_imported"))).await;
    let exported = "maps:get(handles_exported, maps:get(<<\"bob\">>, maps:get(sessions, gen_server:call({legation, 'alice@127.0.0.1'}, counters)))) =< 2";
    pair.near_until(exported).await;
}

#[tokio::test]
async fn ports_and_funs_do_not_cross() {
    let mut pair = pair("", "", "").await;
    assert_eq!(near(&mut pair, "Ask({2, fun() -> 1 end}).").await, "{error,{legation,identifiers}}");
    assert_eq!(near(&mut pair, "Ask({2, hd(erlang:ports())}).").await, "{error,{legation,identifiers}}");
}
