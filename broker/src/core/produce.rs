//! Produce, versions 3 to 13: batches are checked, appended, and answered when the log's counted position has passed.
//! acks=all waits for the high watermark; acks=1 for the leader's own counted position, which under `flush=ack` is durable.
//! Departures from Kafka: transactional batches are refused; what waits when
//! the in-sync set falls below its minimum, or when leadership goes, is answered NOT_ENOUGH_REPLICAS_AFTER_APPEND at once.
//! The leader epoch that a batch carries is overwritten.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::batch::Batch;
use super::group::OFFSETS_TOPIC;
use super::log::{AppendError, Replication};
use super::machine::{Answer, Core, Effects, RequestId};
use super::metadata::{Partition, Topic};
use super::placement::Placement;
use super::records;
use super::types::{LogId, Now, Offset, Position};
use crate::points;
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// Appends that are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct Produces {
    /// Boxed: the map moves what it holds at every insertion and removal.
    pending: BTreeMap<RequestId, Box<PendingProduce>>,
    /// Per log by the position that confirms; of equal ones the first comes first. None is empty.
    waits: BTreeMap<(LogId, Confirmation), VecDeque<Wait>>,
    /// Batches appended since the start, and their bytes.
    appends: u64,
    append_bytes: u64,
}

#[derive(Debug)]
struct PendingProduce {
    header: RequestHeader,
    response: ProduceResponse,
    outstanding: usize,
    /// When it is answered with REQUEST_TIMED_OUT; none where only this node's disk is waited for.
    deadline: Option<Duration>,
    /// Nothing is answered (acks=0); what is owed is only the place that the request takes until it is confirmed.
    is_silent: bool,
}

impl PendingProduce {
    fn answer(self) -> Answer {
        match self.is_silent {
            true => Answer::Nothing,
            false => Answer::Response(self.header, Box::new(Response::Produce(self.response))),
        }
    }
}

/// What an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Confirmation {
    Watermark,
    Counted,
}

/// The place of an answer that waits.
#[derive(Debug, Clone, Copy)]
struct Wait {
    end: Position,
    id: RequestId,
    topic: usize,
    partition: usize,
}

/// What an append waits for.
struct Accepted {
    log: LogId,
    base_offset: Offset,
    log_start: Offset,
    /// The time that its records got; -1 where they keep their own.
    append_time_ms: i64,
    end: Position,
    by: Confirmation,
    is_replicated: bool,
    confirmed: bool,
}

/// Why an append was refused.
struct Refused {
    error: ResponseError,
    message: Option<String>,
    /// The records that are to blame, by their place in the batch (KIP-467): a client may send the others again.
    records: Vec<i32>,
}

impl Refused {
    fn with(error: ResponseError) -> Refused {
        Refused { error, message: None, records: Vec::new() }
    }

    fn because(error: ResponseError, message: impl Into<String>) -> Refused {
        Refused { message: Some(message.into()), ..Refused::with(error) }
    }
}

impl Produces {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Batches appended since the start, and their bytes.
    pub(super) fn appended(&self) -> (u64, u64) {
        (self.appends, self.append_bytes)
    }

    fn wait(&mut self, log: LogId, by: Confirmation, wait: Wait) {
        let waits = self.waits.entry((log, by)).or_default();
        // Only a retry waits for less than what was appended last.
        let place = match waits.back() {
            Some(last) if last.end > wait.end => waits.partition_point(|other| other.end <= wait.end),
            Some(_) | None => waits.len(),
        };
        waits.insert(place, wait);
    }
}

