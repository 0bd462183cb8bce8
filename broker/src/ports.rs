//! The ports through which the world reaches a broker node: Disk, Net, Clock, Rand and Observer.
//! Each has a real arm (`real`) and a simulated arm (in the scenarios crate, over the harness' world);
//! both pass one conformance test body. Nothing in `core` uses a port.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::core::dump::CoreDump;

/// A node's data folder. Paths are relative to it, separated by `/`, without `.` or `..`.
///
/// Calls without `async` are performed inline, in the node's own turn. The two asynchronous ones may take long
/// and run beside the node: a sync covers exactly the writes that had completed when it was called.
pub trait Disk: Clone + 'static {
    /// An open file; clones share it.
    type File: Clone + 'static;
    /// An exclusive lock, released when dropped and when its process ends.
    type Lock: 'static;

    /// Names of the entries of a directory, sorted. `NotFound` where there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Creates a directory and its missing parents. Its entry is durable after `sync_directory` of the parent.
    fn create_directory(&self, directory: &str) -> io::Result<()>;
    /// Takes an exclusive lock on a file, creating it. `WouldBlock` where another process holds it.
    fn lock_exclusive(&self, path: &str) -> io::Result<Self::Lock>;
    /// Opens a file for reading and writing; `create` makes it where it is missing, else `NotFound`.
    fn open(&self, path: &str, create: bool) -> io::Result<Self::File>;
    /// The file's length in bytes.
    fn length(&self, file: &Self::File) -> io::Result<u64>;
    /// Reads exactly `length` bytes at `offset`, or fewer where the file ends before.
    fn read_at(&self, file: &Self::File, offset: u64, length: usize) -> io::Result<Bytes>;
    /// Writes all parts, one behind the other, at `offset`. After an error any prefix may have been written.
    fn write_at(&self, file: &Self::File, offset: u64, parts: &[Bytes]) -> io::Result<()>;
    /// Reserves room for `length` bytes without changing the file's length.
    fn preallocate(&self, file: &Self::File, length: u64) -> io::Result<()>;
    /// Sets the file's length.
    fn truncate(&self, file: &Self::File, length: u64) -> io::Result<()>;
    /// Makes the creations, renames and removals in a directory durable.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
    /// Renames a file within the data folder, replacing the target atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file, or an empty directory.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Free space, in bytes.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Makes the file's completed writes and its length durable (fdatasync).
    fn sync_file(&self, file: &Self::File) -> impl Future<Output = io::Result<()>> + 'static;
    /// As `read_at`, beside the node: for bytes that may not be in memory.
    fn read_cold(
        &self,
        file: &Self::File,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + 'static;
}

/// Byte streams between nodes and clients.
pub trait Net: Clone + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;
    /// A bound listener.
    type Listener: Listener<Stream = Self::Stream> + 'static;

    /// Binds a listener; port 0 takes a free one.
    fn listen(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>>;
    /// Opens a connection to a host, by name or address.
    fn dial(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// A bound listener.
pub trait Listener {
    /// A connection.
    type Stream;

    /// The address that was bound.
    fn local_address(&self) -> io::Result<SocketAddr>;
    /// The next connection and its peer.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;
}

/// Time as a node sees it.
pub trait Clock: Clone + 'static {
    /// Monotonic time since an origin of the clock's own.
    fn monotonic(&self) -> Duration;
    /// Wall time in milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
    /// Ends when `monotonic` has reached `deadline`.
    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static;
}

/// Named draws; the n-th draw of an entity under a label depends on nothing else.
pub trait Rand: Clone + 'static {
    /// The entity's next draw under the label.
    fn draw(&self, label: &'static str, entity: u64) -> u64;
}

/// Hears of the node's interesting points and events. A simulated observer may close the node's ports in the call.
pub trait Observer: Clone + 'static {
    /// The node stands at a named point, at which a plan can place a fault.
    fn point(&self, name: &'static str);
    /// Something countable happened, `count` times.
    fn event(&self, name: &'static str, count: u64);
    /// A turn has ended. An observer that wants the node's state may ask for it; nothing follows from the answer.
    fn turn_ended(&self, _state: &dyn Fn() -> CoreDump) {}
}
