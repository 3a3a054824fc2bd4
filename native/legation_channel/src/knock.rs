//! The knock: who can't make one gets no byte from us (`protocol.md` 4).
//!
//! ```text
//!   0 version u8 = 1
//!   1 profile u8
//!   2 time u64
//!  10 random (16)
//!  26 mac (32) = keyed_hash(network key, "legation/1/knock" ‖ 0 ‖ profile ‖ time ‖ random ‖ responder's realm id
//!                           ‖ length ‖ first flight)
//!  58 length of the first flight u16
//!  60 first flight (1 to 4,096 bytes)
//! ```
//!
//! The responder's memory makes a knock good for one time. Nodes that serve the same realm don't share it: a knock may be
//! accepted once by each of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use legation_proto::identity::{NetworkKey, RealmId};
use zeroize::Zeroizing;

use crate::channel::{Channel, Profile, UnixMs};
use crate::error::{ApiMisuse, ChannelError};
use crate::first_flight::{has_form, FIRST_FLIGHT_BYTES_MAX};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 60;

/// Makes knocks for one responder.
#[derive(Clone, Debug)]
pub struct KnockInitiator {
    network: NetworkKey,
    responder: RealmId,
}

impl KnockInitiator {
    pub fn new(network: NetworkKey, responder: RealmId) -> KnockInitiator {
        KnockInitiator { network, responder }
    }

    /// Takes the first flight out of a fresh channel and appends the knock with it. `random` is fresh randomness.
    ///
    /// # Errors
    /// As [`KnockInitiator::encode`].
    pub fn wrap(
        &self,
        channel: &mut dyn Channel,
        now: UnixMs,
        random: [u8; 16],
        out: &mut Vec<u8>,
    ) -> Result<(), ChannelError> {
        let mut first_flight = Vec::new();
        channel.poll_transmit(&mut first_flight);
        self.encode(channel.profile(), &first_flight, now, random, out)
    }

    /// Appends a knock around `first_flight`.
    ///
    /// # Errors
    /// [`ApiMisuse::NoKnock`], [`ApiMisuse::FirstFlightLength`], [`ApiMisuse::FirstFlightForm`].
    pub fn encode(
        &self,
        profile: Profile,
        first_flight: &[u8],
        now: UnixMs,
        random: [u8; 16],
        out: &mut Vec<u8>,
    ) -> Result<(), ChannelError> {
        if profile == Profile::Local {
            return Err(ApiMisuse::NoKnock(profile).into());
        }
        let bytes = first_flight.len();
        if bytes == 0 || bytes > FIRST_FLIGHT_BYTES_MAX {
            return Err(ApiMisuse::FirstFlightLength { bytes, limit: FIRST_FLIGHT_BYTES_MAX }.into());
        }
        if !has_form(profile, first_flight) {
            return Err(ApiMisuse::FirstFlightForm.into());
        }
        let key = Zeroizing::new(self.network.expose());
        let mac = mac(&key, profile, now, &random, &self.responder, first_flight);
        out.reserve(HEADER_BYTES + bytes);
        out.extend_from_slice(&[VERSION, profile as u8]);
        out.extend_from_slice(&now.to_le_bytes());
        out.extend_from_slice(&random);
        out.extend_from_slice(mac.as_bytes());
        out.extend_from_slice(&(bytes as u16).to_le_bytes());
        out.extend_from_slice(first_flight);
        Ok(())
    }
}

/// Why a knock was refused: for a counter, never for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum KnockRefused {
    #[error("the knock doesn't have the form of one")]
    Malformed,
    #[error("the MAC fits none of our realms")]
    BadMac,
    #[error("the knock is from before our start")]
    TooEarly,
    #[error("the knock's time is too far from ours")]
    OutsideWindow,
    #[error("the knock came before")]
    Replayed,
    #[error("no more knocks can be remembered")]
    MemoryFull,
}

