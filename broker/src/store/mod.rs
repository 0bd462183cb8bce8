//! Performs the core's disk effects over the `Disk` port and recovers a node's data folder.
//! Start at `Store::open`. Not here: any decision about records; that is `core::log`.

mod compact;
mod cut;
mod files;
mod layout;
mod perform;
mod reader;
mod recover;
mod reserve;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use thiserror::Error;

use crate::core::log::Recovered;
use crate::core::log::frame::FRAME_BYTES;
use crate::core::types::{LogId, QueueId};
use crate::mutant::Mutant;
use crate::ports::{Disk, Observer};
use files::OpenFiles;
use layout::{FORMAT, LOCK, LOGS, METADATA, ROOT};
use reserve::Reserve;

/// The format of data folders that this version writes, and the only one that it reads.
const FORMAT_VERSION: u32 = 3;
const FORMAT_WORD: &str = "mqassay-broker";

/// What a data folder held.
#[derive(Debug)]
pub struct RecoveredNode {
    /// The newest readable snapshot of the metadata: its name and bytes.
    pub metadata_snapshot: Option<(String, Bytes)>,
    /// The metadata log.
    pub metadata: Recovered,
    /// All batches of the metadata log, in order.
    pub metadata_batches: Vec<Bytes>,
    /// All other logs.
    pub logs: BTreeMap<LogId, Recovered>,
}

/// Why a data folder cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error("the data folder is in use by another process; stop it or choose another folder")]
    Locked,
    /// A newer version wrote the folder.
    #[error("the data folder has format {found}; this version reads up to {supported}; upgrade, or choose another")]
    NewerFormat {
        /// The version found.
        found: u32,
        /// The newest version known.
        supported: u32,
    },
    /// An older version wrote the folder.
    #[error("the data folder has format {found}; this version reads {supported} only; choose another folder")]
    OlderFormat {
        /// The version found.
        found: u32,
        /// The version known.
        supported: u32,
    },
    /// The format file says nothing readable.
    #[error("the data folder's `format` file is unreadable; restore it, or choose another folder")]
    FormatUnreadable,
    /// There are snapshots, but none is intact.
    #[error("no metadata snapshot is intact (newest: {newest}); restore the folder from a copy, nothing was changed")]
    SnapshotsUnreadable {
        /// The newest snapshot's name.
        newest: String,
    },
    /// The metadata log is corrupt.
    #[error("the metadata log is corrupt; restore the folder from a copy, nothing was cut")]
    MetadataCorrupt,
    /// An I/O error.
    #[error("{doing} failed on `{path}`: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path in the data folder.
        path: String,
        /// The error.
        source: io::Error,
    },
}

/// The settings of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSettings {
    /// The most segment files that are kept open.
    pub open_files_max: usize,
    /// The most bytes that are reserved ahead of a segment's end; 0 reserves nothing.
    pub preallocate_bytes: u64,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings { open_files_max: 4096, preallocate_bytes: 16 << 20 }
    }
}

/// A node's data folder, opened.
pub struct Store<D: Disk, O: Observer> {
    disk: D,
    observer: O,
    /// Holds for all logs but the metadata's: a mutant breaks promises to clients, not the node itself.
    mutant: Option<Mutant>,
    files: OpenFiles<D::File>,
    reserve: Reserve,
    /// Logs whose directory was created and is not yet known to be durable.
    directories_new: BTreeSet<LogId>,
    /// Logs of which a write failed: nothing more is written until they are reopened.
    failed: BTreeSet<LogId>,
    /// Held for as long as the folder is open.
    _lock: D::Lock,
}

impl<D: Disk, O: Observer> Store<D, O> {
    /// The store's observer.
    #[cfg(test)]
    pub(crate) fn observer(&self) -> &O {
        &self.observer
    }

    /// Locks the folder, checks its format and recovers every log.
    pub async fn open(
        disk: D,
        observer: O,
        mutant: Option<Mutant>,
        settings: StoreSettings,
    ) -> Result<(Store<D, O>, RecoveredNode), OpenError> {
        let lock = match disk.lock_exclusive(LOCK) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(OpenError::Locked),
            Err(error) => return Err(at_path("locking", LOCK)(error)),
        };
        check_format(&disk).await?;
        for directory in [METADATA, LOGS] {
            disk.create_directory(directory).map_err(at_path("creating", directory))?;
        }
        disk.sync_directory(ROOT).map_err(at_path("syncing", ROOT))?;
        disk.sync_directory(LOGS).map_err(at_path("syncing", LOGS))?;
        let metadata_snapshot = snapshot::newest_snapshot(&disk, mutant)?;
        let metadata = recover::recover_log(&disk, &observer, LogId::METADATA, None).await?;
        let metadata_batches = read_metadata(&disk, &metadata)?;
        let mut ids = Vec::new();
        for name in disk.list(LOGS).map_err(at_path("listing", LOGS))? {
            ids.extend(name.parse::<u64>().ok().filter(|id| *id > 0).map(LogId));
        }
        ids.sort_unstable();
        let mut logs = BTreeMap::new();
        for id in ids {
            logs.insert(id, recover::recover_log(&disk, &observer, id, mutant).await?);
        }
        let store = Store {
            disk,
            observer,
            mutant,
            files: OpenFiles::new(settings.open_files_max),
            reserve: Reserve::new(settings.preallocate_bytes),
            directories_new: BTreeSet::new(),
            failed: BTreeSet::new(),
            _lock: lock,
        };
        Ok((store, RecoveredNode { metadata_snapshot, metadata, metadata_batches, logs }))
    }
}

