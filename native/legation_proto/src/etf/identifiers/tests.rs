use super::super::generator::{any_element, any_term_with};
use super::super::scan::{has_key_twice, scan, scan_local, scan_wire, TermErrorKind, TermLimits};
use super::*;
use proptest::prelude::*;

const LIMITS: TermLimits = TermLimits { depth_max: 256, big_bytes_max: 65_536 };

fn put(wire: Wire<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    wire.put(&mut out);
    out
}

fn any_wire() -> impl Strategy<Value = Vec<u8>> {
    let owner = prop_oneof![Just(Owner::Sender), Just(Owner::Receiver)];
    prop_oneof![
        (1u64.., owner.clone()).prop_map(|(number, owner)| put(Wire::Pid { number, owner })),
        (1u64.., owner).prop_map(|(number, owner)| put(Wire::Reference { number, owner })),
        "[a-z]{1,60}".prop_map(|name| put(Wire::Engine(&name))),
    ]
}

/// As BEAMs of any age write them.
fn any_local() -> impl Strategy<Value = Vec<u8>> {
    let node = ("[a-z@.]{0,30}", prop_oneof![Just(100), Just(115), Just(118), Just(119)])
        .prop_map(|(text, tag)| super::super::generator::atom(tag, &text));
    let bytes = |count: usize| prop::collection::vec(any::<u8>(), count);
    prop_oneof![
        (node.clone(), bytes(12)).prop_map(|(node, rest)| [&[88], &node[..], &rest].concat()),
        (node.clone(), bytes(9)).prop_map(|(node, rest)| [&[103], &node[..], &rest].concat()),
        (node.clone(), 1..=5u8, bytes(4), bytes(20)).prop_map(|(node, words, creation, ids)| {
            [&[90, 0, words], &node[..], &creation, &ids[..4 * usize::from(words)]].concat()
        }),
        (node, 1..=3u8, any::<u8>(), bytes(12)).prop_map(|(node, words, creation, ids)| {
            [&[114, 0, words], &node[..], &[creation], &ids[..4 * usize::from(words)]].concat()
        }),
    ]
}

