//! The clients of a load on several topics: a thread for each producer and for each subscription, all on one clock, and the
//! verdict on what every subscription read. Not here: what is told of it (`super`).

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::measure::schedule::Schedule;

use super::OverTime;
use super::windows::Windows;
use crate::block::{self, Cost, nanoseconds};
use crate::driver::{self, Batching, ClientError, Delivered, Driver, LoadConsumer, LoadProducer, NewRun, client_error};
use crate::payload::{PayloadWriter, Stamp};
use crate::plan::LoadPlan;
use crate::verify::{self, Reader, Verification};
use crate::{BenchError, SystemTarget};

/// What one system did under the load.
#[derive(Debug)]
pub(super) struct OverTimeBlock {
    pub(super) cost: Option<Cost>,
    pub(super) acknowledged: u64,
    pub(super) unsettled: u64,
    pub(super) first_error: Option<String>,
    pub(super) verification: Verification,
    /// When sending ended, where it ended before its time.
    pub(super) ended_early_seconds: Option<f64>,
}

/// When what happens, seconds after the load's start. Consumers pause from one time to the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) pause_seconds: f64,
    pub(super) resume_seconds: f64,
    pub(super) end_seconds: f64,
}

/// One system, and the load that is put on it.
#[derive(Clone, Copy)]
pub(super) struct Loading<'a> {
    pub(super) target: &'a SystemTarget,
    pub(super) plan: &'a LoadPlan,
    pub(super) driver: &'a dyn Driver,
    pub(super) load: &'a OverTime,
    pub(super) times: Times,
    pub(super) topics: &'a [NewRun],
    pub(super) windows: &'a Windows,
}

/// What all threads of a load share.
struct Shared<'a> {
    loading: Loading<'a>,
    start_ns: u64,
    /// What records are filled with, where that is given.
    filler: Option<&'a [u8]>,
    sent_bytes: AtomicU64,
    /// When the bytes' bound was met, nanoseconds after the start; `u64::MAX` where it was not.
    bound_met_ns: AtomicU64,
}

/// One subscription's consumer and what it has read.
struct Subscription {
    topic: usize,
    consumer: Box<dyn LoadConsumer>,
    reader: Reader,
}

/// Makes the topics, loads them, and deletes them again, also where the load failed.
pub(super) fn run(loading: Loading<'_>) -> Result<OverTimeBlock, BenchError> {
    let Loading { plan, driver, topics, .. } = loading;
    let filler = loading.load.payload_file.as_deref().map(read_filler).transpose()?;
    let mut made = 0;
    let mut measured = Ok(());
    for topic in topics {
        measured = driver.create(topic, plan);
        if measured.is_err() {
            break;
        }
        made += 1;
    }
    let block = measured.and_then(|()| load_topics(loading, filler.as_deref()));
    let deleted: Result<Vec<()>, BenchError> = topics[..made].iter().map(|topic| driver.delete(topic)).collect();
    // The first thing that went wrong is the one to tell.
    let block = block?;
    deleted?;
    Ok(block)
}

fn load_topics(loading: Loading<'_>, filler: Option<&[u8]>) -> Result<OverTimeBlock, BenchError> {
    let Loading { target, topics, windows, .. } = loading;
    let (subscriptions, producers) = connect(loading)?;
    let before = block::usage_of(target)?;
    let (start_ns, bound_met_ns) = (windows.clock().now_ns(), AtomicU64::new(u64::MAX));
    let shared = Shared { loading, start_ns, filler, sent_bytes: AtomicU64::new(0), bound_met_ns };
    windows.start(shared.start_ns, loading.times.resume_seconds);
    let ends_known: Vec<OnceLock<Vec<i64>>> = topics.iter().map(|_| OnceLock::new()).collect();
    let (sent, subscriptions) = std::thread::scope(|scope| {
        let followers: Result<Vec<_>, BenchError> =
            subscriptions.into_iter().map(|one| follow(scope, &shared, one, &ends_known)).collect();
        let sent = followers.map(|followers| {
            let senders: Result<Vec<_>, BenchError> = producers
                .into_iter()
                .map(|(topic, client, producer)| send(scope, &shared, (topic, client), producer))
                .collect();
            (followers, senders.and_then(|senders| join(loading, senders)))
        });
        // The followers must learn that it is over in any case, or the scope would never end.
        for (index, topic) in topics.iter().enumerate() {
            let known =
                sent.as_ref().ok().and_then(|(_, sent)| sent.as_ref().ok()).map(|(_, ends)| ends[index].clone());
            ends_known[index].get_or_init(|| known.unwrap_or_else(|| vec![0; topic.queues as usize]));
        }
        let (followers, sent) = sent?;
        let read: Result<Vec<_>, BenchError> = followers
            .into_iter()
            .map(|follower| follower.join().map_err(|_| BenchError::Panicked { what: "consumer" }))
            .collect();
        Ok::<_, BenchError>((sent?, read?))
    })?;
    let after = block::usage_of(target)?;
    let cost = block::cost_of(before, after, after);
    let bound_met_ns = shared.bound_met_ns.load(Ordering::Relaxed);
    let ended_early_seconds = (bound_met_ns != u64::MAX).then(|| bound_met_ns as f64 / 1e9);
    Ok(OverTimeBlock { cost, ended_early_seconds, ..judge(sent, subscriptions) })
}

