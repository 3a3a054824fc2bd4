%% A process that is no gen_server: it does what messages say, by hand, and keeps all others.
-module(conf_plain).

-export([start/1, log/1, log/2]).

start(Options) ->
    {ok,
        spawn(fun() ->
            process_flag(trap_exit, proplists:get_bool(trap_exit, Options)),
            loop([], [])
        end)}.

%% Asked on the engine's own node.
log(Id) -> log(Id, 0).

%% When there are so many.
log(Id, Count) ->
    Pid = conf_host:pid(Id),
    Ref = erlang:monitor(process, Pid),
    Pid ! {?MODULE, Count, self(), Ref},
    receive
        {Ref, Log} ->
            erlang:demonitor(Ref, [flush]),
            Log;
        {'DOWN', Ref, process, Pid, Reason} ->
            {gone, Reason}
    end.

loop(Log, Waiting) ->
    Left = lists:filter(fun({Count, Pid, Ref}) -> not answered(Count, Pid, Ref, Log) end, Waiting),
    receive
        {?MODULE, Count, Pid, Ref} ->
            loop(Log, [{Count, Pid, Ref} | Left]);
        {'$gen_call', From, {echo, Term}} ->
            gen_server:reply(From, Term),
            loop(Log, Left);
        {stop, Reason} ->
            exit(Reason);
        Message ->
            loop([clean(Message) | Log], Left)
    end.

answered(Count, Pid, Ref, Log) when length(Log) >= Count ->
    Pid ! {Ref, lists:reverse(Log)},
    true;
answered(_Count, _Pid, _Ref, _Log) -> false.

clean(Pid) when is_pid(Pid) -> 'Pid';
clean(Ref) when is_reference(Ref) -> 'Ref';
clean(Tuple) when is_tuple(Tuple) -> list_to_tuple([clean(Element) || Element <- tuple_to_list(Tuple)]);
clean([Head | Tail]) -> [clean(Head) | clean(Tail)];
clean(Other) -> Other.
