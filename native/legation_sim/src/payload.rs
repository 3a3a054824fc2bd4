//! Payloads that say which message they are: `{<<number:64>>, <<filler>>, [pid]}` in external term format.

use std::fmt;

/// A process of a realm, for as long as there is one: numbers are not given twice, and a restart makes others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    pub realm: u8,
    pub boot: u32,
    pub number: u32,
}

impl fmt::Debug for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "<{}.{}.{}>", self.realm, self.boot, self.number)
    }
}

impl Process {
    /// External term format without the leading 131.
    pub fn raw(self) -> Vec<u8> {
        let mut raw = vec![88, 119, 1, b'a' + self.realm];
        raw.extend(self.number.to_be_bytes());
        raw.extend([0; 4]);
        raw.extend(self.boot.to_be_bytes());
        raw
    }

    pub fn parse(raw: &[u8]) -> Option<Process> {
        let [88, 119, 1, name, rest @ ..] = raw else { return None };
        let (number, rest) = rest.split_first_chunk()?;
        let boot = rest.get(4..)?.try_into().ok()?;
        let realm = name.checked_sub(b'a')?;
        Some(Process { realm, boot: u32::from_be_bytes(boot), number: u32::from_be_bytes(*number) })
    }
}

/// So much filler there is in any case: it says that the number is right.
const LEAST: usize = 8;

/// Bytes of a raw pid as above.
const RAW_BYTES: usize = 16;

pub fn encode(number: u64, filler: usize, pids: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + filler + pids.len() * RAW_BYTES);
    out.extend([131, 104, 3, 109, 0, 0, 0, 8]);
    out.extend(number.to_be_bytes());
    out.push(109);
    let filler = filler + LEAST;
    out.extend((filler as u32).to_be_bytes());
    fill(number, filler, &mut out);
    if !pids.is_empty() {
        out.push(108);
        out.extend((pids.len() as u32).to_be_bytes());
        pids.iter().for_each(|pid| out.extend(pid));
    }
    out.push(106);
    out
}

/// The filler of a message: it can be told from that of any other.
fn fill(number: u64, bytes: usize, out: &mut Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let at = out.len();
    out.resize(at + bytes, 0);
    random.fill(&mut out[at..]);
}

/// A payload as it came, with local pids.
#[derive(Debug, PartialEq, Eq)]
pub struct Payload {
    pub number: u64,
    pub filler: usize,
    pub pids: Vec<Vec<u8>>,
}

/// The number of a payload, whatever else is in it.
pub fn number(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(&[131, 104, 3, 109, 0, 0, 0, 8])?;
    rest.first_chunk().map(|number| u64::from_be_bytes(*number))
}

/// None: no payload of ours, or one that was changed.
pub fn decode(bytes: &[u8]) -> Option<Payload> {
    let rest = bytes.strip_prefix(&[131, 104, 3, 109, 0, 0, 0, 8])?;
    let (number, rest) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    let (length, rest) = rest.strip_prefix(&[109])?.split_first_chunk()?;
    let filler = u32::from_be_bytes(*length) as usize;
    let (came, rest) = rest.split_at_checked(filler)?;
    let without = filler.checked_sub(LEAST)?;
    let mut expected = Vec::new();
    fill(number, filler, &mut expected);
    if came != expected {
        return None;
    }
    let mut pids = Vec::new();
    let mut rest = rest;
    if let Some(list) = rest.strip_prefix(&[108]) {
        let (count, list) = list.split_first_chunk()?;
        rest = list;
        for _ in 0..u32::from_be_bytes(*count) {
            let (pid, after) = rest.split_at_checked(RAW_BYTES)?;
            pids.push(pid.to_vec());
            rest = after;
        }
    }
    (rest == [106]).then_some(Payload { number, filler: without, pids })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_as_they_were_written_and_not_when_a_byte_is_another() {
        let process = Process { realm: 1, boot: 2, number: 3 };
        assert_eq!(Process::parse(&process.raw()), Some(process));
        for (filler, pids) in [(0, vec![]), (100, vec![process.raw(), process.raw()])] {
            let mut bytes = encode(7, filler, &pids);
            assert_eq!(decode(&bytes), Some(Payload { number: 7, filler, pids: pids.clone() }));
            // But for those in a pid, which whoever reads it compares.
            for at in 0..bytes.len() - pids.len() * RAW_BYTES - 1 {
                bytes[at] ^= 1;
                assert_eq!(decode(&bytes), None, "{at}");
                bytes[at] ^= 1;
            }
        }
    }
}
