//! Generated terms and control messages, and streams to read them from.

use legation_node::dist::control::{Control, Target};
use legation_node::dist::inbound::{Inbound, InboundConfig, InboundError, Incoming};
use legation_node::dist::term::{Pid, Reference};
use proptest::collection::vec;
use proptest::prelude::*;

/// A term with what is known of it.
#[derive(Clone, Debug)]
pub struct Generated {
    pub bytes: Vec<u8>,
    /// Text and whether it is latin1, in order; without the names of nodes.
    pub atoms: Vec<(Vec<u8>, bool)>,
}

impl Generated {
    fn plain(bytes: Vec<u8>) -> Generated {
        Generated { bytes, atoms: Vec::new() }
    }
}

fn join(head: Vec<u8>, parts: &[Generated]) -> Generated {
    parts.iter().fold(Generated::plain(head), |mut all, part| {
        all.bytes.extend_from_slice(&part.bytes);
        all.atoms.extend_from_slice(&part.atoms);
        all
    })
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    std::iter::once(tag).chain(parts.iter().flat_map(|part| part.iter().copied())).collect()
}

fn long(tag: u8, count: usize) -> Vec<u8> {
    tagged(tag, &[&(count as u32).to_be_bytes()])
}

/// An atom in any of its four tags.
pub fn atom() -> impl Strategy<Value = Generated> {
    let latin1 = vec(any::<u8>(), 0..20);
    let utf8 = "[a-zé-жぁ-ん@_0-9]{0,20}".prop_map(String::into_bytes);
    prop_oneof![
        (utf8, any::<bool>()).prop_map(|(text, small)| atom_bytes(text, false, small)),
        (latin1, any::<bool>()).prop_map(|(text, small)| atom_bytes(text, true, small)),
    ]
}

fn atom_bytes(text: Vec<u8>, latin1: bool, small: bool) -> Generated {
    let length = text.len() as u16;
    let bytes = match (latin1, small) {
        (false, true) => tagged(119, &[&[length as u8], &text]),
        (false, false) => tagged(118, &[&length.to_be_bytes(), &text]),
        (true, true) => tagged(115, &[&[length as u8], &text]),
        (true, false) => tagged(100, &[&length.to_be_bytes(), &text]),
    };
    Generated { bytes, atoms: vec![(text, latin1)] }
}

fn node_bytes(name: &str, small: bool) -> Vec<u8> {
    atom_bytes(name.as_bytes().to_vec(), false, small).bytes
}

fn node_name() -> impl Strategy<Value = String> {
    "[a-zß-ö]{1,9}@[a-z0-9.]{1,12}"
}

/// Any term that a BEAM sends.
pub fn term() -> impl Strategy<Value = Generated> {
    let plain = |strategy: BoxedStrategy<Vec<u8>>| strategy.prop_map(Generated::plain).boxed();
    let leaf = prop_oneof![
        atom().boxed(),
        plain(any::<u8>().prop_map(|value| vec![97, value]).boxed()),
        plain(any::<i32>().prop_map(|value| tagged(98, &[&value.to_be_bytes()])).boxed()),
        plain(any::<f64>().prop_map(|value| tagged(70, &[&value.to_be_bytes()])).boxed()),
        plain(vec(any::<u8>(), 0..12).prop_map(|digits| tagged(110, &[&[digits.len() as u8, 1], &digits])).boxed()),
        plain(
            vec(any::<u8>(), 0..300)
                .prop_map(|digits| tagged(111, &[&(digits.len() as u32).to_be_bytes(), &[0], &digits]))
                .boxed()
        ),
        plain(Just(vec![106]).boxed()),
        plain(
            vec(any::<u8>(), 0..9).prop_map(|text| tagged(107, &[&(text.len() as u16).to_be_bytes(), &text])).boxed()
        ),
        plain(
            vec(any::<u8>(), 0..40).prop_map(|data| tagged(109, &[&(data.len() as u32).to_be_bytes(), &data])).boxed()
        ),
        plain(
            (vec(any::<u8>(), 1..9), 1u8..=8)
                .prop_map(|(data, bits)| tagged(77, &[&(data.len() as u32).to_be_bytes(), &[bits], &data]))
                .boxed()
        ),
        plain(pid().prop_map(|pid| pid.raw).boxed()),
        plain(reference().prop_map(|reference| reference.raw).boxed()),
        plain(port().boxed()),
        (atom(), atom(), any::<u8>()).prop_map(|(module, function, arity)| {
            join(vec![113], &[module, function, Generated::plain(vec![97, arity])])
        }),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| join(vec![104, items.len() as u8], &items)),
            vec(inner.clone(), 0..6).prop_map(|items| join(long(105, items.len()), &items)),
            // The last is the tail.
            vec(inner.clone(), 2..6).prop_map(|items| join(long(108, items.len() - 1), &items)),
            vec((inner.clone(), inner.clone()), 0..4).prop_map(|pairs| {
                let items: Vec<_> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
                join(long(116, items.len() / 2), &items)
            }),
            (atom(), pid(), vec(inner, 0..3), any::<[u8; 22]>()).prop_map(|(module, creator, free, numbers)| {
                let head = tagged(112, &[&[0; 4], &numbers[..21], &(free.len() as u32).to_be_bytes()]);
                let fixed = [
                    module,
                    Generated::plain(vec![97, numbers[21]]),
                    Generated::plain(vec![98, 1, 2, 3, 4]),
                    Generated::plain(creator.raw),
                ];
                let fun = join(join(head, &fixed).bytes, &free);
                let atoms = fixed.iter().chain(&free).flat_map(|part| part.atoms.clone()).collect();
                Generated { atoms, ..fun }
            }),
        ]
    })
}

