//! One block: a fresh topic on one system, load for a few seconds, everything read back and judged.
//! `throughput` produces unthrottled and then drains; `rate` sends open-loop while a consumer follows.

use std::sync::OnceLock;
use std::time::Duration;

use hdrhistogram::Histogram;
use mqassay_harness::measure::percentile::latency_histogram;
use mqassay_harness::measure::schedule::Schedule;
use mqassay_harness::process::accounting::Usage;

use crate::driver::{self, Batching, ClientError, Delivered, Driver, LoadProducer, NewRun, RunClock, client_error};
use crate::payload::{PayloadWriter, Stamp};
use crate::plan::{LoadPlan, Rate};
use crate::verify::{self, Reader, Verification};
use crate::{BenchError, SystemTarget};

/// What an unthrottled block found.
#[derive(Debug)]
pub(crate) struct ThroughputBlock {
    pub(crate) produce_records_per_second: f64,
    pub(crate) consume_records_per_second: Option<f64>,
    pub(crate) cost: Option<Cost>,
    pub(crate) records_per_batch: Option<f64>,
    /// Records acknowledged while the clock ran.
    pub(crate) acknowledged: u64,
    pub(crate) unsettled: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) verification: Verification,
}

/// What an open-loop block found.
#[derive(Debug)]
pub(crate) struct RateBlock {
    pub(crate) response: Histogram<u64>,
    pub(crate) service: Histogram<u64>,
    pub(crate) lag: Histogram<u64>,
    /// Records polled no later than they were sent; one clock stamps both, so there should be none.
    pub(crate) not_positive: u64,
    pub(crate) achieved_share: f64,
    pub(crate) cost: Option<Cost>,
    pub(crate) unsettled: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) verification: Verification,
}

/// What the broker's process used in a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) produce_cpu_ns: f64,
    /// 0 in an open-loop block, where produce and consume are one.
    pub(crate) consume_cpu_ns: f64,
    pub(crate) resident_bytes: f64,
    /// Of the threads that were alive at the end.
    pub(crate) context_switches: f64,
    pub(crate) written_bytes: f64,
}

/// How an unthrottled block produces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unthrottled {
    pub(crate) queues: u32,
    pub(crate) seconds: f64,
    pub(crate) records_maximum: u64,
    /// Records sent to one queue before the next has its turn.
    pub(crate) run_length: u32,
    pub(crate) batching: Batching,
}

/// Makes the topic of a block, measures on it, and deletes it again, also where the measurement failed.
pub(crate) fn on_topic<Block>(
    plan: &LoadPlan,
    driver: &dyn Driver,
    topic: &NewRun,
    measure: impl FnOnce() -> Result<Block, BenchError>,
) -> Result<Block, BenchError> {
    driver.create(topic, plan)?;
    let measured = measure();
    let deleted = driver.delete(topic);
    // The first thing that went wrong is the one to tell.
    let block = measured?;
    deleted?;
    Ok(block)
}

/// Produces unthrottled, then reads everything back.
pub(crate) fn throughput(
    target: &SystemTarget,
    plan: &LoadPlan,
    driver: &dyn Driver,
    topic: &NewRun,
    load: Unthrottled,
) -> Result<ThroughputBlock, BenchError> {
    let mut producers = connect_producers(driver, plan, topic, load.batching)?;
    let touched = touch_queues(&mut producers, plan, topic, load).map_err(client_error(target, "touch every queue"))?;
    let before = usage_of(target)?;
    let start_ns = topic.clock.now_ns();
    let send =
        |producer: Box<dyn LoadProducer>, client: u32| send_unthrottled(producer, client, plan, topic, load, start_ns);
    let delivered = on_threads(target, producers, &send)?;
    let end_ns = delivered.iter().map(|delivered| delivered.last_ns).max().unwrap_or(start_ns);
    let between = usage_of(target)?;

    let mut consumer = driver.consumer(topic)?;
    let ends = driver.end_offsets(topic, &delivered)?;
    let mut reader = Reader::new(topic.run, plan.record_bytes, topic.queues, plan.producers);
    let mut times = FirstAndLast::default();
    let clock = topic.clock;
    let unread =
        driver::consume(consumer.as_mut(), &mut reader, &|| Some(ends.clone()), &mut |_| times.note(clock.now_ns()));
    let after = usage_of(target)?;
    drop(consumer);

    let acknowledged = delivered.iter().map(|delivered| delivered.ledger.acknowledged()).sum::<u64>() - touched;
    let (unsettled, first_error) = failures(&delivered);
    let (records, batches) =
        delivered.iter().map(Delivered::batched).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let ledgers: Vec<_> = delivered.into_iter().map(|delivered| delivered.ledger).collect();
    let verification = verify::judge(&ledgers, &reader, &ends, unread);
    Ok(ThroughputBlock {
        produce_records_per_second: per_second(acknowledged, end_ns - start_ns).unwrap_or(0.0),
        consume_records_per_second: times.per_second(),
        cost: cost_of(before, between, after),
        records_per_batch: (batches > 0).then(|| records as f64 / batches as f64),
        acknowledged,
        unsettled,
        first_error,
        verification,
    })
}

