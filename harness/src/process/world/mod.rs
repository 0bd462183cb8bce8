//! The process world: the plan's clients against real broker processes on loopback sockets, with kill -9, SIGSTOP,
//! restarts, and links cut, held or delayed by forwarding proxies. The same workload, history and judge as in the
//! simulation. Start at `ProcessWorld::prepare`, then `run`. Here nothing is replayed exactly: time is real.

mod links;
pub mod namespaces;
mod nemesis;
mod nodes;
mod outages;
mod system;
mod through_driver;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpStream;

use super::disk::Command;
use crate::check::Context as JudgeContext;
use crate::driver::real::{SystemTimer, TcpDial};
use crate::driver::{Dial, Timer};
use crate::external::ExternalError;
use crate::history::{ClientId, Header, History, Mark, SCHEMA_VERSION};
use crate::plan::draws::Draws;
use crate::plan::{Endpoint, Plan};
use crate::sim::disk::PowerLossSummary;
use crate::workload::client::run_client;
use crate::workload::final_reads::{FinalReads, final_reads};
use crate::workload::phase::PhaseSwitch;
use crate::workload::recorder::Recorder;
use crate::workload::topics::create_topics;
use crate::workload::{Context, WorkloadError};

pub use links::Links;
pub use nemesis::{Disks, is_offered};
pub use nodes::{Node, NodeError, OnForgettingDisk, ReferenceNode};
pub use outages::Outage;
pub use system::SystemNode;

use namespaces::Namespaces;
use outages::Leaders;

/// A run's links, before its nodes are made.
#[derive(Debug)]
pub struct ProcessWorld {
    plan: Plan,
    links: Arc<Links>,
    addresses: Vec<SocketAddr>,
    left_out: Vec<&'static str>,
    interrupted: Arc<AtomicBool>,
    sync: Duration,
}

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    /// The plan without the faults that this world cannot make.
    pub plan: Plan,
    /// Operations and marks.
    pub history: History,
    /// Under which settings the history is to be judged.
    pub judge: JudgeContext,
    /// Classes of fault that were left out, sorted, each once.
    pub left_out: Vec<&'static str>,
    /// Countable events of the clients, by name.
    pub events: BTreeMap<String, u64>,
    /// Faults that struck.
    pub struck: u64,
    /// Faults that found their node down, or as many nodes down as the plan allows at once.
    pub missed: u64,
    /// Queues whose leader went away by a fault, and for how long they took nothing.
    pub outages: Vec<Outage>,
    /// What power losses took from the disks, in order of time.
    pub power_losses: Vec<PowerLossSummary>,
    /// What the system's processes wrote, where whoever started them keeps it.
    pub logs: Vec<PathBuf>,
}

