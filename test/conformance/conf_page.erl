%% docs/conformance.md: its tables have four columns, of which the code is held to all but the second.
%%
%%   | row | what is done | on a second BEAM node | on the daemon |
%%
%% The last is `a term`, or: the same; or, where it differs by what the engines' realm has: `a term`; embedded `a term`.
-module(conf_page).

-export([read/1, print/2]).

%% [{Name, on a BEAM node, on the daemon, the same with the embedded transport behind it}]
read(File) ->
    {ok, Text} = file:read_file(File),
    Lines = string:split(unicode:characters_to_list(Text), "\n", all),
    [row(cells(Line)) || Line <- Lines, re:run(Line, "^\\| `[a-z0-9_]+` \\|") =/= nomatch].

cells(Line) ->
    %% A bar within a cell is escaped.
    Cells = re:split(Line, "(?<!\\\\)\\|", [{return, list}, unicode]),
    [lists:flatten(string:trim(string:replace(Cell, "\\|", "|", all))) || Cell <- lists:droplast(tl(Cells))].

row([Name, _Done, Beam, "the same"]) -> row([Name, "", Beam, Beam]);
row([Name, _Done, Beam, Daemon]) ->
    case string:split(Daemon, "; embedded ") of
        [Each] -> {name(Name), code(Beam), code(Each), code(Each)};
        [Each, "the same"] -> {name(Name), code(Beam), code(Each), code(Beam)};
        [Each, Embedded] -> {name(Name), code(Beam), code(Each), code(Embedded)}
    end.

name(Cell) -> list_to_atom(code(Cell)).
code(Cell) -> string:trim(Cell, both, "`").

%% For whoever writes the page: rows as lines of a table.
print(Beam, Daemon) ->
    {ok, Seen} = file:consult(Beam),
    {ok, There} = file:consult(Daemon),
    [
        io:format("| `~ts` |  | `~ts` | ~ts |~n", [
            Name,
            escape(Text),
            case lists:keyfind(Name, 1, There) of
                {Name, Text} -> "the same";
                {Name, Other} -> ["`", escape(Other), "`"];
                false -> "?"
            end
        ])
     || {Name, Text} <- Seen
    ],
    halt(0).

escape(Text) -> string:replace(Text, "|", "\\|", all).
