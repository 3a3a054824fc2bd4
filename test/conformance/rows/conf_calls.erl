%% gen_server:call/2,3 and what it does when something happens meanwhile.
-module(conf_calls).

-export([rows/0]).
%% For others.
-export([ways/1, meanwhile/2]).

-import(conf_lib, [ended/1, within/2, caller/1, result/1, same/1, barrier/0, holds/2, finish/2, kill/1, next/0, nothing_left/0]).

rows() ->
    [
        {call, fun call/1},
        {call_without_timeout, fun call_without_timeout/1},
        {call_via_global, fun call_via_global/1},
        {call_unicode_name, none(), fun call_unicode_name/1},
        {call_long_name, none(), fun call_long_name/1},
        {call_missing_name, fun call_missing_name/1},
        {call_missing_name_without_timeout, fun call_missing_name_without_timeout/1},
        {call_missing_global, fun call_missing_global/1},
        {call_dead_pid, fun call_dead_pid/1},
        {call_dead_pid_without_timeout, fun call_dead_pid_without_timeout/1},
        {call_times_out, fun call_times_out/1},
        {call_times_out_at_once, fun call_times_out_at_once/1},
        {call_late_reply, fun call_late_reply/1},
        {call_late_reply_of_many, fun call_late_reply_of_many/1},
        {call_ends_normal, none(), fun(_) -> meanwhile("call_ends_normal", normal) end},
        {call_ends_shutdown, none(), fun(_) -> meanwhile("call_ends_shutdown", shutdown) end},
        {call_ends_shutdown_term, none(), fun(_) -> meanwhile("call_ends_shutdown_term", {shutdown, secret}) end},
        {call_ends_otherwise, none(), fun(_) -> meanwhile("call_ends_otherwise", oops) end},
        {call_ends_noproc, none(), fun(_) -> meanwhile("call_ends_noproc", noproc) end},
        {call_ends_noconnection, none(), fun(_) -> meanwhile("call_ends_noconnection", noconnection) end},
        {call_killed, none(), fun(_) -> meanwhile("call_killed", kill) end},
        {call_crashes_engine, fun call_crashes_engine/1},
        {call_delegated, fun call_delegated/1},
        {call_delegated_late, fun call_delegated_late/1},
        {call_answered_twice, fun call_answered_twice/1},
        {call_answered_then_stopped, none(), fun call_answered_then_stopped/1},
        {call_handed_on, fun call_handed_on/1},
        {call_handed_on_by_a_server, fun call_handed_on_by_a_server/1},
        {call_caller_dies, fun call_caller_dies/1},
        {call_caller_is_watched, fun call_caller_is_watched/1},
        {call_caller_is_watched_allowed, carol(), fun call_caller_is_watched/1},
        {call_caller_is_killed_watched, fun call_caller_is_killed_watched/1},
        {call_caller_gets_a_message, fun call_caller_gets_a_message/1},
        {call_caller_gets_an_exit, fun call_caller_gets_an_exit/1},
        {call_caller_gets_an_exit_allowed, carol(), fun call_caller_gets_an_exit/1},
        {call_caller_is_linked, fun call_caller_is_linked/1},
        {call_caller_is_linked_allowed, carol(), fun call_caller_is_linked_allowed/1},
        {call_from_as_seen, fun call_from_as_seen/1},
        {call_tag_alias, fun call_tag_alias/1},
        {call_tag_reference, fun call_tag_reference/1},
        {call_tag_any_term, fun call_tag_any_term/1},
        {call_tag_of_multi_call, fun call_tag_of_multi_call/1},
        {call_bad_from, fun call_bad_from/1},
        {call_name_taken_over, fun call_name_taken_over/1}
    ].

none() -> #{module => none}.
carol() -> #{realm => <<"carol">>}.

