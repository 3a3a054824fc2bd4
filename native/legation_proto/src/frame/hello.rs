//! HELLO: who is there, proven on this very channel (`protocol.md` 7).
//!
//! ```text
//!   0 role u8, 1 profile u8
//!   2 lowest version u16, 4 highest version u16
//!   6 features u64
//!  14 own realm id (32)       46 peer's realm id (32)
//!  78 own identity key (32)  110 channel binding (32)
//! 142 session random (32)
//! 174 message limit u32, 178 engine limit u32
//! 182 number of rotations u16, rotations (176 each)
//!   . link key (32), not-after u64, link signature (64)
//!   . length of extensions u16, extensions: each type u16 (bit 15: critical), length u16, bytes
//!     hello signature (64)
//! ```
//!
//! Extension 1, of 33 bytes: the session that this link is to be one of.
//!
//! ```text
//!  0 session id (32)
//! 32 flags u8 (bit 0: additional, the links that there are stay)
//! ```
//!
//! Extension 2, of 4 bytes: the window that the sender of this hello gives for each of its engines.
//!
//! ```text
//!  0 bytes u32 (not 0)
//! ```
//!
//! Extension 3, critical, of 136 bytes: the realm's revocation ([`crate::rotation`]).

use std::num::NonZeroU32;

use crate::certificate::LinkCertificate;
use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::heads::read_chain;
use crate::identity::RealmId;
use crate::rotation::{Revocation, Rotation};

const EXTENSION_RESUME: u16 = 1;
const EXTENSION_CREDIT: u16 = 2;
/// Whoever reads it must know what it means.
const EXTENSION_REVOCATION: u16 = EXTENSION_CRITICAL | 3;
const EXTENSION_CRITICAL: u16 = 0x8000;
const FLAG_ADDITIONAL: u8 = 1;

/// The initiator has this session; the responder's hello says the same if it has it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub session: [u8; 32],
    /// Beside the links that there are, not in the place of one.
    pub additional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub role: u8,
    pub profile: u8,
    pub version_min: u16,
    pub version_max: u16,
    pub features: u64,
    pub own: RealmId,
    pub peer: RealmId,
    pub identity_key: [u8; 32],
    pub binding: [u8; 32],
    pub random: [u8; 32],
    pub message_bytes_max: u32,
    pub engines_max: u32,
    /// How the realm came by `identity_key`.
    pub chain: Vec<Rotation>,
    /// None on `local` and `plain`, which have no link key.
    pub link: Option<LinkCertificate>,
    pub resume: Option<Offer>,
    pub revocation: Option<Revocation>,
    /// What may be sent to each engine before it is granted back. None: no credit is asked for.
    pub credit_bytes: Option<NonZeroU32>,
}

impl Hello {
    /// The realm's first identity key, as it says.
    pub fn realm_key(&self) -> &[u8; 32] {
        self.chain.first().map_or(&self.identity_key, |first| &first.old)
    }