fn port() -> impl Strategy<Value = Vec<u8>> {
    (node_name(), any::<[u8; 12]>(), any::<bool>(), 0..3u8).prop_map(|(node, numbers, small, form)| {
        let (tag, count) = [(120, 12), (89, 8), (102, 5)][usize::from(form)];
        tagged(tag, &[&node_bytes(&node, small), &numbers[..count]])
    })
}

#[derive(Clone, Debug)]
pub struct OwnedPid {
    pub raw: Vec<u8>,
    pub node: String,
    pub id: u32,
    pub serial: u32,
    pub creation: u32,
}

impl OwnedPid {
    pub fn lend(&self) -> Pid<'_> {
        Pid { raw: &self.raw, node: self.node.as_bytes(), id: self.id, serial: self.serial, creation: self.creation }
    }
}

pub fn pid() -> impl Strategy<Value = OwnedPid> {
    (node_name(), any::<(u32, u32, u32)>(), any::<bool>(), any::<bool>()).prop_map(
        |(node, (id, serial, creation), small, newer)| {
            let creation = if newer { creation } else { creation & 0xff };
            let numbers = [id.to_be_bytes(), serial.to_be_bytes(), creation.to_be_bytes()].concat();
            let raw = match newer {
                true => tagged(88, &[&node_bytes(&node, small), &numbers]),
                false => tagged(103, &[&node_bytes(&node, small), &numbers[..8], &numbers[11..]]),
            };
            OwnedPid { raw, node, id, serial, creation }
        },
    )
}

#[derive(Clone, Debug)]
pub struct OwnedReference {
    pub raw: Vec<u8>,
    pub node: String,
    pub creation: u32,
    pub words: Vec<u32>,
}

impl OwnedReference {
    pub fn lend(&self) -> Reference<'_> {
        let mut words = [0; 5];
        words[..self.words.len()].copy_from_slice(&self.words);
        Reference {
            raw: &self.raw,
            node: self.node.as_bytes(),
            creation: self.creation,
            words,
            count: self.words.len() as u8,
        }
    }
}

pub fn reference() -> impl Strategy<Value = OwnedReference> {
    (node_name(), vec(any::<u32>(), 1..=5), any::<u32>(), any::<bool>(), any::<bool>()).prop_map(
        |(node, words, creation, small, newer)| {
            let creation = if newer { creation } else { creation & 0xff };
            let count = (words.len() as u16).to_be_bytes();
            let numbers: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let name = node_bytes(&node, small);
            let raw = match newer {
                true => tagged(90, &[&count, &name, &creation.to_be_bytes(), &numbers]),
                false => tagged(114, &[&count, &name, &[creation as u8], &numbers]),
            };
            OwnedReference { raw, node, creation, words }
        },
    )
}

#[derive(Clone, Debug)]
pub enum OwnedTarget {
    Pid(OwnedPid),
    Name(String),
}

impl OwnedTarget {
    pub fn lend(&self) -> Target<'_> {
        match self {
            OwnedTarget::Pid(pid) => Target::Pid(pid.lend()),
            OwnedTarget::Name(name) => Target::Name(name.as_bytes()),
        }
    }

    fn raw(&self) -> Vec<u8> {
        match self {
            OwnedTarget::Pid(pid) => pid.raw.clone(),
            OwnedTarget::Name(name) => node_bytes(name, name.len() % 2 == 0),
        }
    }
}

pub fn name() -> impl Strategy<Value = String> {
    "[a-zé-ж_.]{0,20}"
}

pub fn target() -> impl Strategy<Value = OwnedTarget> {
    prop_oneof![pid().prop_map(OwnedTarget::Pid), name().prop_map(OwnedTarget::Name)]
}

