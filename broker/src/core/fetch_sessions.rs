//! Incremental fetch sessions (KIP-227): a client names its partitions once and then only what changes, and is answered
//! only what changed. The work of a fetch is proportional to the partitions in which something happened since the last.
//! Sessions are bounded in number and in partitions; one that was not used for a while gives way to a new one, and a
//! client whose session is gone begins another. Not here: reading and waiting (`fetch`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::{FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::machine::RequestId;
use super::types::{Offset, QueueId};

/// The sessions of a node.
#[derive(Debug, Default)]
pub(super) struct FetchSessions {
    sessions: BTreeMap<i32, Session>,
    /// By the time of their last use.
    by_use: BTreeSet<(Duration, i32)>,
    /// Which sessions have a queue, and in which slot.
    watchers: BTreeMap<QueueId, BTreeSet<(i32, u64)>>,
    /// Partitions of all sessions.
    partitions: usize,
    /// Makes ids that clients of an earlier process do not know.
    seed: u64,
    created: u64,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    /// The epoch of the next request.
    epoch: i32,
    /// Whether topics are named by id.
    by_id: bool,
    used: Duration,
    slots: BTreeMap<u64, SessionPartition>,
    slot_next: u64,
    places: BTreeMap<(Uuid, TopicName, i32), u64>,
    /// Slots to look at in the next fetch, those that were answered least recently first.
    ready: BTreeMap<u64, u64>,
    turn_next: u64,
    /// Fetches that wait.
    pub(super) parked: BTreeSet<RequestId>,
}

/// A partition of a session.
#[derive(Debug)]
pub(super) struct SessionPartition {
    pub(super) topic: TopicName,
    pub(super) topic_id: Uuid,
    pub(super) wanted: FetchPartition,
    /// High watermark and log start as the client knows them.
    pub(super) told: Option<(Offset, Offset)>,
    queue: Option<QueueId>,
    /// Its key among those that are ready.
    turn: Option<u64>,
}

impl FetchSessions {
    /// No sessions; the seed differs from one process to the next.
    pub(super) fn new(seed: u64) -> FetchSessions {
        FetchSessions { seed, ..FetchSessions::default() }
    }

    /// Opens a session over the request's partitions; none where there is no room for it.
    pub(super) fn open(&mut self, request: &FetchRequest, by_id: bool, now: Duration) -> Option<i32> {
        let partitions: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        if partitions == 0 || !self.make_room(partitions, now) {
            return None;
        }
        let id = self.new_id();
        let session = Session {
            epoch: 1,
            by_id,
            used: now,
            slots: BTreeMap::new(),
            slot_next: 0,
            places: BTreeMap::new(),
            ready: BTreeMap::new(),
            turn_next: 0,
            parked: BTreeSet::new(),
        };
        self.by_use.insert((now, id));
        self.sessions.insert(id, session);
        self.update(id, request);
        Some(id)
    }

    /// Takes in an incremental request; whether the session has any partition left. A session without is closed.
    pub(super) fn advance(
        &mut self,
        request: &FetchRequest,
        by_id: bool,
        now: Duration,
    ) -> Result<bool, ResponseError> {
        let id = request.session_id;
        let session = self.sessions.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        self.by_use.remove(&(session.used, id));
        session.used = now;
        self.by_use.insert((now, id));
        for topic in &request.forgotten_topics_data {
            for partition in &topic.partitions {
                self.forget(id, &(topic.topic_id, topic.topic.clone(), *partition));
            }
        }
        self.update(id, request);
        let is_empty = self.sessions.get(&id).is_some_and(|session| session.slots.is_empty());
        if is_empty {
            self.close(id);
        }
        Ok(!is_empty)
    }

