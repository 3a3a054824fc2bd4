use super::super::generator::{any_term, term_of_depth};
use super::*;
use proptest::prelude::*;

fn scanned(bytes: &[u8]) -> Result<(), TermErrorKind> {
    scan(bytes, &TermLimits::default()).map_err(|error| error.kind)
}

#[test]
fn every_allowed_tag_is_allowed_in_its_shortest_form() {
    let forms: [&[u8]; 17] = [
        &[131, 70, 0, 0, 0, 0, 0, 0, 0, 0],
        &[131, 77, 0, 0, 0, 1, 3, 0b1010_0000],
        &[131, 97, 255],
        &[131, 98, 255, 255, 255, 255],
        &[131, 100, 0, 1, 0xe9],
        &[131, 104, 0],
        &[131, 105, 0, 0, 0, 0],
        &[131, 106],
        &[131, 107, 0, 0],
        &[131, 108, 0, 0, 0, 1, 106, 106],
        &[131, 109, 0, 0, 0, 0],
        &[131, 110, 0, 0],
        &[131, 111, 0, 0, 0, 0, 0],
        &[131, 115, 1, 0xe9],
        &[131, 116, 0, 0, 0, 0],
        &[131, 118, 0, 2, 0xc3, 0xa9],
        &[131, 119, 2, 0xc3, 0xa9],
    ];
    for form in forms {
        assert_eq!(scanned(form), Ok(()), "{form:?}");
    }
}

#[test]
fn every_other_tag_is_refused_and_identifiers_say_what_they_are() {
    let allowed = [70, 77, 97, 98, 100, 104, 105, 106, 107, 108, 109, 110, 111, 115, 116, 118, 119];
    for tag in (0..=255u8).filter(|tag| !allowed.contains(tag)) {
        // Inside a tuple, so that the offset is worth something.
        let error = scan(&[131, 104, 2, 97, 1, tag, 0, 0, 0, 0], &TermLimits::default()).unwrap_err();
        let kind = match tag {
            88 | 103 => TermErrorKind::Identifiers(IdentifierKind::Pid),
            89 | 102 | 120 => TermErrorKind::Identifiers(IdentifierKind::Port),
            90 | 101 | 114 => TermErrorKind::Identifiers(IdentifierKind::Reference),
            112 | 113 | 117 => TermErrorKind::Identifiers(IdentifierKind::Fun),
            _ => TermErrorKind::Tag(tag),
        };
        assert_eq!(error, TermError { kind, offset: 5 });
        assert_eq!(error.is_identifiers(), !matches!(kind, TermErrorKind::Tag(_)));
    }
}

#[test]
fn the_first_problem_in_the_order_of_the_bytes_is_the_one_reported() {
    assert_eq!(scanned(&[131, 104, 2, 88, 80]), Err(TermErrorKind::Identifiers(IdentifierKind::Pid)));
    assert_eq!(scanned(&[131, 104, 2, 80, 88]), Err(TermErrorKind::Tag(80)));
}

#[test]
fn a_term_begins_with_131_and_nothing_follows_it() {
    assert_eq!(scanned(&[]), Err(TermErrorKind::Truncated));
    assert_eq!(scanned(&[131]), Err(TermErrorKind::Truncated));
    assert_eq!(scanned(&[130, 106]), Err(TermErrorKind::Version));
    assert_eq!(scanned(&[131, 131, 106]), Err(TermErrorKind::Tag(131)));
    let error = scan(&[131, 106, 106], &TermLimits::default()).unwrap_err();
    assert_eq!(error, TermError { kind: TermErrorKind::Trailing, offset: 2 });
}

#[test]
fn counts_beyond_the_bytes_are_refused_where_they_are_read() {
    // The first aborts a decoder that reserves room for what it is told.
    for attack in [
        [131, 108, 255, 255, 255, 255, 106].as_slice(),
        &[131, 116, 255, 255, 255, 255, 106],
        &[131, 116, 128, 0, 0, 0, 106, 106],
        &[131, 105, 255, 255, 255, 255, 106],
        &[131, 104, 3, 106, 106],
        &[131, 108, 0, 0, 0, 1, 106],
    ] {
        let error = scan(attack, &TermLimits::default()).unwrap_err();
        assert_eq!(error, TermError { kind: TermErrorKind::Count, offset: 1 }, "{attack:?}");
    }
    for attack in
        [[131, 109, 255, 255, 255, 255, 0].as_slice(), &[131, 77, 255, 255, 255, 255, 1, 0], &[131, 107, 255, 255, 0]]
    {
        assert_eq!(scanned(attack), Err(TermErrorKind::Truncated), "{attack:?}");
    }
}