#[test]
fn each_identifier_has_the_form_that_is_drawn() {
    let pid = put(Wire::Pid { number: 0x0102_0304_0506_0708, owner: Owner::Sender });
    assert_eq!(pid, [88, 119, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1]);
    let home = put(Wire::Pid { number: 1, owner: Owner::Receiver });
    assert_eq!(home, [88, 119, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    let engine = put(Wire::Engine("ping"));
    assert_eq!(engine, [&[88, 119, 4][..], b"ping", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]].concat());
    let reference = put(Wire::Reference { number: 258, owner: Owner::Receiver });
    assert_eq!(reference, [90, 0, 2, 119, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 2]);
    for raw in [pid, home, engine, reference, put(Wire::Engine(&"é".repeat(127)))] {
        assert_eq!(put(Wire::parse(&raw).unwrap()), raw);
        let payload = [&[131], &raw[..]].concat();
        assert_eq!(scan_wire(&payload, &LIMITS), Ok(true));
        assert!(scan(&payload, &LIMITS).unwrap_err().is_identifiers());
    }
}

#[test]
fn any_other_spelling_of_an_identifier_is_refused_of_a_peer() {
    let node = [119, 1, b'a'];
    let zeros = [0u8; 8];
    let others: Vec<Vec<u8>> = vec![
        // number 0; an unknown creation; the old tags; a node's name; another spelling of the empty atom
        [&[88, 119, 0][..], &zeros, &[0, 0, 0, 1]].concat(),
        vec![88, 119, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        vec![88, 119, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3],
        vec![88, 119, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1],
        vec![103, 119, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        [&[88][..], &node, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]].concat(),
        vec![88, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        vec![88, 115, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        // engines: no name that an engine can have; a number; two spellings of the name
        [&[88, 119, 3][..], b"a@b", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]].concat(),
        [&[88, 119, 1][..], b"a", &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3]].concat(),
        [&[88, 118, 0, 1][..], b"a", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]].concat(),
        vec![88, 119, 1, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],
        // references of other lengths, the old tags
        vec![90, 0, 1, 119, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        vec![90, 0, 3, 119, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        vec![90, 0, 2, 119, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![90, 0, 2, 119, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1],
        vec![114, 0, 2, 119, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        vec![101, 119, 0, 0, 0, 0, 1, 1],
    ];
    for raw in others {
        assert_eq!(Wire::parse(&raw), None, "{raw:?}");
        let error = scan_wire(&[&[131], &raw[..]].concat(), &LIMITS).unwrap_err();
        assert!(error.is_identifiers() && error.offset == 1, "{raw:?} {error}");
    }
}

#[test]
fn ports_and_funs_go_neither_way() {
    for tag in [89, 102, 120, 112, 113, 117] {
        let payload = [&[131, 104, 1, tag, 119, 0][..], &[0; 20]].concat();
        assert!(scan_local(&payload, &LIMITS).unwrap_err().is_identifiers());
        assert!(scan_wire(&payload, &LIMITS).unwrap_err().is_identifiers());
    }
}

#[test]
fn an_identifier_that_is_cut_is_refused_at_every_place() {
    let raw = put(Wire::Engine("ping"));
    let local = [&[88, 119, 3][..], b"a@b", &[7; 12]].concat();
    for cut in 1..raw.len() {
        assert!(scan_wire(&[&[131], &raw[..cut]].concat(), &LIMITS).is_err(), "{cut}");
    }
    for cut in 1..local.len() {
        assert!(scan_local(&[&[131], &local[..cut]].concat(), &LIMITS).is_err(), "{cut}");
    }
}

#[test]
fn an_identifier_that_is_a_key_twice_is_refused_however_it_is_spelled() {
    let map = |one: &[u8], other: &[u8]| [&[131, 116, 0, 0, 0, 2], one, &[106], other, &[106]].concat();
    let pid = |number| put(Wire::Pid { number, owner: Owner::Sender });
    let twice = |payload: Vec<u8>| scan_wire(&payload, &LIMITS).err().map(|error| error.kind);
    assert_eq!(twice(map(&pid(1), &pid(1))), Some(TermErrorKind::DuplicateKey));
    assert_eq!(twice(map(&pid(1), &pid(2))), None);
    let tuple = |raw: &[u8]| [&[104, 1], raw].concat();
    assert_eq!(twice(map(&tuple(&pid(1)), &tuple(&pid(1)))), Some(TermErrorKind::DuplicateKey));
    // A pid in its two tags and the four spellings of its node.
    let old = [&[103, 100, 0, 3][..], b"a@b", &[0, 0, 0, 5, 0, 0, 0, 6, 2]].concat();
    let new = [&[88, 119, 3][..], b"a@b", &[0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 2]].concat();
    let other = [&[88, 119, 3][..], b"a@b", &[0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 3]].concat();
    assert!(has_key_twice(&map(&old, &new)));
    assert!(!has_key_twice(&map(&new, &other)));
    let old = [&[114, 0, 1, 115, 1][..], b"a", &[2, 0, 0, 0, 9]].concat();
    let new = [&[90, 0, 1, 119, 1][..], b"a", &[0, 0, 0, 2, 0, 0, 0, 9]].concat();
    assert!(has_key_twice(&map(&old, &new)));
}

#[test]
fn a_pid_is_no_depth() {
    let payload = [&[131][..], &[104, 1].repeat(256), &put(Wire::Engine("ping"))].concat();
    assert_eq!(scan_wire(&payload, &LIMITS), Ok(true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_found_is_what_is_there(
        before in prop::collection::vec(any_element(), 0..4),
        raws in prop::collection::vec(prop_oneof![any_local(), any_wire()], 0..6),
    ) {
        let mut payload = vec![131, 105];
        payload.extend(((before.len() + 2 * raws.len()) as u32).to_be_bytes());
        payload.extend(before.concat());
        let mut expected = Vec::new();
        for raw in &raws {
            payload.extend([109, 0, 0, 0, 2, 88, 90]);
            expected.push((payload.len(), raw.as_slice()));
            payload.extend(raw);
        }
        prop_assert_eq!(scan_local(&payload, &LIMITS), Ok(!raws.is_empty()));
        let found: Vec<_> = identifiers(&payload).map(|place| (place.at, place.raw)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_payload_is_the_same_after_a_way_there_and_back(payload in any_term_with(any_local().boxed())) {
        let mut raws = Vec::new();
        let there = rewrite(&payload, identifiers(&payload), |place, out| {
            raws.push(place.raw.to_vec());
            let (number, owner) = (raws.len() as u64, Owner::Sender);
            match place.kind {
                IdentifierKind::Pid => Wire::Pid { number, owner }.put(out),
                _ => Wire::Reference { number, owner }.put(out),
            }
            Ok::<(), ()>(())
        }).unwrap();
        prop_assert_eq!(scan_wire(&there, &LIMITS), Ok(!raws.is_empty()));
        let back = rewrite(&there, identifiers(&there), |place, out| {
            match Wire::parse(place.raw) {
                Some(Wire::Pid { number, .. } | Wire::Reference { number, .. }) => out.extend(&raws[number as usize - 1]),
                _ => return Err(()),
            }
            Ok(())
        }).unwrap();
        prop_assert_eq!(back, payload);
    }

    #[test]
    fn bytes_that_look_like_identifiers_never_panic(
        tags in prop::collection::vec(prop_oneof![86..92u8, 100..121u8, 0..4u8, any::<u8>()], 0..300),
    ) {
        let bytes = [&[131], &tags[..]].concat();
        let local = scan_local(&bytes, &LIMITS);
        let wire = scan_wire(&bytes, &LIMITS);
        prop_assert!(wire.is_err() || local.is_ok());
        let _ = identifiers(&bytes).count();
        let _ = Wire::parse(&tags);
        let _ = has_key_twice(&bytes);
    }
}
