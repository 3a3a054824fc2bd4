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
//!
//! Attribute 1, of no bytes: the realm's online key may sign for this engine.

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::identity::{is_engine_name, RealmId};
use crate::UnixMs;

const ATTRIBUTE_DELEGATE: u16 = 1;

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
    /// The realm's online key may sign for it.
    pub delegate: bool,
}

impl Learn {
    /// The bytes that are signed.
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
        body.put_u16(if self.delegate { 4 } else { 0 });
        if self.delegate {
            body.put_u16(ATTRIBUTE_DELEGATE);
            body.put_u16(0);
        }
        body
    }

    /// From body and signature. Says nothing about the signature's worth.
    pub fn decode(bytes: &[u8]) -> Result<(Learn, [u8; 64]), InvalidFrame> {
        let mut reader = Reader::new(bytes);
        let mut learn = Learn {
            realm: RealmId(reader.array("learn realm")?),
            engine: engine_name(&mut reader)?,
            key: reader.array("learn key")?,
            serial: reader.u64("learn serial")?,
            not_before: reader.u64("learn not-before")?,
            not_after: reader.u64("learn not-after")?,
            version: reader.u32("learn version")?,
            operations: reader.u16("learn operations")?,
            delegate: false,
        };
        let length = usize::from(reader.u16("learn attributes")?);
        let mut attributes = Reader::new(reader.take(length, "learn attributes")?);
        while attributes.remaining() > 0 {
            let kind = attributes.u16("attribute type")?;
            let length = usize::from(attributes.u16("attribute length")?);
            attributes.take(length, "attribute")?;
            if kind == ATTRIBUTE_DELEGATE {
                // One announcement has one form.
                if learn.delegate || length != 0 {
                    return Err(InvalidFrame::Value("attribute"));
                }
                learn.delegate = true;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(delegate: bool) -> Learn {
        Learn {
            realm: RealmId([1; 32]),
            engine: "ping".into(),
            key: [2; 32],
            serial: 3,
            not_before: 4,
            not_after: 5,
            version: 6,
            operations: 7,
            delegate,
        }
    }

    /// With these attributes.
    fn with(attributes: &[u8]) -> Result<Learn, InvalidFrame> {
        let mut bytes = learn(false).body();
        let at = bytes.len() - 2;
        bytes[at..].copy_from_slice(&(attributes.len() as u16).to_le_bytes());
        bytes.put(attributes);
        bytes.put(&[9; 64]);
        Learn::decode(&bytes).map(|(learn, _)| learn)
    }

    #[test]
    fn that_the_online_key_may_sign_for_an_engine_is_an_attribute_of_no_bytes() {
        for delegate in [false, true] {
            let signed = [learn(delegate).body(), vec![9; 64]].concat();
            assert_eq!(Learn::decode(&signed), Ok((learn(delegate), [9; 64])));
        }
        assert_eq!(with(&[1, 0, 0, 0]), Ok(learn(true)));
        assert_eq!(with(&[7, 0, 2, 0, 1, 2, 1, 0, 0, 0]), Ok(learn(true)));
        assert_eq!(with(&[2, 0, 0, 0]), Ok(learn(false)));
        for malformed in [&[1, 0, 1, 0, 5][..], &[1, 0, 0, 0, 1, 0, 0, 0], &[1, 0, 0], &[1, 0, 9, 0]] {
            assert!(with(malformed).is_err(), "{malformed:?}");
        }
    }
}
