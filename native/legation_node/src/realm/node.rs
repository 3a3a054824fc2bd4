//! A BEAM node that is connected: what we know of it, what we watch and ask there, and what waits for an answer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use legation_proto::UnixMs;
use tokio::sync::oneshot;

use crate::net::beam::NodeLink;
use crate::peers::PeerSession;
use crate::realm::atoms::KnownAtoms;
use crate::realm::incoming::Parcel;

#[derive(Debug)]
pub struct Node {
    pub link: Arc<NodeLink>,
    pub atoms: Mutex<KnownAtoms>,
    /// Our monitors of its processes, by the number of their reference.
    pub watches: Mutex<HashMap<u64, Watch>>,
    /// What its `rex` was asked.
    pub questions: Mutex<HashMap<u64, Question>>,
    /// What waits for the node's word on its atoms, by session: everything that came behind in it for this node.
    pub holds: Mutex<HashMap<u64, Hold>>,
    /// Monitors and links that its processes have on ours.
    pub monitors: AtomicUsize,
}

/// Why we watch a process of a BEAM node.
#[derive(Debug)]
pub enum Watch {
    /// A peer has it, under this number: it has called, or its pid was in a message.
    Exported { session: Arc<PeerSession>, number: u64, pid: Box<[u8]> },
    /// It is an engine.
    Engine { name: Box<str> },
    /// It hears of peers and engines.
    Subscriber,
    /// It has a global name that one of ours stands by for.
    Holder { name: Box<str> },
    /// It looks at messages for us.
    Gate,
}

#[derive(Debug)]
pub enum Question {
    /// Whether it has the atoms of what this session's hold begins with.
    Atoms { session: u64 },
    /// The answer, as a term without version byte.
    Call(oneshot::Sender<Vec<u8>>),
}

/// What came in one session for this node, while the node is asked about the first of it.
#[derive(Debug)]
pub struct Hold {
    pub session: Arc<PeerSession>,
    pub queue: VecDeque<Held>,
    pub bytes: usize,
    /// The question that is out: only its answer counts. 0: none is.
    pub question: u64,
    /// The atoms in question, and since when.
    pub asked: Vec<Box<str>>,
    pub since: UnixMs,
}

#[derive(Debug)]
pub enum Held {
    Message(Parcel<'static>),
    /// A `DOWN` or an exit, which must not overtake the reply before it.
    Signal {
        key: u64,
        control: Vec<u8>,
        payload: Option<Vec<u8>>,
    },
}

/// What a signal takes beside its reason, roughly.
pub const SIGNAL_BYTES: usize = 256;

impl Held {
    /// Of what a hold may have, bytes.
    pub fn cost(&self) -> usize {
        match self {
            Held::Message(parcel) => parcel.cost(),
            Held::Signal { payload, .. } => SIGNAL_BYTES + payload.as_ref().map_or(0, Vec::len),
        }
    }
}

impl Question {
    pub fn is_abandoned(&self) -> bool {
        matches!(self, Question::Call(sender) if sender.is_closed())
    }
}

impl Node {
    pub fn new(link: Arc<NodeLink>, atoms: KnownAtoms) -> Node {
        Node {
            link,
            atoms: Mutex::new(atoms),
            watches: Mutex::default(),
            questions: Mutex::default(),
            holds: Mutex::default(),
            monitors: AtomicUsize::new(0),
        }
    }
}