#[test]
fn a_list_of_no_elements_is_refused_because_otp_reads_its_tail_in_its_place() {
    assert_eq!(scanned(&[131, 108, 0, 0, 0, 0, 106]), Err(TermErrorKind::Count));
    assert_eq!(scanned(&[131, 108, 0, 0, 0, 0, 104, 1, 97, 1]), Err(TermErrorKind::Count));
}

#[test]
fn a_list_has_one_tail_and_it_may_be_anything() {
    assert_eq!(scanned(&[131, 108, 0, 0, 0, 1, 97, 1, 97, 2]), Ok(()));
    assert_eq!(scanned(&[131, 108, 0, 0, 0, 1, 97, 1, 116, 0, 0, 0, 1, 97, 2, 97, 3]), Ok(()));
    assert_eq!(scanned(&[131, 108, 0, 0, 0, 1, 97, 1, 106, 106]), Err(TermErrorKind::Trailing));
}

#[test]
fn depth_at_the_limit_is_allowed_and_one_more_is_not() {
    for depth_max in [0, 1, 2, 15, 16, 17, 200, 256] {
        let limits = TermLimits { depth_max, ..TermLimits::default() };
        assert_eq!(scan(&term_of_depth(depth_max.into()), &limits), Ok(()), "{depth_max}");
        let error = scan(&term_of_depth(usize::from(depth_max) + 1), &limits).unwrap_err();
        assert_eq!(error.kind, TermErrorKind::TooDeep, "{depth_max}");
    }
    // Empty containers hold nothing open.
    assert_eq!(scan(&[131, 104, 0], &TermLimits { depth_max: 0, ..TermLimits::default() }), Ok(()));
}

#[test]
fn a_depth_beyond_the_stack_is_taken_for_the_stack() {
    let limits = TermLimits { depth_max: u16::MAX, ..TermLimits::default() };
    assert_eq!(scan(&term_of_depth(256), &limits), Ok(()));
    assert_eq!(scan(&term_of_depth(257), &limits).unwrap_err().kind, TermErrorKind::TooDeep);
}

#[test]
fn two_hundred_thousand_nested_tuples_are_refused() {
    assert_eq!(scanned(&term_of_depth(200_000)), Err(TermErrorKind::TooDeep));
    let mut lists = vec![131];
    for _ in 0..200_000 {
        lists.extend([108, 0, 0, 0, 1, 106]);
    }
    lists.push(106);
    assert_eq!(scanned(&lists), Err(TermErrorKind::TooDeep));
}

#[test]
fn width_is_no_depth() {
    let mut wide = vec![131, 105, 0, 1, 0, 0];
    for _ in 0..65_536 {
        wide.extend([104, 1, 108, 0, 0, 0, 1, 116, 0, 0, 0, 0, 106]);
    }
    assert_eq!(scanned(&wide), Ok(()));
}

#[test]
fn atoms_have_at_most_255_characters() {
    let atom = |tag: u8, length: u16, text: &str| {
        let mut bytes = vec![131, tag];
        bytes.extend(length.to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    };
    assert_eq!(scanned(&atom(100, 255, &"x".repeat(255))), Ok(()));
    assert_eq!(scanned(&atom(100, 256, &"x".repeat(256))), Err(TermErrorKind::Atom));
    assert_eq!(scanned(&atom(118, 255, &"x".repeat(255))), Ok(()));
    assert_eq!(scanned(&atom(118, 256, &"x".repeat(256))), Err(TermErrorKind::Atom));
    assert_eq!(scanned(&atom(118, 1020, &"😀".repeat(255))), Ok(()));
    assert_eq!(scanned(&atom(118, 512, &"é".repeat(256))), Err(TermErrorKind::Atom));
    assert_eq!(scanned(&atom(118, 1024, &"😀".repeat(256))), Err(TermErrorKind::Atom));
}

#[test]
fn atoms_that_are_not_utf8_are_refused() {
    // A lone continuation, an overlong zero, a surrogate, a character cut off.
    for text in [&[0x80][..], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], &[0xf0, 0x9f, 0x98]] {
        let small = [&[131, 119, text.len() as u8], text].concat();
        let long = [&[131, 118, 0, text.len() as u8], text].concat();
        assert_eq!(scanned(&small), Err(TermErrorKind::Atom));
        assert_eq!(scanned(&long), Err(TermErrorKind::Atom));
    }
}

#[test]
fn floats_are_finite() {
    for (float, expected) in [
        (1.5, Ok(())),
        (-0.0, Ok(())),
        (f64::MIN_POSITIVE / 2.0, Ok(())),
        (f64::NAN, Err(TermErrorKind::Float)),
        (f64::INFINITY, Err(TermErrorKind::Float)),
        (f64::NEG_INFINITY, Err(TermErrorKind::Float)),
    ] {
        let bytes = [&[131, 70][..], &f64::to_be_bytes(float)].concat();
        assert_eq!(scanned(&bytes), expected, "{float}");
    }
}

