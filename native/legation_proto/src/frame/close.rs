//! CLOSE: why a link ends; the last frame of its sender (`protocol.md` 12.3, 16).
//!
//! ```text
//!  0 code u16
//!  2 text, str8
//! ```

use crate::codec::{Reader, Writer};
use crate::error::{CloseCode, InvalidFrame};
use crate::frame::{self, FrameType};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: CloseCode,
    pub text: String,
}

impl Close {
    /// `text` is cut to 255 bytes, on a character's border.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut end = self.text.len().min(255);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let mut body = Vec::with_capacity(3 + end);
        body.put_u16(self.code as u16);
        body.put_str8(&self.text[..end]);
        frame::encode(FrameType::Close, &body, out);
    }

    pub fn decode(body: &[u8]) -> Result<Close, InvalidFrame> {
        let mut reader = Reader::new(body);
        let code = CloseCode::from_wire(reader.u16("close code")?);
        // The text is shown to people and written to logs: control characters are taken out here.
        let text = reader.str8("close text")?.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        reader.finish("close")?;
        Ok(Close { code, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut out = Vec::new();
        Close { code: CloseCode::Version, text: "é".repeat(200) }.encode(&mut out);
        let close = Close::decode(&out[frame::HEADER_BYTES..]).unwrap();
        assert_eq!((close.code, close.text), (CloseCode::Version, "é".repeat(127)));
    }

    #[test]
    fn control_characters_of_a_peer_do_not_reach_a_log() {
        assert_eq!(Close::decode(&[1, 0, 2, 0x1b, b'x']).unwrap().text, "\u{fffd}x");
    }
}
