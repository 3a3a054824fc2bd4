//! Keys as people and files have them, receipts, and what a daemon and a key agent say to each other. The first byte says which, the rest is it.

use legation_node::identity::agent_protocol::{
    decode_answer, decode_request, encode_answer, encode_request, Answer, Frames, Request, REQUEST_BYTES_MAX,
};
use legation_proto::identity::{check_public_key, is_engine_name, NetworkId, Purpose};
use legation_proto::key_file::ChainFile;
use legation_proto::key_text::{
    format_network_key, format_public_key, identity_pem, parse_network_key, parse_public_key,
};
use legation_proto::keyring::Keyring;
use legation_proto::receipt;

use crate::Target;

pub const TARGET: Target = Target {
    name: "keys",
    what: "key files and texts, receipts, the key agent's frames",
    run,
    seeds,
    bytes_max: 2_048,
};

fn run(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    match which % 8 {
        0 => pem(bytes),
        1 => public(bytes),
        2 => network(bytes),
        3 => chain(bytes),
        4 => a_receipt(bytes),
        5 => request(bytes),
        6 => answer(bytes),
        _ => frames(bytes),
    }
}

fn pem(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(keyring) = Keyring::from_pem(text, &[1; 32]) {
        check_public_key(keyring.public()).expect("a key that peers take");
        assert!(text.contains("PRIVATE KEY"));
    }
}

fn public(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = is_engine_name(text);
    if let Some(key) = parse_public_key(text) {
        assert_eq!(format_public_key(&key), text, "one text for a key");
        let _ = check_public_key(&key);
    }
}

fn network(bytes: &[u8]) {
    let Some(key) = parse_network_key(bytes) else { return };
    let text = format_network_key(&key.expose());
    let again = parse_network_key(text.as_bytes()).expect("our own");
    assert_eq!(again.expose(), key.expose());
}

fn chain(bytes: &[u8]) {
    let Some(file) = ChainFile::parse(bytes) else { return };
    let text = file.format().expect("what was read can be written");
    let again = ChainFile::parse(text.as_bytes()).expect("our own");
    assert!(again.rotations == file.rotations && again.revocation == file.revocation && again.next == file.next);
    let keyring = Keyring::new(&[1; 32], &[2; 32]);
    let _ = keyring.with_chain(file.rotations, file.revocation);
}

fn a_receipt(bytes: &[u8]) {
    let keyring = rust_tests::vectors::alice();
    let network = rust_tests::vectors::network().id();
    if receipt::verify(bytes, keyring.public(), &network.0).is_ok() {
        let known = super::vectors().iter().any(|vector| vector == bytes);
        assert!(known, "a receipt that nobody has signed");
    }
}

fn request(bytes: &[u8]) {
    let Ok((id, Ok(request))) = decode_request(bytes) else { return };
    let mut out = Vec::new();
    encode_request(id, &request, &mut out);
    assert_eq!(&out[4..], bytes);
}

fn answer(bytes: &[u8]) {
    let Ok((id, answer)) = decode_answer(bytes) else { return };
    let mut out = Vec::new();
    encode_answer(id, &answer, &mut out);
    let Ok((same, again)) = decode_answer(&out[4..]) else { panic!("our own") };
    assert_eq!(same, id);
    match (answer, again) {
        // What is too long is cut.
        (Answer::Refused(reason, text), Answer::Refused(same, cut)) => {
            assert!(reason == same && text.starts_with(&cut) && cut.len() + 3 >= text.len().min(255));
        }
        (answer, again) => assert_eq!(answer, again),
    }
}

fn frames(bytes: &[u8]) {
    let read = |piece: usize| {
        let mut frames = Frames::new(REQUEST_BYTES_MAX);
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            frames.push(piece);
            loop {
                match frames.next_frame() {
                    Ok(Some(frame)) => all.push(Some(frame)),
                    Ok(None) => break,
                    Err(_) => {
                        all.push(None);
                        return all;
                    }
                }
            }
        }
        all
    };
    assert_eq!(read(usize::MAX), read(1), "however it is cut");
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut seed = |which: u8, bytes: &[u8]| seeds.push([&[which], bytes].concat());
    let (pem, key) = identity_pem(&[7; 32]).expect("a seed");
    seed(0, pem.as_bytes());
    seed(0, pem.replace('\n', "\r\n").as_bytes());
    seed(1, format_public_key(&key).as_bytes());
    seed(1, b"ping");
    seed(2, &[3; 32]);
    seed(2, format_network_key(&[0xab; 32]).as_bytes());
    let (carol, network) = (rust_tests::vectors::carol(), rust_tests::vectors::network().id());
    let mut file = ChainFile::of(&carol);
    seed(3, file.format().expect("text").as_bytes());
    file.revocation = carol.sign_revocation(&network).ok();
    file.next = Some("next.pem".into());
    seed(3, file.format().expect("text").as_bytes());
    for vector in super::vectors().iter().filter(|vector| vector.starts_with(b"LGRC") || vector.len() > 400) {
        if vector.len() < 2_000 {
            seed(4, vector);
        }
    }
    let mut out = Vec::new();
    encode_request(7, &Request::PublicKey, &mut out);
    seed(5, &out[4..]);
    seed(7, &out);
    out.clear();
    encode_request(8, &Request::Sign { purpose: Purpose::Hello, network: NetworkId([9; 32]), body: b"body" }, &mut out);
    seed(5, &out[4..]);
    seed(7, &out);
    for answer in [
        Answer::PublicKey([1; 32]),
        Answer::Signature([2; 64]),
        Answer::Refused(legation_node::identity::agent_protocol::Refusal::Failed, "no".into()),
    ] {
        out.clear();
        encode_answer(9, &answer, &mut out);
        seed(6, &out[4..]);
        seed(7, &out);
    }
    seeds
}
