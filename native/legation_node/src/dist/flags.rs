//! What the two sides of a connection say of themselves in the handshake (`dist.hrl`), and what that decides.
//!
//! Flags decide semantics: a BEAM asks the peer's flags before each kind of message, and sends another one, or nothing at all, to
//! whom lacks one. A node without both of [`DIST_MONITOR`] and [`DIST_MONITOR_NAME`], for one, is never told that it is monitored,
//! and a call to a process that it doesn't have hangs until its timeout.

/// All references have several words.
pub const EXTENDED_REFERENCES: u64 = 1 << 2;
/// Monitors on our processes reach us, and their end.
pub const DIST_MONITOR: u64 = 1 << 3;
pub const FUN_TAGS: u64 = 1 << 4;
/// Monitors by registered name; without it those by pid don't reach us either.
pub const DIST_MONITOR_NAME: u64 = 1 << 5;
pub const NEW_FUN_TAGS: u64 = 1 << 7;
pub const EXTENDED_PIDS_PORTS: u64 = 1 << 8;
pub const EXPORT_PTR_TAG: u64 = 1 << 9;
pub const BIT_BINARIES: u64 = 1 << 10;
/// Floats in eight bytes instead of as text.
pub const NEW_FLOATS: u64 = 1 << 11;
pub const SMALL_ATOM_TAGS: u64 = 1 << 14;
pub const UTF8_ATOMS: u64 = 1 << 16;
pub const MAP_TAG: u64 = 1 << 17;
/// Creations of 32 bits.
pub const BIG_CREATION: u64 = 1 << 18;
/// SEND_SENDER instead of SEND: who sent it is known, and its trace token comes in a form that is no other one's.
pub const SEND_SENDER: u64 = 1 << 19;
/// Labels of trace tokens may be any term.
pub const BIG_SEQTRACE_LABELS: u64 = 1 << 20;
/// Reasons come behind the control message and not in it: they can be large, and needn't be looked into.
pub const EXIT_PAYLOAD: u64 = 1 << 22;
/// Messages over 64 KiB come in pieces, between which others pass.
pub const FRAGMENTS: u64 = 1 << 23;
/// The handshake of OTP 23, with flags of 64 bits.
pub const HANDSHAKE_23: u64 = 1 << 24;
/// UNLINK_ID and its acknowledgement instead of UNLINK.
pub const UNLINK_ID: u64 = 1 << 25;
/// Stands for the eleven flags of [`MANDATORY_25`]. (The protocol's manual says bit 36, which is another one, used inside the VM.)
pub const MANDATORY_25_DIGEST: u64 = 1 << 26;
/// Ports of 64 bits, pids of 2 × 32, references of up to five words.
pub const V4_NC: u64 = 1 << 34;
/// Sends to aliases of ours reach us. (What we send to aliases of others goes by none of our flags.)
pub const ALIAS: u64 = 1 << 35;

/// What all nodes since OTP 25 have in common.
pub const MANDATORY_25: u64 = EXTENDED_REFERENCES
    | FUN_TAGS
    | EXTENDED_PIDS_PORTS
    | UTF8_ATOMS
    | NEW_FUN_TAGS
    | BIG_CREATION
    | NEW_FLOATS
    | MAP_TAG
    | EXPORT_PTR_TAG
    | BIT_BINARIES
    | HANDSHAKE_23;

/// What we offer.
///
/// Left out on purpose:
///
/// | flag | why |
/// |---|---|
/// | `PUBLISHED` (0) | we are hidden: `global` would synchronise with us, and block |
/// | `ATOM_CACHE` (1), `HIDDEN_ATOM_CACHE` (6), `DIST_HDR_ATOM_CACHE` (13) | atoms come in full, and no state is shared; [`FRAGMENTS`] works without |
/// | `UNICODE_IO` (12) | for io servers |
/// | `PENDING_CONNECT` (21), `LOCAL_EXT` (36) | inside the VM |
/// | `SPAWN` (32) | without it who wants to spawn here is told `notsup` by its own node |
/// | `NAME_ME` (33) | we have a name |
/// | `ALTACT_SIG` (37) | op 37 instead of 33; read, but not needed before OTP 30, where aliases will do without [`ALIAS`] |
/// | `NATIVE_RECORDS` (38) | terms with tag 67 |
pub const OFFERED: u64 = MANDATORY_25
    | MANDATORY_25_DIGEST
    | DIST_MONITOR
    | DIST_MONITOR_NAME
    | SMALL_ATOM_TAGS
    | SEND_SENDER
    | BIG_SEQTRACE_LABELS
    | EXIT_PAYLOAD
    | FRAGMENTS
    | UNLINK_ID
    | V4_NC
    | ALIAS;

