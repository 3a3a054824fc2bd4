//! Our scan and a BEAM take the same terms, but for what is meant. A long run: `make fuzz`.

use legation_fuzz::differential::{generate, Beam, Difference, Report};
use legation_fuzz::{corpus, target};

fn map(pairs: &[[&[u8]; 2]]) -> Vec<u8> {
    let flat: Vec<u8> = pairs.iter().flatten().flat_map(|bytes| bytes.iter().copied()).collect();
    [&[131, 116, 0, 0, 0, pairs.len() as u8], &flat[..]].concat()
}

#[test]
fn both_take_a_term_or_both_refuse_it_but_for_what_is_listed() {
    let mut beam = Beam::start().expect("erl");
    let mut report = Report::default();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..24 {
        let inputs: Vec<Vec<u8>> = (0..256).map(|_| generate(&mut random)).collect();
        report.ask(&mut beam, &inputs).expect("an answer");
    }
    let collected = corpus::all(target("terms").expect("a target")).expect("a corpus that can be read");
    let collected: Vec<Vec<u8>> = collected.into_iter().collect();
    for inputs in collected.chunks(256) {
        report.ask(&mut beam, inputs).expect("an answer");
    }
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    // It would say nothing of terms that nobody takes, or everybody.
    assert!(report.both_take > 1_000 && report.both_refuse > 1_000, "{report}");
}

#[test]
fn every_difference_that_is_listed_is_one() {
    use Difference::*;
    let deep = [&[131][..], &[104, 1].repeat(257), &[106]].concat();
    let big = [&[131, 111, 0, 1, 0, 1, 0][..], &[7; 65_537]].concat();
    let no_such_atom = [&[131][..], &hostile::term::atom("an atom that no other VM has seen")].concat();
    let zeros = map(&[[&[70, 0, 0, 0, 0, 0, 0, 0, 0], &[106]], [&[70, 0x80, 0, 0, 0, 0, 0, 0, 0], &[106]]]);
    let float = [&[131, 99][..], b"1.50000000000000000000e+00\0\0\0\0\0"].concat();
    let expected: [(Difference, Vec<u8>); 10] = [
        (PortOrFun, [&[131][..], &hostile::term::port("nonode@nohost", 3)].concat()),
        (OddIdentifier, [&[131, 101][..], &hostile::term::atom("nonode@nohost"), &[0, 0, 0, 9, 1]].concat()),
        (Tag, float),
        (AtomIndex, vec![131, 75, 0, 0, 8]),
        (TooDeep, deep),
        (BigTooLarge, big),
        (EmptyList, vec![131, 108, 0, 0, 0, 0, 106]),
        (Trailing, vec![131, 106, 106]),
        (UnknownAtom, no_such_atom),
        // The name of its node is not UTF-8.
        (ForeignIdentifier, vec![131, 88, 119, 1, 0xc3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    let mut beam = Beam::start().expect("erl");
    for (difference, bytes) in expected {
        let mut report = Report::default();
        report.ask(&mut beam, &[bytes]).expect("an answer");
        assert_eq!(report.differences.into_keys().collect::<Vec<_>>(), [difference], "{:?}", report.findings);
    }
    // Since OTP 27.
    let mut report = Report::default();
    report.ask(&mut beam, &[zeros]).expect("an answer");
    assert!(report.findings.is_empty() && report.differences.keys().all(|difference| *difference == Zeros));
    assert_eq!(report.both_take, 0);
}

#[test]
fn what_nothing_explains_is_a_finding() {
    use legation_fuzz::differential::Opinion;
    let nil = [131, 106];
    let refused = Opinion { safe: false, plain: false, safe_again: false, used: 0 };
    let taken = Opinion { safe: true, plain: true, safe_again: true, used: 2 };
    assert_eq!(Difference::explaining(&nil, Ok(false), &refused), None);
    let cut = legation_proto::etf::scan_local(&[131], &legation_proto::etf::TermLimits::default());
    assert_eq!(Difference::explaining(&[131], cut, &taken), None);
}
