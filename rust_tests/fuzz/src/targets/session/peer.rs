//! What the peer says, as a script has it.

use legation_proto::codec::Writer;
use legation_proto::frame::cert::Cert;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use legation_proto::rotation::{Revocation, Rotation};
use rust_tests::raw_batch::{fragment, frame};
use rust_tests::realm::{network, Realm};

use super::script::Operation;
use super::world::World;
use super::{destination, mostly_known, rarely};

impl World {
    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            // What ends a session, whatever it says, is rarer than the rest.
            Operation::Frame { lie, .. } if lie % 4 != 0 => self.link().peer.ping(1),
            Operation::Signed { kind, .. } if *kind < 160 => self.link().peer.ping(2),
            Operation::Rotate { serial, .. } | Operation::Revoke { serial, .. } if *serial != 1 => {
                self.link().peer.ping(4)
            }
            Operation::Close(code) if code % 4 != 0 => self.link().peer.ping(3),
            Operation::Frame { kind, flags, lie, body } => {
                let length = (body.len() as u32).wrapping_add_signed((*lie / 16).into());
                let flags = if flags % 16 == 0 { flags / 16 } else { 1 };
                let frame = frame(kind % 0x18, flags, length, body);
                self.link().peer.write(&frame);
            }
            Operation::Signed { kind, body } => {
                let (kind, purpose) = [
                    (FrameType::Learn, Purpose::Learn),
                    (FrameType::Forget, Purpose::Forget),
                    (FrameType::Cert, Purpose::Cert),
                    (FrameType::Rotate, Purpose::Rotate),
                    (FrameType::Revoke, Purpose::Revoke),
                    (FrameType::Batch, Purpose::Batch),
                ][usize::from(kind % 6)];
                let peer = &self.link().peer;
                let signed = match purpose {
                    Purpose::Batch => {
                        let signature = peer.realm.keyring.sign_batch("e1", &network().id(), body);
                        [&body[..], &signature].concat()
                    }
                    purpose => peer.signed(purpose, body.clone()),
                };
                self.write(kind, &signed);
            }
            Operation::Learn { engine: name, key, serial, valid, operations, delegate, realm } => {
                let now = self.link().now;
                let peer = &mut self.link().peer;
                peer.serial = peer.serial.saturating_add_signed(rarely(*serial));
                let mut learn =
                    Learn { operations: *operations, delegate: *delegate, ..peer.learn(mostly_known(*name)) };
                if key % 4 == 1 {
                    learn.key = Realm::number(*key).key();
                } else if key % 4 == 2 {
                    learn.key = [*key; 32];
                }
                if !realm && *serial == 5 {
                    learn.realm = Realm::bob().id();
                }
                if *valid != (0, 0) {
                    learn.not_before = now.saturating_add_signed(valid.0.into());
                    learn.not_after = now.saturating_add_signed(valid.1.into());
                }
                let body = peer.signed(Purpose::Learn, learn.body());
                self.write(FrameType::Learn, &body);
            }
            Operation::Forget { engine: name, serial, reason } => {
                let peer = &mut self.link().peer;
                peer.serial = peer.serial.saturating_add_signed(rarely(*serial));
                let forget =
                    Forget { reason: ForgetReason::ALL[usize::from(reason % 8)], ..peer.forget(mostly_known(*name)) };
                let body = peer.signed(Purpose::Forget, forget.body());
                self.write(FrameType::Forget, &body);
            }
            Operation::Cert { key, serial, valid } => {
                let peer = &mut self.link().peer;
                peer.serial = peer.serial.saturating_add_signed(rarely(*serial));
                let mut cert: Cert = peer.cert();
                if !key {
                    cert.key = Realm::number(7).key();
                }
                if *valid != (0, 0) {
                    cert.not_before = cert.not_before.saturating_add_signed(valid.0.into());
                    cert.not_after = cert.not_after.saturating_add_signed(valid.1.into());
                }
                let body = peer.signed(Purpose::Cert, cert.body());
                self.write(FrameType::Cert, &body);
            }
            Operation::Rotate { new, serial, signed } => {
                let peer = &mut self.link().peer;
                let rotation = Rotation {
                    realm: peer.realm.id(),
                    old: peer.realm.key(),
                    new: Realm::number(*new).key(),
                    serial: (*serial).into(),
                    not_before: peer.now,
                    signature: [3; 64],
                };
                let body = match signed {
                    true => peer.signed(Purpose::Rotate, rotation.body()),
                    false => rotation.encode(),
                };
                self.write(FrameType::Rotate, &body);
            }
            Operation::Revoke { serial, signed } => {
                let peer = &mut self.link().peer;
                let revocation = Revocation {
                    realm: peer.realm.id(),
                    key: peer.realm.key(),
                    serial: (*serial).into(),
                    signature: [3; 64],
                };
                let body = match signed {
                    true => peer.signed(Purpose::Revoke, revocation.body()),
                    false => revocation.encode(),
                };
                self.write(FrameType::Revoke, &body);
            }
            Operation::Batch(batch) => {
                let (body, _) = self.batch(batch, None);
                self.write(FrameType::Batch, &body);
            }
            Operation::Staged { transfer, ahead, pieces, batch } => self.staged(*transfer, *ahead, *pieces, batch),
            Operation::Fragment { transfer, total, bytes } => {
                let mut bytes = bytes.clone();
                let mut total = usize::from(*total);
                if !total.is_multiple_of(16) {
                    bytes.push(7);
                    total = total.max(bytes.len());
                }
                let body = fragment((transfer % 4).into(), total, &bytes);
                self.write(FrameType::Fragment, &body);
            }
            Operation::Checkpoint { first, last, chain, signed } => self.checkpoint(*first, *last, *chain, *signed),
            Operation::Resume { session, received, next } => {
                let versus = self.link();
                let id = match *session || next % 8 != 0 {
                    true => versus.side.session().agreed().session,
                    false => [8; 32],
                };
                let next = if next % 4 == 0 { i64::from(*next) / 4 } else { 0 };
                let next = versus.peer.next_sequence.saturating_add_signed(next);
                let mut body = id.to_vec();
                body.put_u64(0u64.saturating_add_signed((*received / 1_024).into()));
                body.put_u64(next);
                versus.peer.next_sequence = next.max(1);
                self.write(FrameType::Resume, &body);
            }
            Operation::Credit(grants) if grants.is_empty() => self.link().peer.ping(5),
            Operation::Credit(grants) => {
                let mut body = (grants.len() as u16).to_le_bytes().to_vec();
                for (name, bytes) in grants {
                    let destination = if name % 2 == 0 { "b".to_owned() } else { destination(*name) };
                    body.put_str8(&destination);
                    body.put_u32(if name % 16 == 0 { *bytes } else { 1 + bytes % 4_096 });
                }
                self.write(FrameType::Credit, &body);
            }
            Operation::Ack(sequence) => {
                let sequence =
                    if sequence % 16 == 0 { 0u64.saturating_add_signed((*sequence / 1_024).into()) } else { 0 };
                self.write(FrameType::Ack, &sequence.to_le_bytes());
            }
            Operation::Release(entries) => {
                let mut body = (entries.len() as u16).to_le_bytes().to_vec();
                for (what, number, count) in entries {
                    let what = if *what < 240 { what % 4 } else { what % 5 };
                    body.push(1 + what);
                    body.put_u64((*number).into());
                    match what {
                        0 => body.push(if *count < 240 { count % 8 } else { *count }),
                        2 | 3 => body.put_u64(if *count < 240 { 1 } else { (*count).into() }),
                        _ => {}
                    }
                }
                self.write(FrameType::HandleRelease, &body);
            }
            Operation::Ping(token) => self.link().peer.ping(*token),
            Operation::Close(code) => {
                let body = [*code, 0, 1, b'x'];
                self.write(FrameType::Close, &body);
            }
            Operation::Another { additional, session } => {
                self.another(*additional, *session);
            }
            Operation::Over(number) => self.current = usize::from(*number) % self.lines.len(),
            Operation::Lose => self.link().side.lose(),
            Operation::Time(ms) => self.advance((*ms).into()),
            ours => self.ours(ours),
        }
    }
}
