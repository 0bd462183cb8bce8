//! What a node's process and a client get from the world, and how a process is run: on a task set of its own, so that
//! its end, or a panic in any of its tasks, ends the process and nothing else. Not here: when it starts (`nemesis`).

use std::future::Future;
use std::rc::Rc;

use tokio::task::LocalSet;

use super::clock::{SimClock, SimTime};
use super::counters::Counters;
use super::disk::SimDisk;
use super::flag::{Flag, Phase};
use super::gate::Gate;
use super::nemesis::Nemesis;
pub use super::nemesis::Operator;
use super::net::SimNet;
use super::panics::guarded;
use super::pause::pausable;
use super::trace::{Actor, Trace};
use crate::plan::draws::Draws;

/// The world as one process of a node sees it.
#[derive(Clone)]
pub struct SimNode {
    /// The node's number, from 0; its host is `node-<number>`.
    pub node: u32,
    /// How many processes the node has had, this one included.
    pub incarnation: u64,
    /// Its data folder.
    pub disk: SimDisk,
    /// Its network.
    pub net: SimNet,
    /// Its clock.
    pub clock: SimClock,
    /// Its draws; a restart does not begin them anew.
    pub draws: Draws,
    /// Where it tells of its points and events.
    pub gate: Gate,
    /// Raised when it is to stop cleanly.
    pub stop: Flag,
}

/// Something that a node told of itself, beside the points at which it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeEvent {
    /// Microseconds since the run began.
    pub at_us: u64,
    /// The node.
    pub node: u32,
    /// What happened.
    pub name: &'static str,
}

/// How a node's process ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEnd {
    /// What it said.
    pub reason: String,
    /// Whether it is the declared answer to a disk that fails; then it is started again.
    pub declared: bool,
}

/// The world as a client sees it.
#[derive(Clone)]
pub struct SimClient {
    /// The client's number, from 0; its host is `client-<number>`.
    pub client: u32,
    /// Its network.
    pub net: SimNet,
    /// Its clock.
    pub clock: SimClock,
    /// Its draws.
    pub draws: Draws,
    /// Where it tells of its operations.
    pub trace: ActorTrace,
    /// The run's phase.
    pub phase: Phase,
    /// To be raised when its planned operations have ended: when every client's have, faults need not go on.
    pub operations_done: Flag,
    /// The world's, to be raised when all that clients work on exists. A plan's core of nodes suffices from then on: to
    /// make a topic takes as many nodes as it has replicas.
    pub set_up: Flag,
    /// Counts of what happened.
    pub counters: Counters,
    /// For the client that takes nodes out of the cluster, where the plan has such faults.
    pub operator: Operator,
}

/// The run's trace for one actor.
#[derive(Clone)]
pub struct ActorTrace {
    pub(crate) trace: Trace,
    pub(crate) time: SimTime,
    pub(crate) actor: Actor,
}

impl ActorTrace {
    /// Folds an event with numbers into the trace.
    pub fn event(&self, kind: &str, numbers: &[(&str, u64)]) {
        self.trace.event(self.time.now_us(), self.actor, kind, numbers);
    }

    /// Folds an event with a text into the trace.
    pub fn note(&self, kind: &str, text: &str) {
        self.trace.note(self.time.now_us(), self.actor, kind, text);
    }
}

/// What stays the same for all processes of a node.
pub(crate) struct NodeHost<F> {
    pub(crate) node: u32,
    pub(crate) clock: SimClock,
    pub(crate) draws: Draws,
    pub(crate) nemesis: Rc<Nemesis>,
    pub(crate) factory: F,
}

/// Runs one process of a node to its end and tells the nemesis how it ended.
pub(crate) async fn run_process<F, Fut>(host: Rc<NodeHost<F>>)
where
    F: Fn(SimNode) -> Fut + 'static,
    Fut: Future<Output = Result<(), NodeEnd>> + 'static,
{
    let node = host.node;
    let process = host.nemesis.take_prepared(node).expect("a host is started only after `prepare`");
    let incarnation = process.incarnation;
    let sim_node = SimNode {
        node,
        incarnation,
        disk: process.disk,
        net: process.net,
        clock: host.clock.clone(),
        draws: host.draws.clone(),
        gate: Gate::new(host.nemesis.clone(), node, incarnation),
        stop: process.stop,
    };
    let (nemesis, clock) = (host.nemesis.clone(), host.clock.clone());
    let software = async move {
        let tasks = new_task_set();
        tasks.run_until(async { (host.factory)(sim_node).await }).await
    };
    let ended = guarded(pausable(process.pause, clock.run(software)));
    let ended = match ended.await {
        Ok(ended) => ended,
        Err(panic) => Err(NodeEnd { reason: format!("panicked: {panic}"), declared: false }),
    };
    nemesis.exited(node, incarnation, ended);
}

/// A task set that panics when one of its tasks does.
fn new_task_set() -> LocalSet {
    #[cfg(tokio_unstable)]
    {
        let mut tasks = LocalSet::new();
        tasks.unhandled_panic(tokio::runtime::UnhandledPanic::ShutdownRuntime);
        tasks
    }
    // Unreachable in a run: the world refuses to start without the cfg.
    #[cfg(not(tokio_unstable))]
    LocalSet::new()
}
