//! The `Disk` port over files. Syncs, cold reads and the freeing of large files run on tokio's blocking threads;
//! everything else is inline.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::fs::FallocateFlags;
use tokio::runtime::Handle;

use crate::ports::Disk;

/// The most parts that one call writes (Linux' IOV_MAX).
const PARTS_MAX: usize = 1024;
/// Files from this size on give back their room beside the node: the file system may tell the device of every extent.
const FREED_BESIDE_BYTES: u64 = 1 << 20;

/// A data folder on a real disk.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: Arc<PathBuf>,
}

impl RealDisk {
    /// Opens a folder, creating it with its missing parents.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        Ok(RealDisk { root: Arc::new(root) })
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.as_path().to_path_buf() } else { self.root.join(path) }
    }
}

impl Disk for RealDisk {
    type File = Arc<File>;
    type Lock = File;

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(directory))? {
            let name = entry?.file_name().into_string();
            names.push(name.map_err(|name| io::Error::other(format!("the name {name:?} is not UTF-8")))?);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        fs::create_dir_all(self.at(directory))
    }

    fn lock_exclusive(&self, path: &str) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.at(path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn open(&self, path: &str, create: bool) -> io::Result<Arc<File>> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(self.at(path))?;
        Ok(Arc::new(file))
    }

    fn length(&self, file: &Arc<File>) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
        read_exactly_or_to_end(file, offset, length)
    }

    fn write_at(&self, file: &Arc<File>, offset: u64, parts: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let (mut rest, mut offset) = (&mut slices[..], offset);
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let now = rest.len().min(PARTS_MAX);
            let written = match rustix::io::pwritev(file, &rest[..now], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    fn preallocate(&self, file: &Arc<File>, length: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length)?)
    }

    fn truncate(&self, file: &Arc<File>, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::open(self.at(directory))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.at(path);
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            return fs::remove_dir(path);
        }
        let is_large = metadata.is_file() && metadata.len() >= FREED_BESIDE_BYTES;
        // An open file keeps its room: what is left inline is the name. One that cannot be opened is freed here.
        let opened = is_large.then(|| File::open(&path).ok()).flatten();
        fs::remove_file(path)?;
        if let (Some(file), Ok(runtime)) = (opened, Handle::try_current()) {
            runtime.spawn_blocking(move || drop(file));
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::statvfs(self.root.as_path())?;
        Ok(status.f_bavail * status.f_frsize)
    }

    fn sync_file(&self, file: &Arc<File>) -> impl Future<Output = io::Result<()>> + 'static {
        let file = file.clone();
        let job = tokio::task::spawn_blocking(move || Ok(rustix::fs::fdatasync(&file)?));
        async { job.await.map_err(io::Error::other)? }
    }

    fn read_cold(
        &self,
        file: &Arc<File>,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + 'static {
        let file = file.clone();
        let job = tokio::task::spawn_blocking(move || read_exactly_or_to_end(&file, offset, length));
        async { job.await.map_err(io::Error::other)? }
    }
}

fn read_exactly_or_to_end(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(length);
    let mut read = 0;
    while read < length {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes.freeze())
}
