//! The answer (`protocol.md` 4.6 to 4.9), from both sides: what may come to a whole link that dials, from a listener of ours, from a peer with the
//! right key or another, or put together by hand; and what a whole link that is dialled says to first flights that are anything.
//!
//! What must hold, whatever comes:
//! * nothing panics, and how it is cut makes no difference;
//! * who dials says not one byte behind its opening, unless somebody with the network key has answered this opening; then it goes on;
//! * of an answer no more is kept than its largest;
//! * who is dialled says nothing before the opening is good, and then first of all an answer to it.
//!
//! TLS draws randomness that can't be given to it, so the same input may go another way the next time.

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use legation_channel::answer::{AnswerInitiator, AnswerRefused, AnswerVerdict};
use legation_channel::channel::Profile;
use legation_channel::first_flight::FIRST_FLIGHT_BYTES_MAX;
use legation_channel::link::{Link, LinkConfig, LinkFault};
use legation_proto::error::{HelloRefused, LinkError};
use legation_proto::identity::NetworkKey;
use legation_proto::limits::Limits;
use rust_tests::entry::{self, KnockFields};
use rust_tests::pair::{fresh_memory, Side};
use rust_tests::raw_peer::{RawPeer, RawPeerConfig};
use rust_tests::realm::{fixed_random, network, Realm, START};

use super::{pieces, script, scripts, variant, Edit, Few};
use crate::Target;

pub const TARGET: Target =
    Target { name: "answer", what: "what answers a dial, and how a dial is answered", run, seeds, bytes_max: 4_800 };

/// Of which 34 are its header.
const ANSWER_BYTES_MAX: usize = 34 + FIRST_FLIGHT_BYTES_MAX;

#[derive(Arbitrary, Debug)]
struct Script {
    /// Profile, and whether there is a knock.
    way: u8,
    play: Play,
}

#[derive(Arbitrary, Debug)]
enum Play {
    Dial(Dial),
    Listen(Listen),
}

/// What comes to who dials.
#[derive(Arbitrary, Debug)]
struct Dial {
    answer: Answer,
    edits: Few<Edit, 4>,
    behind: Vec<u8>,
    piece: u8,
}

#[derive(Arbitrary, Debug)]
enum Answer {
    /// Of a whole link that listens.
    Listener,
    /// Of a peer that answers whatever there is.
    Raw(Which),
    ByHand {
        which: Which,
        another_profile: bool,
        /// As it is written, and in what is keyed.
        length: Option<u16>,
        flight: Flight,
    },
    Anything(Vec<u8>),
}

/// The key and the opening that it is made with.
#[derive(Arbitrary, Debug)]
struct Which {
    key: u8,
    opening: u8,
}

#[derive(Arbitrary, Debug)]
enum Flight {
    /// What the channel says to this opening.
    Real,
    Bytes(Vec<u8>),
    Filled {
        length: u16,
        byte: u8,
    },
}

/// What comes to who is dialled.
#[derive(Arbitrary, Debug)]
struct Listen {
    /// Of the first flight, before anybody knocks with it.
    edits: Few<Edit, 4>,
    knock: Knock,
    /// Of all of it.
    changes: Few<Edit, 2>,
    behind: Vec<u8>,
    piece: u8,
}

/// Zeros: as it should be.
#[derive(Arbitrary, Debug)]
struct Knock {
    version: u8,
    profile: u8,
    time: i16,
    random: [u8; 16],
    for_another: bool,
    another_key: bool,
}

fn run(input: &[u8]) {
    let Some(script) = script::<Script>(input) else { return };
    let way = Way::of(script.way);
    match &script.play {
        Play::Dial(dial) => dialling(way, dial),
        Play::Listen(listen) => listening(way, listen),
    }
}

/// What a link can be dialled with.
#[derive(Clone, Copy, Debug)]
struct Way {
    profile: Profile,
    knock: bool,
}

impl Way {
    fn of(number: u8) -> Way {
        let (profile, knock) = [
            (Profile::Plain, false),
            (Profile::Plain, true),
            (Profile::Local, false),
            (Profile::Tls, true),
            (Profile::Tls, false),
        ][usize::from(number % 5)];
        Way { profile, knock }
    }

    /// Its openings and what it says to the same bytes are the same each time.
    fn is_fixed(self) -> bool {
        self.profile != Profile::Tls
    }

