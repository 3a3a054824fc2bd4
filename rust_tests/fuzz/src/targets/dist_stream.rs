//! What comes over a distribution connection: frames, fragments, control messages and the terms behind them. Whatever comes, however it is cut.
//!
//! The first byte says whether frames have headers and how the stream is cut; the rest is the stream. A seed is what our own side writes.

use legation_node::dist::control::encode::{self, TargetTerm};
use legation_node::dist::control::{self, Control};
use legation_node::dist::inbound::{Inbound, InboundConfig, Incoming};
use legation_node::dist::outbound::{Outbound, OutboundConfig};
use legation_node::dist::term::{self, OwnNode};
use legation_node::realm::request;

use super::elements;
use crate::Target;

pub const TARGET: Target = Target {
    name: "dist_stream",
    what: "distribution: frames, fragments, control messages, terms",
    run,
    seeds,
    bytes_max: 4_096,
};

const MESSAGE_BYTES_MAX: usize = 2_000;

fn run(input: &[u8]) {
    let Some((&how, stream)) = input.split_first() else { return };
    let config = InboundConfig {
        header: how & 1 != 0,
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragmented_max: 2,
        fragmented_bytes_max: 3_000,
    };
    let whole = read(config, stream, usize::MAX);
    let cut = read(config, stream, 1 + usize::from(how >> 1));
    assert_eq!(whole, cut, "however it is cut");
    terms(stream);
}

/// All that is handed out, in words; and how it ended.
fn read(config: InboundConfig, stream: &[u8], piece: usize) -> Vec<String> {
    let mut inbound = Inbound::new(config);
    let mut said = Vec::new();
    let mut rest = stream;
    loop {
        loop {
            match inbound.next() {
                Ok(Some(Incoming::Tick)) => said.push("tick".to_owned()),
                Ok(Some(Incoming::Message { control, payload })) => {
                    assert_eq!(control.has_payload(), !payload.is_empty(), "{control:?}");
                    assert!(payload.len() <= MESSAGE_BYTES_MAX, "over the limit");
                    assert!(payload.is_empty() || payload[0] == 131, "its version byte");
                    again(&control);
                    terms(payload);
                    said.push(format!("{control:?} {payload:?}"));
                }
                Ok(Some(Incoming::Oversized { control, head: _ })) => {
                    // How much of it there is depends on how it came.
                    said.push(format!("oversized {control:?}"));
                }
                Ok(None) => break,
                Err(error) => {
                    said.push(format!("{error}"));
                    return said;
                }
            }
            assert!(said.len() <= stream.len(), "more messages than bytes");
        }
        if rest.is_empty() {
            return said;
        }
        let space = inbound.space();
        assert!(!space.is_empty() && space.len() <= 1 << 20);
        let bytes = rest.len().min(piece).min(space.len());
        space[..bytes].copy_from_slice(&rest[..bytes]);
        rest = &rest[bytes..];
        inbound.filled(bytes);
    }
}

/// What we read we can write, where there is a writer for it, and read again.
fn again(control: &Control<'_>) {
    let mut out = Vec::new();
    match *control {
        Control::Link { from, to } => encode::link(&mut out, from.raw, to.raw),
        Control::Send { from: Some(from), to } => encode::send_sender(&mut out, from.raw, to.raw),
        Control::Send { from: None, to } => encode::send(&mut out, to.raw),
        Control::RegSend { from, name } => encode::reg_send(&mut out, from.raw, name),
        Control::AliasSend { from, alias } => encode::alias_send(&mut out, from.raw, alias.raw),
        Control::Exit { from, to } => encode::payload_exit(&mut out, from.raw, to.raw),
        Control::Exit2 { from, to } => encode::payload_exit2(&mut out, from.raw, to.raw),
        Control::UnlinkId { id, from, to } => encode::unlink_id(&mut out, id, from.raw, to.raw),
        Control::UnlinkIdAck { id, from, to } => encode::unlink_id_ack(&mut out, id, from.raw, to.raw),
        Control::MonitorP { from, target, reference } => {
            encode::monitor_p(&mut out, from.raw, written(&target), reference.raw);
        }
        Control::DemonitorP { from, target, reference } => {
            encode::demonitor_p(&mut out, from.raw, written(&target), reference.raw);
        }
        Control::MonitorPExit { from, to, reference } => {
            encode::payload_monitor_p_exit(&mut out, written(&from), to.raw, reference.raw);
        }
        _ => return,
    }
    let (read, reason) = control::decode(&out).expect("our own");
    assert!(read == *control && reason.is_none(), "{read:?}, and it was {control:?}");
}

fn written<'a>(target: &control::Target<'a>) -> TargetTerm<'a> {
    match target {
        control::Target::Pid(pid) => TargetTerm::Pid(pid.raw),
        control::Target::Name(name) => TargetTerm::Name(name),
    }
}

