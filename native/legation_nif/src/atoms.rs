//! Every atom that crosses the border.

rustler::atoms! {
    ok, error, wake, idle, more, done, large, dirty, busy, free, later, now, full, legation_room, h, linked, sent, dropped, in_use, unknown, undecodable, exit, handle_ended, unexported, timeout_in,
    // keyring
    key_file, network_key_file, bad_key, external, exists, random, not_a_point, not_canonical, weak, torsion,
    not_pkcs8_ed25519, not_a_network_key, link, hello, cert, learn, forget,
    bad_chain, bad_path, rotation, revoked, too_many, used_before, raced,
    enoent, eacces, io,
    // channel
    tls, local, plain, initiator, responder, channel_error = "channel", knock, up, sign, closed, fault,
    knock_required, knock_memory_full, answer, refuse, accept,
    // events
    send, cast, call, reply, refused, release, rotated,
    // maps
    realm_id, key, profile, role, version, session_id, resumed, additional, serial, ops,
    // payloads
    t, b,
    // push errors
    overload, too_large, identifiers, bad_term, unknown_call, bad_name, unknown_handle, draining, disconnect, ended,
    // signing modes
    signing, engine, delegated, checkpoint,
    // receipts
    receipt,
}
