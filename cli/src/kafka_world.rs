//! Real Kafka as the system under test of the process world: one cluster for consecutive plans, topics of their own for
//! each, and the plan's settings as Kafka has them. Not here: provisioning and the run itself (the harness).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mqassay_harness::history::Mark;
use mqassay_harness::plan::{Plan, Role};
use mqassay_harness::process::disk::ForgettingDisk;
use mqassay_harness::process::world::namespaces::Namespaces;
use mqassay_harness::process::world::{Node, ProcessWorld, Ran, SystemNode};
use mqassay_harness::systems::{self, Host, Options, Running, SystemError};

use crate::exit::Failure;
use crate::process_world::{Ground, on_disk};

/// The setting under which Kafka is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settings {
    /// As it comes.
    Stock,
    /// Every message flushed before it is acknowledged, two in-sync replicas wanted where there are three nodes.
    Safest,
}

/// The cluster that runs, if any. Dropping it takes the cluster down.
#[derive(Debug)]
pub(crate) struct Kafka {
    ground: Ground,
    up: Option<Up>,
}

/// A cluster that is up, with what it stands on.
#[derive(Debug)]
struct Up {
    running: Running,
    options: Options,
    settings: Settings,
    /// The nodes' disks, where they have their own; they are away during a run.
    disks: Vec<Option<ForgettingDisk>>,
    namespaces: Option<Arc<Namespaces>>,
}

impl Kafka {
    /// None runs yet.
    pub(crate) fn new(ground: Ground) -> Kafka {
        Kafka { ground, up: None }
    }

    /// The version of the cluster that runs.
    pub(crate) fn version(&self) -> &str {
        self.up.as_ref().map_or("", |up| &up.running.version)
    }

    /// Runs a plan. The cluster stays for the next one, unless it did not recover.
    pub(crate) fn run(&mut self, plan: &Plan, settings: Settings) -> Result<Ran, Failure> {
        let ran = self.run_once(plan, settings);
        let has_recovered =
            |ran: &Ran| matches!(ran.history.marks.last(), Some(Mark::LivenessEnded { reached: true, .. }));
        if !ran.as_ref().is_ok_and(has_recovered) {
            self.take_down();
        }
        ran
    }

    fn run_once(&mut self, plan: &Plan, settings: Settings) -> Result<Ran, Failure> {
        self.ensure(plan.world.nodes, settings)?;
        let disks = self.ground.disks;
        let Some(up) = &mut self.up else { return Err(Failure::undone(SystemError::NotRunning { name: NAME.into() })) };
        let nodes = SystemNode::of(&up.running, &up.options).map_err(Failure::undone)?;
        let addresses: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
        let world = ProcessWorld::prepare_on(&translated(plan, settings), addresses, disks, up.namespaces.clone());
        let world = world.map_err(Failure::undone)?.interrupted_by(self.ground.interrupted.clone());
        let nodes = nodes.into_iter().zip(up.disks.drain(..)).map(|(node, disk)| on_disk(Box::new(node), disk));
        let ran = world.run(nodes.collect());
        let (mut ran, nodes) = ran.map_err(Failure::undone)?;
        ran.logs = up.running.logs();
        up.disks = nodes.into_iter().map(|node| node.into_disk()).collect();
        Ok(ran)
    }

    /// The cluster with so many nodes, as it is now: nodes that were killed have other processes.
    fn ensure(&mut self, nodes: u32, settings: Settings) -> Result<(), Failure> {
        if let Some(up) = &mut self.up
            && (up.running.nodes(), up.settings) == (nodes, settings)
        {
            up.running = systems::wait(NAME, &up.options).map_err(Failure::undone)?;
            return Ok(());
        }
        self.take_down();
        let mut options = home().map_err(Failure::undone)?;
        options.nodes = nodes;
        options.heap = Some("512m".to_owned());
        options.settings = broker_settings(nodes, settings);
        let namespaces = self.ground.namespaces(nodes)?;
        if let Some(namespaces) = &namespaces {
            let host = |node| Host { address: namespaces.address(node).to_string(), enter: namespaces.enter(node) };
            options.hosts = (0..nodes).map(host).collect();
        }
        // Mounted before Kafka formats its storage on them.
        let data = options.home.join(NAME).join("data");
        let mount = |node| self.ground.mount(&data.join(format!("node-{node}")));
        let disks = (1..=nodes).map(mount).collect::<Result<_, _>>()?;
        let running = systems::up(NAME, &options).map_err(Failure::undone)?;
        self.up = Some(Up { running, options, settings, disks, namespaces });
        Ok(())
    }

