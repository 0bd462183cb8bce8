//! What a plan's consumer does: polls, seeks and look-ups, one after the other. Each delivered record is checked against
//! what could have been sent; what passes goes into the history as runs, what does not as corrupt records.

use std::time::Duration;

use super::client::{absolute, delete_records, list_offset};
use super::recorder::Invocation;
use super::{Context, payload};
use crate::driver::admin::{EARLIEST, LATEST};
use crate::driver::cluster::Cluster;
use crate::driver::consumer::{Consumer, ConsumerOptions, PartitionRead, Polled};
use crate::driver::errors::{Attempts, CallError, OFFSET_OUT_OF_RANGE};
use crate::driver::records::Record;
use crate::driver::{Dial, Timer, TopicPartition};
use crate::history::{Call, CorruptRecord, OffsetQuery, Outcome, Position, Queue, Run, SeekTarget, Value};
use crate::plan::{ClientAction, PlannedOperation};

/// Runs the operations in order.
pub(crate) async fn run<D: Dial, T: Timer>(
    context: &Context<D, T>,
    options: ConsumerOptions,
    queues: &[Queue],
    operations: &[PlannedOperation],
) {
    let cluster = context.cluster(options.request_timeout);
    let partitions = queues.iter().map(|queue| context.topic_partition(*queue)).collect();
    let mut consumer = Consumer::assign(cluster.clone(), options, partitions);
    let timeout = options.request_timeout;
    for operation in operations {
        context.wait_for_turn(operation.at_ms).await;
        match &operation.action {
            ClientAction::Poll { max_wait_ms, min_bytes } => {
                let polled = poll(context, &mut consumer, *max_wait_ms, *min_bytes, false).await;
                for (partition, _) in polled.failed.iter().filter(|(_, error)| is_out_of_range(error)) {
                    if let Some(queue) = queues.iter().find(|queue| context.topic_partition(**queue) == *partition) {
                        seek(context, &cluster, &mut consumer, *queue, SeekTarget::Beginning, timeout).await;
                    }
                }
            }
            ClientAction::Seek { queue, to } => {
                seek(context, &cluster, &mut consumer, *queue, *to, timeout).await;
            }
            ClientAction::ListOffset { queue, query } => {
                list_offset(context, &cluster, *queue, *query, timeout).await;
            }
            ClientAction::DeleteRecords { queue } => delete_records(context, &cluster, *queue, timeout).await,
            ClientAction::Produce { .. } | ClientAction::Crash { .. } | ClientAction::Leave => {
                unreachable!("operations were checked against the role before they run")
            }
        }
    }
}

pub(crate) fn is_out_of_range(error: &CallError) -> bool {
    error.code() == Some(OFFSET_OUT_OF_RANGE)
}

/// One Poll operation: done where at least one queue was read.
pub(crate) async fn poll<D: Dial, T: Timer>(
    context: &Context<D, T>,
    consumer: &mut Consumer<D, T>,
    max_wait_ms: u32,
    min_bytes: u32,
    is_final: bool,
) -> Polled {
    let what = if is_final { "a final Fetch" } else { "Fetch" };
    let invocation = context.recorder.invoke(context.client, context.now_us(), what.to_string());
    let mut polled = consumer.poll(Duration::from_millis(u64::from(max_wait_ms)), min_bytes).await;
    complete(context, invocation, &mut polled, is_final);
    polled
}

