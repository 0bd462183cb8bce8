//! InitProducerId, versions 0 to 5, for idempotent producers: ids come from blocks that the metadata log records, so
//! none is given out twice. Departure from Kafka: a transactional id is refused with UNSUPPORTED_VERSION.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{self, InitProducerIdRequest, InitProducerIdResponse};

use super::machine::{Answer, Core, Effects, RequestId};
use super::metadata::MetadataRecord;
use super::types::{Now, ProducerId};
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// The ids at hand and the requests that wait for more.
#[derive(Debug, Default)]
pub(super) struct ProducerIds {
    next: i64,
    end: i64,
    is_block_asked: bool,
    waiting: BTreeMap<RequestId, RequestHeader>,
}

impl ProducerIds {
    pub(super) fn forget(&mut self, ids: RangeInclusive<RequestId>) {
        self.waiting.retain(|id, _| !ids.contains(id));
    }

    pub(super) fn refill(&mut self, first: ProducerId, count: u32) {
        self.next = first.0;
        self.end = first.0 + i64::from(count);
        self.is_block_asked = false;
    }

    fn take(&mut self) -> Option<ProducerId> {
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(ProducerId(self.next - 1))
    }
}

impl Core {
    pub(super) fn init_producer_id(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: InitProducerIdRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        if request.transactional_id.is_some() {
            effects.replies.push((id, refusal(header, ResponseError::UnsupportedVersion)));
            return;
        }
        self.producer_ids.waiting.insert(id, header);
        self.answer_init_producer_ids(now, effects);
    }

    /// Gives ids to those who wait, and asks for a block where they do not suffice.
    pub(super) fn answer_init_producer_ids(&mut self, now: Now, effects: &mut Effects) {
        while !self.producer_ids.waiting.is_empty() {
            let Some(producer) = self.producer_ids.take() else { break };
            let Some((id, header)) = self.producer_ids.waiting.pop_first() else { break };
            let response = InitProducerIdResponse::default()
                .with_producer_id(messages::ProducerId(producer.0))
                .with_producer_epoch(0);
            effects.replies.push((id, Answer::Response(header, Box::new(Response::InitProducerId(response)))));
        }
        if self.producer_ids.waiting.is_empty() || self.producer_ids.is_block_asked {
            return;
        }
        match self.submit(MetadataRecord::ProducerIdsTaken { count: BLOCK_IDS }, None, now, effects) {
            Ok(()) => self.producer_ids.is_block_asked = true,
            Err(_) => self.refuse_init_producer_ids(effects),
        }
    }

    pub(super) fn refuse_init_producer_ids(&mut self, effects: &mut Effects) {
        self.producer_ids.is_block_asked = false;
        for (id, header) in std::mem::take(&mut self.producer_ids.waiting) {
            effects.replies.push((id, refusal(header, ResponseError::CoordinatorLoadInProgress)));
        }
    }
}

fn refusal(header: RequestHeader, error: ResponseError) -> Answer {
    let response = InitProducerIdResponse::default().with_error_code(error.code());
    let response = response.with_producer_id(messages::ProducerId(-1)).with_producer_epoch(-1);
    Answer::Response(header, Box::new(Response::InitProducerId(response)))
}

/// Ids in a block, as Kafka has them.
const BLOCK_IDS: u32 = 1000;
