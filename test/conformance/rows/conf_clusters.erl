%% Clusters of several nodes that the target belongs to, or is seen by: names, calls and what the target's end does to the others.
-module(conf_clusters).

-export([rows/0]).
%% On those nodes.
-export([call_all/1, await_name/1, await_no_name/1, await_nodes/1, hold/2, idle/2, watched_and_held/1]).

-import(conf_lib, [same/1, holds/2, nothing_left/0]).

rows() ->
    [
        {cluster_second_caller, fun second_caller/1},
        {cluster_late_comer, fun late_comer/1},
        {cluster_hidden_caller, fun hidden_caller/1},
        {cluster_without_epmd, fun without_epmd/1},
        {cluster_handed_on_from_another_node, fun handed_on/1},
        {cluster_multi_call, fun multi_call/1},
        {cluster_target_killed, #{disconnects => true, slow => true, module => none}, fun target_killed/1},
        {cluster_target_disconnected, #{disconnects => true}, fun target_disconnected/1},
        {cluster_member_leaves, fun member_leaves/1},
        {cluster_ticks, fun(Engine) -> ticks(Engine, "2", 3500) end},
        {cluster_ticks_long, #{slow => true}, fun(Engine) -> ticks(Engine, "4", 12000) end},
        {cluster_many_callers, #{slow => true}, fun many_callers/1}
    ].

with_node(Name, Fun) -> with_node(Name, #{}, Fun).

with_node(Name, Options, Fun) ->
    Node = conf_node:start(Name, Options),
    try
        Fun(Node)
    after
        conf_node:kill(Name)
    end.

joined(Name) -> pong = conf_node:call(Name, net_adm, ping, [node()]).

%% On the other node: by all ways that need no pid.
call_all(Ways) -> same([gen_server:call(Way, {echo, 1}) || Way <- Ways]).

await_name(Full) -> conf_lib:await(fun() -> is_pid(global:whereis_name(Full)) end).
await_no_name(Full) -> conf_lib:await(fun() -> global:whereis_name(Full) =:= undefined end).
await_nodes(Nodes) -> conf_lib:await(fun() -> lists:sort(nodes()) =:= lists:sort(Nodes) end).

second_caller(#{name := Name, pid := Pid, global := Global, full := Full}) ->
    with_node("second", fun(_) ->
        joined("second"),
        Learned = conf_node:call("second", ?MODULE, await_name, [Full]),
        {Learned, conf_node:call("second", ?MODULE, call_all, [[Name, Pid, Global]])}
    end).

%% Names that were there before it came, and one that comes later.
late_comer(#{full := Full, name := Name}) ->
    with_node("late", fun(_) ->
        joined("late"),
        Before = conf_node:call("late", ?MODULE, await_name, [Full]),
        #{full := New, global := Global} = conf_target:engine("cluster_late_comer_new"),
        After = conf_node:call("late", ?MODULE, await_name, [New]),
        {Before, After, conf_node:call("late", ?MODULE, call_all, [[Global, Name]])}
    end).

%% It is connected with nobody but the target.
hidden_caller(#{name := Name, pid := Pid}) ->
    with_node("hidden", #{args => ["-hidden"]}, fun(_) ->
        Called = conf_node:call("hidden", ?MODULE, call_all, [[Name, Pid]]),
        {Called, conf_node:call("hidden", erlang, nodes, [])}
    end).

without_epmd(#{name := Name, pid := Pid, node := Node}) ->
    [Short, _Host] = string:split(atom_to_list(Node), "@"),
    {port, Port, _} = erl_epmd:port_please(Short, {127, 0, 0, 1}),
    Ports = Short ++ "=" ++ integer_to_list(Port),
    Options = #{args => ["-hidden", "-start_epmd", "false", "-epmd_module", "conf_epmd"], env => [{"CONFORMANCE_PORTS", Ports}]},
    with_node("noepmd", Options, fun(_) -> conf_node:call("noepmd", ?MODULE, call_all, [[Name, Pid]]) end).

%% A call from one node, passed on by a server on another: the answer goes to where the caller is.
handed_on(#{name := Name}) ->
    with_node("second", fun(_) ->
        joined("second"),
        Server = spawn(fun Loop() ->
            receive
                {'$gen_call', From, Request} ->
                    Name ! {'$gen_call', From, Request},
                    Loop()
            end
        end),
        conf_node:call("second", ?MODULE, call_all, [[Server]])
    end).

multi_call(#{id := Id, node := Node}) ->
    with_node("second", fun(_) ->
        joined("second"),
        conf_node:call("second", gen_server, multi_call, [[Node], Id, {echo, 1}, 10000])
    end).

others(Node) -> lists:sort(nodes() -- [Node]).

%% With prevent_overlapping_partitions on, as it is by default, a node that is lost to some must not take others with it.
target_killed(_) ->
    Node = conf_target:node(),
    with_node("second", fun(Second) ->
        with_node("third", fun(Third) ->
            [joined(Name) || Name <- ["second", "third"]],
            Engine = #{full := Full, name := Name} = conf_target:engine("cluster_target_killed"),
            Before = [conf_node:call(Other, ?MODULE, await_name, [Full]) || Other <- ["second", "third"]],
            [1 = conf_node:call(Other, ?MODULE, call_all, [[Name]]) || Other <- ["second", "third"]],
            conf_target:restart(),
            Left = {
                others(Node) =:= lists:sort([Second, Third]),
                conf_node:call("second", lists, member, [Third, conf_node:call("second", erlang, nodes, [])]),
                conf_node:call("third", lists, member, [Second, conf_node:call("third", erlang, nodes, [])])
            },
            Back = conf_target:back(Engine),
            After = [conf_node:call(Other, ?MODULE, call_all, [[maps:get(name, Back)]]) || Other <- ["second", "third"]],
            Names = [conf_node:call(Other, ?MODULE, await_name, [Full]) || Other <- ["second", "third"]],
            {Before, Left, After, Names}
        end)
    end).

%% One node ends its connection with the target; between BEAM nodes that are seen by all, prevent_overlapping_partitions then has the
%% others end theirs, which a hidden node is spared.
target_disconnected(#{name := Name, node := Node, full := Full}) ->
    with_node("second", #{args => ["-hidden"]}, fun(_) ->
        1 = conf_node:call("second", ?MODULE, call_all, [[Name]]),
        true = conf_node:call("second", erlang, disconnect_node, [Node]),
        {gen_server:call(Name, {echo, 1}), is_pid(global:whereis_name(Full)), conf_node:call("second", ?MODULE, call_all, [[Name]])}
    end).

member_leaves(#{name := Name, full := Full}) ->
    with_node("second", fun(_) ->
        joined("second"),
        true = conf_node:call("second", ?MODULE, await_name, [Full]),
        1 = conf_node:call("second", ?MODULE, call_all, [[Name]])
    end),
    {gen_server:call(Name, {echo, 1}), is_pid(global:whereis_name(Full)), nothing_left()}.

%% On a node that drops who is silent for so many seconds.
ticks(#{name := Name}, Seconds, Millis) ->
    with_node("ticking", #{args => ["-hidden"], ticktime => Seconds}, fun(_) ->
        conf_node:call("ticking", ?MODULE, idle, [Name, Millis])
    end).

idle(Name, Millis) ->
    {_, Node} = Name,
    1 = gen_server:call(Name, {echo, 1}),
    erlang:monitor_node(Node, true),
    Seen = conf_lib:next(Millis),
    {Seen, gen_server:call(Name, {echo, 1})}.

hold(Name, Key) -> gen_server:call(Name, {hold, Key}, infinity).
watched_and_held(Name) ->
    ok = gen_server:call(Name, watch_me),
    gen_server:call(Name, {hold, watched}, infinity).

many_callers(#{name := Name} = Engine) ->
    Names = ["n" ++ integer_to_list(N) || N <- lists:seq(1, 6)],
    [conf_node:start(Each, #{args => ["-hidden"]}) || Each <- Names],
    Called = same([conf_node:call(Each, ?MODULE, call_all, [[Name]]) || Each <- Names]),
    [peer_hold(Each, Name) || Each <- Names],
    [holds(Engine, Each) || Each <- Names],
    Released = gen_server:call(Name, {release_all, done}),
    [conf_node:kill(Each) || Each <- Names],
    {Called, Released, gen_server:call(Name, {echo, 1})}.

peer_hold(Each, Name) -> spawn(fun() -> conf_node:call(Each, ?MODULE, hold, [Name, Each]) end).