/// What has become of a knock.
#[derive(Debug, PartialEq, Eq)]
pub enum KnockVerdict {
    /// More bytes must come. The responder stays silent.
    NeedMore,
    Accepted(Accepted),
    /// The carrier is closed without a byte.
    Refused(KnockRefused),
}

/// A knock that was accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which of the realms given to [`KnockResponder::new`] was meant.
    pub realm_index: usize,
    pub profile: Profile,
    /// For the channel's first [`Channel::handle_bytes`].
    pub first_flight: Vec<u8>,
    /// Of the whole knock: what the answer is to (`protocol.md` 4.6).
    pub hash: [u8; 32],
    /// How much of the last input belongs to the knock; `input[consumed..]` is the channel's, too.
    pub consumed: usize,
}

/// Reads one knock, however it is cut.
#[derive(Debug)]
pub struct KnockResponder {
    network: NetworkKey,
    realms: Arc<[RealmId]>,
    /// At most 60 + 4,096 bytes.
    buffer: Vec<u8>,
    refused: Option<KnockRefused>,
}

impl KnockResponder {
    /// For a carrier that was just accepted. `realms` are those that may be meant.
    pub fn new(network: NetworkKey, realms: impl Into<Arc<[RealmId]>>) -> KnockResponder {
        KnockResponder { network, realms: realms.into(), buffer: Vec::new(), refused: None }
    }

    /// Takes carrier bytes. After a verdict other than [`KnockVerdict::NeedMore`] the responder has done its work;
    /// it refuses whatever else it is given.
    pub fn handle_bytes(&mut self, input: &[u8], memory: &mut KnockMemory, now: UnixMs) -> KnockVerdict {
        match self.step(input, memory, now) {
            Ok(None) => KnockVerdict::NeedMore,
            Ok(Some(accepted)) => {
                self.refused = Some(KnockRefused::Malformed);
                KnockVerdict::Accepted(accepted)
            }
            Err(refused) => {
                self.refused = Some(refused);
                self.buffer = Vec::new();
                KnockVerdict::Refused(refused)
            }
        }
    }

    fn step(&mut self, input: &[u8], memory: &mut KnockMemory, now: UnixMs) -> Result<Option<Accepted>, KnockRefused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let mut rest = input;
        self.take_up_to(HEADER_BYTES, &mut rest);
        // What no knock begins with is refused before more is kept of it.
        if self.buffer.first().is_some_and(|version| *version != VERSION) {
            return Err(KnockRefused::Malformed);
        }
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(header)?;
        self.take_up_to(HEADER_BYTES + header.first_flight_bytes, &mut rest);
        let first_flight = &self.buffer[HEADER_BYTES..];
        if first_flight.len() < header.first_flight_bytes {
            return Ok(None);
        }

        let realm_index = self.realm_meant(&header, first_flight).ok_or(KnockRefused::BadMac)?;
        memory.check_time(header.time, now)?;
        if !has_form(header.profile, first_flight) {
            return Err(KnockRefused::Malformed);
        }
        memory.remember(header.time, header.random, now)?;
        let hash = *blake3::hash(&self.buffer).as_bytes();
        let mut first_flight = std::mem::take(&mut self.buffer);
        first_flight.drain(..HEADER_BYTES);
        let consumed = input.len() - rest.len();
        Ok(Some(Accepted { realm_index, profile: header.profile, first_flight, hash, consumed }))
    }

    fn take_up_to(&mut self, bytes: usize, rest: &mut &[u8]) {
        let (taken, after) = rest.split_at(rest.len().min(bytes.saturating_sub(self.buffer.len())));
        self.buffer.extend_from_slice(taken);
        *rest = after;
    }

    fn realm_meant(&self, header: &Header, first_flight: &[u8]) -> Option<usize> {
        let key = Zeroizing::new(self.network.expose());
        self.realms.iter().position(|realm| {
            // blake3::Hash compares in constant time.
            mac(&key, header.profile, header.time, &header.random, realm, first_flight) == header.mac
        })
    }
}

