//! Reading and writing of wire structures: fixed-width little-endian integers, length-prefixed fields, no leftovers.
//!
//! A [`Reader`] hands out sub-readers; a structure that does not use up its reader is an error, so trailing bytes can't
//! be smuggled (`protocol.md` 1.3).

use crate::error::InvalidFrame;

/// A cursor over bytes that came from outside. Every method checks before it looks.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, offset: 0 }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.offset
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// # Errors
    /// [`InvalidFrame::Missing`] when fewer than `count` bytes are left.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], InvalidFrame> {
        if count > self.remaining() {
            return Err(InvalidFrame::Missing(what));
        }
        let taken = &self.bytes[self.offset..self.offset + count];
        self.offset += count;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], InvalidFrame> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, InvalidFrame> {
        Ok(self.array::<1>(what)?[0])
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, InvalidFrame> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, InvalidFrame> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, InvalidFrame> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A `varint` (`protocol.md` 1.2): seven bits a byte, the lowest first, in as few bytes as it takes.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, InvalidFrame> {
        let first = self.u8(what)?;
        if first < 0x80 {
            return Ok(first.into());
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit of the 64.
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero was not needed.
                return if byte == 0 { Err(InvalidFrame::Value(what)) } else { Ok(value) };
            }
        }
        Err(InvalidFrame::Value(what))
    }

    /// A `str8` (`protocol.md` 1.2): UTF-8 behind a one-byte length.
    pub fn str8(&mut self, what: &'static str) -> Result<&'a str, InvalidFrame> {
        let length = usize::from(self.u8(what)?);
        std::str::from_utf8(self.take(length, what)?).map_err(|_| InvalidFrame::Value(what))
    }

    /// # Errors
    /// [`InvalidFrame::Trailing`] when bytes are left.
    pub fn finish(self, what: &'static str) -> Result<(), InvalidFrame> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(InvalidFrame::Trailing(what)),
        }
    }
}

/// Appends the encodings that [`Reader`] reads.
pub trait Writer {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }
    /// # Panics
    /// When `text` is longer than 255 bytes: callers hold names that were checked when they were made.
    fn put_str8(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("a str8 is at most 255 bytes");
        self.put_u8(length);
        self.put(text.as_bytes());
    }
}

impl Writer for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_an_error() {
        let mut reader = Reader::new(&[1, 2]);
        assert_eq!(reader.u8("first"), Ok(1));
        assert_eq!(reader.finish("pair"), Err(InvalidFrame::Trailing("pair")));
    }

    #[test]
    fn a_length_past_the_end_is_an_error_and_takes_nothing() {
        let mut reader = Reader::new(&[5, b'a']);
        assert_eq!(reader.str8("name"), Err(InvalidFrame::Missing("name")));
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error() {
        assert_eq!(Reader::new(&[1, 0xff]).str8("name"), Err(InvalidFrame::Value("name")));
    }

    #[test]
    fn a_varint_is_as_short_as_it_can_be() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(bytes.len(), (64 - (value | 1).leading_zeros() as usize).div_ceil(7));
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint("number"), Ok(value));
            assert_eq!(reader.finish("number"), Ok(()));
            for cut in 0..bytes.len() {
                assert_eq!(Reader::new(&bytes[..cut]).varint("number"), Err(InvalidFrame::Missing("number")));
            }
            // The same number with a byte of zero behind it.
            let last = bytes.len() - 1;
            bytes[last] |= 0x80;
            bytes.put_u8(0);
            assert!(Reader::new(&bytes).varint("number").is_err(), "{value}");
        }
        for too_large in [[0xff; 11], [0x80; 11]] {
            assert_eq!(Reader::new(&too_large).varint("number"), Err(InvalidFrame::Value("number")));
        }
        let bit_65 = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&bit_65).varint("number"), Err(InvalidFrame::Value("number")));
    }

    /// What stands there is read, and written again it is the same: no number has two forms.
    fn has_one_form(bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        let Ok(value) = reader.varint("number") else { return };
        let mut written = Vec::new();
        written.put_varint(value);
        assert_eq!(written, bytes[..bytes.len() - reader.remaining()], "{value}");
    }

    #[test]
    fn exhaustive_varints_whatever_is_read_as_one_is_its_only_form() {
        for value in 0..1 << 16 {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(Reader::new(&bytes).varint("number"), Ok(value));
            has_one_form(&value.to_le_bytes()[..2]);
        }
        for bits in 0..64 {
            for value in [(1u64 << bits) - 1, 1 << bits, (1 << bits) + 1, u64::MAX - (1 << bits)] {
                let mut bytes = Vec::new();
                bytes.put_varint(value);
                assert_eq!(Reader::new(&bytes).varint("number"), Ok(value));
            }
        }
        // Strings of bytes at which something changes, and long ones, where the last two bytes are any.
        const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0x81, 0xff];
        for number in 0..6usize.pow(6) {
            let digit = |place: u32| EDGES[number / 6usize.pow(place) % 6];
            has_one_form(&[digit(0), digit(1), digit(2), digit(3), digit(4), digit(5)]);
        }
        for (length, fill) in [8, 9, 10].into_iter().flat_map(|length| [0x80, 0xff].map(|fill| (length, fill))) {
            for last in 0..=u16::MAX {
                has_one_form(&[&vec![fill; length - 1][..], &last.to_le_bytes()].concat());
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        bytes.put_u16(7);
        bytes.put_u32(1 << 31);
        bytes.put_u64(u64::MAX);
        bytes.put_str8("ping");
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u16("a"), Ok(7));
        assert_eq!(reader.u32("b"), Ok(1 << 31));
        assert_eq!(reader.u64("c"), Ok(u64::MAX));
        assert_eq!(reader.str8("d"), Ok("ping"));
        assert_eq!(reader.finish("all"), Ok(()));
    }
}
