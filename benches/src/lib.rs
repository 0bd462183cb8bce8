//! Load on brokers and what it costs: plans, drivers over client libraries, verified blocks, figures with intervals.
//! Start at `run`; `plan` says what is run, `prepare` starts or finds the systems, `block` is one measurement.
//! Not here: statistics and process accounting (the harness), charts (reports), any code of the reference broker.

mod amqp;
pub mod amqp_judge;
mod assemble;
pub mod availability;
pub mod backlog;
mod block;
mod calibrate;
mod client;
pub mod closed_form;
pub mod consumers;
mod crash_clients;
pub mod drain;
mod driver;
pub mod fake;
pub mod features;
pub mod ladder;
mod nodes;
pub mod omb;
pub mod over_time;
pub mod payload;
pub mod placement;
pub mod plan;
pub mod practice;
pub mod prepare;
pub mod raw;
pub mod replay;
mod rocketmq;
pub mod search;
mod session;
pub mod spin;
pub mod vary;
pub mod verify;
mod warm_up;

use std::collections::BTreeMap;
use std::path::PathBuf;

use mqassay_harness::measure::result::BenchResult;
use mqassay_harness::process::accounting::AccountingError;
use thiserror::Error;

pub use crate::driver::ClientError;
use crate::plan::LoadPlan;

/// A system to be measured: a running broker.
#[derive(Debug, Clone)]
pub struct SystemTarget {
    /// Its name in results; those of the reference broker begin with `reference`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Address for clients, host and port.
    pub bootstrap: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Its process, where it runs on this machine: without it there are no figures of CPU and memory.
    pub pid: Option<u32>,
    /// Its further brokers, whose use counts with the first's.
    pub more_pids: Vec<u32>,
    /// Settings of the client library that the user passes through.
    pub client_settings: BTreeMap<String, String>,
    /// Its durability class as configured: memory, page cache, fsync before ack, replicated.
    pub durability: String,
    /// Settings of the topics made on it, beside the plan's.
    pub topic_settings: BTreeMap<String, String>,
    /// Its data, where that is on this machine.
    pub data_dir: Option<PathBuf>,
    /// How it is started again on the same data, where that is known.
    pub restart: Option<Restart>,
    /// Settings worth a line in the manifest.
    pub settings: BTreeMap<String, String>,
}

/// How a system is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Kafka's protocol, through librdkafka.
    Kafka,
    /// RabbitMQ, through lapin.
    Amqp {
        /// The type of its queues.
        queue_type: QueueType,
    },
    /// RocketMQ, through its own Java client in child processes.
    Rocketmq {
        /// Its jars and the compiled client.
        class_path: String,
    },
}

/// RabbitMQ's queue types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueType {
    /// On one node.
    Classic,
    /// Replicated by Raft, also on one node.
    Quorum,
}

impl QueueType {
    /// RabbitMQ's word for it.
    pub fn word(self) -> &'static str {
        match self {
            QueueType::Classic => "classic",
            QueueType::Quorum => "quorum",
        }
    }
}

/// How a system that was killed is started again on the same data.
#[derive(Debug, Clone)]
pub enum Restart {
    /// A program and its arguments.
    Program {
        /// The program.
        executable: PathBuf,
        /// Its arguments, without the data folder.
        arguments: Vec<String>,
    },
    /// The way it was provisioned.
    Provisioned,
}

impl SystemTarget {
    /// Whether this is the reference broker, in whatever layout.
    pub fn is_reference(&self) -> bool {
        self.name.starts_with("reference")
    }
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Blocks done.
    pub done: u32,
    /// Blocks in all, at most: warm-up may end early.
    pub total: u32,
    /// What is being done, for one line.
    pub text: String,
}

/// Runs the plan on the systems, blocks interleaved, every record verified. The first system is the numerator of ratios.
pub fn run(plan: &LoadPlan, systems: &[SystemTarget], progress: &dyn Fn(Progress)) -> Result<BenchResult, BenchError> {
    session::run(plan, systems, progress)
}

/// A measurement could not be made. What a broker does wrong is not here but in the verdicts.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Nothing to measure.
    #[error("no system to measure; start one with: mqassay systems up kafka, or measure the reference broker")]
    NoSystems,
    /// The client library met an error.
    #[error("{system}: cannot {action}: {source}")]
    Client {
        /// The system.
        system: String,
        /// What was tried.
        action: &'static str,
        /// The library's error.
        source: ClientError,
    },
    /// The raw driver met an error.
    #[error("{system}: cannot {action}: {source}")]
    Raw {
        /// The system.
        system: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A topic's queues have no leaders.
    #[error("{system}: not all of {queues} queues have a leader after {seconds} s; see the broker's log")]
    NoLeaders {
        /// The system.
        system: String,
        /// Queues of the topic.
        queues: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// The broker's process cannot be read; most likely it has ended.
    #[error("{system}: {source}")]
    Accounting {
        /// The system.
        system: String,
        /// Why.
        source: AccountingError,
    },
    /// The reference broker did not start.
    #[error("cannot start the reference broker as `{command}`: {reason}")]
    Reference {
        /// The command line.
        command: String,
        /// What was met.
        reason: String,
    },
    /// An external system.
    #[error(transparent)]
    System(#[from] mqassay_harness::systems::SystemError),
    /// It cannot do something, or the driver here cannot ask it.
    #[error("{library} does not offer {what}")]
    Unsupported {
        /// The client library.
        library: String,
        /// What was asked for.
        what: &'static str,
    },
    /// It cannot be started again.
    #[error("{system} cannot be started again by this program")]
    NoRestart {
        /// The system.
        system: String,
    },
    /// A name that no system has.
    #[error(
        "no system is called {name:?}; there is: reference, reference-shared, reference-partitioned, kafka, rocketmq, rabbitmq, rabbitmq-quorum"
    )]
    UnknownSystem {
        /// The name.
        name: String,
    },
    /// A thread of ours died; its panic has been printed.
    #[error("the {what}'s thread died; this is a bug of mqassay")]
    Panicked {
        /// Which thread.
        what: &'static str,
    },
    /// The machine.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
