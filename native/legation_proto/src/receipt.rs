//! Receipts: proof for a third party that an engine signed one message, or its realm's online key for it (`protocol.md` 14).
//!
//! ```text
//!   0 version u8 = 1, or 2 where there are rotations; 3 for a message of a batch in delegated mode
//!   1 network id (32)
//!  33 source realm's identity key (32), by which the announcement is signed
//!  65 index of the message in the batch u16
//!  67 length of the batch's body without signature u64
//!  75 root: hash of that body (32)
//! 107 batch signature (64)
//! 171 versions 2 and 3: number of rotations u16 (in 2 not 0), rotations (176 each), which lead to the identity key
//!   . version 3: length u32, LEARN body and signature of the message's source (nothing for the realm itself)
//!   . length u32, LEARN body and signature (CERT for the realm itself, and in version 3)
//!   . length u32, Bao slice: header and table
//!   . length u32, Bao slice: the message's payload
//! ```
//!
//! The chain that is followed: [first identity key ─► rotations ─►] identity key ─► LEARN ─► engine key ─► batch signature ─► root ─► both slices.
//! In version 3 identity keys sign CERT and LEARN, the CERT has the key, and the LEARN says that it may sign for the engine.
//!
//! A slice is cut at chunks of 1,024 bytes, so up to 1,023 bytes before and behind it come along, unless rows are
//! aligned. The table comes along whole: whoever is shown a receipt sees where the other messages of the batch went and
//! how long they were.

#[cfg(test)]
mod tests;

use std::io::{Cursor, Read};

use bao::decode::SliceDecoder;
use bao::encode::SliceExtractor;
use ed25519_dalek::VerifyingKey;
use thiserror::Error;

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::batch::{self, Batch};
use crate::frame::cert::Cert;
use crate::frame::learn::Learn;
use crate::heads::read_chain;
use crate::identity::{check_public_key, signing_input_of_hash, verify as verify_signature, verify_message};
use crate::identity::{KeyError, NetworkId, Purpose, RealmId};
use crate::limits::{BATCH_MESSAGES_MAX, ONLINE_KEY_MS_MAX};
use crate::rotation::{follow_chain, ChainError, Rotation};
use crate::signing::Mode;
use crate::UnixMs;

const VERSION: u8 = 1;
const VERSION_ROTATED: u8 = 2;
const VERSION_DELEGATED: u8 = 3;

/// Before the three fields of variable length.
const FIXED_BYTES: usize = 171;

/// LEARN and CERT frames are no longer (`protocol.md` 6.2).
const ANNOUNCEMENT_BYTES_MAX: usize = 4 * 1024;

/// A frame's length is a `u32`, so no batch that came in one is longer.
const BODY_BYTES_MAX: u64 = u32::MAX as u64;

/// What stands before the source engine's name, and the length of that name.
const HEADER_FIXED_BYTES: usize = 108;

/// Why there is no receipt, or why one proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReceiptError {
    #[error("malformed: {0}")]
    Malformed(#[from] InvalidFrame),
    #[error("the receipt's version is {0}, not 1 to 3")]
    Version(u8),
    #[error("it was made in another network")]
    OtherNetwork,
    #[error("it is another realm's")]
    OtherRealm,
    #[error("a key can't be used: {0}")]
    Key(#[from] KeyError),
    #[error("rotations: {0}")]
    Rotations(#[from] ChainError),
    #[error("the announcement is not the batch's source's")]
    OtherSource,
    #[error("the realm's online key may not sign for the source")]
    NotDelegated,
    #[error("the batch has no signature that a receipt could show")]
    NotSigned,
    #[error("the identity did not sign the announcement")]
    AnnouncementSignature,
    #[error("the engine did not sign the batch")]
    BatchSignature,
    #[error("the slice of the header and table is not of the signed batch")]
    TableSlice,
    #[error("the slice of the payload is not of the signed batch")]
    PayloadSlice,
    #[error("the batch has no message {0}")]
    NoSuchMessage(u16),
}

/// What receipts for messages of a batch are made of. All of it as it came, and verified when it came: [`ReceiptMaker`] checks form only.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptParts<'a> {
    pub network_id: &'a [u8; 32],
    /// Of the realm that sent the batch: the key that the announcement is signed by; in delegated mode the one in force, where announcements
    /// are by it or by one before.
    pub identity_key: &'a [u8; 32],
    /// What is known of the realm's rotations; those that lead to `identity_key` go into the receipt.
    pub rotations: &'a [Rotation],
    /// Body and signature of the source engine's LEARN; of the CERT, where the realm itself is the source, and in delegated mode.
    pub announcement: &'a [u8],
    /// The body of the BATCH frame, signature included.
    pub batch: &'a [u8],
}

/// Makes receipts for messages of one batch, which is hashed once.
pub struct ReceiptMaker<'a> {
    parts: ReceiptParts<'a>,
    batch: Batch<'a>,
    signature: &'a [u8; 64],
    rotations: &'a [Rotation],
    /// The hashes of the tree over the batch, a sixteenth of its size.
    outboard: Vec<u8>,
    root: [u8; 32],
}

