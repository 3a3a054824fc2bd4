//! Names in `:global`, where no Elixir side registers them: by calls to `rex` of each connected node, in batches.
//!
//! What should be there is a table; a task makes it so, again and again while something differs:
//!
//! ```text
//!  wanted: name ─► pid        for each node: whereis of all that was not checked there
//!                                ours ─► held      undefined ─► register      another's ─► stand by, and watch the holder
//! ```
//!
//! A node that can't reach us when a name arrives drops it in silence, on that node alone, and so every node is asked for
//! itself when it connects. A foreign engine's name goes when its process does: each node's `global` monitors it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::Import;
use crate::dist::term;
use crate::realm::engines::Publication;
use crate::realm::node::{Node, Watch};
use crate::realm::{lock, Realm};

/// `:global` slows with what it holds: 27 µs a name at first, over 1 ms at 12,000.
const DEFAULT_MAX: usize = 1_000;

/// Names in one call: a fifth of a second in a large cluster.
const BATCH: usize = 256;

/// After a batch that could not be done.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Names {
    enabled: bool,
    suffix: String,
    realm: String,
    import: Import,
    wanted: Mutex<HashMap<Box<str>, Wanted>>,
    /// Of engines of ours that were withdrawn: name and pid.
    dropped: Mutex<Vec<Named>>,
    foreign: AtomicUsize,
    own: AtomicUsize,
    changed: Notify,
}

/// A global name and the process that has it, or should.
#[derive(Clone, Debug)]
struct Named {
    name: Box<str>,
    /// Raw.
    pid: Box<[u8]>,
    /// An engine of ours.
    own: bool,
}

#[derive(Debug)]
struct Wanted {
    pid: Box<[u8]>,
    own: bool,
    /// Nodes where it is ours, or known to be another's.
    checked: HashSet<u64>,
}

