//! An observer that counts, and tells `tracing` of what is rare.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ports::Observer;

/// Counts events by name; points pass unnoticed.
#[derive(Debug, Clone, Default)]
pub struct CountingObserver {
    counts: Rc<RefCell<BTreeMap<&'static str, u64>>>,
}

impl CountingObserver {
    /// How often each event happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.borrow().clone()
    }
}

impl Observer for CountingObserver {
    fn point(&self, name: &'static str) {
        tracing::trace!(name, "point");
    }

    fn event(&self, name: &'static str, count: u64) {
        tracing::debug!(name, count, "event");
        *self.counts.borrow_mut().entry(name).or_insert(0) += count;
    }
}