/// Reads the format file, or writes it where the folder is new.
async fn check_format<D: Disk>(disk: &D) -> Result<(), OpenError> {
    let bytes = match disk.open(FORMAT, false) {
        Ok(_) => read_file(disk, FORMAT)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let used = disk.list(ROOT).map_err(at_path("listing", ROOT))?.iter().any(|n| n == METADATA || n == LOGS);
            if used {
                return Err(OpenError::FormatUnreadable);
            }
            return write_format(disk).await;
        }
        Err(error) => return Err(at_path("opening", FORMAT)(error)),
    };
    let version = match format_version(&bytes) {
        Some(version) => Some(version),
        None => outvoted(&bytes).and_then(|line| format_version(&line)),
    };
    match version {
        Some(FORMAT_VERSION) => {
            if bytes != format_text() {
                tracing::warn!("{FORMAT} has rotten bytes, which its copies outvote; it is written anew");
                // A folder that cannot be written to is read as well; the next start tries again.
                let _ = write_format(disk).await;
            }
            Ok(())
        }
        Some(found) if found > FORMAT_VERSION => Err(OpenError::NewerFormat { found, supported: FORMAT_VERSION }),
        Some(found) => Err(OpenError::OlderFormat { found, supported: FORMAT_VERSION }),
        None => Err(OpenError::FormatUnreadable),
    }
}

async fn write_format<D: Disk>(disk: &D) -> Result<(), OpenError> {
    write_file(disk, Some(ROOT), FORMAT, &[format_text()]).await
}

/// The format line, three times over: without it a folder is of no use, and so a flipped bit is outvoted.
fn format_text() -> Bytes {
    Bytes::from(format!("{FORMAT_WORD} {FORMAT_VERSION}\n").repeat(3))
}

/// What at least two of three equal parts say, bit by bit.
fn outvoted(bytes: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = bytes.split_at(bytes.len() / 3);
    let (second, third) = rest.split_at(first.len());
    let agreed = |((a, b), c): ((&u8, &u8), &u8)| (a & b) | (b & c) | (a & c);
    (third.len() == first.len()).then(|| first.iter().zip(second).zip(third).map(agreed).collect())
}

/// The version of one line alone.
fn format_version(line: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(line).ok()?;
    text.strip_suffix('\n')?.strip_prefix(FORMAT_WORD)?.strip_prefix(' ')?.parse().ok()
}

/// All batches of the metadata log.
fn read_metadata<D: Disk>(disk: &D, metadata: &Recovered) -> Result<Vec<Bytes>, OpenError> {
    let Some(queue) = metadata.queues.get(&QueueId::METADATA) else {
        return if metadata.unlisted_fenced { Err(OpenError::MetadataCorrupt) } else { Ok(Vec::new()) };
    };
    if queue.fenced || metadata.unlisted_fenced {
        return Err(OpenError::MetadataCorrupt);
    }
    let mut batches = Vec::with_capacity(queue.entries.len());
    for entry in queue.entries.iter() {
        let segment = metadata.segments.iter().rev().find(|s| s.base <= entry.position);
        let base = segment.expect("an entry lies in a segment").base;
        let path = layout::segment_path(LogId::METADATA, base);
        let file = disk.open(&path, false).map_err(at_path("opening", &path))?;
        let at = entry.position.0 - base.0 + FRAME_BYTES as u64;
        let mut bytes = disk.read_at(&file, at, entry.size as usize).map_err(at_path("reading", &path))?;
        match crate::core::batch::Batch::take(&mut bytes, 0) {
            Ok(batch) => batches.push(batch.bytes),
            Err(_) => return Err(OpenError::MetadataCorrupt),
        }
    }
    Ok(batches)
}

/// Reads a whole file.
fn read_file<D: Disk>(disk: &D, path: &str) -> Result<Bytes, OpenError> {
    let file = disk.open(path, false).map_err(at_path("opening", path))?;
    let length = disk.length(&file).map_err(at_path("measuring", path))?;
    disk.read_at(&file, 0, length as usize).map_err(at_path("reading", path))
}

/// Puts a file in place as a whole: a temporary one, synced, renamed, and the directory synced where one is given.
async fn write_file<D: Disk>(disk: &D, directory: Option<&str>, path: &str, parts: &[Bytes]) -> Result<(), OpenError> {
    let temporary = format!("{path}{}", layout::TEMPORARY);
    let file = disk.open(&temporary, true).map_err(at_path("creating", &temporary))?;
    disk.truncate(&file, 0).map_err(at_path("emptying", &temporary))?;
    disk.write_at(&file, 0, parts).map_err(at_path("writing", &temporary))?;
    disk.sync_file(&file).await.map_err(at_path("syncing", &temporary))?;
    disk.rename(&temporary, path).map_err(at_path("renaming", &temporary))?;
    if let Some(directory) = directory {
        disk.sync_directory(directory).map_err(at_path("syncing", directory))?;
    }
    Ok(())
}

fn at_path(doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_string();
    move |source| OpenError::Io { doing, path, source }
}

impl OpenError {
    /// The kind of I/O error behind it; `InvalidData` where there is none.
    fn kind(&self) -> io::ErrorKind {
        match self {
            OpenError::Io { source, .. } => source.kind(),
            OpenError::Locked
            | OpenError::NewerFormat { .. }
            | OpenError::OlderFormat { .. }
            | OpenError::FormatUnreadable
            | OpenError::SnapshotsUnreadable { .. }
            | OpenError::MetadataCorrupt => io::ErrorKind::InvalidData,
        }
    }
}
