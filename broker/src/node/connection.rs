//! One connection: frames in, answers out in the order of the requests, one task. All requests that have come go into
//! the node's next turn together; whatever answers are ready leave in one vectored write.
//! Reading pauses while too many requests are unanswered, too much output is unsent, or the node's memory is short; a
//! connection that was paused for the memory says so in its answers (`throttle_time_ms`). Start at `serve`.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::intake::Intake;
use super::outgoing::Outgoing;
use super::shard::{Shard, Shared};
use crate::core::machine::{Event, RequestId};
use crate::core::peer::{Hello, PeerMessage};
use crate::core::types::NodeId;
use crate::ports::{Clock, Disk, Observer};
use crate::wire::api::Api;
use crate::wire::frame::{LENGTH_BYTES, take_frame};
use crate::wire::request;

/// The limits of a node's connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections_max: usize,
    pub(super) frame_bytes_max: usize,
}

/// Serves a connection with a task of the current `LocalSet`.
pub(super) fn serve<D, C, O, S>(shared: &Shared<D, C, O>, clock: &C, stream: S, bounds: Bounds)
where
    D: Disk,
    C: Clock,
    O: Observer,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut shard = shared.borrow_mut();
    let intake = shard.intake.clone();
    let outgoing = Rc::new(RefCell::new(Outgoing::new(intake.clone())));
    shard.connection_next += 1;
    let connection = shard.connection_next;
    shard.connections.insert(connection, outgoing.clone());
    let welcoming = Rc::downgrade(shared);
    let mut served = Connection {
        id: connection,
        stream,
        buffer: BytesMut::new(),
        frame_recent: 0,
        frame_bytes_max: bounds.frame_bytes_max,
        outgoing,
        intake,
        shard: Rc::downgrade(shared),
        clock: clock.clone(),
        paused_since: None,
        memory_waits: 0,
        has_left: false,
        peer: None,
        welcomes: Box::new(move |hello| welcoming.upgrade().is_some_and(|shard| shard.borrow_mut().welcomes(hello))),
    };
    let shard = Rc::downgrade(shared);
    tokio::task::spawn_local(async move {
        poll_fn(|context| served.poll(context)).await;
        served.leave();
        forget(&shard, connection);
    });
}

/// Ends every connection of a node that ends.
pub(super) fn close_all<D: Disk, C: Clock, O: Observer>(shared: &Shared<D, C, O>) {
    for connection in shared.borrow().connections.values() {
        connection.borrow_mut().close();
    }
}

/// Ends connections whose peers have neither sent nor read anything for a while, those that hold most first, as long as
/// the node's memory is short; looks once a `STALL_CHECK`.
pub(super) async fn close_stalled<D: Disk, C: Clock, O: Observer>(shared: &Shared<D, C, O>, clock: &C) {
    let intake = shared.borrow().intake.clone();
    loop {
        if !intake.budget.is_short() {
            shared.borrow().connections.values().for_each(|connection| connection.borrow_mut().forget_stall());
            intake.budget.became_short.notified().await;
        }
        clock.sleep_until(clock.monotonic() + STALL_CHECK).await;
        let mut stalled = Vec::new();
        for (id, connection) in &shared.borrow().connections {
            let mut outgoing = connection.borrow_mut();
            if outgoing.count_stall() >= STALL_CHECKS {
                stalled.push((outgoing.held(), *id, connection.clone()));
            }
        }
        stalled.sort_by_key(|(held, id, _)| (std::cmp::Reverse(*held), *id));
        for (held, connection, outgoing) in stalled {
            if !intake.budget.is_short() || held == 0 {
                break;
            }
            tracing::warn!(connection, held, "connection closed: the peer does not go on, and memory is short");
            outgoing.borrow_mut().abandon();
        }
    }
}

fn forget<D: Disk, C: Clock, O: Observer>(shard: &Weak<RefCell<Shard<D, C, O>>>, connection: u64) {
    if let Some(shard) = shard.upgrade() {
        let mut shard = shard.borrow_mut();
        shard.connections.remove(&connection);
        shard.note_progress();
    }
}

struct Connection<D: Disk, C: Clock, O: Observer, S> {
    id: u64,
    stream: S,
    /// What has come and is not a whole request yet, or has no room.
    buffer: BytesMut,
    /// Bytes of the last request.
    frame_recent: usize,
    frame_bytes_max: usize,
    outgoing: Rc<RefCell<Outgoing>>,
    intake: Rc<Intake>,
    shard: Weak<RefCell<Shard<D, C, O>>>,
    clock: C,
    /// When reading was paused for want of memory.
    paused_since: Option<Duration>,
    memory_waits: u64,
    /// The core knows that the connection is gone.
    has_left: bool,
    /// The node that has greeted; what it sends are messages, not requests.
    peer: Option<NodeId>,
    /// Whether a node that greets belongs to the cluster.
    welcomes: Box<dyn Fn(&Hello) -> bool>,
}

