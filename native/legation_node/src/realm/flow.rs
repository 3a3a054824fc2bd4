//! Credit for peers: how much of what they have sent to an engine has been worked off there.
//!
//! ```text
//!  half of an engine's window has come ─► process_info(Pid, message_queue_len) ─► grant what isn't waiting there
//!                       ▲                                                              │
//!                       └────────── after 10 ms to 1 s, as long as something is owed ◄─┘
//! ```
//!
//! A node is asked one question about an engine at a time. Who comes while it is out waits for the next: its answer may be from before
//! what came since, which is therefore taken to be waiting.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use legation_proto::frame::batch::Address;

use crate::dist::term;
use crate::peers::PeerSession;
use crate::realm::node::Node;
use crate::realm::{lock, read, Realm};

/// Between two looks at a mailbox from which nothing goes.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// What is being asked about mailboxes.
#[derive(Debug, Default)]
pub struct Mailboxes {
    /// By engine of ours.
    open: HashMap<Box<str>, Question>,
}

#[derive(Debug)]
struct Question {
    /// Who gets credit by the answer, for messages up to the mark that its session had when it was asked.
    asked: Vec<(Arc<PeerSession>, u64)>,
    /// And by the next.
    later: Vec<Arc<PeerSession>>,
}

impl Mailboxes {
    /// True: to be asked now.
    fn ask(&mut self, engine: &str, session: &Arc<PeerSession>, mark: u64) -> bool {
        match self.open.get_mut(engine) {
            None => {
                self.open.insert(engine.into(), Question { asked: vec![(session.clone(), mark)], later: Vec::new() });
                true
            }
            Some(question) => {
                if !question.later.iter().any(|waiting| waiting.tag == session.tag) {
                    question.later.push(session.clone());
                }
                false
            }
        }
    }

    /// Who gets credit. True: to be asked again.
    fn answered(&mut self, engine: &str) -> (Vec<(Arc<PeerSession>, u64)>, bool) {
        let Some(question) = self.open.get_mut(engine) else { return (Vec::new(), false) };
        let later = std::mem::take(&mut question.later).into_iter();
        let later = later.map(|session| (session.clone(), session.core.mark(engine))).collect();
        let asked = std::mem::replace(&mut question.asked, later);
        let again = !question.asked.is_empty();
        if !again {
            self.open.remove(engine);
        }
        (asked, again)
    }
}

impl Realm {
    /// What has come on a link has been delivered: mailboxes are looked at where half of a window is owed.
    pub(crate) fn look_at_mailboxes(&self, session: &Arc<PeerSession>) {
        if self.look_once(session) && session.begin_looking() {
            if let Some(realm) = self.me() {
                tokio::spawn(keep_looking(Arc::downgrade(&realm), session.clone()));
            }
        }
    }

    /// False: nothing is owed.
    fn look_once(&self, session: &Arc<PeerSession>) -> bool {
        let mut due: Vec<Box<str>> = Vec::new();
        let any = session.core.debts(|destination, _messages| due.push(destination.into()));
        for destination in due {
            self.look_at(session, destination);
        }
        any
    }

    fn look_at(&self, session: &Arc<PeerSession>, engine: Box<str>) {
        let mark = session.core.mark(&engine);
        let Some((node, pid)) = self.mailbox_of(session, &engine) else {
            // Nobody is there, so nothing waits there.
            grant(session, &engine, 0, mark);
            return;
        };
        // What waits for the node's word on an atom is in no mailbox yet.
        if lock(&node.holds).contains_key(&session.tag) || !lock(&self.mailboxes).ask(&engine, session, mark) {
            return;
        }
        let Some(realm) = self.me() else { return };
        tokio::spawn(realm.ask_mailbox(engine, node, pid));
    }

    async fn ask_mailbox(self: Arc<Realm>, engine: Box<str>, node: Arc<Node>, pid: Box<[u8]>) {
        let mut again = true;
        while again {
            self.counters.mailboxes_asked.one();
            let mut arguments = Vec::with_capacity(80);
            term::put_list_header(&mut arguments, 2);
            arguments.extend_from_slice(&pid);
            term::put_atom(&mut arguments, "message_queue_len");
            term::put_nil(&mut arguments);
            let answer = self.call(&node, "erlang", "process_info", &arguments).await;
            let asked;
            (asked, again) = lock(&self.mailboxes).answered(&engine);
            // No answer is no credit: who is owed something looks again. But one that is not there any more holds nothing back.
            let left = match &answer {
                Some(answer) => Some(queue_length(answer).unwrap_or(0)),
                None if !self.is_connected(&node) => Some(0),
                None => None,
            };
            if let Some(left) = left {
                asked.iter().for_each(|(session, mark)| grant(session, &engine, left, *mark));
            }
        }
    }

    /// The process that messages to an engine of ours go to.
    fn mailbox_of(&self, session: &PeerSession, destination: &str) -> Option<(Arc<Node>, Box<[u8]>)> {
        let raw: Box<[u8]> = match Address::parse(destination)? {
            Address::Engine(engine) => read(&self.engines).get(engine)?.pid.clone(),
            Address::Handle(number) => session.core.export_pid(number)?.as_ref().into(),
        };
        let node = self.node_of(&term::pid(&raw)?)?;
        Some((node, raw))
    }
}

fn grant(session: &PeerSession, destination: &str, left: u64, mark: u64) {
    if session.core.grant_up_to(destination, left, mark) {
        session.wake();
    }
}

async fn keep_looking(realm: Weak<Realm>, session: Arc<PeerSession>) {
    let mut wait = LOOK_AGAIN_MIN;
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN_MAX);
        let Some(realm) = realm.upgrade().filter(|_| !session.has_ended()) else { break };
        if realm.look_once(&session) {
            continue;
        }
        session.end_looking();
        // What became due before that was said started nobody.
        if !realm.look_once(&session) || !session.begin_looking() {
            return;
        }
        wait = LOOK_AGAIN_MIN;
    }
    session.end_looking();
}

/// `{message_queue_len, N}`; `undefined` for a process that isn't there.
fn queue_length(answer: &[u8]) -> Option<u64> {
    let [_, length] = term::elements::<2>(answer)?;
    term::unsigned(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_mailbox_is_read_from_the_answer() {
        let mut answer = Vec::new();
        term::put_tuple_header(&mut answer, 2);
        term::put_atom(&mut answer, "message_queue_len");
        term::put_u64(&mut answer, 70_000);
        assert_eq!(queue_length(&answer), Some(70_000));
        let mut undefined = Vec::new();
        term::put_atom(&mut undefined, "undefined");
        assert_eq!(queue_length(&undefined), None);
    }
}
