//! Raft over the metadata log: what it hands out to persist is appended there, one record a batch, and what it commits
//! is applied to the metadata. A record that takes the place of another is appended behind it, and overrides it when
//! the log is read again; nothing is cut. A snapshot holds the metadata, term and vote, and lets the log's head go.
//! Start at `Core::with_raft`. Not here: Raft itself (`raft`), and who waits for a change (`admin`).

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::batch::{self, Batch};
use super::config::NodeConfig;
use super::log::{DiskEffect, Log};
use super::machine::{Core, DeadlineOf, Effects, StartError};
use super::metadata::{Applied, Metadata, MetadataRecord, MetadataUnreadable};
use super::peer::PeerMessage;
use super::placement::DataFound;
use super::raft::message::{EntryId, Payload, Peer};
use super::raft::{Durable, Persist, Raft, RaftOutput, RaftSettings};
use super::types::{LeaderEpoch, LogId, NodeId, Now, Offset, Position, QueueId};
use crate::mutant::Mutant;
use crate::points;

/// Where entries are: their indices and their offsets in the log, both ascending.
type Places = VecDeque<(u64, i64)>;

/// A record of the metadata log as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StoredRecord {
    /// Raft's.
    Raft(Persist),
    /// The process ended cleanly: everything that it held was synced. Counts only as the last record.
    CleanEnd,
}

/// A record of the metadata with its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Envelope {
    /// The node that proposed it.
    pub(super) origin: NodeId,
    /// The process that did.
    pub(super) incarnation: u64,
    /// The proposal's number in that process.
    pub(super) tag: u64,
    /// The record's bytes.
    pub(super) record: Bytes,
}

/// A snapshot as it is on disk and on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Snapshot {
    /// The last entry that it covers.
    last: EntryId,
    /// Who voted there.
    voters: Vec<Peer>,
    /// The term and vote of the node that wrote it; on the wire they mean nothing.
    term: u64,
    vote: Option<NodeId>,
    /// Offset in the metadata log from which entries count.
    entries_from: i64,
    /// The metadata.
    metadata: Bytes,
}

/// A snapshot that is being written.
#[derive(Debug)]
struct Writing {
    name: String,
    last: EntryId,
    voters: Vec<Peer>,
    /// Records of the log below this offset are covered, but for entries behind the snapshot's.
    covers: i64,
    entries_from: i64,
    /// The state to take over, where it came from the leader.
    install: Option<Box<Metadata>>,
}

/// Raft and what is known about its records on disk.
#[derive(Debug)]
pub(super) struct Quorum {
    pub(super) raft: Raft,
    /// Handed out and not known to be durable, oldest first.
    unsynced: VecDeque<Persist>,
    /// How many records are durable, and how many were appended since the log was online last; durable <= appended.
    durable: u64,
    appended: u64,
    /// Where appended records end, and how many there are up to them.
    ends: VecDeque<(Position, u64)>,
    /// Where each entry is that no snapshot covers: its index and its offset in the log.
    places: Places,
    entries_from: i64,
    /// What the newest durable snapshot needs of the log. The log goes back to what the one before it needs, so that
    /// either can be started from; after a restart nobody knows, and the log stays as it is until the second snapshot.
    newest_needs: i64,
    writing: Option<Writing>,
    /// A snapshot from the leader that is written next: one at a time, so that the last to become durable is the newest.
    to_install: Option<(EntryId, Bytes)>,
    deadline: Option<std::time::Duration>,
    /// What the folder said about the process before.
    pub(super) found: DataFound,
    is_end_clean: bool,
}

impl Envelope {
    pub(super) fn encode(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("numbers and bytes are always representable"))
    }

    /// The record and its envelope; none where they are of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Envelope, MetadataRecord)> {
        let envelope: Envelope = postcard::from_bytes(bytes).ok()?;
        let record = MetadataRecord::decode(&envelope.record).ok()?;
        Some((envelope, record))
    }
}

