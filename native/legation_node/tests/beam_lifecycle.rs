//! Nodes that die, restart, fall silent; EPMD that does; and what is said to whom connects twice.

mod common;

use std::net::{Ipv4Addr, SocketAddr};

use common::{config, free_port, limits, soon, until, Epmd, Erl, ErlOptions, Event, Forwarder, Raw, Recorder};
use legation_node::dist::handshake::NodeName;
use legation_node::net::beam::{Beam, Bound, ConnectionEnd};
use legation_node::net::epmd::{self, EpmdError, EpmdState};
use tokio::net::TcpListener;

const PING: &str = "net_adm:ping('legation@127.0.0.1').";

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a good name")
}

#[tokio::test]
async fn a_node_that_was_killed_and_started_again_is_another_incarnation_and_connected() {
    let epmd = Epmd::start();
    let options = ErlOptions::epmd(epmd.port);
    let erl = Erl::start("a", &options).await;
    let (mut recorder, events) = Recorder::new();
    let settings = config(Some(epmd.port), &[("a@127.0.0.1", None)]);
    let _beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let first = recorder.up().await;
    erl.kill();
    assert_eq!(recorder.down().await.number, first.number);
    let mut erl = Erl::start("a", &options).await;
    let second = recorder.up().await;
    assert_ne!((second.creation, second.number), (first.creation, first.number));
    assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']");
}

#[tokio::test]
async fn dialling_a_node_that_believes_us_alive_takes_the_old_connections_place() {
    let epmd = Epmd::start();
    let mut erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;
    let port = epmd::look_up(epmd.port, &node("a@127.0.0.1")).await.expect("registered");
    let forwarder = Forwarder::start("127.0.0.1:0", SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    let settings = config(None, &[("a@127.0.0.1", Some(forwarder.port))]);

    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    recorder.up().await;
    assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']");
    drop(beam);
    recorder.down().await;
    assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']", "it was not told");

    let (mut recorder, events) = Recorder::new();
    let _beam = Beam::start(&settings, &limits(), events).await.expect("started");
    recorder.up().await;
    assert!(forwarder.saw(b"\0\x06salive") && forwarder.saw(b"\0\x05strue"));
    erl.ask(PING);
    recorder.answer_ping().await;
    assert_eq!(erl.reply().await, "pong");
}

#[tokio::test]
async fn a_node_that_dials_us_while_we_believe_it_alive_takes_the_old_connections_place() {
    let (mut recorder, events) = Recorder::new();
    let mut settings = config(None, &[]);
    settings.name = "legation@127.0.0.2".to_string();
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let port = free_port();
    let us = SocketAddr::from((Ipv4Addr::LOCALHOST, beam.port()));
    let forwarder = Forwarder::start(&format!("127.0.0.2:{port}"), us).await;
    let options = ErlOptions::without_epmd(port);
    let ping = "net_adm:ping('legation@127.0.0.2').";

    let mut erl = Erl::start("a", &options).await;
    erl.ask(ping);
    let first = recorder.up().await;
    recorder.answer_ping().await;
    erl.kill();
    assert!(!first.has_ended());

    let mut erl = Erl::start("a", &options).await;
    erl.ask(ping);
    assert_eq!(recorder.down().await.number, first.number);
    assert_eq!(first.end(), Some(&ConnectionEnd::Replaced));
    let second = recorder.up().await;
    assert_ne!(second.creation, first.creation);
    recorder.answer_ping().await;
    assert_eq!(erl.reply().await, "pong");
    assert!(forwarder.saw(b"\0\x06salive") && forwarder.saw(b"\0\x05strue"));
    assert_eq!(beam.counters().nodes, 1);
}

#[tokio::test]
async fn who_only_claims_to_be_a_node_does_not_end_that_nodes_connection() {
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(None, &[]), &limits(), events).await.expect("started");
    let _raw = Raw::connect(beam.port(), "a@127.0.0.1").await;
    let link = recorder.up().await;
    let mut impostor = Raw::dial(beam.port()).await;
    assert_eq!(impostor.say("a@127.0.0.1").await, "alive");
    impostor.send(&common::raw::framed(&[b"strue"])).await;
    impostor.frame().await.expect("a challenge");
    impostor.send(&common::raw::framed(&[b"r", &[7; 20]])).await;
    impostor.closed().await;
    assert!(!link.has_ended());
    assert!(recorder.rest().is_empty());
    assert_eq!(beam.counters().cookies_differed, 1);
}

