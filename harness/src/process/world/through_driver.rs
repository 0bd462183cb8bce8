//! A run whose clients speak through a driver process (`docs/driver.md`): for systems that do not know Kafka's protocol.
//! The nemesis, the disks, the history and the judge are those of every run in the process world. What lies between a
//! driver and the nodes is the driver's own: links are cut only where it was given an address of one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::nemesis::{Left, Nemesis};
use super::outages::Leaders;
use super::{INTERRUPT_LOOK_EVERY, LIVENESS_MIN, LOOK_EVERY, Node, NodeError, ProcessWorld, ProcessWorldError, Ran};
use crate::check::Context as JudgeContext;
use crate::external::child::Driver;
use crate::external::clients::{self, Stage};
use crate::external::{ExternalError, ExternalOptions};
use crate::history::{ClientId, Header, History, Mark, SCHEMA_VERSION};
use crate::plan::Endpoint;
use crate::process::disk::Command;

impl ProcessWorld {
    /// An address at which all clients together reach a node, over a link that the plan's faults may cut.
    pub fn clients_way_to(&self, node: u32) -> Result<SocketAddr, ProcessWorldError> {
        let target = self.addresses[node as usize];
        Ok(self.links.add(Endpoint::Client(0), Endpoint::Node(node), target)?)
    }

    /// Runs the plan's clients through a driver, against nodes that have been started; they are given back up.
    pub fn run_through(
        self,
        nodes: Vec<Box<dyn Node>>,
        driver: &ExternalOptions,
    ) -> Result<(Ran, Vec<Box<dyn Node>>), ProcessWorldError> {
        if nodes.len() != self.addresses.len() {
            return Err(ProcessWorldError::NodeCount { wanted: self.plan.world.nodes, given: nodes.len() });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, perform(self, nodes, driver))
    }
}

async fn perform(
    world: ProcessWorld,
    mut nodes: Vec<Box<dyn Node>>,
    options: &ExternalOptions,
) -> Result<(Ran, Vec<Box<dyn Node>>), ProcessWorldError> {
    let ProcessWorld { plan, links, left_out, interrupted, .. } = world;
    let driver = Rc::new(Driver::start(&options.command, options.request_timeout)?);
    let stage = Rc::new(Stage::new(plan.clone(), driver.clone(), options.began_wall_ms));
    stage.create_topics().await?;
    // What was there before the run is durable, as after some minutes of peace.
    for disk in nodes.iter_mut().filter_map(|node| node.disk()) {
        disk.tell(&Command::Settle).map_err(NodeError::from)?;
    }
    stage.begin();
    let is_quiet = Arc::new(AtomicBool::new(false));
    let (heal, healing) = mpsc::channel();
    // The driver goes through links until its last read, so that they outlive the nemesis.
    let nemesis = Nemesis::new(&plan, nodes, links.clone(), Leaders::default(), stage.began(), is_quiet.clone());
    let nemesis = tokio::task::spawn_blocking(move || nemesis.run(&healing));
    let mut clients = JoinSet::new();
    for client in 0..plan.clients.len() as u32 {
        clients.spawn_local(clients::run_client(stage.clone(), ClientId(client)));
    }
    let safety = Duration::from_millis(plan.world.safety_ms);
    let is_over = || interrupted.load(Ordering::SeqCst) || nemesis.is_finished();
    while stage.began().elapsed() < safety && !is_over() && !(clients.is_empty() && is_quiet.load(Ordering::SeqCst)) {
        match clients.is_empty() {
            true => tokio::time::sleep(LOOK_EVERY).await,
            // A client that panics is our bug; the missing operations tell.
            false => drop(tokio::time::timeout(LOOK_EVERY, clients.join_next()).await),
        }
    }
    // A nemesis that has ended by an error hears nothing, and says so itself.
    let _ = heal.send(());
    let (nodes, left) = nemesis.await.map_err(|_| ProcessWorldError::NemesisPanicked)??;
    stage.mark(|at_us| Mark::LivenessBegan { at_us });
    let bound = Duration::from_millis(plan.world.liveness_ms).max(LIVENESS_MIN);
    let missing = read_in_time(&stage, &mut clients, bound, &interrupted).await?;
    if let Some(what) = driver.broken() {
        return Err(ExternalError::Broken { what }.into());
    }
    stage.mark(|at_us| Mark::LivenessEnded { at_us, reached: missing.is_empty(), missing: missing.clone() });
    driver.end().await;
    drop(links);
    let Left { mut marks, missed, power_losses, .. } = left;
    let struck = marks.iter().filter(|mark| matches!(mark, Mark::Fault { .. })).count() as u64;
    let (operations, ends) = stage.take();
    marks.extend(ends);
    let topics = plan.topics.iter().map(|topic| topic.name.clone()).collect();
    let title = format!("{} seed {} on processes, through a driver", plan.scenario, plan.seed);
    let history = History { header: Header { schema: SCHEMA_VERSION, topics, title }, operations, marks };
    let judge = JudgeContext::of_plan(&plan).with_wall_start_ms(options.began_wall_ms);
    let (events, outages) = (BTreeMap::new(), Vec::new());
    let logs = Vec::new();
    Ok((Ran { plan, history, judge, left_out, events, struck, missed, outages, power_losses, logs }, nodes))
}

/// The clients' ends, then the final reads, tried until they succeed or the bound is over; gives what is missing then.
async fn read_in_time(
    stage: &Rc<Stage>,
    clients: &mut JoinSet<()>,
    bound: Duration,
    interrupted: &AtomicBool,
) -> Result<Vec<String>, ProcessWorldError> {
    let mut missing = vec!["the ends of all clients".to_owned()];
    let reading = async {
        while clients.join_next().await.is_some() {}
        while !missing.is_empty() {
            missing = clients::final_reads(stage).await;
            if !missing.is_empty() {
                tokio::time::sleep(READ_AGAIN_AFTER).await;
            }
        }
    };
    let asked_to_end = async {
        while !interrupted.load(Ordering::SeqCst) {
            tokio::time::sleep(INTERRUPT_LOOK_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        () = asked_to_end => return Err(ProcessWorldError::Interrupted),
        _ = tokio::time::timeout(bound, reading) => {}
    }
    clients.shutdown().await;
    Ok(missing)
}

/// Between two attempts to read everything, where a node is not up yet.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(500);