/// Every control message that is read: op, flags (of 37).
pub const FORMS: [(u8, u8); 39] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (12, 0),
    (13, 0),
    (16, 0),
    (18, 0),
    (19, 0),
    (20, 0),
    (21, 0),
    (22, 0),
    (23, 0),
    (24, 0),
    (25, 0),
    (26, 0),
    (27, 0),
    (28, 0),
    (29, 0),
    (30, 0),
    (31, 0),
    (32, 0),
    (33, 0),
    (34, 0),
    (35, 0),
    (36, 0),
    (37, 0),
    (37, 1),
    (37, 2),
    (37, 4),
    (37, 6),
    (37, 8),
    (37, 11),
    (37, 16),
    (37, 17),
    (37, 19),
];

/// One control message with all that may stand in one.
#[derive(Clone, Debug)]
pub struct Case {
    pub form: (u8, u8),
    pub from: OwnedPid,
    pub to: OwnedPid,
    pub target: OwnedTarget,
    pub reference: OwnedReference,
    pub name: String,
    pub id: Vec<u8>,
    pub token: Vec<u8>,
    pub reason: Vec<u8>,
    pub message: Vec<u8>,
}

pub fn case() -> impl Strategy<Value = Case> {
    let id = prop_oneof![
        any::<u8>().prop_map(|id| vec![97, id]),
        (0..i32::MAX).prop_map(|id| tagged(98, &[&id.to_be_bytes()])),
        any::<u64>().prop_map(|id| tagged(110, &[&[8, 0], &id.to_le_bytes()])),
    ];
    let terms =
        (term(), term(), term()).prop_map(|(token, reason, message)| (token.bytes, reason.bytes, message.bytes));
    (proptest::sample::select(&FORMS), pid(), pid(), target(), reference(), name(), id, terms).prop_map(
        |(form, from, to, target, reference, name, id, (token, reason, message))| Case {
            form,
            from,
            to,
            target,
            reference,
            name,
            id,
            token,
            reason,
            message,
        },
    )
}

impl Case {
    /// The tuple, its reason if there is one in it, and whether a payload follows.
    pub fn control(&self) -> (Vec<u8>, Option<&[u8]>, bool) {
        let (op, flags) = self.form;
        let (from, to, reference) = (&self.from.raw[..], &self.to.raw[..], &self.reference.raw[..]);
        let (token, reason) = (&self.token[..], &self.reason[..]);
        let target = self.target.raw();
        let name = node_bytes(&self.name, true);
        let (zero, flags_term) = ([97, 0], [97, flags]);
        let mfa = [&[104, 3][..], &name, &name, &[97, 2]].concat();
        let elements: Vec<&[u8]> = match op {
            1 | 4 | 7 | 22 | 24 | 26 => vec![from, to],
            2 => vec![&[119, 0], to],
            3 | 8 => vec![from, to, reason],
            6 => vec![from, &[119, 0], &name],
            12 => vec![&[104, 0], to, token],
            13 | 18 => vec![from, to, token, reason],
            16 => vec![from, &[119, 0], &name, token],
            19 | 20 => vec![from, &target, reference],
            21 => vec![&target, to, reference, reason],
            23 | 25 | 27 => vec![from, to, token],
            28 => vec![&target, to, reference],
            29 => vec![reference, from, to, &mfa, &[106]],
            30 => vec![reference, from, to, &mfa, &[106], token],
            31 => vec![reference, to, &zero, from],
            32 => vec![reference, to, &zero, &name, token],
            33 => vec![from, reference],
            34 => vec![from, reference, token],
            35 | 36 => vec![&self.id, from, to],
            37 => {
                let whom = match flags & 12 {
                    4 => reference,
                    8 => &name,
                    _ => to,
                };
                let mut elements = vec![&flags_term, from, whom];
                elements.extend((flags & 2 != 0).then_some(token));
                elements
            }
            _ => unreachable!(),
        };
        let mut tuple = vec![104, elements.len() as u8 + 1, 97, op];
        elements.iter().for_each(|element| tuple.extend_from_slice(element));
        let reason = matches!(op, 3 | 8 | 13 | 18 | 21).then_some(reason);
        let payload = matches!(op, 2 | 6 | 12 | 16 | 22..=30 | 33 | 34 | 37);
        (tuple, reason, payload)
    }

