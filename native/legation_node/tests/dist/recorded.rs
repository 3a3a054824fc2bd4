//! Frames that a BEAM has sent.

use std::fs;
use std::path::Path;

use legation_node::dist::control::{encode, Control, Target};
use legation_node::dist::inbound::{Inbound, Incoming};
use legation_node::dist::outbound::{Outbound, OutboundConfig};
use legation_node::dist::term;

use crate::support::{config, frame};

/// Op and frame without its length.
fn recorded(file: &str) -> Vec<(u8, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let text = fs::read_to_string(path).expect("recorded frames");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (op, hex) = line.split_once(' ').expect("op and bytes");
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"));
            (op.parse().expect("op"), bytes.collect())
        })
        .collect()
}

/// What each op is read as.
fn kind(control: &Control<'_>) -> &'static [u8] {
    match control {
        Control::Link { .. } => &[1],
        Control::Send { from: None, .. } => &[2, 12],
        Control::Send { from: Some(_), .. } => &[22, 23],
        Control::Exit { .. } => &[3, 13, 24, 25],
        Control::Exit2 { .. } => &[8, 18, 26, 27],
        Control::RegSend { .. } => &[6, 16],
        Control::AliasSend { .. } => &[33, 34, 37],
        Control::GroupLeader { .. } => &[7],
        Control::MonitorP { .. } => &[19],
        Control::DemonitorP { .. } => &[20],
        Control::MonitorPExit { .. } => &[21, 28],
        Control::SpawnRequest { .. } => &[29, 30],
        Control::UnlinkId { .. } => &[35],
        _ => &[],
    }
}

/// `see`: op, the frame as sent, and what was read.
fn each(file: &str, header: bool, see: &mut impl FnMut(u8, &[u8], Control<'_>, &[u8])) {
    let mut inbound = Inbound::new(config(header));
    for (op, bytes) in recorded(file) {
        let sent = frame(&[&bytes]);
        inbound.space()[..sent.len()].copy_from_slice(&sent);
        inbound.filled(sent.len());
        let Ok(Some(Incoming::Message { control, payload })) = inbound.next() else {
            panic!("op {op} isn't read");
        };
        assert!(kind(&control).contains(&op), "{op} was read as {control:?}");
        see(op, &sent, control, payload);
    }
    assert_eq!(inbound.counters().undecodable, 0);
}

#[test]
fn what_a_beam_sends_is_read() {
    let files = [
        ("dist_otp25_header.txt", true, 30),
        ("dist_otp25_passed_through.txt", false, 30),
        ("dist_otp25_older_forms.txt", false, 30),
        ("dist_otp25_spawn.txt", true, 2),
        ("dist_otp27_header.txt", true, 30),
        ("dist_otp29_header.txt", true, 30),
        ("dist_otp29_altact.txt", true, 3),
    ];
    for (file, header, count) in files {
        let mut seen = 0;
        each(file, header, &mut |op, _, control, payload| {
            seen += 1;
            assert_eq!(control.has_payload(), !payload.is_empty(), "{op}");
            if let [131, term @ ..] = payload {
                assert_eq!(term::skip(term), Some(&[][..]), "{op}: {payload:?}");
            }
        });
        assert_eq!(seen, count, "{file}");
    }
}

#[test]
fn the_same_is_said_in_each_form() {
    let told = |file, header| {
        let mut all = Vec::new();
        each(file, header, &mut |_, _, control, payload| {
            let what = match control {
                Control::Send { .. } => "send".to_owned(),
                Control::MonitorPExit { from: Target::Name(name), .. } => String::from_utf8_lossy(name).into_owned(),
                other => format!("{:?}", kind(&other)),
            };
            all.push((what, payload.len()));
        });
        all
    };
    let header = told("dist_otp25_header.txt", true);
    assert_eq!(told("dist_otp25_passed_through.txt", false), header);
    assert_eq!(told("dist_otp25_older_forms.txt", false), header);
    // Later ones have longer references in their payloads.
    let kinds = |told: Vec<(String, usize)>| told.into_iter().map(|(what, _)| what).collect::<Vec<_>>();
    let header = kinds(header);
    assert_eq!(kinds(told("dist_otp27_header.txt", true)), header);
    assert_eq!(kinds(told("dist_otp29_header.txt", true)), header);
}

#[test]
fn every_kind_of_term_is_walked_for_its_atoms() {
    let mut atoms = Vec::new();
    each("dist_otp25_header.txt", true, &mut |_, _, _, payload| {
        if let [131, term @ ..] = payload {
            let rest = term::for_each_atom(term, &mut |atom| {
                atoms.push(atom.to_text().map(|text| text.into_owned()));
            });
            assert_eq!(rest, Some(&[][..]));
        }
    });
    for name in ["$gen_call", "alias", "ping", "tail", "lists", "driver", "é", "ж", "", "true", "crashed", "noproc"] {
        assert!(atoms.iter().any(|atom| atom.as_deref() == Some(name)), "{name}");
    }
    assert!(!atoms.iter().any(|atom| atom.as_deref() == Some("v@127.0.0.1")), "a node's name");
}

#[test]
fn we_write_what_a_beam_writes() {
    let files = [
        ("dist_otp25_header.txt", true),
        ("dist_otp25_passed_through.txt", false),
        ("dist_otp27_header.txt", true),
        ("dist_otp29_header.txt", true),
    ];
    for (file, header) in files {
        let mut compared = 0;
        each(file, header, &mut |op, sent, control, payload| {
            let mut out = Vec::new();
            match control {
                Control::Link { from, to } => encode::link(&mut out, from.raw, to.raw),
                Control::Send { from: Some(from), to } if op == 22 => encode::send_sender(&mut out, from.raw, to.raw),
                Control::RegSend { from, name } if op == 6 => encode::reg_send(&mut out, from.raw, name),
                Control::AliasSend { from, alias } if op == 33 => encode::alias_send(&mut out, from.raw, alias.raw),
                Control::Exit { from, to } if op == 24 => encode::payload_exit(&mut out, from.raw, to.raw),
                Control::Exit2 { from, to } if op == 26 => encode::payload_exit2(&mut out, from.raw, to.raw),
                Control::UnlinkId { id, from, to } => encode::unlink_id(&mut out, id, from.raw, to.raw),
                Control::MonitorP { from, target, reference } => {
                    encode::monitor_p(&mut out, from.raw, encoded(target), reference.raw);
                }
                Control::DemonitorP { from, target, reference } => {
                    encode::demonitor_p(&mut out, from.raw, encoded(target), reference.raw);
                }
                Control::MonitorPExit { from, to, reference } => {
                    encode::payload_monitor_p_exit(&mut out, encoded(from), to.raw, reference.raw);
                }
                _ => return,
            }
            let mut outbound = Outbound::new(OutboundConfig { header, queue_bytes_max: 1 << 20 });
            let pieces = [payload.get(1..).unwrap_or_default()];
            let payload = if payload.is_empty() { &[][..] } else { &pieces[..] };
            outbound.push(1, &out, payload).expect("room");
            let mut written = Vec::new();
            outbound.take(&mut written, 1);
            assert_eq!(written, sent, "op {op}");
            compared += 1;
        });
        assert!(compared >= 23, "{compared}");
    }
}

fn encoded(target: Target<'_>) -> encode::TargetTerm<'_> {
    match target {
        Target::Pid(pid) => encode::TargetTerm::Pid(pid.raw),
        Target::Name(name) => encode::TargetTerm::Name(name),
    }
}
