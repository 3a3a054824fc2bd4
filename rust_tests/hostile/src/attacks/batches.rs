//! Batches that are not what they claim to be.

use std::time::Duration;

use super::{report, Attack};
use crate::batch::{RawBatch, RawMessage};
use crate::frame;
use crate::keys::sign;
use crate::link::Link;
use crate::options::{Options, ANSWER_WAIT, E1, E2};
use crate::term;

/// One that was signed in a session and comes in the next.
pub fn other_session(options: &Options) -> Result<(), String> {
    let (mut link, up) = options.up()?;
    if !up {
        println!("sent=0");
        report(&mut link);
        return Ok(());
    }
    let old = link.peer.batch(E1, vec![RawMessage::cast(&options.engine, &term::text("from another session"))]);
    let old = link.peer.sealed(&old, E1);
    link.peer.write_frame(frame::CLOSE, &[0, 0, 0]);
    link.run(Duration::from_millis(500), |_| false);
    drop(link);
    let mut link = options.up_again()?;
    link.peer.write_frame(frame::BATCH, &old);
    println!("sent=1");
    report(&mut link);
    Ok(())
}

impl Attack<'_> {
    /// Whether there is one of this name.
    pub(super) fn batches(&mut self, name: &str, link: &mut Link) -> Result<bool, String> {
        match name {
            "tampered-batch" => {
                self.send(link, self.casts(&["good 1"]));
                self.tampered(link, 1);
                self.send(link, self.casts(&["good 2"]));
            }
            "ten-tampered" => self.tampered(link, 10),
            "replayed-batch" => {
                let body = link.peer.send(E1, self.casts(&["once"]));
                link.peer.write_frame(frame::BATCH, &body);
                link.peer.write_frame(frame::BATCH, &body);
                self.sent += 3;
            }
            // Into a file, and out of it as often as is said.
            "record" => {
                let body = link.peer.send(E1, self.casts(&["recorded"]));
                self.sent += 1;
                std::fs::write(&self.options.file, body).map_err(|error| error.to_string())?;
            }
            "replay" => {
                let body = std::fs::read(&self.options.file).map_err(|error| error.to_string())?;
                for _ in 0..self.options.count {
                    self.batch(link, &body);
                }
            }
            "rewrapped" => {
                let batch = link.peer.batch(E1, self.casts(&["rewrapped"]));
                let signature = link.peer.sealed(&batch, E1).split_off(batch.body().len());
                let body = [RawBatch { engine: E2.into(), ..batch }.body(), signature].concat();
                self.batch(link, &body);
                // And signed anew over what it claims, by the wrong engine.
                let batch = link.peer.batch(E2, self.casts(&["rewrapped"]));
                let body = link.peer.sealed(&batch, E1);
                self.batch(link, &body);
            }
            "spliced" => {
                let batch = link.peer.batch(E1, self.casts(&["spliced 1", "spliced 2"]));
                let signature = link.peer.sealed(&batch, E1).split_off(batch.body().len());
                let messages = self.casts(&["spliced 2", "spliced 1"]);
                self.batch(link, &[RawBatch { messages, ..batch }.body(), signature].concat());
                let batch = link.peer.batch(E1, self.casts(&["spliced 3"]));
                let signature = link.peer.sealed(&batch, E1).split_off(batch.body().len());
                let messages = self.casts(&["spliced 4"]);
                self.batch(link, &[RawBatch { messages, ..batch }.body(), signature].concat());
            }
            "spoken-for" => self.spoken_for(link),
            "delegated" => {
                for _ in 0..self.options.count {
                    let messages = self.casts(&["delegated"]);
                    self.delegated(link, messages);
                }
            }
            // Trusted to sign later, it never does, or wrongly, or as it should; what it sends goes without a signature.
            "unproven" | "wrongly-proven" | "proven" => self.on_trust(name, link),
            "gap" => {
                link.peer.next_sequence += 5;
                self.send(link, self.casts(&["beyond a gap"]));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn tampered(&mut self, link: &mut Link, count: usize) {
        for _ in 0..count {
            let batch = link.peer.batch(E1, self.casts(&["tampered"]));
            let mut body = link.peer.sealed(&batch, E1);
            // The last letter of the payload.
            let at = body.len() - 65;
            body[at] ^= 1;
            self.batch(link, &body);
        }
    }

    /// By the realm's online key.
    fn delegated(&mut self, link: &mut Link, messages: Vec<RawMessage>) {
        let batch = RawBatch { mode: 2, ..link.peer.batch("", messages) };
        let body = link.peer.sealed(&batch, "");
        self.batch(link, &body);
    }

    /// For an engine that has said that it wants that, and for those that haven't.
    fn spoken_for(&mut self, link: &mut Link) {
        let mut own = link.peer.learn(E2);
        own.attributes.clear();
        link.peer.write_learn(&own);
        let engine = self.options.engine.clone();
        let from = |source: &str, text: &str| RawMessage {
            source: source.into(),
            ..RawMessage::cast(&engine, &term::text(text))
        };
        let call = RawMessage { source: E2.into(), ..self.call(&engine, &term::text("forged")) };
        let messages = vec![
            from(E1, "one"),
            from(E2, "forged"),
            from("unknown", "forged"),
            call,
            from("", "two"),
            from(E1, "three"),
        ];
        self.delegated(link, messages);
        link.peer.send(E2, vec![RawMessage::cast(&engine, &term::text("four"))]);
        self.sent += 1;
    }

    fn on_trust(&mut self, name: &str, link: &mut Link) {
        let own = link.peer.keys.realm();
        let session = link.peer.session.unwrap_or_default();
        let mut chain = blake3::derive_key("legation/1/checkpoint", &[session, own].concat());
        let first = link.peer.next_sequence;
        for text in ["on trust 1", "on trust 2"] {
            let batch = RawBatch { mode: 3, ..link.peer.batch("", self.casts(&[text])) };
            let body = batch.body();
            chain = *blake3::hash(&[chain, *blake3::hash(&body).as_bytes()].concat()).as_bytes();
            self.batch(link, &body);
        }
        let last = link.peer.next_sequence - 1;
        let span = [&first.to_le_bytes()[..], &last.to_le_bytes(), &chain].concat();
        let signed = [&session[..], &own, &link.peer.peer_realm, &span].concat();
        let signature = match name {
            "proven" => sign(&link.peer.keys.online, "checkpoint", &link.peer.network, &signed),
            _ => [7; 64],
        };
        if name != "unproven" {
            link.peer.write_frame(frame::CHECKPOINT, &[&span[..], &signature].concat());
        }
        let proven = name == "proven";
        link.run(ANSWER_WAIT, |link| proven || link.peer.told.is_some());
    }
}
