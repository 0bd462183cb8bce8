//! The kernel's side of a forgetting disk: its requests, each a job for the one thread that owns the volume.
//! Not here: what the calls do (`volume`), and when the disk is mounted again (`server`).

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags};

use super::volume::{Attributes, Volume};
use crate::sim::disk::Metadata;

type Job = Box<dyn FnOnce(&mut Volume) + Send>;

/// The thread that owns a volume; it ends with its last clone.
#[derive(Clone)]
pub(super) struct Owner {
    jobs: Sender<Job>,
}

impl Owner {
    /// An empty volume.
    pub(super) fn start(capacity_bytes: u64, metadata: Metadata) -> Owner {
        let (jobs, to_do) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            let mut volume = Volume::new(capacity_bytes, metadata, SystemTime::now());
            let mut committed = Instant::now();
            loop {
                match to_do.recv_timeout(COMMIT_INTERVAL.saturating_sub(committed.elapsed())) {
                    Ok(job) => job(&mut volume),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if committed.elapsed() >= COMMIT_INTERVAL {
                    volume.commit_interval_passed();
                    committed = Instant::now();
                }
            }
        });
        Owner { jobs }
    }

    /// Has it done; what it replies to says so itself.
    fn post(&self, job: impl FnOnce(&mut Volume) + Send + 'static) {
        // The thread ends after all clones only; if it panicked, the request's reply was dropped with it: an I/O error.
        let _ = self.jobs.send(Box::new(job));
    }

    /// Has it done, and waits for the result; none where the thread has panicked.
    pub(super) fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&mut Volume) -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = mpsc::channel();
        self.post(move |volume| {
            // Whoever asked waits below.
            let _ = answer.send(ask(volume));
        });
        answered.recv().ok()
    }
}

/// Mounts the volume as it is now, for this incarnation only.
pub(super) fn mount(owner: &Owner, folder: &Path, source: &str) -> io::Result<BackgroundSession> {
    let gone = || io::Error::other("the thread of the volume has ended");
    let incarnation = owner.ask(|volume| volume.incarnation()).ok_or_else(gone)?;
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName(source.to_owned()), MountOption::NoSuid, MountOption::NoDev];
    fuser::spawn_mount(Session { owner: owner.clone(), incarnation }, folder, &config)
}

/// One mount of the volume. After a power loss it is cut off: what the kernel still writes back has no effect.
struct Session {
    owner: Owner,
    incarnation: u64,
}

impl Session {
    /// Has it done with the volume, or with an error where this mount is cut off.
    fn post(&self, job: impl FnOnce(Result<&mut Volume, rustix::io::Errno>) + Send + 'static) {
        let incarnation = self.incarnation;
        self.owner.post(move |volume| job(volume.of(incarnation)));
    }
}

