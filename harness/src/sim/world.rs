//! One simulated world: turmoil's hosts stepped in one place, with the nemesis acting between the steps.
//! A run has a safety phase, in which faults strike, and a liveness phase, in which everything must come to its end.
//! The same plan and the same software give the same trace hash. Worlds are local to a thread; one world, one run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::clock::{EPOCH_MS, SimClock, SimTime};
use super::counters::Counters;
use super::disk::{Drive, DriveOptions, FileLoss};
use super::flag::{Flag, Phase};
use super::nemesis::Nemesis;
use super::net::{Fabric, FabricOptions, host_name};
use super::node::{ActorTrace, NodeEnd, NodeEvent, NodeHost, Operator, SimClient, SimNode, run_process};
use super::trace::{Actor, Trace};
use crate::history::Mark;
use crate::plan::draws::{Draws, draw_at};
use crate::plan::{Endpoint, FaultAction, Plan, Trigger};

/// The port on which nodes listen.
pub const NODE_PORT: u16 = 9092;

/// Why a world cannot be made or stepped.
#[derive(Debug, Error)]
pub enum WorldError {
    /// tokio's scheduler is not seeded in this build.
    #[error(
        "the simulated world needs tokio's seeded scheduler: build from the project's folder, whose .cargo/config.toml \
         sets it, or pass `--cfg tokio_unstable` to the compiler"
    )]
    SchedulerNotSeeded,
    /// A field of the plan is out of its bounds.
    #[error("the plan's {field} is {value}, and must be {bounds}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        bounds: &'static str,
    },
    /// A host that the plan does not have, or that was added already.
    #[error("{host} cannot be added: the plan has no such host, or it is there already")]
    NoSuchHost {
        /// The host's name.
        host: String,
    },
    /// turmoil could not step.
    #[error("the simulation stopped at {at_us} µs: {reason}")]
    Stopped {
        /// Microseconds since the run began.
        at_us: u64,
        /// What turmoil said.
        reason: String,
    },
}

/// How a run is observed; nothing here changes what happens in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Control {
    /// Whether every event of the trace is kept as a line.
    pub record_trace: bool,
}

/// What a run leaves beside the clients' history.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the nemesis and the nodes did, in order of time.
    pub marks: Vec<Mark>,
    /// The trace hash, 32 hexadecimal digits.
    pub trace_hash: String,
    /// Number of events in the trace.
    pub trace_events: u64,
    /// The events as lines, where they were recorded.
    pub trace_lines: Vec<String>,
    /// Counts of what happened, by name.
    pub events: BTreeMap<String, u64>,
    /// What the nodes told, in order of time.
    pub happened: Vec<NodeEvent>,
    /// How often the nodes stood at each point, by name.
    pub point_hits: BTreeMap<String, u64>,
    /// How often a fault struck at a point, by (point, class of fault).
    pub point_faults: BTreeMap<(String, String), u64>,
    /// Indices of the plan's faults that struck, sorted.
    pub faults_struck: Vec<u32>,
    /// What drives lost, by node and time.
    pub losses: Vec<FileLoss>,
    /// Simulated time that the run took.
    pub simulated: Duration,
}

/// A world before its run.
pub struct World {
    plan: Plan,
    sim: turmoil::Sim<'static>,
    nemesis: Rc<Nemesis>,
    fabric: Rc<Fabric>,
    trace: Trace,
    counters: Counters,
    time: SimTime,
    phase: Phase,
    set_up: Flag,
    nodes: BTreeMap<u32, String>,
    clients: BTreeMap<u32, ClientState>,
}

struct ClientState {
    operations_done: Flag,
    /// What the client said at its end, once it has ended.
    ended: Rc<RefCell<Option<ClientEnd>>>,
}

/// How a client ended; an error names what it could not reach.
type ClientEnd = Result<(), Vec<String>>;

impl World {
    /// A world with the plan's knobs and faults, and no software yet.
    pub fn new(plan: &Plan) -> Result<World, WorldError> {
        if !cfg!(tokio_unstable) {
            return Err(WorldError::SchedulerNotSeeded);
        }
        check_bounds(plan)?;
        let (trace, counters, time) = (Trace::new(false), Counters::default(), SimTime::default());
        let draws = Draws::new(draw_at(plan.salt, "world", 0, 0));
        let fabric = Fabric::new(FabricOptions {
            latency_us: plan.world.latency_ms * 1000,
            jitter_us: plan.world.jitter_ms * 1000,
            trace: trace.clone(),
            counters: counters.clone(),
            draws: draws.clone(),
            time: time.clone(),
        });
        let drive = |node| {
            Drive::new(DriveOptions {
                node,
                capacity_bytes: plan.world.disk_bytes,
                sync_us: plan.world.sync_us,
                trace: trace.clone(),
                counters: counters.clone(),
                draws: draws.clone(),
                time: time.clone(),
            })
        };
        let drives: Vec<Drive> = (0..plan.world.nodes).map(drive).collect();
        let budget = plan.world.budget;
        let nemesis =
            Nemesis::new(&plan.faults, fabric.clone(), drives, trace.clone(), counters.clone(), time.clone(), budget);
        nemesis.keep_outside(plan.world.joining);
        let sim = build_turmoil(plan);
        Ok(World {
            plan: plan.clone(),
            sim,
            nemesis: Rc::new(nemesis),
            fabric,
            trace,
            counters,
            time,
            phase: Phase::default(),
            set_up: Flag::default(),
            nodes: BTreeMap::new(),
            clients: BTreeMap::new(),
        })
    }