impl<D: Disk, C: Clock, O: Observer, S: AsyncRead + AsyncWrite + Unpin> Connection<D, C, O, S> {
    /// Goes on until the connection has ended and what was in its output is sent. An answer that a turn of its own brings is
    /// sent by the next round, and wakes nobody: a connection that floods would run again before the others.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.outgoing.borrow_mut().begin_poll();
        let ended = self.poll_rounds(context);
        self.outgoing.borrow_mut().end_poll(context.waker());
        ended
    }

    fn poll_rounds(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_A_POLL {
            let sent = self.poll_send(context);
            if let Poll::Ready(Err(_)) = sent {
                return Poll::Ready(());
            }
            if self.outgoing.borrow().is_closed() {
                self.leave();
                ready!(sent).ok();
                // The peer may be gone already, then there is nothing to tell it.
                return Pin::new(&mut self.stream).poll_shutdown(context).map(drop);
            }
            if self.has_left {
                // The turn that takes the last requests closes the connection.
                return Poll::Pending;
            }
            if ready!(self.poll_receive(context)).is_err() {
                self.leave();
            }
        }
        // More may have come already; the others first, also those of whom only the poll of the system will tell. Woken at
        // once, the task would be run again and again before that.
        pin!(tokio::task::yield_now()).poll(context)
    }

    /// Tells the core that nothing more will come and nothing more is owed.
    fn leave(&mut self) {
        self.intake.budget.end_exemption(self.id);
        if !std::mem::replace(&mut self.has_left, true) {
            self.intake.push(Event::ConnectionClosed(self.id));
        }
    }

    /// Sends what is ready; ends when all of it is sent.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing.borrow_mut();
        while !outgoing.is_sent() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = outgoing.slices(&mut slices);
            let sent = match ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..filled]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => sent,
            };
            outgoing.sent(sent);
            if self.intake.is_draining.get() && outgoing.is_sent() {
                self.intake.drained.notify_one();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the requests that have come and reads on; an error ends the connection.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take_frames()?;
        // A node that ends still hears of other nodes: they are to take over.
        let is_closing = self.intake.is_draining.get() && self.peer.is_none();
        if is_closing || !self.outgoing.borrow().has_room() || self.waits_for_memory(context) {
            return Poll::Pending;
        }
        let owns_buffer = !self.buffer.is_empty() || self.frame_recent > CHUNK_FRAME_BYTES_MAX;
        let read = if owns_buffer {
            if self.buffer.is_empty() {
                self.buffer = self.intake.spare.take();
            }
            reserve(&mut self.buffer, self.frame_recent);
            let read = pin!(self.stream.read_buf(&mut self.buffer)).poll(context);
            if read.is_pending() && self.buffer.is_empty() {
                self.intake.spare.replace(std::mem::take(&mut self.buffer));
            }
            read
        } else {
            let mut chunk = self.intake.chunk.borrow_mut();
            if chunk.capacity() < CHUNK_BYTES_MIN {
                chunk.reserve(CHUNK_BYTES);
            }
            let read = pin!(self.stream.read_buf(&mut *chunk)).poll(context);
            self.buffer = chunk.split();
            read
        };
        match ready!(read)? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            received => {
                self.intake.received_bytes.set(self.intake.received_bytes.get() + received as u64);
                self.take_frames()?;
                if self.intake.is_full()
                    && let Some(shard) = self.shard.upgrade()
                {
                    shard.borrow_mut().take_turn([]);
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Takes what is whole off the buffer; an error ends the connection.
    fn take_frames(&mut self) -> io::Result<()> {
        if self.peer.is_none() {
            self.take_requests()?;
        }
        if let Some(from) = self.peer {
            self.take_messages(from)?;
        }
        if self.buffer.is_empty() {
            // Nothing is kept of a buffer that others read into.
            self.buffer = BytesMut::new();
        }
        self.outgoing.borrow_mut().received(self.buffer.len());
        Ok(())
    }

    /// Takes whole messages of another node off the buffer.
    fn take_messages(&mut self, from: NodeId) -> io::Result<()> {
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, %from, "connection closed");
            io::Error::from(io::ErrorKind::InvalidData)
        };
        while let Some(frame) = take_frame(&mut self.buffer, PEER_FRAME_BYTES_MAX).map_err(|error| refused(&error))? {
            self.frame_recent = frame.len();
            let message = PeerMessage::decode(frame).map_err(|error| refused(&error))?;
            self.intake.push(Event::Peer { from, message });
        }
        Ok(())
    }

    /// Takes whole requests off the buffer while there is room. A greeting of another node ends the requests: what
    /// follows are its messages.
    fn take_requests(&mut self) -> io::Result<()> {
        let mut outgoing = self.outgoing.borrow_mut();
        while !outgoing.is_closed() && outgoing.has_room() {
            let refused = |error: &dyn std::fmt::Display| {
                tracing::debug!(%error, connection = self.id, "connection closed");
                io::Error::from(io::ErrorKind::InvalidData)
            };
            let Some(frame) = take_frame(&mut self.buffer, self.frame_bytes_max).map_err(|error| refused(&error))?
            else {
                break;
            };
            let bytes = frame.len();
            self.frame_recent = bytes;
            if Hello::is_hello(&frame) {
                let hello = Hello::decode(frame).map_err(|error| refused(&error))?;
                if !(self.welcomes)(&hello) {
                    return Err(refused(&"the node is of another cluster, or has this one's id"));
                }
                self.peer = Some(hello.node);
                break;
            }
            self.intake.budget.end_exemption(self.id);
            let frame = detached(frame);
            let (header, request) = request::decode(frame).map_err(|error| refused(&error))?;
            let id = RequestId { connection: self.id, sequence: outgoing.expect_answer(bytes) };
            self.intake.add_bytes(bytes);
            self.intake.push(Event::Request { id, header, request: Box::new(request) });
        }
        Ok(())
    }

    /// Whether reading has to wait for memory; then the context is woken when there is room.
    fn waits_for_memory(&mut self, context: &mut Context<'_>) -> bool {
        let mut outgoing = self.outgoing.borrow_mut();
        let goes_on = || !self.buffer.is_empty() && self.intake.budget.exempts(self.id);
        let is_bounded = self.peer.is_none() && self.intake.budget.is_short();
        if is_bounded && outgoing.held() > HELD_BYTES_FREE && !goes_on() {
            self.paused_since.get_or_insert_with(|| self.clock.monotonic());
            self.intake.budget.wait(context.waker(), &mut self.memory_waits);
            return true;
        }
        if let Some(since) = self.paused_since.take() {
            outgoing.throttled(self.clock.monotonic().saturating_sub(since));
        }
        false
    }
}

