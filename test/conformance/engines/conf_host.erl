%% In the engines' system: starts them, keeps them by name, and makes them reachable in the way that this system has.
-module(conf_host).
-behaviour(gen_server).

-export([start/1, engine/5, many/3, stop/1, pid/1, lives/1, downs/1, gone/1, reached/1, eval/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Not linked: it is started by a call from afar.
start(Modules) ->
    {module, _} = code:ensure_loaded(lists),
    %% So that their atoms are there: a peer can't make any.
    [{module, Module} = code:ensure_loaded(Module) || Module <- Modules],
    {ok, _Pid} = gen_server:start({local, ?MODULE}, ?MODULE, [], []),
    ok.

%% Starts an engine, and publishes it by a function of its pid.
engine(Id, Module, Args, {PublishModule, PublishFunction, PublishArgs}, Patience) ->
    Publish = fun(Pid) -> ok = apply(PublishModule, PublishFunction, PublishArgs ++ [Pid]) end,
    gen_server:call(?MODULE, {engine, Id, Module, Args, Publish}, Patience).

%% Engines n1 to nCount, each of which says its own number.
many(Count, Prefix, {PublishModule, PublishFunction, PublishArgs}) ->
    [
        ok = apply(PublishModule, PublishFunction, PublishArgs ++ [<<Prefix/binary, (integer_to_binary(N))/binary>>, numbered(N)])
     || N <- lists:seq(1, Count)
    ],
    ok.

numbered(N) -> spawn(fun() -> numbered_loop(N) end).

numbered_loop(N) ->
    receive
        {'$gen_call', From, which} ->
            gen_server:reply(From, N),
            numbered_loop(N);
        stop ->
            exit(shutdown)
    end.

pid(Id) -> gen_server:call(?MODULE, {pid, Id}).

%% Kills it.
stop(Id) -> gen_server:call(?MODULE, {stop, Id}).

lives(Id) ->
    Pid = pid(Id),
    is_pid(Pid) andalso is_process_alive(Pid).

%% How often this node has gone, as seen from here.
downs(Node) -> gen_server:call(?MODULE, {downs, Node}).

%% Until a process elsewhere is gone, or is there, for this node.
gone(Way) -> conf_lib:await(fun() -> not there(Way) end).
reached(Way) -> conf_lib:await(fun() -> there(Way) end).

there(Way) ->
    Ref = erlang:monitor(process, Way),
    receive
        {'DOWN', Ref, process, _Object, _Reason} -> false
    after 50 ->
        erlang:demonitor(Ref, [flush]),
        true
    end.

%% Runs in the lasting process, so that what links to its starter stays.
eval(Module, Function, Args) -> gen_server:call(?MODULE, {eval, Module, Function, Args}, 60000).

init([]) ->
    process_flag(trap_exit, true),
    ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
    {ok, #{}}.

handle_call({engine, Id, Module, Args, Publish}, _From, Engines) ->
    {ok, Pid} = Module:start(Args),
    Publish(Pid),
    {reply, ok, Engines#{Id => Pid}};
handle_call({pid, Id}, _From, Engines) ->
    {reply, maps:get(Id, Engines, undefined), Engines};
handle_call({downs, Node}, _From, Engines) ->
    {reply, maps:get({downs, Node}, Engines, 0), Engines};
handle_call({stop, Id}, _From, Engines) ->
    case Engines of
        #{Id := Pid} -> exit(Pid, kill);
        #{} -> ok
    end,
    {reply, ok, maps:remove(Id, Engines)};
handle_call({eval, Module, Function, Args}, _From, Engines) ->
    {reply, apply(Module, Function, Args), Engines}.

handle_cast(_Message, Engines) -> {noreply, Engines}.

handle_info({nodedown, Node, _Info}, Engines) -> {noreply, Engines#{{downs, Node} => maps:get({downs, Node}, Engines, 0) + 1}};
handle_info(_Message, Engines) -> {noreply, Engines}.