impl<'a> ReceiptMaker<'a> {
    /// # Errors
    /// [`ReceiptError::Malformed`], [`ReceiptError::OtherSource`], [`ReceiptError::NotSigned`].
    pub fn new(parts: ReceiptParts<'a>) -> Result<Self, ReceiptError> {
        let batch = Batch::parse(parts.batch)?;
        let signature = batch.signature.ok_or(ReceiptError::NotSigned)?;
        let announcement = Announcement::decode(parts.announcement, batch.header.engine)?;
        let leads = |rotation: &Rotation| rotation.new == *parts.identity_key;
        let rotations = parts.rotations.iter().position(leads).map_or(&[][..], |last| &parts.rotations[..=last]);
        let first_key = rotations.first().map_or(parts.identity_key, |first| &first.old);
        if announcement.realm != batch.header.source || announcement.realm != RealmId::of(first_key) {
            return Err(ReceiptError::OtherSource);
        }
        let (outboard, root) = bao::encode::outboard(batch.signed);
        Ok(ReceiptMaker { parts, batch, signature, rotations, outboard, root: *root.as_bytes() })
    }

    /// For the message at `index`, from 0. `learn`: body and signature of its source's LEARN, where the online key has signed for it;
    /// otherwise it is not looked at.
    ///
    /// # Errors
    /// [`ReceiptError::NoSuchMessage`], [`ReceiptError::NotDelegated`].
    pub fn make(&self, index: u16, learn: &[u8]) -> Result<Vec<u8>, ReceiptError> {
        let item = self.batch.message(index).ok_or(ReceiptError::NoSuchMessage(index))?;
        let table = self.slice(0, self.batch.table_end)?;
        // Bao has no slice of nothing: it would show the chunk that others' payloads stand in.
        let payload = match item.payload.len() {
            0 => Vec::new(),
            length => self.slice(item.offset, length)?,
        };

        let announcement = self.parts.announcement;
        let delegated = self.batch.header.mode == Mode::Delegated;
        let learn = if delegated && !item.row.source.is_empty() { learn } else { &[] };
        if delegated {
            delegation(learn, item.row.source, &self.batch.header.source)?;
        }
        let rotations = 2 + self.rotations.len() * Rotation::BYTES;
        let variable = rotations + learn.len() + announcement.len() + table.len() + payload.len() + 4 * 4;
        let mut receipt = Vec::with_capacity(FIXED_BYTES + variable);
        receipt.put_u8(match (delegated, self.rotations) {
            (true, _) => VERSION_DELEGATED,
            (false, []) => VERSION,
            (false, _) => VERSION_ROTATED,
        });
        receipt.put(self.parts.network_id);
        receipt.put(self.parts.identity_key);
        receipt.put_u16(index);
        receipt.put_u64(self.batch.signed.len() as u64);
        receipt.put(&self.root);
        receipt.put(self.signature);
        if delegated || !self.rotations.is_empty() {
            receipt.put_u16(self.rotations.len() as u16);
            self.rotations.iter().for_each(|rotation| receipt.put(&rotation.encode()));
        }
        let learn = delegated.then_some(learn);
        for field in learn.into_iter().chain([announcement, &table, &payload]) {
            let length = u32::try_from(field.len());
            receipt.put_u32(length.map_err(|_| too_large("receipt", field.len() as u64, u32::MAX.into()))?);
            receipt.put(field);
        }
        Ok(receipt)
    }

