//! What all connections of a node share: the events that wait for the next turn, the memory that they may hold, and a
//! buffer to read into. Not here: one connection (`connection`) and the turn (`shard`).

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::core::machine::Event;

/// The way in of a node.
#[derive(Debug)]
pub(super) struct Intake {
    events: RefCell<Vec<Event>>,
    /// Bytes of the requests among them.
    events_bytes: Cell<usize>,
    /// Notified when events wait.
    pub(super) arrived: Notify,
    /// No more requests are taken.
    pub(super) is_draining: Cell<bool>,
    /// Notified when, while draining, something was completed or sent.
    pub(super) drained: Notify,
    /// Where connections without a half-read request read into.
    pub(super) chunk: RefCell<BytesMut>,
    /// Room that a connection with long requests made, and nothing came to fill: the next one takes it.
    pub(super) spare: RefCell<BytesMut>,
    pub(super) budget: Budget,
    /// Bytes that came from connections and went to them.
    pub(super) received_bytes: Cell<u64>,
    pub(super) sent_bytes: Cell<u64>,
    /// Pauses of connections, and their length.
    pub(super) throttles: Cell<u64>,
    pub(super) throttled: Cell<Duration>,
}

impl Intake {
    pub(super) fn new(bytes_max: usize) -> Intake {
        Intake {
            events: RefCell::default(),
            events_bytes: Cell::new(0),
            arrived: Notify::new(),
            is_draining: Cell::new(false),
            drained: Notify::new(),
            chunk: RefCell::default(),
            spare: RefCell::default(),
            budget: Budget { bytes_max, ..Budget::default() },
            received_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            throttles: Cell::new(0),
            throttled: Cell::new(Duration::ZERO),
        }
    }

    /// Leaves an event for the next turn.
    pub(super) fn push(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        if events.is_empty() {
            self.arrived.notify_one();
        }
        events.push(event);
    }

    /// So many bytes of requests are among the events.
    pub(super) fn add_bytes(&self, bytes: usize) {
        self.events_bytes.set(self.events_bytes.get() + bytes);
    }

    /// Whether the next turn should not wait for more: what has been received is best written while it is in the
    /// processor's caches.
    pub(super) fn is_full(&self) -> bool {
        self.events_bytes.get() >= TURN_BYTES
    }

    /// Takes all events; `empty` is the room for the next ones.
    pub(super) fn take(&self, empty: Vec<Event>) -> Vec<Event> {
        self.events_bytes.set(0);
        self.events.replace(empty)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.borrow().is_empty()
    }
}

/// So many bytes of requests are taken in one turn without waiting for those of other connections.
const TURN_BYTES: usize = 128 << 10;

/// The memory that requests without an answer and answers that are not sent hold, in bytes.
#[derive(Debug, Default)]
pub(super) struct Budget {
    bytes_max: usize,
    held: Cell<usize>,
    /// The connection that may go on with a request that it began, so that a request larger than what is left can come.
    exempt: Cell<Option<u64>>,
    waiting: RefCell<Vec<Waker>>,
    /// How often those that waited were woken.
    wakes: Cell<u64>,
    /// Notified when the memory becomes short.
    pub(super) became_short: Notify,
}

impl Budget {
    /// Whether as much is held as may be.
    pub(super) fn is_short(&self) -> bool {
        self.held.get() >= self.bytes_max
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.held.get()
    }

    /// Bytes that may still be held.
    pub(super) fn left(&self) -> usize {
        self.bytes_max.saturating_sub(self.held.get())
    }

    /// A connection that held `before` bytes holds `after` now.
    pub(super) fn change(&self, before: usize, after: usize) {
        let was_short = self.is_short();
        self.held.set(self.held.get() + after - before);
        match (was_short, self.is_short()) {
            (false, true) => self.became_short.notify_one(),
            (true, false) => self.wake(),
            (true, true) | (false, false) => {}
        }
    }

    /// Whether a connection may go on with a request that it began although memory is short: one at a time may.
    pub(super) fn exempts(&self, connection: u64) -> bool {
        let exempt = self.exempt.get().unwrap_or(connection);
        self.exempt.set(Some(exempt));
        exempt == connection
    }

    /// The connection's request has come whole, or never will: another may go on.
    pub(super) fn end_exemption(&self, connection: u64) {
        if self.exempt.get() == Some(connection) {
            self.exempt.set(None);
            self.wake();
        }
    }

    /// Wakes when there is room again, or another connection may go on with its request.
    /// `waits` is the connection's own, 0 at first; with it each connection stands in line only once.
    pub(super) fn wait(&self, waker: &Waker, waits: &mut u64) {
        let wakes = self.wakes.get() + 1;
        if std::mem::replace(waits, wakes) != wakes {
            self.waiting.borrow_mut().push(waker.clone());
        }
    }

    fn wake(&self) {
        self.wakes.set(self.wakes.get() + 1);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_from_its_bound_on_and_those_who_wait_are_woken() {
        let budget = Budget { bytes_max: 100, ..Budget::default() };
        budget.change(0, 99);
        assert!(!budget.is_short());
        assert_eq!(budget.left(), 1);
        budget.change(0, 40);
        assert!(budget.is_short());
        assert_eq!(budget.left(), 0);
        budget.wait(Waker::noop(), &mut 0);
        budget.change(99, 60);
        assert!(budget.is_short() && !budget.waiting.borrow().is_empty());
        assert!(budget.exempts(7) && budget.exempts(7) && !budget.exempts(8));
        budget.end_exemption(8);
        assert!(!budget.exempts(8) && !budget.waiting.borrow().is_empty());
        budget.end_exemption(7);
        assert!(budget.exempts(8) && budget.waiting.borrow().is_empty());
        budget.wait(Waker::noop(), &mut 0);
        budget.change(60, 59);
        assert!(!budget.is_short() && budget.waiting.borrow().is_empty());
    }
}
