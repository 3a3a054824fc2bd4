%% Nodes that end and come again: the calling one under its name, the target under its own, and the engines' whole system.
-module(conf_incarnations).

-export([rows/0]).
%% On other nodes.
-export([connected/1, called/1]).

-import(conf_lib, [ended/1, barrier/0, caller/1, result/1, holds/2, same/1, next/0, nothing_left/0]).
-import(conf_calls, [ways/1]).

rows() ->
    [
        {caller_restarts, fun caller_restarts/1},
        {caller_restarts_many_times, #{slow => true}, fun caller_restarts_many_times/1},
        {caller_is_alive, fun caller_is_alive/1},
        {caller_dies_watched, fun caller_dies_watched/1},
        {target_restarts_monitor, ends(), fun restarts_monitor/1},
        {target_restarts_link, ends(), fun restarts_link/1},
        {target_restarts_in_a_call, ends(), fun restarts_in_a_call/1},
        {target_restarts_in_a_request, ends(), fun restarts_in_a_request/1},
        {target_restarts_global, ends(), fun restarts_global/1},
        {old_pid_monitor, ends(), fun(Engine) -> old_pid(Engine, fun old_monitor/1) end},
        {old_pid_link, ends(), fun(Engine) -> old_pid(Engine, fun old_link/1) end},
        {old_pid_unlink, ends(), fun(Engine) -> old_pid(Engine, fun old_unlink/1) end},
        {old_pid_send, ends(), fun(Engine) -> old_pid(Engine, fun old_send/1) end},
        {old_pid_call, ends(), fun(Engine) -> old_pid(Engine, fun old_call/1) end},
        {old_pid_exit, ends(), fun(Engine) -> old_pid(Engine, fun old_exit/1) end},
        {system_lost_monitor, ends(), fun lost_monitor/1},
        {system_lost_link, ends(), fun lost_link/1},
        {system_lost_in_a_call, ends(), fun lost_in_a_call/1},
        {system_lost_in_a_call_without_timeout, ends(), fun lost_in_a_call_infinity/1},
        {system_lost_and_back, ends(), fun lost_and_back/1},
        {node_lost_monitor, ends(), fun node_lost/1}
    ].

ends() -> #{disconnects => true, slow => true}.

%% On the other node.
connected(Way) -> gen_server:call(Way, {echo, 1}).
called(Way) -> ended(fun() -> gen_server:call(Way, {echo, 1}, 10000) end).

caller_restarts(#{name := Name} = Engine) ->
    Seen = same([
        begin
            conf_node:start("again", #{args => ["-hidden"]}),
            Called = conf_node:call("again", ?MODULE, called, [Name]),
            conf_node:kill("again"),
            Called
        end
     || _ <- [1, 2]
    ]),
    {Seen, gen_server:call(maps:get(pid, Engine), {echo, 1})}.

caller_restarts_many_times(#{name := Name}) ->
    same([
        begin
            conf_node:start("again", #{args => ["-hidden"]}),
            Called = conf_node:call("again", ?MODULE, called, [Name]),
            conf_node:kill("again"),
            Called
        end
     || _ <- lists:seq(1, 8)
    ]).

%% The old one is frozen, so its connection is still there when the new one comes under its name: the target says `alive`, is told to
%% go on, and ends the old connection. Neither needs epmd, which would not have two of one name.
caller_is_alive(#{name := Name, node := Node, id := Id}) ->
    [Short, _Host] = string:split(atom_to_list(Node), "@"),
    {port, Port, _} = erl_epmd:port_please(Short, {127, 0, 0, 1}),
    Options = #{
        args => ["-hidden", "-start_epmd", "false", "-epmd_module", "conf_epmd"],
        env => [{"CONFORMANCE_PORTS", Short ++ "=" ++ integer_to_list(Port)}]
    },
    conf_node:start("twice", Options),
    First = conf_node:call("twice", ?MODULE, called, [Name]),
    ok = conf_node:call("twice", gen_server, call, [Name, watch_me]),
    conf_node:freeze("twice"),
    conf_node:rename("twice", "frozen"),
    conf_node:start("twice", Options),
    Second = conf_node:call("twice", ?MODULE, called, [Name]),
    conf_node:kill("twice"),
    conf_node:kill("frozen"),
    _ = conf_target:at(conf_engine, log, [Id, 1]),
    {First, Second}.

%% With what reason an engine sees the end of a caller whose whole node ends. (The caller here is a process of another VM's that
%% lasts only as long as its call, unless it is registered.)
caller_dies_watched(#{name := Name, id := Id}) ->
    conf_node:start("watched", #{args => ["-hidden"]}),
    spawn(fun() -> ended(fun() -> conf_node:call("watched", conf_clusters, watched_and_held, [Name]) end) end),
    conf_lib:holds(#{id => Id}, watched),
    conf_node:kill("watched"),
    conf_target:at(conf_engine, log, [Id, 1]).

restarts_monitor(#{pid := Pid, name := Name} = Engine) ->
    [_, _] = [erlang:monitor(process, Item) || Item <- [Pid, Name]],
    conf_target:restart(),
    Downs = lists:sort([{Object, Reason} || {'DOWN', _, process, Object, Reason} <- [next(), next()]]),
    Back = conf_target:back(Engine),
    {Downs, same([gen_server:call(Way, {echo, 1}) || Way <- ways(Back)]), maps:get(pid, Back) =:= Pid}.

restarts_link(#{pid := Pid}) ->
    process_flag(trap_exit, true),
    link(Pid),
    conf_target:restart(),
    next().

restarts_in_a_call(#{name := Name, pid := Pid, global := Global} = Engine) ->
    Callers = [
        caller(fun() -> gen_server:call(Way, {hold, N}, Timeout) end)
     || {N, Way, Timeout} <- [{1, Name, 20000}, {2, Pid, 20000}, {3, Global, 20000}, {4, Name, infinity}]
    ],
    [holds(Engine, N) || N <- [1, 2, 3, 4]],
    conf_target:restart(),
    [result(Caller) || Caller <- Callers].

restarts_in_a_request(#{name := Name} = Engine) ->
    Request = gen_server:send_request(Name, {hold, 1}),
    holds(Engine, 1),
    conf_target:restart(),
    gen_server:receive_response(Request, 10000).

restarts_global(#{full := Full, pid := Pid} = Engine) ->
    conf_target:restart(),
    Gone = conf_lib:await(fun() -> global:whereis_name(Full) =/= Pid end),
    #{pid := New, global := Global} = conf_target:back(Engine),
    {Gone, global:whereis_name(Full) =:= New, gen_server:call(Global, {echo, 1})}.

%% A pid that was an engine's before the target was started anew; there is an engine of that name again, with another pid.
old_pid(#{pid := Old} = Engine, Fun) ->
    conf_target:restart(),
    #{pid := New} = Back = conf_target:back(Engine),
    {Fun(Back#{old => Old}), gen_server:call(New, {echo, 1})}.

old_monitor(#{old := Old}) ->
    Ref = erlang:monitor(process, Old),
    {'DOWN', Ref, process, Old, Reason} = next(),
    Reason.

old_link(#{old := Old}) ->
    process_flag(trap_exit, true),
    link(Old),
    {'EXIT', Old, Reason} = next(),
    Reason.

old_unlink(#{old := Old}) ->
    Seen = unlink(Old),
    barrier(),
    {Seen, nothing_left()}.

old_send(#{old := Old, id := Id}) ->
    Old ! hello,
    barrier(),
    conf_target:at(conf_engine, log, [Id]).

old_call(#{old := Old}) ->
    case ended(fun() -> gen_server:call(Old, {echo, 1}) end) of
        {exits, {Reason, _}} -> {exits, Reason};
        Other -> Other
    end.

old_exit(#{old := Old}) ->
    Seen = exit(Old, kill),
    barrier(),
    {Seen, nothing_left()}.

lost_monitor(#{pid := Pid, name := Name}) ->
    [_, _] = [erlang:monitor(process, Item) || Item <- [Pid, Name]],
    conf_target:lose_system(),
    lists:sort([{Object, Reason} || {'DOWN', _, process, Object, Reason} <- [next(), next()]]).

lost_link(#{pid := Pid}) ->
    process_flag(trap_exit, true),
    link(Pid),
    conf_target:lose_system(),
    next().

lost_in_a_call(#{name := Name} = Engine) ->
    Caller = caller(fun() -> gen_server:call(Name, {hold, 1}, 20000) end),
    holds(Engine, 1),
    conf_target:lose_system(),
    result(Caller).

lost_in_a_call_infinity(#{pid := Pid} = Engine) ->
    Caller = caller(fun() -> gen_server:call(Pid, {hold, 1}, infinity) end),
    holds(Engine, 1),
    conf_target:lose_system(),
    result(Caller).

lost_and_back(#{pid := Pid} = Engine) ->
    conf_target:lose_system(),
    Back = conf_target:back(Engine),
    {
        maps:get(pid, Back) =:= Pid,
        same([gen_server:call(Way, {echo, 1}) || Way <- ways(Back)]),
        case ended(fun() -> gen_server:call(Pid, {echo, 1}) end) of
            {exits, {Reason, _}} -> {exits, Reason};
            Other -> Other
        end
    }.

node_lost(#{pid := Pid}) ->
    Ref = erlang:monitor(process, Pid),
    conf_target:lose_node(),
    {'DOWN', Ref, process, Pid, Reason} = next(),
    Reason.