/// Why a run could not be performed.
#[derive(Debug, Error)]
pub enum ProcessWorldError {
    /// A link or the clients' runtime could not be made.
    #[error("the process world cannot be set up: {0}; check the limits on open files and threads")]
    SetUp(#[from] io::Error),
    /// A node could not be started or ended.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The plan asks a client for what it cannot do.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// There are not as many nodes as the plan has.
    #[error("the plan has {wanted} nodes and {given} were given")]
    NodeCount {
        /// In the plan.
        wanted: u32,
        /// Given.
        given: usize,
    },
    /// The driver that speaks for the clients failed.
    #[error(transparent)]
    Driver(#[from] ExternalError),
    /// Somebody asked for the end.
    #[error("the run was interrupted")]
    Interrupted,
    /// A thread of the run panicked.
    #[error("the nemesis ended by a panic; this is a bug of mqassay")]
    NemesisPanicked,
}

impl ProcessWorld {
    /// The links of a run whose nodes will listen on these addresses, with their data on the machine's own disk.
    pub fn prepare(plan: &Plan, addresses: Vec<SocketAddr>) -> Result<ProcessWorld, ProcessWorldError> {
        ProcessWorld::prepare_on(plan, addresses, Disks::Own, None)
    }

    /// The same, with the nodes' data on such disks, and their links through namespaces where they have these.
    pub fn prepare_on(
        plan: &Plan,
        addresses: Vec<SocketAddr>,
        disks: Disks,
        namespaces: Option<Arc<Namespaces>>,
    ) -> Result<ProcessWorld, ProcessWorldError> {
        let mut plan = plan.clone();
        let missing = plan.faults.iter().filter(|fault| !is_offered(&fault.action, disks));
        let mut left_out: Vec<&'static str> = missing.map(|fault| fault.action.class()).collect();
        left_out.sort_unstable();
        left_out.dedup();
        plan.faults.retain(|fault| is_offered(&fault.action, disks));
        // Nobody joins here: every node is in the cluster from the beginning.
        plan.world.joining = 0;
        if addresses.len() != plan.world.nodes as usize {
            return Err(ProcessWorldError::NodeCount { wanted: plan.world.nodes, given: addresses.len() });
        }
        let links = Arc::new(Links::start(namespaces)?);
        let (interrupted, sync) = (Arc::default(), Duration::ZERO);
        Ok(ProcessWorld { plan, links, addresses, left_out, interrupted, sync })
    }

    /// The run ends early, with an error, once this is set; its nodes and disks end as after any other.
    pub fn interrupted_by(mut self, interrupted: Arc<AtomicBool>) -> ProcessWorld {
        self.interrupted = interrupted;
        self
    }

    /// Disks that forget take as long for a sync as the plan says, until its faults stop.
    pub fn with_planned_syncs(mut self) -> ProcessWorld {
        self.sync = Duration::from_micros(self.plan.world.sync_us);
        self
    }

    /// The addresses at which a node reaches its peers, itself left as it is: their own where the links are real.
    pub fn peers_of(&self, node: u32) -> Result<Vec<SocketAddr>, ProcessWorldError> {
        if self.links.are_real() {
            return Ok(self.addresses.clone());
        }
        let link = |(to, address): (usize, &SocketAddr)| match to as u32 == node {
            true => Ok(*address),
            false => Ok(self.links.add(Endpoint::Node(node), Endpoint::Node(to as u32), *address)?),
        };
        self.addresses.iter().enumerate().map(link).collect()
    }

    /// Runs the plan against nodes that have been started; they are given back up, to be ended by the caller.
    pub fn run(self, nodes: Vec<Box<dyn Node>>) -> Result<(Ran, Vec<Box<dyn Node>>), ProcessWorldError> {
        if nodes.len() != self.addresses.len() {
            return Err(ProcessWorldError::NodeCount { wanted: self.plan.world.nodes, given: nodes.len() });
        }
        let ProcessWorld { plan, links, addresses, left_out, interrupted, sync } = self;
        let timer = SystemTimer::start();
        let stage = Stage {
            timer,
            began_wall_ms: timer.wall_ms(),
            recorder: Recorder::new(Box::new(|_| {})),
            switch: PhaseSwitch::new(),
            events: Rc::default(),
            topics: Rc::new(plan.topics.clone()),
            bootstrap: addresses.iter().map(SocketAddr::to_string).collect(),
            interrupted,
            sync,
            plan,
        };
        let routes = stage.routes(&links, &addresses)?;
        let leaders = Leaders::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        // It ends with the runtime.
        local.spawn_local(leaders.clone().watch(stage.watcher(), addresses));
        let mut ended = local.block_on(&runtime, stage.play(nodes, &links, routes, leaders))?;
        let mut marks = std::mem::take(&mut ended.left.marks);
        let struck = marks.iter().filter(|mark| matches!(mark, Mark::Fault { .. })).count() as u64;
        marks.push(Mark::LivenessBegan { at_us: ended.liveness_began_us });
        let reached = ended.missing.is_empty();
        let at_us = now_us(&stage.timer);
        marks.push(Mark::LivenessEnded { at_us, reached, missing: ended.missing });
        let header = Header {
            schema: SCHEMA_VERSION,
            topics: stage.plan.topics.iter().map(|topic| topic.name.clone()).collect(),
            title: format!("{} seed {} on processes", stage.plan.scenario, stage.plan.seed),
        };
        let history = History { header, operations: stage.recorder.take_operations(), marks };
        let judge = JudgeContext::of_plan(&stage.plan).with_wall_start_ms(stage.began_wall_ms);
        let events = stage.events.iter().map(|(name, count)| (name.to_string(), count.load(Ordering::SeqCst)));
        let events = events.collect();
        let nemesis::Left { missed, power_losses, mut outages, .. } = ended.left;
        outages::measure(&mut outages, &history);
        let (plan, logs) = (stage.plan, Vec::new());
        let ran = Ran { plan, history, judge, left_out, events, struck, missed, outages, power_losses, logs };
        Ok((ran, ended.nodes))
    }
}

/// What the clients of a run share.
struct Stage {
    plan: Plan,
    timer: SystemTimer,
    began_wall_ms: i64,
    recorder: Recorder,
    switch: PhaseSwitch,
    events: Rc<Counts>,
    topics: Rc<Vec<crate::plan::Topic>>,
    bootstrap: Vec<String>,
    interrupted: Arc<AtomicBool>,
    sync: Duration,
}

/// How often each of the driver's events happened.
struct Counts(BTreeMap<&'static str, AtomicU64>);

/// How the run ended.
struct Ended {
    nodes: Vec<Box<dyn Node>>,
    left: nemesis::Left,
    liveness_began_us: u64,
    missing: Vec<String>,
}

impl Stage {
    /// Each client's way to each node: a link of its own. The last client reads at the end, past all links.
    fn routes(&self, links: &Links, addresses: &[SocketAddr]) -> io::Result<Vec<LinkDial>> {
        let mut routes = Vec::new();
        for client in 0..self.plan.clients.len() as u32 {
            let mut to = BTreeMap::new();
            for (node, address) in addresses.iter().enumerate() {
                let near = links.add(Endpoint::Client(client), Endpoint::Node(node as u32), *address)?;
                to.insert(address.to_string(), near.to_string());
            }
            routes.push(LinkDial { to: Rc::new(to) });
        }
        routes.push(LinkDial { to: Rc::default() });
        Ok(routes)
    }

    async fn play(
        &self,
        mut nodes: Vec<Box<dyn Node>>,
        links: &Arc<Links>,
        mut routes: Vec<LinkDial>,
        leaders: Leaders,
    ) -> Result<Ended, ProcessWorldError> {
        let reader = self.context(self.plan.clients.len() as u32, routes.pop().unwrap_or_default());
        create_topics(&reader, TOPICS_BOUND, ADMIN_TIMEOUT).await?;
        // What was there before the run is durable, as after some minutes of peace.
        for disk in nodes.iter_mut().filter_map(|node| node.disk()) {
            disk.tell(&Command::Settle).map_err(NodeError::from)?;
            if !self.sync.is_zero() {
                // No fault of a plan has this number.
                let slow = Command::Slow { fault: u32::MAX, delay_ms: self.sync.as_millis() as u64 };
                disk.tell(&slow).map_err(NodeError::from)?;
            }
        }
        let is_quiet = Arc::new(AtomicBool::new(false));
        let (heal, healing) = mpsc::channel();
        let began = self.began();
        let nemesis = nemesis::Nemesis::new(&self.plan, nodes, links.clone(), leaders, began, is_quiet.clone());
        let mut nemesis = tokio::task::spawn_blocking(move || nemesis.run(&healing));
        let mut clients = tokio::task::JoinSet::new();
        for (index, (planned, dial)) in self.plan.clients.iter().zip(routes).enumerate() {
            let (context, planned) = (self.context(index as u32, dial), planned.clone());
            clients.spawn_local(async move { run_client(&context, &planned).await });
        }
        let mut outcome = Ok(());
        let safety_end = began + Duration::from_millis(self.plan.world.safety_ms);
        let mut failed = None;
        while Instant::now() < safety_end
            && !self.is_interrupted()
            && !(clients.is_empty() && is_quiet.load(Ordering::SeqCst))
        {
            tokio::select! {
                biased;
                Some(ended) = clients.join_next() => outcome = outcome.and(flatten(ended)),
                ended = &mut nemesis => { failed = Some(ended); break; }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        // The nemesis ends before it is told to only by an error.
        let ended = match failed {
            Some(ended) => ended,
            None => {
                // A nemesis that has just ended by an error hears nothing, and says so itself.
                let _ = heal.send(());
                nemesis.await
            }
        };
        let (nodes, left) = ended.map_err(|_| ProcessWorldError::NemesisPanicked)??;
        let liveness_began_us = now_us(&self.timer);
        self.switch.begin_liveness();
        let bound = Duration::from_millis(self.plan.world.liveness_ms).max(LIVENESS_MIN);
        let deadline = tokio::time::Instant::now() + bound;
        let mut missing = self.end_of(&mut clients, deadline, &mut outcome).await?;
        outcome?;
        let limits =
            FinalReads { bound: bound * 2 / 3, request_timeout: ADMIN_TIMEOUT, fetch_max_bytes: FINAL_FETCH_BYTES };
        if let Err(unread) = final_reads(&reader, limits).await {
            missing.extend(unread);
        }
        Ok(Ended { nodes, left, liveness_began_us, missing })
    }

    /// Waits for the clients, at most until the deadline, and gives what they still wait for then.
    async fn end_of(
        &self,
        clients: &mut tokio::task::JoinSet<Result<(), WorkloadError>>,
        deadline: tokio::time::Instant,
        outcome: &mut Result<(), WorkloadError>,
    ) -> Result<Vec<String>, ProcessWorldError> {
        loop {
            if self.is_interrupted() {
                return Err(ProcessWorldError::Interrupted);
            }
            let until = deadline.min(tokio::time::Instant::now() + INTERRUPT_LOOK_EVERY);
            match tokio::time::timeout_at(until, clients.join_next()).await {
                Ok(Some(ended)) => {
                    let ended = flatten(ended);
                    if outcome.is_ok() {
                        *outcome = ended;
                    }
                }
                Ok(None) => return Ok(Vec::new()),
                Err(_) if tokio::time::Instant::now() < deadline => {}
                Err(_) => break,
            }
        }
        let missing =
            self.recorder.open().into_iter().map(|open| {
                format!("client {} still waits for {} of {} us", open.client.0, open.what, open.invoked_us)
            });
        let missing = missing.collect();
        clients.shutdown().await;
        Ok(missing)
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// The run's beginning on the clock of threads.
    fn began(&self) -> Instant {
        Instant::now() - self.timer.monotonic()
    }

    /// Asks past all links who leads; what happens to it concerns nobody, so that its events are not counted.
    fn watcher(&self) -> Context<LinkDial, SystemTimer> {
        let context = self.context(self.plan.clients.len() as u32 + 1, LinkDial::default());
        Context { recorder: Recorder::new(Box::new(|_| {})), events: Rc::new(|_| {}), ..context }
    }

    fn context(&self, client: u32, dial: LinkDial) -> Context<LinkDial, SystemTimer> {
        let counts = self.events.clone();
        Context {
            client: ClientId(client),
            dial,
            timer: self.timer,
            began: Duration::ZERO,
            began_wall_ms: self.began_wall_ms,
            bootstrap: self.bootstrap.clone(),
            topics: self.topics.clone(),
            draws: Draws::new(self.plan.salt),
            recorder: self.recorder.clone(),
            phase: self.switch.phase(),
            events: Rc::new(move |name| counts.add(name)),
            client_mutant: None,
        }
    }
}

fn flatten(ended: Result<Result<(), WorkloadError>, tokio::task::JoinError>) -> Result<(), WorkloadError> {
    match ended {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            // A client that panics is our bug, and ends the run as it would in a test.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Ok(()),
        },
    }
}

fn now_us(timer: &SystemTimer) -> u64 {
    u64::try_from(timer.monotonic().as_micros()).unwrap_or(u64::MAX)
}

impl Default for Counts {
    fn default() -> Counts {
        Counts(crate::driver::EVENTS.iter().map(|name| (*name, AtomicU64::new(0))).collect())
    }
}

impl Counts {
    fn add(&self, name: &'static str) {
        if let Some(count) = self.0.get(name) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, &AtomicU64)> {
        self.0.iter().map(|(name, count)| (*name, count))
    }
}

/// A client's network: what it would dial is reached over its own link.
#[derive(Debug, Clone, Default)]
struct LinkDial {
    /// By the address that nodes tell to clients.
    to: Rc<BTreeMap<String, String>>,
}

impl Dial for LinkDial {
    type Stream = TcpStream;

    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        TcpDial.dial(self.to.get(address).map_or(address, String::as_str)).await
    }
}

/// Longest wait for the topics.
const TOPICS_BOUND: Duration = Duration::from_secs(60);
/// Time-out of a request of the final reads and of topic creation.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Upper bound of an answer to a final read, in bytes.
const FINAL_FETCH_BYTES: u32 = 1 << 20;
/// How often the end of the safety phase is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often the liveness phase looks whether it is interrupted.
const INTERRUPT_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Real systems need longer than simulated ones until they serve again.
const LIVENESS_MIN: Duration = Duration::from_secs(60);
