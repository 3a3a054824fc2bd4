%% The other direction: a process here is called from the engines' system, and what it sees of its caller is a process on the target, too.
-module(conf_reverse).

-export([rows/0]).
%% There.
-export([ended_call/2, ended_call/3, ended_within/2, call_and_linger/2, call_times/3, size_of_reply/2, pid_in_reply/1]).

-import(conf_lib, [ended/1, same/1, barrier/0, next/0, nothing_left/0]).

rows() ->
    [
        {Name, #{module => none}, fun(_) -> Fun(atom_to_binary(Name)) end}
     || {Name, Fun} <- [
            {reverse_call, fun call/1},
            {reverse_call_statem, fun call_statem/1},
            {reverse_cast_and_send, fun cast_and_send/1},
            {reverse_reply_by_another, fun reply_by_another/1},
            {reverse_reply_twice, fun reply_twice/1},
            {reverse_reply_late, fun reply_late/1},
            {reverse_reply_at_and_over_the_bound, fun reply_too_large/1},
            {reverse_reply_with_a_pid, fun reply_with_a_pid/1},
            {reverse_no_reply, fun no_reply/1},
            {reverse_ends, fun ends/1},
            {reverse_missing, fun missing/1},
            {reverse_caller_monitored, fun caller_monitored/1},
            {reverse_caller_linked, fun caller_linked/1},
            {reverse_caller_exit, fun caller_exit/1},
            {reverse_caller_sent_to, fun caller_sent_to/1},
            {reverse_caller_alive, fun caller_alive/1},
            {reverse_caller_is_one, fun caller_is_one/1},
            {reverse_callers, fun callers/1}
        ]
    ].

%% There: how a call ends.
ended_call(Way, Request) -> ended_call(Way, Request, 10000).
ended_call(Way, Request, Timeout) -> {ended(fun() -> gen_server:call(Way, Request, Timeout) end), nothing_left()}.

%% There: it may not survive it.
ended_within(Way, Request) ->
    {_, Ref} = spawn_monitor(fun() -> exit({ended, ended_call(Way, Request)}) end),
    receive
        {'DOWN', Ref, process, _, Reason} -> Reason
    end.

%% There: it calls, and stays until it is told to go.
call_and_linger(Way, Request) ->
    Pid = spawn(fun() ->
        ended(fun() -> gen_server:call(Way, Request) end),
        receive
            {stop, Reason} -> exit(Reason)
        end
    end),
    true = register(conf_lingering, Pid),
    ok.

call_times(Way, Request, Times) -> same([ended_call(Way, Request) || _ <- lists:seq(1, Times)]).

%% There: the reply is no matter for what we are connected by.
size_of_reply(Way, Request) ->
    case gen_server:call(Way, Request, 20000) of
        Binary when is_binary(Binary) -> {bytes, byte_size(Binary)};
        Other -> Other
    end.

%% There: the pid in a reply is called, and is itself when it is back.
pid_in_reply(Way) ->
    Pid = gen_server:call(Way, own_pid),
    {gen_server:call(Pid, {is_self, Pid}), gen_server:call(Way, {is_self, Pid}), gen_server:call(Way, own_pid) =:= Pid}.

%% A server here that does what this fun says with each {Tag, From, Request}.
served(Name, Fun) ->
    Server = spawn_link(fun() -> serve(Fun) end),
    Way = conf_target:publish_here(Name, Server),
    {Server, Way}.

serve(Fun) ->
    receive
        {'$gen_call', From, Request} -> Fun(From, Request);
        Other -> Fun(none, Other)
    end,
    serve(Fun).

there(Way, Request) -> conf_target:at(?MODULE, ended_call, [Way, Request]).

call(Name) ->
    {_, Way} = served(Name, fun gen_server:reply/2),
    Requests = [{a, 1}, <<"b">>, [], #{c => 2.5}],
    [there(Way, Request) =:= {Request, []} || Request <- Requests].

call_statem(Name) ->
    {_, Way} = served(Name, fun gen_statem:reply/2),
    conf_target:at(gen_statem, call, [Way, {a, 1}, {clean_timeout, 10000}]).

cast_and_send(Name) ->
    Row = self(),
    {_, Way} = served(Name, fun(none, Message) -> Row ! Message end),
    ok = conf_target:at(gen_server, cast, [Way, hello]),
    conf_target:send_there(Way, hello),
    [next(), next()].

reply_by_another(Name) ->
    {_, Way} = served(Name, fun(From, Request) -> spawn(fun() -> gen_server:reply(From, Request) end) end),
    there(Way, 1).

reply_twice(Name) ->
    {_, Way} = served(Name, fun(From, Request) ->
        gen_server:reply(From, Request),
        receive after 20 -> gen_server:reply(From, again) end
    end),
    {There, _MayBeInTime} = there(Way, 1),
    {There, there(Way, 2)}.

reply_late(Name) ->
    Row = self(),
    {_, Way} = served(Name, fun
        (From, hold) -> Row ! {held, From};
        (From, Request) -> gen_server:reply(From, Request)
    end),
    There = conf_target:at(?MODULE, ended_call, [Way, hold, 20]),
    {held, From} = next(),
    gen_server:reply(From, late),
    {There, there(Way, 1), nothing_left()}.

reply_too_large(Name) ->
    {_, Way} = served(Name, fun(From, Size) -> gen_server:reply(From, binary:copy(<<"x">>, Size)) end),
    [conf_target:at(?MODULE, size_of_reply, [Way, Size]) || Size <- [8388608 - 6, 8388608 - 5]].

reply_with_a_pid(Name) ->
    {_, Way} = served(Name, fun
        (From, own_pid) -> gen_server:reply(From, self());
        (From, {is_self, Pid}) -> gen_server:reply(From, Pid =:= self())
    end),
    conf_target:at(?MODULE, pid_in_reply, [Way]).

no_reply(Name) ->
    {_, Way} = served(Name, fun(_, _) -> ok end),
    conf_target:at(?MODULE, ended_call, [Way, 1, 20]).

ends(Name) ->
    {Server, Way} = served(Name, fun(_, Request) -> exit(Request) end),
    unlink(Server),
    there(Way, shutdown).

missing(Name) ->
    {Server, Way} = served(Name, fun(_, _) -> ok end),
    unlink(Server),
    exit(Server, kill),
    conf_target:gone_there(Way),
    there(Way, 1).

caller_monitored(Name) ->
    Row = self(),
    {_, Way} = served(Name, fun
        ({Pid, _} = From, watch) ->
            Ref = erlang:monitor(process, Pid),
            gen_server:reply(From, ok),
            Row ! {watching, Ref};
        (none, {'DOWN', Ref, process, _, Reason}) ->
            Row ! {down, Ref, Reason}
    end),
    ok = conf_target:at(?MODULE, call_and_linger, [Way, watch]),
    {watching, Ref} = next(),
    conf_target:at(erlang, send, [conf_lingering, {stop, oops}]),
    {down, Ref, Reason} = next(),
    Reason.

%% The server traps exits.
caller_linked(Name) ->
    Row = self(),
    {Server, Way} = served(Name, fun
        ({Pid, _} = From, link) ->
            process_flag(trap_exit, true),
            link(Pid),
            gen_server:reply(From, ok),
            Row ! linked;
        (none, {'EXIT', _, Reason}) ->
            Row ! {exited, Reason}
    end),
    unlink(Server),
    ok = conf_target:at(?MODULE, call_and_linger, [Way, link]),
    linked = next(),
    conf_target:at(erlang, send, [conf_lingering, {stop, oops}]),
    next().

%% What a server does to its caller.
caller_exit(Name) ->
    {_, Way} = served(Name, fun({Pid, _} = From, Reason) ->
        exit(Pid, Reason),
        gen_server:reply(From, ok)
    end),
    conf_target:at(?MODULE, ended_within, [Way, oops]).

caller_sent_to(Name) ->
    {_, Way} = served(Name, fun({Pid, _} = From, Message) ->
        Pid ! Message,
        gen_server:reply(From, ok)
    end),
    there(Way, hello).

caller_alive(Name) ->
    Row = self(),
    {_, Way} = served(Name, fun({Pid, _} = From, _) ->
        Row ! [ended(fun() -> erlang:is_process_alive(Pid) end), ended(fun() -> erlang:process_info(Pid) end)],
        gen_server:reply(From, ok)
    end),
    {there(Way, 1), next()}.

%% The same caller is the same process each time.
caller_is_one(Name) ->
    Row = self(),
    {_, Way} = served(Name, fun({Pid, _} = From, _) ->
        Row ! {caller, Pid},
        gen_server:reply(From, ok)
    end),
    There = conf_target:at(?MODULE, call_times, [Way, 1, 3]),
    Pids = [Pid || {caller, Pid} <- [next(), next(), next()]],
    {There, length(lists:usort(Pids))}.

callers(Name) ->
    {_, Way} = served(Name, fun gen_server:reply/2),
    Callers = [conf_lib:caller(fun() -> there(Way, N) =:= {N, []} end) || N <- lists:seq(1, 200)],
    Seen = same([conf_lib:result(Caller) || Caller <- Callers]),
    barrier(),
    Seen.