/// A producer, its topic's index and its number within the topic.
type Producing = (usize, u32, Box<dyn LoadProducer>);

/// Every client is connected before the clock starts.
fn connect(loading: Loading<'_>) -> Result<(Vec<Subscription>, Vec<Producing>), BenchError> {
    let Loading { plan, driver, load, topics, .. } = loading;
    let batch_records = block::BATCH_RECORDS_MAXIMUM;
    let batching =
        Batching { linger_ms: load.linger_ms, batch_bytes: load.batch_bytes, batch_records, is_open_loop: true };
    let (mut subscriptions, mut producers) = (Vec::new(), Vec::new());
    for (index, topic) in topics.iter().enumerate() {
        for subscription in 0..load.subscriptions {
            let consumer = driver.consumer(plan, &NewRun { subscription, ..topic.clone() })?;
            let reader = Reader::new(topic.run, plan.record_bytes, topic.queues, plan.producers);
            subscriptions.push(Subscription { topic: index, consumer, reader });
        }
        for client in 0..plan.producers {
            producers.push((index, client, driver.producer(plan, topic, batching, client)?));
        }
    }
    Ok((subscriptions, producers))
}

/// What every subscription read, against what the producers of its topic were told.
fn judge((delivered, ends): AllSent, subscriptions: Vec<Followed>) -> OverTimeBlock {
    let (mut unsettled, mut first_error, mut ledgers) = (0, None, Vec::new());
    for of_topic in delivered {
        let (open, error) = block::failures(&of_topic);
        unsettled += open;
        first_error = first_error.or(error);
        ledgers.push(of_topic.into_iter().map(|one| one.ledger).collect::<Vec<_>>());
    }
    let verdicts = subscriptions
        .into_iter()
        .map(|(one, unread)| verify::judge(&ledgers[one.topic], &one.reader, &ends[one.topic], unread));
    let verification = sum(verdicts);
    let acknowledged = ledgers.iter().flatten().map(verify::Ledger::acknowledged).sum();
    OverTimeBlock { cost: None, acknowledged, unsettled, first_error, verification, ended_early_seconds: None }
}

type Followed = (Subscription, Option<String>);

/// Reads one subscription until its topic's ends are known and reached.
fn follow<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    shared: &'env Shared<'env>,
    subscription: Subscription,
    ends: &'env [OnceLock<Vec<i64>>],
) -> Result<ScopedJoinHandle<'scope, Followed>, BenchError> {
    let run = move || {
        let Subscription { topic, consumer, mut reader } = subscription;
        let windows = shared.loading.windows;
        let clock = windows.clock();
        let mut pausing = Pausing { consumer, shared };
        let ends = || ends[topic].get().cloned();
        let unread = driver::consume(&mut pausing, &mut reader, &ends, &mut |stamp| {
            windows.consumed(stamp, clock.now_ns());
        });
        (Subscription { topic, consumer: pausing.consumer, reader }, unread)
    };
    let failed = |source| BenchError::Io { action: "start a consumer's thread", source };
    Builder::new().name("consumer".to_owned()).spawn_scoped(scope, run).map_err(failed)
}

/// A consumer that does not poll while a backlog is built.
struct Pausing<'a> {
    consumer: Box<dyn LoadConsumer>,
    shared: &'a Shared<'a>,
}

impl LoadConsumer for Pausing<'_> {
    fn poll(&mut self, on_record: &mut dyn FnMut(u32, i64, &[u8])) -> Result<u64, String> {
        let Times { pause_seconds, resume_seconds, .. } = self.shared.loading.times;
        let since_ns = self.shared.loading.windows.clock().now_ns().saturating_sub(self.shared.start_ns);
        if (nanoseconds(pause_seconds)..nanoseconds(resume_seconds)).contains(&since_ns) {
            std::thread::sleep(Duration::from_nanos(SERVE_INTERVAL_NS));
            return Ok(0);
        }
        self.consumer.poll(on_record)
    }
}

type Sent = (usize, Result<Delivered, ClientError>);

