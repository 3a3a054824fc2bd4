//! A realm that has rotated its key, twice: its records, its hello, a receipt of its; and chains that are refused.

use legation_proto::frame::hello::Hello;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use legation_proto::keyring::Keyring;
use legation_proto::receipt::{ReceiptMaker, ReceiptParts};
use legation_proto::rotation::Rotation;

use super::{alices_hello, bob, framed, network, session_id, File, ALICE_ONLINE_SEED, TIME};
use crate::raw_batch::{RawBatch, RawMessage};
use crate::term;

/// Seeds of the keys that carol's realm has had, in order; then one that is not hers.
pub const CAROL_SEEDS: [[u8; 32]; 3] = [[0xC1; 32], [0xC2; 32], [0xC3; 32]];
const THIEF_SEED: [u8; 32] = [0xD1; 32];

fn key_of(seed: &[u8; 32]) -> Keyring {
    Keyring::new(seed, &ALICE_ONLINE_SEED)
}

/// Carol's realm, which has rotated twice.
pub fn carol() -> Keyring {
    let carol = key_of(&CAROL_SEEDS[0]);
    for (seed, time) in [(&CAROL_SEEDS[1], TIME), (&CAROL_SEEDS[2], TIME + 1)] {
        let next = key_of(seed);
        let rotation = carol.sign_rotation(next.public(), &network().id(), time).expect("a new key");
        carol.rotate(&next, rotation).expect("the identity is here");
    }
    carol
}

fn chain_bytes(chain: &[Rotation]) -> Vec<u8> {
    chain.iter().flat_map(Rotation::encode).collect()
}

