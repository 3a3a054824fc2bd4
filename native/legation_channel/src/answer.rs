//! The answer: who can't make one learns nothing from who dialled (`protocol.md` 4.6).
//!
//! ```text
//!   0 mac (32) = keyed_hash(network key, "legation/1/answer" ‖ 0 ‖ profile ‖ hash(opening) ‖ length ‖ first flight)
//!  32 length of the first flight u16
//!  34 first flight (1 to 4,096 bytes)
//! ```
//!
//! *Opening* is all that the initiator has sent before: its knock, or where there is none its first flight. It holds randomness of
//! the initiator's, so no answer is good twice; and the flight holds the responder's part of the key exchange, so nobody can put
//! his own in its place.

use legation_proto::identity::NetworkKey;
use zeroize::Zeroizing;

use crate::channel::Profile;
use crate::error::ApiMisuse;
use crate::first_flight::FIRST_FLIGHT_BYTES_MAX;

const MAC_BYTES: usize = 32;
const HEADER_BYTES: usize = MAC_BYTES + 2;

/// What an answer answers.
#[derive(Clone, Debug)]
struct Question {
    network: NetworkKey,
    profile: Profile,
    /// Of the opening.
    hash: [u8; 32],
}

impl Question {
    fn mac(&self, first_flight: &[u8]) -> blake3::Hash {
        let key = Zeroizing::new(self.network.expose());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(b"legation/1/answer\0");
        hasher.update(&[self.profile as u8]);
        hasher.update(&self.hash);
        // At most 4,096.
        hasher.update(&(first_flight.len() as u16).to_le_bytes());
        hasher.update(first_flight);
        hasher.finalize()
    }
}

/// Makes the answer to one opening.
#[derive(Clone, Debug)]
pub struct AnswerResponder(Question);

impl AnswerResponder {
    /// `opening`: all that came before.
    pub fn new(network: NetworkKey, profile: Profile, opening: &[u8]) -> AnswerResponder {
        AnswerResponder::to_hash(network, profile, *blake3::hash(opening).as_bytes())
    }

    /// The same, of the opening's hash.
    pub fn to_hash(network: NetworkKey, profile: Profile, hash: [u8; 32]) -> AnswerResponder {
        AnswerResponder(Question { network, profile, hash })
    }

    /// Appends the answer around the channel's first flight.
    ///
    /// # Errors
    /// [`ApiMisuse::FirstFlightLength`].
    pub fn encode(&self, first_flight: &[u8], out: &mut Vec<u8>) -> Result<(), ApiMisuse> {
        let bytes = first_flight.len();
        if bytes == 0 || bytes > FIRST_FLIGHT_BYTES_MAX {
            return Err(ApiMisuse::FirstFlightLength { bytes, limit: FIRST_FLIGHT_BYTES_MAX });
        }
        out.reserve(HEADER_BYTES + bytes);
        out.extend_from_slice(self.0.mac(first_flight).as_bytes());
        out.extend_from_slice(&(bytes as u16).to_le_bytes());
        out.extend_from_slice(first_flight);
        Ok(())
    }
}

/// Why an answer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerRefused {
    #[error("it has {0} bytes, 1 to 4,096 are allowed")]
    Length(u16),
    #[error("its MAC is wrong: another network key, or it isn't the answer to us")]
    BadMac,
}

/// What has become of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum AnswerVerdict {
    NeedMore,
    /// Who answered has the network key.
    Accepted {
        /// For the channel's first [`crate::channel::Channel::handle_bytes`].
        first_flight: Vec<u8>,
        /// How much of the last input belongs to the answer; `input[consumed..]` is the channel's, too.
        consumed: usize,
    },
    /// The carrier is closed without a byte more.
    Refused(AnswerRefused),
}

/// Reads the answer to one opening, however it is cut.
#[derive(Debug)]
pub struct AnswerInitiator {
    question: Question,
    /// At most 34 + 4,096 bytes.
    buffer: Vec<u8>,
    refused: Option<AnswerRefused>,
}

impl AnswerInitiator {
    /// `opening`: all that was sent.
    pub fn new(network: NetworkKey, profile: Profile, opening: &[u8]) -> AnswerInitiator {
        let hash = *blake3::hash(opening).as_bytes();
        AnswerInitiator { question: Question { network, profile, hash }, buffer: Vec::new(), refused: None }
    }

    /// Takes carrier bytes. After a verdict other than [`AnswerVerdict::NeedMore`] it has done its work, and refuses whatever
    /// else it is given.
    pub fn handle_bytes(&mut self, input: &[u8]) -> AnswerVerdict {
        match self.step(input) {
            Ok(None) => AnswerVerdict::NeedMore,
            Ok(Some((first_flight, consumed))) => {
                self.refused = Some(AnswerRefused::BadMac);
                AnswerVerdict::Accepted { first_flight, consumed }
            }
            Err(refused) => {
                self.refused = Some(refused);
                self.buffer = Vec::new();
                AnswerVerdict::Refused(refused)
            }
        }
    }

    /// What is kept of an answer that is not all there: at most 4,130 bytes, and none behind a verdict.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn step(&mut self, input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, AnswerRefused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let mut rest = input;
        self.take_up_to(HEADER_BYTES, &mut rest);
        let Some(&[mac @ .., low, high]) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let mac: [u8; MAC_BYTES] = mac;
        let length = u16::from_le_bytes([low, high]);
        let bytes = usize::from(length);
        // Before more is kept of it.
        if bytes == 0 || bytes > FIRST_FLIGHT_BYTES_MAX {
            return Err(AnswerRefused::Length(length));
        }
        self.take_up_to(HEADER_BYTES + bytes, &mut rest);
        let first_flight = &self.buffer[HEADER_BYTES..];
        if first_flight.len() < bytes {
            return Ok(None);
        }
        // blake3::Hash compares in constant time.
        if self.question.mac(first_flight) != mac {
            return Err(AnswerRefused::BadMac);
        }
        let mut first_flight = std::mem::take(&mut self.buffer);
        first_flight.drain(..HEADER_BYTES);
        Ok(Some((first_flight, input.len() - rest.len())))
    }

    fn take_up_to(&mut self, bytes: usize, rest: &mut &[u8]) {
        let (taken, after) = rest.split_at(rest.len().min(bytes.saturating_sub(self.buffer.len())));
        self.buffer.extend_from_slice(taken);
        *rest = after;
    }
}
