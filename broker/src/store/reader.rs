//! Walks the frames of a segment's file through a window in memory. Not here: what a bad frame means (`recover`).

use std::io;

use bytes::Bytes;

use crate::core::batch::BatchHeader;
use crate::core::log::frame::{CHECK_BYTES, FRAME_BYTES, Frame, FrameCheck, check_frame, looks_like_frame};
use crate::core::types::Position;
use crate::ports::Disk;

/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// A segment's file, read front to back.
pub(super) struct SegmentReader<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    base: Position,
    length: u64,
    verify: bool,
    window: Bytes,
    window_at: u64,
}

/// What stands at a place of the file.
pub(super) enum Found {
    /// An intact frame and batch.
    Batch(Frame, BatchHeader),
    /// An intact mark.
    Mark(Frame),
    /// An intact frame whose batch is not, but lies within the file.
    BadBatch(Frame),
    /// Nothing to go by.
    Bad,
}

impl<'a, D: Disk> SegmentReader<'a, D> {
    pub(super) fn new(disk: &'a D, file: D::File, base: Position, length: u64, verify: bool) -> Self {
        SegmentReader { disk, file, base, length, verify, window: Bytes::new(), window_at: 0 }
    }

    /// What stands at byte `at`.
    pub(super) fn check(&mut self, at: u64) -> io::Result<Found> {
        let mut needed = CHECK_BYTES;
        loop {
            let position = self.base.plus(at);
            let verify = self.verify;
            let bytes = self.bytes(at, needed)?;
            let left = bytes.len();
            match check_frame(bytes, position, verify) {
                FrameCheck::Batch(frame, header) => return Ok(Found::Batch(frame, header)),
                FrameCheck::Mark(frame) => return Ok(Found::Mark(frame)),
                FrameCheck::BadBatch(frame) => return Ok(Found::BadBatch(frame)),
                FrameCheck::Bad => return Ok(Found::Bad),
                FrameCheck::Short(more) => {
                    if more <= needed && left < more || at + more as u64 > self.length {
                        return Ok(Found::Bad);
                    }
                    needed = more;
                }
            }
        }
    }

    /// The first byte at or past `from` where an intact frame begins.
    pub(super) fn find(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + FRAME_BYTES as u64 <= self.length {
            let position = self.base.plus(at);
            if looks_like_frame(self.bytes(at, FRAME_BYTES)?, position) {
                match self.check(at)? {
                    Found::Batch(..) | Found::Mark(_) | Found::BadBatch(_) => return Ok(Some(at)),
                    Found::Bad => {}
                }
            }
            at += 1;
        }
        Ok(None)
    }

    /// At least `needed` bytes from `at`, or all that the file has.
    fn bytes(&mut self, at: u64, needed: usize) -> io::Result<&[u8]> {
        let needed = needed.min((self.length.saturating_sub(at)) as usize);
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + needed as u64 > window_end {
            let length = needed.max(WINDOW_BYTES).min((self.length - at) as usize);
            self.window = self.disk.read_at(&self.file, at, length)?;
            self.window_at = at;
        }
        Ok(&self.window[((at - self.window_at) as usize).min(self.window.len())..])
    }
}
