//! How the members of a group share a topic's queues, and what more members, more queues or more threads give: a backlog is
//! laid out beforehand, each record takes a given time, and every member counts what it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backlog::load::{ConsumerDial, Consuming, Producer, ProducerDial};
use crate::consumers::ConsumerError;
use crate::consumers::cluster::Cluster;
use crate::consumers::kafka::{Admin, fresh, wait_until};

/// A group and what it has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crew {
    /// Members.
    pub members: u32,
    /// Records that one member works on at a time.
    pub threads: u32,
    /// Queues of its topic.
    pub queues: u32,
    /// What a record takes.
    pub work: Duration,
}

/// What a group has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    /// Records a second of all members together.
    pub records_per_second: f64,
    /// Members that had something to do.
    pub busy: u32,
    /// Members that had nothing to do.
    pub idle: u32,
}

/// Lets a group work for `span` on more than it can do, and counts.
pub fn work(cluster: &Cluster, crew: Crew, span: Duration) -> Result<Done, ConsumerError> {
    let (topic, group) = (fresh("members"), fresh("members"));
    Admin::connect(cluster.bootstrap())?.create(&topic, crew.queues, 1)?;
    let dials: Vec<Arc<ConsumerDial>> = (0..crew.members)
        .map(|_| {
            let dial = ConsumerDial::default();
            dial.work_micros.store(crew.work.as_micros() as u64, Ordering::SeqCst);
            dial.threads.store(crew.threads, Ordering::SeqCst);
            Arc::new(dial)
        })
        .collect();
    // Twice what they can do, so that nobody waits for records; a second's worth lies there before they begin.
    let per_second = f64::from(crew.members * crew.threads) / crew.work.as_secs_f64();
    let rate = AtomicU64::new((2.0 * per_second).clamp(500.0, RATE_MAXIMUM) as u64);
    let turned = ProducerDial { rate, queues: AtomicU32::new(crew.queues), poison: AtomicBool::new(false) };
    let producer = Producer::start(cluster.bootstrap(), &topic, turned, RECORD_BYTES)?;
    wait_until("the backlog", &mut || Ok(producer.sent().latencies.len() as f64 >= per_second.min(2_000.0)))?;
    let consumers: Result<Vec<Consuming>, ConsumerError> =
        dials.iter().map(|dial| Consuming::start(cluster.bootstrap(), &topic, &group, dial)).collect();
    let consumers = consumers?;
    let count = || dials.iter().map(|dial| dial.processed.load(Ordering::SeqCst)).collect::<Vec<u64>>();
    // Until as many members work as can, so that the last rebalance is over before anything is counted.
    let able = crew.members.min(crew.queues) as usize;
    wait_until("the members' first records", &mut || Ok(count().iter().filter(|done| **done > 0).count() >= able))?;
    std::thread::sleep(SETTLE);
    let (before, start) = (count(), Instant::now());
    std::thread::sleep(span);
    let (after, seconds) = (count(), start.elapsed().as_secs_f64());
    drop(consumers);
    producer.finish()?;
    let done: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let busy = done.iter().filter(|count| **count > 0).count() as u32;
    let records_per_second = done.iter().sum::<u64>() as f64 / seconds;
    Ok(Done { records_per_second, busy, idle: crew.members - busy })
}

/// Makes so many topics of one queue, one after the other; how many a second.
pub fn create_topics(cluster: &Cluster, topics: u32) -> Result<f64, ConsumerError> {
    let admin = Admin::connect(cluster.bootstrap())?;
    let start = Instant::now();
    for _ in 0..topics {
        admin.create(&fresh("topics"), 1, 1)?;
    }
    Ok(f64::from(topics) / start.elapsed().as_secs_f64())
}

const RECORD_BYTES: usize = 100;
const RATE_MAXIMUM: f64 = 20_000.0;
/// A group that has just been joined may move its queues once more.
const SETTLE: Duration = Duration::from_millis(1_500);
