//! One run: the reference broker's nodes and the plan's clients in one simulated world, then the judge.
//! Start at `run_plan`. Not here: many runs (`campaign`), and anything that decides what a history means (the harness).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqassay_broker::core::config::{ConfigError, NodeConfig, Peer};
use mqassay_broker::core::types::NodeId;
use mqassay_broker::mutant::Mutant;
use mqassay_broker::node::{self, Ports};
use mqassay_broker::ports::{Clock, Disk, Net, Observer, Rand};
use mqassay_harness::artifact::campaign::SEND_ACKNOWLEDGED;
use mqassay_harness::artifact::folder::{self, KeptRun};
use mqassay_harness::artifact::recovery;
use mqassay_harness::artifact::{ArtifactError, PointFaults, Proof, RunLine, RunRecord};
use mqassay_harness::check::{self, Context as JudgeContext, Verdict};
use mqassay_harness::driver::mutant::ClientMutant;
use mqassay_harness::driver::{self, Events};
use mqassay_harness::history::{Call, ClientId, Header, History, Operation, Outcome as HistoryOutcome, SCHEMA_VERSION};
use mqassay_harness::plan::{FaultAction, Plan};
use mqassay_harness::sim::clock::EPOCH_MS;
use mqassay_harness::sim::disk::FileLoss;
use mqassay_harness::sim::flag::Flag;
use mqassay_harness::sim::node::{NodeEnd, SimClient, SimNode};
use mqassay_harness::sim::world::{Control, NODE_PORT, Outcome, World, WorldError};
use mqassay_harness::workload::client::run_client;
use mqassay_harness::workload::final_reads::{FinalReads, final_reads};
use mqassay_harness::workload::operator::remove_node;
use mqassay_harness::workload::phase::PhaseSwitch;
use mqassay_harness::workload::recorder::Recorder;
use mqassay_harness::workload::topics::create_topics;
use mqassay_harness::workload::{Context, WorkloadError};
use thiserror::Error;

use crate::adapter::client::{ClientDial, ClientTimer};
use crate::adapter::disk::NodeDisk;
use crate::adapter::net::NodeNet;
use crate::adapter::node::{NodeClock, NodeObserver, NodeRand, ports};
use crate::adapter::probe::{Sightings, StateSeen};
use crate::campaign::proof::ProofError;
use crate::campaign::{fingerprint, situations};

/// Longest wait of the clients for the topics, in simulated time.
const TOPICS_BOUND: Duration = Duration::from_secs(20);
/// Time-out of a request of the final reads and of topic creation.
const ADMIN_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Upper bound of an answer to a final read, in bytes.
const FINAL_FETCH_BYTES: u32 = 200_000;

/// Whether the events of the trace are kept as lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Only the hash.
    HashOnly,
    /// Every event.
    Events,
    /// Every event, and the nodes' states.
    WhiteBox,
}

/// One judged run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its line of `verify`.
    pub line: RunLine,
    /// The judgement.
    pub verdict: Verdict,
    /// What the clients saw.
    pub history: History,
    /// Countable events by name; every known name is there.
    pub events: BTreeMap<String, u64>,
    /// How often the nodes stood at each named point.
    pub point_hits: BTreeMap<String, u64>,
    /// Faults that struck at named points.
    pub point_faults: PointFaults,
    /// Situations that the run went through.
    pub situations: BTreeSet<String>,
    /// The trace's events, where they were recorded.
    pub trace_lines: Vec<String>,
    /// What drives lost, by node and time.
    pub losses: Vec<FileLoss>,
    /// The nodes' states, where they were recorded.
    pub states: Vec<StateSeen>,
    /// What the same plan did in another process, where it was run there too.
    pub proof: Option<Proof>,
}

impl Run {
    /// What a campaign keeps of the run.
    pub fn record(&self) -> RunRecord {
        let happened = self.events.iter().filter(|(_, count)| **count > 0);
        RunRecord {
            line: self.line.clone(),
            events: happened.map(|(name, count)| (name.clone(), *count)).collect(),
            coverage: self.point_faults.clone(),
            situations: self.situations.clone(),
            recovery: recovery::of_history(&self.history),
            fingerprint: fingerprint::of(&self.verdict, &self.history),
            proof: self.proof.clone(),
        }
    }
}

