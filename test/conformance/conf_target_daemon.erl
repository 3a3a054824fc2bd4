%% The daemon under test, of realm bob, beside the calling node. The engines are of the realms alice and carol, in a BEAM node
%% of another cluster, with a daemon of its own for both. alice and bob allow each other what is allowed by
%% default, and events; carol and bob all there is, and they tell each other for what reasons processes end.
-module(conf_target_daemon).
-behaviour(conf_target).

-export([start/0, stop/1, publish/3, publish_here/3, publish_many/2, await/2, await_many/4, part/1, restart/1, lose_system/1, lose_node/1]).
%% In the engines' system.
-export([publish_at/3, publish_local/3]).
%% For conf_target_embedded.
-export([start_daemon/1, realms/1]).

-define(HOST, "engines").
-define(NODE, 'legation@127.0.0.1').

start() ->
    {Keys, Realms} = realms(["bob", "alice", "carol"]),
    State = #{host => ?HOST, node => ?NODE, keys => Keys, realms => Realms, cookie => "conformance_other_system"},
    start_daemon(start_system(State)).

%% Everybody's key, and everybody's way to everybody else.
realms(Names) ->
    Dir = os:getenv("CONFORMANCE_DIR"),
    {
        maps:from_list([{Name, conf_keys:new(filename:join(Dir, Name ++ ".pem"))} || Name <- Names]),
        maps:from_list([{Name, filename:join(Dir, Name ++ ".sock")} || Name <- Names])
    }.

%% The daemon under test.
start_daemon(#{keys := Keys, realms := Paths} = State) ->
    Config = [
        head("bob", ?NODE, atom_to_list(erlang:get_cookie())),
        [
            ["[[peers]]\nrealm = \"", Realm, "\"\nkey = \"", maps:get(Realm, Keys), "\"\n"
             "export = \"all\"\nconnect = [{ unix = \"", maps:get(Realm, Paths), "\" }]\n", allowed(Realm)]
         || Realm <- ["alice", "carol"]
        ],
        limits()
    ],
    Daemon = conf_daemon:start("bob", Config, []),
    true = net_kernel:connect_node(?NODE),
    State#{daemon => Daemon}.

%% The other system: its own cookie, and its own epmd.
start_system(#{cookie := Cookie} = State) ->
    Epmd = [{"ERL_EPMD_PORT", os:getenv("CONFORMANCE_OTHER_EPMD_PORT")}],
    conf_node:start(?HOST, #{cookie => Cookie, env => Epmd}),
    ok = conf_node:call(?HOST, conf_host, start, [conf_main:modules()]),
    Others = [conf_daemon:start(Realm, other_config(Realm, State), Epmd) || Realm <- ["alice", "carol"]],
    [true = conf_node:call(?HOST, net_kernel, connect_node, [other_node(Realm)]) || Realm <- ["alice", "carol"]],
    State#{others => Others}.

other_config(Realm, #{keys := Keys, realms := Paths, cookie := Cookie}) ->
    [
        head(Realm, other_node(Realm), Cookie),
        ["[[listen]]\nunix = \"", maps:get(Realm, Paths), "\"\n"],
        ["[[peers]]\nrealm = \"bob\"\nkey = \"", maps:get("bob", Keys), "\"\nexport = \"all\"\n"],
        allowed(Realm),
        limits()
    ].

%% What alice and bob allow each other, and carol and bob.
allowed("alice") -> "allow = [\"call\", \"cast\", \"send\", \"monitor\", \"event\"]\n";
allowed("carol") ->
    "allow = [\"call\", \"cast\", \"send\", \"monitor\", \"event\", \"sys\", \"link\", \"exit\"]\nreasons = \"full\"\n".

head(Realm, Node, Cookie) ->
    Dir = os:getenv("CONFORMANCE_DIR"),
    [
        ["realm = \"", Realm, "\"\nkey = \"", filename:join(Dir, Realm ++ ".pem"), "\"\n"],
        ["[node]\nname = \"", atom_to_list(Node), "\"\ncookie = \"", Cookie, "\"\nlisten = \"127.0.0.1:0\"\n"],
        "tick_ms = 250\n"
    ].

%% Room for a few of the largest messages at once: what is over a bound is refused or dropped, which BEAM nodes never do.
limits() ->
    "[limits]\nreconnect_min_ms = 10\nreconnect_max_ms = 100\n"
    "queue_bytes_max = 67108864\nengine_queue_bytes_max = 67108864\n".

other_node(Realm) -> list_to_atom("legation_" ++ Realm ++ "@127.0.0.1").

stop(#{daemon := Daemon, others := Others}) ->
    conf_daemon:kill(Daemon),
    [conf_daemon:kill(Other) || Other <- Others],
    conf_node:kill(?HOST).

publish(Local, Realm, _State) -> {?MODULE, publish_at, [other_node(binary_to_list(Realm)), Local]}.
publish_many(Realm, _State) -> {?MODULE, publish_local, [other_node(binary_to_list(Realm))]}.

publish_at(Daemon, Local, Pid) -> gen_server:call({legation, Daemon}, {publish, Local, Pid, []}, 20000).
publish_local(Daemon, Local, Pid) -> publish_at(Daemon, Local, Pid).

await(Full, #{node := Node}) -> learned(Full, Node).

await_many(Prefix, Realm, Count, #{node := Node}) ->
    await_all([<<Prefix/binary, (integer_to_binary(N))/binary, "@", Realm/binary>> || N <- lists:seq(1, Count)], Node).

learned(Full, Node) ->
    ok = await_all([Full], Node),
    gen_server:call({legation, Node}, {whereis, Full}).

%% Until the daemon has learned all of these.
await_all(Names, Node) ->
    {ok, Ref, #{engines := Engines}} = gen_server:call({legation, Node}, monitor_peers),
    await_events(maps:from_keys([Name || Name <- Names, not is_map_key(Name, Engines)], true), Ref),
    ok = gen_server:call({legation, Node}, {demonitor_peers, Ref}),
    flush(Ref).

await_events(Missing, _Ref) when map_size(Missing) =:= 0 -> ok;
await_events(Missing, Ref) ->
    receive
        {legation, Ref, {engine_learned, Name, _Info}} -> await_events(maps:remove(Name, Missing), Ref)
    after 20000 -> error({not_learned, lists:sublist(maps:keys(Missing), 5), map_size(Missing)})
    end.

flush(Ref) ->
    receive
        {legation, Ref, _Event} -> flush(Ref)
    after 0 -> ok
    end.

publish_here(Local, Pid, #{node := Node}) ->
    ok = publish_at(Node, Local, Pid),
    Way = {binary_to_atom(<<Local/binary, "@bob">>), other_node("alice")},
    true = conf_node:call(?HOST, conf_host, reached, [Way]),
    Way.

part(#{node := Node}) -> erlang:disconnect_node(Node).

restart(#{daemon := Daemon} = State) ->
    erlang:monitor_node(?NODE, true),
    conf_daemon:kill(Daemon),
    receive
        {nodedown, ?NODE} -> ok
    end,
    start_daemon(State).

%% As when a machine ends: nobody is left to say anything.
lose_system(#{others := Others} = State) ->
    [conf_daemon:kill(Other) || Other <- Others],
    conf_node:kill(?HOST),
    start_system(State).

%% Their daemons are left to say so.
lose_node(#{others := Others} = State) ->
    conf_node:kill(?HOST),
    receive after 1000 -> ok end,
    [conf_daemon:kill(Other) || Other <- Others],
    start_system(State).
