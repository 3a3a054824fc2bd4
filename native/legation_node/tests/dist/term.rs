//! Walking and writing terms.

use legation_node::dist::term::{self, OwnNode};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{pid, reference, term as any_term};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    #[test]
    fn every_term_is_walked_to_its_end_and_shows_its_atoms(generated in any_term(), behind in vec(any::<u8>(), 0..4)) {
        let bytes = [&generated.bytes[..], &behind].concat();
        prop_assert_eq!(term::skip(&bytes), Some(&behind[..]));
        let mut atoms = Vec::new();
        let rest = term::for_each_atom(&bytes, &mut |atom| atoms.push((atom.text.to_vec(), atom.latin1)));
        prop_assert_eq!(rest, Some(&behind[..]));
        prop_assert_eq!(atoms, generated.atoms);
    }

    #[test]
    fn a_term_cut_short_is_no_term(generated in any_term(), cut in any::<proptest::sample::Index>()) {
        prop_assert_eq!(term::skip(&generated.bytes[..cut.index(generated.bytes.len())]), None);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        let _ = term::skip(&bytes);
        let _ = term::for_each_atom(&bytes, &mut |atom| { let _ = atom.to_text(); });
        let _ = (term::elements::<3>(&bytes), term::pid(&bytes), term::reference(&bytes), term::text(&bytes));
        let _ = (term::integer(&bytes), term::map(&bytes).map(Iterator::count), term::list(&bytes).map(Iterator::count));
    }

    #[test]
    fn the_elements_of_a_tuple_are_exactly_its_terms(items in vec(any_term(), 0..5)) {
        let mut bytes = Vec::new();
        term::put_tuple_header(&mut bytes, items.len() as u32);
        items.iter().for_each(|item| bytes.extend_from_slice(&item.bytes));
        let expected: Vec<&[u8]> = items.iter().map(|item| &item.bytes[..]).collect();
        let read: Option<Vec<&[u8]>> = match items.len() {
            0 => term::elements::<0>(&bytes).map(|elements| elements.to_vec()),
            1 => term::elements::<1>(&bytes).map(|elements| elements.to_vec()),
            2 => term::elements::<2>(&bytes).map(|elements| elements.to_vec()),
            3 => term::elements::<3>(&bytes).map(|elements| elements.to_vec()),
            _ => term::elements::<4>(&bytes).map(|elements| elements.to_vec()),
        };
        prop_assert_eq!(read, Some(expected));
        prop_assert_eq!(term::elements::<5>(&bytes), None);
        bytes.push(106);
        prop_assert_eq!(term::elements::<2>(&bytes), None);
    }

    #[test]
    fn lists_and_maps_give_their_items(items in vec(any_term(), 1..5)) {
        let expected: Vec<&[u8]> = items.iter().map(|item| &item.bytes[..]).collect();
        let mut list = Vec::new();
        term::put_list_header(&mut list, items.len() as u32);
        expected.iter().for_each(|item| list.extend_from_slice(item));
        prop_assert!(term::list(&list).is_none());
        term::put_nil(&mut list);
        prop_assert_eq!(term::list(&list).expect("a list").collect::<Vec<_>>(), expected.clone());

        let mut map = Vec::new();
        term::put_map_header(&mut map, items.len() as u32);
        expected.iter().for_each(|item| { map.extend_from_slice(item); map.extend_from_slice(item); });
        let pairs: Vec<_> = expected.iter().map(|&item| (item, item)).collect();
        prop_assert_eq!(term::map(&map).expect("a map").collect::<Vec<_>>(), pairs);
        map.push(106);
        prop_assert!(term::map(&map).is_none());
    }

    #[test]
    fn identifiers_are_read_in_their_newer_and_older_forms(pid in pid(), reference in reference()) {
        prop_assert_eq!(term::pid(&pid.raw), Some(pid.lend()));
        prop_assert_eq!(term::reference(&reference.raw), Some(reference.lend()));
        let more = [&pid.raw[..], &reference.raw].concat();
        prop_assert_eq!(term::pid(&more), None);
        prop_assert_eq!(term::take_pid(&more), Some((pid.lend(), &reference.raw[..])));
        prop_assert_eq!(term::reference(&more[pid.raw.len()..]), Some(reference.lend()));
    }

    #[test]
    fn our_own_identifiers_are_ours(id: u32, serial: u32, creation: u32, words: [u32; 3]) {
        let own = OwnNode::new("legation@höst", creation);
        let earlier = OwnNode::new("legation@höst", creation.wrapping_add(1));
        let other = OwnNode::new("legation@host", creation);
        let (mut pid, mut reference) = (Vec::new(), Vec::new());
        own.pid(&mut pid, id, serial);
        own.reference(&mut reference, words);
        let pid = term::pid(&pid).expect("a pid");
        let reference = term::reference(&reference).expect("a reference");
        prop_assert_eq!((pid.id, pid.serial, pid.creation), (id, serial, creation));
        prop_assert_eq!((&reference.words[..3], reference.count), (&words[..], 3));
        prop_assert!(own.owns(&pid) && own.owns_reference(&reference));
        prop_assert!(!earlier.owns(&pid) && !earlier.owns_reference(&reference) && earlier.is_named(pid.node));
        prop_assert!(!other.owns(&pid) && !other.is_named(pid.node));
    }

    #[test]
    fn integers_are_read_as_written(number in prop_oneof![any::<i64>(), -300..300i64, Just(i64::MIN), Just(i64::MAX)], natural: u64) {
        let mut bytes = Vec::new();
        term::put_i64(&mut bytes, number);
        prop_assert_eq!(term::integer(&bytes), Some(number));
        prop_assert_eq!(term::unsigned(&bytes), u64::try_from(number).ok());
        bytes.clear();
        term::put_u64(&mut bytes, natural);
        prop_assert_eq!(term::unsigned(&bytes), Some(natural));
    }

    #[test]
    fn text_is_read_in_each_of_its_forms(text in "\\PC{0,20}") {
        let mut bytes = Vec::new();
        term::put_binary(&mut bytes, text.as_bytes());
        prop_assert!(term::text(&bytes).is_some_and(|read| read == text));
        bytes.clear();
        let count = text.chars().count() as u32;
        term::put_list_header(&mut bytes, count);
        text.chars().for_each(|character| term::put_u64(&mut bytes, u64::from(u32::from(character))));
        term::put_nil(&mut bytes);
        prop_assert!(term::text(&bytes).is_some_and(|read| read == text));
        bytes.clear();
        term::put_atom(&mut bytes, &text);
        prop_assert!(term::atom(&bytes).expect("an atom").eq_str(&text));
        let longer = text.clone() + "x";
        prop_assert!(!term::atom(&bytes).expect("an atom").eq_str(&longer));
    }
}