impl Core {
    pub(super) fn produce(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: ProduceRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let (acks, timeout_ms) = (request.acks, request.timeout_ms);
        let by_id = header.version >= 13;
        let (mut failed, mut is_replicated) = (false, false);
        let mut outstanding = 0;
        let mut responses = Vec::with_capacity(request.topic_data.len());
        for (topic_index, data) in request.topic_data.into_iter().enumerate() {
            let mut partitions = Vec::with_capacity(data.partition_data.len());
            for (partition_index, partition) in data.partition_data.into_iter().enumerate() {
                let place = if by_id {
                    self.place_by_id(data.topic_id.as_u128(), partition.index)
                } else {
                    self.place(&data.name, partition.index)
                };
                let result = place.and_then(|place| self.append(place, acks, partition.records, now, effects));
                if let Ok(accepted) = &result
                    && !accepted.confirmed
                {
                    outstanding += 1;
                    let (end, topic, partition) = (accepted.end, topic_index, partition_index);
                    self.produces.wait(accepted.log, accepted.by, Wait { end, id, topic, partition });
                    is_replicated |= accepted.is_replicated;
                }
                failed |= result.is_err();
                partitions.push(partition_response(partition.index, result));
            }
            let topic = TopicProduceResponse::default().with_partition_responses(partitions);
            responses.push(topic.with_name(data.name).with_topic_id(data.topic_id));
        }
        let is_silent = acks == 0;
        if is_silent && (failed || outstanding == 0) {
            effects.replies.push((id, if failed { Answer::Close } else { Answer::Nothing }));
            return;
        }
        let response = ProduceResponse::default().with_responses(responses);
        if outstanding == 0 {
            effects.replies.push((id, Answer::Response(header, Box::new(Response::Produce(response)))));
            return;
        }
        let patience = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        let deadline = is_replicated.then(|| now.monotonic + patience);
        if let Some(at) = deadline {
            self.set_produce_deadline(id, at);
        }
        let pending = PendingProduce { header, response, outstanding, deadline, is_silent };
        self.produces.pending.insert(id, Box::new(pending));
    }

    /// Answers what the watermark, or the counted position where that suffices, has passed.
    pub(super) fn confirm_produces(
        &mut self,
        log: LogId,
        watermark: Position,
        counted: Position,
        effects: &mut Effects,
    ) {
        if self.produces.waits.is_empty() {
            return;
        }
        for (by, position) in [(Confirmation::Watermark, watermark), (Confirmation::Counted, counted)] {
            let Some(waits) = self.produces.waits.get_mut(&(log, by)) else { continue };
            let confirmed = waits.partition_point(|wait| wait.end <= position);
            let settled: VecDeque<Wait> = match confirmed == waits.len() {
                true => self.produces.waits.remove(&(log, by)).unwrap_or_default(),
                false => waits.drain(..confirmed).collect(),
            };
            for wait in settled {
                self.settle_produce(wait, None, effects);
            }
        }
    }

    /// Answers everything that still waits for the log with an error.
    pub(super) fn refuse_produces(&mut self, log: LogId, error: ResponseError, effects: &mut Effects) {
        self.refuse_confirmations(log, error, effects);
        let waits = self.produces.waits.remove(&(log, Confirmation::Counted)).unwrap_or_default();
        for wait in waits {
            self.settle_produce(wait, Some(error), effects);
        }
    }

    /// Answers everything that waits for the log's watermark with an error.
    pub(super) fn refuse_confirmations(&mut self, log: LogId, error: ResponseError, effects: &mut Effects) {
        let waits = self.produces.waits.remove(&(log, Confirmation::Watermark)).unwrap_or_default();
        for wait in waits {
            self.settle_produce(wait, Some(error), effects);
        }
    }

