//! External systems, provisioned on this machine: fetched, configured, started on free loopback ports, and ended.
//! Start at `up`, `status` and `down`. Each system has a folder of its own below the home folder, with its jars, data,
//! logs and a record of the running processes; versions of one system stand beside one another as `kafka@3.9`.
//! Not here: brokers that a measurement starts for itself, and clusters that the user runs.

mod health;
mod identity;
mod kafka;
mod launch;
mod rabbitmq;
mod record;
mod reference;
mod rocketmq;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use identity::started_ticks;

/// Names that `up`, `status` and `down` know; a version may follow, as in `kafka@3.9`.
pub const KNOWN: &[&str] = &["kafka", "rocketmq", "rabbitmq", "reference"];

/// How to provision; `Options::from_environment` is what the command line starts from.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds all systems' folders.
    pub home: PathBuf,
    /// Settings added to the system's own configuration file; later ones win over the template's.
    pub settings: BTreeMap<String, String>,
    /// Nodes of the system, at least 1; of RocketMQ 2 are a master and its slave.
    pub nodes: u32,
    /// Heap of each Java process, as its `-Xmx` has it; none leaves the system's own.
    pub heap: Option<String>,
    /// The `mqassay` program, which the system `reference` runs.
    pub program: Option<PathBuf>,
    /// Whether `down` keeps the data folder.
    pub keep_data: bool,
    /// How long a system may take until it answers, and until it has ended.
    pub patience: Duration,
    /// Where each node runs, where that is not 127.0.0.1; Kafka only. Empty or one for each node.
    pub hosts: Vec<Host>,
}

/// A place of a node's own, such as a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The address at which it listens.
    pub address: String,
    /// The words before a command that run it there; the process that results must be the command's own.
    pub enter: Vec<String>,
}

impl Options {
    /// `MQASSAY_HOME`, else the user's cache folder, for the home; one node, no settings; 90 seconds of patience.
    pub fn from_environment() -> Result<Options, SystemError> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = folder("MQASSAY_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("mqassay")))
            .or_else(|| folder("HOME").map(|home| home.join(".cache").join("mqassay")))
            .ok_or(SystemError::NoHome)?;
        Ok(Options::at(home, Duration::from_secs(90)))
    }

    fn at(home: PathBuf, patience: Duration) -> Options {
        let settings = BTreeMap::new();
        let hosts = Vec::new();
        Options { home, settings, nodes: 1, heap: None, program: None, keep_data: false, patience, hosts }
    }
}

/// A system that `up` has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its name, one of `KNOWN`, with the version where one was asked for.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Addresses for clients, host and port, separated by commas where it has several nodes.
    pub bootstrap: String,
    /// Its processes, in the order of their start.
    pub processes: Vec<SystemProcess>,
    /// Its data, of all nodes.
    pub data_dir: PathBuf,
    /// The settings added to the template's.
    pub settings: BTreeMap<String, String>,
    /// The class path of its Java client, where it has one that we use.
    pub class_path: Option<String>,
}

/// A process of a system, and how to start it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemProcess {
    /// What it is within the system, for example `broker-1`.
    pub role: String,
    /// Whether it stores and delivers messages, so that its cost is the system's.
    pub is_broker: bool,
    /// Where it listens, host and port.
    pub address: String,
    /// Its id.
    pub pid: u32,
    /// When it started, clock ticks after boot: the pid alone may have been given to another.
    pub started_ticks: u64,
    /// Its output.
    pub log: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables of its environment beside those of `up`.
    pub environment: BTreeMap<String, String>,
}

impl Running {
    /// The ids of the processes that store and deliver messages.
    pub fn broker_pids(&self) -> Vec<u32> {
        self.processes.iter().filter(|process| process.is_broker).map(|process| process.pid).collect()
    }

    /// What its processes wrote.
    pub fn logs(&self) -> Vec<PathBuf> {
        self.processes.iter().map(|process| process.log.clone()).collect()
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> u32 {
        self.broker_pids().len() as u32
    }

    /// The system without its version.
    pub fn system(&self) -> &str {
        self.name.split('@').next().unwrap_or(&self.name)
    }

    fn asked_version(&self) -> Option<&str> {
        self.name.split_once('@').map(|(_, version)| version)
    }

    fn is_alive(&self) -> bool {
        self.processes.iter().any(SystemProcess::is_alive)
    }

    /// The first process that no longer runs.
    fn dead(&self) -> Option<&SystemProcess> {
        self.processes.iter().find(|process| !process.is_alive())
    }
}

impl SystemProcess {
    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        identity::is_running(self.pid, self.started_ticks)
    }
}

