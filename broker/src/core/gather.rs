//! The pieces of a read, some at hand and some on their way from the disk, until all are there. Pieces that lie in one
//! another's bytes, as those of queues that share a log do, are read once.
//! Not here: who wants them (`fetch`, `list_offsets`).

use std::io;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::log::{DiskEffect, DiskPiece, ReadPiece};
use super::machine::{Core, Effects, RequestId};
use super::types::{Now, Ticket};

/// A cold read under way.
#[derive(Debug)]
pub(super) struct ColdRead {
    /// Where in the segment's file it begins, in bytes.
    at: u64,
    targets: Vec<ReadTarget>,
}

/// Who wants a piece of a cold read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadTarget {
    pub(super) owner: ReadOwner,
    pub(super) id: RequestId,
    /// Which of the request's partitions, counted over all topics.
    pub(super) slot: usize,
    /// Which piece of the partition's read.
    pub(super) piece: usize,
    pub(super) disk: DiskPiece,
}

/// The call that wants a cold read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOwner {
    Fetch,
    ListOffsets,
    /// A group coordinator that is being loaded.
    GroupLoad,
}

/// The pieces of one partition's read, in order.
#[derive(Debug, Default)]
pub(super) struct Gather {
    pieces: Vec<Piece>,
    outstanding: usize,
    failed: bool,
}

#[derive(Debug)]
enum Piece {
    Cached(Bytes),
    Read(Vec<Bytes>),
    Awaited,
}

impl Gather {
    pub(super) fn is_complete(&self) -> bool {
        self.outstanding == 0
    }

    /// All parts in order, or KAFKA_STORAGE_ERROR where a piece could not be read.
    pub(super) fn into_parts(self) -> Result<Vec<Bytes>, ResponseError> {
        assert!(self.outstanding == 0, "a gather is taken when it is complete");
        if self.failed {
            return Err(ResponseError::KafkaStorageError);
        }
        let mut parts = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces {
            match piece {
                Piece::Cached(bytes) => parts.push(bytes),
                Piece::Read(bytes) => parts.extend(bytes),
                Piece::Awaited => unreachable!("nothing is outstanding"),
            }
        }
        Ok(parts)
    }

    /// All bytes in order, joined.
    pub(super) fn into_bytes(self) -> Result<Bytes, ResponseError> {
        let mut parts = self.into_parts()?;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Bytes::from(parts.concat()) })
    }

    fn put(&mut self, piece: usize, bytes: Option<Vec<Bytes>>) {
        self.outstanding -= 1;
        match bytes {
            Some(bytes) => self.pieces[piece] = Piece::Read(bytes),
            None => (self.pieces[piece], self.failed) = (Piece::Read(Vec::new()), true),
        }
    }
}

impl Core {
    /// Starts the cold reads among the pieces.
    pub(super) fn gather(
        &mut self,
        owner: ReadOwner,
        id: RequestId,
        slot: usize,
        pieces: Vec<ReadPiece>,
        effects: &mut Effects,
    ) -> Gather {
        let mut gather = Gather::default();
        for (piece, read) in pieces.into_iter().enumerate() {
            match read {
                ReadPiece::Cached(bytes) => gather.pieces.push(Piece::Cached(bytes)),
                ReadPiece::OnDisk(disk) => {
                    self.begin_read(ReadTarget { owner, id, slot, piece, disk }, effects);
                    gather.pieces.push(Piece::Awaited);
                    gather.outstanding += 1;
                }
            }
        }
        gather
    }

    /// Asks for a piece: with a read that this turn began, where most of the piece is in it.
    fn begin_read(&mut self, target: ReadTarget, effects: &mut Effects) {
        let DiskPiece { log, segment, at, length, .. } = target.disk;
        for effect in effects.disk.iter_mut().rev().take(JOIN_LOOKS_MAX) {
            let DiskEffect::Read { ticket, log: of, segment: within, at: begin, length: bytes } = effect else {
                continue;
            };
            if (*of, *within) != (log, segment) {
                continue;
            }
            // Others read too: replicas.
            let Some(read) = self.reads.get_mut(&*ticket) else { continue };
            if let Some((joined_at, joined_bytes)) = joined((*begin, *bytes), (at, length)) {
                (*begin, *bytes) = (joined_at, joined_bytes);
                read.at = joined_at;
                read.targets.push(target);
                return;
            }
        }
        let ticket = self.next_ticket();
        self.reads.insert(ticket, ColdRead { at, targets: vec![target] });
        effects.disk.push(DiskEffect::Read { ticket, log, segment, at, length });
    }

