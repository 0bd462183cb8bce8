//! From names to running systems: the reference broker as a child process of its own, others as `systems up` left them.
//! What is not there is said and left out, so that a comparison runs on the systems that are.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqassay_harness::systems::{self, Running, SystemError};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::nodes;
use crate::plan::{Flush, LoadPlan};
use crate::raw::plan::{RELAY, RawLoad};
use crate::{BenchError, Protocol, QueueType, Restart, SystemTarget};

/// The systems of a run. Dropping it ends the reference brokers and removes their data; external systems run on.
#[derive(Debug)]
pub struct Prepared {
    /// What can be measured, in the order asked for.
    pub targets: Vec<SystemTarget>,
    /// What cannot, and what to do about it: name and reason.
    pub missing: Vec<(String, String)>,
    brokers: Vec<ReferenceBroker>,
}

impl Prepared {
    /// How many reference brokers were started for this run.
    pub fn reference_brokers(&self) -> usize {
        self.brokers.len()
    }
}

/// Starts or finds the systems called `names`. `executable` is the `mqassay` program, which is started as
/// `mqassay broker …`; its data goes to fresh folders in `data_parent`.
pub fn prepare(
    plan: &LoadPlan,
    names: &[String],
    executable: &Path,
    data_parent: &Path,
) -> Result<Prepared, BenchError> {
    let mut prepared = Prepared { targets: Vec::new(), missing: Vec::new(), brokers: Vec::new() };
    for name in names {
        match name.as_str() {
            "reference" | "reference-shared" | "reference-partitioned" => {
                let layout = if name.ends_with("partitioned") { "partitioned" } else { "shared" };
                if plan.nodes > 1 {
                    let brokers = nodes::start(plan, executable, layout, data_parent)?;
                    prepared.targets.extend(nodes::target(&brokers, name, plan));
                    prepared.brokers.extend(brokers);
                    continue;
                }
                let broker = ReferenceBroker::start(executable, layout, plan.flush, data_parent)?;
                prepared.targets.push(broker.target(name, plan.flush));
                prepared.brokers.push(broker);
            }
            _ if external(name).is_some() => match systems::status(&external(name).unwrap_or_default(), &options()?) {
                Ok(running) if plan.nodes > 1 && running.nodes() != plan.nodes => {
                    prepared.missing.push((name.clone(), other_nodes(name, &running, plan.nodes)));
                }
                Ok(running) => {
                    let target = external_target(name, &running, plan);
                    match plan.has_raw_sections() && target.protocol != Protocol::Kafka {
                        true => prepared.missing.push((name.clone(), RAW_NEEDS_KAFKA.to_owned())),
                        false => prepared.targets.push(target),
                    }
                }
                Err(SystemError::Unknown { .. }) => return Err(BenchError::UnknownSystem { name: name.clone() }),
                // Not there, or there and not answering: the others can be measured all the same.
                Err(error) => prepared.missing.push((name.clone(), error.to_string())),
            },
            _ => return Err(BenchError::UnknownSystem { name: name.clone() }),
        }
    }
    if plan.raw.as_ref().is_some_and(RawLoad::needs_relay) {
        let relay = ReferenceBroker::start_relay(executable, plan.flush, data_parent)?;
        prepared.targets.push(relay.target(RELAY, plan.flush));
        prepared.brokers.push(relay);
    }
    Ok(prepared)
}

const RAW_NEEDS_KAFKA: &str =
    "this plan's raw driver speaks Kafka's protocol only; measure it with a plan such as compare";

fn options() -> Result<systems::Options, BenchError> {
    Ok(systems::Options::from_environment()?)
}

/// What `systems up` calls the system that this name measures.
pub(crate) fn external(name: &str) -> Option<String> {
    let system = name.split('@').next().unwrap_or(name);
    match system {
        "kafka" | "rocketmq" | "rabbitmq" => Some(name.to_owned()),
        "rabbitmq-quorum" => Some("rabbitmq".to_owned()),
        _ => None,
    }
}