/// Starts a system, fetching it first where needed, and waits until it answers. One that runs already is left as it is
/// and reported, unless other settings are asked for: then it must be taken down first.
pub fn up(name: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    if let Some(running) = record::load(&folder)?.filter(Running::is_alive) {
        if running.settings != options.settings || running.nodes() != options.nodes {
            return Err(SystemError::OtherSettings { name: name.to_owned(), pid: running.processes[0].pid });
        }
        health::wait_until_answering(&running, options.patience)?;
        return Ok(running);
    }
    // What a crash left must not stand beside the new processes.
    record::end_marked(name, &folder, options.patience)?;
    std::fs::create_dir_all(&folder).map_err(io("create", &folder))?;
    let mut running = Running {
        name: name.to_owned(),
        version: String::new(),
        bootstrap: String::new(),
        processes: Vec::new(),
        data_dir: folder.join("data"),
        settings: options.settings.clone(),
        class_path: None,
    };
    let started = start(&folder, options, &mut running).and_then(|()| record::store(&folder, &running));
    match started.and_then(|()| health::wait_until_answering(&running, options.patience)) {
        Ok(()) => Ok(running),
        Err(error) => {
            record::end_processes(&running, options.patience)?;
            record::forget(&folder)?;
            Err(error)
        }
    }
}

fn start(folder: &Path, options: &Options, running: &mut Running) -> Result<(), SystemError> {
    let only_one = |running: &Running| match options.nodes {
        1 => Ok(()),
        nodes => Err(SystemError::Nodes { name: running.name.clone(), nodes }),
    };
    match running.system() {
        "kafka" => kafka::start(folder, options, running),
        "rocketmq" => rocketmq::start(folder, options, running),
        "rabbitmq" => only_one(running).and_then(|()| rabbitmq::start(folder, options, running)),
        _ => only_one(running).and_then(|()| reference::start(folder, options, running)),
    }
}

/// What runs under this name; fails with `NotRunning` where nothing does, with `Ended` where a process of it has, and
/// with `Unhealthy` where it does not answer.
pub fn status(name: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    let running = record::load(&folder)?.ok_or_else(|| SystemError::NotRunning { name: name.to_owned() })?;
    health::wait_until_answering(&running, Duration::from_secs(2))?;
    Ok(running)
}

/// Ends exactly the processes that `up` started, also those of an `up` that crashed, and removes the data unless told to
/// keep it. Jars and logs stay. `NotRunning` where there was nothing to end and nothing to remove.
pub fn down(name: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    let recorded = record::load(&folder)?;
    if let Some(running) = &recorded {
        record::end_processes(running, options.patience)?;
    }
    let leftovers = record::end_marked(name, &folder, options.patience)?;
    record::forget(&folder)?;
    let data_dir = folder.join("data");
    if !options.keep_data && data_dir.exists() {
        std::fs::remove_dir_all(&data_dir).map_err(io("remove the data folder", &data_dir))?;
    }
    match recorded {
        Some(running) => Ok(running),
        None if leftovers > 0 => Err(SystemError::Leftovers { name: name.to_owned(), count: leftovers }),
        None => Err(SystemError::NotRunning { name: name.to_owned() }),
    }
}

/// Kills process `role` (for example `broker-1`) with SIGKILL and waits for its end; its data and record stay.
pub fn kill(name: &str, role: &str, options: &Options) -> Result<(), SystemError> {
    let folder = folder_of(name, options)?;
    let running = record::load(&folder)?.ok_or_else(|| SystemError::NotRunning { name: name.to_owned() })?;
    record::kill_process_of(&running, process_of(&running, role)?, options.patience)
}

/// Starts process `role` again as `up` started it, on its data. Does not wait until it answers: see `status`.
pub fn restart(name: &str, role: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    let mut running = record::load(&folder)?.ok_or_else(|| SystemError::NotRunning { name: name.to_owned() })?;
    let mut process = process_of(&running, role)?.clone();
    if !process.is_alive() {
        launch::spawn(&folder, &mut process, "what `mqassay systems up` needed")?;
        let index = running.processes.iter().position(|known| known.role == role).expect("it was found by its role");
        running.processes[index] = process;
        record::store(&folder, &running)?;
    }
    Ok(running)
}

