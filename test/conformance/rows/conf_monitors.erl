%% erlang:monitor/2,3 and demonitor/1,2.
-module(conf_monitors).

-export([rows/0]).

-import(conf_lib, [barrier/0, kill/1, finish/2, next/0, nothing_left/0]).

rows() ->
    [
        {monitor_pid_shutdown, fun(Engine) -> by_pid(Engine, shutdown) end},
        {monitor_pid_normal, fun(Engine) -> by_pid(Engine, normal) end},
        {monitor_pid_shutdown_term, fun(Engine) -> by_pid(Engine, {shutdown, secret}) end},
        {monitor_pid_otherwise, fun(Engine) -> by_pid(Engine, {oops, [1, 2]}) end},
        {monitor_pid_noproc, fun(Engine) -> by_pid(Engine, noproc) end},
        {monitor_pid_timeout, fun(Engine) -> by_pid(Engine, timeout) end},
        {monitor_pid_shutdown_term_allowed, carol(), fun(Engine) -> by_pid(Engine, {shutdown, secret}) end},
        {monitor_pid_otherwise_allowed, carol(), fun(Engine) -> by_pid(Engine, {oops, [1, 2]}) end},
        {monitor_pid_killed, fun(Engine) -> by_pid(Engine, kill) end},
        {monitor_name_shutdown, fun(Engine) -> by_name(Engine, shutdown) end},
        {monitor_name_killed, fun(Engine) -> by_name(Engine, kill) end},
        {monitor_missing_name, fun missing_name/1},
        {monitor_dead_pid, fun dead_pid/1},
        {monitor_many_times, fun many_times/1},
        {monitor_by_both, fun by_both/1},
        {monitor_from_several_processes, fun from_several/1},
        {monitor_info, fun info/1},
        {monitor_tag, fun tag/1},
        {monitor_tag_missing, fun tag_missing/1},
        {monitor_alias_explicit_unalias, fun(Engine) -> alias(Engine, explicit_unalias) end},
        {monitor_alias_demonitor, fun(Engine) -> alias(Engine, demonitor) end},
        {monitor_alias_reply_demonitor, fun(Engine) -> alias(Engine, reply_demonitor) end},
        {monitor_name_alias_reply_demonitor, fun name_alias_reply_demonitor/1},
        {demonitor, fun demonitored/1},
        {demonitor_by_name, fun demonitor_by_name/1},
        {demonitor_flush, fun demonitor_flush/1},
        {demonitor_info, fun demonitor_info/1},
        {demonitor_flush_info, fun demonitor_flush_info/1},
        {demonitor_twice, fun demonitor_twice/1},
        {monitor_watcher_dies, fun watcher_dies/1},
        {monitor_after_messages, #{module => conf_plain}, fun after_messages/1},
        {monitor_thousand, fun thousand/1},
        {monitor_process_of_missing_node, fun missing_node/1},
        {monitor_disconnect, #{disconnects => true}, fun disconnect/1},
        {monitor_again_after_disconnect, #{disconnects => true}, fun again_after_disconnect/1}
    ].

carol() -> #{realm => <<"carol">>}.

by_pid(#{pid := Pid} = Engine, Reason) ->
    Ref = erlang:monitor(process, Pid),
    finished(Engine, Reason),
    {'DOWN', Ref, process, Pid, _} = Down = next(),
    Down.

by_name(#{name := Name} = Engine, Reason) ->
    Ref = erlang:monitor(process, Name),
    finished(Engine, Reason),
    {'DOWN', Ref, process, Name, _} = Down = next(),
    Down.

finished(Engine, kill) -> kill(Engine);
finished(Engine, Reason) -> finish(Engine, Reason).

missing_name(#{node := Node}) ->
    Ref = erlang:monitor(process, {'nobody@alice', Node}),
    {'DOWN', Ref, process, _, _} = Down = next(),
    Down.

dead_pid(#{pid := Pid} = Engine) ->
    kill(Engine),
    Ref = erlang:monitor(process, Pid),
    {'DOWN', Ref, process, Pid, _} = Down = next(),
    Down.

many_times(#{pid := Pid} = Engine) ->
    Refs = [erlang:monitor(process, Pid) || _ <- lists:seq(1, 10)],
    kill(Engine),
    Downs = [next() || _ <- Refs],
    barrier(),
    {
        lists:sort([Ref || {'DOWN', Ref, process, _, killed} <- Downs]) =:= lists:sort(Refs),
        nothing_left()
    }.

by_both(#{pid := Pid, name := Name} = Engine) ->
    [_, _] = [erlang:monitor(process, Item) || Item <- [Pid, Name]],
    kill(Engine),
    lists:sort([{Object, Reason} || {'DOWN', _, process, Object, Reason} <- [next(), next()]]).

from_several(#{pid := Pid} = Engine) ->
    Row = self(),
    Watchers = [
        spawn(fun() ->
            Ref = erlang:monitor(process, Pid),
            Row ! watching,
            receive
                {'DOWN', Ref, process, Pid, Reason} -> Row ! {self(), Reason}
            end
        end)
     || _ <- lists:seq(1, 20)
    ],
    [watching = next() || _ <- Watchers],
    kill(Engine),
    conf_lib:same([receive {Watcher, Reason} -> Reason end || Watcher <- Watchers]).

info(#{pid := Pid, name := Name}) ->
    Refs = [erlang:monitor(process, Item) || Item <- [Pid, Name]],
    Seen = process_info(self(), monitors),
    [erlang:demonitor(Ref, [flush]) || Ref <- Refs],
    {Seen, process_info(self(), monitors)}.

tag(#{pid := Pid, name := Name} = Engine) ->
    _ = erlang:monitor(process, Pid, [{tag, {'OVER', pid}}]),
    _ = erlang:monitor(process, Name, [{tag, {'OVER', name}}]),
    finish(Engine, shutdown),
    lists:sort([next(), next()]).

tag_missing(#{node := Node}) ->
    _ = erlang:monitor(process, {'nobody@alice', Node}, [{tag, 'OVER'}]),
    next().

alias(#{pid := Pid, name := Name} = Engine, Kind) ->
    Alias = erlang:monitor(process, Pid, [{alias, Kind}]),
    Name ! {'$gen_call', {self(), [alias | Alias]}, {echo, 1}},
    {[alias | Alias], 1} = next(),
    Name ! {'$gen_call', {self(), [alias | Alias]}, {echo, 2}},
    1 = gen_server:call(Name, {echo, 1}),
    barrier(),
    Second = nothing_left(),
    kill(Engine),
    barrier(),
    Down = nothing_left(),
    {[Reply || {_, Reply} <- Second], Down, erlang:unalias(Alias)}.

name_alias_reply_demonitor(#{name := Name} = Engine) ->
    Alias = erlang:monitor(process, Name, [{alias, reply_demonitor}]),
    Name ! {'$gen_call', {self(), [alias | Alias]}, {echo, 1}},
    {[alias | Alias], 1} = next(),
    kill(Engine),
    barrier(),
    nothing_left().

demonitored(#{pid := Pid} = Engine) ->
    Ref = erlang:monitor(process, Pid),
    Seen = erlang:demonitor(Ref),
    kill(Engine),
    barrier(),
    {Seen, nothing_left()}.

demonitor_by_name(#{name := Name} = Engine) ->
    Ref = erlang:monitor(process, Name),
    Seen = erlang:demonitor(Ref),
    kill(Engine),
    barrier(),
    {Seen, nothing_left()}.

demonitor_flush(#{pid := Pid} = Engine) ->
    Ref = erlang:monitor(process, Pid),
    kill(Engine),
    {erlang:demonitor(Ref, [flush]), nothing_left()}.

demonitor_info(#{pid := Pid} = Engine) ->
    First = erlang:monitor(process, Pid),
    Found = erlang:demonitor(First, [info]),
    Second = erlang:monitor(process, Pid),
    kill(Engine),
    barrier(),
    {Found, erlang:demonitor(Second, [info]), length(nothing_left())}.

demonitor_flush_info(#{pid := Pid} = Engine) ->
    First = erlang:monitor(process, Pid),
    Found = erlang:demonitor(First, [flush, info]),
    Second = erlang:monitor(process, Pid),
    kill(Engine),
    barrier(),
    {Found, erlang:demonitor(Second, [flush, info]), nothing_left()}.

demonitor_twice(#{pid := Pid}) ->
    Ref = erlang:monitor(process, Pid),
    {erlang:demonitor(Ref), erlang:demonitor(Ref), erlang:demonitor(Ref, [info])}.

%% And the engine is none the worse for it.
watcher_dies(#{pid := Pid} = Engine) ->
    Row = self(),
    Watcher = spawn(fun() ->
        erlang:monitor(process, Pid),
        Row ! watching,
        receive stop -> ok end
    end),
    watching = next(),
    exit(Watcher, kill),
    1 = gen_server:call(Pid, {echo, 1}),
    Reason = kill(Engine),
    barrier(),
    {Reason, nothing_left()}.

%% What was sent before is read before: also of a process that ends.
after_messages(#{pid := Pid, name := Name}) ->
    Ref = erlang:monitor(process, Pid),
    Alias = erlang:alias([reply]),
    Name ! {'$gen_call', {self(), [alias | Alias]}, {echo, 1}},
    Pid ! {stop, shutdown},
    [
        case next() of
            {[alias | Alias], 1} -> reply;
            {'DOWN', Ref, process, Pid, shutdown} -> down
        end
     || _ <- [1, 2]
    ].

thousand(#{pid := Pid} = Engine) ->
    Refs = [erlang:monitor(process, Pid) || _ <- lists:seq(1, 1000)],
    {Half, Other} = lists:split(500, Refs),
    [erlang:demonitor(Ref) || Ref <- Half],
    kill(Engine),
    barrier(),
    lists:sort([Ref || {'DOWN', Ref, process, _, killed} <- nothing_left()]) =:= lists:sort(Other).

missing_node(_) ->
    Ref = erlang:monitor(process, {'echo@alice', 'nobody@127.0.0.1'}),
    {'DOWN', Ref, process, _, _} = Down = next(),
    Down.

disconnect(#{pid := Pid, name := Name, node := Node}) ->
    [_, _] = [erlang:monitor(process, Item) || Item <- [Pid, Name]],
    erlang:disconnect_node(Node),
    lists:sort([{Object, Reason} || {'DOWN', _, process, Object, Reason} <- [next(), next()]]).

again_after_disconnect(#{pid := Pid, node := Node} = Engine) ->
    erlang:disconnect_node(Node),
    Ref = erlang:monitor(process, Pid),
    kill(Engine),
    {'DOWN', Ref, process, Pid, _} = Down = next(),
    Down.
