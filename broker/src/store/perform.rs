//! Performs disk effects: the inline ones in order, consecutive writes to one file as one; the others as futures.
//! Not here: opening and recovering a folder.

use std::future::Future;
use std::io;

use bytes::Bytes;

use super::layout::{self, LOGS, index_path, log_directory, log_parent, segment_path};
use super::{Store, compact, cut, recover, snapshot, write_file};
use crate::core::log::{DiskEffect, DiskEvent};
use crate::core::types::{LogId, Position};
use crate::mutant::Mutant;
use crate::points;
use crate::ports::{Disk, Observer};

/// Writes to one file that follow on each other, to be performed as one.
struct PendingWrite {
    log: LogId,
    segment: Position,
    at: u64,
    parts: Vec<Bytes>,
    bytes: u64,
}

impl<D: Disk, O: Observer> Store<D, O> {
    /// Performs the inline effects, in order, and leaves the asynchronous ones for `start`.
    pub fn perform(&mut self, effects: &mut Vec<DiskEffect>) -> Vec<DiskEvent> {
        let mut events = Vec::new();
        let mut later = Vec::new();
        let mut pending: Option<PendingWrite> = None;
        for effect in effects.drain(..) {
            match effect {
                DiskEffect::Write { log, segment, at, parts } => {
                    let bytes = parts.iter().map(|p| p.len() as u64).sum();
                    match &mut pending {
                        Some(p) if (p.log, p.segment, p.at + p.bytes) == (log, segment, at) => {
                            p.parts.extend(parts);
                            p.bytes += bytes;
                        }
                        Some(_) | None => {
                            self.write(pending.replace(PendingWrite { log, segment, at, parts, bytes }), &mut events);
                        }
                    }
                }
                DiskEffect::CreateSegment { log, base } => {
                    self.write(pending.take(), &mut events);
                    self.create_segment(log, base, &mut events);
                }
                DiskEffect::RemoveSegment { log, base } => {
                    self.write(pending.take(), &mut events);
                    if let Err(error) = self.remove_segment(log, base) {
                        events.push(DiskEvent::RemoveFailed { log, kind: error.kind() });
                    }
                }
                DiskEffect::RemoveLog { log } => {
                    self.write(pending.take(), &mut events);
                    if let Err(error) = self.remove_log(log) {
                        events.push(DiskEvent::RemoveFailed { log, kind: error.kind() });
                    }
                }
                DiskEffect::RemoveReplaced { log, bases } => {
                    self.write(pending.take(), &mut events);
                    if let Err(error) = self.remove_replaced(log, &bases) {
                        events.push(DiskEvent::RemoveFailed { log, kind: error.kind() });
                    }
                }
                DiskEffect::Sync { .. }
                | DiskEffect::Compact { .. }
                | DiskEffect::Seal { .. }
                | DiskEffect::Read { .. }
                | DiskEffect::WriteSnapshot { .. }
                | DiskEffect::Reopen { .. }
                | DiskEffect::Cut { .. }
                | DiskEffect::Restart { .. } => later.push(effect),
            }
        }
        self.write(pending, &mut events);
        *effects = later;
        events
    }

