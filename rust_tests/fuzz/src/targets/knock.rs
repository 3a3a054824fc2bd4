//! Knocks: as they come, or with a MAC by our own hand (`protocol.md` 4.2) around fields that are anything.

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use legation_channel::knock::{KnockMemory, KnockRefused, KnockResponder, KnockSettings, KnockVerdict};
use legation_proto::identity::RealmId;
use rust_tests::entry::{self, KnockFields};
use rust_tests::realm::{network, Realm, START};

use super::{pieces, script, scripts, Edit};
use crate::Target;

pub const TARGET: Target = Target { name: "knock", what: "the knock", run, seeds, bytes_max: 4_400 };

#[derive(Arbitrary, Debug)]
struct Knock {
    /// Without: as it comes.
    fields: Option<Fields>,
    edits: Vec<Edit>,
    now: i32,
    /// How it is cut.
    piece: u8,
    flight: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Fields {
    version: u8,
    profile: u8,
    /// From the responder's clock.
    time: i32,
    random: [u8; 16],
    for_bob: bool,
    our_network: bool,
    /// As a first flight has it.
    formed: bool,
    length: Option<u16>,
}

fn run(input: &[u8]) {
    let Some(knock) = script::<Knock>(input) else { return };
    let (bytes, good) = written(&knock);
    let now = START.saturating_add_signed(knock.now.into());

    let mut memory = KnockMemory::new(KnockSettings::default(), START - 60_000);
    let mut whole = responder();
    let verdict = whole.handle_bytes(&bytes, &mut memory, now);

    // However it is cut, it is the same.
    let mut other_memory = KnockMemory::new(KnockSettings::default(), START - 60_000);
    let mut cut = responder();
    let mut given = 0;
    let mut last = KnockVerdict::NeedMore;
    for piece in pieces(&bytes, knock.piece) {
        last = cut.handle_bytes(piece, &mut other_memory, now);
        if last != KnockVerdict::NeedMore {
            if let KnockVerdict::Accepted(accepted) = &mut last {
                accepted.consumed += given;
            }
            break;
        }
        given += piece.len();
    }
    assert!(knock.piece == 0 || verdict == last || bytes.is_empty(), "{verdict:?} in one, {last:?} cut");

    let KnockVerdict::Accepted(accepted) = verdict else {
        assert_eq!(memory.len(), 0, "what was refused is not remembered");
        return;
    };
    assert!(good, "nobody with the network key has made it for bob");
    assert_eq!(accepted.realm_index, 0);
    assert_eq!(memory.len(), 1);
    assert_eq!(accepted.consumed, 60 + accepted.first_flight.len());
    assert_eq!(bytes[60..accepted.consumed], accepted.first_flight, "the first flight");
    let again = responder().handle_bytes(&bytes, &mut memory, now);
    assert_eq!(again, KnockVerdict::Refused(KnockRefused::Replayed), "it is good once");
    assert_eq!(whole.handle_bytes(&bytes, &mut memory, now), KnockVerdict::Refused(KnockRefused::Malformed));
}

/// Bob's, and alice's.
fn ids() -> [RealmId; 2] {
    static IDS: LazyLock<[RealmId; 2]> = LazyLock::new(|| [Realm::bob().id(), Realm::alice().id()]);
    *IDS
}

fn responder() -> KnockResponder {
    KnockResponder::new(network(), [ids()[0]])
}

/// The bytes, and whether they are a knock that may be accepted.
fn written(knock: &Knock) -> (Vec<u8>, bool) {
    let Some(fields) = &knock.fields else {
        let mut bytes = knock.flight.clone();
        Edit::all(&knock.edits, &mut bytes);
        return (bytes, false);
    };
    let mut flight = knock.flight.clone();
    if fields.formed {
        let length = flight.len() as u16;
        match fields.profile {
            1 => {
                let mut record = vec![0x16, 3, 1];
                record.extend((length + 4).to_be_bytes());
                record.extend([1, 0]);
                record.extend(length.to_be_bytes());
                flight.splice(0..0, record);
            }
            _ => flight.resize(legation_channel::plain::FIRST_MESSAGE_BYTES, 7),
        }
    }
    let key = if fields.our_network { network().expose() } else { [7; 32] };
    let responder = ids()[usize::from(!fields.for_bob)];
    let said = KnockFields {
        version: fields.version,
        profile: fields.profile,
        time: START.saturating_add_signed(fields.time.into()),
        random: fields.random,
        length: fields.length.unwrap_or(flight.len() as u16),
    };
    let mut bytes = entry::knock(&key, responder, &said, &flight);
    let before = bytes.clone();
    Edit::all(&knock.edits, &mut bytes);
    // What comes behind it is the channel's.
    let same = bytes.starts_with(&before);
    (bytes, same && fields.for_bob && fields.our_network && fields.version == 1)
}

fn seeds() -> Vec<Vec<u8>> {
    scripts("legation fuzz knock", 24, 400)
}
