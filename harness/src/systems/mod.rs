//! External systems, provisioned on this machine: fetched, configured, started on free loopback ports, and ended.
//! Start at `up`, `status` and `down`. Each system has a folder of its own below the home folder, with its jars, data,
//! log and a record of the running process. Not here: the reference broker, and clusters that the user runs.

mod health;
mod identity;
mod kafka;
mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names that `up`, `status` and `down` know.
pub const KNOWN: &[&str] = &["kafka"];

/// How to provision; `Options::from_environment` is what the command line starts from.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds all systems' folders.
    pub home: PathBuf,
    /// Settings added to the system's own configuration file; later ones win over the template's.
    pub settings: BTreeMap<String, String>,
    /// Whether `down` keeps the data folder.
    pub keep_data: bool,
    /// How long a system may take until it answers, and until it has ended.
    pub patience: Duration,
}

impl Options {
    /// `MQASSAY_HOME`, else the user's cache folder, for the home; no settings; 60 seconds of patience.
    pub fn from_environment() -> Result<Options, SystemError> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = folder("MQASSAY_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("mqassay")))
            .or_else(|| folder("HOME").map(|home| home.join(".cache").join("mqassay")))
            .ok_or(SystemError::NoHome)?;
        Ok(Options { home, settings: BTreeMap::new(), keep_data: false, patience: Duration::from_secs(60) })
    }
}

/// A system that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its name, one of `KNOWN`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Address for clients, host and port.
    pub bootstrap: String,
    /// Its process.
    pub pid: u32,
    /// When that process started, clock ticks after boot: the pid alone may have been given to another.
    pub started_ticks: u64,
    /// Its data.
    pub data_dir: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// The settings added to the template's.
    pub settings: BTreeMap<String, String>,
}

/// Starts a system, fetching it first where needed, and waits until it answers. One that runs already is left as it is
/// and reported, unless other settings are asked for: then it must be taken down first.
pub fn up(name: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    if let Some(running) = record::load(&folder)? {
        if running.settings != options.settings {
            return Err(SystemError::OtherSettings { name: name.to_owned(), pid: running.pid });
        }
        health::wait_until_answering(&running, options.patience)?;
        return Ok(running);
    }
    let running = kafka::start(&folder, options)?;
    // The record comes before the wait, so that `down` finds a process that never came to answer.
    record::store(&folder, &running)?;
    match health::wait_until_answering(&running, options.patience) {
        Ok(()) => Ok(running),
        Err(error) => {
            record::end_process(&running, options.patience)?;
            record::forget(&folder)?;
            Err(error)
        }
    }
}

/// What runs under this name; fails with `NotRunning` where nothing does, and `Unhealthy` where it does not answer.
pub fn status(name: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    let running = record::load(&folder)?.ok_or_else(|| SystemError::NotRunning { name: name.to_owned() })?;
    health::wait_until_answering(&running, Duration::from_secs(2))?;
    Ok(running)
}

/// Ends exactly the process that `up` started, and removes its data unless told to keep it. Jars and log stay.
pub fn down(name: &str, options: &Options) -> Result<Running, SystemError> {
    let folder = folder_of(name, options)?;
    let running = record::load(&folder)?.ok_or_else(|| SystemError::NotRunning { name: name.to_owned() })?;
    record::end_process(&running, options.patience)?;
    record::forget(&folder)?;
    if !options.keep_data && running.data_dir.exists() {
        std::fs::remove_dir_all(&running.data_dir).map_err(io("remove the data folder", &running.data_dir))?;
    }
    Ok(running)
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
        program: &'static str,
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
        program: &'static str,
        /// What for.
        purpose: &'static str,
        /// The end of its output.
        tail: String,
    },
    /// The process ended before it answered.
    #[error("{name} ended before it answered; the end of {log}:\n{tail}")]
    Ended {
        /// The system.
        name: String,
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
    /// It runs, but with other settings.
    #[error("{name} runs already (process {pid}) with other settings; end it first: mqassay systems down {name}")]
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

fn folder_of(name: &str, options: &Options) -> Result<PathBuf, SystemError> {
    if !KNOWN.contains(&name) {
        return Err(SystemError::Unknown { name: name.to_owned(), known: KNOWN.join(", ") });
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

    fn options(home: &std::path::Path) -> Options {
        Options {
            home: home.to_path_buf(),
            settings: BTreeMap::new(),
            keep_data: false,
            patience: Duration::from_secs(5),
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        let message = up("pulsar", &options(folder.path())).unwrap_err().to_string();
        assert!(message.contains("pulsar") && message.contains("kafka"), "{message}");
    }

    #[test]
    fn what_does_not_run_has_no_status_and_cannot_be_ended() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        assert!(matches!(status("kafka", &options), Err(SystemError::NotRunning { .. })));
        assert!(matches!(down("kafka", &options), Err(SystemError::NotRunning { .. })));
    }

    #[test]
    fn down_ends_the_recorded_process_and_removes_its_data() {
        let home = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let folder = home.path().join("kafka");
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let running = record::tests::running(child.id(), &folder);
        record::store(&folder, &running).unwrap();
        assert_eq!(down("kafka", &options(home.path())).unwrap(), running);
        assert!(!child.wait().unwrap().success());
        assert!(!folder.join("data").exists());
    }

    #[test]
    fn a_process_that_took_over_the_pid_is_not_touched() {
        let home = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let folder = home.path().join("kafka");
        std::fs::create_dir_all(&folder).unwrap();
        let mut running = record::tests::running(child.id(), &folder);
        running.started_ticks -= 1;
        record::store(&folder, &running).unwrap();
        assert!(matches!(down("kafka", &options(home.path())), Err(SystemError::NotRunning { .. })));
        assert!(child.try_wait().unwrap().is_none(), "the stranger was ended");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