    fn slice(&self, offset: usize, length: usize) -> Result<Vec<u8>, ReceiptError> {
        let (content, outboard) = (Cursor::new(self.batch.signed), Cursor::new(&self.outboard[..]));
        let mut slice = Vec::new();
        SliceExtractor::new_outboard(content, outboard, offset as u64, length as u64)
            .read_to_end(&mut slice)
            .map_err(|_| InvalidFrame::Missing("batch"))?;
        Ok(slice)
    }
}

/// What a receipt proves: `source_engine` of `source` signed this message to `destination_engine` of `destination`.
///
/// *When*, it does not say, beyond that the key was good between `key_not_before` and `key_not_after`; a key is trusted
/// by whoever trusts the identity key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub source: RealmId,
    /// Empty for the realm itself.
    pub source_engine: String,
    pub destination: RealmId,
    /// Empty for answers, which go to a call.
    pub destination_engine: String,
    /// A number of `protocol.md` 10.1.
    pub kind: u8,
    /// Label or reason, where the kind has one.
    pub detail: u8,
    /// 0 where the kind has none.
    pub call_id: u64,
    pub session: [u8; 32],
    pub sequence: u64,
    /// Validity of the engine's or online key; in delegated mode as long as the engine's announcement is valid, too.
    pub key_not_before: UnixMs,
    /// 0: no end.
    pub key_not_after: UnixMs,
    /// External term format, not scanned.
    pub payload: Vec<u8>,
}

/// What `receipt` proves about a message of the realm of `identity_key`, in the network of `network_id`. A realm that has
/// rotated its key is known by its first one, and by each that it had until the receipt was made.
///
/// Total on arbitrary bytes; what it allocates is bounded by the length of `receipt`.
///
/// # Errors
/// Whatever is wrong first. There is no receipt that proves half of it.
pub fn verify(receipt: &[u8], identity_key: &[u8; 32], network_id: &[u8; 32]) -> Result<Verified, ReceiptError> {
    let fields = Fields::decode(receipt)?;
    if fields.network_id != *network_id {
        return Err(ReceiptError::OtherNetwork);
    }
    let vouches = |rotation: &Rotation| rotation.old == *identity_key;
    if fields.identity_key != *identity_key && !fields.rotations.iter().any(vouches) {
        return Err(ReceiptError::OtherRealm);
    }
    let network = NetworkId(*network_id);

    // Cheap and bounded by the receipt; until the signatures are checked it is the receipt's word only.
    let prefix = fields.table()?;
    let body_bytes = usize::try_from(fields.body_bytes).map_err(|_| InvalidFrame::Value("receipt body length"))?;
    let (header, row, offset) = batch::locate(&prefix, body_bytes, fields.index)?;
    let sequence =
        header.first_sequence.checked_add(fields.index.into()).ok_or(InvalidFrame::Value("batch sequence"))?;

    let by_mode = match fields.learn {
        None => Mode::Engine,
        Some(_) => Mode::Delegated,
    };
    if header.mode != by_mode {
        return Err(ReceiptError::OtherSource);
    }
    let announcement = Announcement::decode(fields.announcement, header.engine)?;
    let first_key = fields.rotations.first().map_or(&fields.identity_key, |first| &first.old);
    if announcement.realm != RealmId::of(first_key) || announcement.realm != header.source {
        return Err(ReceiptError::OtherSource);
    }
    check_public_key(&fields.identity_key)?;
    // When is not what a receipt proves, so no rotation comes too early.
    let (realm, rotations) = (&header.source, &fields.rotations);
    let identity = follow_chain(realm, &fields.identity_key, rotations, &[], &network, UnixMs::MAX, &check_public_key)?;
    let delegation = match fields.learn {
        None => None,
        // By the same realm, under any key that it has had: engines are not announced anew at the moment in which it has another.
        Some(learn) => delegation(learn, row.source, realm)?,
    };
    let mut keys = vec![identity];
    if fields.learn.is_some() {
        for rotation in rotations.iter().rev() {
            keys.push(check_public_key(&rotation.old)?);
        }
    }
    for announcement in delegation.iter().chain([&announcement]) {
        if !keys.iter().any(|key| announcement.verify(key, &network)) {
            return Err(ReceiptError::AnnouncementSignature);
        }
    }
    let signed = signing_input_of_hash(Purpose::Batch, &network, &fields.root);
    if !verify_message(&check_public_key(&announcement.key)?, &signed, &fields.signature) {
        return Err(ReceiptError::BatchSignature);
    }

    let payload = fields.payload(offset, row.payload_bytes)?;
    // Of two the time in which both are valid.
    let validities = delegation.iter().chain([&announcement]).map(|one| (one.not_before, one.not_after));
    let (key_not_before, key_not_after) = validities.fold((0, 0), |(before, after), (not_before, not_after)| {
        let ends = [after, not_after].into_iter().filter(|end| *end != 0).min();
        (before.max(not_before), ends.unwrap_or(0))
    });
    Ok(Verified {
        source: header.source,
        source_engine: row.source.to_owned(),
        destination: header.destination,
        destination_engine: row.destination.to_owned(),
        kind: row.kind,
        detail: row.detail,
        call_id: row.call_id,
        session: header.session,
        sequence,
        key_not_before,
        key_not_after,
        payload,
    })
}

