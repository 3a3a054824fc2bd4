%% A supervisor of one child.
-module(conf_supervisor).
-behaviour(supervisor).

-export([start/1, init/1]).

%% By one who lasts: a supervisor ends with whoever started it.
start([]) -> supervisor:start_link(?MODULE, []).

init([]) -> {ok, {#{}, [#{id => child, start => {conf_counter, start_link, []}}]}}.
