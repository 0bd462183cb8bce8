//! `SimNet`: a host's view of the simulated network, turmoil's TCP under our own link rules.
//! turmoil's latency is fixed; jitter, holds, delays and cuts are ours, applied where bytes are read, so that rules may
//! overlap, one request can be picked out, and no byte vanishes. Start at `stream`.
//! Departures from TCP: the handshake's answer takes no time, and a write is never split.

mod connection;
mod frames;
mod link;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use self::connection::{Connection, Fate, Side};
use self::link::Rules;
pub use self::stream::SimStream;
use super::clock::SimTime;
use super::counters::Counters;
use super::trace::{Actor, Trace};
use crate::plan::draws::Draws;
use crate::plan::{Endpoint, LinkRule, OnlyRequest};

/// What a network is made from.
#[derive(Clone)]
pub(crate) struct FabricOptions {
    pub(crate) latency_us: u64,
    pub(crate) jitter_us: u64,
    pub(crate) trace: Trace,
    pub(crate) counters: Counters,
    pub(crate) draws: Draws,
    pub(crate) time: SimTime,
}

/// The network as the nemesis holds it.
pub(crate) struct Fabric {
    options: FabricOptions,
    rules: RefCell<Rules>,
    connections: RefCell<BTreeMap<u64, Rc<RefCell<Connection>>>>,
    /// Accepted connections whose dialer has not looked yet, by the dialer's address.
    accepted: RefCell<BTreeMap<SocketAddr, Rc<RefCell<Connection>>>>,
    numbers: Cell<u64>,
    hosts: RefCell<BTreeMap<IpAddr, Endpoint>>,
    nodes: RefCell<BTreeMap<u32, NodeLink>>,
    changed: Notify,
    /// Where sockets are read into. One for all streams: to clear so much for each look at a socket took a seventh of a run.
    read_room: RefCell<Box<[u8]>>,
}

/// Bytes taken from a socket at once at most.
const SOCKET_READ_BYTES: usize = 64 << 10;

/// A node as the network sees it.
#[derive(Debug, Clone, Copy, Default)]
struct NodeLink {
    incarnation: u64,
    state: LinkState,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum LinkState {
    Up,
    /// The machine answers that nobody listens.
    #[default]
    NoProcess,
    /// Nobody answers.
    NoPower,
}

/// How a node went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// Its process ended; the machine is there.
    Process,
    /// The machine is gone.
    Power,
}

/// A host's view of the network. Clones are the same view.
#[derive(Clone)]
pub struct SimNet {
    fabric: Rc<Fabric>,
    host: Endpoint,
    incarnation: u64,
}

/// A bound listener.
pub struct SimListener {
    listener: turmoil::net::TcpListener,
    net: SimNet,
}

