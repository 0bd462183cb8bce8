//! The nemesis of the process world: a thread that lets the plan's faults strike real processes and links at their
//! times, starts again what is due, and notices nodes that end by themselves. Start at `Nemesis::run`.
//! A trigger at a named point becomes the time at which it was armed: a real process has no points to stop at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::super::disk::{Answer, Command};
use super::links::{ActiveRule, Links};
use super::nodes::{Node, NodeError};
use super::outages::{Leaders, Outage};
use crate::history::Mark;
use crate::plan::{Fault, FaultAction, LinkRule, Plan, Trigger};
use crate::sim::disk::{Metadata, PowerLossSummary};

/// What the nodes' data lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// The machine's own: no fault can strike them.
    Own,
    /// Disks that forget what is unsynced when their power is lost, by these rules for names.
    Forgetting(Metadata),
}

impl Disks {
    /// Whether their power can be lost.
    pub fn can_forget(self) -> bool {
        self != Disks::Own
    }
}

/// Whether a real process, its links and its disk can be made to suffer this.
pub fn is_offered(action: &FaultAction, disks: Disks) -> bool {
    match action {
        FaultAction::Kill { .. }
        | FaultAction::KillSet { .. }
        | FaultAction::Restart { .. }
        | FaultAction::Pause { .. }
        | FaultAction::Partition { .. } => true,
        FaultAction::Link { only, .. } => only.is_none(),
        FaultAction::PowerLoss { .. }
        | FaultAction::PowerLossSet { .. }
        | FaultAction::DiskError { .. }
        | FaultAction::DiskFull { .. }
        | FaultAction::DiskSlow { .. }
        | FaultAction::BitFlip { .. } => disks.can_forget(),
        FaultAction::ClockSkew { .. } | FaultAction::AddNode { .. } | FaultAction::RemoveNode { .. } => false,
    }
}

/// What the nemesis leaves.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// What struck and which nodes ended by themselves, in order of time.
    pub(super) marks: Vec<Mark>,
    /// Faults that had nothing to strike: the node was down, or as many others as may be at once.
    pub(super) missed: u64,
    /// Queues whose leader went away by a fault; how long each lasted is not known here.
    pub(super) outages: Vec<Outage>,
    /// What power losses took from the disks, in order of time.
    pub(super) power_losses: Vec<PowerLossSummary>,
}

pub(super) struct Nemesis {
    faults: Vec<Fault>,
    slots: Vec<Slot>,
    links: Arc<Links>,
    leaders: Leaders,
    /// Nodes that may be away at once at most; none sets no bound.
    away_max: Option<u32>,
    began: Instant,
    timeline: BTreeMap<(Duration, u64), Deed>,
    planned: u64,
    is_quiet: Arc<AtomicBool>,
    left: Left,
}

struct Slot {
    node: Box<dyn Node>,
    is_up: bool,
    is_paused: bool,
    stopping: Option<Stopping>,
}

impl Slot {
    /// Starts a node that is down; one that is still to end is not.
    fn start(&mut self) -> Result<(), NodeError> {
        if !self.is_up && self.stopping.is_none() {
            self.node.start()?;
            self.is_up = true;
        }
        Ok(())
    }
}

/// A clean stop under way. Others go on meanwhile: a node may not be able to end before they are back.
#[derive(Debug, Clone, Copy)]
struct Stopping {
    /// When it is killed.
    until: Duration,
    restart_after: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Strike(u32),
    Start(usize),
    Resume(usize),
    EndRule(ActiveRule),
    EndDiskFull(usize, u32),
    EndDiskSlow(usize, u32),
}

