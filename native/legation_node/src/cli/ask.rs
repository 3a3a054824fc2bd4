//! Asking a daemon over its control socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{json, Value};

use super::{say, Failure, Target};
use crate::config::{io_words, Source};

/// A daemon that doesn't answer for so long never will.
const ANSWER_MS: u64 = 10_000;

/// The engines of a thousand peers, say.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

impl Target {
    /// Asks, and prints the answer as it came or as a table.
    pub fn show(&self, operation: &str, table: fn(&Value) -> String) -> Result<(), Failure> {
        let answer = self.ask(json!({"op": operation}), 0)?;
        match self.json {
            true => say(&answer.to_string()),
            false => say(table(&answer).trim_end()),
        }
        Ok(())
    }

    /// Has something done.
    pub fn tell(&self, request: Value, done: &str) -> Result<(), Failure> {
        let answer = self.ask(request, 0)?;
        match self.json {
            true => say(&answer.to_string()),
            false => say(done),
        }
        Ok(())
    }

    pub fn drain(&self, timeout_ms: u32) -> Result<(), Failure> {
        let answer = self.ask(json!({"op": "drain", "timeout_ms": timeout_ms}), u64::from(timeout_ms))?;
        if self.json {
            say(&answer.to_string());
            return Ok(());
        }
        match answer.as_array().map_or(0, Vec::len) {
            0 => say("drained"),
            1 => say("drained; one open call was cut"),
            cut => say(&format!("drained; {cut} open calls were cut")),
        }
        Ok(())
    }

    fn ask(&self, mut request: Value, longer_ms: u64) -> Result<Value, Failure> {
        let path = self.path()?;
        request["id"] = 1.into();
        let answer = exchange(&path, &request, Duration::from_millis(ANSWER_MS + longer_ms))
            .map_err(|words| Failure::Unreachable(format!("no daemon answers at {}: {words}", path.display())))?;
        if let Some(error) = answer.get("error") {
            if self.json {
                say(&json!({"error": error}).to_string());
            }
            let message = error.get("message").and_then(Value::as_str).unwrap_or("refused");
            return Err(Failure::Failed(message.to_owned()));
        }
        Ok(answer.get("ok").cloned().unwrap_or(Value::Null))
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        match (&self.config, &self.socket, std::env::var_os("LEGATION_SOCKET")) {
            (Some(config), _, _) => Ok(Source::from(config.as_path()).control_socket()?),
            (None, Some(socket), _) => Ok(socket.clone()),
            (None, None, Some(socket)) if !socket.is_empty() => Ok(socket.into()),
            _ => {
                Err(Failure::Usage("which daemon? --config FILE or --socket PATH or $LEGATION_SOCKET says".to_owned()))
            }
        }
    }
}

fn exchange(path: &Path, request: &Value, within: Duration) -> Result<Value, String> {
    let words = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "it takes too long".to_owned(),
        _ => io_words(&error),
    };
    let mut stream = UnixStream::connect(path).map_err(words)?;
    stream.set_read_timeout(Some(within)).map_err(words)?;
    stream.set_write_timeout(Some(within)).map_err(words)?;
    // A daemon that has too many connections has said so and closed: what it said counts.
    let sent = stream.write_all(format!("{request}\n").as_bytes());
    let mut line = Vec::new();
    let read = BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut line);
    if line.is_empty() {
        sent.map_err(words)?;
        read.map_err(words)?;
        return Err("it closed the connection".to_owned());
    }
    serde_json::from_slice(&line).map_err(|_| "what it answers is no JSON".to_owned())
}
