//! Fetch, versions 4 to 18: whole batches from the one that holds the offset, below the high watermark, at once or
//! when enough has come, at the latest after the wait that the request allows.
//! Incremental sessions are in `fetch_sessions`. Departures from Kafka: isolation levels are alike; replicas have a call of
//! their own (`replica`), so that fetches come from clients alone, and only the leader answers them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{EpochEndOffset, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use uuid::Uuid;

use super::fetch_sessions::FetchSessions;
use super::gather::{Gather, ReadOwner};
use super::log::{Log, ReadError, ReadPiece};
use super::machine::{Answer, Core, Effects, RequestId};
use super::types::{LeaderEpoch, LogId, Now, Offset, QueueId};
use crate::points;
use crate::wire::fetch::{FetchAnswer, FetchedRecords};
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// Fetches that wait for records or for the disk.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    parked: BTreeMap<RequestId, ParkedFetch>,
    sessions: FetchSessions,
    waiters: BTreeMap<QueueId, BTreeSet<RequestId>>,
    woken: BTreeSet<RequestId>,
    reading: BTreeMap<RequestId, ReadingFetch>,
    /// Bytes of records that are on their way from the disk.
    reading_bytes: usize,
    /// Bytes of records that may still be answered in this turn.
    room: usize,
}

/// A fetch for which there is not enough yet.
#[derive(Debug)]
struct ParkedFetch {
    header: RequestHeader,
    wanted: Wanted,
    deadline: Duration,
    queues: Vec<QueueId>,
}

/// What a fetch asks for.
#[derive(Debug)]
enum Wanted {
    /// The partitions that the request names.
    Named(FetchRequest),
    /// What has happened in a session.
    Session(SessionFetch),
}

/// A fetch in a session.
#[derive(Debug, Clone, Copy)]
struct SessionFetch {
    id: i32,
    bytes_minimum: i32,
    bytes_maximum: i32,
}

/// A fetch whose records are on their way from the disk.
#[derive(Debug)]
struct ReadingFetch {
    header: RequestHeader,
    response: FetchResponse,
    /// By partition over all topics.
    slots: Vec<Slot>,
    /// Bytes of all records.
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    topic: usize,
    partition: usize,
    gather: Gather,
}

/// What a fetch would answer now, its records not gathered yet.
#[derive(Default)]
struct Draft {
    response: FetchResponse,
    reads: Vec<(usize, usize, Vec<ReadPiece>)>,
    bytes: usize,
    has_error: bool,
    /// See `ReadPlan::is_cut`.
    is_cut: bool,
    queues: Vec<QueueId>,
    /// What a session's client will know: slot, high watermark and log start (none after an error, so that the state
    /// is told when the error is gone), whether there are records.
    told: Vec<(u64, Told, bool)>,
}

/// High watermark and log start as a session's client knows them.
type Told = Option<(Offset, Offset)>;

impl Fetches {
    /// No fetches; the seed makes the ids of sessions and differs from one process to the next.
    pub(super) fn new(session_seed: u64) -> Fetches {
        Fetches { sessions: FetchSessions::new(session_seed), ..Fetches::default() }
    }

    /// How many sessions are open.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn ids(&self, range: RangeInclusive<RequestId>) -> Vec<RequestId> {
        let parked = self.parked.range(range.clone()).map(|(id, _)| *id);
        parked.chain(self.reading.range(range).map(|(id, _)| *id)).collect()
    }

    pub(super) fn gather_of(&mut self, id: RequestId, slot: usize) -> Option<&mut Gather> {
        Some(&mut self.reading.get_mut(&id)?.slots.get_mut(slot)?.gather)
    }

    fn take_reading(&mut self, id: RequestId) -> Option<ReadingFetch> {
        let reading = self.reading.remove(&id)?;
        self.reading_bytes -= reading.bytes;
        Some(reading)
    }

    fn unpark(&mut self, id: RequestId) -> Option<ParkedFetch> {
        let parked = self.parked.remove(&id)?;
        if let Wanted::Session(fetch) = parked.wanted
            && let Some(session) = self.sessions.get_mut(fetch.id)
        {
            session.parked.remove(&id);
        }
        for queue in &parked.queues {
            if let Some(waiters) = self.waiters.get_mut(queue) {
                waiters.remove(&id);
                if waiters.is_empty() {
                    self.waiters.remove(queue);
                }
            }
        }
        Some(parked)
    }
}

