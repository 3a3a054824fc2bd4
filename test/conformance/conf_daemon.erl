%% A daemon as an operating-system process: started with configurations that are written here, ended by kill -9.
-module(conf_daemon).

-export([start/3, kill/1]).

-define(READY_MS, 30000).

%% Its configuration's text. Returns when it says that it is ready.
start(Name, Config, Env) ->
    Dir = os:getenv("CONFORMANCE_DIR"),
    File = filename:join(Dir, Name ++ ".toml"),
    ok = file:write_file(File, Config),
    ok = file:change_mode(File, 8#600),
    Args = ["run", "--supervised", "--config", File],
    Log = filename:join(Dir, Name ++ ".log"),
    Starter = self(),
    {Pid, Ref} = spawn_monitor(fun() -> hold(Starter, Args, Env, Log) end),
    receive
        {Pid, ready, OsPid} ->
            erlang:demonitor(Ref, [flush]),
            {Pid, OsPid};
        {'DOWN', Ref, process, Pid, Reason} ->
            error({daemon, Name, Reason})
    after ?READY_MS -> error({daemon, Name, not_ready, file:read_file(Log)})
    end.

%% Returns when it is gone.
kill({Pid, OsPid}) ->
    Ref = erlang:monitor(process, Pid),
    os:cmd("kill -KILL " ++ OsPid),
    receive
        {'DOWN', Ref, process, Pid, _Reason} -> ok
    end.

hold(Starter, Args, Env, Log) ->
    Port = open_port({spawn_executable, os:getenv("LEGATION_NODE_PATH")}, [
        {args, Args}, {env, Env}, binary, exit_status, stderr_to_stdout, use_stdio
    ]),
    {os_pid, Number} = erlang:port_info(Port, os_pid),
    OsPid = integer_to_list(Number),
    ok = file:write_file(filename:join([os:getenv("CONFORMANCE_DIR"), "pids", OsPid]), <<>>),
    {ok, Device} = file:open(Log, [append, raw]),
    listen(Port, Device, Starter, OsPid, <<>>).

listen(Port, Device, Starter, OsPid, Said) ->
    receive
        {Port, {data, Data}} ->
            ok = file:write(Device, Data),
            case Starter =/= told andalso binary:match(<<Said/binary, Data/binary>>, <<"legation ready ">>) of
                false -> listen(Port, Device, Starter, OsPid, Said);
                nomatch -> listen(Port, Device, Starter, OsPid, <<Said/binary, Data/binary>>);
                _There ->
                    Starter ! {self(), ready, OsPid},
                    listen(Port, Device, told, OsPid, <<>>)
            end;
        {Port, {exit_status, Status}} ->
            exit({ended, Status, Said})
    end.
