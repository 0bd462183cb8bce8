//! The files of a forgetting disk: the tree and contents of the simulated drive (`sim::disk`), so that both obey one set
//! of rules, behind numbers and calls as a kernel asks for them. Pure: no clock, no thread, no mount (`session`).
//! Departures from Linux are those of the simulated drive; also, renaming a directory is durable at once, and there are
//! no links, devices or extended attributes.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use crate::plan::DiskOperation;
use crate::sim::disk::contents::Snapshot;
use crate::sim::disk::faults::Faults;
use crate::sim::disk::loss::{self, BitFlip, LossKind, PowerLossSummary};
use crate::sim::disk::tree::{Entry, Inode, Metadata, Place, Tree};

/// Number of the root directory.
pub(super) const ROOT: u64 = 1;

/// What a file or directory is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Its number: odd for directories, even for files.
    pub(super) number: u64,
    pub(super) is_directory: bool,
    /// Length in bytes.
    pub(super) length: u64,
    pub(super) mode: u16,
    pub(super) modified: SystemTime,
}

/// A sync between its call and its end.
pub(super) struct Sync {
    file: u64,
    snapshot: Snapshot,
    /// How long it takes.
    pub(super) delay: Duration,
}

/// The files.
pub(super) struct Volume {
    tree: Tree,
    faults: Faults,
    capacity_bytes: u64,
    /// Every file that has a name or is open.
    files: BTreeMap<u64, Rc<Inode>>,
    open: BTreeMap<u64, u64>,
    directories: BTreeMap<u64, String>,
    directory_numbers: BTreeMap<String, u64>,
    numbers: u64,
    kept: BTreeMap<u64, (u16, SystemTime)>,
    began: SystemTime,
    incarnation: u64,
}

impl Volume {
    /// An empty one of so many bytes; what says nothing of its time was made at `began`.
    pub(super) fn new(capacity_bytes: u64, metadata: Metadata, began: SystemTime) -> Volume {
        Volume {
            tree: Tree::new(metadata),
            faults: Faults::default(),
            capacity_bytes,
            files: BTreeMap::new(),
            open: BTreeMap::new(),
            directories: BTreeMap::from([(ROOT, String::new())]),
            directory_numbers: BTreeMap::from([(String::new(), ROOT)]),
            numbers: ROOT,
            kept: BTreeMap::new(),
            began,
            incarnation: 0,
        }
    }

    /// How often the power was lost: whoever began before is cut off.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// For who began in this incarnation.
    pub(super) fn of(&mut self, incarnation: u64) -> Result<&mut Volume, Errno> {
        if incarnation == self.incarnation { Ok(self) } else { Err(Errno::IO) }
    }

    pub(super) fn lookup(&mut self, directory: u64, name: &str) -> Result<Attributes, Errno> {
        let at = self.place(directory, name)?;
        match self.tree.entry(&at) {
            None => Err(Errno::NOENT),
            Some(Entry::Directory) => {
                let number = self.directory_number(at.path());
                self.attributes(number)
            }
            Some(Entry::File(inode)) => {
                let inode = inode.clone();
                self.files.entry(number_of(&inode)).or_insert_with(|| inode.clone());
                self.attributes(number_of(&inode))
            }
        }
    }

    pub(super) fn attributes(&self, number: u64) -> Result<Attributes, Errno> {
        let is_directory = self.directories.contains_key(&number);
        let length = if is_directory { 0 } else { self.file(number)?.contents.borrow().length() };
        let unkept = (if is_directory { 0o755 } else { 0o644 }, self.began);
        let (mode, modified) = self.kept.get(&number).copied().unwrap_or(unkept);
        Ok(Attributes { number, is_directory, length, mode, modified })
    }

    pub(super) fn set_mode(&mut self, number: u64, mode: u16) -> Result<(), Errno> {
        let modified = self.attributes(number)?.modified;
        self.kept.insert(number, (mode & 0o7777, modified));
        Ok(())
    }

