//! The 40-byte frame before each batch: its writer and its checker. Bytes are in `docs/log-format.md`.
//! Not here: what a bad frame means; that is `replay`.

use bytes::BytesMut;

use crate::core::batch::{BatchHeader, HEADER_BYTES, UNCOVERED_BYTES, crc32c};
use crate::core::types::{LeaderEpoch, Position, QueueId};

/// Bytes of a frame.
pub(crate) const FRAME_BYTES: usize = 40;
/// Bytes that must be at hand before a frame can be checked, if there are so many.
pub(crate) const CHECK_BYTES: usize = FRAME_BYTES + HEADER_BYTES;
/// The first bytes of every frame.
pub(crate) const MAGIC: [u8; 2] = *b"MQ";
const VERSION: u8 = 2;
const MARK_QUEUE: QueueId = QueueId(u64::MAX);

/// What stands behind a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// A batch.
    Batch,
    /// Nothing; the frame only names a synced position.
    Mark,
    /// A batch that compaction kept: before and behind it offsets may be missing.
    Cleaned,
}

/// A frame, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    /// Bytes of the batch; 0 for a mark.
    pub(crate) length: u32,
    pub(crate) position: Position,
    pub(crate) queue: QueueId,
    /// Everything below was durable when the frame was written.
    pub(crate) synced: Position,
    /// Epoch of the leader that wrote the frame first.
    pub(crate) epoch: LeaderEpoch,
}

/// What bytes that should be a frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameCheck {
    /// An intact frame and batch.
    Batch(Frame, BatchHeader),
    /// An intact mark.
    Mark(Frame),
    /// An intact frame whose batch is not.
    BadBatch(Frame),
    /// More bytes are needed to tell, this many in all.
    Short(usize),
    /// No frame.
    Bad,
}

impl Frame {
    /// A mark.
    pub(crate) fn mark(position: Position, synced: Position, epoch: LeaderEpoch) -> Frame {
        Frame { kind: FrameKind::Mark, length: 0, position, queue: MARK_QUEUE, synced, epoch }
    }

    /// Bytes of the frame and its batch.
    pub(crate) fn total_bytes(&self) -> u64 {
        FRAME_BYTES as u64 + u64::from(self.length)
    }

    /// The frame's bytes; `uncovered` are the batch's first 21 bytes, empty for a mark.
    pub(crate) fn encode(&self, uncovered: &[u8]) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        bytes[0..2].copy_from_slice(&MAGIC);
        bytes[2] = VERSION;
        bytes[3] = match self.kind {
            FrameKind::Batch => 0,
            FrameKind::Mark => 1,
            FrameKind::Cleaned => 2,
        };
        bytes[4..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.position.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.queue.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.synced.0.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.epoch.0.to_be_bytes());
        let crc = crc32c(&[&bytes[..36], uncovered]);
        bytes[36..40].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// The frame at the start of bytes that an intact log gave, with its synced position and checksum as this replica has
/// them; `covered` are the frame and the batch's first 21 bytes.
pub(crate) fn with_synced(covered: &[u8], synced: Position) -> BytesMut {
    let mut head = BytesMut::from(covered);
    head[24..32].copy_from_slice(&synced.0.to_be_bytes());
    let crc = crc32c(&[&head[..36], &head[FRAME_BYTES..]]);
    head[36..40].copy_from_slice(&crc.to_be_bytes());
    head
}

/// Whether the bytes begin as the frame of this position would; a cheap test for searching.
pub(crate) fn looks_like_frame(bytes: &[u8], position: Position) -> bool {
    bytes.len() >= FRAME_BYTES && bytes[..2] == MAGIC && bytes[8..16] == position.0.to_be_bytes()
}

/// How long the frame and its batch say that they are, if the bytes begin as the frame of this position would; nothing
/// has been checked.
pub(crate) fn claimed_bytes(bytes: &[u8], position: Position) -> Option<u64> {
    let length = bytes.get(4..8)?.try_into().ok().map(u32::from_be_bytes)?;
    looks_like_frame(bytes, position).then_some(FRAME_BYTES as u64 + u64::from(length))
}

/// Checks the frame at the start of `bytes`, which should stand at `position`, and its batch.
/// Without `verify` no checksum is looked at (the S6 mutant).
pub(crate) fn check_frame(bytes: &[u8], position: Position, verify: bool) -> FrameCheck {
    if bytes.len() < FRAME_BYTES {
        return FrameCheck::Short(FRAME_BYTES);
    }
    let Some(frame) = decode(bytes, position) else {
        return FrameCheck::Bad;
    };
    if frame.kind == FrameKind::Mark {
        let intact = !verify || crc_field(bytes) == crc32c(&[&bytes[..36]]);
        return if intact { FrameCheck::Mark(frame) } else { FrameCheck::Bad };
    }
    if bytes.len() < CHECK_BYTES {
        return FrameCheck::Short(CHECK_BYTES);
    }
    let batch = &bytes[FRAME_BYTES..];
    if verify && crc_field(bytes) != crc32c(&[&bytes[..36], &batch[..UNCOVERED_BYTES]]) {
        return FrameCheck::Bad;
    }
    let needed = FRAME_BYTES + frame.length as usize;
    if bytes.len() < needed {
        return FrameCheck::Short(needed);
    }
    let batch = &batch[..frame.length as usize];
    match BatchHeader::decode(batch) {
        Some(header) if !verify => FrameCheck::Batch(frame, header),
        Some(header) if header.batch_bytes() == batch.len() && header.crc == crc32c(&[&batch[UNCOVERED_BYTES..]]) => {
            FrameCheck::Batch(frame, header)
        }
        Some(_) | None => FrameCheck::BadBatch(frame),
    }
}

fn crc_field(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[36], bytes[37], bytes[38], bytes[39]])
}