impl Quorum {
    /// Takes up what the data folder holds, and the metadata as far as it is known to be committed.
    pub(super) fn recover(
        config: &NodeConfig,
        draw: u64,
        mutant: Option<Mutant>,
        snapshot: Option<Bytes>,
        batches: Vec<Bytes>,
        now: Now,
    ) -> Result<(Quorum, Metadata), StartError> {
        let is_new = snapshot.is_none() && batches.is_empty();
        let (mut durable, mut metadata, mut entries_from) = (Durable::default(), Metadata::new(), 0);
        if let Some(bytes) = snapshot {
            let snapshot = decode_snapshot(&bytes)?;
            metadata = Metadata::decode_snapshot(&snapshot.metadata)?;
            durable = Durable {
                term: snapshot.term,
                vote: snapshot.vote,
                base: Some(snapshot.last),
                voters: snapshot.voters,
                ..Durable::default()
            };
            entries_from = snapshot.entries_from;
        }
        metadata.set_mutant(mutant);
        let (places, is_end_clean) = replay(&mut durable, entries_from, mutant, batches)?;
        let settings = RaftSettings {
            id: NodeId(config.node_id),
            election_timeout: config.election_timeout,
            draw,
            hasty_voters: mutant == Some(Mutant::HastyVoters),
        };
        let found = match (is_new, is_end_clean) {
            (true, _) => DataFound::Nothing,
            (false, true) => DataFound::Clean,
            (false, false) => DataFound::Unclean,
        };
        let mut quorum = Quorum {
            raft: Raft::new(settings, durable, bootstrap(config), now.monotonic),
            unsynced: VecDeque::new(),
            durable: 0,
            appended: 0,
            ends: VecDeque::new(),
            places,
            entries_from,
            newest_needs: 0,
            writing: None,
            to_install: None,
            deadline: None,
            found,
            is_end_clean,
        };
        while let Some(entry) = quorum.raft.take_committed() {
            match entry.payload {
                Payload::Record(bytes) => drop(apply(&mut metadata, &bytes)),
                Payload::Began | Payload::Voters(_) => metadata.pass(),
            }
        }
        Ok((quorum, metadata))
    }

    /// Whether nothing is on its way to the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// What was appended and is not durable may be gone; it is appended again.
    pub(super) fn on_log_offline(&mut self) {
        self.ends.clear();
        self.appended = self.durable;
    }

    /// Appends what Raft handed out; what the log does not take waits until it is online.
    fn append(&mut self, log: &mut Log, now: Now, effects: &mut Vec<DiskEffect>) -> bool {
        let mut has_appended = false;
        while let Some(record) = self.unsynced.get((self.appended - self.durable) as usize) {
            let stored = StoredRecord::Raft(record.clone());
            let Some((offset, end)) = append_record(log, &stored, self.raft.term(), now, effects) else { break };
            if let Persist::Entry { entry, .. } = record {
                note_place(&mut self.places, entry.id.index, offset);
            }
            self.appended += 1;
            self.ends.push_back((end, self.appended));
            self.is_end_clean = false;
            has_appended = true;
        }
        has_appended
    }

    /// Everything below a position of the log is durable.
    fn on_counted(&mut self, counted: Position) -> bool {
        let before = self.durable;
        while self.ends.front().is_some_and(|(end, _)| *end <= counted) {
            let Some((_, count)) = self.ends.pop_front() else { break };
            self.unsynced.drain(..(count - self.durable) as usize);
            self.durable = count;
        }
        self.durable > before
    }

    fn encode_snapshot(&self, last: EntryId, voters: Vec<Peer>, entries_from: i64, metadata: Bytes) -> Bytes {
        let Persist::State { term, vote, .. } = self.raft.state() else { unreachable!("it is asked for the state") };
        let snapshot = Snapshot { last, voters, term, vote, entries_from, metadata };
        Bytes::from(postcard::to_stdvec(&snapshot).expect("numbers, texts and bytes are always representable"))
    }
}

impl Core {
    /// Lets Raft do something, and does what follows.
    pub(super) fn with_raft<T>(
        &mut self,
        now: Now,
        effects: &mut Effects,
        act: impl FnOnce(&mut Raft, &mut RaftOutput) -> T,
    ) -> T {
        let mut output = RaftOutput::default();
        let result = act(&mut self.quorum.raft, &mut output);
        self.perform_raft(output, now, effects);
        result
    }

