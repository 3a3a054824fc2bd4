//! `legation key`.

mod cli_support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use cli_support::*;

#[test]
fn a_new_key_is_private_and_never_written_over() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("alice.pem");
    let file = path.to_str().unwrap();
    let public = done(&["key", "new", file]);
    assert!(public.starts_with("ed25519:") && public.len() == 51, "{public}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(done(&["key", "show", file]), public);
    assert_eq!(json(&["key", "show", file, "--json"])["public_key"], public.as_str());

    let before = std::fs::read(&path).unwrap();
    let again = legation(&["key", "new", file]);
    assert_eq!(code(&again), 1);
    assert_eq!(stderr(&again), format!("legation: {file}: there is a file of that name, and it is not written over\n"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// Its public key, from the openssl of this machine, if there is one.
fn openssl_public(pem: &str) -> Option<[u8; 32]> {
    let output = Command::new("openssl").args(["pkey", "-in", pem, "-pubout", "-outform", "DER"]).output().ok()?;
    assert!(output.status.success(), "{}", stderr(&output));
    Some(*output.stdout.last_chunk().unwrap())
}

#[test]
fn keys_go_from_and_to_openssl() {
    let home = tempfile::tempdir().unwrap();
    let (ours, theirs) = (home.path().join("ours.pem"), home.path().join("theirs.pem"));
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    let public = done(&["key", "new", ours]);
    let Some(key) = openssl_public(ours) else { return };
    assert_eq!(legation_proto::key_text::format_public_key(&key), public);

    let made = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", theirs]).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let key = openssl_public(theirs).unwrap();
    assert_eq!(done(&["key", "show", theirs]), legation_proto::key_text::format_public_key(&key));
}

#[test]
fn what_is_no_key_is_named_and_not_shown() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("k");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nsecret\n").unwrap();
    let shown = legation(&["key", "show", file]);
    assert_eq!((code(&shown), stdout(&shown).as_str()), (1, ""));
    assert_eq!(stderr(&shown), format!("legation: {file}: not a PKCS#8 PEM with an Ed25519 private key\n"));
    let missing = legation(&["key", "show", "/nowhere/k"]);
    assert_eq!(stderr(&missing), "legation: /nowhere/k: no such file or directory\n");
}

#[test]
fn a_network_key_is_64_digits_and_never_written_over() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("net.key");
    let file = path.to_str().unwrap();
    done(&["key", "network", file]);
    let content = std::fs::read(&path).unwrap();
    assert_eq!(content.len(), 65);
    assert!(legation_proto::key_text::parse_network_key(&content).is_some());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(code(&legation(&["key", "network", file])), 1);
    assert_eq!(std::fs::read(&path).unwrap(), content);
}

#[test]
fn an_agent_tells_its_public_key_serves_a_daemon_and_ends_with_sigterm() {
    let home = Home::new("alice", "agent = \"agent.sock\"\n", "");
    let (key, socket) = (home.text("key.pem"), home.text("agent.sock"));
    let public = done(&["key", "show", &key]);
    let agent = Running::start(command().args(["key", "agent", "--key", &key, "--socket", &socket]));
    assert_eq!(agent.line(), format!("legation agent ready {public}"));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(done(&["key", "show", "--agent", &socket]), public);

    let daemon = Running::daemon(&home.config());
    assert_eq!(json(&["status", "--config", &home.config(), "--json"])["key"], public.as_str());
    daemon.signal("TERM");
    assert_eq!(daemon.end().0, 0);

    agent.signal("TERM");
    let (code, _, log) = agent.end();
    assert_eq!(code, 0);
    assert!(log.last().unwrap().contains("the key agent has stopped signed="), "{log:?}");
    assert!(!std::path::Path::new(&socket).exists());
    let gone = legation(&["key", "show", "--agent", &socket]);
    assert_eq!(cli_support::code(&gone), 3);
}

#[test]
fn an_agent_that_cannot_listen_or_has_no_key_says_so_in_a_line() {
    let home = Home::new("alice", "", "");
    let (key, file) = (home.text("key.pem"), home.config());
    let no_socket = legation(&["key", "agent", "--key", &key, "--socket", &file]);
    assert_eq!(code(&no_socket), 1);
    assert_eq!(stderr(&no_socket), format!("legation: {file}: there is a file of that name that is no socket\n"));
    let no_key = legation(&["key", "agent", "--key", &file, "--socket", &home.text("s")]);
    assert_eq!(code(&no_key), 1);
    assert_eq!(stderr(&no_key), format!("legation: {file}: not a PKCS#8 PEM with an Ed25519 private key\n"));
}
