//! Hellos on a good channel, from someone who holds good keys: fields that are anything, signed; or bytes that are changed, signed again or
//! not. Against who dials and who is dialled.
//!
//! An oracle of a few lines knows which hello may be accepted: it says who sends it and who it is for, on this very channel, and is signed by
//! its realm.

use arbitrary::Arbitrary;
use ed25519_dalek::{Signature, VerifyingKey};
use legation_channel::channel::Profile;
use legation_proto::certificate::LinkCertificate;
use legation_proto::frame::hello::{Hello, Offer};
use legation_proto::identity::{Purpose, RealmId};
use legation_proto::limits::Limits;
use legation_proto::rotation::{Revocation, Rotation};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::realm::{network, Realm};

use super::{script, scripts, Edit, Few};
use crate::Target;

pub const TARGET: Target =
    Target { name: "hello", what: "the hello of who holds good keys, both roles", run, seeds, bytes_max: 2_048 };

#[derive(Arbitrary, Debug)]
struct Script {
    plain: bool,
    dialled: bool,
    twists: Few<Twist, 4>,
    edits: Vec<Edit>,
    /// What the edits leave is signed again.
    sign: bool,
    /// On the carrier's side of it: frames before the hello.
    before: Vec<(u8, u8, Vec<u8>)>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Twist {
    Role(u8),
    Profile(u8),
    Versions(u16, u16),
    Features(u64),
    Own(u8),
    Peer(u8),
    IdentityKey(u8, [u8; 32]),
    Binding(u8, u8),
    Random([u8; 32]),
    Bounds(u32, u32),
    Chain(Vec<Link>),
    LinkKey(bool, u64, [u8; 32]),
    Resume(bool, [u8; 32]),
    Revocation(bool, u64),
    Credit(u32),
}

/// A rotation.
#[derive(Arbitrary, Clone, Debug)]
struct Link {
    old: u8,
    new: u8,
    serial: u8,
    not_before: i32,
    signed: bool,
}

fn who(number: u8) -> Realm {
    Realm::number(1 + number % 3)
}

fn twisted(twist: &Twist, hello: &mut Hello, now: u64) {
    match twist {
        Twist::Role(role) => hello.role = *role,
        Twist::Profile(profile) => hello.profile = *profile,
        Twist::Versions(min, max) => (hello.version_min, hello.version_max) = (*min, *max),
        Twist::Features(features) => hello.features = *features,
        Twist::Own(number) => hello.own = who(*number).id(),
        Twist::Peer(number) => hello.peer = who(*number).id(),
        Twist::IdentityKey(number, any) => hello.identity_key = if *number == 0 { *any } else { who(*number).key() },
        Twist::Binding(at, value) => hello.binding[usize::from(at % 32)] ^= value,
        Twist::Random(random) => hello.random = *random,
        Twist::Bounds(message, engines) => (hello.message_bytes_max, hello.engines_max) = (*message, *engines),
        Twist::Chain(links) => {
            let rotation = |link: &Link| {
                let mut rotation = Rotation {
                    realm: hello.own,
                    old: who(link.old).key(),
                    new: who(link.new).key(),
                    serial: link.serial.into(),
                    not_before: now.saturating_add_signed(link.not_before.into()),
                    signature: [7; 64],
                };
                if link.signed {
                    let old = who(link.old).keyring;
                    rotation.signature = old.sign(Purpose::Rotate, &network().id(), &rotation.body()).unwrap();
                }
                rotation
            };
            hello.chain = links.iter().take(20).map(rotation).collect();
        }
        Twist::LinkKey(none, not_after, key) => {
            hello.link = (!none).then_some(LinkCertificate { key: *key, not_after: *not_after, signature: [9; 64] });
        }
        Twist::Resume(additional, session) => {
            hello.resume = Some(Offer { session: *session, additional: *additional });
        }
        Twist::Revocation(signed, serial) => {
            let mut revocation =
                Revocation { realm: hello.own, key: hello.identity_key, serial: *serial, signature: [7; 64] };
            if *signed {
                let keyring = who(0).keyring;
                revocation.signature = keyring.sign(Purpose::Revoke, &network().id(), &revocation.body()).unwrap();
            }
            hello.revocation = Some(revocation);
        }
        Twist::Credit(bytes) => hello.credit_bytes = std::num::NonZeroU32::new(*bytes),
    }
}

fn run(input: &[u8]) {
    // As bytes alone, too: what is read is written again (`frames`).
    let Some(script) = script::<Script>(input) else { return };
    let profile = if script.plain { Profile::Plain } else { Profile::Local };
    let config = match script.dialled {
        true => RawPeerConfig::dialled(profile),
        false => RawPeerConfig::dialling(profile),
    };
    let (now, ours) = (config.now, config.realm.clone());
    let mut versus = match script.dialled {
        true => Versus::dialled(config, Limits::default()),
        false => Versus::dialling(config, Limits::default()),
    };
    let twists = script.twists.0.clone();
    if !twists.is_empty() {
        versus.peer.hello_twist =
            Some(Box::new(move |hello| twists.iter().for_each(|twist| twisted(twist, hello, now))));
    }
    let (edits, sign, keyring) = (script.edits.clone(), script.sign, ours.keyring.clone());
    versus.peer.body_twist = Some(Box::new(move |bytes| {
        if edits.is_empty() {
            return;
        }
        if sign && bytes.len() > 64 {
            bytes.truncate(bytes.len() - 64);
            Edit::all(&edits, bytes);
            bytes.truncate(8_000);
            let signature = keyring.sign(Purpose::Hello, &network().id(), bytes).expect("the identity is here");
            bytes.extend_from_slice(&signature);
        } else {
            Edit::all(&edits, bytes);
            bytes.truncate(8_000);
        }
    }));
    if profile == Profile::Local && !script.dialled {
        for (kind, flags, body) in script.before.iter().take(4) {
            // Local stands from the start as far as the writer goes; otherwise there is nothing to write on.
            if versus.peer.binding().is_some() {
                versus.peer.write(&rust_tests::raw_batch::frame(*kind, *flags, body.len() as u32, body));
            }
        }
    }
    versus.settle();

    let up = versus.side.is_up();
    assert!(!up || versus.side.fault.is_none() || versus.side.is_over());
    if let Some(code) = versus.side.fault_code() {
        assert_eq!(versus.peer.told_code(), Some(code), "who is refused hears why");
    }
    let honest = script.twists.0.is_empty() && script.edits.is_empty() && script.before.is_empty();
    assert!(!honest || up, "nothing is wrong with it: {:?}", versus.side.fault);
    if up {
        let body = versus.peer.hello_sent.clone();
        accepted_rightly(&body, &versus, &ours, script.dialled);
        let session = versus.side.session();
        let agreed = session.agreed();
        assert!(agreed.peer == ours.id() && agreed.own == versus.side.realm.id(), "who it is");
    }
}

/// What every hello has that is accepted, by `protocol.md` 7.3.
fn accepted_rightly(body: &[u8], versus: &Versus, ours: &Realm, responder: bool) {
    let (hello, signature, signed) = Hello::decode(body).expect("it was accepted");
    assert_eq!(hello.role, u8::from(responder) + role_of_the_initiator(), "its role");
    assert_eq!(hello.own, ours.id(), "who it is");
    assert_eq!(hello.peer, versus.side.realm.id(), "who it is for");
    assert_eq!(Some(hello.binding), versus.peer.binding(), "this very channel");
    assert!(hello.version_min <= 1 && hello.version_max >= 1, "a version that we speak");
    assert_eq!(RealmId::of(hello.realm_key()), hello.own, "the realm is the hash of its first key");
    assert!(hello.revocation.is_none(), "it has not ended");
    let input = legation_proto::identity::signing_input(Purpose::Hello, &network().id(), &body[..signed]);
    let key = VerifyingKey::from_bytes(&hello.identity_key).expect("a key");
    key.verify_strict(&input, &Signature::from_bytes(&signature)).expect("its signature");
}

/// Of the roles as they are written, the initiator's.
fn role_of_the_initiator() -> u8 {
    legation_proto::hello::Role::Initiator as u8
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = scripts("legation fuzz hello", 32, 500);
    seeds.extend([[0, 0], [0, 1], [1, 0], [1, 1]].map(|flags| flags.to_vec()));
    seeds
}