    /// Forgets what is owed to a connection; the appends themselves stand.
    pub(super) fn forget_produces(&mut self, ids: RangeInclusive<RequestId>) {
        let gone: Vec<RequestId> = self.produces.pending.range(ids).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(at) = self.produces.pending.remove(&id).and_then(|produce| produce.deadline) {
                self.clear_produce_deadline(id, at);
            }
        }
    }

    /// Answers with what is confirmed by now; the rest may yet be.
    pub(super) fn on_produce_deadline(&mut self, id: RequestId, effects: &mut Effects) {
        let Some(mut done) = self.produces.pending.remove(&id) else { return };
        let partitions = done.response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
        for partition in partitions.filter(|p| p.error_code == ResponseError::RequestTimedOut.code()) {
            (partition.base_offset, partition.log_start_offset) = (-1, -1);
        }
        effects.replies.push((id, done.answer()));
    }

    fn settle_produce(&mut self, wait: Wait, error: Option<ResponseError>, effects: &mut Effects) {
        // The connection may have closed meanwhile, or the time may be up.
        let Some(produce) = self.produces.pending.get_mut(&wait.id) else { return };
        let partition = &mut produce.response.responses[wait.topic].partition_responses[wait.partition];
        partition.error_code = error.map_or(0, |error| error.code());
        if error.is_some() {
            (partition.base_offset, partition.log_start_offset) = (-1, -1);
        }
        produce.outstanding -= 1;
        if produce.outstanding > 0 {
            return;
        }
        if let Some(done) = self.produces.pending.remove(&wait.id) {
            if let Some(at) = done.deadline {
                self.clear_produce_deadline(wait.id, at);
            }
            effects.replies.push((wait.id, done.answer()));
        }
    }

    fn place(&self, name: &str, index: i32) -> Result<Place, Refused> {
        let unknown = || Refused::with(ResponseError::UnknownTopicOrPartition);
        if name == OFFSETS_TOPIC {
            return Err(Refused::because(ResponseError::InvalidTopicException, "the topic is the broker's own"));
        }
        let topic = self.metadata.topic(name).ok_or_else(unknown)?;
        Place::of(topic, index).ok_or_else(unknown)
    }

    fn place_by_id(&self, id: u128, index: i32) -> Result<Place, Refused> {
        match self.metadata.name_of(id) {
            Some(name) => self.place(name, index),
            None => Err(Refused::with(ResponseError::UnknownTopicId)),
        }
    }

    fn append(
        &mut self,
        place: Place,
        acks: i16,
        records: Option<Bytes>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Accepted, Refused> {
        if !(-1..=1).contains(&acks) {
            return Err(Refused::because(ResponseError::InvalidRequiredAcks, "acks must be 0, 1 or -1"));
        }
        let (queue, id) = (place.partition.queue(), place.partition.log());
        let not_leader = || Refused::with(ResponseError::NotLeaderOrFollower);
        let log = self.logs.get_mut(&id).ok_or_else(not_leader)?;
        let epoch = log.leader_epoch().ok_or_else(not_leader)?;
        if acks == -1 && place.min_insync_replicas > 1 {
            let counted = |placement: &Placement| (placement.isr.len(), placement.replicas.len());
            let (in_sync, replicas) = self.metadata.placement(id).map_or((0, 1), counted);
            // Never more than there are replicas, as `Placement::isr_min` says.
            let wanted = (place.min_insync_replicas as usize).min(replicas);
            if in_sync < wanted {
                let message = format!("{in_sync} replicas are in sync, {wanted} are wanted");
                return Err(Refused::because(ResponseError::NotEnoughReplicas, message));
            }
        }
        let batch = checked_batch(records.unwrap_or_default(), place.max_message_bytes)?;
        if log.settings().compaction.is_some() {
            check_keys(&batch)?;
        }
        let batch = if place.append_time { batch.appended_at(now.wall_ms) } else { batch };
        let append_time_ms = if place.append_time { now.wall_ms } else { -1 };
        let bytes = batch.bytes.len() as u64;
        let (base_offset, end) = match log.append(queue, batch, epoch, now, &mut effects.disk) {
            Ok(appended) => {
                effects.points.push(points::PRODUCE_APPENDED);
                self.produces.appends += 1;
                self.produces.append_bytes += bytes;
                (appended.base_offset, appended.end)
            }
            Err(AppendError::Duplicate { base_offset, end }) => {
                effects.events.push((points::DUPLICATE_REFUSED, 1));
                (base_offset, end)
            }
            Err(error) => return Err(append_refused(error)),
        };
        let is_replicated = log.replication() != Replication::Alone;
        let by = if is_replicated && acks == 1 { Confirmation::Counted } else { Confirmation::Watermark };
        let confirmed = match by {
            Confirmation::Watermark => end <= log.watermark_position(),
            Confirmation::Counted => end <= log.counted_position(),
        };
        let log_start = log.log_start_offset(queue);
        self.mark_dirty(id);
        Ok(Accepted { log: id, base_offset, log_start, append_time_ms, end, by, is_replicated, confirmed })
    }
}

