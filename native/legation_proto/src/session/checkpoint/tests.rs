use super::*;
use proptest::prelude::*;

const SESSION: [u8; 32] = [1; 32];
const SENDER: RealmId = RealmId([2; 32]);

fn chain() -> Chain {
    Chain::new(&SESSION, &SENDER)
}

fn proofs(messages_max: u64, bytes_max: u64) -> Proofs {
    let bounds = Limits { unproven_messages_max: messages_max, unproven_bytes_max: bytes_max, ..Limits::default() };
    Proofs::new(chain(), &bounds)
}

#[test]
fn the_chain_is_what_the_specification_says() {
    let begin = blake3::derive_key("legation/1/checkpoint", &[[1; 32], [2; 32]].concat());
    let hash = |parts: &[&[u8]]| *blake3::hash(&parts.concat()).as_bytes();
    let one = hash(&[&begin, &hash(&[b"one"])]);
    let two = hash(&[&one, &hash(&[b"two"])]);
    let mut chain = chain();
    chain.add(5, 3, b"one");
    chain.add(9, 1, b"two");
    assert_eq!(chain.open(), Some(Open { first: 5, last: 9, messages: 4, bytes: 6 }));
    assert_eq!(chain.close(), Some(Checkpoint { first: 5, last: 9, chain: two }));
    assert_eq!((chain.open(), chain.close()), (None, None), "nothing is open, and nothing is said twice");
    chain.add(10, 1, b"three");
    assert_eq!(chain.close().unwrap().chain, hash(&[&two, &hash(&[b"three"])]), "it goes on");
}

#[test]
fn no_two_sessions_or_directions_begin_alike() {
    let of = |session: [u8; 32], sender: u8| Chain::new(&session, &RealmId([sender; 32])).value;
    assert_ne!(of([1; 32], 2), of([1; 32], 3));
    assert_ne!(of([1; 32], 2), of([3; 32], 2));
}

#[test]
fn the_driver_is_asked_once_for_each_stretch() {
    let mut proving = Proving::new(chain());
    assert!(!proving.timer(), "there is nothing to prove");
    proving.chain.add(1, 1, b"one");
    assert!(proving.timer());
    proving.chain.add(2, 1, b"two");
    assert!(!proving.timer(), "it is on its way");
    proving.chain.close();
    proving.chain.add(3, 1, b"three");
    assert!(!proving.timer(), "it comes sooner than it has to for these");
    proving.timer_is_over();
    assert!(proving.timer());
}

#[test]
fn a_sender_does_not_wait_with_too_much_open() {
    let mut proving = Proving::new(chain());
    proving.chain.add(1, CHECKPOINT_AFTER_MESSAGES - 1, b"x");
    assert!(!proving.is_full());
    proving.chain.add(CHECKPOINT_AFTER_MESSAGES, 1, b"x");
    assert!(proving.is_full());
    let mut proving = Proving::new(chain());
    proving.chain.add(1, 1, &vec![0; CHECKPOINT_AFTER_BYTES as usize - 1]);
    assert!(!proving.is_full());
    proving.chain.add(2, 1, b"x");
    assert!(proving.is_full());
}

#[test]
fn as_many_messages_as_may_be_are_open_and_not_one_more() {
    let mut proofs = proofs(4, 1_000);
    proofs.add(0, 1, 3, b"x").unwrap();
    proofs.add(0, 4, 1, b"x").unwrap();
    assert_eq!(proofs.add(0, 5, 1, b"x"), Err(Unproven::TooMuch));
    assert_eq!(proofs.open().unwrap().last, 4, "what is refused is not delivered, and so not open");
}

#[test]
fn a_batch_of_more_messages_than_may_be_open_is_too_much_by_itself() {
    assert_eq!(proofs(4, 1_000).add(0, 1, 5, b"x"), Err(Unproven::TooMuch));
}

#[test]
fn as_many_bytes_as_may_be_are_open_and_not_one_more() {
    let mut proofs = proofs(100, 6);
    proofs.add(0, 1, 1, b"123").unwrap();
    proofs.add(0, 2, 1, b"456").unwrap();
    assert_eq!(proofs.add(0, 3, 1, b"7"), Err(Unproven::TooMuch));
}

#[test]
fn one_batch_alone_may_be_of_more_bytes() {
    let mut proofs = proofs(100, 6);
    proofs.add(0, 1, 1, b"12345678").unwrap();
    assert_eq!(proofs.add(0, 2, 1, b""), Err(Unproven::TooMuch));
}

#[test]
fn a_checkpoint_of_other_messages_or_another_chain_is_wrong_and_its_signature_is_not_looked_at() {
    let mut proofs = proofs(100, 1_000);
    let not_asked = || panic!("the signature");
    let anything = Checkpoint { first: 1, last: 1, chain: [0; 32] };
    assert_eq!(proofs.cover(&anything, not_asked), Err(Unproven::Wrong), "nothing is open");
    let mut chain = chain();
    for number in 1..=3 {
        proofs.add(0, number, 1, b"x").unwrap();
        chain.add(number, 1, b"x");
    }
    let right = chain.close().unwrap();
    for wrong in [
        Checkpoint { first: 2, ..right },
        Checkpoint { last: 2, ..right },
        Checkpoint { last: 4, ..right },
        Checkpoint { chain: [0; 32], ..right },
    ] {
        assert_eq!(proofs.cover(&wrong, not_asked), Err(Unproven::Wrong), "{wrong:?}");
    }
    assert_eq!(proofs.cover(&right, || false), Err(Unproven::Wrong));
    assert!(proofs.open().is_some());
    assert_eq!(proofs.cover(&right, || true), Ok(()));
    assert_eq!(proofs.open(), None);
}

#[test]
fn the_peer_has_its_time_from_the_first_open_batch_and_again_after_each_checkpoint() {
    let mut proofs = proofs(100, 1_000);
    let mut sender = chain();
    assert_eq!((proofs.deadline(), proofs.check_time(u64::MAX)), (None, Ok(())));
    for (now, number) in [(100, 1), (900, 2)] {
        proofs.add(now, number, 1, b"x").unwrap();
        sender.add(number, 1, b"x");
    }
    assert_eq!(proofs.deadline(), Some(1_100));
    assert_eq!((proofs.check_time(1_099), proofs.check_time(1_100)), (Ok(()), Err(Unproven::Late)));
    proofs.cover(&sender.close().unwrap(), || true).unwrap();
    assert_eq!(proofs.deadline(), None);
    proofs.add(5_000, 3, 1, b"x").unwrap();
    assert_eq!(proofs.deadline(), Some(6_000));
    proofs.wait_anew(5_900);
    assert_eq!((proofs.check_time(6_899), proofs.check_time(6_900)), (Ok(()), Err(Unproven::Late)));
}

proptest! {
    #[test]
    fn two_chains_agree_exactly_when_the_batches_do(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..8),
        cut in any::<prop::sample::Index>(),
        altered in any::<prop::sample::Index>(),
    ) {
        let chained = |bodies: &[Vec<u8>]| {
            let mut chain = chain();
            bodies.iter().enumerate().for_each(|(index, body)| chain.add(index as u64 + 1, 1, body));
            chain.value
        };
        prop_assert_eq!(chained(&bodies), chained(&bodies.clone()));
        prop_assert_ne!(chained(&bodies), chained(&bodies[..cut.index(bodies.len())]));
        let mut other = bodies.clone();
        other[altered.index(bodies.len())].push(0);
        prop_assert_ne!(chained(&bodies), chained(&other));
    }
}
