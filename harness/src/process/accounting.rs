//! What a process has used, read from Linux' `/proc`: processor time, memory, context switches, bytes moved to storage.
//! Figures are totals since the process began; take two and subtract (`Usage::since`). Not here: starting processes.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Totals of one process, all its threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time. To the nanosecond for threads that are alive; where threads have ended and took more with
    /// them than the rounding, to the kernel's tick of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident_bytes: u64,
    /// Largest resident memory so far, in bytes.
    pub resident_bytes_maximum: u64,
    /// Voluntary context switches of the threads that are alive.
    pub context_switches_voluntary: u64,
    /// Involuntary context switches of the threads that are alive.
    pub context_switches_involuntary: u64,
    /// Bytes that the process caused to be written to storage.
    pub storage_written_bytes: u64,
    /// Bytes that the process caused to be read from storage.
    pub storage_read_bytes: u64,
}

/// Why a process' usage is not known.
#[derive(Debug, Error)]
pub enum AccountingError {
    /// A file of `/proc` could not be read.
    #[error("{path} cannot be read: {source}; is the process still running, and this Linux?")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of `/proc` does not have the field.
    #[error("{path} has no field {field} that is a number")]
    FieldMissing {
        /// The file.
        path: PathBuf,
        /// The field's name.
        field: &'static str,
    },
}

impl Usage {
    /// Reads the totals of a process.
    pub fn of_process(pid: u32) -> Result<Usage, AccountingError> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let mut usage = Usage::default();
        let mut threads_ns = 0;
        for thread in thread_folders(&folder)? {
            // A thread may end between the listing and the reading; the process' own figures have its time.
            let (Ok(schedstat), Ok(status)) =
                (fs::read_to_string(thread.join("schedstat")), fs::read_to_string(thread.join("status")))
            else {
                continue;
            };
            threads_ns += schedstat.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0u64);
            usage.context_switches_voluntary += field(&status, "voluntary_ctxt_switches").unwrap_or(0);
            usage.context_switches_involuntary += field(&status, "nonvoluntary_ctxt_switches").unwrap_or(0);
        }
        let path = folder.join("stat");
        let ticks = cpu_ticks(&read(&path)?).ok_or(AccountingError::FieldMissing { path, field: "utime" })?;
        let process = Duration::from_millis(ticks * TICK_MS);
        let threads = Duration::from_nanos(threads_ns);
        // The process' count is rounded, but has the time of threads that have ended.
        usage.cpu = if process > threads + ROUNDING { process } else { threads };
        let path = folder.join("status");
        let status = read(&path)?;
        let kibibytes = |name: &'static str| {
            let found = field(&status, name).map(|kibibytes| kibibytes * 1024);
            found.ok_or_else(|| AccountingError::FieldMissing { path: path.clone(), field: name })
        };
        usage.resident_bytes = kibibytes("VmRSS")?;
        usage.resident_bytes_maximum = kibibytes("VmHWM")?;
        let path = folder.join("io");
        let moved = read(&path)?;
        let bytes = |name: &'static str| {
            field(&moved, name).ok_or_else(|| AccountingError::FieldMissing { path: path.clone(), field: name })
        };
        usage.storage_written_bytes = bytes("write_bytes")?;
        usage.storage_read_bytes = bytes("read_bytes")?;
        Ok(usage)
    }

    /// What was used since an earlier reading; memory stays as it is now.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            resident_bytes: self.resident_bytes,
            resident_bytes_maximum: self.resident_bytes_maximum,
            context_switches_voluntary: self
                .context_switches_voluntary
                .saturating_sub(earlier.context_switches_voluntary),
            context_switches_involuntary: self
                .context_switches_involuntary
                .saturating_sub(earlier.context_switches_involuntary),
            storage_written_bytes: self.storage_written_bytes.saturating_sub(earlier.storage_written_bytes),
            storage_read_bytes: self.storage_read_bytes.saturating_sub(earlier.storage_read_bytes),
        }
    }

    /// The totals of two processes of one system together.
    pub fn and(&self, other: &Usage) -> Usage {
        Usage {
            cpu: self.cpu + other.cpu,
            resident_bytes: self.resident_bytes + other.resident_bytes,
            resident_bytes_maximum: self.resident_bytes_maximum + other.resident_bytes_maximum,
            context_switches_voluntary: self.context_switches_voluntary + other.context_switches_voluntary,
            context_switches_involuntary: self.context_switches_involuntary + other.context_switches_involuntary,
            storage_written_bytes: self.storage_written_bytes + other.storage_written_bytes,
            storage_read_bytes: self.storage_read_bytes + other.storage_read_bytes,
        }
    }
}

fn thread_folders(folder: &std::path::Path) -> Result<Vec<PathBuf>, AccountingError> {
    let path = folder.join("task");
    let unreadable = |source| AccountingError::Unreadable { path: path.clone(), source };
    let entries = fs::read_dir(&path).map_err(unreadable)?;
    let mut threads = Vec::new();
    for entry in entries {
        threads.push(entry.map_err(unreadable)?.path());
    }
    Ok(threads)
}

fn read(path: &std::path::Path) -> Result<String, AccountingError> {
    fs::read_to_string(path).map_err(|source| AccountingError::Unreadable { path: path.to_path_buf(), source })
}

/// User and system ticks of `/proc/PID/stat`; the program's name before them may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let behind_name = stat.rsplit_once(')')?.1;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number behind `name:` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.filter_map(|value| value.split_whitespace().next()?.parse().ok()).next()
}

/// Linux counts processor time for user space in hundredths of a second.
const TICK_MS: u64 = 10;
/// By how much the tick-counted time may exceed the exact one by rounding alone.
const ROUNDING: Duration = Duration::from_millis(2 * TICK_MS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status =
            "VmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(field(status, "VmRSS"), Some(1024));
        assert_eq!(field(status, "voluntary_ctxt_switches"), Some(7));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches"), Some(9));
        assert_eq!(field(status, "VmSwap"), None);
        let moved = "rchar: 5\nread_bytes: 11\nwrite_bytes: 4096\ncancelled_write_bytes: 3\n";
        assert_eq!(field(moved, "write_bytes"), Some(4096));
    }

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "12 (a ) (b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("12 (name) S 1"), None);
    }

    #[test]
    fn a_process_that_computes_is_seen_to_compute() {
        let pid = std::process::id();
        let before = Usage::of_process(pid).expect("this process runs");
        let mut sum = 0u64;
        let mut after = before;
        while after.since(&before).cpu < Duration::from_millis(20) {
            for number in 0..1_000_000u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(number));
            }
            after = Usage::of_process(pid).expect("this process runs");
        }
        assert!(after.cpu >= before.cpu);
        assert!(after.resident_bytes > 0 && after.resident_bytes_maximum >= after.resident_bytes / 2);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let error = Usage::of_process(u32::MAX).expect_err("no process has that id");
        assert!(error.to_string().contains("still running"), "{error}");
    }
}
