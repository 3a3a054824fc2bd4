//! Sessions that outlive their links.

mod peers_support;

use std::sync::Arc;
use std::time::Duration;

use legation_channel::channel::Profile;
use legation_node::config::{CarrierConfig, Limits, PeerConfig, PeerLimits, LINKS_MAX};
use legation_node::identity::Identity;
use legation_node::peers::{AddPeerError, LinkEnd, PeerSession, PeerState, Standing};
use legation_proto::frame::FrameType;
use legation_proto::limits::Limits as SessionLimits;
use legation_proto::session::{Delivery, PushError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use peers_support::client::Client;
use peers_support::proxy::{Mode, Proxy};
use peers_support::{
    at, binary_term, call, cast, identity, key_of, limits, limits_with_grace, link, nowhere, peer, reply,
    signed_certificate, until, Heard, Realm,
};

const ALICE: u8 = 1;
const BOB: u8 = 2;

fn with_grace(seed: u8) -> Realm {
    Realm::with(identity(seed), limits_with_grace())
}

/// Bob dials alice by way of a proxy, and what both have of it.
struct Pair {
    alice: Realm,
    bob: Realm,
    proxy: Proxy,
    at_alice: Arc<PeerSession>,
    at_bob: Arc<PeerSession>,
}

impl Pair {
    async fn start(mut alice: Realm, mut bob: Realm) -> Pair {
        let proxy = Proxy::start(alice.listen_tcp(Profile::Tls)).await;
        let (at_bob, at_alice) = link(&mut bob, &mut alice, at(proxy.address, Profile::Tls)).await;
        Pair { alice, bob, proxy, at_alice, at_bob }
    }

    async fn cut(&mut self) {
        self.proxy.set(Mode::Cut);
        assert_eq!(self.alice.lost().await.1, LinkEnd::Carrier("closed".into()));
        assert_eq!(self.bob.lost().await.1, LinkEnd::Carrier("closed".into()));
    }

    async fn mend(&mut self) {
        self.proxy.set(Mode::Pass);
        assert_eq!(self.alice.resumed().await.tag, self.at_alice.tag);
        assert_eq!(self.bob.resumed().await.tag, self.at_bob.tag);
    }

    async fn stop(self) {
        self.bob.stop().await;
        self.alice.stop().await;
    }
}

fn numbered(number: u32) -> Vec<u8> {
    binary_term(&number.to_be_bytes())
}

#[tokio::test]
async fn what_is_sent_over_a_link_that_is_cut_again_and_again_arrives_once_and_in_order() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    let (at_alice, at_bob) = (pair.at_alice.clone(), pair.at_bob.clone());
    const COUNT: u32 = 8_000;
    let pushing = |session: Arc<PeerSession>| async move {
        for number in 0..COUNT {
            while let Err(error) = cast(&session, "engine", &numbered(number)) {
                assert_eq!(error, PushError::Overload);
                tokio::task::yield_now().await;
            }
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    let pushers = [tokio::spawn(pushing(at_alice)), tokio::spawn(pushing(at_bob))];
    let (mut to_alice, mut to_bob, mut cuts) = (0, 0, 0);
    while to_alice < COUNT || to_bob < COUNT {
        for (realm, next) in [(&mut pair.alice, &mut to_alice), (&mut pair.bob, &mut to_bob)] {
            if *next == COUNT {
                continue;
            }
            match realm.heard().await {
                Heard::Deliver { payload, .. } => {
                    assert_eq!(payload, numbered(*next));
                    *next += 1;
                }
                Heard::Ended { why, .. } => panic!("the session has ended: {why:?}"),
                _ => {}
            }
        }
        let up = !pair.bob.peers.links().is_empty() && !pair.alice.peers.links().is_empty();
        if to_alice / 1_000 > cuts && up {
            cuts += 1;
            pair.proxy.set(Mode::Cut);
            until(|| pair.bob.peers.links().is_empty() && pair.alice.peers.links().is_empty()).await;
            pair.proxy.set(Mode::Pass);
        }
    }
    for pushing in pushers {
        pushing.await.unwrap();
    }
    assert!(cuts >= 3, "only {cuts} cuts");
    until(|| pair.alice.counter("sessions_lost") == pair.alice.counter("sessions_resumed")).await;
    assert!(pair.alice.counter("sessions_resumed") >= u64::from(cuts));
    assert_eq!(pair.at_bob.core.agreed().session, pair.at_alice.core.agreed().session);
    pair.stop().await;
}

#[tokio::test]
async fn calls_go_on_over_the_next_link() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    call(&pair.at_bob, "engine", b"before");
    let Heard::Call { call_id, .. } = next_call(&mut pair.alice).await else { unreachable!() };
    pair.cut().await;
    assert_eq!((pair.bob.state("alice"), pair.at_bob.standing().clone()), (PeerState::Lost, lost()));
    assert!(pair.bob.peers.links().is_empty());
    assert_eq!(pair.bob.peers.sessions().len(), 1);
    // Asked and answered while there is no link.
    call(&pair.at_bob, "engine", b"meanwhile");
    reply(&pair.at_alice, call_id);
    pair.mend().await;
    assert!(matches!(next_answer(&mut pair.bob).await, Heard::Reply { context, .. } if context == b"before"));
    let Heard::Call { call_id, .. } = next_call(&mut pair.alice).await else { unreachable!() };
    reply(&pair.at_alice, call_id);
    assert!(matches!(next_answer(&mut pair.bob).await, Heard::Reply { context, .. } if context == b"meanwhile"));
    pair.stop().await;
}

fn lost() -> Standing {
    Standing::Lost(LinkEnd::Carrier("closed".into()))
}

async fn next_call(realm: &mut Realm) -> Heard {
    loop {
        match realm.heard().await {
            call @ Heard::Call { .. } => return call,
            Heard::Ended { why, .. } => panic!("it has ended: {why:?}"),
            _ => {}
        }
    }
}

async fn next_answer(realm: &mut Realm) -> Heard {
    loop {
        match realm.heard().await {
            answer @ (Heard::Reply { .. } | Heard::Refused { .. }) => return answer,
            Heard::Ended { why, .. } => panic!("it has ended: {why:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_session_that_nobody_takes_up_ends_after_its_grace_with_the_reason_of_its_last_link() {
    let short = || Limits { grace_ms: 100, ..limits_with_grace() };
    let mut pair = Pair::start(Realm::with(identity(ALICE), short()), Realm::with(identity(BOB), short())).await;
    pair.cut().await;
    for (realm, session) in [(&mut pair.alice, &pair.at_alice), (&mut pair.bob, &pair.at_bob)] {
        let (ended, why) = realm.ended().await;
        assert_eq!((ended.tag, why), (session.tag, LinkEnd::Carrier("closed".into())));
        assert!(cast(session, "engine", &numbered(1)).is_err());
        assert_eq!((realm.counter("sessions_lost"), realm.counter("sessions_not_resumed")), (1, 1));
    }
    // The next link begins another.
    pair.proxy.set(Mode::Pass);
    let (at_alice, at_bob) = (pair.alice.up().await, pair.bob.up().await);
    assert_eq!(at_alice.core.agreed().session, at_bob.core.agreed().session);
    assert_ne!(at_bob.core.agreed().session, pair.at_bob.core.agreed().session);
    pair.stop().await;
}

#[tokio::test]
async fn a_peer_has_a_grace_of_its_own() {
    let (mut alice, mut bob) = (with_grace(ALICE), Realm::start(BOB));
    let proxy = Proxy::start(alice.listen_tcp(Profile::Tls)).await;
    let own = PeerLimits { grace_ms: Some(50), ..PeerLimits::default() };
    alice.peers.add_peer(PeerConfig { limits: own, ..peer("bob", BOB, vec![]) }).unwrap();
    bob.dial("alice", ALICE, at(proxy.address, Profile::Tls));
    bob.up().await;
    alice.up().await;
    proxy.set(Mode::Cut);
    alice.lost().await;
    alice.ended().await;
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_goodbye_ends_the_session_at_once() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    assert!(pair.bob.peers.disconnect("alice"));
    assert!(pair.at_bob.has_ended());
    assert_eq!(pair.bob.ended().await.1, LinkEnd::Local("normal"));
    assert!(matches!(pair.alice.ended().await.1, LinkEnd::Closed { code: "normal", .. }));
    pair.stop().await;
}

#[tokio::test]
async fn a_goodbye_whose_link_breaks_ends_the_session() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    // Bob has not heard of it when he says goodbye.
    pair.proxy.set(Mode::Cut);
    assert!(pair.bob.peers.drain(Duration::from_secs(20)).await.is_empty());
    let (ended, why) = pair.bob.ended().await;
    assert_eq!((ended.tag, why), (pair.at_bob.tag, LinkEnd::Local("shutdown")));
    assert_eq!((pair.bob.counter("sessions_lost"), pair.bob.state("alice")), (0, PeerState::Drained));
    pair.stop().await;
}

#[tokio::test]
async fn who_disconnects_while_there_is_no_link_ends_the_session_too() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    pair.cut().await;
    assert!(pair.bob.peers.disconnect("alice"));
    assert_eq!(pair.bob.ended().await.1, LinkEnd::Local("normal"));
    assert!(pair.bob.peers.sessions().is_empty());
    // And taken up again it is another; alice's ends for it.
    pair.proxy.set(Mode::Pass);
    pair.bob.peers.connect("alice").unwrap();
    pair.bob.up().await;
    let (ended, why) = pair.alice.ended().await;
    assert_eq!((ended.tag, why), (pair.at_alice.tag, LinkEnd::Local("replaced")));
    pair.alice.up().await;
    pair.stop().await;
}

#[tokio::test]
async fn a_peer_that_has_restarted_begins_another_session_and_the_old_one_ends() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    cast(&pair.at_alice, "engine", &numbered(1)).unwrap();
    pair.bob.delivery().await;
    pair.cut().await;
    pair.bob.peers.remove_peer("alice");
    // What is not signed yet goes to whoever is bob then.
    cast(&pair.at_alice, "engine", &numbered(2)).unwrap();
    pair.proxy.set(Mode::Pass);
    let mut again = with_grace(BOB);
    again.dial("alice", ALICE, at(pair.proxy.address, Profile::Tls));
    again.up().await;
    let (ended, why) = pair.alice.ended().await;
    assert_eq!((ended.tag, why), (pair.at_alice.tag, LinkEnd::Local("replaced")));
    pair.alice.up().await;
    assert_eq!(again.delivery().await.1, numbered(2));
    again.stop().await;
    pair.stop().await;
}

#[tokio::test]
async fn a_session_without_room_to_resume_ends_with_its_link() {
    let session = SessionLimits { resume_bytes_max: 0, ..SessionLimits::default() };
    let alice = Realm::with(identity(ALICE), Limits { session, ..limits_with_grace() });
    let mut pair = Pair::start(alice, with_grace(BOB)).await;
    pair.proxy.set(Mode::Cut);
    assert_eq!(pair.alice.ended().await.1, LinkEnd::Carrier("closed".into()));
    pair.bob.lost().await;
    pair.proxy.set(Mode::Pass);
    // Bob offers it, and alice has it no more.
    assert_eq!(pair.bob.ended().await.1, LinkEnd::Local("replaced"));
    pair.alice.up().await;
    pair.bob.up().await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_dial_each_other_to_resume_one_link_remains_and_the_session_goes_on() {
    for round in 0..10u8 {
        let (seed_a, seed_b) = (ALICE + round % 2, BOB - round % 2);
        let (alice, mut bob) = (with_grace(seed_a), with_grace(seed_b));
        let to_alice = Proxy::start(alice.listen_tcp(Profile::Tls)).await;
        let to_bob = Proxy::start(bob.listen_tcp(Profile::Tls)).await;
        let dial = |name: &str, seed, proxy: &Proxy| peer(name, seed, vec![at(proxy.address, Profile::Tls)]);
        alice.peers.add_peer(dial("bob", seed_b, &to_bob)).unwrap();
        bob.peers.add_peer(dial("alice", seed_a, &to_alice)).unwrap();
        let settled = |alice: &Realm, bob: &Realm| {
            let of = |realm: &Realm| realm.peers.links().first().map(|(session, _)| session.core.agreed().session);
            let one = alice.peers.open_connections() == 1 && bob.peers.open_connections() == 1;
            one && of(alice).is_some() && of(alice) == of(bob)
        };
        until(|| settled(&alice, &bob)).await;
        let session = alice.peers.sessions()[0].clone();
        let id = session.core.agreed().session;
        for cut in 0..3 {
            to_alice.set(Mode::Cut);
            to_bob.set(Mode::Cut);
            until(|| alice.peers.links().is_empty() && bob.peers.links().is_empty()).await;
            cast(&session, "engine", &numbered(cut)).unwrap();
            to_alice.set(Mode::Pass);
            to_bob.set(Mode::Pass);
            until(|| settled(&alice, &bob)).await;
            assert_eq!(bob.delivery().await.1, numbered(cut));
            assert_eq!(bob.peers.sessions()[0].core.agreed().session, id, "the same session");
        }
        alice.stop().await;
        bob.stop().await;
    }
}

/// Bob keeps two links to alice, by way of a proxy each; which he sends on is the first.
async fn standing_by(alice: &mut Realm, bob: &mut Realm) -> (Proxy, Proxy, Arc<PeerSession>, Arc<PeerSession>) {
    let address = alice.listen_tcp(Profile::Tls);
    let (first, second) = (Proxy::start(address).await, Proxy::start(address).await);
    alice.expect("bob", BOB);
    let connect: Vec<CarrierConfig> = [&first, &second].map(|proxy| at(proxy.address, Profile::Tls)).into();
    bob.peers.add_peer(PeerConfig { links: 2, ..peer("alice", ALICE, connect) }).unwrap();
    let (at_bob, at_alice) = (bob.up().await, alice.up().await);
    until(|| bob.peers.links().len() == 2 && alice.peers.links().len() == 2).await;
    (first, second, at_bob, at_alice)
}

fn sent_on(realm: &Realm) -> String {
    let links = realm.peers.links();
    let active: Vec<_> = links.iter().filter(|(_, link)| link.active).map(|(_, link)| link.address.clone()).collect();
    assert!(active.len() <= 1, "{active:?}");
    active.first().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_second_link_to_who_cannot_resume_is_turned_away_and_the_session_stays() {
    let session = SessionLimits { resume_bytes_max: 0, ..SessionLimits::default() };
    let mut alice = Realm::with(identity(ALICE), Limits { session, ..limits_with_grace() });
    let mut bob = with_grace(BOB);
    let address = alice.listen_tcp(Profile::Tls);
    let (first, second) = (Proxy::start(address).await, Proxy::start(address).await);
    alice.expect("bob", BOB);
    let connect: Vec<CarrierConfig> = [&first, &second].map(|proxy| at(proxy.address, Profile::Tls)).into();
    bob.peers.add_peer(PeerConfig { links: 2, ..peer("alice", ALICE, connect) }).unwrap();
    let (at_bob, at_alice) = (bob.up().await, alice.up().await);
    until(|| alice.counter("hellos_duplicate") >= 3).await;
    cast(&at_bob, "engine", &numbered(1)).unwrap();
    assert_eq!(alice.delivery().await.1, numbered(1));
    for (realm, session) in [(&bob, &at_bob), (&alice, &at_alice)] {
        let sessions: Vec<u64> = realm.peers.sessions().iter().map(|session| session.tag).collect();
        assert_eq!((sessions, realm.peers.links().len()), (vec![session.tag], 1));
    }
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_link_that_stands_by_takes_over_and_gives_back_inside_of_the_session() {
    let (mut alice, mut bob) = (with_grace(ALICE), with_grace(BOB));
    let (first, second, at_bob, at_alice) = standing_by(&mut alice, &mut bob).await;
    assert_eq!(sent_on(&bob), first.address.to_string());
    let mut number = 0;
    for _ in 0..5 {
        first.set(Mode::Cut);
        for _ in 0..100 {
            cast(&at_bob, "engine", &numbered(number)).unwrap();
            cast(&at_alice, "engine", &numbered(number)).unwrap();
            number += 1;
        }
        until(|| sent_on(&bob) == second.address.to_string()).await;
        first.set(Mode::Pass);
        until(|| sent_on(&bob) == first.address.to_string()).await;
        until(|| bob.peers.links().len() == 2 && alice.peers.links().len() == 2).await;
    }
    for number in 0..number {
        assert_eq!(alice.delivery().await.1, numbered(number));
        assert_eq!(bob.delivery().await.1, numbered(number));
    }
    for realm in [&alice, &bob] {
        assert_eq!(realm.counter("sessions_lost"), 0, "nobody has noticed anything");
        assert_eq!(realm.peers.sessions().len(), 1);
    }
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn both_links_gone_is_lost_and_either_brings_it_back() {
    let (mut alice, mut bob) = (with_grace(ALICE), with_grace(BOB));
    let (first, second, _, _) = standing_by(&mut alice, &mut bob).await;
    first.set(Mode::Cut);
    second.set(Mode::Cut);
    bob.lost().await;
    alice.lost().await;
    second.set(Mode::Pass);
    bob.resumed().await;
    alice.resumed().await;
    assert_eq!(sent_on(&bob), second.address.to_string());
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn what_comes_right_behind_the_hello_of_a_link_that_is_one_too_many_is_delivered_by_another() {
    let mut alice = with_grace(ALICE);
    let to_alice = alice.listen_tcp(Profile::Tls);
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let connect = [&first, &second].map(|listener| at(listener.local_addr().unwrap(), Profile::Tls)).into();
    alice.peers.add_peer(PeerConfig { links: LINKS_MAX as u8, ..peer("bob", BOB, connect) }).unwrap();
    // One that signs with the same key on all of its links.
    let bob = identity(BOB);
    let mut first = answer(&first, &bob).await;
    first.run(usize::MAX).await;
    let session = first.link.session().unwrap().clone();
    session.announce(FrameType::Cert, &signed_certificate(&bob));
    send(&mut first).await;
    alice.up().await;
    // Alice dials once more, and while that waits for its answer bob brings as many as there may be.
    let mut late = answer(&second, &bob).await;
    let mut beside = Vec::new();
    for _ in 1..LINKS_MAX {
        let mut link = Client::join(to_alice, &bob, &key_of(ALICE), session.clone()).await;
        link.run(usize::MAX).await;
        beside.push(link);
    }
    until(|| alice.peers.links().len() == LINKS_MAX).await;
    late.resume = Some(session.clone());
    while !late.outcome.up {
        send(&mut late).await;
        assert!(late.read().await);
    }
    late.link.activate();
    session.push(Delivery::Cast, "", "engine", &numbered(1), false).unwrap();
    send(&mut late).await;
    while late.outcome.closed.is_none() && late.read().await {}
    assert_eq!(late.outcome.closed, Some("duplicate"));
    late.link.detach();
    first.link.activate();
    let first = tokio::spawn(async move {
        send(&mut first).await;
        while first.read().await {
            send(&mut first).await;
        }
    });
    assert_eq!(alice.delivery().await.1, numbered(1));
    alice.stop().await;
    first.abort();
}

/// Bob's end of what alice has dialled.
async fn answer(listener: &TcpListener, bob: &Identity) -> Client {
    let (stream, _) = listener.accept().await.unwrap();
    Client::answer(stream, bob, Profile::Tls).await
}

/// All that waits, in one piece.
async fn send(client: &mut Client) {
    let mut out = Vec::new();
    while client.link.flush(&mut out).unwrap() {}
    client.stream.write_all(&out).await.unwrap();
}

#[tokio::test]
async fn other_settings_change_how_many_links_stand_by() {
    let (mut alice, mut bob) = (with_grace(ALICE), with_grace(BOB));
    let (first, _second, _, _) = standing_by(&mut alice, &mut bob).await;
    let config = bob.peers.peer_config("alice").unwrap();
    bob.peers.update_peer(PeerConfig { links: 1, ..(*config).clone() }).unwrap();
    until(|| bob.peers.links().len() == 1 && alice.peers.links().len() == 1).await;
    assert_eq!(sent_on(&bob), first.address.to_string());
    bob.peers.update_peer((*config).clone()).unwrap();
    until(|| bob.peers.links().len() == 2 && alice.peers.links().len() == 2).await;
    assert_eq!((alice.counter("sessions_lost"), bob.counter("sessions_lost")), (0, 0));
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn what_waits_goes_before_the_goodbye_with_links_standing_by_too() {
    let (mut alice, mut bob) = (with_grace(ALICE), with_grace(BOB));
    let (_first, _second, at_bob, _) = standing_by(&mut alice, &mut bob).await;
    for number in 0..2_000 {
        cast(&at_bob, "engine", &numbered(number)).unwrap();
    }
    bob.stop().await;
    for number in 0..2_000 {
        assert_eq!(alice.delivery().await.1, numbered(number));
    }
    assert!(matches!(alice.ended().await.1, LinkEnd::Closed { code: "shutdown", .. }));
    alice.stop().await;
}

#[tokio::test]
async fn a_link_that_is_half_open_is_found_out_and_the_session_goes_on_elsewhere() {
    let session = SessionLimits { ping_ms: 50, ..SessionLimits::default() };
    let mut alice = Realm::with(identity(ALICE), Limits { session, ..limits_with_grace() });
    let mut bob = with_grace(BOB);
    let (first, second, at_bob, at_alice) = standing_by(&mut alice, &mut bob).await;
    // Neither is told that nothing passes there any more: alice finds out, and bob, whose patience is long, by her goodbye or not at
    // all. What he sent meanwhile goes again when his link is given up, here by being cut.
    first.set(Mode::Stall);
    cast(&at_bob, "engine", &numbered(1)).unwrap();
    until(|| alice.peers.links().len() == 1).await;
    assert_eq!(alice.counter("links_silent"), 1);
    cast(&at_alice, "engine", &numbered(2)).unwrap();
    assert_eq!(bob.delivery().await.1, numbered(2));
    first.set(Mode::Cut);
    assert_eq!(alice.delivery().await.1, numbered(1));
    assert_eq!(sent_on(&bob), second.address.to_string());
    assert_eq!(alice.counter("sessions_lost"), 0);
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn a_dialler_that_comes_back_takes_its_session_from_a_link_that_only_seems_alive() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    // Only bob's end breaks.
    pair.proxy.set(Mode::CutDialler);
    assert_eq!(pair.bob.lost().await.1, LinkEnd::Carrier("closed".into()));
    assert_eq!(pair.alice.state("bob"), PeerState::Up);
    cast(&pair.at_alice, "engine", &numbered(1)).unwrap();
    pair.proxy.set(Mode::Pass);
    pair.bob.resumed().await;
    assert_eq!(pair.bob.delivery().await.1, numbered(1));
    until(|| pair.alice.peers.open_connections() == 1).await;
    assert_eq!(pair.alice.counter("sessions_lost"), 0, "for alice it never was");
    pair.stop().await;
}

#[tokio::test]
async fn a_heartbeat_says_how_long_a_round_trip_takes_on_each_link() {
    let session = SessionLimits { ping_ms: 20, ..SessionLimits::default() };
    let limits = || Limits { session: session.clone(), ..limits_with_grace() };
    let (mut alice, mut bob) = (Realm::with(identity(ALICE), limits()), Realm::with(identity(BOB), limits()));
    standing_by(&mut alice, &mut bob).await;
    until(|| bob.peers.links().iter().all(|(_, link)| link.rtt_ms.is_some())).await;
    let states: Vec<_> = bob.status("alice").links.iter().map(|link| link.state()).collect();
    assert_eq!(states, ["active", "standby"]);
    bob.stop().await;
    alice.stop().await;
}

#[tokio::test]
async fn what_was_delivered_is_acknowledged_though_nothing_goes_the_other_way() {
    let pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    cast(&pair.at_bob, "engine", &numbered(1)).unwrap();
    let counters = pair.at_bob.core.counters();
    until(|| counters.messages_out.get() == 1 && counters.resume_bytes.get() == 0).await;
    pair.stop().await;
}

#[tokio::test]
async fn what_was_sent_and_not_acknowledged_when_a_session_ends_is_a_gap() {
    let short = || Limits { grace_ms: 50, ..limits_with_grace() };
    let mut pair = Pair::start(Realm::with(identity(ALICE), short()), Realm::with(identity(BOB), short())).await;
    pair.proxy.set(Mode::Stall);
    for number in 0..3 {
        cast(&pair.at_bob, "engine", &numbered(number)).unwrap();
    }
    until(|| pair.at_bob.core.counters().messages_out.get() == 3).await;
    pair.proxy.set(Mode::Cut);
    let (ended, _) = pair.bob.ended().await;
    assert_eq!(ended.core.gap(), 3);
    assert_eq!(pair.alice.ended().await.0.core.gap(), 0);
    pair.stop().await;
}

#[tokio::test]
async fn a_drain_waits_for_a_session_that_is_lost_to_come_back() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    call(&pair.at_bob, "engine", b"open");
    let Heard::Call { call_id, .. } = next_call(&mut pair.alice).await else { unreachable!() };
    pair.cut().await;
    let peers = pair.bob.peers.clone();
    let draining = tokio::spawn(async move { peers.drain(Duration::from_secs(30)).await });
    until(|| pair.at_bob.is_draining()).await;
    pair.mend().await;
    assert!(!draining.is_finished());
    reply(&pair.at_alice, call_id);
    assert_eq!(draining.await.unwrap(), []);
    assert_eq!(pair.bob.ended().await.1, LinkEnd::Local("shutdown"));
    assert_eq!(pair.bob.peers.connect("alice"), Err(AddPeerError::Draining));
    assert_eq!(pair.bob.peers.add_peer(peer("carol", 3, vec![])), Err(AddPeerError::Draining));
    pair.stop().await;
}

#[tokio::test]
async fn a_drain_cuts_what_a_lost_session_still_has_open_when_the_time_is_over() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    call(&pair.at_bob, "engine", b"open");
    next_call(&mut pair.alice).await;
    pair.cut().await;
    let cut = pair.bob.peers.drain(Duration::from_millis(50)).await;
    assert_eq!(cut.len(), 1);
    assert_eq!(pair.bob.ended().await.1, LinkEnd::Local("shutdown"));
    pair.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_sessions_without_a_link_and_nobody_is_dialled_for_them() {
    let mut pair = Pair::start(with_grace(ALICE), with_grace(BOB)).await;
    pair.cut().await;
    pair.bob.peers.shutdown(Duration::from_secs(30)).await;
    assert_eq!(pair.bob.ended().await.1, LinkEnd::Local("shutdown"));
    pair.proxy.set(Mode::Pass);
    assert_eq!(pair.bob.peers.open_connections(), 0);
    pair.stop().await;
}

#[tokio::test]
async fn where_nobody_answers_a_session_is_lost_no_longer_than_its_grace() {
    let (alice, mut bob) = (Realm::with(identity(ALICE), limits()), with_grace(BOB));
    let address = alice.listen_tcp(Profile::Tls);
    let proxy = Proxy::start(address).await;
    let own = PeerLimits { grace_ms: Some(100), ..PeerLimits::default() };
    alice.expect("bob", BOB);
    let connect = vec![at(proxy.address, Profile::Tls), at(nowhere(), Profile::Tls)];
    bob.peers.add_peer(PeerConfig { limits: own, ..peer("alice", ALICE, connect) }).unwrap();
    bob.up().await;
    proxy.set(Mode::Cut);
    bob.lost().await;
    assert_eq!(bob.ended().await.1, LinkEnd::Carrier("closed".into()));
    assert!(bob.status("alice").attempts > 0);
    bob.stop().await;
    alice.stop().await;
}
