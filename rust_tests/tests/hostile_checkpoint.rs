//! A listed peer with valid keys that is trusted to sign later, and doesn't, or wrongly, or was never trusted to.

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::FrameType;
use legation_proto::identity::{NetworkKey, Purpose};
use legation_proto::limits::Limits;
use legation_proto::signing::{Mode, Modes};
use rust_tests::raw_batch::RawMessage;
use rust_tests::raw_chain::{say, signature, RawChain, MODE};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::term;

fn limits() -> Limits {
    Limits { credit_bytes: 0, accept_signing: Modes::of(Mode::ALL), ..Limits::default() }
}

/// The raw peer, and what it owes.
struct Trusted {
    versus: Versus,
    chain: RawChain,
}

impl Trusted {
    fn up(limits: Limits) -> Trusted {
        Trusted::of(Versus::up_with(RawPeerConfig::dialling(Profile::Local), limits))
    }

    fn of(versus: Versus) -> Trusted {
        let chain = RawChain::of(&versus.peer);
        Trusted { versus, chain }
    }

    /// A batch without a signature.
    fn send(&mut self, count: usize, bytes: usize) {
        let messages = (0..count).map(|_| RawMessage::cast("b", &term::of_size(bytes))).collect();
        self.chain.send(&mut self.versus.peer, messages);
        self.versus.settle();
    }

    fn cast(&mut self) {
        self.send(1, 10);
    }

    fn right(&self) -> Checkpoint {
        self.chain.right()
    }

    fn signed(&self, checkpoint: &Checkpoint) -> [u8; 64] {
        signature(&self.versus.peer, checkpoint)
    }

    fn say(&mut self, checkpoint: &Checkpoint, signature: &[u8; 64]) {
        say(&mut self.versus.peer, checkpoint, signature);
        self.versus.settle();
    }

    fn prove(&mut self) {
        self.chain.prove(&mut self.versus.peer);
        self.versus.settle();
    }

    fn delivered(&mut self) -> usize {
        self.versus.side.take_payloads().len()
    }

    fn unproven(&self) -> Option<(u64, u64)> {
        self.versus.side.session().unproven()
    }

    fn count(&self, name: &str) -> u64 {
        self.versus.side.count(name)
    }

    /// The link has ended for it, and so does the session.
    fn assert_caught(&mut self) {
        self.versus.assert_closed(CloseCode::Unproven);
        assert!(!CloseCode::Unproven.keeps_session());
    }
}

#[test]
fn who_proves_what_it_sent_is_heard_without_end() {
    let mut trusted = Trusted::up(limits());
    for _ in 0..3 {
        trusted.cast();
        trusted.cast();
        assert_eq!(trusted.delivered(), 2, "before anything is signed");
        trusted.versus.advance(900);
        trusted.prove();
        assert_eq!(trusted.unproven(), None);
        trusted.versus.advance(900);
    }
    trusted.versus.assert_alive();
    assert_eq!((trusted.count("checkpoints_in"), trusted.count("unproven_now")), (3, 0));
}

#[test]
fn who_never_proves_it_is_caught_in_time_and_the_numbers_are_known() {
    let mut trusted = Trusted::up(limits());
    let first = trusted.versus.peer.next_sequence;
    trusted.cast();
    trusted.versus.advance(500);
    trusted.send(3, 10);
    assert_eq!(trusted.delivered(), 4);
    trusted.versus.advance(499);
    assert_eq!(trusted.versus.side.fault, None, "it has a millisecond left");
    trusted.versus.advance(1);
    trusted.assert_caught();
    assert_eq!(trusted.unproven(), Some((first, first + 3)));
    trusted.versus.side.session().end();
    assert_eq!(trusted.count("unproven"), 4);
}

#[test]
fn honest_signs_of_life_buy_no_time() {
    let mut trusted = Trusted::up(limits());
    trusted.cast();
    for token in 0..9 {
        trusted.versus.advance(100);
        trusted.versus.peer.ping(token);
        trusted.versus.peer.cast("e1", "b", &term::text("signed for"));
        let session = trusted.versus.side.session().agreed().session;
        let next = trusted.versus.peer.next_sequence;
        let resume = [&session[..], &0u64.to_le_bytes(), &next.to_le_bytes()].concat();
        trusted.versus.peer.write_frame(FrameType::Resume, &resume);
        trusted.versus.settle();
    }
    assert_eq!(trusted.versus.side.fault, None);
    trusted.versus.advance(100);
    trusted.assert_caught();
}

