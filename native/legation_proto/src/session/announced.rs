//! What the peer has been told of our engines, and so who can sign for them: what is not announced is said by the realm.

use std::collections::HashMap;

use crate::frame::forget::Forget;
use crate::frame::learn::Learn;
use crate::frame::FrameType;
use crate::signing::Mode;

/// Who signs for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signer<'a> {
    pub mode: Mode,
    /// In the mode of engines the one; empty for the realm itself, and in all others.
    pub engine: &'a str,
    /// In these the realm is the message's source, and not the engine that it comes from.
    pub as_realm: bool,
}

/// What the peer has been told of engines of ours.
#[derive(Debug, Default)]
pub(crate) struct Announced(HashMap<Box<str>, Told>);

#[derive(Debug)]
struct Told {
    key: [u8; 32],
    /// The realm's online key may sign for it.
    delegate: bool,
}

impl Announced {
    pub fn note(&mut self, kind: FrameType, signed: &[u8]) {
        match kind {
            FrameType::Learn => {
                if let Ok((Learn { engine, key, delegate, .. }, _)) = Learn::decode(signed) {
                    self.0.insert(engine.into(), Told { key, delegate });
                }
            }
            FrameType::Forget => {
                if let Ok((forget, _)) = Forget::decode(signed) {
                    self.0.remove(&*forget.engine);
                }
            }
            _ => {}
        }
    }

    /// The key of one that it has been told of.
    pub fn key(&self, engine: &str) -> Option<&[u8; 32]> {
        self.0.get(engine).map(|told| &told.key)
    }

    /// Who signs for what `source` says, where the session's mode is this.
    pub fn signer<'a>(&self, mode: Mode, source: &'a str) -> Signer<'a> {
        let told = if source.is_empty() { None } else { self.0.get(source) };
        let as_realm = told.is_none();
        match mode {
            Mode::Engine => Signer { mode, engine: if as_realm { "" } else { source }, as_realm },
            _ if told.is_none_or(|told| told.delegate) => Signer { mode, engine: "", as_realm },
            _ => Signer { mode: Mode::Engine, engine: source, as_realm },
        }
    }
}
