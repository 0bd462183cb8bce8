//! ListOffsets, versions 1 to 10: earliest (-2), latest (-1), largest timestamp (-3), earliest local (-4), tiered (-5,
//! there is none), and the earliest record at or past a timestamp, exact also where timestamps are not monotonic.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use kafka_protocol::messages::{offset_for_leader_epoch_request, offset_for_leader_epoch_response};

use super::batch;
use super::gather::{Gather, ReadOwner};
use super::log::{Log, TimestampLookup};
use super::machine::{Answer, Core, Effects, RequestId};
use super::metadata::Partition;
use super::types::{LeaderEpoch, Offset};
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// Requests of which a partition waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pending: BTreeMap<RequestId, PendingLookups>,
}

#[derive(Debug)]
struct PendingLookups {
    header: RequestHeader,
    response: ListOffsetsResponse,
    outstanding: usize,
    slots: Vec<Lookup>,
}

/// One partition's search.
#[derive(Debug)]
struct Lookup {
    topic: usize,
    partition: usize,
    place: Partition,
    timestamp: i64,
    epoch: LeaderEpoch,
    /// Where to look on if the batch under way does not hold a record after all.
    next_offset: Offset,
    gather: Gather,
}

/// An offset with its timestamp; -1 and -1 where there is none.
type Found = (Offset, i64);

/// A partition's answer or where to search, and the epoch in which its log is led.
enum Looked {
    Found(Found, LeaderEpoch),
    Search(Partition, LeaderEpoch),
}

impl Lookups {
    pub(super) fn forget(&mut self, ids: RangeInclusive<RequestId>) {
        let gone: Vec<RequestId> = self.pending.range(ids).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| drop(self.pending.remove(id)));
    }

    pub(super) fn gather_of(&mut self, id: RequestId, slot: usize) -> Option<&mut Gather> {
        Some(&mut self.pending.get_mut(&id)?.slots.get_mut(slot)?.gather)
    }
}

