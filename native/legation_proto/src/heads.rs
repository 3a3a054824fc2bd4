//! How far the chains of other realms have got, as we have seen them: a head that was seen doesn't go back (`protocol.md` 2.8).
//!
//! One per keyring, so one per instance: each of its links asks here. Nothing is kept of a realm that has rotated nothing
//! and revoked nothing; of the others only those get here that the driver has let in, which it has a list of.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::identity::RealmId;
use crate::limits::ROTATIONS_MAX;
use crate::rotation::Rotation;

/// Why a chain is refused that is good in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// It ends before the one that we have seen.
    #[error("the identity key was replaced by a newer one")]
    Stale,
    /// Two keys were signed by one: one of the signers is a thief.
    #[error("the rotations part from those that were seen before")]
    Forked,
    #[error("the realm's key was revoked")]
    Revoked,
}

#[derive(Debug, Default)]
pub struct Heads(Mutex<HashMap<RealmId, Head>>);

#[derive(Debug, Default)]
struct Head {
    chain: Vec<Rotation>,
    revoked: bool,
    /// Since somebody has asked for what has changed.
    changed: bool,
}

impl Head {
    /// Rotations are the same that lead to the same keys: one that was made again may have another time.
    fn compare(&self, chain: &[Rotation]) -> Result<(), HeadError> {
        if self.revoked {
            return Err(HeadError::Revoked);
        }
        if self.chain.iter().zip(chain).any(|(seen, shown)| (seen.old, seen.new) != (shown.old, shown.new)) {
            return Err(HeadError::Forked);
        }
        match chain.len() < self.chain.len() {
            true => Err(HeadError::Stale),
            false => Ok(()),
        }
    }
}

impl Heads {
    fn lock(&self) -> MutexGuard<'_, HashMap<RealmId, Head>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen of the realm; nothing is verified here, and nothing changes.
    ///
    /// # Errors
    /// When `chain` is not that, or longer.
    pub fn check(&self, realm: &RealmId, chain: &[Rotation]) -> Result<Vec<Rotation>, HeadError> {
        match self.lock().get(realm) {
            Some(head) => head.compare(chain).map(|()| head.chain.clone()),
            None => Ok(Vec::new()),
        }
    }

    /// The realm has shown this chain, which was verified. True if it is longer than what was seen before.
    ///
    /// # Errors
    /// As [`Heads::check`].
    pub fn advance(&self, realm: &RealmId, chain: &[Rotation]) -> Result<bool, HeadError> {
        let mut heads = self.lock();
        if let Some(head) = heads.get(realm) {
            head.compare(chain)?;
            if head.chain.len() == chain.len() {
                return Ok(false);
            }
        } else if chain.is_empty() {
            return Ok(false);
        }
        let head = heads.entry(*realm).or_default();
        head.chain = chain.to_vec();
        head.changed = true;
        Ok(true)
    }

    /// No key speaks for the realm any more: it has said so itself, or we have decided so.
    pub fn revoke(&self, realm: &RealmId) {
        let mut heads = self.lock();
        let head = heads.entry(*realm).or_default();
        head.changed |= !head.revoked;
        head.revoked = true;
    }

    pub fn is_revoked(&self, realm: &RealmId) -> bool {
        self.lock().get(realm).is_some_and(|head| head.revoked)
    }

    /// What a driver that keeps heads over restarts has to write down, since it asked last.
    pub fn take_changed(&self) -> Vec<(RealmId, Vec<u8>)> {
        let mut heads = self.lock();
        let changed = |(realm, head): (&RealmId, &mut Head)| {
            std::mem::take(&mut head.changed).then(|| (*realm, encode(realm, head)))
        };
        heads.iter_mut().filter_map(changed).collect()
    }

    /// What was written down. It is believed: whoever can change it can also change the list of peers. It takes nothing
    /// back that was seen meanwhile.
    ///
    /// # Errors
    /// When it is not what [`Heads::take_changed`] gave.
    pub fn restore(&self, bytes: &[u8]) -> Result<RealmId, InvalidFrame> {
        let (realm, restored) = decode(bytes)?;
        let mut heads = self.lock();
        let head = heads.entry(realm).or_default();
        if restored.chain.len() > head.chain.len() {
            head.chain = restored.chain;
        }
        head.revoked |= restored.revoked;
        Ok(realm)
    }
}

/// ```text
///  0 version u8 = 1
///  1 realm id (32)
/// 33 revoked u8: 0, 1
/// 34 count u16, rotations (176 each)
/// ```
fn encode(realm: &RealmId, head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(36 + head.chain.len() * Rotation::BYTES);
    out.put_u8(1);
    out.put(&realm.0);
    out.put_u8(head.revoked.into());
    out.put_u16(head.chain.len() as u16);
    head.chain.iter().for_each(|rotation| out.put(&rotation.encode()));
    out
}