impl SimNet {
    /// Binds a listener on all addresses of the host; port 0 takes a free one.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        if self.is_cut_off() {
            return std::future::pending().await;
        }
        let listener = turmoil::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await?;
        Ok(SimListener { listener, net: self.clone() })
    }

    /// Opens a connection to `node-0:9092`, or to an address with port.
    pub async fn dial(&self, address: &str) -> io::Result<SimStream> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {why}"));
        let (host, port) = address.rsplit_once(':').ok_or_else(|| invalid("a host, `:` and a port are needed"))?;
        let port = port.parse().map_err(|_| invalid("the port is not a number"))?;
        let ip = match host.parse() {
            Ok(ip) => ip,
            Err(_) => self.fabric.ip_of(host).ok_or_else(|| invalid("there is no such host"))?,
        };
        self.dial_address(SocketAddr::new(ip, port)).await
    }

    /// Opens a connection.
    pub async fn dial_address(&self, address: SocketAddr) -> io::Result<SimStream> {
        if self.is_cut_off() {
            return std::future::pending().await;
        }
        let Some(target) = self.fabric.hosts.borrow().get(&address.ip()).copied() else {
            return Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("{address}: there is no such host")));
        };
        self.wait_for_link(target).await?;
        if self.fabric.link_state(target) == Some(LinkState::NoProcess) {
            self.fabric.until_no_process(target).await;
            return Err(refused(address));
        }
        let socket = tokio::select! {
            biased;
            socket = turmoil::net::TcpStream::connect(address) => socket?,
            () = self.fabric.until_no_process(target) => return Err(refused(address)),
        };
        let local = socket.local_addr()?;
        let accepted = self.fabric.accepted.borrow_mut().remove(&local);
        let connection = accepted.ok_or_else(|| refused(address))?;
        let numbers = [("connection", connection.borrow().number)];
        self.fabric.trace(self.host, "net-dial", &numbers);
        Ok(SimStream::new(socket, self.clone(), connection, Side::Dialer))
    }

    /// The address of a node's host at a port.
    pub fn node_address(&self, node: u32, port: u16) -> Option<SocketAddr> {
        let ip = self.fabric.ip_of(&format!("node-{node}"))?;
        Some(SocketAddr::new(ip, port))
    }

    /// Waits while rules hold either direction, as a handshake does; then the delay of the rules and the jitter.
    async fn wait_for_link(&self, target: Endpoint) -> io::Result<()> {
        let fabric = &self.fabric;
        let began_us = fabric.options.time.now_us();
        loop {
            let changed = fabric.changed.notified();
            let (is_held, reset_after_us) = {
                let rules = fabric.rules.borrow();
                let is_held = rules.holds(self.host, target) || rules.holds(target, self.host);
                let resets = [(self.host, target), (target, self.host)];
                let reset = resets.iter().filter_map(|(from, to)| rules.reset_after_us(*from, *to, &[])).min();
                (is_held, reset)
            };
            if !is_held && !fabric.is_without_power(target) {
                break;
            }
            let Some(reset_after_us) = reset_after_us else {
                changed.await;
                continue;
            };
            let waited_us = fabric.options.time.now_us() - began_us;
            if waited_us >= reset_after_us {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep(Duration::from_micros(reset_after_us - waited_us)) => {}
            }
        }
        let (delay_us, jitter_us) = (fabric.rules.borrow().delay_us(self.host, target), self.jitter_us());
        if delay_us + jitter_us > 0 {
            tokio::time::sleep(Duration::from_micros(delay_us + jitter_us)).await;
        }
        Ok(())
    }

    /// When bytes that are written now may be read, unless a rule says later.
    fn due_us(&self) -> u64 {
        self.fabric.options.time.now_us() + self.fabric.options.latency_us + self.jitter_us()
    }

    fn jitter_us(&self) -> u64 {
        let entity = match self.host {
            Endpoint::Node(node) => u64::from(node) << 1,
            Endpoint::Client(client) => u64::from(client) << 1 | 1,
            Endpoint::AnyClient | Endpoint::AnyNode => unreachable!("a host is one node or one client"),
        };
        match self.fabric.options.jitter_us {
            0 => 0,
            jitter_us => self.fabric.options.draws.range("net-jitter", entity, 0, jitter_us),
        }
    }

    /// Whether this view's process has been cut off.
    fn is_cut_off(&self) -> bool {
        let Endpoint::Node(node) = self.host else { return false };
        let nodes = self.fabric.nodes.borrow();
        nodes.get(&node).is_none_or(|link| link.state != LinkState::Up || link.incarnation != self.incarnation)
    }
}

impl SimListener {
    /// The address that was bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection and its peer.
    pub async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        let (socket, peer) = self.listener.accept().await?;
        if self.net.is_cut_off() {
            return std::future::pending().await;
        }
        let fabric = &self.net.fabric;
        let Some(dialer) = fabric.hosts.borrow().get(&peer.ip()).copied() else {
            return Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("{peer} is no host of the world")));
        };
        let number = fabric.numbers.get() + 1;
        fabric.numbers.set(number);
        let connection = Rc::new(RefCell::new(Connection::new(number, dialer, self.net.host)));
        fabric.connections.borrow_mut().insert(number, connection.clone());
        fabric.accepted.borrow_mut().insert(peer, connection.clone());
        fabric.trace(self.net.host, "net-accept", &[("connection", number)]);
        Ok((SimStream::new(socket, self.net.clone(), connection, Side::Listener), peer))
    }
}

impl Fabric {
    pub(crate) fn new(options: FabricOptions) -> Rc<Fabric> {
        Rc::new(Fabric {
            options,
            rules: RefCell::default(),
            connections: RefCell::default(),
            accepted: RefCell::default(),
            numbers: Cell::new(0),
            hosts: RefCell::default(),
            nodes: RefCell::default(),
            changed: Notify::new(),
            read_room: RefCell::new(vec![0; SOCKET_READ_BYTES].into_boxed_slice()),
        })
    }

    pub(crate) fn add_host(&self, ip: IpAddr, endpoint: Endpoint) {
        self.hosts.borrow_mut().insert(ip, endpoint);
    }

    /// A client's view.
    pub(crate) fn client(self: &Rc<Fabric>, client: u32) -> SimNet {
        SimNet { fabric: self.clone(), host: Endpoint::Client(client), incarnation: 0 }
    }