#[test]
fn who_goes_back_on_its_link_again_and_again_gets_no_more_time() {
    let mut trusted = Trusted::up(limits());
    let first = trusted.versus.peer.next_sequence;
    trusted.cast();
    let session = trusted.versus.side.session().agreed().session;
    let mut again = trusted.versus.peer.batch("", vec![RawMessage::cast("b", &term::of_size(10))]);
    (again.mode, again.first_sequence) = (MODE, first);
    let again = again.body();
    for _ in 0..9 {
        trusted.versus.advance(100);
        let resume = [&session[..], &0u64.to_le_bytes(), &first.to_le_bytes()].concat();
        trusted.versus.peer.write_frame(FrameType::Resume, &resume);
        trusted.versus.peer.write_frame(FrameType::Batch, &again);
        trusted.versus.settle();
    }
    assert_eq!((trusted.versus.side.fault.clone(), trusted.count("replayed")), (None, 9));
    trusted.versus.advance(100);
    trusted.assert_caught();
}

#[test]
fn a_checkpoint_of_other_messages_another_chain_or_signature_is_caught() {
    type Wrong = fn(&Trusted) -> (Checkpoint, [u8; 64]);
    let wrongs: [Wrong; 7] = [
        |trusted| with(trusted, |right| right.first += 1),
        |trusted| with(trusted, |right| right.last -= 1),
        |trusted| with(trusted, |right| right.last += 1),
        |trusted| with(trusted, |right| right.chain[31] ^= 1),
        |trusted| (trusted.right(), [0; 64]),
        // Of another purpose, and of another network.
        |trusted| {
            let agreed = trusted.versus.peer.agreed.as_ref().unwrap();
            let body = trusted.right().body(&agreed.session, &agreed.own, &agreed.peer);
            let network = trusted.versus.peer.network.id();
            (trusted.right(), trusted.versus.peer.realm.keyring.sign_batch("", &network, &body))
        },
        |trusted| {
            let agreed = trusted.versus.peer.agreed.as_ref().unwrap();
            let body = trusted.right().body(&agreed.session, &agreed.own, &agreed.peer);
            (trusted.right(), trusted.versus.peer.realm.keyring.sign_checkpoint(&NetworkKey::none().id(), &body))
        },
    ];
    for (index, wrong) in wrongs.into_iter().enumerate() {
        let mut trusted = Trusted::up(limits());
        trusted.send(2, 10);
        trusted.cast();
        let (checkpoint, signature) = wrong(&trusted);
        trusted.say(&checkpoint, &signature);
        trusted.assert_caught();
        assert!(trusted.unproven().is_some(), "wrong {index}");
        assert_eq!(trusted.count("checkpoints_in"), 0);
    }
}

fn with(trusted: &Trusted, change: fn(&mut Checkpoint)) -> (Checkpoint, [u8; 64]) {
    let mut checkpoint = trusted.right();
    change(&mut checkpoint);
    (checkpoint, trusted.signed(&checkpoint))
}

#[test]
fn a_checkpoint_by_the_identity_or_an_engine_proves_nothing() {
    let mut trusted = Trusted::up(limits());
    trusted.cast();
    let agreed = trusted.versus.peer.agreed.clone().unwrap();
    let body = trusted.right().body(&agreed.session, &agreed.own, &agreed.peer);
    let network = trusted.versus.peer.network.id();
    let engine = trusted.versus.peer.realm.keyring.sign_batch("e1", &network, &body);
    assert!(trusted.versus.peer.realm.keyring.sign(Purpose::Checkpoint, &network, &body).is_err());
    let right = trusted.right();
    trusted.say(&right, &engine);
    trusted.assert_caught();
}

#[test]
fn a_checkpoint_of_nothing_and_one_that_comes_twice_are_caught() {
    let mut trusted = Trusted::up(limits());
    let nothing = Checkpoint { first: 1, last: 1, chain: trusted.chain.value };
    let signature = trusted.signed(&nothing);
    trusted.say(&nothing, &signature);
    trusted.assert_caught();
    assert_eq!(trusted.unproven(), None, "nothing was taken on trust");

    let mut trusted = Trusted::up(limits());
    trusted.cast();
    let right = trusted.right();
    trusted.prove();
    let signature = trusted.signed(&right);
    trusted.say(&right, &signature);
    trusted.assert_caught();
}

#[test]
fn a_checkpoint_of_another_session_is_caught() {
    let mut trusted = Trusted::up(limits());
    trusted.cast();
    let agreed = trusted.versus.peer.agreed.clone().unwrap();
    let right = trusted.right();
    let body = right.body(&[9; 32], &agreed.own, &agreed.peer);
    let signature = trusted.versus.peer.realm.keyring.sign_checkpoint(&trusted.versus.peer.network.id(), &body);
    trusted.say(&right, &signature);
    trusted.assert_caught();
}