/// How a responder remembers knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnockSettings {
    /// How far a knock's time may lie from ours, either way.
    pub window_ms: u64,
    /// How long after its start the responder accepts none, since it may have accepted them before it.
    pub boot_ms: u64,
    /// How many knocks are remembered. One takes some 40 bytes.
    pub entries_max: usize,
}

impl Default for KnockSettings {
    /// `protocol.md` 4.3. 65,536 knocks within the 60 s for which one is good are a thousand new links a second.
    fn default() -> KnockSettings {
        KnockSettings { window_ms: 30_000, boot_ms: 1_000, entries_max: 65_536 }
    }
}

/// The knocks that were accepted and could still be again. One per instance, shared by its listeners.
#[derive(Debug)]
pub struct KnockMemory {
    settings: KnockSettings,
    /// Knocks from before are refused: start and `boot_ms`.
    earliest: UnixMs,
    /// Ordered by time, so that what has run out stands first.
    entries: BTreeSet<(UnixMs, [u8; 16])>,
    /// The latest time of an entry that was dropped. Should the clock be set back, it is not good again.
    forgotten: Option<UnixMs>,
}

impl KnockMemory {
    /// `now` is the responder's start.
    pub fn new(settings: KnockSettings, now: UnixMs) -> KnockMemory {
        KnockMemory {
            settings,
            earliest: now.saturating_add(settings.boot_ms),
            entries: BTreeSet::new(),
            forgotten: None,
        }
    }

    /// How many knocks are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn check_time(&self, time: UnixMs, now: UnixMs) -> Result<(), KnockRefused> {
        if time < self.earliest {
            return Err(KnockRefused::TooEarly);
        }
        if time.abs_diff(now) > self.settings.window_ms || self.forgotten.is_some_and(|forgotten| time <= forgotten) {
            return Err(KnockRefused::OutsideWindow);
        }
        Ok(())
    }

    fn remember(&mut self, time: UnixMs, random: [u8; 16], now: UnixMs) -> Result<(), KnockRefused> {
        while let Some(&(oldest, _)) = self.entries.first() {
            if oldest.saturating_add(self.settings.window_ms) >= now {
                break;
            }
            self.entries.pop_first();
            self.forgotten = self.forgotten.max(Some(oldest));
        }
        if self.entries.contains(&(time, random)) {
            return Err(KnockRefused::Replayed);
        }
        if self.entries.len() >= self.settings.entries_max {
            return Err(KnockRefused::MemoryFull);
        }
        self.entries.insert((time, random));
        Ok(())
    }
}

struct Header {
    profile: Profile,
    time: UnixMs,
    random: [u8; 16],
    mac: [u8; 32],
    first_flight_bytes: usize,
}

impl Header {
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, KnockRefused> {
        let malformed = KnockRefused::Malformed;
        let (version, rest) = bytes.split_first().ok_or(malformed)?;
        let (profile, rest) = rest.split_first().ok_or(malformed)?;
        let (time, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (random, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (mac, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let length = rest.first_chunk().ok_or(malformed)?;
        let profile = Profile::try_from(*profile).map_err(|_| malformed)?;
        let first_flight_bytes = usize::from(u16::from_le_bytes(*length));
        if *version != VERSION || profile == Profile::Local {
            return Err(malformed);
        }
        if first_flight_bytes == 0 || first_flight_bytes > FIRST_FLIGHT_BYTES_MAX {
            return Err(malformed);
        }
        Ok(Header { profile, time: u64::from_le_bytes(*time), random: *random, mac: *mac, first_flight_bytes })
    }
}

/// `protocol.md` 4.2. The length is the first flight's, at most 4,096.
fn mac(
    key: &[u8; 32],
    profile: Profile,
    time: UnixMs,
    random: &[u8; 16],
    responder: &RealmId,
    first_flight: &[u8],
) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"legation/1/knock\0");
    hasher.update(&[profile as u8]);
    hasher.update(&time.to_le_bytes());
    hasher.update(random);
    hasher.update(&responder.0);
    hasher.update(&(first_flight.len() as u16).to_le_bytes());
    hasher.update(first_flight);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
