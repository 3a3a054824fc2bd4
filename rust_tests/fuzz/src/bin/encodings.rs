//! What Rust reads and writes, for Elixir to compare with: packets of a length (u32, big-endian), a byte that says what, and content. It answers each
//! with a packet: a byte 1 and content, or a byte 0 where there is nothing to be said. Ends with its input. `test/legation/encodings_test.exs`.

use std::io::{self, Read, Write};

use legation_node::dist::term::{self, OwnNode};
use legation_node::identity::agent_protocol::{decode_answer, encode_request, Answer, Request};
use legation_proto::identity::{NetworkId, Purpose};
use legation_proto::key_text::{format_public_key, parse_public_key};

const PURPOSES: [Purpose; 5] = [Purpose::Link, Purpose::Hello, Purpose::Cert, Purpose::Learn, Purpose::Forget];

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        input.read_exact(&mut packet)?;
        let answer = packet.split_first().and_then(|(what, content)| answer(*what, content));
        let packet = answer.map_or(vec![0], |content| [&[1], &content[..]].concat());
        output.write_all(&(packet.len() as u32).to_be_bytes())?;
        output.write_all(&packet)?;
        output.flush()?;
    }
    Ok(())
}

fn answer(what: u8, content: &[u8]) -> Option<Vec<u8>> {
    match what {
        1 => Some(parse_public_key(std::str::from_utf8(content).ok()?)?.to_vec()),
        2 => Some(format_public_key(content.try_into().ok()?).into_bytes()),
        3 => Some(blake3::hash(content).as_bytes().to_vec()),
        4 => {
            let (key, content) = content.split_first_chunk::<32>()?;
            Some(blake3::keyed_hash(key, content).as_bytes().to_vec())
        }
        5 => {
            let (length, content) = content.split_first()?;
            let (context, material) = content.split_at_checked(usize::from(*length))?;
            Some(blake3::derive_key(std::str::from_utf8(context).ok()?, material).to_vec())
        }
        6 => document(std::str::from_utf8(content).ok()?),
        7 => identifier(content),
        8 => request(content),
        9 => {
            let (id, answer) = decode_answer(content).ok()?;
            let (kind, content) = match answer {
                Answer::PublicKey(key) => (129, key.to_vec()),
                Answer::Signature(signature) => (130, signature.to_vec()),
                Answer::Refused(refusal, text) => (255, [&[refusal as u8], text.as_bytes()].concat()),
            };
            Some([&[kind], &id.to_be_bytes()[..], &content].concat())
        }
        _ => None,
    }
}

/// A pid or reference, read and written again from what was read.
fn identifier(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(pid) = term::pid(raw) {
        OwnNode::new(std::str::from_utf8(pid.node).ok()?, pid.creation).pid(&mut out, pid.id, pid.serial);
    } else {
        let reference = term::reference(raw)?;
        let words = [reference.words[0], reference.words[1], reference.words[2]];
        OwnNode::new(std::str::from_utf8(reference.node).ok()?, reference.creation).reference(&mut out, words);
    }
    Some(out)
}

/// Purpose (0: the public key), id, network id, body.
fn request(content: &[u8]) -> Option<Vec<u8>> {
    let (purpose, content) = content.split_first()?;
    let (id, content) = content.split_first_chunk::<8>()?;
    let (network, body) = content.split_first_chunk::<32>()?;
    let request = match purpose {
        0 => Request::PublicKey,
        purpose => {
            let purpose = *PURPOSES.get(usize::from(*purpose) - 1)?;
            Request::Sign { purpose, network: NetworkId(*network), body }
        }
    };
    let mut out = Vec::new();
    encode_request(u64::from_be_bytes(*id), &request, &mut out);
    Some(out.split_off(4))
}

/// As a term in external format.
fn document(text: &str) -> Option<Vec<u8>> {
    let table: toml::Table = text.parse().ok()?;
    let mut out = vec![131];
    put(&toml::Value::Table(table), &mut out)?;
    Some(out)
}

fn put(value: &toml::Value, out: &mut Vec<u8>) -> Option<()> {
    let binary = |text: &str, out: &mut Vec<u8>| {
        out.push(109);
        out.extend((text.len() as u32).to_be_bytes());
        out.extend(text.as_bytes());
    };
    match value {
        toml::Value::String(text) => binary(text, out),
        toml::Value::Integer(number) => {
            out.extend([110, 8, u8::from(*number < 0)]);
            out.extend(number.unsigned_abs().to_le_bytes());
        }
        toml::Value::Boolean(boolean) => term::put_atom(out, if *boolean { "true" } else { "false" }),
        toml::Value::Array(items) if items.is_empty() => out.push(106),
        toml::Value::Array(items) => {
            out.push(108);
            out.extend((items.len() as u32).to_be_bytes());
            for item in items {
                put(item, out)?;
            }
            out.push(106);
        }
        toml::Value::Table(table) => {
            out.push(116);
            out.extend((table.len() as u32).to_be_bytes());
            for (key, item) in table {
                binary(key, out);
                put(item, out)?;
            }
        }
        _ => return None,
    }
    Some(())
}
