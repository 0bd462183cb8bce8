//! What a queue is for: the producer does not wait for the consumer's work, a burst is absorbed, and consumers that are
//! away do not hold the producer up. Each is an experiment on a running cluster that leaves plain figures; rules elsewhere
//! say what they must be. Start at `asynchrony`, `burst` and `decoupling`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::backlog::load::{ConsumerDial, Consuming, Producer, ProducerDial, Sent};
use crate::consumers::ConsumerError;
use crate::consumers::cluster::Cluster;
use crate::consumers::kafka::{Admin, Onlooker, fresh, wait_until};

/// Latencies of acknowledgements over slices of time, nanoseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latencies {
    /// The median of each slice.
    pub p50_ns: Vec<f64>,
    /// The 99th percentile of each slice.
    pub p99_ns: Vec<f64>,
}

/// The producer's latency, consumers being quick or slow.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Asynchrony {
    /// Beside consumers that take no time for a record.
    pub quick: Latencies,
    /// Beside consumers that take a long time.
    pub slow: Latencies,
    /// What a record takes the slow ones, milliseconds.
    pub work_ms: u64,
}

/// A burst of ten times the rate.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Burst {
    /// Acknowledged records of the burst over those that were due in it.
    pub acknowledged_share: f64,
    /// Records a second that were consumed, second by second, while there were some to consume.
    pub consumed_per_second: Vec<f64>,
    /// The most records that waited.
    pub lag_maximum: i64,
    /// By how much the brokers' memory grew at most, bytes.
    pub memory_growth_bytes: u64,
    /// Bytes of the records that waited at most.
    pub waiting_bytes: u64,
    /// Seconds from the burst's end until everything was consumed.
    pub drained_seconds: f64,
    /// Records that were not consumed, or not acknowledged.
    pub missing: u64,
    /// Seconds, and records that waited.
    pub curve: Vec<(f64, i64)>,
}

/// Consumers that stop for a while.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Decoupling {
    /// The producer's latency while they run.
    pub running: Latencies,
    /// And while they are stopped.
    pub stopped: Latencies,
    /// For how long they were stopped, seconds.
    pub stopped_seconds: f64,
    /// Seconds from their return until everything was consumed.
    pub drained_seconds: f64,
    /// Records that were not consumed, or not acknowledged.
    pub missing: u64,
}

const RECORD_BYTES: usize = 1_000;
const QUEUES: u32 = 4;
const RATE: u64 = 200;
const BURST: u64 = 10;

/// A topic with its group's consumers and one producer.
struct Stage<'a> {
    cluster: &'a Cluster,
    topic: String,
    group: String,
    dial: Arc<ConsumerDial>,
    producer: Producer,
    onlooker: Onlooker,
}

