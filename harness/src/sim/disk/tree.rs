//! The names of a drive: directories and their entries, volatile and durable apart.
//! A creation, rename or removal is one change, which a power loss keeps or drops as a whole. When it is durable, `Metadata`
//! says. Not here: contents of files, errors.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::contents::Contents;
use crate::plan::draws::draw_at;

/// When changes of names become durable: what a file system promises, or what the common ones do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metadata {
    /// With the sync of a directory that they touch, and no sooner; a power loss keeps or drops each independently. All
    /// that POSIX lets a program rely on.
    #[default]
    Posix,
    /// In the order in which they were made, as the journals of ext4 and XFS commit them: the sync of any file or directory
    /// commits all changes before it, so does time (`sync_all`), and a power loss keeps a prefix. The data of a file obey
    /// the same rules as under `Posix`: a name may outlive what was written under it. A length that was set as a whole,
    /// without a write, is a change of metadata too.
    Journal,
}

/// A file, whatever its names are.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Number of the file, unique on the drive.
    pub(crate) id: u64,
    pub(crate) contents: RefCell<Contents>,
    /// Bytes reserved by preallocation.
    pub(crate) reserved: std::cell::Cell<u64>,
}

impl Inode {
    /// Room that the file takes, in bytes.
    pub(crate) fn room(&self) -> u64 {
        self.contents.borrow().length().max(self.reserved.get())
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    File(Rc<Inode>),
    Directory,
}

/// Entries by directory and name; the root is the empty path and always there.
type Names = BTreeMap<String, BTreeMap<String, Entry>>;

#[derive(Debug)]
struct Change {
    id: u64,
    kind: ChangeKind,
}

#[derive(Debug)]
enum ChangeKind {
    Link { at: Place, entry: Entry },
    Unlink { at: Place },
    Rename { from: Place, to: Place, entry: Entry },
}

/// A directory and a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) directory: String,
    pub(crate) name: String,
}

impl Place {
    /// Splits a path at its last `/`.
    pub(crate) fn of(path: &str) -> Place {
        match path.rsplit_once('/') {
            Some((directory, name)) => Place { directory: directory.to_string(), name: name.to_string() },
            None => Place { directory: String::new(), name: path.to_string() },
        }
    }

    pub(crate) fn path(&self) -> String {
        if self.directory.is_empty() { self.name.clone() } else { format!("{}/{}", self.directory, self.name) }
    }
}

/// What a power loss took from the names.
#[derive(Debug, Default)]
pub(crate) struct NamesLost {
    /// Unsynced changes that did not survive.
    pub(crate) changes: u64,
    /// Files that had a name before and have none now.
    pub(crate) vanished: Vec<Rc<Inode>>,
}

#[derive(Debug)]
pub(crate) struct Tree {
    metadata: Metadata,
    volatile: Names,
    durable: Names,
    unsynced: Vec<Change>,
    /// Files that were made longer without a write since names were last committed; only where a journal has that.
    grown: Vec<Rc<Inode>>,
    changes: u64,
    inodes: u64,
}

impl Tree {
    pub(crate) fn new(metadata: Metadata) -> Tree {
        let root = Names::from([(String::new(), BTreeMap::new())]);
        Tree {
            metadata,
            volatile: root.clone(),
            durable: root,
            unsynced: Vec::new(),
            grown: Vec::new(),
            changes: 0,
            inodes: 0,
        }
    }

    /// When names become durable.
    pub(crate) fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// The file was made longer without a write.
    pub(crate) fn note_growth(&mut self, inode: &Rc<Inode>) {
        if self.metadata == Metadata::Journal && !self.grown.iter().any(|known| known.id == inode.id) {
            self.grown.push(inode.clone());
        }
    }

    pub(crate) fn has_directory(&self, directory: &str) -> bool {
        self.volatile.contains_key(directory)
    }

    /// Names in a directory, sorted; `None` where there is no such directory.
    pub(crate) fn list(&self, directory: &str) -> Option<Vec<String>> {
        Some(self.volatile.get(directory)?.keys().cloned().collect())
    }

    pub(crate) fn entry(&self, at: &Place) -> Option<&Entry> {
        self.volatile.get(&at.directory)?.get(&at.name)
    }

    /// Every file with a name, with its path, by path.
    pub(crate) fn files(&self) -> Vec<(String, Rc<Inode>)> {
        let mut files = Vec::new();
        for (directory, names) in &self.volatile {
            for (name, entry) in names {
                if let Entry::File(inode) = entry {
                    let at = Place { directory: directory.clone(), name: name.clone() };
                    files.push((at.path(), inode.clone()));
                }
            }
        }
        files
    }

    /// Room that files with a name take together, in bytes.
    pub(crate) fn room(&self) -> u64 {
        let entries = self.volatile.values().flat_map(BTreeMap::values);
        let rooms = entries.map(|entry| match entry {
            Entry::File(inode) => inode.room(),
            Entry::Directory => 0,
        });
        rooms.sum()
    }

    pub(crate) fn create_file(&mut self, at: Place) -> Rc<Inode> {
        self.inodes += 1;
        let inode = Rc::new(Inode { id: self.inodes, contents: RefCell::default(), reserved: std::cell::Cell::new(0) });
        self.change(ChangeKind::Link { at, entry: Entry::File(inode.clone()) });
        inode
    }

    pub(crate) fn create_directory(&mut self, at: Place) {
        self.change(ChangeKind::Link { at, entry: Entry::Directory });
    }

    pub(crate) fn rename(&mut self, from: Place, to: Place, entry: Entry) {
        self.change(ChangeKind::Rename { from, to, entry });
    }

