%% sys and gen_server:stop. alice does not allow it, carol does.
-module(conf_sys).

-export([rows/0, plain/1]).

-import(conf_lib, [ended/1, lives/1, nothing_left/0]).

rows() ->
    lists:append([
        [
            {list_to_atom("sys_" ++ Name), Options, Fun},
            {list_to_atom("sys_" ++ Name ++ "_allowed"), Options#{realm => <<"carol">>}, Fun}
        ]
     || {Name, Options, Fun} <- [
            {"get_state", server(), fun get_state/1},
            {"get_state_timeout", server(), fun get_state_timeout/1},
            {"get_status", server(), fun get_status/1},
            {"replace_state", server(), fun replace_state/1},
            {"suspend", server(), fun suspend/1},
            {"statistics", server(), fun some_statistics/1},
            {"log", server(), fun log/1},
            {"no_debug", server(), fun no_debug/1},
            {"terminate", server(), fun terminate/1},
            {"stop_server", server(), fun stop/1},
            {"stop_server_reason", server(), fun(Engine) -> stop(Engine, shutdown) end},
            {"stop_server_strange_reason", server(), fun(Engine) -> stop(Engine, {strange, reason}) end},
            {"stop_server_by_name", server(), fun stop_by_name/1},
            {"stop_server_by_global", server(), fun stop_by_global/1},
            {"stop_statem", #{module => conf_statem, args => off}, fun stop_statem/1},
            {"stop_proc_lib", server(), fun stop_proc_lib/1},
            {"supervisor_children", #{module => conf_supervisor}, fun supervisor_children/1},
            {"supervisor_count", #{module => conf_supervisor}, fun supervisor_count/1}
        ]
    ]) ++
        [
            {sys_missing_name, server(), fun missing_name/1},
            {sys_stop_missing_name, server(), fun stop_missing_name/1},
            {sys_stop_dead_pid, server(), fun stop_dead_pid/1}
        ].

server() -> #{module => conf_counter}.

%% Without stack traces, and without what else OTP tells of itself.
plain({raises, Reason}) -> {raises, Reason};
plain({exits, {{badmatch, Term}, [_ | _]}}) -> {exits, {{badmatch, Term}, 'Stack'}};
plain({exits, {Reason, [{_, _, _, _} | _]}}) -> {exits, {Reason, 'Stack'}};
plain(Other) -> Other.

state(#{pid := Pid}) -> ended(fun() -> gen_server:call(Pid, get) end).

get_state(#{pid := Pid, name := Name, global := Global}) ->
    conf_lib:same([bare(ended(fun() -> sys:get_state(Way) end)) || Way <- [Pid, Name, Global]]).

get_state_timeout(#{pid := Pid}) -> bare(ended(fun() -> sys:get_state(Pid, 10000) end)).

%% What newer OTPs answer and take off again stays on where they are asked by an older one.
bare({ok, State}) -> State;
bare(Other) -> Other.

get_status(#{name := Name, pid := Pid}) ->
    case ended(fun() -> sys:get_status(Name) end) of
        {status, Pid, {module, Module}, [_, running, _, _, _]} -> {status, Module};
        {status, _, {module, Module}, _} -> {status, not_the_same, Module};
        Other -> Other
    end.

replace_state(#{pid := Pid} = Engine) ->
    {bare(ended(fun() -> sys:replace_state(Pid, fun erlang:'-'/1) end)), state(Engine)}.

suspend(#{pid := Pid} = Engine) ->
    Suspended = ended(fun() -> sys:suspend(Pid) end),
    Called = ended(fun() -> gen_server:call(Pid, get, 50) end),
    Resumed = ended(fun() -> sys:resume(Pid) end),
    State = state(Engine),
    {Suspended, Called, Resumed, State, nothing_left()}.

some_statistics(#{pid := Pid}) ->
    {
        ended(fun() -> sys:statistics(Pid, true) end),
        case ended(fun() -> sys:statistics(Pid, get) end) of
            {ok, [_ | _]} -> {ok, 'Statistics'};
            Other -> Other
        end,
        ended(fun() -> sys:statistics(Pid, false) end)
    }.

log(#{pid := Pid}) -> {ended(fun() -> sys:log(Pid, true) end), ended(fun() -> sys:log(Pid, false) end)}.

no_debug(#{pid := Pid}) -> ended(fun() -> sys:no_debug(Pid) end).

terminate(#{pid := Pid} = Engine) ->
    Ref = erlang:monitor(process, Pid),
    Ended = ended(fun() -> sys:terminate(Pid, shutdown) end),
    case Ended of
        ok -> receive {'DOWN', Ref, process, Pid, Reason} -> {Ended, Reason} end;
        _ -> {Ended, lives(Engine)}
    end.

stop(#{pid := Pid} = Engine) -> {plain(ended(fun() -> gen_server:stop(Pid) end)), lives(Engine)}.
stop(#{pid := Pid} = Engine, Reason) -> {plain(ended(fun() -> gen_server:stop(Pid, Reason, 10000) end)), lives(Engine)}.
stop_by_name(#{name := Name} = Engine) -> {plain(ended(fun() -> gen_server:stop(Name, shutdown, 10000) end)), lives(Engine)}.
stop_by_global(#{global := Name} = Engine) -> {plain(ended(fun() -> gen_server:stop(Name, shutdown, 10000) end)), lives(Engine)}.
stop_statem(#{pid := Pid} = Engine) -> {plain(ended(fun() -> gen_statem:stop(Pid) end)), lives(Engine)}.
stop_proc_lib(#{pid := Pid} = Engine) -> {plain(ended(fun() -> proc_lib:stop(Pid, shutdown, 10000) end)), lives(Engine)}.

missing_name(#{node := Node}) -> ended(fun() -> sys:get_state({'nobody@alice', Node}) end).
stop_missing_name(#{node := Node}) -> ended(fun() -> gen_server:stop({'nobody@alice', Node}) end).

stop_dead_pid(#{pid := Pid} = Engine) ->
    conf_lib:kill(Engine),
    ended(fun() -> gen_server:stop(Pid) end).

%% Whose answers have pids in them, and whose have none.
supervisor_children(#{pid := Pid}) ->
    case supervisor:which_children(Pid) of
        [{child, Child, worker, [conf_counter]}] when is_pid(Child) -> one_child;
        Other -> Other
    end.

supervisor_count(#{pid := Pid}) -> supervisor:count_children(Pid).