impl<'a> Stage<'a> {
    fn set(cluster: &'a Cluster, work: Duration) -> Result<Stage<'a>, ConsumerError> {
        let (topic, group) = (fresh("uses"), fresh("uses"));
        Admin::connect(cluster.bootstrap())?.create(&topic, QUEUES, 1)?;
        let dial = Arc::new(ConsumerDial::default());
        dial.work_micros.store(work.as_micros() as u64, Ordering::SeqCst);
        let (rate, queues) = (AtomicU64::new(RATE), AtomicU32::new(QUEUES));
        let turned = ProducerDial { rate, queues, poison: AtomicBool::new(false) };
        let producer = Producer::start(cluster.bootstrap(), &topic, turned, RECORD_BYTES)?;
        let onlooker = Onlooker::connect(cluster.bootstrap(), &topic, QUEUES, &group)?;
        Ok(Stage { cluster, topic, group, dial, producer, onlooker })
    }

    fn consumer(&self) -> Result<Consuming, ConsumerError> {
        Consuming::start(self.cluster.bootstrap(), &self.topic, &self.group, &self.dial)
    }

    fn wait_for_first(&self) -> Result<(), ConsumerError> {
        wait_until("the first record's processing", &mut || Ok(self.dial.processed.load(Ordering::SeqCst) > 0))
    }

    fn lag(&self) -> Result<i64, ConsumerError> {
        let (ends, committed) = (self.onlooker.ends()?, self.onlooker.committed()?);
        Ok(ends.iter().zip(&committed).map(|(end, committed)| (end - committed).max(0)).sum())
    }

    /// Ends the producer, waits until everything is committed, and gives what is missing.
    fn finish(self) -> Result<u64, ConsumerError> {
        let sent = self.producer.finish()?;
        wait_until("the last record's commit", &mut || self.onlooker.is_done())?;
        Ok(self.dial.missing(sent.records) + sent.failed)
    }
}

/// Quick and slow consumers in turn, `pairs` times, each for `block`. Each block's first part is not counted.
pub fn asynchrony(cluster: &Cluster, pairs: u32, block: Duration) -> Result<Asynchrony, ConsumerError> {
    let mut found = Asynchrony { work_ms: 50, ..Asynchrony::default() };
    for _ in 0..pairs {
        for is_slow in [false, true] {
            let work = if is_slow { Duration::from_millis(found.work_ms) } else { Duration::ZERO };
            let stage = Stage::set(cluster, work)?;
            let consumer = stage.consumer()?;
            stage.wait_for_first()?;
            let from = stage.producer.start.elapsed();
            std::thread::sleep(block);
            let sent = stage.producer.finish()?;
            drop(consumer);
            let latencies = if is_slow { &mut found.slow } else { &mut found.quick };
            latencies.add(&sent, from, from + block);
        }
    }
    Ok(found)
}

/// Usual load for `usual`, ten times as much for as long, and then until everything is consumed.
pub fn burst(cluster: &Cluster, usual: Duration) -> Result<Burst, ConsumerError> {
    let stage = Stage::set(cluster, Duration::from_micros(1_500))?;
    let consumer = stage.consumer()?;
    stage.wait_for_first()?;
    std::thread::sleep(usual);
    let mut found = Burst::default();
    let memory = cluster.resident_bytes();
    let start = Instant::now();
    let burst_from = stage.producer.start.elapsed();
    stage.producer.dial.rate.store(RATE * BURST, Ordering::SeqCst);
    let (mut is_burst, mut over) = (true, Duration::ZERO);
    let mut last = (Instant::now(), stage.dial.processed.load(Ordering::SeqCst));
    loop {
        std::thread::sleep(Duration::from_millis(1_000).saturating_sub(last.0.elapsed()));
        let now = (Instant::now(), stage.dial.processed.load(Ordering::SeqCst));
        let rate = (now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64();
        last = now;
        let lag = stage.lag()?;
        found.curve.push((start.elapsed().as_secs_f64(), lag));
        found.lag_maximum = found.lag_maximum.max(lag);
        let grown = cluster.resident_bytes().zip(memory).map_or(0, |(now, before)| now.saturating_sub(before));
        found.memory_growth_bytes = found.memory_growth_bytes.max(grown);
        if is_burst && start.elapsed() >= usual {
            stage.producer.dial.rate.store(RATE, Ordering::SeqCst);
            (is_burst, over) = (false, stage.producer.start.elapsed());
        }
        if !is_burst && lag <= RATE as i64 {
            break;
        }
        // A second in which there was not always something to consume says nothing of the consumers' rate.
        if lag > RATE as i64 && found.curve.len() > 1 {
            found.consumed_per_second.push(rate);
        }
        if start.elapsed() > LIMIT {
            return Err(ConsumerError::Late { what: "the drain".to_owned(), seconds: LIMIT.as_secs() });
        }
    }
    found.drained_seconds = (stage.producer.start.elapsed() - over).as_secs_f64();
    found.waiting_bytes = found.lag_maximum.unsigned_abs() * RECORD_BYTES as u64;
    let within = |due: &u64| (burst_from..over).contains(&Duration::from_nanos(*due));
    let acknowledged = stage.producer.sent().latencies.iter().filter(|(due, _)| within(due)).count();
    let due = (over - burst_from).as_secs_f64() * (RATE * BURST) as f64;
    found.acknowledged_share = acknowledged as f64 / due;
    found.missing = stage.finish()?;
    drop(consumer);
    Ok(found)
}

/// Consumers run for `running`, are gone for `stopped`, and come back.
pub fn decoupling(cluster: &Cluster, running: Duration, stopped: Duration) -> Result<Decoupling, ConsumerError> {
    let stage = Stage::set(cluster, Duration::from_micros(1_500))?;
    let consumer = stage.consumer()?;
    stage.wait_for_first()?;
    let began = stage.producer.start.elapsed();
    std::thread::sleep(running);
    let left = stage.producer.start.elapsed();
    drop(consumer);
    let alone = stage.producer.start.elapsed();
    std::thread::sleep(stopped);
    let back = stage.producer.start.elapsed();
    let consumer = stage.consumer()?;
    wait_until("the drain", &mut || Ok(stage.lag()? <= RATE as i64))?;
    let mut found = Decoupling { stopped_seconds: (back - alone).as_secs_f64(), ..Decoupling::default() };
    found.drained_seconds = (stage.producer.start.elapsed() - back).as_secs_f64();
    let sent = stage.producer.sent();
    for slice in 0..SLICES {
        found.running.add(&sent, part(began, left, slice), part(began, left, slice + 1));
        found.stopped.add(&sent, part(alone, back, slice), part(alone, back, slice + 1));
    }
    found.missing = stage.finish()?;
    drop(consumer);
    Ok(found)
}

fn part(from: Duration, to: Duration, slice: u32) -> Duration {
    from + (to - from) * slice / SLICES
}

impl Latencies {
    /// Adds a slice: records that were due in it.
    fn add(&mut self, sent: &Sent, from: Duration, to: Duration) {
        let within = |due: u64| (from..to).contains(&Duration::from_nanos(due));
        let mut values: Vec<u64> =
            sent.latencies.iter().filter(|(due, _)| within(*due)).map(|(_, latency)| *latency).collect();
        values.sort_unstable();
        if let Some(last) = values.len().checked_sub(1) {
            self.p50_ns.push(values[values.len() / 2] as f64);
            self.p99_ns.push(values[(values.len() * 99 / 100).min(last)] as f64);
        }
    }
}

/// A phase is cut into so many slices, so that its figure has an interval.
const SLICES: u32 = 6;
const LIMIT: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_holds_what_was_due_in_it() {
        let latencies = (0..100).map(|number| (number * 1_000, number)).collect();
        let sent = Sent { records: 100, failed: 0, latencies };
        let mut found = Latencies::default();
        found.add(&sent, Duration::from_micros(10), Duration::from_micros(20));
        found.add(&sent, Duration::from_micros(200), Duration::from_micros(300));
        assert_eq!((found.p50_ns, found.p99_ns), (vec![15.0], vec![19.0]));
    }
}
