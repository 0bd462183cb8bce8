//! Fetch, versions 4 to 18: whole batches from the one that holds the offset, below the high watermark, at once or
//! when enough has come, at the latest after the wait that the request allows.
//! Departures from Kafka: no sessions (session id 0 is always a full fetch), isolation levels are alike; replicas have a
//! call of their own (`replica`), so that fetches come from clients alone, and only the leader answers them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{EpochEndOffset, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use super::gather::{Gather, ReadOwner};
use super::log::{Log, ReadError, ReadPiece};
use super::machine::{Answer, Core, Effects, RequestId};
use super::types::{LeaderEpoch, LogId, Now, Offset, QueueId};
use crate::points;
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// Fetches that wait for records or for the disk.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    parked: BTreeMap<RequestId, ParkedFetch>,
    waiters: BTreeMap<QueueId, BTreeSet<RequestId>>,
    woken: BTreeSet<RequestId>,
    reading: BTreeMap<RequestId, ReadingFetch>,
}

/// A fetch for which there is not enough yet.
#[derive(Debug)]
struct ParkedFetch {
    header: RequestHeader,
    request: FetchRequest,
    deadline: Duration,
    queues: Vec<QueueId>,
}

/// A fetch whose records are on their way from the disk.
#[derive(Debug)]
struct ReadingFetch {
    header: RequestHeader,
    response: FetchResponse,
    /// By partition over all topics.
    slots: Vec<Slot>,
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
    queues: Vec<QueueId>,
}

impl Fetches {
    pub(super) fn ids(&self, range: RangeInclusive<RequestId>) -> Vec<RequestId> {
        let parked = self.parked.range(range.clone()).map(|(id, _)| *id);
        parked.chain(self.reading.range(range).map(|(id, _)| *id)).collect()
    }

    pub(super) fn gather_of(&mut self, id: RequestId, slot: usize) -> Option<&mut Gather> {
        Some(&mut self.reading.get_mut(&id)?.slots.get_mut(slot)?.gather)
    }

    fn unpark(&mut self, id: RequestId) -> Option<ParkedFetch> {
        let parked = self.parked.remove(&id)?;
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
        if request.session_id != 0 {
            let error = ResponseError::FetchSessionIdNotFound.code();
            let response = Box::new(Response::Fetch(FetchResponse::default().with_error_code(error)));
            effects.replies.push((id, Answer::Response(header, response)));
            return;
        }
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let deadline = now.monotonic + wait;
        self.try_fetch(id, header, request, deadline, now, effects);
    }

    /// A queue's high watermark moved, or the queue is gone.
    pub(super) fn wake_fetches(&mut self, queue: QueueId) {
        if let Some(waiters) = self.fetches.waiters.get(&queue) {
            self.fetches.woken.extend(waiters.iter().copied());
        }
    }

    /// Everyone who waits for records of a log looks again: it is led from elsewhere now.
    pub(super) fn wake_fetches_of(&mut self, log: LogId) {
        let waited: Vec<QueueId> =
            self.fetches.waiters.keys().copied().filter(|queue| self.metadata.log_of(*queue) == Some(log)).collect();
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
        self.fetches.reading.remove(&id);
    }

    /// All pieces of one partition are there; answers when that was the last.
    pub(super) fn on_fetch_gathered(&mut self, id: RequestId, effects: &mut Effects) {
        let Some(reading) = self.fetches.reading.get(&id) else { return };
        if reading.slots.iter().all(|slot| slot.gather.is_complete())
            && let Some(done) = self.fetches.reading.remove(&id)
        {
            finish(id, done, effects);
        }
    }

    fn retry_fetch(&mut self, id: RequestId, now: Now, effects: &mut Effects) {
        let Some(parked) = self.fetches.unpark(id) else { return };
        self.clear_fetch_deadline(id, parked.deadline);
        self.try_fetch(id, parked.header, parked.request, parked.deadline, now, effects);
    }

    fn try_fetch(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: FetchRequest,
        deadline: Duration,
        now: Now,
        effects: &mut Effects,
    ) {
        let draft = self.draft_fetch(&header, &request);
        let bytes_minimum = usize::try_from(request.min_bytes).unwrap_or(0);
        if draft.has_error || draft.bytes >= bytes_minimum || deadline <= now.monotonic {
            return self.answer_fetch(id, header, draft, effects);
        }
        for queue in &draft.queues {
            self.fetches.waiters.entry(*queue).or_default().insert(id);
        }
        self.set_fetch_deadline(id, deadline);
        effects.points.push(points::FETCH_PARKED);
        self.fetches.parked.insert(id, ParkedFetch { header, request, deadline, queues: draft.queues });
    }

    fn answer_fetch(&mut self, id: RequestId, header: RequestHeader, draft: Draft, effects: &mut Effects) {
        let mut slots = Vec::with_capacity(draft.reads.len());
        for (topic, partition, pieces) in draft.reads {
            let gather = self.gather(ReadOwner::Fetch, id, slots.len(), pieces, effects);
            slots.push(Slot { topic, partition, gather });
        }
        let reading = ReadingFetch { header, response: draft.response, slots };
        if reading.slots.iter().all(|slot| slot.gather.is_complete()) {
            finish(id, reading, effects);
        } else {
            self.fetches.reading.insert(id, reading);
        }
    }

    fn draft_fetch(&self, header: &RequestHeader, request: &FetchRequest) -> Draft {
        let mut draft = Draft::default();
        let bytes_maximum = usize::try_from(request.max_bytes).unwrap_or(0).min(RESPONSE_BYTES_MAX);
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
                let data = PartitionData::default().with_partition_index(wanted.partition);
                partitions.push(match result {
                    Ok(read) => {
                        draft.queues.push(read.queue);
                        draft.bytes += read.bytes;
                        if !read.pieces.is_empty() {
                            draft.reads.push((topic_index, partition_index, read.pieces));
                        }
                        draft.has_error |= read.error.is_some() || read.diverging.is_some();
                        data.with_error_code(read.error.map_or(0, |error| error.code()))
                            .with_high_watermark(read.high_watermark.0)
                            .with_last_stable_offset(read.high_watermark.0)
                            .with_log_start_offset(read.log_start.0)
                            .with_diverging_epoch(read.diverging.unwrap_or_default())
                            .with_aborted_transactions(None)
                    }
                    Err(error) => {
                        draft.has_error = true;
                        data.with_error_code(error.code()).with_high_watermark(-1).with_aborted_transactions(None)
                    }
                });
            }
            let answer = FetchableTopicResponse::default().with_partitions(partitions);
            draft.response.responses.push(answer.with_topic(topic.topic.clone()).with_topic_id(topic.topic_id));
        }
        draft
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
                read.pieces = plan.pieces;
                read.bytes = plan.bytes;
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

struct PartitionRead {
    queue: QueueId,
    high_watermark: Offset,
    log_start: Offset,
    pieces: Vec<ReadPiece>,
    bytes: usize,
    error: Option<ResponseError>,
    /// Where the client's records and ours part ways.
    diverging: Option<EpochEndOffset>,
}

fn finish(id: RequestId, reading: ReadingFetch, effects: &mut Effects) {
    let ReadingFetch { header, mut response, slots } = reading;
    for slot in slots {
        let partition = &mut response.responses[slot.topic].partitions[slot.partition];
        match slot.gather.into_bytes() {
            Ok(bytes) => partition.records = Some(bytes),
            Err(error) => partition.error_code = error.code(),
        }
    }
    effects.replies.push((id, Answer::Response(header, Box::new(Response::Fetch(response)))));
}

/// The most bytes of records in one response, whatever the request asks; one batch may exceed it.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
