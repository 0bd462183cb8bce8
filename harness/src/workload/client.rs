//! Runs one client of a plan: its operations in order, each at its time or when the ones before it allow.
//! What a producer does is in `producing`, what a consumer does in `consuming`; look-ups that both can do are here.

use std::time::Duration;

use super::{Context, WorkloadError, consuming, member, producing};
use crate::driver::admin::{EARLIEST, LATEST};
use crate::driver::cluster::Cluster;
use crate::driver::errors::Attempts;
use crate::driver::{Dial, Timer};
use crate::history::{Call, OffsetQuery, Outcome, Queue};
use crate::plan::{Client, ClientAction, Role};

/// Runs a client to its end, which comes after a bounded time; what happened is in the recorder.
pub async fn run_client<D: Dial, T: Timer>(context: &Context<D, T>, client: &Client) -> Result<(), WorkloadError> {
    check_operations(context, client)?;
    match &client.role {
        Role::Producer { acks, idempotent, in_flight, attempts, request_timeout_ms } => {
            let request_timeout = Duration::from_millis(*request_timeout_ms);
            let options = crate::driver::producer::ProducerOptions {
                acks: *acks,
                idempotent: *idempotent,
                attempts: *attempts,
                request_timeout,
                in_flight: *in_flight,
            };
            check_producer(context, options)?;
            producing::run(context, options, &client.operations).await;
        }
        Role::Consumer { queues, request_timeout_ms, fetch_max_bytes } => {
            let options = crate::driver::consumer::ConsumerOptions {
                request_timeout: Duration::from_millis(*request_timeout_ms),
                fetch_max_bytes: *fetch_max_bytes,
            };
            consuming::run(context, options, queues, &client.operations).await;
        }
        Role::Member { .. } => member::run(context, &client.role, &client.operations).await,
    }
    Ok(())
}

fn check_operations<D: Dial, T: Timer>(context: &Context<D, T>, client: &Client) -> Result<(), WorkloadError> {
    let number = context.client.0;
    let (is_producer, is_member, role) = match client.role {
        Role::Producer { .. } => (true, false, "a producer"),
        Role::Consumer { .. } => (false, false, "a consumer"),
        Role::Member { .. } => (false, true, "a member of a group"),
    };
    for (index, operation) in client.operations.iter().enumerate() {
        let (queue, is_fitting) = match &operation.action {
            ClientAction::Produce { queue, records, .. } => (Some(*queue), is_producer && *records > 0),
            ClientAction::Poll { .. } => (None, !is_producer),
            ClientAction::Crash { .. } | ClientAction::Leave => (None, is_member),
            ClientAction::Seek { queue, .. } => (Some(*queue), !is_producer && !is_member),
            ClientAction::ListOffset { queue, .. } | ClientAction::DeleteRecords { queue } => {
                (Some(*queue), !is_member)
            }
        };
        if !is_fitting {
            return Err(WorkloadError::WrongRole { client: number, index, role });
        }
        if let Some(Queue { topic, partition }) = queue.filter(|queue| !context.has_queue(*queue)) {
            return Err(WorkloadError::NoSuchQueue { client: number, index, topic, partition });
        }
    }
    Ok(())
}

fn check_producer<D: Dial, T: Timer>(
    context: &Context<D, T>,
    options: crate::driver::producer::ProducerOptions,
) -> Result<(), WorkloadError> {
    let reason = if !(1..=5).contains(&options.in_flight) {
        format!("{} requests in flight is not within 1 to 5", options.in_flight)
    } else if options.attempts < 1 {
        "it has no attempt".to_string()
    } else if !(-1..=1).contains(&options.acks) {
        format!("acks={} is none of -1, 0, 1", options.acks)
    } else if options.idempotent && options.acks != -1 {
        format!("idempotence needs acks=-1 and it has {}", options.acks)
    } else {
        return Ok(());
    };
    Err(WorkloadError::Producer { client: context.client.0, reason })
}

/// One ListOffset operation, with retries until its time-out.
pub(crate) async fn list_offset<D: Dial, T: Timer>(
    context: &Context<D, T>,
    cluster: &Cluster<D, T>,
    queue: Queue,
    query: OffsetQuery,
    timeout: Duration,
) -> Option<i64> {
    let query = absolute(context, query);
    let partition = context.topic_partition(queue);
    let invocation =
        context.recorder.invoke(context.client, context.now_us(), format!("ListOffsets of {partition}, {query:?}"));
    let timestamp = match query {
        OffsetQuery::Earliest => EARLIEST,
        OffsetQuery::Latest => LATEST,
        OffsetQuery::Timestamp(timestamp_ms) => timestamp_ms,
    };
    let deadline = cluster.after(timeout);
    let (result, attempts) = cluster.retry(deadline, || cluster.list_offset(&partition, timestamp, deadline)).await;
    let (outcome, offset, timestamp_ms) = match result {
        Ok(listed) => (Outcome::Done, Some(listed.offset), Some(listed.timestamp_ms)),
        Err(_) => (attempts.outcome(), None, None),
    };
    let call = Call::ListOffset { queue, query, offset, timestamp_ms };
    context.recorder.complete(invocation, context.now_us(), outcome, call);
    offset
}

/// A plan's timestamps are relative to the run's beginning, a history's are not.
pub(crate) fn absolute<D: Dial, T: Timer>(context: &Context<D, T>, query: OffsetQuery) -> OffsetQuery {
    match query {
        OffsetQuery::Timestamp(shift_ms) => {
            OffsetQuery::Timestamp(context.began_wall_ms.saturating_add(shift_ms).max(0))
        }
        OffsetQuery::Earliest | OffsetQuery::Latest => query,
    }
}

/// One DeleteRecords operation: up to the middle between the log start and the high watermark that it learns first.
pub(crate) async fn delete_records<D: Dial, T: Timer>(
    context: &Context<D, T>,
    cluster: &Cluster<D, T>,
    queue: Queue,
    timeout: Duration,
) {
    let partition = context.topic_partition(queue);
    let invocation = context.recorder.invoke(context.client, context.now_us(), format!("DeleteRecords of {partition}"));
    let deadline = cluster.after(timeout);
    let bounds = async {
        let earliest = cluster.list_offset(&partition, EARLIEST, deadline).await?;
        let latest = cluster.list_offset(&partition, LATEST, deadline).await?;
        Ok((earliest.offset, latest.offset))
    };
    let (before, outcome, low_watermark) = match bounds.await {
        Err(error) => {
            let error: crate::driver::errors::CallError = error;
            (0, Outcome::Refused(format!("its bounds are not known: {error}")), None)
        }
        Ok((start, end)) => {
            let before = start + (end - start).max(0) / 2;
            let (result, attempts): (_, Attempts) =
                cluster.retry(deadline, || cluster.delete_records(&partition, before, deadline)).await;
            match result {
                Ok(low_watermark) => (before, Outcome::Done, Some(low_watermark)),
                Err(_) => (before, attempts.outcome(), None),
            }
        }
    };
    let call = Call::DeleteRecords { queue, before, low_watermark };
    context.recorder.complete(invocation, context.now_us(), outcome, call);
}
