//! Connecting to real nodes, and being connected to.

mod common;

use common::{config, free_port, limits, until, Epmd, Erl, ErlOptions, Event, Recorder, Sent};
use legation_node::config::Secret;
use legation_node::dist::handshake::HandshakeError;
use legation_node::net::beam::{Beam, Bound, ConnectError, NodeState};
use legation_node::net::epmd::{self, EpmdState};

const PING: &str = "net_adm:ping('legation@127.0.0.1').";

#[tokio::test]
async fn a_node_dials_us_by_epmd_and_we_hear_it() {
    let epmd = Epmd::start();
    let (mut recorder, events) = Recorder::new();
    let bound = Bound::new(&config(Some(epmd.port), &[]), &limits()).await.expect("started");
    let creation = bound.creation();
    let beam = bound.start(events);
    assert!(creation >= epmd::CREATION_MIN);
    assert_eq!(*beam.epmd().borrow(), EpmdState::Registered);
    let mut erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;

    erl.ask(PING);
    let link = recorder.up().await;
    assert_eq!(&*link.node, "a@127.0.0.1");
    assert_eq!(erl.eval_after("erlang:system_info(creation).", &mut recorder).await, link.creation.to_string());
    assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']");
    assert_eq!(erl.eval("nodes().").await, "[]", "we are hidden");
    assert_eq!((beam.counters().nodes, beam.counters().connections), (1, 1));
}

impl Erl {
    /// The value of `expression`, asked for after a ping that is under way and now answered.
    async fn eval_after(&mut self, expression: &str, recorder: &mut Recorder) -> String {
        recorder.answer_ping().await;
        assert_eq!(self.reply().await, "pong");
        self.eval(expression).await
    }
}

#[tokio::test]
async fn we_dial_a_node_by_epmd_whether_it_is_there_before_us_or_after() {
    let epmd = Epmd::start();
    let options = ErlOptions::epmd(epmd.port);
    let mut early = Erl::start("early", &options).await;
    let (mut recorder, events) = Recorder::new();
    let connect = [("early@127.0.0.1", None), ("late@127.0.0.1", None)];
    let beam = Beam::start(&config(Some(epmd.port), &connect), &limits(), events).await.expect("started");
    assert_eq!(&*recorder.up().await.node, "early@127.0.0.1");
    assert_eq!(early.eval("nodes(hidden).").await, "['legation@127.0.0.1']");

    let mut late = Erl::start("late", &options).await;
    assert_eq!(&*recorder.up().await.node, "late@127.0.0.1");
    late.ask(PING);
    recorder.answer_ping().await;
    assert_eq!(late.reply().await, "pong");
    let states: Vec<_> = beam.nodes().into_iter().map(|status| (status.state, status.configured)).collect();
    assert_eq!(states, [(NodeState::Connected, true), (NodeState::Connected, true)]);
}

#[tokio::test]
async fn a_ping_is_a_monitor_and_a_call_of_net_kernel() {
    let epmd = Epmd::start();
    let (mut recorder, events) = Recorder::new();
    let _beam = Beam::start(&config(Some(epmd.port), &[]), &limits(), events).await.expect("started");
    let mut erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;
    erl.ask(PING);
    recorder.up().await;
    let monitor = recorder.next().await;
    let is_monitor = |event: &Event| matches!(event, Event::Message(message) if matches!(&message.sent, Sent::Monitor { name, .. } if name == "net_kernel"));
    assert!(is_monitor(&monitor), "{monitor:?}");
    recorder.answer_ping().await;
    assert_eq!(erl.reply().await, "pong");
}

