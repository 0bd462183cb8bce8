//! The nemesis: when each fault of the plan strikes, what it does, and what is up or down because of it.
//! Disk and link faults and the closing of ports happen at once, also within a node's turn; a host is crashed and
//! started only between steps, by `world`. Start at `strike`. Not here: stepping, and the rules of disk and net.

mod membership;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

pub use self::membership::Operator;
use self::membership::{Place, Removal};
use super::clock::{SimClock, SimTime};
use super::counters::Counters;
use super::disk::{Drive, FileLoss, SimDisk};
use super::flag::Flag;
use super::net::{Down, Fabric, SimNet};
use super::node::{NodeEnd, NodeEvent};
use super::pause::Pause;
use super::trace::{Actor, Trace};
use crate::history::Mark;
use crate::plan::{Budget, Fault, FaultAction, LinkRule, Trigger};

pub(crate) struct Nemesis {
    faults: Vec<Fault>,
    fabric: Rc<Fabric>,
    drives: Vec<Drive>,
    trace: Trace,
    counters: Counters,
    time: SimTime,
    /// The nodes' clocks, by number.
    clocks: RefCell<BTreeMap<u32, SimClock>>,
    budget: Budget,
    /// An operator was asked to take a node out.
    asked: Notify,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// What is to be done at a time, in order of time and then of being planned.
    timeline: BTreeMap<(u64, u64), Deed>,
    planned: u64,
    armed: Vec<Armed>,
    nodes: Vec<NodeState>,
    crashes: Vec<Crash>,
    marks: Vec<Mark>,
    happened: Vec<NodeEvent>,
    struck: BTreeSet<u32>,
    /// Nodes that an operator is to take out, in order.
    removals: VecDeque<Removal>,
    /// So many more may be taken out.
    removals_left: usize,
    points: BTreeMap<&'static str, u64>,
    point_faults: BTreeMap<(&'static str, &'static str), u64>,
    is_liveness: bool,
    /// The nodes that stay up in the liveness phase; empty for all.
    core: Vec<u32>,
}

#[derive(Debug)]
enum Deed {
    Strike(u32),
    EndRule(u64),
    EndDiskFull { node: u32, fault: u32 },
    EndDiskSlow { node: u32, fault: u32 },
    EndStopping { node: u32, incarnation: u64 },
    EndPause { node: u32, incarnation: u64 },
    EndSkew { node: u32, skew_ms: i64 },
}

/// A trigger that waits for a point.
struct Armed {
    fault: u32,
    name: String,
    node: u32,
    occurrence: u32,
    armed_us: u64,
    seen: u32,
}

struct NodeState {
    incarnation: u64,
    place: Place,
    condition: Condition,
    stop: Flag,
    pause: Pause,
    prepared: Option<Process>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Up,
    /// Told to stop; started again so long after it has.
    Stopping {
        restart_after_us: u64,
    },
    /// Its ports are closed; the host is crashed at the next step.
    CutOff,
    Down {
        restart_at_us: Option<u64>,
        down: Down,
    },
}

/// A host that is to be crashed before the next step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crash {
    pub(crate) node: u32,
    /// The salt of the power loss, where it is one.
    power_loss: Option<u64>,
    restart_after_us: u64,
}

/// What a new process of a node gets.
pub(crate) struct Process {
    pub(crate) incarnation: u64,
    pub(crate) disk: SimDisk,
    pub(crate) net: SimNet,
    pub(crate) stop: Flag,
    pub(crate) pause: Pause,
}

/// Time that a node has for a clean stop before it is killed: what Kubernetes grants by default. A stop has to sync what is
/// left, so that it may take as long as the disk needs for that.
const STOPPING_US_MAX: u64 = 30_000_000;
/// Time until a node that gave up on its disk is started again.
const RESTART_AFTER_EXIT_US: u64 = 500_000;

