%% The engine that most rows talk to: an ordinary gen_server, which has never heard of Legation. It does what calls say, and
%% keeps a log of everything else that comes in.
-module(conf_engine).
-behaviour(gen_server).

-export([start/1, log/1, log/2, await_held/2, long_atom/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-record(state, {kept = none, echo = none, held = #{}, log = [], count = 0, waiting = []}).

start(Options) -> gen_server:start(?MODULE, Options, []).

%% Asked on the engine's own node, not by way of what is tested.

%% What has come in so far, in order.
log(Id) -> gen_server:call(conf_host:pid(Id), log).
%% When there are so many.
log(Id, Count) -> gen_server:call(conf_host:pid(Id), {log, Count}, 15000).
%% When a call is held under this key.
await_held(Id, Key) -> gen_server:call(conf_host:pid(Id), {await_held, Key}, 15000).

% The longest there can be, which both sides have by this.
long_atom() ->
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'.

init(Options) ->
    process_flag(trap_exit, proplists:get_bool(trap_exit, Options)),
    {ok, #state{}}.

handle_call({echo, Term}, _From, State) -> {reply, Term, State};
handle_call({size, Term}, _From, State) -> {reply, erlang:external_size(Term), State};
handle_call({bytes, Count}, _From, State) -> {reply, binary:copy(<<"x">>, Count), State};
%% No answer until somebody asks for one.
handle_call({hold, Key}, From, State) -> {noreply, answer_waiting(State#state{held = (State#state.held)#{Key => From}})};
handle_call({release, Key, Reply}, _From, #state{held = Held} = State) ->
    gen_server:reply(maps:get(Key, Held), Reply),
    {reply, ok, State#state{held = maps:remove(Key, Held)}};
handle_call({release_all, Reply}, _From, #state{held = Held} = State) ->
    [gen_server:reply(From, Reply) || From <- maps:values(Held)],
    {reply, maps:size(Held), State#state{held = #{}}};
handle_call({delegate, Reply}, From, State) ->
    spawn(fun() -> gen_server:reply(From, Reply) end),
    {noreply, State};
handle_call({delegate_late, Reply}, From, State) ->
    spawn(fun() ->
        receive after 50 -> gen_server:reply(From, Reply) end
    end),
    {noreply, State};
handle_call({twice, Reply}, From, State) ->
    gen_server:reply(From, Reply),
    gen_server:reply(From, {again, Reply}),
    {noreply, State};
handle_call({reply_and_stop, Reply, Reason}, _From, State) -> {stop, Reason, Reply, State};
handle_call({stop, Reason}, _From, State) -> {stop, Reason, State};
handle_call(crash, _From, _State) -> error(oops);
%% What the caller looks like from here.
handle_call(who, {Pid, Tag}, State) -> {reply, {is_pid(Pid), tag(Tag)}, State};
handle_call(watch_me, {Pid, _Tag}, State) ->
    erlang:monitor(process, Pid),
    {reply, ok, State};
handle_call(link_me, {Pid, _Tag}, State) ->
    link(Pid),
    {reply, ok, State};
handle_call({exit_me, Reason}, {Pid, _Tag}, State) ->
    exit(Pid, Reason),
    {reply, ok, State};
handle_call({send_me, Message}, {Pid, _Tag}, State) ->
    Pid ! Message,
    {reply, ok, State};
%% What it can do with identifiers that it was given.
handle_call({tell, To, Message}, _From, State) ->
    To ! Message,
    {reply, ok, State};
handle_call({ask, Server, Request, Timeout}, From, State) ->
    spawn(fun() -> gen_server:reply(From, asked(Server, Request, Timeout)) end),
    {noreply, State};
handle_call({watch, Pid}, _From, State) ->
    erlang:monitor(process, Pid),
    {reply, ok, State};
handle_call({link, Pid}, _From, State) ->
    link(Pid),
    {reply, ok, State};
handle_call({exit, Pid, Reason}, _From, State) ->
    exit(Pid, Reason),
    {reply, ok, State};
handle_call({reply_to, Other, Reply}, _From, State) ->
    gen_server:reply(Other, Reply),
    {reply, ok, State};
handle_call({is_self, Pid}, _From, State) -> {reply, Pid =:= self(), State};
handle_call({from_is, Pid}, {Caller, _Tag}, State) -> {reply, Pid =:= Caller, State};
handle_call({keep, Term}, _From, State) -> {reply, ok, State#state{kept = Term}};
handle_call({kept, Term}, _From, State) -> {reply, Term =:= State#state.kept, State};
handle_call({tell_kept, Message}, _From, State) ->
    State#state.kept ! Message,
    {reply, ok, State};
handle_call(new_reference, _From, State) ->
    Ref = make_ref(),
    {reply, Ref, State#state{kept = Ref}};
%% Always the same one, which nobody has published.
handle_call(start_echo, _From, #state{echo = none} = State) ->
    {ok, Pid} = conf_plain:start([]),
    {reply, Pid, State#state{echo = Pid}};
handle_call(start_echo, _From, State) -> {reply, State#state.echo, State};
handle_call(token, _From, State) -> {reply, seq_trace:get_token() =/= [], State};
handle_call(own_pid, _From, State) -> {reply, self(), State};
handle_call({new_atom, Name}, _From, State) -> {reply, binary_to_atom(Name), State};
handle_call(count, _From, State) -> {reply, State#state.count, State};
handle_call(log, _From, State) -> {reply, lists:reverse(State#state.log), State};
handle_call({log, Count}, From, State) ->
    {noreply, answer_waiting(State#state{waiting = [{From, {log, Count}} | State#state.waiting]})};
handle_call({await_held, Key}, From, State) ->
    {noreply, answer_waiting(State#state{waiting = [{From, {held, Key}} | State#state.waiting]})};
handle_call(Other, _From, State) -> {reply, {what, Other}, note({call, Other}, State)}.

handle_cast({tell, To, Message}, State) ->
    To ! Message,
    {noreply, State};
handle_cast({stop, Reason}, State) -> {stop, Reason, State};
handle_cast(count, State) -> {noreply, State#state{count = State#state.count + 1}};
handle_cast(Message, State) -> {noreply, note({cast, Message}, State)}.

handle_info({stop, Reason}, State) -> {stop, Reason, State};
handle_info(Message, State) -> {noreply, note({info, Message}, State)}.

%% Without what OTP says of the arguments, which are not the same on all sides.
asked(Server, Request, Timeout) ->
    try
        gen_server:call(Server, Request, Timeout)
    catch
        exit:{Reason, _Call} -> {exits, Reason}
    end.

note(Entry, State) -> answer_waiting(State#state{log = [clean(Entry) | State#state.log]}).

answer_waiting(#state{waiting = Waiting} = State) ->
    Left = lists:filter(fun({From, For}) -> not answered(From, For, State) end, Waiting),
    State#state{waiting = Left}.

answered(From, {log, Count}, #state{log = Log}) when length(Log) >= Count ->
    gen_server:reply(From, lists:reverse(Log)),
    true;
answered(From, {held, Key}, #state{held = Held}) when is_map_key(Key, Held) ->
    gen_server:reply(From, ok),
    true;
answered(_From, _For, _State) -> false.

%% Pids and references mean nothing where the log is read.
clean(Pid) when is_pid(Pid) -> 'Pid';
clean(Ref) when is_reference(Ref) -> 'Ref';
clean(Binary) when byte_size(Binary) > 1000 -> {bytes, byte_size(Binary)};
clean(Tuple) when is_tuple(Tuple) -> list_to_tuple([clean(Element) || Element <- tuple_to_list(Tuple)]);
clean([Head | Tail]) -> [clean(Head) | clean(Tail)];
clean(Other) -> Other.

tag([alias | Ref]) when is_reference(Ref) -> {alias, 'Ref'};
tag({'$legation', _Id, Realm, Engine}) -> {'$legation', 'Id', Realm, Engine};
tag(Other) -> clean(Other).
