//! What a plan's producer does: batches with up to `in_flight` of them outstanding, in the order of the plan.

use std::collections::BTreeMap;

use tokio::sync::Semaphore;

use super::client::{delete_records, list_offset};
use super::{Context, payload};
use crate::driver::producer::{Batch, Delivery, Producer, ProducerOptions};
use crate::driver::{Dial, Timer};
use crate::history::{Call, Outcome, Queue, Value};
use crate::plan::{ClientAction, PlannedOperation};

/// Runs the operations; ends when all of them have ended.
pub(crate) async fn run<D: Dial, T: Timer>(
    context: &Context<D, T>,
    options: ProducerOptions,
    operations: &[PlannedOperation],
) {
    let cluster = context.cluster(options.request_timeout);
    let producer = Producer::start(cluster.clone(), options);
    let outstanding = std::sync::Arc::new(Semaphore::new(options.in_flight as usize));
    let mut next_sequence: BTreeMap<Queue, u64> = BTreeMap::new();
    let began = context.began;
    let timeout = options.request_timeout.saturating_mul(options.attempts);
    for operation in operations {
        context.wait_for_turn(operation.at_ms).await;
        match &operation.action {
            ClientAction::Produce { queue, records, value_bytes, timestamp_shift_ms, timestamp_step_ms } => {
                let permit = outstanding.clone().acquire_owned().await.expect("the semaphore is never closed");
                let sequence = next_sequence.entry(*queue).or_insert(0);
                let first_value = Value::new(context.client, *sequence);
                *sequence += u64::from(*records);
                let first_ms = context.timer.wall_ms().saturating_add(*timestamp_shift_ms);
                let timestamps_ms: Vec<i64> = (0..i64::from(*records))
                    .map(|index| first_ms.saturating_add(index.saturating_mul(*timestamp_step_ms)).max(0))
                    .collect();
                let produced = Produced { queue: *queue, first_value, timestamps_ms, options };
                let batch = produced.batch(context, *value_bytes);
                let what = format!("Produce of {records} records to {}", batch.partition);
                let invocation = context.recorder.invoke(context.client, context.now_us(), what);
                let delivery = producer.send(batch);
                let (recorder, timer) = (context.recorder.clone(), context.timer.clone());
                tokio::task::spawn_local(async move {
                    let delivery = delivery.await.unwrap_or_else(|_| Delivery {
                        outcome: Outcome::Unknown("the producer ended before the batch did".to_string()),
                        first_offset: None,
                        attempts: 0,
                    });
                    let now_us = timer.monotonic().saturating_sub(began).as_micros() as u64;
                    let outcome = delivery.outcome.clone();
                    recorder.complete(invocation, now_us, outcome, produced.call(&delivery));
                    drop(permit);
                });
            }
            ClientAction::ListOffset { queue, query } => {
                list_offset(context, &cluster, *queue, *query, timeout).await;
            }
            ClientAction::DeleteRecords { queue } => delete_records(context, &cluster, *queue, timeout).await,
            ClientAction::Poll { .. }
            | ClientAction::Seek { .. }
            | ClientAction::Crash { .. }
            | ClientAction::Leave => {
                unreachable!("operations were checked against the role before they run")
            }
        }
    }
    let all = outstanding.acquire_many(options.in_flight).await;
    drop(all.expect("the semaphore is never closed"));
}

/// A batch as the history will tell it.
struct Produced {
    queue: Queue,
    first_value: Value,
    timestamps_ms: Vec<i64>,
    options: ProducerOptions,
}

impl Produced {
    fn batch<D: Dial, T: Timer>(&self, context: &Context<D, T>, value_bytes: u32) -> Batch {
        let encode = if context.is_compacted(self.queue) { payload::encode_keyed } else { payload::encode };
        let numbered = self.timestamps_ms.iter().enumerate();
        let records = numbered.map(|(index, timestamp_ms)| {
            let value = Value(self.first_value.0 + index as u64);
            encode(value, self.queue, *timestamp_ms, value_bytes)
        });
        Batch { partition: context.topic_partition(self.queue), records: records.collect() }
    }

    fn call(self, delivery: &Delivery) -> Call {
        Call::Produce {
            queue: self.queue,
            first_value: self.first_value,
            count: self.timestamps_ms.len() as u32,
            timestamps_ms: self.timestamps_ms,
            first_offset: delivery.first_offset,
            attempts: delivery.attempts,
            acks: self.options.acks,
            idempotent: self.options.idempotent,
        }
    }
}
