%% An ordinary server. That foreign processes call it, it can see in `From`, if it looks.
-module(ping).
-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

start_link(Name) ->
    gen_server:start_link({local, Name}, ?MODULE, [], []).

init([]) ->
    {ok, #{count => 0, notes => [], from => nobody}}.

handle_call(ping, From, #{count := Count} = State) ->
    {reply, {pong, Count + 1}, State#{count := Count + 1, from := From}};
handle_call({echo, Term}, _From, State) ->
    {reply, Term, State};
%% Calls another server itself, and says what came of it.
handle_call({ask, Server, Request}, _From, State) ->
    {reply, gen_server:call(Server, Request), State};
%% The `From` of the last ping.
handle_call(last_from, _From, #{from := From} = State) ->
    {reply, From, State};
handle_call(notes, _From, #{notes := Notes} = State) ->
    {reply, lists:reverse(Notes), State}.

handle_cast({note, Note}, State) ->
    {noreply, note(Note, State)}.

handle_info(Message, State) ->
    {noreply, note(Message, State)}.

note(Note, #{notes := Notes} = State) ->
    State#{notes := [Note | Notes]}.
