//! The binary `legation`, run as its users run it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::time::Duration;

/// Nothing takes so long; it only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_legation"));
    for variable in
        ["LEGATION_SOCKET", "LEGATION_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"]
    {
        command.env_remove(variable);
    }
    command
}

pub fn legation(arguments: &[&str]) -> Output {
    command().args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Standard output of a command that has to do what it is told.
pub fn done(arguments: &[&str]) -> String {
    let output = legation(arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
    stdout(&output).trim_end().to_owned()
}

pub fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&done(arguments)).unwrap()
}

/// A directory with a realm's files.
pub struct Home(tempfile::TempDir);

impl Home {
    /// With a key, and a configuration that needs neither EPMD nor a fixed port. `top` and `rest` go before its tables
    /// and behind them.
    pub fn new(realm: &str, top: &str, rest: &str) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        done(&["key", "new", &home.text("key.pem")]);
        home.configure(realm, top, rest);
        home
    }

    pub fn configure(&self, realm: &str, top: &str, rest: &str) {
        let key = if top.contains("agent = ") { "" } else { "key = \"key.pem\"\n" };
        let node = format!("[node]\nname = \"{realm}@127.0.0.1\"\ncookie = \"biscuit\"\nepmd = false\n");
        self.write(
            "config.toml",
            &format!("realm = \"{realm}\"\n{key}control_socket = \"control.sock\"\n{top}\n{node}{rest}"),
        );
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn config(&self) -> String {
        self.text("config.toml")
    }

    /// A file that only its owner can read.
    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A public key that is nobody's here.
pub fn some_key() -> String {
    let directory = tempfile::tempdir().unwrap();
    done(&["key", "new", directory.path().join("k").to_str().unwrap()])
}

/// A running command. Killed when dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Running { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// A daemon that is ready.
    pub fn daemon(config: &str) -> Running {
        let daemon = Running::start(command().args(["run", "--config", config]));
        daemon.logged(" ready ");
        daemon
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line of standard output.
    pub fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap()
    }

    /// The next line of the log that has `part` in it.
    pub fn logged(&self, part: &str) -> String {
        let mut before = Vec::new();
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => before.push(line),
                Err(error) => panic!("{error}: no {part:?} in {before:#?}"),
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end by itself: exit code, what was left on standard output and on standard error.
    pub fn end(mut self) -> (i32, Vec<String>, Vec<String>) {
        let (stdout, stderr) = (rest(&self.stdout), rest(&self.stderr));
        (self.child.wait().unwrap().code().unwrap(), stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
    });
    lines
}

/// All lines up to the end of the stream.
fn rest(lines: &Receiver<String>) -> Vec<String> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => panic!("it goes on after {rest:#?}"),
        }
    }
}

/// A service manager.
pub struct Manager(UnixDatagram);

impl Manager {
    pub fn bind(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(socket)
    }

    /// The next notification's lines.
    pub fn told(&self) -> Vec<String> {
        let mut bytes = [0; 4_096];
        let length = self.0.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }
}
