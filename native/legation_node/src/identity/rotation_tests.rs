use std::fs;

use legation_proto::identity::NetworkKey;
use legation_proto::key_text::identity_pem;
use legation_proto::keyring::Keyring;

use super::*;
use crate::config::read_key;

fn pem(dir: &Path, seed: u8) -> PathBuf {
    let path = dir.join(format!("{seed}.pem"));
    fs::write(&path, identity_pem(&[seed; 32]).unwrap().0.as_bytes()).unwrap();
    path
}

fn load(path: &Path) -> Identity {
    let loaded = read_key(path, &mut Vec::new()).unwrap();
    let identity = Identity::of_keyring(loaded.keyring, NetworkKey::none()).unwrap();
    *lock(&identity.file) = Some(loaded.path);
    identity
}

fn public(seed: u8) -> [u8; 32] {
    *Keyring::new(&[seed; 32], &[0; 32]).public()
}

#[test]
fn a_restart_with_the_old_file_or_the_new_one_presents_the_new_key_and_its_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, third) = (pem(dir.path(), 1), pem(dir.path(), 2), pem(dir.path(), 3));
    let identity = load(&first);
    assert_eq!(identity.rotate(&second), Ok(public(2)));
    assert_eq!(identity.rotate(&third), Ok(public(3)));
    assert_eq!((identity.key, identity.key_path()), (public(1), Some(third.clone())));
    for path in [&first, &second, &third] {
        let restarted = load(path);
        assert_eq!((restarted.key, *restarted.keyring.identity().public()), (public(1), public(3)));
        assert_eq!(restarted.keyring.identity().chain().len(), 2);
        assert_eq!(restarted.keyring.check(&NetworkKey::none().id(), now_ms()), Ok(()));
    }
    let mut warnings = Vec::new();
    read_key(&first, &mut warnings).unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("was replaced by")), "{warnings:?}");
}

#[test]
fn what_can_not_be_the_next_key_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (pem(dir.path(), 1), pem(dir.path(), 2));
    let identity = load(&first);
    assert!(matches!(identity.rotate(&dir.path().join("none.pem")), Err(RotateError::KeyFile { .. })));
    assert_eq!(identity.rotate(&first), Err(KeyringError::UsedBefore.into()));
    // A chain file that can't be written.
    fs::create_dir(dir.path().join("2.pem.chain")).unwrap();
    assert!(matches!(identity.rotate(&second), Err(RotateError::KeyFile { .. })));
    assert_eq!((identity.key_path(), *identity.keyring.identity().public()), (Some(first.clone()), public(1)));
    assert_eq!(*load(&first).keyring.identity().public(), public(1));

    let external = Keyring::external(public(1), [1; 32], &[2; 32]).unwrap();
    let external = Identity::of_keyring(external, NetworkKey::none()).unwrap();
    assert_eq!(external.rotate(&second), Err(KeyringError::External.into()));
    assert_eq!(external.revoke(), Err(KeyringError::External.into()));
}

#[test]
fn a_revoked_key_is_revoked_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (pem(dir.path(), 1), pem(dir.path(), 2));
    let identity = load(&first);
    identity.rotate(&second).unwrap();
    identity.revoke().unwrap();
    let restarted = load(&first);
    assert!(restarted.keyring.identity().revocation().is_some());
    assert_eq!(restarted.keyring.check(&NetworkKey::none().id(), now_ms()), Ok(()));
    assert_eq!(restarted.rotate(&pem(dir.path(), 3)), Err(KeyringError::Revoked.into()));
}

#[test]
fn what_is_known_of_peers_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (key, state) = (pem(dir.path(), 1), dir.path().join("state"));
    let start = || load(&key).with_state(Some(state.clone()));
    let peer = Keyring::new(&[9; 32], &[0; 32]).realm_id();
    let identity = start().unwrap();
    identity.keyring.heads().revoke(&peer);
    identity.keep_heads();
    assert!(start().unwrap().keyring.heads().is_revoked(&peer));
    fs::write(state.join("x.head"), b"nothing of ours").unwrap();
    assert!(start().is_err());
}
