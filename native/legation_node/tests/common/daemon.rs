use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use legation_node::config::{BeamAddress, Limits, NodeConfig, Secret};
use legation_node::dist::control::{encode, Control, Target};
use legation_node::dist::term;
use legation_node::net::beam::{BeamEvents, NodeLink};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};

use super::{soon, COOKIE};

/// A daemon's node `legation@127.0.0.1` that dials `connect`, each with its port if EPMD is not to be asked.
pub fn config(epmd_port: Option<u16>, connect: &[(&str, Option<u16>)]) -> NodeConfig {
    NodeConfig {
        name: "legation@127.0.0.1".to_string(),
        cookie: Secret(COOKIE.to_string().into()),
        listen_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listen_port: 0,
        epmd: epmd_port.is_some(),
        epmd_port: epmd_port.unwrap_or(0),
        connect: connect.iter().map(|(node, port)| BeamAddress { node: node.to_string(), port: *port }).collect(),
        register_global: false,
        global_suffix: String::new(),
        atoms: Vec::new(),
        echo: false,
        handshake_ms: 5_000,
        tick_ms: 1_000,
        silence_ms: 75_000,
    }
}

pub fn limits() -> Limits {
    Limits::default()
}

/// What connections told, in order.
#[derive(Debug)]
pub enum Event {
    Up(Arc<NodeLink>),
    Message(Message),
    Oversized(Arc<NodeLink>),
    Down(Arc<NodeLink>),
}

#[derive(Debug)]
pub struct Message {
    pub link: Arc<NodeLink>,
    pub sent: Sent,
    /// An external term, or nothing.
    pub payload: Vec<u8>,
}

/// A control message, as far as tests want to see it.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    ToName { from: Vec<u8>, name: String },
    Monitor { from: Vec<u8>, name: String },
    Other(String),
}

/// Writes down what it is told.
pub struct Recorder {
    events: UnboundedReceiver<Event>,
}

struct Sink {
    events: UnboundedSender<Event>,
    /// Of each node, by number: up and not down.
    up: Mutex<Vec<(Box<str>, u64)>>,
}

impl Recorder {
    pub fn new() -> (Recorder, Arc<dyn BeamEvents>) {
        let (sender, events) = unbounded_channel();
        let sink = Sink { events: sender, up: Mutex::default() };
        (Recorder { events }, Arc::new(sink))
    }

    pub async fn next(&mut self) -> Event {
        soon("an event", self.events.recv()).await.expect("the node lives")
    }

    /// The next event that isn't a message.
    pub async fn up(&mut self) -> Arc<NodeLink> {
        loop {
            match self.next().await {
                Event::Up(link) => return link,
                Event::Down(link) => panic!("{} is down: {:?}", link.node, link.end()),
                _ => {}
            }
        }
    }

    /// The next event that isn't a message.
    pub async fn down(&mut self) -> Arc<NodeLink> {
        loop {
            match self.next().await {
                Event::Down(link) => return link,
                Event::Up(link) => panic!("{} is up", link.node),
                _ => {}
            }
        }
    }

    /// The next message that such a function takes.
    pub async fn message<T>(&mut self, mut take: impl FnMut(&Message) -> Option<T>) -> T {
        loop {
            match self.next().await {
                Event::Message(message) => {
                    if let Some(taken) = take(&message) {
                        return taken;
                    }
                }
                Event::Oversized(_) => {}
                event => panic!("no message but {event:?}"),
            }
        }
    }

    /// Waits for somebody to ping us and answers.
    pub async fn answer_ping(&mut self) {
        self.message(|message| answer_ping(message).then_some(())).await;
    }

    /// What has come and nobody has asked for.
    pub fn rest(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

/// A call `{is_auth, Node}` of `net_kernel` is answered with `yes`. False: the message is another one.
fn answer_ping(message: &Message) -> bool {
    let Sent::ToName { name, .. } = &message.sent else { return false };
    let parts = message.payload.get(1..).and_then(term::elements::<3>);
    let (true, Some([_, from, _])) = (name == "net_kernel", parts) else { return false };
    let [pid, tag] = term::elements(from).expect("a caller and a tag");
    let (mut control, mut reply) = (Vec::new(), Vec::new());
    encode::send(&mut control, pid);
    term::put_tuple_header(&mut reply, 2);
    reply.extend_from_slice(tag);
    term::put_atom(&mut reply, "yes");
    message.link.push(0, &control, &[&reply]).expect("there is room");
    true
}

impl BeamEvents for Sink {
    fn node_up(&self, link: &Arc<NodeLink>) {
        let mut up = self.up.lock().expect("no panic");
        assert!(up.iter().all(|(node, _)| *node != link.node), "{} is up twice", link.node);
        up.push((link.node.clone(), link.number));
        let _ = self.events.send(Event::Up(link.clone()));
    }

    fn message(&self, link: &Arc<NodeLink>, control: Control<'_>, payload: &mut [u8]) {
        self.assert_up(link);
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("UTF-8");
        let sent = match control {
            Control::RegSend { from, name } => Sent::ToName { from: from.raw.to_vec(), name: text(name) },
            Control::MonitorP { from, target: Target::Name(name), .. } => {
                Sent::Monitor { from: from.raw.to_vec(), name: text(name) }
            }
            other => Sent::Other(format!("{other:?}")),
        };
        let _ = self.events.send(Event::Message(Message { link: link.clone(), sent, payload: payload.to_vec() }));
    }

    fn oversized(&self, link: &Arc<NodeLink>, _control: Control<'_>, _head: &mut [u8]) {
        self.assert_up(link);
        let _ = self.events.send(Event::Oversized(link.clone()));
    }

    fn node_down(&self, link: &Arc<NodeLink>) {
        self.assert_up(link);
        self.up.lock().expect("no panic").retain(|(_, number)| *number != link.number);
        let _ = self.events.send(Event::Down(link.clone()));
    }
}

impl Sink {
    fn assert_up(&self, link: &NodeLink) {
        let up = self.up.lock().expect("no panic");
        assert!(up.iter().any(|(_, number)| *number == link.number), "{} isn't up", link.node);
    }
}
