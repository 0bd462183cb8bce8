//! A cluster for trials: reference brokers or Kafka, each node a process of its own on loopback, ended with the value.
//! Not here: measured brokers (`prepare`), and the process world, whose plans say when what is killed (the harness).

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqassay_harness::process::accounting::Usage;
use mqassay_harness::process::{BrokerProcess, ProcessOptions};
use mqassay_harness::systems::{self, Options, Running};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tempfile::TempDir;

use crate::consumers::{ConsumerError, io_error};

/// Whose brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// The reference broker.
    Reference,
    /// Apache Kafka, provisioned.
    Kafka,
}

impl System {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            System::Reference => "reference",
            System::Kafka => "kafka",
        }
    }

    /// The system of this name.
    pub fn named(name: &str) -> Result<System, ConsumerError> {
        match name {
            "reference" => Ok(System::Reference),
            "kafka" => Ok(System::Kafka),
            _ => {
                let (name, known) = (name.to_owned(), "reference, kafka".to_owned());
                Err(ConsumerError::Unknown { what: "system that consumers are tried on", name, known })
            }
        }
    }
}

/// A running cluster. Dropping it ends its processes and removes its data.
#[derive(Debug)]
pub struct Cluster {
    /// Whose brokers.
    pub system: System,
    /// Their version.
    pub version: String,
    /// How many nodes.
    pub nodes: u32,
    bootstrap: String,
    members: Members,
}

#[derive(Debug)]
enum Members {
    Own { options: Vec<(String, ProcessOptions)>, processes: Vec<Option<BrokerProcess>>, data: TempDir },
    Provisioned { running: Running, options: Box<Options> },
}

impl Cluster {
    /// Starts so many nodes. `executable` is the `mqassay` program.
    pub fn start(system: System, nodes: u32, executable: &Path) -> Result<Cluster, ConsumerError> {
        match system {
            System::Reference => Cluster::start_reference(nodes, executable),
            System::Kafka => Cluster::start_kafka(nodes),
        }
    }

