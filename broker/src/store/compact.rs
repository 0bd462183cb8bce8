//! Compaction's files: reads old segments beside the node, writes one in the place of several, and swaps them so that a
//! crash at any moment leaves the old ones or the new one. Not here: what is kept (`core::log::cleaner`) and when
//! (`core::log::compaction`). The order of the swap, on which recovery leans, is in `docs/log-format.md`.

use std::io;

use bytes::Bytes;

use super::layout::{TEMPORARY, index_path, log_directory, segment_path};
use super::{OpenError, at_path, read_file, write_file};
use crate::core::batch::{BatchError, BatchHeader};
use crate::core::log::cleaner::{CleanedFrames, Cleaner, Kept};
use crate::core::log::frame::{CHECK_BYTES, FRAME_BYTES, Frame, FrameCheck, check_frame};
use crate::core::log::index::{IndexHead, IndexWriter, QueueState, decode_index};
use crate::core::log::{CleanedRange, CleanedSegment, Compaction, CompactionPlan, PlannedSegment};
use crate::core::types::{LogId, Position};
use crate::mutant::Mutant;
use crate::points;
use crate::ports::{Disk, Observer};

/// Bytes read, and written, at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// Performs a pass. What is in place is told also where the pass ended early.
pub(super) async fn compact<D: Disk, O: Observer>(
    disk: &D,
    observer: &O,
    log: LogId,
    plan: &CompactionPlan,
    mutant: Option<Mutant>,
) -> Compaction {
    let mut pass = Pass { disk, observer, log, plan, cleaner: Cleaner::new(plan, mutant), is_short: false };
    let mut cleaned = Vec::new();
    let result = pass.run(&mut cleaned).await;
    let is_complete = result.is_ok() && !pass.is_short && !pass.cleaner.has_apart();
    if let Err(error) = &result {
        tracing::warn!(%log, %error, "a pass of compaction ended early; the next one begins anew");
    }
    let error = result.err().map(|error| error.kind());
    observer.event(points::COMPACTION, 1);
    Compaction { cleaned, covered_below: pass.cleaner.covered_below(), is_complete, error }
}

struct Pass<'a, D: Disk, O: Observer> {
    disk: &'a D,
    observer: &'a O,
    log: LogId,
    plan: &'a CompactionPlan,
    cleaner: Cleaner,
    /// A group did not fit into its own place, and stays as it is.
    is_short: bool,
}

