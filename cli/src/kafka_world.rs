//! Real Kafka as the system under test of the process world: one cluster for consecutive plans, topics of their own for
//! each, and the plan's settings as Kafka has them. Not here: provisioning and the run itself (the harness).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mqassay_harness::plan::{Plan, Role};
use mqassay_harness::process::disk::ForgettingDisk;
use mqassay_harness::process::world::{Disks, Node, ProcessWorld, Ran, SystemNode};
use mqassay_harness::systems::{self, Options, Running, SystemError};

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
    up: Option<(Running, Options)>,
}

impl Kafka {
    /// None runs yet.
    pub(crate) fn new(ground: Ground) -> Kafka {
        Kafka { ground, up: None }
    }

    /// Runs a plan.
    pub(crate) fn run(&mut self, plan: &Plan, settings: Settings) -> Result<Ran, Failure> {
        let disks = self.mount(plan.world.nodes)?;
        let (running, options) = self.ensure(plan.world.nodes, settings)?;
        let nodes = SystemNode::of(&running, &options).map_err(Failure::undone)?;
        let addresses: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
        let (plan, disks_are) = (translated(plan, settings), self.ground.disks);
        let world = ProcessWorld::prepare_on(&plan, addresses, disks_are).map_err(Failure::undone)?;
        let world = world.interrupted_by(self.ground.interrupted.clone());
        let nodes = nodes.into_iter().zip(disks).map(|(node, disk)| on_disk(Box::new(node), disk)).collect();
        let (ran, nodes) = world.run(nodes).map_err(Failure::undone)?;
        if self.ground.disks == Disks::Forgetting {
            // The next run's disks are new, and so is its cluster; this one ends before its disks do.
            self.end_processes();
            drop(nodes);
        }
        Ok(ran)
    }

    /// The nodes' disks, where they have their own: mounted before Kafka formats its storage on them.
    fn mount(&mut self, nodes: u32) -> Result<Vec<Option<ForgettingDisk>>, Failure> {
        if self.ground.disks == Disks::Own {
            return Ok((0..nodes).map(|_| None).collect());
        }
        self.take_down();
        let data = home().map_err(Failure::undone)?.home.join(NAME).join("data");
        (1..=nodes).map(|node| self.ground.mount(&data.join(format!("node-{node}")))).collect()
    }

    fn end_processes(&mut self) {
        if let Some((_, options)) = &self.up
            && let Err(error) = systems::down(NAME, &Options { keep_data: true, ..options.clone() })
        {
            eprintln!("mqassay: Kafka may be left behind: {error}");
        }
    }

    /// The cluster with so many nodes, as it is now: nodes that were killed have other processes.
    fn ensure(&mut self, nodes: u32, settings: Settings) -> Result<(Running, Options), Failure> {
        if let Some((running, options)) = &self.up
            && running.nodes() == nodes
            && self.ground.disks == Disks::Own
        {
            let running = systems::wait(NAME, options).map_err(Failure::undone)?;
            return Ok((running, options.clone()));
        }
        if self.ground.disks == Disks::Own {
            self.take_down();
        }
        let mut options = home().map_err(Failure::undone)?;
        options.nodes = nodes;
        options.heap = Some("512m".to_owned());
        options.settings = broker_settings(nodes, settings);
        let running = systems::up(NAME, &options).map_err(Failure::undone)?;
        self.up = Some((running.clone(), options.clone()));
        Ok((running, options))
    }

    fn take_down(&mut self) {
        let Some((_, options)) = self.up.take() else { return };
        match systems::down(NAME, &options) {
            // Its processes were ended before, and only its data were left.
            Err(SystemError::NotRunning { .. }) if self.ground.disks == Disks::Forgetting => {}
            Err(error) => eprintln!("mqassay: Kafka may be left behind: {error}"),
            Ok(_) => {}
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.take_down();
    }
}

/// Where this world's Kafka is, beside one that the user may have up.
fn home() -> Result<Options, SystemError> {
    let mut options = Options::from_environment()?;
    options.home = options.home.join("process-world");
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
