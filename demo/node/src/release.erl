%% A plain Erlang release: a supervisor, an engine, and the one process that makes it known. No library of Legation's.
%%
%%   erl -name bob@127.0.0.1 -s release start legation@127.0.0.1
-module(release).
-behaviour(supervisor).

-export([start/1, start_link/1]).
-export([init/1]).

%% `-s` gives a list of atoms. The process that it calls this in ends, and takes nothing with it.
start([Daemon]) ->
    {ok, Supervisor} = start_link(Daemon),
    unlink(Supervisor),
    ok.

start_link(Daemon) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, Daemon).

init(Daemon) ->
    Engines = [{<<"ping">>, ping, []}],
    Ping = #{id => ping, start => {ping, start_link, [ping]}},
    Publisher = #{id => publisher, start => {publisher, start_link, [Daemon, Engines]}},
    {ok, {#{strategy => one_for_one}, [Ping, Publisher]}}.
