//! The newest frames in memory, so that readers at the tail need no disk. Bytes are shared, never copied.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::FRAME_BYTES;
use crate::core::types::Position;

/// What a batch costs beside its bytes: its place in the list, its allocations and its frame.
const OVERHEAD_BYTES: usize = 192;

/// Frames by position, oldest dropped first.
#[derive(Debug)]
pub(crate) struct TailCache {
    frames: VecDeque<CachedFrame>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct CachedFrame {
    position: Position,
    /// The frame and the batch's first 21 bytes at least, as stored.
    head: Bytes,
    /// The rest of the batch; nothing for a mark, perhaps nothing for a batch.
    body: Bytes,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> TailCache {
        TailCache { frames: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds the newest frame, which stands at `position`.
    pub(crate) fn push(&mut self, position: Position, head: Bytes, body: Bytes) {
        self.bytes += head.len() + body.len() + OVERHEAD_BYTES;
        self.frames.push_back(CachedFrame { position, head, body });
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.frames.pop_front() else { break };
            self.bytes -= oldest.head.len() + oldest.body.len() + OVERHEAD_BYTES;
        }
    }

    /// The batch whose frame stands at `position`, in two parts.
    pub(crate) fn find(&self, position: Position) -> Option<(Bytes, Bytes)> {
        let index = self.frames.binary_search_by_key(&position, |f| f.position).ok()?;
        let found = &self.frames[index];
        Some((found.head.slice(FRAME_BYTES..), found.body.clone()))
    }

    /// The frames from `position` on, each in two parts; nothing where none stands there.
    pub(crate) fn frames_from(&self, position: Position) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let begin = self.frames.binary_search_by_key(&position, |f| f.position).unwrap_or(self.frames.len());
        self.frames.range(begin..).map(|frame| (&frame.head, &frame.body))
    }

    /// Forgets the frames below a position.
    pub(crate) fn drop_below(&mut self, position: Position) {
        let gone = self.frames.partition_point(|frame| frame.position < position);
        self.bytes -= self.frames.drain(..gone).map(|f| f.head.len() + f.body.len() + OVERHEAD_BYTES).sum::<usize>();
    }

    /// Position of the newest frame.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.frames.back().map(|frame| frame.position)
    }

    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }
}
