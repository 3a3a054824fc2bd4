//! Knock and answer (`protocol.md` 4) as a raw peer says and reads them: by hand, without the core's.

use legation_channel::channel::{Channel, Profile};
use legation_channel::knock::KnockInitiator;
use legation_proto::hello::Role;
use legation_proto::identity::{NetworkKey, RealmId};
use legation_proto::UnixMs;

/// Changes our answer, all of it.
pub type AnswerTwist = Box<dyn FnMut(&mut Vec<u8>)>;

/// What stands before a raw peer's channel.
pub struct Entry {
    /// Initiator: whoever answers will do.
    pub trusting: bool,
    /// Responder: what is said instead of the answer.
    pub twist: Option<AnswerTwist>,
    /// Initiator: the answer was not the one to us.
    pub refused: bool,
    /// Responder: bytes that came behind the opening.
    pub behind: usize,
    role: Role,
    profile: Profile,
    network: NetworkKey,
    /// Responder: a knock is to come.
    knocked: bool,
    /// What the initiator has said so far.
    opening: Vec<u8>,
    /// What came of the answer.
    input: Vec<u8>,
    through: bool,
}

impl Entry {
    /// Of who dials `knock`'s realm, or any, through `channel`; and what is said first.
    ///
    /// # Panics
    /// When the profile has no knock.
    pub fn initiator(
        channel: &mut dyn Channel,
        network: NetworkKey,
        knock: Option<(RealmId, [u8; 16], UnixMs)>,
    ) -> (Entry, Vec<u8>) {
        let mut opening = Vec::new();
        match knock {
            Some((peer, random, now)) => {
                let knock = KnockInitiator::new(network.clone(), peer);
                knock.wrap(channel, now, random, &mut opening).expect("a profile with a knock");
            }
            None => channel.poll_transmit(&mut opening),
        }
        let entry =
            Entry { opening: opening.clone(), ..Entry::new(Role::Initiator, channel.profile(), network, false) };
        (entry, opening)
    }

    /// Of who is dialled. `knocked`: with a knock, which is not looked at.
    pub fn responder(profile: Profile, network: NetworkKey, knocked: bool) -> Entry {
        Entry::new(Role::Responder, profile, network, knocked)
    }

    fn new(role: Role, profile: Profile, network: NetworkKey, knocked: bool) -> Entry {
        Entry {
            trusting: false,
            twist: None,
            refused: false,
            behind: 0,
            role,
            profile,
            network,
            knocked,
            opening: Vec::new(),
            input: Vec::new(),
            through: false,
        }
    }

    /// What of the carrier's bytes is the channel's.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.through {
            self.behind += bytes.len();
            return bytes.to_vec();
        }
        self.input.extend_from_slice(bytes);
        let Some((header, flight)) = self.first() else { return Vec::new() };
        if self.role == Role::Initiator {
            let right = answer(&self.network, self.profile, &self.opening, &self.input[header..header + flight]);
            if !self.trusting && self.input[..32] != right[..32] {
                self.refused = true;
                return Vec::new();
            }
        } else {
            self.opening = self.input[..header + flight].to_vec();
            self.behind = self.input.len() - self.opening.len();
        }
        self.through = true;
        self.input.split_off(header)
    }

    /// How much stands before what comes first, and how much that is, once it is all there.
    fn first(&self) -> Option<(usize, usize)> {
        let number = |at: usize| Some([*self.input.get(at)?, *self.input.get(at + 1)?]);
        let (header, flight) = match (self.role, self.knocked, self.profile) {
            (Role::Initiator, ..) => (34, usize::from(u16::from_le_bytes(number(32)?))),
            (Role::Responder, true, _) => (60, usize::from(u16::from_le_bytes(number(58)?))),
            (Role::Responder, false, Profile::Local) => (0, 32),
            (Role::Responder, false, Profile::Plain) => (0, 64),
            (Role::Responder, false, Profile::Tls) => (0, 5 + usize::from(u16::from_be_bytes(number(3)?))),
        };
        (self.input.len() >= header + flight && !self.refused).then_some((header, flight))
    }

    /// What the channel has to say, as it goes to the carrier.
    pub fn send(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        // Once.
        if self.role == Role::Responder && !bytes.is_empty() && !self.opening.is_empty() {
            let mut answer = answer(&self.network, self.profile, &std::mem::take(&mut self.opening), bytes);
            if let Some(twist) = &mut self.twist {
                twist(&mut answer);
            }
            out.extend_from_slice(&answer);
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

/// What a knock says, right or wrong.
#[derive(Clone, Debug)]
pub struct KnockFields {
    pub version: u8,
    pub profile: u8,
    pub time: UnixMs,
    pub random: [u8; 16],
    /// As it is written; the flight may have another.
    pub length: u16,
}

/// `protocol.md` 4.1 and 4.2, with the flight.
pub fn knock(key: &[u8; 32], responder: RealmId, fields: &KnockFields, flight: &[u8]) -> Vec<u8> {
    let (time, length) = (fields.time.to_le_bytes(), fields.length.to_le_bytes());
    let mut mac = blake3::Hasher::new_keyed(key);
    mac.update(b"legation/1/knock\0").update(&[fields.profile]).update(&time).update(&fields.random);
    mac.update(&responder.0).update(&length).update(flight);
    let mac = mac.finalize();
    [&[fields.version, fields.profile][..], &time, &fields.random, mac.as_bytes(), &length, flight].concat()
}

/// `protocol.md` 4.6, with the flight.
pub fn answer(network: &NetworkKey, profile: Profile, opening: &[u8], flight: &[u8]) -> Vec<u8> {
    let length = (flight.len() as u16).to_le_bytes();
    let hash = blake3::hash(opening);
    let input = [b"legation/1/answer\0", &[profile as u8][..], hash.as_bytes(), &length, flight].concat();
    let mac = blake3::keyed_hash(&network.expose(), &input);
    [mac.as_bytes(), &length[..], flight].concat()
}