    /// Takes what a cold read brought to those whom it belongs to.
    pub(super) fn on_read(
        &mut self,
        ticket: Ticket,
        result: Result<Bytes, io::ErrorKind>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(read) = self.reads.remove(&ticket) else {
            self.on_copy_read(ticket, &result, effects);
            return;
        };
        for target in read.targets {
            let piece = result.as_ref().ok().map(|bytes| {
                let begin = ((target.disk.at - read.at) as usize).min(bytes.len());
                bytes.slice(begin..(begin + target.disk.length).min(bytes.len()))
            });
            let held_bytes = result.as_ref().map_or(0, Bytes::len);
            self.on_piece_read(target, piece, held_bytes, now, effects);
        }
    }

    /// Takes a piece to whom it belongs; `held_bytes` stay in memory for as long as any of it.
    fn on_piece_read(
        &mut self,
        target: ReadTarget,
        bytes: Option<Bytes>,
        held_bytes: usize,
        now: Now,
        effects: &mut Effects,
    ) {
        let log = self.logs.get_mut(&target.disk.log);
        // A piece that is gone or corrupt answers as a storage error, which clients retry; the next look is exact.
        let checked = log.zip(bytes).and_then(|(log, bytes)| log.check_read(&target.disk, &bytes, held_bytes).ok());
        let gather = match target.owner {
            ReadOwner::Fetch => self.fetches.gather_of(target.id, target.slot),
            ReadOwner::ListOffsets => self.lookups.gather_of(target.id, target.slot),
            ReadOwner::GroupLoad => self.groups.gather_of(target.id, target.slot),
        };
        // The connection may have closed meanwhile.
        let Some(gather) = gather else { return };
        gather.put(target.piece, checked);
        if gather.is_complete() {
            match target.owner {
                ReadOwner::Fetch => self.on_fetch_gathered(target.id, effects),
                ReadOwner::ListOffsets => self.on_lookup_gathered(target.id, target.slot, effects),
                ReadOwner::GroupLoad => self.on_load_gathered(target.id, now, effects),
            }
        }
    }
}

/// A read that is made longer so that it brings a piece too: at least half of it is in the read, and it stays short.
fn joined((read_at, read_bytes): (u64, usize), (at, bytes): (u64, usize)) -> Option<(u64, usize)> {
    let (read_end, end) = (read_at + read_bytes as u64, at + bytes as u64);
    let common = read_end.min(end).saturating_sub(read_at.max(at));
    let (joined_at, joined_bytes) = (read_at.min(at), (read_end.max(end) - read_at.min(at)) as usize);
    let is_short = joined_bytes <= JOINED_BYTES_MAX || joined_bytes == read_bytes;
    (2 * common >= bytes as u64 && is_short).then_some((joined_at, joined_bytes))
}

/// The longest read that others are joined to, in bytes.
const JOINED_BYTES_MAX: usize = 1 << 20;
/// How many of a turn's newest effects are looked at.
const JOIN_LOOKS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_lie_mostly_in_a_read_are_read_with_it() {
        let read = (1000, 500);
        let cases = [
            ((1000, 500), Some((1000, 500))),
            ((1100, 200), Some((1000, 500))),
            ((1200, 600), Some((1000, 800))),
            ((900, 200), Some((900, 600))),
            ((1201, 600), None),
            ((1500, 10), None),
            ((0, 10), None),
            ((1400, 2 * JOINED_BYTES_MAX), None),
        ];
        for (piece, expected) in cases {
            assert_eq!(joined(read, piece), expected, "{piece:?}");
        }
        let long = (0, 2 * JOINED_BYTES_MAX);
        assert_eq!(joined(long, (5, 10)), Some(long), "what is read anyway may be long");
        assert_eq!(joined((5, JOINED_BYTES_MAX), (3, JOINED_BYTES_MAX)), None);
    }
}
