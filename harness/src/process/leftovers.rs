//! What runs in the process world may have left behind: mounts, network namespaces (and with them links and filter rules),
//! and processes, of runs that have ended. After a run that ended by itself or by a signal there is none; one that was
//! killed outright leaves what the next run, or `remove`, takes away. Not here: provisioned systems, which `systems` records.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use super::{disk, world::namespaces};
use crate::systems::started_ticks;

/// The variable that marks a run's processes with the process that started them: its id and when it started.
const OWNER: &str = "MQASSAY_OWNER";

/// Something whose owner has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A mounted disk without its server.
    Mount(PathBuf),
    /// A network namespace without its maker.
    Namespace(String),
    /// A process without the one that started it.
    Process(u32),
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Leftover::Mount(folder) => write!(formatter, "mount {}", folder.display()),
            Leftover::Namespace(name) => write!(formatter, "network namespace {name}"),
            Leftover::Process(pid) => write!(formatter, "process {pid}"),
        }
    }
}

/// Marks a command's process as this process' own.
pub(super) fn mark(command: &mut std::process::Command) {
    let pid = std::process::id();
    command.env(OWNER, format!("{pid}:{}", started_ticks(pid).unwrap_or_default()));
}

/// What is left of runs that have ended.
pub fn find() -> Vec<Leftover> {
    let mounts = disk::stale_mounts().into_iter().map(Leftover::Mount);
    let namespaces = namespaces::stale().into_iter().map(Leftover::Namespace);
    mounts.chain(namespaces).chain(orphans().into_iter().map(Leftover::Process)).collect()
}

/// Takes everything away that is left of runs that have ended, and gives it.
pub fn remove() -> Vec<Leftover> {
    let found = find();
    for pid in orphans() {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // One that has ended since is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    disk::unmount_stale();
    namespaces::remove_stale();
    found
}

/// Processes that bear the mark of an owner that has ended.
fn orphans() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        // The environment of another user's process cannot be read; such a process is none of ours.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .filter_map(owner_of)
            .any(|(owner, ticks)| started_ticks(owner) != Some(ticks))
    })
    .collect()
}

fn owner_of(variable: &[u8]) -> Option<(u32, u64)> {
    let value = std::str::from_utf8(variable).ok()?.strip_prefix(OWNER)?.strip_prefix('=')?;
    let (pid, ticks) = value.split_once(':')?;
    Some((pid.parse().ok()?, ticks.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_left_over_once_its_owner_has_ended() {
        let mut sleeper = std::process::Command::new("sleep");
        sleeper.arg("600");
        mark(&mut sleeper);
        let mut own = sleeper.spawn().unwrap();
        let mut orphan = sleeper.env(OWNER, format!("{}:1", std::process::id())).spawn().unwrap();
        // A child is seen with our environment until it has become the other program.
        while !orphans().contains(&orphan.id()) {
            std::thread::yield_now();
        }
        assert!(!orphans().contains(&own.id()));
        for child in [&mut own, &mut orphan] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(owner_of(b"MQASSAY_OWNER=17:4711"), Some((17, 4711)));
        assert_eq!(owner_of(b"MQASSAY_OWNER_X=17:4711"), None);
    }
}
