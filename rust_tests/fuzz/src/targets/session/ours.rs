//! What our own side does meanwhile.

use legation_proto::frame::batch::Refusal;
use legation_proto::frame::forget::ForgetReason;
use rust_tests::term;

use super::engine;
use super::script::Operation;
use super::world::World;
use crate::targets::elements;

impl World {
    /// What our own side does.
    pub(super) fn ours(&mut self, operation: &Operation) {
        let versus = &mut self.lines[self.current].versus;
        let side = &mut versus.side;
        match operation {
            Operation::Export(number) => side.export(["b", "c", "d"][usize::from(number % 3)]),
            Operation::Withdraw(number) => {
                side.withdraw(["b", "c", "d"][usize::from(number % 3)], ForgetReason::Normal);
            }
            Operation::Say { what, engine: name } => {
                let payload = term::payload(&elements()[usize::from(*what) % elements().len()]);
                let result = match what % 2 {
                    0 => side.cast("b", engine(*name), &payload),
                    _ => side.send("b", engine(*name), &payload),
                };
                // Refused where there is no such engine, or no room.
                let _ = result;
            }
            Operation::Call { engine: name } => {
                self.call(engine(*name), *name);
            }
            Operation::Answer { which, refuse } if !self.asked.is_empty() => {
                let call = self.asked[usize::from(*which) % self.asked.len()];
                match refuse {
                    true => side.refuse(call, Refusal::Forbidden),
                    false => drop(side.reply(call, &term::number(1))),
                }
            }
            Operation::Ended { number, reason } => {
                let reason = ForgetReason::ALL[usize::from(reason % 8)];
                let pushed = side.session().export_ended((number % 8).into(), reason, None);
                side.pushed(pushed);
            }
            Operation::Abandon(number) => {
                let wake = side.session().abandon((number % 8).into());
                side.woken(wake);
            }
            _ => {}
        }
    }

    /// Asks an engine of the peer's; what is asked has the number by which its answer is known again.
    pub(super) fn call(&mut self, engine: &str, caller: u8) {
        self.calls += 1;
        let (context, payload) = (self.calls.to_le_bytes(), term::number(self.calls));
        let versus = &mut self.lines[self.current].versus;
        // Refused where there is no such engine, or no room.
        drop(versus.side.call(versus.now, engine, &[caller % 3], &context, &payload));
    }
}
