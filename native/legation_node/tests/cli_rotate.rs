//! Keys that are replaced and revoked, from the command line.

mod cli_support;

use cli_support::*;

/// A daemon that says so before it is ready.
fn daemon_that_says(config: &str, words: &str) -> Running {
    let daemon = Running::start(command().args(["run", "--config", config]));
    daemon.logged(words);
    daemon.logged(" ready ");
    daemon
}

fn key_of(config: &str) -> String {
    json(&["status", "--config", config, "--json"])["key"].as_str().unwrap().to_owned()
}

#[test]
fn the_key_of_a_running_daemon_is_replaced_and_a_restart_finds_it() {
    let home = Home::new("alice", "", "");
    let config = home.config();
    let daemon = Running::daemon(&config);
    let first = key_of(&config);
    let new = home.text("new.pem");
    let public = done(&["key", "new", &new]);
    assert_eq!(json(&["key", "rotate", &new, "--config", &config, "--json"])["key"], public.as_str());
    assert_eq!(key_of(&config), first, "peers go on knowing it by this");
    assert_eq!(done(&["key", "show", &new]), first);
    // An agent could not tell of the rotations.
    let agent = legation(&["key", "agent", "--key", &new, "--socket", &home.text("agent.sock")]);
    assert_eq!(code(&agent), 1);
    assert!(stderr(&agent).contains("has replaced another"), "{}", stderr(&agent));
    daemon.signal("TERM");
    daemon.end();

    let _daemon = daemon_that_says(&config, "was replaced by");
    assert_eq!(key_of(&config), first);
    let again = legation(&["key", "rotate", &new, "--config", &config]);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("this realm's already"), "{}", stderr(&again));
}

#[test]
fn a_peer_that_is_revoked_stays_so_over_a_restart_with_a_directory_for_it() {
    let peer = format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n", some_key());
    let home = Home::new("alice", "state_dir = \"state\"\n", &peer);
    let config = home.config();
    let state = || json(&["peers", "--config", &config, "--json"])[0]["state"].as_str().unwrap().to_owned();
    for revoked in [false, true] {
        let daemon = Running::daemon(&config);
        assert_eq!(state() == "revoked", revoked);
        assert_eq!(done(&["revoke", "bob", "--config", &config]), "bob: revoked");
        assert_eq!(state(), "revoked");
        let refused = legation(&["connect", "bob", "--config", &config, "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&stdout(&refused)).unwrap();
        assert_eq!((code(&refused), &answer["error"]["code"]), (1, &"revoked".into()));
        assert_eq!(code(&legation(&["revoke", "eve", "--config", &config])), 1);
        daemon.signal("TERM");
        daemon.end();
    }
}

#[test]
fn a_daemons_own_key_is_revoked_once_and_for_good() {
    let home = Home::new("alice", "", "");
    let config = home.config();
    let daemon = Running::daemon(&config);
    assert_eq!(done(&["key", "revoke", "--config", &config]), "the realm's key is revoked");
    assert_eq!(code(&legation(&["key", "revoke", "--config", &config])), 1);
    daemon.signal("TERM");
    daemon.end();
    let _daemon = daemon_that_says(&config, "this realm's key was revoked");
    let new = home.text("new.pem");
    done(&["key", "new", &new]);
    assert_eq!(code(&legation(&["key", "rotate", &new, "--config", &config])), 1);
}
