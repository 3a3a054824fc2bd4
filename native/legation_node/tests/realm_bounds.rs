//! Bounds of a realm towards its BEAM nodes, at the limit and one past it, and what must not be lost or left behind there: real
//! nodes, and two daemons between them.

mod cli_support;
mod common;
mod realm_support;

use realm_support::{counter, of_session, Pair};

const CASTS: &str = "[gen_server:cast({'sink@bob', 'alice@127.0.0.1'}, {an_atom_that_bob_has_not_seen, N}) || N <- ";

/// What the sink has in its mailbox, calls and casts alike.
const GOT: &str = "element(2, process_info(whereis(sink), messages))";

#[tokio::test]
async fn a_node_has_as_many_monitors_and_links_as_the_limit_says_and_the_next_is_told() {
    let mut pair = Pair::start("beam_monitors_max = 2", "", false).await;
    // Two within the limit, and past it a monitor and a link. The two are unharmed, and one that goes makes room; behind the ping
    // nothing more of it comes.
    let watched = "
        process_flag(trap_exit, true),
        Sink = gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"sink@bob\">>}),
        {M1, M2, M3} = {monitor(process, Sink), monitor(process, Sink), monitor(process, Sink)},
        link(Sink),
        Third = receive {'DOWN', M3, process, Sink, R} -> R end,
        Link = receive {'EXIT', Sink, L} -> L end,
        Others = receive {'DOWN', _, _, _, Other} -> Other after 0 -> none end,
        demonitor(M1, [flush]),
        M4 = monitor(process, Sink),
        demonitor(M2, [flush]),
        pong = net_adm:ping('alice@127.0.0.1'),
        Fourth = receive {'DOWN', M4, _, _, F} -> F after 0 -> none end,
        demonitor(M4),
        {Third, Link, Others, Fourth}.";
    let near = &mut pair.near;
    assert_eq!(near.eval(watched).await, "{system_limit,system_limit,none,none}");
    assert_eq!(near.eval(&format!("{}.", counter("alice", "beam_monitors_over_limit"))).await, "2");
}

#[tokio::test]
async fn what_waits_for_a_nodes_word_on_an_atom_is_bounded_and_the_rest_arrives_in_order() {
    let mut pair = Pair::start("", "held_messages_max = 2", false).await;
    // It doesn't answer until it is told to.
    pair.far.eval("sys:suspend(rex).").await;
    pair.near.eval(&format!("{CASTS} lists:seq(1, 4)].")).await;
    pair.far_until(&format!("{} =:= 2", counter("bob", "held_over_limit"))).await;
    let refused = "gen_server:call({'sink@bob', 'alice@127.0.0.1'}, anything).";
    assert_eq!(pair.near.eval(refused).await, "{error,{legation,overload}}");
    assert_eq!(pair.far.eval(&format!("{GOT}.")).await, "[]");
    pair.far.eval("sys:resume(rex).").await;
    pair.far_until(&format!("length({GOT}) =:= 2")).await;
    assert_eq!(pair.far.eval(&format!("[N || {{'$gen_cast', {{_, N}}}} <- {GOT}].")).await, "[1,2]");
}

#[tokio::test]
async fn an_atom_that_a_node_does_not_have_never_reaches_it() {
    let mut pair = Pair::start("", "", false).await;
    // Each of them twice: the second time the node has said a moment ago that it does not have it.
    let calls = |from: u32| {
        format!(
            "lists:usort([catch gen_server:call({{'sink@bob', 'alice@127.0.0.1'}}, list_to_atom(\"nobody_has_\" ++ integer_to_list(N)))
             || N <- lists:seq({from}, {from} + 9), _ <- [1, 2]])."
        )
    };
    let refused = "[{error,{legation,undecodable}}]";
    assert_eq!(pair.near.eval(&calls(1)).await, refused);
    // What asking takes at first is loaded by now.
    let atoms = pair.far.eval("erlang:system_info(atom_count).").await;
    assert_eq!(pair.near.eval(&calls(11)).await, refused);
    assert_eq!(pair.far.eval("erlang:system_info(atom_count).").await, atoms);
    assert_eq!(pair.far.eval(&format!("{GOT}.")).await, "[]");
}