#[tokio::test]
async fn nodes_of_fixed_ports_do_without_epmd_either_way() {
    let port = free_port();
    let mut erl = Erl::start("a", &ErlOptions::without_epmd(port)).await;
    let (mut recorder, events) = Recorder::new();
    let mut settings = config(None, &[]);
    settings.name = "legation@127.0.0.2".to_string();
    settings.listen_ip = "127.0.0.2".parse().expect("an address");
    settings.listen_port = port;
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    assert_eq!((beam.port(), &*beam.epmd().borrow()), (port, &EpmdState::Off));
    assert!(beam.creation() >= epmd::CREATION_MIN);
    erl.ask("net_adm:ping('legation@127.0.0.2').");
    recorder.up().await;
    recorder.answer_ping().await;
    assert_eq!(erl.reply().await, "pong");
    drop(beam);
    assert_eq!(&*recorder.down().await.node, "a@127.0.0.1");

    let (mut recorder, events) = Recorder::new();
    let settings = config(None, &[("a@127.0.0.1", Some(port))]);
    let _beam = Beam::start(&settings, &limits(), events).await.expect("started");
    recorder.up().await;
    assert_eq!(erl.eval("nodes(hidden).").await, "['legation@127.0.0.1']");
}

#[tokio::test]
async fn another_cookie_is_said_to_be_one_whoever_dials() {
    let epmd = Epmd::start();
    let mut erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;
    let (mut recorder, events) = Recorder::new();
    let mut settings = config(Some(epmd.port), &[]);
    settings.cookie = Secret("another".to_string().into());
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");

    assert_eq!(erl.eval(PING).await, "pang");
    let refusals = until("a refusal", || Some(beam.refusals()).filter(|refusals| !refusals.is_empty())).await;
    assert_eq!(refusals[0].node.as_str(), "a@127.0.0.1");
    assert_eq!(refusals[0].error, ConnectError::Handshake(HandshakeError::Cookie));

    let error = beam.connect("a@127.0.0.1").await.expect_err("the cookies differ");
    assert_eq!(error, ConnectError::Handshake(HandshakeError::CookieRefused));
    assert!(error.to_string().ends_with("the cookies differ"));
    assert_eq!(beam.counters().cookies_differed, 2);
    assert!(recorder.rest().is_empty());

    // Of a node that we are told to dial the status shows it.
    let connect = [("a@127.0.0.1", None)];
    settings.connect = config(None, &connect).connect;
    drop(beam);
    let (_recorder, events) = Recorder::new();
    settings.name = "other@127.0.0.1".to_string();
    let beam = Beam::start(&settings, &limits(), events).await.expect("started");
    let status = until("a failed dial", || beam.nodes().pop().filter(|status| status.last_error.is_some())).await;
    assert_eq!(status.last_error, Some(error.to_string()));
    assert!(status.attempts >= 1);
}

#[tokio::test]
async fn on_demand_a_node_is_dialled_once() {
    let epmd = Epmd::start();
    let (mut recorder, events) = Recorder::new();
    let beam = Beam::start(&config(Some(epmd.port), &[]), &limits(), events).await.expect("started");
    let error = beam.connect("a@127.0.0.1").await.expect_err("nobody is there");
    assert_eq!(error, ConnectError::Epmd(epmd::EpmdError::Unknown));
    assert!(beam.nodes().is_empty(), "a node that nobody asks for is forgotten");

    let erl = Erl::start("a", &ErlOptions::epmd(epmd.port)).await;
    let (one, two) = tokio::join!(beam.connect("a@127.0.0.1"), beam.connect("a@127.0.0.1"));
    let link = recorder.up().await;
    assert_eq!((one.expect("up").number, two.expect("up").number), (link.number, link.number));
    assert_eq!(beam.connect("a@127.0.0.1").await.expect("up").number, link.number);
    assert!(beam.disconnect("a@127.0.0.1"));
    assert_eq!(recorder.down().await.number, link.number);
    drop(erl);
    assert!(beam.connect("a@127.0.0.1").await.is_err());
    assert!(!beam.disconnect("a@127.0.0.1"));
    assert!(beam.connect("a@host").await.is_err(), "a short name");
    assert!(beam.connect("a").await.is_err(), "no name");
    beam.stop().await;
    assert_eq!(beam.connect("a@127.0.0.1").await.expect_err("it is over"), ConnectError::Stopping);
}
