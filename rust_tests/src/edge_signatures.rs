//! Signatures at the edges of Ed25519: every point of small order as the key and as the nonce's point, alone or added to a good
//! one, in its canonical spelling and all others. They satisfy the equation that multiplies by the cofactor, all of them.
//!
//! They are those of C2SP's CCTV (`test/vectors/published/README.md`), computed from the curve.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{clamp_integer, Scalar};
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};

pub struct EdgeSignature {
    pub key: [u8; 32],
    pub signature: [u8; 64],
    pub message: String,
    pub flags: Vec<&'static str>,
}

/// A point of small order and the encodings of it that are not canonical.
struct Small {
    point: EdwardsPoint,
    others: Vec<[u8; 32]>,
}

/// The eight, in the order of their encodings. Not canonical are those of y + p where that fits into 255 bits, and of x = 0 with
/// the sign of an odd x.
fn small_points() -> Vec<Small> {
    let mut points: Vec<Small> =
        EIGHT_TORSION.iter().map(|point| Small { point: *point, others: spellings(point) }).collect();
    points.sort_by_key(|small| small.point.compress().to_bytes());
    points
}

fn spellings(point: &EdwardsPoint) -> Vec<[u8; 32]> {
    let canonical = point.compress().to_bytes();
    let (mut y, mut signs) = (canonical, vec![canonical[31] & 0x80]);
    y[31] &= 0x7f;
    // x is 0 for the points of order 1 and 2.
    if (point + point).is_identity() {
        signs.push(0x80);
    }
    let mut ys = vec![y];
    // p is 2^255 - 19: of what is less than 19 there is a second spelling.
    if y[0] < 19 && y[1..].iter().all(|byte| *byte == 0) {
        let mut second = [0xff; 32];
        (second[0], second[31]) = (0xed + y[0], 0x7f);
        ys.push(second);
    }
    let all = ys.iter().flat_map(|y| {
        signs.iter().map(|sign| {
            let mut encoding = *y;
            encoding[31] |= sign;
            encoding
        })
    });
    all.filter(|encoding| *encoding != canonical).collect()
}

/// What stands for A or R: a point of small order in one of its spellings, or that point added to a good one.
#[derive(Clone, Copy)]
enum Part<'a> {
    Small(Option<&'a [u8; 32]>),
    Sum,
}

/// Someone who makes signatures with one secret key and one nonce, and bends both.
struct Forger {
    secret: Scalar,
    nonce: Scalar,
    found: Vec<EdgeSignature>,
}

/// All of them.
pub fn edge_signatures() -> Vec<EdgeSignature> {
    let nonce: Vec<u8> = [0x13, 0x37].repeat(32);
    let mut forger = Forger {
        secret: Scalar::from_bytes_mod_order(clamp_integer([0x42; 32])),
        nonce: Scalar::from_bytes_mod_order_wide(&nonce.try_into().expect("64 bytes")),
        found: Vec::new(),
    };
    let small = small_points();
    for key in &small {
        for nonce in &small {
            for (a, r) in [
                (Part::Small(None), Part::Small(None)),
                (Part::Small(None), Part::Sum),
                (Part::Sum, Part::Small(None)),
                (Part::Sum, Part::Sum),
            ] {
                forger.forge(key, a, nonce, r, false);
            }
            for other in &key.others {
                forger.forge(key, Part::Small(Some(other)), nonce, Part::Small(None), false);
                forger.forge(key, Part::Small(Some(other)), nonce, Part::Sum, false);
                forger.forge(key, Part::Small(Some(other)), nonce, Part::Sum, true);
            }
            for other in &nonce.others {
                forger.forge(key, Part::Small(None), nonce, Part::Small(Some(other)), false);
                forger.forge(key, Part::Sum, nonce, Part::Small(Some(other)), false);
                forger.forge(key, Part::Sum, nonce, Part::Small(Some(other)), true);
            }
            for a in &key.others {
                for r in &nonce.others {
                    forger.forge(key, Part::Small(Some(a)), nonce, Part::Small(Some(r)), false);
                }
            }
        }
    }
    forger.found
}

impl Forger {
    /// Up to two signatures: one whose parts of small order add up to nothing, and one where they don't. `reencoded`: the challenge
    /// is computed of the canonical spellings.
    fn forge(&mut self, key: &Small, a: Part<'_>, nonce: &Small, r: Part<'_>, reencoded: bool) {
        let (secret, a_bytes) = bend(&self.secret, key, a);
        let (r_scalar, r_bytes) = bend(&self.nonce, nonce, r);
        let challenge = |message: &str, reencoded: bool| {
            let spelled = |bytes: &[u8; 32]| match reencoded {
                true => CompressedEdwardsY(*bytes).decompress().expect("a point").compress().to_bytes(),
                false => *bytes,
            };
            let hash = Sha512::new().chain_update(spelled(&r_bytes)).chain_update(spelled(&a_bytes));
            Scalar::from_bytes_mod_order_wide(&hash.chain_update(message).finalize().into())
        };
        // Of a challenge only its rest by 8 matters to a point of small order.
        let residue = |k: &Scalar| !(key.point * Scalar::from(k.as_bytes()[0] & 7) + nonce.point).is_identity();
        let mut seen = Vec::new();
        for rest in 0..8 {
            let messages =
                std::iter::once("ed25519vectors".to_owned()).chain((1..).map(|n| format!("ed25519vectors {n}")));
            let mut tried = messages.map(|message| (challenge(&message, reencoded), message));
            let (k, message) = tried.find(|(k, _)| k.as_bytes()[0] & 7 == rest).expect("one in eight");
            if seen.contains(&residue(&k)) {
                continue;
            }
            seen.push(residue(&k));
            let flags = [
                (matches!(r, Part::Small(_)), "low_order_R"),
                (matches!(a, Part::Small(_)), "low_order_A"),
                (!nonce.point.is_identity(), "low_order_component_R"),
                (!key.point.is_identity(), "low_order_component_A"),
                (residue(&challenge(&message, false)), "low_order_residue"),
                (matches!(a, Part::Small(Some(_))), "non_canonical_A"),
                (matches!(r, Part::Small(Some(_))), "non_canonical_R"),
                (reencoded, "reencoded_k"),
            ];
            let s = k * secret + r_scalar;
            self.found.push(EdgeSignature {
                key: a_bytes,
                signature: [r_bytes, s.to_bytes()].concat().try_into().expect("64 bytes"),
                message,
                flags: flags.into_iter().filter(|(holds, _)| *holds).map(|(_, flag)| flag).collect(),
            });
        }
    }
}

/// The scalar of a part, and its encoding.
fn bend(scalar: &Scalar, small: &Small, part: Part<'_>) -> (Scalar, [u8; 32]) {
    match part {
        Part::Small(other) => (Scalar::ZERO, other.copied().unwrap_or(small.point.compress().to_bytes())),
        Part::Sum => (*scalar, (ED25519_BASEPOINT_POINT * scalar + small.point).compress().to_bytes()),
    }
}
