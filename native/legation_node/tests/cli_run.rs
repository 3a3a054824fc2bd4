//! `legation run`: from its start to its end.

mod cli_support;

use std::process::Command;

use cli_support::*;

#[test]
fn a_supervised_daemon_says_one_line_when_it_is_ready_and_ends_with_its_owner() {
    let home = Home::new("alice", "", "");
    let mut daemon = Running::start(command().args(["run", "--config", &home.config(), "--supervised"]));
    let line = daemon.line();
    let port = line.strip_prefix("legation ready alice@127.0.0.1 ").unwrap();
    assert!(port.parse::<u16>().is_ok(), "{line}");
    // What its owner says there is of no interest.
    daemon.write(b"hello\n");
    daemon.close_stdin();
    let (code, stdout, log) = daemon.end();
    assert_eq!((code, stdout), (0, Vec::new()));
    assert!(log.iter().any(|line| line.starts_with("INFO ready realm=alice node=alice@127.0.0.1 port=")), "{log:?}");
    let gone = "INFO standard input has ended: whoever started this daemon is gone";
    assert!(log.iter().any(|line| line == gone), "{log:?}");
}

#[test]
fn a_supervised_daemon_ends_when_its_owner_is_killed() {
    let home = Home::new("alice", "", "");
    // The owner: a shell that holds the daemon's standard input and nothing else.
    let script = format!("mkfifo {0}; \"$@\" < {0} & exec 3> {0}; exec cat", home.text("fifo"));
    let owner = Running::start(
        Command::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_legation"), "run", "--supervised", "--config"])
            .arg(home.config()),
    );
    assert!(owner.line().starts_with("legation ready "));
    owner.signal("KILL");
    // The daemon has the owner's standard error, too.
    assert_eq!(
        owner.logged("standard input has ended"),
        "INFO standard input has ended: whoever started this daemon is gone"
    );
}

