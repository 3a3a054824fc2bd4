//! What a node may use of us, at the bound and one past it; large messages.

mod common;

use common::{config, limits, soon, until, Epmd, Erl, ErlOptions, Event, Raw, Recorder, Sent};
use legation_node::dist::control::encode;
use legation_node::dist::term::{self, OwnNode};
use legation_node::net::beam::{Beam, ConnectError, ConnectionEnd, Full, ENVELOPE_BYTES};

#[tokio::test]
async fn as_many_nodes_are_connected_as_may_be_and_no_more() {
    let epmd = Epmd::start();
    let (mut recorder, events) = Recorder::new();
    let mut bounds = limits();
    bounds.beam_nodes_max = 2;
    let beam = Beam::start(&config(Some(epmd.port), &[]), &bounds, events).await.expect("started");
    let one = Raw::connect(beam.port(), "one@127.0.0.1").await;
    recorder.up().await;
    let _two = Raw::connect(beam.port(), "two@127.0.0.1").await;
    recorder.up().await;

    let mut three = Raw::dial(beam.port()).await;
    assert_eq!(three.say("three@127.0.0.1").await, "not_allowed");
    three.closed().await;
    let mut erl = Erl::start("four", &ErlOptions::epmd(epmd.port)).await;
    assert_eq!(erl.eval("net_kernel:connect_node('legation@127.0.0.1').").await, "false");
    assert_eq!(beam.connect("four@127.0.0.1").await.expect_err("full"), ConnectError::NodesFull);
    assert_eq!((beam.counters().nodes, beam.counters().nodes_refused), (2, 3));
    assert_eq!(beam.refusals()[0].error, ConnectError::NodesFull);

    // One that is connected may connect again; when one has gone another may come.
    let mut again = Raw::dial(beam.port()).await;
    assert_eq!(again.say("two@127.0.0.1").await, "alive");
    drop(one);
    recorder.down().await;
    assert_eq!(erl.eval("net_kernel:connect_node('legation@127.0.0.1').").await, "true");
    recorder.up().await;
}

#[tokio::test]
async fn nodes_that_pass_the_bound_together_are_not_both_let_in() {
    let (mut recorder, events) = Recorder::new();
    let mut bounds = limits();
    bounds.beam_nodes_max = 1;
    let beam = Beam::start(&config(None, &[]), &bounds, events).await.expect("started");
    let (mut one, mut two) = (Raw::dial(beam.port()).await, Raw::dial(beam.port()).await);
    assert_eq!((one.say("one@127.0.0.1").await, two.say("two@127.0.0.1").await), ("ok".into(), "ok".into()));
    one.prove().await;
    recorder.up().await;
    let challenge = two.frame().await.expect("a challenge");
    two.send(&common::raw::reply_frame(&challenge)).await;
    assert_eq!(two.frame().await, None, "it is not told that it is in");
    assert_eq!((beam.counters().nodes, beam.counters().nodes_refused), (1, 1));
    assert!(recorder.rest().is_empty());
}

#[tokio::test]
async fn as_many_handshakes_are_under_way_as_may_be_and_no_more() {
    let epmd = Epmd::start();
    let (mut recorder, events) = Recorder::new();
    let mut bounds = limits();
    bounds.beam_handshakes_max = 2;
    let beam = Beam::start(&config(Some(epmd.port), &[]), &bounds, events).await.expect("started");
    let one = Raw::dial(beam.port()).await;
    let mut two = Raw::dial(beam.port()).await;
    assert_eq!(two.say("two@127.0.0.1").await, "ok");
    let mut three = Raw::dial(beam.port()).await;
    three.closed().await;
    assert_eq!((beam.counters().handshakes, beam.counters().handshakes_refused), (2, 1));
    assert_eq!(beam.connect("two@127.0.0.1").await.expect_err("full"), ConnectError::HandshakesFull);
    assert_eq!(beam.counters().handshakes_refused, 2);
    assert!(beam.nodes().is_empty());

    // A handshake that is through is none any more; one that was given up, neither.
    two.prove().await;
    recorder.up().await;
    drop(one);
    until("the end of the handshakes", || (beam.counters().handshakes == 0).then_some(())).await;
    Raw::connect(beam.port(), "three@127.0.0.1").await;
    recorder.up().await;
}

#[tokio::test]
async fn a_handshake_takes_its_time_and_no_longer() {
    let (mut recorder, events) = Recorder::new();
    let mut settings = config(None, &[]);
    settings.handshake_ms = 100;
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let mut silent = Raw::dial(beam.port()).await;
    let mut slow = Raw::dial(beam.port()).await;
    assert_eq!(slow.say("slow@127.0.0.1").await, "ok");
    silent.closed().await;
    slow.closed().await;
    until("two failures", || (beam.counters().handshakes_failed == 2).then_some(())).await;
    assert_eq!(beam.refusals()[0].error, ConnectError::TimedOut);
    assert!(recorder.rest().is_empty());
}