pub(super) fn rotations() -> String {
    let mut file = File::new(
        "Rotations and a revocation of carol's (protocol.md 2.7, 11.7, 11.8), and her hello to bob with both rotations, and\n\
         with the revocation (7.1); a receipt for a message of hers (14). Then chains with their realm id and head: good, or refused with a close code (7.4). Time is the\n\
         not-before of the first.",
    );
    let (carol, network) = (carol(), network().id());
    let identity = carol.identity();
    for (rotation, seed) in identity.chain().iter().zip(CAROL_SEEDS) {
        file.record(&format!("rotation {}", rotation.serial))
            .put("realm_id", &rotation.realm.0)
            .put("old_seed", &seed)
            .put("old", &rotation.old)
            .put("new", &rotation.new)
            .put("serial", &rotation.serial.to_le_bytes())
            .put("not_before", &rotation.not_before.to_le_bytes())
            .put("body", &rotation.body())
            .put("signature", &rotation.signature)
            .put("frame", &framed(FrameType::Rotate, &rotation.encode()));
    }
    let revocation = carol.sign_revocation(&network).expect("the identity is here");
    file.record("revocation")
        .put("realm_id", &revocation.realm.0)
        .put("seed", &CAROL_SEEDS[2])
        .put("key", &revocation.key)
        .put("serial", &revocation.serial.to_le_bytes())
        .put("body", &revocation.body())
        .put("signature", &revocation.signature)
        .put("frame", &framed(FrameType::Revoke, &revocation.encode()));
    for (name, revocation) in [("hello", None), ("hello revoked", Some(revocation))] {
        let hello = Hello {
            own: carol.realm_id(),
            identity_key: *identity.public(),
            chain: identity.chain().to_vec(),
            revocation,
            ..alices_hello(false)
        };
        let signature = carol.sign(Purpose::Hello, &network, &hello.body()).expect("the identity is here");
        let frame = framed(FrameType::Hello, &[&hello.body()[..], &signature].concat());
        file.record(name).put("body", &hello.body()).put("frame", &frame);
    }
    let (receipt, message) = receipt();
    file.record("receipt")
        .put("first_key", carol.public())
        .put("network_id", &network.0)
        .put("payload", &message)
        .put("receipt", &receipt);
    let thief = key_of(&THIEF_SEED);
    let good = identity.chain();
    let changed = |change: &dyn Fn(&mut Vec<Rotation>)| {
        let mut chain = good.to_vec();
        change(&mut chain);
        chain
    };
    // Signed by whoever has the seed.
    let by = |seed: &[u8; 32], mut rotation: Rotation| {
        rotation.signature = key_of(seed).sign(Purpose::Rotate, &network, &rotation.body()).expect("it is here");
        rotation
    };
    let to_thief = Rotation { old: good[1].new, new: *thief.public(), serial: 3, ..good[0].clone() };
    let back = Rotation { old: good[1].new, new: good[0].old, serial: 3, ..good[0].clone() };
    let weak = Rotation { new: [0; 32], ..good[0].clone() };
    let chains: [(&str, Vec<Rotation>); 12] = [
        ("good: none", Vec::new()),
        ("good: two", good.to_vec()),
        ("good: one", good[..1].to_vec()),
        ("refused wrong_realm: without the first", good[1..].to_vec()),
        ("refused wrong_realm: another realm's record", changed(&|chain| chain[1].realm.0[0] ^= 1)),
        (
            "refused protocol: the second serial is 3",
            changed(&|chain| {
                chain[1].serial = 3;
                chain[1] = by(&CAROL_SEEDS[1], chain[1].clone());
            }),
        ),
        ("refused protocol: the first twice", vec![good[0].clone(), good[0].clone()]),
        ("refused protocol: back to the first key", changed(&|chain| chain.push(by(&CAROL_SEEDS[2], back.clone())))),
        (
            "refused bad_signature: by a key that was replaced",
            changed(&|chain| {
                chain.push(by(&CAROL_SEEDS[0], to_thief.clone()));
            }),
        ),
        ("refused bad_signature: another time", changed(&|chain| chain[0].not_before -= 1)),
        ("refused bad_signature: a weak key", vec![by(&CAROL_SEEDS[0], weak)]),
        (
            "refused expired: too early",
            changed(&|chain| {
                chain[1].not_before = TIME + 30_001;
                chain[1] = by(&CAROL_SEEDS[1], chain[1].clone());
            }),
        ),
    ];
    for (name, chain) in chains {
        let head = chain.last().map_or(*carol.public(), |last| last.new);
        file.record(name).put("realm_id", &carol.realm_id().0).put("identity_key", &head);
        file.put("chain", &chain_bytes(&chain));
    }
    file.0
}

/// For a cast of carol's engine `ping`, with its payload.
fn receipt() -> (Vec<u8>, Vec<u8>) {
    let (carol, network, payload) = (carol(), network().id(), term::text("hello"));
    let learn = Learn {
        realm: carol.realm_id(),
        engine: "ping".into(),
        key: carol.engine_public("ping"),
        serial: 1,
        not_before: TIME,
        not_after: 0,
        version: 0,
        operations: 7,
        delegate: false,
    };
    let by_identity = carol.sign(Purpose::Learn, &network, &learn.body()).expect("the identity is here");
    let batch = RawBatch {
        session: session_id(),
        source: carol.realm_id().0,
        destination: bob().realm_id().0,
        first_sequence: 1,
        count: None,
        mode: 1,
        engine: "ping".into(),
        table_length: None,
        payloads_length: None,
        messages: vec![RawMessage::cast("pong", &payload)],
        trailing: Vec::new(),
        table: None,
    };
    let by_engine = carol.sign_batch("ping", &network, &batch.body());
    let identity = carol.identity();
    let (announcement, body) = ([&learn.body()[..], &by_identity].concat(), [&batch.body()[..], &by_engine].concat());
    let maker = ReceiptMaker::new(ReceiptParts {
        network_id: &network.0,
        identity_key: identity.public(),
        rotations: identity.chain(),
        announcement: &announcement,
        batch: &body,
    });
    let receipt = maker.and_then(|maker| maker.make(0, &[]));
    (receipt.expect("a good batch"), payload)
}