    fn perform_raft(&mut self, output: RaftOutput, now: Now, effects: &mut Effects) {
        let RaftOutput { persist, messages, is_snapshot_wanted, install, has_role_changed } = output;
        if !persist.is_empty() {
            self.quorum.unsynced.extend(persist);
            self.append_raft_records(now, effects);
        }
        effects.peers.extend(messages.into_iter().map(|(to, message)| (to, PeerMessage::Raft(message))));
        if is_snapshot_wanted && let Some((last, voters)) = self.quorum.raft.applied() {
            let (_, metadata) = self.metadata.encode_snapshot();
            let bytes = self.quorum.encode_snapshot(last, voters, 0, metadata);
            self.with_raft(now, effects, |raft, output| raft.offer_snapshot(last, bytes, now.monotonic, output));
        }
        if install.is_some() {
            self.quorum.to_install = install;
            self.write_installed(effects);
        }
        self.note_raft_deadline();
        self.apply_committed(now, effects);
        if has_role_changed {
            self.on_controller_changed(now, effects);
        }
    }

    fn append_raft_records(&mut self, now: Now, effects: &mut Effects) {
        let log = self.logs.get_mut(&LogId::METADATA).expect("the metadata log lives as long as the core");
        if self.quorum.append(log, now, &mut effects.disk) {
            self.mark_dirty(LogId::METADATA);
        }
    }

    fn note_raft_deadline(&mut self) {
        let wanted = self.quorum.raft.deadline();
        if wanted == self.quorum.deadline {
            return;
        }
        if let Some(at) = std::mem::replace(&mut self.quorum.deadline, wanted) {
            self.clear_deadline(at, DeadlineOf::Raft);
        }
        if let Some(at) = wanted {
            self.set_deadline(at, DeadlineOf::Raft);
        }
    }

    pub(super) fn on_raft_deadline(&mut self, now: Now, effects: &mut Effects) {
        self.quorum.deadline = None;
        self.with_raft(now, effects, |raft, output| raft.on_deadline(now.monotonic, output));
    }

    pub(super) fn on_metadata_progress(&mut self, counted: Position, now: Now, effects: &mut Effects) {
        if self.quorum.on_counted(counted) {
            let durable = self.quorum.durable;
            self.with_raft(now, effects, |raft, output| raft.durable(durable, now.monotonic, output));
        }
    }

    pub(super) fn on_metadata_online(&mut self, now: Now, effects: &mut Effects) {
        self.append_raft_records(now, effects);
    }

    /// Writes down that the process ends cleanly; everything else must be synced. Whether there was something to do.
    /// A process that never registered leaves that out where it found traces of an unclean end: nobody has heard of
    /// them yet, and the next process is to tell them.
    pub fn end_cleanly(&mut self, now: Now, effects: &mut Effects) -> bool {
        let is_told = self.quorum.found == DataFound::Clean || self.broker_epoch().is_some();
        let log = self.logs.get_mut(&LogId::METADATA).expect("the metadata log lives as long as the core");
        let term = self.quorum.raft.term();
        if self.quorum.is_end_clean || !self.quorum.is_idle() || !is_told {
            return false;
        }
        self.quorum.is_end_clean = true;
        if append_record(log, &StoredRecord::CleanEnd, term, now, &mut effects.disk).is_some() {
            self.mark_dirty(LogId::METADATA);
        }
        true
    }

    fn apply_committed(&mut self, now: Now, effects: &mut Effects) {
        let mut has_applied = false;
        while let Some(entry) = self.quorum.raft.take_committed() {
            assert_eq!(entry.id.index as i64, self.metadata.record_next().0, "entries are applied in order");
            has_applied = true;
            match entry.payload {
                Payload::Record(bytes) => {
                    let Some((envelope, applied)) = apply(&mut self.metadata, &bytes) else { continue };
                    effects.points.push(points::METADATA_APPLIED);
                    let is_own = envelope.origin.0 == self.config.node_id && envelope.incarnation == self.incarnation;
                    self.on_applied(&applied, is_own, now, effects);
                    if is_own {
                        self.settle_proposal(envelope.tag, &applied, now, effects);
                    }
                }
                Payload::Began | Payload::Voters(_) => self.metadata.pass(),
            }
        }
        if has_applied {
            self.answer_init_producer_ids(now, effects);
            self.write_snapshot(effects);
        }
    }

