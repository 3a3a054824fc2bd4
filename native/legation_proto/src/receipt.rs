//! Receipts: proof for a third party that an engine signed one message (`protocol.md` 14).
//!
//! ```text
//!   0 version u8 = 1, or 2 where there are rotations
//!   1 network id (32)
//!  33 source realm's identity key (32), by which the announcement is signed
//!  65 index of the message in the batch u16
//!  67 length of the batch's body without signature u64
//!  75 root: hash of that body (32)
//! 107 batch signature (64)
//! 171 version 2: number of rotations u16 (not 0), rotations (176 each), which lead to the identity key
//!   . length u32, LEARN body and signature (CERT for the realm itself)
//!   . length u32, Bao slice: header and table
//!   . length u32, Bao slice: the message's payload
//! ```
//!
//! The chain that is followed: [first identity key ─► rotations ─►] identity key ─► LEARN ─► engine key ─► batch signature ─► root ─► both slices.
//!
//! A slice is cut at chunks of 1,024 bytes, so up to 1,023 bytes before and behind it come along, unless rows are
//! aligned. The table comes along whole: whoever is shown a receipt sees where the other messages of the batch went and
//! how long they were.

use std::io::{Cursor, Read};

use bao::decode::SliceDecoder;
use bao::encode::SliceExtractor;
use ed25519_dalek::{Signature, VerifyingKey};
use thiserror::Error;

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::batch::{self, Batch};
use crate::frame::cert::Cert;
use crate::frame::learn::Learn;
use crate::heads::read_chain;
use crate::identity::{check_public_key, signing_input_of_hash, verify as verify_signature};
use crate::identity::{KeyError, NetworkId, Purpose, RealmId};
use crate::limits::{BATCH_MESSAGES_MAX, ONLINE_KEY_MS_MAX};
use crate::rotation::{follow_chain, ChainError, Rotation};
use crate::UnixMs;

const VERSION: u8 = 1;
const VERSION_ROTATED: u8 = 2;

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
    #[error("the receipt's version is {0}, neither 1 nor 2")]
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

/// What a receipt is made of. All of it as it came, and verified when it came: [`make`] checks form only.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptParts<'a> {
    pub network_id: &'a [u8; 32],
    /// Of the realm that sent the batch: the key that the announcement is signed by.
    pub identity_key: &'a [u8; 32],
    /// What is known of the realm's rotations; those that lead to `identity_key` go into the receipt.
    pub rotations: &'a [Rotation],
    /// Body and signature of the source engine's LEARN; of the CERT, where the realm itself is the source.
    pub announcement: &'a [u8],
    /// The body of the BATCH frame, signature included.
    pub batch: &'a [u8],
    /// Which message of the batch, from 0.
    pub index: u16,
}

