//! What a peer may do with which of our engines. Pure; compiled once per peer and asked for every message.
//!
//! `allow` of an engine replaces the peer's; where either wants a filter, the filter is asked (by the gate).

use std::collections::HashMap;

use legation_proto::frame::batch::{label, Refusal};

use crate::config::{Export, Operations, PeerConfig, Reasons};
use crate::dist::term;

/// To whom an engine is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    All,
    These(Vec<Box<str>>),
}

impl To {
    fn includes(&self, realm: &str) -> bool {
        match self {
            To::All => true,
            To::These(realms) => realms.iter().any(|listed| **listed == *realm),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Policy {
    realm: Box<str>,
    rule: Rule,
    reasons: Reasons,
    /// None: all engines, by `rule`.
    engines: Option<HashMap<Box<str>, Rule>>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    allow: Operations,
    filter: bool,
}

/// A message may go to its engine, perhaps after a filter has agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub ask_filter: bool,
}

impl Policy {
    pub fn compile(peer: &PeerConfig) -> Policy {
        let rule = Rule { allow: peer.allow, filter: peer.filter };
        let engines = match &peer.export {
            Export::All => None,
            Export::These(engines) => Some(
                engines
                    .iter()
                    .map(|engine| {
                        let allow = engine.allow.unwrap_or(peer.allow);
                        (engine.name.as_str().into(), Rule { allow, filter: peer.filter || engine.filter })
                    })
                    .collect(),
            ),
        };
        Policy { realm: peer.realm.as_str().into(), rule, reasons: peer.reasons, engines }
    }

    /// May this peer know of the engine?
    pub fn exports(&self, engine: &str, to: &To) -> bool {
        self.engines.as_ref().is_none_or(|engines| engines.contains_key(engine)) && to.includes(&self.realm)
    }

    /// The same of a process whose pid was given to the peer: what stands for all engines holds for it.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub fn allows_process(&self, operation: u16, payload: &[u8]) -> Result<Allowed, Refusal> {
        self.rule.allows(operation, payload)
    }

    /// May the peer hear how the engine, or a process that it was given, has ended? Otherwise only that it is gone.
    pub fn watches(&self, engine: Option<&str>) -> bool {
        let rule = match (engine, &self.engines) {
            (Some(engine), Some(engines)) => engines.get(engine).copied(),
            _ => Some(self.rule),
        };
        rule.is_some_and(|rule| rule.allow.allows(Operations::MONITOR))
    }

    /// It is told the reason itself.
    pub fn tells_reasons(&self) -> bool {
        self.reasons == Reasons::Full
    }

    /// May this message be delivered? `operation`: one bit of [`Operations`].
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub fn allows(&self, engine: &str, operation: u16, payload: &[u8]) -> Result<Allowed, Refusal> {
        let rule = match &self.engines {
            None => self.rule,
            Some(engines) => *engines.get(engine).ok_or(Refusal::Forbidden)?,
        };
        rule.allows(operation, payload)
    }
}

impl Rule {
    fn allows(self, operation: u16, payload: &[u8]) -> Result<Allowed, Refusal> {
        if !self.allow.allows(operation) {
            return Err(Refusal::Forbidden);
        }
        // What changes or ends an event manager does what `sys` does to any process.
        if operation == Operations::EVENT && !self.allow.allows(Operations::SYS) && changes_event_manager(payload) {
            return Err(Refusal::Forbidden);
        }
        Ok(Allowed { ask_filter: self.filter })
    }
}

/// The operation that a call's label stands for.
pub fn operation_of(call_label: u8) -> u16 {
    match call_label {
        label::SYSTEM => Operations::SYS,
        label::CALLER => Operations::EVENT,
        label::CAST => Operations::CAST,
        label::SEND => Operations::SEND,
        _ => Operations::CALL,
    }
}

/// By the head alone: more or fewer elements don't make it harmless.
fn changes_event_manager(payload: &[u8]) -> bool {
    const CHANGES: [&str; 6] =
        ["add_handler", "add_sup_handler", "delete_handler", "swap_handler", "swap_sup_handler", "stop"];
    let Some(request) = payload.get(1..) else {
        return false;
    };
    let head = match term::tuple(request) {
        Some((0, _)) => return false,
        Some((_, first)) => first,
        None => request,
    };
    term::take_atom(head).is_some_and(|(atom, _)| CHANGES.into_iter().any(|change| atom.eq_str(change)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExportedEngine, PeerLimits};

    fn peer(export: Export) -> PeerConfig {
        PeerConfig {
            realm: "bob".into(),
            key: [0; 32],
            connect: Vec::new(),
            export,
            allow: Operations::DEFAULT,
            filter: false,
            reasons: Reasons::Class,
            links: 1,
            signing: None,
            accept_signing: None,
            limits: PeerLimits::default(),
        }
    }

    fn engine(name: &str, allow: Option<u16>, filter: bool) -> ExportedEngine {
        ExportedEngine { name: name.into(), allow: allow.map(Operations), filter }
    }

    const PLAIN: Allowed = Allowed { ask_filter: false };

    #[test]
    fn only_exported_engines_are_there_for_a_peer() {
        let some = Policy::compile(&peer(Export::These(vec![engine("ping", None, false)])));
        assert!(some.exports("ping", &To::All));
        assert!(!some.exports("pong", &To::All));
        assert_eq!(some.allows("pong", Operations::CALL, &[]), Err(Refusal::Forbidden));
        let all = Policy::compile(&peer(Export::All));
        assert!(all.exports("pong", &To::All));
        assert!(all.exports("pong", &To::These(vec!["bob".into()])));
        assert!(!all.exports("pong", &To::These(vec!["carol".into()])));
    }

    #[test]
    fn an_engines_own_operations_replace_the_peers() {
        let engines = vec![engine("ping", Some(Operations::CAST), false), engine("pong", None, true)];
        let policy = Policy::compile(&peer(Export::These(engines)));
        assert_eq!(policy.allows("ping", Operations::CAST, &[]), Ok(PLAIN));
        assert_eq!(policy.allows("ping", Operations::CALL, &[]), Err(Refusal::Forbidden));
        assert_eq!(policy.allows("pong", Operations::CALL, &[]), Ok(Allowed { ask_filter: true }));
        assert_eq!(policy.allows("pong", Operations::SYS, &[]), Err(Refusal::Forbidden));
    }

    #[test]
    fn handlers_of_an_event_manager_are_changed_only_with_sys() {
        let mut config = peer(Export::All);
        config.allow = Operations(Operations::EVENT);
        let policy = Policy::compile(&config);
        let stop = b"\x83w\x04stop";
        let add = b"\x83h\x03w\x0badd_handlera\x01a\x02";
        let call = b"\x83h\x03w\x04calla\x01a\x02";
        assert_eq!(policy.allows("e", Operations::EVENT, call), Ok(PLAIN));
        assert_eq!(policy.allows("e", Operations::EVENT, stop), Err(Refusal::Forbidden));
        assert_eq!(policy.allows("e", Operations::EVENT, add), Err(Refusal::Forbidden));
        config.allow = Operations(Operations::EVENT | Operations::SYS);
        assert_eq!(Policy::compile(&config).allows("e", Operations::EVENT, add), Ok(PLAIN));
    }
}
