%% BEAM nodes in other operating-system processes, held by their standard input and output: what they are told doesn't go by way of
%% what is tested. They end with this VM.
-module(conf_node).

-export([start/2, call/4, call/5, kill/1, freeze/1, rename/2, stop/1, stop_all/0, node/1, os_pid/1]).

-define(PATIENCE, 60000).

%% Options: args, env, cookie, ticktime in seconds.
start(Name, Options) ->
    [Erl | ErlArgs] = erl(Name),
    Args =
        ["-setcookie", maps:get(cookie, Options, atom_to_list(erlang:get_cookie()))] ++
            ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"] ++
            ["-kernel", "logger_level", "critical"] ++
            %% Nodes of a cluster have to agree about it.
            ["-kernel", "net_ticktime", maps:get(ticktime, Options, "4")] ++
            ["-pa", filename:dirname(code:which(?MODULE))] ++
            maps:get(args, Options, []),
    {ok, Peer, Node} = peer:start(#{
        name => Name,
        host => "127.0.0.1",
        longnames => true,
        connection => standard_io,
        exec => {Erl, ErlArgs},
        wait_boot => ?PATIENCE,
        args => Args,
        env => maps:get(env, Options, [])
    }),
    OsPid = peer:call(Peer, os, getpid, []),
    ets:insert(conf_nodes, {Name, Peer, Node, OsPid}),
    remember(OsPid),
    Node.

%% The program, and its first arguments: a node may be of another OTP.
erl(Name) ->
    case {os:getenv("CONFORMANCE_ERL_" ++ Name), os:getenv("CONFORMANCE_ERL")} of
        {false, false} -> [filename:join([code:root_dir(), "bin", "erl"])];
        {false, Program} -> string:lexemes(Program, " ");
        {Program, _} -> string:lexemes(Program, " ")
    end.

call(Name, Module, Function, Args) -> call(Name, Module, Function, Args, ?PATIENCE).

call(Name, Module, Function, Args, Patience) -> peer:call(peer(Name), Module, Function, Args, Patience).

%% kill -9, and all that comes of it here.
kill(Name) ->
    Peer = peer(Name),
    Ref = erlang:monitor(process, Peer),
    signal("KILL", os_pid(Name)),
    receive
        {'DOWN', Ref, process, Peer, _Reason} -> ok
    end,
    ets:delete(conf_nodes, Name),
    ok.

%% It holds its connections, and says nothing any more.
freeze(Name) -> signal("STOP", os_pid(Name)).

%% Here it has another name from now on; there it keeps its own.
rename(Name, New) ->
    [{Name, Peer, Node, OsPid}] = ets:take(conf_nodes, Name),
    ets:insert(conf_nodes, {New, Peer, Node, OsPid}).

stop(Name) ->
    case ets:lookup(conf_nodes, Name) of
        [_] -> kill(Name);
        [] -> ok
    end.

stop_all() -> [kill(Name) || {Name, _Peer, _Node, _OsPid} <- ets:tab2list(conf_nodes)].

node(Name) -> ets:lookup_element(conf_nodes, Name, 3).
os_pid(Name) -> ets:lookup_element(conf_nodes, Name, 4).
peer(Name) -> ets:lookup_element(conf_nodes, Name, 2).

signal(Signal, OsPid) ->
    [] = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
    ok.

%% So that the runner ends it, should this VM be killed.
remember(OsPid) -> ok = file:write_file(filename:join([os:getenv("CONFORMANCE_DIR"), "pids", OsPid]), <<>>).