    /// Adds a node's software: called once for each process of the node, at the start and after each crash or exit.
    pub fn add_node<F, Fut>(&mut self, node: u32, factory: F) -> Result<(), WorldError>
    where
        F: Fn(SimNode) -> Fut + 'static,
        Fut: Future<Output = Result<(), NodeEnd>> + 'static,
    {
        let name = host_name(Endpoint::Node(node));
        if node >= self.plan.world.nodes || self.nodes.contains_key(&node) {
            return Err(WorldError::NoSuchHost { host: name });
        }
        self.fabric.add_host(self.sim.lookup(name.as_str()), Endpoint::Node(node));
        let host = Rc::new(NodeHost {
            node,
            clock: SimClock::new(self.time.clone()),
            draws: Draws::new(draw_at(self.plan.salt, "node", u64::from(node), 0)),
            nemesis: self.nemesis.clone(),
            factory,
        });
        self.nemesis.add_clock(node, host.clock.clone());
        let is_member = self.nemesis.is_member(node);
        if is_member {
            self.nemesis.prepare(node);
        }
        self.sim.host(name.as_str(), move || {
            let host = host.clone();
            async move {
                run_process(host).await;
                Ok(())
            }
        });
        if !is_member {
            // It starts when a fault adds it.
            self.sim.crash(name.as_str());
        }
        self.nodes.insert(node, name);
        Ok(())
    }

    /// Adds a client's software; its end says what it could not reach.
    pub fn add_client<F, Fut>(&mut self, client: u32, software: F) -> Result<(), WorldError>
    where
        F: FnOnce(SimClient) -> Fut + 'static,
        Fut: Future<Output = Result<(), Vec<String>>> + 'static,
    {
        let name = host_name(Endpoint::Client(client));
        if self.clients.contains_key(&client) {
            return Err(WorldError::NoSuchHost { host: name });
        }
        self.fabric.add_host(self.sim.lookup(name.as_str()), Endpoint::Client(client));
        let state = ClientState { operations_done: Flag::default(), ended: Rc::default() };
        let sim_client = SimClient {
            client,
            net: self.fabric.client(client),
            clock: SimClock::new(self.time.clone()),
            draws: Draws::new(draw_at(self.plan.salt, "client", u64::from(client), 0)),
            trace: ActorTrace { trace: self.trace.clone(), time: self.time.clone(), actor: Actor::Client(client) },
            phase: self.phase.clone(),
            operations_done: state.operations_done.clone(),
            set_up: self.set_up.clone(),
            counters: self.counters.clone(),
            operator: Operator::new(self.nemesis.clone()),
        };
        let (ended, time) = (state.ended.clone(), self.time.clone());
        self.sim.client(name.as_str(), async move {
            let end = time.run(software(sim_client)).await;
            *ended.borrow_mut() = Some(end);
            Ok(())
        });
        self.clients.insert(client, state);
        Ok(())
    }

    /// Runs to the end: until every client has ended, or the liveness phase's bound has passed.
    pub fn run(mut self, control: Control) -> Result<Outcome, WorldError> {
        if control.record_trace {
            self.trace.record_lines();
        }
        let safety_us = self.plan.world.safety_ms * 1000;
        let liveness_us = self.plan.world.liveness_ms * 1000;
        let mut bound_us = None;
        loop {
            let now_us = self.sim.elapsed().as_micros() as u64;
            self.time.set_step_us(now_us);
            self.nemesis.advance();
            if bound_us.is_none() && (now_us >= safety_us || self.is_safety_shown()) {
                let core: &[u32] = if self.set_up.is_raised() { &self.plan.world.core } else { &[] };
                self.nemesis.begin_liveness(core);
                self.phase.begin_liveness();
                bound_us = Some(now_us + liveness_us);
            }
            self.crash_and_start();
            if bound_us.is_some_and(|bound_us| now_us >= bound_us || self.are_clients_done()) {
                break;
            }
            let stepped = self.sim.step();
            stepped.map_err(|error| WorldError::Stopped { at_us: now_us, reason: error.to_string() })?;
        }
        self.nemesis.end_liveness(self.missing());
        Ok(Outcome {
            marks: self.nemesis.take_marks(),
            trace_hash: self.trace.hash(),
            trace_events: self.trace.events(),
            trace_lines: self.trace.take_lines(),
            events: self.counters.all(),
            happened: self.nemesis.take_happened(),
            point_hits: self.nemesis.point_hits(),
            point_faults: self.nemesis.point_faults(),
            faults_struck: self.nemesis.struck(),
            losses: self.nemesis.losses(),
            simulated: self.sim.elapsed(),
        })
    }

