%% An Elixir Agent, without Elixir: it applies functions by name, and whatever fun it gets, to its state.
-module(conf_agent).
-behaviour(gen_server).

-export([start/1, init/1, handle_call/3, handle_cast/2]).

start([]) -> gen_server:start(?MODULE, [], []).

init([]) -> {ok, #{a => 1}}.

handle_call({get, Fun}, _From, State) -> {reply, apply_to(Fun, State), State};
handle_call({update, Fun}, _From, State) -> {reply, ok, apply_to(Fun, State)}.

handle_cast(_Message, State) -> {noreply, State}.

%% Elixir's own module may not be there.
apply_to({'Elixir.Map', 'fetch!', [Key]}, State) -> maps:get(Key, State);
apply_to({'Elixir.Map', put, [Key, Value]}, State) -> State#{Key => Value};
apply_to(Fun, State) when is_function(Fun, 1) -> Fun(State).