fn other_nodes(name: &str, running: &Running, wanted: u32) -> String {
    let nodes = running.nodes();
    format!(
        "it runs with {nodes} nodes and the plan is for {wanted}; start it anew: mqassay systems down {name}, then \
         mqassay systems up {name} --nodes {wanted}"
    )
}

fn external_target(name: &str, running: &Running, plan: &LoadPlan) -> SystemTarget {
    let pids = running.broker_pids();
    let (protocol, durability) = match running.system() {
        "rabbitmq" => {
            let is_quorum = name.starts_with("rabbitmq-quorum");
            let queue_type = if is_quorum { QueueType::Quorum } else { QueueType::Classic };
            // A persistent message is confirmed when it is on disk, whatever the plan would have.
            (Protocol::Amqp { queue_type }, Flush::Ack.durability().to_owned())
        }
        "rocketmq" => {
            let is_sync = running.settings.get("flushDiskType").is_some_and(|value| value == "SYNC_FLUSH");
            let class_path = running.class_path.clone().unwrap_or_default();
            let flush = if is_sync { Flush::Ack } else { Flush::Os };
            (Protocol::Rocketmq { class_path }, flush.durability().to_owned())
        }
        _ => (Protocol::Kafka, plan.durability()),
    };
    SystemTarget {
        name: name.to_owned(),
        version: running.version.clone(),
        bootstrap: running.bootstrap.clone(),
        protocol,
        pid: pids.first().copied(),
        more_pids: pids.iter().skip(1).copied().collect(),
        client_settings: BTreeMap::new(),
        durability,
        topic_settings: BTreeMap::new(),
        data_dir: Some(running.data_dir.clone()),
        restart: Some(Restart::Provisioned),
        settings: running.settings.clone(),
    }
}

/// A cluster of the user's own that speaks Kafka's protocol, under the name `cluster`.
pub fn cluster_target(bootstrap: &str, client_settings: BTreeMap<String, String>, flush: Flush) -> SystemTarget {
    SystemTarget {
        name: "cluster".to_owned(),
        version: "unknown".to_owned(),
        bootstrap: bootstrap.to_owned(),
        protocol: Protocol::Kafka,
        pid: None,
        more_pids: Vec::new(),
        client_settings,
        durability: flush.durability().to_owned(),
        topic_settings: BTreeMap::new(),
        data_dir: None,
        restart: None,
        settings: BTreeMap::new(),
    }
}

/// Starts a system that was killed again, on the same data. The second value ends it when dropped; without one it runs on.
pub(crate) fn restart(target: &SystemTarget) -> Result<(SystemTarget, Option<ReferenceBroker>), BenchError> {
    match (&target.restart, &target.data_dir) {
        (Some(Restart::Program { executable, arguments }), Some(data)) => {
            let layout = target.settings.get("layout").map_or("", String::as_str);
            let broker = ReferenceBroker::start_on(executable, arguments, layout, data.clone(), None)?;
            let mut again = target.clone();
            again.bootstrap.clone_from(&broker.bootstrap);
            again.pid = Some(broker.child.id());
            Ok((again, Some(broker)))
        }
        (Some(Restart::Provisioned), _) => {
            let mut options = systems::Options::from_environment()?;
            options.settings.clone_from(&target.settings);
            options.nodes = 1 + target.more_pids.len() as u32;
            options.patience = RESTART_PATIENCE;
            let name = external(&target.name).unwrap_or_else(|| target.name.clone());
            let running = systems::up(&name, &options)?;
            let pids = running.broker_pids();
            let (pid, more_pids) = (pids.first().copied(), pids.iter().skip(1).copied().collect());
            Ok((SystemTarget { bootstrap: running.bootstrap.clone(), pid, more_pids, ..target.clone() }, None))
        }
        _ => Err(BenchError::NoRestart { system: target.name.clone() }),
    }
}

/// The class path of a provisioned system's broker, where that is a Java program.
pub(crate) fn java_class_path(target: &SystemTarget) -> Option<String> {
    let running = systems::status(&external(&target.name)?, &systems::Options::from_environment().ok()?).ok()?;
    let command = &running.processes.iter().find(|process| process.is_broker)?.command;
    let flag = command.iter().position(|word| word == "-cp")?;
    command.get(flag + 1).cloned()
}