impl Names {
    pub fn new(enabled: bool, suffix: String, realm: String, import: Import) -> Names {
        Names {
            enabled,
            suffix,
            realm,
            import,
            wanted: Mutex::default(),
            dropped: Mutex::default(),
            foreign: AtomicUsize::new(0),
            own: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    /// The local name that an engine gets besides, on our node.
    pub fn alias_of(&self, full_name: &str) -> Option<&str> {
        match &self.import {
            Import::These(names) => {
                names.iter().find(|(name, _)| name == full_name).and_then(|(_, alias)| alias.as_deref())
            }
            _ => None,
        }
    }

    pub fn learned(&self, full_name: &str, pid: &[u8]) {
        let imported = match &self.import {
            Import::Default => self.foreign.load(Ordering::Relaxed) < DEFAULT_MAX,
            Import::All => true,
            Import::None => false,
            Import::These(names) => names.iter().any(|(name, _)| name == full_name),
        };
        if self.enabled && imported {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            self.want(full_name, pid, false);
        }
    }

    pub fn forgotten(&self, full_name: &str) {
        if lock(&self.wanted).remove(&*self.global_name(full_name)).is_some() {
            self.foreign.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn published(&self, publication: &Publication) {
        if !self.enabled || (self.own.load(Ordering::Relaxed) >= DEFAULT_MAX && self.import != Import::All) {
            return;
        }
        self.own.fetch_add(1, Ordering::Relaxed);
        self.want(&self.own_name(&publication.name), &publication.pid, true);
    }

    pub fn withdrawn(&self, publication: &Publication) {
        let name = self.global_name(&self.own_name(&publication.name));
        if lock(&self.wanted).remove(&*name).is_some() {
            self.own.fetch_sub(1, Ordering::Relaxed);
            lock(&self.dropped).push(Named { name: name.into(), pid: publication.pid.clone(), own: true });
            self.changed.notify_one();
        }
    }

    pub fn node_up(&self) {
        if self.enabled {
            self.changed.notify_one();
        }
    }

    pub fn node_down(&self, node: u64) {
        for wanted in lock(&self.wanted).values_mut() {
            wanted.checked.remove(&node);
        }
    }

    /// Somebody else has it, or its holder has gone: look again.
    pub fn look_again(&self, global_name: &str) {
        if let Some(wanted) = lock(&self.wanted).get_mut(global_name) {
            wanted.checked.clear();
            self.changed.notify_one();
        }
    }

    pub fn global_name(&self, full_name: &str) -> String {
        format!("{full_name}{}", self.suffix)
    }

    fn own_name(&self, engine: &str) -> String {
        format!("{engine}@{}", self.realm)
    }

    fn want(&self, full_name: &str, pid: &[u8], own: bool) {
        let wanted = Wanted { pid: pid.into(), own, checked: HashSet::new() };
        lock(&self.wanted).insert(self.global_name(full_name).into(), wanted);
        self.changed.notify_one();
    }

    /// What was not checked on a node.
    fn unchecked(&self, node: u64) -> Vec<Named> {
        let wanted = lock(&self.wanted);
        let unchecked = wanted.iter().filter(|(_, wanted)| !wanted.checked.contains(&node));
        unchecked
            .take(BATCH)
            .map(|(name, wanted)| Named { name: name.clone(), pid: wanted.pid.clone(), own: wanted.own })
            .collect()
    }

    fn check(&self, name: &str, pid: &[u8], node: u64) {
        if let Some(wanted) = lock(&self.wanted).get_mut(name).filter(|wanted| *wanted.pid == *pid) {
            wanted.checked.insert(node);
        }
    }
}

impl Realm {
    /// Makes `:global` of every connected node what it should be, for as long as the realm lives.
    pub(crate) async fn keep_names(self: Arc<Self>) {
        loop {
            self.names.changed.notified().await;
            loop {
                let dropped = std::mem::take(&mut *lock(&self.names.dropped));
                for Named { name, pid, .. } in dropped {
                    self.unregister(&name, &pid).await;
                }
                let mut progress = false;
                let mut failed = false;
                for node in self.connected_nodes() {
                    let batch = self.names.unchecked(node.link.number);
                    if batch.is_empty() {
                        continue;
                    }
                    match self.register_batch(&node, &batch).await {
                        Some(true) => progress = true,
                        Some(false) | None => failed = true,
                    }
                }
                match (progress, failed) {
                    (true, _) => continue,
                    // A node that is new needs none of that patience.
                    (false, true) => drop(tokio::time::timeout(RETRY, self.names.changed.notified()).await),
                    (false, false) => break,
                }
            }
        }
    }

    /// None when the node did not answer; false when nothing came of it.
    async fn register_batch(self: &Arc<Self>, node: &Arc<Node>, batch: &[Named]) -> Option<bool> {
        let number = node.link.number;
        self.settle_global(node).await?;
        let found = self.whereis_global(node, batch.iter().map(|named| &*named.name)).await?;
        let mut missing = Vec::new();
        let mut progress = false;
        for (Named { name, pid, own }, found) in batch.iter().zip(&found) {
            if let Some(holder) = term::pid(found) {
                if !term::pid(pid).is_some_and(|pid| same(&holder, &pid)) {
                    self.stand_by(name, &holder);
                }
                self.names.check(name, pid, number);
                progress = true;
            } else if *own && self.has_global_name(node, pid).await? {
                // A pid can have one global name, and the one it has is its own.
                self.names.check(name, pid, number);
                progress = true;
            } else {
                missing.push((name, pid));
            }
        }
        if missing.is_empty() {
            return Some(progress);
        }
        // register_name/3 of each, with a resolver that tells the loser and lets it live.
        let mut arguments = Vec::new();
        term::put_list_header(&mut arguments, 4);
        put_export(&mut arguments, "global", "register_name", 3);
        put_list(&mut arguments, missing.iter(), |out, (name, _)| term::put_binary(out, name.as_bytes()));
        put_list(&mut arguments, missing.iter(), |out, (_, pid)| out.extend_from_slice(pid));
        put_list(&mut arguments, missing.iter(), |out, _| put_export(out, "global", "random_notify_name", 3));
        term::put_nil(&mut arguments);
        let answers = self.call(node, "lists", "zipwith3", &arguments).await?;
        for ((name, pid), answer) in missing.iter().zip(term::list(&answers)?) {
            if term::atom(answer).is_some_and(|atom| atom.eq_str("yes")) {
                self.names.check(name, pid, number);
                progress = true;
            }
        }
        Some(progress)
    }

    /// When this is answered, the node's `global` has dealt with the end of an earlier connection. Until then `whereis_name` finds
    /// names that go in a moment.
    async fn settle_global(&self, node: &Arc<Node>) -> Option<()> {
        let mut arguments = Vec::new();
        term::put_list_header(&mut arguments, 2);
        term::put_atom(&mut arguments, "global_name_server");
        term::put_atom(&mut arguments, "get");
        term::put_nil(&mut arguments);
        self.call(node, "sys", "statistics", &arguments).await.map(drop)
    }

    async fn whereis_global<'a>(
        &self,
        node: &Arc<Node>,
        names: impl ExactSizeIterator<Item = &'a str>,
    ) -> Option<Vec<Vec<u8>>> {
        let count = names.len();
        let mut arguments = Vec::new();
        term::put_list_header(&mut arguments, 2);
        put_export(&mut arguments, "global", "whereis_name", 1);
        put_list(&mut arguments, names, |out, name| term::put_binary(out, name.as_bytes()));
        term::put_nil(&mut arguments);
        let answers = self.call(node, "lists", "map", &arguments).await?;
        let answers: Vec<_> = term::list(&answers)?.map(<[u8]>::to_vec).collect();
        (answers.len() == count).then_some(answers)
    }

    /// Whether the process is in `:global` under any name.
    async fn has_global_name(&self, node: &Arc<Node>, pid: &[u8]) -> Option<bool> {
        let mut arguments = Vec::new();
        term::put_nil(&mut arguments);
        let names = self.call(node, "global", "registered_names", &arguments).await?;
        let mut arguments = Vec::new();
        term::put_list_header(&mut arguments, 2);
        put_export(&mut arguments, "global", "whereis_name", 1);
        arguments.extend_from_slice(&names);
        term::put_nil(&mut arguments);
        let pids = self.call(node, "lists", "map", &arguments).await?;
        let wanted = term::pid(pid)?;
        let named = term::list(&pids)?.any(|found| term::pid(found).is_some_and(|found| same(&found, &wanted)));
        Some(named)
    }

    fn stand_by(&self, name: &str, holder: &term::Pid<'_>) {
        self.counters.global_names_taken.one();
        tracing::warn!(name, "a global name belongs to another process and stays there; ours stands by");
        let watched = |node: &Node| {
            let watches = lock(&node.watches);
            watches.values().any(|watch| matches!(watch, Watch::Holder { name: of } if **of == *name))
        };
        if let Some(node) = self.node_of(holder).filter(|node| !watched(node)) {
            self.watch(&node, holder.raw, Watch::Holder { name: name.into() });
        }
    }

    async fn unregister(&self, name: &str, pid: &[u8]) {
        for node in self.connected_nodes() {
            let Some(found) = self.whereis_global(&node, std::iter::once(name)).await else {
                continue;
            };
            // Since then somebody else may have got it.
            let held = match (found.first().and_then(|found| term::pid(found)), term::pid(pid)) {
                (Some(found), Some(pid)) => same(&found, &pid),
                _ => false,
            };
            if held {
                let mut arguments = Vec::new();
                term::put_list_header(&mut arguments, 1);
                term::put_binary(&mut arguments, name.as_bytes());
                term::put_nil(&mut arguments);
                self.call(&node, "global", "unregister_name", &arguments).await;
            }
        }
    }
}

fn same(one: &term::Pid<'_>, other: &term::Pid<'_>) -> bool {
    (one.node, one.id, one.serial, one.creation) == (other.node, other.id, other.serial, other.creation)
}

/// `fun module:function/arity`.
fn put_export(out: &mut Vec<u8>, module: &str, function: &str, arity: u8) {
    out.push(term::tag::EXPORT);
    term::put_atom(out, module);
    term::put_atom(out, function);
    term::put_u64(out, u64::from(arity));
}

fn put_list<T>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
    if items.len() > 0 {
        term::put_list_header(out, items.len() as u32);
        items.for_each(|item| put(out, item));
    }
    term::put_nil(out);
}
