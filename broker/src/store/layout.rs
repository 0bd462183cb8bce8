//! Names and paths in a data folder. Not here: any I/O.

use crate::core::types::{LogId, Position};

/// The data folder itself.
pub(super) const ROOT: &str = "";
/// Where the logs' directories are.
pub(super) const LOGS: &str = "logs";
/// Where the metadata log and its snapshots are.
pub(super) const METADATA: &str = "metadata";
/// The file that the folder's process locks.
pub(super) const LOCK: &str = "lock";
/// The file that names the folder's format.
pub(super) const FORMAT: &str = "format";
/// How names of unfinished files end.
pub(super) const TEMPORARY: &str = ".tmp";
/// How names of snapshots end.
pub(super) const SNAPSHOT: &str = ".snapshot";

const SEGMENT: &str = ".log";
const INDEX: &str = ".index";

/// A log's directory.
pub(super) fn log_directory(log: LogId) -> String {
    if log == LogId::METADATA { METADATA.to_string() } else { format!("{LOGS}/{}", log.0) }
}

/// The directory that holds a log's directory.
pub(super) fn log_parent(log: LogId) -> &'static str {
    if log == LogId::METADATA { ROOT } else { LOGS }
}

/// A segment's file.
pub(super) fn segment_path(log: LogId, base: Position) -> String {
    format!("{}/{:020}{SEGMENT}", log_directory(log), base.0)
}

/// A segment's index file.
pub(super) fn index_path(log: LogId, base: Position) -> String {
    format!("{}/{:020}{INDEX}", log_directory(log), base.0)
}

/// A snapshot's file.
pub(super) fn snapshot_path(name: &str) -> String {
    format!("{METADATA}/{name}{SNAPSHOT}")
}

/// The base position that a segment's file name gives.
pub(super) fn segment_base(name: &str) -> Option<Position> {
    base_of(name.strip_suffix(SEGMENT)?)
}

/// The base position that an index file's name gives.
pub(super) fn index_base(name: &str) -> Option<Position> {
    base_of(name.strip_suffix(INDEX)?)
}

fn base_of(digits: &str) -> Option<Position> {
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if all_digits { digits.parse().ok().map(Position) } else { None }
}