%% All ways to say which process.
ways(#{name := Name, pid := Pid, global := Global}) -> [Name, Pid, Global].

call(Engine) -> same([gen_server:call(Way, {echo, 1}) || Way <- ways(Engine)]).

call_without_timeout(Engine) -> same([gen_server:call(Way, {echo, 1}, infinity) || Way <- ways(Engine)]).

call_via_global(#{global := {global, Global}}) -> gen_server:call({via, global, Global}, {echo, 1}).

call_unicode_name(_) ->
    Engine = conf_target:engine([$p, 16#ee, $n, $g, 16#20ac, 16#1f600]),
    same([gen_server:call(Way, {echo, 1}) || Way <- ways(Engine)]).

call_long_name(_) ->
    Engine = conf_target:engine(lists:duplicate(255 - length("@alice"), $n)),
    same([gen_server:call(Way, {echo, 1}) || Way <- ways(Engine)]).

call_missing_name(#{node := Node}) -> ended(fun() -> gen_server:call({'nobody@alice', Node}, {echo, 1}) end).

call_missing_name_without_timeout(#{node := Node}) ->
    ended(fun() -> gen_server:call({'nobody@alice', Node}, {echo, 1}, infinity) end).

call_missing_global(_) -> ended(fun() -> gen_server:call({global, <<"nobody@alice">>}, {echo, 1}) end).

call_dead_pid(Engine) ->
    shutdown = finish(Engine, shutdown),
    ended(fun() -> gen_server:call(maps:get(pid, Engine), {echo, 1}) end).

call_dead_pid_without_timeout(Engine) ->
    shutdown = finish(Engine, shutdown),
    ended(fun() -> gen_server:call(maps:get(pid, Engine), {echo, 1}, infinity) end).

call_times_out(Engine) -> same([ended(fun() -> gen_server:call(Way, {hold, 1}, 20) end) || Way <- ways(Engine)]).

call_times_out_at_once(Engine) -> same([ended(fun() -> gen_server:call(Way, {hold, 1}, 0) end) || Way <- ways(Engine)]).

call_late_reply(#{pid := Pid} = Engine) ->
    Ended = ended(fun() -> gen_server:call(Pid, {hold, 1}, 20) end),
    holds(Engine, 1),
    Released = gen_server:call(Pid, {release, 1, late}),
    barrier(),
    {Ended, Released, nothing_left()}.

call_late_reply_of_many(#{pid := Pid} = Engine) ->
    Ended = [ended(fun() -> gen_server:call(Way, {hold, N}, 1) end) || N <- lists:seq(1, 20), Way <- ways(Engine)],
    holds(Engine, 20),
    Released = gen_server:call(Pid, {release_all, late}),
    barrier(),
    {same(Ended), Released, nothing_left()}.

%% A call waits, and the engine comes to its end: by each way, with and without a timeout.
meanwhile(Name, Reason) ->
    same([
        begin
            Engine = conf_target:engine(Name ++ "_" ++ integer_to_list(N)),
            Way = lists:nth(Which, ways(Engine)),
            Caller = caller(fun() -> gen_server:call(Way, {hold, 1}, Timeout) end),
            holds(Engine, 1),
            case Reason of
                kill -> kill(Engine);
                _ -> finish(Engine, Reason)
            end,
            result(Caller)
        end
     || {N, {Which, Timeout}} <- lists:zip(lists:seq(1, 6), [{W, T} || W <- [1, 2, 3], T <- [20000, infinity]])
    ]).

call_crashes_engine(#{name := Name}) ->
    %% The stack trace is no part of what is compared.
    case ended(fun() -> gen_server:call(Name, crash) end) of
        {exits, {{oops, Stack}, Call}} when is_list(Stack) -> {exits, {{oops, 'Stack'}, Call}};
        Other -> Other
    end.

call_delegated(#{name := Name}) -> {gen_server:call(Name, {delegate, done}), nothing_left()}.

call_delegated_late(#{name := Name} = Engine) ->
    Ended = ended(fun() -> gen_server:call(Name, {delegate_late, done}, 1) end),
    %% The second is answered after the first.
    done = gen_server:call(Name, {delegate_late, done}),
    1 = gen_server:call(maps:get(pid, Engine), {echo, 1}),
    {Ended, nothing_left()}.

call_answered_twice(#{name := Name}) ->
    Reply = gen_server:call(Name, {twice, yes}),
    %% Between BEAM nodes the second may be in time, and stay in the mailbox.
    barrier(),
    _ = nothing_left(),
    {Reply, gen_server:call(Name, {echo, 1})}.

%% The reply never comes after the DOWN.
call_answered_then_stopped(_) ->
    same([
        begin
            #{pid := Pid} = conf_target:engine("call_answered_" ++ integer_to_list(N), #{global => false}),
            ended(fun() -> gen_server:call(Pid, {reply_and_stop, yes, shutdown}) end)
        end
     || N <- lists:seq(1, 30)
    ]).

%% A request that names another process as the one who waits for the answer.
call_handed_on(#{name := Name}) ->
    Caller = caller(fun() -> {Tag, Reply} = next(), {is_reference(Tag), Reply} end),
    Name ! {'$gen_call', {Caller, make_ref()}, {echo, handed_on}},
    {result(Caller), nothing_left()}.

%% The usual form of that: a server here passes on what it was asked.
call_handed_on_by_a_server(#{name := Name}) ->
    Server = spawn_link(fun() ->
        {'$gen_call', From, Request} = next(),
        Name ! {'$gen_call', From, Request},
        receive stop -> ok end
    end),
    Reply = gen_server:call(Server, {echo, handed_on}),
    unlink(Server),
    exit(Server, kill),
    {Reply, nothing_left()}.

call_caller_dies(#{pid := Pid} = Engine) ->
    Caller = spawn(fun() -> gen_server:call(Pid, {hold, 1}) end),
    holds(Engine, 1),
    exit(Caller, kill),
    barrier(),
    {gen_server:call(Pid, {release, 1, late}), gen_server:call(Pid, {echo, 1})}.

call_caller_is_watched(Engine) -> watched(Engine, oops).
call_caller_is_killed_watched(Engine) -> watched(Engine, kill).

%% A pool, say, that has lent something to the caller.
watched(#{name := Name, id := Id}, Reason) ->
    Row = self(),
    Caller = spawn(fun() ->
        ok = gen_server:call(Name, watch_me),
        Row ! watched,
        receive stop -> ok end
    end),
    watched = next(),
    exit(Caller, Reason),
    conf_target:at(conf_engine, log, [Id, 1]).

call_caller_gets_a_message(#{name := Name}) ->
    Reply = gen_server:call(Name, {send_me, hello}),
    barrier(),
    {Reply, nothing_left()}.

call_caller_gets_an_exit(#{name := Name}) ->
    process_flag(trap_exit, true),
    Reply = gen_server:call(Name, {exit_me, oops}),
    barrier(),
    {Reply, nothing_left()}.

call_caller_is_linked(#{name := Name} = Engine) ->
    process_flag(trap_exit, true),
    Reply = gen_server:call(Name, link_me),
    Reason = kill(Engine),
    barrier(),
    {Reply, Reason, nothing_left()}.

%% Waits for the one signal.
call_caller_is_linked_allowed(#{name := Name} = Engine) ->
    process_flag(trap_exit, true),
    Reply = gen_server:call(Name, link_me),
    Reason = kill(Engine),
    {Reply, Reason, next()}.

call_from_as_seen(#{name := Name}) -> gen_server:call(Name, who).

call_tag_alias(#{name := Name}) ->
    Alias = erlang:alias([reply]),
    Name ! {'$gen_call', {self(), [alias | Alias]}, {echo, 1}},
    First = next(),
    %% It has gone with the first reply.
    Name ! {'$gen_call', {self(), [alias | Alias]}, {echo, 2}},
    barrier(),
    1 = gen_server:call(Name, {echo, 1}),
    {First =:= {[alias | Alias], 1}, nothing_left()}.

call_tag_reference(#{name := Name}) ->
    Ref = make_ref(),
    Name ! {'$gen_call', {self(), Ref}, {echo, 1}},
    next() =:= {Ref, 1}.

call_tag_any_term(#{name := Name}) ->
    Tags = [17, {my, <<"tag">>}, [], [alias], "tag", #{tag => 1}, {self(), make_ref()}, fun erlang:node/0],
    same([
        begin
            Name ! {'$gen_call', {self(), Tag}, {echo, 1}},
            next() =:= {Tag, 1}
        end
     || Tag <- Tags
    ]).

%% Since OTP 26.
call_tag_of_multi_call(#{name := Name}) ->
    Alias = erlang:alias([explicit_unalias]),
    Tag = [[alias | Alias] | make_ref()],
    Name ! {'$gen_call', {self(), Tag}, {echo, 1}},
    Seen = next() =:= {Tag, 1},
    erlang:unalias(Alias),
    Name ! {'$gen_call', {self(), Tag}, {echo, 2}},
    1 = gen_server:call(Name, {echo, 1}),
    barrier(),
    {Seen, nothing_left()}.

%% What isn't quite a call harms nobody.
call_bad_from(#{name := Name}) ->
    [
        Name ! Message
     || Message <- [
            {'$gen_call', {not_a_pid, make_ref()}, unknown},
            {'$gen_call', {node(), 1}, unknown},
            {'$gen_call', [], unknown},
            {'$gen_call'},
            {'$gen_cast'}
        ]
    ],
    barrier(),
    within(5000, fun() -> gen_server:call({'helper@alice', element(2, Name)}, {echo, 1}) end).

%% The engine ends, and another has its name.
call_name_taken_over(#{name := Name, pid := Old} = Engine) ->
    shutdown = finish(Engine, shutdown),
    New = conf_target:engine("call_name_taken_over"),
    {
        same([gen_server:call(Way, {echo, 1}) || Way <- ways(New)]),
        gen_server:call(Name, {echo, 1}),
        maps:get(pid, New) =:= Old,
        ended(fun() -> gen_server:call(Old, {echo, 1}) end)
    }.