/// The first broker process of a provisioned system that answers.
pub(crate) fn broker_role(name: &str, options: &systems::Options) -> Result<String, BenchError> {
    let running = systems::status(name, options)?;
    let broker = running.processes.iter().find(|process| process.is_broker);
    broker.map(|process| process.role.clone()).ok_or_else(|| BenchError::NoRestart { system: name.to_owned() })
}

/// Starts a reference broker that was killed again, on the same data and at the same address: its clients wait there.
pub(crate) fn restart_in_place(target: &SystemTarget) -> Result<(SystemTarget, Option<ReferenceBroker>), BenchError> {
    let mut in_place = target.clone();
    if let Some(Restart::Program { arguments, .. }) = &mut in_place.restart {
        arguments.iter_mut().filter(|word| *word == ANY_ADDRESS).for_each(|word| word.clone_from(&target.bootstrap));
    }
    restart(&in_place)
}

/// A reference broker in a process of its own, ended when this is dropped.
#[derive(Debug)]
pub struct ReferenceBroker {
    child: Child,
    bootstrap: String,
    layout: String,
    executable: PathBuf,
    arguments: Vec<String>,
    data: PathBuf,
    /// Removes the data; none where another value will.
    _keeper: Option<TempDir>,
}

impl ReferenceBroker {
    /// Starts `executable broker` on a free loopback port and waits until it says where it listens.
    pub fn start(
        executable: &Path,
        layout: &str,
        flush: Flush,
        data_parent: &Path,
    ) -> Result<ReferenceBroker, BenchError> {
        let listen = ["broker", "--listen", ANY_ADDRESS].map(str::to_owned);
        let set = ["--layout", layout, "--flush", flush.word()].map(str::to_owned);
        ReferenceBroker::start_as(executable, &[&listen[..], &set].concat(), layout, data_parent)
    }

    /// Starts the relay, the bare program that brokers are held against, in the same way.
    fn start_relay(executable: &Path, flush: Flush, data_parent: &Path) -> Result<ReferenceBroker, BenchError> {
        let arguments = ["relay", "--flush", flush.word()].map(str::to_owned);
        ReferenceBroker::start_as(executable, &arguments, "none", data_parent)
    }

    /// Starts `executable` with these arguments and a fresh data folder.
    pub(crate) fn start_as(
        executable: &Path,
        arguments: &[String],
        layout: &str,
        data_parent: &Path,
    ) -> Result<ReferenceBroker, BenchError> {
        let data = tempfile::Builder::new().prefix("mqassay-bench-").tempdir_in(data_parent);
        let data = data.map_err(|source| BenchError::Io { action: "make a data folder for the broker", source })?;
        ReferenceBroker::start_on(executable, arguments, layout, data.path().to_path_buf(), Some(data))
    }

    fn start_on(
        executable: &Path,
        arguments: &[String],
        layout: &str,
        data: PathBuf,
        keeper: Option<TempDir>,
    ) -> Result<ReferenceBroker, BenchError> {
        let mut command = Command::new(executable);
        command.args(arguments).arg("--data").arg(&data).stdin(Stdio::null()).stdout(Stdio::piped());
        let shown = format!("{} {} …", executable.display(), arguments.join(" "));
        let failed = |reason: String| BenchError::Reference { command: shown.clone(), reason };
        let mut child = {
            let mut started = started();
            let child = command.spawn().map_err(|error| failed(error.to_string()))?;
            started.push(Started { pid: child.id(), data: data.clone() });
            child
        };
        let bootstrap = match listening_address(&mut child) {
            Ok(bootstrap) => bootstrap,
            Err(reason) => {
                end(&mut child);
                started().retain(|one| one.pid != child.id());
                return Err(failed(reason));
            }
        };
        Ok(ReferenceBroker {
            child,
            bootstrap,
            layout: layout.to_owned(),
            executable: executable.to_path_buf(),
            arguments: arguments.to_vec(),
            data,
            _keeper: keeper,
        })
    }

