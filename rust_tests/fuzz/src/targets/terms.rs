//! The scan of payloads, and what walks over them after it. What a BEAM says to the same bytes: [`crate::differential`].

use legation_node::dist::term as walker;
use legation_proto::etf::{disguise, identifiers, rewrite, scan, scan_local, scan_wire, TermLimits, Wire};

use crate::Target;

pub const TARGET: Target =
    Target { name: "terms", what: "external terms: scan, identifiers, disguises", run, seeds, bytes_max: 2_048 };

fn run(payload: &[u8]) {
    let limits = TermLimits::default();
    let plain = scan(payload, &limits);
    let local = scan_local(payload, &limits);
    let wire = scan_wire(payload, &limits);

    for error in [plain.err(), local.err(), wire.err()].into_iter().flatten() {
        assert!(error.offset <= payload.len(), "{error:?} lies outside of it");
    }
    // Each takes what the stricter one took, and says the same of it.
    match (plain, wire, local) {
        (Ok(()), wire, local) => assert_eq!((wire, local), (Ok(false), Ok(false)), "without identifiers"),
        (Err(error), Ok(met), local) => {
            assert!(met && error.is_identifiers(), "{error:?}");
            assert_eq!(local, Ok(true), "what comes over the wire is a term here, too");
        }
        (Err(error), Err(_), Ok(met)) => assert!(met && error.is_identifiers(), "{error:?}"),
        (Err(_), Err(_), Err(_)) => {}
    }
    let tight = TermLimits { depth_max: 3, big_bytes_max: 5 };
    if let Ok(met) = scan_local(payload, &tight) {
        assert_eq!(local, Ok(met), "more is allowed, and it is refused");
    }

    // Total on anything.
    let disguised = disguise(payload, &|number| number % 2 == 0);
    let places: Vec<_> = identifiers(payload).collect();
    let mut end = 0;
    for place in &places {
        assert!(place.at >= end && payload[place.at..].starts_with(place.raw) && !place.raw.is_empty());
        end = place.at + place.raw.len();
    }

    let Ok(met) = local else { return };
    assert_eq!(met, !places.is_empty(), "identifiers that the scan has met are found");
    let same = rewrite(payload, places.iter().copied(), |place, out| {
        out.extend_from_slice(place.raw);
        Ok::<(), ()>(())
    });
    assert_eq!(same.as_deref(), Ok(payload), "rewritten as it was");
    if wire.is_ok() {
        for place in &places {
            let mut again = Vec::new();
            Wire::parse(place.raw).expect("the scan has taken it").put(&mut again);
            assert_eq!(again, place.raw, "one form each");
        }
    }
    if disguised.is_some() {
        assert!(walker::tuple(&payload[1..]).is_some(), "only tuples are taken for anything");
    }
    // The daemon's walker finds the same end.
    assert_eq!(walker::take(&payload[1..]), Some((&payload[1..], &[][..])), "the daemon's walker");
    // No term is the beginning of another.
    for cut in (0..payload.len()).step_by(1 + payload.len() / 16) {
        assert!(scan_local(&payload[..cut], &limits).is_err(), "cut at {cut}, and taken");
    }
    let longer = [payload, &[106]].concat();
    assert!(scan_local(&longer, &limits).is_err(), "more behind it, and taken");
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        super::vectors().iter().filter(|bytes| bytes.first() == Some(&131)).cloned().collect();
    seeds.extend(hostile::term::disguises().into_iter().map(|(_, payload)| payload));
    for element in crate::targets::elements() {
        seeds.push([&[131], &element[..]].concat());
    }
    seeds
}
