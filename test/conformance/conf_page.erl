%% docs/conformance.md: its tables have four columns, of which the code is held to all but the second.
%%
%%   | row | what is done | on a second BEAM node | on the daemon |
-module(conf_page).

-export([read/1, matches/2, print/2]).

%% [{Name, what is seen on a BEAM node, what is seen on the daemon}]
read(File) ->
    {ok, Text} = file:read_file(File),
    Lines = string:split(unicode:characters_to_list(Text), "\n", all),
    [row(cells(Line)) || "| `" ++ _ = Line <- Lines].

cells(Line) ->
    %% A bar within a cell is escaped.
    Cells = re:split(Line, "(?<!\\\\)\\|", [{return, list}, unicode]),
    [string:trim(string:replace(Cell, "\\|", "|", all)) || Cell <- lists:droplast(tl(Cells))].

row([Name, _Done, Beam, "the same"]) -> {name(Name), code(Beam), code(Beam)};
row([Name, _Done, Beam, Daemon]) -> {name(Name), code(Beam), code(Daemon)}.

name(Cell) -> list_to_atom(code(Cell)).
code(Cell) -> string:trim(lists:flatten(Cell), both, "`").

matches(Text, Expected) -> Text =:= Expected.

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