#[tokio::test]
async fn a_caller_that_ends_while_its_call_is_held_leaves_no_process_behind() {
    let mut pair = Pair::start("", "", false).await;
    pair.far.eval("sys:suspend(rex).").await;
    pair.near.eval(&format!("{CASTS} [1]].")).await;
    let call = "register(caller, spawn(fun() -> gen_server:call({'sink@bob', 'alice@127.0.0.1'}, ok, infinity) end)).";
    pair.near.eval(call).await;
    pair.far_until(&format!("{} =:= 1", of_session("calls_served"))).await;
    pair.near.eval("exit(whereis(caller), kill).").await;
    // By then bob has been told.
    pair.far_until(&format!("{} =:= 0", of_session("calls_served"))).await;
    pair.far.eval("sys:resume(rex).").await;
    pair.far_until(&format!("length({GOT}) =:= 2")).await;
    let stand_in = format!(
        "[StandIn] = [P || {{'$gen_call', {{P, _}}, _}} <- {GOT}],
        Monitor = monitor(process, StandIn), receive {{'DOWN', Monitor, process, StandIn, _}} -> gone end."
    );
    assert_eq!(pair.far.eval(&stand_in).await, "gone");
}

#[tokio::test]
async fn a_node_that_does_not_read_loses_no_connection_to_large_replies_and_every_caller_is_told() {
    let mut pair = Pair::start("beam_queue_bytes_max = 2097152", "", false).await;
    let calls = "
        Self = self(),
        [spawn(fun() -> Self ! {ended, catch gen_server:call({'sink@bob', 'alice@127.0.0.1'}, N, infinity)} end)
         || N <- lists:seq(1, 60)].";
    pair.near.eval(calls).await;
    pair.far_until(&format!("length({GOT}) =:= 60")).await;
    pair.near.stop();
    pair.far.eval("sink ! {answer_all, binary:copy(<<7>>, 1024 * 1024)}.").await;
    // Alice has taken all of them, whatever has become of them.
    pair.far_until(&format!("{} =:= 0", of_session("calls_served"))).await;
    pair.far_until(&format!("{} =:= 0", of_session("queue_bytes"))).await;
    pair.near.resume();
    let ended = "
        Ended = [receive {ended, E} -> E end || _ <- lists:seq(1, 60)],
        {length([1 || E <- Ended, is_binary(E)]) + length([1 || {error, {legation, overload}} <- Ended]),
         lists:member({error, {legation, overload}}, Ended)}.";
    assert_eq!(pair.near.eval(ended).await, "{60,true}");
}

#[tokio::test]
async fn the_gate_is_shown_as_much_of_one_peer_as_the_limit_says() {
    let mut pair = Pair::start("", "held_messages_max = 2", true).await;
    // A gate that takes its time.
    pair.far.eval("gen_server:call({legation, 'bob@127.0.0.1'}, {gate, self()}).").await;
    pair.near.eval(&format!("{CASTS} lists:seq(1, 2)].")).await;
    let shown = "receive {legation_gate, Id, _, cast, 0, none, #{op := cast}, P} -> put(id, Id), binary_to_term(P, [safe]) end.";
    assert_eq!(pair.far.eval(shown).await, "{an_atom_that_bob_has_not_seen,1}");
    pair.near.eval(&format!("{CASTS} [3]].")).await;
    pair.far_until(&format!("{} =:= 1", counter("bob", "gate_over_limit"))).await;
    // One that is answered makes room for the next.
    pair.far.eval("gen_server:cast({legation, 'bob@127.0.0.1'}, {gate, get(id), ok}).").await;
    assert_eq!(pair.far.eval(&format!("{}.", counter("bob", "gate_over_limit"))).await, "1");
    pair.near.eval(&format!("{CASTS} [4]].")).await;
    let rest = "[receive {legation_gate, _, _, cast, _, _, _, P} -> element(2, binary_to_term(P, [safe])) end || _ <- [1, 2]].";
    assert_eq!(pair.far.eval(rest).await, "[2,4]");
}