impl Core {
    pub(super) fn fetch(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: FetchRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let deadline = now.monotonic + wait;
        match self.open_or_advance_session(&header, request, now, effects) {
            Ok(wanted) => self.try_fetch(id, header, wanted, deadline, now, effects),
            Err(error) => self.refuse_fetch(id, header, error, effects),
        }
    }

    /// What the request asks for, once its session is opened, advanced or closed as it says.
    fn open_or_advance_session(
        &mut self,
        header: &RequestHeader,
        request: FetchRequest,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Wanted, ResponseError> {
        let by_id = header.version >= 13;
        let (mut id, sessions) = (request.session_id, &mut self.fetches.sessions);
        if request.session_epoch > 0 {
            if !sessions.advance(&request, by_id, now.monotonic)? {
                return Ok(Wanted::Named(request.with_topics(Vec::new())));
            }
        } else {
            let left_over = sessions.close(id);
            id =
                if request.session_epoch == 0 { sessions.open(&request, by_id, now.monotonic).unwrap_or(0) } else { 0 };
            for waiting in left_over {
                self.retry_fetch(waiting, now, effects);
            }
        }
        if id == 0 {
            return Ok(Wanted::Named(request));
        }
        let (bytes_minimum, bytes_maximum) = (request.min_bytes, request.max_bytes);
        Ok(Wanted::Session(SessionFetch { id, bytes_minimum, bytes_maximum }))
    }

    fn refuse_fetch(&mut self, id: RequestId, header: RequestHeader, error: ResponseError, effects: &mut Effects) {
        let response = FetchResponse::default().with_error_code(error.code());
        effects.replies.push((id, Answer::Response(header, Box::new(Response::Fetch(response.into())))));
    }

    /// So many bytes of answers may be held from here on.
    pub fn set_answer_room(&mut self, bytes: usize) {
        self.fetches.room = bytes.saturating_sub(self.fetches.reading_bytes);
    }

    /// A queue's high watermark moved, or the queue is gone.
    pub(super) fn wake_fetches(&mut self, queue: QueueId) {
        if let Some(waiters) = self.fetches.waiters.get(&queue) {
            self.fetches.woken.extend(waiters.iter().copied());
        }
        self.fetches.sessions.wake(queue, &mut self.fetches.woken);
    }

    /// Everyone who waits for records of a log looks again: it is led from elsewhere now.
    pub(super) fn wake_fetches_of(&mut self, log: LogId) {
        let watched = self.fetches.waiters.keys().copied().chain(self.fetches.sessions.watched());
        let waited: Vec<QueueId> = watched.filter(|queue| self.metadata.log_of(*queue) == Some(log)).collect();
        waited.into_iter().for_each(|queue| self.wake_fetches(queue));
    }

    pub(super) fn retry_woken_fetches(&mut self, now: Now, effects: &mut Effects) {
        for id in std::mem::take(&mut self.fetches.woken) {
            self.retry_fetch(id, now, effects);
        }
    }

    pub(super) fn on_fetch_deadline(&mut self, id: RequestId, now: Now, effects: &mut Effects) {
        self.retry_fetch(id, now, effects);
    }

    pub(super) fn forget_fetch(&mut self, id: RequestId) {
        if let Some(parked) = self.fetches.unpark(id) {
            self.clear_fetch_deadline(id, parked.deadline);
        }
        self.fetches.take_reading(id);
    }

    /// All pieces of one partition are there; answers when that was the last.
    pub(super) fn on_fetch_gathered(&mut self, id: RequestId, effects: &mut Effects) {
        let Some(reading) = self.fetches.reading.get(&id) else { return };
        if reading.slots.iter().all(|slot| slot.gather.is_complete())
            && let Some(done) = self.fetches.take_reading(id)
        {
            finish(id, done, effects);
        }
    }

    fn retry_fetch(&mut self, id: RequestId, now: Now, effects: &mut Effects) {
        let Some(parked) = self.fetches.unpark(id) else { return };
        self.clear_fetch_deadline(id, parked.deadline);
        self.try_fetch(id, parked.header, parked.wanted, parked.deadline, now, effects);
    }

    fn try_fetch(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        wanted: Wanted,
        deadline: Duration,
        now: Now,
        effects: &mut Effects,
    ) {
        let (draft, bytes_minimum) = match &wanted {
            Wanted::Named(request) => (self.draft_fetch(&header, request), request.min_bytes),
            Wanted::Session(fetch) => match self.draft_session(*fetch) {
                Some(draft) => (draft, fetch.bytes_minimum),
                None => return self.refuse_fetch(id, header, ResponseError::FetchSessionIdNotFound, effects),
            },
        };
        let bytes_minimum = usize::try_from(bytes_minimum).unwrap_or(0);
        if draft.has_error || draft.is_cut || draft.bytes >= bytes_minimum || deadline <= now.monotonic {
            if let Wanted::Session(fetch) = wanted
                && let Some(session) = self.fetches.sessions.get_mut(fetch.id)
            {
                draft.told.iter().for_each(|(slot, told, has_records)| session.tell(*slot, *told, *has_records));
            }
            return self.answer_fetch(id, header, draft, effects);
        }
        for queue in &draft.queues {
            self.fetches.waiters.entry(*queue).or_default().insert(id);
        }
        if let Wanted::Session(fetch) = wanted
            && let Some(session) = self.fetches.sessions.get_mut(fetch.id)
        {
            session.parked.insert(id);
        }
        self.set_fetch_deadline(id, deadline);
        effects.points.push(points::FETCH_PARKED);
        self.fetches.parked.insert(id, ParkedFetch { header, wanted, deadline, queues: draft.queues });
    }

    fn answer_fetch(&mut self, id: RequestId, header: RequestHeader, draft: Draft, effects: &mut Effects) {
        let mut slots = Vec::with_capacity(draft.reads.len());
        for (topic, partition, pieces) in draft.reads {
            let gather = self.gather(ReadOwner::Fetch, id, slots.len(), pieces, effects);
            slots.push(Slot { topic, partition, gather });
        }
        let bytes = draft.bytes;
        self.fetches.room = self.fetches.room.saturating_sub(bytes);
        let reading = ReadingFetch { header, response: draft.response, slots, bytes };
        if reading.slots.iter().all(|slot| slot.gather.is_complete()) {
            finish(id, reading, effects);
        } else {
            self.fetches.reading_bytes += bytes;
            self.fetches.reading.insert(id, reading);
        }
    }

    /// The most bytes of records in one response now.
    fn response_bytes_max(&self) -> usize {
        self.fetches.room.clamp(RESPONSE_BYTES_MIN, RESPONSE_BYTES_MAX)
    }

    fn draft_fetch(&self, header: &RequestHeader, request: &FetchRequest) -> Draft {
        let mut draft = Draft::default();
        let bytes_maximum = usize::try_from(request.max_bytes).unwrap_or(0).min(self.response_bytes_max());
        let by_id = header.version >= 13;
        for (topic_index, topic) in request.topics.iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (partition_index, wanted) in topic.partitions.iter().enumerate() {
                let name =
                    if by_id { self.metadata.name_of(topic.topic_id.as_u128()) } else { Some(topic.topic.as_str()) };
                let left = bytes_maximum.saturating_sub(draft.bytes);
                let result = match name {
                    Some(name) => self.read_partition(name, wanted, left, draft.bytes == 0),
                    None => Err(ResponseError::UnknownTopicId),
                };
                if let Ok(read) = &result {
                    draft.queues.push(read.queue);
                }
                partitions.push(draft.take(topic_index, partition_index, wanted.partition, result));
            }
            let answer = FetchableTopicResponse::default().with_partitions(partitions);
            draft.response.responses.push(answer.with_topic(topic.topic.clone()).with_topic_id(topic.topic_id));
        }
        draft
    }

