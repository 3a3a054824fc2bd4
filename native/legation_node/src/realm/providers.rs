//! Who has an engine of a name, and which of several is taken: `find` and `providers` of the control engine.
//!
//! ```text
//!  store@bob, version 4    that engine, if its version is 4 or later
//!  store, version 4        an engine of that name, whoever has it, this realm included
//! ```
//!
//! What each has to do is what this realm knows: its own calls that a foreign engine has not answered; of an engine of ours, what its node
//! says is in its mailbox.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use erl_dist::term::Term;

use crate::dist::term;
use crate::realm::terms::{self, as_list, as_text, as_tuple, as_unsigned, atom, binary, integer, map, Options};
use crate::realm::{lock, read, Body, Realm};

/// What a request asks of a provider, and which of several it wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    version: (u32, u32),
    /// In the order of preference.
    realms: Option<Vec<String>>,
    pick: Pick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pick {
    First,
    RoundRobin,
    LeastPending,
}

#[derive(Clone, Debug)]
pub struct Provider {
    pub engine: String,
    pub realm: String,
    pub local: bool,
    /// Raw.
    pub pid: Vec<u8>,
    pub version: u32,
    /// False while the link to its realm is lost and may come back.
    pub up: bool,
    /// Calls of ours in flight to it; of an engine of ours, none until its node was asked.
    pub pending: Option<u64>,
}

impl Wanted {
    /// `version`, `realms`, `pick`; None for what can't be meant.
    pub fn of(options: &Term) -> Option<Wanted> {
        let options = Options::of(options)?;
        if options.unknown(&["version", "realms", "pick"]).is_some() {
            return None;
        }
        let version = match options.get("version") {
            Some(version) => version_range(version)?,
            None => (0, u32::MAX),
        };
        let realms = match options.get("realms") {
            Some(realms) => {
                let mut seen = HashSet::new();
                let mut realms = as_list(realms)?.iter().map(as_text).collect::<Option<Vec<_>>>()?;
                realms.retain(|realm| seen.insert(realm.clone()));
                Some(realms)
            }
            None => None,
        };
        let pick = match options.get("pick").map(terms::as_atom) {
            None | Some(Some("first")) => Pick::First,
            Some(Some("round_robin")) => Pick::RoundRobin,
            Some(Some("least_pending")) => Pick::LeastPending,
            Some(_) => return None,
        };
        Some(Wanted { version, realms, pick })
    }

    fn fits(&self, provider: &Provider) -> bool {
        (self.version.0..=self.version.1).contains(&provider.version)
    }
}

/// A number, which is the least one, or `{From, To}`. No engine has a version past 32 bits.
fn version_range(value: &Term) -> Option<(u32, u32)> {
    let bound = |value: &Term| as_unsigned(value).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    match as_tuple(value) {
        Some([from, to]) => Some((bound(from)?, bound(to)?)),
        Some(_) => None,
        None => Some((bound(value)?, u32::MAX)),
    }
}

/// Whose turn it is, for each name and what is asked of it. Those that share a number only share their turns: no more memory than
/// this, whatever is asked for.
#[derive(Debug)]
pub struct Turns(Box<[AtomicU32]>);

impl Turns {
    const COUNT: usize = 1_024;

    fn next(&self, engine: &str, wanted: &Wanted, among: usize) -> usize {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let slot = hasher.hash_one((engine, &wanted.version, &wanted.realms)) as usize % self.0.len();
        self.0[slot].fetch_add(1, Ordering::Relaxed) as usize % among
    }
}

