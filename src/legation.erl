%% @doc Legation for Erlang: engines in another Erlang system, that this one does not trust, as if they were here.
%%
%% The same as the Elixir module `Legation', where everything is explained, with Erlang's manners: options are
%% proplists, and names may be binaries, strings or atoms.
%%
%% ```
%% {ok, _} = legation:start_link([
%%     {realm, "alice"}, {key, "alice.pem"}, {network_key, "net.key"},
%%     {listen, [{tcp, [{port, 4040}]}]},
%%     {peers, [[{realm, "bob"}, {key, "ed25519:..."}, {export, [ping]},
%%               {connect, [{tcp, [{host, "10.0.0.7"}, {port, 4040}]}]}]]}]),
%% ok = legation:publish(ping, self()),
%% pong = gen_server:call({via, legation, 'ping@bob'}, ping).
%% '''
%%
%% With `{transport, {c_node, []}}' a daemon beside this node does the work, see `Legation.Options.CNode'.
%%
%% A function's last argument is the instance; without it the instance is the one that was started without a `name'.
-module(legation).

%% Instances
-export([start_link/1, child_spec/1, public_key/0, public_key/1, drain/0, drain/1, drain/2]).
%% Our engines
-export([publish/2, publish/3, publish/4, withdraw/1, withdraw/2]).
%% Who is there
-export([engines/0, engines/1, peers/0, peers/1, connections/0, connections/1, counters/0, counters/1]).
-export([whereis/1, whereis/2, monitor_peers/0, monitor_peers/1, demonitor_peers/1, demonitor_peers/2]).
%% Peers and listeners
-export([connect/1, connect/2, disconnect/1, disconnect/2]).
-export([rotate_key/1, rotate_key/2, revoke/1, revoke/2, revoke_own_key/0, revoke_own_key/1]).
-export([listeners/0, listeners/1, add_listener/1, add_listener/2, remove_listener/1, remove_listener/2]).
%% At the receiver
-export([is_remote/1, sender/1, sender/2, verify_receipt/2, verify_receipt/3]).
%% Sending
-export([call/2, call/3, call/4, cast/2, cast/3, cast_all/2, cast_all/3, cast_all/4]).
-export([providers/1, providers/2, providers/3]).
%% {via, legation, Name}
-export([whereis_name/1, register_name/2, unregister_name/1, send/2]).

-export_type([name/0, wish/0, instance/0, option/0]).

%% A name: of an engine (`ping'), of a foreign engine (`ping@bob'), of a realm (`bob').
-type name() :: binary() | atom() | string().
-type instance() :: atom().
-type option() :: {atom(), term()}.
%% With what its version has to be: at least `V', or `{From, To}'; or of whichever realm: `pick' is `first', `round_robin' or
%% `least_pending'. The section on several providers in the documentation of `Legation' has it all.
-type wish() :: name() | {name(), [{version, version()}]} | {any, name(), [{version | realms | pick, term()}]}.
-type version() :: non_neg_integer() | {non_neg_integer(), non_neg_integer()}.
-type via() :: wish() | {instance(), wish()}.

-define(ELIXIR, 'Elixir.Legation').
%% Options whose values are text: a string of Erlang is a list of numbers to Elixir.
-define(TEXT, [realm, key, network_key, state_dir, path, host, ip, binary, control_socket]).

%% @doc Starts an instance, linked to the caller. `name' is the instance's; the others are those of `Legation'.
-spec start_link([option()]) -> {ok, pid()} | {error, term()}.
start_link(Options) ->
    ?ELIXIR:start_link(options(Options)).

%% @doc An instance as a child of one's own supervisor.
-spec child_spec([option()]) -> supervisor:child_spec().
child_spec(Options) ->
    ?ELIXIR:child_spec(options(Options)).

%% @doc This realm's public key, as others write it into their `peers'.
-spec public_key() -> binary().
public_key() -> ?ELIXIR:public_key().
-spec public_key(instance()) -> binary().
public_key(Instance) -> ?ELIXIR:public_key(Instance).

%% @doc Prepares to stop: listens no more, waits until no call is open, and closes each link. Gives the calls that were
%% still open after the time.
-spec drain() -> {ok, [{binary(), pid()}]}.
drain() -> ?ELIXIR:drain().
-spec drain(non_neg_integer()) -> {ok, [{binary(), pid()}]}.
drain(TimeoutMs) -> ?ELIXIR:drain(TimeoutMs).
-spec drain(non_neg_integer(), instance()) -> {ok, [{binary(), pid()}]}.
drain(TimeoutMs, Instance) -> ?ELIXIR:drain(TimeoutMs, Instance).

%% @doc Lets peers reach a process under a name. Which peers, `export' of each decides.
-spec publish(name(), pid() | atom()) -> ok | {error, term()}.
publish(Name, Target) -> ?ELIXIR:publish(text(Name), Target).
%% @doc With options: `{to, all | [Realm]}', `{version, V}', `{ops, Ops}', `{receipts, Pid}', `{instance, Instance}'.
-spec publish(name(), pid() | atom(), [option()]) -> ok | {error, term()}.
publish(Name, Target, Options) -> ?ELIXIR:publish(text(Name), Target, publish_options(Options)).
-spec publish(name(), pid() | atom(), [option()], instance()) -> ok | {error, term()}.
publish(Name, Target, Options, Instance) -> ?ELIXIR:publish(text(Name), Target, publish_options(Options), Instance).

%% @doc Ends what `publish' began; the peers forget the engine.
-spec withdraw(name()) -> ok | {error, not_published}.
withdraw(Name) -> ?ELIXIR:withdraw(text(Name)).
-spec withdraw(name(), instance()) -> ok | {error, not_published}.
withdraw(Name, Instance) -> ?ELIXIR:withdraw(text(Name), Instance).

%% @doc All engines that can be reached, ours and foreign ones.
-spec engines() -> [map()].
engines() -> ?ELIXIR:engines().
-spec engines(instance()) -> [map()].
engines(Instance) -> ?ELIXIR:engines(Instance).

%% @doc The peers and how each of them is: connected or not, and why not.
-spec peers() -> [map()].
peers() -> ?ELIXIR:peers().
-spec peers(instance()) -> [map()].
peers(Instance) -> ?ELIXIR:peers(Instance).

%% @doc The links that are up.
-spec connections() -> [map()].
connections() -> ?ELIXIR:connections().
-spec connections(instance()) -> [map()].
connections(Instance) -> ?ELIXIR:connections(Instance).

%% @doc What was counted since the start.
-spec counters() -> map().
counters() -> ?ELIXIR:counters().
-spec counters(instance()) -> map().
counters(Instance) -> ?ELIXIR:counters(Instance).

%% @doc The process that stands here for `ping@bob', or that we have published as `ping'.
-spec whereis(wish()) -> pid() | undefined.
whereis(Name) -> undefined(?ELIXIR:whereis(wish(Name))).
-spec whereis(wish(), instance()) -> pid() | undefined.
whereis(Name, Instance) -> undefined(?ELIXIR:whereis(wish(Name), Instance)).

%% @doc Who has an engine of this name, in the order in which `{any, Name, [{pick, first}]}' would take them.
-spec providers(name()) -> [map()].
providers(Name) -> ?ELIXIR:providers(text(Name)).
%% @doc Options: `{version, V}', `{realms, [Realm]}'.
-spec providers(name(), [{version | realms, term()}]) -> [map()].
providers(Name, Options) -> ?ELIXIR:providers(text(Name), wish_options(Options)).
-spec providers(name(), [{version | realms, term()}], instance()) -> [map()].
providers(Name, Options, Instance) -> ?ELIXIR:providers(text(Name), wish_options(Options), Instance).

%% @doc Sends the caller `{legation, Ref, Change}' for each peer and engine that comes or goes. What was there before is
%% in the answer.
-spec monitor_peers() -> {ok, reference(), map()}.
monitor_peers() -> ?ELIXIR:monitor_peers().
-spec monitor_peers(instance()) -> {ok, reference(), map()}.
monitor_peers(Instance) -> ?ELIXIR:monitor_peers(Instance).

%% @doc Ends what `monitor_peers' began.
-spec demonitor_peers(reference()) -> ok.
demonitor_peers(Ref) -> ?ELIXIR:demonitor_peers(Ref).
-spec demonitor_peers(reference(), instance()) -> ok.
demonitor_peers(Ref, Instance) -> ?ELIXIR:demonitor_peers(Ref, Instance).

%% @doc Adds a peer, given as in the option `peers'; or takes up again, by its name, one that was disconnected.
-spec connect(name() | [option()]) -> ok | {error, term()}.
connect(Peer) -> ?ELIXIR:connect(peer(Peer)).
-spec connect(name() | [option()], instance()) -> ok | {error, term()}.
connect(Peer, Instance) -> ?ELIXIR:connect(peer(Peer), Instance).

%% @doc Ends the link to a peer, and lets it in no more until `connect'.
-spec disconnect(name()) -> ok | {error, unknown_realm}.
disconnect(Realm) -> ?ELIXIR:disconnect(text(Realm)).
-spec disconnect(name(), instance()) -> ok | {error, unknown_realm}.
disconnect(Realm, Instance) -> ?ELIXIR:disconnect(text(Realm), Instance).

%% @doc Replaces this realm's key by the one in a file, while everything goes on. Peers go on knowing it by its first one.
-spec rotate_key(file:name_all()) -> {ok, binary()} | {error, term()}.
rotate_key(Path) -> ?ELIXIR:rotate_key(text(Path)).
-spec rotate_key(file:name_all(), instance()) -> {ok, binary()} | {error, term()}.
rotate_key(Path, Instance) -> ?ELIXIR:rotate_key(text(Path), Instance).

%% @doc Accepts a peer's key no more, and closes all links to it at once.
-spec revoke(name()) -> ok | {error, unknown_realm}.
revoke(Realm) -> ?ELIXIR:revoke(text(Realm)).
-spec revoke(name(), instance()) -> ok | {error, unknown_realm}.
revoke(Realm, Instance) -> ?ELIXIR:revoke(text(Realm), Instance).

%% @doc Ends this realm: its peers are told, and let it in no more.
-spec revoke_own_key() -> ok | {error, term()}.
revoke_own_key() -> ?ELIXIR:revoke_own_key().
-spec revoke_own_key(instance()) -> ok | {error, term()}.
revoke_own_key(Instance) -> ?ELIXIR:revoke_own_key(Instance).

%% @doc The addresses that this instance listens on; with port 0, the port that it was given.
-spec listeners() -> [map()].
listeners() -> ?ELIXIR:listeners().
-spec listeners(instance()) -> [map()].
listeners(Instance) -> ?ELIXIR:listeners(Instance).

%% @doc Listens on one more address, given as in the option `listen'.
-spec add_listener({module(), [option()]}) -> {ok, map()} | {error, term()}.
add_listener(Listener) -> ?ELIXIR:add_listener(address(Listener)).
-spec add_listener({module(), [option()]}, instance()) -> {ok, map()} | {error, term()}.
add_listener(Listener, Instance) -> ?ELIXIR:add_listener(address(Listener), Instance).

%% @doc Stops listening on one address. Links that came in by it stay.
-spec remove_listener(term()) -> ok | {error, not_found}.
remove_listener(Id) -> ?ELIXIR:remove_listener(Id).
-spec remove_listener(term(), instance()) -> ok | {error, not_found}.
remove_listener(Id, Instance) -> ?ELIXIR:remove_listener(Id, Instance).

%% @doc Whether the `From' of a `handle_call' is in another realm.
-spec is_remote(term()) -> boolean().
%% A guard in Elixir, and so no function that could be called from here.
is_remote({_Pid, {'$legation', _Call, _Realm, _Engine}}) -> true;
is_remote(_From) -> false.

%% @doc Who is behind the `From' of a `handle_call': the realm, its engine, the key that it signed with.
-spec sender({pid(), term()}) -> {ok, map()} | local.
sender(From) -> ?ELIXIR:sender(From).
-spec sender({pid(), term()}, instance()) -> {ok, map()} | local.
sender(From, Instance) -> ?ELIXIR:sender(From, Instance).

%% @doc Checks a receipt: that an engine of the realm with this identity key signed the message that it shows.
-spec verify_receipt(binary(), binary() | string()) -> {ok, map()} | {error, term()}.
verify_receipt(Receipt, IdentityKey) -> ?ELIXIR:verify_receipt(Receipt, text(IdentityKey)).
-spec verify_receipt(binary(), binary() | string(), instance()) -> {ok, map()} | {error, term()}.
verify_receipt(Receipt, IdentityKey, Instance) -> ?ELIXIR:verify_receipt(Receipt, text(IdentityKey), Instance).

%% @doc `gen_server:call/2,3' by a Legation name. Ends as any call of a server by `{via, legation, Name}'.
-spec call(wish(), term()) -> term().
call(Name, Request) -> gen_server:call({via, ?MODULE, Name}, Request).
-spec call(wish(), term(), timeout()) -> term().
call(Name, Request, Timeout) -> gen_server:call({via, ?MODULE, Name}, Request, Timeout).
-spec call(wish(), term(), timeout(), instance()) -> term().
call(Name, Request, Timeout, Instance) -> gen_server:call({via, ?MODULE, {Instance, Name}}, Request, Timeout).

%% @doc `gen_server:cast/2' by a Legation name, signed as the caller's engine if it has one.
-spec cast(wish(), term()) -> ok | {error, noproc}.
cast(Name, Message) -> ?ELIXIR:cast(wish(Name), Message).
-spec cast(wish(), term(), instance()) -> ok | {error, noproc}.
cast(Name, Message, Instance) -> ?ELIXIR:cast(wish(Name), Message, Instance).

%% @doc Casts to all engines of this name, this realm's own among them. Returns the names that it was sent to.
-spec cast_all(name(), term()) -> [binary()].
cast_all(Name, Message) -> ?ELIXIR:cast_all(text(Name), Message).
%% @doc Options: `{version, V}', `{realms, [Realm]}'.
-spec cast_all(name(), term(), [{version | realms, term()}]) -> [binary()].
cast_all(Name, Message, Options) -> ?ELIXIR:cast_all(text(Name), Message, wish_options(Options)).
-spec cast_all(name(), term(), [{version | realms, term()}], instance()) -> [binary()].
cast_all(Name, Message, Options, Instance) -> ?ELIXIR:cast_all(text(Name), Message, wish_options(Options), Instance).

%% @doc For `{via, legation, Name}', where Name is `ping@bob', `{ping@bob, [{version, 4}]}', `{any, ping, [{pick, round_robin}]}', or
%% one of these with its instance: `{Instance, ping@bob}'.
-spec whereis_name(via()) -> pid() | undefined.
whereis_name(Name) -> ?ELIXIR:whereis_name(via(Name)).

%% @doc Publishes a process that starts under `{via, legation, ping}', or under `{via, legation, {ping, Options}}' with options of `publish'.
-spec register_name(via(), pid()) -> yes | no.
register_name(Name, Pid) -> ?ELIXIR:register_name(via(Name), Pid).

%% @doc `withdraw', for `via'.
-spec unregister_name(via()) -> ok.
unregister_name(Name) -> ?ELIXIR:unregister_name(via(Name)).

%% @doc Sends as the engine that the caller is published as.
-spec send(via(), term()) -> pid().
send(Name, Message) -> ?ELIXIR:send(via(Name), Message).

%% Internal

via({Instance, {any, _, _} = Name}) -> {Instance, wish(Name)};
via({Instance, {_, _} = Name}) -> {Instance, wish(Name)};
via({Name, Options}) when Options =:= []; is_tuple(hd(Options)) -> wish({Name, Options});
via({Instance, Name}) -> {Instance, text(Name)};
via(Name) -> wish(Name).

wish({any, Name, Options}) when is_list(Options) -> {any, text(Name), wish_options(Options)};
wish({Name, Options}) when is_list(Options) -> {text(Name), wish_options(Options)};
wish(Name) -> text(Name).

wish_options(Options) -> [wish_option(Option) || Option <- Options].

%% `to' is publish's, for `register_name'.
wish_option({Key, Realms}) when (Key =:= realms orelse Key =:= to), is_list(Realms) -> {Key, [text(R) || R <- Realms]};
wish_option(Option) -> Option.

text(Text) when is_binary(Text) -> Text;
text(Text) when is_atom(Text) -> atom_to_binary(Text);
text([_ | _] = Text) ->
    try unicode:characters_to_binary(Text) of
        Binary when is_binary(Binary) -> Binary;
        _NotText -> error(badarg, [Text])
    catch
        error:badarg -> error(badarg, [Text])
    end;
text(Other) -> error(badarg, [Other]).

undefined(nil) -> undefined;
undefined(Pid) -> Pid.

peer([{_Key, _Value} | _] = Peer) -> lists:map(fun option/1, Peer);
peer(Realm) -> text(Realm).

options(Options) -> lists:map(fun option/1, proplists:unfold(Options)).

option({peers, Peers}) when is_list(Peers) -> {peers, [peer(Peer) || Peer <- Peers]};
option({Carriers, Addresses}) when (Carriers =:= listen orelse Carriers =:= connect), is_list(Addresses) ->
    {Carriers, lists:map(fun address/1, Addresses)};
option({export, Engines}) when is_list(Engines) -> {export, lists:map(fun engine/1, Engines)};
option({import, Engines}) when is_list(Engines) -> {import, lists:map(fun engine/1, Engines)};
option({transport, {c_node, Options}}) when is_list(Options) ->
    {transport, {c_node, lists:map(fun daemon/1, proplists:unfold(Options))}};
option({global, {suffix, Suffix}}) -> {global, {suffix, text(Suffix)}};
option({Key, Value} = Option) ->
    case lists:member(Key, ?TEXT) andalso is_list(Value) of
        true -> {Key, text(Value)};
        false -> Option
    end;
option(Other) -> Other.

daemon({Key, Value}) when (Key =:= node orelse Key =:= cookie), is_list(Value) -> {Key, text(Value)};
daemon({connect, Nodes}) when is_list(Nodes) -> {connect, lists:map(fun beam/1, Nodes)};
daemon(Option) -> option(Option).

beam({Node, Port}) -> {text(Node), Port};
beam(Node) -> text(Node).

address({Carrier, Options}) when is_list(Options) -> {Carrier, lists:map(fun option/1, proplists:unfold(Options))};
address(Other) -> Other.

engine({Name, Options}) when is_list(Options) -> {text(Name), Options};
engine(Name) -> text(Name).

publish_options(Options) -> [publish_option(Option) || Option <- proplists:unfold(Options)].

publish_option({to, Realms}) when is_list(Realms) -> {to, [text(Realm) || Realm <- Realms]};
publish_option(Option) -> Option.
