//! Two ends of a channel with a carrier between them that cuts the stream as a test likes.

use std::sync::Arc;

use legation_channel::channel::{Channel, Profile};
use legation_channel::error::ChannelError;
use legation_channel::local::LocalChannel;
use legation_channel::plain::PlainChannel;
use legation_channel::tls::{LinkKey, TlsChannel, TlsContext};

pub const PROFILES: [Profile; 3] = [Profile::Tls, Profile::Local, Profile::Plain];

pub struct Pair {
    pub initiator: Box<dyn Channel>,
    pub responder: Box<dyn Channel>,
    /// What has come out at the responder, and at the initiator.
    pub at_responder: Vec<u8>,
    pub at_initiator: Vec<u8>,
}

impl Pair {
    /// `run` tells the nonces of one pair from another's.
    pub fn new(profile: Profile, run: u8) -> Pair {
        let [a, b, c, d] = [1, 2, 3, 4].map(|which| *blake3::hash(&[run, which]).as_bytes());
        let (initiator, responder): (Box<dyn Channel>, Box<dyn Channel>) = match profile {
            Profile::Tls => (Box::new(tls_initiator()), Box::new(tls_responder())),
            Profile::Local => (Box::new(LocalChannel::initiator(a)), Box::new(LocalChannel::responder(b))),
            Profile::Plain => (Box::new(PlainChannel::initiator(a, c)), Box::new(PlainChannel::responder(b, d))),
        };
        Pair { initiator, responder, at_responder: Vec::new(), at_initiator: Vec::new() }
    }

    pub fn established(profile: Profile, run: u8) -> Pair {
        let mut pair = Pair::new(profile, run);
        pair.settle(usize::MAX).unwrap();
        assert!(pair.is_established());
        pair
    }

    pub fn is_established(&self) -> bool {
        self.initiator.established().is_some() && self.responder.established().is_some()
    }

    /// Moves bytes until nobody has any more, in pieces of `cut` bytes.
    pub fn settle(&mut self, cut: usize) -> Result<(), ChannelError> {
        self.settle_with(|_| cut)
    }

    /// As [`Pair::settle`], with `cut` asked for the size of each piece.
    pub fn settle_with(&mut self, mut cut: impl FnMut(usize) -> usize) -> Result<(), ChannelError> {
        loop {
            let there = waiting(&mut *self.initiator);
            deliver(&mut *self.responder, &there, &mut self.at_responder, &mut cut)?;
            let back = waiting(&mut *self.responder);
            deliver(&mut *self.initiator, &back, &mut self.at_initiator, &mut cut)?;
            if there.is_empty() && back.is_empty() {
                return Ok(());
            }
        }
    }
}

pub fn waiting(channel: &mut dyn Channel) -> Vec<u8> {
    let mut bytes = Vec::new();
    channel.poll_transmit(&mut bytes);
    bytes
}

pub fn sealed(channel: &mut dyn Channel, plaintext: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    channel.seal(plaintext, &mut bytes).unwrap();
    bytes
}

pub fn deliver(
    channel: &mut dyn Channel,
    bytes: &[u8],
    plaintext: &mut Vec<u8>,
    mut cut: impl FnMut(usize) -> usize,
) -> Result<(), ChannelError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
        channel.handle_bytes(piece, plaintext)?;
        rest = after;
    }
    Ok(())
}

/// A context per role, made once: as in two processes.
pub fn contexts() -> &'static [Arc<TlsContext>; 2] {
    static CONTEXTS: std::sync::OnceLock<[Arc<TlsContext>; 2]> = std::sync::OnceLock::new();
    CONTEXTS.get_or_init(|| [[0x11; 32], [0x22; 32]].map(|seed| TlsContext::new(&LinkKey::generate(seed))))
}

pub fn tls_initiator() -> TlsChannel {
    TlsChannel::initiator(contexts()[0].clone()).unwrap()
}

pub fn tls_responder() -> TlsChannel {
    TlsChannel::responder(contexts()[1].clone()).unwrap()
}
