//! A node's state behind one cell, and the turn: events go through the core, and its effects are performed in one
//! order. A turn: (1) every event through the core, (2) inline disk effects in order, (3) points and events to the
//! observer, (4) asynchronous disk effects started, (5) what the inline effects reported back through the core, again
//! from 2 while there is more, (6) answers, each into its connection's output, and messages to other nodes. A halt ends
//! the turn before 3.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::connection::Outgoing;
use super::peers::Links;
use crate::core::log::{DiskEffect, Halt};
use crate::core::machine::{Core, Effects, Event};
use crate::core::peer::Hello;
use crate::core::types::{NodeId, Now};
use crate::points;
use crate::ports::{Clock, Disk, Observer};
use crate::store::Store;

pub(super) type Shared<D, C, O> = Rc<RefCell<Shard<D, C, O>>>;

/// A node's state. Only `run` holds it strongly, so that its end releases the data folder.
pub(super) struct Shard<D: Disk, C: Clock, O: Observer> {
    pub(super) connections: BTreeMap<u64, Rc<RefCell<Outgoing>>>,
    pub(super) connection_next: u64,
    pub(super) links: Links,
    pub(super) halt: Option<Halt>,
    pub(super) is_draining: bool,
    /// Notified when `halt` was set.
    pub(super) halted: Rc<Notify>,
    /// Notified when the core wants to be called earlier than armed.
    pub(super) deadline_moved: Rc<Notify>,
    /// Notified when, while draining, something was completed.
    pub(super) drained: Rc<Notify>,
    /// Notified after turns until the core welcomes clients.
    pub(super) serving: Rc<Notify>,
    was_serving: bool,
    core: Core,
    store: Store<D, O>,
    clock: C,
    observer: O,
    itself: Weak<RefCell<Shard<D, C, O>>>,
    armed: Option<Duration>,
    /// Asynchronous disk effects under way.
    started: usize,
    has_halted: bool,
}

impl<D: Disk, C: Clock, O: Observer> Shard<D, C, O> {
    pub(super) fn new(
        core: Core,
        store: Store<D, O>,
        clock: C,
        observer: O,
        itself: Weak<RefCell<Shard<D, C, O>>>,
    ) -> Shard<D, C, O> {
        Shard {
            connections: BTreeMap::new(),
            connection_next: 0,
            links: Links::default(),
            halt: None,
            is_draining: false,
            halted: Rc::new(Notify::new()),
            deadline_moved: Rc::new(Notify::new()),
            drained: Rc::new(Notify::new()),
            serving: Rc::new(Notify::new()),
            was_serving: false,
            core,
            store,
            clock,
            observer,
            itself,
            armed: None,
            started: 0,
            has_halted: false,
        }
    }

    /// Takes one turn.
    pub(super) fn take_turn(&mut self, events: impl IntoIterator<Item = Event>) {
        self.take_turn_with(Effects::default(), events);
    }

    /// Takes one turn that begins with effects already decided.
    pub(super) fn take_turn_with(&mut self, mut effects: Effects, events: impl IntoIterator<Item = Event>) {
        if self.has_halted {
            return;
        }
        let now = now(&self.clock);
        for event in events {
            if matches!(event, Event::Request { .. }) {
                self.observer.point(points::REQUEST_RECEIVED);
            }
            self.core.step(now, event, &mut effects);
        }
        loop {
            self.core.end_turn(now, &mut effects);
            let reported = self.store.perform(&mut effects.disk);
            if self.check_halt(&mut effects) {
                return;
            }
            effects.points.drain(..).for_each(|name| self.observer.point(name));
            effects.events.drain(..).for_each(|(name, count)| self.observer.event(name, count));
            for effect in effects.disk.drain(..) {
                // A clean end waits for syncs and reads, not for index files: recovery scans a segment without one.
                let is_awaited = !matches!(effect, DiskEffect::Seal { .. });
                let completion = self.store.start(effect);
                self.started += usize::from(is_awaited);
                let shard = self.itself.clone();
                tokio::task::spawn_local(async move {
                    let event = completion.await;
                    let Some(shard) = shard.upgrade() else { return };
                    let mut shard = shard.borrow_mut();
                    shard.started -= usize::from(is_awaited);
                    shard.take_turn([Event::Disk(event)]);
                });
            }
            if reported.is_empty() {
                break;
            }
            for event in reported {
                self.core.step(now, Event::Disk(event), &mut effects);
            }
        }
        self.deliver(effects);
        self.observer.turn_ended(&|| self.core.dump());
        self.after_turn();
    }

    /// The deadline to sleep until.
    pub(super) fn arm(&mut self) -> Option<Duration> {
        self.armed = self.core.next_deadline();
        self.armed
    }

    pub(super) fn start_draining(&mut self) {
        self.is_draining = true;
        for connection in self.connections.values() {
            connection.borrow().wake_reader();
        }
        let mut effects = Effects::default();
        let now = now(&self.clock);
        self.core.begin_shutdown(now, &mut effects);
        self.core.sync_all(&mut effects);
        self.take_turn_with(effects, []);
    }

    /// Writes down that everything is synced; whether that was still to do.
    pub(super) fn end_cleanly(&mut self) -> bool {
        let mut effects = Effects::default();
        let now = now(&self.clock);
        self.core.sync_all(&mut effects);
        let has_written = self.core.end_cleanly(now, &mut effects);
        self.take_turn_with(effects, []);
        has_written
    }

    /// What to say to a node first, and where it is.
    pub(super) fn greeting(&self, to: NodeId) -> (bytes::Bytes, Option<(String, u16)>) {
        (self.core.hello().encode(), self.core.address_of(to))
    }

    /// Whether a node that greets belongs to the same cluster.
    pub(super) fn welcomes(&mut self, hello: &Hello) -> bool {
        self.core.welcomes(hello)
    }

    pub(super) fn is_serving(&self) -> bool {
        self.core.is_serving()
    }

    pub(super) fn is_drained(&self) -> bool {
        let is_sent = self.connections.values().all(|connection| connection.borrow().is_sent());
        self.core.is_idle() && self.started == 0 && is_sent
    }

    fn check_halt(&mut self, effects: &mut Effects) -> bool {
        let Some(halt) = effects.halt.take() else { return false };
        tracing::error!(%halt, "the node stops");
        self.halt = Some(halt);
        self.has_halted = true;
        self.halted.notify_one();
        true
    }

    fn deliver(&mut self, effects: Effects) {
        for (id, answer) in effects.replies {
            // The connection may have closed in this turn.
            let Some(connection) = self.connections.get(&id.connection) else { continue };
            self.observer.point(points::REPLY_QUEUED);
            connection.borrow_mut().answer(id.sequence, answer);
        }
        for (to, message) in effects.peers {
            self.links.send(to, &message);
        }
    }

    fn after_turn(&mut self) {
        let wanted = self.core.next_deadline();
        if wanted.is_some() && (self.armed.is_none() || wanted < self.armed) {
            self.deadline_moved.notify_one();
        }
        if self.is_draining {
            self.drained.notify_one();
        }
        if !self.was_serving && self.core.is_serving() {
            self.was_serving = true;
            self.serving.notify_one();
        }
    }
}

/// The time as the core hears it.
pub(super) fn now<C: Clock>(clock: &C) -> Now {
    Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
}