    pub(super) fn set_modified(&mut self, number: u64, modified: SystemTime) -> Result<(), Errno> {
        let mode = self.attributes(number)?.mode;
        self.kept.insert(number, (mode, modified));
        Ok(())
    }

    pub(super) fn create_directory(&mut self, directory: u64, name: &str) -> Result<Attributes, Errno> {
        let at = self.place(directory, name)?;
        if self.tree.entry(&at).is_some() {
            return Err(Errno::EXIST);
        }
        let number = self.directory_number(at.path());
        self.tree.create_directory(at);
        self.attributes(number)
    }

    pub(super) fn create_file(&mut self, directory: u64, name: &str, mode: u16) -> Result<Attributes, Errno> {
        let at = self.place(directory, name)?;
        if self.tree.entry(&at).is_some() {
            return Err(Errno::EXIST);
        }
        if self.faults.is_full() {
            return Err(Errno::NOSPC);
        }
        let inode = self.tree.create_file(at);
        let number = number_of(&inode);
        self.files.insert(number, inode);
        self.set_mode(number, mode)?;
        self.attributes(number)
    }

    pub(super) fn open(&mut self, number: u64) -> Result<(), Errno> {
        self.file(number)?;
        *self.open.entry(number).or_default() += 1;
        Ok(())
    }

