//! Produce, versions 3 to 13: batches are checked, appended, and answered when the log's counted position has passed.
//! Departures from Kafka: transactional batches are refused; acks=1 waits like acks=all, for the leader's own counted
//! position; message.timestamp.type is CreateTime only. The leader epoch that a batch carries is overwritten.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::batch::{self, Batch};
use super::log::AppendError;
use super::machine::{Answer, Core, Effects, RequestId};
use super::metadata::{Partition, Topic};
use super::types::{LeaderEpoch, LogId, Now, Offset, Position};
use crate::points;
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// The one leader epoch of a node that is a cluster of one.
pub(super) const LEADER_EPOCH: LeaderEpoch = LeaderEpoch(0);

/// Appends that are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct Produces {
    pending: BTreeMap<RequestId, PendingProduce>,
    /// Per log by the position that confirms; the second number keeps equal positions apart.
    waits: BTreeMap<LogId, BTreeMap<(Position, u64), Wait>>,
    wait_next: u64,
}

#[derive(Debug)]
struct PendingProduce {
    header: RequestHeader,
    response: ProduceResponse,
    outstanding: usize,
}

/// The place of an answer that waits.
#[derive(Debug, Clone, Copy)]
struct Wait {
    id: RequestId,
    topic: usize,
    partition: usize,
}

/// What an append waits for.
struct Accepted {
    log: LogId,
    base_offset: Offset,
    log_start: Offset,
    end: Position,
    confirmed: bool,
}

/// Why an append was refused.
struct Refused {
    error: ResponseError,
    message: Option<String>,
}

impl Refused {
    fn because(error: ResponseError, message: impl Into<String>) -> Refused {
        Refused { error, message: Some(message.into()) }
    }
}

impl Produces {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Forgets what is owed; the appends themselves stand.
    pub(super) fn forget(&mut self, ids: RangeInclusive<RequestId>) {
        let gone: Vec<RequestId> = self.pending.range(ids).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| drop(self.pending.remove(id)));
    }

    fn wait(&mut self, log: LogId, end: Position, wait: Wait) {
        self.wait_next += 1;
        self.waits.entry(log).or_default().insert((end, self.wait_next), wait);
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
        let acks = request.acks;
        let by_id = header.version >= 13;
        let mut failed = false;
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
                    && acks != 0
                {
                    outstanding += 1;
                    let wait = Wait { id, topic: topic_index, partition: partition_index };
                    self.produces.wait(accepted.log, accepted.end, wait);
                }
                failed |= result.is_err();
                partitions.push(partition_response(partition.index, result));
            }
            let topic = TopicProduceResponse::default().with_partition_responses(partitions);
            responses.push(topic.with_name(data.name).with_topic_id(data.topic_id));
        }
        if acks == 0 {
            effects.replies.push((id, if failed { Answer::Close } else { Answer::Nothing }));
            return;
        }
        let response = ProduceResponse::default().with_responses(responses);
        if outstanding == 0 {
            effects.replies.push((id, Answer::Response(header, Box::new(Response::Produce(response)))));
            return;
        }
        self.produces.pending.insert(id, PendingProduce { header, response, outstanding });
    }

    /// Answers what the counted position has passed.
    pub(super) fn confirm_produces(&mut self, log: LogId, counted: Position, effects: &mut Effects) {
        let Some(waits) = self.produces.waits.get_mut(&log) else { return };
        while let Some(entry) = waits.first_entry() {
            if entry.key().0 > counted {
                return;
            }
            let wait = entry.remove();
            settle(&mut self.produces.pending, wait, None, effects);
        }
        self.produces.waits.remove(&log);
    }

    /// Answers everything that still waits for the log with an error.
    pub(super) fn refuse_produces(&mut self, log: LogId, error: ResponseError, effects: &mut Effects) {
        let waits = self.produces.waits.remove(&log).unwrap_or_default();
        for wait in waits.into_values() {
            settle(&mut self.produces.pending, wait, Some(error), effects);
        }
    }

    fn place(&self, name: &str, index: i32) -> Result<Place, Refused> {
        let unknown = || Refused { error: ResponseError::UnknownTopicOrPartition, message: None };
        let topic = self.metadata.topic(name).ok_or_else(unknown)?;
        Place::of(topic, index).ok_or_else(unknown)
    }

    fn place_by_id(&self, id: u128, index: i32) -> Result<Place, Refused> {
        match self.metadata.name_of(id) {
            Some(name) => self.place(name, index),
            None => Err(Refused { error: ResponseError::UnknownTopicId, message: None }),
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
        if acks == -1 && place.min_insync_replicas > 1 {
            return Err(Refused::because(ResponseError::NotEnoughReplicas, "there is one replica"));
        }
        let batch = checked_batch(records.unwrap_or_default(), place.max_message_bytes)?;
        let (queue, id) = (place.partition.queue(), place.partition.log());
        let log = self.logs.get_mut(&id).expect("applying the topic's record created its logs");
        let (base_offset, end) = match log.append(queue, batch, LEADER_EPOCH, now, &mut effects.disk) {
            Ok(appended) => {
                effects.points.push(points::PRODUCE_APPENDED);
                (appended.base_offset, appended.end)
            }
            Err(AppendError::Duplicate { base_offset, end }) => {
                effects.events.push((points::DUPLICATE_REFUSED, 1));
                (base_offset, end)
            }
            Err(error) => return Err(append_refused(error)),
        };
        let confirmed = end <= log.counted_position();
        let log_start = log.log_start_offset(queue);
        self.mark_dirty(id);
        Ok(Accepted { log: id, base_offset, log_start, end, confirmed })
    }
}

