//! What a raw peer has sent without a signature, and what a correct one would say of it next.

use legation_proto::codec::Writer;
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::FrameType;

use crate::raw_batch::RawMessage;
use crate::raw_peer::RawPeer;

/// The mode of such batches.
pub const MODE: u8 = 3;

#[derive(Clone, Debug)]
pub struct RawChain {
    pub value: [u8; 32],
    /// First and last number that is not covered.
    pub open: Option<(u64, u64)>,
}

impl RawChain {
    /// # Panics
    /// Before the hellos are through.
    pub fn of(peer: &RawPeer) -> RawChain {
        let agreed = peer.agreed.as_ref().expect("the hellos are through");
        let begin = [agreed.session, agreed.own.0].concat();
        RawChain { value: blake3::derive_key("legation/1/checkpoint", &begin), open: None }
    }

    /// A batch without a signature.
    pub fn send(&mut self, peer: &mut RawPeer, messages: Vec<RawMessage>) {
        let count = messages.len() as u64;
        let mut batch = peer.batch("", messages);
        batch.mode = MODE;
        let body = batch.body();
        let first = self.open.map_or(batch.first_sequence, |(first, _)| first);
        self.open = Some((first, batch.first_sequence + count - 1));
        self.value = *blake3::hash(&[self.value, *blake3::hash(&body).as_bytes()].concat()).as_bytes();
        peer.write_frame(FrameType::Batch, &body);
    }

    /// The checkpoint that has to come now.
    ///
    /// # Panics
    /// When nothing is open.
    pub fn right(&self) -> Checkpoint {
        let (first, last) = self.open.expect("something is open");
        Checkpoint { first, last, chain: self.value }
    }

    /// Sent and signed.
    pub fn prove(&mut self, peer: &mut RawPeer) {
        let right = self.right();
        let signature = signature(peer, &right);
        say(peer, &right, &signature);
        self.open = None;
    }
}

/// The realm's.
///
/// # Panics
/// Before the hellos are through.
pub fn signature(peer: &RawPeer, checkpoint: &Checkpoint) -> [u8; 64] {
    let agreed = peer.agreed.as_ref().expect("the hellos are through");
    let body = checkpoint.body(&agreed.session, &agreed.own, &agreed.peer);
    peer.realm.keyring.sign_checkpoint(&peer.network.id(), &body)
}

/// Any checkpoint with any signature.
pub fn say(peer: &mut RawPeer, checkpoint: &Checkpoint, signature: &[u8; 64]) {
    let mut body = Vec::new();
    body.put_u64(checkpoint.first);
    body.put_u64(checkpoint.last);
    body.put(&checkpoint.chain);
    body.put(signature);
    peer.write_frame(FrameType::Checkpoint, &body);
}
