//! A probe in a simulated node: the node's state at the end of every turn that changed it, for people who ask why.
//! It changes nothing in the run, so a run with probes has the same trace hash as one without.

use std::cell::RefCell;
use std::rc::Rc;

use mqassay_broker::core::dump::CoreDump;
use mqassay_harness::sim::clock::SimClock;

/// A node's state at the end of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSeen {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The node.
    pub node: u32,
    /// How many processes the node has had, this one included.
    pub incarnation: u64,
    /// The state.
    pub state: CoreDump,
}

/// What the probes of one run have seen. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Sightings(Rc<RefCell<Vec<StateSeen>>>);

impl Sightings {
    /// Takes what was seen, in order of time.
    pub fn take(&self) -> Vec<StateSeen> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// The probe of one process of a node.
#[derive(Clone)]
pub struct Probe {
    /// Where it puts what it sees.
    pub sightings: Sightings,
    /// The node's clock.
    pub clock: SimClock,
    /// The node.
    pub node: u32,
    /// How many processes the node has had, this one included.
    pub incarnation: u64,
}

impl Probe {
    /// Keeps the state if it differs from what was seen last on this process.
    pub fn see(&self, state: CoreDump) {
        let mut seen = self.sightings.0.borrow_mut();
        let last = seen.iter().rev().find(|seen| seen.node == self.node);
        if last.is_some_and(|last| last.incarnation == self.incarnation && last.state == state) {
            return;
        }
        let at_us = self.clock.monotonic().as_micros() as u64;
        seen.push(StateSeen { at_us, node: self.node, incarnation: self.incarnation, state });
    }
}
