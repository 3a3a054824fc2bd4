//! One more link of a raw peer to somebody that it has a session with.

use std::sync::Arc;

use legation_channel::channel::Profile;
use legation_channel::link::{Link, LinkConfig};
use legation_proto::frame::hello::Offer;
use legation_proto::limits::Limits;
use legation_proto::session::Session;

use crate::pair::{Admit, Seen, Side};
use crate::raw_peer::{RawPeer, RawPeerConfig, Versus};
use crate::realm::{fixed_random, network, Realm};

/// How it is asked for, and what is made of that.
pub struct Another {
    /// Who dials.
    pub realm: Realm,
    /// What its hello asks for.
    pub offer: Offer,
    /// What the driver gives to whoever comes; only a peer that may have it gets it.
    pub given: Option<Arc<Session>>,
    pub limits: Limits,
    /// Tells the randomness of one from another's.
    pub run: u32,
}

impl Another {
    /// Beside `first`, on `local`. The peer goes on with the numbers of `first`, as if it were of its session, even where it is not.
    /// The peer has not said RESUME: that is the test's to do.
    ///
    /// # Panics
    /// When `local` wants anything from its system.
    pub fn link(self, first: &Versus) -> Versus {
        let Another { realm, offer, given, limits, run } = self;
        let bob = Realm::bob();
        let link = LinkConfig {
            profile: Profile::Local,
            keyring: bob.keyring.clone(),
            network: network(),
            tls: bob.tls.clone(),
            limits,
            random: fixed_random(3_000 + run, 1),
            now: first.now,
        };
        let mut side = Side::new(Link::accept_from(link, None).expect("local wants nothing"), bob, network());
        side.stand_ins = first.side.stand_ins;
        side.admit = Admit::Later;
        side.standby = offer.additional;
        side.tick(first.now);
        let mut peer = RawPeer::new(RawPeerConfig {
            realm,
            random: fixed_random(4_000 + run, 0),
            now: first.now,
            ..RawPeerConfig::dialling(Profile::Local)
        });
        let additional = offer.additional;
        peer.hello_twist = Some(Box::new(move |hello| hello.resume = Some(offer)));
        let mut versus = Versus { side, peer, now: first.now };
        versus.settle();
        let mut seen = Vec::new();
        let wake = versus.side.link.accept(first.now, given, None, &mut |event| seen.push(Seen::from(event)));
        if matches!(seen[..], [Seen::Resumed { .. }]) && !additional {
            versus.side.link.activate();
        }
        versus.side.events.extend(seen);
        versus.side.woken(wake.any());
        versus.settle();
        // Its own half of the handshake has not asked for the session, and so doesn't take the answer.
        versus.peer.agreed = first.peer.agreed.clone();
        versus.peer.serial = first.peer.serial + 1_000;
        versus.peer.next_sequence = first.peer.next_sequence;
        versus
    }
}
