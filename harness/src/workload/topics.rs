//! Creates a plan's topics before its clients start, and waits until every partition has a leader.

use std::time::Duration;

use super::{Context, WorkloadError};
use crate::driver::admin::NewTopic;
use crate::driver::cluster::Cluster;
use crate::driver::errors::{CallError, INVALID_REPLICATION_FACTOR, TOPIC_ALREADY_EXISTS};
use crate::driver::{Dial, Timer};
use crate::history::{Call, Outcome};
use crate::plan::Topic;

/// Time until the topic is asked for again from a cluster that is still forming.
const FORMING_WAIT: Duration = Duration::from_millis(100);

/// Creates the topics that are not left to auto-creation; each gets `bound` at most, each request `request_timeout`.
pub async fn create_topics<D: Dial, T: Timer>(
    context: &Context<D, T>,
    bound: Duration,
    request_timeout: Duration,
) -> Result<(), WorkloadError> {
    let cluster = context.cluster(request_timeout);
    for (index, topic) in context.topics.iter().enumerate().filter(|(_, topic)| !topic.auto_created) {
        let deadline = cluster.after(bound);
        let not_ready = |reason: String| WorkloadError::TopicNotReady {
            topic: topic.name.clone(),
            waited_ms: bound.as_millis(),
            reason,
        };
        create(context, &cluster, index as u32, topic, deadline).await.map_err(not_ready)?;
        let (led, _) = cluster.retry(deadline, || all_led(&cluster, topic, deadline)).await;
        led.map_err(|error| not_ready(error.to_string()))?;
    }
    Ok(())
}

/// One CreateTopic operation. A topic that is there already is fine: an earlier attempt, or somebody else, made it.
async fn create<D: Dial, T: Timer>(
    context: &Context<D, T>,
    cluster: &Cluster<D, T>,
    index: u32,
    topic: &Topic,
    deadline: Duration,
) -> Result<(), String> {
    let new = NewTopic {
        name: topic.name.clone(),
        partitions: topic.queues as i32,
        // One copy is what nobody asked for: the nodes' own default decides.
        replication: if topic.replication > 1 { topic.replication as i16 } else { -1 },
        config: topic.config.clone(),
    };
    let what = format!("CreateTopics of {}", topic.name);
    let invocation = context.recorder.invoke(context.client, context.now_us(), what);
    let (result, attempts) = loop {
        let (result, attempts) = cluster
            .retry(deadline, || {
                let deadline = deadline.min(cluster.after(cluster.options().request_timeout));
                cluster.create_topic(&new, deadline)
            })
            .await;
        // A cluster that is still forming has not all of its nodes yet.
        let is_forming = matches!(&result, Err(error) if error.code() == Some(INVALID_REPLICATION_FACTOR));
        let again = cluster.after(FORMING_WAIT);
        if !is_forming || attempts.unknown.is_some() || again >= deadline {
            break (result, attempts);
        }
        cluster.timer().sleep_until(again).await;
    };
    let (outcome, result) = match result {
        Ok(()) => (Outcome::Done, Ok(())),
        Err(error) if error.code() == Some(TOPIC_ALREADY_EXISTS) && attempts.unknown.is_some() => {
            (Outcome::Done, Ok(()))
        }
        Err(error) if error.code() == Some(TOPIC_ALREADY_EXISTS) => (attempts.outcome(), Ok(())),
        Err(error) => (attempts.outcome(), Err(error.to_string())),
    };
    context.recorder.complete(invocation, context.now_us(), outcome, Call::CreateTopic { topic: index });
    result
}

async fn all_led<D: Dial, T: Timer>(
    cluster: &Cluster<D, T>,
    topic: &Topic,
    deadline: Duration,
) -> Result<(), CallError> {
    let led = cluster.led_partitions(&topic.name, deadline).await?;
    if led.len() as u32 == topic.queues {
        return Ok(());
    }
    Err(CallError::NoLeader {
        partition: topic.name.clone(),
        reason: format!("{} of its {} partitions have one", led.len(), topic.queues),
    })
}
