%% A gen_statem that is on or off: `state`, `flip`, `{hold, Key}`, `{release, Key, Reply}`, `{stop, Reason}`, `{delegate, Reply}`.
-module(conf_statem).
-behaviour(gen_statem).

-export([start/1, init/1, callback_mode/0, handle_event/4, await_held/1]).

start(State) -> gen_statem:start(?MODULE, State, []).

%% Asked on the engine's own node.
await_held(Id) -> gen_statem:call(conf_host:pid(Id), await_held).

callback_mode() -> handle_event_function.
init(State) -> {ok, State, #{}}.

handle_event({call, From}, state, State, _Held) -> {keep_state_and_data, [{reply, From, State}]};
handle_event({call, From}, flip, State, Held) -> {next_state, flip(State), Held, [{reply, From, flip(State)}]};
handle_event({call, From}, {hold, Key}, _State, Held) ->
    {keep_state, Held#{Key => From}, [{reply, Waiting, ok} || {await_held, Waiting} <- maps:to_list(Held)]};
handle_event({call, From}, await_held, _State, Held) when map_size(Held) =:= 0 -> {keep_state, Held#{await_held => From}};
handle_event({call, From}, await_held, _State, _Held) -> {keep_state_and_data, [{reply, From, ok}]};
handle_event({call, From}, {release, Key, Reply}, _State, Held) ->
    {keep_state, maps:remove(Key, Held), [{reply, maps:get(Key, Held), Reply}, {reply, From, ok}]};
handle_event({call, From}, {delegate, Reply}, _State, _Held) ->
    spawn(fun() -> gen_statem:reply(From, Reply) end),
    keep_state_and_data;
handle_event({call, _From}, {stop, Reason}, _State, _Held) -> {stop, Reason};
handle_event(cast, flip, State, Held) -> {next_state, flip(State), Held};
handle_event(info, flip, State, Held) -> {next_state, flip(State), Held}.

flip(on) -> off;
flip(off) -> on.