    fn write_snapshot(&mut self, effects: &mut Effects) {
        let next = self.metadata.record_next();
        let records = next.0.saturating_sub(self.snapshot_at.0).unsigned_abs();
        // A snapshot costs as much as there is to tell of; so often that a record's share of it does not grow.
        let (topics, queues) = self.metadata.counts();
        let share = (topics + queues / QUEUES_A_TOPIC) as u64;
        if records < self.config.snapshot_records.max(share) || self.quorum.writing.is_some() {
            return;
        }
        let Some((last, voters)) = self.quorum.raft.applied() else { return };
        let (name, metadata) = self.metadata.encode_snapshot();
        let entries_from = self.quorum.entries_from;
        let bytes = self.quorum.encode_snapshot(last, voters.clone(), entries_from, metadata);
        let covers = self.metadata_log_end();
        self.quorum.writing = Some(Writing { name: name.clone(), last, voters, covers, entries_from, install: None });
        effects.disk.push(DiskEffect::WriteSnapshot { name, supersedes: false, bytes });
    }

    /// Makes a snapshot that came from the leader durable, once none of our own is on its way.
    fn write_installed(&mut self, effects: &mut Effects) {
        if self.quorum.writing.is_some() {
            return;
        }
        let Some((last, bytes)) = self.quorum.to_install.take() else { return };
        let decoded = decode_snapshot(&bytes).and_then(|s| Ok((Metadata::decode_snapshot(&s.metadata)?, s)));
        let Ok((mut metadata, snapshot)) = decoded else { return self.quorum.raft.abandon_install() };
        metadata.set_mutant(self.mutant);
        let keeps = self.quorum.raft.holds(last);
        let entries_from = if keeps { self.quorum.entries_from } else { self.metadata_log_end() };
        let (name, encoded) = metadata.encode_snapshot();
        let bytes = self.quorum.encode_snapshot(last, snapshot.voters.clone(), entries_from, encoded);
        let (voters, covers, install) = (snapshot.voters, self.metadata_log_end(), Some(Box::new(metadata)));
        self.quorum.writing = Some(Writing { name: name.clone(), last, voters, covers, entries_from, install });
        effects.events.push((points::SNAPSHOT_INSTALLED, 1));
        effects.disk.push(DiskEffect::WriteSnapshot { name, supersedes: true, bytes });
    }

    pub(super) fn on_snapshot(
        &mut self,
        name: &str,
        result: Result<(), std::io::ErrorKind>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(writing) = self.quorum.writing.take_if(|writing| writing.name == name) else { return };
        match (result, &writing.install) {
            (Ok(()), _) => self.on_snapshot_durable(writing, now, effects),
            // The leader sends it again.
            (Err(_), Some(_)) => self.quorum.raft.abandon_install(),
            // The log still holds every record; the next snapshot is tried after as many records again.
            (Err(_), None) => self.snapshot_at = self.metadata.record_next(),
        }
        self.write_installed(effects);
    }

    fn on_snapshot_durable(&mut self, writing: Writing, now: Now, effects: &mut Effects) {
        let Writing { last, voters, covers, entries_from, install, .. } = writing;
        let next = Offset(last.index as i64 + 1);
        self.snapshot_at = self.snapshot_at.max(next);
        self.quorum.entries_from = self.quorum.entries_from.max(entries_from);
        let is_covered = |(index, offset): &(u64, i64)| *index <= last.index || *offset < entries_from;
        while self.quorum.places.front().is_some_and(is_covered) {
            self.quorum.places.pop_front();
        }
        let is_only_one = install.is_some();
        match install {
            Some(metadata) => {
                self.install_metadata(*metadata, now, effects);
                self.with_raft(now, effects, |raft, output| raft.installed(last, voters, output));
            }
            None => {
                // Followers a little behind still get entries rather than a snapshot.
                let keep = self.config.snapshot_records / 2;
                self.quorum.raft.compact((last.index + 1).saturating_sub(keep));
            }
        }
        let needs = self.quorum.places.front().map_or(covers, |(_, offset)| covers.min(*offset));
        let before = std::mem::replace(&mut self.quorum.newest_needs, needs);
        let first = if is_only_one { needs } else { before };
        if let Some(log) = self.logs.get_mut(&LogId::METADATA) {
            log.apply_log_start(QueueId::METADATA, Offset(first));
            log.retain(now, &mut effects.disk);
        }
    }