fn decode(bytes: &[u8], position: Position) -> Option<Frame> {
    if !looks_like_frame(bytes, position) || bytes[2] != VERSION {
        return None;
    }
    let u64_at = |at: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(field)
    };
    let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (kind, length, queue) = (bytes[3], u32_at(4), QueueId(u64_at(16)));
    let kind = match kind {
        0 if length as usize >= HEADER_BYTES && queue != MARK_QUEUE => FrameKind::Batch,
        1 if length == 0 && queue == MARK_QUEUE => FrameKind::Mark,
        2 if length as usize >= HEADER_BYTES && queue != MARK_QUEUE => FrameKind::Cleaned,
        _ => return None,
    };
    Some(Frame { kind, length, position, queue, synced: Position(u64_at(24)), epoch: LeaderEpoch(u32_at(32) as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::batch::Batch;
    use crate::core::types::Offset;
    use bytes::Bytes;

    fn framed() -> Vec<u8> {
        let batch = Batch::of_values(&[Bytes::from_static(b"one"), Bytes::from_static(b"two")], 17);
        let uncovered = batch.uncovered(Offset(5), LeaderEpoch(2));
        let frame = Frame {
            kind: FrameKind::Batch,
            length: batch.bytes.len() as u32,
            position: Position(1000),
            queue: QueueId(7),
            synced: Position(900),
            epoch: LeaderEpoch(3),
        };
        [&frame.encode(&uncovered)[..], &uncovered, &batch.bytes[UNCOVERED_BYTES..]].concat()
    }

    #[test]
    fn a_frame_reads_back_as_written() {
        let bytes = framed();
        let FrameCheck::Batch(frame, header) = check_frame(&bytes, Position(1000), true) else { panic!("not a batch") };
        assert_eq!((frame.queue, frame.synced, frame.epoch), (QueueId(7), Position(900), LeaderEpoch(3)));
        assert_eq!((header.base_offset, header.leader_epoch, header.record_count), (Offset(5), LeaderEpoch(2), 2));
        assert_eq!(frame.total_bytes(), bytes.len() as u64);
        assert_eq!(check_frame(&bytes, Position(1001), true), FrameCheck::Bad);
        let mark = Frame::mark(Position(8), Position(8), LeaderEpoch(1));
        assert_eq!(check_frame(&mark.encode(&[]), Position(8), true), FrameCheck::Mark(mark));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unseen() {
        let bytes = framed();
        for at in 0..bytes.len() {
            let check = check_frame(&bytes[..at], Position(1000), true);
            assert!(matches!(check, FrameCheck::Short(needed) if needed > at), "cut at {at}: {check:?}");
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let check = check_frame(&bytes, Position(1000), true);
                assert!(!matches!(check, FrameCheck::Batch(..) | FrameCheck::Mark(_)), "byte {at} bit {bit}");
            }
        }
    }
}