/// A compacted topic takes records with keys only; the one setting for which records are looked into.
fn check_keys(batch: &Batch) -> Result<(), Refused> {
    let invalid = |message: String| Refused::because(ResponseError::InvalidRecord, message);
    let records = records::slices(&batch.header, &batch.bytes).map_err(|error| invalid(error.to_string()))?;
    let keyless: Vec<i32> = (0..).zip(&records).filter(|(_, record)| record.key.is_none()).map(|(at, _)| at).collect();
    match keyless.is_empty() {
        true => Ok(()),
        false => {
            let refused = invalid("a compacted topic takes records with keys only".to_owned());
            Err(Refused { records: keyless, ..refused })
        }
    }
}

/// Where to append, and what the topic asks of a batch.
struct Place {
    partition: Partition,
    max_message_bytes: usize,
    min_insync_replicas: u32,
    append_time: bool,
}

impl Place {
    fn of(topic: &Topic, index: i32) -> Option<Place> {
        let partition = *topic.partitions.get(usize::try_from(index).ok()?)?;
        let settings = &topic.settings;
        Some(Place {
            partition,
            max_message_bytes: settings.max_message_bytes as usize,
            min_insync_replicas: settings.class.min_insync_replicas,
            append_time: settings.append_time,
        })
    }
}

fn checked_batch(records: Bytes, bytes_maximum: usize) -> Result<Batch, Refused> {
    let mut rest = records;
    let batch = Batch::take(&mut rest, 0).map_err(|error| {
        let code = ResponseError::try_from_code(error.kafka_error()).unwrap_or(ResponseError::CorruptMessage);
        Refused::because(code, error.to_string())
    })?;
    if !rest.is_empty() {
        return Err(Refused::because(ResponseError::InvalidRecord, "exactly one batch per partition is accepted"));
    }
    if batch.bytes.len() > bytes_maximum {
        let message = format!("the batch of {} bytes is above max.message.bytes {bytes_maximum}", batch.bytes.len());
        return Err(Refused::because(ResponseError::MessageTooLarge, message));
    }
    if batch.header.is_transactional() || batch.header.is_control() {
        return Err(Refused::because(ResponseError::InvalidRecord, "transactions are not offered"));
    }
    Ok(batch)
}

fn append_refused(error: AppendError) -> Refused {
    let code = match error {
        AppendError::Duplicate { .. } => ResponseError::DuplicateSequenceNumber,
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::QueueFenced | AppendError::Offline => ResponseError::KafkaStorageError,
        AppendError::TooLarge { .. } => ResponseError::RecordListTooLarge,
    };
    Refused::because(code, error.to_string())
}

fn partition_response(index: i32, result: Result<Accepted, Refused>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match result {
        Ok(accepted) => {
            // Until it is confirmed the answer is what a time-out would make it.
            let error = if accepted.confirmed { 0 } else { ResponseError::RequestTimedOut.code() };
            response
                .with_error_code(error)
                .with_base_offset(accepted.base_offset.0)
                .with_log_append_time_ms(accepted.append_time_ms)
                .with_log_start_offset(accepted.log_start.0)
        }
        Err(refused) => {
            let blamed = |index| BatchIndexAndErrorMessage::default().with_batch_index(index);
            response
                .with_error_code(refused.error.code())
                .with_base_offset(-1)
                .with_record_errors(refused.records.into_iter().map(blamed).collect())
                .with_error_message(refused.message.map(StrBytes::from_string))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::BatchProducer;
    use super::super::types::{ProducerEpoch, ProducerId};
    use super::*;

    #[test]
    fn of_a_batch_that_a_compacted_topic_refuses_the_records_without_keys_are_named() {
        let producer = BatchProducer { id: ProducerId::NONE, epoch: ProducerEpoch(-1), base_sequence: -1 };
        let text = Bytes::from_static(b"text");
        let of_keys = |keys: &[bool]| {
            let records = keys.iter().map(|has_key| (1, has_key.then_some(&text), Some(&text)));
            check_keys(&Batch::encode(producer, records))
        };
        assert!(of_keys(&[true, true]).is_ok());
        let refused = of_keys(&[true, false, true, false]).expect_err("two have no key");
        let answer = partition_response(7, Err(refused));
        let named: Vec<i32> = answer.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!((answer.error_code, named), (ResponseError::InvalidRecord.code(), vec![1, 3]));
    }
}
