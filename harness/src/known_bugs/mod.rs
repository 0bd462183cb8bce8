//! Published bugs of real brokers, found again on a release that has them and looked for on one that does not. Each is a
//! short script of requests against one node that `systems` provisions; the verdict is computed from the answers and from
//! what the broker shows afterwards. Start at `BUGS` and `run`. Not here: random search (scenarios).

mod checkpoint;
mod hostile;
mod transactions;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::process::disk::{DiskError, ForgettingDisk, Metadata};
use crate::systems::{self, Options, Running, SystemError};

/// A bug that somebody published.
#[derive(Clone, Copy)]
pub struct Bug {
    /// What the command line calls it.
    pub name: &'static str,
    /// Where it is published.
    pub source: &'static str,
    /// What goes wrong, in one sentence.
    pub title: &'static str,
    /// The anomaly that it is.
    pub anomaly: &'static str,
    /// A release that has it, as `systems` names it.
    pub broken: &'static str,
    /// A release that does not.
    pub mended: &'static str,
    /// Why the newer release is free of it.
    pub mended_by: &'static str,
    /// Settings of the node beside the system's own.
    settings: &'static [(&'static str, &'static str)],
    /// Whether its data must lie on a disk that forgets.
    needs_disk: bool,
    script: fn(&mut Stand) -> Result<Shown, BugError>,
}

impl Bug {
    /// Whether its script needs a disk that forgets.
    pub fn needs_disk(&self) -> bool {
        self.needs_disk
    }
}

/// All bugs there are scripts for.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "late-produce",
        source: "KAFKA-14402 and KAFKA-12671, KIP-890 part 1",
        title: "A transactional Produce that arrives after its transaction was aborted is appended, and no one ever ends it.",
        anomaly: "hanging-transaction",
        broken: "kafka@3.5",
        mended: "kafka",
        mended_by: "KIP-890, in 3.6: the leader asks the coordinator whether the queue is part of an ongoing transaction",
        settings: &[("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000")],
        needs_disk: false,
        script: transactions::late_produce,
    },
    Bug {
        name: "late-end",
        source: "KAFKA-17754, KIP-890 part 2",
        title: "A repeated EndTxn that was delayed on its way ends the producer's next transaction.",
        anomaly: "aborted-read",
        broken: "kafka@3.9",
        mended: "kafka",
        mended_by: "KIP-890, in 4.0: the producer's epoch grows with every transaction, so that the late request is fenced",
        settings: &[],
        needs_disk: false,
        script: transactions::late_end,
    },
    Bug {
        name: "unread-count",
        source: "CVE-2022-34917",
        title: "A frame of a few bytes from anybody makes the broker allocate room for as many elements as the frame claims.",
        anomaly: "memory exhausted by one frame",
        broken: "kafka@3.2",
        mended: "kafka",
        mended_by: "3.2.3: a count is compared with the bytes that are left before anything is allocated",
        settings: &[],
        needs_disk: false,
        script: hostile::unread_count,
    },
    Bug {
        name: "unsynced-epochs",
        source: "KAFKA-16541",
        title: "The leader epochs' checkpoint is replaced without a sync, so that a power loss leaves one that cannot be read.",
        anomaly: "self-crash after a power loss",
        broken: "kafka@3.7",
        mended: "kafka",
        mended_by: "3.8.0: the checkpoint is written in the background and synced before it takes the old one's place",
        settings: &[],
        needs_disk: true,
        script: checkpoint::unsynced_epochs,
    },
];

/// What a script saw on one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Whether the bug showed.
    pub is_there: bool,
    /// What was done and answered, step by step.
    pub steps: Vec<String>,
}

/// The same with the release it was seen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The release.
    pub version: String,
    /// What was seen.
    #[serde(flatten)]
    pub shown: Shown,
}

/// Why a script could not be played to its end.
#[derive(Debug, Error)]
pub enum BugError {
    /// The system could not be had.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The disk that it needs could not be had.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A request failed in a way that the script does not expect.
    #[error("the script cannot go on: {0}")]
    Script(#[from] io::Error),
}

/// What a script plays on.
struct Stand {
    system: &'static str,
    options: Options,
    running: Running,
    disk: Option<ForgettingDisk>,
}

impl Stand {
    fn address(&self) -> &str {
        &self.running.bootstrap
    }

    /// The log of the only broker.
    fn log(&self) -> io::Result<String> {
        std::fs::read_to_string(&self.running.processes[0].log)
    }

    fn kill(&self) -> Result<(), SystemError> {
        systems::kill(self.system, ROLE, &self.options)
    }

    /// Starts the broker again on what is left of its data, and waits until it answers or has ended.
    fn restart(&mut self) -> Result<(), SystemError> {
        systems::restart(self.system, ROLE, &self.options)?;
        self.running = systems::wait(self.system, &self.options)?;
        Ok(())
    }
}

/// Plays a bug's script against a new node of a release. `home` is a folder for it alone; `program` serves the disk.
pub fn run(bug: &Bug, system: &'static str, home: &Path, program: &Path) -> Result<Seen, BugError> {
    let mut options = Options::from_environment()?;
    options.home = home.to_owned();
    options.heap = Some("512m".to_owned());
    options.settings =
        bug.settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
    let data: PathBuf = home.join(system).join("data").join("node-1");
    // What an earlier run left must not lie below the disk.
    forget(system, &options)?;
    let disk = match bug.needs_disk {
        true => Some(ForgettingDisk::mount(program, &data, DISK_BYTES, Metadata::Journal)?),
        false => None,
    };
    let running = systems::up(system, &options)?;
    let mut stand = Stand { system, options: options.clone(), running, disk };
    let version = stand.running.version.clone();
    let shown = (bug.script)(&mut stand);
    // The process ends before its disk does, and the folder is removed after both.
    let ended = systems::down(system, &Options { keep_data: true, ..options.clone() }).map(drop);
    drop(stand);
    forget(system, &options)?;
    ended?;
    Ok(Seen { version, shown: shown? })
}

/// Ends what runs under the name and removes its data, where there is any.
fn forget(system: &str, options: &Options) -> Result<(), SystemError> {
    match systems::down(system, options) {
        Ok(_) | Err(SystemError::NotRunning { .. } | SystemError::Leftovers { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

const ROLE: &str = "broker-1";
const DISK_BYTES: u64 = 1 << 30;