impl Nemesis {
    /// A nemesis over nodes that are up; `began` is the run's beginning, `is_quiet` tells when no fault is left.
    pub(super) fn new(
        plan: &Plan,
        nodes: Vec<Box<dyn Node>>,
        links: Arc<Links>,
        leaders: Leaders,
        began: Instant,
        is_quiet: Arc<AtomicBool>,
    ) -> Nemesis {
        let slots =
            nodes.into_iter().map(|node| Slot { node, is_up: true, is_paused: false, stopping: None }).collect();
        let faults = plan.faults.clone();
        let (timeline, left, away_max) = (BTreeMap::new(), Left::default(), plan.world.budget.down);
        let mut nemesis =
            Nemesis { faults, slots, links, leaders, away_max, began, timeline, planned: 0, is_quiet, left };
        for index in 0..nemesis.faults.len() {
            let at_ms = match nemesis.faults[index].trigger {
                Trigger::At { at_ms } => at_ms,
                Trigger::Point { armed_ms, .. } => armed_ms,
            };
            nemesis.plan(Duration::from_millis(at_ms), Deed::Strike(index as u32));
        }
        nemesis
    }

    /// Until `heal` says that the liveness phase begins: then every rule ends and every node is up.
    /// Gives the nodes back beside what happened.
    pub(super) fn run(mut self, heal: &Receiver<()>) -> Result<(Vec<Box<dyn Node>>, Left), NodeError> {
        loop {
            self.advance()?;
            let is_quiet = self.timeline.is_empty() && self.slots.iter().all(|slot| slot.is_up && !slot.is_paused);
            self.is_quiet.store(is_quiet, Ordering::SeqCst);
            let next = self.timeline.first_key_value().map_or(LOOK_EVERY, |((at, _), _)| {
                at.saturating_sub(self.began.elapsed()).clamp(Duration::from_millis(1), LOOK_EVERY)
            });
            match heal.recv_timeout(next) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.heal()?;
        Ok((self.slots.into_iter().map(|slot| slot.node).collect(), self.left))
    }

    fn heal(&mut self) -> Result<(), NodeError> {
        self.links.end_rules()?;
        self.note_exits()?;
        for slot in &mut self.slots {
            if let Some(disk) = slot.node.disk() {
                disk.tell(&Command::Repair)?;
            }
            if slot.is_paused {
                slot.node.resume()?;
                slot.is_paused = false;
            }
            slot.start()?;
        }
        while self.slots.iter().any(|slot| slot.stopping.is_some()) {
            self.note_stopped()?;
            std::thread::sleep(LOOK_EVERY);
        }
        self.slots.iter_mut().try_for_each(Slot::start)
    }

    fn advance(&mut self) -> Result<(), NodeError> {
        while let Some(first) = self.timeline.first_entry() {
            if first.key().0 > self.began.elapsed() {
                break;
            }
            match first.remove() {
                Deed::Strike(fault) => self.strike(fault)?,
                Deed::EndRule(rule) => self.links.end_rule(rule)?,
                Deed::EndDiskFull(node, fault) => {
                    self.tell_disk(node, &Command::Full { fault, is_active: false })?;
                }
                Deed::EndDiskSlow(node, fault) => {
                    self.tell_disk(node, &Command::Slow { fault, delay_ms: 0 })?;
                }
                Deed::Start(node) => self.slots[node].start()?,
                Deed::Resume(node) => {
                    let slot = &mut self.slots[node];
                    if slot.is_paused {
                        slot.node.resume()?;
                        slot.is_paused = false;
                    }
                }
            }
        }
        self.note_stopped()?;
        self.note_exits()
    }

    /// A node that was asked to end and has is started again when that is due; one that does not end in time is killed,
    /// and that is its failure.
    fn note_stopped(&mut self) -> Result<(), NodeError> {
        for index in 0..self.slots.len() {
            let elapsed = self.began.elapsed();
            let slot = &mut self.slots[index];
            let Some(Stopping { until, restart_after }) = slot.stopping else { continue };
            if !slot.node.has_ended()? {
                if elapsed < until {
                    continue;
                }
                let reason = slot.node.lingers(STOPPING_MAX).to_string();
                slot.node.kill()?;
                let at_us = self.now_us();
                self.left.marks.push(Mark::NodeExit { at_us, node: index as u32, reason, declared: false });
            }
            self.slots[index].stopping = None;
            self.plan_after(restart_after, Deed::Start(index));
        }
        Ok(())
    }

    /// A node that ended without being told to is the system's failure; it is started again.
    fn note_exits(&mut self) -> Result<(), NodeError> {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if !slot.is_up {
                continue;
            }
            if let Some(reason) = slot.node.exited()? {
                slot.is_up = false;
                let at_us = self.now_us();
                self.left.marks.push(Mark::NodeExit { at_us, node: index as u32, reason, declared: false });
                self.plan_after(RESTART_AFTER_EXIT, Deed::Start(index));
            }
        }
        Ok(())
    }

