//! Nodes that come and go: what waits outside of the cluster, what an operator is asked to take out of it, and what is
//! gone for good. Start at `strike_membership`. Not here: what the operator does (`workload::operator`).

use std::rc::Rc;

use super::{Condition, Deed, Nemesis, STOPPING_US_MAX, State};
use crate::history::Mark;
use crate::plan::{Fault, FaultAction};
use crate::sim::trace::Actor;

/// Where a node belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// It has not been added yet: nothing can strike it, and it does not run.
    Outside,
    #[default]
    Member,
    /// It was taken out, and never runs again.
    Gone,
}

/// A node that is to be taken out, and the fault that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removal {
    node: u32,
    fault: u32,
}

/// What the world's operator is asked to do, and what it can do to the machines. Clones are the same operator.
#[derive(Clone)]
pub struct Operator {
    nemesis: Rc<Nemesis>,
}

impl Operator {
    pub(crate) fn new(nemesis: Rc<Nemesis>) -> Operator {
        Operator { nemesis }
    }

    /// The node that is to be taken out next: the same until `removed` was called for it. Safe to drop at any time.
    pub async fn next_removal(&self) -> u32 {
        loop {
            let asked = self.nemesis.asked.notified();
            if let Some(node) = self.pending_removal() {
                return node;
            }
            asked.await;
        }
    }

    /// The node that is to be taken out next, where there is one.
    pub fn pending_removal(&self) -> Option<u32> {
        self.nemesis.state.borrow().removals.front().map(|removal| removal.node)
    }

    /// Stops the node that is to be taken out next, cleanly and for good.
    pub fn retire(&self) {
        self.nemesis.retire();
    }

    /// The removal that `next_removal` gave is over: the node is out, or it stays.
    pub fn removed(&self) {
        let removal = self.nemesis.state.borrow_mut().removals.pop_front();
        if let Some(Removal { node, .. }) = removal {
            let is_gone = self.nemesis.state.borrow().nodes[node as usize].place == Place::Gone;
            self.nemesis.counters.add("node-removed", u64::from(is_gone));
        }
    }
}

impl Nemesis {
    /// The last `joining` nodes wait outside.
    pub(crate) fn keep_outside(&self, joining: u32) {
        let mut state = self.state.borrow_mut();
        let founders = state.nodes.len().saturating_sub(joining as usize);
        state.nodes[founders..].iter_mut().for_each(|slot| slot.place = Place::Outside);
        state.removals_left = founders.saturating_sub(1) / 2;
    }

    /// Whether the node's software is to run from the beginning.
    pub(crate) fn is_member(&self, node: u32) -> bool {
        self.state.borrow().nodes[node as usize].place == Place::Member
    }

    /// Whether there was a node to add, or one that can be spared.
    pub(super) fn strike_membership(&self, index: u32, fault: &Fault) -> bool {
        let mut state = self.state.borrow_mut();
        match fault.action {
            FaultAction::AddNode { node } => {
                let now_us = self.time.now_us();
                let slot = &mut state.nodes[node as usize];
                let is_outside = slot.place == Place::Outside;
                if let (true, Condition::Down { restart_at_us, .. }) = (is_outside, &mut slot.condition) {
                    *restart_at_us = Some(now_us);
                    slot.place = Place::Member;
                }
                is_outside
            }
            FaultAction::RemoveNode { node } => {
                let is_member = state.nodes[node as usize].place == Place::Member;
                let is_asked = state.removals.iter().any(|removal| removal.node == node);
                // A majority of those that were there at first stays, whoever else comes or not.
                if !is_member || is_asked || state.removals_left == 0 {
                    return false;
                }
                state.removals_left -= 1;
                state.removals.push_back(Removal { node, fault: index });
                self.asked.notify_waiters();
                true
            }
            _ => false,
        }
    }

    fn retire(&self) {
        let at_us = self.time.now_us();
        let mut state = self.state.borrow_mut();
        let Some(Removal { node, fault }) = state.removals.front().copied() else { return };
        let slot = &mut state.nodes[node as usize];
        slot.place = Place::Gone;
        let incarnation = slot.incarnation;
        match &mut slot.condition {
            Condition::Up => {
                slot.condition = Condition::Stopping { restart_after_us: 0 };
                slot.stop.raise();
                state.plan(at_us + STOPPING_US_MAX, Deed::EndStopping { node, incarnation });
            }
            Condition::Down { restart_at_us, .. } => *restart_at_us = None,
            // They end, and `State::comes_back` says that they stay down.
            Condition::Stopping { .. } | Condition::CutOff => {}
        }
        self.trace.event(at_us, Actor::Node(node), "retire", &[("fault", u64::from(fault))]);
        let class = self.faults[fault as usize].action.class().to_owned();
        state.marks.push(Mark::Fault { at_us, class, fault, nodes: vec![node] });
    }
}

impl State {
    /// Whether a node that is down starts again.
    pub(super) fn comes_back(&self, node: u32) -> bool {
        let is_left_out = self.is_liveness && !self.core.is_empty() && !self.core.contains(&node);
        !is_left_out && self.nodes[node as usize].place == Place::Member
    }
}