    /// What it should be read as.
    pub fn expected(&self) -> Control<'_> {
        let (from, to, reference) = (self.from.lend(), self.to.lend(), self.reference.lend());
        let (name, target, id) = (self.name.as_bytes(), self.target.lend(), &self.id[..]);
        match self.form {
            (1, _) => Control::Link { from, to },
            (2 | 12, _) => Control::Send { from: None, to },
            (3 | 13 | 24 | 25, _) => Control::Exit { from, to },
            (4, _) => Control::Unlink { from, to },
            (6 | 16, _) => Control::RegSend { from, name },
            (7, _) => Control::GroupLeader { from, to },
            (8 | 18 | 26 | 27, _) => Control::Exit2 { from, to },
            (19, _) => Control::MonitorP { from, target, reference },
            (20, _) => Control::DemonitorP { from, target, reference },
            (21 | 28, _) => Control::MonitorPExit { from: target, to, reference },
            (22 | 23, _) => Control::Send { from: Some(from), to },
            (29 | 30, _) => Control::SpawnRequest { id: reference, from },
            (31 | 32, _) => Control::SpawnReply { id: reference, to },
            (33 | 34, _) => Control::AliasSend { from, alias: reference },
            (35, _) => Control::UnlinkId { id, from, to },
            (36, _) => Control::UnlinkIdAck { id, from, to },
            (37, flags) if flags & 16 != 0 => Control::Exit2 { from, to },
            (37, flags) if flags & 8 != 0 => Control::RegSend { from, name },
            (37, flags) if flags & 4 != 0 => Control::AliasSend { from, alias: reference },
            (37, _) => Control::Send { from: Some(from), to },
            _ => unreachable!(),
        }
    }

    /// What comes with it, version byte in front; empty for nothing.
    pub fn expected_payload(&self) -> Vec<u8> {
        let (_, reason, payload) = self.control();
        match (reason, payload) {
            (Some(reason), _) => versioned(reason),
            (None, true) => versioned(&self.message),
            (None, false) => Vec::new(),
        }
    }

    /// The frame, length included.
    pub fn frame(&self, header: bool) -> Vec<u8> {
        let (control, _, payload) = self.control();
        whole_frame(header, &control, payload.then_some(&self.message[..]))
    }
}

pub fn versioned(term: &[u8]) -> Vec<u8> {
    tagged(131, &[term])
}

pub fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

pub fn whole_frame(header: bool, control: &[u8], payload: Option<&[u8]>) -> Vec<u8> {
    match (header, payload) {
        (true, payload) => frame(&[&[131, 68, 0], control, payload.unwrap_or_default()]),
        (false, Some(payload)) => frame(&[&[112, 131], control, &[131], payload]),
        (false, None) => frame(&[&[112, 131], control]),
    }
}

pub fn first_fragment(sequence: u64, number: u64, body: &[u8]) -> Vec<u8> {
    frame(&[&[131, 69], &sequence.to_be_bytes(), &number.to_be_bytes(), &[0], body])
}

pub fn next_fragment(sequence: u64, number: u64, part: &[u8]) -> Vec<u8> {
    frame(&[&[131, 70], &sequence.to_be_bytes(), &number.to_be_bytes(), part])
}

/// `from` to `to`, op 22.
pub fn send_sender(from: u32, to: u32) -> Vec<u8> {
    let pid = |id: u32| tagged(88, &[&[119, 3], b"a@b", &id.to_be_bytes(), &[0; 4], &[0, 0, 0, 9]]);
    [&[104, 3, 97, 22][..], &pid(from), &pid(to)].concat()
}

/// A binary of so many bytes, as a term.
pub fn binary(bytes: usize, fill: u8) -> Vec<u8> {
    [&long(109, bytes)[..], &vec![fill; bytes]].concat()
}

pub fn config(header: bool) -> InboundConfig {
    InboundConfig { header, message_bytes_max: 1 << 20, fragmented_max: 8, fragmented_bytes_max: 4 << 20 }
}

/// What came, in a form that can be kept and compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    Tick,
    Message(String, Vec<u8>),
    Oversized(String, Vec<u8>),
}

pub fn message(control: &Control<'_>, payload: &[u8]) -> Came {
    Came::Message(format!("{control:?}"), payload.to_vec())
}

/// Feeds `bytes` in pieces of at most `cut` and keeps what comes.
pub fn read(inbound: &mut Inbound, mut bytes: &[u8], cut: usize) -> Result<Vec<Came>, InboundError> {
    let mut came = Vec::new();
    while !bytes.is_empty() {
        let space = inbound.space();
        let count = space.len().min(cut).min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        inbound.filled(count);
        bytes = &bytes[count..];
        while let Some(incoming) = inbound.next()? {
            came.push(match incoming {
                Incoming::Tick => Came::Tick,
                Incoming::Message { control, payload } => Came::Message(format!("{control:?}"), payload.to_vec()),
                Incoming::Oversized { control, head } => Came::Oversized(format!("{control:?}"), head.to_vec()),
            });
        }
    }
    Ok(came)
}
