//! What a daemon and a key agent say to each other (`docs/key-agent.md`): frames of a length and so many bytes.
//!
//! ```text
//!   0 length u32      of all that follows
//!   4 version u8 = 1
//!   5 type u8         1 public key?   2 sign        129 public key   130 signature   255 refused
//!   6 id u64          the answer repeats it
//!  14 content
//!
//!  sign:      14 purpose u8   15 network id (32)   47 body, to the end
//!  public key: 14 key (32)    signature: 14 signature (64)    refused: 14 reason u8   15 text, to the end
//! ```
//!
//! Integers are big-endian, so that `{packet, 4}` of a BEAM cuts the frames.

use legation_proto::identity::{NetworkId, Purpose};

/// Bytes after the length. A HELLO, the largest body that is signed, has at most 4 KiB.
pub const REQUEST_BYTES_MAX: usize = 8_192;
pub const ANSWER_BYTES_MAX: usize = 512;

/// A refusal's text.
const TEXT_BYTES_MAX: usize = 255;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 10;

mod kind {
    pub const ASK_PUBLIC_KEY: u8 = 1;
    pub const SIGN: u8 = 2;
    pub const PUBLIC_KEY: u8 = 129;
    pub const SIGNATURE: u8 = 130;
    pub const REFUSED: u8 = 255;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    PublicKey,
    Sign { purpose: Purpose, network: NetworkId, body: &'a [u8] },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    PublicKey([u8; 32]),
    Signature([u8; 64]),
    Refused(Refusal, String),
}

/// Why an agent doesn't do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// It is no request of this version.
    Malformed = 1,
    /// It is for a purpose that this agent doesn't sign for.
    Purpose = 2,
    /// It is for another network.
    Network = 3,
    /// The key can't be used now.
    Failed = 4,
}

impl Refusal {
    pub fn words(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Purpose => "not for this purpose",
            Refusal::Network => "not for this network",
            Refusal::Failed => "the key can't be used now",
        }
    }
}

/// Nothing that can be answered: the stream can't be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the key agent's protocol")]
pub struct Garbage;

/// Appends a request as a frame.
pub fn encode_request(id: u64, request: &Request<'_>, out: &mut Vec<u8>) {
    match request {
        Request::PublicKey => frame(kind::ASK_PUBLIC_KEY, id, &[], out),
        Request::Sign { purpose, network, body } => {
            frame(kind::SIGN, id, &[&[purpose_number(*purpose)], &network.0, body], out)
        }
    }
}

/// Appends an answer as a frame.
pub fn encode_answer(id: u64, answer: &Answer, out: &mut Vec<u8>) {
    match answer {
        Answer::PublicKey(key) => frame(kind::PUBLIC_KEY, id, &[key], out),
        Answer::Signature(signature) => frame(kind::SIGNATURE, id, &[signature], out),
        Answer::Refused(reason, text) => {
            let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            frame(kind::REFUSED, id, &[&[*reason as u8], &text.as_bytes()[..end]], out)
        }
    }
}

fn frame(kind: u8, id: u64, content: &[&[u8]], out: &mut Vec<u8>) {
    let bytes = HEAD_BYTES + content.iter().map(|piece| piece.len()).sum::<usize>();
    // Callers keep to the bounds above.
    out.extend_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&[VERSION, kind]);
    out.extend_from_slice(&id.to_be_bytes());
    content.iter().for_each(|piece| out.extend_from_slice(piece));
}

/// The id of a frame without its length, and the request; or what to answer instead.
///
/// # Errors
/// [`Garbage`] when there isn't even an id.
pub fn decode_request(frame: &[u8]) -> Result<(u64, Result<Request<'_>, Refusal>), Garbage> {
    let (version, kind, id, content) = head(frame)?;
    let request = match (version, kind) {
        (VERSION, kind::ASK_PUBLIC_KEY) if content.is_empty() => Ok(Request::PublicKey),
        (VERSION, kind::SIGN) => sign(content),
        _ => Err(Refusal::Malformed),
    };
    Ok((id, request))
}

fn sign(content: &[u8]) -> Result<Request<'_>, Refusal> {
    let (purpose, rest) = content.split_first().ok_or(Refusal::Malformed)?;
    let (network, body) = rest.split_first_chunk().ok_or(Refusal::Malformed)?;
    let purpose = purpose_of(*purpose).ok_or(Refusal::Purpose)?;
    Ok(Request::Sign { purpose, network: NetworkId(*network), body })
}

/// # Errors
/// [`Garbage`] for whatever is no answer of this version.
pub fn decode_answer(frame: &[u8]) -> Result<(u64, Answer), Garbage> {
    let (version, kind, id, content) = head(frame)?;
    let answer = match (version, kind) {
        (VERSION, kind::PUBLIC_KEY) => Answer::PublicKey(content.try_into().map_err(|_| Garbage)?),
        (VERSION, kind::SIGNATURE) => Answer::Signature(content.try_into().map_err(|_| Garbage)?),
        (VERSION, kind::REFUSED) => {
            let (reason, text) = content.split_first().ok_or(Garbage)?;
            let reasons = [Refusal::Malformed, Refusal::Purpose, Refusal::Network, Refusal::Failed];
            // One of a later version is a failure to us.
            let reason = reasons.into_iter().find(|known| *known as u8 == *reason).unwrap_or(Refusal::Failed);
            Answer::Refused(reason, std::str::from_utf8(text).map_err(|_| Garbage)?.to_owned())
        }
        _ => return Err(Garbage),
    };
    Ok((id, answer))
}

