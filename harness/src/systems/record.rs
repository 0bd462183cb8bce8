//! The record of a running system: a JSON file in its folder, believed only while the process that it names runs and
//! started when the record says. Ends that process, and no other.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::identity::is_running;
use super::{Running, SystemError, io};

/// The system that runs from this folder; a record of a process that has ended is removed.
pub(super) fn load(folder: &Path) -> Result<Option<Running>, SystemError> {
    let path = path_in(folder);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let running: Running = serde_json::from_str(&text)
        .map_err(|error| SystemError::Record { path: path.clone(), reason: error.to_string() })?;
    if is_running(running.pid, running.started_ticks) {
        return Ok(Some(running));
    }
    forget(folder)?;
    Ok(None)
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

/// Asks the process to end, and kills it when it has not after half the patience.
pub(super) fn end_process(running: &Running, patience: Duration) -> Result<(), SystemError> {
    for signal in [Signal::TERM, Signal::KILL] {
        let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the pid was read from the system and is running");
        if !is_running(running.pid, running.started_ticks) {
            return Ok(());
        }
        // A process that ended between the check and the signal is what we want; the wait below notices it.
        let _ = kill_process(pid, signal);
        let deadline = Instant::now() + patience / 2;
        while Instant::now() < deadline {
            if !is_running(running.pid, running.started_ticks) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Err(SystemError::Stuck { name: running.name.clone(), pid: running.pid, seconds: patience.as_secs() })
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("running.json")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of a process that runs now.
    pub(in crate::systems) fn running(pid: u32, folder: &Path) -> Running {
        Running {
            name: "kafka".to_owned(),
            version: "0".to_owned(),
            bootstrap: "127.0.0.1:1".to_owned(),
            pid,
            started_ticks: crate::systems::identity::started_ticks(pid).unwrap(),
            data_dir: folder.join("data"),
            log: folder.join("kafka.log"),
            settings: std::collections::BTreeMap::new(),
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