    /// This broker as a system to measure, under `name`.
    pub fn target(&self, name: &str, flush: Flush) -> SystemTarget {
        SystemTarget {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bootstrap: self.bootstrap.clone(),
            protocol: Protocol::Kafka,
            pid: Some(self.child.id()),
            more_pids: Vec::new(),
            client_settings: BTreeMap::new(),
            durability: flush.durability().to_owned(),
            topic_settings: BTreeMap::new(),
            data_dir: Some(self.data.clone()),
            restart: Some(Restart::Program { executable: self.executable.clone(), arguments: self.arguments.clone() }),
            settings: BTreeMap::from([
                ("layout".to_owned(), self.layout.clone()),
                ("flush".to_owned(), flush.word().to_owned()),
            ]),
        }
    }
}

impl Drop for ReferenceBroker {
    fn drop(&mut self) {
        end(&mut self.child);
        started().retain(|one| one.pid != self.child.id());
    }
}

/// A child that runs, for those that must end it without the value that holds it.
#[derive(Debug)]
struct Started {
    pid: u32,
    data: PathBuf,
}

static STARTED: Mutex<Vec<Started>> = Mutex::new(Vec::new());

fn started() -> MutexGuard<'static, Vec<Started>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every broker and relay that this process has started, and removes their data: for a process that is about to end
/// itself because it was told to, so that no value is dropped.
pub fn end_all_started() {
    // The lock is held to the end: nothing may be started meanwhile.
    let started = started();
    for one in started.iter() {
        if let Some(pid) = i32::try_from(one.pid).ok().and_then(Pid::from_raw) {
            // It fails where the child has ended already.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    for one in started.iter() {
        // A broker that is being killed may still make a file; what is left then lies in the folder for temporary data.
        let _ = std::fs::remove_dir_all(&one.data);
    }
}

/// Ends a child of ours; its data is thrown away, so nothing need be finished.
fn end(child: &mut Child) {
    // Both fail only where the child has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads the line `listening on ADDRESS`, and goes on emptying the pipe so that the broker never blocks on it.
fn listening_address(child: &mut Child) -> Result<String, String> {
    let output = child.stdout.take().ok_or("its output is not piped")?;
    let (sender, receiver) = channel();
    let read = move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                // The receiver is gone when the start has been given up.
                let _ = sender.send(address.trim().to_owned());
            }
        }
    };
    std::thread::Builder::new().name("broker-output".to_owned()).spawn(read).map_err(|error| error.to_string())?;
    receiver.recv_timeout(START_PATIENCE).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("it has not said where it listens after {} s", START_PATIENCE.as_secs()),
        RecvTimeoutError::Disconnected => "it ended before it said where it listens".to_owned(),
    })
}

/// A free port on the loopback interface.
const ANY_ADDRESS: &str = "127.0.0.1:0";
const START_PATIENCE: Duration = Duration::from_secs(60);
const RESTART_PATIENCE: Duration = Duration::from_secs(240);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A shell script in place of the program; `sh` is on every system that these tests run on.
    fn program(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_address_is_read_and_the_process_ends_with_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let executable = program(folder.path(), "echo warming; echo listening on 127.0.0.1:4; exec sleep 600");
        let broker = ReferenceBroker::start(&executable, "shared", Flush::Os, folder.path()).unwrap();
        let target = broker.target("reference", Flush::Os);
        assert_eq!((target.bootstrap.as_str(), target.durability.as_str()), ("127.0.0.1:4", "page cache"));
        let (pid, data) = (target.pid.unwrap(), target.data_dir.unwrap());
        assert!(data.exists() && Path::new(&format!("/proc/{pid}")).exists());
        drop(broker);
        assert!(!data.exists() && !Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_program_that_ends_at_once_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let executable = program(folder.path(), "exit 3");
        let error = ReferenceBroker::start(&executable, "shared", Flush::Os, folder.path()).unwrap_err().to_string();
        assert!(error.contains("program broker") && error.contains("ended"), "{error}");
        let error = ReferenceBroker::start(Path::new("/nonexistent"), "shared", Flush::Os, folder.path()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
