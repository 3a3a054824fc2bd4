//! Connections to BEAM nodes: listening, dialling, EPMD, and what each connection is to the realm.

use std::sync::Arc;

use crate::dist::control::Control;
use crate::dist::outbound::Outbound;
use crate::dist::term::{Pid, Reference};

/// One connection to a BEAM node. Whatever is sent to that node is appended here and leaves with the next write.
#[derive(Debug)]
pub struct NodeLink {
    /// Unlike that of any other connection of this process.
    pub number: u64,
    /// `name@host`.
    pub node: Box<str>,
    pub creation: u32,
    /// What both sides offered.
    pub flags: u64,
    #[allow(dead_code)]
    out: std::sync::Mutex<Outbound>,
}

/// More waits for this node than may; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue to the node is full")]
pub struct Full;

/// What connections tell the realm. Called from their tasks; must not wait.
pub trait BeamEvents: Send + Sync {
    /// The handshake is through. Messages follow.
    fn node_up(&self, link: &Arc<NodeLink>);
    /// `payload`: see [`crate::dist::inbound::Incoming::Message`].
    fn message(&self, link: &Arc<NodeLink>, control: Control<'_>, payload: &mut [u8]);
    fn oversized(&self, link: &Arc<NodeLink>, control: Control<'_>, head: &mut [u8]);
    /// The connection is over. Nothing follows.
    fn node_down(&self, link: &Arc<NodeLink>);
}
const _: Option<(Pid<'static>, Reference<'static>)> = None;