impl Nemesis {
    pub(crate) fn new(
        faults: &[Fault],
        fabric: Rc<Fabric>,
        drives: Vec<Drive>,
        trace: Trace,
        counters: Counters,
        time: SimTime,
        budget: Budget,
    ) -> Nemesis {
        let mut state = State::default();
        for (index, fault) in faults.iter().enumerate() {
            let index = index as u32;
            match &fault.trigger {
                Trigger::At { at_ms } => state.plan(at_ms * 1000, Deed::Strike(index)),
                Trigger::Point { name, node, occurrence, armed_ms } => state.armed.push(Armed {
                    fault: index,
                    name: name.clone(),
                    node: *node,
                    occurrence: *occurrence,
                    armed_us: armed_ms * 1000,
                    seen: 0,
                }),
            }
        }
        for _ in &drives {
            let condition = Condition::Down { restart_at_us: None, down: Down::Process };
            state.nodes.push(NodeState {
                incarnation: 0,
                place: Place::Member,
                condition,
                stop: Flag::default(),
                pause: Pause::default(),
                prepared: None,
            });
        }
        let (clocks, state) = (RefCell::default(), RefCell::new(state));
        let (faults, asked) = (faults.to_vec(), Notify::new());
        Nemesis { faults, fabric, drives, trace, counters, time, clocks, budget, asked, state }
    }

    /// The node's clock, which faults can skew.
    pub(crate) fn add_clock(&self, node: u32, clock: SimClock) {
        self.clocks.borrow_mut().insert(node, clock);
    }

    /// The node stands at a point: every fault that waits for just this strikes now.
    pub(crate) fn point(&self, node: u32, name: &'static str) {
        let now_us = self.time.now_us();
        self.trace.event(now_us, Actor::Node(node), name, &[]);
        let mut state = self.state.borrow_mut();
        *state.points.entry(name).or_insert(0) += 1;
        let mut striking = Vec::new();
        for armed in &mut state.armed {
            if armed.node == node && armed.name == name && now_us >= armed.armed_us {
                armed.seen += 1;
                if armed.seen == armed.occurrence {
                    striking.push(armed.fault);
                }
            }
        }
        state.armed.retain(|armed| armed.seen < armed.occurrence);
        drop(state);
        for fault in striking {
            if self.strike(fault) {
                self.counters.add("fault-at-point", 1);
                let class = self.faults[fault as usize].action.class();
                *self.state.borrow_mut().point_faults.entry((name, class)).or_insert(0) += 1;
            }
        }
    }

    pub(crate) fn node_event(&self, node: u32, name: &'static str, count: u64) {
        let at_us = self.time.now_us();
        self.trace.event(at_us, Actor::Node(node), name, &[("count", count)]);
        self.counters.add(name, count);
        if count > 0 {
            self.state.borrow_mut().happened.push(NodeEvent { at_us, node, name });
        }
    }

    /// Whether this process of the node is the present one and its ports are open.
    pub(crate) fn is_running(&self, node: u32, incarnation: u64) -> bool {
        let state = self.state.borrow();
        let node = &state.nodes[node as usize];
        node.incarnation == incarnation && node.condition.is_running()
    }

    /// Makes the parts of a node's next process; the host is started right afterwards.
    pub(crate) fn prepare(&self, node: u32) {
        let mut state = self.state.borrow_mut();
        let slot = &mut state.nodes[node as usize];
        slot.incarnation += 1;
        slot.condition = Condition::Up;
        slot.stop = Flag::default();
        slot.pause = Pause::default();
        slot.prepared = Some(Process {
            incarnation: slot.incarnation,
            disk: self.drives[node as usize].attach(),
            net: self.fabric.node_up(node),
            stop: slot.stop.clone(),
            pause: slot.pause.clone(),
        });
        let numbers = [("incarnation", slot.incarnation)];
        self.trace.event(self.time.now_us(), Actor::Node(node), "start", &numbers);
    }

    pub(crate) fn take_prepared(&self, node: u32) -> Option<Process> {
        self.state.borrow_mut().nodes[node as usize].prepared.take()
    }

