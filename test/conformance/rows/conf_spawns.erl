%% Code that is to run on the other node: spawn, rpc, erpc. The daemon runs nobody's code, and says so at once.
-module(conf_spawns).

-export([rows/0]).

-import(conf_lib, [ended/1, within/2, next/0, nothing_left/0]).

-define(AT_ONCE, 5000).

rows() ->
    [
        {Name, #{module => none}, fun(_) -> within(?AT_ONCE, fun() -> Fun(conf_target:node()) end) end}
     || {Name, Fun} <- [
            {rpc_call, fun(Node) -> rpc:call(Node, erlang, node, []) end},
            {rpc_call_timeout, fun(Node) -> rpc:call(Node, erlang, node, [], 4000) end},
            {rpc_block_call, fun(Node) -> rpc:block_call(Node, erlang, node, []) end},
            {rpc_cast, fun(Node) -> {rpc:cast(Node, erlang, node, []), nothing_left()} end},
            {rpc_multicall, fun(Node) -> rpc:multicall([Node], erlang, node, []) end},
            {rpc_async_call, fun(Node) -> rpc:yield(rpc:async_call(Node, erlang, node, [])) end},
            {rpc_pinfo, fun rpc_pinfo/1},
            {erpc_call, fun(Node) -> ended(fun() -> erpc:call(Node, erlang, node, []) end) end},
            {erpc_call_timeout, fun(Node) -> ended(fun() -> erpc:call(Node, erlang, node, [], 4000) end) end},
            {erpc_cast, fun(Node) -> {erpc:cast(Node, erlang, node, []), nothing_left()} end},
            {erpc_multicall, fun(Node) -> erpc:multicall([Node], erlang, node, []) end},
            {erpc_multicast, fun(Node) -> erpc:multicast([Node], erlang, node, []) end},
            {erpc_send_request, fun erpc_send_request/1},
            {spawn_there, fun spawned/1},
            {spawn_link_there, fun spawned_linked/1},
            {spawn_monitor_there, fun spawned_monitored/1},
            {spawn_opt_there, fun spawned_opt/1},
            {spawn_request_there, fun requested/1},
            {spawn_request_error_only, fun(Node) -> requested(Node, [{reply, error_only}, monitor, link]) end},
            {spawn_request_tag, fun(Node) -> requested(Node, [{reply_tag, mine}]) end},
            {spawn_request_abandoned, fun abandoned/1}
        ]
    ].

rpc_pinfo(_Node) ->
    #{pid := Pid} = conf_target:engine("rpc_pinfo"),
    case rpc:pinfo(Pid, message_queue_len) of
        {message_queue_len, _} -> an_answer;
        Other -> Other
    end.

erpc_send_request(Node) ->
    ended(fun() -> erpc:receive_response(erpc:send_request(Node, erlang, node, [])) end).

%% What a monitor of what was started says.
down(Pid) ->
    Ref = erlang:monitor(process, Pid),
    receive
        {'DOWN', Ref, process, Pid, Reason} when Reason =:= normal; Reason =:= noproc -> {node(Pid), ran_or_gone};
        {'DOWN', Ref, process, Pid, Reason} -> {node(Pid), Reason}
    end.

spawned(Node) -> ended(fun() -> down(spawn(Node, erlang, node, [])) end).

spawned_linked(Node) ->
    process_flag(trap_exit, true),
    ended(fun() ->
        Pid = spawn_link(Node, erlang, node, []),
        {'EXIT', Pid, Reason} = next(),
        {node(Pid), Reason}
    end).

spawned_monitored(Node) ->
    ended(fun() ->
        {Pid, Ref} = spawn_monitor(Node, erlang, node, []),
        {'DOWN', Ref, process, Pid, Reason} = next(),
        {node(Pid), Reason}
    end).

spawned_opt(Node) ->
    ended(fun() ->
        {Pid, Ref} = spawn_opt(Node, erlang, node, [], [monitor, {priority, high}]),
        {'DOWN', Ref, process, Pid, Reason} = next(),
        {node(Pid), Reason}
    end).

requested(Node) -> requested(Node, []).

requested(Node, Options) ->
    ended(fun() ->
        Request = spawn_request(Node, erlang, node, [], Options),
        case next() of
            {Tag, Request, error, Reason} -> {Tag, error, Reason};
            {Tag, Request, ok, Pid} -> {Tag, ok, node(Pid)};
            {'DOWN', _, process, Pid, Reason} -> {down, node(Pid), Reason}
        end
    end).

abandoned(Node) ->
    Request = spawn_request(Node, erlang, node, [], []),
    case spawn_request_abandon(Request) of
        true -> given_up_or_answered;
        false -> receive {spawn_reply, Request, _, _} -> given_up_or_answered end
    end.
