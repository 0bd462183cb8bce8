//! Entries from the leader to its followers: appends, their acknowledgements, commitment, snapshots for laggards, and
//! the change of voters. Not here: terms and elections (`Raft`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::message::{Entry, EntryId, Payload, Peer, RaftBody, RaftMessage};
use super::{Persist, Promise, ProposeError, Raft, RaftOutput, Role};
use crate::core::types::NodeId;

/// What a leader knows.
#[derive(Debug)]
pub(super) struct Leadership {
    /// Index of its first entry.
    pub(super) began: u64,
    heartbeat_at: Duration,
    /// Everything below is durable here.
    own_match: u64,
    /// Voters and observers but itself.
    progress: BTreeMap<NodeId, Progress>,
    /// The snapshot that is being sent, and its last entry.
    snapshot: Option<(EntryId, Bytes)>,
}

/// How far a follower is.
#[derive(Debug)]
struct Progress {
    /// Everything below is durable there.
    matched: u64,
    /// The next entry to send.
    next: u64,
    /// Whether `next` is believed; otherwise one append at a time looks for it.
    is_streaming: bool,
    /// Bytes of the snapshot that were received, while one is being sent.
    snapshot_at: Option<u64>,
    /// When the newest message was sent that it answered.
    heard: Duration,
    /// When it was last asked where its log ends, or for how much of a snapshot it has; answers to older questions
    /// lead to no new ones, or every duplicate would live for ever.
    asked: Duration,
}

/// A snapshot that is coming in.
#[derive(Debug)]
pub(super) struct Receiving {
    last: EntryId,
    bytes: BytesMut,
    /// Complete, and handed out to be installed; whom to tell then.
    installing: Option<(NodeId, u64)>,
}

impl Leadership {
    pub(super) fn new(began: u64, now: Duration) -> Leadership {
        Leadership { began, heartbeat_at: now, own_match: 0, progress: BTreeMap::new(), snapshot: None }
    }

    /// When to give a sign of life; none where nobody listens.
    pub(super) fn deadline(&self) -> Option<Duration> {
        (!self.progress.is_empty()).then_some(self.heartbeat_at)
    }
}

