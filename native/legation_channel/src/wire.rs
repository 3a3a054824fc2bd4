//! What is between a link and its carrier: the channel, and before it knock and answer (`protocol.md` 4).
//!
//! ```text
//!  responder:  [knock, or first flight] ──► channel ──► plaintext      its first flight out: in the answer
//!  initiator:                 [answer] ──► channel ──► plaintext
//! ```

use std::sync::{Arc, Mutex};

use legation_proto::identity::{NetworkKey, RealmId};
use legation_proto::sync::lock;

use crate::answer::{AnswerInitiator, AnswerResponder, AnswerVerdict};
use crate::channel::{Channel, UnixMs};
use crate::error::ChannelError;
use crate::first_flight::FirstFlight;
use crate::knock::{KnockInitiator, KnockMemory, KnockRefused, KnockResponder, KnockVerdict};
use crate::link::LinkFault;

/// See the module's documentation. Nothing reaches the channel before it is proven that the other side has the network key, but for the
/// first flight of an initiator where there is no knock.
pub(crate) struct Wire {
    entry: Entry,
    pub channel: Box<dyn Channel>,
    pub out: Vec<u8>,
}

/// How far the two sides have come to the channel.
enum Entry {
    /// Responder: a knock is to come.
    Knock {
        knock: KnockResponder,
        memory: Arc<Mutex<KnockMemory>>,
        network: NetworkKey,
    },
    /// Responder: a first flight is to come.
    FirstFlight {
        flight: FirstFlight,
        network: NetworkKey,
    },
    /// Responder: what the channel says first goes out in the answer.
    Answering(AnswerResponder),
    /// Initiator: the answer is to come.
    Awaiting(AnswerInitiator),
    Open,
}

impl Wire {
    /// `knock`: for the realm that is dialled, its randomness and the time, where the carrier wants one.
    ///
    /// # Errors
    /// When the profile has no knock.
    pub fn initiator(
        mut channel: Box<dyn Channel>,
        network: NetworkKey,
        knock: Option<(RealmId, [u8; 16], UnixMs)>,
    ) -> Result<Wire, ChannelError> {
        let mut out = Vec::new();
        match knock {
            Some((peer, random, now)) => {
                let knock = KnockInitiator::new(network.clone(), peer);
                knock.wrap(channel.as_mut(), now, random, &mut out)?;
            }
            None => channel.poll_transmit(&mut out),
        }
        let entry = Entry::Awaiting(AnswerInitiator::new(network, channel.profile(), &out));
        Ok(Wire { entry, channel, out })
    }

    /// `knock`: for which realm, and remembered where, if the carrier wants one.
    pub fn responder(
        channel: Box<dyn Channel>,
        network: NetworkKey,
        knock: Option<(RealmId, Arc<Mutex<KnockMemory>>)>,
    ) -> Wire {
        let entry = match knock {
            Some((realm, memory)) => {
                Entry::Knock { knock: KnockResponder::new(network.clone(), [realm]), memory, network }
            }
            None => Entry::FirstFlight { flight: FirstFlight::new(channel.profile()), network },
        };
        Wire { entry, channel, out: Vec::new() }
    }

    /// Carrier bytes, until the channel stands and may be used by itself. What it has to say to them is in `out`.
    ///
    /// # Errors
    /// Of knock, answer and channel.
    pub fn handle_bytes(&mut self, now: UnixMs, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), LinkFault> {
        let mut input = input;
        match &mut self.entry {
            Entry::Knock { knock, memory, network } => {
                let verdict = knock.handle_bytes(input, &mut lock(memory), now);
                match verdict {
                    KnockVerdict::NeedMore => return Ok(()),
                    KnockVerdict::Refused(refused) => return Err(LinkFault::Knock(refused)),
                    KnockVerdict::Accepted(knock) if knock.profile != self.channel.profile() => {
                        return Err(LinkFault::Knock(KnockRefused::Malformed));
                    }
                    KnockVerdict::Accepted(knock) => {
                        let answer = AnswerResponder::to_hash(network.clone(), knock.profile, knock.hash);
                        self.entry = Entry::Answering(answer);
                        self.channel.handle_bytes(&knock.first_flight, plaintext)?;
                        input = &input[knock.consumed..];
                    }
                }
            }
            Entry::FirstFlight { flight, network } => {
                let Some(flight) = flight.handle_bytes(&mut input).map_err(ChannelError::from)? else {
                    return Ok(());
                };
                let answer = AnswerResponder::new(network.clone(), self.channel.profile(), &flight);
                self.entry = Entry::Answering(answer);
                self.channel.handle_bytes(&flight, plaintext)?;
            }
            Entry::Awaiting(answer) => match answer.handle_bytes(input) {
                AnswerVerdict::NeedMore => return Ok(()),
                AnswerVerdict::Refused(refused) => return Err(LinkFault::Answer(refused)),
                AnswerVerdict::Accepted { first_flight, consumed } => {
                    self.entry = Entry::Open;
                    let result = self.channel.handle_bytes(&first_flight, plaintext);
                    self.transmit()?;
                    result?;
                    input = &input[consumed..];
                }
            },
            Entry::Answering(_) | Entry::Open => {}
        }
        let result = self.channel.handle_bytes(input, plaintext);
        self.transmit()?;
        Ok(result?)
    }

    fn transmit(&mut self) -> Result<(), ChannelError> {
        let Entry::Answering(answer) = &self.entry else {
            self.channel.poll_transmit(&mut self.out);
            return Ok(());
        };
        let mut first_flight = Vec::new();
        self.channel.poll_transmit(&mut first_flight);
        if !first_flight.is_empty() {
            answer.encode(&first_flight, &mut self.out)?;
            self.entry = Entry::Open;
        }
        Ok(())
    }
}