#[tokio::test]
async fn we_register_again_when_epmd_was_restarted() {
    let mut epmd = Epmd::start();
    let (_recorder, events) = Recorder::new();
    let bound = Bound::new(&config(Some(epmd.port), &[]), &limits()).await.expect("started");
    let beam = bound.start(events);
    let creation = beam.creation();
    let mut state = beam.epmd();
    assert_eq!(*state.borrow_and_update(), EpmdState::Registered);
    epmd.kill();
    soon("the loss of EPMD", state.wait_for(|state| *state != EpmdState::Registered)).await.expect("it runs");
    epmd.restart();
    soon("a registration", state.wait_for(|state| *state == EpmdState::Registered)).await.expect("it runs");
    let port = epmd::look_up(epmd.port, &node("legation@127.0.0.1")).await;
    assert_eq!((port, beam.creation()), (Ok(beam.port()), creation));

    beam.stop().await;
    let gone = async {
        while epmd::look_up(epmd.port, &node("legation@127.0.0.1")).await != Err(EpmdError::Unknown) {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the registration", gone).await;
}

#[tokio::test]
async fn without_epmd_we_start_all_the_same_and_register_when_it_comes() {
    let mut epmd = Epmd::absent();
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(Some(epmd.port), &[]), &limits(), events).await.expect("started");
    let creation = beam.creation();
    let mut state = beam.epmd();
    assert!(matches!(&*state.borrow(), EpmdState::Unregistered(EpmdError::Unreachable(_))));
    epmd.restart();
    soon("a registration", state.wait_for(|state| *state == EpmdState::Registered)).await.expect("it runs");
    assert_eq!(beam.creation(), creation);
    let mut erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;
    erl.ask(PING);
    recorder.up().await;
    recorder.answer_ping().await;
    assert_eq!(erl.reply().await, "pong");
}

#[tokio::test]
async fn a_name_that_is_taken_is_ours_when_its_holder_is_gone() {
    let epmd = Epmd::start();
    let holder = epmd::register(epmd.port, &node("legation@127.0.0.1"), 1).await.expect("registered");
    let (_recorder, events) = Recorder::new();
    let beam = Beam::start(&config(Some(epmd.port), &[]), &limits(), events).await.expect("started");
    let mut state = beam.epmd();
    assert_eq!(*state.borrow(), EpmdState::Unregistered(EpmdError::Refused(1)));
    drop(holder);
    soon("a registration", state.wait_for(|state| *state == EpmdState::Registered)).await.expect("it runs");
}

#[tokio::test]
async fn a_node_of_short_ticks_keeps_us_only_because_we_write() {
    let epmd = Epmd::start();
    let options = ErlOptions::epmd(epmd.port).arguments(&["-kernel", "net_ticktime", "4"]);
    let mut erl = Erl::start("a", &options).await;
    let mut settings = config(Some(epmd.port), &[]);
    settings.tick_ms = 1_000;
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let mut mute = config(Some(epmd.port), &[]);
    mute.name = "mute@127.0.0.1".to_string();
    mute.tick_ms = 600_000;
    let (mut mutes, events) = Recorder::new();
    let mute = Beam::start(&mute, &limits(), events).await.expect("started");

    // `mute` was connected last: when it is dropped, a node that only seemed to tick would have been, too.
    beam.connect("a@127.0.0.1").await.expect("up");
    let link = recorder.up().await;
    mute.connect("a@127.0.0.1").await.expect("up");
    mutes.up().await;
    mutes.down().await;
    assert!(!link.has_ended());
    assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']");
    assert!(recorder.rest().is_empty());
}

#[tokio::test]
async fn a_node_that_stands_still_is_gone_after_the_silence_and_back_when_it_goes_on() {
    let epmd = Epmd::start();
    let options = ErlOptions::epmd(epmd.port).arguments(&["-kernel", "net_ticktime", "2"]);
    let mut erl = Erl::start("a", &options).await;
    let mut settings = config(Some(epmd.port), &[("a@127.0.0.1", None)]);
    (settings.tick_ms, settings.silence_ms, settings.handshake_ms) = (250, 2_500, 1_000);
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let link = recorder.up().await;
    erl.stop();
    assert_eq!(recorder.down().await.number, link.number);
    assert_eq!(link.end(), Some(&ConnectionEnd::Silent(2_500)));
    assert_eq!(beam.counters().nodes_silent, 1);
    erl.resume();
    recorder.up().await;
    assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']");
}

/// Both dial at once, many times over. Whoever wins, both are connected, once.
async fn dial_at_once(name: &str) {
    let epmd = Epmd::start();
    let mut erl = Erl::start(name, &ErlOptions::epmd(epmd.port)).await;
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(Some(epmd.port), &[]), &limits(), events).await.expect("started");
    erl.eval("net_kernel:monitor_nodes(true, [{node_type, all}]).").await;
    for round in 0..30 {
        erl.ask("net_kernel:connect_node('legation@127.0.0.1').");
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let link = soon("a connection", beam.connect(&erl.name)).await;
        let up = recorder.up().await;
        assert_eq!(link.map(|link| link.number), Ok(up.number));
        let theirs = erl.reply().await;
        assert!(theirs == "true" || theirs == "false", "{theirs}");
        assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']");
        assert!(recorder.rest().is_empty());
        beam.disconnect(&erl.name);
        recorder.down().await;
        erl.eval("receive {nodedown, _, _} -> ok end.").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_at_once_with_a_node_of_a_lesser_name_comes_to_one_connection() {
    dial_at_once("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_at_once_with_a_node_of_a_greater_name_comes_to_one_connection() {
    dial_at_once("z").await;
}

#[tokio::test]
async fn of_two_that_dial_at_once_the_greater_names_attempt_goes_on() {
    for (name, status) in [("a@127.0.0.1", "nok"), ("z@127.0.0.1", "ok_simultaneous")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (mut recorder, events) = Recorder::new();
        let beam = Beam::start(&config(None, &[(name, Some(port))]), &limits(), events).await.expect("started");
        let mut dialled = Raw(soon("a dial", listener.accept()).await.expect("accepted").0);
        assert_eq!(dialled.frame().await.expect("a name")[0], b'N');
        let mut dialling = Raw::dial(beam.port()).await;
        assert_eq!(dialling.say(name).await, status);
        if status == "nok" {
            dialling.closed().await;
            dialled.take_in(name).await;
        } else {
            dialling.prove().await;
            dialled.closed().await;
        }
        assert_eq!(&*recorder.up().await.node, name);
        assert_eq!(beam.counters().handshakes_failed, 0, "nothing went wrong");
    }
}

#[tokio::test]
async fn who_only_claims_to_be_the_node_that_we_dial_does_not_end_our_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (mut recorder, events) = Recorder::new();
    let settings = config(None, &[("z@127.0.0.1", Some(port))]);
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let mut dialled = Raw(soon("a dial", listener.accept()).await.expect("accepted").0);
    dialled.frame().await.expect("a name");
    let mut impostor = Raw::dial(beam.port()).await;
    assert_eq!(impostor.say("z@127.0.0.1").await, "ok_simultaneous");
    dialled.take_in("z@127.0.0.1").await;
    assert_eq!(&*recorder.up().await.node, "z@127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_connects_twice_over_gets_its_downs_before_its_ups() {
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(None, &[]), &limits(), events).await.expect("started");
    let mut open = vec![Raw::connect(beam.port(), "a@127.0.0.1").await];
    let mut first = recorder.up().await;
    for _ in 0..5 {
        let mut again = Raw::dial(beam.port()).await;
        assert_eq!(again.say("a@127.0.0.1").await, "alive");
        again.send(&common::raw::framed(&[b"strue"])).await;
        again.prove().await;
        open.push(again);
        assert_eq!(recorder.down().await.number, first.number);
        first = recorder.up().await;
    }
    assert_eq!((beam.counters().nodes, beam.counters().connections), (1, 6));
    drop(open);
    recorder.down().await;
    until("the end of the connection", || (beam.counters().nodes == 0).then_some(())).await;
}

#[tokio::test]
async fn stopping_lets_what_waits_go_out_and_ends_with_a_node_that_does_not_read() {
    let (mut recorder, events) = Recorder::new();
    let mut bounds = limits();
    bounds.shutdown_ms = 200;
    let beam = Beam::start(&config(None, &[]), &bounds, events).await.expect("started");
    let mut reads = Raw::connect(beam.port(), "reads@127.0.0.1").await;
    let link = recorder.up().await;
    let _deaf = Raw::connect(beam.port(), "deaf@127.0.0.1").await;
    let deaf = recorder.up().await;
    let payload = vec![0; 16 * 1024 * 1024];
    deaf.push(0, b"c", &[&payload]).expect("there is room");
    link.push(0, b"c", &[b"the last word"]).expect("there is room");
    let reading = async {
        use tokio::io::AsyncReadExt;
        let mut all = Vec::new();
        reads.0.read_to_end(&mut all).await.expect("an orderly end");
        all
    };
    let (all, ()) = soon("the end", async { tokio::join!(reading, beam.stop()) }).await;
    assert!(all.ends_with(b"the last word"));
    let downs = recorder.rest().into_iter().filter(|event| matches!(event, Event::Down(_))).count();
    assert_eq!(downs, 2);
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", beam.port())).await.is_err());
}