/// The walkers over anything.
fn terms(bytes: &[u8]) {
    let element = bytes.get(1..).unwrap_or_default();
    if let Some((first, rest)) = term::take(element) {
        assert_eq!(first.len() + rest.len(), element.len());
        assert_eq!(term::take(first), Some((first, &[][..])), "a term is one by itself");
    }
    if let Some(pid) = term::pid(element) {
        assert!(term::take_pid(pid.raw).is_some());
    }
    if let Some(items) = term::list(element) {
        assert!(items.count() <= element.len());
    }
    if let Some(pairs) = term::map(element) {
        assert!(pairs.count() <= element.len());
    }
    let _ = (term::atom(element), term::reference(element), term::unsigned(element), term::integer(element));
    let _ = (term::binary(element), term::string(element), term::boolean(element), term::text(element));
    match request::classify(bytes) {
        request::Request::Call { pid, tag, request, .. } => {
            assert!(pid.end <= bytes.len() && tag.end <= bytes.len() && request.end <= bytes.len());
            assert!(term::pid(&bytes[pid]).is_some());
            let _ = (request::alias_of(&bytes[tag.clone()]), request::monitor_words(&bytes[tag]));
        }
        request::Request::Cast { message } => assert!(message.end <= bytes.len()),
        request::Request::Plain => {}
    }
    if let Some((_, reply)) = request::stand_in_reply(bytes) {
        assert!(reply.end <= bytes.len());
    }
    if let Some((_, answer)) = request::own_answer(bytes) {
        assert!(answer.end <= bytes.len());
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let (us, them) = (OwnNode::new("legation@127.0.0.1", 7), OwnNode::new("a@127.0.0.1", 5));
    let pid = |node: &OwnNode, id| {
        let mut pid = Vec::new();
        node.pid(&mut pid, id, 0);
        pid
    };
    let (to, from) = (pid(&us, 3), pid(&them, 9));
    let mut reference = Vec::new();
    them.reference(&mut reference, [1, 2, 3]);
    let mut controls: Vec<Vec<u8>> = Vec::new();
    let mut control = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        controls.push(out);
    };
    control(&|out| encode::link(out, &from, &to));
    control(&|out| encode::send_sender(out, &from, &to));
    control(&|out| encode::send(out, &to));
    control(&|out| encode::reg_send(out, &from, "legation"));
    control(&|out| encode::alias_send(out, &from, &reference));
    control(&|out| encode::payload_exit(out, &from, &to));
    control(&|out| encode::payload_exit2(out, &from, &to));
    control(&|out| encode::unlink_id(out, &[97, 1], &from, &to));
    control(&|out| encode::unlink_id_ack(out, &[97, 1], &from, &to));
    control(&|out| encode::monitor_p(out, &from, TargetTerm::Pid(&to), &reference));
    control(&|out| encode::monitor_p(out, &from, TargetTerm::Name(b"ping@bob"), &reference));
    control(&|out| encode::demonitor_p(out, &from, TargetTerm::Pid(&to), &reference));
    control(&|out| encode::payload_monitor_p_exit(out, TargetTerm::Pid(&from), &to, &reference));
    control(&|out| encode::spawn_reply_notsup(out, &reference, &to));
    // What there is no writer for: old forms with the reason inside, with tokens, SPAWN_REQUEST.
    let tuple = |elements: &[&[u8]]| [&[104, elements.len() as u8], &elements.concat()[..]].concat();
    controls.push(tuple(&[&[97, 3], &from, &to, &[106]]));
    controls.push(tuple(&[&[97, 21], &from, &to, &[106], &[97, 1], &[119, 1, b'k']]));
    controls.push(tuple(&[&[97, 29], &reference, &from, &from, &[106], &[106], &[106]]));
    controls.push(tuple(&[&[97, 4], &from, &to]));
    controls.push(tuple(&[&[97, 7], &from, &to]));
    let all = elements();
    let mut seeds = Vec::new();
    for header in [false, true] {
        for (index, control) in controls.iter().enumerate() {
            let mut outbound = Outbound::new(OutboundConfig { header, queue_bytes_max: 1 << 20 });
            let payload = &all[index % all.len()];
            let has = matches!(control::decode(control), Ok((read, None)) if read.has_payload());
            let parts: &[&[u8]] = if has { &[payload] } else { &[] };
            outbound.push(0, control, parts).expect("there is room");
            outbound.tick();
            let mut out = vec![u8::from(header) | 6];
            outbound.take(&mut out, 1 << 20);
            seeds.push(out);
        }
    }
    // Fragments by hand, as ours are 64 KiB.
    for (first, second) in [(1u64, 2u64), (7, 7)] {
        let head = |tag: u8, sequence: u64, number: u64| {
            [&[131, tag][..], &sequence.to_be_bytes(), &number.to_be_bytes()].concat()
        };
        let frames = [
            [&head(69, first, 2)[..], &[0], &controls[1], &[109, 0, 0, 0, 9, 1, 2, 3]].concat(),
            [&head(69, second, 2)[..], &[0], &controls[3], &[109, 0, 0, 0, 9, 1, 2, 3]].concat(),
            [&head(70, first, 1)[..], &[4, 5, 6, 7, 8, 9]].concat(),
            [&head(70, second, 1)[..], &[4, 5, 6, 7, 8, 9]].concat(),
        ];
        let stream: Vec<u8> =
            frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat()).collect();
        seeds.push([&[9], &stream[..]].concat());
    }
    for element in all {
        seeds.push([&[0, 131], &element[..]].concat());
    }
    seeds
}
