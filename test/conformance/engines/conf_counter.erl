%% A gen_server with a number for its state: `get`, `{add, N}`.
-module(conf_counter).
-behaviour(gen_server).

-export([start/1, start_link/0, init/1, handle_call/3, handle_cast/2]).

start([]) -> gen_server:start(?MODULE, 1, []).
start_link() -> gen_server:start_link(?MODULE, 1, []).

init(N) -> {ok, N}.
handle_call(get, _From, N) -> {reply, N, N};
handle_call({add, K}, _From, N) -> {reply, N + K, N + K}.
handle_cast({add, K}, N) -> {noreply, N + K}.
