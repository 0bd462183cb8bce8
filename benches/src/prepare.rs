//! From names to running systems: the reference broker as a child process of its own, others as `systems up` left them.
//! What is not there is said and left out, so that a comparison runs on the systems that are.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use mqassay_harness::systems::{self, Running, SystemError};
use tempfile::TempDir;

use crate::plan::{Flush, LoadPlan};
use crate::{BenchError, Protocol, QueueType, SystemTarget};

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
                let broker = ReferenceBroker::start(executable, layout, plan.flush, data_parent)?;
                prepared.targets.push(broker.target(name, plan.flush));
                prepared.brokers.push(broker);
            }
            _ if external(name).is_some() => match systems::status(&external(name).unwrap_or_default(), &options()?) {
                Ok(running) => prepared.targets.push(external_target(name, &running, plan.flush)),
                Err(SystemError::Unknown { .. }) => return Err(BenchError::UnknownSystem { name: name.clone() }),
                // Not there, or there and not answering: the others can be measured all the same.
                Err(error) => prepared.missing.push((name.clone(), error.to_string())),
            },
            _ => return Err(BenchError::UnknownSystem { name: name.clone() }),
        }
    }
    Ok(prepared)
}

fn options() -> Result<systems::Options, BenchError> {
    Ok(systems::Options::from_environment()?)
}

/// What `systems up` calls the system that this name measures.
fn external(name: &str) -> Option<String> {
    let system = name.split('@').next().unwrap_or(name);
    match system {
        "kafka" | "rocketmq" | "rabbitmq" => Some(name.to_owned()),
        "rabbitmq-quorum" => Some("rabbitmq".to_owned()),
        _ => None,
    }
}

fn external_target(name: &str, running: &Running, flush: Flush) -> SystemTarget {
    let pids = running.broker_pids();
    let (protocol, durability) = match running.system() {
        "rabbitmq" => {
            let is_quorum = name.starts_with("rabbitmq-quorum");
            let queue_type = if is_quorum { QueueType::Quorum } else { QueueType::Classic };
            // A persistent message is confirmed when it is on disk, whatever the plan would have.
            (Protocol::Amqp { queue_type }, Flush::Ack)
        }
        "rocketmq" => {
            let is_sync = running.settings.get("flushDiskType").is_some_and(|value| value == "SYNC_FLUSH");
            let class_path = running.class_path.clone().unwrap_or_default();
            (Protocol::Rocketmq { class_path }, if is_sync { Flush::Ack } else { Flush::Os })
        }
        _ => (Protocol::Kafka, flush),
    };
    SystemTarget {
        name: name.to_owned(),
        version: running.version.clone(),
        bootstrap: running.bootstrap.clone(),
        protocol,
        pid: pids.first().copied(),
        more_pids: pids.iter().skip(1).copied().collect(),
        client_settings: BTreeMap::new(),
        durability: durability.durability().to_owned(),
        topic_settings: BTreeMap::new(),
        data_dir: Some(running.data_dir.clone()),
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
        settings: BTreeMap::new(),
    }
}

/// A reference broker in a process of its own, ended when this is dropped.
#[derive(Debug)]
pub struct ReferenceBroker {
    child: Child,
    bootstrap: String,
    layout: String,
    data: TempDir,
}

impl ReferenceBroker {
    /// Starts `executable broker` on a free loopback port and waits until it says where it listens.
    pub fn start(
        executable: &Path,
        layout: &str,
        flush: Flush,
        data_parent: &Path,
    ) -> Result<ReferenceBroker, BenchError> {
        let data = tempfile::Builder::new().prefix("mqassay-bench-").tempdir_in(data_parent);
        let data = data.map_err(|source| BenchError::Io { action: "make a data folder for the broker", source })?;
        let mut command = Command::new(executable);
        command.args(["broker", "--listen", "127.0.0.1:0", "--layout", layout, "--flush", flush.word(), "--data"]);
        command.arg(data.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let shown = format!("{} broker --listen 127.0.0.1:0 --layout {layout} …", executable.display());
        let failed = |reason: String| BenchError::Reference { command: shown.clone(), reason };
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let bootstrap = match listening_address(&mut child) {
            Ok(bootstrap) => bootstrap,
            Err(reason) => {
                end(&mut child);
                return Err(failed(reason));
            }
        };
        Ok(ReferenceBroker { child, bootstrap, layout: layout.to_owned(), data })
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
            data_dir: Some(self.data_dir()),
            settings: BTreeMap::from([
                ("layout".to_owned(), self.layout.clone()),
                ("flush".to_owned(), flush.word().to_owned()),
            ]),
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.data.path().to_path_buf()
    }
}

impl Drop for ReferenceBroker {
    fn drop(&mut self) {
        end(&mut self.child);
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

const START_PATIENCE: Duration = Duration::from_secs(10);

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