#[tokio::test]
async fn an_engine_that_does_not_read_holds_its_window_and_no_more_and_gets_the_rest_when_it_does() {
    let mut pair = Pair::start("queue_bytes_max = 4194304", "credit_bytes = 65536", false).await;
    let slow = "
        Slow = spawn(fun() ->
            receive go -> ok end,
            (fun Loop(Got) ->
                receive
                    {'$gen_cast', {N, _}} -> Loop([N | Got]);
                    {'$gen_call', From, _} -> gen_server:reply(From, lists:reverse(Got)), Loop(Got)
                end
            end)([])
        end),
        register(slow, Slow),
        gen_server:call({legation, 'bob@127.0.0.1'}, {publish, <<\"slow\">>, Slow, []}).";
    assert_eq!(pair.far.eval(slow).await, "ok");
    pair.near_until("is_pid(gen_server:call({legation, 'alice@127.0.0.1'}, {whereis, <<\"slow@bob\">>}))").await;
    let casts =
        "[gen_server:cast({'slow@bob', 'alice@127.0.0.1'}, {N, binary:copy(<<7>>, 8192)}) || N <- lists:seq(1, 100)].";
    pair.near.eval(casts).await;
    pair.far_until("element(2, process_info(whereis(slow), message_queue_len)) >= 7").await;
    // Others are not held up by it; and what comes behind this one would have come before it.
    pair.near.eval("gen_server:cast({'sink@bob', 'alice@127.0.0.1'}, 42).").await;
    pair.far_until(&format!("lists:member({{'$gen_cast', 42}}, {GOT})")).await;
    pair.far_until(&format!("{} > 0", counter("bob", "mailboxes_asked"))).await;
    let waiting = "element(2, process_info(whereis(slow), message_queue_len)) =< 9.";
    assert_eq!(pair.far.eval(waiting).await, "true");
    pair.far.eval("slow ! go.").await;
    let all = "gen_server:call({'slow@bob', 'alice@127.0.0.1'}, 0) =:= lists:seq(1, 100)";
    pair.near_until(all).await;
}

#[tokio::test]
async fn what_waits_for_longer_than_it_may_is_dropped_and_a_call_refused() {
    let mut pair = Pair::start("message_ttl_ms = 100", "credit_bytes = 65536", false).await;
    // Past the window of an engine that reads nothing; the call is behind them.
    let casts =
        "[gen_server:cast({'sink@bob', 'alice@127.0.0.1'}, {N, binary:copy(<<7>>, 8192)}) || N <- lists:seq(1, 100)].";
    pair.near.eval(casts).await;
    let refused = "gen_server:call({'sink@bob', 'alice@127.0.0.1'}, binary:copy(<<7>>, 8192)).";
    assert_eq!(pair.near.eval(refused).await, "{error,{legation,expired}}");
    let expired = "maps:get(expired, maps:get(<<\"bob\">>, maps:get(sessions, gen_server:call({legation, 'alice@127.0.0.1'}, counters))))";
    pair.near_until(&format!("{expired} > 80")).await;
}

#[tokio::test]
async fn a_peer_that_takes_too_little_is_left_where_overflow_says_so() {
    let mut pair =
        Pair::start("overflow = \"disconnect\"\nqueue_bytes_max = 65536", "credit_bytes = 65536", false).await;
    pair.near.eval("{ok, _, _} = gen_server:call({legation, 'alice@127.0.0.1'}, monitor_peers).").await;
    let casts =
        "[gen_server:cast({'sink@bob', 'alice@127.0.0.1'}, {N, binary:copy(<<7>>, 8192)}) || N <- lists:seq(1, 100)].";
    pair.near.eval(casts).await;
    let left = "receive {legation, _, {peer_down, <<\"bob\">>, Reason}} -> Reason end.";
    assert_eq!(pair.near.eval(left).await, "{local,overload}");
    assert_eq!(pair.near.eval(&format!("{}.", counter("alice", "sessions_overflowed"))).await, "1");
}

#[tokio::test]
async fn who_would_rather_wait_than_be_refused_is_told_when_there_is_room() {
    let mut pair = Pair::start("queue_bytes_max = 65536", "credit_bytes = 65536", false).await;
    let calls = "
        Self = self(),
        [spawn(fun() -> Self ! {answer, catch gen_server:call({'sink@bob', 'alice@127.0.0.1'}, binary:copy(<<7>>, 8192), infinity)} end)
         || _ <- lists:seq(1, 30)].";
    pair.near.eval(calls).await;
    let overload = "receive {answer, {error, {legation, overload}}} -> full end.";
    assert_eq!(pair.near.eval(overload).await, "full");
    let wait = "
        Self = self(),
        spawn(fun() -> Self ! {room, gen_server:call({legation, 'alice@127.0.0.1'}, {wait_room, <<\"sink@bob\">>, 60000}, infinity)} end),
        receive {room, _} -> early after 100 -> waits end.";
    assert_eq!(pair.near.eval(wait).await, "waits");
    pair.far.eval("sink ! {answer_all, ok}.").await;
    assert_eq!(pair.near.eval("receive {room, Answer} -> Answer end.").await, "ok");
    let nobody = "gen_server:call({legation, 'alice@127.0.0.1'}, {wait_room, <<\"nobody@bob\">>, 1}).";
    assert_eq!(pair.near.eval(nobody).await, "{error,noproc}");
}
