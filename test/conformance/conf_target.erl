%% What rows are run against: engines that this node reaches in one way or another. This module is all that rows know of it; how
%% engines are started and made reachable is in
%%
%%   conf_target_beam     processes of an ordinary second BEAM node
%%   conf_target_daemon   processes of another realm, by the daemon beside us; that realm has a daemon, too, beside a BEAM node
%%   conf_target_embedded the same, but that realm has the embedded transport, in an Elixir VM
-module(conf_target).

-export([start/1, stop/0, node/0, realm/0, at/3, eval/3, engine/1, engine/2, helper/0, roles/1]).
-export([publish_here/2, send_there/2, gone_there/1, part/0, settle/0, many/2, restart/0, lose_system/0, lose_node/0, back/1]).

-define(PATIENCE, 20000).

-callback start() -> map().
-callback stop(map()) -> term().
%% How conf_host publishes an engine: module, function, first arguments. The last is the pid. Of many, name and pid.
-callback publish(Local :: binary(), Realm :: binary(), map()) -> {module(), atom(), list()}.
-callback publish_many(Realm :: binary(), map()) -> {module(), atom(), list()}.
-callback await_many(Prefix :: binary(), Realm :: binary(), Count :: pos_integer(), map()) -> ok.
%% Until the calling node can reach it. Returns its pid, as the calling node knows it.
-callback await(Full :: binary(), map()) -> pid().
%% The node that the calling node sees ends by kill -9 and starts again.
-callback restart(map()) -> map().
%% How the engines' system reaches a process of ours, published or registered under this name; when it does.
-callback publish_here(Local :: binary(), pid(), map()) -> term().
%% Ends the connection, and waits until the other side knows.
-callback part(map()) -> term().
%% The system in which the engines are ends by kill -9 and starts again.
-callback lose_system(map()) -> map().
%% Only the BEAM node that the engines are on.
-callback lose_node(map()) -> map().

start(Kind) ->
    Module = list_to_atom("conf_target_" ++ atom_to_list(Kind)),
    keep(Module, Module:start()).

stop() ->
    {Module, State} = kept(),
    Module:stop(State).

keep(Module, State) -> persistent_term:put(?MODULE, {Module, State}).
kept() -> persistent_term:get(?MODULE).

%% The node of the engines, for this node.
node() -> maps:get(node, element(2, kept())).

realm() -> <<"alice">>.

%% In the engines' system.
at(Module, Function, Args) -> conf_node:call(maps:get(host, element(2, kept())), Module, Function, Args).
eval(Module, Function, Args) -> at(conf_host, eval, [Module, Function, Args]).

engine(Name) -> engine(Name, #{}).

%% Starts an engine and waits until it is reached. Options: module and args, how it is started; realm, alice or carol, who allows
%% sys; global, whether to wait for its global name.
engine(Name, Options) ->
    {Module, State} = kept(),
    Realm = maps:get(realm, Options, realm()),
    Local = unicode:characters_to_binary(Name),
    Full = <<Local/binary, "@", Realm/binary>>,
    Id = binary_to_atom(Full),
    Publish = Module:publish(Local, Realm, State),
    Start = [Id, maps:get(module, Options, conf_engine), maps:get(args, Options, []), Publish, ?PATIENCE],
    ok = at(conf_host, engine, Start),
    reachable(#{
        id => Id,
        full => Full,
        label => Name,
        options => Options,
        name => {Id, maps:get(node, State)},
        node => maps:get(node, State),
        global => {global, Full}
    }).

%% An engine after a restart or a loss: there again, or reached again where the engines live on.
back(#{id := Id, label := Name, options := Options} = Engine) ->
    case at(conf_host, pid, [Id]) of
        undefined -> engine(Name, Options);
        _Pid -> reachable(Engine)
    end.

reachable(#{full := Full} = Engine) ->
    {Module, State} = kept(),
    Pid = Module:await(Full, State),
    case Engine of
        #{options := #{global := false}} -> ok;
        #{} -> true = conf_lib:await(fun() -> global:whereis_name(Full) =:= Pid end)
    end,
    Engine#{pid => Pid}.

%% An engine that is always there, for barriers.
helper() ->
    case persistent_term:get({?MODULE, helper}, none) of
        none -> keep_helper(engine("helper"));
        %% After a restart.
        {back, Helper} -> keep_helper(back(Helper));
        Helper -> Helper
    end.

keep_helper(Helper) ->
    persistent_term:put({?MODULE, helper}, Helper),
    Helper.

helper_restarts() ->
    case persistent_term:get({?MODULE, helper}, none) of
        #{} = Helper -> persistent_term:put({?MODULE, helper}, {back, Helper});
        _None -> ok
    end.

%% Prefix1 to PrefixCount, which are numbered and answer `which`.
many(Count, Prefix) ->
    {Module, State} = kept(),
    Publish = Module:publish_many(realm(), State),
    ok = conf_node:call(maps:get(host, State), conf_host, many, [Count, Prefix, Publish], 120000),
    ok = Module:await_many(Prefix, realm(), Count, State),
    [
        begin
            Full = <<Prefix/binary, (integer_to_binary(N))/binary, "@", (realm())/binary>>,
            {N, {binary_to_atom(Full), maps:get(node, State)}, Full}
        end
     || N <- lists:seq(1, Count)
    ].

%% A process of ours, for the engines' system. Returns how it is called there.
publish_here(Local, Pid) ->
    {Module, State} = kept(),
    Module:publish_here(Local, Pid, State).

%% From there.
send_there({via, Module, Name}, Message) -> at(Module, send, [Name, Message]);
send_there(Way, Message) -> at(erlang, send, [Way, Message]).

%% Until nobody is reached there under this name.
gone_there({via, Module, Name}) -> true = conf_lib:await(fun() -> at(Module, whereis_name, [Name]) =:= undefined end);
gone_there(Way) -> true = at(conf_host, gone, [Way]).

%% Ends the connection, on both sides.
part() ->
    {Module, State} = kept(),
    Module:part(State).

%% After a connection has ended: connected again, and :global at one. When BEAM nodes connect again before both have seen the end,
%% their global name servers may be at odds ever after.
settle() -> settle(5).

settle(Times) ->
    #{full := Full} = helper(),
    true = net_kernel:connect_node(conf_target:node()),
    case conf_lib:await(fun() -> is_pid(global:whereis_name(Full)) end, 1000) of
        true ->
            ok;
        false when Times > 0 ->
            part(),
            settle(Times - 1)
    end.

restart() ->
    {Module, State} = kept(),
    helper_restarts(),
    keep(Module, Module:restart(State)).

lose_system() -> lose(lose_system).
lose_node() -> lose(lose_node).

%% Returns when this node has been told, too: a session outlives its link, so the engines of before are found until there is another one.
lose(What) ->
    {Module, State} = kept(),
    #{pid := Pid} = helper(),
    Ref = erlang:monitor(process, Pid),
    helper_restarts(),
    keep(Module, Module:What(State)),
    receive
        {'DOWN', Ref, process, Pid, _Reason} -> ok
    after ?PATIENCE -> error({What, 'not seen here'})
    end.

roles(#{pid := Pid}) -> [{Pid, 'Pid'} | roles(#{})];
roles(#{}) -> [{conf_target:node(), 'Node'}, {erlang:node(), 'Here'}, {self(), 'Self'}].
