//! BATCH frames by hand: any field may lie. Written from `protocol.md` 9, not with the core's encoder.

/// Kinds of messages (10.1).
pub mod kind {
    pub const SEND: u8 = 1;
    pub const CAST: u8 = 2;
    pub const GENCALL: u8 = 3;
    pub const REPLY: u8 = 4;
    pub const ERROR: u8 = 5;
    pub const EXIT: u8 = 11;
}

/// Detail of an EXIT: `exit/2`, by a process that lives on (10.7).
pub const EXIT_SENT: u8 = 2;

/// Bits of a row's head.
pub const ALIGNED: u8 = 0x10;
pub const STAGED: u8 = 0x20;
pub const CALL: u8 = 0x40;
pub const RESERVED: u8 = 0x80;

/// A row of the table and its payload.
#[derive(Clone, Debug)]
pub struct RawMessage {
    pub kind: u8,
    /// Of the head's bits those above the kind; that for call fields is set where there are any.
    pub flags: u8,
    pub call_id: u64,
    pub caller: u64,
    pub detail: u8,
    /// Written in all modes but 1.
    pub source: Vec<u8>,
    pub destination: Vec<u8>,
    pub payload: Vec<u8>,
    /// Instead of the payload's own.
    pub length: Option<u32>,
}

impl RawMessage {
    pub fn cast(destination: &str, payload: &[u8]) -> RawMessage {
        RawMessage {
            kind: kind::CAST,
            flags: 0,
            call_id: 0,
            caller: 0,
            detail: 0,
            source: Vec::new(),
            destination: destination.into(),
            payload: payload.into(),
            length: None,
        }
    }

    pub fn send(destination: &str, payload: &[u8]) -> RawMessage {
        RawMessage { kind: kind::SEND, ..RawMessage::cast(destination, payload) }
    }

    pub fn call(destination: &str, call_id: u64, caller: u64, payload: &[u8]) -> RawMessage {
        RawMessage { kind: kind::GENCALL, call_id, caller, detail: 1, ..RawMessage::cast(destination, payload) }
    }

    pub fn reply(call_id: u64, payload: &[u8]) -> RawMessage {
        RawMessage { kind: kind::REPLY, call_id, ..RawMessage::cast("", payload) }
    }

    pub fn error(call_id: u64, reason: u8) -> RawMessage {
        RawMessage { kind: kind::ERROR, call_id, detail: reason, ..RawMessage::cast("", &[]) }
    }
}

/// The body of a batch before its signature.
#[derive(Clone, Debug)]
pub struct RawBatch {
    pub session: [u8; 32],
    pub source: [u8; 32],
    pub destination: [u8; 32],
    pub first_sequence: u64,
    /// Instead of the number of messages.
    pub count: Option<u16>,
    pub mode: u8,
    pub engine: Vec<u8>,
    pub table_length: Option<u32>,
    pub payloads_length: Option<u32>,
    pub messages: Vec<RawMessage>,
    /// Behind the payloads.
    pub trailing: Vec<u8>,
    /// Instead of the table of the messages.
    pub table: Option<Vec<u8>>,
}

impl RawBatch {
    /// What the signature is over.
    pub fn body(&self) -> Vec<u8> {
        let table = self.table.clone().unwrap_or_else(|| self.rows());
        let mut body = Vec::new();
        body.extend(self.session);
        body.extend(self.source);
        body.extend(self.destination);
        body.extend(self.first_sequence.to_le_bytes());
        body.extend(self.count.unwrap_or(self.messages.len() as u16).to_le_bytes());
        body.extend([self.mode, self.engine.len() as u8]);
        body.extend(&self.engine);
        let payloads_start = body.len() + 8 + table.len();
        let payloads = self.payloads(payloads_start);
        body.extend(self.table_length.unwrap_or(table.len() as u32).to_le_bytes());
        body.extend(self.payloads_length.unwrap_or(payloads.len() as u32).to_le_bytes());
        body.extend(table);
        body.extend(payloads);
        body
    }

    /// A name has its number from 2 on, in the order in which names come.
    fn rows(&self) -> Vec<u8> {
        let mut table = Vec::new();
        let mut names: Vec<&[u8]> = Vec::new();
        for message in &self.messages {
            let call = message.call_id != 0 || message.caller != 0 || message.detail != 0;
            let head = message.kind | message.flags | if call { CALL } else { 0 };
            table.push(head);
            let source = (self.mode != 1).then_some(&message.source[..]);
            for name in source.into_iter().chain([&message.destination[..]]) {
                match names.iter().position(|known| *known == name) {
                    _ if name.is_empty() => table.push(0),
                    Some(place) => varint(place as u64 + 2, &mut table),
                    None => {
                        table.extend([1, name.len() as u8]);
                        table.extend(name);
                        names.push(name);
                    }
                }
            }
            varint(message.length.map_or(message.payload.len() as u64, u64::from), &mut table);
            if head & CALL != 0 {
                varint(message.call_id, &mut table);
                varint(message.caller, &mut table);
                table.push(message.detail);
            }
        }
        table
    }

    fn payloads(&self, start: usize) -> Vec<u8> {
        let mut payloads = Vec::new();
        let align =
            |payloads: &mut Vec<u8>| payloads.resize((start + payloads.len()).next_multiple_of(1024) - start, 0);
        let mut pad = self.messages.iter().any(|message| message.flags & ALIGNED != 0);
        for message in &self.messages {
            let aligned = message.flags & ALIGNED != 0;
            if pad || aligned {
                align(&mut payloads);
            }
            payloads.extend(&message.payload);
            pad = aligned;
        }
        if pad {
            align(&mut payloads);
        }
        payloads.extend(&self.trailing);
        payloads
    }
}

/// Seven bits a byte, the lowest first, all but the last with the eighth.
pub fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 127 {
        out.push(number as u8 & 127 | 128);
        number /= 128;
    }
    out.push(number as u8);
}

/// What goes on the wire of a batch of one staged message, by `protocol.md` 9.7: header and table of its whole body, the
/// number of the transfer, the signature.
pub fn staged(whole: &[u8], transfer: u32) -> Vec<u8> {
    let name = usize::from(whole[107]);
    let table_at = 108 + name + 8;
    let table = u32::from_le_bytes(whole[108 + name..112 + name].try_into().expect("four bytes")) as usize;
    [&whole[..table_at + table], &transfer.to_le_bytes()[..], &whole[whole.len() - 64..]].concat()
}

/// The body of a FRAGMENT.
pub fn fragment(transfer: u32, total: usize, bytes: &[u8]) -> Vec<u8> {
    [&transfer.to_le_bytes()[..], &(total as u32).to_le_bytes(), bytes].concat()
}
