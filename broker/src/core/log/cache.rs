//! The newest frames in memory, so that readers at the tail need no disk. Bytes are shared, never copied.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::core::types::Position;

/// What a batch costs beside its bytes: its place in the list, its allocations and its frame.
const OVERHEAD_BYTES: usize = 192;

/// Frames by position, oldest dropped first.
#[derive(Debug)]
pub(crate) struct TailCache {
    frames: VecDeque<CachedBatch>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct CachedBatch {
    position: Position,
    /// The batch's first 21 bytes at least, as stored.
    uncovered: Bytes,
    /// The rest of the batch, perhaps nothing.
    body: Bytes,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> TailCache {
        TailCache { frames: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the newest batch, whose frame stands at `position`.
    pub(crate) fn push(&mut self, position: Position, uncovered: Bytes, body: Bytes) {
        self.bytes += uncovered.len() + body.len() + OVERHEAD_BYTES;
        self.frames.push_back(CachedBatch { position, uncovered, body });
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.uncovered.len() + oldest.body.len() + OVERHEAD_BYTES;
        }
    }

    /// The batch whose frame stands at `position`, in two parts.
    pub(crate) fn find(&self, position: Position) -> Option<(Bytes, Bytes)> {
        let index = self.frames.binary_search_by_key(&position, |f| f.position).ok()?;
        let found = &self.frames[index];
        Some((found.uncovered.clone(), found.body.clone()))
    }

    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }
}