impl Raft {
    /// Appends a record's bytes; gives its index.
    pub fn propose(&mut self, record: Bytes, now: Duration, output: &mut RaftOutput) -> Result<u64, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        let index = self.entries.end();
        self.append(Payload::Record(record), now, output);
        self.send_to_all(now, output);
        Ok(index)
    }

    /// Changes who votes, by one node.
    pub fn change_voters(
        &mut self,
        voters: Vec<Peer>,
        now: Duration,
        output: &mut RaftOutput,
    ) -> Result<u64, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        let added = voters.iter().filter(|peer| !self.voters().iter().any(|old| old.id == peer.id)).count();
        let removed = self.voters().iter().filter(|old| !voters.iter().any(|peer| old.id == peer.id)).count();
        if added + removed > 1 || voters.is_empty() {
            return Err(ProposeError::NotOne);
        }
        let is_pending = self.entries.voters_index().is_some_and(|index| index >= self.commit);
        // Two changes at once may have majorities that do not meet; neither may the first of a leader that does not
        // know yet what the one before it committed.
        if (is_pending || !self.is_settled_leader()) && !self.settings.hasty_voters {
            return Err(ProposeError::ChangeUnderWay);
        }
        let index = self.entries.end();
        self.append(Payload::Voters(voters), now, output);
        self.add_progress(now);
        self.send_to_all(now, output);
        Ok(index)
    }

    /// Sends entries to a node that does not vote, too.
    pub fn observe(&mut self, id: NodeId, now: Duration) {
        let next = self.entries.end();
        if id != self.settings.id
            && let Role::Leader(leadership) = &mut self.role
        {
            leadership.progress.entry(id).or_insert(Progress::new(next, now));
        }
    }

    /// Whether an observer has all entries but the newest few.
    pub fn has_caught_up(&self, id: NodeId) -> bool {
        let Role::Leader(leadership) = &self.role else { return false };
        leadership.progress.get(&id).is_some_and(|progress| progress.matched + CAUGHT_UP_ENTRIES >= self.commit)
    }

    /// What the entries up to `last` add up to, for those who need entries that are gone.
    pub fn offer_snapshot(&mut self, last: EntryId, bytes: Bytes, now: Duration, output: &mut RaftOutput) {
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.snapshot = Some((last, bytes));
        for progress in leadership.progress.values_mut().filter(|progress| progress.snapshot_at.is_some()) {
            progress.snapshot_at = Some(0);
        }
        self.send(now, true, None, output);
    }

    /// The snapshot that was handed out could not be made durable; the leader sends it again.
    pub fn abandon_install(&mut self) {
        self.receiving = None;
    }

    /// The snapshot that was handed out is durable, and the state is that of its last entry.
    pub fn installed(&mut self, last: EntryId, voters: Vec<Peer>, output: &mut RaftOutput) {
        self.entries.reset(last, voters);
        self.commit = self.commit.max(last.index + 1);
        self.applied = last.index + 1;
        let Some(Receiving { bytes, installing: Some((from, sent)), .. }) = self.receiving.take() else { return };
        let body = RaftBody::SnapshotReply { last, received: bytes.len() as u64, sent };
        output.messages.push((from, RaftMessage { term: self.term, body }));
    }

    pub(super) fn append(&mut self, payload: Payload, now: Duration, output: &mut RaftOutput) {
        let entry = Entry { id: EntryId { term: self.term, index: self.entries.end() }, payload };
        let end = entry.id.index + 1;
        self.entries.push(entry.clone());
        self.persist(Persist::Entry { entry, commit: self.commit }, output);
        self.promise(Promise::OwnMatch { term: self.term, end }, now, output);
    }

    /// Makes sure that every voter has its progress.
    pub(super) fn add_progress(&mut self, now: Duration) {
        let (others, next) = (self.other_voters(), self.entries.end());
        if let Role::Leader(leadership) = &mut self.role {
            for id in others {
                leadership.progress.entry(id).or_insert(Progress::new(next, now));
            }
        }
    }

    pub(super) fn on_own_match(&mut self, end: u64, now: Duration, output: &mut RaftOutput) {
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.own_match = leadership.own_match.max(end);
        self.advance_commit(now, output);
    }

    /// Signs of life to all; steps down where a majority was silent for an election time-out.
    pub(super) fn on_heartbeat_due(&mut self, now: Duration, output: &mut RaftOutput) {
        let silent_since = now.saturating_sub(self.settings.election_timeout * 2);
        let (id, is_voter) = (self.settings.id, self.is_voter());
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.heartbeat_at = now + self.settings.election_timeout / HEARTBEATS;
        let mut alive: std::collections::BTreeSet<NodeId> = leadership
            .progress
            .iter()
            .filter(|(_, progress)| progress.heard >= silent_since)
            .map(|(id, _)| *id)
            .collect();
        if is_voter {
            alive.insert(id);
        }
        if !self.is_majority(&alive) {
            return self.follow(self.term, None, now, output);
        }
        self.send(now, true, None, output);
    }

    pub(super) fn send_to_all(&mut self, now: Duration, output: &mut RaftOutput) {
        self.send(now, false, None, output);
    }

    /// Sends what each follower, or only one, lacks; as a sign of life also where that is nothing.
    fn send(&mut self, now: Duration, is_due: bool, only: Option<NodeId>, output: &mut RaftOutput) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let sent = now.as_micros() as u64;
        let mut is_snapshot_needed = false;
        // One that ends before the log begins leaves a gap; another is needed.
        let start = self.entries.start();
        if leadership.snapshot.as_ref().is_some_and(|(last, _)| last.index + 1 < start) {
            leadership.snapshot = None;
        }
        for (id, progress) in &mut leadership.progress {
            let is_behind = progress.next < self.entries.end();
            let is_wanted = is_due || (is_behind && progress.is_streaming);
            if !is_wanted || only.is_some_and(|only| only != *id) {
                continue;
            }
            if !progress.is_streaming {
                // As its answer will give it: in whole microseconds.
                progress.asked = Duration::from_micros(sent);
            }
            let previous = if progress.snapshot_at.is_some() { None } else { self.entries.before(progress.next) };
            let body = match (previous, &leadership.snapshot) {
                (Some(previous), _) => {
                    let entries = take_bounded(self.entries.range(progress.next));
                    if progress.is_streaming {
                        progress.next += entries.len() as u64;
                    }
                    RaftBody::Append { previous, entries, commit: self.commit, sent }
                }
                (None, Some((last, bytes))) => {
                    let at = *progress.snapshot_at.get_or_insert(0);
                    snapshot_part(*last, bytes, at, sent)
                }
                (None, None) => {
                    progress.snapshot_at = Some(0);
                    is_snapshot_needed = true;
                    // A sign of life at least, which cannot fit.
                    let previous = Some(EntryId { term: self.term, index: u64::MAX });
                    RaftBody::Append { previous, entries: Vec::new(), commit: 0, sent }
                }
            };
            output.messages.push((*id, RaftMessage { term: self.term, body }));
        }
        output.is_snapshot_wanted |= is_snapshot_needed;
    }

    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        previous: Option<EntryId>,
        entries: Vec<Entry>,
        commit: u64,
        sent: u64,
        output: &mut RaftOutput,
    ) {
        if self.receiving.as_ref().is_some_and(Receiving::is_installing) {
            // The state is about to become that of a snapshot.
            return;
        }
        let first = previous.map_or(0, |id| id.index.saturating_add(1));
        // What a snapshot covers is committed, so that it fits.
        let fits = first < self.entries.start() || self.entries.before(first) == Some(previous);
        if !fits {
            let retry = self.retry_from(first);
            let body = RaftBody::AppendReply { matched: None, retry, sent };
            output.messages.push((from, RaftMessage { term: self.term, body }));
            return;
        }
        let end = first + entries.len() as u64;
        for entry in entries {
            let index = entry.id.index;
            if index < self.entries.start() || self.entries.id(index) == Some(entry.id) {
                continue;
            }
            assert!(index >= self.commit || self.settings.hasty_voters, "a committed entry is never replaced");
            self.entries.push(entry.clone());
            self.persist(Persist::Entry { entry, commit: self.commit }, output);
        }
        self.commit = self.commit.max(commit.min(end));
        let body = RaftBody::AppendReply { matched: Some(end), retry: end, sent };
        self.promise(Promise::Send(from, RaftMessage { term: self.term, body }), Duration::ZERO, output);
    }

    /// Where a leader whose append did not fit may try again: behind the log's end, or before the term that differs.
    fn retry_from(&self, first: u64) -> u64 {
        let end = self.entries.end();
        if first > end {
            return end;
        }
        let mut index = first.saturating_sub(1);
        let term = self.entries.id(index).map(|id| id.term);
        while index > self.commit && self.entries.id(index - 1).map(|id| id.term) == term {
            index -= 1;
        }
        index.max(self.commit)
    }

    /// Tells a leader of the past that it is one.
    pub(super) fn refuse_append(&self, from: NodeId, sent: u64, output: &mut RaftOutput) {
        let body = RaftBody::AppendReply { matched: None, retry: self.entries.end(), sent };
        output.messages.push((from, RaftMessage { term: self.term, body }));
    }

    pub(super) fn on_append_reply(
        &mut self,
        from: NodeId,
        matched: Option<u64>,
        retry: u64,
        sent: u64,
        now: Duration,
        output: &mut RaftOutput,
    ) {
        let end = self.entries.end();
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(progress) = leadership.progress.get_mut(&from) else { return };
        progress.heard = progress.heard.max(Duration::from_micros(sent));
        match matched {
            Some(matched) if matched <= end => {
                progress.matched = progress.matched.max(matched);
                progress.next = progress.next.max(progress.matched);
                progress.is_streaming = true;
                progress.snapshot_at = None;
                let is_behind = progress.next < end;
                self.advance_commit(now, output);
                if is_behind {
                    self.send_to_all(now, output);
                }
            }
            // While a snapshot is on its way, what follows it cannot fit.
            Some(_) => {}
            None if progress.snapshot_at.is_some() => {}
            None if !progress.is_streaming && Duration::from_micros(sent) < progress.asked => {}
            None => {
                progress.is_streaming = false;
                progress.next = retry.min(progress.next.saturating_sub(1)).max(progress.matched);
                self.send(now, true, Some(from), output);
            }
        }
    }

    /// Commits what a majority has; only an entry of the own term proves it (figure 8 of the Raft paper).
    fn advance_commit(&mut self, now: Duration, output: &mut RaftOutput) {
        let id = self.settings.id;
        let Role::Leader(leadership) = &self.role else { return };
        let mut matched: Vec<u64> = self
            .voters()
            .iter()
            .map(|peer| match leadership.progress.get(&peer.id) {
                Some(progress) => progress.matched,
                None if peer.id == id => leadership.own_match,
                None => 0,
            })
            .collect();
        matched.sort_unstable();
        let Some(end) = matched.get((matched.len().max(1) - 1) / 2).copied() else { return };
        let is_own = end.checked_sub(1).and_then(|index| self.entries.id(index)).is_some_and(|e| e.term == self.term);
        if end <= self.commit || !is_own {
            return;
        }
        self.commit = end;
        // Followers answer their own callers when they have applied.
        self.send(now, true, None, output);
        if !self.is_voter() && self.entries.voters_index().is_none_or(|index| index < self.commit) {
            // It committed its own removal.
            self.follow(self.term, None, now, output);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of the message, and nothing else")]
    pub(super) fn on_snapshot_part(
        &mut self,
        from: NodeId,
        last: EntryId,
        at: u64,
        total: u64,
        part: &Bytes,
        sent: u64,
        output: &mut RaftOutput,
    ) {
        if last.index < self.commit {
            // An old part: all that it covers is here.
            let body = RaftBody::AppendReply { matched: Some(self.commit), retry: self.commit, sent };
            return self.promise(Promise::Send(from, RaftMessage { term: self.term, body }), Duration::ZERO, output);
        }
        if self.receiving.as_ref().is_some_and(Receiving::is_installing) {
            // Also a newer one waits: whichever of two were installed last would be the state.
            return;
        }
        let is_same = self.receiving.as_ref().is_some_and(|receiving| receiving.last == last);
        if !is_same {
            self.receiving = Some(Receiving { last, bytes: BytesMut::new(), installing: None });
        }
        let Some(receiving) = &mut self.receiving else { return };
        let end = at + part.len() as u64;
        let is_next = at == receiving.bytes.len() as u64 && end <= total;
        if is_next && end == total && self.durable != self.handed {
            // What the snapshot leaves of the log must be what the disk has of it. The part will come again.
            return;
        }
        if is_next && total <= SNAPSHOT_BYTES_MAX {
            receiving.bytes.extend_from_slice(part);
        }
        let received = receiving.bytes.len() as u64;
        if received == total && is_next {
            receiving.installing = Some((from, sent));
            output.install = Some((last, Bytes::copy_from_slice(&receiving.bytes)));
            return;
        }
        let body = RaftBody::SnapshotReply { last, received, sent };
        output.messages.push((from, RaftMessage { term: self.term, body }));
    }

    pub(super) fn on_snapshot_reply(
        &mut self,
        from: NodeId,
        last: EntryId,
        received: u64,
        sent: u64,
        now: Duration,
        output: &mut RaftOutput,
    ) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(progress) = leadership.progress.get_mut(&from) else { return };
        progress.heard = progress.heard.max(Duration::from_micros(sent));
        let Some((current, bytes)) = &leadership.snapshot else { return };
        let is_old = Duration::from_micros(sent) < progress.asked;
        if *current != last || progress.snapshot_at.is_none() || is_old {
            return;
        }
        if received < bytes.len() as u64 {
            progress.snapshot_at = Some(received);
        } else {
            progress.snapshot_at = None;
            progress.matched = progress.matched.max(last.index + 1);
            progress.next = last.index + 1;
            progress.is_streaming = true;
        }
        self.send(now, true, Some(from), output);
        if let Role::Leader(leadership) = &mut self.role
            && leadership.progress.values().all(|progress| progress.snapshot_at.is_none())
        {
            leadership.snapshot = None;
        }
        self.advance_commit(now, output);
    }
}