    fn strike(&mut self, index: u32) -> Result<(), NodeError> {
        let Fault { action, salt, .. } = self.faults[index as usize].clone();
        let is_struck = match &action {
            FaultAction::Kill { node, restart_after_ms } => self.kill(*node, *restart_after_ms)?,
            FaultAction::Restart { node, restart_after_ms } => self.stop(*node, *restart_after_ms)?,
            FaultAction::Pause { node, duration_ms } => self.pause(*node, *duration_ms)?,
            FaultAction::Link { from, to, rule, duration_ms, only: None } => {
                let active = self.links.add_rule(*from, *to, *rule)?;
                self.plan_after(Duration::from_millis(*duration_ms), Deed::EndRule(active));
                true
            }
            FaultAction::KillSet { nodes, restart_after_ms, stagger_ms } => {
                let mut is_struck = false;
                for (index, node) in nodes.iter().enumerate() {
                    is_struck |= self.kill(*node, restart_after_ms + stagger_ms * index as u64)?;
                }
                is_struck
            }
            FaultAction::Partition { cut, reset_after_ms, duration_ms, .. } => {
                let rule = LinkRule::Cut { reset_after_ms: *reset_after_ms };
                for link in cut {
                    let active = self.links.add_rule(link.from, link.to, rule)?;
                    self.plan_after(Duration::from_millis(*duration_ms), Deed::EndRule(active));
                }
                true
            }
            FaultAction::PowerLoss { node, restart_after_ms } => {
                self.cut_power(&[*node], *restart_after_ms, 0, salt)?
            }
            FaultAction::PowerLossSet { nodes, restart_after_ms, stagger_ms } => {
                self.cut_power(nodes, *restart_after_ms, *stagger_ms, salt)?
            }
            FaultAction::DiskError { .. }
            | FaultAction::DiskFull { .. }
            | FaultAction::DiskSlow { .. }
            | FaultAction::BitFlip { .. } => self.strike_disk(index, &action, salt)?,
            FaultAction::Link { only: Some(_), .. }
            | FaultAction::ClockSkew { .. }
            | FaultAction::AddNode { .. }
            | FaultAction::RemoveNode { .. } => {
                unreachable!("faults that this world does not offer are taken from the plan before it runs")
            }
        };
        if is_struck {
            let (at_us, class) = (self.now_us(), action.class().to_owned());
            self.left.marks.push(Mark::Fault { at_us, class, fault: index, nodes: action.nodes() });
        } else {
            self.left.missed += 1;
        }
        Ok(())
    }

    /// Whether one more node may be away.
    fn is_within_budget(&self, node: u32) -> bool {
        let others = self.slots.iter().enumerate().filter(|(other, _)| *other as u32 != node);
        let away = others.filter(|(_, slot)| !slot.is_up || slot.is_paused).count() as u32;
        self.away_max.is_none_or(|bound| away < bound)
    }

    /// What the node leads is without a leader from now on.
    fn note_outages(&mut self, node: u32, class: &'static str) {
        let begun = self.leaders.led_by(node, class, self.now_us());
        self.left.outages.extend(begun);
    }

