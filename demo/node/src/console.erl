%% A prompt without a keyboard, in a plain node: evaluates what comes by descriptor 3, one list of expressions at a time in one
%% process, and answers by descriptor 4. What demo/console.exs is for an Elixir application.
-module(console).

-export([start/0]).

start() ->
    Serve = fun() ->
        Port = open_port({fd, 3, 4}, [binary, eof, {packet, 4}]),
        Main = self(),
        Shell = spawn_link(fun() -> shell(Main, erl_eval:new_bindings()) end),
        answer(Port, ready),
        serve(Port, Shell)
    end,
    spawn(Serve),
    ok.

serve(Port, Shell) ->
    receive
        {Port, {data, Packet}} ->
            case binary_to_term(Packet) of
                {eval, Code} -> Shell ! {eval, Code};
                stop -> init:stop()
            end,
            serve(Port, Shell);
        {evaluated, Result} ->
            answer(Port, Result),
            serve(Port, Shell);
        %% Whoever started us is gone.
        {Port, eof} ->
            halt(1)
    end.

%% Nothing but this ever gets into its mailbox, so that a message from elsewhere would be seen.
shell(Main, Bindings) ->
    receive
        {eval, Code} ->
            {Result, NewBindings} = evaluate(Code, Bindings),
            Main ! {evaluated, Result},
            shell(Main, NewBindings)
    end.

evaluate(Code, Bindings) ->
    try
        {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list([Code, "."])),
        {ok, Expressions} = erl_parse:parse_exprs(Tokens),
        {value, Value, NewBindings} = erl_eval:exprs(Expressions, Bindings),
        {{value, Value}, NewBindings}
    catch
        exit:Reason -> {{exit, Reason, text("** exception exit: ~0tp", [Reason])}, Bindings};
        Class:Reason:Stack -> {{crash, text("~p: ~tp~n~tp", [Class, Reason, Stack])}, Bindings}
    end.

text(Format, Values) ->
    unicode:characters_to_binary(io_lib:format(Format, Values)).

answer(Port, Term) ->
    port_command(Port, term_to_binary(Term)).