    /// Renames a directory with all that is in it. Unlike every other change of names this is durable at once, and so
    /// are the unsynced changes below it: a drive that forgets it as a whole is among the states that a power loss
    /// leaves no more, so that the names of what is below stay one path each.
    pub(crate) fn rename_directory(&mut self, from: &Place, to: &Place) {
        let (old, new) = (from.path(), to.path());
        let is_within = |path: &str| path == old || path.strip_prefix(&old).is_some_and(|rest| rest.starts_with('/'));
        let within: Vec<String> = self.volatile.keys().filter(|path| is_within(path)).cloned().collect();
        for directory in within.iter().map(String::as_str).chain([&*from.directory, &*to.directory]) {
            self.sync_directory(directory);
        }
        for names in [&mut self.volatile, &mut self.durable] {
            for path in &within {
                if let Some(entries) = names.remove(path) {
                    names.insert(format!("{new}{}", &path[old.len()..]), entries);
                }
            }
            if let Some(entries) = names.get_mut(&from.directory) {
                entries.remove(&from.name);
            }
            insert(names, to, &Entry::Directory);
        }
    }

    /// Makes every name durable, and what a journal holds beside names.
    pub(crate) fn sync_all(&mut self) {
        for inode in self.grown.drain(..) {
            inode.contents.borrow_mut().commit_jumps();
        }
        for change in std::mem::take(&mut self.unsynced) {
            apply(&mut self.durable, &change.kind);
        }
    }

    pub(crate) fn remove(&mut self, at: Place) {
        self.change(ChangeKind::Unlink { at });
    }

    /// What the sync of a file makes durable of the names: all before it where they are kept in a journal, else none.
    pub(crate) fn sync_file(&mut self) {
        if self.metadata == Metadata::Journal {
            self.sync_all();
        }
    }

    /// Makes every change that touches the directory durable, in order; with a journal every change there is.
    pub(crate) fn sync_directory(&mut self, directory: &str) {
        if self.metadata == Metadata::Journal {
            return self.sync_all();
        }
        let unsynced = std::mem::take(&mut self.unsynced);
        for change in unsynced {
            if change.kind.touches(directory) {
                apply(&mut self.durable, &change.kind);
            } else {
                self.unsynced.push(change);
            }
        }
    }

    /// Each unsynced change survives or not, by the salt: independently, or with a journal those before a point of it.
    pub(crate) fn power_loss(&mut self, salt: u64) -> NamesLost {
        let before = self.files();
        self.grown.clear();
        let mut lost = NamesLost::default();
        let survival = [0, 1, 4, 7, 8][(draw_at(salt, "survival", 0, 0) % 5) as usize];
        let committed = draw_at(salt, "committed", 0, 0) % (self.unsynced.len() as u64 + 1);
        for (nth, change) in (0..).zip(std::mem::take(&mut self.unsynced)) {
            let survives = match self.metadata {
                Metadata::Posix => draw_at(salt, "entry", change.id, 0) % 8 < survival,
                Metadata::Journal => nth < committed,
            };
            if survives {
                apply(&mut self.durable, &change.kind);
            } else {
                lost.changes += 1;
            }
        }
        prune(&mut self.durable);
        self.volatile = self.durable.clone();
        let remaining: BTreeSet<u64> = self.files().iter().map(|(_, inode)| inode.id).collect();
        for (_, inode) in before {
            if !remaining.contains(&inode.id) {
                lost.vanished.push(inode);
            }
        }
        lost
    }

    fn change(&mut self, kind: ChangeKind) {
        apply(&mut self.volatile, &kind);
        self.changes += 1;
        self.unsynced.push(Change { id: self.changes, kind });
    }
}

impl ChangeKind {
    fn touches(&self, directory: &str) -> bool {
        match self {
            ChangeKind::Link { at, .. } | ChangeKind::Unlink { at } => at.directory == directory,
            ChangeKind::Rename { from, to, .. } => from.directory == directory || to.directory == directory,
        }
    }
}

fn apply(names: &mut Names, kind: &ChangeKind) {
    match kind {
        ChangeKind::Link { at, entry } => insert(names, at, entry),
        ChangeKind::Unlink { at } => {
            let removed = names.get_mut(&at.directory).and_then(|entries| entries.remove(&at.name));
            if matches!(removed, Some(Entry::Directory)) {
                names.remove(&at.path());
            }
        }
        ChangeKind::Rename { from, to, entry } => {
            // Where the source's creation was dropped, the name now may be another file's: it stays.
            if let Some(entries) = names.get_mut(&from.directory)
                && entries.get(&from.name).is_some_and(|there| is_same(there, entry))
            {
                entries.remove(&from.name);
            }
            insert(names, to, entry);
        }
    }
}

fn insert(names: &mut Names, at: &Place, entry: &Entry) {
    if matches!(entry, Entry::Directory) {
        names.entry(at.path()).or_default();
    }
    names.entry(at.directory.clone()).or_default().insert(at.name.clone(), entry.clone());
}

fn is_same(left: &Entry, right: &Entry) -> bool {
    match (left, right) {
        (Entry::File(left), Entry::File(right)) => left.id == right.id,
        (Entry::Directory, Entry::Directory) => true,
        (Entry::File(_), Entry::Directory) | (Entry::Directory, Entry::File(_)) => false,
    }
}

/// Removes directories that no entry leads to any more; parents sort before their children.
fn prune(names: &mut Names) {
    let mut reachable = BTreeSet::from([String::new()]);
    for directory in names.keys() {
        let at = Place::of(directory);
        let is_entry = matches!(names.get(&at.directory).and_then(|n| n.get(&at.name)), Some(Entry::Directory));
        if is_entry && reachable.contains(&at.directory) {
            reachable.insert(directory.clone());
        }
    }
    names.retain(|directory, _| reachable.contains(directory));
}
