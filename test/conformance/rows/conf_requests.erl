%% gen_server:send_request and the functions that go with it; collections of requests.
-module(conf_requests).

-export([rows/0]).

-import(conf_lib, [ended/1, same/1, barrier/0, holds/2, next/0, nothing_left/0]).
-import(conf_calls, [ways/1]).

rows() ->
    [
        {request_receive_response, fun(Engine) -> by_all_ways(Engine, receive_response) end},
        {request_wait_response, fun(Engine) -> by_all_ways(Engine, wait_response) end},
        {request_check_response, fun check/1},
        {request_check_response_of_other, fun check_other/1},
        {request_wait_twice, fun wait_twice/1},
        {request_receive_times_out, fun receive_times_out/1},
        {request_missing_name, fun missing_name/1},
        {request_missing_global, fun missing_global/1},
        {request_dead_pid, fun dead_pid/1},
        {request_ends_shutdown, fun(Engine) -> ends(Engine, shutdown) end},
        {request_ends_otherwise, fun(Engine) -> ends(Engine, oops) end},
        {request_killed, fun(Engine) -> ends(Engine, kill) end},
        {request_collection, fun collection/1},
        {request_collection_with_a_dead_one, fun collection_with_a_dead_one/1},
        {request_collection_times_out, fun collection_times_out/1},
        {request_collection_checked, fun collection_checked/1},
        {request_many, fun many/1},
        {request_disconnected, #{disconnects => true}, fun disconnected/1}
    ].

by_all_ways(Engine, Function) ->
    same([gen_server:Function(gen_server:send_request(Way, {echo, 1}), 10000) || Way <- ways(Engine)]).

check(#{name := Name}) ->
    Request = gen_server:send_request(Name, {echo, 1}),
    gen_server:check_response(next(), Request).

check_other(#{name := Name}) ->
    Request = gen_server:send_request(Name, {echo, 1}),
    {gen_server:check_response(something_else, Request), gen_server:receive_response(Request, 10000)}.

wait_twice(#{name := Name} = Engine) ->
    Request = gen_server:send_request(Name, {hold, 1}),
    holds(Engine, 1),
    First = gen_server:wait_response(Request, 0),
    ok = gen_server:call(Name, {release, 1, late}),
    {First, gen_server:wait_response(Request, 10000)}.

receive_times_out(#{name := Name} = Engine) ->
    Request = gen_server:send_request(Name, {hold, 1}),
    holds(Engine, 1),
    First = gen_server:receive_response(Request, 0),
    ok = gen_server:call(Name, {release, 1, late}),
    barrier(),
    {First, nothing_left()}.

missing_name(#{node := Node}) ->
    gen_server:receive_response(gen_server:send_request({'nobody@alice', Node}, {echo, 1}), 10000).

missing_global(_) ->
    ended(fun() -> gen_server:receive_response(gen_server:send_request({global, <<"nobody@alice">>}, {echo, 1}), 10000) end).

dead_pid(#{pid := Pid} = Engine) ->
    conf_lib:kill(Engine),
    gen_server:receive_response(gen_server:send_request(Pid, {echo, 1}), 10000).

ends(Engine, Reason) ->
    Requests = [gen_server:send_request(Way, {hold, N}) || {N, Way} <- lists:zip([1, 2, 3], ways(Engine))],
    [holds(Engine, N) || N <- [1, 2, 3]],
    case Reason of
        kill -> conf_lib:kill(Engine);
        _ -> conf_lib:finish(Engine, Reason)
    end,
    [gen_server:receive_response(Request, 10000) || Request <- Requests].

requests(Name, Numbers) ->
    lists:foldl(
        fun(N, Requests) -> gen_server:send_request(Name, {echo, N}, {label, N}, Requests) end,
        gen_server:reqids_new(),
        Numbers
    ).

collect(Requests, Function, Timeout) ->
    case gen_server:Function(Requests, Timeout, true) of
        {Response, Label, Left} -> [{Response, Label} | collect(Left, Function, Timeout)];
        Other -> [Other]
    end.

collection(#{name := Name}) ->
    {
        lists:sort(collect(requests(Name, [1, 2, 3]), receive_response, 10000)),
        lists:sort(collect(requests(Name, [1, 2, 3]), wait_response, 10000)),
        gen_server:reqids_size(requests(Name, [])),
        gen_server:reqids_size(gen_server:reqids_add(gen_server:send_request(Name, {echo, 1}), one, requests(Name, [2]))),
        await_two()
    }.

await_two() -> length([next(), next()]).

collection_with_a_dead_one(#{name := Name, node := Node}) ->
    Requests = gen_server:send_request({'nobody@alice', Node}, {echo, 2}, dead, requests(Name, [1])),
    lists:sort(collect(Requests, receive_response, infinity)).

collection_times_out(#{name := Name} = Engine) ->
    Requests = gen_server:send_request(Name, {hold, 1}, held, requests(Name, [])),
    holds(Engine, 1),
    Seen = gen_server:receive_response(Requests, 1, true),
    ok = gen_server:call(Name, {release, 1, late}),
    barrier(),
    {Seen, nothing_left()}.

collection_checked(#{name := Name}) ->
    Requests = requests(Name, [1]),
    {Response, Label, Left} = gen_server:check_response(next(), Requests, true),
    {Response, Label, gen_server:check_response(anything, Left, true)}.

many(#{name := Name}) ->
    Requests = requests(Name, lists:seq(1, 500)),
    Responses = collect(Requests, receive_response, 20000),
    lists:sort(Responses) =:= lists:sort([no_request | [{{reply, N}, {label, N}} || N <- lists:seq(1, 500)]]).

disconnected(#{name := Name, node := Node} = Engine) ->
    Request = gen_server:send_request(Name, {hold, 1}),
    holds(Engine, 1),
    erlang:disconnect_node(Node),
    gen_server:receive_response(Request, 10000).
