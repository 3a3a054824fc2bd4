%% multi_call and abcast, of gen_server and rpc.
-module(conf_multi).

-export([rows/0]).

-import(conf_lib, [ended/1, barrier/0, holds/2, nothing_left/0]).

rows() ->
    [
        {multi_call, fun multi_call/1},
        {multi_call_timeout, fun multi_call_timeout/1},
        {multi_call_with_here, fun multi_call_with_here/1},
        {multi_call_all_nodes, fun multi_call_all_nodes/1},
        {multi_call_missing, fun multi_call_missing/1},
        {multi_call_no_such_node, fun multi_call_no_such_node/1},
        {multi_call_times_out, fun multi_call_times_out/1},
        {multi_call_ends, fun multi_call_ends/1},
        {multi_call_many_times, fun multi_call_many_times/1},
        {abcast, fun abcast/1},
        {abcast_all_nodes, fun abcast_all_nodes/1},
        {abcast_missing, fun abcast_missing/1},
        {rpc_abcast, fun rpc_abcast/1},
        {rpc_sbcast, fun rpc_sbcast/1},
        {rpc_multi_server_call, #{module => conf_plain}, fun rpc_multi_server_call/1}
    ].

multi_call(#{id := Id, node := Node}) -> gen_server:multi_call([Node], Id, {echo, 1}).
multi_call_timeout(#{id := Id, node := Node}) -> gen_server:multi_call([Node], Id, {echo, 1}, 10000).

multi_call_with_here(#{id := Id, node := Node}) ->
    {Replies, Bad} = gen_server:multi_call([node(), Node], Id, {echo, 1}),
    {Replies, Bad}.

%% To whichever nodes are visible: a hidden one is not among them.
multi_call_all_nodes(#{id := Id}) -> gen_server:multi_call(Id, {echo, 1}).

multi_call_missing(#{node := Node}) -> gen_server:multi_call([Node], 'nobody@alice', {echo, 1}, 10000).

multi_call_no_such_node(#{id := Id, node := Node}) ->
    gen_server:multi_call([Node, 'nobody@127.0.0.1'], Id, {echo, 1}, 10000).

multi_call_times_out(#{id := Id, node := Node, pid := Pid} = Engine) ->
    Seen = gen_server:multi_call([Node], Id, {hold, 1}, 20),
    holds(Engine, 1),
    ok = gen_server:call(Pid, {release, 1, late}),
    barrier(),
    {Seen, nothing_left()}.

multi_call_ends(#{id := Id, node := Node}) -> gen_server:multi_call([Node], Id, {stop, shutdown}, 10000).

multi_call_many_times(#{id := Id, node := Node}) ->
    conf_lib:same([gen_server:multi_call([Node], Id, {echo, 1}, 10000) || _ <- lists:seq(1, 50)]).

heard(#{id := Id}, Count) -> conf_target:at(conf_engine, log, [Id, Count]).

abcast(#{id := Id, node := Node} = Engine) -> {gen_server:abcast([Node], Id, hello), heard(Engine, 1)}.

abcast_all_nodes(#{id := Id, pid := Pid} = Engine) ->
    Told = gen_server:abcast(Id, hello),
    _ = gen_server:call(Pid, {echo, 1}),
    {Told, heard(Engine, 0)}.

abcast_missing(#{node := Node}) ->
    Told = gen_server:abcast([Node], 'nobody@alice', hello),
    barrier(),
    {Told, nothing_left()}.

rpc_abcast(#{id := Id, node := Node} = Engine) -> {rpc:abcast([Node], Id, hello), heard(Engine, 1)}.

rpc_sbcast(#{id := Id, node := Node}) -> ended(fun() -> rpc:sbcast([Node], Id, hello) end).

%% Its own protocol: {From, Request} is answered {Name, node(), Reply} by somebody who knows of it, which nobody here does.
rpc_multi_server_call(#{node := Node}) -> ended(fun() -> rpc:multi_server_call([Node], 'nobody@alice', hello) end).