    /// A node's process has ended by itself; one that was cut off before did not.
    pub(crate) fn exited(&self, node: u32, incarnation: u64, ended: Result<(), NodeEnd>) {
        if !self.is_running(node, incarnation) {
            return;
        }
        let now_us = self.time.now_us();
        let mut state = self.state.borrow_mut();
        let slot = &mut state.nodes[node as usize];
        let stopping_us = match slot.condition {
            Condition::Stopping { restart_after_us } => Some(restart_after_us),
            Condition::Up | Condition::CutOff | Condition::Down { .. } => None,
        };
        let end = match (ended, stopping_us) {
            (Ok(()), Some(_)) => None,
            (Ok(()), None) => Some(NodeEnd { reason: "ended without being told to".to_string(), declared: false }),
            (Err(end), _) => Some(end),
        };
        let is_declared = end.as_ref().is_none_or(|end| end.declared);
        let restart_after_us = stopping_us.or(is_declared.then_some(RESTART_AFTER_EXIT_US));
        let comes_back = state.comes_back(node);
        let restart_at_us = restart_after_us.map(|after_us| now_us + after_us).filter(|_| comes_back);
        let slot = &mut state.nodes[node as usize];
        slot.condition = Condition::Down { restart_at_us, down: Down::Process };
        self.trace.event(now_us, Actor::Node(node), "exit", &[("declared", u64::from(is_declared))]);
        if let Some(end) = end {
            let NodeEnd { reason, declared } = end;
            state.marks.push(Mark::NodeExit { at_us: now_us, node, reason, declared });
        }
        drop(state);
        self.drives[node as usize].detach();
        self.fabric.node_down(node, Down::Process);
    }

    /// Does what the timeline holds up to now. Only between steps.
    pub(crate) fn advance(&self) {
        let now_us = self.time.now_us();
        loop {
            let mut state = self.state.borrow_mut();
            let Some(first) = state.timeline.first_entry().filter(|entry| entry.key().0 <= now_us) else { break };
            let deed = first.remove();
            drop(state);
            match deed {
                Deed::Strike(fault) => {
                    self.strike(fault);
                }
                Deed::EndRule(rule) => self.fabric.end_rule(rule),
                Deed::EndDiskFull { node, fault } => self.drives[node as usize].set_full(fault, false),
                Deed::EndDiskSlow { node, fault } => self.drives[node as usize].set_slow(fault, None),
                Deed::EndStopping { node, incarnation } => self.end_stopping(node, incarnation),
                Deed::EndPause { node, incarnation } => self.end_pause(node, incarnation),
                Deed::EndSkew { node, skew_ms } => self.skew(node, -skew_ms),
            }
        }
        self.fabric.tick();
    }

    /// Hosts that are to be crashed now.
    pub(crate) fn take_crashes(&self) -> Vec<Crash> {
        std::mem::take(&mut self.state.borrow_mut().crashes)
    }

    /// The host has been crashed: what that does to its drive, and when it comes back.
    pub(crate) fn crashed(&self, crash: Crash) {
        let mut down = Down::Process;
        if let Some(salt) = crash.power_loss {
            down = Down::Power;
            self.lose_power(crash.node, salt);
        }
        let mut state = self.state.borrow_mut();
        let after_us = if state.is_liveness { 0 } else { crash.restart_after_us };
        let restart_at_us = state.comes_back(crash.node).then_some(self.time.now_us() + after_us);
        state.nodes[crash.node as usize].condition = Condition::Down { restart_at_us, down };
    }

    /// Nodes whose time to start has come.
    pub(crate) fn starting(&self) -> Vec<u32> {
        let now_us = self.time.now_us();
        let state = self.state.borrow();
        let is_due = |slot: &NodeState| match slot.condition {
            Condition::Down { restart_at_us, .. } => restart_at_us.is_some_and(|at_us| at_us <= now_us),
            Condition::Up | Condition::Stopping { .. } | Condition::CutOff => false,
        };
        (0..state.nodes.len() as u32).filter(|node| is_due(&state.nodes[*node as usize])).collect()
    }

