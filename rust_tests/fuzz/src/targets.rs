//! One file per target: what it is given, what must hold, and what it begins with.

pub mod answer;
pub mod beam;
pub mod channel;
pub mod config;
pub mod control_socket;
pub mod dist_handshake;
pub mod dist_stream;
pub mod frames;
pub mod hello;
pub mod keys;
pub mod knock;
pub mod resume;
pub mod session;
pub mod terms;

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use legation_proto::frame::{FrameType, HEADER_BYTES};

/// The records of all vector files, as bytes: most of what can come has its form.
fn vectors() -> &'static [Vec<u8>] {
    static VECTORS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let files = rust_tests::vectors::files();
        let records = files.iter().flat_map(|(_, content)| rust_tests::vectors::parse(content));
        records.flat_map(|record| record.fields).map(|(_, bytes)| bytes).filter(|bytes| bytes.len() > 1).collect()
    });
    &VECTORS
}

/// The frames among the vectors: type and body.
fn vector_frames() -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    for bytes in vectors() {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else { continue };
        let length = u32::from_le_bytes([header[2], header[3], header[4], header[5]]) as usize;
        if header[1] == 1 && length == body.len() && FrameType::known(header[0]).is_some() {
            frames.push((header[0], body.to_vec()));
        }
    }
    frames
}

/// A term of each tag that there is, allowed or not, without the leading 131; and some that hold others.
pub(crate) fn elements() -> Vec<Vec<u8>> {
    use hostile::term::{atom, binary, export, list, pid, port, reference, small, tuple};
    let node = "n@h";
    let old_atom = |tag: u8| vec![tag, 0, 2, b'o', b'k'];
    let mut leaves = vec![
        small(7),
        vec![98, 0xff, 0xff, 0xff, 0xfe],
        vec![99; 32],
        old_atom(100),
        vec![115, 2, b'o', b'k'],
        old_atom(118),
        atom("ok"),
        "\u{e9}\u{4e2d}".bytes().fold(vec![119, 5], |mut out, byte| {
            out.push(byte);
            out
        }),
        vec![70, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
        vec![70, 0x80, 0, 0, 0, 0, 0, 0, 0],
        vec![104, 0],
        vec![105, 0, 0, 0, 0],
        vec![106],
        vec![107, 0, 3, 1, 2, 3],
        binary(b"bytes"),
        vec![77, 0, 0, 0, 2, 3, 0xff, 0xe0],
        vec![110, 9, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        vec![110, 0, 0],
        vec![111, 0, 0, 0, 2, 0, 1, 0],
        vec![116, 0, 0, 0, 0],
        vec![82, 3],
        vec![80, 0, 0, 0, 2, 0x78, 0x9c, 0x63, 0xaa, 0, 0, 0, 0x6b, 0, 0x6b],
        pid(node, 9),
        [vec![103], atom(node), vec![0, 0, 0, 9, 0, 0, 0, 0, 1]].concat(),
        reference(node, 9),
        [vec![114, 0, 2], atom(node), vec![1, 0, 0, 0, 9, 0, 0, 0, 8]].concat(),
        [vec![101], atom(node), vec![0, 0, 0, 9, 1]].concat(),
        port(node, 3),
        [vec![102], atom(node), vec![0, 0, 0, 3, 1]].concat(),
        [vec![120], atom(node), vec![0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]].concat(),
        export("lists", "reverse", 1),
        [vec![112, 0, 0, 0, 60, 0], vec![7; 16], vec![0, 0, 0, 0, 0, 0, 0, 0], atom("m"), small(0), small(1)].concat(),
        vec![121, 1, 2, 3, 4, 106],
    ];
    let all = leaves.clone();
    let map = |pairs: &[[Vec<u8>; 2]]| {
        let flat: Vec<u8> = pairs.iter().flatten().flatten().copied().collect();
        [vec![116, 0, 0, 0, pairs.len() as u8], flat].concat()
    };
    leaves.push(tuple(&[all[0].clone(), all[6].clone(), all[14].clone()]));
    leaves.push([vec![105, 0, 0, 0, 2], all[0].clone(), all[12].clone()].concat());
    leaves.push(list(&[all[0].clone(), all[1].clone()], &[106]));
    leaves.push(list(&[all[0].clone()], &all[6]));
    leaves.push(list(&[], &all[0]));
    leaves.push(map(&[[all[6].clone(), all[0].clone()], [all[14].clone(), tuple(&[all[13].clone()])]]));
    // A key twice, in two spellings; and keys that are of containers.
    leaves.push(map(&[[small(1), vec![106]], [vec![98, 0, 0, 0, 1], vec![106]]]));
    leaves.push(map(&[[tuple(&[small(1)]), vec![106]], [map(&[[small(1), small(2)]]), vec![106]]]));
    leaves.push([[104, 1].repeat(17), vec![106]].concat());
    leaves
}

/// A change to bytes on their way.
#[derive(Clone, Debug, Arbitrary)]
enum Edit {
    Xor { at: u16, value: u8 },
    Set { at: u16, value: u8 },
    Length { at: u16, value: u32 },
    Insert { at: u16, bytes: Vec<u8> },
    Remove { at: u16, count: u8 },
    Cut { at: u16 },
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let place = |at: u16| if length == 0 { 0 } else { usize::from(at) % length };
        match self {
            _ if length == 0 => {}
            Edit::Xor { at, value } => bytes[place(*at)] ^= value,
            Edit::Set { at, value } => bytes[place(*at)] = *value,
            Edit::Length { at, value } => {
                let at = place(*at);
                let end = (at + 4).min(length);
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            Edit::Insert { at, bytes: more } => {
                let at = place(*at);
                bytes.splice(at..at, more.iter().copied());
            }
            Edit::Remove { at, count } => {
                let at = place(*at);
                bytes.drain(at..(at + usize::from(*count)).min(length));
            }
            Edit::Cut { at } => bytes.truncate(place(*at)),
        }
    }

    fn all(edits: &[Edit], bytes: &mut Vec<u8>) {
        edits.iter().for_each(|edit| edit.apply(bytes));
    }
}

/// As many as there are bytes for, and no more than `MAX`. (A `Vec` ends after every second one.)
#[derive(Clone, Debug)]
struct Many<T, const MAX: usize>(Vec<T>);

impl<'a, T: Arbitrary<'a>, const MAX: usize> Arbitrary<'a> for Many<T, MAX> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut all = Vec::new();
        while all.len() < MAX && !bytes.is_empty() {
            all.push(T::arbitrary(bytes)?);
        }
        Ok(Many(all))
    }
}

