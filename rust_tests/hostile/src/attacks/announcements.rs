//! Announcements of what isn't theirs, of too much, and of keys that are none.

use ed25519_dalek::{Signer, SigningKey};

use super::Attack;
use crate::batch::RawMessage;
use crate::frame;
use crate::keys::{realm_id, sign, signed_bytes};
use crate::link::Link;
use crate::options::{Options, ANSWER_WAIT, E1};
use crate::random::fresh;
use crate::term;

/// Engine keys of small order and in forms that aren't canonical, each with a forged signature that a lax verifier takes; and a good
/// signature with the group's order added to its second half.
pub fn weak_keys(options: &Options) -> Result<(), String> {
    let (mut tried, mut alive) = (0, 0);
    for key in weak_points() {
        let mut link = options.up_again()?;
        let mut learn = link.peer.learn("weak");
        learn.key = key;
        link.peer.write_learn(&learn);
        let batch = link.peer.batch("weak", vec![RawMessage::cast(&options.engine, &term::text("forged"))]);
        // R the key itself or the identity, S zero.
        let mut identity = [0; 32];
        identity[0] = 1;
        for r in [key, identity] {
            let batch = crate::batch::RawBatch { first_sequence: link.peer.next_sequence - 1, ..batch.clone() };
            link.peer.write_frame(frame::BATCH, &[&batch.body()[..], &r, &[0; 32]].concat());
            link.peer.next_sequence += 1;
            tried += 1;
        }
        alive += usize::from(link.state(ANSWER_WAIT) == "alive");
    }
    let mut link = options.up_again()?;
    let batch = link.peer.batch(E1, vec![RawMessage::cast(&options.engine, &term::text("malleable"))]);
    let mut body = link.peer.sealed(&batch, E1);
    let at = body.len() - 32;
    add_order(&mut body[at..]);
    link.peer.write_frame(frame::BATCH, &body);
    tried += 1;
    println!("sent={tried}\nsessions={}\nalive={alive}\nlink={}", alive + 1, link.state(ANSWER_WAIT));
    Ok(())
}

/// The points of order 1, 2, 4 and 8, and those whose y is not reduced.
fn weak_points() -> Vec<[u8; 32]> {
    let of = |text: &str| -> [u8; 32] {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        (0..64).step_by(2).map(byte).collect::<Vec<u8>>().try_into().expect("32 bytes")
    };
    [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ]
    .map(of)
    .to_vec()
}

/// S + L: the same equation, and not reduced.
fn add_order(s: &mut [u8]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, order) in s.iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
}

impl Attack<'_> {
    /// Whether there is one of this name.
    pub(super) fn announcements(&mut self, name: &str, link: &mut Link) -> bool {
        match name {
            "theft" => self.theft(link),
            "many-engines" => {
                // One key for all: it is nobody's business, and saves a million of them.
                let key = SigningKey::from_bytes(&fresh()).verifying_key().to_bytes();
                let mut learn = link.peer.learn("many");
                for number in 0..self.options.count {
                    learn.engine = format!("many {number}").into_bytes();
                    learn.serial += 1;
                    learn.key = key;
                    link.peer.write_learn(&learn);
                    self.sent += 1;
                    if number % 500 == 499 {
                        link.pump();
                    }
                }
                link.peer.serial = learn.serial;
            }
            _ => return false,
        }
        true
    }

    fn theft(&mut self, link: &mut Link) {
        let theirs = realm_id(&self.options.peer);
        // Another realm's engine, the other side's own, a name of ours that somebody else signs.
        let mut learn = link.peer.learn(&self.options.engine);
        learn.realm = [7; 32];
        link.peer.write_learn(&learn);
        learn.realm = theirs;
        link.peer.write_learn(&learn);
        let stranger = SigningKey::from_bytes(&fresh());
        let learn = link.peer.learn(&self.options.engine).body();
        let signature = sign(&stranger, "learn", &link.peer.network, &learn);
        link.peer.write_frame(frame::LEARN, &[&learn[..], &signature].concat());
        // The end of an engine of theirs.
        let forget = link.peer.forget(&theirs, &self.options.engine);
        let signature = link.peer.keys.identity.sign(&signed_bytes("forget", &link.peer.network, &forget));
        link.peer.write_frame(frame::FORGET, &[&forget[..], &signature.to_bytes()].concat());
        self.sent += 4;
    }
}