    fn kill(&mut self, node: u32, restart_after_ms: u64) -> Result<bool, NodeError> {
        if !self.slots[node as usize].is_up || !self.is_within_budget(node) {
            return Ok(false);
        }
        self.note_outages(node, "kill");
        let slot = &mut self.slots[node as usize];
        slot.node.kill()?;
        (slot.is_up, slot.is_paused) = (false, false);
        self.plan_after(Duration::from_millis(restart_after_ms), Deed::Start(node as usize));
        Ok(true)
    }

    /// All processes end first, so that none sees another's disk without its power.
    fn cut_power(&mut self, nodes: &[u32], restart_ms: u64, stagger_ms: u64, salt: u64) -> Result<bool, NodeError> {
        let mut struck = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            if self.kill(*node, restart_ms + stagger_ms * index as u64)? {
                struck.push(*node);
            }
        }
        for node in &struck {
            let salt = if nodes.len() == 1 { salt } else { salt.wrapping_add(u64::from(*node)) };
            if let Some(Answer::Lost { summary, .. }) = self.tell_disk(*node as usize, &Command::PowerLoss { salt })? {
                self.left.power_losses.push(summary);
            }
        }
        Ok(!struck.is_empty())
    }

    fn strike_disk(&mut self, fault: u32, action: &FaultAction, salt: u64) -> Result<bool, NodeError> {
        let Some(node) = action.nodes().first().map(|node| *node as usize) else { return Ok(false) };
        let command = match action {
            FaultAction::DiskError { operations, on, .. } => Command::Fail { on: *on, operations: *operations, salt },
            FaultAction::DiskFull { duration_ms, .. } => {
                self.plan_after(Duration::from_millis(*duration_ms), Deed::EndDiskFull(node, fault));
                Command::Full { fault, is_active: true }
            }
            FaultAction::DiskSlow { delay_ms, duration_ms, .. } => {
                self.plan_after(Duration::from_millis(*duration_ms), Deed::EndDiskSlow(node, fault));
                Command::Slow { fault, delay_ms: *delay_ms }
            }
            FaultAction::BitFlip { within, .. } => Command::FlipBit { salt, within: within.clone() },
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
            | FaultAction::Link { .. } => return Ok(false),
        };
        let answer = self.tell_disk(node, &command)?;
        Ok(answer.is_some_and(|answer| answer != Answer::Flipped(None)))
    }

    /// The disk's answer; none where the node's disk is the machine's own.
    fn tell_disk(&mut self, node: usize, command: &Command) -> Result<Option<Answer>, NodeError> {
        Ok(self.slots[node].node.disk().map(|disk| disk.tell(command)).transpose()?)
    }

    /// Asks a node to end; `note_stopped` sees that it does.
    fn stop(&mut self, node: u32, restart_after_ms: u64) -> Result<bool, NodeError> {
        let slot = &self.slots[node as usize];
        if !slot.is_up || slot.is_paused || !self.is_within_budget(node) {
            return Ok(false);
        }
        self.note_outages(node, "restart");
        let slot = &mut self.slots[node as usize];
        slot.node.ask_to_end()?;
        slot.is_up = false;
        let (until, restart_after) = (self.began.elapsed() + STOPPING_MAX, Duration::from_millis(restart_after_ms));
        slot.stopping = Some(Stopping { until, restart_after });
        Ok(true)
    }

    fn pause(&mut self, node: u32, duration_ms: u64) -> Result<bool, NodeError> {
        let slot = &self.slots[node as usize];
        if !slot.is_up || slot.is_paused || !self.is_within_budget(node) {
            return Ok(false);
        }
        self.note_outages(node, "pause");
        let slot = &mut self.slots[node as usize];
        slot.node.pause()?;
        slot.is_paused = true;
        self.plan_after(Duration::from_millis(duration_ms), Deed::Resume(node as usize));
        Ok(true)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn plan_after(&mut self, after: Duration, deed: Deed) {
        let at = self.began.elapsed() + after;
        self.plan(at, deed);
    }

    fn plan(&mut self, at: Duration, deed: Deed) {
        self.planned += 1;
        self.timeline.insert((at, self.planned), deed);
    }
}