/// Tells the history what a poll gave.
pub(crate) fn complete<D: Dial, T: Timer>(
    context: &Context<D, T>,
    invocation: Invocation,
    polled: &mut Polled,
    is_final: bool,
) {
    // Polls ask for the partitions in turn; the history tells them in one order.
    polled.read.sort_by(|one, other| one.partition.cmp(&other.partition));
    let (mut runs, mut corrupt, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for read in &polled.read {
        let queue = queue_of(context, &read.partition);
        positions.push(Position { queue, offset: read.from });
        let check = if context.is_compacted(queue) { payload::check_keyed } else { payload::check };
        check_records(queue, read, check, &mut runs, &mut corrupt);
    }
    let mut attempts = Attempts::default();
    for (_, error) in &polled.failed {
        attempts.add(error);
    }
    let nothing_read = polled.read.is_empty() && !polled.failed.is_empty();
    let outcome = if nothing_read { attempts.outcome() } else { Outcome::Done };
    let call = Call::Poll { runs, corrupt, positions, is_final };
    context.recorder.complete(invocation, context.now_us(), outcome, call);
}

pub(crate) fn queue_of<D: Dial, T: Timer>(context: &Context<D, T>, partition: &TopicPartition) -> Queue {
    let topic = context.topics.iter().position(|topic| topic.name == partition.topic);
    let topic = topic.expect("consumers are assigned partitions of the plan's topics only");
    Queue { topic: topic as u32, partition: partition.partition as u32 }
}

fn check_records(
    queue: Queue,
    read: &PartitionRead,
    check: fn(&Record, Queue) -> Result<Value, String>,
    runs: &mut Vec<Run>,
    corrupt: &mut Vec<CorruptRecord>,
) {
    let mut open: Option<Run> = None;
    for placed in &read.records {
        let value = match check(&placed.record, queue) {
            Ok(value) => value,
            Err(what) => {
                corrupt.push(CorruptRecord { queue, offset: placed.offset, what });
                continue;
            }
        };
        match &mut open {
            Some(run)
                if placed.offset == run.first_offset + i64::from(run.count)
                    && value.0 == run.first_value.0 + u64::from(run.count) =>
            {
                run.count += 1;
            }
            Some(_) | None => {
                runs.extend(open.take());
                open = Some(Run {
                    queue,
                    first_value: value,
                    count: 1,
                    first_offset: placed.offset,
                    first_timestamp_ms: placed.record.timestamp_ms,
                });
            }
        }
    }
    runs.extend(open);
    for damage in &read.damage {
        corrupt.push(CorruptRecord { queue, offset: damage.offset, what: damage.what.to_string() });
    }
}

/// One Seek operation; where it fails, the position stays.
pub(crate) async fn seek<D: Dial, T: Timer>(
    context: &Context<D, T>,
    cluster: &Cluster<D, T>,
    consumer: &mut Consumer<D, T>,
    queue: Queue,
    to: SeekTarget,
    timeout: Duration,
) -> Option<i64> {
    let partition = context.topic_partition(queue);
    let to = match to {
        SeekTarget::Timestamp(shift_ms) => match absolute(context, OffsetQuery::Timestamp(shift_ms)) {
            OffsetQuery::Timestamp(timestamp_ms) => SeekTarget::Timestamp(timestamp_ms),
            OffsetQuery::Earliest | OffsetQuery::Latest => to,
        },
        SeekTarget::Beginning | SeekTarget::End | SeekTarget::Offset(_) => to,
    };
    let invocation =
        context.recorder.invoke(context.client, context.now_us(), format!("a seek in {partition} to {to:?}"));
    let deadline = cluster.after(timeout);
    let (result, attempts) = cluster.retry(deadline, || resolve(cluster, &partition, to, deadline)).await;
    let (outcome, offset) = match result {
        Ok(offset) => (Outcome::Done, Some(offset)),
        Err(_) => (attempts.outcome(), None),
    };
    if let Some(offset) = offset {
        consumer.seek(&partition, offset);
    }
    context.recorder.complete(invocation, context.now_us(), outcome, Call::Seek { queue, to, offset });
    offset
}

async fn resolve<D: Dial, T: Timer>(
    cluster: &Cluster<D, T>,
    partition: &TopicPartition,
    to: SeekTarget,
    deadline: Duration,
) -> Result<i64, CallError> {
    let timestamp = match to {
        SeekTarget::Offset(offset) => return Ok(offset),
        SeekTarget::Beginning => EARLIEST,
        SeekTarget::End => LATEST,
        SeekTarget::Timestamp(timestamp_ms) => timestamp_ms,
    };
    let listed = cluster.list_offset(partition, timestamp, deadline).await?;
    if listed.offset >= 0 {
        return Ok(listed.offset);
    }
    // No record is that young: the position goes to the end, as Kafka's own consumer does it.
    Ok(cluster.list_offset(partition, LATEST, deadline).await?.offset)
}