/// A few, `MAX` at most: how many, a byte says.
#[derive(Clone, Debug)]
struct Few<T, const MAX: usize>(Vec<T>);

impl<'a, T: Arbitrary<'a>, const MAX: usize> Arbitrary<'a> for Few<T, MAX> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let count = usize::from(u8::arbitrary(bytes)?) % (MAX + 1);
        (0..count).map(|_| T::arbitrary(bytes)).collect::<arbitrary::Result<_>>().map(Few)
    }
}

/// A script, and what it says if it is none.
fn script<'a, T: Arbitrary<'a>>(input: &'a [u8]) -> Option<T> {
    T::arbitrary(&mut Unstructured::new(input)).ok()
}

/// By which a derived `Arbitrary` takes this variant of so many.
fn variant(number: u32, of: u32) -> [u8; 4] {
    ((u64::from(number) << 32).div_ceil(u64::from(of)) as u32).to_le_bytes()
}

/// Bytes that make scripts of all kinds, the same each time.
fn scripts(name: &str, count: u8, bytes_max: usize) -> Vec<Vec<u8>> {
    let script = |number: u8| {
        let mut reader = blake3::Hasher::new_derive_key(name).update(&[number]).finalize_xof();
        let mut script = vec![0; bytes_max * (1 + usize::from(number)) / usize::from(count)];
        reader.fill(&mut script);
        script
    };
    (0..count).map(script).collect()
}

/// In pieces of so many bytes; 0: in one.
fn pieces(bytes: &[u8], size: u8) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(if size == 0 { bytes.len().max(1) } else { usize::from(size) })
}