fn send<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    shared: &'env Shared<'env>,
    (topic_index, client): (usize, u32),
    producer: Box<dyn LoadProducer>,
) -> Result<ScopedJoinHandle<'scope, Sent>, BenchError> {
    let (plan, topic) = (shared.loading.plan, &shared.loading.topics[topic_index]);
    let writer = match shared.filler {
        Some(bytes) => PayloadWriter::filled_with(topic.run, plan.record_bytes, bytes),
        None => PayloadWriter::with_entropy(topic.run, plan.record_bytes, plan.entropy_percent),
    };
    let number = topic_index as u64 * u64::from(plan.producers) + u64::from(client);
    let run = move || (topic_index, send_all(shared, topic, (number, client), producer, writer));
    let failed = |source| BenchError::Io { action: "start a producer's thread", source };
    Builder::new().name(format!("producer-{number}")).spawn_scoped(scope, run).map_err(failed)
}

/// Sends on schedule, or as fast as it goes, until the load's end or until enough bytes were sent.
fn send_all(
    shared: &Shared<'_>,
    topic: &NewRun,
    (number, client): (u64, u32),
    mut producer: Box<dyn LoadProducer>,
    mut writer: PayloadWriter,
) -> Result<Delivered, ClientError> {
    let Loading { plan, load, times, windows, .. } = shared.loading;
    let (clock, start_ns) = (windows.clock(), shared.start_ns);
    let end_ns = start_ns + nanoseconds(times.end_seconds);
    let producers = u64::from(load.topics) * u64::from(plan.producers);
    let schedule = (load.records_per_second > 0).then(|| Schedule::new(load.records_per_second, number, producers));
    for index in 0.. {
        let mut now_ns = clock.now_ns();
        let intended_ns = schedule.map_or(now_ns, |schedule| start_ns + schedule.intended_ns(index));
        if intended_ns >= end_ns || is_bound_met(shared, now_ns) {
            break;
        }
        while now_ns < intended_ns {
            producer.serve();
            std::thread::sleep(Duration::from_nanos((intended_ns - now_ns).min(SERVE_INTERVAL_NS)));
            now_ns = clock.now_ns();
        }
        let queue = ((index * u64::from(plan.producers) + u64::from(client)) % u64::from(topic.queues)) as u32;
        let sequence = producer.next_sequence(queue);
        let stamp = Stamp { client, queue, sequence, intended_ns, sent_ns: now_ns };
        producer.send(queue, sequence, writer.write(stamp))?;
        windows.sent(intended_ns, now_ns);
        if u64::is_multiple_of(index, SERVE_INTERVAL_RECORDS) {
            producer.serve();
        }
    }
    producer.finish()
}

/// Adds a record's bytes, and says whether the load has sent as many as it may.
fn is_bound_met(shared: &Shared<'_>, now_ns: u64) -> bool {
    let bytes = shared.loading.plan.record_bytes as u64;
    let sent = shared.sent_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
    let is_met = sent > shared.loading.load.bytes_maximum;
    if is_met {
        shared.bound_met_ns.fetch_min(now_ns.saturating_sub(shared.start_ns), Ordering::Relaxed);
    }
    is_met
}

type AllSent = (Vec<Vec<Delivered>>, Vec<Vec<i64>>);

/// What was delivered and the end offsets, by topic.
fn join(loading: Loading<'_>, senders: Vec<ScopedJoinHandle<'_, Sent>>) -> Result<AllSent, BenchError> {
    let Loading { target, driver, topics, .. } = loading;
    let mut delivered: Vec<Vec<Delivered>> = topics.iter().map(|_| Vec::new()).collect();
    // All are waited for, whatever the first says: a thread that is left would end with the scope anyway.
    let joined: Vec<Result<Sent, BenchError>> = senders
        .into_iter()
        .map(|sender| sender.join().map_err(|_| BenchError::Panicked { what: "producer" }))
        .collect();
    for sent in joined {
        let (topic, sent) = sent?;
        delivered[topic].push(sent.map_err(client_error(target, "produce"))?);
    }
    let ends: Result<Vec<Vec<i64>>, BenchError> =
        topics.iter().zip(&delivered).map(|(topic, delivered)| driver.end_offsets(topic, delivered)).collect();
    Ok((delivered, ends?))
}

/// The gravest verdict, and all anomalies.
fn sum(verdicts: impl Iterator<Item = Verification>) -> Verification {
    let mut sum = Verification::of_nothing(None);
    for one in verdicts {
        sum.verdict = sum.verdict.max(one.verdict);
        sum.verified += one.verified;
        for (anomaly, count) in one.anomalies {
            *sum.anomalies.entry(anomaly).or_default() += count;
        }
        sum.unknown = sum.unknown.or(one.unknown);
    }
    debug_assert!(sum.verdict != VerdictKind::Unknown || sum.unknown.is_some(), "an unknown verdict has a reason");
    sum
}

fn read_filler(path: &Path) -> Result<Vec<u8>, BenchError> {
    std::fs::read(path).map_err(|source| BenchError::Io { action: "read the payload file", source })
}

const SERVE_INTERVAL_NS: u64 = 1_000_000;
const SERVE_INTERVAL_RECORDS: u64 = 64;