/// Sends at the schedule's times while a consumer on a thread of its own follows.
pub(crate) fn rate(
    target: &SystemTarget,
    plan: &LoadPlan,
    driver: &dyn Driver,
    topic: &NewRun,
    load: Rate,
) -> Result<RateBlock, BenchError> {
    let batching =
        Batching { linger_ms: load.linger_ms, batch_bytes: load.batch_bytes, batch_records: BATCH_RECORDS_MAXIMUM };
    let producers = connect_producers(driver, plan, topic, batching)?;
    let mut consumer = driver.consumer(topic)?;
    let before = usage_of(target)?;
    let start_ns = topic.clock.now_ns();
    let counted_from_ns = start_ns + nanoseconds(load.lead_in_seconds);
    let ends_known: OnceLock<Vec<i64>> = OnceLock::new();
    let mut latencies = Latencies::new(counted_from_ns);
    let mut reader = Reader::new(topic.run, plan.record_bytes, topic.queues, plan.producers);
    let (delivered, ends, unread) = std::thread::scope(|scope| {
        let (clock, consumer, reader, latencies) = (topic.clock, consumer.as_mut(), &mut reader, &mut latencies);
        let ends = || ends_known.get().cloned();
        let follow =
            move || driver::consume(consumer, reader, &ends, &mut |stamp| latencies.note(stamp, clock.now_ns()));
        let follower = std::thread::Builder::new().name("consumer".to_owned()).spawn_scoped(scope, follow);
        let follower = follower.map_err(|source| BenchError::Io { action: "start the consumer's thread", source })?;
        let send = |producer: Box<dyn LoadProducer>, client: u32| {
            send_on_schedule(producer, client, plan, topic, load, start_ns)
        };
        let sent = on_threads(target, producers, &send)
            .and_then(|delivered| driver.end_offsets(topic, &delivered).map(|ends| (delivered, ends)));
        // The follower must learn that it is over in any case, or the scope would never end.
        let ends = sent.as_ref().map_or_else(|_| vec![0; topic.queues as usize], |(_, ends)| ends.clone());
        ends_known.get_or_init(|| ends);
        let unread = follower.join().map_err(|_| BenchError::Panicked { what: "consumer" })?;
        sent.map(|(delivered, ends)| (delivered, ends, unread))
    })?;
    let after = usage_of(target)?;
    drop(consumer);
    let sent: u64 = delivered.iter().map(|one| one.ledger.acknowledged() + one.ledger.unsettled()).sum();
    let last_ns = delivered.iter().map(|one| one.last_ns).max().unwrap_or(start_ns);
    let offered_ns = nanoseconds(load.block_seconds).max(1);
    // 1 where everything was acknowledged within the block's own time and a bit; less where a backlog had to drain.
    let achieved_share = (offered_ns as f64 / (last_ns.saturating_sub(start_ns)).max(1) as f64).min(1.0);
    let (unsettled, first_error) = failures(&delivered);
    let ledgers: Vec<_> = delivered.into_iter().map(|delivered| delivered.ledger).collect();
    let verification = verify::judge(&ledgers, &reader, &ends, unread);
    tracing::debug!(sent, achieved_share, "open-loop block");
    Ok(RateBlock {
        response: latencies.response,
        service: latencies.service,
        lag: latencies.lag,
        not_positive: latencies.not_positive,
        achieved_share,
        cost: cost_of(before, after, after),
        unsettled,
        first_error,
        verification,
    })
}

