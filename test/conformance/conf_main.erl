%% Runs the rows against one target, each in a process of its own, and writes down what was seen; or holds what was seen against
%% the page. Called by test/conformance/run.
-module(conf_main).

-export([run/1, compare/1, modules/0]).

-define(ROW_MS, 30000).
-define(SLOW_ROW_MS, 240000).

%% A row is {Name, Fun} or {Name, Options, Fun}. The fun is given an engine as conf_target makes them, and returns its observation.
%%
%%   module, args, realm, global   how the engine is started; module none: there is none, and the fun gets #{}
%%   slow                          left out by --short
%%   disconnects                   the connection to the target may end in it
%%   fresh                         the target is started anew after it
row_modules() ->
    [
        conf_calls,
        conf_requests,
        conf_statems,
        conf_events,
        conf_sends,
        conf_multi,
        conf_monitors,
        conf_links,
        conf_sys,
        conf_locals,
        conf_globals,
        conf_payloads,
        conf_identifiers,
        conf_traced,
        conf_order,
        conf_reverse,
        conf_spawns,
        conf_nodes,
        conf_clusters,
        conf_incarnations,
        'Elixir.ConformanceElixir'
    ].

%% All there are here; what the engines' system loads, so that the atoms of all rows are known there.
modules() ->
    [
        list_to_atom(filename:basename(File, ".beam"))
     || File <- filelib:wildcard(filename:join(filename:dirname(code:which(?MODULE)), "conf_*.beam"))
    ].

%% Arguments: target, short or full, a pattern for names of rows, where to write.
run([Target, Size, Pattern, Out]) ->
    ets:new(conf_nodes, [named_table, public]),
    ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
    [{module, Module} = code:ensure_loaded(Module) || Module <- modules()],
    conf_target:start(list_to_atom(Target)),
    Rows = [
        Row
     || Module <- row_modules(),
        {Name, Options, _Fun} = Row <- [row(Row) || Row <- Module:rows()],
        Size =:= "full" orelse not maps:get(slow, Options, false),
        re:run(atom_to_list(Name), Pattern) =/= nomatch
    ],
    conf_target:helper(),
    Seen = [{Name, conf_lib:text(observe(Name, Options, Fun))} || {Name, Options, Fun} <- Rows],
    conf_target:stop(),
    conf_node:stop_all(),
    ok = file:write_file(Out, [io_lib:format("~p.~n", [Row]) || Row <- Seen], []),
    halt(0).

row({Name, Fun}) -> {Name, #{}, Fun};
row({Name, Options, Fun}) -> {Name, Options, Fun}.

observe(Name, Options, Fun) ->
    flush_nodes(),
    Started = erlang:monotonic_time(millisecond),
    Millis = case Options of #{slow := true} -> ?SLOW_ROW_MS; #{} -> ?ROW_MS end,
    {Pid, Ref} = spawn_monitor(fun() -> exit({observed, observation(Name, Options, Fun)}) end),
    Seen =
        receive
            {'DOWN', Ref, process, Pid, {observed, Term}} -> Term;
            {'DOWN', Ref, process, Pid, Reason} -> {row_died, Reason}
        after Millis ->
            Where = erlang:process_info(Pid, current_stacktrace),
            erlang:demonitor(Ref, [flush]),
            exit(Pid, kill),
            {row_hangs, Where}
        end,
    Node = conf_target:node(),
    All =
        case lost(Node) andalso not maps:get(disconnects, Options, false) of
            true -> {Seen, 'the connection was lost'};
            false -> Seen
        end,
    case Options of
        #{fresh := true} -> conf_target:restart(), conf_target:settle();
        #{disconnects := true} -> conf_target:settle();
        #{} -> ok
    end,
    case os:getenv("CONFORMANCE_VERBOSE") of
        false -> ok;
        _ -> io:format("~6b ms  ~p: ~ts~n", [erlang:monotonic_time(millisecond) - Started, Name, conf_lib:text(All)])
    end,
    All.

observation(Name, Options, Fun) ->
    Engine =
        case Options of
            #{module := none} -> #{};
            #{} -> conf_target:engine(atom_to_list(Name), Options)
        end,
    Term =
        try
            Fun(Engine)
        catch
            Class:Reason:Stack -> {row_failed, Class, Reason, Stack}
        end,
    Left = conf_lib:nothing_left(),
    Observation =
        case Left of
            [] -> Term;
            _ -> {Term, 'left in the mailbox', Left}
        end,
    case Engine of
        #{id := Id} -> conf_target:at(conf_host, stop, [Id]);
        #{} -> ok
    end,
    conf_lib:normal(Observation, conf_target:roles(Engine)).

lost(Node) ->
    receive
        {nodedown, Node, _Info} -> true
    after 0 -> false
    end.

flush_nodes() ->
    receive
        {NodeEvent, _Node, _Info} when NodeEvent =:= nodeup; NodeEvent =:= nodedown -> flush_nodes()
    after 0 -> ok
    end.

%% Arguments: the page, and for each target: its name and what was seen.
compare([Page, Size | Targets]) ->
    Table = conf_page:read(Page),
    Known = [Name || Module <- row_modules(), {Name, _, _} <- [row(Row) || Row <- Module:rows()]],
    Problems =
        [{Name, "is no row of the page"} || Name <- Known, not lists:keymember(Name, 1, Table)] ++
            [{Name, "is on the page only"} || {Name, _, _, _} <- Table, not lists:member(Name, Known)] ++
            [{Name, "is there twice"} || Name <- Known -- lists:usort(Known)] ++
            compare_targets(Table, Targets),
    [io:format(standard_error, "conformance: ~ts ~ts~n", [Name, Problem]) || {Name, Problem} <- Problems],
    Count = length(Known),
    case Problems of
        [] ->
            io:format("conformance: OTP ~ts, ~b rows (~ts), all as the page has them~n", [
                erlang:system_info(otp_release), Count, Size
            ]),
            halt(0);
        _ ->
            halt(1)
    end.

compare_targets(_Table, []) -> [];
compare_targets(Table, [Target, File | Targets]) ->
    {ok, Seen} = file:consult(File),
    [
        {Name, io_lib:format("on ~ts:~n    page  ~ts~n    seen  ~ts", [Target, Expected, Text])}
     || {Name, Text} <- Seen,
        {_, Beam, Daemon, Embedded} <- [lists:keyfind(Name, 1, Table)],
        Expected <- [case Target of "beam" -> Beam; "daemon" -> Daemon; "embedded" -> Embedded end],
        Text =/= Expected
    ] ++ compare_targets(Table, Targets).
