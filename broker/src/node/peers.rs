//! Connections to other nodes. Each direction has its own: the sender dials the receiver's ordinary listener, says who it
//! is, and sends one-way messages. What cannot be sent is dropped; the core owns all time-outs and retries.
//! Start at `Links::send`. Not here: messages that come in, which arrive through `connection`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::shard::Shard;
use crate::core::peer::PeerMessage;
use crate::core::types::NodeId;
use crate::ports::{Clock, Disk, Net, Observer};

/// What waits to be sent to one node.
#[derive(Debug, Default)]
struct Link {
    /// Frames in parts, in order.
    parts: VecDeque<Bytes>,
    bytes: usize,
    is_connected: bool,
    wake: Rc<Notify>,
}

/// The ways to other nodes, made when something is first sent there.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<NodeId, Rc<RefCell<Link>>>,
    /// Notified when a node is spoken to for the first time.
    pub(super) wanted: Rc<Notify>,
    new: VecDeque<NodeId>,
}

impl Links {
    /// Queues a message, where there is a connection with room.
    pub(super) fn send(&mut self, to: NodeId, message: &PeerMessage) {
        let Some(link) = self.links.get(&to) else {
            self.links.insert(to, Rc::new(RefCell::new(Link::default())));
            self.new.push_back(to);
            self.wanted.notify_one();
            return;
        };
        let mut link = link.borrow_mut();
        if !link.is_connected || link.bytes > QUEUE_BYTES_MAX {
            return;
        }
        let (head, tail) = message.encode();
        link.bytes += head.len() + tail.len();
        link.parts.push_back(head);
        if !tail.is_empty() {
            link.parts.push_back(tail);
        }
        link.wake.notify_one();
    }
}

/// Keeps a connection to every node that was ever spoken to; never ends.
pub(super) async fn keep_links<D: Disk, N: Net, C: Clock, O: Observer>(
    shard: Weak<RefCell<Shard<D, C, O>>>,
    net: N,
    clock: C,
) {
    let Some(wanted) = shard.upgrade().map(|shard| shard.borrow().links.wanted.clone()) else { return };
    loop {
        let Some(strong) = shard.upgrade() else { return };
        let found = {
            let mut shard = strong.borrow_mut();
            let id = shard.links.new.pop_front();
            id.and_then(|id| Some((id, shard.links.links.get(&id)?.clone())))
        };
        drop(strong);
        match found {
            Some((id, link)) => {
                let kept = keep_link(shard.clone(), net.clone(), clock.clone(), id, link);
                tokio::task::spawn_local(kept);
            }
            None => wanted.notified().await,
        }
    }
}

async fn keep_link<D: Disk, N: Net, C: Clock, O: Observer>(
    shard: Weak<RefCell<Shard<D, C, O>>>,
    net: N,
    clock: C,
    id: NodeId,
    link: Rc<RefCell<Link>>,
) {
    let mut pause = REDIAL_MIN;
    loop {
        let Some((hello, address)) = shard.upgrade().map(|shard| shard.borrow().greeting(id)) else { return };
        if let Some((host, port)) = address
            && let Ok(stream) = net.dial(&host, port).await
        {
            pause = REDIAL_MIN;
            {
                let mut link = link.borrow_mut();
                link.is_connected = true;
                link.bytes = hello.len();
                link.parts = VecDeque::from([hello]);
            }
            serve(stream, &link).await;
            link.borrow_mut().is_connected = false;
        }
        clock.sleep_until(clock.monotonic() + pause).await;
        pause = (pause * 2).min(REDIAL_MAX);
    }
}

/// Sends what is queued until the connection ends.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, link: &Rc<RefCell<Link>>) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let wake = link.borrow().wake.clone();
    let send = async {
        let mut small = BytesMut::new();
        loop {
            let part = link.borrow_mut().parts.pop_front();
            let Some(part) = part else {
                wake.notified().await;
                continue;
            };
            // Messages that wait together leave together.
            small.extend_from_slice(&part);
            while small.len() < WRITE_BYTES {
                let Some(next) = link.borrow_mut().parts.pop_front() else { break };
                small.extend_from_slice(&next);
            }
            let length = small.len();
            if writing.write_all(&small.split()).await.is_err() {
                return;
            }
            let mut link = link.borrow_mut();
            link.bytes = link.bytes.saturating_sub(length);
        }
    };
    // The other side says nothing; an end of its half is the end of the connection.
    let hear = async {
        let mut buffer = [0; 64];
        while matches!(reading.read(&mut buffer).await, Ok(count) if count > 0) {}
    };
    tokio::select! {
        biased;
        () = hear => {}
        () = send => {}
    }
}

/// The most bytes that wait for one node.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Parts are joined into writes of about this size.
const WRITE_BYTES: usize = 256 << 10;
const REDIAL_MIN: Duration = Duration::from_millis(20);
const REDIAL_MAX: Duration = Duration::from_millis(500);
