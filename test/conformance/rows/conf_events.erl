%% gen_event. alice lets us notify, call and ask; what changes or ends a manager she does not, and carol does.
-module(conf_events).

-export([rows/0]).

-import(conf_lib, [ended/1, same/1, next/0]).
-import(conf_calls, [ways/1]).

rows() ->
    [
        {event_notify, manager(), fun notify/1},
        {event_sync_notify, manager(), fun sync_notify/1},
        {event_call, manager(), fun call/1},
        {event_call_timeout, manager(), fun call_timeout/1},
        {event_call_bad_handler, manager(), fun call_bad_handler/1},
        {event_which_handlers, manager(), fun which_handlers/1},
        {event_info, manager(), fun info/1},
        {event_missing_name, manager(), fun missing_name/1},
        {event_request, manager(), fun request/1},
        {event_request_check, manager(), fun request_check/1},
        {event_add_handler, manager(), fun change/1},
        {event_add_handler_allowed, allowed(), fun change/1},
        {event_delete_handler, manager(), fun delete/1},
        {event_delete_handler_allowed, allowed(), fun delete/1},
        {event_stop, manager(), fun stop/1},
        {event_stop_allowed, allowed(), fun stop/1}
    ].

manager() -> #{module => conf_event}.
allowed() -> #{module => conf_event, realm => <<"carol">>}.

notify(#{id := Id, pid := Pid} = Engine) ->
    Told = same([gen_event:notify(Way, {event, N}) || {N, Way} <- lists:zip([1, 2, 3], ways(Engine))]),
    %% Behind them.
    _ = gen_event:which_handlers(Pid),
    {Told, conf_target:at(conf_event, events, [Id])}.

sync_notify(#{id := Id} = Engine) ->
    Told = same([gen_event:sync_notify(Way, {event, N}) || {N, Way} <- lists:zip([1, 2, 3], ways(Engine))]),
    {Told, conf_target:at(conf_event, events, [Id])}.

call(Engine) -> same([gen_event:call(Way, conf_event, events) || Way <- ways(Engine)]).
call_timeout(Engine) -> same([gen_event:call(Way, conf_event, events, 10000) || Way <- ways(Engine)]).
call_bad_handler(Engine) -> same([gen_event:call(Way, no_handler, events) || Way <- ways(Engine)]).
which_handlers(Engine) -> same([gen_event:which_handlers(Way) || Way <- ways(Engine)]).

info(#{name := Name, pid := Pid}) ->
    Name ! hello,
    Pid ! hello,
    gen_event:call(Pid, conf_event, events).

missing_name(#{node := Node}) ->
    Missing = {'nobody@alice', Node},
    {
        gen_event:notify(Missing, event),
        ended(fun() -> gen_event:sync_notify(Missing, event) end),
        ended(fun() -> gen_event:call(Missing, conf_event, events) end),
        ended(fun() -> gen_event:which_handlers(Missing) end)
    }.

request(Engine) ->
    same([gen_event:receive_response(gen_event:send_request(Way, conf_event, events), 10000) || Way <- ways(Engine)]).

request_check(#{name := Name}) ->
    Request = gen_event:send_request(Name, conf_event, events),
    gen_event:check_response(next(), Request).

change(#{name := Name}) ->
    {
        gen_event:add_handler(Name, {conf_event, second}, []),
        lists:sort(gen_event:which_handlers(Name))
    }.

delete(#{name := Name}) -> {gen_event:delete_handler(Name, conf_event, []), gen_event:which_handlers(Name)}.

stop(#{name := Name} = Engine) ->
    %% With a time limit: without one OTP waits for the end of what doesn't end.
    {conf_sys:plain(ended(fun() -> gen_event:stop(Name, shutdown, 5000) end)), conf_lib:lives(Engine)}.