    fn config(self, realm: &Realm, random: u32, end: u8) -> LinkConfig {
        LinkConfig {
            profile: self.profile,
            keyring: realm.keyring.clone(),
            network: network(),
            tls: realm.tls.clone(),
            limits: Limits::default(),
            random: fixed_random(random, end),
            now: START,
        }
    }

    /// Alice, who dials bob. `run` tells one opening from another.
    fn dials(self, run: u32) -> Side {
        let [alice, bob] = &*REALMS;
        let link = Link::connect(self.config(alice, run, 0), &bob.key(), self.knock, None).expect("randomness for TLS");
        let mut side = Side::new(link, alice.clone(), network());
        side.tick(START);
        side
    }

    /// Bob, who is dialled.
    fn listens(self) -> Side {
        let [_, bob] = &*REALMS;
        let memory = self.knock.then(|| fresh_memory(START));
        let link = Link::accept_from(self.config(bob, 1, 1), memory).expect("randomness for TLS");
        let mut side = Side::new(link, bob.clone(), network());
        side.tick(START);
        side
    }

    /// Bob, in whose place is somebody with this key.
    fn answers(self, key: NetworkKey) -> RawPeer {
        RawPeer::new(RawPeerConfig { network: key, knock: self.knock, ..RawPeerConfig::dialled(self.profile) })
    }

    /// A first flight, without a knock.
    fn first_flight(self) -> Vec<u8> {
        RawPeer::new(RawPeerConfig { knock: false, ..RawPeerConfig::dialling(self.profile) }).take_out()
    }
}

/// Alice, and bob.
static REALMS: LazyLock<[Realm; 2]> = LazyLock::new(|| [Realm::alice(), Realm::bob()]);

fn key(number: u8) -> NetworkKey {
    match number % 8 {
        6 => NetworkKey::new([10; 32]),
        7 => NetworkKey::none(),
        _ => network(),
    }
}

/// Who goes on behind an answer.
enum Far {
    Link(Box<Side>),
    Raw(Box<RawPeer>),
    Nobody,
}

impl Far {
    fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Far::Link(side) => {
                side.handle(START, bytes);
                side.flush()
            }
            Far::Raw(peer) => {
                peer.receive(bytes);
                peer.take_out()
            }
            Far::Nobody => Vec::new(),
        }
    }

    fn is_up(&self) -> bool {
        match self {
            Far::Link(side) => side.is_up(),
            Far::Raw(peer) => peer.agreed.is_some(),
            Far::Nobody => false,
        }
    }
}

fn dialling(way: Way, dial: &Dial) {
    let mut alice = way.dials(1);
    let opening = alice.flush();
    let Made { mut bytes, right, mut far } = made(way, &opening, &dial.answer);
    Edit::all(&dial.edits.0, &mut bytes);
    bytes.extend(&dial.behind);
    let unchanged = dial.edits.0.is_empty() && dial.behind.is_empty();

    // Whether somebody with the network key says it to this opening: by the bytes alone.
    let length = |bytes: &[u8]| Some(usize::from(u16::from_le_bytes([*bytes.get(32)?, *bytes.get(33)?])));
    let flight = length(&bytes).filter(|length| (1..=FIRST_FLIGHT_BYTES_MAX).contains(length));
    let flight = flight.and_then(|length| bytes.get(34..34 + length));
    let good = flight.is_some_and(|flight| {
        let answer = entry::answer(&network(), way.profile, &opening, flight);
        bytes.starts_with(&answer)
    });
    assert!(!good || right, "nobody with the network key has answered this opening");
    assert!(good || !right || !unchanged, "it was made rightly");

    let verdict = judged(way, &opening, &bytes, 0);
    assert_eq!(verdict, judged(way, &opening, &bytes, dial.piece), "in one, and cut");
    assert_eq!(matches!(verdict, Verdict::Accepted { .. }), good, "{verdict:?}");
    if let Verdict::Accepted { first_flight, consumed } = &verdict {
        assert_eq!(Some(&first_flight[..]), flight, "the flight");
        assert_eq!(*consumed, 34 + first_flight.len());
    }

    for piece in pieces(&bytes, dial.piece) {
        alice.handle(START, piece);
        let said = alice.flush();
        let back = far.exchange(&said);
        if unchanged && good {
            alice.handle(START, &back);
        }
    }
    if way.is_fixed() {
        let mut in_one = way.dials(1);
        assert_eq!(in_one.flush(), opening);
        in_one.handle(START, &bytes);
        assert_eq!(alice.fault, in_one.fault, "cut, and in one");
    }
    if good {
        assert!(!matches!(alice.fault, Some(LinkFault::Answer(_))), "it was good");
        if unchanged && !matches!(far, Far::Nobody) {
            loop {
                let said = alice.flush();
                if said.is_empty() {
                    break;
                }
                let back = far.exchange(&said);
                alice.handle(START, &back);
            }
            assert!(alice.is_up() && far.is_up(), "a good answer leads on: {:?}", alice.fault);
        } else if alice.fault.is_none() {
            // What an answer lacks of the flight may come behind it.
            let all = match way.profile {
                Profile::Local => bytes.len() >= 34 + 32,
                Profile::Plain => bytes.len() >= 34 + 64,
                Profile::Tls => false,
            };
            assert!(alice.sent.len() > opening.len() || !all, "it is told who dials");
        }
        return;
    }
    let fault = match &verdict {
        Verdict::Refused(refused) => Some(LinkFault::Answer(*refused)),
        _ => None,
    };
    assert_eq!(alice.fault, fault);
    let timed_out = LinkFault::Protocol(LinkError::Refused(HelloRefused::TimedOut));
    alice.tick(START + 4_999);
    assert_eq!(alice.fault, fault);
    alice.tick(START + 5_000);
    assert_eq!(alice.fault, fault.or(Some(timed_out)), "and it ends");
    alice.flush();
    assert!(alice.sent == opening, "{} bytes behind the opening", alice.sent.len() - opening.len());
    assert!(!waits(&alice) && alice.link.session().is_none());
}