/// How often the nemesis looks whether a node has ended by itself, at least.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time until a node that ended by itself is started again.
const RESTART_AFTER_EXIT: Duration = Duration::from_millis(500);
/// Time that a node has for a clean stop. Kafka hands its leaderships over first, and waits where nobody can take them.
const STOPPING_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;
    use crate::plan::sample::sample;
    use crate::plan::scenario::Scenario;

    /// Two nodes; whether each is up, and how often it was started.
    type Pair = Arc<Mutex<[(bool, u32); 2]>>;

    /// A node that cannot end before the other is up, as Kafka's that hand their leaderships over.
    struct Waiting {
        pair: Pair,
        index: usize,
        is_asked: bool,
    }

    impl Node for Waiting {
        fn address(&self) -> SocketAddr {
            SocketAddr::from(([127, 0, 0, 1], 9))
        }

        fn start(&mut self) -> Result<(), NodeError> {
            let mut pair = self.pair.lock().unwrap();
            pair[self.index] = (true, pair[self.index].1 + 1);
            Ok(())
        }

        fn kill(&mut self) -> Result<(), NodeError> {
            unreachable!("nobody is killed here")
        }

        fn ask_to_end(&mut self) -> Result<(), NodeError> {
            self.is_asked = true;
            Ok(())
        }

        fn last_words(&self) -> String {
            String::new()
        }

        fn has_ended(&mut self) -> Result<bool, NodeError> {
            let mut pair = self.pair.lock().unwrap();
            let ends = self.is_asked && pair[1 - self.index].0;
            if ends {
                pair[self.index].0 = false;
            }
            Ok(ends)
        }

        fn pause(&mut self) -> Result<(), NodeError> {
            Ok(())
        }

        fn resume(&mut self) -> Result<(), NodeError> {
            Ok(())
        }

        fn exited(&mut self) -> Result<Option<String>, NodeError> {
            Ok(None)
        }
    }

    #[test]
    fn a_node_that_cannot_end_before_another_is_back_gets_it_back() {
        let mut plan = sample(&Scenario::parse("roll.toml", SCENARIO).unwrap(), 1, None);
        let restart = |node, at_ms, restart_after_ms| {
            let action = FaultAction::Restart { node, restart_after_ms };
            Fault { trigger: Trigger::At { at_ms }, action, salt: 0 }
        };
        plan.faults = vec![restart(1, 0, 300), restart(0, 100, 0)];
        plan.world.budget.down = None;
        let pair: Pair = Arc::new(Mutex::new([(true, 0); 2]));
        let node = |index| -> Box<dyn Node> { Box::new(Waiting { pair: pair.clone(), index, is_asked: false }) };
        let links = Arc::new(Links::start(None).unwrap());
        let is_quiet = Arc::new(AtomicBool::new(false));
        let nodes = vec![node(0), node(1)];
        let nemesis = Nemesis::new(&plan, nodes, links, Leaders::default(), Instant::now(), is_quiet.clone());
        let (heal, healed) = mpsc::channel();
        let thread = std::thread::spawn(move || nemesis.run(&healed).map(|(_, left)| left));
        let is_over = || pair.lock().unwrap().iter().all(|(is_up, starts)| *is_up && *starts == 1);
        while !(thread.is_finished() || (is_over() && is_quiet.load(Ordering::SeqCst))) {
            std::thread::sleep(LOOK_EVERY);
        }
        heal.send(()).unwrap();
        let left = thread.join().unwrap().unwrap();
        let exits = left.marks.iter().filter(|mark| matches!(mark, Mark::NodeExit { .. })).count();
        assert_eq!((exits, left.missed, left.marks.len()), (0, 0, 2), "{:?}", left.marks);
    }

    const SCENARIO: &str = "name = \"roll\"\ntitle = \"Two nodes.\"\n[world]\nnodes = 2\n[workload]\n";
}
