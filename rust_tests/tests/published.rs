//! What others have published of Ed25519 and BLAKE3, through the core (`test/vectors/published/README.md`).

use std::fmt::Write;

use legation_proto::identity::{check_public_key, checked_public_key, verify_message, KeyError};
use rust_tests::edge_signatures::edge_signatures;
use rust_tests::vectors::{parse, Record};
use sha2::{Digest, Sha256};

fn read(name: &str) -> Vec<Record> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors/published/").to_owned() + name;
    parse(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// Whether the signature of a record holds, whatever its key is worth.
fn holds(record: &Record) -> bool {
    let key = checked_public_key(&record.array("public_key"));
    let signature = record.get("signature").try_into();
    matches!((key, signature), (Some(key), Ok(signature)) if verify_message(&key, record.get("message"), signature))
}

fn key(record: &Record) -> Result<(), KeyError> {
    check_public_key(&record.array("public_key")).map(|_| ())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn wycheproof_is_taken_where_it_is_valid_and_nowhere_else() {
    let records = read("wycheproof_ed25519.txt");
    let valid = |record: &&Record| record.name.contains(" valid ");
    assert_eq!((records.len(), records.iter().filter(valid).count()), (151, 88));
    for record in &records {
        assert_eq!(holds(record), valid(&record), "{}", record.name);
        assert!(!valid(&record) || key(record).is_ok(), "{}", record.name);
    }
}

#[test]
fn the_edge_signatures_are_the_published_ones() {
    let all = edge_signatures();
    assert_eq!(all.len(), 914);
    let mut lines = String::new();
    for one in &all {
        let (key, signature) = (hex(&one.key), hex(&one.signature));
        writeln!(lines, "{key} {signature} {} {}", one.message, one.flags.join(" ")).unwrap();
    }
    let published = "817f1bf520ed4b89a751fbf17a935af39973edea841dd9b11705eb1f1df6dd8f";
    assert_eq!(hex(&Sha256::digest(lines)), published);
}

#[test]
fn of_the_edge_signatures_the_strict_43_are_taken_and_the_key_of_one_of_them() {
    let records = read("cctv_ed25519.txt");
    assert_eq!(records.len(), 914);
    let strict = |record: &Record| {
        let allowed = ["low_order_component_A", "low_order_component_R"];
        record.name.split(' ').skip(1).all(|flag| allowed.contains(&flag))
    };
    for record in &records {
        assert_eq!(holds(record), strict(record), "{}", record.name);
    }
    let taken: Vec<&Record> = records.iter().filter(|record| holds(record)).collect();
    assert_eq!(taken.len(), 43);
    // A key with a torsion component is no key here, so that no two keys verify the same.
    for record in &taken {
        let torsion = record.name.contains("low_order_component_A");
        assert_eq!(key(record), if torsion { Err(KeyError::Torsion) } else { Ok(()) }, "{}", record.name);
    }
    assert_eq!(taken.iter().filter(|record| key(record).is_ok()).count(), 1);
    // Every key of small order and every second spelling is refused for itself, too.
    for record in records.iter().filter(|record| record.name.contains("low_order_A")) {
        assert!(matches!(key(record), Err(KeyError::Weak | KeyError::NotCanonical)), "{}", record.name);
    }
}

#[test]
fn of_speccheck_number_3_is_taken_and_no_key() {
    let records = read("speccheck.txt");
    assert_eq!(records.len(), 12);
    let taken: Vec<&str> = records.iter().filter(|record| holds(record)).map(|record| record.name.as_str()).collect();
    assert_eq!(taken, ["3"]);
    // Number 3 has a key of mixed order; 6 and 7 have one, as well, and an S that is not reduced.
    assert_eq!(key(&records[3]), Err(KeyError::Torsion));
    for record in &records {
        assert!(!holds(record) || key(record).is_err(), "{}", record.name);
    }
}

#[test]
fn rfc_8032_is_taken() {
    let records = read("rfc8032.txt");
    assert_eq!(records.len(), 5);
    for record in &records {
        assert!(key(record).is_ok() && holds(record), "{}", record.name);
        let mut other = record.clone();
        other.fields.iter_mut().find(|(name, _)| name == "message").unwrap().1.push(0);
        assert!(!holds(&other), "{}", record.name);
    }
}

const CONTEXT: &str = "BLAKE3 2019-12-27 16:29:52 test vectors context";

fn input(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

#[test]
fn blake3_is_what_its_authors_say_in_all_modes_and_at_all_lengths() {
    let records = read("blake3.txt");
    assert_eq!(records.len(), 22);
    let extended = |hasher: &mut blake3::Hasher, input: &[u8]| {
        let mut output = [0; 131];
        hasher.update(input).finalize_xof().fill(&mut output);
        output
    };
    for record in &records {
        let input = input(record.name.parse().unwrap());
        let key = record.array("key");
        assert_eq!(blake3::hash(&input).as_bytes()[..], record.get("hash")[..32]);
        assert_eq!(blake3::keyed_hash(&key, &input).as_bytes()[..], record.get("keyed_hash")[..32]);
        assert_eq!(blake3::derive_key(CONTEXT, &input)[..], record.get("derive_key")[..32]);
        assert_eq!(extended(&mut blake3::Hasher::new(), &input)[..], *record.get("hash"));
        assert_eq!(extended(&mut blake3::Hasher::new_keyed(&key), &input)[..], *record.get("keyed_hash"));
        assert_eq!(extended(&mut blake3::Hasher::new_derive_key(CONTEXT), &input)[..], *record.get("derive_key"));
    }
}

/// The published file of today, by its digest: SHA-256 over a line `length hash keyed_hash derive_key` for each of its cases, of the
/// first 32 bytes of each output.
#[test]
fn blake3_is_what_its_authors_say_at_the_short_lengths_that_they_added() {
    let records = read("blake3.txt");
    let key = records[0].array("key");
    let mut lengths: Vec<usize> = records.iter().map(|record| record.name.parse().unwrap()).collect();
    lengths.extend([2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 127, 128, 129]);
    lengths.sort_unstable();
    assert_eq!(lengths.len(), 35);
    let mut lines = String::new();
    for length in lengths {
        let input = input(length);
        let (hash, keyed) = (blake3::hash(&input), blake3::keyed_hash(&key, &input));
        writeln!(lines, "{length} {hash} {keyed} {}", hex(&blake3::derive_key(CONTEXT, &input))).unwrap();
    }
    assert_eq!(hex(&Sha256::digest(lines)), "afe03de4cf784de4e533834e96d8a018642a98d4cade0e61d3ca448c185cd3e1");
}
