//! Index entries and the immutable index file of a sealed segment; its bytes are in `docs/log-format.md`.

use crate::core::types::{Offset, Position};

/// One batch of a queue: 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Position of its frame.
    pub position: Position,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Its largest timestamp, in milliseconds; -1 is none.
    pub max_timestamp: i64,
    /// Offset of its last record, relative to the first.
    pub last_offset_delta: u32,
    /// Bytes of the batch, its frame left out.
    pub size: u32,
}