/// Why a run could not be performed or kept.
#[derive(Debug, Error)]
pub enum RunError {
    /// The world refuses the plan, or stopped.
    #[error("scenario {scenario} seed {seed}: {source}")]
    World {
        /// The plan's scenario.
        scenario: String,
        /// The plan's seed.
        seed: u64,
        /// What the world said.
        source: WorldError,
    },
    /// The plan's settings are not the broker's.
    #[error("the plan's settings: {0}")]
    Settings(#[from] ConfigError),
    /// The plan names a deliberate bug that does not exist.
    #[error("there is no mutant {name:?}; known are {known}")]
    NoSuchMutant {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The plan asks a client for what it cannot do.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Artifacts cannot be written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The run could not be repeated in another process.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// What one process of a node is started with.
pub struct NodeStart {
    /// The plan's settings.
    pub config: NodeConfig,
    /// What the world gives the process.
    pub node: SimNode,
    /// The plan's deliberate bug.
    pub mutant: Option<Mutant>,
    /// Where its states go, where they are recorded.
    pub sightings: Option<Sightings>,
}

/// A process of a node until its end.
pub type NodeRun = Pin<Box<dyn Future<Output = Result<(), NodeEnd>>>>;

/// Runs a plan and judges what it left.
pub fn run_plan(plan: &Plan, record: Record) -> Result<Run, RunError> {
    run_plan_with(plan, record, |start| Box::pin(run_node(start, |ports| ports)))
}

/// As `run_plan`, with other software on the nodes: `run_node` over ports of one's own, or a broker of any kind.
pub fn run_plan_with(
    plan: &Plan,
    record: Record,
    software: impl Fn(NodeStart) -> NodeRun + 'static,
) -> Result<Run, RunError> {
    let began = Instant::now();
    let world_error = |source| RunError::World { scenario: plan.scenario.clone(), seed: plan.seed, source };
    let config = node_config(plan)?;
    let mutant = plan.mutant.as_deref().map(mutant_named).transpose()?;
    if let Some(name) = plan.client_mutant.as_ref().filter(|name| ClientMutant::named(name).is_none()) {
        let known = ClientMutant::ALL.map(ClientMutant::name).join(", ");
        return Err(RunError::NoSuchMutant { name: name.clone(), known });
    }
    let mut world = World::new(plan).map_err(world_error)?;
    let (sightings, software) = (Sightings::default(), Rc::new(software));
    for node in 0..plan.world.nodes {
        let (config, software) = (config.clone(), software.clone());
        let watched = (record == Record::WhiteBox).then(|| sightings.clone());
        let start =
            move |node| software(NodeStart { config: config.clone(), node, mutant, sightings: watched.clone() });
        world.add_node(node, start).map_err(world_error)?;
    }
    let stage = Rc::new(Stage::new(plan));
    let reader = plan.clients.len() as u32;
    let has_removals = plan.faults.iter().any(|fault| matches!(fault.action, FaultAction::RemoveNode { .. }));
    for client in 0..=reader {
        let stage = stage.clone();
        world.add_client(client, move |client| run_one_client(stage, client)).map_err(world_error)?;
    }
    if has_removals {
        let stage = stage.clone();
        world.add_client(reader + 1, move |client| run_operator(stage, client)).map_err(world_error)?;
    }
    let control = Control { record_trace: record != Record::HashOnly };
    let outcome = world.run(control).map_err(world_error)?;
    if let Some(error) = stage.broken.borrow_mut().take() {
        return Err(error.into());
    }
    Ok(Run { states: sightings.take(), ..judged(plan, &stage, outcome, began) })
}

/// The nodes' configuration: the tiny preset, so that rolls and evictions happen in every run, and the plan's settings.
fn node_config(plan: &Plan) -> Result<NodeConfig, ConfigError> {
    let mut config = NodeConfig::tiny().with_settings(&plan.settings)?;
    config.listen = SocketAddr::from(([0, 0, 0, 0], NODE_PORT));
    if plan.world.nodes > 1 {
        let peer = |node| Peer { id: NodeId(node as i32), host: format!("node-{node}"), port: NODE_PORT };
        config.cluster = (0..plan.world.founders()).map(peer).collect();
    }
    Ok(config)
}

/// The mutant with a public name.
pub fn mutant_named(name: &str) -> Result<Mutant, RunError> {
    Mutant::ALL.into_iter().find(|mutant| mutant.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
        let known = Mutant::ALL.map(Mutant::name).join(", ");
        RunError::NoSuchMutant { name: name.to_owned(), known }
    })
}

/// The ports that the simulated world gives a node.
pub type SimPorts = Ports<NodeDisk, NodeNet, NodeClock, NodeRand, NodeObserver>;

/// Runs the reference broker as a node, over ports that `wrap` makes of the world's.
pub async fn run_node<D: Disk, N: Net, C: Clock, R: Rand, O: Observer>(
    start: NodeStart,
    wrap: impl FnOnce(SimPorts) -> Ports<D, N, C, R, O>,
) -> Result<(), NodeEnd> {
    let NodeStart { mut config, node, mutant, sightings } = start;
    config.node_id = node.node as i32;
    // Nodes that are not of the cluster at the beginning join it.
    config.joins = !config.cluster.is_empty() && config.cluster.iter().all(|peer| peer.id.0 != config.node_id);
    config.advertised =
        Some(mqassay_broker::core::config::Advertised { host: format!("node-{}", node.node), port: NODE_PORT });
    let stop = node.stop.clone();
    let ports = wrap(ports(&node, sightings.as_ref()));
    let ended = node::run(config, ports, mutant, |_| {}, async move { stop.wait().await }).await;
    ended.map_err(|exit| NodeEnd { reason: exit.to_string(), declared: exit.is_declared() })
}

/// What the clients of a run share.
struct Stage {
    plan: Plan,
    topics: Rc<Vec<mqassay_harness::plan::Topic>>,
    recorder: RefCell<Option<Recorder>>,
    topics_ready: Flag,
    clients_left: Cell<usize>,
    all_done: Flag,
    /// An error of the plan itself.
    broken: RefCell<Option<WorkloadError>>,
}

impl Stage {
    fn new(plan: &Plan) -> Stage {
        Stage {
            plan: plan.clone(),
            topics: Rc::new(plan.topics.clone()),
            recorder: RefCell::new(None),
            topics_ready: Flag::default(),
            clients_left: Cell::new(plan.clients.len()),
            all_done: Flag::default(),
            broken: RefCell::new(None),
        }
    }

    /// The recorder of the run; every completion is folded into the trace.
    fn recorder(&self, client: &SimClient) -> Recorder {
        let trace = client.trace.clone();
        let make = || Recorder::new(Box::new(move |operation: &Operation| trace_operation(&trace, operation)));
        self.recorder.borrow_mut().get_or_insert_with(make).clone()
    }

    fn client_ended(&self) {
        self.clients_left.set(self.clients_left.get() - 1);
        if self.clients_left.get() == 0 {
            self.all_done.raise();
        }
    }
}

fn trace_operation(trace: &mqassay_harness::sim::node::ActorTrace, operation: &Operation) {
    // The JSON of an operation holds all that the judge sees of it, and nothing of the machine.
    let text = serde_json::to_string(operation).expect("an operation consists of numbers and strings");
    trace.note("operation", &text);
}

/// A client of the plan, or, behind the last, the reader that prepares the topics and reads everything at the end.
async fn run_one_client(stage: Rc<Stage>, client: SimClient) -> Result<(), Vec<String>> {
    let switch = PhaseSwitch::new();
    let liveness = async {
        client.phase.liveness().await;
        switch.begin_liveness();
        std::future::pending::<()>().await;
    };
    let context = context(&stage, &client, &switch);
    let work = async {
        match stage.plan.clients.get(client.client as usize) {
            Some(planned) => run_planned(&stage, &client, &context, planned).await,
            None => run_reader(&stage, &client, &context).await,
        }
    };
    tokio::select! {
        biased;
        () = liveness => unreachable!("the liveness branch never ends"),
        ended = work => ended,
    }
}

async fn run_planned(
    stage: &Stage,
    client: &SimClient,
    context: &Context<ClientDial, ClientTimer>,
    planned: &mqassay_harness::plan::Client,
) -> Result<(), Vec<String>> {
    stage.topics_ready.wait().await;
    let ended = run_client(context, planned).await;
    client.operations_done.raise();
    stage.client_ended();
    ended.map_err(|error| {
        let text = error.to_string();
        stage.broken.borrow_mut().get_or_insert(error);
        vec![text]
    })
}

async fn run_reader(
    stage: &Stage,
    client: &SimClient,
    context: &Context<ClientDial, ClientTimer>,
) -> Result<(), Vec<String>> {
    let created = create_topics(context, TOPICS_BOUND, ADMIN_TIMEOUT).await;
    stage.topics_ready.raise();
    if created.is_ok() {
        client.set_up.raise();
    }
    client.operations_done.raise();
    client.phase.liveness().await;
    if created.is_err() {
        // Faults may have kept the topics from being made; without any they must be. Other clients may wait for that.
        create_topics(context, TOPICS_BOUND, ADMIN_TIMEOUT).await.map_err(|error| vec![error.to_string()])?;
    }
    stage.all_done.wait().await;
    let bound = Duration::from_millis(stage.plan.world.liveness_ms * 2 / 3);
    final_reads(context, FinalReads { bound, request_timeout: ADMIN_TIMEOUT, fetch_max_bytes: FINAL_FETCH_BYTES }).await
}

/// The operator, who takes nodes out of the cluster when faults ask for it, until the run ends.
async fn run_operator(stage: Rc<Stage>, client: SimClient) -> Result<(), Vec<String>> {
    // Pending removals keep the safety phase going by themselves.
    client.operations_done.raise();
    let switch = PhaseSwitch::new();
    let context = context(&stage, &client, &switch);
    let bound = Duration::from_millis(stage.plan.world.liveness_ms * 2 / 3);
    let operator = &client.operator;
    let work = async {
        stage.topics_ready.wait().await;
        while !context.phase.is_live() || operator.pending_removal().is_some() {
            let node = tokio::select! {
                biased;
                node = operator.next_removal() => node,
                () = context.phase.liveness() => continue,
            };
            let removal = remove_node(&context, node as i32, || operator.retire(), bound, ADMIN_TIMEOUT).await;
            operator.removed();
            removal.map_err(|error| vec![error])?;
        }
        Ok(())
    };
    let liveness = async {
        client.phase.liveness().await;
        switch.begin_liveness();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = liveness => unreachable!("the liveness branch never ends"),
        ended = work => ended,
    }
}

fn context(stage: &Stage, client: &SimClient, switch: &PhaseSwitch) -> Context<ClientDial, ClientTimer> {
    let counters = client.counters.clone();
    let events: Events = Rc::new(move |name| counters.add(name, 1));
    Context {
        client: ClientId(client.client),
        dial: ClientDial(client.net.clone()),
        timer: ClientTimer(client.clock.clone()),
        began: Duration::ZERO,
        began_wall_ms: EPOCH_MS,
        bootstrap: (0..stage.plan.world.nodes).map(|node| format!("node-{node}:{NODE_PORT}")).collect(),
        topics: stage.topics.clone(),
        draws: client.draws.clone(),
        recorder: stage.recorder(client),
        phase: switch.phase(),
        events,
        client_mutant: stage.plan.client_mutant.as_deref().and_then(ClientMutant::named),
    }
}

fn judged(plan: &Plan, stage: &Stage, outcome: Outcome, began: Instant) -> Run {
    let operations = stage.recorder.borrow().as_ref().map(Recorder::take_operations).unwrap_or_default();
    let header = Header {
        schema: SCHEMA_VERSION,
        topics: plan.topics.iter().map(|topic| topic.name.clone()).collect(),
        title: format!("{} seed {}", plan.scenario, plan.seed),
    };
    let history = History { header, operations, marks: outcome.marks };
    let verdict = check::judge(&history, &JudgeContext::of_plan(plan).with_wall_start_ms(EPOCH_MS));
    let line = RunLine {
        scenario: plan.scenario.clone(),
        seed: plan.seed,
        mutant: plan.culprit().map(str::to_owned),
        verdict: verdict.kind,
        anomalies: verdict.violations(),
        allowed: verdict.allowed(),
        operations: history.operations.len() as u64,
        faults: outcome.faults_struck.len() as u64,
        trace_hash: outcome.trace_hash,
        plan: String::new(),
        simulated_seconds: outcome.simulated.as_secs_f64(),
        wall_seconds: began.elapsed().as_secs_f64(),
    };
    let mut events = known_events();
    for (name, count) in outcome.events {
        *events.entry(name).or_insert(0) += count;
    }
    let acknowledged = history.operations.iter().filter(|operation| is_acknowledged_send(operation)).count();
    events.insert(SEND_ACKNOWLEDGED.to_owned(), acknowledged as u64);
    let mut point_faults = PointFaults::new();
    for ((point, class), count) in outcome.point_faults {
        *point_faults.entry(point).or_default().entry(class).or_insert(0) += count;
    }
    let situations = situations::of(&outcome.happened, &history.marks);
    let (point_hits, trace_lines) = (outcome.point_hits, outcome.trace_lines);
    let (losses, states) = (outcome.losses, Vec::new());
    Run {
        line,
        verdict,
        history,
        events,
        point_hits,
        point_faults,
        situations,
        trace_lines,
        losses,
        states,
        proof: None,
    }
}

/// Every event that a run can count, at zero.
fn is_acknowledged_send(operation: &Operation) -> bool {
    matches!((&operation.call, &operation.outcome), (Call::Produce { acks, .. }, HistoryOutcome::Done) if *acks != 0)
}

pub(crate) fn known_events() -> BTreeMap<String, u64> {
    let broker = mqassay_broker::points::EVENTS.iter();
    let world = mqassay_harness::sim::EVENTS.iter();
    broker.chain(world).chain(driver::EVENTS).map(|name| ((*name).to_owned(), 0)).collect()
}

/// Writes what a run left beside its plan, which gets the run's trace hash, and names the plan in the run's line.
pub fn write_artifacts(run_folder: &Path, plan: &Plan, run: &mut Run) -> Result<(), RunError> {
    let plan = Plan { recorded_trace: Some(run.line.trace_hash.clone()), ..plan.clone() };
    run.line.plan = folder::write_plan(run_folder, &plan)?.display().to_string();
    let kept = KeptRun { line: run.line.clone(), verdict: run.verdict.clone() };
    folder::write_run(run_folder, &kept, &run.history, &run.trace_lines)?;
    Ok(())
}