#[test]
fn a_configuration_may_come_from_standard_input_up_to_a_nul() {
    let home = Home::new("alice", "", "");
    let config = std::fs::read_to_string(home.path("config.toml")).unwrap();
    let mut daemon =
        Running::start(command().args(["run", "--config", "-", "--supervised"]).current_dir(home.path("")));
    daemon.write(config.as_bytes());
    daemon.write(b"\0");
    assert!(daemon.line().starts_with("legation ready alice@127.0.0.1 "));
    assert_eq!(json(&["status", "--socket", &home.text("control.sock"), "--json"])["realm"], "alice");
    let again = legation(&["reload", "--socket", &home.text("control.sock")]);
    assert_eq!(code(&again), 1);
    assert_eq!(stderr(&again), "legation: standard input: has been read, and can't be read again\n");
    daemon.close_stdin();
    assert_eq!(daemon.end().0, 0);
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_stop() {
    let home = Home::new("alice", "", "");
    let manager = Manager::bind(&home.path("notify.sock"));
    let daemon = Running::start(
        command().args(["run", "--config", &home.config()]).env("NOTIFY_SOCKET", home.path("notify.sock")),
    );
    let ready = manager.told();
    assert_eq!(ready[0], "READY=1");
    assert!(ready[1].starts_with("STATUS=alice: node alice@127.0.0.1 on port "), "{ready:?}");
    assert!(ready[1].ends_with(", peers on the list: 0"), "{ready:?}");

    home.configure("alice", "", &format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n", some_key()));
    daemon.signal("HUP");
    let reloading = manager.told();
    assert!(reloading[0] == "RELOADING=1" && reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    let ready = manager.told();
    assert!(ready[0] == "READY=1" && ready[1].ends_with(", peers on the list: 1"), "{ready:?}");

    daemon.signal("TERM");
    assert_eq!(manager.told()[0], "STOPPING=1");
    let (code, _, log) = daemon.end();
    assert_eq!(code, 0);
    assert!(log.iter().any(|line| line.ends_with("INFO stopping: waiting for open calls")), "{log:?}");
    assert!(!home.path("control.sock").exists());
}

#[test]
fn a_watchdog_hears_that_the_daemon_lives() {
    let home = Home::new("alice", "", "");
    let manager = Manager::bind(&home.path("notify.sock"));
    // Only the shell knows the number of the process that it becomes.
    let script = "export WATCHDOG_PID=$$; exec \"$@\"";
    let _daemon = Running::start(
        Command::new("sh")
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_legation"), "run", "--config", &home.config()])
            .env("NOTIFY_SOCKET", home.path("notify.sock"))
            .env("WATCHDOG_USEC", "20000"),
    );
    let mut beats = 0;
    while beats < 3 {
        beats += manager.told().iter().filter(|line| *line == "WATCHDOG=1").count();
    }
}

#[test]
fn sigint_stops_it_too() {
    let home = Home::new("alice", "", "");
    let daemon = Running::daemon(&home.config());
    daemon.signal("INT");
    assert_eq!(daemon.end().0, 0);
}

#[test]
fn a_reload_of_a_wrong_configuration_changes_nothing_and_says_what_is_wrong() {
    let home = Home::new("alice", "", "");
    let config = home.config();
    let daemon = Running::daemon(&config);
    home.configure("alice", "threads = 0\n", "");
    daemon.signal("HUP");
    let expected = format!("{config}:4:11: expected `threads` to be an integer from 1 to 1024, got: 0");
    assert!(daemon.logged("not reloaded: ").ends_with(&expected));
    let reloaded = legation(&["reload", "--config", &config]);
    assert_eq!((code(&reloaded), stderr(&reloaded)), (1, format!("legation: {expected}\n")));

    home.configure("alice", "threads = 2\n", "[limits]\ncalls_max = 1\n");
    assert_eq!(done(&["reload", "--config", &config]), "reloaded");
    assert!(daemon.logged("takes effect with the next start").ends_with("changed=\"threads, limits\""));
    daemon.signal("TERM");
    assert_eq!(daemon.end().0, 0);
}

#[test]
fn two_realms_run_in_one_process() {
    let (alice, bob) = (Home::new("alice", "threads = 2\n", ""), Home::new("bob", "", ""));
    let daemon = Running::start(command().args(["run", "--config", &alice.config(), "--config", &bob.config()]));
    daemon.logged("ready realm=alice");
    daemon.logged("ready realm=bob");
    for (home, realm) in [(&alice, "alice"), (&bob, "bob")] {
        assert_eq!(json(&["status", "--config", &home.config(), "--json"])["realm"], realm);
    }
    daemon.signal("TERM");
    assert_eq!(daemon.end().0, 0);
    assert!(!alice.path("control.sock").exists() && !bob.path("control.sock").exists());
}

#[test]
fn a_start_that_fails_says_why_in_one_line() {
    let home = Home::new("alice", "", "");
    let config = home.config();
    std::fs::write(home.path("control.sock"), "a file").unwrap();
    let expected = format!("alice: {}: there is a file of that name that is no socket", home.text("control.sock"));
    let failed = legation(&["run", "--config", &config]);
    assert_eq!((code(&failed), stdout(&failed).as_str()), (1, ""));
    assert_eq!(stderr(&failed), format!("legation: {expected}\n"));

    // An owner reads it as a line of the log.
    let (code, stdout, log) = Running::start(command().args(["run", "--config", &config, "--supervised"])).end();
    assert_eq!((code, stdout, log), (1, Vec::new(), vec![format!("ERROR {expected}")]));
}

#[test]
fn a_second_daemon_of_one_configuration_does_not_start() {
    let home = Home::new("alice", "", "");
    let first = Running::daemon(&home.config());
    let second = legation(&["run", "--config", &home.config()]);
    assert_eq!(code(&second), 1);
    let expected = format!("legation: alice: {}: another process listens there\n", home.text("control.sock"));
    assert_eq!(stderr(&second), expected);
    done(&["status", "--config", &home.config()]);
    first.signal("TERM");
    assert_eq!(first.end().0, 0);
}

#[test]
fn wrong_configurations_and_arguments_have_exit_code_2() {
    let home = Home::new("alice", "threads = 0\n", "");
    let wrong = legation(&["run", "--config", &home.config(), "--supervised"]);
    assert_eq!(code(&wrong), 2);
    assert!(
        stderr(&wrong).starts_with(&format!("ERROR {}:4:11: expected `threads`", home.config())),
        "{}",
        stderr(&wrong)
    );
    let two = legation(&["run", "--config", "a", "--config", "b", "--supervised"]);
    assert_eq!(code(&two), 2);
    assert_eq!(code(&legation(&["run", "--config", "-", "--config", "-"])), 2);
    assert_eq!(code(&legation(&["run"])), 2);
    let filter = command().args(["run", "--config", &home.config()]).env("LEGATION_LOG", "a=b=c").output().unwrap();
    assert_eq!(code(&filter), 2);
    assert!(stderr(&filter).starts_with("legation: $LEGATION_LOG: "), "{}", stderr(&filter));
}

#[test]
fn logs_may_be_json_and_are_as_detailed_as_asked() {
    let home = Home::new("alice", "", "");
    let daemon = Running::start(command().args(["run", "--config", &home.config(), "--log-format", "json"]));
    let line: serde_json::Value = serde_json::from_str(&daemon.logged("\"ready\"")).unwrap();
    assert_eq!((&line["level"], &line["fields"]["realm"]), (&"INFO".into(), &"alice".into()));
    assert!(line["time"].is_string());
    daemon.signal("TERM");
    assert_eq!(daemon.end().0, 0);

    let quiet = Running::start(
        command().args(["run", "--config", &home.config(), "--supervised"]).env("LEGATION_LOG", "error"),
    );
    quiet.line();
    quiet.signal("TERM");
    assert_eq!(quiet.end(), (0, Vec::new(), Vec::new()));
}
