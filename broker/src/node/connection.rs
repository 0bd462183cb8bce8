//! One connection: frames in, answers out in the order of the requests. A reading task takes all requests that are in
//! its buffer through the core in one turn; a writing task sends whatever answers are ready in one write.
//! Reading pauses while too many requests are unanswered or too much output is unsent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::shard::{Shard, Shared};
use crate::core::machine::{Answer, Event, RequestId};
use crate::core::peer::{Hello, PeerMessage};
use crate::core::types::NodeId;
use crate::ports::{Clock, Disk, Observer};
use crate::wire::frame::{LENGTH_BYTES, take_frame};
use crate::wire::request;
use crate::wire::response;

/// The limits of a node's connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections_max: usize,
    pub(super) frame_bytes_max: usize,
}

/// The way out of a connection.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Answers from the first unanswered request on; those that came early wait for their turn.
    slots: VecDeque<Option<Answer>>,
    /// Sequence of the first slot.
    sequence_first: u64,
    output: BytesMut,
    is_sending: bool,
    is_closed: bool,
    writer: Rc<Notify>,
    reader: Rc<Notify>,
}

impl Outgoing {
    /// Takes an answer, and sends it and those that waited for it.
    pub(super) fn answer(&mut self, sequence: u64, answer: Answer) {
        if self.is_closed {
            return;
        }
        let place = sequence.checked_sub(self.sequence_first).expect("each request is answered once");
        self.slots[place as usize] = Some(answer);
        while let Some(Some(_)) = self.slots.front() {
            let Some(Some(answer)) = self.slots.pop_front() else { break };
            self.sequence_first += 1;
            match answer {
                Answer::Response(header, response) => {
                    if let Err(error) = response::encode(header, *response, &mut self.output) {
                        tracing::error!(%error, "connection closed");
                        self.close();
                    }
                }
                Answer::Nothing => {}
                Answer::Close => self.close(),
            }
        }
        self.writer.notify_one();
        self.reader.notify_one();
    }

    pub(super) fn wake_reader(&self) {
        self.reader.notify_one();
    }

    pub(super) fn is_sent(&self) -> bool {
        self.is_closed || (self.output.is_empty() && !self.is_sending)
    }

    /// Answers come no more; what is in the output is still sent.
    fn close(&mut self) {
        self.is_closed = true;
        self.slots.clear();
        self.writer.notify_one();
        self.reader.notify_one();
    }

    fn has_room(&self) -> bool {
        self.slots.len() < REQUESTS_IN_FLIGHT_MAX && self.output.len() < OUTPUT_BYTES_MAX
    }

    /// Makes a slot for the next request and gives its sequence.
    fn expect_answer(&mut self) -> u64 {
        self.slots.push_back(None);
        self.sequence_first + self.slots.len() as u64 - 1
    }
}

/// Serves a connection with two tasks of the current `LocalSet`.
pub(super) fn serve<D, C, O, S>(shared: &Shared<D, C, O>, stream: S, bounds: Bounds)
where
    D: Disk,
    C: Clock,
    O: Observer,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let outgoing = Rc::new(RefCell::new(Outgoing::default()));
    let connection = {
        let mut shard = shared.borrow_mut();
        shard.connection_next += 1;
        let connection = shard.connection_next;
        shard.connections.insert(connection, outgoing.clone());
        connection
    };
    let (reading, writing) = tokio::io::split(stream);
    let shard = Rc::downgrade(shared);
    let sending = outgoing.clone();
    tokio::task::spawn_local(async move {
        read(&shard, connection, &outgoing, reading, bounds).await;
        outgoing.borrow_mut().close();
        if let Some(shard) = shard.upgrade() {
            let mut shard = shard.borrow_mut();
            shard.connections.remove(&connection);
            shard.take_turn([Event::ConnectionClosed(connection)]);
        }
    });
    let shard = Rc::downgrade(shared);
    tokio::task::spawn_local(async move {
        write(&shard, &sending, writing).await;
        sending.borrow_mut().close();
    });
}

/// Ends every connection of a node that ends.
pub(super) fn close_all<D: Disk, C: Clock, O: Observer>(shared: &Shared<D, C, O>) {
    for connection in shared.borrow().connections.values() {
        connection.borrow_mut().close();
    }
}

