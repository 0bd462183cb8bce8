//! Real Kafka as the system under test of the process world: one cluster for consecutive plans, topics of their own for
//! each, and the plan's settings as Kafka has them. Not here: provisioning and the run itself (the harness).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mqassay_harness::plan::Plan;
use mqassay_harness::process::world::{Node, ProcessWorld, Ran, SystemNode};
use mqassay_harness::systems::{self, Options, Running};

use crate::exit::Failure;

/// The setting under which Kafka is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settings {
    /// As it comes.
    Stock,
    /// Every message flushed before it is acknowledged, two in-sync replicas wanted where there are three nodes.
    Safest,
}

/// The cluster that runs, if any. Dropping it takes the cluster down.
#[derive(Debug, Default)]
pub(crate) struct Kafka {
    up: Option<(Running, Options)>,
}

impl Kafka {
    /// Runs a plan.
    pub(crate) fn run(&mut self, plan: &Plan, settings: Settings) -> Result<Ran, Failure> {
        let (running, options) = self.ensure(plan.world.nodes, settings)?;
        let nodes = SystemNode::of(&running, &options).map_err(Failure::undone)?;
        let addresses: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
        let world = ProcessWorld::prepare(&translated(plan, settings), addresses).map_err(Failure::undone)?;
        let nodes = nodes.into_iter().map(|node| Box::new(node) as Box<dyn Node>).collect();
        let (ran, _) = world.run(nodes).map_err(Failure::undone)?;
        Ok(ran)
    }

    /// The cluster with so many nodes, as it is now: nodes that were killed have other processes.
    fn ensure(&mut self, nodes: u32, settings: Settings) -> Result<(Running, Options), Failure> {
        if let Some((running, options)) = &self.up
            && running.nodes() == nodes
        {
            let running = systems::wait(NAME, options).map_err(Failure::undone)?;
            return Ok((running, options.clone()));
        }
        self.take_down();
        let mut options = Options::from_environment().map_err(Failure::undone)?;
        // Beside a Kafka that the user may have up.
        options.home = options.home.join("process-world");
        options.nodes = nodes;
        options.heap = Some("512m".to_owned());
        options.settings = broker_settings(nodes, settings);
        let running = systems::up(NAME, &options).map_err(Failure::undone)?;
        self.up = Some((running.clone(), options.clone()));
        Ok((running, options))
    }

    fn take_down(&mut self) {
        if let Some((_, options)) = self.up.take()
            && let Err(error) = systems::down(NAME, &options)
        {
            eprintln!("mqassay: Kafka may be left behind: {error}");
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.take_down();
    }
}

fn broker_settings(nodes: u32, settings: Settings) -> BTreeMap<String, String> {
    let mut set = BTreeMap::from([("default.replication.factor".to_owned(), nodes.min(3).to_string())]);
    if settings == Settings::Safest {
        set.insert("log.flush.interval.messages".to_owned(), "1".to_owned());
        if nodes >= 3 {
            set.insert("min.insync.replicas".to_owned(), "2".to_owned());
        }
    }
    set
}

/// The plan as Kafka can be asked to run it: topics with names of their own, and none of the reference broker's settings.
fn translated(plan: &Plan, settings: Settings) -> Plan {
    let mut plan = plan.clone();
    let flush = match settings {
        Settings::Stock => "os",
        Settings::Safest => "ack",
    };
    plan.settings = [("flush", flush), ("layout", "partitioned")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    // Its members wait for three seconds before a first rebalance, and up to 45 s for one that has crashed; each may
    // crash several times.
    plan.world.liveness_ms = plan.world.liveness_ms.max(LIVENESS_MS);
    for topic in &mut plan.topics {
        // Auto-created topics would get the broker's number of partitions rather than the plan's.
        topic.auto_created = false;
        topic.name = format!("{}-{}-{}-{}", topic.name, plan.scenario, plan.seed, std::process::id());
        topic.config.retain(|name, _| KNOWN.contains(&name.as_str()));
    }
    plan
}

/// The least bound of the phase in which everything must end, in milliseconds.
const LIVENESS_MS: u64 = 300_000;
const NAME: &str = "kafka";
/// Topic settings that mean the same to Kafka.
const KNOWN: &[&str] = &["retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas"];