    fn crash_and_start(&mut self) {
        for crash in self.nemesis.take_crashes() {
            self.sim.crash(self.nodes[&crash.node].as_str());
            self.nemesis.crashed(crash);
        }
        for node in self.nemesis.starting() {
            let Some(name) = self.nodes.get(&node) else { continue };
            self.nemesis.prepare(node);
            self.sim.bounce(name.as_str());
        }
    }

    /// Whether all clients' planned operations have ended and no fault is under way or to come at a time.
    fn is_safety_shown(&self) -> bool {
        let mut clients = self.clients.values();
        let are_done = clients.all(|client| client.operations_done.is_raised() || client.ended.borrow().is_some());
        are_done && self.nemesis.is_quiet()
    }

    fn are_clients_done(&self) -> bool {
        self.clients.values().all(|client| client.ended.borrow().is_some())
    }

    /// What clients did not reach.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (client, state) in &self.clients {
            match &*state.ended.borrow() {
                None => missing.push(format!("client-{client} has not ended")),
                Some(Ok(())) => {}
                Some(Err(texts)) if texts.is_empty() => missing.push(format!("client-{client} ended without success")),
                Some(Err(texts)) => missing.extend(texts.iter().map(|text| format!("client-{client}: {text}"))),
            }
        }
        missing
    }
}

/// The one place where turmoil is configured; every default that would come from the system is set.
fn build_turmoil(plan: &Plan) -> turmoil::Sim<'static> {
    const TCP_CAPACITY: usize = 1 << 14;
    let latency = Duration::from_millis(plan.world.latency_ms);
    let bound = Duration::from_millis(plan.world.safety_ms + plan.world.liveness_ms);
    turmoil::Builder::new()
        .rng_seed(draw_at(plan.salt, "turmoil", 0, 0))
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS as u64))
        .simulation_duration(bound + Duration::from_secs(3600))
        .tick_duration(Duration::from_millis(plan.world.tick_ms))
        .min_message_latency(latency)
        .max_message_latency(latency)
        .fail_rate(0.0)
        .repair_rate(1.0)
        .tcp_capacity(TCP_CAPACITY)
        .build()
}

fn check_bounds(plan: &Plan) -> Result<(), WorldError> {
    let world = &plan.world;
    let within = |field, value: u64, low: u64, high: u64, bounds| {
        let is_within = (low..=high).contains(&value);
        if is_within { Ok(()) } else { Err(WorldError::OutOfBounds { field, value, bounds }) }
    };
    within("world.nodes", u64::from(world.nodes), 1, 8, "1 to 8")?;
    within("world.tick_ms", world.tick_ms, 1, 1000, "1 to 1000 milliseconds")?;
    within("world.latency_ms", world.latency_ms, 0, 60_000, "at most a minute")?;
    within("world.jitter_ms", world.jitter_ms, 0, 60_000, "at most a minute")?;
    within("world.sync_us", world.sync_us, 0, 60_000_000, "at most a minute")?;
    within("world.safety_ms", world.safety_ms, 0, 30_000, "at most 30,000 milliseconds")?;
    within("world.liveness_ms", world.liveness_ms, 1, 600_000, "at least 1 ms and at most ten minutes")?;
    within("world.disk_bytes", world.disk_bytes, 1, 1 << 40, "at least one byte and at most 1 TiB")?;
    let last = u64::from(world.nodes) - 1;
    within("world.joining", u64::from(world.joining), 0, last, "fewer than there are nodes")?;
    let founders = u64::from(world.founders());
    for fault in &plan.faults {
        if let Trigger::Point { node, occurrence, .. } = &fault.trigger {
            within("trigger.node", u64::from(*node), 0, last, "one of the plan's nodes")?;
            within("trigger.occurrence", u64::from(*occurrence), 1, u64::from(u32::MAX), "at least 1")?;
        }
        for node in fault.action.nodes() {
            within("fault.node", u64::from(node), 0, last, "one of the plan's nodes")?;
        }
        if let FaultAction::AddNode { node } = fault.action {
            within("fault.node", u64::from(node), founders, last, "one of the nodes that wait outside")?;
        }
        if let FaultAction::Partition { cut, .. } = &fault.action {
            for end in cut.iter().flat_map(|link| [link.from, link.to]) {
                if let Endpoint::Node(node) = end {
                    within("fault.cut", u64::from(node), 0, last, "one of the plan's nodes")?;
                }
            }
        }
    }
    for node in &world.core {
        within("world.core", u64::from(*node), 0, last, "one of the plan's nodes")?;
    }
    for topic in &plan.topics {
        within(
            "topic.replication",
            u64::from(topic.replication),
            1,
            founders,
            "from 1 to the number of nodes at first",
        )?;
    }
    Ok(())
}
