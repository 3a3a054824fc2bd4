//! FORGET: an engine can't be reached any more (`protocol.md` 11.2).
//!
//! ```text
//!  0 realm id (32)
//! 32 engine name, str8
//!  . serial u64
//!  . reason u8
//!    signature (64)
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::identity::RealmId;

/// The class of what ended an engine, or a process that was given away; the reason itself stays at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ForgetReason {
    Withdrawn = 0,
    Normal = 1,
    Shutdown = 2,
    Killed = 3,
    Crashed = 4,
    /// It had ended before.
    Noproc = 5,
    /// It is where nothing is heard from any more: on another node, behind another peer.
    Noconnection = 6,
    Timeout = 7,
}

impl ForgetReason {
    pub const ALL: [ForgetReason; 8] = [
        ForgetReason::Withdrawn,
        ForgetReason::Normal,
        ForgetReason::Shutdown,
        ForgetReason::Killed,
        ForgetReason::Crashed,
        ForgetReason::Noproc,
        ForgetReason::Noconnection,
        ForgetReason::Timeout,
    ];

    /// # Errors
    /// [`InvalidFrame::Value`] for a number that no class has.
    pub(super) fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<ForgetReason, InvalidFrame> {
        let number = usize::from(reader.u8(what)?);
        Self::ALL.get(number).copied().ok_or(InvalidFrame::Value(what))
    }

    pub fn name(self) -> &'static str {
        match self {
            ForgetReason::Withdrawn => "withdrawn",
            ForgetReason::Normal => "normal",
            ForgetReason::Shutdown => "shutdown",
            ForgetReason::Killed => "killed",
            ForgetReason::Crashed => "crashed",
            ForgetReason::Noproc => "noproc",
            ForgetReason::Noconnection => "noconnection",
            ForgetReason::Timeout => "timeout",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    pub realm: RealmId,
    pub engine: String,
    pub serial: u64,
    pub reason: ForgetReason,
}

impl Forget {
    /// The bytes that are signed.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(42 + self.engine.len() + 64);
        body.put(&self.realm.0);
        body.put_str8(&self.engine);
        body.put_u64(self.serial);
        body.put_u8(self.reason as u8);
        body
    }

    /// From body and signature. Says nothing about the signature's worth.
    pub fn decode(bytes: &[u8]) -> Result<(Forget, [u8; 64]), InvalidFrame> {
        let mut reader = Reader::new(bytes);
        let forget = Forget {
            realm: RealmId(reader.array("forget realm")?),
            engine: super::learn::engine_name(&mut reader)?,
            serial: reader.u64("forget serial")?,
            reason: ForgetReason::read(&mut reader, "forget reason")?,
        };
        let signature = reader.array("forget signature")?;
        reader.finish("forget")?;
        Ok((forget, signature))
    }
}