impl Core {
    pub(super) fn list_offsets(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: ListOffsetsRequest,
        effects: &mut Effects,
    ) {
        let mut pending =
            PendingLookups { header, response: ListOffsetsResponse::default(), outstanding: 0, slots: Vec::new() };
        let mut searches = Vec::new();
        for (topic_index, topic) in request.topics.into_iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (partition_index, wanted) in topic.partitions.iter().enumerate() {
                let mut answer = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
                match self.look_up(&topic.name, wanted) {
                    Ok(Looked::Found(found, epoch)) => fill(&mut answer, Ok(found), epoch),
                    Ok(Looked::Search(place, epoch)) => {
                        searches.push((topic_index, partition_index, place, epoch, wanted.timestamp));
                    }
                    Err(error) => fill(&mut answer, Err(error), LeaderEpoch(-1)),
                }
                partitions.push(answer);
            }
            let answer = ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions);
            pending.response.topics.push(answer);
        }
        for (topic, partition, place, epoch, timestamp) in searches {
            let lookup =
                Lookup { topic, partition, place, timestamp, epoch, next_offset: Offset(0), gather: Gather::default() };
            pending.slots.push(lookup);
            let slot = pending.slots.len() - 1;
            self.search(id, &mut pending, slot, effects);
        }
        self.keep_or_answer(id, pending, effects);
    }

    /// All pieces of one search's batch are there.
    pub(super) fn on_lookup_gathered(&mut self, id: RequestId, slot: usize, effects: &mut Effects) {
        let Some(mut pending) = self.lookups.pending.remove(&id) else { return };
        pending.outstanding -= 1;
        if let Some(found) = self.look_into_batch(&mut pending.slots[slot]) {
            settle(&mut pending, slot, found);
        } else {
            self.search(id, &mut pending, slot, effects);
        }
        self.keep_or_answer(id, pending, effects);
    }

    pub(super) fn offset_for_leader_epoch(&self, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
        use offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let answer = EpochEndOffset::default().with_partition(wanted.partition);
                partitions.push(match self.epoch_end(&topic.topic, wanted) {
                    Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end.0),
                    Err(error) => answer.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
                });
            }
            let result = OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions);
            response.topics.push(result);
        }
        response
    }

    fn epoch_end(
        &self,
        name: &str,
        wanted: &offset_for_leader_epoch_request::OffsetForLeaderPartition,
    ) -> Result<(i32, Offset), ResponseError> {
        let (place, log) = self.queue_of(name, wanted.partition, wanted.current_leader_epoch)?;
        let found = log.end_offset_of_epoch(place.queue(), LeaderEpoch(wanted.leader_epoch));
        Ok(found.map_or((-1, Offset(-1)), |(epoch, end)| (epoch.0, end)))
    }

    fn queue_of(&self, name: &str, index: i32, believed: i32) -> Result<(Partition, &Log), ResponseError> {
        let unknown = ResponseError::UnknownTopicOrPartition;
        let topic = self.metadata.topic(name).ok_or(unknown)?;
        let index = usize::try_from(index).map_err(|_| unknown)?;
        let partition = *topic.partitions.get(index).ok_or(unknown)?;
        Ok((partition, self.led_log(partition.log(), believed)?))
    }

    fn look_up(&self, name: &str, wanted: &ListOffsetsPartition) -> Result<Looked, ResponseError> {
        let (place, log) = self.queue_of(name, wanted.partition_index, wanted.current_leader_epoch)?;
        let queue = place.queue();
        let epoch = log.leader_epoch().unwrap_or_default();
        if log.is_fenced(queue) {
            return Err(ResponseError::KafkaStorageError);
        }
        match wanted.timestamp {
            // A new leader may know of a watermark below one that was told before (KIP-207).
            LATEST if !self.is_watermark_known(place.log()) => Err(ResponseError::OffsetNotAvailable),
            LATEST => Ok(Looked::Found((log.high_watermark(queue), -1), epoch)),
            EARLIEST | EARLIEST_LOCAL => Ok(Looked::Found((log.log_start_offset(queue), -1), epoch)),
            LATEST_TIERED => Ok(Looked::Found(NONE, epoch)),
            LARGEST_TIMESTAMP => Ok(Looked::Search(place, epoch)),
            timestamp if timestamp >= 0 => Ok(Looked::Search(place, epoch)),
            _ => Err(ResponseError::InvalidRequest),
        }
    }

    /// Searches on from the lookup's next offset, until the answer is known or a batch must come from the disk.
    fn search(&mut self, id: RequestId, pending: &mut PendingLookups, slot: usize, effects: &mut Effects) {
        loop {
            let lookup = &mut pending.slots[slot];
            let Some(log) = self.logs.get(&lookup.place.log()) else {
                return settle(pending, slot, Err(ResponseError::UnknownTopicOrPartition));
            };
            let queue = lookup.place.queue();
            if lookup.timestamp == LARGEST_TIMESTAMP {
                let Some(largest) = log.largest_timestamp(queue) else { return settle(pending, slot, Ok(NONE)) };
                lookup.timestamp = largest;
            }
            match log.offset_for_timestamp(queue, lookup.timestamp, lookup.next_offset) {
                Err(_) => return settle(pending, slot, Err(ResponseError::KafkaStorageError)),
                Ok(TimestampLookup::None) => return settle(pending, slot, Ok(NONE)),
                Ok(TimestampLookup::InBatch { pieces, next_offset }) => {
                    lookup.next_offset = next_offset;
                    lookup.gather = self.gather(ReadOwner::ListOffsets, id, slot, pieces, effects);
                }
            }
            let lookup = &mut pending.slots[slot];
            if !lookup.gather.is_complete() {
                pending.outstanding += 1;
                return;
            }
            if let Some(found) = self.look_into_batch(lookup) {
                return settle(pending, slot, found);
            }
        }
    }

    /// Looks for the record in the batch that was gathered; none is to search on.
    fn look_into_batch(&self, lookup: &mut Lookup) -> Option<Result<Found, ResponseError>> {
        let bytes: Bytes = match std::mem::take(&mut lookup.gather).into_bytes() {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error)),
        };
        let log = self.logs.get(&lookup.place.log())?;
        let start = log.log_start_offset(lookup.place.queue());
        match batch::earliest_record_at_or_past(bytes, lookup.timestamp, start) {
            Ok(found) => found.map(Ok),
            Err(_) => Some(Err(ResponseError::CorruptMessage)),
        }
    }

    fn keep_or_answer(&mut self, id: RequestId, pending: PendingLookups, effects: &mut Effects) {
        if pending.outstanding > 0 {
            self.lookups.pending.insert(id, pending);
            return;
        }
        let response = Box::new(Response::ListOffsets(pending.response));
        effects.replies.push((id, Answer::Response(pending.header, response)));
    }
}

fn settle(pending: &mut PendingLookups, slot: usize, result: Result<Found, ResponseError>) {
    let lookup = &pending.slots[slot];
    fill(&mut pending.response.topics[lookup.topic].partitions[lookup.partition], result, lookup.epoch);
}

fn fill(answer: &mut ListOffsetsPartitionResponse, result: Result<Found, ResponseError>, epoch: LeaderEpoch) {
    match result {
        Ok((offset, timestamp)) => {
            answer.offset = offset.0;
            answer.timestamp = timestamp;
            answer.leader_epoch = if offset.0 < 0 { -1 } else { epoch.0 };
        }
        Err(error) => {
            answer.error_code = error.code();
            answer.offset = -1;
            answer.timestamp = -1;
        }
    }
}

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const LARGEST_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const NONE: Found = (Offset(-1), -1);
