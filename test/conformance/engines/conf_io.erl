%% An io device, to which everything can be written.
-module(conf_io).

-export([start/1]).

start([]) -> {ok, spawn(fun loop/0)}.

loop() ->
    receive
        {io_request, From, ReplyAs, _Request} -> From ! {io_reply, ReplyAs, ok};
        {'$gen_call', From, {echo, Term}} -> gen_server:reply(From, Term);
        _Other -> ok
    end,
    loop().
