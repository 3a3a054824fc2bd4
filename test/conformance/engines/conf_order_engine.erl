%% Counts numbered messages, each sender's in order or not, whatever kind of message they come as.
-module(conf_order_engine).
-behaviour(gen_server).

-export([start/1, await/3, init/1, handle_call/3, handle_cast/2, handle_info/2]).

start([]) -> gen_server:start(?MODULE, [], []).

%% Asked on the engine's own node: when so many have come of each sender, what was out of order.
await(Id, Senders, Count) -> gen_server:call(conf_host:pid(Id), {await, Senders, Count}, 120000).

init([]) -> {ok, {#{}, [], none}}.

handle_call({await, Senders, Count}, From, {Seen, Wrong, none}) -> finished({Seen, Wrong, {From, Senders, Count}});
handle_call({numbered, Sender, N}, _From, State) ->
    {noreply, New} = count(Sender, N, State),
    {reply, N, New}.

handle_cast({numbered, Sender, N}, State) -> count(Sender, N, State);
handle_cast({numbered, Sender, N, _Large}, State) -> count(Sender, N, State).

handle_info({numbered, Sender, N}, State) -> count(Sender, N, State).

count(Sender, N, {Seen, Wrong, Waiting}) ->
    Last = maps:get(Sender, Seen, 0),
    finished({Seen#{Sender => N}, [{Sender, Last, N} || N =/= Last + 1] ++ Wrong, Waiting}).

finished({Seen, Wrong, {From, Senders, Count}} = State) ->
    case maps:size(Seen) =:= Senders andalso lists:all(fun(N) -> N >= Count end, maps:values(Seen)) of
        true ->
            gen_server:reply(From, {in_order, lists:sublist(Wrong, 5)}),
            {noreply, {Seen, Wrong, none}};
        false ->
            {noreply, State}
    end;
finished(State) -> {noreply, State}.