/// A number that differs for every block of a run.
pub(crate) fn run_number(number: u64, salt: u64) -> u64 {
    salt.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A topic name and a mark for its records that no other block has.
pub(crate) fn new_run(plan: &LoadPlan, target: &SystemTarget, number: u64, salt: u64, queues: u32) -> NewRun {
    let run = run_number(number, salt);
    let name = format!("mqassay-{}-{}-{run:016x}", plan.name, target.name);
    NewRun { name, run, queues, clock: RunClock::start() }
}

fn connect_producers(
    driver: &dyn Driver,
    plan: &LoadPlan,
    topic: &NewRun,
    batching: Batching,
) -> Result<Vec<Box<dyn LoadProducer>>, BenchError> {
    (0..plan.producers).map(|client| driver.producer(plan, topic, batching, client)).collect()
}

type Sending<'a> = dyn Fn(Box<dyn LoadProducer>, u32) -> Result<Delivered, ClientError> + Sync + 'a;

/// Runs each producer on a thread of its own until all have finished.
fn on_threads(
    target: &SystemTarget,
    producers: Vec<Box<dyn LoadProducer>>,
    send: &Sending<'_>,
) -> Result<Vec<Delivered>, BenchError> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (client, producer) in (0..).zip(producers) {
            let thread = std::thread::Builder::new().name(format!("producer-{client}"));
            let thread = thread.spawn_scoped(scope, move || send(producer, client));
            threads.push(thread.map_err(|source| BenchError::Io { action: "start a producer's thread", source })?);
        }
        let finish = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            let result: Result<Delivered, _> = thread.join().map_err(|_| BenchError::Panicked { what: "producer" })?;
            result.map_err(client_error(target, "produce"))
        };
        threads.into_iter().map(finish).collect()
    })
}

/// Sends one batch to every queue before the clock starts: a queue's first batch creates its files and its state, and a
/// short block over many queues would measure little else. Gives how many records were acknowledged.
fn touch_queues(
    producers: &mut [Box<dyn LoadProducer>],
    plan: &LoadPlan,
    topic: &NewRun,
    load: Unthrottled,
) -> Result<u64, ClientError> {
    let mut writer = PayloadWriter::new(topic.run, plan.record_bytes);
    for queue in 0..load.queues {
        let client = queue % plan.producers;
        let producer = &mut producers[client as usize];
        for _ in 0..load.run_length {
            let (sequence, now_ns) = (producer.next_sequence(queue), topic.clock.now_ns());
            let stamp = Stamp { client, queue, sequence, intended_ns: now_ns, sent_ns: now_ns };
            producer.send(queue, sequence, writer.write(stamp))?;
        }
        producer.serve();
    }
    producers.iter_mut().map(|producer| producer.settle()).sum()
}

fn send_unthrottled(
    mut producer: Box<dyn LoadProducer>,
    client: u32,
    plan: &LoadPlan,
    topic: &NewRun,
    load: Unthrottled,
    start_ns: u64,
) -> Result<Delivered, ClientError> {
    let mut writer = PayloadWriter::new(topic.run, plan.record_bytes);
    let records_maximum = load.records_maximum / u64::from(plan.producers);
    let deadline_ns = start_ns + nanoseconds(load.seconds);
    // Producers begin at different queues, so that they do not all write to the same one.
    let mut queue = client * load.queues / plan.producers;
    let mut sent = 0;
    while sent < records_maximum {
        let now_ns = topic.clock.now_ns();
        if now_ns >= deadline_ns {
            break;
        }
        for _ in 0..load.run_length {
            let sequence = producer.next_sequence(queue);
            let stamp = Stamp { client, queue, sequence, intended_ns: now_ns, sent_ns: now_ns };
            producer.send(queue, sequence, writer.write(stamp))?;
        }
        sent += u64::from(load.run_length);
        queue = (queue + 1) % load.queues;
        producer.serve();
    }
    producer.finish()
}

