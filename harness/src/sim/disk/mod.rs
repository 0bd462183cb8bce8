//! `SimDisk`: a process' view of a simulated drive, with the calls of a broker's disk port.
//! The rules are the design's: volatile and durable apart, sector by sector (`contents`), names durable by their
//! directory's sync (`tree`, `Metadata::Posix`), faults (`faults`), and the nemesis' side of it all (`drive`).
//! Departures from Linux: a sync of a file does not make its name durable, and unsynced changes may survive in any
//! order. A view that was cut off fails inline calls and never ends asynchronous ones, both without effect.

pub(crate) mod contents;
mod drive;
pub(crate) mod faults;
pub(crate) mod loss;
mod sparse;
#[cfg(test)]
mod tests;
pub(crate) mod tree;

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use xxhash_rust::xxh3::Xxh3;

pub use self::contents::SECTOR_BYTES;
pub use self::drive::{Drive, DriveOptions, FileLoss};
use self::drive::{Shared, State};
pub use self::loss::{BitFlip, LossKind, PowerLossSummary};
pub use self::tree::Metadata;
use self::tree::{Entry, Inode, Place};
use crate::plan::DiskOperation;

/// A process' view of its drive. Clones are the same view.
#[derive(Clone)]
pub struct SimDisk {
    shared: Rc<Shared>,
    attachment: u64,
}

/// An open file; clones share it.
#[derive(Clone, Debug)]
pub struct SimFile {
    inode: Rc<Inode>,
}

/// An exclusive lock, released when dropped and when its process ends.
pub struct SimLock {
    shared: Rc<Shared>,
    path: String,
    number: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        if state.locks.get(&self.path) == Some(&self.number) {
            state.locks.remove(&self.path);
        }
    }
}

