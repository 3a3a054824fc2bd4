//! Callers of the control engine that wait for room in the queue towards a peer, as `Legation.call/4` and `cast/3` do.

use legation_proto::session::{Delivery, Room};

use crate::dist::term;
use crate::realm::node::Node;
use crate::realm::outgoing::reason_of;
use crate::realm::request::{classify, Request};
use crate::realm::terms::{self, atom, error};
use crate::realm::{lock, Body, Realm};

/// Whoever is told when there is room.
#[derive(Debug)]
pub struct Waiter {
    pub called: u64,
    pub pid: Vec<u8>,
    pub tag: Vec<u8>,
}

impl Realm {
    /// `ok` when a message of so many bytes to a foreign engine may be tried; it may be refused again.
    pub(crate) fn wait_for_room(&self, waiter: Waiter, full_name: &str, bytes: u64) {
        let number = lock(&self.space).whereis(full_name.as_bytes());
        let body = number.and_then(|number| self.body(number));
        let Some(Body::Proxy(proxy)) = body.as_deref() else {
            return self.answer_waiter(&waiter, &error(atom("noproc")));
        };
        let token = self.new_number();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // Entered first: the token may come back at once.
        lock(&self.room).insert(token, waiter);
        let answer = match proxy.session.core.wait_room(&proxy.engine, bytes, token) {
            Room::Later => return,
            Room::Now => atom("ok"),
            Room::Full => error(atom("overload")),
        };
        if let Some(waiter) = lock(&self.room).remove(&token) {
            self.answer_waiter(&waiter, &answer);
        }
    }

    /// A cast or a plain message, version byte first, to one of our processes; what became of it is told, and not counted as a drop.
    pub(crate) fn push_told(
        &self,
        node: &Node,
        caller: &[u8],
        to: &[u8],
        message: &mut [u8],
    ) -> Result<(), &'static str> {
        let body = term::pid(to).and_then(|pid| self.number_of(&pid)).and_then(|number| self.body(number));
        let target = body.as_deref().and_then(Body::target).ok_or("ended")?;
        lock(&node.atoms).learn(message);
        let source = self.published_as(caller).unwrap_or_default();
        let (delivery, payload) = match classify(message) {
            Request::Call { .. } => return Err("bad_term"),
            Request::Plain => (Delivery::Send, &*message),
            Request::Cast { message: content } => {
                // What stood before it has been looked at.
                let start = content.start - 1;
                message[start] = term::VERSION;
                (Delivery::Cast, &message[start..content.end])
            }
        };
        match target.session.core.push(delivery, &source, target.destination, payload, false) {
            Ok(pushed) => {
                self.was_pushed(target.session, pushed.wake, &pushed.exported);
                Ok(())
            }
            Err(error) => {
                self.close_overloaded(target, error);
                Err(reason_of(error))
            }
        }
    }

    pub(crate) fn room_is_there(&self, tokens: Vec<u64>) {
        let waiters: Vec<Waiter> = {
            let mut room = lock(&self.room);
            tokens.into_iter().filter_map(|token| room.remove(&token)).collect()
        };
        for waiter in waiters {
            self.answer_waiter(&waiter, &atom("ok"));
        }
    }

    fn answer_waiter(&self, waiter: &Waiter, answer: &erl_dist::term::Term) {
        let mut reply = Vec::with_capacity(32);
        terms::put(&mut reply, answer);
        self.answer(waiter.called, &waiter.pid, &waiter.tag, &[&reply]);
    }
}
