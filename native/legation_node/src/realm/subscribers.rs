//! BEAM processes that hear of peers and engines: first how it is, then every change, with no gap between.
//!
//! Whoever changes something and tells of it holds this lock for both, and so does whoever takes a snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use erl_dist::term::Term;

use crate::dist::term;
use crate::realm::node::Node;
use crate::realm::terms;
use crate::realm::Realm;

#[derive(Debug, Default)]
pub struct Subscribers {
    all: HashMap<u64, Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    node: Arc<Node>,
    pid: Box<[u8]>,
}

impl Subscribers {
    pub fn add(&mut self, number: u64, node: Arc<Node>, pid: Box<[u8]>) {
        self.all.insert(number, Subscriber { node, pid });
    }

    pub fn remove(&mut self, number: u64) -> Option<(Arc<Node>, Box<[u8]>)> {
        self.all.remove(&number).map(|subscriber| (subscriber.node, subscriber.pid))
    }

    pub fn forget_node(&mut self, node: u64) {
        self.all.retain(|_, subscriber| subscriber.node.link.number != node);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// `{legation, Ref, Event}` to each.
    pub fn tell(&self, realm: &Realm, event: impl FnOnce() -> Term) {
        if self.all.is_empty() {
            return;
        }
        let mut encoded = Vec::with_capacity(128);
        terms::put(&mut encoded, &event());
        for (number, subscriber) in &self.all {
            let mut message = Vec::with_capacity(encoded.len() + 64);
            term::put_tuple_header(&mut message, 3);
            term::put_atom(&mut message, "legation");
            realm.put_own_reference(&mut message, *number);
            message.extend_from_slice(&encoded);
            realm.send_term(&subscriber.node, &subscriber.pid, &message);
        }
    }
}
