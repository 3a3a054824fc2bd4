//! Channels under bytes that are not those that were sent: TLS, `plain` and `local`, before, within and after the handshake.
//!
//! What comes out is what went in, or the beginning of it: nothing else, whatever happens on the way. (`local` believes its carrier.)
//!
//! TLS draws randomness that can't be given to it, so the same input may go another way the next time.

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use legation_channel::channel::{Channel, Profile};
use legation_channel::local::LocalChannel;
use legation_channel::plain::PlainChannel;
use legation_channel::tls::{LinkKey, TlsChannel, TlsContext};

use super::{pieces, script, scripts, Edit};
use crate::Target;

pub const TARGET: Target = Target {
    name: "channel",
    what: "TLS records, plain and local: arbitrary and changed bytes",
    run,
    seeds,
    bytes_max: 4_096,
};

#[derive(Arbitrary, Debug)]
struct Script {
    profile: u8,
    /// Before anything else: as it is, or in a record.
    first: Vec<(bool, u8, Vec<u8>)>,
    /// Of the flights of the handshake, in order.
    flights: [Vec<Edit>; 6],
    sealed: [Vec<Vec<u8>>; 2],
    /// Of all that is sealed.
    edits: [Vec<Edit>; 2],
    piece: u8,
    close: bool,
}

struct End {
    channel: Box<dyn Channel>,
    plaintext: Vec<u8>,
    sealed: Vec<u8>,
    failed: bool,
}

impl End {
    fn new(channel: Box<dyn Channel>) -> End {
        End { channel, plaintext: Vec::new(), sealed: Vec::new(), failed: false }
    }

    fn take(&mut self, bytes: &[u8], piece: u8) {
        for piece in pieces(bytes, piece) {
            let result = self.channel.handle_bytes(piece, &mut self.plaintext);
            assert!(!self.failed || result.is_err(), "an error is for ever");
            if let Err(error) = result {
                self.failed = true;
                let length = self.plaintext.len();
                assert_eq!(self.channel.handle_bytes(&[], &mut self.plaintext), Err(error), "the same again");
                assert_eq!(self.plaintext.len(), length);
            }
        }
    }

    fn waiting(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.channel.poll_transmit(&mut out);
        assert!(out.len() < 64 * 1024, "an answer without bounds");
        out
    }
}

fn contexts() -> [Arc<TlsContext>; 2] {
    static CONTEXTS: LazyLock<[Arc<TlsContext>; 2]> =
        LazyLock::new(|| [1, 2].map(|seed| TlsContext::new(&LinkKey::generate([seed; 32]))));
    CONTEXTS.clone()
}

fn ends(profile: Profile) -> [End; 2] {
    let [one, other] = contexts();
    let (initiator, responder): (Box<dyn Channel>, Box<dyn Channel>) = match profile {
        Profile::Tls => {
            (Box::new(TlsChannel::initiator(one).unwrap()), Box::new(TlsChannel::responder(other).unwrap()))
        }
        Profile::Plain => {
            (Box::new(PlainChannel::initiator([1; 32], [3; 32])), Box::new(PlainChannel::responder([2; 32], [4; 32])))
        }
        Profile::Local => (Box::new(LocalChannel::initiator([1; 32])), Box::new(LocalChannel::responder([2; 32]))),
    };
    [End::new(initiator), End::new(responder)]
}

fn run(input: &[u8]) {
    let Some(script) = script::<Script>(input) else { return };
    let profile = match script.profile % 4 {
        0 | 1 => Profile::Tls,
        2 => Profile::Plain,
        _ => Profile::Local,
    };
    let mut ends = ends(profile);
    let mut honest = true;
    for (record, kind, bytes) in &script.first {
        let mut first = Vec::new();
        if *record {
            // Past the first look of TLS.
            first.extend([20 + kind % 4, 3, 3, (bytes.len() >> 8) as u8, bytes.len() as u8]);
        }
        first.extend(bytes);
        honest &= first.is_empty();
        // Whose turn it is: the responder waits for a first flight, the initiator for an answer.
        ends[usize::from(kind & 4 == 0)].take(&first, script.piece);
    }
    let mut edits = script.flights.iter();
    for _ in 0..4 {
        for from in [0, 1] {
            let mut flight = ends[from].waiting();
            if flight.is_empty() {
                continue;
            }
            let before = flight.clone();
            Edit::all(edits.next().map_or(&[][..], |edits| edits), &mut flight);
            honest &= flight == before;
            ends[1 - from].take(&flight, script.piece);
        }
    }
    let bindings = ends.each_ref().map(|end| end.channel.established().map(|established| established.binding));
    assert!(!honest || bindings.iter().all(Option::is_some), "nothing was changed, and the channel doesn't stand");
    if let ([Some(one), Some(other)], true) = (bindings, honest) {
        assert_eq!(one, other, "one channel, one binding");
    }
    for from in [0, 1] {
        let end = &mut ends[from];
        let mut carrier = Vec::new();
        for plaintext in &script.sealed[from] {
            let sealed = end.channel.seal(plaintext, &mut carrier).is_ok();
            let stands = end.channel.established().is_some() && !end.failed;
            assert_eq!(sealed, stands, "sealed when the channel stands, and only then");
            if sealed {
                end.sealed.extend(plaintext);
            }
        }
        if script.close {
            end.channel.close(&mut carrier);
            assert!(end.channel.seal(b"x", &mut Vec::new()).is_err(), "nothing after the end");
        }
        let before = carrier.clone();
        Edit::all(&script.edits[from], &mut carrier);
        honest &= carrier == before;
        ends[1 - from].take(&carrier, script.piece);
    }
    if profile == Profile::Local {
        return;
    }
    for from in [0, 1] {
        let (sent, came) = (&ends[from].sealed, &ends[1 - from].plaintext);
        assert!(sent.starts_with(came), "what comes out went in");
        assert!(!honest || script.close || sent == came, "all of it");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = scripts("legation fuzz channel", 24, 900);
    // Nothing is changed: the whole way through.
    seeds.extend([0u8, 2, 3].map(|profile| vec![profile]));
    seeds
}
