//! How far scripts come: one whose link is over with its first word says nothing of what is behind.

/// How far a script has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Messages that were delivered to our side, and those of them that came in fragments.
    pub delivered: u32,
    pub joined: u32,
    /// Answers of our side's, and calls of its own that were answered.
    pub answers_given: u32,
    pub answered: u32,
    /// Links that took a session over.
    pub resumed: u32,
    /// What came again on them: to the peer, and to our side, where it had been lost or there already.
    pub heard_again: u32,
    pub said_again: u32,
    /// Messages waited for the peer's credit, and went on.
    pub stalled: u32,
    pub went_on: u32,
    /// Checkpoints that were right.
    pub proven: u32,
}

/// What a script may have done.
pub type Kind = (&'static str, fn(&Reached) -> bool);

impl Reached {
    pub const KINDS: [Kind; 10] = [
        ("something is delivered", |reached| reached.delivered > 0),
        ("more than five messages are", |reached| reached.delivered > 5),
        ("fragments are joined", |reached| reached.joined > 0),
        ("our side answers a call", |reached| reached.answers_given > 0),
        ("a call of ours is answered", |reached| reached.answered > 0),
        ("a session is resumed", |reached| reached.resumed > 0),
        ("something is sent again on it, by our side", |reached| reached.heard_again > 0),
        ("something is sent again on it, by the peer", |reached| reached.said_again > 0),
        ("messages wait for credit, and go on with it", |reached| reached.went_on > 0),
        ("a checkpoint proves something", |reached| reached.proven > 0),
    ];
}