/// The receipt for one message of a batch.
///
/// It hashes the whole batch; for several messages of one batch use [`ReceiptMaker`].
///
/// # Errors
/// [`ReceiptError::Malformed`], [`ReceiptError::OtherSource`], [`ReceiptError::NoSuchMessage`].
pub fn make(parts: ReceiptParts<'_>) -> Result<Vec<u8>, ReceiptError> {
    ReceiptMaker::new(parts)?.make(parts.index)
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
    /// As [`make`]; `parts.index` is not looked at.
    pub fn new(parts: ReceiptParts<'a>) -> Result<Self, ReceiptError> {
        let batch = Batch::parse(parts.batch)?;
        let signature = batch.signature.ok_or(InvalidFrame::Missing("batch signature"))?;
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

    /// # Errors
    /// [`ReceiptError::NoSuchMessage`].
    pub fn make(&self, index: u16) -> Result<Vec<u8>, ReceiptError> {
        let item = self.batch.message(index).ok_or(ReceiptError::NoSuchMessage(index))?;
        let table = self.slice(0, self.batch.table_end)?;
        // Bao has no slice of nothing: it would show the chunk that others' payloads stand in.
        let payload = match item.payload.len() {
            0 => Vec::new(),
            length => self.slice(item.offset, length)?,
        };

        let announcement = self.parts.announcement;
        let rotations = 2 + self.rotations.len() * Rotation::BYTES;
        let variable = rotations + announcement.len() + table.len() + payload.len() + 3 * 4;
        let mut receipt = Vec::with_capacity(FIXED_BYTES + variable);
        receipt.put_u8(if self.rotations.is_empty() { VERSION } else { VERSION_ROTATED });
        receipt.put(self.parts.network_id);
        receipt.put(self.parts.identity_key);
        receipt.put_u16(index);
        receipt.put_u64(self.batch.signed.len() as u64);
        receipt.put(&self.root);
        receipt.put(self.signature);
        if !self.rotations.is_empty() {
            receipt.put_u16(self.rotations.len() as u16);
            self.rotations.iter().for_each(|rotation| receipt.put(&rotation.encode()));
        }
        for field in [announcement, &table, &payload] {
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
    /// Validity of the engine's or online key.
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

    let announcement = Announcement::decode(fields.announcement, header.engine)?;
    let first_key = fields.rotations.first().map_or(&fields.identity_key, |first| &first.old);
    if announcement.realm != RealmId::of(first_key) || announcement.realm != header.source {
        return Err(ReceiptError::OtherSource);
    }
    check_public_key(&fields.identity_key)?;
    // When is not what a receipt proves, so no rotation comes too early.
    let (realm, rotations) = (&header.source, &fields.rotations);
    let identity = follow_chain(realm, &fields.identity_key, rotations, &[], &network, UnixMs::MAX)?;
    if !announcement.verify(&identity, &network) {
        return Err(ReceiptError::AnnouncementSignature);
    }
    let signed = signing_input_of_hash(Purpose::Batch, &network, &fields.root);
    check_public_key(&announcement.key)?
        .verify_strict(&signed, &Signature::from_bytes(&fields.signature))
        .map_err(|_| ReceiptError::BatchSignature)?;

    let payload = fields.payload(offset, row.payload_bytes)?;
    Ok(Verified {
        source: header.source,
        source_engine: header.engine.to_owned(),
        destination: header.destination,
        destination_engine: row.destination.to_owned(),
        kind: row.kind,
        detail: row.detail,
        call_id: row.call_id,
        session: header.session,
        sequence,
        key_not_before: announcement.not_before,
        key_not_after: announcement.not_after,
        payload,
    })
}

/// A receipt cut into its fields, none of them believed.
struct Fields<'a> {
    network_id: [u8; 32],
    identity_key: [u8; 32],
    rotations: Vec<Rotation>,
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
        if version != VERSION && version != VERSION_ROTATED {
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
            announcement: &[],
            table: &[],
            payload: &[],
        };
        if fields.body_bytes > BODY_BYTES_MAX {
            return Err(too_large("receipt body", fields.body_bytes, BODY_BYTES_MAX));
        }
        if version == VERSION_ROTATED {
            fields.rotations = read_chain(&mut reader)?;
            // One receipt has one form.
            if fields.rotations.is_empty() {
                return Err(InvalidFrame::Value("receipt rotations").into());
            }
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
            return Ok(Announcement { purpose: Purpose::Cert, realm, key, not_before, not_after, body, signature });
        }
        let (learn, signature) = Learn::decode(bytes)?;
        if learn.engine != engine {
            return Err(ReceiptError::OtherSource);
        }
        let Learn { realm, key, not_before, not_after, .. } = learn;
        Ok(Announcement { purpose: Purpose::Learn, realm, key, not_before, not_after, body, signature })
    }

    fn verify(&self, identity: &VerifyingKey, network: &NetworkId) -> bool {
        verify_signature(identity, self.purpose, network, self.body, &self.signature)
    }
}

fn field<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], InvalidFrame> {
    let length = reader.u32(what)? as usize;
    reader.take(length, what)
}

