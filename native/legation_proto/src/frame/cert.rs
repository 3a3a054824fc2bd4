//! CERT: the realm's online key, which signs for the realm itself (`protocol.md` 11.3).
//!
//! ```text
//!  0 subject u8 = 1
//!  1 realm id (32)
//! 33 online key (32)
//! 65 not-before u64, 73 not-after u64
//! 81 serial u64
//! 89 signature (64)
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::identity::RealmId;
use crate::UnixMs;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cert {
    pub realm: RealmId,
    pub key: [u8; 32],
    pub not_before: UnixMs,
    pub not_after: UnixMs,
    pub serial: u64,
}

impl Cert {
    /// The bytes that are signed.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(89 + 64);
        body.put_u8(1);
        body.put(&self.realm.0);
        body.put(&self.key);
        body.put_u64(self.not_before);
        body.put_u64(self.not_after);
        body.put_u64(self.serial);
        body
    }

    /// From body and signature. Says nothing about the signature's worth.
    pub fn decode(bytes: &[u8]) -> Result<(Cert, [u8; 64]), InvalidFrame> {
        let mut reader = Reader::new(bytes);
        if reader.u8("cert subject")? != 1 {
            return Err(InvalidFrame::Value("cert subject"));
        }
        let cert = Cert {
            realm: RealmId(reader.array("cert realm")?),
            key: reader.array("cert key")?,
            not_before: reader.u64("cert not-before")?,
            not_after: reader.u64("cert not-after")?,
            serial: reader.u64("cert serial")?,
        };
        let signature = reader.array("cert signature")?;
        reader.finish("cert")?;
        Ok((cert, signature))
    }
}
