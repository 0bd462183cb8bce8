//! The faults that a drive is under: operations that fail, no space, slow syncs. Not here: power loss and bit flips,
//! which are single moments and belong to `Drive`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::DiskOperation;
use crate::plan::draws::draw_at;

#[derive(Debug, Default)]
pub(crate) struct Faults {
    failing: Vec<Failing>,
    full: BTreeSet<u32>,
    slow: BTreeMap<u32, Duration>,
}

#[derive(Debug)]
struct Failing {
    on: DiskOperation,
    left: u32,
    salt: u64,
}

impl Faults {
    pub(crate) fn fail_operations(&mut self, on: DiskOperation, operations: u32, salt: u64) {
        self.failing.push(Failing { on, left: operations, salt });
    }

    /// Whether this operation fails; then a draw of its own, from the fault's salt.
    pub(crate) fn take_failure(&mut self, on: DiskOperation) -> Option<u64> {
        let failing = self.failing.iter_mut().find(|failing| failing.on == on && failing.left > 0)?;
        failing.left -= 1;
        let drawn = draw_at(failing.salt, "failure", 0, u64::from(failing.left));
        self.failing.retain(|failing| failing.left > 0);
        Some(drawn)
    }

    pub(crate) fn set_full(&mut self, fault: u32, is_active: bool) {
        if is_active {
            self.full.insert(fault);
        } else {
            self.full.remove(&fault);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        !self.full.is_empty()
    }

    pub(crate) fn set_slow(&mut self, fault: u32, delay: Option<Duration>) {
        match delay {
            Some(delay) => self.slow.insert(fault, delay),
            None => self.slow.remove(&fault),
        };
    }

    /// What active faults add to a sync.
    pub(crate) fn slowness(&self) -> Duration {
        self.slow.values().sum()
    }
}