fn too_large(what: &'static str, bytes: u64, limit: u64) -> ReceiptError {
    InvalidFrame::TooLarge { what, bytes, limit }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::batch::{encode, kind, Header, Message};
    use crate::frame::HEADER_BYTES;
    use crate::identity::signing_input;
    use crate::signing::Mode;
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    const NETWORK: NetworkId = NetworkId([5; 32]);

    /// A realm, its engine `ping` and its online key.
    struct Source {
        identity: SigningKey,
        engine: SigningKey,
        online: SigningKey,
    }

    fn source() -> Source {
        let key = |seed| SigningKey::from_bytes(&[seed; 32]);
        Source { identity: key(1), engine: key(2), online: key(3) }
    }

    impl Source {
        fn identity_key(&self) -> [u8; 32] {
            self.identity.verifying_key().to_bytes()
        }

        fn realm(&self) -> RealmId {
            RealmId::of(&self.identity_key())
        }

        fn signed(&self, purpose: Purpose, mut body: Vec<u8>) -> Vec<u8> {
            let signature = self.identity.sign(&signing_input(purpose, &NETWORK, &body));
            body.put(&signature.to_bytes());
            body
        }

        fn learn(&self, engine: &str) -> Vec<u8> {
            let learn = Learn {
                realm: self.realm(),
                engine: engine.into(),
                key: self.engine.verifying_key().to_bytes(),
                serial: 1,
                not_before: 10,
                not_after: 20,
                version: 0,
                operations: 7,
            };
            self.signed(Purpose::Learn, learn.body())
        }

        fn cert(&self, validity: UnixMs) -> Vec<u8> {
            let key = self.online.verifying_key().to_bytes();
            let cert = Cert { realm: self.realm(), key, not_before: 10, not_after: 10 + validity, serial: 1 };
            self.signed(Purpose::Cert, cert.body())
        }

        /// The body of a BATCH of casts.
        fn batch(&self, engine: &str, messages: &[(bool, Vec<u8>)]) -> Vec<u8> {
            let key = if engine.is_empty() { &self.online } else { &self.engine };
            let header = Header {
                session: [9; 32],
                source: self.realm(),
                destination: RealmId([8; 32]),
                first_sequence: 40,
                mode: Mode::Engine,
                engine,
            };
            let messages = messages.iter().map(|(aligned, payload)| Message {
                kind: kind::CAST,
                aligned: *aligned,
                call_id: 0,
                caller: 0,
                detail: 0,
                source: engine,
                destination: "pong",
                payload,
            });
            let mut out = Vec::new();
            let sign = |body: &[u8]| key.sign(&signing_input(Purpose::Batch, &NETWORK, body)).to_bytes();
            encode(&header, messages, sign, &mut out);
            out.split_off(HEADER_BYTES)
        }

        fn receipt(&self, engine: &str, announcement: &[u8], batch: &[u8], index: u16) -> Vec<u8> {
            let identity_key = self.identity_key();
            let parts = ReceiptParts {
                network_id: &NETWORK.0,
                identity_key: &identity_key,
                rotations: &[],
                announcement,
                batch,
                index,
            };
            make(parts).unwrap_or_else(|error| panic!("{engine}: {error}"))
        }

        fn verify(&self, receipt: &[u8]) -> Result<Verified, ReceiptError> {
            verify(receipt, &self.identity_key(), &NETWORK.0)
        }
    }

    /// Payloads whose bytes tell whose they are.
    fn payloads(aligned: bool, lengths: &[usize]) -> Vec<(bool, Vec<u8>)> {
        let marked = lengths.iter().zip((0xA0..=0xFF).cycle());
        marked.map(|(length, mark): (_, u8)| (aligned, vec![mark; *length])).collect()
    }

    /// Runs of `mark` in `bytes` that are no accident.
    fn runs(bytes: &[u8], mark: u8) -> Vec<usize> {
        bytes.split(|byte| *byte != mark).map(<[u8]>::len).filter(|length| *length > 3).collect()
    }

    #[test]
    fn a_receipt_says_who_signed_what_to_whom() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[10, 20, 30]));
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
        let expected = Verified {
            source: source.realm(),
            source_engine: "ping".into(),
            destination: RealmId([8; 32]),
            destination_engine: "pong".into(),
            kind: kind::CAST,
            detail: 0,
            call_id: 0,
            session: [9; 32],
            sequence: 41,
            key_not_before: 10,
            key_not_after: 20,
            payload: vec![0xA1; 20],
        };
        assert_eq!(source.verify(&receipt), Ok(expected));
    }

    #[test]
    fn a_message_of_the_realm_itself_is_proved_by_its_online_key() {
        let source = source();
        let batch = source.batch("", &payloads(false, &[10]));
        let receipt = source.receipt("", &source.cert(ONLINE_KEY_MS_MAX), &batch, 0);
        let verified = source.verify(&receipt).unwrap();
        assert_eq!((verified.source_engine.as_str(), verified.payload.as_slice()), ("", &[0xA0; 10][..]));
    }

    #[test]
    fn receipts_of_all_messages_of_all_shapes_of_batches_verify() {
        let source = source();
        let learn = source.learn("ping");
        let long = [0, 1, 1_023, 1_024, 1_025, 0, 5_000, 2_048, 0];
        // 3 bytes a row: these tables end around the chunk's last byte.
        let tables: Vec<Vec<usize>> = (294..304).map(|rows| vec![3; rows]).collect();
        let mut shapes = vec![vec![0], vec![1], vec![900], vec![1_000], vec![70_000], long.to_vec(), vec![9; 4_096]];
        shapes.extend(tables);
        for lengths in shapes {
            for aligned in [false, true] {
                let messages = payloads(aligned && lengths.len() < 1_000, &lengths);
                let batch = source.batch("ping", &messages);
                let identity_key = source.identity_key();
                let maker = ReceiptMaker::new(ReceiptParts {
                    network_id: &NETWORK.0,
                    rotations: &[],
                    identity_key: &identity_key,
                    announcement: &learn,
                    batch: &batch,
                    index: 0,
                })
                .unwrap();
                for (index, (_, payload)) in messages.iter().enumerate().step_by(1 + messages.len() / 50) {
                    let receipt = maker.make(index as u16).unwrap();
                    let verified = source.verify(&receipt).unwrap();
                    assert_eq!((verified.sequence, &verified.payload), (40 + index as u64, payload));
                }
                assert_eq!(maker.make(messages.len() as u16), Err(ReceiptError::NoSuchMessage(messages.len() as u16)));
            }
        }
    }

    #[test]
    fn a_table_that_ends_with_a_chunk_is_proved_by_that_chunk_alone() {
        let source = source();
        // 108 + name + 8, a row of 8 bytes with the destination's name, and rows of 3: 297 and a name of 12 make 1,024.
        let engine = "a name of 12";
        let batch = source.batch(engine, &payloads(false, &[100; 297]));
        assert_eq!(Batch::parse(&batch).unwrap().table_end, 1_024);
        let receipt = source.receipt(engine, &source.learn(engine), &batch, 31);
        assert_eq!(source.verify(&receipt).unwrap().payload, vec![0xA0 + 31; 100]);
        let fields = Fields::decode(&receipt).unwrap();
        assert_eq!(runs(fields.table, 0xA0), []);
    }

    #[test]
    fn any_flipped_byte_is_found_and_another_index_never_proves_what_was_not_sent() {
        let source = source();
        for (engine, announcement, lengths) in [
            ("ping", source.learn("ping"), vec![700, 1_500, 2_000]),
            ("ping", source.learn("ping"), vec![30, 0, 30]),
            ("", source.cert(1_000), vec![5, 5, 5]),
        ] {
            let batch = source.batch(engine, &payloads(false, &lengths));
            let receipt = source.receipt(engine, &announcement, &batch, 1);
            assert!(source.verify(&receipt).is_ok());
            for at in 0..receipt.len() {
                let flips: &[u8] = if at < FIXED_BYTES { &[1, 2, 4, 8, 16, 32, 64, 128, 255] } else { &[1, 255] };
                for flip in flips {
                    let mut altered = receipt.clone();
                    altered[at] ^= flip;
                    match source.verify(&altered) {
                        Err(_) => {}
                        // What stands in the same chunks whole is proved as well (`protocol.md` 14.5).
                        Ok(other) if at == 65 => {
                            let index = usize::from(1 ^ flip);
                            assert_eq!(other.sequence, 40 + index as u64);
                            assert_eq!(other.payload, vec![0xA0 + index as u8; lengths[index]]);
                        }
                        Ok(_) => panic!("byte {at} of {}, {flip}", receipt.len()),
                    }
                }
            }
        }
    }

    #[test]
    fn a_receipt_cut_short_or_followed_by_anything_is_refused() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[10, 2_000]));
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
        for cut in 0..receipt.len() {
            assert!(source.verify(&receipt[..cut]).is_err(), "{cut}");
        }
        assert!(source.verify(&[&receipt[..], &[0]].concat()).is_err());
    }

    #[test]
    fn bytes_behind_a_slice_are_refused() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[10, 0]));
        for index in [0, 1] {
            let receipt = source.receipt("ping", &source.learn("ping"), &batch, index);
            let fields = Fields::decode(&receipt).unwrap();
            for (extra_table, extra_payload, error) in
                [(&[0][..], &[][..], ReceiptError::TableSlice), (&[], &[0], ReceiptError::PayloadSlice)]
            {
                let mut altered = receipt[..FIXED_BYTES].to_vec();
                let table = [fields.table, extra_table].concat();
                let payload = [fields.payload, extra_payload].concat();
                for field in [fields.announcement, &table, &payload] {
                    altered.put_u32(field.len() as u32);
                    altered.put(field);
                }
                assert_eq!(source.verify(&altered), Err(error));
            }
        }
    }

    #[test]
    fn at_most_1023_bytes_of_a_neighbour_show_at_each_edge() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[5_000, 3_333, 5_000]));
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
        for mark in [0xA0, 0xA2] {
            let shown = runs(&receipt, mark);
            assert!(!shown.is_empty() && shown.iter().all(|run| *run <= 1_023), "{mark:#x}: {shown:?}");
        }
        // The first message shows behind the table as well.
        assert_eq!((runs(&receipt, 0xA0).len(), runs(&receipt, 0xA2).len()), (2, 1));
    }

    #[test]
    fn no_byte_of_a_neighbour_shows_where_all_rows_are_aligned() {
        let source = source();
        let lengths = [5_000, 7, 1_024, 0, 3_333, 5_000];
        let batch = source.batch("ping", &payloads(true, &lengths));
        for (index, length) in lengths.into_iter().enumerate() {
            let receipt = source.receipt("ping", &source.learn("ping"), &batch, index as u16);
            let fields = Fields::decode(&receipt).unwrap();
            for (mark, other) in (0xA0..).zip(0..lengths.len()) {
                let shown: usize = runs(fields.table, mark).iter().chain(&runs(fields.payload, mark)).sum();
                assert_eq!(shown, if other == index { length } else { 0 }, "{other} in the receipt of {index}");
            }
        }
    }

    #[test]
    fn a_message_without_payload_shows_nobodys() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[3_000, 0, 3_000]));
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, 1);
        assert_eq!(Fields::decode(&receipt).unwrap().payload, &[0; 0]);
        assert_eq!(source.verify(&receipt).unwrap().payload, &[0; 0]);
    }

    #[test]
    fn another_network_realm_or_engine_is_refused() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[10]));
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, 0);
        let identity_key = source.identity_key();
        assert_eq!(verify(&receipt, &identity_key, &[6; 32]), Err(ReceiptError::OtherNetwork));
        let engine_key = source.engine.verifying_key().to_bytes();
        assert_eq!(verify(&receipt, &engine_key, &NETWORK.0), Err(ReceiptError::OtherRealm));

        let parts = |announcement, identity_key| ReceiptParts {
            network_id: &NETWORK.0,
            rotations: &[],
            identity_key,
            announcement,
            batch: &batch,
            index: 0,
        };
        let other_engine = source.learn("pong");
        assert_eq!(make(parts(&other_engine, &identity_key)), Err(ReceiptError::OtherSource));
        let learn = source.learn("ping");
        assert_eq!(make(parts(&learn, &engine_key)), Err(ReceiptError::OtherSource));
        let cert = source.cert(1_000);
        assert!(make(parts(&cert, &identity_key)).is_err());
    }

    #[test]
    fn another_realm_can_t_pass_the_message_off_as_its_own() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[10]));
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, 0);
        let fields = Fields::decode(&receipt).unwrap();
        // It announces the very same engine key under its own identity.
        let thief = Source { identity: SigningKey::from_bytes(&[4; 32]), ..self::source() };
        let learn = thief.learn("ping");
        let mut altered = receipt.clone();
        altered[33..65].copy_from_slice(&thief.identity_key());
        altered.truncate(FIXED_BYTES);
        for field in [&learn, fields.table, fields.payload] {
            altered.put_u32(field.len() as u32);
            altered.put(field);
        }
        assert_eq!(thief.verify(&altered), Err(ReceiptError::OtherSource));
    }

    #[test]
    fn an_announcement_or_a_batch_signed_by_somebody_else_is_refused() {
        let honest = source();
        let forger = Source { identity: SigningKey::from_bytes(&[4; 32]), ..source() };
        let batch = honest.batch("ping", &payloads(false, &[10]));
        // The honest realm's LEARN, with the forger's signature.
        let mut learn = honest.learn("ping");
        let body = learn[..learn.len() - 64].to_vec();
        learn = forger.signed(Purpose::Learn, body);
        let receipt = honest.receipt("ping", &learn, &batch, 0);
        assert_eq!(honest.verify(&receipt), Err(ReceiptError::AnnouncementSignature));

        let forger = Source { engine: SigningKey::from_bytes(&[4; 32]), ..source() };
        let batch = forger.batch("ping", &payloads(false, &[10]));
        let receipt = honest.receipt("ping", &honest.learn("ping"), &batch, 0);
        assert_eq!(honest.verify(&receipt), Err(ReceiptError::BatchSignature));
    }

    #[test]
    fn an_online_key_certified_for_longer_than_a_day_proves_nothing() {
        let source = source();
        let batch = source.batch("", &payloads(false, &[10]));
        let identity_key = source.identity_key();
        let announcement = source.cert(ONLINE_KEY_MS_MAX + 1);
        let parts = ReceiptParts {
            network_id: &NETWORK.0,
            rotations: &[],
            identity_key: &identity_key,
            announcement: &announcement,
            batch: &batch,
            index: 0,
        };
        assert_eq!(make(parts), Err(InvalidFrame::Value("cert not-after").into()));
    }

    #[test]
    fn lengths_of_gigabytes_allocate_nothing() {
        let source = source();
        let batch = source.batch("ping", &payloads(false, &[10]));
        let receipt = source.receipt("ping", &source.learn("ping"), &batch, 0);
        for length in [u64::from(u32::MAX), u64::from(u32::MAX) + 1, 1 << 54, u64::MAX] {
            let mut altered = receipt.clone();
            altered[67..75].copy_from_slice(&length.to_le_bytes());
            // Also where the slices say the same.
            let learn = u32::from_le_bytes(altered[171..175].try_into().unwrap()) as usize;
            altered[179 + learn..187 + learn].copy_from_slice(&length.to_le_bytes());
            assert!(source.verify(&altered).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let source = source();
            prop_assert!(source.verify(&bytes).is_err());
            let mut receipt = vec![VERSION];
            receipt.put(&NETWORK.0);
            receipt.put(&source.identity_key());
            receipt.put(&bytes);
            prop_assert!(source.verify(&receipt).is_err());
        }

        #[test]
        fn slices_of_arbitrary_bytes_never_panic(
            body_bytes in prop_oneof![0..5_000u64, any::<u32>().prop_map(u64::from)],
            table in prop::collection::vec(any::<u8>(), 0..3_000),
            payload in prop::collection::vec(any::<u8>(), 0..3_000),
            offset: u32,
            length: u32,
        ) {
            let slice = |content: &[u8]| [&body_bytes.to_le_bytes()[..], content].concat();
            let (table, payload) = (slice(&table), slice(&payload));
            let fields = Fields {
                network_id: NETWORK.0,
                rotations: Vec::new(),
                identity_key: [0; 32],
                index: 0,
                body_bytes,
                root: [0; 32],
                signature: [0; 64],
                announcement: &[],
                table: &table,
                payload: &payload,
            };
            prop_assert_eq!(fields.table(), Err(ReceiptError::TableSlice));
            prop_assert_eq!(fields.payload(offset as usize, length.max(1)), Err(ReceiptError::PayloadSlice));
        }
    }
}
