%% What rows are written with. A row does something and returns a term, its observation; what differs from run to run (pids,
%% references, names of nodes) is replaced by the part it plays, so that two runs can be compared.
-module(conf_lib).

-export([ended/1, within/2, next/0, next/1, nothing_left/0, barrier/0, same/1, await/1, await/2, holds/2]).
-export([caller/1, result/1, ending/2, kill/1, finish/2, lives/1]).
-export([normal/2, text/1]).

-define(PATIENCE, 15000).

%% How something ended: its value, or {exits, Reason}, {raises, Reason}, {throws, Term}.
ended(Fun) ->
    try
        Fun()
    catch
        exit:Reason -> {exits, Reason};
        error:Reason -> {raises, Reason};
        throw:Term -> {throws, Term}
    end.

%% The same in a process of its own, with the time it may take: `waits` where it is still at it. That process is killed.
within(Millis, Fun) ->
    Caller = caller(Fun),
    receive
        {ended, Caller, Result} -> Result
    after Millis ->
        exit(Caller, kill),
        receive
            {ended, Caller, Result} -> Result
        after 0 -> waits
        end
    end.

%% Starts something in a process of its own; result/1 waits for how it ended.
caller(Fun) ->
    Row = self(),
    spawn(fun() -> Row ! {ended, self(), ended(Fun)} end).

result(Caller) ->
    receive
        {ended, Caller, Result} -> Result
    after ?PATIENCE -> waits
    end.

%% The next message.
next() -> next(?PATIENCE).

next(Millis) ->
    receive
        Message -> Message
    after Millis -> nothing
    end.

%% What is in the mailbox.
nothing_left() ->
    receive
        Message -> [Message | nothing_left()]
    after 0 -> []
    end.

%% Whatever the target was about to send to this process has come when this is over: messages, DOWNs and exit signals come
%% over one connection, and this is one more call on it. Also what we have sent has been read there.
barrier() ->
    barrier = gen_server:call(maps:get(pid, conf_target:helper()), {echo, barrier}, ?PATIENCE),
    ok.

%% One value where all are the same but for what differs from run to run.
same([Value | Values] = All) ->
    Normal = normal(Value, []),
    case lists:all(fun(Other) -> normal(Other, []) =:= Normal end, Values) of
        true -> Value;
        false -> All
    end.

%% Until the fun is true. For what can't be waited for by a message: that :global has a name, say.
await(Fun) -> await(Fun, ?PATIENCE).
await(Fun, Millis) -> await_until(Fun, erlang:monotonic_time(millisecond) + Millis).

await_until(Fun, Deadline) ->
    case Fun() of
        true ->
            true;
        false ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true ->
                    receive after 3 -> ok end,
                    await_until(Fun, Deadline);
                false ->
                    false
            end
    end.

%% Until the engine has got so many calls that it holds, under this key.
holds(#{id := Id}, Key) -> conf_target:at(conf_engine, await_held, [Id, Key]).

%% The reason with which an engine comes to its end when this is done; `lives` when it doesn't. What is asked of the engine here must
%% be of an engine that answers {echo, Term}.
ending(#{pid := Pid}, Fun) ->
    Ref = erlang:monitor(process, Pid),
    Fun(),
    receive
        {'DOWN', Ref, process, Pid, Reason} -> Reason
    after ?PATIENCE -> waits
    end.

%% Kills it, in its own system; returns when this process could know. The order to do so comes by another way, so what was sent
%% before, a link for instance, has to be there first.
kill(#{id := Id} = Engine) ->
    barrier(),
    ending(Engine, fun() -> conf_target:at(conf_host, stop, [Id]) end).

%% It ends by itself, with this reason.
finish(#{pid := Pid} = Engine, Reason) -> ending(Engine, fun() -> Pid ! {stop, Reason} end).

%% Asked in its own system.
lives(#{id := Id}) -> conf_target:at(conf_host, lives, [Id]).

%% Roles: a list of {Term, Role}, for what this row knows by name.
normal(Term, Roles) ->
    case lists:keyfind(Term, 1, Roles) of
        {Term, Role} -> Role;
        false -> normal_inside(Term, Roles)
    end.

normal_inside(Pid, Roles) when is_pid(Pid) ->
    case {lists:keyfind(node(Pid), 1, Roles), node(Pid)} of
        {{_Node, 'Node'}, _} -> 'PidThere';
        {_, Node} when Node =:= node() -> 'PidHere';
        {_, _Node} -> 'PidElsewhere'
    end;
normal_inside(Ref, _Roles) when is_reference(Ref) -> 'Ref';
normal_inside(Port, _Roles) when is_port(Port) -> 'Port';
normal_inside(Fun, _Roles) when is_function(Fun) -> 'Fun';
%% How OTP says which call it was, with all of its arguments.
normal_inside({Reason, {Module, Function, [_ | _]}}, Roles) when
    Module =:= gen_server; Module =:= gen_statem; Module =:= gen_event; Module =:= sys; Module =:= proc_lib;
    Module =:= 'Elixir.GenServer'; Module =:= 'Elixir.Agent'
->
    {normal(Reason, Roles), call_name(Function)};
normal_inside(Tuple, Roles) when is_tuple(Tuple) ->
    list_to_tuple([normal(Element, Roles) || Element <- tuple_to_list(Tuple)]);
normal_inside([Head | Tail], Roles) -> [normal(Head, Roles) | normal(Tail, Roles)];
normal_inside(Map, Roles) when is_map(Map) ->
    maps:from_list([{normal(Key, Roles), normal(Value, Roles)} || {Key, Value} <- maps:to_list(Map)]);
normal_inside(Other, _Roles) -> Other.

call_name(call) -> 'Call';
call_name(Function) -> Function.

%% As the page has it: roles are words like variables.
text(Term) ->
    Text = unicode:characters_to_list(io_lib:format("~0tp", [Term])),
    re:replace(Text, "'([A-Z][A-Za-z]*)'", "\\1", [global, {return, list}, unicode]).
