%% Publishes engines at the daemon beside this node whenever that is there: at the start, and again when it was away.
%% This is all that a plain release needs of its own.
-module(publisher).
-behaviour(gen_server).

-export([start_link/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Engines: [{<<"name">>, RegisteredName, Options}].
start_link(Daemon, Engines) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, {Daemon, Engines}, []).

init({Daemon, Engines} = State) ->
    %% The daemon is a hidden node.
    ok = net_kernel:monitor_nodes(true, [{node_type, hidden}]),
    %% If it had come before that, nobody would say so.
    case lists:member(Daemon, nodes(hidden)) of
        true -> publish(Daemon, Engines);
        false -> ok
    end,
    {ok, State}.

handle_info({nodeup, Daemon, _Info}, {Daemon, Engines} = State) ->
    publish(Daemon, Engines),
    {noreply, State};
%% What was published ends with the connection by itself.
handle_info({NodeUpOrDown, _Node, _Info}, State) when NodeUpOrDown =:= nodeup; NodeUpOrDown =:= nodedown ->
    {noreply, State}.

handle_call(_Request, _From, State) ->
    {reply, {error, bad_request}, State}.

handle_cast(_Message, State) ->
    {noreply, State}.

publish(Daemon, Engines) ->
    [publish(Daemon, Name, Registered, Options) || {Name, Registered, Options} <- Engines].

publish(Daemon, Name, Registered, Options) ->
    try gen_server:call({legation, Daemon}, {publish, Name, Registered, Options}) of
        ok -> ok;
        {error, Reason} -> logger:error("~ts was not published: ~tp", [Name, Reason])
    catch
        %% It is gone again. When it comes back, so does `nodeup`.
        exit:{Reason, _Call} -> logger:warning("~ts was not published: ~tp", [Name, Reason])
    end.