    fn metadata_log_end(&self) -> i64 {
        self.logs.get(&LogId::METADATA).map_or(0, |log| log.log_end_offset(QueueId::METADATA).0)
    }
}

/// Reads the log's records behind a snapshot: where entries are, and whether the last process ended cleanly.
fn replay(
    durable: &mut Durable,
    entries_from: i64,
    mutant: Option<Mutant>,
    batches: Vec<Bytes>,
) -> Result<(Places, bool), StartError> {
    let mut places = VecDeque::new();
    let mut is_end_clean = false;
    for batch in batches {
        for record in batch::read_records(batch)? {
            let stored = postcard::from_bytes(&record.value.unwrap_or_default());
            let stored: StoredRecord = stored.map_err(MetadataUnreadable::record)?;
            is_end_clean = stored == StoredRecord::CleanEnd;
            let StoredRecord::Raft(persist) = stored else { continue };
            if let Persist::Entry { entry, .. } = &persist {
                if record.offset.0 < entries_from {
                    continue;
                }
                let end = durable.base.map_or(0, |base| base.index + 1) + durable.entries.len() as u64;
                if entry.id.index > end && mutant == Some(Mutant::UnreadableSnapshotIsNone) {
                    // The defect (nats-server #7556): as if nothing had been there before. What it listed are orphans then.
                    continue;
                }
                if entry.id.index > end {
                    let (expected, found) = (Offset(end as i64), Offset(entry.id.index as i64));
                    return Err(StartError::MetadataGap { expected, found });
                }
                note_place(&mut places, entry.id.index, record.offset.0);
            }
            durable.add(persist);
        }
    }
    Ok((places, is_end_clean))
}

/// Who votes in a cluster of which nothing is known yet.
fn bootstrap(config: &NodeConfig) -> Vec<Peer> {
    let own = NodeId(config.node_id);
    match (config.cluster.is_empty(), config.joins) {
        (_, true) => Vec::new(),
        (true, false) => {
            let (host, port) = match &config.advertised {
                Some(advertised) => (advertised.host.clone(), advertised.port),
                None => (config.listen.ip().to_string(), config.listen.port()),
            };
            vec![Peer { id: own, host, port }]
        }
        (false, false) => config.cluster.clone(),
    }
}

fn apply(metadata: &mut Metadata, bytes: &[u8]) -> Option<(Envelope, Applied)> {
    let Some((envelope, record)) = Envelope::decode(bytes) else {
        // Leaders check what they append: this is a record of a newer version, which every older node passes over.
        metadata.pass();
        return None;
    };
    let applied = metadata.apply(record);
    Some((envelope, applied))
}

fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, MetadataUnreadable> {
    postcard::from_bytes(bytes).map_err(MetadataUnreadable::snapshot)
}

fn append_record(
    log: &mut Log,
    record: &StoredRecord,
    term: u64,
    now: Now,
    effects: &mut Vec<DiskEffect>,
) -> Option<(i64, Position)> {
    let value = Bytes::from(postcard::to_stdvec(record).expect("numbers and bytes are always representable"));
    let batch = Batch::of_values(&[value], now.wall_ms);
    let epoch = LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX));
    let appended = log.append(QueueId::METADATA, batch, epoch, now, effects).ok()?;
    Some((appended.base_offset.0, appended.end))
}

/// An entry takes the place of those with its index and behind.
fn note_place(places: &mut Places, index: u64, offset: i64) {
    while places.back().is_some_and(|(last, _)| *last >= index) {
        places.pop_back();
    }
    places.push_back((index, offset));
}

/// So many queues cost a snapshot as much as a topic does.
const QUEUES_A_TOPIC: usize = 8;
