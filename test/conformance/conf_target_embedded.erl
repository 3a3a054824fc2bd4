%% As conf_target_daemon, but alice and carol have the embedded transport: two instances in one Elixir VM.
-module(conf_target_embedded).
-behaviour(conf_target).

-export([start/0, stop/1, publish/3, publish_here/3, publish_many/2, await/2, await_many/4, part/1, restart/1, lose_system/1, lose_node/1]).
%% In the engines' system.
-export([start_instance/2, publish_at/3]).

-define(HOST, "engines").

start() ->
    {Keys, Realms} = conf_target_daemon:realms(["bob", "alice", "carol"]),
    State = #{host => ?HOST, node => 'legation@127.0.0.1', keys => Keys, realms => Realms},
    conf_target_daemon:start_daemon(start_system(State)).

start_system(#{keys := Keys, realms := Paths} = State) ->
    Ebins = [os:getenv(Name) || Name <- ["CONFORMANCE_ELIXIR_EBIN", "CONFORMANCE_LOGGER_EBIN", "LEGATION_EBIN"]],
    conf_node:start(?HOST, #{
        cookie => "conformance_other_system",
        args => lists:append([["-pa", Ebin] || Ebin <- Ebins]),
        env => [{"ERL_EPMD_PORT", os:getenv("CONFORMANCE_OTHER_EPMD_PORT")}]
    }),
    ok = conf_node:call(?HOST, conf_host, start, [conf_main:modules()]),
    [
        ok = conf_node:call(?HOST, conf_host, eval, [?MODULE, start_instance, [list_to_binary(Realm), [
            {realm, list_to_binary(Realm)},
            {key, list_to_binary(filename:join(os:getenv("CONFORMANCE_DIR"), Realm ++ ".pem"))},
            {listen, [{unix, [{path, list_to_binary(maps:get(Realm, Paths))}]}]},
            {peers, [[
                {realm, <<"bob">>},
                {key, maps:get("bob", Keys)},
                {export, all},
                {allow, [call, cast, send, monitor, event] ++ [Op || Op <- [sys, link, exit], Realm =:= "carol"]},
                {reasons, case Realm of "alice" -> class; "carol" -> full end}
            ]]},
            %% Both have bob's engines.
            {global, case Realm of "alice" -> true; "carol" -> off end},
            {limits, [{queue_bytes_max, 67108864}]}
        ]]])
     || Realm <- ["alice", "carol"]
    ],
    State.

start_instance(Realm, Options) ->
    {ok, _} = application:ensure_all_started(legation),
    %% Engines of this suite crash all the time.
    ok = logger:set_primary_config(level, none),
    {ok, _Pid} = 'Elixir.Legation':start_link([{name, instance(Realm)} | Options]),
    ok.

instance(Realm) -> binary_to_atom(<<"conformance_", Realm/binary>>).

stop(#{daemon := Daemon}) ->
    conf_daemon:kill(Daemon),
    conf_node:kill(?HOST).

publish(Local, Realm, _State) -> {?MODULE, publish_at, [Realm, Local]}.
publish_many(Realm, _State) -> {?MODULE, publish_at, [Realm]}.

publish_at(Realm, Local, Pid) -> 'Elixir.Legation':publish(Local, Pid, [], instance(Realm)).

await(Full, State) -> conf_target_daemon:await(Full, State).
await_many(Prefix, Realm, Count, State) -> conf_target_daemon:await_many(Prefix, Realm, Count, State).
publish_here(Local, Pid, #{node := Node}) ->
    ok = conf_target_daemon:publish_at(Node, Local, Pid),
    Name = {instance(<<"alice">>), <<Local/binary, "@bob">>},
    true = conf_lib:await(fun() -> is_pid(conf_node:call(?HOST, 'Elixir.Legation', whereis_name, [Name])) end),
    {via, 'Elixir.Legation', Name}.

part(State) -> conf_target_daemon:part(State).
restart(State) -> conf_target_daemon:restart(State).

lose_system(State) ->
    conf_node:kill(?HOST),
    start_system(State).

lose_node(State) -> lose_system(State).
