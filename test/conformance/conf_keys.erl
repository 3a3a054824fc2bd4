%% Identities, as `legation key new` and openssl write them.
-module(conf_keys).

-export([new/1]).

%% PKCS#8 of an Ed25519 key is this and the 32 bytes.
-define(PREFIX, <<16#302e020100300506032b657004220420:128>>).

%% Writes a private key, and returns the public one as configurations have it.
new(File) ->
    {Public, Private} = crypto:generate_key(eddsa, ed25519),
    Base64 = base64:encode(<<(?PREFIX)/binary, Private/binary>>),
    ok = file:write_file(File, ["-----BEGIN PRIVATE KEY-----\n", Base64, "\n-----END PRIVATE KEY-----\n"]),
    ok = file:change_mode(File, 8#600),
    <<"ed25519:", (url64(Public))/binary>>.

url64(Binary) ->
    << <<(case Byte of $+ -> $-; $/ -> $_; _ -> Byte end)>> || <<Byte>> <= base64:encode(Binary), Byte =/= $= >>.
