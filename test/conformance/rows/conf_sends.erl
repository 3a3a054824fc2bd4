%% Casts, messages and timers.
-module(conf_sends).

-export([rows/0]).

-import(conf_lib, [ended/1, same/1, barrier/0, nothing_left/0]).
-import(conf_calls, [ways/1]).

rows() ->
    [
        {cast, fun cast/1},
        {cast_via_global, fun cast_via_global/1},
        {cast_missing, fun cast_missing/1},
        {cast_dead_pid, fun cast_dead_pid/1},
        {send, plain(), fun send/1},
        {send_terms, plain(), fun send_terms/1},
        {send_missing_name, fun send_missing_name/1},
        {send_dead_pid, fun send_dead_pid/1},
        {send_options, plain(), fun send_options/1},
        {send_nosuspend, plain(), fun send_nosuspend/1},
        {send_global, plain(), fun send_global/1},
        {send_global_missing, fun send_global_missing/1},
        {send_noconnect, plain(#{disconnects => true}), fun send_noconnect/1},
        {send_connects, plain(#{disconnects => true}), fun send_connects/1},
        {send_like_a_system_message, plain(), fun send_like_a_system_message/1},
        {send_like_a_signal, plain(), fun send_like_a_signal/1},
        {send_like_a_reply, plain(), fun send_like_a_reply/1},
        {send_after, plain(), fun send_after/1},
        {send_after_by_timer, plain(), fun send_after_by_timer/1},
        {send_interval_by_timer, plain(), fun send_interval/1},
        {cast_asked_after, plain(), fun(Engine) -> asked_after(Engine, '$legation_cast') end},
        {send_asked_after, plain(), fun(Engine) -> asked_after(Engine, '$legation_send') end},
        {send_asked_after_missing, fun asked_after_missing/1},
        {send_a_pid, plain(), fun send_a_pid/1},
        {io_device, #{module => conf_io}, fun io_device/1}
    ].

plain() -> #{module => conf_plain}.
plain(Options) -> Options#{module => conf_plain}.

heard(#{id := Id, options := #{module := Module}}, Count) -> conf_target:at(Module, log, [Id, Count]);
heard(#{id := Id}, Count) -> conf_target:at(conf_engine, log, [Id, Count]).

cast(Engine) ->
    Told = same([gen_server:cast(Way, {to, N}) || {N, Way} <- lists:zip([1, 2, 3], ways(Engine))]),
    {Told, heard(Engine, 3)}.

cast_via_global(#{global := {global, Global}} = Engine) ->
    {gen_server:cast({via, global, Global}, hello), heard(Engine, 1)}.

cast_missing(#{node := Node}) ->
    Seen = same([gen_server:cast(Way, hello) || Way <- [{'nobody@alice', Node}, {global, <<"nobody@alice">>}]]),
    barrier(),
    {Seen, nothing_left()}.

cast_dead_pid(#{pid := Pid} = Engine) ->
    conf_lib:kill(Engine),
    Seen = gen_server:cast(Pid, hello),
    barrier(),
    {Seen, nothing_left()}.

send(#{name := Name, pid := Pid} = Engine) ->
    Sent = [Name ! {hello, 1}, Pid ! {hello, 2}, erlang:send(Name, {hello, 3}), erlang:send(Pid, {hello, 4})],
    {Sent, heard(Engine, 4)}.

send_terms(#{pid := Pid} = Engine) ->
    Terms = [hello, 1, 1.5, <<"b">>, [], {}, "s", [a | b], {1}, #{a => 1}, -1, 1 bsl 70, <<1:3>>, [[]], {{}}],
    [Pid ! Term || Term <- Terms],
    heard(Engine, length(Terms)) =:= Terms.

send_missing_name(#{node := Node}) ->
    Sent = {'nobody@alice', Node} ! hello,
    barrier(),
    {Sent, nothing_left()}.

send_dead_pid(#{pid := Pid} = Engine) ->
    conf_lib:kill(Engine),
    Sent = Pid ! hello,
    barrier(),
    {Sent, nothing_left()}.

send_options(#{name := Name, pid := Pid} = Engine) ->
    Options = [[], [noconnect], [nosuspend], [nosuspend, noconnect]],
    Sent = [erlang:send(To, {hello, N}, Option) || To <- [Name, Pid], {N, Option} <- lists:zip([1, 2, 3, 4], Options)],
    {same(Sent), heard(Engine, 8)}.

send_nosuspend(#{name := Name, pid := Pid} = Engine) ->
    Sent = [
        erlang:send_nosuspend(Name, {hello, 1}),
        erlang:send_nosuspend(Pid, {hello, 2}),
        erlang:send_nosuspend(Name, {hello, 3}, [noconnect])
    ],
    {Sent, heard(Engine, 3)}.

send_global(#{global := {global, Global}, pid := Pid} = Engine) ->
    {global:send(Global, {hello, 1}) =:= Pid, heard(Engine, 1)}.

send_global_missing(_) -> ended(fun() -> global:send(<<"nobody@alice">>, hello) end).

send_noconnect(#{name := Name, pid := Pid, node := Node} = Engine) ->
    true = erlang:disconnect_node(Node),
    Sent = [erlang:send(To, {hello, 1}, [noconnect]) || To <- [Name, Pid]],
    true = net_kernel:connect_node(Node),
    Pid ! {hello, 2},
    {Sent, heard(Engine, 1)}.

send_connects(#{name := Name, pid := Pid, node := Node} = Engine) ->
    true = erlang:disconnect_node(Node),
    Name ! {hello, 1},
    First = heard(Engine, 1),
    true = erlang:disconnect_node(Node),
    Pid ! {hello, 2},
    {First, heard(Engine, 2)}.

%% What a peer must not be made to do by a plain message. Between BEAM nodes nothing is looked at.
send_like_a_system_message(#{pid := Pid} = Engine) ->
    Heard = behind(Engine, [{system, {self(), make_ref()}, get_state}, {system, no}]),
    1 = gen_server:call(Pid, {echo, 1}),
    {Heard, [Reply || {_Ref, Reply} <- nothing_left()]}.

send_like_a_signal(#{pid := Pid} = Engine) ->
    behind(Engine, [
        {'EXIT', Pid, shutdown},
        {'DOWN', 1, process, anybody, oops},
        {io_request, 1, 2, 3},
        {io_reply, 1, 2},
        {nodedown, anywhere},
        {nodeup, anywhere},
        {global_name_conflict, 1, 2}
    ]).

send_like_a_reply(Engine) -> behind(Engine, [{make_ref(), reply}, {[alias | make_ref()], reply}]).

behind(#{pid := Pid} = Engine, Messages) ->
    [Pid ! Message || Message <- Messages],
    Pid ! the_last,
    last(Engine, 1).

last(Engine, Count) ->
    Heard = heard(Engine, Count),
    case lists:last(Heard) of
        the_last -> lists:droplast(Heard);
        _ -> last(Engine, length(Heard) + 1)
    end.

send_after(#{name := Name, pid := Pid}) ->
    [ended(fun() -> erlang:Function(1, To, hello) end) || Function <- [send_after, start_timer], To <- [Name, Pid]].

send_after_by_timer(#{name := Name, pid := Pid} = Engine) ->
    [{ok, _}, {ok, _}] = [timer:send_after(1, To, {hello, timer}) || To <- [Name, Pid]],
    heard(Engine, 2).

send_interval(#{pid := Pid} = Engine) ->
    {ok, Timer} = timer:send_interval(1, Pid, tick),
    Heard = heard(Engine, 3),
    {ok, cancel} = timer:cancel(Timer),
    lists:sublist(Heard, 3).

%% A cast or a message to which there is an answer when the engine has it.
asked_after(#{pid := Pid} = Engine, Label) ->
    {ended(fun() -> gen:call(Pid, Label, hello, 1000) end), heard(Engine, 1), nothing_left()}.

asked_after_missing(#{pid := Pid} = Engine) ->
    conf_lib:kill(Engine),
    ended(fun() -> gen:call(Pid, '$legation_send', hello, 1000) end).

send_a_pid(Engine) -> behind(Engine, [{hello, self()}, {hello, make_ref()}]).

%% The protocol of io devices is made of plain messages with pids in them.
io_device(#{pid := Pid}) -> conf_lib:within(1000, fun() -> io:put_chars(Pid, "hello") end).
