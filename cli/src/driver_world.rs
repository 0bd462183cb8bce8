//! RocketMQ and RabbitMQ as systems under test of the process world: a fresh system for each plan, its nodes' data on disks
//! that forget where runs have these, and the clients' half in a driver process that speaks the system's own protocol.
//! Not here: provisioning and the run itself (the harness), the drivers (`benches::amqp_judge`, `systems/rocketmq`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mqassay_benches::QueueType;
use mqassay_harness::external::{ExternalOptions, Hooks};
use mqassay_harness::plan::Plan;
use mqassay_harness::process::disk::ForgettingDisk;
use mqassay_harness::process::world::{Node, ProcessWorld, Ran, SystemNode};
use mqassay_harness::systems::{self, Options, Running, SystemError};

use crate::exit::Failure;
use crate::kafka_world::home;
use crate::process_world::{Ground, on_disk};

/// A system that is spoken to through a driver, and how it is set.
#[derive(Debug, Clone)]
pub(crate) enum Driven {
    /// RocketMQ with these settings of its broker.
    Rocketmq(BTreeMap<String, String>),
    /// RabbitMQ with queues of this type.
    Rabbitmq(QueueType),
}

impl Driven {
    fn name(&self) -> &'static str {
        match self {
            Driven::Rocketmq(_) => "rocketmq",
            Driven::Rabbitmq(_) => "rabbitmq",
        }
    }

    /// The driver's words. RabbitMQ is reached over a link that faults may cut; RocketMQ's clients go where its name server
    /// sends them.
    fn driver(&self, world: &ProcessWorld, running: &Running, ground: &Ground) -> Result<Vec<String>, Failure> {
        Ok(match self {
            Driven::Rocketmq(_) => {
                let class_path = running.class_path.clone().unwrap_or_default();
                let words = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &class_path];
                let words = words.into_iter().chain(["JudgeDriver", &running.bootstrap]);
                words.map(str::to_owned).collect()
            }
            Driven::Rabbitmq(queue_type) => {
                let address = world.clients_way_to(0).map_err(Failure::undone)?.to_string();
                let program = ground.program.display().to_string();
                let words = [program.as_str(), "systems", "judge-driver", &address, "--queue-type", queue_type.word()];
                words.map(str::to_owned).to_vec()
            }
        })
    }

    /// Runs a plan on a new system; gives its version too.
    pub(crate) fn run(&self, plan: &Plan, ground: &Ground) -> Result<(Ran, String), Failure> {
        let name = self.name();
        let mut plan = plan.clone();
        plan.world.liveness_ms = plan.world.liveness_ms.max(LIVENESS_MS);
        let mut options = home().map_err(Failure::undone)?;
        options.nodes = plan.world.nodes;
        options.heap = Some("512m".to_owned());
        if let Driven::Rocketmq(settings) = self {
            options.settings.clone_from(settings);
        }
        // What an earlier run left must not lie below the disks.
        forget(name, &options)?;
        let data = options.home.join(name).join("data");
        let mount = |node| ground.mount(&data.join(format!("node-{node}")));
        let disks = (1..=options.nodes).map(mount).collect::<Result<Vec<_>, _>>()?;
        let running = systems::up(name, &options).map_err(Failure::undone)?;
        let ran = self.run_on(&plan, ground, &running, (&options, disks));
        forget(name, &options)?;
        Ok((ran?, running.version))
    }

    fn run_on(
        &self,
        plan: &Plan,
        ground: &Ground,
        running: &Running,
        (options, disks): (&Options, Vec<Option<ForgettingDisk>>),
    ) -> Result<Ran, Failure> {
        let nodes = SystemNode::of(running, options).map_err(Failure::undone)?;
        let addresses: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
        let world = ProcessWorld::prepare_on(plan, addresses, ground.disks, None).map_err(Failure::undone)?;
        let world = world.interrupted_by(ground.interrupted.clone());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let external = ExternalOptions {
            command: self.driver(&world, running, ground)?,
            request_timeout: REQUEST_TIMEOUT,
            hooks: Hooks::default(),
            began_wall_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        };
        let nodes = nodes.into_iter().zip(disks).map(|(node, disk)| on_disk(Box::new(node), disk)).collect();
        let ran = world.run_through(nodes, &external);
        // The processes end before their disks do.
        match systems::down(self.name(), &Options { keep_data: true, ..options.clone() }) {
            Ok(_) | Err(SystemError::NotRunning { .. }) => {}
            Err(error) => eprintln!("mqassay: {} may be left behind: {error}", self.name()),
        }
        let (mut ran, nodes) = ran.map_err(Failure::undone)?;
        ran.logs = running.logs();
        drop(nodes);
        Ok(ran)
    }
}

/// Ends what runs under the name, and removes its data.
fn forget(name: &str, options: &Options) -> Result<(), Failure> {
    match systems::down(name, options) {
        Ok(_) | Err(SystemError::NotRunning { .. } | SystemError::Leftovers { .. }) => Ok(()),
        Err(error) => Err(Failure::undone(error)),
    }
}

/// The least bound of the phase in which everything must end, in milliseconds: a node starts slowly on a busy machine.
const LIVENESS_MS: u64 = 180_000;
/// How long the judge waits for the driver; its own steps give up sooner, but the first waits for its Java to start.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