/// A receipt cut into its fields, none of them believed.
struct Fields<'a> {
    network_id: [u8; 32],
    identity_key: [u8; 32],
    rotations: Vec<Rotation>,
    /// In version 3.
    learn: Option<&'a [u8]>,
    index: u16,
    body_bytes: u64,
    root: [u8; 32],
    signature: [u8; 64],
    announcement: &'a [u8],
    table: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Fields<'a> {
    fn decode(receipt: &'a [u8]) -> Result<Self, ReceiptError> {
        let mut reader = Reader::new(receipt);
        let version = reader.u8("receipt version")?;
        if ![VERSION, VERSION_ROTATED, VERSION_DELEGATED].contains(&version) {
            return Err(ReceiptError::Version(version));
        }
        let mut fields = Fields {
            network_id: reader.array("receipt network")?,
            identity_key: reader.array("receipt identity")?,
            index: reader.u16("receipt index")?,
            body_bytes: reader.u64("receipt body length")?,
            root: reader.array("receipt root")?,
            signature: reader.array("receipt signature")?,
            rotations: Vec::new(),
            learn: None,
            announcement: &[],
            table: &[],
            payload: &[],
        };
        if fields.body_bytes > BODY_BYTES_MAX {
            return Err(too_large("receipt body", fields.body_bytes, BODY_BYTES_MAX));
        }
        if version != VERSION {
            fields.rotations = read_chain(&mut reader)?;
            // One receipt has one form.
            if version == VERSION_ROTATED && fields.rotations.is_empty() {
                return Err(InvalidFrame::Value("receipt rotations").into());
            }
        }
        if version == VERSION_DELEGATED {
            fields.learn = Some(field(&mut reader, "receipt announcement")?);
        }
        fields.announcement = field(&mut reader, "receipt announcement")?;
        fields.table = field(&mut reader, "receipt table")?;
        fields.payload = field(&mut reader, "receipt payload")?;
        reader.finish("receipt")?;
        Ok(fields)
    }

    /// The batch from its first byte to the end of its table, of the given root.
    fn table(&self) -> Result<Vec<u8>, ReceiptError> {
        // A slice from 0 is the beginning of the whole encoding, so it can be read without knowing where it ends.
        let mut slice = Slice::open(self.table, self, 0, self.body_bytes, ReceiptError::TableSlice)?;
        let mut prefix = Vec::new();
        slice.read(&mut prefix, HEADER_FIXED_BYTES)?;
        let name_bytes = usize::from(prefix[HEADER_FIXED_BYTES - 1]);
        slice.read(&mut prefix, name_bytes + 8)?;
        let lengths = &prefix[HEADER_FIXED_BYTES + name_bytes..];
        let table_bytes = u32::from_le_bytes([lengths[0], lengths[1], lengths[2], lengths[3]]);
        if table_bytes as usize > BATCH_MESSAGES_MAX * batch::ROW_BYTES_MAX {
            return Err(InvalidFrame::Value("batch table length").into());
        }
        slice.read(&mut prefix, table_bytes as usize)?;
        slice.finish()?;
        Ok(prefix)
    }

    /// The payload at `offset` of the batch, of the given root.
    fn payload(&self, offset: usize, bytes: u32) -> Result<Vec<u8>, ReceiptError> {
        let mut payload = Vec::new();
        if bytes == 0 {
            return match self.payload.is_empty() {
                true => Ok(payload),
                false => Err(ReceiptError::PayloadSlice),
            };
        }
        let mut slice = Slice::open(self.payload, self, offset as u64, bytes.into(), ReceiptError::PayloadSlice)?;
        slice.read(&mut payload, bytes as usize)?;
        slice.finish()?;
        Ok(payload)
    }
}

