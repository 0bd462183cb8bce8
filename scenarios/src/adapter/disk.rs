//! The broker's Disk port over the harness' SimDisk. Nothing is decided here.

use std::future::Future;
use std::io;

use bytes::Bytes;
use mqassay_broker::ports::Disk;
use mqassay_harness::sim::disk::{SimDisk, SimFile, SimLock};

/// A simulated node's disk.
#[derive(Clone)]
pub struct NodeDisk(pub SimDisk);

impl Disk for NodeDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.0.create_directory(directory)
    }

    fn lock_exclusive(&self, path: &str) -> io::Result<SimLock> {
        self.0.lock_exclusive(path)
    }

    fn open(&self, path: &str, create: bool) -> io::Result<SimFile> {
        self.0.open(path, create)
    }

    fn length(&self, file: &SimFile) -> io::Result<u64> {
        self.0.length(file)
    }

    fn read_at(&self, file: &SimFile, offset: u64, length: usize) -> io::Result<Bytes> {
        self.0.read_at(file, offset, length)
    }

    fn write_at(&self, file: &SimFile, offset: u64, parts: &[Bytes]) -> io::Result<()> {
        self.0.write_at(file, offset, parts)
    }

    fn preallocate(&self, file: &SimFile, length: u64) -> io::Result<()> {
        self.0.preallocate(file, length)
    }

    fn truncate(&self, file: &SimFile, length: u64) -> io::Result<()> {
        self.0.truncate(file, length)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.0.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }

    fn sync_file(&self, file: &SimFile) -> impl Future<Output = io::Result<()>> + 'static {
        self.0.sync_file(file)
    }

    fn read_cold(
        &self,
        file: &SimFile,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + 'static {
        self.0.read_cold(file, offset, length)
    }
}
