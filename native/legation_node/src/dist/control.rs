//! Control messages (`erl_dist_protocol`, "Protocol between Connected Nodes").

use super::term::{Pid, Reference};

/// Whom a monitor or a `DOWN` speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Pid(Pid<'a>),
    /// A registered name, as text (UTF-8).
    Name(&'a [u8]),
}

/// One control message. Traced variants come as their plain ones, the token dropped. A reason that stands in the control tuple
/// (the older forms) is given as a payload: the term, with a version byte in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control<'a> {
    Link {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// SEND, SEND_SENDER. Payload: the message.
    Send {
        from: Option<Pid<'a>>,
        to: Pid<'a>,
    },
    /// REG_SEND. Payload: the message.
    RegSend {
        from: Pid<'a>,
        name: &'a [u8],
    },
    /// ALIAS_SEND. Payload: the message.
    AliasSend {
        from: Pid<'a>,
        alias: Reference<'a>,
    },
    /// A linked process has ended. Payload: the reason.
    Exit {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// `exit/2`. Payload: the reason.
    Exit2 {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// The old one, without an id.
    Unlink {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// `id` is the raw term, to be repeated in the acknowledgement.
    UnlinkId {
        id: &'a [u8],
        from: Pid<'a>,
        to: Pid<'a>,
    },
    UnlinkIdAck {
        id: &'a [u8],
        from: Pid<'a>,
        to: Pid<'a>,
    },
    GroupLeader {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    MonitorP {
        from: Pid<'a>,
        target: Target<'a>,
        reference: Reference<'a>,
    },
    DemonitorP {
        from: Pid<'a>,
        target: Target<'a>,
        reference: Reference<'a>,
    },
    /// The `DOWN`. Payload: the reason.
    MonitorPExit {
        from: Target<'a>,
        to: Pid<'a>,
        reference: Reference<'a>,
    },
    SpawnRequest {
        id: Reference<'a>,
        from: Pid<'a>,
    },
    SpawnReply {
        id: Reference<'a>,
        to: Pid<'a>,
    },
}
