%% The node itself: pings, monitors of nodes, lists of nodes, and the end of a connection.
-module(conf_nodes).

-export([rows/0]).

-import(conf_lib, [ended/1, within/2, caller/1, result/1, holds/2, same/1, next/0, nothing_left/0]).
-import(conf_calls, [ways/1]).

rows() ->
    [
        {ping, none(), fun(_) -> {net_adm:ping(conf_target:node()), nothing_left()} end},
        {ping_many_times, none(), fun(_) -> same([net_adm:ping(conf_target:node()) || _ <- lists:seq(1, 50)]) end},
        {connect_node, none(), fun(_) -> net_kernel:connect_node(conf_target:node()) end},
        {nodes_visible, none(), fun(_) -> lists:member(conf_target:node(), nodes()) end},
        {nodes_hidden, none(), fun(_) -> lists:member(conf_target:node(), nodes(hidden)) end},
        {nodes_connected, none(), fun(_) -> lists:member(conf_target:node(), nodes(connected)) end},
        {nodes_known, none(), fun(_) -> lists:member(conf_target:node(), nodes(known)) end},
        {monitor_node, none(#{disconnects => true}), fun node_monitored/1},
        {monitor_node_twice, none(#{disconnects => true}), fun monitor_node_twice/1},
        {monitor_node_off, none(#{disconnects => true}), fun monitor_node_off/1},
        {monitor_node_not_connected, none(#{disconnects => true}), fun monitor_node_not_connected/1},
        {monitor_nodes, none(#{disconnects => true}), fun monitor_nodes/1},
        {disconnect_node, none(#{disconnects => true}), fun disconnected/1},
        {disconnect_node_twice, none(#{disconnects => true}), fun disconnect_node_twice/1},
        {disconnect_and_call, #{disconnects => true}, fun disconnect_and_call/1},
        {disconnect_and_call_pid, #{disconnects => true}, fun disconnect_and_call_pid/1},
        {disconnect_in_a_call, #{disconnects => true}, fun disconnect_in_a_call/1},
        {disconnect_in_a_call_without_timeout, #{disconnects => true}, fun disconnect_in_a_call_infinity/1},
        {disconnect_in_a_call_by_global, #{disconnects => true}, fun disconnect_in_a_call_global/1},
        {disconnect_and_late_reply, #{disconnects => true}, fun disconnect_and_late_reply/1},
        %% After these :global of two BEAM nodes may no longer be at one.
        {disconnect_many_times, #{disconnects => true, fresh => true}, fun disconnect_many_times/1},
        {disconnect_under_load, #{disconnects => true, fresh => true}, fun disconnect_under_load/1},
        {net_kernel_requests, none(), fun net_kernel_requests/1},
        {servers_of_otp, fun servers_of_otp/1}
    ].

none() -> #{module => none}.
none(Options) -> Options#{module => none}.

reconnected(Node) -> true = net_kernel:connect_node(Node).

node_monitored(_) ->
    Node = conf_target:node(),
    true = erlang:monitor_node(Node, true),
    erlang:disconnect_node(Node),
    Seen = next(),
    reconnected(Node),
    {Seen, nothing_left()}.

monitor_node_twice(_) ->
    Node = conf_target:node(),
    [true, true] = [erlang:monitor_node(Node, true) || _ <- [1, 2]],
    erlang:disconnect_node(Node),
    Seen = [next(), next()],
    reconnected(Node),
    {Seen, nothing_left()}.

monitor_node_off(_) ->
    Node = conf_target:node(),
    [true, true] = [erlang:monitor_node(Node, Flag) || Flag <- [true, false]],
    erlang:disconnect_node(Node),
    reconnected(Node),
    nothing_left().

%% It connects.
monitor_node_not_connected(_) ->
    Node = conf_target:node(),
    erlang:disconnect_node(Node),
    true = erlang:monitor_node(Node, true),
    conf_lib:await(fun() -> lists:member(Node, nodes(connected)) end),
    Left = nothing_left(),
    erlang:monitor_node(Node, false),
    {Left, nothing_left()}.

monitor_nodes(_) ->
    Node = conf_target:node(),
    ok = net_kernel:monitor_nodes(true, #{node_type => all, nodedown_reason => true}),
    erlang:disconnect_node(Node),
    {nodedown, Node, #{nodedown_reason := Reason}} = next(),
    reconnected(Node),
    {nodeup, Node, _} = next(),
    ok = net_kernel:monitor_nodes(false, #{node_type => all, nodedown_reason => true}),
    {Reason, nothing_left()}.

disconnected(_) ->
    Node = conf_target:node(),
    Seen = erlang:disconnect_node(Node),
    Connected = lists:member(Node, nodes(connected)),
    {Seen, Connected, net_adm:ping(Node)}.

disconnect_node_twice(_) ->
    Node = conf_target:node(),
    Seen = [erlang:disconnect_node(Node), erlang:disconnect_node(Node)],
    reconnected(Node),
    Seen.

%% The next call connects again, and the pid is the same.
disconnect_and_call(#{name := Name, pid := Pid, node := Node}) ->
    erlang:disconnect_node(Node),
    {gen_server:call(Name, {echo, 1}), gen_server:call(Pid, {echo, 1})}.

disconnect_and_call_pid(#{pid := Pid, node := Node}) ->
    erlang:disconnect_node(Node),
    gen_server:call(Pid, {echo, 1}).

held(Engine, Way, Timeout) ->
    Caller = caller(fun() -> gen_server:call(Way, {hold, 1}, Timeout) end),
    holds(Engine, 1),
    Caller.

disconnect_in_a_call(#{name := Name, node := Node} = Engine) ->
    Caller = held(Engine, Name, 20000),
    erlang:disconnect_node(Node),
    result(Caller).

disconnect_in_a_call_infinity(#{name := Name, node := Node} = Engine) ->
    Caller = held(Engine, Name, infinity),
    erlang:disconnect_node(Node),
    result(Caller).

disconnect_in_a_call_global(#{global := Global, node := Node} = Engine) ->
    Caller = held(Engine, Global, 20000),
    erlang:disconnect_node(Node),
    result(Caller).

%% What is answered after the connection has ended reaches nobody.
disconnect_and_late_reply(#{name := Name, node := Node} = Engine) ->
    Row = self(),
    spawn_link(fun() ->
        Ended = ended(fun() -> gen_server:call(Name, {hold, 1}, 20000) end),
        Released = gen_server:call(Name, {release, 1, late}),
        1 = gen_server:call(Name, {echo, 1}),
        Row ! {Ended, Released, nothing_left()}
    end),
    holds(Engine, 1),
    erlang:disconnect_node(Node),
    next().

disconnect_many_times(#{name := Name, pid := Pid, node := Node}) ->
    same([
        begin
            erlang:disconnect_node(Node),
            {gen_server:call(Name, {echo, N}) =:= N, gen_server:call(Pid, {echo, N}) =:= N}
        end
     || N <- lists:seq(1, 30)
    ]).

%% All come to some end, and all is well afterwards.
disconnect_under_load(#{pid := Pid, node := Node}) ->
    Callers = [
        caller(fun() -> [ended(fun() -> gen_server:call(Pid, {echo, N}, 10000) end) || N <- lists:seq(1, 100)] end)
     || _ <- lists:seq(1, 20)
    ],
    [
        begin
            receive after 5 -> ok end,
            erlang:disconnect_node(Node)
        end
     || _ <- lists:seq(1, 10)
    ],
    Ends = [
        case {N, End} of
            {N, N} -> answered;
            {_, {exits, {{nodedown, Node}, _}}} -> lost;
            Other -> Other
        end
     || Caller <- Callers, {N, End} <- lists:zip(lists:seq(1, 100), result(Caller))
    ],
    {lists:usort(Ends) -- [lost], gen_server:call(Pid, {echo, 1}), nothing_left()}.

%% What BEAM nodes ask each other now and then: an answer, or an end at once.
net_kernel_requests(_) ->
    Node = conf_target:node(),
    [
        within(5000, fun() -> gen_server:call({net_kernel, Node}, {is_auth, node()}, infinity) end),
        case within(5000, fun() -> gen_server:call({net_kernel, Node}, longnames, 4000) end) of
            waits -> waits;
            _ -> ends
        end
    ].

%% A server of OTP that is on every BEAM node.
servers_of_otp(#{node := Node}) ->
    case ended(fun() -> gen_server:call({kernel_sup, Node}, count_children, 5000) end) of
        [_ | _] -> an_answer;
        Other -> Other
    end.