impl<D: Disk, O: Observer> Pass<'_, D, O> {
    async fn run(&mut self, cleaned: &mut Vec<CleanedSegment>) -> Result<(), OpenError> {
        'notes: for segment in self.plan.segments.iter().filter(|segment| segment.is_dirty) {
            let mut frames = self.open(segment)?;
            while let Some((_, header, batch)) = frames.next(self.disk).await? {
                if !self.cleaner.note(&header, &batch).map_err(|error| frames.unreadable(error))? {
                    break 'notes;
                }
            }
        }
        for group in self.plan.groups() {
            cleaned.extend(self.clean(group).await?);
        }
        Ok(())
    }

    /// Puts one segment in the place of a group, where that frees anything.
    async fn clean(&mut self, group: &[PlannedSegment]) -> Result<Option<CleanedSegment>, OpenError> {
        let (first, last) = (group[0], group[group.len() - 1]);
        let range = CleanedRange {
            from: first.range.from,
            to: last.range.to,
            generation: 1 + group.iter().map(|segment| segment.range.generation).max().unwrap_or(0),
        };
        // No segment begins there: the shortest frame is longer than one byte.
        let base = first.base.plus(1);
        let temporary = format!("{}{TEMPORARY}", segment_path(self.log, base));
        let file = self.disk.open(&temporary, true).map_err(at_path("creating", &temporary))?;
        self.disk.truncate(&file, 0).map_err(at_path("emptying", &temporary))?;
        let mut frames = CleanedFrames::new(base, range.to, self.plan.queue);
        let is_worth = self.write_kept(group, &file, &temporary, &mut frames).await?;
        if !is_worth {
            self.disk.remove(&temporary).map_err(at_path("removing", &temporary))?;
            return Ok(None);
        }
        self.disk.sync_file(&file).await.map_err(at_path("syncing", &temporary))?;
        self.observer.point(points::COMPACTION_WRITTEN);
        self.swap(base, range, last.base, &temporary, &frames).await?;
        let CleanedFrames { max_timestamp, .. } = frames;
        let length = frames.length();
        let (entries, epochs) = (frames.entries, frames.epochs);
        Ok(Some(CleanedSegment { base, length, range, max_timestamp, entries, epochs }))
    }

    /// Writes what is kept of a group; false where that is everything, or does not fit.
    async fn write_kept(
        &mut self,
        group: &[PlannedSegment],
        file: &D::File,
        path: &str,
        kept: &mut CleanedFrames,
    ) -> Result<bool, OpenError> {
        let mut is_changed = group.len() > 1;
        for segment in group {
            let mut frames = self.open(segment)?;
            while let Some((frame, header, batch)) = frames.next(self.disk).await? {
                let fits = match self.cleaner.keep(&header, &batch).map_err(|error| frames.unreadable(error))? {
                    Kept::Whole => kept.push(&batch, frame.epoch),
                    Kept::Part(batch) => {
                        is_changed = true;
                        kept.push(&batch, frame.epoch)
                    }
                    Kept::Nothing => {
                        is_changed = true;
                        true
                    }
                };
                if !fits {
                    // Nothing was to go, or, with a codec that does worse on fewer records, too little.
                    self.is_short |= is_changed && group.len() == 1;
                    return Ok(false);
                }
                if let Some((at, bytes)) = kept.take(WINDOW_BYTES) {
                    self.disk.write_at(file, at, &[bytes]).map_err(at_path("writing", path))?;
                }
            }
        }
        if let Some((at, bytes)) = kept.take(1) {
            self.disk.write_at(file, at, &[bytes]).map_err(at_path("writing", path))?;
        }
        Ok(is_changed)
    }

    /// First the index, which makes no difference alone; then, by one name, the segment counts.
    async fn swap(
        &self,
        base: Position,
        range: CleanedRange,
        last: Position,
        temporary: &str,
        frames: &CleanedFrames,
    ) -> Result<(), OpenError> {
        let directory = log_directory(self.log);
        let old_path = index_path(self.log, last);
        let old = decode_index(&read_file(self.disk, &old_path)?);
        let (old_head, queues) = old.ok_or_else(|| at_path("reading", &old_path)(io::ErrorKind::InvalidData.into()))?;
        let mut writer = IndexWriter::new(IndexHead {
            base,
            end: base.plus(frames.length()),
            max_timestamp: frames.max_timestamp,
            epochs: frames.epochs.clone(),
            unlisted_fenced: old_head.unlisted_fenced,
            cleaned: Some(range),
            horizons: self.plan.horizons.clone(),
        });
        for queue in &queues {
            let (next_offset, log_start, fenced) = (queue.next_offset, queue.log_start, queue.fenced);
            let state = QueueState { next_offset, log_start, fenced, producers: &queue.producers };
            let is_ours = queue.queue == self.plan.queue;
            writer.queue(queue.queue, state, frames.entries.iter().copied().filter(|_| is_ours));
        }
        write_file(self.disk, Some(&directory), &index_path(self.log, base), &[writer.finish()]).await?;
        self.observer.point(points::COMPACTION_INDEXED);
        self.disk.rename(temporary, &segment_path(self.log, base)).map_err(at_path("renaming", temporary))?;
        self.observer.point(points::COMPACTION_SWAPPED);
        self.disk.sync_directory(&directory).map_err(at_path("syncing", &directory))
    }

    fn open(&self, segment: &PlannedSegment) -> Result<Frames<D>, OpenError> {
        let path = segment_path(self.log, segment.base);
        let file = self.disk.open(&path, false).map_err(at_path("opening", &path))?;
        Ok(Frames { file, path, base: segment.base, length: segment.length, at: 0, window: Bytes::new(), window_at: 0 })
    }
}

/// The batches of a segment that is whole and durable, in order.
struct Frames<D: Disk> {
    file: D::File,
    path: String,
    base: Position,
    length: u64,
    at: u64,
    window: Bytes,
    window_at: u64,
}

impl<D: Disk> Frames<D> {
    async fn next(&mut self, disk: &D) -> Result<Option<(Frame, BatchHeader, Bytes)>, OpenError> {
        let mut needed = CHECK_BYTES;
        while self.at < self.length {
            let skipped = (self.at - self.window_at) as usize;
            let held = self.window.slice(skipped.min(self.window.len())..);
            let wanted = needed.min((self.length - self.at) as usize);
            if held.len() < wanted {
                let length = wanted.max(WINDOW_BYTES).min((self.length - self.at) as usize);
                let read = disk.read_cold(&self.file, self.at, length).await;
                self.window = read.map_err(at_path("reading", &self.path))?;
                self.window_at = self.at;
                if self.window.len() < wanted {
                    return Err(self.corrupt());
                }
                continue;
            }
            match check_frame(&held, self.base.plus(self.at), true) {
                FrameCheck::Batch(frame, header) => {
                    self.at += frame.total_bytes();
                    let batch = held.slice(FRAME_BYTES..FRAME_BYTES + frame.length as usize);
                    return Ok(Some((frame, header, batch)));
                }
                FrameCheck::Mark(frame) => {
                    self.at += frame.total_bytes();
                    needed = CHECK_BYTES;
                }
                FrameCheck::Short(more) if more > wanted && self.at + more as u64 <= self.length => needed = more,
                FrameCheck::Short(_) | FrameCheck::BadBatch(_) | FrameCheck::Bad => return Err(self.corrupt()),
            }
        }
        Ok(None)
    }

    fn corrupt(&self) -> OpenError {
        at_path("reading", &self.path)(io::ErrorKind::InvalidData.into())
    }

    fn unreadable(&self, error: BatchError) -> OpenError {
        at_path("reading", &self.path)(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
