//! One file's contents: what reads see (volatile) and what a power loss leaves (durable), in 512-byte sectors.
//! Only sectors that differ from the durable state are remembered, so cost follows what is unsynced, once.
//! Not here: names, errors, time. Start at `write`, then `snapshot` and `commit`, then `power_loss`.

use std::collections::BTreeMap;

use super::sparse::Sparse;
use crate::plan::draws::draw_at;

/// Size of the unit that a power loss keeps or drops, in bytes.
pub const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

/// A file's contents.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    volatile: Sparse,
    durable_length: u64,
    /// Sectors whose durable content may differ from the volatile; every other sector is the same in both.
    dirty: BTreeMap<u64, DirtySector>,
    /// Count of changes; orders writes against syncs.
    changes: u64,
    /// The newest change count that a completed sync has covered.
    committed: u64,
    /// Lengths that were set as a whole, without a write, and that no sync has covered.
    jumps: Vec<Jump>,
}

#[derive(Debug)]
struct Jump {
    from: u64,
    to: u64,
    /// Its change count.
    changed: u64,
}

#[derive(Debug)]
struct DirtySector {
    /// The durable content; `None` means zeros.
    durable: Option<Box<Sector>>,
    /// Change count of the last write.
    written: u64,
    /// Change count of the snapshot that `durable` came from.
    synced: u64,
    /// A sync of it failed: the page is clean, so no later sync covers it, and a power loss brings the old content.
    is_lost: bool,
}

/// What a sync covers: the dirty sectors at the moment of its call.
#[derive(Debug)]
pub(crate) struct Snapshot {
    sectors: Vec<(u64, Box<Sector>)>,
    length: u64,
    changes: u64,
}

impl Contents {
    pub(crate) fn length(&self) -> u64 {
        self.volatile.length()
    }

    pub(crate) fn durable_length(&self) -> u64 {
        self.durable_length
    }