    /// As `draft_fetch`, for the partitions of a session in which something happened; none where the session is gone.
    fn draft_session(&mut self, fetch: SessionFetch) -> Option<Draft> {
        let mut draft = Draft::default();
        draft.response.session_id = fetch.id;
        let bytes_maximum = usize::try_from(fetch.bytes_maximum).unwrap_or(0).min(self.response_bytes_max());
        let mut topics: BTreeMap<(Uuid, &TopicName), usize> = BTreeMap::new();
        let (mut resting, mut watched) = (Vec::new(), Vec::new());
        let session = self.fetches.sessions.get(fetch.id)?;
        for (slot, partition) in session.ready() {
            let left = bytes_maximum.saturating_sub(draft.bytes);
            if left == 0 && draft.bytes > 0 {
                break;
            }
            let name = match partition.topic_id.is_nil() {
                true => Some(partition.topic.as_str()),
                false => self.metadata.name_of(partition.topic_id.as_u128()),
            };
            let result = match name {
                Some(name) => self.read_partition(name, &partition.wanted, left, draft.bytes == 0),
                None => Err(ResponseError::UnknownTopicId),
            };
            if let Ok(read) = &result {
                watched.push((slot, read.queue));
                let told = (read.high_watermark, read.log_start);
                if read.pieces.is_empty() && !read.is_wrong() && partition.told == Some(told) {
                    if partition.wanted.fetch_offset >= read.high_watermark.0 {
                        resting.push(slot);
                    }
                    continue;
                }
                let is_told = (!read.is_wrong()).then_some(told);
                draft.told.push((slot, is_told, !read.pieces.is_empty()));
            } else {
                draft.told.push((slot, None, false));
            }
            let responses = &mut draft.response.responses;
            let topic = *topics.entry((partition.topic_id, &partition.topic)).or_insert_with(|| {
                let answer = FetchableTopicResponse::default().with_topic(partition.topic.clone());
                responses.push(answer.with_topic_id(partition.topic_id));
                responses.len() - 1
            });
            let place = draft.response.responses[topic].partitions.len();
            let data = draft.take(topic, place, partition.wanted.partition, result);
            draft.response.responses[topic].partitions.push(data);
        }
        // The records of a response lie in the order of its partitions.
        draft.reads.sort_by_key(|(topic, partition, _)| (*topic, *partition));
        for (slot, queue) in watched {
            self.fetches.sessions.watch(fetch.id, slot, queue);
        }
        if let Some(session) = self.fetches.sessions.get_mut(fetch.id) {
            resting.into_iter().for_each(|slot| session.rest(slot));
        }
        Some(draft)
    }

