//! The pieces of a read, some at hand and some on their way from the disk, until all are there.
//! Not here: who wants them (`fetch`, `list_offsets`).

use std::io;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::log::{DiskEffect, DiskPiece, ReadPiece};
use super::machine::{Core, Effects, RequestId};
use super::types::{Now, Ticket};

/// Who wants a cold read.
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
                    let ticket = self.next_ticket();
                    self.reads.insert(ticket, ReadTarget { owner, id, slot, piece, disk });
                    let DiskPiece { log, segment, at, length, .. } = disk;
                    effects.disk.push(DiskEffect::Read { ticket, log, segment, at, length });
                    gather.pieces.push(Piece::Awaited);
                    gather.outstanding += 1;
                }
            }
        }
        gather
    }

    /// Takes what a cold read brought to whom it belongs.
    pub(super) fn on_read(
        &mut self,
        ticket: Ticket,
        result: Result<Bytes, io::ErrorKind>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(target) = self.reads.remove(&ticket) else {
            self.on_copy_read(ticket, &result, effects);
            return;
        };
        let log = self.logs.get_mut(&target.disk.log);
        // A piece that is gone or corrupt answers as a storage error, which clients retry; the next look is exact.
        let checked = match (log, result) {
            (Some(log), Ok(bytes)) => log.check_read(&target.disk, &bytes).ok(),
            (None, _) | (_, Err(_)) => None,
        };
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