    /// Ends a session, if there is one of that id; the fetches that waited in it.
    pub(super) fn close(&mut self, id: i32) -> BTreeSet<RequestId> {
        let Some(session) = self.sessions.remove(&id) else { return BTreeSet::new() };
        self.by_use.remove(&(session.used, id));
        self.partitions -= session.slots.len();
        for (slot, partition) in session.slots {
            if let Some(queue) = partition.queue {
                self.unwatch(queue, id, slot);
            }
        }
        session.parked
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn get(&self, id: i32) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: i32) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// Something happened to a queue: its partitions are looked at again, and the fetches that wait for it are woken.
    pub(super) fn wake(&mut self, queue: QueueId, woken: &mut BTreeSet<RequestId>) {
        for (id, slot) in self.watchers.get(&queue).into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(id) {
                session.mark_ready(*slot);
                woken.extend(session.parked.iter().copied());
            }
        }
    }

    /// The queues that sessions watch.
    pub(super) fn watched(&self) -> impl Iterator<Item = QueueId> {
        self.watchers.keys().copied()
    }

    /// Has a partition woken by its queue.
    pub(super) fn watch(&mut self, id: i32, slot: u64, queue: QueueId) {
        let Some(partition) = self.sessions.get_mut(&id).and_then(|session| session.slots.get_mut(&slot)) else {
            return;
        };
        let before = partition.queue.replace(queue);
        if before == Some(queue) {
            return;
        }
        if let Some(before) = before {
            self.unwatch(before, id, slot);
        }
        self.watchers.entry(queue).or_default().insert((id, slot));
    }

    fn unwatch(&mut self, queue: QueueId, id: i32, slot: u64) {
        if let Some(watchers) = self.watchers.get_mut(&queue) {
            watchers.remove(&(id, slot));
            if watchers.is_empty() {
                self.watchers.remove(&queue);
            }
        }
    }

    fn update(&mut self, id: i32, request: &FetchRequest) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for topic in &request.topics {
            // A copy: the request's own lies in the buffer that it was read into.
            let name = TopicName(StrBytes::from_string(topic.topic.to_string()));
            for wanted in &topic.partitions {
                let key = (topic.topic_id, name.clone(), wanted.partition);
                let slot = session.places.get(&key).copied().unwrap_or_else(|| {
                    session.slot_next += 1;
                    session.places.insert(key, session.slot_next);
                    session.slot_next
                });
                let partition = session.slots.entry(slot).or_insert_with(|| {
                    self.partitions += 1;
                    SessionPartition {
                        topic: name.clone(),
                        topic_id: topic.topic_id,
                        wanted: FetchPartition::default(),
                        told: None,
                        queue: None,
                        turn: None,
                    }
                });
                partition.wanted = wanted.clone();
                session.mark_ready(slot);
            }
        }
    }

    fn forget(&mut self, id: i32, key: &(Uuid, TopicName, i32)) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(slot) = session.places.remove(key) else { return };
        let Some(partition) = session.slots.remove(&slot) else { return };
        self.partitions -= 1;
        if let Some(turn) = partition.turn {
            session.ready.remove(&turn);
        }
        if let Some(queue) = partition.queue {
            self.unwatch(queue, id, slot);
        }
    }

    /// Whether there is room for a session of so many partitions, after those in nobody's use have given way.
    fn make_room(&mut self, partitions: usize, now: Duration) -> bool {
        while self.sessions.len() >= SESSIONS_MAX || self.partitions + partitions > PARTITIONS_MAX {
            let Some((used, id)) = self.by_use.first().copied() else { return false };
            let is_waiting = self.sessions.get(&id).is_some_and(|session| !session.parked.is_empty());
            if is_waiting || now.saturating_sub(used) < IDLE_MIN {
                return false;
            }
            self.close(id);
        }
        true
    }

    fn new_id(&mut self) -> i32 {
        loop {
            self.created += 1;
            let id = (mix(self.seed.wrapping_add(self.created)) >> 33) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Session {
    /// The partitions to look at, in order, with their slots.
    pub(super) fn ready(&self) -> impl Iterator<Item = (u64, &SessionPartition)> {
        self.ready.values().filter_map(|slot| Some((*slot, self.slots.get(slot)?)))
    }

    /// There is nothing to be told about a partition until its queue wakes it.
    pub(super) fn rest(&mut self, slot: u64) {
        if let Some(turn) = self.slots.get_mut(&slot).and_then(|partition| partition.turn.take()) {
            self.ready.remove(&turn);
        }
    }

    /// The client is told a partition's state; one that had records goes behind the others.
    pub(super) fn tell(&mut self, slot: u64, told: Option<(Offset, Offset)>, had_records: bool) {
        if let Some(partition) = self.slots.get_mut(&slot) {
            partition.told = told;
        }
        if had_records {
            self.rest(slot);
            self.mark_ready(slot);
        }
    }

    fn mark_ready(&mut self, slot: u64) {
        let Some(partition) = self.slots.get_mut(&slot) else { return };
        if partition.turn.is_none() {
            self.turn_next += 1;
            partition.turn = Some(self.turn_next);
            self.ready.insert(self.turn_next, slot);
        }
    }
}

/// Spreads a number over all 64 bits.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The most sessions, as many as Kafka's default.
const SESSIONS_MAX: usize = 1000;
/// The most partitions of all sessions; each costs some 300 bytes.
const PARTITIONS_MAX: usize = 400_000;
/// A session that was used more recently does not give way to a new one.
const IDLE_MIN: Duration = Duration::from_secs(120);

#[cfg(test)]
#[path = "fetch_sessions_tests.rs"]
mod tests;