fn send_on_schedule(
    mut producer: Box<dyn LoadProducer>,
    client: u32,
    plan: &LoadPlan,
    topic: &NewRun,
    load: Rate,
    start_ns: u64,
) -> Result<Delivered, ClientError> {
    let mut writer = PayloadWriter::new(topic.run, plan.record_bytes);
    let schedule = Schedule::new(load.records_per_second, u64::from(client), u64::from(plan.producers));
    let count = schedule.count_before_ns(nanoseconds(load.block_seconds));
    for index in 0..count {
        let intended_ns = start_ns + schedule.intended_ns(index);
        let mut now_ns = topic.clock.now_ns();
        while now_ns < intended_ns {
            producer.serve();
            std::thread::sleep(Duration::from_nanos((intended_ns - now_ns).min(SERVE_INTERVAL_NS)));
            now_ns = topic.clock.now_ns();
        }
        let queue = ((index * u64::from(plan.producers) + u64::from(client)) % u64::from(topic.queues)) as u32;
        let sequence = producer.next_sequence(queue);
        let stamp = Stamp { client, queue, sequence, intended_ns, sent_ns: now_ns };
        producer.send(queue, sequence, writer.write(stamp))?;
    }
    producer.finish()
}

/// The three histograms of an open-loop block.
struct Latencies {
    counted_from_ns: u64,
    response: Histogram<u64>,
    service: Histogram<u64>,
    lag: Histogram<u64>,
    not_positive: u64,
}

impl Latencies {
    fn new(counted_from_ns: u64) -> Latencies {
        let [response, service, lag] = std::array::from_fn(|_| latency_histogram());
        Latencies { counted_from_ns, response, service, lag, not_positive: 0 }
    }

    fn note(&mut self, stamp: Stamp, polled_ns: u64) {
        if stamp.intended_ns < self.counted_from_ns {
            return;
        }
        if polled_ns <= stamp.sent_ns {
            self.not_positive += 1;
        }
        // The histogram's range begins at 1 ns; what is not positive has been counted apart.
        self.response.saturating_record(polled_ns.saturating_sub(stamp.intended_ns).max(1));
        self.service.saturating_record(polled_ns.saturating_sub(stamp.sent_ns).max(1));
        self.lag.saturating_record(stamp.sent_ns.saturating_sub(stamp.intended_ns).max(1));
    }
}

/// When the first and the last record of a drain were polled.
#[derive(Default)]
struct FirstAndLast {
    first_ns: Option<u64>,
    last_ns: u64,
    after_first: u64,
}

impl FirstAndLast {
    fn note(&mut self, now_ns: u64) {
        match self.first_ns {
            None => self.first_ns = Some(now_ns),
            Some(_) => self.after_first += 1,
        }
        self.last_ns = now_ns;
    }

    fn per_second(&self) -> Option<f64> {
        per_second(self.after_first, self.last_ns - self.first_ns?)
    }
}

fn failures(delivered: &[Delivered]) -> (u64, Option<String>) {
    let unsettled = delivered.iter().map(|delivered| delivered.ledger.unsettled()).sum();
    (unsettled, delivered.iter().find_map(|delivered| delivered.first_error.clone()))
}

fn usage_of(target: &SystemTarget) -> Result<Option<Usage>, BenchError> {
    let failed = |source| BenchError::Accounting { system: target.name.clone(), source };
    let Some(pid) = target.pid else { return Ok(None) };
    let mut usage = Usage::of_process(pid).map_err(failed)?;
    for pid in &target.more_pids {
        usage = usage.and(&Usage::of_process(*pid).map_err(failed)?);
    }
    Ok(Some(usage))
}

fn cost_of(before: Option<Usage>, between: Option<Usage>, after: Option<Usage>) -> Option<Cost> {
    let (before, between, after) = (before?, between?, after?);
    let whole = after.since(&before);
    Some(Cost {
        context_switches: (whole.context_switches_voluntary + whole.context_switches_involuntary) as f64,
        written_bytes: whole.storage_written_bytes as f64,
        produce_cpu_ns: between.since(&before).cpu.as_nanos() as f64,
        consume_cpu_ns: after.since(&between).cpu.as_nanos() as f64,
        resident_bytes: between.resident_bytes.max(after.resident_bytes) as f64,
    })
}

fn per_second(count: u64, nanoseconds: u64) -> Option<f64> {
    (count > 0 && nanoseconds > 0).then(|| count as f64 * 1e9 / nanoseconds as f64)
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// No bound of our own: the batch's bytes bound it.
pub(crate) const BATCH_RECORDS_MAXIMUM: u32 = 1_000_000;
const SERVE_INTERVAL_NS: u64 = 1_000_000;
