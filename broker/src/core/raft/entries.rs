//! The entries that a node holds in memory: everything behind its oldest snapshot that a laggard may still want.
//! Not here: which of them are durable or committed (`Raft`).

use std::collections::VecDeque;

use super::message::{Entry, EntryId, Payload, Peer};

/// Entries in order, behind a base that a snapshot covers.
#[derive(Debug, Clone)]
pub(super) struct Entries {
    /// The last entry that is here no more; none where nothing was dropped.
    base: Option<EntryId>,
    entries: VecDeque<Entry>,
    /// Who votes from which index on, oldest first. The first holds at the base.
    voters: Vec<(u64, Vec<Peer>)>,
}

impl Entries {
    pub(super) fn new(base: Option<EntryId>, voters: Vec<Peer>) -> Entries {
        Entries { base, entries: VecDeque::new(), voters: vec![(0, voters)] }
    }

    /// Index of the oldest entry that is here.
    pub(super) fn start(&self) -> u64 {
        self.base.map_or(0, |id| id.index + 1)
    }

    /// Index of the next entry.
    pub(super) fn end(&self) -> u64 {
        self.start() + self.entries.len() as u64
    }

    /// The last entry, where there ever was one.
    pub(super) fn last(&self) -> Option<EntryId> {
        self.entries.back().map(|entry| entry.id).or(self.base)
    }

    /// The entry before an index: outer none where what follows it is here no more, inner none for the first index.
    pub(super) fn before(&self, index: u64) -> Option<Option<EntryId>> {
        match index.checked_sub(1) {
            None => (self.start() == 0).then_some(None),
            Some(previous) => self.id(previous).map(Some),
        }
    }

    /// The id of the entry at an index, the base's too.
    pub(super) fn id(&self, index: u64) -> Option<EntryId> {
        if let Some(base) = self.base
            && base.index == index
        {
            return Some(base);
        }
        self.get(index).map(|entry| entry.id)
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.start())?).ok()?)
    }

    pub(super) fn range(&self, from: u64) -> impl Iterator<Item = &Entry> {
        let skipped = from.saturating_sub(self.start()) as usize;
        self.entries.iter().skip(skipped)
    }

    /// Puts an entry at its index; what was there and behind it goes.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(entry.id.index >= self.start() && entry.id.index <= self.end(), "entries have no gaps");
        self.truncate(entry.id.index);
        if let Payload::Voters(voters) = &entry.payload {
            self.voters.push((entry.id.index, voters.clone()));
        }
        self.entries.push_back(entry);
    }

    fn truncate(&mut self, end: u64) {
        self.entries.truncate((end - self.start()) as usize);
        while self.voters.len() > 1 && self.voters.last().is_some_and(|(index, _)| *index >= end) {
            self.voters.pop();
        }
    }

    /// Forgets entries below an index, which a snapshot covers.
    pub(super) fn drop_below(&mut self, index: u64) {
        while self.start() < index.min(self.end()) {
            self.base = self.entries.pop_front().map(|entry| entry.id);
        }
        let start = self.start();
        while self.voters.get(1).is_some_and(|(from, _)| *from < start) {
            self.voters.remove(0);
        }
    }

    /// Takes a snapshot's place. Entries behind it stay where they follow on it.
    pub(super) fn reset(&mut self, base: EntryId, voters: Vec<Peer>) {
        if self.id(base.index) == Some(base) {
            self.drop_below(base.index + 1);
        } else {
            *self = Entries::new(Some(base), voters);
        }
    }

    /// Who votes, by the newest entry that says so, committed or not.
    pub(super) fn voters(&self) -> &[Peer] {
        self.voters.last().map_or(&[], |(_, voters)| voters)
    }

    /// Who voted just below an index: for a snapshot that ends there.
    pub(super) fn voters_below(&self, index: u64) -> &[Peer] {
        let known = self.voters.iter().rev().find(|(from, _)| *from < index || *from == 0);
        known.map_or(&[], |(_, voters)| voters)
    }

    /// Index of the newest entry that says who votes; none where that is older than what is here.
    pub(super) fn voters_index(&self) -> Option<u64> {
        if self.voters.len() > 1 { self.voters.last().map(|(index, _)| *index) } else { None }
    }
}