    /// Whether every timed fault has struck and ended, and every node is up.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.state.borrow();
        let is_up = |slot: &NodeState| match slot.condition {
            Condition::Up => true,
            // Without a time it stays down until the liveness phase.
            Condition::Down { restart_at_us, .. } => restart_at_us.is_none(),
            Condition::Stopping { .. } | Condition::CutOff => false,
        };
        let is_bound = |deed: &Deed| matches!(deed, Deed::EndStopping { .. });
        state.timeline.values().all(is_bound) && state.nodes.iter().all(is_up) && state.removals.is_empty()
    }

    /// The safety phase is over: no fault is active or will strike, and every node of the core that is down starts; where
    /// the core is not empty, nodes outside of it stop and stay down.
    pub(crate) fn begin_liveness(&self, core: &[u32]) {
        self.fabric.end_rules();
        self.clocks.borrow().values().for_each(|clock| clock.set_wall_skew_ms(0));
        for drive in &self.drives {
            drive.repair();
        }
        let now_us = self.time.now_us();
        self.trace.event(now_us, Actor::Nemesis, "liveness-began", &[]);
        let mut state = self.state.borrow_mut();
        state.is_liveness = true;
        state.armed.clear();
        state.timeline.retain(|_, deed| matches!(deed, Deed::EndStopping { .. }));
        let mut left_out = Vec::new();
        for (node, slot) in state.nodes.iter_mut().enumerate() {
            slot.pause.end();
            if slot.place != Place::Member {
                continue;
            }
            let node = node as u32;
            let is_in_core = core.is_empty() || core.contains(&node);
            match &mut slot.condition {
                Condition::Up | Condition::Stopping { .. } if !is_in_core => left_out.push(node),
                Condition::Down { restart_at_us, .. } if !is_in_core => *restart_at_us = None,
                Condition::Down { restart_at_us, .. } => *restart_at_us = Some(now_us),
                Condition::Stopping { restart_after_us } => *restart_after_us = 0,
                Condition::Up | Condition::CutOff => {}
            }
        }
        state.core = core.to_vec();
        state.marks.push(Mark::LivenessBegan { at_us: now_us });
        drop(state);
        for node in left_out {
            self.cut_off(Crash { node, power_loss: None, restart_after_us: 0 }, Down::Process);
        }
    }

    pub(crate) fn end_liveness(&self, missing: Vec<String>) {
        let at_us = self.time.now_us();
        let reached = missing.is_empty();
        self.trace.event(at_us, Actor::Nemesis, "liveness-ended", &[("reached", u64::from(reached))]);
        self.state.borrow_mut().marks.push(Mark::LivenessEnded { at_us, reached, missing });
    }

    pub(crate) fn take_marks(&self) -> Vec<Mark> {
        std::mem::take(&mut self.state.borrow_mut().marks)
    }

    /// What the nodes told, in order of time.
    pub(crate) fn take_happened(&self) -> Vec<NodeEvent> {
        std::mem::take(&mut self.state.borrow_mut().happened)
    }

    /// Indices of the plan's faults that struck, sorted.
    pub(crate) fn struck(&self) -> Vec<u32> {
        self.state.borrow().struck.iter().copied().collect()
    }

    /// What the drives lost, by node.
    pub(crate) fn losses(&self) -> Vec<FileLoss> {
        self.drives.iter().flat_map(Drive::losses).collect()
    }

    pub(crate) fn point_hits(&self) -> BTreeMap<String, u64> {
        self.state.borrow().points.iter().map(|(name, hits)| (name.to_string(), *hits)).collect()
    }

    pub(crate) fn point_faults(&self) -> BTreeMap<(String, String), u64> {
        let owned = |((point, class), count): (&(&str, &str), &u64)| ((point.to_string(), class.to_string()), *count);
        self.state.borrow().point_faults.iter().map(owned).collect()
    }

    /// Lets a fault strike; whether it had anything to strike.
    fn strike(&self, index: u32) -> bool {
        let fault = &self.faults[index as usize];
        let mut struck = fault.action.nodes();
        let is_struck = match &fault.action {
            FaultAction::Kill { node, restart_after_ms } => self.kill(*node, restart_after_ms * 1000),
            FaultAction::PowerLoss { node, restart_after_ms } => {
                self.cut_power(*node, restart_after_ms * 1000, fault.salt)
            }
            FaultAction::Restart { node, restart_after_ms } => self.stop(*node, restart_after_ms * 1000),
            FaultAction::Pause { node, duration_ms } => self.pause(*node, *duration_ms),
            FaultAction::Link { from, to, rule, duration_ms, only } => {
                let number = self.fabric.add_rule(*from, *to, *rule, *only);
                self.plan_after(*duration_ms, Deed::EndRule(number));
                true
            }
            FaultAction::KillSet { nodes, restart_after_ms, stagger_ms } => {
                struck.clear();
                for (node, after_us) in one_after_another(nodes, *restart_after_ms, *stagger_ms) {
                    if self.kill(node, after_us) {
                        struck.push(node);
                    }
                }
                !struck.is_empty()
            }
            FaultAction::PowerLossSet { nodes, restart_after_ms, stagger_ms } => {
                struck.clear();
                for (node, after_us) in one_after_another(nodes, *restart_after_ms, *stagger_ms) {
                    if self.cut_power(node, after_us, fault.salt.wrapping_add(u64::from(node))) {
                        struck.push(node);
                    }
                }
                !struck.is_empty()
            }
            FaultAction::Partition { cut, reset_after_ms, duration_ms, .. } => {
                let rule = LinkRule::Cut { reset_after_ms: *reset_after_ms };
                for link in cut {
                    let number = self.fabric.add_rule(link.from, link.to, rule, None);
                    self.plan_after(*duration_ms, Deed::EndRule(number));
                }
                true
            }
            FaultAction::ClockSkew { node, skew_ms, duration_ms } => {
                self.skew(*node, *skew_ms);
                self.plan_after(*duration_ms, Deed::EndSkew { node: *node, skew_ms: *skew_ms });
                true
            }
            FaultAction::DiskError { .. }
            | FaultAction::DiskFull { .. }
            | FaultAction::DiskSlow { .. }
            | FaultAction::BitFlip { .. } => self.strike_disk(index, fault),
            FaultAction::AddNode { .. } | FaultAction::RemoveNode { .. } => self.strike_membership(index, fault),
        };
        if !is_struck {
            return false;
        }
        let at_us = self.time.now_us();
        let class = fault.action.class();
        self.trace.event(at_us, Actor::Nemesis, class, &[("fault", u64::from(index))]);
        if is_counted_when_struck(&fault.action) {
            self.counters.add(class, 1);
        }
        let mut state = self.state.borrow_mut();
        state.struck.insert(index);
        state.marks.push(Mark::Fault { at_us, class: class.to_string(), fault: index, nodes: struck });
        true
    }

    fn strike_disk(&self, index: u32, fault: &Fault) -> bool {
        match &fault.action {
            FaultAction::DiskError { node, operations, on } => {
                self.drives[*node as usize].fail_operations(*on, *operations, fault.salt);
                true
            }
            FaultAction::DiskFull { node, duration_ms } => {
                self.drives[*node as usize].set_full(index, true);
                self.plan_after(*duration_ms, Deed::EndDiskFull { node: *node, fault: index });
                true
            }
            FaultAction::DiskSlow { node, delay_ms, duration_ms } => {
                self.drives[*node as usize].set_slow(index, Some(Duration::from_millis(*delay_ms)));
                self.plan_after(*duration_ms, Deed::EndDiskSlow { node: *node, fault: index });
                true
            }
            FaultAction::BitFlip { node, within } => self.drives[*node as usize].flip_bit(fault.salt, within).is_some(),
            FaultAction::Kill { .. }
            | FaultAction::KillSet { .. }
            | FaultAction::PowerLoss { .. }
            | FaultAction::PowerLossSet { .. }
            | FaultAction::Restart { .. }
            | FaultAction::Pause { .. }
            | FaultAction::Partition { .. }
            | FaultAction::ClockSkew { .. }
            | FaultAction::AddNode { .. }
            | FaultAction::RemoveNode { .. }
            | FaultAction::Link { .. } => false,
        }
    }

    /// Moves a node's wall clock by so much.
    fn skew(&self, node: u32, by_ms: i64) {
        if let Some(clock) = self.clocks.borrow().get(&node) {
            clock.shift_wall_ms(by_ms);
        }
    }

    /// Whether one more node may go down, with its power or without.
    fn is_within_budget(&self, node: u32, with_power: bool) -> bool {
        let state = self.state.borrow();
        let is_other = |(other, slot): &(usize, &NodeState)| *other as u32 != node && slot.place == Place::Member;
        let others = || state.nodes.iter().enumerate().filter(is_other);
        let down = others().filter(|(_, slot)| slot.condition != Condition::Up).count() as u32;
        let is_cut =
            |other: usize| state.crashes.iter().any(|crash| crash.node as usize == other && crash.power_loss.is_some());
        let is_powerless = |(other, slot): &(usize, &NodeState)| match slot.condition {
            Condition::Down { down, .. } => down == Down::Power,
            Condition::CutOff => is_cut(*other),
            Condition::Up | Condition::Stopping { .. } => false,
        };
        let powerless = others().filter(is_powerless).count() as u32;
        self.budget.down.is_none_or(|bound| down < bound)
            && (!with_power || self.budget.powerless.is_none_or(|bound| powerless < bound))
    }

    fn kill(&self, node: u32, restart_after_us: u64) -> bool {
        let is_running = self.state.borrow().nodes[node as usize].condition.is_running();
        let may_strike = is_running && self.is_within_budget(node, false);
        if may_strike {
            self.cut_off(Crash { node, power_loss: None, restart_after_us }, Down::Process);
        }
        may_strike
    }

    /// A machine can lose its power whether or not its process runs; only once.
    fn cut_power(&self, node: u32, restart_after_us: u64, salt: u64) -> bool {
        if !self.is_member(node) || !self.is_within_budget(node, true) {
            return false;
        }
        let condition = self.state.borrow().nodes[node as usize].condition;
        match condition {
            Condition::Up | Condition::Stopping { .. } => {
                self.cut_off(Crash { node, power_loss: Some(salt), restart_after_us }, Down::Power);
                true
            }
            Condition::CutOff => {
                let mut state = self.state.borrow_mut();
                let Some(crash) = state.crashes.iter_mut().find(|crash| crash.node == node) else { return false };
                if crash.power_loss.is_some() {
                    return false;
                }
                crash.power_loss = Some(salt);
                crash.restart_after_us = crash.restart_after_us.max(restart_after_us);
                drop(state);
                self.fabric.node_down(node, Down::Power);
                true
            }
            Condition::Down { down: Down::Power, .. } => false,
            Condition::Down { restart_at_us, down: Down::Process } => {
                self.fabric.node_down(node, Down::Power);
                self.lose_power(node, salt);
                let restart_at_us = restart_at_us.max(Some(self.time.now_us() + restart_after_us));
                let condition = Condition::Down { restart_at_us, down: Down::Power };
                self.state.borrow_mut().nodes[node as usize].condition = condition;
                true
            }
        }
    }

    fn lose_power(&self, node: u32, salt: u64) {
        let lost = self.drives[node as usize].power_loss(salt);
        if lost.bytes > 0 {
            self.counters.add("power-loss-that-dropped-bytes", 1);
        }
    }

    fn stop(&self, node: u32, restart_after_us: u64) -> bool {
        if !self.is_within_budget(node, false) {
            return false;
        }
        let at_us = self.time.now_us() + STOPPING_US_MAX;
        let mut state = self.state.borrow_mut();
        let slot = &mut state.nodes[node as usize];
        if slot.condition != Condition::Up || slot.pause.is_on() {
            return false;
        }
        slot.condition = Condition::Stopping { restart_after_us };
        slot.stop.raise();
        let incarnation = slot.incarnation;
        state.plan(at_us, Deed::EndStopping { node, incarnation });
        true
    }

    /// Only a process that is up and was not told to stop, so that a pause is never taken for a stop that hangs.
    fn pause(&self, node: u32, duration_ms: u64) -> bool {
        let state = self.state.borrow();
        let slot = &state.nodes[node as usize];
        if slot.condition != Condition::Up || slot.pause.is_on() {
            return false;
        }
        slot.pause.begin();
        let incarnation = slot.incarnation;
        drop(state);
        self.plan_after(duration_ms, Deed::EndPause { node, incarnation });
        true
    }

    fn end_pause(&self, node: u32, incarnation: u64) {
        let state = self.state.borrow();
        let slot = &state.nodes[node as usize];
        if slot.incarnation == incarnation {
            slot.pause.end();
        }
    }

    /// A node that was told to stop and did not is killed, and that is the node's failure.
    fn end_stopping(&self, node: u32, incarnation: u64) {
        let at_us = self.time.now_us();
        let mut state = self.state.borrow_mut();
        let slot = &state.nodes[node as usize];
        let Condition::Stopping { restart_after_us } = slot.condition else { return };
        if slot.incarnation != incarnation {
            return;
        }
        let reason = format!("did not stop within {} s of being told to", STOPPING_US_MAX / 1_000_000);
        state.marks.push(Mark::NodeExit { at_us, node, reason, declared: false });
        drop(state);
        self.cut_off(Crash { node, power_loss: None, restart_after_us }, Down::Process);
    }

    /// Closes a node's ports at once; the host is crashed before the next step.
    fn cut_off(&self, crash: Crash, down: Down) {
        self.drives[crash.node as usize].detach();
        self.fabric.node_down(crash.node, down);
        let mut state = self.state.borrow_mut();
        state.nodes[crash.node as usize].condition = Condition::CutOff;
        state.crashes.push(crash);
    }

    fn plan_after(&self, duration_ms: u64, deed: Deed) {
        let at_us = self.time.now_us() + duration_ms * 1000;
        self.state.borrow_mut().plan(at_us, deed);
    }
}