#[test]
fn a_batch_that_was_changed_after_it_went_into_the_chain_is_caught() {
    let mut trusted = Trusted::up(limits());
    trusted.cast();
    // What the peer signs for is not what it sent.
    trusted.chain.value = *blake3::hash(&trusted.chain.value).as_bytes();
    trusted.prove();
    trusted.assert_caught();
}

#[test]
fn who_was_not_allowed_to_is_not_heard_and_is_let_go_when_it_goes_on() {
    let allowed = Limits { accept_signing: Modes::default(), ..limits() };
    for (profile, limits) in [(Profile::Local, allowed), (Profile::Plain, limits())] {
        let mut trusted = Trusted::of(Versus::up_with(RawPeerConfig::dialling(profile), limits));
        for _ in 0..4 {
            trusted.cast();
        }
        assert_eq!((trusted.delivered(), trusted.unproven(), trusted.count("mode_refused")), (0, None, 4));
        // It has used up its numbers.
        trusted.versus.assert_alive();
        for _ in 0..4 {
            trusted.cast();
            let right = trusted.right();
            let signature = trusted.signed(&right);
            trusted.say(&right, &signature);
        }
        assert_eq!((trusted.delivered(), trusted.unproven(), trusted.count("mode_refused")), (0, None, 10));
        trusted.versus.assert_closed(CloseCode::Abuse);
    }
}

#[test]
fn a_malformed_checkpoint_closes_the_link() {
    for bytes in [0, 111] {
        let mut trusted = Trusted::up(limits());
        trusted.cast();
        trusted.versus.peer.write_frame(FrameType::Checkpoint, &vec![1; bytes]);
        trusted.versus.settle();
        trusted.versus.assert_closed(CloseCode::Protocol);
    }
    let mut trusted = Trusted::up(limits());
    trusted.versus.peer.write_frame(FrameType::Checkpoint, &[1; 113]);
    trusted.versus.settle();
    trusted.versus.assert_closed(CloseCode::TooLarge);
}

#[test]
fn as_many_messages_as_may_be_are_delivered_unproven_and_not_one_more() {
    let mut trusted = Trusted::up(Limits { unproven_messages_max: 5, ..limits() });
    trusted.send(4, 10);
    trusted.cast();
    assert_eq!(trusted.delivered(), 5);
    assert_eq!(trusted.versus.side.fault, None);
    trusted.cast();
    assert_eq!(trusted.delivered(), 0);
    trusted.assert_caught();
    let (first, last) = trusted.unproven().unwrap();
    assert_eq!(last - first, 4, "those that were delivered");
}

#[test]
fn as_many_bytes_as_may_be_are_delivered_unproven_and_not_one_more() {
    // Of one batch, as this peer makes them.
    let mut measured = Trusted::up(limits());
    let messages = vec![RawMessage::cast("b", &term::of_size(1_000))];
    let mut batch = measured.versus.peer.batch("", messages);
    batch.mode = MODE;
    let bytes = batch.body().len() as u64;
    for (bound, taken) in [(3 * bytes, 3), (3 * bytes - 1, 2)] {
        let mut trusted = Trusted::up(Limits { unproven_bytes_max: bound, ..limits() });
        for _ in 0..taken {
            trusted.send(1, 1_000);
        }
        assert_eq!((trusted.delivered(), trusted.versus.side.fault.clone()), (taken, None));
        trusted.send(1, 1_000);
        assert_eq!(trusted.delivered(), 0);
        trusted.assert_caught();
    }
}

#[test]
fn one_message_alone_may_be_larger_than_all_may_be_together() {
    let mut trusted = Trusted::up(Limits { unproven_bytes_max: 100, ..limits() });
    trusted.send(1, 50_000);
    assert_eq!(trusted.delivered(), 1);
    trusted.prove();
    trusted.send(1, 50_000);
    assert_eq!((trusted.delivered(), trusted.versus.side.fault.clone()), (1, None));
    trusted.cast();
    trusted.assert_caught();
}

#[test]
fn without_a_certificate_in_force_nothing_is_delivered_on_trust() {
    let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Local), limits());
    versus.settle();
    versus.side.export("b");
    versus.settle();
    let mut trusted = Trusted::of(versus);
    trusted.cast();
    assert_eq!((trusted.delivered(), trusted.count("bad_signature")), (0, 1));
    assert!(trusted.unproven().is_some(), "it is in the chain all the same");
    let cert = trusted.versus.peer.cert();
    trusted.versus.peer.write_cert(&cert);
    trusted.versus.settle();
    trusted.prove();
    trusted.cast();
    assert_eq!((trusted.delivered(), trusted.versus.side.fault.clone()), (1, None));
}