#[test]
fn numbers_are_written_as_erts_writes_them() {
    // As of `term_to_binary/1`, without the version byte.
    let expected: [(i64, &[u8]); 8] = [
        (0, &[97, 0]),
        (255, &[97, 255]),
        (256, &[98, 0, 0, 1, 0]),
        (-1, &[98, 255, 255, 255, 255]),
        (i64::from(i32::MIN), &[98, 128, 0, 0, 0]),
        (1 << 31, &[110, 4, 0, 0, 0, 0, 128]),
        (-(1 << 31) - 1, &[110, 4, 1, 1, 0, 0, 128]),
        (i64::MIN, &[110, 8, 1, 0, 0, 0, 0, 0, 0, 0, 128]),
    ];
    for (number, bytes) in expected {
        let mut out = Vec::new();
        term::put_i64(&mut out, number);
        assert_eq!(out, bytes, "{number}");
    }
}

#[test]
fn a_string_is_text_in_latin1() {
    assert_eq!(term::text(&[107, 0, 2, b'h', 0xe9]).as_deref(), Some("hé"));
    assert_eq!(term::text(&[106]).as_deref(), Some(""));
    assert_eq!(term::text(&[109, 0, 0, 0, 1, 0xe9]), None);
    assert_eq!(term::text(&[119, 1, b'a']), None);
}

#[test]
fn atoms_have_at_most_255_characters() {
    let mut bytes = Vec::new();
    term::put_atom(&mut bytes, &"ж".repeat(255));
    assert_eq!(&bytes[..3], &[118, 1, 254]);
    assert_eq!(term::atom(&bytes).and_then(|atom| atom.utf8()).map(str::len), Some(510));
    let longer = "ж".repeat(256);
    let mut same = Vec::new();
    term::put_atom(&mut same, &longer);
    assert_eq!(same, bytes);
    let latin1 = |length: usize| [&[100][..], &(length as u16).to_be_bytes(), &vec![b'a'; length]].concat();
    assert!(term::skip(&latin1(255)).is_some());
    assert!(term::skip(&latin1(256)).is_none());
    let utf8 = |length: usize| [&[118][..], &(length as u16).to_be_bytes(), &vec![b'a'; length]].concat();
    assert!(term::skip(&utf8(1020)).is_some());
    assert!(term::skip(&utf8(1021)).is_none());
}

#[test]
fn references_have_at_most_five_words() {
    let reference = |words: u8| [&[90, 0, words, 119, 1, b'n'][..], &vec![0; 4 + 4 * usize::from(words)]].concat();
    assert_eq!(term::reference(&reference(5)).map(|reference| reference.count), Some(5));
    assert_eq!(term::reference(&reference(6)), None);
}

#[test]
fn a_node_name_that_is_no_utf8_makes_no_identifier() {
    assert_eq!(term::pid(&[88, 119, 1, 0xe9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), None);
    assert_eq!(term::pid(&[88, 115, 1, 0xe9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), None);
}

#[test]
fn more_elements_than_bytes_are_refused_at_once() {
    for head in [&[108, 255, 255, 255, 255][..], &[105, 255, 255, 255, 255], &[116, 255, 255, 255, 255]] {
        assert_eq!(term::skip(&[head, &[106; 64]].concat()), None);
    }
    let nested: Vec<u8> = [104, 1].repeat(1 << 20);
    assert_eq!(term::skip(&nested), None);
    let whole = [&nested[..], &[106]].concat();
    assert_eq!(term::skip(&whole), Some(&[][..]));
}

#[test]
fn tags_that_no_beam_sends_us_are_refused() {
    for tag in (0..=255).filter(|tag| !matches!(tag, 70 | 77 | 88..=90 | 97 | 98 | 100..=116 | 118..=120)) {
        let bytes = [&[tag][..], &[0; 64]].concat();
        assert_eq!(term::skip(&bytes), None, "{tag}");
    }
}

#[test]
fn a_bit_string_has_bits_in_its_last_byte_if_it_has_one() {
    for (bytes, taken) in [
        (&[77, 0, 0, 0, 0, 0][..], true),
        (&[77, 0, 0, 0, 0, 1], false),
        (&[77, 0, 0, 0, 1, 0, 7], false),
        (&[77, 0, 0, 0, 1, 1, 7], true),
        (&[77, 0, 0, 0, 1, 8, 7], true),
        (&[77, 0, 0, 0, 1, 9, 7], false),
    ] {
        assert_eq!(term::skip(bytes).is_some(), taken, "{bytes:?}");
        assert_eq!(
            legation_proto::etf::scan(&[&[131], bytes].concat(), &Default::default()).is_ok(),
            taken,
            "{bytes:?}"
        );
    }
}
