//! Performs the core's disk effects over the `Disk` port and recovers a node's data folder.
//! Start at `Store::open`. Not here: any decision about records; that is `core::log`.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;

use bytes::Bytes;
use thiserror::Error;

use crate::core::log::{DiskEffect, DiskEvent, Recovered};
use crate::core::types::LogId;
use crate::mutant::Mutant;
use crate::ports::{Disk, Observer};

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
    /// The format file says nothing readable.
    #[error("the data folder's `format` file is unreadable; restore it, or choose another folder")]
    FormatUnreadable,
    /// There are snapshots, but none is intact.
    #[error("no metadata snapshot is intact (newest: {newest}); restore the folder from a copy, nothing was changed")]
    SnapshotsUnreadable {
        /// The newest snapshot's name.
        newest: String,
    },
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
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings { open_files_max: 4096 }
    }
}

/// A node's data folder, opened.
pub struct Store<D: Disk, O: Observer> {
    disk: D,
    observer: O,
}

#[allow(clippy::todo, unused_variables, reason = "signatures first; bodies follow in the next commit")]
impl<D: Disk, O: Observer> Store<D, O> {
    /// Locks the folder, checks its format and recovers every log.
    pub async fn open(
        disk: D,
        observer: O,
        mutant: Option<Mutant>,
        settings: StoreSettings,
    ) -> Result<(Store<D, O>, RecoveredNode), OpenError> {
        todo!()
    }

    /// Performs the inline effects, in order, and leaves the asynchronous ones for `start`.
    pub fn perform(&mut self, effects: &mut Vec<DiskEffect>) -> Vec<DiskEvent> {
        todo!()
    }

    /// Starts an asynchronous effect (Sync, Seal, Read, WriteSnapshot, Reopen); call after `perform`.
    pub fn start(&mut self, effect: DiskEffect) -> impl Future<Output = DiskEvent> + 'static {
        async { todo!() }
    }
}
