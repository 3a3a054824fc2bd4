//! Valid terms for tests, written byte by byte: every allowed tag, every spelling of it.

use proptest::collection::vec;
use proptest::prelude::*;

/// A complete payload: 131 and a term.
pub fn any_term() -> impl Strategy<Value = Vec<u8>> {
    any_element().prop_map(|element| [&[131], &element[..]].concat())
}

/// 1-tuples in 1-tuples, `depth` of them around a NIL.
pub fn term_of_depth(depth: usize) -> Vec<u8> {
    [vec![131], [104, 1].repeat(depth), vec![106]].concat()
}

/// An atom in one of its four spellings. `text` is ASCII, at most 255 bytes.
pub fn atom(spelling: u8, text: &str) -> Vec<u8> {
    let length = text.len() as u8;
    match spelling {
        100 | 118 => [&[spelling, 0, length], text.as_bytes()].concat(),
        _ => [&[spelling, length], text.as_bytes()].concat(),
    }
}

pub fn tuple(large: bool, elements: &[Vec<u8>]) -> Vec<u8> {
    let arity = elements.len() as u32;
    let header = if large { counted(105, arity) } else { vec![104, arity as u8] };
    [header, elements.concat()].concat()
}

/// `tail` is usually `&[106]`.
pub fn list(elements: &[Vec<u8>], tail: &[u8]) -> Vec<u8> {
    [counted(108, elements.len() as u32), elements.concat(), tail.to_vec()].concat()
}

/// A term without the leading 131.
pub fn any_element() -> BoxedStrategy<Vec<u8>> {
    any_element_with(any_leaf())
}

/// A complete payload with some of these leaves among all others.
pub fn any_term_with(leaf: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    any_element_with(prop_oneof![3 => any_leaf(), 2 => leaf].boxed())
        .prop_map(|element| [&[131], &element[..]].concat())
}

fn any_leaf() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|n| vec![97, n]),
        any::<i32>().prop_map(|n| [&[98], &n.to_be_bytes()[..]].concat()),
        Just(vec![106]),
        Just(vec![104, 0]),
        Just(vec![116, 0, 0, 0, 0]),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| [&[70], &f.to_be_bytes()[..]].concat()),
        ("[a-z$_]{0,12}", prop_oneof![Just(100), Just(115), Just(118), Just(119)])
            .prop_map(|(text, tag)| atom(tag, &text)),
        "\\PC{0,40}".prop_map(|text| [&[118, 0, text.len() as u8], text.as_bytes()].concat()),
        vec(any::<u8>(), 0..40).prop_map(|data| [counted(109, data.len() as u32), data].concat()),
        vec(any::<u8>(), 0..40).prop_map(|data| [vec![107, 0, data.len() as u8], data].concat()),
        (vec(any::<u8>(), 1..10), 1..=8u8)
            .prop_map(|(data, bits)| [counted(77, data.len() as u32), vec![bits], data].concat()),
        (vec(any::<u8>(), 0..20), 0..=1u8).prop_map(|(data, sign)| [vec![110, data.len() as u8, sign], data].concat()),
        (vec(any::<u8>(), 0..300), 0..=1u8).prop_map(|(data, sign)| [
            counted(111, data.len() as u32),
            vec![sign],
            data
        ]
        .concat()),
    ]
    .boxed()
}

fn any_element_with(leaf: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
    leaf.prop_recursive(20, 60, 6, |element| {
        prop_oneof![
            (any::<bool>(), vec(element.clone(), 0..6)).prop_map(|(large, elements)| tuple(large, &elements)),
            vec(element.clone(), 1..6).prop_map(|elements| list(&elements, &[106])),
            (vec(element.clone(), 1..4), element.clone()).prop_map(|(elements, tail)| list(&elements, &tail)),
            vec((element.clone(), element), 0..4).prop_map(|pairs| {
                // Each key with its number, so that none stands twice.
                let key = |(number, key): (usize, &[u8])| tuple(false, &[vec![97, number as u8], key.to_vec()]);
                let numbered = pairs.iter().enumerate();
                let flat: Vec<u8> =
                    numbered.flat_map(|(number, (k, value))| [&key((number, k))[..], value].concat()).collect();
                [counted(116, pairs.len() as u32), flat].concat()
            }),
        ]
    })
    .boxed()
}

fn counted(tag: u8, count: u32) -> Vec<u8> {
    [&[tag], &count.to_be_bytes()[..]].concat()
}