impl Filesystem for Session {
    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (name, who) = (text(name), Who::of(request));
        self.post(move |volume| match volume.and_then(|volume| volume.lookup(parent.0, &name?)) {
            Ok(found) => reply.entry(&KNOWN_FOR, &who.attributes(found), Generation(0)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn getattr(&self, request: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let who = Who::of(request);
        self.post(move |volume| match volume.and_then(|volume| volume.attributes(file.0)) {
            Ok(found) => reply.attr(&KNOWN_FOR, &who.attributes(found)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn setattr(
        &self,
        request: &Request,
        file: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let who = Who::of(request);
        let modified = mtime.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        self.post(move |volume| {
            let changed = volume.and_then(|volume| {
                if let Some(length) = size {
                    volume.set_length(file.0, length)?;
                }
                if let Some(mode) = mode {
                    volume.set_mode(file.0, mode as u16)?;
                }
                if let Some(modified) = modified {
                    volume.set_modified(file.0, modified)?;
                }
                volume.attributes(file.0)
            });
            match changed {
                Ok(found) => reply.attr(&KNOWN_FOR, &who.attributes(found)),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let (name, who) = (text(name), Who::of(request));
        self.post(move |volume| match volume.and_then(|volume| volume.create_directory(parent.0, &name?)) {
            Ok(made) => reply.entry(&KNOWN_FOR, &who.attributes(made), Generation(0)),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = text(name);
        self.post(move |volume| done(reply, volume.and_then(|volume| volume.remove(parent.0, &name?, false))));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = text(name);
        self.post(move |volume| done(reply, volume.and_then(|volume| volume.remove(parent.0, &name?, true))));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, new_name) = (text(name), text(new_name));
        let keeps_target = flags == RenameFlags::RENAME_NOREPLACE;
        if !keeps_target && !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        self.post(move |volume| {
            let renamed =
                volume.and_then(|volume| volume.rename((parent.0, &name?), (new_parent.0, &new_name?), keeps_target));
            done(reply, renamed);
        });
    }

    fn open(&self, _: &Request, file: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.post(move |volume| match volume.and_then(|volume| volume.open(file.0)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, who) = (text(name), Who::of(request));
        self.post(move |volume| {
            let created = volume.and_then(|volume| {
                let made = volume.create_file(parent.0, &name?, (mode & !umask) as u16)?;
                volume.open(made.number)?;
                Ok(made)
            });
            match created {
                Ok(made) => {
                    let attributes = who.attributes(made);
                    reply.created(&KNOWN_FOR, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        file: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.post(move |volume| match volume.and_then(|volume| volume.read(file.0, offset, size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn write(
        &self,
        _: &Request,
        file: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        let syncs = OFlags::from_bits_retain(flags.0 as u32).intersects(OFlags::SYNC | OFlags::DSYNC);
        self.post(move |volume| {
            let written = volume.and_then(|volume| {
                let written = volume.write(file.0, offset, &data, SystemTime::now())?;
                if syncs {
                    let sync = volume.begin_sync(file.0)?;
                    volume.end_sync(sync)?;
                }
                Ok(written)
            });
            match written {
                Ok(length) => reply.written(length as u32),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // To close a file makes nothing durable.
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        file: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.post(move |volume| done(reply, volume.map(|volume| volume.release(file.0))));
    }

    fn fsync(&self, _: &Request, file: INodeNo, _: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let (owner, incarnation) = (self.owner.clone(), self.incarnation);
        self.post(move |volume| {
            let (volume, sync) = match volume.and_then(|volume| Ok((volume.begin_sync(file.0)?, volume))) {
                Ok((sync, volume)) => (volume, sync),
                Err(error) => return reply.error(errno(error)),
            };
            if sync.delay.is_zero() {
                return done(reply, volume.end_sync(sync));
            }
            std::thread::spawn(move || {
                std::thread::sleep(sync.delay);
                owner.post(move |volume| {
                    done(reply, volume.of(incarnation).and_then(|volume| volume.end_sync(sync)));
                });
            });
        });
    }

    fn fsyncdir(&self, _: &Request, directory: INodeNo, _: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.post(move |volume| done(reply, volume.and_then(|volume| volume.sync_directory(directory.0))));
    }

    fn readdir(&self, _: &Request, directory: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.post(move |volume| {
            let names = match volume.and_then(|volume| volume.list(directory.0)) {
                Ok(names) => names,
                Err(error) => return reply.error(errno(error)),
            };
            let dots = [".", ".."].map(|name| (directory.0, true, name.to_owned()));
            for (number, entry) in (1..).zip(dots.into_iter().chain(names)).skip(offset as usize) {
                if reply.add(INodeNo(entry.0), number, kind(entry.1), &entry.2) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.post(move |volume| match volume {
            Ok(volume) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
                let free = blocks(volume.free_bytes());
                let all = blocks(volume.capacity_bytes());
                reply.statfs(all, free, free, FILES_MAX, FILES_MAX, BLOCK_BYTES, NAME_BYTES_MAX, BLOCK_BYTES);
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        file: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let keeps_length = flags == FallocateFlags::KEEP_SIZE;
        if !keeps_length && !flags.is_empty() {
            return reply.error(Errno::EOPNOTSUPP);
        }
        self.post(move |volume| {
            done(reply, volume.and_then(|volume| volume.reserve(file.0, offset + length, keeps_length)));
        });
    }
}

/// Whom files are said to belong to: whoever asks.
#[derive(Clone, Copy)]
struct Who {
    user: u32,
    group: u32,
}

impl Who {
    fn of(request: &Request) -> Who {
        Who { user: request.uid(), group: request.gid() }
    }

    fn attributes(self, of: Attributes) -> FileAttr {
        FileAttr {
            ino: INodeNo(of.number),
            size: of.length,
            blocks: of.length.div_ceil(512),
            atime: of.modified,
            mtime: of.modified,
            ctime: of.modified,
            crtime: of.modified,
            kind: kind(of.is_directory),
            perm: of.mode,
            nlink: 1,
            uid: self.user,
            gid: self.group,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }
}

fn kind(is_directory: bool) -> FileType {
    if is_directory { FileType::Directory } else { FileType::RegularFile }
}

fn done(reply: ReplyEmpty, result: Result<(), rustix::io::Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

/// A name; the trees know names of text only.
fn text(name: &OsStr) -> Result<String, rustix::io::Errno> {
    name.to_str().map(str::to_owned).ok_or(rustix::io::Errno::ILSEQ)
}

/// How often a journal commits by itself; ext4's `commit` option has this default, XFS takes longer.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// How long the kernel may believe what it was told: all changes go through it.
const KNOWN_FOR: Duration = Duration::from_secs(1);
const BLOCK_BYTES: u32 = 4096;
const NAME_BYTES_MAX: u32 = 255;
/// There is no such limit; programs that look want a number.
const FILES_MAX: u64 = 1 << 20;