/// Something would be sent, whether the writer was woken or not.
fn waits(side: &Side) -> bool {
    let mut out = Vec::new();
    side.link.flush(&mut out).expect("the channel can seal");
    !out.is_empty()
}

/// An answer, as far as it is known.
struct Made {
    bytes: Vec<u8>,
    /// It is one with the network key to this very opening, as long as nobody changes it.
    right: bool,
    far: Far,
}

fn made(way: Way, opening: &[u8], answer: &Answer) -> Made {
    let another = |which: &Which| match which.opening % 16 {
        13 => Some(way.dials(2).flush()),
        14 => Some(opening[1..].to_vec()),
        15 => Some([opening, opening].concat()),
        _ => None,
    };
    match answer {
        Answer::Listener => {
            let mut far = Far::Link(Box::new(way.listens()));
            Made { bytes: far.exchange(opening), right: true, far }
        }
        Answer::Raw(which) => {
            let key = key(which.key);
            let right = key.expose() == network().expose();
            let mut far = Far::Raw(Box::new(way.answers(key)));
            match another(which) {
                None => Made { bytes: far.exchange(opening), right, far },
                // It reads no further than to the end of the first.
                Some(other) => {
                    let right = right && other.starts_with(opening);
                    Made { bytes: far.exchange(&other), right, far: Far::Nobody }
                }
            }
        }
        Answer::ByHand { which, another_profile, length, flight } => {
            let key = key(which.key);
            let mut far = Far::Nobody;
            let flight = match flight {
                Flight::Real => {
                    far = Far::Raw(Box::new(way.answers(key.clone())));
                    far.exchange(opening).split_off(34)
                }
                Flight::Bytes(bytes) => bytes.clone(),
                Flight::Filled { length, byte } => vec![*byte; usize::from(*length) % 5_000],
            };
            let profile = match (another_profile, way.profile) {
                (false, profile) => profile,
                (true, Profile::Tls) => Profile::Plain,
                (true, _) => Profile::Tls,
            };
            let other = another(which);
            let keyed = other.as_deref().unwrap_or(opening);
            let mut bytes = entry::answer(&key, profile, keyed, &flight);
            if let Some(length) = length {
                bytes[32..34].copy_from_slice(&length.to_le_bytes());
            }
            let length = length.map_or(flight.len(), usize::from);
            let right = key.expose() == network().expose()
                && !another_profile
                && other.is_none()
                && length == flight.len()
                && (1..=FIRST_FLIGHT_BYTES_MAX).contains(&length);
            Made { bytes, right, far }
        }
        Answer::Anything(bytes) => Made { bytes: bytes.clone(), right: false, far: Far::Nobody },
    }
}

/// A verdict over all that came.
#[derive(Debug, PartialEq)]
enum Verdict {
    NeedMore,
    Accepted { first_flight: Vec<u8>, consumed: usize },
    Refused(AnswerRefused),
}

