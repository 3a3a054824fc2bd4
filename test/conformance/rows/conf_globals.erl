%% global.
-module(conf_globals).

-export([rows/0]).

-import(conf_lib, [ended/1, await/1, kill/1, nothing_left/0]).

rows() ->
    [
        {global_whereis, fun(#{global := {_, Global}, pid := Pid}) -> global:whereis_name(Global) =:= Pid end},
        {global_whereis_missing, fun(_) -> global:whereis_name(<<"nobody@alice">>) end},
        {global_registered_names, fun(#{full := Full}) -> lists:member(Full, global:registered_names()) end},
        {global_gone_after_death, fun gone_after_death/1},
        {global_back_after_death, fun back_after_death/1},
        {global_register_taken, fun register_taken/1},
        {global_register_pid_again, fun register_pid_again/1},
        {global_re_register, fun re_register/1},
        {global_unregister, fun unregister_name/1},
        {global_start_under_taken_name, fun start_under_taken_name/1},
        {global_register_here, fun register_here/1},
        {global_sync, fun(_) -> conf_lib:within(10000, fun() -> global:sync() end) end},
        {global_lock, fun lock/1},
        {global_lock_there, fun lock_there/1},
        {global_trans, fun(_) -> global:trans({conf, self()}, fun() -> done end) end},
        {global_gone_after_disconnect, #{disconnects => true}, fun gone_after_disconnect/1},
        {global_back_after_disconnect, #{disconnects => true}, fun back_after_disconnect/1}
    ].

gone_after_death(#{full := Full} = Engine) ->
    kill(Engine),
    await(fun() -> global:whereis_name(Full) =:= undefined end).

back_after_death(#{full := Full, pid := Old} = Engine) ->
    kill(Engine),
    await(fun() -> global:whereis_name(Full) =:= undefined end),
    #{pid := New} = conf_target:engine("global_back_after_death"),
    {New =:= Old, global:whereis_name(Full) =:= New, gen_server:call({global, Full}, {echo, 1})}.

register_taken(#{full := Full, pid := Pid}) -> {global:register_name(Full, self()), global:whereis_name(Full) =:= Pid}.

%% One pid, one name.
register_pid_again(#{pid := Pid}) -> {global:register_name(conf_second, Pid), global:whereis_name(conf_second)}.

re_register(#{full := Full, pid := Pid}) ->
    Seen = global:re_register_name(Full, self()),
    Mine = global:whereis_name(Full) =:= self(),
    {Seen, Mine, global:re_register_name(Full, Pid), global:whereis_name(Full) =:= Pid}.

unregister_name(#{full := Full, name := Name}) ->
    _ = global:unregister_name(Full),
    {global:whereis_name(Full), gen_server:call(Name, {echo, 1})}.

start_under_taken_name(#{global := Global, pid := Pid}) ->
    gen_server:start(Global, conf_engine, [], []) =:= {error, {already_started, Pid}}.

%% A process of one's own, beside theirs.
register_here(#{pid := Pid}) ->
    yes = global:register_name(conf_mine, self()),
    Seen = {global:whereis_name(conf_mine) =:= self(), gen_server:call(Pid, {echo, 1})},
    global:unregister_name(conf_mine),
    Seen.

lock(_) ->
    Lock = {conf_lock, self()},
    {global:set_lock(Lock), global:del_lock(Lock)}.

%% A node that is asked for a lock has to have a global name server.
lock_there(#{node := Node}) ->
    Lock = {conf_lock, self()},
    Seen = conf_lib:within(10000, fun() -> global:set_lock(Lock, [node(), Node], 0) end),
    _ = conf_lib:within(10000, fun() -> global:del_lock(Lock, [node(), Node]) end),
    Seen.

gone_after_disconnect(#{full := Full, node := Node}) ->
    erlang:disconnect_node(Node),
    await(fun() -> global:whereis_name(Full) =:= undefined end).

%% Time and again, and at once.
back_after_disconnect(#{full := Full, pid := Pid, node := Node}) ->
    conf_lib:same([
        begin
            conf_target:part(),
            true = net_kernel:connect_node(Node),
            Back = await(fun() -> global:whereis_name(Full) =:= Pid end),
            {Back, ended(fun() -> gen_server:call({global, Full}, {echo, 1}) end), nothing_left()}
        end
     || _ <- lists:seq(1, 10)
    ]).