#[tokio::test]
async fn what_waits_for_a_node_that_does_not_read_is_bounded_and_signals_end_the_connection_in_time() {
    let (mut recorder, events) = Recorder::new();
    let mut bounds = limits();
    bounds.beam_queue_bytes_max = 1024 * 1024;
    let beam = Beam::start(&config(None, &[]), &bounds, events).await.expect("started");
    let _raw = Raw::connect(beam.port(), "a@127.0.0.1").await;
    let link = recorder.up().await;
    let piece = vec![0; 32 * 1024];
    // What the kernel takes is gone; what it doesn't waits here.
    let pushed = until("a full queue", || link.push(0, b"c", &[&piece]).err()).await;
    assert_eq!(pushed, Full);
    assert!(link.queued_bytes() <= bounds.beam_queue_bytes_max);
    assert!(link.queued_bytes() + piece.len() + 16 > bounds.beam_queue_bytes_max);
    assert!(!link.has_ended(), "messages are dropped, the connection lives");
    let signals = (0..200).take_while(|_| {
        link.push_signal(0, b"c", &[&piece]);
        !link.has_ended()
    });
    assert!((90..=100).contains(&signals.count()), "four times as much as of messages");
    assert_eq!(recorder.down().await.end(), Some(&ConnectionEnd::QueueFull));
    assert_eq!((beam.counters().queues_full, beam.counters().nodes), (1, 0));
    assert_eq!(link.push(0, b"c", &[&piece]), Ok(()), "lost, as on the way");
    assert_eq!(link.queued_bytes(), 0);
}

#[tokio::test]
async fn large_messages_pass_both_ways_and_those_over_the_bound_are_told_of() {
    let epmd = Epmd::start();
    let (mut recorder, events) = Recorder::new();
    let mut bounds = limits();
    bounds.session.message_bytes_max = 3_000_000;
    let beam = Beam::start(&config(Some(epmd.port), &[]), &bounds, events).await.expect("started");
    let mut erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;
    let link = beam.connect("a@127.0.0.1").await.expect("up");
    recorder.up().await;

    // A version byte, and a binary's tag and length.
    let largest = 3_000_000 + ENVELOPE_BYTES - 6;
    for bytes in [0, 1, 65_535, 65_536, 200_000, largest] {
        erl.eval(&format!("{{ping, 'legation@127.0.0.1'}} ! binary:copy(<<7>>, {bytes}), ok.")).await;
        let (name, payload) = recorder
            .message(|message| match &message.sent {
                Sent::ToName { name, .. } => Some((name.clone(), message.payload.clone())),
                _ => None,
            })
            .await;
        assert_eq!((name.as_str(), payload[0]), ("ping", term::VERSION));
        let expected = vec![7; bytes];
        assert_eq!(term::binary(&payload[1..]).map(<[u8]>::len), Some(bytes));
        assert_eq!(term::binary(&payload[1..]), Some(&expected[..]));
    }
    let past = format!("{{ping, 'legation@127.0.0.1'}} ! binary:copy(<<7>>, {}), ok.", largest + 1);
    erl.eval(&past).await;
    assert!(matches!(recorder.next().await, Event::Oversized(_)));
    assert_eq!(beam.counters().oversized, 1);

    // The other way, from a process of ours to a name there.
    let own = OwnNode::new(beam.node().as_str(), beam.creation());
    let (mut from, mut control) = (Vec::new(), Vec::new());
    own.pid(&mut from, 1, 0);
    encode::reg_send(&mut control, &from, "here");
    erl.eval("register(here, self()).").await;
    for bytes in [0, 100_000, 5_000_000] {
        let mut payload = Vec::new();
        term::put_binary(&mut payload, &vec![9; bytes]);
        link.push(0, &control, &[&payload]).expect("there is room");
        let received = erl.eval("receive Binary -> {size(Binary), Binary =:= binary:copy(<<9>>, size(Binary))} end.");
        assert_eq!(received.await, format!("{{{bytes},true}}"));
    }
    assert!(!link.has_ended());
}

#[tokio::test]
async fn a_flood_of_a_node_keeps_its_order_and_nobody_there_is_suspended() {
    let epmd = Epmd::start();
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(Some(epmd.port), &[]), &limits(), events).await.expect("started");
    let mut erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;
    beam.connect("a@127.0.0.1").await.expect("up");
    recorder.up().await;
    erl.ask("[{ping, 'legation@127.0.0.1'} ! {N, binary:copy(<<0>>, N rem 1000)} || N <- lists:seq(1, 20000)], ok.");
    let counting = async {
        for expected in 1..=20_000 {
            let number = recorder
                .message(|message| {
                    let [number, _] = term::elements(message.payload.get(1..)?)?;
                    term::unsigned(number)
                })
                .await;
            assert_eq!(number, expected);
        }
    };
    soon("all messages", counting).await;
    assert_eq!(erl.reply().await, "ok");
    assert!(beam.counters().messages >= 20_000);
}
