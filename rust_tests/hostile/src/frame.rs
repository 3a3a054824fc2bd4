//! Frames (`protocol.md` 6) and the names of their answers.

pub const HELLO: u8 = 0x01;
pub const RESUME: u8 = 0x02;
pub const BATCH: u8 = 0x03;
pub const CHECKPOINT: u8 = 0x04;
pub const FRAGMENT: u8 = 0x05;
pub const ACK: u8 = 0x06;
pub const CREDIT: u8 = 0x07;
pub const LEARN: u8 = 0x09;
pub const FORGET: u8 = 0x0a;
pub const CERT: u8 = 0x0b;
pub const ROTATE: u8 = 0x0c;
pub const REVOKE: u8 = 0x0d;
pub const HANDLE_RELEASE: u8 = 0x0f;
pub const PING: u8 = 0x14;
pub const PONG: u8 = 0x15;
pub const CLOSE: u8 = 0x16;

/// 8.2
pub fn is_sequenced(kind: u8) -> bool {
    matches!(kind, BATCH | CHECKPOINT | FRAGMENT | CREDIT | LEARN | FORGET | CERT | ROTATE | REVOKE | HANDLE_RELEASE)
}

/// A frame of any type, flags and length.
pub fn frame(kind: u8, flags: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[kind, flags], &length.to_le_bytes()[..], body].concat()
}

/// A frame as it should be.
pub fn critical(kind: u8, body: &[u8]) -> Vec<u8> {
    frame(kind, 1, body.len() as u32, body)
}

/// `str8`
pub fn str8(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

/// 16
pub fn close_name(code: u16) -> &'static str {
    const NAMES: [&str; 18] = [
        "normal",
        "protocol",
        "version",
        "unlisted",
        "wrong_realm",
        "bad_signature",
        "expired",
        "duplicate",
        "timeout",
        "abuse",
        "unknown_frame",
        "too_large",
        "shutdown",
        "overload",
        "replaced",
        "revoked",
        "stale_key",
        "unproven",
    ];
    NAMES.get(usize::from(code)).unwrap_or(&"unknown")
}

/// 10.4
pub fn refusal_name(reason: u8) -> &'static str {
    const NAMES: [&str; 11] = [
        "none",
        "forbidden",
        "filtered",
        "undecodable",
        "overload",
        "noproc",
        "too_large",
        "identifiers",
        "abandoned",
        "expired",
        "draining",
    ];
    NAMES.get(usize::from(reason)).unwrap_or(&"unknown")
}
