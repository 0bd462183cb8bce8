//! A node's gate: the node tells its named points here, and a fault whose trigger is that very point strikes within
//! the call: from then on the node's ports are closed, whatever the rest of its turn still tries.
//! Not here: what a fault does (`nemesis`).

use std::rc::Rc;

use super::nemesis::Nemesis;

/// A node's gate, for its observer. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    nemesis: Rc<Nemesis>,
    node: u32,
    incarnation: u64,
}

impl Gate {
    pub(crate) fn new(nemesis: Rc<Nemesis>, node: u32, incarnation: u64) -> Gate {
        Gate { nemesis, node, incarnation }
    }

    /// The node stands at a named point.
    pub fn point(&self, name: &'static str) {
        if self.is_open() {
            self.nemesis.point(self.node, name);
        }
    }

    /// Something countable happened, `count` times.
    pub fn event(&self, name: &'static str, count: u64) {
        if self.is_open() {
            self.nemesis.node_event(self.node, name, count);
        }
    }

    /// Whether the node's ports still have an effect.
    pub fn is_open(&self) -> bool {
        self.nemesis.is_running(self.node, self.incarnation)
    }
}
