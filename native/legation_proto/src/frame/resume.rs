//! RESUME: from here on its sender's session goes over this link (`protocol.md` 8.6).
//!
//! ```text
//!  0 session id (32)
//! 32 received u64     the last sequence number that was handed to mailboxes, as in ACK
//! 40 next u64         of the first sequenced frame that follows on this link, not 0
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::{self, FrameType};

/// Bytes of the body.
pub const BYTES: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    pub session: [u8; 32],
    pub received: u64,
    pub next: u64,
}

impl Resume {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(BYTES);
        body.put(&self.session);
        body.put_u64(self.received);
        body.put_u64(self.next);
        frame::encode(FrameType::Resume, &body, out);
    }

    pub fn decode(body: &[u8]) -> Result<Resume, InvalidFrame> {
        let mut reader = Reader::new(body);
        let resume = Resume {
            session: reader.array("resume session")?,
            received: reader.u64("resume received")?,
            next: reader.u64("resume next")?,
        };
        reader.finish("resume")?;
        match resume.next {
            0 => Err(InvalidFrame::Value("resume next")),
            _ => Ok(resume),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_no_cut_of_it_is() {
        let resume = Resume { session: [7; 32], received: 9, next: 3 };
        let mut bytes = Vec::new();
        resume.encode(&mut bytes);
        let body = &bytes[frame::HEADER_BYTES..];
        assert_eq!(body.len(), BYTES);
        assert_eq!(Resume::decode(body), Ok(resume));
        for cut in 0..BYTES {
            assert!(Resume::decode(&body[..cut]).is_err());
        }
        assert!(Resume::decode(&[body, &[0]].concat()).is_err());
        let mut zero = body.to_vec();
        zero[40..].fill(0);
        assert!(Resume::decode(&zero).is_err(), "no frame has the number 0");
    }
}