    /// Its processes end before their disks do, and the folder goes after both. Nodes without a quorum would wait long for
    /// a controller that is gone, and their data goes anyway: they are soon killed.
    fn take_down(&mut self) {
        let Some(Up { options, disks, .. }) = self.up.take() else { return };
        if let Err(error) = systems::down(NAME, &Options { keep_data: true, patience: ENDING, ..options.clone() }) {
            eprintln!("mqassay: Kafka may be left behind: {error}");
        }
        drop(disks);
        match systems::down(NAME, &options) {
            Ok(_) | Err(SystemError::NotRunning { .. }) => {}
            Err(error) => eprintln!("mqassay: Kafka's data may be left behind: {error}"),
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.take_down();
    }
}

/// Where this world's systems are, beside those that the user may have up.
pub(crate) fn home() -> Result<Options, SystemError> {
    let mut options = Options::from_environment()?;
    options.home = options.home.join("process-world");
    // How fast a system starts is not what is judged here, and three Java processes start slowly on a busy machine.
    options.patience = PATIENCE;
    Ok(options)
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
    for client in &mut plan.clients {
        // A shorter time-out is refused as the broker is set, and the member would never be in the group.
        if let Role::Member { session_timeout_ms, .. } = &mut client.role {
            *session_timeout_ms = (*session_timeout_ms).max(SESSION_TIMEOUT_MS);
        }
    }
    for topic in &mut plan.topics {
        // Auto-created topics would get the broker's number of partitions rather than the plan's.
        topic.auto_created = false;
        topic.name = format!("{}-{}-{}-{}", topic.name, plan.scenario, plan.seed, std::process::id());
        topic.config.retain(|name, _| KNOWN.contains(&name.as_str()));
    }
    plan
}

/// How long a system may take until it answers, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long its processes may take to end at last, in two steps: asked, then killed.
const ENDING: Duration = Duration::from_secs(20);
/// The least bound of the phase in which everything must end, in milliseconds.
const LIVENESS_MS: u64 = 300_000;
/// Kafka's `group.min.session.timeout.ms`.
const SESSION_TIMEOUT_MS: u64 = 6_000;
const NAME: &str = "kafka";
/// Topic settings that mean the same to Kafka.
const KNOWN: &[&str] =
    &["retention.ms", "retention.bytes", "max.message.bytes", "min.insync.replicas", "unclean.leader.election.enable"];

#[cfg(test)]
mod tests {
    use mqassay_harness::plan::sample::sample;
    use mqassay_scenarios::catalogue;

    use super::*;

    #[test]
    fn members_ask_for_what_kafka_allows_and_topics_are_the_plans_own() {
        let plan = sample(&catalogue::find("groups").expect("it is built in"), 1, None);
        let for_kafka = translated(&plan, Settings::Safest);
        let timeouts = |plan: &Plan| -> Vec<u64> {
            let members = plan.clients.iter().filter_map(|client| match &client.role {
                Role::Member { session_timeout_ms, .. } => Some(*session_timeout_ms),
                Role::Producer { .. } | Role::Consumer { .. } => None,
            });
            members.collect()
        };
        assert!(timeouts(&plan).iter().any(|timeout| *timeout < SESSION_TIMEOUT_MS), "{:?}", timeouts(&plan));
        assert!(timeouts(&for_kafka).iter().all(|timeout| *timeout >= SESSION_TIMEOUT_MS));
        assert_ne!(for_kafka.topics[0].name, plan.topics[0].name);
        assert_eq!((for_kafka.settings["flush"].as_str(), for_kafka.settings.len()), ("ack", 2));
    }
}
