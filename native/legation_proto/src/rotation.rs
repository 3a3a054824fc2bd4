//! Rotation records and revocations: how a realm comes by another identity key, and how it ends (`protocol.md` 2.7, 11.7).
//!
//! ```text
//!  rotation                            revocation
//!    0 realm id (32)                     0 realm id (32)
//!   32 old identity key (32)            32 identity key (32)
//!   64 new identity key (32)            64 serial u64
//!   96 serial u64                       72 signature (64), by that key
//!  104 not-before u64
//!  112 signature (64), by the old key
//! ```
//!
//! A realm's **chain** is its rotations in order. It begins at the realm's first key, whose hash is the realm id, and its
//! last new key is the identity key in force, the **head**.

use ed25519_dalek::VerifyingKey;
use thiserror::Error;

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::identity::{check_public_key, verify, KeyError, NetworkId, Purpose, RealmId};
use crate::limits::{CLOCK_SKEW_MS, ROTATIONS_MAX};
use crate::UnixMs;

/// The old key's word for the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub realm: RealmId,
    pub old: [u8; 32],
    pub new: [u8; 32],
    /// Which one of the chain it is, from 1.
    pub serial: u64,
    pub not_before: UnixMs,
    pub signature: [u8; 64],
}

impl Rotation {
    pub const BYTES: usize = 176;

    /// The bytes that are signed.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::BYTES);
        body.put(&self.realm.0);
        body.put(&self.old);
        body.put(&self.new);
        body.put_u64(self.serial);
        body.put_u64(self.not_before);
        body
    }

    /// Body and signature.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.body();
        bytes.put(&self.signature);
        bytes
    }

    /// From body and signature. Says nothing about the signature's worth.
    pub fn decode(bytes: &[u8]) -> Result<Rotation, InvalidFrame> {
        let mut reader = Reader::new(bytes);
        let rotation = Rotation::read(&mut reader)?;
        reader.finish("rotation")?;
        Ok(rotation)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Rotation, InvalidFrame> {
        Ok(Rotation {
            realm: RealmId(reader.array("rotation realm")?),
            old: reader.array("rotation old key")?,
            new: reader.array("rotation new key")?,
            serial: reader.u64("rotation serial")?,
            not_before: reader.u64("rotation not-before")?,
            signature: reader.array("rotation signature")?,
        })
    }

    /// Whether it may come behind `chain`, whose head is `head`. Returns the new key, fit for use.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn follow(
        &self,
        chain: &[Rotation],
        head: &VerifyingKey,
        network: &NetworkId,
        now: UnixMs,
    ) -> Result<VerifyingKey, ChainError> {
        let known = |key: &[u8; 32]| chain.iter().any(|earlier| earlier.old == *key);
        let in_place = self.old == *head.as_bytes() && self.serial == chain.len() as u64 + 1;
        // A key that was replaced doesn't come back.
        if !in_place || self.new == self.old || known(&self.new) {
            return Err(ChainError::Broken);
        }
        if chain.len() >= ROTATIONS_MAX {
            return Err(ChainError::TooLong);
        }
        if now.saturating_add(CLOCK_SKEW_MS) < self.not_before {
            return Err(ChainError::NotYet);
        }
        let new = check_public_key(&self.new).map_err(|_| ChainError::BadKey)?;
        match verify(head, Purpose::Rotate, network, &self.body(), &self.signature) {
            true => Ok(new),
            false => Err(ChainError::BadSignature),
        }
    }
}

/// The head's word that the realm has ended: no key speaks for it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub realm: RealmId,
    pub key: [u8; 32],
    /// One more than there are rotations.
    pub serial: u64,
    pub signature: [u8; 64],
}

impl Revocation {
    pub const BYTES: usize = 136;

    /// The bytes that are signed.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::BYTES);
        body.put(&self.realm.0);
        body.put(&self.key);
        body.put_u64(self.serial);
        body
    }

    /// Body and signature.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.body();
        bytes.put(&self.signature);
        bytes
    }

    /// From body and signature. Says nothing about the signature's worth.
    pub fn decode(bytes: &[u8]) -> Result<Revocation, InvalidFrame> {
        let mut reader = Reader::new(bytes);
        let revocation = Revocation {
            realm: RealmId(reader.array("revocation realm")?),
            key: reader.array("revocation key")?,
            serial: reader.u64("revocation serial")?,
            signature: reader.array("revocation signature")?,
        };
        reader.finish("revocation")?;
        Ok(revocation)
    }

    /// Whether it ends the chain of `realm` that has so many rotations, and `head` for its last key.
    pub fn ends(&self, realm: &RealmId, rotations: usize, head: &VerifyingKey, network: &NetworkId) -> bool {
        self.realm == *realm
            && self.key == *head.as_bytes()
            && self.serial == rotations as u64 + 1
            && verify(head, Purpose::Revoke, network, &self.body(), &self.signature)
    }
}

/// Why a chain, or a record behind one, is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Another realm's.
    #[error("the rotations begin at another realm's key")]
    OtherRealm,
    #[error("the rotations don't follow each other")]
    Broken,
    #[error("there are more than {ROTATIONS_MAX} rotations")]
    TooLong,
    #[error("a rotation is not in force yet")]
    NotYet,
    #[error("a key of the rotations can't be used")]
    BadKey,
    #[error("a rotation is not signed by the key before")]
    BadSignature,
}

/// Follows a chain from the realm's first key. Returns its head, fit for use. With no rotations `identity` is the first key.
///
/// `known` are rotations of the realm that were verified before: the same ones aren't again. `check` is [`check_public_key`], or
/// knows what that has said.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn follow_chain(
    realm: &RealmId,
    identity: &[u8; 32],
    chain: &[Rotation],
    known: &[Rotation],
    network: &NetworkId,
    now: UnixMs,
    check: &dyn Fn(&[u8; 32]) -> Result<VerifyingKey, KeyError>,
) -> Result<VerifyingKey, ChainError> {
    let first = chain.first().map_or(identity, |rotation| &rotation.old);
    if RealmId::of(first) != *realm || chain.iter().any(|rotation| rotation.realm != *realm) {
        return Err(ChainError::OtherRealm);
    }
    if chain.last().is_some_and(|last| last.new != *identity) {
        return Err(ChainError::Broken);
    }
    let verified = chain.iter().zip(known).take_while(|(one, other)| one == other).count();
    let (verified, unknown) = chain.split_at(verified);
    let head = verified.last().map_or(first, |last| &last.new);
    let mut head = check(head).map_err(|_| ChainError::BadKey)?;
    for (number, rotation) in unknown.iter().enumerate() {
        head = rotation.follow(&chain[..verified.len() + number], &head, network, now)?;
    }
    Ok(head)
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
