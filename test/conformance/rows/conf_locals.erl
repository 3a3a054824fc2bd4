%% What OTP does only with processes of one's own node, and how it says so of others: nothing of this is asked of the other node.
-module(conf_locals).

-export([rows/0]).

-import(conf_lib, [ended/1]).

rows() ->
    [
        {is_process_alive, fun(#{pid := Pid}) -> ended(fun() -> erlang:is_process_alive(Pid) end) end},
        {process_info, fun(#{pid := Pid}) -> ended(fun() -> erlang:process_info(Pid) end) end},
        {process_info_item, fun(#{pid := Pid}) -> ended(fun() -> erlang:process_info(Pid, message_queue_len) end) end},
        {register_pid, fun(#{pid := Pid}) -> ended(fun() -> erlang:register(conf_here, Pid) end) end},
        {suspend_process, fun(#{pid := Pid}) -> ended(fun() -> erlang:suspend_process(Pid) end) end},
        {resume_process, fun(#{pid := Pid}) -> ended(fun() -> erlang:resume_process(Pid) end) end},
        {garbage_collect, fun(#{pid := Pid}) -> ended(fun() -> erlang:garbage_collect(Pid) end) end},
        {check_process_code, fun(#{pid := Pid}) -> ended(fun() -> erlang:check_process_code(Pid, conf_lib) end) end},
        {process_display, fun(#{pid := Pid}) -> ended(fun() -> erlang:process_display(Pid, backtrace) end) end},
        {trace_process, fun(#{pid := Pid}) -> ended(fun() -> erlang:trace(Pid, true, [call]) end) end},
        {give_away_table, fun give_away/1},
        {pg_join, fun pg_join/1},
        {node_of_pid, fun(#{pid := Pid, node := Node}) -> {erlang:node(Pid) =:= Node, is_pid(Pid)} end},
        {pid_as_text, fun(#{pid := Pid}) -> list_to_pid(pid_to_list(Pid)) =:= Pid end},
        {pid_as_term, fun(#{pid := Pid}) -> binary_to_term(term_to_binary(Pid)) =:= Pid end},
        {pid_is_one, fun pid_is_one/1},
        {pids_differ, fun pids_differ/1}
    ].

give_away(#{pid := Pid}) ->
    Table = ets:new(table, []),
    ended(fun() -> ets:give_away(Table, Pid, data) end).

pg_join(#{pid := Pid}) ->
    {ok, Scope} = pg:start_link(conf_scope),
    Seen = ended(fun() -> pg:join(conf_scope, group, Pid) end),
    unlink(Scope),
    gen_server:stop(Scope),
    case Seen of
        {raises, {nolocal, _}} -> {raises, nolocal};
        Other -> Other
    end.

%% Wherever it comes from.
pid_is_one(#{pid := Pid, name := Name, global := {global, Global}}) ->
    Ref = erlang:monitor(process, Pid),
    erlang:demonitor(Ref, [flush]),
    {global:whereis_name(Global) =:= Pid, gen_server:call(Name, {echo, 1})}.

pids_differ(#{pid := Pid}) ->
    #{pid := Other} = conf_target:engine("pids_differ_too"),
    {Pid =:= Other, erlang:phash2(Pid) =:= erlang:phash2(Other)}.