/// Waits until the system answers, at most the patience of the options.
pub fn wait(name: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    let running = record::load(&folder)?.ok_or_else(|| SystemError::NotRunning { name: name.to_owned() })?;
    health::wait_until_answering(&running, options.patience)?;
    Ok(running)
}

/// Names under which something is recorded in the home folder, in order.
pub fn recorded(options: &Options) -> Vec<String> {
    let entries = std::fs::read_dir(&options.home).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned));
    let mut names: Vec<String> =
        names.filter(|name| folder_of(name, options).is_ok_and(|folder| record::path_in(&folder).exists())).collect();
    names.sort();
    names
}

fn process_of<'a>(running: &'a Running, role: &str) -> Result<&'a SystemProcess, SystemError> {
    let found = running.processes.iter().find(|process| process.role == role);
    found.ok_or_else(|| SystemError::NoProcess {
        name: running.name.clone(),
        role: role.to_owned(),
        known: running.processes.iter().map(|process| process.role.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// Why a system is not as asked.
#[derive(Debug, Error)]
pub enum SystemError {
    /// Not one of `KNOWN`.
    #[error("no system is called {name:?}; there is: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No folder to keep systems in.
    #[error("no folder to keep systems in: set MQASSAY_HOME (or HOME)")]
    NoHome,
    /// A program is not installed.
    #[error("{program} is needed {purpose}, and could not be run ({source}); install {install}")]
    Missing {
        /// The program.
        program: String,
        /// What for.
        purpose: &'static str,
        /// What to install.
        install: &'static str,
        /// Why it could not be run.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed {purpose}; its last words:\n{tail}")]
    Failed {
        /// The program.
        program: String,
        /// What for.
        purpose: &'static str,
        /// The end of its output.
        tail: String,
    },
    /// A process of it has ended.
    #[error("{name}: {role} has ended; the end of {log}:\n{tail}")]
    Ended {
        /// The system.
        name: String,
        /// Which of its processes.
        role: String,
        /// Its log.
        log: PathBuf,
        /// The end of its log.
        tail: String,
    },
    /// The process runs and does not answer.
    #[error("{name} (process {pid}) does not answer on {bootstrap} after {seconds} s: {reason}; see {log}")]
    Unhealthy {
        /// The system.
        name: String,
        /// Its process.
        pid: u32,
        /// Its address.
        bootstrap: String,
        /// How long was waited.
        seconds: u64,
        /// What the last attempt met.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// Nothing runs under this name.
    #[error("{name} is not running; start it with: mqassay systems up {name}")]
    NotRunning {
        /// The system.
        name: String,
    },
    /// Nothing was recorded, and processes were there all the same; they have been ended.
    #[error("{name} had no record; {count} left-over processes of it were found by their mark and ended")]
    Leftovers {
        /// The system.
        name: String,
        /// How many.
        count: usize,
    },
    /// It has no process of this role.
    #[error("{name} has no process {role:?}; there is: {known}")]
    NoProcess {
        /// The system.
        name: String,
        /// What was asked for.
        role: String,
        /// Its processes.
        known: String,
    },
    /// Not with so many nodes.
    #[error("{name} cannot be provisioned with {nodes} nodes: RocketMQ has one or two, RabbitMQ and the reference one")]
    Nodes {
        /// The system.
        name: String,
        /// How many were asked for.
        nodes: u32,
    },
    /// The reference broker's program is not known.
    #[error("the mqassay program that is to run as the reference broker is not known")]
    NoProgram,
    /// It runs, but with other settings.
    #[error(
        "{name} runs already (process {pid}) with other settings or another number of nodes; end it first: mqassay systems down {name}"
    )]
    OtherSettings {
        /// The system.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// The process did not end, not even when killed.
    #[error("{name} (process {pid}) has not ended after {seconds} s")]
    Stuck {
        /// The system.
        name: String,
        /// Its process.
        pid: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// The record of a running process cannot be read.
    #[error("{path} is not a record of a running system ({reason}); check for a left-over process and remove the file")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file or folder.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> SystemError {
    let path = path.to_path_buf();
    move |source| SystemError::Io { action, path, source }
}

/// The folder of a system, by its name alone or with a version that it has.
fn folder_of(name: &str, options: &Options) -> Result<PathBuf, SystemError> {
    let (system, version) = name.split_once('@').map_or((name, None), |(system, version)| (system, Some(version)));
    let versions = match system {
        "kafka" => kafka::versions(),
        _ => Vec::new(),
    };
    let is_known = KNOWN.contains(&system) && version.is_none_or(|version| versions.contains(&version));
    if !is_known {
        let with_versions = kafka::versions().iter().map(|version| format!("kafka@{version}")).collect::<Vec<_>>();
        let known = format!("{}, {}", KNOWN.join(", "), with_versions.join(", "));
        return Err(SystemError::Unknown { name: name.to_owned(), known });
    }
    Ok(options.home.join(name))
}

/// The last lines of a text, for an error message.
fn tail_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(home: &Path) -> Options {
        Options::at(home.to_path_buf(), Duration::from_secs(5))
    }

    fn sleeper() -> std::process::Command {
        let mut command = std::process::Command::new("sleep");
        command.arg("600");
        command
    }

    #[test]
    fn an_unknown_name_or_version_is_refused_with_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pulsar", "kafka@0.7", "reference@1"] {
            let message = up(name, &options(folder.path())).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("kafka@3.9"), "{message}");
        }
    }

    #[test]
    fn what_does_not_run_has_no_status_and_cannot_be_ended() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        assert!(matches!(status("kafka", &options), Err(SystemError::NotRunning { .. })));
        assert!(matches!(down("kafka", &options), Err(SystemError::NotRunning { .. })));
        assert!(matches!(kill("kafka", "broker-1", &options), Err(SystemError::NotRunning { .. })));
        assert_eq!(recorded(&options), Vec::<String>::new());
    }

    #[test]
    fn down_ends_the_recorded_process_and_removes_its_data() {
        let home = tempfile::tempdir().unwrap();
        let mut child = sleeper().spawn().unwrap();
        let folder = home.path().join("kafka");
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let running = record::tests::running(child.id(), &folder);
        record::store(&folder, &running).unwrap();
        assert_eq!(recorded(&options(home.path())), ["kafka"]);
        assert_eq!(down("kafka", &options(home.path())).unwrap(), running);
        assert!(!child.wait().unwrap().success());
        assert!(!folder.join("data").exists());
    }

    #[test]
    fn a_process_that_took_over_the_pid_is_not_touched() {
        let home = tempfile::tempdir().unwrap();
        let mut child = sleeper().spawn().unwrap();
        let folder = home.path().join("kafka");
        std::fs::create_dir_all(&folder).unwrap();
        let mut running = record::tests::running(child.id(), &folder);
        running.processes[0].started_ticks -= 1;
        record::store(&folder, &running).unwrap();
        assert!(matches!(status("kafka", &options(home.path())), Err(SystemError::Ended { .. })));
        down("kafka", &options(home.path())).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "the stranger was ended");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_without_a_record_is_found_by_its_mark_and_ended() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("kafka");
        std::fs::create_dir_all(&folder).unwrap();
        let mut child = sleeper().env(identity::MARK, &folder).spawn().unwrap();
        let mut stranger = sleeper().env(identity::MARK, home.path().join("kafka@3.9")).spawn().unwrap();
        let found = down("kafka", &options(home.path())).unwrap_err();
        assert!(matches!(found, SystemError::Leftovers { count: 1, .. }), "{found}");
        assert!(!child.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none(), "the process of another system was ended");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_killed_process_is_told_and_started_again_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let options = options(home.path());
        let folder = home.path().join("kafka");
        std::fs::create_dir_all(&folder).unwrap();
        let mut child = sleeper().spawn().unwrap();
        record::store(&folder, &record::tests::running(child.id(), &folder)).unwrap();
        kill("kafka", "broker-1", &options).unwrap();
        assert!(!child.wait().unwrap().success());
        let message = status("kafka", &options).unwrap_err().to_string();
        assert!(message.contains("broker-1 has ended"), "{message}");
        let running = restart("kafka", "broker-1", &options).unwrap();
        assert!(running.is_alive());
        assert!(restart("kafka", "broker-7", &options).unwrap_err().to_string().contains("broker-1"));
        down("kafka", &options).unwrap();
    }
}
