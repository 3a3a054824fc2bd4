use proptest::prelude::*;

use super::*;
use crate::identity::NetworkKey;
use crate::keyring::{Keyring, KeyringError};

const NOW: UnixMs = 1_000_000;

fn network() -> NetworkId {
    NetworkKey::new([9; 32]).id()
}

fn key(number: u64) -> Keyring {
    let mut seed = [0x5A; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Keyring::new(&seed, &[0; 32])
}

/// A realm that has rotated so many times: its keys are 0 to `count`.
fn realm(count: u64) -> Keyring {
    let realm = key(0);
    for number in 1..=count {
        let rotation = realm.sign_rotation(key(number).public(), &network(), NOW).unwrap();
        realm.rotate(&key(number), rotation).unwrap();
    }
    realm
}

fn follow_all(realm: &RealmId, identity: &[u8; 32], chain: &[Rotation]) -> Result<[u8; 32], ChainError> {
    follow_chain(realm, identity, chain, &[], &network(), NOW, &check_public_key).map(|head| head.to_bytes())
}

#[test]
fn a_chain_leads_from_the_first_key_to_the_head() {
    for count in [0, 1, 3, ROTATIONS_MAX as u64] {
        let realm = realm(count);
        let identity = realm.identity();
        assert_eq!(realm.public(), key(0).public(), "peers go on knowing it by its first key");
        assert_eq!(identity.public(), key(count).public());
        assert_eq!(follow_all(&realm.realm_id(), identity.public(), identity.chain()), Ok(*key(count).public()));
    }
}

#[test]
fn there_is_a_last_rotation() {
    let realm = realm(ROTATIONS_MAX as u64);
    let next = key(99);
    assert_eq!(realm.sign_rotation(next.public(), &network(), NOW), Err(KeyringError::TooManyRotations));
    let (identity, head) = (realm.identity(), check_public_key(realm.identity().public()).unwrap());
    let mut one_more = identity.chain()[ROTATIONS_MAX - 1].clone();
    (one_more.old, one_more.new, one_more.serial) = (one_more.new, *next.public(), ROTATIONS_MAX as u64 + 1);
    assert_eq!(one_more.follow(identity.chain(), &head, &network(), NOW), Err(ChainError::TooLong));
}

#[test]
fn a_key_that_was_replaced_does_not_come_back() {
    let realm = realm(2);
    for used in 0..=2 {
        assert_eq!(realm.sign_rotation(key(used).public(), &network(), NOW), Err(KeyringError::UsedBefore));
    }
}

#[test]
fn a_chain_that_was_tampered_with_is_refused() {
    let realm = realm(3);
    let (id, identity) = (realm.realm_id(), realm.identity());
    let (head, good) = (identity.public(), identity.chain());
    let changed = |change: &dyn Fn(&mut Vec<Rotation>)| {
        let mut chain = good.to_vec();
        change(&mut chain);
        follow_all(&id, head, &chain).unwrap_err()
    };
    assert_eq!(
        changed(&|chain| {
            chain.remove(0);
        }),
        ChainError::OtherRealm
    );
    assert_eq!(
        changed(&|chain| {
            chain.remove(1);
        }),
        ChainError::Broken
    );
    assert_eq!(
        changed(&|chain| {
            chain.pop();
        }),
        ChainError::Broken
    );
    assert_eq!(changed(&|chain| chain.clear()), ChainError::OtherRealm);
    assert_eq!(changed(&|chain| chain.swap(0, 1)), ChainError::OtherRealm);
    assert_eq!(changed(&|chain| chain[1].realm.0[0] ^= 1), ChainError::OtherRealm);
    assert_eq!(changed(&|chain| chain[1].serial += 1), ChainError::Broken);
    assert_eq!(changed(&|chain| chain[1].not_before += 1), ChainError::BadSignature);
    assert_eq!(changed(&|chain| chain[2].signature[0] ^= 1), ChainError::BadSignature);
    assert_eq!(changed(&|chain| chain[2].not_before += CLOCK_SKEW_MS + 1), ChainError::NotYet);
    let weak = |chain: &mut Vec<Rotation>| (chain[1].new, chain[2].old) = ([0; 32], [0; 32]);
    assert_eq!(changed(&weak), ChainError::BadKey);
    let another_network = NetworkKey::none().id();
    let elsewhere = follow_chain(&id, head, good, &[], &another_network, NOW, &check_public_key);
    assert_eq!(elsewhere, Err(ChainError::BadSignature));
}

#[test]
fn another_key_can_not_rotate_for_the_one_in_force() {
    let (realm, thief) = (realm(1), key(0));
    // The old key, which was stolen, signs for a key of the thief's: as the second rotation, and in place of the first.
    let (identity, id) = (realm.identity(), realm.realm_id());
    let second = Rotation { serial: 2, ..thief.sign_rotation(key(7).public(), &network(), NOW).unwrap() };
    let chain = [identity.chain()[0].clone(), second.clone()];
    assert_eq!(follow_all(&id, key(7).public(), &chain), Err(ChainError::Broken));
    let disguised = Rotation { old: *identity.public(), ..second };
    let chain = [identity.chain()[0].clone(), disguised];
    assert_eq!(follow_all(&id, key(7).public(), &chain), Err(ChainError::BadSignature));
}

#[test]
fn rotations_that_are_known_are_not_verified_again_but_others_are() {
    let realm = realm(3);
    let (id, identity) = (realm.realm_id(), realm.identity());
    let follow = |chain: &[Rotation], known: &[Rotation]| {
        follow_chain(&id, identity.public(), chain, known, &network(), NOW, &check_public_key)
            .map(|head| head.to_bytes())
    };
    let mut forged = identity.chain().to_vec();
    forged[0].signature = [0; 64];
    assert_eq!(follow(&forged, &[]), Err(ChainError::BadSignature));
    assert_eq!(follow(&forged, &forged[..1]), Ok(*identity.public()));
    assert_eq!(follow(&forged, &identity.chain()[..1]), Err(ChainError::BadSignature));
}

#[test]
fn a_revocation_is_the_heads_and_ends_the_chain_where_it_stands() {
    let realm = realm(2);
    let (id, head) = (realm.realm_id(), check_public_key(key(2).public()).unwrap());
    let revocation = realm.sign_revocation(&network()).unwrap();
    assert!(revocation.ends(&id, 2, &head, &network()));
    assert!(!revocation.ends(&id, 1, &head, &network()));
    assert!(!revocation.ends(&key(1).realm_id(), 2, &head, &network()));
    assert!(!revocation.ends(&id, 2, &head, &NetworkKey::none().id()));
    assert!(!revocation.ends(&id, 2, &check_public_key(key(1).public()).unwrap(), &network()));
    let old = key(0).sign_revocation(&network()).unwrap();
    assert!(!old.ends(&id, 2, &head, &network()), "an old key can't end the realm");
    realm.revoke(revocation).unwrap();
    assert_eq!(realm.sign_rotation(key(9).public(), &network(), NOW), Err(KeyringError::Revoked));
    assert_eq!(realm.sign_revocation(&network()), Err(KeyringError::Revoked));
}

#[test]
fn an_identity_that_is_elsewhere_neither_rotates_nor_revokes_here() {
    let external = Keyring::external(*key(0).public(), [1; 32], &[2; 32]).unwrap();
    assert_eq!(external.sign_rotation(key(1).public(), &network(), NOW), Err(KeyringError::External));
    assert_eq!(external.sign_revocation(&network()), Err(KeyringError::External));
    let realm = realm(0);
    let next = Keyring::external(*key(1).public(), [1; 32], &[2; 32]).unwrap();
    let rotation = realm.sign_rotation(next.public(), &network(), NOW).unwrap();
    assert_eq!(realm.rotate(&next, rotation), Err(KeyringError::External));
}

#[test]
fn engine_keys_are_new_with_the_identity_and_the_old_ones_sign_on_for_those_who_know_them() {
    let realm = realm(0);
    let told = realm.engine_public("ping");
    let rotation = realm.sign_rotation(key(1).public(), &network(), NOW).unwrap();
    realm.rotate(&key(1), rotation.clone()).unwrap();
    assert_eq!(realm.engine_public("ping"), key(1).engine_public("ping"), "as after a restart");
    assert_ne!(realm.engine_public("ping"), told);
    let by_old = realm.sign_batch_as("ping", &told, &network(), b"x");
    let by_new = realm.sign_batch_as("ping", &realm.engine_public("ping"), &network(), b"x");
    let verifies = |key: &[u8; 32], signature| {
        verify(&check_public_key(key).unwrap(), Purpose::Batch, &network(), b"x", signature)
    };
    assert!(verifies(&told, &by_old) && verifies(&realm.engine_public("ping"), &by_new));
    assert_eq!(realm.rotate(&key(1), rotation), Err(KeyringError::Raced), "once is enough");
}

#[test]
fn records_come_back_whole_and_not_cut_short() {
    let realm = realm(1);
    let rotation = realm.identity().chain()[0].clone();
    let revocation = realm.sign_revocation(&network()).unwrap();
    let (one, other) = (rotation.encode(), revocation.encode());
    assert_eq!((one.len(), other.len()), (Rotation::BYTES, Revocation::BYTES));
    assert_eq!((Rotation::decode(&one), Revocation::decode(&other)), (Ok(rotation), Ok(revocation)));
    for cut in 0..one.len() {
        assert!(Rotation::decode(&one[..cut]).is_err());
    }
    for cut in 0..other.len() {
        assert!(Revocation::decode(&other[..cut]).is_err());
    }
    assert!(Rotation::decode(&[&one[..], &[0]].concat()).is_err());
    assert!(Revocation::decode(&[&other[..], &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_make_a_chain(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        records in proptest::collection::vec(proptest::array::uniform32(any::<u8>()), 0..20),
    ) {
        let _ = Rotation::decode(&bytes);
        let _ = Revocation::decode(&bytes);
        let realm = realm(0);
        let mut old = *realm.public();
        let chain: Vec<Rotation> = records.iter().enumerate().map(|(index, new)| {
            let rotation = Rotation {
                realm: realm.realm_id(), old, new: *new, serial: index as u64 + 1, not_before: 0, signature: [7; 64],
            };
            old = *new;
            rotation
        }).collect();
        prop_assert_eq!(follow_all(&realm.realm_id(), &old, &chain).is_ok(), chain.is_empty());
    }

    #[test]
    fn one_flipped_bit_is_one_too_many(at in 0usize..Rotation::BYTES * 8) {
        let realm = realm(1);
        let identity = realm.identity();
        let mut bytes = identity.chain()[0].encode();
        bytes[at / 8] ^= 1 << (at % 8);
        let flipped = Rotation::decode(&bytes).unwrap();
        prop_assert!(follow_all(&realm.realm_id(), identity.public(), &[flipped]).is_err());
    }
}
