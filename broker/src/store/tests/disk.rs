//! A disk in memory for this crate's own tests: volatile and durable contents apart, power loss by sectors.
//! Not the simulated world's disk, which belongs to the judge and has many more faults.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, ready};
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use crate::ports::{Disk, Observer};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub(crate) struct MemoryDisk(Rc<RefCell<World>>);

#[derive(Default)]
struct World {
    names: BTreeMap<String, usize>,
    names_durable: BTreeMap<String, usize>,
    directories: BTreeSet<String>,
    files: Vec<Contents>,
    sync_fails: bool,
    full: bool,
    /// Changes until the process is killed: every later one fails, and changes nothing.
    changes_left: Option<usize>,
    locked: bool,
}

#[derive(Default)]
struct Contents {
    volatile: Vec<u8>,
    durable: Vec<u8>,
}

pub(crate) struct Unlock(MemoryDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.0.borrow_mut().locked = false;
    }
}

impl MemoryDisk {
    /// Everything unsynced is lost or kept, sector by sector and length by length, as `draw(bound)` says.
    pub(crate) fn lose_power(&self, mut draw: impl FnMut(usize) -> usize) {
        let world = &mut *self.0.borrow_mut();
        world.names = world.names_durable.clone();
        for file in &mut world.files {
            let (old, new) = (&file.durable, &file.volatile);
            let (low, high) = (old.len().min(new.len()), old.len().max(new.len()));
            let length = low + draw(high - low + 1);
            let mut bytes = vec![0; length];
            for begin in (0..length).step_by(SECTOR) {
                let end = (begin + SECTOR).min(length);
                let source = if draw(2) == 0 { old } else { new };
                let have = source.len().clamp(begin, end);
                bytes[begin..have].copy_from_slice(source.get(begin..have).unwrap_or_default());
            }
            file.volatile = bytes.clone();
            file.durable = bytes;
        }
    }

    pub(super) fn set_sync_fails(&self, fails: bool) {
        self.0.borrow_mut().sync_fails = fails;
    }

    /// Lets so many changes happen, and then none.
    pub(super) fn set_changes_left(&self, changes: Option<usize>) {
        self.0.borrow_mut().changes_left = changes;
    }

    fn change(&self) -> io::Result<()> {
        match &mut self.0.borrow_mut().changes_left {
            Some(0) => Err(io::Error::other("the process was killed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn set_full(&self, full: bool) {
        self.0.borrow_mut().full = full;
    }

    /// The names under a directory whose files end so.
    pub(super) fn paths(&self, directory: &str, ending: &str) -> Vec<String> {
        let world = self.0.borrow();
        world.names.keys().filter(|n| n.starts_with(directory) && n.ends_with(ending)).cloned().collect()
    }

    pub(super) fn contents(&self, path: &str) -> Vec<u8> {
        let world = self.0.borrow();
        world.files[world.names[path]].volatile.clone()
    }

    /// Removes a file's name, durably, if it is there.
    pub(super) fn forget(&self, path: &str) {
        let world = &mut *self.0.borrow_mut();
        world.names.remove(path);
        world.names_durable.remove(path);
    }

    /// Replaces a file's bytes, durably.
    pub(super) fn set_contents(&self, path: &str, bytes: &[u8]) {
        let world = &mut *self.0.borrow_mut();
        let file = &mut world.files[world.names[path]];
        (file.volatile, file.durable) = (bytes.to_vec(), bytes.to_vec());
    }
}

impl Disk for MemoryDisk {
    type File = usize;
    type Lock = Unlock;

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let world = self.0.borrow();
        if !directory.is_empty() && !world.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let all = world.names.keys().chain(&world.directories);
        let names = all.filter_map(|n| n.strip_prefix(&prefix)).filter(|n| !n.contains('/')).map(str::to_string);
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.0.borrow_mut().directories.insert(directory.to_string());
        Ok(())
    }

    fn lock_exclusive(&self, _path: &str) -> io::Result<Unlock> {
        if std::mem::replace(&mut self.0.borrow_mut().locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Unlock(self.clone()))
    }

    fn open(&self, path: &str, create: bool) -> io::Result<usize> {
        let world = &mut *self.0.borrow_mut();
        if let Some(file) = world.names.get(path) {
            return Ok(*file);
        }
        let directory_exists = path.rsplit_once('/').is_none_or(|(d, _)| world.directories.contains(d));
        if !create || !directory_exists {
            return Err(io::ErrorKind::NotFound.into());
        }
        if world.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        world.files.push(Contents::default());
        world.names.insert(path.to_string(), world.files.len() - 1);
        Ok(world.files.len() - 1)
    }

    fn length(&self, file: &usize) -> io::Result<u64> {
        Ok(self.0.borrow().files[*file].volatile.len() as u64)
    }

    fn read_at(&self, file: &usize, offset: u64, length: usize) -> io::Result<Bytes> {
        let world = self.0.borrow();
        let bytes = &world.files[*file].volatile;
        let from = (offset as usize).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[from..(from + length).min(bytes.len())]))
    }

    fn write_at(&self, file: &usize, offset: u64, parts: &[Bytes]) -> io::Result<()> {
        self.change()?;
        let world = &mut *self.0.borrow_mut();
        let bytes = &mut world.files[*file].volatile;
        let all = parts.concat();
        let kept = if world.full { all.len() / 2 } else { all.len() };
        let end = offset as usize + kept;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(&all[..kept]);
        if world.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn preallocate(&self, _file: &usize, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, file: &usize, length: u64) -> io::Result<()> {
        self.change()?;
        self.0.borrow_mut().files[*file].volatile.resize(length as usize, 0);
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.change()?;
        let world = &mut *self.0.borrow_mut();
        let inside = |name: &String| name.rsplit_once('/').map_or("", |(d, _)| d) == directory;
        world.names_durable.retain(|name, _| !inside(name));
        let now: Vec<_> = world.names.iter().filter(|(n, _)| inside(n)).map(|(n, f)| (n.clone(), *f)).collect();
        world.names_durable.extend(now);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change()?;
        let world = &mut *self.0.borrow_mut();
        let file = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(to.to_string(), file);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change()?;
        let world = &mut *self.0.borrow_mut();
        let removed = world.names.remove(path).is_some() || world.directories.remove(path);
        if removed { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn sync_file(&self, file: &usize) -> impl Future<Output = io::Result<()>> + 'static {
        let changed = self.change();
        let world = &mut *self.0.borrow_mut();
        if let Err(error) = changed {
            return ready(Err(error));
        }
        if world.sync_fails {
            return ready(Err(io::Error::other("sync fails")));
        }
        let file = &mut world.files[*file];
        file.durable = file.volatile.clone();
        ready(Ok(()))
    }

    fn read_cold(&self, file: &usize, offset: u64, length: usize) -> impl Future<Output = io::Result<Bytes>> + 'static {
        ready(self.read_at(file, offset, length))
    }
}

/// Counts what it hears.
#[derive(Clone, Default)]
pub(crate) struct Heard(pub(crate) Rc<RefCell<BTreeMap<&'static str, u64>>>);

impl Observer for Heard {
    fn point(&self, name: &'static str) {
        assert!(crate::points::POINTS.contains(&name), "{name} is not in the list of points");
        *self.0.borrow_mut().entry(name).or_default() += 1;
    }

    fn event(&self, name: &'static str, count: u64) {
        assert!(crate::points::EVENTS.contains(&name), "{name} is not in the list of events");
        *self.0.borrow_mut().entry(name).or_default() += count;
    }
}
