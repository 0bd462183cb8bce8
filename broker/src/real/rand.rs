//! Draws seeded from the system: each is a keyed hash of its label, its entity and how often that entity has drawn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::rc::Rc;

use crate::ports::Rand;

/// Draws keyed by the system's entropy, taken once.
#[derive(Debug, Clone, Default)]
pub struct SystemRand {
    key: RandomState,
    drawn: Rc<RefCell<BTreeMap<(&'static str, u64), u64>>>,
}

impl Rand for SystemRand {
    fn draw(&self, label: &'static str, entity: u64) -> u64 {
        let mut drawn = self.drawn.borrow_mut();
        let count = drawn.entry((label, entity)).or_insert(0);
        *count += 1;
        self.key.hash_one((label, entity, *count))
    }
}
