//! `legation check`, and the files in `packaging`.

mod cli_support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cli_support::*;
use legation_node::config::{parse, Limits};

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

#[test]
fn a_configuration_that_is_right_is_described() {
    let home = Home::new("alice", "", &format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n", some_key()));
    let config = home.config();
    assert_eq!(
        done(&["check", "--config", &config]),
        format!("{config}: ok (realm alice, node alice@127.0.0.1, peers 1)")
    );
    let report = json(&["check", "--config", &config, "--json"]);
    assert_eq!((&report["ok"], &report["configs"][0]["warnings"]), (&true.into(), &serde_json::json!([])));
}

#[test]
fn all_that_is_wrong_comes_with_file_line_and_column_and_exit_code_2() {
    let home = Home::new("alice", "threads = \"many\"\n", "[limits]\ncalls_max = 0\n");
    let config = home.config();
    let wrong = legation(&["check", "--config", &config]);
    assert_eq!((code(&wrong), stdout(&wrong).as_str()), (2, ""));
    let expected = format!(
        "{config}:4:11: expected `threads` to be an integer from 1 to 1024, got: \"many\"\n\
         {config}:11:13: expected `calls_max` to be an integer from 1 to 281474976710655, got: 0 (in [limits])\n"
    );
    assert_eq!(stderr(&wrong), expected);

    let wrong = legation(&["check", "--config", &config, "--json"]);
    assert_eq!((code(&wrong), stderr(&wrong).as_str()), (2, ""));
    let report: serde_json::Value = serde_json::from_str(&stdout(&wrong)).unwrap();
    let problem = &report["problems"][1];
    assert_eq!((&problem["file"], &problem["line"], &problem["column"]), (&config.into(), &11.into(), &13.into()));
}

#[test]
fn files_that_a_configuration_names_are_looked_into() {
    let peers = format!("[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n", some_key());
    let home = Home::new("alice", "network_key = \"net.key\"\n", &peers);
    let config = home.config();
    let said = || stderr(&legation(&["check", "--config", &config]));

    assert_eq!(said(), format!("{config}:4:15: `network_key`: {}: no such file or directory\n", home.text("net.key")));
    home.write("net.key", "not 64 digits");
    assert!(said().contains(":4:15: `network_key`: ") && said().contains("not a network key"), "{}", said());
    std::fs::remove_file(home.path("net.key")).unwrap();
    done(&["key", "network", &home.text("net.key")]);
    assert_eq!(said(), "");

    home.write("key.pem", "no key");
    assert!(said().starts_with(&format!("{config}:2:7: `key`: ")), "{}", said());
    std::fs::remove_file(home.path("key.pem")).unwrap();
    let own = done(&["key", "new", &home.text("key.pem")]);
    home.configure("alice", "", &format!("[[peers]]\nrealm = \"bob\"\nkey = \"{own}\"\n"));
    assert_eq!(said(), format!("{config}:11:7: expected the key of peer \"bob\" not to be our own\n"));
}

#[test]
fn a_cookie_comes_from_the_first_line_of_its_file() {
    let home = Home::new("alice", "", "");
    let text = std::fs::read_to_string(home.path("config.toml")).unwrap();
    home.write("config.toml", &text.replace("cookie = \"biscuit\"", "cookie_file = \"cookie\""));
    let config = home.config();
    assert!(stderr(&legation(&["check", "--config", &config])).contains(":7:15: `cookie_file`: "));
    home.write("cookie", "biscuit\n");
    done(&["check", "--config", &config]);
    home.write("cookie", "\nbiscuit");
    let wrong = stderr(&legation(&["check", "--config", &config]));
    assert!(
        wrong.contains("expected its first line to be 1 to 255 characters") && !wrong.contains("biscuit"),
        "{wrong}"
    );
}

#[test]
fn secrets_that_others_can_read_are_a_warning() {
    let home = Home::new("alice", "", "");
    for name in ["config.toml", "key.pem"] {
        std::fs::set_permissions(home.path(name), std::fs::Permissions::from_mode(0o640)).unwrap();
    }
    let checked = legation(&["check", "--config", &home.config()]);
    assert_eq!(code(&checked), 0);
    for name in ["config.toml", "key.pem"] {
        let warning = format!("warning: {} can be read by others (mode 640); chmod 600 it", home.text(name));
        assert!(stderr(&checked).contains(&warning), "{}", stderr(&checked));
    }
}

#[test]
fn configurations_of_one_process_differ_in_realm_node_and_control_socket() {
    let (alice, bob) = (Home::new("alice", "", ""), Home::new("bob", "", ""));
    done(&["check", "--config", &alice.config(), "--config", &bob.config()]);
    let twice = legation(&["check", "--config", &alice.config(), "--config", &alice.config()]);
    assert_eq!(code(&twice), 2);
    assert!(stderr(&twice).contains("expected another realm than that of"), "{}", stderr(&twice));
}

#[test]
fn a_configuration_that_is_not_there_and_no_configuration_have_exit_code_2() {
    let missing = legation(&["check", "--config", "/nowhere/c.toml"]);
    assert_eq!((code(&missing), stderr(&missing).as_str()), (2, "/nowhere/c.toml: no such file or directory\n"));
    assert_eq!(code(&legation(&["check"])), 2);
    assert_eq!(code(&legation(&[])), 2);
    assert_eq!(code(&legation(&["--help"])), 0);
}

#[test]
fn the_example_is_right() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    std::fs::copy(packaging("legation.toml"), path("legation.toml")).unwrap();
    done(&["key", "new", &path("alice.pem")]);
    done(&["key", "network", &path("net.key")]);
    std::fs::write(path("cookie"), "biscuit\n").unwrap();
    done(&["check", "--config", &path("legation.toml")]);
}

#[test]
fn the_example_names_every_limit_with_its_default() {
    let example = std::fs::read_to_string(packaging("legation.toml")).unwrap();
    let (_, limits) = example.split_once("[limits]\n").unwrap();
    let limits: String = limits
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| rest.contains(" = ")))
        .map(|line| format!("{line}\n"))
        .collect();
    let text = |limits: &str| {
        format!("realm = \"a\"\nkey = \"k\"\n[node]\nname = \"a@h\"\ncookie = \"x\"\n[limits]\n{limits}")
    };
    let read = parse("example", &text(&limits), Path::new("/")).unwrap();
    assert_eq!(read.config.limits, Limits::default());
    // The daemon's own list of them.
    let error = parse("example", &text("unknown = 1\n"), Path::new("/")).unwrap_err().to_string();
    let (_, known) = error.split_once("known are ").unwrap();
    for name in known.split(", ") {
        assert!(limits.contains(&format!("{name} = ")), "{name}");
    }
}

#[test]
fn systemd_takes_the_unit() {
    let unit = std::fs::read_to_string(packaging("legation.service")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("legation.service");
    // Where it isn't installed it has no binary.
    std::fs::write(&path, unit.replace("/usr/local/bin/legation", env!("CARGO_BIN_EXE_legation"))).unwrap();
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else { return };
    assert!(verified.status.success() && verified.stderr.is_empty(), "{}", stderr(&verified));
}