    /// The file is closed once; one without a name goes with the last.
    pub(super) fn release(&mut self, number: u64) {
        let left = self.open.get(&number).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            self.open.insert(number, left);
            return;
        }
        self.open.remove(&number);
        self.forget_nameless();
    }

    pub(super) fn read(&mut self, number: u64, offset: u64, length: u32) -> Result<Vec<u8>, Errno> {
        let file = self.file(number)?.clone();
        if self.faults.take_failure(DiskOperation::Read).is_some() {
            return Err(Errno::IO);
        }
        let bytes = file.contents.borrow().read(offset, length as usize);
        Ok(bytes)
    }

    /// How many bytes were written: fewer than given, by a fault or for want of room, or an error where none.
    pub(super) fn write(&mut self, number: u64, offset: u64, bytes: &[u8], now: SystemTime) -> Result<usize, Errno> {
        let file = self.file(number)?.clone();
        let (allowed, error) = match self.faults.take_failure(DiskOperation::Write) {
            Some(drawn) => ((drawn % (bytes.len() as u64 + 1)) as usize, Errno::IO),
            None => {
                // What has its room already: what was reserved, and all of a file without holes.
                let contents = file.contents.borrow();
                let is_dense = contents.held_bytes() == contents.length();
                let settled = file.reserved.get().max(if is_dense { contents.length() } else { 0 });
                let room = settled.saturating_sub(offset) + self.free_bytes();
                (room.min(bytes.len() as u64) as usize, Errno::NOSPC)
            }
        };
        file.contents.borrow_mut().write(offset, &bytes[..allowed]);
        self.set_modified(number, now)?;
        // A short count would only be tried again: what failed in the middle fails.
        if allowed < bytes.len() { Err(error) } else { Ok(allowed) }
    }

    pub(super) fn set_length(&mut self, number: u64, length: u64) -> Result<(), Errno> {
        let file = self.file(number)?.clone();
        if self.faults.take_failure(DiskOperation::Write).is_some() {
            return Err(Errno::IO);
        }
        let (is_shorter, is_longer) = {
            let before = file.contents.borrow().length();
            (length < before, length > before)
        };
        // A hole takes no room until it is written, as on Linux; only a full disk refuses the change.
        file.contents.borrow_mut().set_length(length);
        if is_shorter {
            file.reserved.set(length);
        }
        if is_longer {
            self.tree.note_growth(&file);
        }
        Ok(())
    }

    /// Reserves room up to `end`; the length follows unless it is to be kept.
    pub(super) fn reserve(&mut self, number: u64, end: u64, keeps_length: bool) -> Result<(), Errno> {
        let file = self.file(number)?.clone();
        if end.saturating_sub(file.room()) > self.free_bytes() {
            return Err(Errno::NOSPC);
        }
        file.reserved.set(file.reserved.get().max(end));
        if !keeps_length && end > file.contents.borrow().length() {
            file.contents.borrow_mut().set_length(end);
            self.tree.note_growth(&file);
        }
        Ok(())
    }

    /// What is written by now is to be made durable; `end_sync` follows when the delay is over.
    pub(super) fn begin_sync(&self, number: u64) -> Result<Sync, Errno> {
        let snapshot = self.file(number)?.contents.borrow().snapshot();
        Ok(Sync { file: number, snapshot, delay: self.faults.slowness() })
    }

    pub(super) fn end_sync(&mut self, sync: Sync) -> Result<(), Errno> {
        let file = self.file(sync.file)?.clone();
        if self.faults.take_failure(DiskOperation::Sync).is_some() {
            file.contents.borrow_mut().fail(&sync.snapshot);
            return Err(Errno::IO);
        }
        file.contents.borrow_mut().commit(sync.snapshot);
        self.tree.sync_file();
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, number: u64) -> Result<(), Errno> {
        let path = self.directories.get(&number).ok_or(Errno::NOENT)?;
        self.tree.sync_directory(path);
        Ok(())
    }

    /// Time has passed: a journal commits what it holds of names; without one they wait for a sync.
    pub(super) fn commit_interval_passed(&mut self) {
        self.tree.sync_file();
    }

    /// Everything is durable, as when much time has passed.
    pub(super) fn settle(&mut self) {
        self.tree.sync_all();
        for (_, inode) in self.tree.files() {
            let mut contents = inode.contents.borrow_mut();
            let snapshot = contents.snapshot();
            contents.commit(snapshot);
        }
    }

    pub(super) fn rename(
        &mut self,
        (directory, name): (u64, &str),
        (new_directory, new_name): (u64, &str),
        keeps_target: bool,
    ) -> Result<(), Errno> {
        let (from, to) = (self.place(directory, name)?, self.place(new_directory, new_name)?);
        let entry = self.tree.entry(&from).ok_or(Errno::NOENT)?.clone();
        let target = self.tree.entry(&to).cloned();
        if keeps_target && target.is_some() {
            return Err(Errno::EXIST);
        }
        if from == to {
            return Ok(());
        }
        match (&entry, target) {
            (Entry::File(_), None | Some(Entry::File(_))) => {
                self.tree.rename(from, to, entry);
                self.forget_nameless();
            }
            (Entry::File(_), Some(Entry::Directory)) => return Err(Errno::ISDIR),
            (Entry::Directory, Some(Entry::File(_))) => return Err(Errno::NOTDIR),
            (Entry::Directory, target) => {
                if target.is_some() {
                    self.check_empty(&to.path())?;
                }
                if to.path().starts_with(&format!("{}/", from.path())) {
                    return Err(Errno::INVAL);
                }
                self.rename_directory(&from, &to);
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, directory: u64, name: &str, is_directory: bool) -> Result<(), Errno> {
        let at = self.place(directory, name)?;
        match self.tree.entry(&at) {
            None => return Err(Errno::NOENT),
            Some(Entry::Directory) if !is_directory => return Err(Errno::ISDIR),
            Some(Entry::File(_)) if is_directory => return Err(Errno::NOTDIR),
            Some(Entry::Directory) => {
                self.check_empty(&at.path())?;
                if let Some(number) = self.directory_numbers.remove(&at.path()) {
                    self.directories.remove(&number);
                }
            }
            Some(Entry::File(_)) => {}
        }
        self.tree.remove(at);
        self.forget_nameless();
        Ok(())
    }

    /// Number, whether it is a directory, and name of each entry, by name.
    pub(super) fn list(&mut self, number: u64) -> Result<Vec<(u64, bool, String)>, Errno> {
        let path = self.directories.get(&number).ok_or(Errno::NOTDIR)?.clone();
        let names = self.tree.list(&path).ok_or(Errno::NOENT)?;
        let entry = |name: String| {
            let found = self.lookup(number, &name)?;
            Ok((found.number, found.is_directory, name))
        };
        names.into_iter().map(entry).collect()
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub(super) fn free_bytes(&self) -> u64 {
        if self.faults.is_full() {
            return 0;
        }
        let used: u64 =
            self.files.values().map(|inode| inode.contents.borrow().held_bytes().max(inode.reserved.get())).sum();
        self.capacity_bytes.saturating_sub(used)
    }

    /// Everything unsynced survives or not by the salt, and everyone is cut off.
    pub(super) fn power_loss(&mut self, salt: u64) -> (PowerLossSummary, Vec<(String, LossKind)>) {
        self.incarnation += 1;
        let lost = loss::lose_power(&mut self.tree, salt);
        self.open.clear();
        self.files = self.tree.files().into_iter().map(|(_, inode)| (number_of(&inode), inode)).collect();
        self.directories.retain(|_, path| self.tree.has_directory(path));
        self.directory_numbers.retain(|path, _| self.tree.has_directory(path));
        lost
    }

    pub(super) fn flip_bit(&mut self, salt: u64, within: &str) -> Option<BitFlip> {
        loss::flip_bit(&self.tree, salt, within).map(|(flipped, _)| flipped)
    }

    pub(super) fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Ends every fault; what is lost stays lost.
    pub(super) fn repair(&mut self) {
        self.faults = Faults::default();
    }

    /// The numbers of all files that the kernel may have pages of.
    pub(super) fn file_numbers(&self) -> Vec<u64> {
        self.files.keys().copied().collect()
    }

    fn rename_directory(&mut self, from: &Place, to: &Place) {
        let (old, new) = (from.path(), to.path());
        if let Some(number) = self.directory_numbers.remove(&new) {
            self.directories.remove(&number);
        }
        self.tree.rename_directory(from, to);
        for path in self.directories.values_mut() {
            if *path == old || path.strip_prefix(&old).is_some_and(|rest| rest.starts_with('/')) {
                *path = format!("{new}{}", &path[old.len()..]);
            }
        }
        self.directory_numbers = self.directories.iter().map(|(number, path)| (path.clone(), *number)).collect();
    }

    fn check_empty(&self, path: &str) -> Result<(), Errno> {
        let is_empty = self.tree.list(path).is_none_or(|names| names.is_empty());
        if is_empty { Ok(()) } else { Err(Errno::NOTEMPTY) }
    }

    fn place(&self, directory: u64, name: &str) -> Result<Place, Errno> {
        let directory = self.directories.get(&directory).ok_or(Errno::NOTDIR)?.clone();
        if !self.tree.has_directory(&directory) {
            return Err(Errno::NOENT);
        }
        Ok(Place { directory, name: name.to_owned() })
    }

    fn file(&self, number: u64) -> Result<&Rc<Inode>, Errno> {
        self.files.get(&number).ok_or(if self.directories.contains_key(&number) { Errno::ISDIR } else { Errno::NOENT })
    }

    fn directory_number(&mut self, path: String) -> u64 {
        if let Some(number) = self.directory_numbers.get(&path) {
            return *number;
        }
        self.numbers += 2;
        self.directories.insert(self.numbers, path.clone());
        self.directory_numbers.insert(path, self.numbers);
        self.numbers
    }

    /// Lets go of files that have no name and are not open.
    fn forget_nameless(&mut self) {
        let open = &self.open;
        // Besides ours, the tree's volatile names, durable names and unsynced changes hold a file.
        self.files.retain(|number, inode| open.contains_key(number) || Rc::strong_count(inode) > 1);
    }
}

/// A file's number: even, so that it is never a directory's.
fn number_of(inode: &Inode) -> u64 {
    inode.id * 2
}