impl Default for Turns {
    fn default() -> Self {
        Turns((0..Self::COUNT).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Realm {
    /// Raw pid of a provider, or none. `name` with a realm is one engine's.
    pub(crate) async fn find_provider(self: &Arc<Self>, name: &str, wanted: &Wanted) -> Option<Vec<u8>> {
        let mut found = self.providers(name, wanted);
        // What goes to a realm whose link is lost waits for it.
        if found.iter().any(|provider| provider.up) {
            found.retain(|provider| provider.up);
        }
        if found.len() > 1 && wanted.pick == Pick::LeastPending {
            self.ask_mailboxes(&mut found).await;
            let least = found.iter().map(|provider| provider.pending.unwrap_or(u64::MAX)).min();
            // Of those that have equally little to do, one after the other.
            found.retain(|provider| Some(provider.pending.unwrap_or(u64::MAX)) == least);
        }
        let turn = match (wanted.pick, found.len()) {
            (Pick::First, _) | (_, 0 | 1) => 0,
            (Pick::RoundRobin | Pick::LeastPending, several) => self.turns.next(name, wanted, several),
        };
        (turn < found.len()).then(|| found.swap_remove(turn).pid)
    }

    /// All that fit, ours first, then by realm; or in the order of `realms`.
    pub(crate) fn providers(&self, name: &str, wanted: &Wanted) -> Vec<Provider> {
        let own_realm = lock(&self.config).realm.clone();
        let (engine, realms) = match name.rsplit_once('@') {
            Some((engine, realm)) => (engine, vec![realm.to_owned()]),
            None => match &wanted.realms {
                Some(realms) => (name, realms.clone()),
                None => {
                    let mut realms: Vec<_> = read(&self.policies).keys().map(|realm| realm.to_string()).collect();
                    realms.sort();
                    realms.insert(0, own_realm.clone());
                    (name, realms)
                }
            },
        };
        let found = realms.into_iter().filter_map(|realm| match realm == own_realm {
            true => self.own_provider(engine, realm),
            false => self.foreign_provider(engine, realm),
        });
        found.filter(|provider| wanted.fits(provider)).collect()
    }

    fn own_provider(&self, engine: &str, realm: String) -> Option<Provider> {
        let publication = read(&self.engines).get(engine).cloned()?;
        Some(Provider {
            engine: engine.to_owned(),
            realm,
            local: true,
            pid: publication.pid.to_vec(),
            version: publication.options.version,
            up: true,
            pending: None,
        })
    }

    fn foreign_provider(&self, engine: &str, realm: String) -> Option<Provider> {
        let full_name = format!("{engine}@{realm}");
        let number = lock(&self.space).whereis(full_name.as_bytes())?;
        let body = self.body(number)?;
        let Body::Proxy(proxy) = &*body else {
            return None;
        };
        let version = lock(&proxy.info).version;
        Some(Provider {
            engine: engine.to_owned(),
            local: false,
            pid: self.own_pid(number),
            version,
            up: proxy.session.is_up(),
            pending: Some(proxy.session.core.calls_pending_at(&proxy.engine) as u64),
            realm,
        })
    }

    /// What waits at engines of ours, by their nodes. Stays none where nobody answers.
    pub(crate) async fn ask_mailboxes(&self, providers: &mut [Provider]) {
        for provider in providers.iter_mut().filter(|provider| provider.local) {
            provider.pending = self.mailbox(&provider.pid).await;
        }
    }

    async fn mailbox(&self, raw: &[u8]) -> Option<u64> {
        let node = self.node_of(&term::pid(raw)?)?;
        let mut arguments = Vec::with_capacity(80);
        term::put_list_header(&mut arguments, 2);
        arguments.extend_from_slice(raw);
        term::put_atom(&mut arguments, "message_queue_len");
        term::put_nil(&mut arguments);
        let answer = self.call(&node, "erlang", "process_info", &arguments).await?;
        match as_tuple(&terms::decode(&answer)?) {
            Some([_, waiting]) => as_unsigned(waiting),
            _ => None,
        }
    }
}

/// As `Legation.providers/3` has it.
pub fn provider_term(provider: &Provider) -> Term {
    map([
        ("name", binary(format!("{}@{}", provider.engine, provider.realm))),
        ("engine", binary(&provider.engine)),
        ("realm", binary(&provider.realm)),
        ("local", terms::boolean(provider.local)),
        ("pid", terms::pid(&provider.pid)),
        ("version", integer(provider.version.into())),
        ("up", terms::boolean(provider.up)),
        ("pending", provider.pending.map_or_else(|| atom("infinity"), integer)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realm::terms::{list, tuple};

    fn options(entries: &[(&str, Term)]) -> Term {
        list(entries.iter().map(|(key, value)| tuple(vec![atom(key), value.clone()])).collect())
    }

    fn wanted(entries: &[(&str, Term)]) -> Option<Wanted> {
        Wanted::of(&options(entries))
    }

    fn provider(version: u32) -> Provider {
        let (engine, realm) = ("store".to_owned(), "bob".to_owned());
        Provider { engine, realm, local: false, pid: Vec::new(), version, up: true, pending: None }
    }

    #[test]
    fn a_version_is_the_least_one_or_a_range() {
        let fits = |version: Term, has: u32| wanted(&[("version", version)]).unwrap().fits(&provider(has));
        assert!(fits(integer(4), 7) && fits(integer(4), 4) && !fits(integer(4), 3));
        let range = || tuple(vec![integer(4), integer(6)]);
        assert!(fits(range(), 4) && fits(range(), 6) && !fits(range(), 7) && !fits(range(), 3));
        assert!(fits(integer(u64::from(u32::MAX)), u32::MAX));
        assert!(!fits(integer(1 << 40), 7), "no engine has such a version");
        assert!(wanted(&[]).unwrap().fits(&provider(0)));
    }

    #[test]
    fn what_cannot_be_meant_is_not_understood() {
        for entries in [
            &[("version", atom("new"))][..],
            &[("version", tuple(vec![integer(1)]))],
            &[("pick", atom("best"))],
            &[("pick", integer(1))],
            &[("realms", atom("bob"))],
            &[("realms", list(vec![integer(1)]))],
            &[("where", atom("here"))],
        ] {
            assert_eq!(wanted(entries), None, "{entries:?}");
        }
        assert_eq!(Wanted::of(&atom("version")), None);
    }

    #[test]
    fn a_realm_that_is_named_twice_is_meant_once() {
        let realms = list(vec![binary("bob"), binary("alice"), binary("bob")]);
        assert_eq!(wanted(&[("realms", realms)]).unwrap().realms.unwrap(), ["bob", "alice"]);
    }

    #[test]
    fn turns_go_round_for_each_name_and_wish_by_itself() {
        let turns = Turns::default();
        let (any, late) = (wanted(&[]).unwrap(), wanted(&[("version", integer(4))]).unwrap());
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push((turns.next("store", &any, 3), turns.next("store", &late, 2), turns.next("ping", &any, 2)));
        }
        assert_eq!(seen, [(0, 0, 0), (1, 1, 1), (2, 0, 0), (0, 1, 1)]);
    }
}
