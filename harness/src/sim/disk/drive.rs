//! A machine's drive as the nemesis holds it: it attaches to a process, loses power, gets faults, is repaired.
//! A process' own view of it is `SimDisk`. Not here: the rules of contents and names (`contents`, `tree`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SimDisk;
use super::faults::Faults;
use super::loss::{BitFlip, LossKind, PowerLossSummary, flip_bit, lose_power};
use super::tree::{Metadata, Tree};
use crate::plan::DiskOperation;
use crate::plan::draws::Draws;
use crate::sim::clock::SimTime;
use crate::sim::counters::Counters;
use crate::sim::trace::{Actor, Trace};

/// What a drive is made from.
#[derive(Clone)]
pub struct DriveOptions {
    /// The node that it belongs to.
    pub node: u32,
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// Time that a sync takes in microseconds, before jitter of up to half of it.
    pub sync_us: u64,
    /// Where its events go.
    pub trace: Trace,
    /// Where its struck faults are counted.
    pub counters: Counters,
    /// Draws for the jitter of syncs.
    pub draws: Draws,
    /// The simulated time.
    pub time: SimTime,
}

/// A machine's drive. Clones share it.
#[derive(Clone)]
pub struct Drive {
    pub(super) shared: Rc<Shared>,
}

pub(super) struct Shared {
    pub(super) options: DriveOptions,
    pub(super) state: RefCell<State>,
}

pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) faults: Faults,
    /// Held locks by path, with a number of their own.
    pub(super) locks: BTreeMap<String, u64>,
    pub(super) locks_taken: u64,
    /// The process that may use the drive now; 0 when none may.
    pub(super) attached: u64,
    pub(super) attachments: u64,
    /// Room taken by files with a name, in bytes.
    pub(super) used_bytes: u64,
    /// What it lost, in order of time.
    pub(super) losses: Vec<FileLoss>,
}

/// What happened to one file by a power loss or a flipped bit: for people who ask afterwards, not for any rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLoss {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The node.
    pub node: u32,
    /// The file's path.
    pub path: String,
    /// What happened.
    pub kind: LossKind,
}

impl Drive {
    /// An empty drive, attached to no process.
    pub fn new(options: DriveOptions) -> Drive {
        let state = State {
            tree: Tree::new(Metadata::Posix),
            faults: Faults::default(),
            locks: BTreeMap::new(),
            locks_taken: 0,
            attached: 0,
            attachments: 0,
            used_bytes: 0,
            losses: Vec::new(),
        };
        Drive { shared: Rc::new(Shared { options, state: RefCell::new(state) }) }
    }

    /// A new process' view; every earlier view has no effect any more.
    pub fn attach(&self) -> SimDisk {
        let mut state = self.shared.state.borrow_mut();
        state.attachments += 1;
        state.attached = state.attachments;
        state.locks.clear();
        SimDisk { shared: self.shared.clone(), attachment: state.attached }
    }

    /// The process has ended or been cut off: its calls have no effect, its locks are free. Contents stay.
    pub fn detach(&self) {
        let mut state = self.shared.state.borrow_mut();
        state.attached = 0;
        state.locks.clear();
    }

    /// The power is lost: unsynced sectors, lengths and names survive or not by the salt.
    pub fn power_loss(&self, salt: u64) -> PowerLossSummary {
        self.detach();
        let mut state = self.shared.state.borrow_mut();
        let (summary, losses) = lose_power(&mut state.tree, salt);
        state.losses.extend(losses.into_iter().map(|(path, kind)| self.shared.loss(path, kind)));
        state.count_used();
        drop(state);
        let numbers = [("bytes", summary.bytes), ("files", summary.files), ("entries", summary.entries)];
        self.shared.trace("disk-power-loss", &numbers);
        summary
    }

    /// What power losses and flipped bits took from files so far, in order of time.
    pub fn losses(&self) -> Vec<FileLoss> {
        self.shared.state.borrow().losses.clone()
    }

    /// The next operations of the kind fail.
    pub fn fail_operations(&self, on: DiskOperation, operations: u32, salt: u64) {
        self.shared.state.borrow_mut().faults.fail_operations(on, operations, salt);
    }

    /// While any fault holds it full, nothing can grow.
    pub fn set_full(&self, fault: u32, is_active: bool) {
        self.shared.state.borrow_mut().faults.set_full(fault, is_active);
    }

    /// What a fault adds to each sync, or that it has ended.
    pub fn set_slow(&self, fault: u32, delay: Option<Duration>) {
        self.shared.state.borrow_mut().faults.set_slow(fault, delay);
    }

    /// Ends every fault. Flipped bits and lost bytes stay.
    pub fn repair(&self) {
        self.shared.state.borrow_mut().faults = Faults::default();
    }

    /// Flips one bit of one file that is not empty; `None` where there is none.
    pub fn flip_bit(&self, salt: u64, within: &str) -> Option<BitFlip> {
        let (flipped, file) = flip_bit(&self.shared.state.borrow().tree, salt, within)?;
        let BitFlip { offset, bit, .. } = flipped;
        self.shared.trace("disk-bit-flip", &[("file", file), ("offset", offset), ("bit", u64::from(bit))]);
        let loss = self.shared.loss(flipped.path.clone(), LossKind::BitFlip { offset });
        self.shared.state.borrow_mut().losses.push(loss);
        Some(flipped)
    }
}

impl Shared {
    fn loss(&self, path: String, kind: LossKind) -> FileLoss {
        FileLoss { at_us: self.options.time.now_us(), node: self.options.node, path, kind }
    }

    pub(super) fn trace(&self, kind: &str, numbers: &[(&str, u64)]) {
        self.options.trace.event(self.options.time.now_us(), Actor::Node(self.options.node), kind, numbers);
    }
}

impl State {
    pub(super) fn count_used(&mut self) {
        self.used_bytes = self.tree.room();
    }
}
