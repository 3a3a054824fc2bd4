%% gen_statem.
-module(conf_statems).

-export([rows/0]).

-import(conf_lib, [ended/1, same/1, barrier/0, next/0, nothing_left/0]).
-import(conf_calls, [ways/1]).

rows() ->
    [
        {statem_call, statem(), fun(Engine) -> by_all_ways(Engine, infinity) end},
        {statem_call_timeout, statem(), fun(Engine) -> by_all_ways(Engine, 10000) end},
        {statem_call_clean_timeout, statem(), fun(Engine) -> by_all_ways(Engine, {clean_timeout, 10000}) end},
        {statem_call_dirty_timeout, statem(), fun(Engine) -> by_all_ways(Engine, {dirty_timeout, 10000}) end},
        {statem_call_clean_infinity, statem(), fun(Engine) -> by_all_ways(Engine, {clean_timeout, infinity}) end},
        {statem_call_times_out, statem(), fun(Engine) -> times_out(Engine, 20) end},
        {statem_call_clean_times_out, statem(), fun(Engine) -> times_out(Engine, {clean_timeout, 20}) end},
        {statem_call_dirty_times_out, statem(), fun(Engine) -> times_out(Engine, {dirty_timeout, 20}) end},
        {statem_call_missing_name, statem(), fun missing_name/1},
        {statem_call_missing_name_clean, statem(), fun missing_name_clean/1},
        {statem_call_stops, statem(), fun(Engine) -> ended(fun() -> call(Engine, {stop, shutdown}) end) end},
        {statem_call_stops_normal, statem(), fun(Engine) -> ended(fun() -> call(Engine, {stop, normal}) end) end},
        {statem_call_stops_otherwise, statem(), fun(Engine) -> ended(fun() -> call(Engine, {stop, oops}) end) end},
        {statem_call_delegated, statem(), fun(Engine) -> call(Engine, {delegate, done}) end},
        {statem_cast, statem(), fun cast/1},
        {statem_cast_missing, statem(), fun cast_missing/1},
        {statem_info, statem(), fun info/1},
        {statem_request_receive_response, statem(), fun(Engine) -> request(Engine, receive_response) end},
        {statem_request_wait_response, statem(), fun(Engine) -> request(Engine, wait_response) end},
        {statem_request_check_response, statem(), fun check/1},
        {statem_request_missing_name, statem(), fun request_missing_name/1},
        {statem_request_times_out, statem(), fun request_times_out/1},
        {statem_request_collection, statem(), fun collection/1}
    ].

statem() -> #{module => conf_statem, args => off}.

call(#{name := Name}, Request) -> gen_statem:call(Name, Request).

by_all_ways(Engine, Timeout) ->
    {
        same([gen_statem:call(Way, state, Timeout) || Way <- ways(Engine)]),
        [gen_statem:call(Way, flip, Timeout) || Way <- ways(Engine)],
        nothing_left()
    }.

times_out(#{name := Name, id := Id}, Timeout) ->
    Ended = ended(fun() -> gen_statem:call(Name, {hold, 1}, Timeout) end),
    conf_target:at(conf_statem, await_held, [Id]),
    Released = gen_statem:call(Name, {release, 1, late}),
    barrier(),
    {Ended, Released, nothing_left()}.

missing_name(#{node := Node}) -> ended(fun() -> gen_statem:call({'nobody@alice', Node}, state) end).

missing_name_clean(#{node := Node}) ->
    ended(fun() -> gen_statem:call({'nobody@alice', Node}, state, {clean_timeout, 10000}) end).

cast(Engine) -> [{gen_statem:cast(Way, flip), gen_statem:call(Way, state)} || Way <- ways(Engine)].

cast_missing(#{node := Node}) ->
    Seen = [gen_statem:cast(Way, flip) || Way <- [{'nobody@alice', Node}, {global, <<"nobody@alice">>}]],
    barrier(),
    Seen.

info(#{name := Name, pid := Pid}) ->
    Name ! flip,
    Pid ! flip,
    Name ! flip,
    gen_statem:call(Pid, state).

request(Engine, Function) ->
    same([gen_statem:Function(gen_statem:send_request(Way, state), 10000) || Way <- ways(Engine)]).

check(#{name := Name}) ->
    Request = gen_statem:send_request(Name, state),
    gen_statem:check_response(next(), Request).

request_missing_name(#{node := Node}) ->
    gen_statem:receive_response(gen_statem:send_request({'nobody@alice', Node}, state), 10000).

request_times_out(#{name := Name, id := Id}) ->
    Request = gen_statem:send_request(Name, {hold, 1}),
    conf_target:at(conf_statem, await_held, [Id]),
    Seen = gen_statem:receive_response(Request, 0),
    ok = gen_statem:call(Name, {release, 1, late}),
    barrier(),
    {Seen, nothing_left()}.

collection(#{name := Name}) ->
    Requests = lists:foldl(
        fun(N, Requests) -> gen_statem:send_request(Name, state, N, Requests) end, gen_statem:reqids_new(), [1, 2]
    ),
    {{reply, off}, First, Left} = gen_statem:receive_response(Requests, 10000, true),
    {{reply, off}, Second, None} = gen_statem:receive_response(Left, 10000, true),
    {lists:sort([First, Second]), gen_statem:receive_response(None, 10000, true)}.