/// A Bao slice that is read to its last byte.
struct Slice<'a> {
    decoder: SliceDecoder<&'a [u8]>,
    bytes: usize,
    error: ReceiptError,
}

impl<'a> Slice<'a> {
    fn open(
        slice: &'a [u8],
        fields: &Fields<'_>,
        offset: u64,
        length: u64,
        error: ReceiptError,
    ) -> Result<Self, ReceiptError> {
        // The length in the slice is what the decoder goes by. It is bounded with the receipt's, and it must be the
        // one that the table adds up to.
        if slice.first_chunk() != Some(&fields.body_bytes.to_le_bytes()) {
            return Err(error);
        }
        let decoder = SliceDecoder::new(slice, &fields.root.into(), offset, length);
        Ok(Slice { decoder, bytes: slice.len(), error })
    }

    /// Appends the next `count` bytes of what is sliced.
    fn read(&mut self, out: &mut Vec<u8>, count: usize) -> Result<(), ReceiptError> {
        // A slice is longer than what is in it; this bounds what is allocated.
        if count > self.bytes {
            return Err(self.error);
        }
        let start = out.len();
        out.resize(start + count, 0);
        self.decoder.read_exact(&mut out[start..]).map_err(|_| self.error)
    }

    fn finish(self) -> Result<(), ReceiptError> {
        match self.decoder.into_inner().is_empty() {
            true => Ok(()),
            false => Err(self.error),
        }
    }
}

/// What vouches for the key that signed the batch.
struct Announcement<'a> {
    purpose: Purpose,
    delegate: bool,
    realm: RealmId,
    key: [u8; 32],
    not_before: UnixMs,
    not_after: UnixMs,
    body: &'a [u8],
    signature: [u8; 64],
}

impl<'a> Announcement<'a> {
    /// A LEARN of `engine`, or a CERT for the empty name.
    fn decode(bytes: &'a [u8], engine: &str) -> Result<Self, ReceiptError> {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(too_large("announcement", bytes.len() as u64, ANNOUNCEMENT_BYTES_MAX as u64));
        }
        let (body, _) = bytes.split_last_chunk::<64>().ok_or(InvalidFrame::Missing("announcement signature"))?;
        if engine.is_empty() {
            let (cert, signature) = Cert::decode(bytes)?;
            let Cert { realm, key, not_before, not_after, .. } = cert;
            if not_after.checked_sub(not_before).is_none_or(|validity| validity > ONLINE_KEY_MS_MAX) {
                return Err(InvalidFrame::Value("cert not-after").into());
            }
            let (purpose, delegate) = (Purpose::Cert, false);
            return Ok(Announcement { purpose, delegate, realm, key, not_before, not_after, body, signature });
        }
        let (learn, signature) = Learn::decode(bytes)?;
        if learn.engine != engine {
            return Err(ReceiptError::OtherSource);
        }
        let Learn { realm, key, not_before, not_after, delegate, .. } = learn;
        let purpose = Purpose::Learn;
        Ok(Announcement { purpose, delegate, realm, key, not_before, not_after, body, signature })
    }

    fn verify(&self, identity: &VerifyingKey, network: &NetworkId) -> bool {
        verify_signature(identity, self.purpose, network, self.body, &self.signature)
    }
}

/// The LEARN that lets the realm's online key sign for `source`; none is needed for the realm itself.
fn delegation<'a>(learn: &'a [u8], source: &str, realm: &RealmId) -> Result<Option<Announcement<'a>>, ReceiptError> {
    if source.is_empty() {
        return match learn.is_empty() {
            true => Ok(None),
            false => Err(ReceiptError::OtherSource),
        };
    }
    let announcement = Announcement::decode(learn, source)?;
    if announcement.realm != *realm {
        return Err(ReceiptError::OtherSource);
    }
    match announcement.delegate {
        true => Ok(Some(announcement)),
        false => Err(ReceiptError::NotDelegated),
    }
}

fn field<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], InvalidFrame> {
    let length = reader.u32(what)? as usize;
    reader.take(length, what)
}

fn too_large(what: &'static str, bytes: u64, limit: u64) -> ReceiptError {
    InvalidFrame::TooLarge { what, bytes, limit }.into()
}
