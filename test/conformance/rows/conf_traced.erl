%% seq_trace: a process with a token sends other control messages (those whose names end in _TT).
-module(conf_traced).

-export([rows/0]).

-import(conf_lib, [ended/1, same/1, barrier/0, kill/1, finish/2, next/0, nothing_left/0]).
-import(conf_calls, [ways/1]).

rows() ->
    [
        {traced_call, fun(Engine) -> traced(fun() -> call(Engine) end) end},
        {traced_call_with_flags, fun(Engine) -> traced(fun() -> with_flags(Engine) end) end},
        {traced_call_with_a_large_label, fun(Engine) -> traced(fun() -> large_label(Engine) end) end},
        {traced_call_missing, fun(Engine) -> traced(fun() -> call_missing(Engine) end) end},
        {traced_cast_and_send, fun(Engine) -> traced(fun() -> cast_and_send(Engine) end) end},
        {traced_request, fun(Engine) -> traced(fun() -> request(Engine) end) end},
        {traced_statem, #{module => conf_statem, args => off}, fun(Engine) -> traced(fun() -> statem(Engine) end) end},
        {traced_reply_by_alias, fun(Engine) -> traced(fun() -> by_alias(Engine) end) end},
        {traced_monitor, fun(Engine) -> traced(fun() -> monitored(Engine) end) end},
        {traced_link, fun(Engine) -> traced(fun() -> linked(Engine) end) end},
        {traced_linked_dies, fun traced_linked_dies/1},
        {traced_exit, fun traced_exit/1},
        {traced_large, fun(Engine) -> traced(fun() -> large(Engine) end) end},
        {traced_token_there, fun(#{name := Name}) -> traced(fun() -> gen_server:call(Name, token) end) end},
        {traced_token_here, fun token_here/1}
    ].

traced(Fun) ->
    _ = seq_trace:set_token(label, 17),
    Seen = ended(Fun),
    _ = seq_trace:set_token([]),
    Seen.

call(Engine) -> same([gen_server:call(Way, {echo, 1}) || Way <- ways(Engine)]).

with_flags(Engine) ->
    [seq_trace:set_token(Flag, true) || Flag <- [send, 'receive', print, timestamp, monotonic_timestamp]],
    call(Engine).

%% Any term since OTP 21.
large_label(Engine) ->
    _ = seq_trace:set_token(label, {a, <<"label">>, 1 bsl 70}),
    call(Engine).

call_missing(#{node := Node}) -> ended(fun() -> gen_server:call({'nobody@alice', Node}, {echo, 1}) end).

cast_and_send(#{id := Id, pid := Pid, name := Name}) ->
    gen_server:cast(Name, 1),
    gen_server:cast(Pid, 2),
    Name ! 3,
    Pid ! 4,
    _ = seq_trace:set_token([]),
    conf_target:at(conf_engine, log, [Id, 4]).

request(Engine) -> same([gen_server:receive_response(gen_server:send_request(Way, {echo, 1}), 10000) || Way <- ways(Engine)]).

statem(Engine) -> same([gen_statem:call(Way, state, {clean_timeout, 10000}) || Way <- ways(Engine)]).

by_alias(#{name := Name}) ->
    Alias = erlang:alias([reply]),
    Name ! {'$gen_call', {self(), [alias | Alias]}, {echo, 1}},
    next() =:= {[alias | Alias], 1}.

monitored(#{pid := Pid} = Engine) ->
    First = erlang:monitor(process, Pid),
    erlang:demonitor(First),
    Ref = erlang:monitor(process, Pid),
    finish(Engine, shutdown),
    {'DOWN', Ref, process, Pid, _} = Down = next(),
    Down.

linked(#{pid := Pid} = Engine) ->
    process_flag(trap_exit, true),
    true = same([link(Pid), unlink(Pid), link(Pid)]),
    kill(Engine),
    next().

%% Exit signals with a token; what becomes of the engine is in other rows, here the connection matters.
traced_linked_dies(#{pid := Pid}) ->
    {Linked, Ref} = spawn_monitor(fun() ->
        _ = seq_trace:set_token(label, 17),
        link(Pid),
        exit(oops)
    end),
    {'DOWN', Ref, process, Linked, _} = next(),
    barrier(),
    nothing_left().

traced_exit(#{pid := Pid}) ->
    Seen = traced(fun() -> exit(Pid, oops) end),
    barrier(),
    {Seen, nothing_left()}.

large(#{pid := Pid}) ->
    Large = binary:copy(<<"x">>, 300000),
    gen_server:call(Pid, {echo, Large}) =:= Large.

%% The token that comes back with the reply.
token_here(#{name := Name}) ->
    _ = seq_trace:set_token(label, 17),
    1 = gen_server:call(Name, {echo, 1}),
    Token = seq_trace:get_token(label),
    _ = seq_trace:set_token([]),
    Token.