fn judged(way: Way, opening: &[u8], bytes: &[u8], piece: u8) -> Verdict {
    let mut reader = AnswerInitiator::new(network(), way.profile, opening);
    let mut given = 0;
    for piece in pieces(bytes, piece) {
        let verdict = reader.handle_bytes(piece);
        if verdict != AnswerVerdict::NeedMore {
            assert_eq!(reader.buffered_bytes(), 0, "nothing is kept of what has been judged");
            assert!(matches!(reader.handle_bytes(bytes), AnswerVerdict::Refused(_)), "one verdict");
        }
        match verdict {
            AnswerVerdict::NeedMore => given += piece.len(),
            AnswerVerdict::Refused(refused) => return Verdict::Refused(refused),
            AnswerVerdict::Accepted { first_flight, consumed } => {
                return Verdict::Accepted { first_flight, consumed: given + consumed };
            }
        }
        assert!(given < ANSWER_BYTES_MAX, "so many bytes are all of it");
        assert_eq!(reader.buffered_bytes(), given, "all that came, and it is kept once");
    }
    Verdict::NeedMore
}

fn listening(way: Way, listen: &Listen) {
    let mut flight = way.first_flight();
    Edit::all(&listen.edits.0, &mut flight);
    flight.truncate(usize::from(u16::MAX));
    let Knock { version, profile, time, random, for_another, another_key } = listen.knock;
    let mut opening = flight.clone();
    let mut right = true;
    if way.knock {
        let fields = KnockFields {
            version: 1u8.wrapping_add(version),
            profile: (way.profile as u8).wrapping_add(profile),
            time: START.saturating_add_signed(time.into()),
            random,
            length: flight.len() as u16,
        };
        let key = if another_key { [7; 32] } else { network().expose() };
        let [alice, bob] = REALMS.each_ref().map(Realm::id);
        opening = entry::knock(&key, if for_another { alice } else { bob }, &fields, &flight);
        // Of times there may be some that are too far away; `knock` knows which.
        right = (version, profile, for_another, another_key) == (0, 0, false, false);
    }
    let mut bytes = opening.clone();
    Edit::all(&listen.changes.0, &mut bytes);
    bytes.extend(&listen.behind);
    // Where nobody knocks any first flight will do, and it ends where its profile says.
    let right = right && (!way.knock || bytes.starts_with(&opening));
    let unchanged = listen.edits.0.is_empty() && listen.changes.0.is_empty() && listen.behind.is_empty();

    let mut bob = way.listens();
    for piece in pieces(&bytes, listen.piece) {
        bob.handle(START, piece);
        bob.flush();
    }
    let late = bob.sent.len();
    bob.tick(START + 5_000);
    bob.flush();
    assert!(bob.sent.len() == late || late > 0, "silence is not broken in the end");
    assert!(!waits(&bob) && bob.fault.is_some());
    if bob.sent.is_empty() {
        assert!(!unchanged || !right || listen.knock.time != 0, "it should be answered: {:?}", bob.fault);
        return;
    }
    assert!(right, "an answer to who has not knocked");
    let ends = match (way.knock, way.profile) {
        (true, _) => opening.len(),
        (false, Profile::Plain) => 64,
        (false, Profile::Local) => 32,
        (false, Profile::Tls) => 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]])),
    };
    let said = &bob.sent;
    let length = usize::from(u16::from_le_bytes([said[32], said[33]]));
    assert_eq!(
        said[..34 + length],
        entry::answer(&network(), way.profile, &bytes[..ends], &said[34..34 + length]),
        "the answer to this opening"
    );
    let verdict = AnswerInitiator::new(network(), way.profile, &bytes[..ends]).handle_bytes(said);
    assert!(matches!(verdict, AnswerVerdict::Accepted { .. }), "{verdict:?}");
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = scripts("legation fuzz answer", 40, 300);
    // Each way as it should be: a listener's answer, a raw peer's, one by hand; and an opening that is answered.
    for way in 0..5 {
        for answer in 0..3 {
            for piece in [0, 1, 33] {
                let mut seed = [&[way][..], &variant(0, 2), &variant(answer, 4)].concat();
                seed.extend(match answer {
                    0 => &[][..],
                    1 => &[0, 0],
                    // Which, this profile, no length of its own, `Flight::Real`.
                    _ => &[0, 0, 0, 0, 0, 0, 0, 0],
                });
                // No edits, nothing behind.
                seed.extend([0, 0, piece]);
                seeds.push(seed);
            }
        }
        seeds.push([&[way][..], &variant(1, 2)].concat());
    }
    seeds
}
