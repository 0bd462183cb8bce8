//! What a process has used, from its own accounting in /proc: CPU time, resident memory, bytes written.
//! Only for processes on this machine; a broker elsewhere has no accounting here.

use std::path::PathBuf;

use thiserror::Error;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system CPU time of all threads, ended ones included, nanoseconds; the kernel tells it in steps of 10 ms.
    pub cpu_ns: u64,
    /// Resident memory now, bytes.
    pub resident_bytes: u64,
    /// Bytes that it caused to be written to storage; none where the kernel does not tell.
    pub written_bytes: Option<u64>,
    /// When it started, clock ticks after boot; with the pid this names a process for good.
    pub started_ticks: u64,
}

/// Accounting could not be read.
#[derive(Debug, Error)]
pub enum AccountingError {
    /// No such process, or not ours to look at.
    #[error("cannot read {path}: {source}; is process {pid} still running?")]
    Read {
        /// The process.
        pid: u32,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not as proc(5) describes it.
    #[error("{path} is not in the form that proc(5) describes: {text:?}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
    },
}

/// Reads what process `pid` has used.
pub fn usage(pid: u32) -> Result<Usage, AccountingError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = read(pid, &path)?;
    let stat = parse_stat(&text).ok_or_else(|| AccountingError::Form { path, text: text.clone() })?;
    let written_bytes =
        read(pid, &PathBuf::from(format!("/proc/{pid}/io"))).ok().and_then(|text| field(&text, "write_bytes:"));
    Ok(Usage {
        cpu_ns: stat.cpu_ticks * NANOSECONDS_PER_TICK,
        resident_bytes: resident_bytes(pid)?,
        written_bytes,
        started_ticks: stat.started_ticks,
    })
}

/// Whether a process of this pid runs and started at `started_ticks`; a zombie does not run.
pub fn is_running(pid: u32, started_ticks: u64) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    parse_stat(&text).is_some_and(|stat| stat.started_ticks == started_ticks && !matches!(stat.state, 'Z' | 'X'))
}

/// User-visible ticks are 100 a second on every Linux that we run on (USER_HZ is part of the kernel's interface).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    cpu_ticks: u64,
    started_ticks: u64,
}

/// Fields of proc(5) `stat`; the second, the command's name in parentheses, may itself hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let after_name = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |index: usize| fields.get(index - 3).and_then(|field| field.parse::<u64>().ok());
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu_ticks: number(14)? + number(15)?,
        started_ticks: number(22)?,
    })
}

fn resident_bytes(pid: u32) -> Result<u64, AccountingError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let text = read(pid, &path)?;
    // A zombie has no memory and no such line.
    Ok(field(&text, "VmRSS:").unwrap_or(0) * 1_024)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(pid: u32, path: &PathBuf) -> Result<String, AccountingError> {
    std::fs::read_to_string(path).map_err(|source| AccountingError::Read { pid, path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "77 (a ) b) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 1 0 9001 1 2";
        assert_eq!(parse_stat(text), Some(Stat { state: 'S', cpu_ticks: 42, started_ticks: 9001 }));
        assert_eq!(parse_stat("77 (a"), None);
    }

    #[test]
    fn this_process_uses_memory_and_is_running_under_its_own_start_only() {
        let pid = std::process::id();
        let usage = usage(pid).unwrap();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert!(is_running(pid, usage.started_ticks));
        assert!(!is_running(pid, usage.started_ticks + 1));
    }
}