async fn read<D: Disk, C: Clock, O: Observer, S: AsyncRead>(
    shard: &Weak<RefCell<Shard<D, C, O>>>,
    connection: u64,
    outgoing: &Rc<RefCell<Outgoing>>,
    mut stream: ReadHalf<S>,
    bounds: Bounds,
) {
    let mut buffer = BytesMut::new();
    let mut events = Vec::new();
    let wake = outgoing.borrow().reader.clone();
    let mut peer = None;
    loop {
        let parsed = match peer {
            Some(from) => take_messages(&mut buffer, from, &mut events),
            None => take_requests(&mut buffer, connection, outgoing, bounds.frame_bytes_max, &mut events),
        };
        if !events.is_empty() {
            let Some(shard) = shard.upgrade() else { return };
            shard.borrow_mut().take_turn(events.drain(..));
        }
        let greeted = match parsed {
            Ok(greeted) => greeted,
            Err(()) => return,
        };
        if outgoing.borrow().is_closed {
            return;
        }
        if let Some(hello) = greeted {
            let is_welcome = shard.upgrade().is_some_and(|shard| shard.borrow_mut().welcomes(&hello));
            if !is_welcome {
                tracing::warn!(node = %hello.node, "connection closed: the node is of another cluster, or has this one's id");
                return;
            }
            peer = Some(hello.node);
            continue;
        }
        let Some(is_draining) = shard.upgrade().map(|shard| shard.borrow().is_draining) else { return };
        // A node that ends still hears of other nodes: they are to take over.
        if (is_draining && peer.is_none()) || !outgoing.borrow().has_room() {
            wake.notified().await;
            continue;
        }
        if holds_whole_frame(&buffer) {
            continue;
        }
        reserve(&mut buffer);
        tokio::select! {
            biased;
            () = wake.notified() => {}
            count = stream.read_buf(&mut buffer) => match count {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
        }
    }
}

/// Takes whole messages of another node off the buffer; an error ends the connection.
fn take_messages(buffer: &mut BytesMut, from: NodeId, events: &mut Vec<Event>) -> Result<Option<Hello>, ()> {
    loop {
        match take_frame(buffer, PEER_FRAME_BYTES_MAX) {
            Ok(Some(frame)) => match PeerMessage::decode(frame) {
                Ok(message) => events.push(Event::Peer { from, message }),
                Err(error) => {
                    tracing::warn!(%error, %from, "connection closed");
                    return Err(());
                }
            },
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(%error, %from, "connection closed");
                return Err(());
            }
        }
    }
}

/// Takes whole requests off the buffer while there is room; an error ends the connection. A greeting of another node
/// ends the requests: what follows are its messages.
fn take_requests(
    buffer: &mut BytesMut,
    connection: u64,
    outgoing: &Rc<RefCell<Outgoing>>,
    frame_bytes_max: usize,
    events: &mut Vec<Event>,
) -> Result<Option<Hello>, ()> {
    let mut outgoing = outgoing.borrow_mut();
    while !outgoing.is_closed && outgoing.has_room() {
        let frame = match take_frame(buffer, frame_bytes_max) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::debug!(%error, connection, "connection closed");
                return Err(());
            }
        };
        if Hello::is_hello(&frame) {
            return Hello::decode(frame)
                .map(Some)
                .map_err(|error| tracing::warn!(%error, connection, "connection closed"));
        }
        match request::decode(frame) {
            Ok((header, request)) => {
                let id = RequestId { connection, sequence: outgoing.expect_answer() };
                events.push(Event::Request { id, header, request: Box::new(request) });
            }
            Err(error) => {
                tracing::debug!(%error, connection, "connection closed");
                return Err(());
            }
        }
    }
    Ok(None)
}

async fn write<D: Disk, C: Clock, O: Observer, S: AsyncWrite>(
    shard: &Weak<RefCell<Shard<D, C, O>>>,
    outgoing: &Rc<RefCell<Outgoing>>,
    mut stream: WriteHalf<S>,
) {
    let wake = outgoing.borrow().writer.clone();
    loop {
        let output = {
            let mut outgoing = outgoing.borrow_mut();
            outgoing.is_sending = !outgoing.output.is_empty();
            std::mem::take(&mut outgoing.output)
        };
        if output.is_empty() {
            if outgoing.borrow().is_closed {
                // The peer may be gone already, then there is nothing to tell it.
                drop(stream.shutdown().await);
                return;
            }
            wake.notified().await;
            continue;
        }
        let sent = stream.write_all(&output).await;
        {
            let mut outgoing = outgoing.borrow_mut();
            outgoing.is_sending = false;
            outgoing.reader.notify_one();
        }
        if let Some(shard) = shard.upgrade()
            && shard.borrow().is_draining
        {
            shard.borrow().drained.notify_one();
        }
        if sent.is_err() {
            return;
        }
    }
}

fn holds_whole_frame(buffer: &BytesMut) -> bool {
    claimed_length(buffer).is_some_and(|length| buffer.len() >= LENGTH_BYTES + length)
}

fn claimed_length(buffer: &BytesMut) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(*buffer.first_chunk::<LENGTH_BYTES>()?)).ok()
}

/// Makes room to read into: for the rest of a frame that has begun, but beyond a first megabyte never more than has come
/// already, so that a claimed length alone reserves little.
fn reserve(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() >= READ_BYTES_MIN {
        return;
    }
    let missing = claimed_length(buffer).map_or(0, |length| (LENGTH_BYTES + length).saturating_sub(buffer.len()));
    buffer.reserve(missing.min(buffer.len().max(CLAIM_BYTES_MAX)).max(READ_BYTES));
}

/// The most requests of one connection without an answer; the next are left in the socket.
const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// The most bytes of unsent answers with which a connection's next requests are taken.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// The most bytes reserved on the word of a frame's length.
const CLAIM_BYTES_MAX: usize = 1 << 20;
/// The longest message of another node, in bytes.
const PEER_FRAME_BYTES_MAX: usize = 256 << 20;
const READ_BYTES: usize = 64 << 10;
const READ_BYTES_MIN: usize = 4 << 10;