    /// The bytes that are signed.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(290 + 64 + self.chain.len() * Rotation::BYTES);
        body.put_u8(self.role);
        body.put_u8(self.profile);
        body.put_u16(self.version_min);
        body.put_u16(self.version_max);
        body.put_u64(self.features);
        body.put(&self.own.0);
        body.put(&self.peer.0);
        body.put(&self.identity_key);
        body.put(&self.binding);
        body.put(&self.random);
        body.put_u32(self.message_bytes_max);
        body.put_u32(self.engines_max);
        body.put_u16(self.chain.len() as u16);
        self.chain.iter().for_each(|rotation| body.put(&rotation.encode()));
        match &self.link {
            Some(link) => {
                body.put(&link.key);
                body.put_u64(link.not_after);
                body.put(&link.signature);
            }
            None => body.put(&[0; 104]),
        }
        let mut extensions = Vec::new();
        if let Some(offer) = &self.resume {
            extensions.put_u16(EXTENSION_RESUME);
            extensions.put_u16(33);
            extensions.put(&offer.session);
            extensions.put_u8(if offer.additional { FLAG_ADDITIONAL } else { 0 });
        }
        if let Some(bytes) = self.credit_bytes {
            extensions.put_u16(EXTENSION_CREDIT);
            extensions.put_u16(4);
            extensions.put_u32(bytes.get());
        }
        if let Some(revocation) = &self.revocation {
            extensions.put_u16(EXTENSION_REVOCATION);
            extensions.put_u16(Revocation::BYTES as u16);
            extensions.put(&revocation.encode());
        }
        body.put_u16(extensions.len() as u16);
        body.put(&extensions);
        body
    }

    /// From body and signature: the hello, its signature, and the length of what is signed.
    pub fn decode(bytes: &[u8]) -> Result<(Hello, [u8; 64], usize), InvalidFrame> {
        let mut reader = Reader::new(bytes);
        let mut hello = Hello {
            role: reader.u8("hello role")?,
            profile: reader.u8("hello profile")?,
            version_min: reader.u16("hello version")?,
            version_max: reader.u16("hello version")?,
            features: reader.u64("hello features")?,
            own: RealmId(reader.array("hello realm")?),
            peer: RealmId(reader.array("hello realm")?),
            identity_key: reader.array("hello key")?,
            binding: reader.array("hello binding")?,
            random: reader.array("hello random")?,
            message_bytes_max: reader.u32("hello message limit")?,
            engines_max: reader.u32("hello engine limit")?,
            chain: read_chain(&mut reader)?,
            link: None,
            resume: None,
            revocation: None,
            credit_bytes: None,
        };
        let link = LinkCertificate {
            key: reader.array("hello link key")?,
            not_after: reader.u64("hello link not-after")?,
            signature: reader.array("hello link signature")?,
        };
        let no_link = link.key == [0; 32] && link.not_after == 0 && link.signature == [0; 64];
        hello.link = (!no_link).then_some(link);
        let length = usize::from(reader.u16("hello extensions")?);
        let mut extensions = Reader::new(reader.take(length, "hello extensions")?);
        while extensions.remaining() > 0 {
            let kind = extensions.u16("extension type")?;
            let length = usize::from(extensions.u16("extension length")?);
            let content = extensions.take(length, "extension")?;
            match kind {
                EXTENSION_RESUME if hello.resume.is_some() => {
                    return Err(InvalidFrame::Value("hello extension (twice)"))
                }
                EXTENSION_CREDIT if hello.credit_bytes.is_some() => {
                    return Err(InvalidFrame::Value("hello extension (twice)"))
                }
                EXTENSION_CREDIT => hello.credit_bytes = Some(decode_credit(content)?),
                EXTENSION_RESUME => hello.resume = Some(decode_offer(content)?),
                EXTENSION_REVOCATION if hello.revocation.is_some() => {
                    return Err(InvalidFrame::Value("hello extension (twice)"))
                }
                EXTENSION_REVOCATION => hello.revocation = Some(Revocation::decode(content)?),
                kind if kind & EXTENSION_CRITICAL != 0 => {
                    return Err(InvalidFrame::Value("hello extension (unknown and critical)"));
                }
                _ => {}
            }
        }
        let signed = reader.offset();
        let signature = reader.array("hello signature")?;
        reader.finish("hello")?;
        Ok((hello, signature, signed))
    }
}

fn decode_offer(content: &[u8]) -> Result<Offer, InvalidFrame> {
    let mut reader = Reader::new(content);
    let session = reader.array("hello session")?;
    let flags = reader.u8("hello session flags")?;
    reader.finish("hello session")?;
    if flags & !FLAG_ADDITIONAL != 0 {
        return Err(InvalidFrame::Value("hello session flags"));
    }
    Ok(Offer { session, additional: flags & FLAG_ADDITIONAL != 0 })
}

fn decode_credit(content: &[u8]) -> Result<NonZeroU32, InvalidFrame> {
    let mut reader = Reader::new(content);
    let bytes = reader.u32("hello credit")?;
    reader.finish("hello credit")?;
    NonZeroU32::new(bytes).ok_or(InvalidFrame::Value("hello credit"))
}
