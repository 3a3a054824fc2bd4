//! Something that is no node, or none of ours, at either end: it leaves nothing behind.

mod common;

use common::raw::{acknowledgement_frame, challenge_frame, framed, name_frame, reply_frame};
use common::{config, limits, soon, until, Event, Raw, Recorder};
use legation_node::net::beam::{Beam, ConnectionEnd};
use tokio::net::TcpListener;

const NODE: &str = "a@127.0.0.1";

/// Nobody is connected and nobody tries to.
async fn assert_nothing_is_left(beam: &Beam, recorder: &mut Recorder) {
    until("the end of all handshakes", || (beam.counters().handshakes == 0).then_some(())).await;
    until("the end of all connections", || beam.nodes().is_empty().then_some(())).await;
    let (mut ups, mut downs) = (0, 0);
    for event in recorder.rest() {
        match event {
            Event::Up(_) => ups += 1,
            Event::Down(_) => downs += 1,
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(ups, downs);
    assert_eq!(beam.counters().nodes, 0);
}

#[tokio::test]
async fn who_dials_us_may_close_at_any_byte_of_the_handshake() {
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(None, &[]), &limits(), events).await.expect("started");
    let name = name_frame(NODE);
    for cut in 0..name.len() {
        Raw::dial(beam.port()).await.send(&name[..cut]).await;
    }
    for cut in 0..23 {
        let mut raw = Raw::dial(beam.port()).await;
        assert_eq!(raw.say(NODE).await, "ok");
        let challenge = raw.frame().await.expect("a challenge");
        raw.send(&reply_frame(&challenge)[..cut]).await;
    }
    let failed = (name.len() + 23) as u64;
    until("all failures", || (beam.counters().handshakes_failed == failed).then_some(())).await;
    assert_nothing_is_left(&beam, &mut recorder).await;
    assert_eq!(beam.counters().connections, 0);
    // All of it, and closed at once.
    for _ in 0..10 {
        drop(Raw::connect(beam.port(), NODE).await);
        recorder.up().await;
        recorder.down().await;
    }
    assert_nothing_is_left(&beam, &mut recorder).await;
}

#[tokio::test]
async fn whom_we_dial_may_close_at_any_byte_of_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let mut settings = config(None, &[(NODE, Some(port))]);
    settings.listen_port = 0;
    let (status, challenge) = (framed(&[b"sok"]), challenge_frame(NODE));
    let (first, last) = (status.len() + challenge.len(), 18);
    let answers = [status, challenge].concat();
    for cut in 0..first + last {
        // A new one each time: the pauses between dials would add up.
        let (mut recorder, events) = Recorder::new();
        let beam = Beam::start(&settings, &limits(), events).await.expect("started");
        let mut raw = Raw(soon("a dial", listener.accept()).await.expect("accepted").0);
        raw.frame().await.expect("a name");
        raw.send(&answers[..cut.min(first)]).await;
        if cut >= first {
            let reply = raw.frame().await.expect("an answer");
            raw.send(&acknowledgement_frame(&reply)[..cut - first]).await;
        }
        drop(raw);
        let failed = || beam.nodes().pop().and_then(|status| status.last_error);
        let error = until("a failure", failed).await;
        assert!(error.contains("closed"), "{cut}: {error}");
        beam.stop().await;
        assert!(recorder.rest().is_empty());
    }
}

#[tokio::test]
async fn garbage_at_any_place_of_the_handshake_is_the_end_of_it() {
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(None, &[]), &limits(), events).await.expect("started");
    let name = name_frame(NODE);
    let garbage = [vec![0; 100], vec![0xff; 100], b"GET / HTTP/1.1\r\n\r\n".to_vec(), (0..=255).collect()];
    for at in 0..name.len() {
        for bytes in &garbage {
            let mut raw = Raw::dial(beam.port()).await;
            raw.try_send(&name[..at]).await;
            raw.try_send(bytes).await;
            // Whether it waits for more of a frame, or has had enough.
            drop(raw);
        }
    }
    for bytes in &garbage {
        let mut raw = Raw::dial(beam.port()).await;
        assert_eq!(raw.say(NODE).await, "ok");
        raw.try_send(bytes).await;
        drop(raw);
    }
    assert_nothing_is_left(&beam, &mut recorder).await;
    assert_eq!(beam.counters().connections, 0);
    drop(Raw::connect(beam.port(), NODE).await);
    recorder.up().await;
}

#[tokio::test]
async fn garbage_behind_the_handshake_ends_that_connection_alone() {
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(None, &[]), &limits(), events).await.expect("started");
    let _well = Raw::connect(beam.port(), "well@127.0.0.1").await;
    let well = recorder.up().await;
    let broken: [&[u8]; 5] = [
        b"\0\0\0\x04GET ",
        b"\0\0\0\x03\x83\x44\x01",
        b"\0\0\0\x05\x83\x44\0\x68\xff",
        b"\0\0\0\x01\x70",
        b"\0\0\0\x15\x83\x46\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0",
    ];
    let mut ends = 0;
    for bytes in broken {
        let mut raw = Raw::connect(beam.port(), NODE).await;
        let link = recorder.up().await;
        raw.send(bytes).await;
        // What may be part of something yet is not an end; what follows can't be.
        raw.try_send(&[0xff; 64]).await;
        drop(raw);
        let down = recorder.down().await;
        assert_eq!(down.number, link.number);
        ends += u64::from(matches!(down.end(), Some(ConnectionEnd::Stream(_))));
    }
    assert!(ends >= 3, "{ends}");
    assert_eq!(beam.counters().streams_broken, ends);
    assert!(!well.has_ended());
}

#[tokio::test]
async fn what_comes_in_one_piece_with_the_end_of_the_handshake_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (mut recorder, events) = Recorder::new();
    let settings = config(None, &[(NODE, Some(port))]);
    let _beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let mut raw = Raw(soon("a dial", listener.accept()).await.expect("accepted").0);
    raw.frame().await.expect("a name");
    raw.send(&[framed(&[b"sok"]), challenge_frame(NODE)].concat()).await;
    let reply = raw.frame().await.expect("an answer");
    // A tick, then {6, Pid, '', ping} and `ok`.
    let pid = [&[88, 119, 11][..], b"a@127.0.0.1", &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]].concat();
    let control = [&[104, 4, 97, 6][..], &pid, &[119, 0, 119, 4], b"ping"].concat();
    let frame = [&[131, 68, 0][..], &control, &[119, 2], b"ok"].concat();
    let length = u32::try_from(frame.len()).expect("short").to_be_bytes();
    let all = [&acknowledgement_frame(&reply)[..], &[0; 4], &length, &frame].concat();
    raw.send(&all).await;
    recorder.up().await;
    let payload = recorder.message(|message| Some(message.payload.clone())).await;
    assert_eq!(payload, [&[131, 119, 2][..], b"ok"].concat());
}
