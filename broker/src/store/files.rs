//! Segment files that are kept open, the least recently used closed first.

use std::collections::BTreeMap;

use crate::core::types::{LogId, Position};

type Key = (LogId, Position);

/// Open files, at most a fixed number.
pub(super) struct OpenFiles<F> {
    files: BTreeMap<Key, (F, u64)>,
    used: BTreeMap<u64, Key>,
    uses: u64,
    files_max: usize,
}

impl<F: Clone> OpenFiles<F> {
    pub(super) fn new(files_max: usize) -> OpenFiles<F> {
        OpenFiles { files: BTreeMap::new(), used: BTreeMap::new(), uses: 0, files_max: files_max.max(1) }
    }

    pub(super) fn find(&mut self, key: Key) -> Option<F> {
        let (file, used) = self.files.get_mut(&key)?;
        self.uses += 1;
        self.used.remove(used);
        self.used.insert(self.uses, key);
        *used = self.uses;
        Some(file.clone())
    }

    pub(super) fn insert(&mut self, key: Key, file: F) {
        self.remove(key);
        self.uses += 1;
        self.used.insert(self.uses, key);
        self.files.insert(key, (file, self.uses));
        while self.files.len() > self.files_max {
            let Some((_, oldest)) = self.used.pop_first() else { break };
            self.files.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        if let Some((_, used)) = self.files.remove(&key) {
            self.used.remove(&used);
        }
    }

    pub(super) fn remove_log(&mut self, log: LogId) {
        let keys: Vec<Key> =
            self.files.range((log, Position(0))..=(log, Position(u64::MAX))).map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_file_is_closed_first() {
        let key = |n| (LogId(1), Position(n));
        let mut files = OpenFiles::new(2);
        files.insert(key(1), 'a');
        files.insert(key(2), 'b');
        assert_eq!(files.find(key(1)), Some('a'));
        files.insert(key(3), 'c');
        assert_eq!((files.find(key(1)), files.find(key(2)), files.find(key(3))), (Some('a'), None, Some('c')));
        files.remove_log(LogId(1));
        assert_eq!(files.find(key(1)), None);
        assert!(files.used.is_empty());
    }
}
