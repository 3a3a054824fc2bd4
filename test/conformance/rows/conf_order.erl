%% Order, and many at once.
-module(conf_order).

-export([rows/0]).

-import(conf_lib, [same/1, caller/1, result/1, nothing_left/0]).

rows() ->
    [
        {order_of_casts, orderly(), fun(Engine) -> senders(Engine, 4, 10000, fun by_pid/3) end},
        {order_by_name_and_pid, orderly(), fun(Engine) -> senders(Engine, 4, 3000, fun by_name_and_pid/3) end},
        {order_of_kinds, orderly(), fun(Engine) -> senders(Engine, 4, 1000, fun kinds/3) end},
        {order_of_large_and_small, orderly(), fun(Engine) -> senders(Engine, 4, 60, fun large_and_small/3) end},
        {order_traced_and_not, orderly(), fun(Engine) -> senders(Engine, 4, 1000, fun traced/3) end},
        {order_of_replies, fun order_of_replies/1},
        {callers_1000, fun(Engine) -> callers(Engine, 1000) end},
        {callers_1000_of_many_engines, #{module => none}, fun callers_of_many/1},
        {callers_time_out_beside_others, fun time_out_beside_others/1},
        {engines_1000, #{module => none}, fun(_) -> engines(1000, <<"thousand">>) end},
        {engines_10000, #{module => none, slow => true}, fun(_) -> engines(10000, <<"tenthousand">>) end}
    ].

orderly() -> #{module => conf_order_engine}.

senders(#{id := Id} = Engine, Senders, Count, Send) ->
    [
        spawn_link(fun() -> [Send(Engine, Sender, N) || N <- lists:seq(1, Count)] end)
     || Sender <- lists:seq(1, Senders)
    ],
    conf_target:at(conf_order_engine, await, [Id, Senders, Count]).

by_pid(#{pid := Pid}, Sender, N) -> gen_server:cast(Pid, {numbered, Sender, N}).

by_name_and_pid(#{pid := Pid, name := Name, global := Global}, Sender, N) ->
    gen_server:cast(element(1 + N rem 3, {Pid, Name, Global}), {numbered, Sender, N}).

kinds(#{pid := Pid, name := Name}, Sender, N) ->
    To = element(1 + N rem 2, {Pid, Name}),
    case N rem 3 of
        0 -> gen_server:call(To, {numbered, Sender, N}, 20000);
        1 -> gen_server:cast(To, {numbered, Sender, N});
        2 -> To ! {numbered, Sender, N}
    end.

large_and_small(#{pid := Pid}, Sender, N) when N rem 4 =:= 0 ->
    gen_server:cast(Pid, {numbered, Sender, N, binary:copy(<<"x">>, 300000 + N)});
large_and_small(Engine, Sender, N) -> by_pid(Engine, Sender, N).

traced(Engine, Sender, N) ->
    _ = case N rem 3 of
        0 -> seq_trace:set_token(label, N);
        _ -> seq_trace:set_token([])
    end,
    kinds(Engine, Sender, N).

%% Of one engine to one caller, whatever becomes of each request.
order_of_replies(#{pid := Pid}) ->
    [Pid ! {'$gen_call', {self(), N}, {echo, N}} || N <- lists:seq(1, 1000)],
    [N || {N, N} <- [conf_lib:next() || _ <- lists:seq(1, 1000)]] =:= lists:seq(1, 1000).

callers(#{pid := Pid, name := Name, global := Global}, Count) ->
    Callers = [
        caller(fun() -> gen_server:call(element(1 + N rem 3, {Pid, Name, Global}), {echo, N}, 30000) =:= N end)
     || N <- lists:seq(1, Count)
    ],
    same([result(Caller) || Caller <- Callers]).

callers_of_many(_) ->
    Engines = conf_target:many(100, <<"hundred">>),
    Callers = [
        caller(fun() -> gen_server:call(Name, which, 30000) =:= N end)
     || _ <- lists:seq(1, 10), {N, Name, _} <- Engines
    ],
    same([result(Caller) || Caller <- Callers]).

time_out_beside_others(#{pid := Pid} = Engine) ->
    Held = [caller(fun() -> gen_server:call(Pid, {hold, N}, 50) end) || N <- lists:seq(1, 100)],
    Others = callers(Engine, 100),
    Ended = same([result(Caller) || Caller <- Held]),
    Released = gen_server:call(Pid, {release_all, late}),
    conf_lib:barrier(),
    {Others, Ended, Released, nothing_left()}.

%% Each answers for itself, and each one's end is seen.
engines(Count, Prefix) ->
    Engines = conf_target:many(Count, Prefix),
    Answered = length([N || {N, Name, _} <- Engines, gen_server:call(Name, which, 30000) =:= N]),
    Refs = [{erlang:monitor(process, Name), Name} || {_, Name, _} <- Engines],
    [Name ! stop || {_, Name, _} <- Engines],
    Downs = [receive {'DOWN', Ref, process, Name, Reason} -> Reason end || {Ref, Name} <- Refs],
    {Answered, same(Downs), nothing_left()}.
