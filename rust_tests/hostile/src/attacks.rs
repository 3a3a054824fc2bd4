//! What it can do, by name.

mod announcements;
mod batches;
mod frames;
mod handshake;
mod lengths;
mod listener;
mod malformed;
mod messages;

use std::io::{BufRead, Write};
use std::time::Duration;

use crate::batch::RawMessage;
use crate::frame;
use crate::link::Link;
use crate::options::{Options, ANSWER_WAIT, E1};

/// # Errors
/// When it can't even be tried.
pub fn run(options: &Options) -> Result<(), String> {
    match options.attack.as_str() {
        "stall-at" | "cut-at" => handshake::stall(options),
        "cut-everywhere" => handshake::cut_everywhere(options),
        "stall-everywhere" => handshake::stall_everywhere(options),
        "replay-knock" => handshake::replay_knock(options),
        "replay-handshake" => handshake::replay_handshake(options),
        "wrong-network" => handshake::wrong_network(options),
        "wrong-keys" => handshake::wrong_keys(options),
        "hellos" => handshake::hellos(options),
        "half-open" => handshake::half_open(options),
        "slow-loris" => handshake::slow_loris(options),
        "lengths" => lengths::everywhere(options),
        "malformed" => malformed::all(options),
        "plausible" => frames::plausible(options),
        "other-session" => batches::other_session(options),
        "weak-keys" => announcements::weak_keys(options),
        name if name.starts_with("listen-") => listener::run(options),
        _ => on_a_link(options),
    }
}

/// Those that need one link that is up.
fn on_a_link(options: &Options) -> Result<(), String> {
    let (mut link, up) = options.up()?;
    if !up {
        println!("sent=0");
        report(&mut link);
        return Ok(());
    }
    let mut attack = Attack { options, sent: 0, next_call: 1 };
    attack.perform(&mut link)?;
    let calls = attack.next_call as usize - 1;
    link.run(ANSWER_WAIT, |link| link.peer.answers() >= calls || link.peer.told.is_some());
    println!("sent={}", attack.sent);
    report(&mut link);
    if options.attack == "none" {
        println!("ok");
    }
    Ok(())
}

fn report(link: &mut Link) {
    let errors: Vec<String> = link.peer.errors.iter().map(|(name, count)| format!("{name}:{count}")).collect();
    println!("replies={} errors={}", link.peer.replies, errors.join(","));
    println!("bytes_back={}", link.bytes_in);
    println!("link={}", link.state(ANSWER_WAIT));
}

/// Says that it is ready, and waits until it is to end.
fn hold() {
    println!("ready");
    let _shown = std::io::stdout().flush();
    let _line = std::io::stdin().lock().read_line(&mut String::new());
}

/// Under way on a link that is up.
struct Attack<'a> {
    options: &'a Options,
    sent: usize,
    next_call: u64,
}

impl Attack<'_> {
    fn perform(&mut self, link: &mut Link) -> Result<(), String> {
        let engine = self.options.engine.clone();
        match self.options.attack.as_str() {
            "none" => self.send(link, self.casts(&["hello"])),
            "call" => {
                let call = self.call(&engine, &crate::term::text("hello"));
                self.send(link, vec![call]);
            }
            name if self.batches(name, link)? || self.messages(name, link)? || self.announcements(name, link) => {}
            name if self.frames(name, link) => {}
            unknown => return Err(format!("{unknown}: no such attack")),
        }
        Ok(())
    }

    fn casts(&self, texts: &[&str]) -> Vec<RawMessage> {
        texts.iter().map(|text| RawMessage::cast(&self.options.engine, &crate::term::text(text))).collect()
    }

    fn send(&mut self, link: &mut Link, messages: Vec<RawMessage>) {
        self.sent += messages.len();
        link.peer.send(E1, messages);
        link.pump();
    }

    fn batch(&mut self, link: &mut Link, body: &[u8]) {
        self.sent += 1;
        link.peer.write_frame(frame::BATCH, body);
    }

    fn call(&mut self, engine: &str, payload: &[u8]) -> RawMessage {
        let call_id = self.next_call;
        self.next_call += 1;
        RawMessage::call(engine, call_id, 1, payload)
    }

    /// The same payload in every way there is.
    fn all_ways(&mut self, engine: &str, payload: &[u8]) -> Vec<RawMessage> {
        let call = self.call(engine, payload);
        vec![RawMessage::cast(engine, payload), RawMessage::send(engine, payload), call]
    }

    /// What was answered by now, for those who go on afterwards.
    fn settle(&self, link: &mut Link) {
        let calls = self.next_call as usize - 1;
        link.run(Duration::from_secs(2), |link| link.peer.answers() >= calls || link.peer.told.is_some());
    }
}
