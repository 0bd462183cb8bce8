//! The final reads: one consumer reads every queue of every topic from its log start to its end, with retries until the
//! bound, so that the judge knows what is there. Start and end are look-ups in the history like any other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Context;
use super::client::list_offset;
use super::consuming::poll;
use crate::driver::consumer::{Consumer, ConsumerOptions};
use crate::driver::errors::OFFSET_OUT_OF_RANGE;
use crate::driver::{Dial, Timer, TopicPartition};
use crate::history::OffsetQuery;

/// Limits of the final reads.
#[derive(Debug, Clone, Copy)]
pub struct FinalReads {
    /// How long they may take in all.
    pub bound: Duration,
    /// Longest wait for one answer.
    pub request_timeout: Duration,
    /// Upper bound of one fetch's answer, in bytes.
    pub fetch_max_bytes: u32,
}

/// Reads everything; fails with what was not reached within the bound. The context's client is a client of its own.
pub async fn final_reads<D: Dial, T: Timer>(context: &Context<D, T>, limits: FinalReads) -> Result<(), Vec<String>> {
    let cluster = context.cluster(limits.request_timeout);
    let deadline = cluster.after(limits.bound);
    let options = ConsumerOptions { request_timeout: limits.request_timeout, fetch_max_bytes: limits.fetch_max_bytes };
    let mut consumer = Consumer::assign(cluster.clone(), options, Vec::new());
    let mut missing: BTreeMap<TopicPartition, String> = BTreeMap::new();
    let mut ends: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let topics: Vec<String> = context.topics.iter().map(|topic| topic.name.clone()).collect();
    cluster.refresh_from_all(&topics, deadline).await;
    for queue in context.queues() {
        let partition = context.topic_partition(queue);
        let left = deadline.saturating_sub(context.timer.monotonic());
        let start = list_offset(context, &cluster, queue, OffsetQuery::Earliest, left).await;
        let left = deadline.saturating_sub(context.timer.monotonic());
        let end = list_offset(context, &cluster, queue, OffsetQuery::Latest, left).await;
        match (start, end) {
            (Some(start), Some(end)) if start <= end => {
                consumer.seek(&partition, start);
                ends.insert(partition, end);
            }
            (Some(start), Some(end)) => {
                missing.insert(partition, format!("its log start {start} lies beyond its end {end}"));
            }
            _ => {
                missing.insert(partition, "its bounds were not answered".to_string());
            }
        }
    }
    let mut rounds_without_progress = 0;
    loop {
        ends.retain(|partition, end| consumer.position(partition).is_none_or(|position| position < *end));
        if ends.is_empty() || context.timer.monotonic() >= deadline {
            break;
        }
        let before = positions(&consumer, &ends);
        let polled = poll(context, &mut consumer, POLL_WAIT_MS, 1, true).await;
        // A queue that has been read to its end may fail while the others are still read: nothing of it is missing.
        for (partition, error) in polled.failed.iter().filter(|(partition, _)| ends.contains_key(partition)) {
            missing.insert(partition.clone(), error.to_string());
            // The log start may have moved since: retention goes on while the end is read.
            if error.code() == Some(OFFSET_OUT_OF_RANGE)
                && let Ok(listed) = cluster.list_offset(partition, crate::driver::admin::EARLIEST, deadline).await
                && consumer.position(partition).is_some_and(|position| position < listed.offset)
            {
                consumer.seek(partition, listed.offset);
                missing.remove(partition);
            }
        }
        for read in &polled.read {
            missing.remove(&read.partition);
        }
        if positions(&consumer, &ends) != before {
            rounds_without_progress = 0;
            continue;
        }
        rounds_without_progress += 1;
        let pause = cluster.backoff("final-reads-jitter", rounds_without_progress);
        context.timer.sleep_until(cluster.after(pause).min(deadline)).await;
    }
    for (partition, end) in ends {
        let position = consumer.position(&partition).unwrap_or(-1);
        let reason = missing.remove(&partition).unwrap_or_else(|| "no more was delivered".to_string());
        missing.insert(partition, format!("read to {position} of {end}: {reason}"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(missing.into_iter().map(|(partition, reason)| format!("{partition}: {reason}")).collect())
}

fn positions<D: Dial, T: Timer>(consumer: &Consumer<D, T>, ends: &BTreeMap<TopicPartition, i64>) -> Vec<Option<i64>> {
    ends.keys().map(|partition| consumer.position(partition)).collect()
}

/// What a final poll waits at the broker for more; there is more, unless something is wrong.
const POLL_WAIT_MS: u32 = 50;
