%% In the place of erl_epmd: nodes that need no epmd. Where the others listen is in the environment, as node=port,node=port.
-module(conf_epmd).

-export([start/0, start_link/0, stop/0, register_node/2, register_node/3, port_please/2, port_please/3]).
-export([address_please/3, listen_port_please/2, names/1]).

start() -> ignore.
start_link() -> ignore.
stop() -> ok.

register_node(Name, Port) -> register_node(Name, Port, inet).
register_node(_Name, _Port, _Family) -> {ok, rand:uniform(1 bsl 31) + 4}.

listen_port_please(_Name, _Host) -> {ok, 0}.

port_please(Name, Host) -> port_please(Name, Host, infinity).

port_please(Name, _Host, _Timeout) ->
    case port(Name) of
        false -> noport;
        Port -> {port, Port, 6}
    end.

address_please(Name, _Host, inet) ->
    case port(Name) of
        false -> {error, nxdomain};
        Port -> {ok, {127, 0, 0, 1}, Port, 6}
    end;
address_please(_Name, _Host, _Family) -> {error, eafnosupport}.

names(_Host) -> {error, address}.

port(Name) ->
    Ports = [string:split(Pair, "=") || Pair <- string:lexemes(os:getenv("CONFORMANCE_PORTS", ""), ",")],
    case [list_to_integer(Port) || [Node, Port] <- Ports, Node =:= Name] of
        [Port] -> Port;
        [] -> false
    end.