    fn start_reference(nodes: u32, executable: &Path) -> Result<Cluster, ConsumerError> {
        let data = tempfile::Builder::new().prefix("mqassay-consumers-").tempdir();
        let data = data.map_err(io_error("make a data folder in", std::env::temp_dir()))?;
        let addresses = free_addresses(nodes).map_err(io_error("find free ports for", executable))?;
        let listed: Vec<String> =
            (1..).zip(&addresses).map(|(id, address): (u32, _)| format!("{id}={address}")).collect();
        let mut options = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let mut arguments: Vec<OsString> =
                ["broker", "--listen", address, "--flush", "os"].map(OsString::from).into();
            arguments.extend(["--data".into(), data.path().join(format!("node-{index}")).into_os_string()]);
            if nodes > 1 {
                let id = (index + 1).to_string();
                arguments.extend(["--node", &id, "--cluster", &listed.join(",")].map(OsString::from));
            }
            for setting in reference_settings(nodes) {
                arguments.extend([OsString::from("--set"), OsString::from(setting)]);
            }
            let ready_timeout = READY;
            let start = ProcessOptions { program: executable.to_path_buf(), arguments, ready_timeout };
            options.push((address.clone(), start));
        }
        started().folders.push(data.path().to_path_buf());
        let processes: Result<Vec<_>, ConsumerError> =
            options.iter().map(|(_, start)| start_process(start).map(Some)).collect();
        let members = Members::Own { options, processes: processes?, data };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Cluster { system: System::Reference, version, nodes, bootstrap: addresses.join(","), members })
    }

    fn start_kafka(nodes: u32) -> Result<Cluster, ConsumerError> {
        let mut options = Options::from_environment()?;
        // Beside a Kafka that the user may have up.
        options.home = options.home.join(format!("consumers-{nodes}"));
        options.nodes = nodes;
        options.heap = Some("512m".to_owned());
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        options.settings = [
            set("group.min.session.timeout.ms", "500"),
            set("group.initial.rebalance.delay.ms", "0"),
            set("default.replication.factor", &nodes.min(3).to_string()),
        ]
        .into();
        started().systems.push(options.clone());
        let running = systems::up("kafka", &options)?;
        let (version, bootstrap) = (running.version.clone(), running.bootstrap.clone());
        let members = Members::Provisioned { running, options: Box::new(options) };
        Ok(Cluster { system: System::Kafka, version, nodes, bootstrap, members })
    }

    /// Where clients begin: all nodes.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Kills the node at this address with SIGKILL.
    pub fn kill(&mut self, address: &str) -> Result<(), ConsumerError> {
        match &mut self.members {
            Members::Own { options, processes, .. } => {
                let found = options.iter().position(|(own, _)| own == address);
                if let Some(mut process) = found.and_then(|index| processes[index].take()) {
                    started().pids.retain(|pid| *pid != process.pid());
                    process.kill()?;
                }
            }
            Members::Provisioned { running, options } => {
                if let Some(process) = running.processes.iter().find(|process| process.address == address) {
                    systems::kill("kafka", &process.role, options)?;
                }
            }
        }
        Ok(())
    }

    /// Starts the node at this address again, on its data.
    pub fn restart(&mut self, address: &str) -> Result<(), ConsumerError> {
        match &mut self.members {
            Members::Own { options, processes, .. } => {
                for ((own, start), process) in options.iter().zip(processes) {
                    if own == address && process.is_none() {
                        *process = Some(start_process(start)?);
                    }
                }
            }
            Members::Provisioned { running, options } => {
                let role = running.processes.iter().find(|one| one.address == address).map(|one| one.role.clone());
                if let Some(role) = role {
                    *running = systems::restart("kafka", &role, options)?;
                }
            }
        }
        Ok(())
    }

    /// Memory that the brokers have, bytes; none where it cannot be read.
    pub fn resident_bytes(&self) -> Option<u64> {
        match &self.members {
            Members::Own { processes, .. } => {
                processes.iter().flatten().map(|one| one.usage().ok().map(|usage| usage.resident_bytes)).sum()
            }
            Members::Provisioned { running, .. } => {
                let of = |pid: &u32| Usage::of_process(*pid).ok().map(|usage| usage.resident_bytes);
                running.broker_pids().iter().map(of).sum()
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match &mut self.members {
            Members::Own { processes, data, .. } => {
                let mut started = started();
                for process in processes.iter().flatten() {
                    started.pids.retain(|pid| *pid != process.pid());
                }
                started.folders.retain(|folder| folder != data.path());
            }
            Members::Provisioned { running, options } => {
                started().systems.retain(|one| one.home != options.home);
                if let Err(error) = systems::down(&running.name, options) {
                    tracing::warn!("{} may be left behind: {error}", running.name);
                }
            }
        }
    }
}

fn start_process(options: &ProcessOptions) -> Result<BrokerProcess, ConsumerError> {
    // Locked meanwhile, so that an end by signal does not miss it.
    let mut started = started();
    let process = BrokerProcess::start(options)?;
    started.pids.push(process.pid());
    Ok(process)
}

/// What runs, for those that must end it without the value that holds it.
#[derive(Debug, Default)]
struct Started {
    pids: Vec<u32>,
    folders: Vec<PathBuf>,
    systems: Vec<Options>,
}

static STARTED: Mutex<Started> = Mutex::new(Started { pids: Vec::new(), folders: Vec::new(), systems: Vec::new() });

fn started() -> MutexGuard<'static, Started> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a process that must end with this one.
pub(super) fn note_process(pid: u32) {
    started().pids.push(pid);
}

/// The process has been waited for: its id may be another's from now on.
pub(super) fn forget_process(pid: u32) {
    started().pids.retain(|one| *one != pid);
}

/// Ends the consumers and brokers that this process has started, and removes their data: for a process that is about to
/// end itself because it was told to, so that no value is dropped.
pub fn end_all_started() {
    let started = started();
    for pid in &started.pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            // It fails where the broker has been killed by its trial.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    for folder in &started.folders {
        // A broker that is being killed may still make a file; what is left lies in the folder for temporary data.
        let _ = std::fs::remove_dir_all(folder);
    }
    for options in &started.systems {
        if let Err(error) = systems::down("kafka", options) {
            tracing::warn!("kafka may be left behind: {error}");
        }
    }
}

fn reference_settings(nodes: u32) -> Vec<String> {
    let mut settings = vec![
        "group-session-timeout-min-ms=500".to_owned(),
        "group-initial-rebalance-delay-ms=0".to_owned(),
        "offsets-partitions=6".to_owned(),
    ];
    if nodes >= 3 {
        settings.extend(["default-replication-factor=3".to_owned(), "min-insync-replicas=2".to_owned()]);
    }
    settings
}

/// Addresses that were free a moment ago.
fn free_addresses(count: u32) -> std::io::Result<Vec<String>> {
    let listeners: std::io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

const READY: Duration = Duration::from_secs(60);
