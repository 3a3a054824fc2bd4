%% What is said: every kind of term, sizes up to the bound, and what doesn't cross.
-module(conf_payloads).

-export([rows/0]).

-import(conf_lib, [ended/1, same/1, barrier/0, nothing_left/0]).

%% The bound of a message, 8 MiB, is one of its external form.
-define(BOUND, 8388608).

rows() ->
    [
        {terms, fun terms/1},
        {terms_deep, fun terms_deep/1},
        {terms_wide, fun terms_wide/1},
        {terms_atoms, fun terms_atoms/1},
        {terms_new_atom_there, fun new_atom_there/1},
        {terms_new_atom_here, fun new_atom_here/1},
        {terms_pid, fun(Engine) -> identifier(Engine, self()) end},
        {terms_pid_of_engine, fun(#{pid := Pid} = Engine) -> identifier(Engine, Pid) end},
        {terms_reference, fun(Engine) -> identifier(Engine, make_ref()) end},
        {terms_port, fun(Engine) -> identifier(Engine, hd(erlang:ports())) end},
        {terms_fun, fun(Engine) -> identifier(Engine, fun() -> 1 end) end},
        {terms_external_fun, fun(Engine) -> identifier(Engine, fun erlang:node/0) end},
        {terms_pid_in_reply, fun pid_in_reply/1},
        {sizes_small, fun sizes_small/1},
        {sizes_around_fragments, fun sizes_around_fragments/1},
        {size_1_mib, fun(Engine) -> echoes(Engine, 1048576) end},
        {size_at_the_bound, fun(Engine) -> echoes(Engine, ?BOUND - overhead()) end},
        {size_over_the_bound, fun(Engine) -> echoes(Engine, ?BOUND - overhead() + 1) end},
        {size_far_over_the_bound, fun(Engine) -> echoes(Engine, 3 * ?BOUND) end},
        {size_of_reply_at_the_bound, fun(Engine) -> replies(Engine, ?BOUND - reply_overhead()) end},
        {size_of_reply_over_the_bound, fun(Engine) -> replies(Engine, ?BOUND - reply_overhead() + 1) end},
        {size_of_cast_over_the_bound, fun cast_over_the_bound/1},
        {size_of_send_at_the_bound, fun send_at_the_bound/1},
        {size_large_and_small_together, fun large_and_small/1},
        {size_large_at_once, fun large_at_once/1},
        {size_large_and_its_sender_dies, fun sender_dies/1}
    ].

%% Version byte, tuple, the atom `echo`, head of a binary, as distribution writes them in every OTP.
overhead() -> 1 + 2 + (2 + 4) + 5.
reply_overhead() -> 1 + 5.

echo(#{name := Name}, Term) -> gen_server:call(Name, {echo, Term}, 20000).

terms(Engine) ->
    Terms = [
        0, 255, 256, -1, 1 bsl 27, -(1 bsl 27), 1 bsl 31, 1 bsl 63, 1 bsl 64, -(1 bsl 64), 1 bsl 2048, -(1 bsl 3000),
        1.0, -0.0, 1.0e300, 5.0e-324,
        <<>>, <<1>>, <<1:1>>, <<255, 3:7>>, binary:copy(<<"x">>, 300),
        [], [1], [-1], [256], [1 | 2], "string", lists:seq(1, 300), lists:duplicate(70000, $x), [[[]]], [a, 1.5, {}],
        {}, {1}, {1, {2, {3}}}, list_to_tuple(lists:seq(1, 300)),
        #{}, #{1 => 2}, maps:from_list([{N, N} || N <- lists:seq(1, 100)]), #{#{} => []},
        true, '', 'with space', 'é', '日本', conf_engine:long_atom(),
        {{echo, [<<"a">> | {b, #{c => "d"}}]}, nobody}
    ],
    [Term || Term <- Terms, echo(Engine, Term) =/= Term].

terms_deep(Engine) ->
    Deep = lists:foldl(fun(_, Term) -> {Term} end, bottom, lists:seq(1, 250)),
    Deeper = lists:foldl(fun(_, Term) -> [Term] end, [], lists:seq(1, 100000)),
    {echo(Engine, Deep) =:= Deep, case ended(fun() -> echo(Engine, Deeper) end) of Deeper -> true; Other -> Other end}.

terms_wide(Engine) ->
    Wide = maps:from_list([{N, [{N, <<N:64>>, float(N)}]} || N <- lists:seq(1, 20000)]),
    echo(Engine, Wide) =:= Wide.

%% Atoms that both have, many in one message.
terms_atoms(Engine) ->
    Atoms = [Name || {_, Name} <- lists:keysort(2, [{1, Module} || Module <- conf_main:modules()])],
    echo(Engine, Atoms) =:= Atoms.

%% An atom that the engine's system has never heard of.
new_atom_there(Engine) ->
    Atom = list_to_atom("conf_new_" ++ integer_to_list(erlang:system_time()) ++ os:getpid()),
    case ended(fun() -> echo(Engine, Atom) end) of
        Atom -> 'Atom';
        Other -> Other
    end.

%% And one that this node has never heard of.
new_atom_here(#{name := Name}) ->
    Text = <<"conf_newer_", (integer_to_binary(erlang:system_time()))/binary>>,
    case ended(fun() -> gen_server:call(Name, {new_atom, Text}) end) of
        Atom when is_atom(Atom) -> {'Atom', atom_to_binary(Atom) =:= Text};
        Other -> Other
    end.

identifier(Engine, Term) ->
    case ended(fun() -> echo(Engine, Term) end) of
        Term -> itself;
        Other -> Other
    end.

pid_in_reply(#{name := Name, pid := Pid}) ->
    case gen_server:call(Name, own_pid) of
        Pid -> itself;
        Other -> Other
    end.

echoes(#{pid := Pid}, Size) ->
    Binary = binary:copy(<<"x">>, Size),
    case ended(fun() -> gen_server:call(Pid, {echo, Binary}, 20000) end) of
        Binary -> itself;
        Other -> Other
    end.

replies(#{pid := Pid}, Size) ->
    case ended(fun() -> gen_server:call(Pid, {bytes, Size}, 20000) end) of
        Binary when byte_size(Binary) =:= Size -> so_many_bytes;
        Other -> Other
    end.

sizes_small(Engine) -> same([echoes(Engine, Size) || Size <- [0, 1, 2, 63, 64, 65, 255, 256, 1000, 4096, 16383, 16384, 16385]]).

%% Of distribution (64 KiB) and of the channel.
sizes_around_fragments(Engine) ->
    same([
        echoes(Engine, Factor * 65536 + Around)
     || Factor <- [1, 2, 3, 7], Around <- [-200, -100, -64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 64, 100]
    ]).

heard(#{id := Id}, Count) -> conf_target:at(conf_engine, log, [Id, Count]).

%% Nobody is told, and nothing else suffers.
cast_over_the_bound(#{pid := Pid} = Engine) ->
    Told = gen_server:cast(Pid, binary:copy(<<"x">>, ?BOUND)),
    gen_server:cast(Pid, the_last),
    {Told, last(Engine, 1)}.

send_at_the_bound(#{pid := Pid} = Engine) ->
    Pid ! binary:copy(<<"x">>, ?BOUND - reply_overhead()),
    Pid ! the_last,
    last(Engine, 1).

last(Engine, Count) ->
    Heard = heard(Engine, Count),
    case lists:last(Heard) of
        {_, the_last} -> Heard;
        _ -> last(Engine, length(Heard) + 1)
    end.

%% From several processes at once, each in its order.
large_and_small(#{pid := Pid, name := Name} = Engine) ->
    #{pid := Other} = conf_target:engine("size_large_and_small_other"),
    Large = binary:copy(<<"x">>, 2 * 1048576),
    Callers =
        [conf_lib:caller(fun() -> [gen_server:call(Name, {size, Large}, 20000) || _ <- [1, 2]] end) || _ <- [1, 2, 3]] ++
            [conf_lib:caller(fun() -> [gen_server:call(Way, {echo, N}, 20000) || N <- lists:seq(1, 200)] end) || Way <- [Pid, Other]],
    Results = [conf_lib:result(Caller) || Caller <- Callers],
    Size = erlang:external_size(Large),
    {
        [[Size, Size] =:= Result || Result <- lists:sublist(Results, 3)],
        [lists:seq(1, 200) =:= Result || Result <- lists:nthtail(3, Results)],
        length(heard(Engine, 0))
    }.

large_at_once(#{pid := Pid}) ->
    Callers = [
        conf_lib:caller(fun() ->
            Binary = binary:copy(<<N>>, 1048576 + N),
            Binary =:= gen_server:call(Pid, {echo, Binary}, 25000)
        end)
     || N <- lists:seq(1, 16)
    ],
    same([conf_lib:result(Caller) || Caller <- Callers]).

%% In the middle of its fragments or not: nobody else's messages suffer.
sender_dies(#{pid := Pid}) ->
    Large = binary:copy(<<"x">>, 4 * 1048576),
    same([
        begin
            Sender = spawn(fun() ->
                gen_server:cast(Pid, {large, Large}),
                receive never -> ok end
            end),
            exit(Sender, kill),
            gen_server:call(Pid, {echo, N}, 20000) =:= N
        end
     || N <- lists:seq(1, 10)
    ]) andalso (barrier() =:= ok) andalso nothing_left() =:= [].