    /// A new process of a node is there: its view. Every earlier view of the node has no effect any more.
    pub(crate) fn node_up(self: &Rc<Fabric>, node: u32) -> SimNet {
        let mut nodes = self.nodes.borrow_mut();
        let link = nodes.entry(node).or_default();
        link.incarnation += 1;
        link.state = LinkState::Up;
        let incarnation = link.incarnation;
        drop(nodes);
        self.changed.notify_waiters();
        SimNet { fabric: self.clone(), host: Endpoint::Node(node), incarnation }
    }

    /// A node's process is cut off. Without power its peers see nothing at all, else what its kernel sends at its end.
    pub(crate) fn node_down(&self, node: u32, down: Down) {
        let state = match down {
            Down::Process => LinkState::NoProcess,
            Down::Power => LinkState::NoPower,
        };
        self.nodes.borrow_mut().entry(node).or_default().state = state;
        if down == Down::Power {
            self.each_connection(|connection| {
                if connection.touches(Endpoint::Node(node)) && connection.fate == Fate::Alive {
                    connection.fate = Fate::Severed { was_written: false };
                    connection.wake();
                }
            });
        }
        self.changed.notify_waiters();
    }

    pub(crate) fn add_rule(&self, from: Endpoint, to: Endpoint, rule: LinkRule, only: Option<OnlyRequest>) -> u64 {
        self.rules.borrow_mut().add(from, to, rule, only)
    }

    pub(crate) fn end_rule(&self, number: u64) {
        self.rules.borrow_mut().remove(number);
        self.look_again();
    }

    pub(crate) fn end_rules(&self) {
        self.rules.borrow_mut().clear();
        self.look_again();
    }

    /// Between steps: resets what a cut has held for too long, and what was written to a machine that came back.
    pub(crate) fn tick(&self) {
        let now_us = self.options.time.now_us();
        self.each_connection(|connection| {
            let is_over = match connection.fate {
                Fate::Alive => connection.is_cut_over(now_us, &self.rules.borrow()),
                Fate::Severed { was_written } => {
                    let ends = [connection.dialer, connection.listener];
                    was_written && !ends.into_iter().any(|end| self.is_without_power(end))
                }
                Fate::Reset => false,
            };
            if is_over {
                connection.fate = Fate::Reset;
                connection.wake();
                self.options.counters.add("connection-reset", 1);
                self.trace(connection.dialer, "net-reset", &[("connection", connection.number)]);
            }
        });
    }

    /// Wakes every reader, writer and dialer, to look at the rules again.
    fn look_again(&self) {
        self.each_connection(Connection::wake);
        self.changed.notify_waiters();
    }

    fn each_connection(&self, mut visit: impl FnMut(&mut Connection)) {
        for connection in self.connections.borrow().values() {
            visit(&mut connection.borrow_mut());
        }
    }

    fn is_without_power(&self, host: Endpoint) -> bool {
        self.link_state(host) == Some(LinkState::NoPower)
    }

    /// Ends when a host has no process to answer, at once where it has none.
    async fn until_no_process(&self, host: Endpoint) {
        loop {
            let changed = self.changed.notified();
            if self.link_state(host) == Some(LinkState::NoProcess) {
                // A refusal travels there and back.
                tokio::time::sleep(Duration::from_micros(2 * self.options.latency_us)).await;
                return;
            }
            changed.await;
        }
    }

    fn link_state(&self, host: Endpoint) -> Option<LinkState> {
        let Endpoint::Node(node) = host else { return None };
        Some(self.nodes.borrow().get(&node).copied().unwrap_or_default().state)
    }

    fn ip_of(&self, name: &str) -> Option<IpAddr> {
        let hosts = self.hosts.borrow();
        hosts.iter().find(|(_, endpoint)| host_name(**endpoint) == name).map(|(ip, _)| *ip)
    }

    fn trace(&self, host: Endpoint, kind: &str, numbers: &[(&str, u64)]) {
        let actor = match host {
            Endpoint::Node(node) => Actor::Node(node),
            Endpoint::Client(client) => Actor::Client(client),
            Endpoint::AnyClient | Endpoint::AnyNode => Actor::Nemesis,
        };
        self.options.trace.event(self.options.time.now_us(), actor, kind, numbers);
    }
}

/// A host's name: `node-0`, `client-0`.
pub(crate) fn host_name(endpoint: Endpoint) -> String {
    match endpoint {
        Endpoint::Node(node) => format!("node-{node}"),
        Endpoint::Client(client) => format!("client-{client}"),
        Endpoint::AnyClient => "any-client".to_string(),
        Endpoint::AnyNode => "any-node".to_string(),
    }
}

fn refused(address: SocketAddr) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("{address} refused the connection"))
}
