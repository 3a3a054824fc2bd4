%% A gen_event manager with one handler, which keeps its events: `events`.
-module(conf_event).
-behaviour(gen_event).

-export([start/1, events/1, init/1, handle_event/2, handle_call/2, handle_info/2]).

start([]) ->
    {ok, Pid} = gen_event:start(),
    ok = gen_event:add_handler(Pid, ?MODULE, []),
    {ok, Pid}.

%% Asked on the engine's own node.
events(Id) -> gen_event:call(conf_host:pid(Id), ?MODULE, events).

init([]) -> {ok, []}.
handle_event(Event, Events) -> {ok, [Event | Events]}.
handle_call(events, Events) -> {ok, lists:reverse(Events), Events}.
handle_info(Message, Events) -> {ok, [{info, Message} | Events]}.