fn head(frame: &[u8]) -> Result<(u8, u8, u64, &[u8]), Garbage> {
    let (head, content) = frame.split_first_chunk::<HEAD_BYTES>().ok_or(Garbage)?;
    let [version, kind, id @ ..] = *head;
    Ok((version, kind, u64::from_be_bytes(id), content))
}

/// The purposes that an identity signs for. Messages are signed by other keys.
const PURPOSES: [(u8, Purpose); 5] =
    [(1, Purpose::Link), (2, Purpose::Hello), (3, Purpose::Cert), (4, Purpose::Learn), (5, Purpose::Forget)];

fn purpose_of(number: u8) -> Option<Purpose> {
    PURPOSES.iter().find(|(known, _)| *known == number).map(|(_, purpose)| *purpose)
}

/// 0, which no agent signs for, if it is none of the identity's purposes.
fn purpose_number(purpose: Purpose) -> u8 {
    PURPOSES.iter().find(|(_, known)| *known == purpose).map_or(0, |(number, _)| *number)
}

/// Bytes as they come, frames as they are complete.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    bytes_max: usize,
}

impl Frames {
    pub fn new(bytes_max: usize) -> Frames {
        Frames { buffer: Vec::new(), bytes_max }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, without its length.
    ///
    /// # Errors
    /// [`Garbage`] when its length says that it is over the bound; nothing has been allocated for it then.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Garbage> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.bytes_max {
            return Err(Garbage);
        }
        let Some(frame) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.buffer.drain(..4 + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_as_documented() {
        let mut out = Vec::new();
        let network = NetworkId([9; 32]);
        encode_request(7, &Request::Sign { purpose: Purpose::Cert, network, body: b"xy" }, &mut out);
        let expected = [&[0, 0, 0, 45, 1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 3][..], &[9; 32], b"xy"].concat();
        assert_eq!(out, expected);
        out.clear();
        encode_request(1, &Request::PublicKey, &mut out);
        assert_eq!(out, [0, 0, 0, 10, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        out.clear();
        encode_answer(1, &Answer::Refused(Refusal::Network, "no".to_owned()), &mut out);
        assert_eq!(out, [0, 0, 0, 13, 1, 255, 0, 0, 0, 0, 0, 0, 0, 1, 3, b'n', b'o']);
    }

    #[test]
    fn a_batch_is_no_purpose_of_the_identity() {
        let mut out = Vec::new();
        let network = NetworkId([9; 32]);
        encode_request(7, &Request::Sign { purpose: Purpose::Batch, network, body: b"" }, &mut out);
        assert_eq!(decode_request(&out[4..]), Ok((7, Err(Refusal::Purpose))));
    }

    #[test]
    fn another_version_and_an_unknown_type_are_refused_by_id() {
        for (at, value) in [(4, 2), (5, 3), (5, 129)] {
            let mut out = Vec::new();
            encode_request(7, &Request::PublicKey, &mut out);
            out[at] = value;
            assert_eq!(decode_request(&out[4..]), Ok((7, Err(Refusal::Malformed))));
        }
        assert_eq!(decode_request(&[1; 9]), Err(Garbage));
    }

    #[test]
    fn a_frame_is_accepted_at_its_bound_and_refused_one_past_it() {
        let mut frames = Frames::new(REQUEST_BYTES_MAX);
        frames.push(&8_192u32.to_be_bytes());
        frames.push(&[0; 8_192]);
        assert_eq!(frames.next_frame().map(|frame| frame.map(|frame| frame.len())), Ok(Some(8_192)));
        assert_eq!(frames.next_frame(), Ok(None));
        frames.push(&8_193u32.to_be_bytes());
        assert_eq!(frames.next_frame(), Err(Garbage));
    }

    #[test]
    fn a_long_refusal_is_cut_between_characters() {
        let mut out = Vec::new();
        encode_answer(1, &Answer::Refused(Refusal::Failed, "ö".repeat(200)), &mut out);
        assert_eq!(decode_answer(&out[4..]), Ok((1, Answer::Refused(Refusal::Failed, "ö".repeat(127)))));
        assert!(out.len() - 4 <= ANSWER_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn requests_come_back_however_they_are_cut(body in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            let mut out = Vec::new();
            let request = Request::Sign { purpose: Purpose::Learn, network: NetworkId([3; 32]), body: &body };
            encode_request(u64::MAX, &request, &mut out);
            encode_request(2, &Request::PublicKey, &mut out);
            let (mut frames, mut seen) = (Frames::new(REQUEST_BYTES_MAX), Vec::new());
            for piece in out.chunks(cut) {
                frames.push(piece);
                while let Some(frame) = frames.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen.len(), 2);
            prop_assert_eq!(decode_request(&seen[0]), Ok((u64::MAX, Ok(request))));
            prop_assert_eq!(decode_request(&seen[1]), Ok((2, Ok(Request::PublicKey))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_request(&bytes);
            let _ = decode_answer(&bytes);
            let mut frames = Frames::new(ANSWER_BYTES_MAX);
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next_frame() {}
        }
    }
}
