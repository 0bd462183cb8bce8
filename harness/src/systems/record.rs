//! The record of a system: a JSON file in its folder that names its processes, each by pid and start, and how to start
//! it again. Ends those processes and the ones that bear the folder's mark, and no other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::identity::{is_running, marked};
use super::{Running, SystemError, SystemProcess, io};

/// What `up` recorded in this folder, whether it still runs or not.
pub(super) fn load(folder: &Path) -> Result<Option<Running>, SystemError> {
    let path = path_in(folder);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let running = serde_json::from_str(&text);
    running.map(Some).map_err(|error| SystemError::Record { path, reason: error.to_string() })
}

/// Writes the record whole or not at all.
pub(super) fn store(folder: &Path, running: &Running) -> Result<(), SystemError> {
    let path = path_in(folder);
    let draft = path.with_extension("draft");
    let text = serde_json::to_string_pretty(running).expect("strings, numbers and paths of ours serialise");
    std::fs::write(&draft, text).map_err(io("write", &draft))?;
    std::fs::rename(&draft, &path).map_err(io("rename to", &path))
}

/// Removes the record.
pub(super) fn forget(folder: &Path) -> Result<(), SystemError> {
    let path = path_in(folder);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// Asks the system's processes to end, the last started first, and kills what has not after half the patience.
pub(super) fn end_processes(running: &Running, patience: Duration) -> Result<(), SystemError> {
    for process in running.processes.iter().rev() {
        end(&running.name, process.pid, process.started_ticks, &[Signal::TERM, Signal::KILL], patience)?;
    }
    Ok(())
}

/// Ends whatever bears the mark of this folder, and gives how many there were.
pub(super) fn end_marked(name: &str, folder: &Path, patience: Duration) -> Result<usize, SystemError> {
    let found = marked(folder);
    for (pid, ticks) in &found {
        end(name, *pid, *ticks, &[Signal::TERM, Signal::KILL], patience)?;
    }
    Ok(found.len())
}

/// Kills one process and waits for its end.
pub(super) fn kill_process_of(
    running: &Running,
    process: &SystemProcess,
    patience: Duration,
) -> Result<(), SystemError> {
    end(&running.name, process.pid, process.started_ticks, &[Signal::KILL], patience)
}

fn end(name: &str, pid: u32, ticks: u64, signals: &[Signal], patience: Duration) -> Result<(), SystemError> {
    for signal in signals {
        if !is_running(pid, ticks) {
            return Ok(());
        }
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the pid of a process that runs");
        // A process that ended between the check and the signal is what we want; the wait below notices it.
        let _ = kill_process(target, *signal);
        let deadline = Instant::now() + patience / 2;
        while Instant::now() < deadline {
            if !is_running(pid, ticks) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Err(SystemError::Stuck { name: name.to_owned(), pid, seconds: patience.as_secs() })
}

pub(super) fn path_in(folder: &Path) -> PathBuf {
    folder.join("running.json")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of a process that runs now.
    pub(in crate::systems) fn running(pid: u32, folder: &Path) -> Running {
        let process = SystemProcess {
            role: "broker-1".to_owned(),
            is_broker: true,
            address: "127.0.0.1:1".to_owned(),
            pid,
            started_ticks: crate::systems::identity::started_ticks(pid).unwrap(),
            log: folder.join("broker-1.log"),
            command: vec!["sleep".to_owned(), "600".to_owned()],
            environment: std::collections::BTreeMap::new(),
        };
        Running {
            name: "kafka".to_owned(),
            version: "0".to_owned(),
            bootstrap: "127.0.0.1:1".to_owned(),
            processes: vec![process],
            data_dir: folder.join("data"),
            settings: std::collections::BTreeMap::new(),
            class_path: None,
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("running.json"), "{").unwrap();
        let message = load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("running.json"), "{message}");
    }
}