    /// A log that is led from here; compares the epoch that a client believes in with ours, -1 believes nothing.
    pub(super) fn led_log(&self, id: LogId, believed: i32) -> Result<&Log, ResponseError> {
        let known = self.metadata.placement(id).map_or(-1, |placement| placement.leader_epoch);
        if believed > known {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        if believed != -1 && believed < known {
            return Err(ResponseError::FencedLeaderEpoch);
        }
        let log = self.logs.get(&id).filter(|log| log.leader_epoch().is_some());
        log.ok_or(ResponseError::NotLeaderOrFollower)
    }

    fn read_partition(
        &self,
        name: &str,
        wanted: &FetchPartition,
        bytes_left: usize,
        is_first: bool,
    ) -> Result<PartitionRead, ResponseError> {
        let unknown = ResponseError::UnknownTopicOrPartition;
        let topic = self.metadata.topic(name).ok_or(unknown)?;
        let index = usize::try_from(wanted.partition).map_err(|_| unknown)?;
        let partition = topic.partitions.get(index).ok_or(unknown)?;
        let log = self.led_log(partition.log(), wanted.current_leader_epoch)?;
        let queue = partition.queue();
        let mut read = PartitionRead {
            queue,
            high_watermark: log.high_watermark(queue),
            log_start: log.log_start_offset(queue),
            pieces: Vec::new(),
            bytes: 0,
            is_cut: false,
            error: None,
            diverging: None,
        };
        if wanted.last_fetched_epoch >= 0
            && let Some((epoch, end)) = log.end_offset_of_epoch(queue, LeaderEpoch(wanted.last_fetched_epoch))
            && (epoch.0 < wanted.last_fetched_epoch || end.0 < wanted.fetch_offset)
        {
            read.diverging = Some(EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0));
            return Ok(read);
        }
        let bytes_maximum = bytes_left.min(usize::try_from(wanted.partition_max_bytes).unwrap_or(0));
        if bytes_maximum == 0 && !is_first {
            return Ok(read);
        }
        match log.read(queue, Offset(wanted.fetch_offset), bytes_maximum, is_first) {
            Ok(plan) => {
                (read.pieces, read.bytes, read.is_cut) = (plan.pieces, plan.bytes, plan.is_cut);
            }
            // Between the high watermark and the log end there is nothing to read yet.
            Err(ReadError::OffsetOutOfRange { offset, .. })
                if offset > read.high_watermark && offset <= log.log_end_offset(queue) => {}
            Err(ReadError::OffsetOutOfRange { .. }) => read.error = Some(ResponseError::OffsetOutOfRange),
            Err(ReadError::QueueFenced) => read.error = Some(ResponseError::KafkaStorageError),
        }
        Ok(read)
    }
}