/// What another node must offer: what [`encode`](super::control::encode) writes without asking, and
/// [`MANDATORY_25_DIGEST`], by which it is known to be of OTP 25 or later. [`MANDATORY_25`] instead of it will do.
pub const REQUIRED: u64 =
    MANDATORY_25_DIGEST | DIST_MONITOR | DIST_MONITOR_NAME | SEND_SENDER | EXIT_PAYLOAD | UNLINK_ID | V4_NC;

/// Whether frames have headers, and large messages come in fragments. Otherwise frames are passed through as they are.
pub fn framed_with_header(ours: u64, theirs: u64) -> bool {
    ours & theirs & FRAGMENTS != 0
}

/// What of [`REQUIRED`] a node with these flags lacks; 0: nothing.
pub fn missing(theirs: u64) -> u64 {
    let implied = if theirs & MANDATORY_25 == MANDATORY_25 { MANDATORY_25_DIGEST } else { 0 };
    REQUIRED & !(theirs | implied)
}

/// The names of flags, for people. Bits without a name here are left out.
pub fn names(flags: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(flag, _)| flags & flag != 0).map(|&(_, name)| name)
}

const NAMES: [(u64, &str); 24] = [
    (EXTENDED_REFERENCES, "EXTENDED_REFERENCES"),
    (DIST_MONITOR, "DIST_MONITOR"),
    (FUN_TAGS, "FUN_TAGS"),
    (DIST_MONITOR_NAME, "DIST_MONITOR_NAME"),
    (NEW_FUN_TAGS, "NEW_FUN_TAGS"),
    (EXTENDED_PIDS_PORTS, "EXTENDED_PIDS_PORTS"),
    (EXPORT_PTR_TAG, "EXPORT_PTR_TAG"),
    (BIT_BINARIES, "BIT_BINARIES"),
    (NEW_FLOATS, "NEW_FLOATS"),
    (SMALL_ATOM_TAGS, "SMALL_ATOM_TAGS"),
    (UTF8_ATOMS, "UTF8_ATOMS"),
    (MAP_TAG, "MAP_TAG"),
    (BIG_CREATION, "BIG_CREATION"),
    (SEND_SENDER, "SEND_SENDER"),
    (BIG_SEQTRACE_LABELS, "BIG_SEQTRACE_LABELS"),
    (EXIT_PAYLOAD, "EXIT_PAYLOAD"),
    (FRAGMENTS, "FRAGMENTS"),
    (HANDSHAKE_23, "HANDSHAKE_23"),
    (UNLINK_ID, "UNLINK_ID"),
    (MANDATORY_25_DIGEST, "MANDATORY_25_DIGEST"),
    (V4_NC, "V4_NC"),
    (ALIAS, "ALIAS"),
    (1, "PUBLISHED"),
    (1 << 13, "DIST_HDR_ATOM_CACHE"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_offer_what_was_tried_on_otp_25_27_and_29_and_fragments() {
        assert_eq!(OFFERED, 0xC_075F_4FBC | FRAGMENTS);
        assert_eq!(OFFERED & (1 | 1 << 1 | 1 << 6 | 1 << 13 | 1 << 32 | 1 << 36), 0);
    }

    #[test]
    fn what_otp_25_offers_lacks_nothing() {
        assert_eq!(missing(0xD_07DF_7FBD), 0);
        assert!(framed_with_header(OFFERED, 0xD_07DF_7FBD));
    }

    #[test]
    fn what_we_offer_lacks_nothing() {
        assert_eq!(missing(OFFERED), 0);
    }

    #[test]
    fn the_digest_and_the_flags_it_stands_for_do_for_each_other() {
        assert_eq!(missing(REQUIRED), 0);
        assert_eq!(missing(REQUIRED & !MANDATORY_25_DIGEST | MANDATORY_25), 0);
        let incomplete = REQUIRED & !MANDATORY_25_DIGEST | MANDATORY_25 & !MAP_TAG;
        assert_eq!(missing(incomplete), MANDATORY_25_DIGEST);
    }

    #[test]
    fn what_is_missing_has_a_name() {
        // Offered by libei, which sets DIST_MONITOR alone.
        let missing = missing(0x4_0700_0008 | MANDATORY_25);
        let names: Vec<_> = names(missing).collect();
        assert_eq!(names, ["DIST_MONITOR_NAME", "SEND_SENDER", "EXIT_PAYLOAD"]);
        for bit in (0..64).filter(|bit| (OFFERED | REQUIRED) & 1 << bit != 0) {
            assert_eq!(super::names(1 << bit).count(), 1, "bit {bit}");
        }
    }
}