    /// Starts an asynchronous effect; call it after `perform`, in the same turn. The future borrows nothing.
    ///
    /// # Panics
    /// On an inline effect.
    pub fn start(&mut self, effect: DiskEffect) -> impl Future<Output = DiskEvent> + 'static + use<D, O> {
        let (disk, observer, mut mutant) = (self.disk.clone(), self.observer.clone(), self.mutant);
        let mut opened = Vec::new();
        let mut open_error = None;
        let mut parent = None;
        match &effect {
            DiskEffect::Sync { log, segments, directory, .. } => {
                mutant = self.mutant_of(*log);
                for segment in segments {
                    match self.file(*log, *segment) {
                        Ok(file) => opened.push(file),
                        Err(error) => open_error = Some(error),
                    }
                }
                let is_new = *directory && self.directories_new.remove(log);
                parent = is_new.then(|| log_parent(*log));
                observer.point(points::SYNC_STARTED);
            }
            DiskEffect::Read { log, segment, .. } => match self.file(*log, *segment) {
                Ok(file) => opened.push(file),
                Err(error) => open_error = Some(error),
            },
            DiskEffect::Reopen { log } | DiskEffect::Cut { log, .. } | DiskEffect::Restart { log, .. } => {
                mutant = self.mutant_of(*log);
                self.failed.remove(log);
                self.files.remove_log(*log);
                self.reserve.forget(*log);
            }
            DiskEffect::Seal { log, segment, .. } => {
                mutant = self.mutant_of(*log);
                if self.reserve.end(*log, *segment) {
                    // Nothing is lost where the file cannot be opened: only room is given back.
                    opened.extend(self.file(*log, *segment));
                }
            }
            DiskEffect::Compact { log, .. } => mutant = self.mutant_of(*log),
            DiskEffect::WriteSnapshot { .. } => {}
            DiskEffect::CreateSegment { .. }
            | DiskEffect::Write { .. }
            | DiskEffect::RemoveSegment { .. }
            | DiskEffect::RemoveReplaced { .. }
            | DiskEffect::RemoveLog { .. } => unreachable!("inline effects are performed by `perform`"),
        }
        run(Job { disk, observer, mutant, opened, open_error, parent }, effect)
    }

    fn mutant_of(&self, log: LogId) -> Option<Mutant> {
        self.mutant.filter(|_| log != LogId::METADATA)
    }

    fn file(&mut self, log: LogId, segment: Position) -> io::Result<D::File> {
        if let Some(file) = self.files.find((log, segment)) {
            return Ok(file);
        }
        let file = self.disk.open(&segment_path(log, segment), false)?;
        self.files.insert((log, segment), file.clone());
        Ok(file)
    }

    fn write(&mut self, pending: Option<PendingWrite>, events: &mut Vec<DiskEvent>) {
        let Some(PendingWrite { log, segment, at, parts, bytes }) = pending else {
            return;
        };
        if self.failed.contains(&log) {
            return;
        }
        let written = match self.file(log, segment) {
            Ok(file) => {
                if let Some(upto) = self.reserve.wanted(log, segment, at + bytes) {
                    // Without room ahead the write itself finds out whether the disk is full.
                    let _ = self.disk.preallocate(&file, upto);
                }
                self.disk.write_at(&file, at, &parts).inspect_err(|_| {
                    // Recovery cuts what the failed write left, should this not succeed.
                    let _ = self.disk.truncate(&file, at);
                })
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                self.observer.point(points::APPEND_WRITTEN);
                events.push(DiskEvent::Written { log, upto: segment.plus(at + bytes) });
            }
            Err(error) => self.fail(log, segment.plus(at), &error, events),
        }
    }

    fn create_segment(&mut self, log: LogId, base: Position, events: &mut Vec<DiskEvent>) {
        if self.failed.contains(&log) {
            return;
        }
        let path = segment_path(log, base);
        let mut created = self.disk.open(&path, true);
        let first = matches!(&created, Err(error) if error.kind() == io::ErrorKind::NotFound);
        if first {
            let directory = log_directory(log);
            created = self.disk.create_directory(&directory).and_then(|()| self.disk.open(&path, true));
            self.directories_new.insert(log);
        }
        match created {
            Ok(file) => {
                self.files.insert((log, base), file);
                self.observer.point(points::SEGMENT_CREATED);
                if base > Position(0) {
                    self.observer.event(points::SEGMENT_ROLL, 1);
                }
            }
            Err(error) => self.fail(log, base, &error, events),
        }
    }

    fn fail(&mut self, log: LogId, from: Position, error: &io::Error, events: &mut Vec<DiskEvent>) {
        self.failed.insert(log);
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.observer.event(points::DISK_FULL, 1);
        }
        events.push(DiskEvent::WriteFailed { log, from, kind: error.kind() });
    }

    /// Removes a segment's file; its index stays, for the state it holds, and that of earlier segments goes.
    fn remove_segment(&mut self, log: LogId, base: Position) -> io::Result<()> {
        self.files.remove((log, base));
        self.disk.remove(&segment_path(log, base))?;
        self.observer.point(points::SEGMENT_UNLINKED);
        for name in self.disk.list(&log_directory(log))? {
            if let Some(older) = layout::index_base(&name).filter(|older| *older < base) {
                self.disk.remove(&index_path(log, older))?;
            }
        }
        self.observer.event(points::SEGMENT_REMOVED, 1);
        if self.mutant_of(log) == Some(Mutant::DirectoryNotSynced) {
            return Ok(());
        }
        // Before the next segment goes: were only the later removal durable, a gap would look like corruption.
        self.disk.sync_directory(&log_directory(log))?;
        self.observer.point(points::DIRECTORY_SYNCED);
        Ok(())
    }

    /// Removes segments and indexes that a cleaned segment stands for; what comes back after a crash goes at recovery.
    fn remove_replaced(&mut self, log: LogId, bases: &[Position]) -> io::Result<()> {
        for base in bases {
            self.files.remove((log, *base));
            for path in [segment_path(log, *base), index_path(log, *base)] {
                match self.disk.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        self.observer.point(points::COMPACTION_REMOVED);
        self.disk.sync_directory(&log_directory(log))
    }

    /// Removes a log's files, the newest first, so that what a crash leaves is a shorter log without gaps.
    fn remove_log(&mut self, log: LogId) -> io::Result<()> {
        assert!(log != LogId::METADATA, "the metadata log is never removed");
        self.files.remove_log(log);
        self.reserve.forget(log);
        self.failed.remove(&log);
        self.directories_new.remove(&log);
        let directory = log_directory(log);
        let names = match self.disk.list(&directory) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names.iter().rev() {
            self.disk.remove(&format!("{directory}/{name}"))?;
        }
        self.disk.remove(&directory)?;
        self.disk.sync_directory(LOGS)
    }
}

/// What an asynchronous effect takes along.
struct Job<D: Disk, O: Observer> {
    disk: D,
    observer: O,
    mutant: Option<Mutant>,
    opened: Vec<D::File>,
    open_error: Option<io::Error>,
    /// The directory to be synced after the log's own, which is new in it.
    parent: Option<&'static str>,
}

async fn run<D: Disk, O: Observer>(mut job: Job<D, O>, effect: DiskEffect) -> DiskEvent {
    match effect {
        DiskEffect::Sync { log, upto, directory, .. } => {
            let result = sync(&mut job, log, directory).await;
            let event = if result.is_ok() { points::SYNC } else { points::SYNC_FAILED };
            job.observer.event(event, 1);
            if result.is_ok() {
                job.observer.point(points::SYNC_COMPLETED);
            }
            DiskEvent::Synced { log, upto, result: result.map_err(|e| e.kind()) }
        }
        DiskEffect::Seal { log, segment, index } => {
            for file in &job.opened {
                // What was reserved behind the segment's end is free again; a failure costs that room and nothing else.
                let _ = job.disk.length(file).and_then(|length| job.disk.truncate(file, length));
            }
            let directory = log_directory(log);
            let directory = (job.mutant != Some(Mutant::DirectoryNotSynced)).then_some(directory.as_str());
            let result = write_file(&job.disk, directory, &index_path(log, segment), &[index]).await;
            if result.is_ok() {
                job.observer.point(points::SEGMENT_SEALED);
            }
            DiskEvent::Sealed { log, segment, result: result.map_err(|e| e.kind()) }
        }
        DiskEffect::Read { ticket, at, length, .. } => {
            job.observer.event(points::COLD_READ, 1);
            let result = match (job.open_error, job.opened.first()) {
                (None, Some(file)) => job.disk.read_cold(file, at, length).await,
                (Some(error), _) => Err(error),
                (None, None) => unreachable!("a file is opened or there is an error"),
            };
            DiskEvent::Read { ticket, result: result.map_err(|e| e.kind()) }
        }
        DiskEffect::WriteSnapshot { name, supersedes, bytes } => {
            let result = snapshot::write_snapshot(&job.disk, &name, supersedes, bytes).await;
            if result.is_ok() {
                job.observer.point(points::SNAPSHOT_WRITTEN);
            }
            DiskEvent::SnapshotWritten { name, result: result.map_err(|e| e.kind()) }
        }
        DiskEffect::Reopen { log } => {
            let recovered = recover::recover_log(&job.disk, &job.observer, log, job.mutant).await;
            DiskEvent::Reopened { log, result: recovered.map(Box::new).map_err(|e| e.kind()) }
        }
        DiskEffect::Cut { log, to } => {
            let result = cut::cut_log(&job.disk, &job.observer, log, to, job.mutant).await;
            DiskEvent::Reopened { log, result: result.map(Box::new).map_err(|e| e.kind()) }
        }
        DiskEffect::Compact { log, plan } => {
            let compaction = compact::compact(&job.disk, &job.observer, log, &plan, job.mutant).await;
            DiskEvent::Compacted { log, compaction: Box::new(compaction) }
        }
        DiskEffect::Restart { log, carrier } => {
            let result = cut::restart_log(&job.disk, &job.observer, log, carrier, job.mutant).await;
            DiskEvent::Reopened { log, result: result.map(Box::new).map_err(|e| e.kind()) }
        }
        DiskEffect::CreateSegment { .. }
        | DiskEffect::Write { .. }
        | DiskEffect::RemoveSegment { .. }
        | DiskEffect::RemoveReplaced { .. }
        | DiskEffect::RemoveLog { .. } => unreachable!("inline effects are performed by `perform`"),
    }
}

/// Syncs the files, then the directory that lists them, then the one that lists that where it is new.
async fn sync<D: Disk, O: Observer>(job: &mut Job<D, O>, log: LogId, directory: bool) -> io::Result<()> {
    if let Some(error) = job.open_error.take() {
        return Err(error);
    }
    for file in &job.opened {
        job.disk.sync_file(file).await?;
    }
    // The defect (KAFKA-3968): only a log's first segment is made durable in its directory.
    let forgets = job.mutant == Some(Mutant::DirectoryNotSynced) && job.parent.is_none();
    if directory && !forgets {
        job.disk.sync_directory(&log_directory(log))?;
        if let Some(parent) = job.parent {
            job.disk.sync_directory(parent)?;
        }
        job.observer.point(points::DIRECTORY_SYNCED);
    }
    Ok(())
}
