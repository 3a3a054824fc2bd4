%% Links and exit signals.
-module(conf_links).

-export([rows/0]).
%% There.
-export([links_elsewhere/1]).

-import(conf_lib, [ended/1, same/1, barrier/0, kill/1, finish/2, lives/1, next/0, nothing_left/0]).

rows() ->
    [
        {link_shutdown, fun(Engine) -> trapping(Engine, shutdown) end},
        {link_normal, fun(Engine) -> trapping(Engine, normal) end},
        {link_shutdown_term, fun(Engine) -> trapping(Engine, {shutdown, secret}) end},
        {link_otherwise, fun(Engine) -> trapping(Engine, oops) end},
        {link_killed, fun(Engine) -> trapping(Engine, kill) end},
        {link_not_trapping, fun(Engine) -> not_trapping(Engine, shutdown) end},
        {link_not_trapping_normal, fun not_trapping_normal/1},
        {link_not_trapping_killed, fun(Engine) -> not_trapping(Engine, kill) end},
        {link_dead_pid, fun dead_pid/1},
        {link_dead_pid_not_trapping, fun dead_pid_not_trapping/1},
        {link_twice, fun twice/1},
        {link_info, fun info/1},
        {link_shown_there, fun shown_there/1},
        {link_and_monitor, fun link_and_monitor/1},
        {unlink, fun unlinked/1},
        {unlink_not_linked, fun unlink_not_linked/1},
        {unlink_and_link_again, fun unlink_and_link_again/1},
        {unlink_many_times, fun unlink_many_times/1},
        {link_disconnect, #{disconnects => true}, fun disconnect/1},
        {link_dies, fun(Engine) -> linked_dies(Engine, oops) end},
        {link_dies_normal, fun(Engine) -> linked_dies(Engine, normal) end},
        {link_dies_trapping_engine, trapping(), fun linked_dies_trapping_engine/1},
        {exit_otherwise, fun(Engine) -> exits(Engine, oops) end},
        {exit_normal, fun(Engine) -> exits(Engine, normal) end},
        {exit_kill, fun(Engine) -> exits(Engine, kill) end},
        {exit_trapping_engine, trapping(), fun exit_trapping_engine/1},
        {exit_dead_pid, fun exit_dead_pid/1},
        {exit_after_by_timer, fun exit_after_by_timer/1},
        {link_otherwise_allowed, carol(), fun(Engine) -> trapping(Engine, oops) end},
        {link_shutdown_term_allowed, carol(), fun(Engine) -> trapping(Engine, {shutdown, secret}) end},
        {link_dies_allowed, carol(), fun linked_dies_allowed/1},
        {link_dies_trapping_engine_allowed, maps:merge(carol(), trapping()), fun linked_dies_trapping_engine_allowed/1},
        {link_unlinked_dies_allowed, carol(), fun unlinked_dies/1},
        {exit_otherwise_allowed, carol(), fun exits_allowed/1},
        {exit_normal_allowed, carol(), fun(Engine) -> exits(Engine, normal) end},
        {exit_kill_allowed, carol(), fun(Engine) -> exits(Engine, kill) end},
        {exit_trapping_engine_allowed, maps:merge(carol(), trapping()), fun exit_trapping_engine_allowed/1},
        {group_leader, fun other_group_leader/1}
    ].

carol() -> #{realm => <<"carol">>}.

trapping() -> #{module => conf_plain, args => [trap_exit]}.

finished(Engine, kill) -> kill(Engine);
finished(Engine, Reason) -> finish(Engine, Reason).

trapping(#{pid := Pid} = Engine, Reason) ->
    process_flag(trap_exit, true),
    true = link(Pid),
    finished(Engine, Reason),
    next().

%% With what a process ends that is linked and doesn't trap.
linked(#{pid := Pid}) ->
    Row = self(),
    {Linked, Ref} = spawn_monitor(fun() ->
        link(Pid),
        Row ! linked,
        receive
            {stop, Reason} -> exit(Reason)
        end
    end),
    linked = next(),
    {Linked, Ref}.

not_trapping(Engine, Reason) ->
    {_Linked, Ref} = linked(Engine),
    finished(Engine, Reason),
    {'DOWN', Ref, process, _, How} = next(),
    How.

not_trapping_normal(Engine) ->
    {Linked, Ref} = linked(Engine),
    finish(Engine, normal),
    barrier(),
    Left = nothing_left(),
    Linked ! {stop, {at, last}},
    {'DOWN', Ref, process, _, How} = next(),
    {Left, How}.

dead_pid(#{pid := Pid} = Engine) ->
    kill(Engine),
    process_flag(trap_exit, true),
    {link(Pid), next()}.

dead_pid_not_trapping(#{pid := Pid} = Engine) ->
    kill(Engine),
    {_, Ref} = spawn_monitor(fun() ->
        link(Pid),
        receive never -> ok end
    end),
    {'DOWN', Ref, process, _, How} = next(),
    How.

twice(#{pid := Pid} = Engine) ->
    process_flag(trap_exit, true),
    [true, true] = [link(Pid), link(Pid)],
    kill(Engine),
    barrier(),
    nothing_left().

info(#{pid := Pid}) ->
    {links, Before} = process_info(self(), links),
    link(Pid),
    {links, Linked} = process_info(self(), links),
    unlink(Pid),
    {links, After} = process_info(self(), links),
    {Linked -- Before, After -- Before}.

%% Whether the engine's system shows the link, too.
shown_there(#{pid := Pid, id := Id}) ->
    link(Pid),
    barrier(),
    Shown = conf_target:at(?MODULE, links_elsewhere, [Id]),
    unlink(Pid),
    Shown.

links_elsewhere(Id) ->
    {links, Links} = process_info(conf_host:pid(Id), links),
    length([Link || Link <- Links, is_pid(Link), node(Link) =/= node()]).

link_and_monitor(#{pid := Pid} = Engine) ->
    process_flag(trap_exit, true),
    link(Pid),
    erlang:monitor(process, Pid),
    finish(Engine, shutdown),
    barrier(),
    lists:sort(nothing_left()).

unlinked(#{pid := Pid} = Engine) ->
    process_flag(trap_exit, true),
    link(Pid),
    Seen = unlink(Pid),
    kill(Engine),
    barrier(),
    {Seen, nothing_left()}.

unlink_not_linked(#{pid := Pid}) ->
    Seen = unlink(Pid),
    {Seen, gen_server:call(Pid, {echo, 1})}.

unlink_and_link_again(#{pid := Pid} = Engine) ->
    process_flag(trap_exit, true),
    [true, true, true] = [link(Pid), unlink(Pid), link(Pid)],
    kill(Engine),
    barrier(),
    nothing_left().

unlink_many_times(#{pid := Pid} = Engine) ->
    process_flag(trap_exit, true),
    true = same([link(Pid) andalso unlink(Pid) || _ <- lists:seq(1, 200)]),
    link(Pid),
    kill(Engine),
    barrier(),
    nothing_left().

disconnect(#{pid := Pid, node := Node}) ->
    process_flag(trap_exit, true),
    link(Pid),
    erlang:disconnect_node(Node),
    next().

%% What becomes of the engine.
linked_dies(Engine, Reason) ->
    {Linked, Ref} = linked(Engine),
    Linked ! {stop, Reason},
    {'DOWN', Ref, process, _, Reason} = next(),
    what_becomes(Engine).

what_becomes(Engine) ->
    barrier(),
    %% The barrier is answered by another process, so let this one have its turn as well.
    case conf_lib:ended(fun() -> gen_server:call(maps:get(pid, Engine), {echo, 1}) end) of
        1 -> lives;
        {exits, {Reason, _Call}} when Reason =:= noproc -> ended;
        {exits, {_Reason, _Call}} -> ended
    end.

linked_dies_trapping_engine(#{id := Id} = Engine) ->
    {Linked, Ref} = linked(Engine),
    Linked ! {stop, oops},
    {'DOWN', Ref, process, _, oops} = next(),
    barrier(),
    {what_becomes(Engine), conf_target:at(conf_plain, log, [Id])}.

exits(#{pid := Pid} = Engine, Reason) ->
    Seen = exit(Pid, Reason),
    {Seen, what_becomes(Engine)}.

exit_trapping_engine(#{pid := Pid, id := Id} = Engine) ->
    exit(Pid, oops),
    {what_becomes(Engine), conf_target:at(conf_plain, log, [Id])}.

%% With what reason the engine ends of it.
linked_dies_allowed(Engine) ->
    {Linked, Ref} = linked(Engine),
    Reason = conf_lib:ending(Engine, fun() -> Linked ! {stop, oops} end),
    receive
        {'DOWN', Ref, process, _, oops} -> Reason
    end.

%% Waits for the one signal.
linked_dies_trapping_engine_allowed(#{id := Id} = Engine) ->
    {Linked, Ref} = linked(Engine),
    Linked ! {stop, oops},
    {'DOWN', Ref, process, _, oops} = next(),
    Heard = conf_target:at(conf_plain, log, [Id, 1]),
    {what_becomes(Engine), Heard}.

unlinked_dies(#{pid := Pid} = Engine) ->
    {Linked, Ref} = spawn_monitor(fun() ->
        link(Pid),
        unlink(Pid),
        exit(oops)
    end),
    {'DOWN', Ref, process, Linked, oops} = next(),
    what_becomes(Engine).

exits_allowed(#{pid := Pid} = Engine) -> conf_lib:ending(Engine, fun() -> exit(Pid, oops) end).

exit_trapping_engine_allowed(#{pid := Pid, id := Id} = Engine) ->
    exit(Pid, oops),
    Heard = conf_target:at(conf_plain, log, [Id, 1]),
    {what_becomes(Engine), Heard}.

exit_dead_pid(#{pid := Pid} = Engine) ->
    kill(Engine),
    Seen = exit(Pid, oops),
    barrier(),
    {Seen, nothing_left()}.

exit_after_by_timer(#{pid := Pid} = Engine) ->
    {ok, _} = timer:exit_after(0, Pid, oops),
    {ok, _} = timer:send_after(20, tick),
    tick = next(),
    what_becomes(Engine).

other_group_leader(#{pid := Pid} = Engine) ->
    Seen = ended(fun() -> erlang:group_leader(self(), Pid) end),
    %% And the other way round, in a process that isn't needed afterwards.
    {Seen, what_becomes(Engine), conf_lib:within(5000, fun() -> erlang:group_leader(Pid, self()) end)}.