/// Where to append, and what the topic asks of a batch.
struct Place {
    partition: Partition,
    max_message_bytes: usize,
    min_insync_replicas: u32,
}

impl Place {
    fn of(topic: &Topic, index: i32) -> Option<Place> {
        let partition = *topic.partitions.get(usize::try_from(index).ok()?)?;
        let settings = &topic.settings;
        Some(Place {
            partition,
            max_message_bytes: settings.max_message_bytes as usize,
            min_insync_replicas: settings.class.min_insync_replicas,
        })
    }
}

fn checked_batch(records: Bytes, bytes_maximum: usize) -> Result<Batch, Refused> {
    let batches = batch::split_batches(records).map_err(|error| {
        let code = ResponseError::try_from_code(error.kafka_error()).unwrap_or(ResponseError::CorruptMessage);
        Refused::because(code, error.to_string())
    })?;
    let Ok([batch]) = <[Batch; 1]>::try_from(batches) else {
        return Err(Refused::because(ResponseError::InvalidRecord, "exactly one batch per partition is accepted"));
    };
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
        Ok(accepted) => response.with_base_offset(accepted.base_offset.0).with_log_start_offset(accepted.log_start.0),
        Err(refused) => response
            .with_error_code(refused.error.code())
            .with_base_offset(-1)
            .with_error_message(refused.message.map(StrBytes::from_string)),
    }
}

fn settle(
    pending: &mut BTreeMap<RequestId, PendingProduce>,
    wait: Wait,
    error: Option<ResponseError>,
    effects: &mut Effects,
) {
    // The connection may have closed meanwhile.
    let Some(produce) = pending.get_mut(&wait.id) else { return };
    if let Some(error) = error {
        let partition = &mut produce.response.responses[wait.topic].partition_responses[wait.partition];
        partition.error_code = error.code();
        partition.base_offset = -1;
        partition.log_start_offset = -1;
    }
    produce.outstanding -= 1;
    if produce.outstanding > 0 {
        return;
    }
    if let Some(done) = pending.remove(&wait.id) {
        let response = Box::new(Response::Produce(done.response));
        effects.replies.push((wait.id, Answer::Response(done.header, response)));
    }
}
