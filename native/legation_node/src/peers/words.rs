//! Why a link is not there, in words: those of `Legation.Error.message/1`.

use std::fmt;

use super::LinkEnd;

impl LinkEnd {
    /// The word that stands first in what is said, and by which a program decides: `econnrefused`, `unlisted`.
    pub fn code(&self) -> &str {
        match self {
            LinkEnd::Connect(reason) | LinkEnd::Carrier(reason) | LinkEnd::Keyholder(reason) => first_word(reason),
            LinkEnd::Closed { code, .. } | LinkEnd::Fault { code, .. } | LinkEnd::Local(code) => code,
            LinkEnd::NoAnswer => "no_answer",
        }
    }
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkEnd::NoAnswer => formatter.write_str(
                "closed before it answered: other network key, other realm, other profile, a clock off by more than \
                 30 s, or it has started within the last second",
            ),
            LinkEnd::Connect(reason) => write!(formatter, "could not connect: {}", carrier(reason)),
            LinkEnd::Carrier(reason) => write!(formatter, "the connection broke: {}", carrier(reason)),
            LinkEnd::Closed { code, text } if text.is_empty() => {
                write!(formatter, "the peer closed: {}", close_code(code))
            }
            LinkEnd::Closed { code, text } => {
                write!(formatter, "the peer closed: {} ({})", close_code(code), text.escape_debug())
            }
            LinkEnd::Fault { code: "knock" | "knock_memory_full", detail } => {
                write!(formatter, "the knock was refused: {detail}")
            }
            LinkEnd::Fault { code: "answer", detail } => {
                write!(formatter, "who answered has not shown our network key: {detail}")
            }
            LinkEnd::Fault { code, detail } if detail.is_empty() => {
                write!(formatter, "closed by us: {}", close_code(code))
            }
            LinkEnd::Fault { code, detail } => write!(formatter, "closed by us: {} ({detail})", close_code(code)),
            LinkEnd::Local("crashed") => formatter.write_str("closed by us: the link's task crashed"),
            LinkEnd::Local(code) => write!(formatter, "closed by us: {}", close_code(code)),
            LinkEnd::Keyholder(reason) => write!(formatter, "the keyholder did not sign: {reason}"),
        }
    }
}

fn first_word(reason: &str) -> &str {
    reason.split_once(' ').map_or(reason, |(word, _)| word)
}

/// `protocol.md` 16.
fn close_code(code: &str) -> &str {
    match code {
        "normal" => "closed",
        "protocol" => "the protocol was broken",
        "version" => "no common protocol version",
        "unlisted" => "the key is not on the allow-list",
        "wrong_realm" => "another realm was meant",
        "bad_signature" => "a signature of the hello fails: another network key, or an impostor",
        "expired" => "the link key's certificate has expired (are the clocks right?)",
        "duplicate" => "there is a link already",
        "timeout" => "it took too long",
        "abuse" => "too many messages failed verification",
        "unknown_frame" => "an unknown frame came",
        "too_large" => "a frame was over its limit",
        "shutdown" => "the realm stops",
        "overload" => "a bound on connections or memory is reached",
        "replaced" => "a newer link took its place",
        "revoked" => "the realm's key was revoked",
        "stale_key" => "the identity key was replaced by another one",
        "unproven" => "messages that were delivered on trust were not proven",
        "channel" => "the channel broke",
        other => other,
    }
}

fn carrier(reason: &str) -> String {
    let words = match first_word(reason) {
        "closed" => "the connection was closed",
        "timeout" => "there was no answer in time",
        "econnrefused" => "nobody listens there",
        "econnreset" => "the connection was reset",
        "enoent" => "there is no such socket",
        "nxdomain" => "the host's name is unknown",
        "ehostunreach" => "the host can't be reached",
        "enetunreach" => "the network can't be reached",
        "etimedout" => "the host did not answer",
        "eaddrinuse" => "the address is in use",
        "eaddrnotavail" => "this machine has no such address",
        "eacces" => "permission denied",
        "emfile" => "too many files are open",
        "evicted" => "its place was needed before it had said who it is",
        "no_peer_credentials" => "the system does not tell which user is at the other end",
        "no_randomness" => "the system has no randomness",
        "uid_not_allowed" => return reason.replace("uid_not_allowed", "user") + " may not be at the other end",
        _ => reason,
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_the_words_of_the_elixir_side() {
        let said = |end: LinkEnd, words: &str| assert_eq!(end.to_string(), words);
        said(LinkEnd::Connect("econnrefused".into()), "could not connect: nobody listens there");
        said(LinkEnd::Connect("uid_not_allowed 7".into()), "could not connect: user 7 may not be at the other end");
        said(LinkEnd::Carrier("closed".into()), "the connection broke: the connection was closed");
        said(LinkEnd::Carrier("esomething".into()), "the connection broke: esomething");
        said(LinkEnd::Local("replaced"), "closed by us: a newer link took its place");
        let closed = |text: &str| LinkEnd::Closed { code: "unlisted", text: text.into() };
        said(closed(""), "the peer closed: the key is not on the allow-list");
        said(closed("a\u{1b}b"), "the peer closed: the key is not on the allow-list (a\\u{1b}b)");
        let fault = |code| LinkEnd::Fault { code, detail: "the knock came before".into() };
        said(fault("knock"), "the knock was refused: the knock came before");
        said(fault("answer"), "who answered has not shown our network key: the knock came before");
        said(LinkEnd::Keyholder("timeout".into()), "the keyholder did not sign: timeout");
    }

    #[test]
    fn the_code_of_an_end_is_one_word() {
        assert_eq!(LinkEnd::Connect("uid_not_allowed 7".into()).code(), "uid_not_allowed");
        assert_eq!(LinkEnd::Local("normal").code(), "normal");
        assert_eq!(LinkEnd::NoAnswer.code(), "no_answer");
    }
}