/// A request that may wait for long does not hold on to a buffer that others were read into. What is produced is stored.
fn detached(frame: Bytes) -> Bytes {
    let is_produce = frame.starts_with(&Api::Produce.key().to_be_bytes());
    if is_produce || frame.len() > DETACHED_BYTES_MAX { frame } else { Bytes::copy_from_slice(&frame) }
}

fn claimed_length(buffer: &BytesMut) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(*buffer.first_chunk::<LENGTH_BYTES>()?)).ok()
}

/// Makes room to read into: for the rest of a frame that has begun, but beyond a first megabyte never more than has come
/// already, so that a claimed length alone reserves little; else for a frame like the one before.
fn reserve(buffer: &mut BytesMut, frame_recent: usize) {
    let begun = claimed_length(buffer).map(|length| (LENGTH_BYTES + length).saturating_sub(buffer.len()));
    let missing = begun.unwrap_or(LENGTH_BYTES + frame_recent);
    if buffer.capacity() - buffer.len() < missing.clamp(READ_BYTES_MIN, READ_BYTES) {
        buffer.reserve(missing.min(buffer.len().max(CLAIM_BYTES_MAX)).max(READ_BYTES));
    }
}

/// How often a connection reads before the others have their turn.
const READS_A_POLL: usize = 4;
/// The most pieces of one vectored write.
const SLICES_MAX: usize = 64;
/// The most bytes reserved on the word of a frame's length.
const CLAIM_BYTES_MAX: usize = 1 << 20;
/// The longest message of another node, in bytes.
const PEER_FRAME_BYTES_MAX: usize = 256 << 20;
const READ_BYTES: usize = 64 << 10;
const READ_BYTES_MIN: usize = 4 << 10;
/// Connections whose requests are longer read into a buffer of their own, which saves a copy.
const CHUNK_FRAME_BYTES_MAX: usize = 16 << 10;
/// Requests that are longer hold on to what they were read into.
const DETACHED_BYTES_MAX: usize = CHUNK_FRAME_BYTES_MAX;
const CHUNK_BYTES: usize = 128 << 10;
const CHUNK_BYTES_MIN: usize = 32 << 10;
/// What a connection may hold also when memory is short.
const HELD_BYTES_FREE: usize = 16 << 10;
/// How often stalled connections are looked for while memory is short, and how many looks make a stall.
const STALL_CHECK: Duration = Duration::from_secs(1);
const STALL_CHECKS: u32 = 10;
