%% An ordinary second BEAM node, its engines registered in the two ways that it has: a local name and a global one.
-module(conf_target_beam).
-behaviour(conf_target).

-export([start/0, stop/1, publish/3, publish_here/3, publish_many/2, await/2, await_many/4, part/1, restart/1, lose_system/1, lose_node/1]).
%% On that node.
-export([register/3, register_local/3]).

-define(HOST, "engines").

start() ->
    Node = conf_node:start(?HOST, #{}),
    ok = conf_node:call(?HOST, conf_host, start, [conf_main:modules()]),
    pong = net_adm:ping(Node),
    #{host => ?HOST, node => Node}.

stop(_State) -> conf_node:kill(?HOST).

publish(Local, Realm, _State) ->
    Full = <<Local/binary, "@", Realm/binary>>,
    {?MODULE, register, [binary_to_atom(Full), Full]}.

publish_many(Realm, _State) -> {?MODULE, register_local, [Realm]}.

register(Name, Global, Pid) ->
    true = erlang:register(Name, Pid),
    yes = global:register_name(Global, Pid),
    ok.

register_local(Realm, Local, Pid) ->
    true = erlang:register(binary_to_atom(<<Local/binary, "@", Realm/binary>>), Pid),
    ok.

await(Full, _State) -> conf_node:call(?HOST, erlang, whereis, [binary_to_atom(Full)]).

await_many(_Prefix, _Realm, _Count, _State) -> ok.

publish_here(Local, Pid, _State) ->
    Name = binary_to_atom(<<Local/binary, "@bob">>),
    true = erlang:register(Name, Pid),
    {Name, node()}.

part(#{node := Node}) ->
    Before = conf_node:call(?HOST, conf_host, downs, [node()]),
    erlang:disconnect_node(Node),
    true = conf_lib:await(fun() -> conf_node:call(?HOST, conf_host, downs, [node()]) > Before end),
    %% Its global name server has seen it when it answers.
    conf_node:call(?HOST, sys, statistics, [global_name_server, get]).

restart(State) ->
    Node = maps:get(node, State),
    erlang:monitor_node(Node, true),
    conf_node:kill(?HOST),
    receive
        {nodedown, Node} -> ok
    end,
    start().

lose_system(State) -> restart(State).

lose_node(State) -> lose_system(State).
