//! `mqassay systems`: external systems up, looked at, killed and started again, and down.

use std::io::{BufReader, stdin, stdout};
use std::path::PathBuf;

use clap::Subcommand;
use mqassay_benches::{QueueType, amqp_judge};
use mqassay_harness::process::leftovers;
use mqassay_harness::systems::{self, Options, Running, SystemError};

use crate::arguments::{setting, settings};
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;
use crate::{kafka_world, system_bugs, system_matrix};

/// Arguments of `mqassay systems`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Provision and start systems
    Up(Up),
    /// Say whether systems run and answer; without a name, all that were started
    Status(Named),
    /// End the processes that `up` started, and remove their data; without a name, of all systems
    Down(Down),
    /// Kill one process of a system with SIGKILL; its data stays
    Kill(Process),
    /// Find by runs on real processes which settings of durability lose acknowledged records under which faults
    Matrix(system_matrix::Arguments),
    /// Published bugs of real brokers, found again on old releases and looked for on new ones
    Bugs(system_bugs::Arguments),
    /// List what runs on real processes have left behind: mounts, network namespaces, processes; anything makes it fail
    Leftovers(Leftovers),
    /// Speak for the judge's clients to RabbitMQ: the driver that `matrix` starts (harness/docs/driver.md)
    #[command(hide = true)]
    JudgeDriver(JudgeDriver),
    /// Start a killed process again on its data, and wait until the system answers
    Restart(Process),
}

#[derive(Debug, clap::Args)]
struct Leftovers {
    /// Take it away
    #[arg(long)]
    remove: bool,
}

#[derive(Debug, clap::Args)]
struct JudgeDriver {
    /// Where RabbitMQ listens, host and port
    address: String,
    /// The type of the queues that are made
    #[arg(long, value_enum, default_value_t = QueueTypeName::Classic)]
    queue_type: QueueTypeName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum QueueTypeName {
    Classic,
    Quorum,
}

#[derive(Debug, clap::Args)]
struct Up {
    #[command(flatten)]
    named: Named,
    /// Nodes of each system
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,
    /// A setting of the system's own configuration; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Heap of each Java process, as in 512m [default: the system's own]
    #[arg(long, value_name = "SIZE")]
    heap: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Down {
    #[command(flatten)]
    named: Named,
    /// Keep the data folder
    #[arg(long)]
    keep_data: bool,
}

#[derive(Debug, clap::Args)]
struct Process {
    /// The system
    name: String,
    /// Which of its processes
    #[arg(long, default_value = "broker-1", value_name = "ROLE")]
    process: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Systems, for example kafka, or kafka@3.9 for a version
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Folder of all systems [default: MQASSAY_HOME, else mqassay in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Performs the action; each system's state is told in one line.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.action {
        Action::Up(up) => {
            let mut options = options(&up.named.place)?;
            if up.named.names.is_empty() {
                let wanted = format!("name a system to start: {}", systems::KNOWN.join(", "));
                return Err(Failure::usage(anyhow::anyhow!(wanted)));
            }
            if up.named.names.len() > 1 && !up.set.is_empty() {
                return Err(Failure::usage(anyhow::anyhow!("--set goes with one system at a time")));
            }
            options.settings = settings(&up.set);
            options.nodes = up.nodes;
            options.heap.clone_from(&up.heap);
            each(&up.named, &up.named.names, &options, systems::up, "is up")
        }
        Action::Status(named) => {
            let options = options(&named.place)?;
            each(named, &names_or_all(named, &options), &options, systems::status, "is up")
        }
        Action::Down(down) => {
            let mut options = options(&down.named.place)?;
            options.keep_data = down.keep_data;
            each(&down.named, &names_or_all(&down.named, &options), &options, systems::down, "is down")
        }
        Action::Matrix(matrix) => system_matrix::run(matrix),
        Action::Bugs(bugs) => system_bugs::run(bugs),
        Action::Leftovers(which) => {
            let found = if which.remove { leftovers::remove() } else { leftovers::find() };
            let options = kafka_world::home().map_err(Failure::usage)?;
            let mut systems = systems::recorded(&options);
            if which.remove {
                systems.retain(|name| systems::down(name, &options).is_err());
            }
            let verb = if which.remove { "removed" } else { "left" };
            found.iter().for_each(|leftover| tell(&format!("{verb}: {leftover}")));
            systems.iter().for_each(|name| tell(&format!("left: {name} in {}", options.home.display())));
            let is_clean = systems.is_empty() && (which.remove || found.is_empty());
            Ok(if is_clean { Exit::Valid } else { Exit::Violation })
        }
        Action::JudgeDriver(driver) => {
            let queue_type = match driver.queue_type {
                QueueTypeName::Classic => QueueType::Classic,
                QueueTypeName::Quorum => QueueType::Quorum,
            };
            amqp_judge::serve(&driver.address, queue_type, BufReader::new(stdin()), stdout())
                .map_err(Failure::undone)?;
            Ok(Exit::Valid)
        }
        Action::Kill(process) => {
            let options = options(&process.place)?;
            systems::kill(&process.name, &process.process, &options).map_err(failure)?;
            tell(&format!("{}: {} was killed", process.name, process.process));
            Ok(Exit::Valid)
        }
        Action::Restart(process) => {
            let options = options(&process.place)?;
            systems::restart(&process.name, &process.process, &options).map_err(failure)?;
            let running = systems::wait(&process.name, &options).map_err(failure)?;
            show(&running, "is up", process.place.json)?;
            Ok(Exit::Valid)
        }
    }
}

fn options(place: &Place) -> Result<Options, Failure> {
    let mut options = Options::from_environment().map_err(Failure::usage)?;
    options.program = Some(std::env::current_exe().map_err(Failure::undone)?);
    if let Some(home) = &place.home {
        // The processes run in folders of their own, so that a relative path would name another one there.
        options.home = std::path::absolute(home).map_err(Failure::undone)?;
    }
    Ok(options)
}

fn names_or_all(named: &Named, options: &Options) -> Vec<String> {
    if !named.names.is_empty() {
        return named.names.clone();
    }
    let all = systems::recorded(options);
    if all.is_empty() {
        eprintln!("mqassay: no system is up");
    }
    all
}

type Act = fn(&str, &Options) -> Result<Running, SystemError>;

/// Does it to each system, whatever becomes of the others; the first failure is the command's.
fn each(named: &Named, names: &[String], options: &Options, act: Act, done: &str) -> Result<Exit, Failure> {
    let mut failed: Option<Failure> = None;
    for name in names {
        match act(name, options) {
            Ok(running) => show(&running, done, named.place.json)?,
            Err(error) if failed.is_none() => failed = Some(failure(error)),
            Err(error) => eprintln!("mqassay: {error}"),
        }
    }
    failed.map_or(Ok(Exit::Valid), Err)
}

fn failure(error: SystemError) -> Failure {
    match error {
        SystemError::Unknown { .. } => Failure::usage(error),
        error => Failure::undone(error),
    }
}

fn show(running: &Running, done: &str, json: bool) -> Result<(), Failure> {
    if json {
        tell(&json_line(running)?);
        return Ok(());
    }
    let processes = running.processes.iter().map(|process| format!("{} {}", process.role, process.pid));
    let (processes, data) = (processes.collect::<Vec<_>>().join(", "), running.data_dir.display());
    tell(&format!(
        "{} {} {done}: {}, processes {processes}, data {data}",
        running.name, running.version, running.bootstrap
    ));
    Ok(())
}
