//! Control messages: each form there is, and what isn't one.

use legation_node::dist::control::{decode, encode, Control, ControlError};
use proptest::prelude::*;

use crate::support::{case, name, pid, reference, target, term, OwnedTarget, FORMS};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    #[test]
    fn every_form_is_read_as_what_it_means(case in case()) {
        let (bytes, reason, payload) = case.control();
        let (control, reason_read) = decode(&bytes).expect("a control message");
        prop_assert_eq!(control, case.expected());
        prop_assert_eq!(reason_read, reason);
        prop_assert_eq!(control.has_payload(), payload || reason.is_some());
    }

    #[test]
    fn a_control_message_cut_short_is_malformed(case in case(), cut in any::<proptest::sample::Index>()) {
        let (bytes, ..) = case.control();
        let cut = cut.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..cut]), Err(ControlError::Malformed));
    }

    #[test]
    fn bytes_behind_a_control_message_are_noticed(case in case(), more in term()) {
        let (mut bytes, ..) = case.control();
        bytes.extend_from_slice(&more.bytes);
        prop_assert_eq!(decode(&bytes), Err(ControlError::Trailing));
    }

    #[test]
    fn another_arity_is_no_control_message(case in case(), more in term()) {
        let (mut bytes, ..) = case.control();
        bytes[1] += 1;
        bytes.extend_from_slice(&more.bytes);
        prop_assert_eq!(decode(&bytes), Err(ControlError::Elements(u64::from(case.form.0))));
    }

    #[test]
    fn other_elements_are_no_control_message(form in proptest::sample::select(&FORMS), elements in proptest::collection::vec(term(), 2..7)) {
        let mut bytes = vec![104, elements.len() as u8 + 1, 97, form.0];
        elements.iter().for_each(|element| bytes.extend_from_slice(&element.bytes));
        if let Err(error) = decode(&bytes) {
            prop_assert_eq!(error, ControlError::Elements(u64::from(form.0)));
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn damaged_control_messages_do_no_harm(case in case(), damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4)) {
        let (mut bytes, ..) = case.control();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode(&bytes);
    }

    #[test]
    fn what_is_encoded_is_read_as_the_same(
        from in pid(), to in pid(), target in target(), reference in reference(), name in name(), id in any::<u8>(),
    ) {
        let id = [97, id];
        let target_term = match &target {
            OwnedTarget::Pid(pid) => encode::TargetTerm::Pid(&pid.raw),
            OwnedTarget::Name(name) => encode::TargetTerm::Name(name.as_bytes()),
        };
        let (f, t, r) = (&from.raw[..], &to.raw[..], &reference.raw[..]);
        let (from, to, target, reference) = (from.lend(), to.lend(), target.lend(), reference.lend());
        type Encode<'a> = &'a dyn Fn(&mut Vec<u8>);
        let cases: [(Encode<'_>, Control<'_>); 13] = [
            (&|out| encode::link(out, f, t), Control::Link { from, to }),
            (&|out| encode::send_sender(out, f, t), Control::Send { from: Some(from), to }),
            (&|out| encode::send(out, t), Control::Send { from: None, to }),
            (&|out| encode::reg_send(out, f, &name), Control::RegSend { from, name: name.as_bytes() }),
            (&|out| encode::alias_send(out, f, r), Control::AliasSend { from, alias: reference }),
            (&|out| encode::payload_exit(out, f, t), Control::Exit { from, to }),
            (&|out| encode::payload_exit2(out, f, t), Control::Exit2 { from, to }),
            (&|out| encode::unlink_id(out, &id, f, t), Control::UnlinkId { id: &id, from, to }),
            (&|out| encode::unlink_id_ack(out, &id, f, t), Control::UnlinkIdAck { id: &id, from, to }),
            (&|out| encode::monitor_p(out, f, target_term, r), Control::MonitorP { from, target, reference }),
            (&|out| encode::demonitor_p(out, f, target_term, r), Control::DemonitorP { from, target, reference }),
            (
                &|out| encode::payload_monitor_p_exit(out, target_term, t, r),
                Control::MonitorPExit { from: target, to, reference },
            ),
            (&|out| encode::spawn_reply_notsup(out, r, t), Control::SpawnReply { id: reference, to }),
        ];
        for (encode, expected) in cases {
            // Appended, whatever stands there.
            let mut out = vec![1, 2, 3];
            encode(&mut out);
            prop_assert_eq!(&out[..3], &[1, 2, 3]);
            prop_assert_eq!(decode(&out[3..]), Ok((expected, None)));
        }
    }
}

#[test]
fn a_number_that_is_no_control_message_is_told() {
    for op in (0..=255u8).filter(|op| !FORMS.iter().any(|form| form.0 == *op)) {
        assert_eq!(decode(&[104, 1, 97, op]), Err(ControlError::Unknown(u64::from(op))));
    }
    assert_eq!(decode(&[104, 1, 98, 0, 0, 1, 0]), Err(ControlError::Unknown(256)));
    assert_eq!(decode(&[104, 0]), Err(ControlError::NoTuple));
    assert_eq!(decode(&[104, 1, 106]), Err(ControlError::NoTuple));
    assert_eq!(decode(&[97, 22]), Err(ControlError::NoTuple));
    assert_eq!(decode(&[]), Err(ControlError::Malformed));
}

#[test]
fn a_name_in_latin1_is_read_if_it_is_ascii_as_well() {
    let with_name =
        |name: &[u8]| [&[104, 4, 97, 6, 103, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 0, 1, 119, 0][..], name].concat();
    let ascii = with_name(&[100, 0, 1, b'x']);
    assert!(matches!(decode(&ascii), Ok((Control::RegSend { name: b"x", .. }, None))));
    assert_eq!(decode(&with_name(&[100, 0, 1, 0xe9])), Err(ControlError::Elements(6)));
    assert_eq!(decode(&with_name(&[119, 1, 0xe9])), Err(ControlError::Elements(6)));
}
