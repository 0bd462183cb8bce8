//! A node's state behind one cell, and the turn: events go through the core, and its effects are performed in one
//! order. A turn: (1) every event that has come since the last turn, and the one that began it, through the core,
//! (2) inline disk effects in order, (3) points and events to the observer, (4) asynchronous disk effects started,
//! (5) what the inline effects reported back through the core, again from 2 while there is more, (6) answers, each into
//! its connection's output, and messages to other nodes, (7) the ends of connections, whose last requests are answered then. A halt ends the turn
//! before 3.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::census::{Census, Durations};
use super::intake::Intake;
use super::outgoing::Outgoing;
use super::peers::Links;
use crate::core::log::{DiskEffect, Halt};
use crate::core::machine::{Core, Effects, Event};
use crate::core::peer::Hello;
use crate::core::types::{NodeId, Now};
use crate::points;
use crate::ports::{Clock, Disk, Observer};
use crate::store::Store;
use crate::wire::api::Api;

pub(super) type Shared<D, C, O> = Rc<RefCell<Shard<D, C, O>>>;

/// A node's state. Only `run` holds it strongly, so that its end releases the data folder.
pub(super) struct Shard<D: Disk, C: Clock, O: Observer> {
    pub(super) connections: BTreeMap<u64, Rc<RefCell<Outgoing>>>,
    pub(super) connection_next: u64,
    pub(super) links: Links,
    pub(super) halt: Option<Halt>,
    pub(super) intake: Rc<Intake>,
    /// Notified when `halt` was set.
    pub(super) halted: Rc<Notify>,
    /// Notified when the core wants to be called earlier than armed.
    pub(super) deadline_moved: Rc<Notify>,
    /// Notified when, while draining, something was completed.
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
    /// Room for the next turn's events.
    events_room: Vec<Event>,
    has_halted: bool,
    /// Requests taken, by the call as a number.
    requests: [u64; Api::ALL.len()],
    syncs: Durations,
}

impl<D: Disk, C: Clock, O: Observer> Shard<D, C, O> {
    pub(super) fn new(
        core: Core,
        store: Store<D, O>,
        clock: C,
        observer: O,
        intake: Rc<Intake>,
        itself: Weak<RefCell<Shard<D, C, O>>>,
    ) -> Shard<D, C, O> {
        Shard {
            connections: BTreeMap::new(),
            connection_next: 0,
            links: Links::default(),
            halt: None,
            intake,
            halted: Rc::new(Notify::new()),
            deadline_moved: Rc::new(Notify::new()),
            serving: Rc::new(Notify::new()),
            was_serving: false,
            core,
            store,
            clock,
            observer,
            itself,
            armed: None,
            started: 0,
            events_room: Vec::new(),
            has_halted: false,
            requests: [0; Api::ALL.len()],
            syncs: Durations::default(),
        }
    }

    /// Takes one turn: what has come since the last one, then the events.
    pub(super) fn take_turn(&mut self, events: impl IntoIterator<Item = Event>) {
        self.take_turn_with(Effects::default(), events);
    }

    /// Takes one turn that begins with effects already decided.
    pub(super) fn take_turn_with(&mut self, mut effects: Effects, events: impl IntoIterator<Item = Event>) {
        if self.has_halted {
            return;
        }
        let now = now(&self.clock);
        self.core.set_answer_room(self.intake.budget.left());
        let mut arrived = self.intake.take(std::mem::take(&mut self.events_room));
        let mut left = Vec::new();
        for event in arrived.drain(..).chain(events) {
            match &event {
                Event::Request { header, .. } => {
                    self.requests[header.api as usize] += 1;
                    self.observer.point(points::REQUEST_RECEIVED);
                }
                Event::ConnectionClosed(connection) => {
                    left.push(*connection);
                    continue;
                }
                Event::Disk(_) | Event::Deadline | Event::Peer { .. } => {}
            }
            self.core.step(now, event, &mut effects);
        }
        self.events_room = arrived;
        loop {
            self.core.end_turn(now, &mut effects);
            let reported = self.store.perform(&mut effects.disk);
            if self.check_halt(&mut effects) {
                return;
            }
            effects.points.drain(..).for_each(|name| self.observer.point(name));
            effects.events.drain(..).for_each(|(name, count)| self.observer.event(name, count));
            effects.disk.drain(..).for_each(|effect| self.start(effect, now));
            if reported.is_empty() {
                break;
            }
            for event in reported {
                self.core.step(now, Event::Disk(event), &mut effects);
            }
        }
        self.deliver(effects);
        for connection in left {
            self.core.step(now, Event::ConnectionClosed(connection), &mut Effects::default());
            if let Some(connection) = self.connections.get(&connection) {
                connection.borrow_mut().close();
            }
        }
        self.observer.turn_ended(&|| self.core.dump());
        self.after_turn();
    }

    /// Starts an asynchronous disk effect; its completion is an event of a turn of its own.
    fn start(&mut self, effect: DiskEffect, now: Now) {
        // A clean end waits for syncs and reads, not for index files: recovery scans a segment without one.
        let is_awaited = !matches!(effect, DiskEffect::Seal { .. });
        let syncs_since = matches!(effect, DiskEffect::Sync { .. }).then_some(now.monotonic);
        let completion = self.store.start(effect);
        self.started += usize::from(is_awaited);
        let shard = self.itself.clone();
        tokio::task::spawn_local(async move {
            let event = completion.await;
            let Some(shard) = shard.upgrade() else { return };
            let mut shard = shard.borrow_mut();
            shard.started -= usize::from(is_awaited);
            if let Some(since) = syncs_since {
                let took = shard.clock.monotonic().saturating_sub(since);
                shard.syncs.add(took);
            }
            shard.take_turn([Event::Disk(event)]);
        });
    }

    /// The node's numbers.
    pub(super) fn census(&self) -> Census {
        let intake = &self.intake;
        Census {
            requests: Api::ALL.into_iter().map(|api| (api, self.requests[api as usize])).collect(),
            received_bytes: intake.received_bytes.get(),
            sent_bytes: intake.sent_bytes.get(),
            connections: self.connections.len(),
            inflight_bytes: intake.budget.held(),
            throttles: intake.throttles.get(),
            throttled: intake.throttled.get(),
            syncs: self.syncs.clone(),
            core: self.core.census(),
        }
    }

    /// The deadline to sleep until.
    pub(super) fn arm(&mut self) -> Option<Duration> {
        self.armed = self.core.next_deadline();
        self.armed
    }

    pub(super) fn start_draining(&mut self) {
        self.intake.is_draining.set(true);
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
        let is_sent = self.connections.values().all(|connection| connection.borrow().is_drained());
        self.intake.is_empty() && self.core.is_idle() && self.started == 0 && is_sent
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
        self.note_progress();
        if !self.was_serving && self.core.is_serving() {
            self.was_serving = true;
            self.serving.notify_one();
        }
    }

    /// Something was completed or sent, which a node that drains wants to know.
    pub(super) fn note_progress(&self) {
        if self.intake.is_draining.get() {
            self.intake.drained.notify_one();
        }
    }
}

/// The time as the core hears it.
pub(super) fn now<C: Clock>(clock: &C) -> Now {
    Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() }
}
