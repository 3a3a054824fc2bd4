%% Pids and references that were given away in what is said: what the engine can do with them, and what of it we see.
-module(conf_identifiers).

-export([rows/0]).

-import(conf_lib, [ended/1, barrier/0, kill/1, next/0, nothing_left/0]).

rows() ->
    [
        {pid_sent_to, fun sent_to/1},
        {pid_sent_to_by_cast, fun sent_to_by_cast/1},
        {pid_called, fun called/1},
        {pid_call_ends, fun call_ends/1},
        {pid_called_timeout, fun called_timeout/1},
        {pid_within, fun within_terms/1},
        {pid_is_the_same_there, fun is_the_same/1},
        {pid_is_from, fun is_from/1},
        {pid_of_dead_process, fun of_dead_process/1},
        {pid_monitored, fun(Engine) -> monitored(Engine, oops) end},
        {pid_monitored_shutdown, fun(Engine) -> monitored(Engine, shutdown) end},
        {pid_monitored_killed, fun(Engine) -> monitored(Engine, kill) end},
        {pid_monitored_after_end, fun monitored_after_end/1},
        {pid_monitored_allowed, carol(), fun(Engine) -> monitored(Engine, {oops, [1, 2]}) end},
        {pid_linked, trapping(), fun linked/1},
        {pid_linked_allowed, maps:merge(carol(), trapping()), fun linked/1},
        {pid_linked_to, fun(Engine) -> linked_to(Engine, fun lives/1) end},
        {pid_linked_to_allowed, carol(), fun(Engine) -> linked_to(Engine, fun ends/1) end},
        {pid_exits, fun exited/1},
        {pid_exits_allowed, carol(), fun exited/1},
        {pid_of_engine_there, fun of_engine_there/1},
        {pid_of_engine_used, fun of_engine_used/1},
        {pid_of_there, fun of_there/1},
        {pid_of_there_ends, fun of_there_ends/1},
        {pid_of_third_realm, fun of_third_realm/1},
        {pid_after_disconnect, #{disconnects => true}, fun after_disconnect/1},
        {reference_is_the_same_there, fun reference_is_the_same/1},
        {reference_of_there, fun reference_of_there/1},
        {reference_alias, fun alias/1},
        {reference_alias_in_reply, fun alias_in_reply/1},
        {identifiers_10000, fun many/1}
    ].

carol() -> #{realm => <<"carol">>}.
trapping() -> #{args => [trap_exit]}.

call(#{name := Name}, Request) -> gen_server:call(Name, Request, 20000).

sent_to(Engine) -> {call(Engine, {tell, self(), hello}), next()}.

sent_to_by_cast(#{name := Name}) ->
    gen_server:cast(Name, {tell, self(), hello}),
    next().

%% A server of ours, and an engine that asks it.
server(Fun) ->
    spawn(fun() ->
        {'$gen_call', From, Request} = next(),
        Fun(From, Request)
    end).

called(Engine) -> call(Engine, {ask, server(fun gen_server:reply/2), {echo, [1]}, 10000}).

call_ends(Engine) -> call(Engine, {ask, server(fun(_, _) -> exit(shutdown) end), 1, 10000}).

called_timeout(Engine) ->
    Server = server(fun(_, _) -> receive stop -> ok end end),
    Seen = call(Engine, {ask, Server, 1, 20}),
    Server ! stop,
    Seen.

%% At any depth, beside the same one and others.
within_terms(Engine) ->
    Pid = spawn(fun() -> receive stop -> ok end end),
    Ref = make_ref(),
    Term = {[self(), Pid | Ref], #{self() => Pid, {Ref} => [self()]}, <<"b">>, [[[#{a => {Pid}}]]]},
    Seen = call(Engine, {echo, Term}) =:= Term,
    Pid ! stop,
    Seen.

is_the_same(Engine) ->
    ok = call(Engine, {keep, self()}),
    {call(Engine, {kept, self()}), call(Engine, {kept, maps:get(pid, Engine)})}.

%% The pid of From, and the caller's in the request.
is_from(Engine) -> call(Engine, {from_is, self()}).

of_dead_process(Engine) ->
    {Pid, Ref} = spawn_monitor(fun() -> ok end),
    {'DOWN', Ref, process, Pid, normal} = next(),
    {is_pid(call(Engine, {echo, Pid})), call(Engine, {tell, Pid, hello})}.

monitored(#{id := Id} = Engine, Reason) ->
    Pid = spawn(fun() -> receive stop -> ok end end),
    ok = call(Engine, {watch, Pid}),
    exit(Pid, Reason),
    conf_target:at(conf_engine, log, [Id, 1]).

monitored_after_end(#{id := Id} = Engine) ->
    {Pid, Ref} = spawn_monitor(fun() -> ok end),
    {'DOWN', Ref, process, Pid, normal} = next(),
    ok = call(Engine, {watch, Pid}),
    conf_target:at(conf_engine, log, [Id, 1]).

linked(#{id := Id} = Engine) ->
    Pid = spawn(fun() -> receive stop -> ok end end),
    ok = call(Engine, {link, Pid}),
    exit(Pid, oops),
    conf_target:at(conf_engine, log, [Id, 1]).

%% The engine is linked to a process of ours, and is killed.
linked_to(Engine, Becomes) ->
    {Pid, Ref} = spawn_monitor(fun() -> {'$gen_call', From, _} = next(), gen_server:reply(From, lives) end),
    ok = call(Engine, {link, Pid}),
    killed = kill(Engine),
    barrier(),
    Seen = Becomes(Pid),
    {'DOWN', Ref, process, Pid, Reason} = next(),
    {Seen, Reason}.

lives(Pid) -> conf_lib:ended(fun() -> gen_server:call(Pid, 1) end).
ends(_Pid) -> ended.

%% The pid that the caller has for it is the engine's own there.
of_engine_there(#{pid := Pid} = Engine) -> call(Engine, {is_self, Pid}).

%% The engine's own pid, in its reply: used as any pid, given back.
of_engine_used(Engine) ->
    Pid = call(Engine, own_pid),
    Ref = erlang:monitor(process, Pid),
    Called = gen_server:call(Pid, {echo, 1}),
    Itself = call(Engine, {is_self, Pid}),
    kill(Engine),
    receive
        {'DOWN', Ref, process, Pid, Reason} -> {Called, Itself, Reason}
    end.

%% By exit/2 of the engine.
exited(Engine) ->
    {Pid, Ref} = spawn_monitor(fun() -> {'$gen_call', From, _} = next(), gen_server:reply(From, lives) end),
    ok = call(Engine, {exit, Pid, oops}),
    Asked = call(Engine, {ask, Pid, 1, 10000}),
    {'DOWN', Ref, process, Pid, Reason} = next(),
    {case Asked of lives -> lives; _ -> ended end, Reason}.

%% A process there that nobody has published.
of_there(Engine) ->
    Pid = call(Engine, start_echo),
    {
        is_pid(Pid),
        node(Pid) =:= maps:get(node, Engine),
        gen_server:call(Pid, {echo, 1}),
        call(Engine, {echo, Pid}) =:= Pid,
        call(Engine, start_echo) =:= Pid
    }.

of_there_ends(Engine) ->
    Pid = call(Engine, start_echo),
    erlang:monitor(process, Pid),
    Pid ! {stop, shutdown},
    {'DOWN', _Ref, process, Pid, Reason} = next(),
    {Reason, ended(fun() -> gen_server:call(Pid, {echo, 1}) end)}.

%% The pid of one realm's engine, given to another's.
of_third_realm(#{pid := Pid}) ->
    Other = conf_target:engine("pid_of_third_realm_other", #{realm => <<"carol">>}),
    Seen = call(Other, {ask, Pid, {echo, 1}, 10000}),
    kill(Other),
    Seen.

after_disconnect(#{node := Node} = Engine) ->
    ok = call(Engine, {keep, self()}),
    true = erlang:disconnect_node(Node),
    {call(Engine, {kept, self()}), call(Engine, {tell_kept, hello}), next()}.

reference_is_the_same(Engine) ->
    Ref = make_ref(),
    ok = call(Engine, {keep, Ref}),
    {call(Engine, {kept, Ref}), call(Engine, {kept, make_ref()})}.

reference_of_there(Engine) ->
    Ref = call(Engine, new_reference),
    {is_reference(Ref), call(Engine, {kept, Ref}), call(Engine, {echo, Ref}) =:= Ref}.

alias(Engine) ->
    Alias = erlang:alias(),
    ok = call(Engine, {tell, Alias, hello}),
    barrier(),
    erlang:unalias(Alias),
    nothing_left().

%% From of a call of another's, which OTP tags with an alias, in a request: the engine answers it.
alias_in_reply(Engine) ->
    Row = self(),
    Server = server(fun(From, Request) ->
        Row ! {asked, From, Request},
        receive stop -> ok end
    end),
    Caller = conf_lib:caller(fun() -> gen_server:call(Server, {echo, 1}, 1000) end),
    {asked, From, {echo, 1}} = next(),
    ok = call(Engine, {reply_to, From, answered}),
    Result = conf_lib:result(Caller),
    Server ! stop,
    Result.

many(Engine) ->
    Refs = [make_ref() || _ <- lists:seq(1, 10000)],
    call(Engine, {echo, [self() | Refs]}) =:= [self() | Refs].