fn decode(bytes: &[u8]) -> Result<(RealmId, Head), InvalidFrame> {
    let mut reader = Reader::new(bytes);
    if reader.u8("head version")? != 1 {
        return Err(InvalidFrame::Value("head version"));
    }
    let realm = RealmId(reader.array("head realm")?);
    let revoked = match reader.u8("head revoked")? {
        0 => false,
        1 => true,
        _ => return Err(InvalidFrame::Value("head revoked")),
    };
    let chain = read_chain(&mut reader)?;
    reader.finish("head")?;
    Ok((realm, Head { chain, revoked, ..Head::default() }))
}

/// A count and so many rotations.
pub(crate) fn read_chain(reader: &mut Reader<'_>) -> Result<Vec<Rotation>, InvalidFrame> {
    let count = usize::from(reader.u16("rotations")?);
    if count > ROTATIONS_MAX {
        return Err(InvalidFrame::TooLarge { what: "rotations", bytes: count as u64, limit: ROTATIONS_MAX as u64 });
    }
    (0..count).map(|_| Rotation::read(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(serial: u64, new: u8) -> Rotation {
        let (realm, old) = (RealmId([1; 32]), [serial as u8; 32]);
        Rotation { realm, old, new: [new; 32], serial, not_before: 0, signature: [0; 64] }
    }

    #[test]
    fn a_head_goes_on_and_never_back() {
        let (heads, realm) = (Heads::default(), RealmId([1; 32]));
        let chain = [rotation(1, 2), rotation(2, 3), rotation(3, 4)];
        assert_eq!(heads.advance(&realm, &[]), Ok(false));
        assert_eq!(heads.advance(&realm, &chain[..1]), Ok(true));
        assert_eq!(heads.advance(&realm, &chain[..1]), Ok(false));
        assert_eq!(heads.advance(&realm, &chain), Ok(true));
        for shorter in 0..3 {
            assert_eq!(heads.advance(&realm, &chain[..shorter]), Err(HeadError::Stale));
            assert_eq!(heads.check(&realm, &chain[..shorter]), Err(HeadError::Stale));
        }
        assert_eq!(heads.check(&realm, &chain), Ok(chain.to_vec()));
        let again = Rotation { not_before: 9, signature: [7; 64], ..rotation(1, 2) };
        assert_eq!(heads.check(&realm, &[again, rotation(2, 3), rotation(3, 4)]), Ok(chain.to_vec()));
        assert_eq!(heads.check(&RealmId([2; 32]), &[]), Ok(Vec::new()));
    }

    #[test]
    fn a_fork_is_told_from_an_older_chain_however_long_it_is() {
        let (heads, realm) = (Heads::default(), RealmId([1; 32]));
        heads.advance(&realm, &[rotation(1, 2), rotation(2, 3)]).unwrap();
        let fork = [rotation(1, 9), rotation(2, 3), rotation(3, 4)];
        for end in 1..=3 {
            assert_eq!(heads.advance(&realm, &fork[..end]), Err(HeadError::Forked));
        }
    }

    #[test]
    fn nothing_gets_past_a_revocation() {
        let (heads, realm) = (Heads::default(), RealmId([1; 32]));
        assert!(!heads.is_revoked(&realm));
        heads.revoke(&realm);
        assert!(heads.is_revoked(&realm));
        assert_eq!(heads.advance(&realm, &[]), Err(HeadError::Revoked));
        assert_eq!(heads.advance(&realm, &[rotation(1, 2)]), Err(HeadError::Revoked));
    }

    #[test]
    fn what_has_changed_is_told_once_and_comes_back_after_a_restart() {
        let (heads, realm) = (Heads::default(), RealmId([1; 32]));
        let chain = [rotation(1, 2), rotation(2, 3)];
        heads.advance(&realm, &chain[..1]).unwrap();
        let older = heads.take_changed();
        heads.advance(&realm, &chain).unwrap();
        let written = heads.take_changed();
        assert_eq!((older.len(), written.len(), heads.take_changed().len()), (1, 1, 0));
        let restarted = Heads::default();
        assert_eq!(restarted.restore(&written[0].1), Ok(realm));
        assert_eq!(restarted.restore(&older[0].1), Ok(realm), "takes nothing back");
        assert_eq!(restarted.check(&realm, &chain[..1]), Err(HeadError::Stale));
        heads.revoke(&realm);
        heads.revoke(&realm);
        let revoked = heads.take_changed();
        assert_eq!(revoked.len(), 1);
        restarted.restore(&revoked[0].1).unwrap();
        assert!(restarted.is_revoked(&realm));
        for cut in 0..revoked[0].1.len() {
            assert!(restarted.restore(&revoked[0].1[..cut]).is_err());
        }
    }
}
