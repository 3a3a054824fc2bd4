//! First flights: what each side's channel says first (`protocol.md` 4.5, 5.8). Of the initiator's is known where it ends,
//! by its profile.

use crate::channel::Profile;
use crate::error::Malformed;
use crate::plain::FIRST_MESSAGE_BYTES;

/// A ClientHello of ours has some 200 bytes, and what answers it some 500; this leaves room for a post-quantum key share (1,216 bytes)
/// one day.
pub const FIRST_FLIGHT_BYTES_MAX: usize = 4_096;

/// Type, version and length of a TLS record.
const RECORD_HEADER_BYTES: usize = 5;
const NONCE_BYTES: usize = 32;

/// What an initiator's first flight of this profile looks like (`protocol.md` 4.5).
pub(crate) fn has_form(profile: Profile, first_flight: &[u8]) -> bool {
    match profile {
        Profile::Tls => is_client_hello_record(first_flight),
        Profile::Plain => first_flight.len() == FIRST_MESSAGE_BYTES,
        Profile::Local => first_flight.len() == NONCE_BYTES,
    }
}

/// One TLS record of type handshake that holds one ClientHello, whole, and nothing else.
fn is_client_hello_record(bytes: &[u8]) -> bool {
    // type, version 3.1 or 3.3 (RFC 8446 5.1), length u16; then type, length u24
    let [0x16, 0x03, 0x01 | 0x03, record_high, record_low, rest @ ..] = bytes else {
        return false;
    };
    let [0x01, high, middle, low, hello @ ..] = rest else {
        return false;
    };
    usize::from(u16::from_be_bytes([*record_high, *record_low])) == rest.len()
        && u32::from_be_bytes([0, *high, *middle, *low]) as usize == hello.len()
}

/// Reads an initiator's first flight where there is no knock around it, however it is cut.
#[derive(Debug)]
pub(crate) struct FirstFlight {
    profile: Profile,
    /// At most 4,096 bytes.
    buffer: Vec<u8>,
}

impl FirstFlight {
    pub fn new(profile: Profile) -> FirstFlight {
        FirstFlight { profile, buffer: Vec::new() }
    }

    /// Takes of `input` what belongs to it. None: more must come.
    ///
    /// # Errors
    /// [`Malformed::FirstFlight`], as soon as it can't become one.
    pub fn handle_bytes(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        if self.profile == Profile::Tls {
            self.take_up_to(RECORD_HEADER_BYTES, input);
        }
        let Some(bytes) = self.bytes()? else { return Ok(None) };
        self.take_up_to(bytes, input);
        if self.buffer.len() < bytes {
            return Ok(None);
        }
        match has_form(self.profile, &self.buffer) {
            true => Ok(Some(std::mem::take(&mut self.buffer))),
            false => Err(Malformed::FirstFlight),
        }
    }

    /// Of the whole of it, once that can be told.
    fn bytes(&self) -> Result<Option<usize>, Malformed> {
        match self.profile {
            Profile::Local => Ok(Some(NONCE_BYTES)),
            Profile::Plain => Ok(Some(FIRST_MESSAGE_BYTES)),
            Profile::Tls => {
                if self.buffer.first().is_some_and(|kind| *kind != 0x16) {
                    return Err(Malformed::FirstFlight);
                }
                let [_, _, _, high, low, ..] = self.buffer[..] else { return Ok(None) };
                let bytes = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
                match bytes {
                    ..=FIRST_FLIGHT_BYTES_MAX => Ok(Some(bytes)),
                    _ => Err(Malformed::FirstFlight),
                }
            }
        }
    }

    fn take_up_to(&mut self, bytes: usize, input: &mut &[u8]) {
        let (taken, after) = input.split_at(input.len().min(bytes.saturating_sub(self.buffer.len())));
        self.buffer.extend_from_slice(taken);
        *input = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: usize) -> Vec<u8> {
        let hello = content - 4;
        let mut record = vec![0x16, 3, 1, (content >> 8) as u8, content as u8];
        record.extend([1, 0, (hello >> 8) as u8, hello as u8]);
        record.resize(5 + content, 7);
        record
    }

    /// What is left of `bytes`, and the flight, when they come in pieces of `cut`.
    fn read(profile: Profile, bytes: &[u8], cut: usize) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
        let mut reader = FirstFlight::new(profile);
        let mut behind = bytes.len();
        for piece in bytes.chunks(cut) {
            let mut rest = piece;
            let flight = reader.handle_bytes(&mut rest)?;
            behind -= piece.len() - rest.len();
            if let Some(flight) = flight {
                return Ok(Some((flight, behind)));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_flight_ends_where_its_profile_says_however_it_is_cut() {
        for (profile, flight) in [
            (Profile::Local, vec![9; 32]),
            (Profile::Plain, vec![9; 64]),
            (Profile::Tls, record(200)),
            (Profile::Tls, record(FIRST_FLIGHT_BYTES_MAX - 5)),
        ] {
            let bytes = [&flight[..], b"behind it"].concat();
            for cut in [1, 2, 5, 6, 31, 33, usize::MAX] {
                assert_eq!(read(profile, &bytes, cut), Ok(Some((flight.clone(), 9))), "{profile:?} by {cut}");
            }
            assert_eq!(read(profile, &flight[..flight.len() - 1], 7), Ok(None));
        }
    }

    #[test]
    fn what_is_no_client_hello_is_refused_and_one_past_the_limit_by_its_header() {
        let refused = Err(Malformed::FirstFlight);
        assert_eq!(read(Profile::Tls, &record(FIRST_FLIGHT_BYTES_MAX - 4)[..5], 1), refused);
        assert_eq!(read(Profile::Tls, &[0x17], 1), refused);
        let mut another = record(200);
        another[5] = 2;
        assert_eq!(read(Profile::Tls, &another, 64), refused);
        let mut two = record(200);
        two[8] -= 1;
        assert_eq!(read(Profile::Tls, &two, 64), refused);
    }
}
