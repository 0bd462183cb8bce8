//! A disk that forgets, for real broker processes: a file system in user space that keeps unsynced writes apart by the
//! rules of the simulated drive, and loses them when its power goes. `server` runs it as a process of its own, so that a
//! mount that hangs can be killed; `mount` is what a test holds of it. Start at `ForgettingDisk::mount`.
//! Its files live in that process' memory and end with it. `volume` has the files, `session` the kernel's side.

mod mount;
mod server;
mod session;
mod volume;
#[cfg(test)]
mod volume_tests;

use serde::{Deserialize, Serialize};

use crate::plan::DiskOperation;
use crate::sim::disk::{BitFlip, LossKind, PowerLossSummary};

pub use crate::sim::disk::Metadata;
pub use mount::{DiskError, ForgettingDisk, missing, stale_mounts, unmount_stale};
pub use server::{ServeError, serve};

/// What a disk can be told; one line of JSON each on the server's standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Everything becomes durable, as when much time has passed.
    Settle,
    /// What is unsynced survives or not by the salt; every open file is cut off. Kill the processes first.
    PowerLoss {
        /// Decides what survives.
        salt: u64,
    },
    /// The next operations fail.
    Fail {
        /// Which.
        on: DiskOperation,
        /// How many.
        operations: u32,
        /// Decides how much of a write is done.
        salt: u64,
    },
    /// While any fault holds it full, nothing can grow.
    Full {
        /// The fault's number.
        fault: u32,
        /// Whether it begins or ends.
        is_active: bool,
    },
    /// Syncs take longer.
    Slow {
        /// The fault's number.
        fault: u32,
        /// Added to each sync; 0 ends it.
        delay_ms: u64,
    },
    /// Flips one bit of one file.
    FlipBit {
        /// Decides where.
        salt: u64,
        /// Part of the paths of the files to choose from.
        within: String,
    },
    /// Ends every fault.
    Repair,
}

/// The answer to a command; one line of JSON each on the server's standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is mounted; the first line.
    Mounted,
    /// Done.
    Done,
    /// What a power loss took.
    Lost {
        /// The sum.
        summary: PowerLossSummary,
        /// File by file.
        files: Vec<(String, LossKind)>,
    },
    /// Where a bit was flipped; none where there is no byte.
    Flipped(Option<BitFlip>),
    /// The command was not understood or could not be done.
    Refused(String),
}