impl SimDisk {
    /// Names of the entries of a directory, sorted. `NotFound` where there is no such directory.
    pub fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.check_attached()?;
        self.shared.state.borrow().tree.list(directory).ok_or_else(|| not_found(directory))
    }

    /// Creates a directory and its missing parents.
    pub fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.check_attached()?;
        let mut state = self.shared.state.borrow_mut();
        let mut path = String::new();
        for name in directory.split('/').filter(|name| !name.is_empty()) {
            let at = Place { directory: path.clone(), name: name.to_string() };
            path = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            match state.tree.entry(&at) {
                Some(Entry::Directory) => continue,
                Some(Entry::File(_)) => return Err(Errno::NOTDIR.into()),
                None => state.tree.create_directory(at),
            }
        }
        Ok(())
    }

    /// Takes an exclusive lock on a file, creating it. `WouldBlock` where it is held.
    pub fn lock_exclusive(&self, path: &str) -> io::Result<SimLock> {
        self.open(path, true)?;
        let mut state = self.shared.state.borrow_mut();
        if state.locks.contains_key(path) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{path} is locked")));
        }
        state.locks_taken += 1;
        let number = state.locks_taken;
        state.locks.insert(path.to_string(), number);
        Ok(SimLock { shared: self.shared.clone(), path: path.to_string(), number })
    }

    /// Opens a file for reading and writing; `create` makes it where it is missing, else `NotFound`.
    pub fn open(&self, path: &str, create: bool) -> io::Result<SimFile> {
        self.check_attached()?;
        let at = Place::of(path);
        let mut state = self.shared.state.borrow_mut();
        match state.tree.entry(&at) {
            Some(Entry::File(inode)) => return Ok(SimFile { inode: inode.clone() }),
            Some(Entry::Directory) => return Err(Errno::ISDIR.into()),
            None if !create || !state.tree.has_directory(&at.directory) => return Err(not_found(path)),
            None => {}
        }
        let inode = state.tree.create_file(at);
        self.shared.trace("disk-create", &[("file", inode.id)]);
        Ok(SimFile { inode })
    }

    /// The file's length in bytes.
    pub fn length(&self, file: &SimFile) -> io::Result<u64> {
        self.check_attached()?;
        Ok(file.inode.contents.borrow().length())
    }

    /// Reads exactly `length` bytes at `offset`, or fewer where the file ends before.
    pub fn read_at(&self, file: &SimFile, offset: u64, length: usize) -> io::Result<Bytes> {
        self.check_attached()?;
        if self.take_failure(DiskOperation::Read, "disk-read-error").is_some() {
            return Err(Errno::IO.into());
        }
        Ok(file.inode.contents.borrow().read(offset, length).into())
    }

    /// Writes all parts, one behind the other, at `offset`. After an error any prefix may have been written.
    pub fn write_at(&self, file: &SimFile, offset: u64, parts: &[Bytes]) -> io::Result<()> {
        self.check_attached()?;
        let length: usize = parts.iter().map(Bytes::len).sum();
        let (allowed, outcome) = match self.take_failure(DiskOperation::Write, "disk-write-error") {
            Some(drawn) => ((drawn % (length as u64 + 1)) as usize, Err(Errno::IO.into())),
            None => self.within_space(&file.inode, offset, length),
        };
        self.write_prefix(&file.inode, offset, parts, allowed);
        outcome
    }

    /// Reserves room for `length` bytes without changing the file's length.
    pub fn preallocate(&self, file: &SimFile, length: u64) -> io::Result<()> {
        self.check_attached()?;
        let growth = length.saturating_sub(file.inode.room());
        let mut state = self.shared.state.borrow_mut();
        if growth > self.free_of(&state) {
            drop(state);
            return Err(self.no_space());
        }
        file.inode.reserved.set(file.inode.reserved.get().max(length));
        state.used_bytes += growth;
        Ok(())
    }

    /// Sets the file's length; what was reserved behind it is free again.
    pub fn truncate(&self, file: &SimFile, length: u64) -> io::Result<()> {
        self.check_attached()?;
        if self.take_failure(DiskOperation::Write, "disk-write-error").is_some() {
            return Err(Errno::IO.into());
        }
        let mut contents = file.inode.contents.borrow_mut();
        let is_longer = length > contents.length();
        contents.set_length(length);
        drop(contents);
        if !is_longer {
            file.inode.reserved.set(length);
        }
        self.shared.state.borrow_mut().count_used();
        self.shared.trace("disk-truncate", &[("file", file.inode.id), ("length", length)]);
        Ok(())
    }

    /// Makes the creations, renames and removals in a directory durable.
    pub fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.check_attached()?;
        let mut state = self.shared.state.borrow_mut();
        if !state.tree.has_directory(directory) {
            return Err(not_found(directory));
        }
        state.tree.sync_directory(directory);
        self.shared.trace("disk-sync-directory", &[("depth", directory.split('/').count() as u64)]);
        Ok(())
    }

    /// Renames a file, replacing the target atomically.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_attached()?;
        let (from_place, to_place) = (Place::of(from), Place::of(to));
        let mut state = self.shared.state.borrow_mut();
        let entry = match state.tree.entry(&from_place) {
            None => return Err(not_found(from)),
            Some(Entry::Directory) => return Err(Errno::ISDIR.into()),
            Some(entry @ Entry::File(_)) => entry.clone(),
        };
        if !state.tree.has_directory(&to_place.directory) {
            return Err(not_found(to));
        }
        if matches!(state.tree.entry(&to_place), Some(Entry::Directory)) {
            return Err(Errno::ISDIR.into());
        }
        if from_place == to_place {
            return Ok(());
        }
        state.tree.rename(from_place, to_place, entry);
        state.count_used();
        self.shared.trace("disk-rename", &[]);
        Ok(())
    }

    /// Removes a file, or an empty directory.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        self.check_attached()?;
        let at = Place::of(path);
        let mut state = self.shared.state.borrow_mut();
        match state.tree.entry(&at) {
            None => return Err(not_found(path)),
            Some(Entry::Directory) if state.tree.list(path).is_some_and(|names| !names.is_empty()) => {
                return Err(Errno::NOTEMPTY.into());
            }
            Some(Entry::Directory | Entry::File(_)) => state.tree.remove(at),
        }
        state.count_used();
        self.shared.trace("disk-remove", &[]);
        Ok(())
    }

    /// Free space, in bytes.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.check_attached()?;
        Ok(self.free_of(&self.shared.state.borrow()))
    }

    /// Makes the writes that completed before this call, and the length, durable.
    pub fn sync_file(&self, file: &SimFile) -> impl Future<Output = io::Result<()>> + 'static {
        let snapshot = self.is_attached().then(|| file.inode.contents.borrow().snapshot());
        let (disk, inode) = (self.clone(), file.inode.clone());
        let options = &self.shared.options;
        let jitter_us = options.draws.range("sync-jitter", u64::from(options.node), 0, options.sync_us / 2);
        let slowness = self.shared.state.borrow().faults.slowness();
        if !slowness.is_zero() {
            options.counters.add("disk-slow", 1);
        }
        let duration = Duration::from_micros(options.sync_us + jitter_us) + slowness;
        async move {
            let Some(snapshot) = snapshot else { return std::future::pending().await };
            tokio::time::sleep(duration).await;
            if !disk.is_attached() {
                return std::future::pending().await;
            }
            if disk.take_failure(DiskOperation::Sync, "sync-error").is_some() {
                inode.contents.borrow_mut().fail(&snapshot);
                return Err(Errno::IO.into());
            }
            inode.contents.borrow_mut().commit(snapshot);
            let left = inode.contents.borrow().dirty_sectors() as u64;
            disk.shared.trace("disk-sync", &[("file", inode.id), ("dirty", left)]);
            Ok(())
        }
    }

    /// As `read_at`, beside the node.
    pub fn read_cold(
        &self,
        file: &SimFile,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + 'static {
        let (disk, file) = (self.clone(), file.clone());
        async move {
            tokio::time::sleep(COLD_READ).await;
            if !disk.is_attached() {
                return std::future::pending().await;
            }
            disk.read_at(&file, offset, length)
        }
    }

    fn is_attached(&self) -> bool {
        self.shared.state.borrow().attached == self.attachment
    }

    fn check_attached(&self) -> io::Result<()> {
        if self.is_attached() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::BrokenPipe, "the process was cut off from its disk"))
    }

    /// Whether a fault makes this operation fail, counted and traced; then the fault's draw.
    fn take_failure(&self, on: DiskOperation, counter: &'static str) -> Option<u64> {
        let drawn = self.shared.state.borrow_mut().faults.take_failure(on)?;
        self.shared.options.counters.add(counter, 1);
        self.shared.trace(counter, &[]);
        Some(drawn)
    }

    /// How many of the bytes there is room for, and the outcome of the write.
    fn within_space(&self, inode: &Inode, offset: u64, length: usize) -> (usize, io::Result<()>) {
        let room = inode.room() + self.free_of(&self.shared.state.borrow());
        if offset + length as u64 <= room {
            return (length, Ok(()));
        }
        (room.saturating_sub(offset) as usize, Err(self.no_space()))
    }

    fn free_of(&self, state: &State) -> u64 {
        if state.faults.is_full() {
            return 0;
        }
        self.shared.options.capacity_bytes.saturating_sub(state.used_bytes)
    }

    fn no_space(&self) -> io::Error {
        self.shared.options.counters.add("disk-full", 1);
        self.shared.trace("disk-full", &[]);
        Errno::NOSPC.into()
    }

    fn write_prefix(&self, inode: &Inode, offset: u64, parts: &[Bytes], allowed: usize) {
        let room_before = inode.room();
        let mut hash = Xxh3::new();
        let mut written = 0;
        for part in parts {
            let part = &part[..part.len().min(allowed - written)];
            inode.contents.borrow_mut().write(offset + written as u64, part);
            hash.update(part);
            written += part.len();
        }
        self.shared.state.borrow_mut().used_bytes += inode.room() - room_before;
        let numbers = [("file", inode.id), ("offset", offset), ("length", written as u64), ("hash", hash.digest())];
        self.shared.trace("disk-write", &numbers);
    }
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path} does not exist"))
}

/// Time that a read beside the node takes.
const COLD_READ: Duration = Duration::from_millis(1);
