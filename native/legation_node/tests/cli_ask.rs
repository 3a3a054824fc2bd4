//! Asking a running daemon.

mod cli_support;

use cli_support::*;

#[test]
fn every_question_has_an_answer_for_people_and_one_for_programs() {
    let home = Home::new("alice", "", &format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n", some_key()));
    let config = home.config();
    let _daemon = Running::daemon(&config);
    for question in ["status", "peers", "engines", "connections", "counters"] {
        assert!(!done(&[question, "--config", &config]).is_empty(), "{question}");
        let answer = json(&[question, "--config", &config, "--json"]);
        assert!(answer.is_object() || answer.is_array(), "{question}: {answer}");
    }
    let status = done(&["status", "--socket", &home.text("control.sock")]);
    assert!(status.lines().any(|line| line.split_whitespace().eq(["realm", "alice"])), "{status}");
    // Two for each of five, and the status above.
    assert!(json(&["counters", "--config", &config, "--json"])["control_socket_requests"].as_u64() >= Some(11));
}

#[test]
fn the_socket_may_be_named_by_the_environment() {
    let home = Home::new("alice", "", "");
    let _daemon = Running::daemon(&home.config());
    let status =
        command().args(["status", "--json"]).env("LEGATION_SOCKET", home.path("control.sock")).output().unwrap();
    assert_eq!(code(&status), 0, "{}", stderr(&status));
}

#[test]
fn what_the_daemon_refuses_has_exit_code_1() {
    let home = Home::new("alice", "", "");
    let config = home.config();
    let _daemon = Running::daemon(&config);
    for command in ["connect", "disconnect"] {
        let refused = legation(&[command, "eve", "--config", &config, "--json"]);
        assert_eq!(code(&refused), 1);
        let answer: serde_json::Value = serde_json::from_str(&stdout(&refused)).unwrap();
        assert_eq!(answer["error"]["code"], "unknown_realm");
        assert!(stderr(&refused).contains("eve"), "{}", stderr(&refused));
    }
}

#[test]
fn a_drain_is_waited_for() {
    let home = Home::new("alice", "", "");
    let _daemon = Running::daemon(&home.config());
    assert_eq!(done(&["drain", "--config", &home.config(), "--timeout-ms", "100"]), "drained");
    assert_eq!(json(&["drain", "--config", &home.config(), "--json"]), serde_json::json!([]));
}

#[test]
fn without_a_daemon_the_exit_code_is_3_and_without_a_name_for_it_2() {
    let home = Home::new("alice", "", "");
    let absent = legation(&["status", "--config", &home.config()]);
    assert_eq!(code(&absent), 3);
    let socket = home.text("control.sock");
    assert_eq!(stderr(&absent), format!("legation: no daemon answers at {socket}: no such file or directory\n"));
    let unnamed = legation(&["status"]);
    assert_eq!(code(&unnamed), 2);
    assert_eq!(stderr(&unnamed), "legation: which daemon? --config FILE or --socket PATH or $LEGATION_SOCKET says\n");
}

#[test]
fn only_the_control_socket_of_a_configuration_has_to_be_right_to_ask() {
    let home = Home::new("alice", "", "");
    let _daemon = Running::daemon(&home.config());
    home.configure("alice", "threads = 0\n", "[limits]\ncalls_max = 0\n");
    done(&["status", "--config", &home.config()]);
    home.write("config.toml", "realm = \"alice\"\n");
    let nowhere = legation(&["status", "--config", &home.config()]);
    assert_eq!(code(&nowhere), 2);
    assert!(stderr(&nowhere).contains("`control_socket` is missing"), "{}", stderr(&nowhere));
}

#[test]
fn more_connections_than_the_bound_are_told_so() {
    let home = Home::new("alice", "", "[limits]\ncontrol_connections_max = 1\n");
    let _daemon = Running::daemon(&home.config());
    // A connection is one before it has asked anything; that this one is settled its answer shows.
    let mut held = std::os::unix::net::UnixStream::connect(home.path("control.sock")).unwrap();
    std::io::Write::write_all(&mut held, b"{\"op\":\"status\"}\n").unwrap();
    std::io::Read::read_exact(&mut held, &mut [0; 8]).unwrap();
    let busy = legation(&["status", "--config", &home.config()]);
    assert_eq!(code(&busy), 1);
    assert_eq!(stderr(&busy), "legation: too many connections to the control socket\n");
}

#[test]
fn a_peer_that_a_reload_brings_is_linked_and_one_that_is_disconnected_is_not() {
    let alice = Home::new("alice", "", "[[listen]]\nunix = \"in.sock\"\n");
    let alice_key = done(&["key", "show", &alice.text("key.pem")]);
    let connect = format!("connect = [\"unix:{}\"]", alice.text("in.sock"));
    let bob = Home::new("bob", "", &format!("[[peers]]\nrealm = \"alice\"\nkey = \"{alice_key}\"\n{connect}\n"));
    let bob_key = done(&["key", "show", &bob.text("key.pem")]);
    let (at_alice, _bob) = (Running::daemon(&alice.config()), Running::daemon(&bob.config()));

    let peer = format!("[[peers]]\nrealm = \"bob\"\nkey = \"{bob_key}\"\n");
    alice.configure("alice", "", &format!("[[listen]]\nunix = \"in.sock\"\n{peer}"));
    at_alice.signal("HUP");
    at_alice.logged("a link is up realm=bob");
    let config = alice.config();
    let peers = done(&["peers", "--config", &config]);
    let row = peers.lines().last().unwrap();
    assert!(row.split_whitespace().take(5).eq(["bob", "up", "local", "engine", "responder"]), "{peers}");
    assert!(row.contains("s ago "), "{peers}");
    assert_eq!(json(&["connections", "--config", &config, "--json"])[0]["realm"], "bob");

    assert_eq!(done(&["disconnect", "bob", "--config", &config]), "bob: disconnected");
    at_alice.logged("a link has ended realm=bob");
    assert_eq!(json(&["peers", "--config", &config, "--json"])[0]["state"], "disconnected");
    assert_eq!(done(&["connect", "bob", "--config", &config]), "bob: connecting");
    at_alice.logged("a link is up realm=bob");

    // Off the list.
    alice.configure("alice", "", "[[listen]]\nunix = \"in.sock\"\n");
    assert_eq!(done(&["reload", "--config", &config]), "reloaded");
    at_alice.logged("a link has ended realm=bob");
    assert_eq!(done(&["peers", "--config", &config]), "no peers");
}