    /// Bytes that take room: not those of holes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.volatile.held_bytes()
    }

    pub(crate) fn dirty_sectors(&self) -> usize {
        self.dirty.len()
    }

    /// The bytes at `offset`, fewer where the file ends before.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let there = self.length().saturating_sub(offset).min(length as u64);
        let mut bytes = vec![0; there as usize];
        self.volatile.read_into(offset, &mut bytes);
        bytes
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.changes += 1;
        self.mark_dirty(offset, offset + bytes.len() as u64);
        self.volatile.write(offset, bytes);
    }

    pub(crate) fn set_length(&mut self, length: u64) {
        self.changes += 1;
        if length < self.length() {
            self.mark_dirty(length, self.length());
        } else if length > self.length() {
            self.jumps.push(Jump { from: self.length(), to: length, changed: self.changes });
        }
        self.volatile.set_length(length);
    }

    /// Lengths that were set as a whole are durable; what is written behind the old end is not.
    pub(crate) fn commit_jumps(&mut self) {
        let longest = self.jumps.drain(..).map(|jump| jump.to).max().unwrap_or_default();
        self.durable_length = self.durable_length.max(longest.min(self.volatile.length()));
    }

    /// What a sync that is called now will cover.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let unsynced = self.dirty.iter().filter(|(_, dirty)| !dirty.is_lost);
        let sectors = unsynced.map(|(index, _)| (*index, Box::new(self.sector(*index)))).collect();
        Snapshot { sectors, length: self.length(), changes: self.changes }
    }

    /// The sync has succeeded.
    pub(crate) fn commit(&mut self, snapshot: Snapshot) {
        for (index, content) in snapshot.sectors {
            let Some(dirty) = self.dirty.get_mut(&index) else { continue };
            if dirty.synced > snapshot.changes {
                continue;
            }
            if dirty.written <= snapshot.changes {
                self.dirty.remove(&index);
            } else {
                dirty.durable = Some(content);
                dirty.synced = snapshot.changes;
            }
        }
        self.jumps.retain(|jump| jump.changed > snapshot.changes);
        if snapshot.changes >= self.committed {
            self.committed = snapshot.changes;
            self.durable_length = snapshot.length;
        }
    }

    /// The sync has failed: pages not written since are clean, show the new bytes, and are not durable.
    pub(crate) fn fail(&mut self, snapshot: &Snapshot) {
        for (index, _) in &snapshot.sectors {
            if let Some(dirty) = self.dirty.get_mut(index) {
                dirty.is_lost |= dirty.written <= snapshot.changes;
            }
        }
    }

    /// The power is lost: each unsynced sector is its old durable content or the new, by the salt and independently,
    /// and the length is any between the durable and the volatile. Where lengths that were set as a whole are kept or
    /// dropped as a whole, none of them is cut. Returns how many volatile bytes are gone.
    pub(crate) fn power_loss(&mut self, salt: u64, file: u64, jumps_are_whole: bool) -> u64 {
        let volatile_length = self.length();
        let longest = volatile_length.max(self.durable_length);
        let mut length = length_after_loss(self.durable_length, volatile_length, salt, file);
        let jumps = std::mem::take(&mut self.jumps);
        if let Some(jump) = jumps.iter().find(|jump| jump.from < length && length < jump.to).filter(|_| jumps_are_whole)
        {
            let is_kept = draw_at(salt, "jump", file, 0).is_multiple_of(2);
            length = if is_kept { jump.to } else { jump.from };
        }
        // How likely a sector survives is drawn per file, so that clean prefixes and heavy tearing both happen.
        let survival = [0, 1, 4, 7, 8][(draw_at(salt, "survival", file, 0) % 5) as usize];
        let mut differing = 0;
        self.volatile.set_length(longest);
        for (index, dirty) in std::mem::take(&mut self.dirty) {
            if !dirty.is_lost && draw_at(salt, "sector", file, index) % 8 < survival {
                continue;
            }
            let start = index * SECTOR_BYTES as u64;
            let bytes = longest.saturating_sub(start).min(SECTOR_BYTES as u64) as usize;
            let (before, old) = (self.sector(index), dirty.durable.map_or([0; SECTOR_BYTES], |content| *content));
            if before != old {
                self.volatile.write(start, &old[..bytes]);
            }
            let seen = volatile_length.min(length).saturating_sub(start).min(bytes as u64) as usize;
            differing += before[..seen].iter().zip(&old[..seen]).filter(|(before, old)| before != old).count();
        }
        self.volatile.set_length(length);
        self.durable_length = length;
        self.committed = self.changes;
        differing as u64 + volatile_length.saturating_sub(length)
    }

    /// Flips one bit of a byte that exists, in both states.
    pub(crate) fn flip(&mut self, offset: u64, bit: u8) {
        assert!(offset < self.length(), "bit flip at {offset} behind the end {}", self.length());
        let mut byte = [0];
        self.volatile.read_into(offset, &mut byte);
        self.volatile.write(offset, &[byte[0] ^ (1 << bit)]);
        let dirty = self.dirty.get_mut(&(offset / SECTOR_BYTES as u64));
        if let Some(content) = dirty.and_then(|dirty| dirty.durable.as_mut()) {
            content[(offset % SECTOR_BYTES as u64) as usize] ^= 1 << bit;
        }
    }

    /// Remembers the content of the sectors of `start..end` before they change.
    fn mark_dirty(&mut self, start: u64, end: u64) {
        for index in start / SECTOR_BYTES as u64..=(end - 1) / SECTOR_BYTES as u64 {
            if let Some(dirty) = self.dirty.get_mut(&index) {
                dirty.written = self.changes;
                dirty.is_lost = false;
                continue;
            }
            let has_content = index * (SECTOR_BYTES as u64) < self.length();
            let durable = has_content.then(|| Box::new(self.sector(index)));
            let dirty = DirtySector { durable, written: self.changes, synced: self.committed, is_lost: false };
            self.dirty.insert(index, dirty);
        }
    }

    /// A sector's volatile content, zeros behind the end.
    fn sector(&self, index: u64) -> Sector {
        let mut sector = [0; SECTOR_BYTES];
        self.volatile.read_into(index * SECTOR_BYTES as u64, &mut sector);
        sector
    }
}

/// The durable length, the volatile one, or any between, so that both ends are common.
fn length_after_loss(durable: u64, volatile: u64, salt: u64, file: u64) -> u64 {
    match draw_at(salt, "length-kind", file, 0) % 4 {
        0 => durable,
        1 => volatile,
        _ => {
            let span = durable.abs_diff(volatile) + 1;
            durable.min(volatile) + draw_at(salt, "length", file, 0) % span
        }
    }
}
