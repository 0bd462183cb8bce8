//! Judges a broker of any kind through a driver that somebody else wrote: a child process that speaks JSON lines on its
//! standard streams (`docs/driver.md`). Start at `run`: it performs a plan's clients against real time and gives the
//! history. `child` talks to the process, `clients` performs operations, `hooks` strikes with the user's own commands.
//! Not here: simulated time and exact moments; such a run cannot be replayed, only judged.

pub(crate) mod child;
pub(crate) mod clients;
mod hooks;
pub mod schema;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::history::{ClientId, Header, History, Mark, SCHEMA_VERSION};
use crate::plan::{Plan, Role};
use child::Driver;
use clients::Stage;
pub use hooks::Hooks;

/// How a plan is run through a driver.
#[derive(Debug, Clone)]
pub struct ExternalOptions {
    /// The driver's program and arguments; at least one word.
    pub command: Vec<String>,
    /// Bound of one request; what is not answered by then is unknown.
    pub request_timeout: Duration,
    /// The user's commands for faults.
    pub hooks: Hooks,
    /// Wall clock at the run's begin, in milliseconds since the Unix epoch.
    pub began_wall_ms: i64,
}

/// Why a run through a driver gives no history.
#[derive(Debug, Error)]
pub enum ExternalError {
    /// The driver could not be started.
    #[error("the driver {command:?} cannot be started: {source}; check --driver")]
    NotStarted {
        /// The command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// The driver ended, or said something that is no answer.
    #[error("the driver {what}; see harness/docs/driver.md")]
    Broken {
        /// What it did.
        what: String,
    },
    /// A topic could not be made.
    #[error("the driver could not create topic {topic}: {why}")]
    NoTopic {
        /// Its name.
        topic: String,
        /// What the driver said.
        why: String,
    },
    /// A command for a fault failed.
    #[error("the hook {command:?} {what}; correct --nemesis, a hook must succeed")]
    Hook {
        /// The command.
        command: String,
        /// What it did.
        what: String,
    },
    /// The plan has clients that the driver's protocol has no words for.
    #[error(
        "the plan of {scenario} has members of consumer groups, which a driver process cannot be; choose another scenario"
    )]
    Members {
        /// The scenario.
        scenario: String,
    },
    /// No runtime could be had.
    #[error("the run could not be set up: {0}")]
    Runtime(io::Error),
}

/// Runs the plan's clients, its kills and restarts where there are hooks for them, and the final reads.
pub fn run(plan: &Plan, options: &ExternalOptions) -> Result<History, ExternalError> {
    if plan.clients.iter().any(|client| matches!(client.role, Role::Member { .. })) {
        return Err(ExternalError::Members { scenario: plan.scenario.clone() });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ExternalError::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, perform(plan, options))
}

async fn perform(plan: &Plan, options: &ExternalOptions) -> Result<History, ExternalError> {
    let driver = Rc::new(Driver::start(&options.command, options.request_timeout)?);
    let stage = Rc::new(Stage::new(plan.clone(), driver.clone(), options.began_wall_ms));
    stage.create_topics().await?;
    stage.begin();
    let striking = tokio::task::spawn_local(hooks::strike(stage.clone(), options.hooks.clone()));
    let clients: Vec<_> = (0..plan.clients.len() as u32)
        .map(|client| tokio::task::spawn_local(clients::run_client(stage.clone(), ClientId(client))))
        .collect();
    for client in clients {
        client.await.map_err(|error| ExternalError::Broken { what: format!("made a client panic: {error}") })?;
    }
    striking.await.map_err(|error| ExternalError::Broken { what: format!("made a hook panic: {error}") })??;
    stage.mark(|at_us| Mark::LivenessBegan { at_us });
    let bound = Duration::from_millis(plan.world.liveness_ms);
    let missing = match tokio::time::timeout(bound, clients::final_reads(&stage)).await {
        Ok(missing) => missing,
        Err(_) => vec![format!("the final reads, within {} ms", bound.as_millis())],
    };
    if let Some(what) = driver.broken() {
        return Err(ExternalError::Broken { what });
    }
    stage.mark(|at_us| Mark::LivenessEnded { at_us, reached: missing.is_empty(), missing: missing.clone() });
    driver.end().await;
    let topics = plan.topics.iter().map(|topic| topic.name.clone()).collect();
    let title = format!("{} seed {} through a driver", plan.scenario, plan.seed);
    let (operations, marks) = stage.take();
    Ok(History { header: Header { schema: SCHEMA_VERSION, topics, title }, operations, marks })
}
