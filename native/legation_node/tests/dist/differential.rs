//! A second opinion: `erl_dist` reads what we write, and writes again what it has read, for us to read.

use erl_dist::message::Message;
use legation_node::dist::control::{Control, Target};
use legation_node::dist::inbound::{Inbound, Incoming};
use legation_node::dist::term::{self, Pid, Reference};
use proptest::prelude::*;

use crate::support::{case, config, Case};

/// Terms that `eetf` writes as it has read them.
fn plain_term() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|number| vec![97, number]),
        "[a-z]{0,9}".prop_map(|name| [&[119, name.len() as u8][..], name.as_bytes()].concat()),
        proptest::collection::vec(any::<u8>(), 0..30)
            .prop_map(|data| [&[109, 0, 0, 0, data.len() as u8][..], &data].concat()),
        Just(vec![104, 2, 119, 1, b'a', 97, 7]),
    ]
}

/// What it can do: it takes token and receiver of SEND_TT for each other, and does not know ALTACT_SIG_SEND.
fn case_it_reads() -> impl Strategy<Value = Case> {
    let known = case().prop_filter("not read by erl_dist", |case| !matches!(case.form.0, 12 | 37));
    (known, plain_term(), plain_term(), plain_term()).prop_map(|(case, token, reason, message)| {
        // Arguments are a list.
        let message = if matches!(case.form.0, 29 | 30) { vec![106] } else { message };
        Case { token, reason, message, ..case }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn erl_dist_and_we_read_the_same(case in case_it_reads()) {
        let frame = case.frame(false);
        let read = Message::read_from(&mut &frame[5..]).expect("erl_dist reads it");
        let mut written = Vec::new();
        read.write_into(&mut written).expect("erl_dist writes it");

        let mut inbound = Inbound::new(config(false));
        let again = crate::support::frame(&[&[112], &written]);
        inbound.space()[..again.len()].copy_from_slice(&again);
        inbound.filled(again.len());
        let Ok(Some(Incoming::Message { control, payload })) = inbound.next() else {
            return Err(TestCaseError::fail("we don't read what erl_dist wrote"));
        };
        prop_assert_eq!(meaning(&control), meaning(&case.expected()));
        prop_assert_eq!(payload, &case.expected_payload()[..]);
    }
}

/// A control message without its encoding, which may differ.
fn meaning(control: &Control<'_>) -> String {
    match *control {
        Control::Link { from, to } => format!("link {} {}", pid(from), pid(to)),
        Control::Send { from, to } => format!("send {:?} {}", from.map(pid), pid(to)),
        Control::RegSend { from, name } => format!("reg_send {} {name:?}", pid(from)),
        Control::AliasSend { from, alias } => format!("alias_send {} {}", pid(from), reference(alias)),
        Control::Exit { from, to } => format!("exit {} {}", pid(from), pid(to)),
        Control::Exit2 { from, to } => format!("exit2 {} {}", pid(from), pid(to)),
        Control::Unlink { from, to } => format!("unlink {} {}", pid(from), pid(to)),
        Control::UnlinkId { id, from, to } => format!("unlink {:?} {} {}", term::unsigned(id), pid(from), pid(to)),
        Control::UnlinkIdAck { id, from, to } => format!("ack {:?} {} {}", term::unsigned(id), pid(from), pid(to)),
        Control::GroupLeader { from, to } => format!("group_leader {} {}", pid(from), pid(to)),
        Control::MonitorP { from, target: whom, reference: by } => {
            format!("monitor {} {} {}", pid(from), target(whom), reference(by))
        }
        Control::DemonitorP { from, target: whom, reference: by } => {
            format!("demonitor {} {} {}", pid(from), target(whom), reference(by))
        }
        Control::MonitorPExit { from, to, reference: by } => {
            format!("down {} {} {}", target(from), pid(to), reference(by))
        }
        Control::SpawnRequest { id, from } => format!("spawn {} {}", reference(id), pid(from)),
        Control::SpawnReply { id, to } => format!("spawned {} {}", reference(id), pid(to)),
        _ => unreachable!(),
    }
}

fn pid(pid: Pid<'_>) -> String {
    format!("{:?}.{}.{}.{}", pid.node, pid.id, pid.serial, pid.creation)
}

fn reference(reference: Reference<'_>) -> String {
    format!("{:?}.{:?}.{}", reference.node, &reference.words[..usize::from(reference.count)], reference.creation)
}

fn target(target: Target<'_>) -> String {
    match target {
        Target::Pid(whom) => pid(whom),
        Target::Name(name) => format!("{name:?}"),
    }
}