impl Receiving {
    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }
}

impl Progress {
    fn new(next: u64, now: Duration) -> Progress {
        Progress { matched: 0, next, is_streaming: false, snapshot_at: None, heard: now, asked: now }
    }
}

fn snapshot_part(last: EntryId, bytes: &Bytes, at: u64, sent: u64) -> RaftBody {
    let from = (at as usize).min(bytes.len());
    let part = bytes.slice(from..(from + PART_BYTES).min(bytes.len()));
    RaftBody::Snapshot { last, at, total: bytes.len() as u64, bytes: part, sent }
}

fn take_bounded<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Entry> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for entry in entries.take(APPEND_ENTRIES_MAX) {
        bytes += match &entry.payload {
            Payload::Record(record) => record.len(),
            Payload::Began | Payload::Voters(_) => 0,
        };
        if bytes > PART_BYTES && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

/// Signs of life per election time-out.
const HEARTBEATS: u32 = 4;
/// An observer that lacks no more entries than this may vote.
const CAUGHT_UP_ENTRIES: u64 = 16;
/// The most entries in one append.
const APPEND_ENTRIES_MAX: usize = 256;
/// About the most bytes in one append or part of a snapshot.
const PART_BYTES: usize = 256 << 10;
/// The largest snapshot that is taken.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;
