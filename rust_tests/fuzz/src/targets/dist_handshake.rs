//! The handshake of Erlang distribution, both roles, with somebody who is no BEAM: frames that are anything, and proper ones, with the right
//! digest if it is asked for.

use arbitrary::Arbitrary;
use legation_node::dist::flags;
use legation_node::dist::handshake::{Handshake, LocalNode, NodeName, Outcome, Verdict, FRAME_BYTES_MAX};

use super::{pieces, script, scripts, Edit, Many};
use crate::Target;

pub const TARGET: Target = Target {
    name: "dist_handshake",
    what: "the handshake of Erlang distribution, both roles",
    run,
    seeds,
    bytes_max: 1_024,
};

const COOKIE: &str = "biscuit";
const OURS: &str = "legation@127.0.0.1";
const THEIRS: &str = "a@127.0.0.1";

#[derive(Arbitrary, Debug)]
struct Script {
    we_dial: bool,
    piece: u8,
    says: Many<Say, 24>,
}

#[derive(Arbitrary, Debug)]
enum Say {
    Bytes(Vec<u8>),
    Frame(Vec<u8>),
    Name { name: u8, flags: u64, creation: u32, edits: Vec<Edit> },
    OldName { name: u8, flags: u32 },
    Complement { flags: u32, creation: u32 },
    Status(u8),
    Challenge { name: u8, flags: u64, edits: Vec<Edit> },
    Reply { right: bool, edits: Vec<Edit> },
    Acknowledgement { right: bool, edits: Vec<Edit> },
    Answer(u8),
    GoOn(bool),
    End,
}

fn name(number: u8) -> &'static str {
    [THEIRS, THEIRS, THEIRS, OURS, "b@example.org", "a", "@h", "a@127.0.0.1@x", "", "\u{e9}@127.0.0.1"]
        [usize::from(number % 10)]
}

fn their_flags(change: u64) -> u64 {
    flags::OFFERED ^ if change.is_multiple_of(3) { change } else { 0 }
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes(), body].concat()
}

fn digest(challenge: u32) -> [u8; 16] {
    md5::compute(format!("{COOKIE}{challenge}")).0
}

fn run(input: &[u8]) {
    let Some(script) = script::<Script>(input) else { return };
    let local = LocalNode {
        name: NodeName::parse(OURS).expect("a name"),
        creation: 7,
        flags: flags::OFFERED,
        cookie: COOKIE.to_owned().into(),
    };
    let mut handshake = match script.we_dial {
        true => Handshake::initiator(local, NodeName::parse(THEIRS).expect("a name")),
        false => Handshake::acceptor(local),
    };
    let mut world = World { challenge: 0, over: false, digest_given: false, dialled: script.we_dial };
    world.look(&mut handshake);
    for say in &script.says.0 {
        world.say(&mut handshake, say, script.piece);
        world.look(&mut handshake);
    }
    handshake.handle_end();
    world.look(&mut handshake);
    assert!(world.over, "it ends with the connection");
}

struct World {
    /// What it has asked us.
    challenge: u32,
    over: bool,
    /// The right answer was among what was said.
    digest_given: bool,
    dialled: bool,
}

impl World {
    fn say(&mut self, handshake: &mut Handshake, say: &Say, piece: u8) {
        let edited = |body: Vec<u8>, edits: &[Edit]| {
            let mut body = body;
            Edit::all(edits, &mut body);
            frame(&body)
        };
        let bytes = match say {
            Say::Bytes(bytes) => bytes.clone(),
            Say::Frame(body) => frame(body),
            Say::Name { name: number, flags, creation, edits } => {
                let name = name(*number).as_bytes();
                let mut body = vec![b'N'];
                body.extend(their_flags(*flags).to_be_bytes());
                body.extend(creation.to_be_bytes());
                body.extend((name.len() as u16).to_be_bytes());
                body.extend(name);
                edited(body, edits)
            }
            Say::OldName { name: number, flags } => {
                let mut body = vec![b'n', 0, 5];
                body.extend(flags.to_be_bytes());
                body.extend(name(*number).as_bytes());
                frame(&body)
            }
            Say::Complement { flags, creation } => {
                frame(&[&b"c"[..], &flags.to_be_bytes(), &creation.to_be_bytes()].concat())
            }
            Say::Status(number) => {
                let words: [&[u8]; 10] = [
                    b"sok",
                    b"sok",
                    b"sok_simultaneous",
                    b"snok",
                    b"snot_allowed",
                    b"salive",
                    b"strue",
                    b"sfalse",
                    b"s",
                    b"snamed:",
                ];
                frame(words[usize::from(number % 10)])
            }
            Say::Challenge { name: number, flags, edits } => {
                let name = name(*number).as_bytes();
                let mut body = vec![b'N'];
                body.extend(their_flags(*flags).to_be_bytes());
                body.extend(1_234u32.to_be_bytes());
                body.extend(5u32.to_be_bytes());
                body.extend((name.len() as u16).to_be_bytes());
                body.extend(name);
                edited(body, edits)
            }
            Say::Reply { right, edits } => {
                self.digest_given |= right;
                let digest = if *right { digest(self.challenge) } else { [1; 16] };
                edited([&b"r"[..], &99u32.to_be_bytes(), &digest].concat(), edits)
            }
            Say::Acknowledgement { right, edits } => {
                self.digest_given |= right;
                let digest = if *right { digest(self.challenge) } else { [1; 16] };
                edited([&b"a"[..], &digest].concat(), edits)
            }
            Say::Answer(number) => {
                let verdicts =
                    [Verdict::Ok, Verdict::OkSimultaneous, Verdict::Nok, Verdict::NotAllowed, Verdict::Alive];
                return handshake.answer(verdicts[usize::from(number % 5)]);
            }
            Say::GoOn(go_on) => return handshake.answer_alive(*go_on),
            Say::End => return handshake.handle_end(),
        };
        pieces(&bytes, piece).for_each(|piece| handshake.handle_bytes(piece));
    }

    fn look(&mut self, handshake: &mut Handshake) {
        let mut out = Vec::new();
        handshake.poll_transmit(&mut out);
        assert!(out.len() <= 4 * FRAME_BYTES_MAX, "short answers");
        // Our challenge stands in what we say: "N" flags challenge, or "r" challenge digest.
        let mut rest = &out[..];
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let Some((body, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
                panic!("half a frame")
            };
            match (body.first(), self.dialled) {
                (Some(b'N'), false) => self.challenge = u32::from_be_bytes(body[9..13].try_into().expect("four")),
                (Some(b'r'), true) => self.challenge = u32::from_be_bytes(body[1..5].try_into().expect("four")),
                _ => {}
            }
            rest = after;
        }
        while let Some(outcome) = handshake.poll_outcome() {
            match outcome {
                Outcome::Caller(name) => assert!(!self.dialled && name.as_str() != OURS, "{name} asks"),
                Outcome::Alive => assert!(self.dialled),
                Outcome::Up(established) => {
                    assert!(self.digest_given, "who doesn't know the cookie is let in");
                    assert_eq!(flags::missing(established.flags), 0, "without flags that are needed");
                    assert!(!self.dialled || established.name.as_str() == THEIRS, "another than was dialled");
                    self.over = true;
                }
                Outcome::Failed(error) => {
                    assert!(!error.to_string().contains(COOKIE), "the cookie in an error");
                    self.over = true;
                }
            }
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    scripts("legation fuzz dist_handshake", 32, 400)
}