impl State {
    fn plan(&mut self, at_us: u64, deed: Deed) {
        self.planned += 1;
        self.timeline.insert((at_us, self.planned), deed);
    }
}

impl Condition {
    fn is_running(self) -> bool {
        match self {
            Condition::Up | Condition::Stopping { .. } => true,
            Condition::CutOff | Condition::Down { .. } => false,
        }
    }
}

/// Nodes with the time until each starts again, in microseconds.
fn one_after_another(nodes: &[u32], restart_after_ms: u64, stagger_ms: u64) -> impl Iterator<Item = (u32, u64)> + '_ {
    let after_us = move |index: usize| (restart_after_ms + stagger_ms * index as u64) * 1000;
    nodes.iter().enumerate().map(move |(index, node)| (*node, after_us(index)))
}

/// Faults that only arm something are counted where they are felt: at the operation or request that they hit.
fn is_counted_when_struck(action: &FaultAction) -> bool {
    match action {
        FaultAction::Link { only, .. } => only.is_none(),
        FaultAction::DiskError { .. } | FaultAction::DiskFull { .. } | FaultAction::DiskSlow { .. } => false,
        FaultAction::Kill { .. }
        | FaultAction::KillSet { .. }
        | FaultAction::PowerLoss { .. }
        | FaultAction::PowerLossSet { .. }
        | FaultAction::Restart { .. }
        | FaultAction::Pause { .. }
        | FaultAction::Partition { .. }
        | FaultAction::ClockSkew { .. }
        | FaultAction::AddNode { .. }
        | FaultAction::RemoveNode { .. }
        | FaultAction::BitFlip { .. } => true,
    }
}