impl Draft {
    /// Adds what a partition's read found; gives its answer.
    fn take(
        &mut self,
        topic: usize,
        partition: usize,
        index: i32,
        result: Result<PartitionRead, ResponseError>,
    ) -> PartitionData {
        let data = PartitionData::default().with_partition_index(index).with_aborted_transactions(None);
        match result {
            Ok(read) => {
                self.bytes += read.bytes;
                self.has_error |= read.is_wrong();
                self.is_cut |= read.is_cut;
                if !read.pieces.is_empty() {
                    self.reads.push((topic, partition, read.pieces));
                }
                data.with_error_code(read.error.map_or(0, |error| error.code()))
                    .with_high_watermark(read.high_watermark.0)
                    .with_last_stable_offset(read.high_watermark.0)
                    .with_log_start_offset(read.log_start.0)
                    .with_diverging_epoch(read.diverging.unwrap_or_default())
            }
            Err(error) => {
                self.has_error = true;
                data.with_error_code(error.code()).with_high_watermark(-1)
            }
        }
    }
}

struct PartitionRead {
    queue: QueueId,
    high_watermark: Offset,
    log_start: Offset,
    pieces: Vec<ReadPiece>,
    bytes: usize,
    /// See `ReadPlan::is_cut`.
    is_cut: bool,
    error: Option<ResponseError>,
    /// Where the client's records and ours part ways.
    diverging: Option<EpochEndOffset>,
}

impl PartitionRead {
    /// Whether the client must hear of it at once.
    fn is_wrong(&self) -> bool {
        self.error.is_some() || self.diverging.is_some()
    }
}

fn finish(id: RequestId, reading: ReadingFetch, effects: &mut Effects) {
    let ReadingFetch { header, mut response, slots, bytes: _ } = reading;
    let mut records = Vec::with_capacity(slots.len());
    for Slot { topic, partition, gather } in slots {
        match gather.into_parts() {
            Ok(parts) => records.push(FetchedRecords { topic, partition, parts }),
            Err(error) => response.responses[topic].partitions[partition].error_code = error.code(),
        }
    }
    let answer = FetchAnswer { response, records };
    effects.replies.push((id, Answer::Response(header, Box::new(Response::Fetch(answer)))));
}

/// The most bytes of records in one response, whatever the request asks; one batch may exceed it.
const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// As much may be in one response however short memory is.
const RESPONSE_BYTES_MIN: usize = 64 << 10;
