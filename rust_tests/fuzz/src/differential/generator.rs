//! Terms, in all their spellings, and a little wrong.

use fastrand::Rng;

use crate::targets::elements;

/// Names that every VM has, and one that no other has.
const ATOMS: [&str; 8] = ["ok", "error", "true", "nil", "undefined", "", "\u{e9}", "no such atom"];

/// Bytes that are a term, or nearly.
pub fn generate(random: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![131];
    let room = [8, 40, 200][random.usize(..3)];
    element(random, room, 0, &mut bytes);
    match random.u8(..8) {
        // As it is.
        0..=2 => {}
        3 => {
            let cut = random.usize(..bytes.len());
            bytes.truncate(cut);
        }
        4 => bytes.push(random.u8(..)),
        _ => {
            for _ in 0..random.usize(1..4) {
                change(random, &mut bytes);
            }
        }
    }
    bytes
}

fn change(random: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = random.usize(..bytes.len());
    match random.u8(..7) {
        0 => bytes[at] ^= 1 << random.u8(..8),
        1 => bytes[at] = random.u8(..),
        2 => {
            bytes[at] =
                [0, 1, 255, 128, 97, 98, 104, 105, 106, 108, 109, 110, 111, 116, 119, 118, 100, 77][random.usize(..18)]
        }
        3 => bytes.insert(at, random.u8(..)),
        4 => {
            bytes.remove(at);
        }
        5 => {
            // A piece of it once more.
            let end = (at + random.usize(1..20)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = random.usize(..=bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => bytes[at] = bytes[at].wrapping_add([1, 255][random.usize(..2)]),
    }
}

/// `room`: about so many bytes.
fn element(random: &mut Rng, room: usize, depth: usize, out: &mut Vec<u8>) {
    if room < 6 || depth > 40 || random.u8(..10) < 3 {
        return leaf(random, out);
    }
    let count = random.usize(..5).min(room / 3);
    let each = room / (count + 1).max(1);
    match random.u8(..6) {
        0 => {
            out.extend([104, count as u8]);
            (0..count).for_each(|_| element(random, each, depth + 1, out));
        }
        1 => {
            out.push(105);
            out.extend((count as u32).to_be_bytes());
            (0..count).for_each(|_| element(random, each, depth + 1, out));
        }
        2 | 3 => {
            out.push(108);
            out.extend((count as u32).to_be_bytes());
            (0..count).for_each(|_| element(random, each, depth + 1, out));
            match random.u8(..4) {
                0 => element(random, each, depth + 1, out),
                _ => out.push(106),
            }
        }
        _ => {
            out.push(116);
            out.extend((count as u32).to_be_bytes());
            for index in 0..count {
                match random.u8(..3) {
                    // Often the same number in several spellings.
                    0 => number(random, out),
                    1 => out.extend([97, index as u8]),
                    _ => element(random, each / 2, depth + 1, out),
                }
                element(random, each / 2, depth + 1, out);
            }
        }
    }
}

fn leaf(random: &mut Rng, out: &mut Vec<u8>) {
    match random.u8(..12) {
        0..=2 => number(random, out),
        3 => {
            let text = ATOMS[random.usize(..ATOMS.len())].as_bytes();
            match random.u8(..4) {
                0 => out.extend([119, text.len() as u8]),
                1 => out.extend([118, 0, text.len() as u8]),
                2 => out.extend([115, text.len() as u8]),
                _ => out.extend([100, 0, text.len() as u8]),
            }
            out.extend(text);
        }
        4 => {
            let length = random.usize(..12);
            out.push([109, 107][random.usize(..2)]);
            let wide = (length as u32).to_be_bytes();
            let from = if out.last() == Some(&107) { 2 } else { 0 };
            out.extend(&wide[from..]);
            (0..length).for_each(|_| out.push(random.u8(..)));
        }
        5 => {
            let length = random.usize(..4);
            out.push(77);
            out.extend((length as u32).to_be_bytes());
            out.push(random.u8(..10));
            (0..length).for_each(|_| out.push(random.u8(..)));
        }
        6 => {
            out.push(70);
            let float = match random.u8(..6) {
                0 => 0.0f64.to_bits(),
                1 => (-0.0f64).to_bits(),
                2 => 1.0f64.to_bits(),
                3 => f64::INFINITY.to_bits() | u64::from(random.u8(..3)),
                _ => random.u64(..),
            };
            out.extend(float.to_be_bytes());
        }
        7 => {
            // Long atoms, at the edge of what there may be.
            let characters = random.usize(250..260);
            let character = ["a", "\u{e9}", "\u{4e2d}"][random.usize(..3)];
            let text = character.repeat(characters);
            out.push(118);
            out.extend((text.len() as u16).to_be_bytes());
            out.extend(text.as_bytes());
        }
        _ => {
            let all = elements();
            out.extend(&all[random.usize(..all.len())]);
        }
    }
}

/// A few numbers, in all their spellings.
fn number(random: &mut Rng, out: &mut Vec<u8>) {
    let value: i32 = [0, 1, 2, 255, 256, -1, i32::MAX, i32::MIN][random.usize(..8)];
    match random.u8(..5) {
        0 => out.extend([97, value as u8]),
        1 => {
            out.push(98);
            out.extend(value.to_be_bytes());
        }
        spelling => {
            let mut digits = value.unsigned_abs().to_le_bytes().to_vec();
            // Leading zeros, or none.
            while spelling == 2 && digits.last() == Some(&0) {
                digits.pop();
            }
            digits.extend(vec![0; random.usize(..2) * random.usize(..6)]);
            if random.bool() {
                out.extend([110, digits.len() as u8]);
            } else {
                out.push(111);
                out.extend((digits.len() as u32).to_be_bytes());
            }
            out.push(u8::from(value < 0));
            out.extend(digits);
        }
    }
}
