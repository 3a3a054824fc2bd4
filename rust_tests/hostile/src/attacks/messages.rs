//! Messages to who mustn't get them, and of what no message may hold.

use super::{hold, Attack};
use crate::batch::{kind, RawMessage, EXIT_SENT};
use crate::link::Link;
use crate::options::E1;
use crate::random::fresh;
use crate::term;

impl Attack<'_> {
    /// Whether there is one of this name.
    pub(super) fn messages(&mut self, name: &str, link: &mut Link) -> Result<bool, String> {
        match name {
            "reserved-targets" => self.reserved_targets(link),
            "disguised-sends" => {
                let node = &self.options.node;
                let with_reference = term::payload(&term::tuple(&[term::reference(node, 1), term::small(1)]));
                for (_, payload) in term::disguises().into_iter().chain([("reference".to_owned(), with_reference)]) {
                    self.send(link, vec![RawMessage::send(&self.options.engine, &payload)]);
                }
            }
            // A process of ours ends another's, by the reason that nobody can keep off.
            "kill" => {
                let cast = RawMessage::cast(&self.options.engine, &term::payload(&term::atom("kill")));
                self.send(link, vec![RawMessage { kind: kind::EXIT, caller: 1, detail: EXIT_SENT, ..cast }]);
            }
            "new-atoms" => self.new_atoms(link),
            "pids" => self.pids(link),
            "bad-terms" => self.bad_terms(link),
            "payloads" => self.payloads(link)?,
            "casts" => {
                for number in 0..self.options.count {
                    let cast = RawMessage::cast(&self.options.engine, &term::number(number as u32));
                    self.send(link, vec![cast]);
                }
            }
            // Each from another process of ours.
            "many-callers" => {
                for number in 1..=self.options.count as u64 {
                    let call = self.call(&self.options.engine, &term::text("hello"));
                    self.send(link, vec![RawMessage { caller: number, ..call }]);
                }
            }
            // It asks for credit from nobody, takes nothing, and says so.
            "stalled-reader" => {
                link.pump();
                link.stop_reading();
                hold();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn reserved_targets(&mut self, link: &mut Link) {
        let targets = [
            "init",
            "rex",
            "code_server",
            "net_kernel",
            "kernel_sup",
            "application_controller",
            "erl_prim_loader",
            "error_logger",
            "logger",
            "file_server_2",
            "global_name_server",
            "inet_db",
            "user",
            "Elixir.Legation.Supervisor",
            "Elixir.Legation.Directory",
            "Elixir.Legation.Keyholder",
            "Elixir.Legation",
        ];
        let payload = term::text("reserved");
        for target in targets {
            let messages = self.all_ways(target, &payload);
            self.send(link, messages);
        }
    }

    fn new_atoms(&mut self, link: &mut Link) {
        let engine = self.options.engine.clone();
        let tag = fresh()[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for start in (0..self.options.count).step_by(100) {
            let mut messages = Vec::new();
            for number in start..self.options.count.min(start + 100) {
                let mut name = format!("new_{tag}_{number}");
                if number % 10 == 0 {
                    name += &"x".repeat(255 - name.len());
                }
                let payload = term::payload(&term::atom(&name));
                messages.push(match number % 2 {
                    0 => RawMessage::cast(&engine, &payload),
                    _ => self.call(&engine, &payload),
                });
            }
            self.send(link, messages);
        }
    }

    fn pids(&mut self, link: &mut Link) {
        let engine = self.options.engine.clone();
        for node in ["unknown_node@nowhere", &self.options.node] {
            let fun = [vec![112, 0, 0, 0, 30, 0], vec![7; 40]].concat();
            let elements = [
                term::pid(node, 99_999),
                term::reference(node, 99_999),
                term::port(node, 99_999),
                fun,
                term::export("erlang", "halt", 0),
                term::tuple(&[term::small(1), term::list(&[term::pid(node, 99_999)], &[106])]),
            ];
            for element in elements {
                let messages = self.all_ways(&engine, &term::payload(&element));
                self.send(link, messages);
            }
        }
    }

    fn bad_terms(&mut self, link: &mut Link) {
        let engine = self.options.engine.clone();
        let compressed =
            [&[131, 80][..], &u32::MAX.to_be_bytes(), &[0x78, 0x9c, 0x4b, 0x4c, 0x4a, 0x06, 0x00]].concat();
        // All together less than an engine gives credit for.
        let terms = [
            [vec![131], [104, 1].repeat(15_000), vec![106]].concat(),
            [vec![131], [108, 0, 0, 0, 1].repeat(6_000), vec![106]].concat(),
            vec![131, 108, 255, 255, 255, 255],
            vec![131, 105, 255, 255, 255, 255],
            vec![131, 116, 255, 255, 255, 255],
            // A key twice: over distribution ERTS drops the connection for it.
            vec![131, 116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 1, 97, 2],
            vec![131, 116, 0, 0, 0, 2, 97, 1, 97, 1, 98, 0, 0, 0, 1, 97, 2],
            vec![131, 104, 1, 116, 0, 0, 0, 2, 107, 0, 1, 5, 97, 1, 108, 0, 0, 0, 1, 97, 5, 106, 97, 2],
            vec![131, 109, 255, 255, 255, 255],
            vec![131, 111, 255, 255, 255, 255, 0],
            compressed,
            vec![131, 108, 0, 0, 0, 0, 106],
            vec![131, 82, 0],
            vec![131, 68, 0],
            vec![131],
            vec![],
            vec![130, 106],
            vec![131, 106, 0],
        ];
        for term in terms {
            let messages = self.all_ways(&engine, &term);
            self.send(link, messages);
        }
    }

    /// Those of a file, each with its length before it (u32): each by a call of its own, and the next when that is answered.
    fn payloads(&mut self, link: &mut Link) -> Result<(), String> {
        let engine = self.options.engine.clone();
        let file = std::fs::read(&self.options.file).map_err(|error| error.to_string())?;
        let mut rest = &file[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let payload = after.get(..length).ok_or("the file ends too early")?;
            rest = &after[length..];
            let call = self.call(&engine, payload);
            self.sent += 1;
            link.peer.send(E1, vec![call]);
            self.settle(link);
        }
        Ok(())
    }
}