#[test]
fn the_last_byte_of_a_bit_string_has_one_to_eight_bits() {
    for bits in 0..=255u8 {
        let empty = scanned(&[131, 77, 0, 0, 0, 0, bits]);
        assert_eq!(empty.is_ok(), bits == 0, "{bits}");
        let one = scanned(&[131, 77, 0, 0, 0, 1, bits, 0xff]);
        assert_eq!(one.is_ok(), (1..=8).contains(&bits), "{bits}");
    }
}

#[test]
fn big_integers_are_bounded() {
    let big = |bytes: u32| {
        let mut term = vec![131, 111];
        term.extend(bytes.to_be_bytes());
        term.push(1);
        term.resize(term.len() + bytes as usize, 7);
        term
    };
    assert_eq!(scanned(&big(65_536)), Ok(()));
    assert_eq!(scanned(&big(65_537)), Err(TermErrorKind::BigTooLarge));
    assert_eq!(scanned(&[131, 111, 255, 255, 255, 255, 0]), Err(TermErrorKind::BigTooLarge));
    let limits = TermLimits { big_bytes_max: 1, ..TermLimits::default() };
    assert_eq!(scan(&[131, 110, 2, 0, 1, 1], &limits).unwrap_err().kind, TermErrorKind::BigTooLarge);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_valid_term_passes_and_every_truncation_of_it_is_an_error(term in any_term()) {
        prop_assert_eq!(scanned(&term), Ok(()));
        for length in 0..term.len() {
            prop_assert!(scanned(&term[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_byte_after_a_valid_term_is_an_error(mut term in any_term(), byte: u8) {
        term.push(byte);
        prop_assert_eq!(scanned(&term), Err(TermErrorKind::Trailing));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&bytes, &TermLimits::default());
    }

    #[test]
    fn bytes_that_look_like_terms_never_panic(
        tags in prop::collection::vec(prop_oneof![60..125u8, 0..4u8, any::<u8>()], 0..300),
        depth_max: u16,
        big_bytes_max: u32,
    ) {
        let bytes = [&[131], &tags[..]].concat();
        if let Err(error) = scan(&bytes, &TermLimits { depth_max, big_bytes_max }) {
            prop_assert!(error.offset <= bytes.len());
        }
    }

    #[test]
    fn the_small_stack_and_the_large_one_agree(
        tags in prop::collection::vec(prop_oneof![Just(104u8), Just(1), Just(2), Just(106), any::<u8>()], 0..300),
    ) {
        let bytes = [&[131], &tags[..]].concat();
        prop_assert_eq!(
            walk::<DEPTH_COMMON>(&bytes, 256, 65_536, Allowed::None).is_ok(),
            walk_deep(&bytes, 256, 65_536, Allowed::None).is_ok()
        );
    }
}

/// Bytes that a term may begin with, in whatever scan.
const TAGS: [u8; 30] = [
    70, 77, 82, 88, 89, 90, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115,
    116, 118, 119, 120, 121,
];

#[test]
fn exhaustive_no_string_of_up_to_three_bytes_is_read_past_its_end_and_no_term_is_the_beginning_of_another() {
    let limits = TermLimits::default();
    let scans = [
        |bytes: &[u8], limits: &TermLimits| scan(bytes, limits).is_ok(),
        |bytes: &[u8], limits: &TermLimits| scan_local(bytes, limits).is_ok(),
        |bytes: &[u8], limits: &TermLimits| scan_wire(bytes, limits).is_ok(),
    ];
    let mut terms = [0; 3];
    for (number, scan) in scans.into_iter().enumerate() {
        assert!(!scan(&[131], &limits));
        for first in 0..=u8::MAX {
            let one = scan(&[131, first], &limits);
            terms[number] += u32::from(one);
            for second in 0..=u8::MAX {
                let two = scan(&[131, first, second], &limits);
                assert!(!(one && two), "{first} {second}");
                terms[number] += u32::from(two);
                assert!(TAGS.contains(&first) || !two, "{first} {second}");
                if !TAGS.contains(&first) {
                    continue;
                }
                for third in 0..=u8::MAX {
                    let three = scan(&[131, first, second, third], &limits);
                    assert!(!(three && (one || two)), "{first} {second} {third}");
                    terms[number] += u32::from(three);
                }
            }
        }
    }
    // [], {}; 256 small integers and the empty atoms; atoms of one byte of ASCII, whatever holds [] or {}, and empty things with longer lengths.
    assert!(terms.iter().all(|terms| *terms > 500), "{terms:?}");
}
