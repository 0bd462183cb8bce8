//! Counts of what happened in a run, under stable names, to prove that rare things did happen.
//! Not part of the trace hash's input: each count follows from events that are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Counts by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    counts: Rc<RefCell<BTreeMap<&'static str, u64>>>,
}

impl Counters {
    /// Adds to the count of a name.
    pub fn add(&self, name: &'static str, count: u64) {
        *self.counts.borrow_mut().entry(name).or_insert(0) += count;
    }

    /// The count of a name, 0 where it never happened.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.borrow().get(name).copied().unwrap_or(0)
    }

    /// All counts by name.
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.counts.borrow().iter().map(|(name, count)| (name.to_string(), *count)).collect()
    }
}
