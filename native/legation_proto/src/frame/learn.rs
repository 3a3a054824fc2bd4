//! LEARN: this engine can be reached, and this is its key (`protocol.md` 11.1).
//!
//! ```text
//!  0 realm id (32)
//! 32 engine name, str8
//!  . engine key (32)
//!  . serial u64
//!  . not-before u64, not-after u64 (0: none)
//!  . version u32 (0: none)
//!  . operations u16
//!  . length of attributes u16, attributes: each type u16, length u16, bytes
//!    signature (64)
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::identity::{is_engine_name, RealmId};
use crate::UnixMs;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learn {
    pub realm: RealmId,
    pub engine: String,
    pub key: [u8; 32],
    pub serial: u64,
    pub not_before: UnixMs,
    /// 0: no end.
    pub not_after: UnixMs,
    /// 0: none stated.
    pub version: u32,
    /// Bits of `protocol.md` 11.1: 1 call, 2 cast, 4 send, 8 monitor, 16 link, 32 exit, 64 sys, 128 event.
    pub operations: u16,
}

impl Learn {
    /// The bytes that are signed. Version 1 gives no attributes a meaning and writes none.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(97 + self.engine.len() + 64);
        body.put(&self.realm.0);
        body.put_str8(&self.engine);
        body.put(&self.key);
        body.put_u64(self.serial);
        body.put_u64(self.not_before);
        body.put_u64(self.not_after);
        body.put_u32(self.version);
        body.put_u16(self.operations);
        body.put_u16(0);
        body
    }

    /// From body and signature. Says nothing about the signature's worth.
    pub fn decode(bytes: &[u8]) -> Result<(Learn, [u8; 64]), InvalidFrame> {
        let mut reader = Reader::new(bytes);
        let learn = Learn {
            realm: RealmId(reader.array("learn realm")?),
            engine: engine_name(&mut reader)?,
            key: reader.array("learn key")?,
            serial: reader.u64("learn serial")?,
            not_before: reader.u64("learn not-before")?,
            not_after: reader.u64("learn not-after")?,
            version: reader.u32("learn version")?,
            operations: reader.u16("learn operations")?,
        };
        let length = usize::from(reader.u16("learn attributes")?);
        let mut attributes = Reader::new(reader.take(length, "learn attributes")?);
        while attributes.remaining() > 0 {
            attributes.u16("attribute type")?;
            let length = usize::from(attributes.u16("attribute length")?);
            attributes.take(length, "attribute")?;
        }
        let signature = reader.array("learn signature")?;
        reader.finish("learn")?;
        Ok((learn, signature))
    }
}

/// The name of an engine, as announcements carry it.
pub(super) fn engine_name(reader: &mut Reader<'_>) -> Result<String, InvalidFrame> {
    let name = reader.str8("engine name")?;
    match is_engine_name(name) {
        true => Ok(name.to_owned()),
        false => Err(InvalidFrame::Value("engine name")),
    }
}
