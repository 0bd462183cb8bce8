//! One block: a fresh topic on one system, load for a few seconds, everything read back and judged.
//! `throughput` produces unthrottled and then drains; `rate` sends open-loop while a consumer follows.

use std::sync::OnceLock;
use std::time::Duration;

use hdrhistogram::Histogram;
use mqassay_harness::measure::percentile::latency_histogram;
use mqassay_harness::measure::schedule::Schedule;
use mqassay_harness::measure::statistics::slope;
use mqassay_harness::process::accounting::Usage;

use crate::driver::{
    self, Batching, ClientError, Delivered, Driver, LoadConsumer, LoadProducer, NewRun, RunClock, client_error,
};
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
    /// Records consumed over records due, in the counted time.
    pub(crate) achieved_share: f64,
    /// By how much the backlog grew a second in the counted time, as a share of the offered rate.
    pub(crate) backlog_slope: f64,
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

/// How an open-loop block sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenLoop {
    /// Offered rate of all producers together.
    pub(crate) records_per_second: u64,
    /// Length, seconds, the lead-in included.
    pub(crate) seconds: f64,
    /// The beginning whose latencies are not counted, seconds.
    pub(crate) lead_in_seconds: f64,
    pub(crate) batching: Batching,
    /// A producer so far behind its schedule sends no more, nanoseconds: the rate is lost, and what is left of it would
    /// only take time.
    pub(crate) lag_ns_maximum: u64,
}

impl From<Rate> for OpenLoop {
    fn from(load: Rate) -> OpenLoop {
        let Rate { records_per_second, block_seconds, lead_in_seconds, linger_ms, batch_bytes, .. } = load;
        let batching = Batching { linger_ms, batch_bytes, batch_records: BATCH_RECORDS_MAXIMUM, is_open_loop: true };
        OpenLoop { records_per_second, seconds: block_seconds, lead_in_seconds, batching, lag_ns_maximum: u64::MAX }
    }
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

    let mut consumer = driver.consumer(plan, topic)?;
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
    load: OpenLoop,
) -> Result<RateBlock, BenchError> {
    let producers = connect_producers(driver, plan, topic, load.batching)?;
    let mut followers = Vec::new();
    for _ in 0..plan.subscribers {
        followers.push(Follower::new(driver.consumer(plan, topic)?, plan, topic));
    }
    let before = usage_of(target)?;
    let start_ns = topic.clock.now_ns();
    followers.iter_mut().for_each(|follower| follower.start(start_ns, load));
    let ends_known: OnceLock<Vec<i64>> = OnceLock::new();
    let (delivered, ends, unread) = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for follower in &mut followers {
            let ends = || ends_known.get().cloned();
            let follow = move || follower.follow(topic.clock, &ends);
            let thread = std::thread::Builder::new().name("consumer".to_owned()).spawn_scoped(scope, follow);
            threads.push(thread);
        }
        let send = |producer: Box<dyn LoadProducer>, client: u32| {
            send_on_schedule(producer, client, plan, topic, load, start_ns)
        };
        let sent = on_threads(target, producers, &send)
            .and_then(|delivered| driver.end_offsets(topic, &delivered).map(|ends| (delivered, ends)));
        // The followers must learn that it is over in any case, or the scope would never end.
        let ends = sent.as_ref().map_or_else(|_| vec![0; topic.queues as usize], |(_, ends)| ends.clone());
        ends_known.get_or_init(|| ends);
        let mut unread = Vec::new();
        for thread in threads {
            let thread = thread.map_err(|source| BenchError::Io { action: "start the consumer's thread", source })?;
            unread.push(thread.join().map_err(|_| BenchError::Panicked { what: "consumer" })?);
        }
        sent.map(|(delivered, ends)| (delivered, ends, unread))
    })?;
    let after = usage_of(target)?;
    let (unsettled, first_error) = failures(&delivered);
    let ledgers: Vec<_> = delivered.into_iter().map(|delivered| delivered.ledger).collect();
    let judged =
        followers.iter().zip(unread).map(|(follower, unread)| verify::judge(&ledgers, &follower.reader, &ends, unread));
    let verification = judged.reduce(Verification::and).expect("there is a subscriber");
    // The slowest subscriber's.
    let flows = || followers.iter().map(|follower| &follower.flow);
    let achieved_share = flows().map(Flow::achieved_share).fold(f64::INFINITY, f64::min);
    let backlog_slope = flows().map(Flow::backlog_slope).fold(f64::NEG_INFINITY, f64::max);
    let latencies = followers.into_iter().map(|follower| follower.latencies).reduce(Latencies::and);
    let latencies = latencies.expect("there is a subscriber");
    Ok(RateBlock {
        response: latencies.response,
        service: latencies.service,
        lag: latencies.lag,
        not_positive: latencies.not_positive,
        achieved_share,
        backlog_slope,
        cost: cost_of(before, after, after),
        unsettled,
        first_error,
        verification,
    })
}

/// A consumer that reads while producers send, and what it saw.
struct Follower {
    consumer: Box<dyn LoadConsumer>,
    reader: Reader,
    latencies: Latencies,
    flow: Flow,
}

impl Follower {
    fn new(consumer: Box<dyn LoadConsumer>, plan: &LoadPlan, topic: &NewRun) -> Follower {
        let reader = Reader::new(topic.run, plan.record_bytes, topic.queues, plan.producers);
        Follower { consumer, reader, latencies: Latencies::new(u64::MAX), flow: Flow::new(0, 1, 0, 1) }
    }

    /// Says when the block began, and so what is counted.
    fn start(&mut self, start_ns: u64, load: OpenLoop) {
        let (from_ns, to_ns) = (start_ns + nanoseconds(load.lead_in_seconds), start_ns + nanoseconds(load.seconds));
        self.latencies = Latencies::new(from_ns);
        self.flow = Flow::new(from_ns, to_ns, start_ns, load.records_per_second);
    }

    /// Reads until `ends` are known and reached; why it stopped before, if it did.
    fn follow(&mut self, clock: RunClock, ends: &dyn Fn() -> Option<Vec<i64>>) -> Option<String> {
        let (latencies, flow) = (&mut self.latencies, &mut self.flow);
        let mut note = |stamp: Stamp| {
            let now_ns = clock.now_ns();
            latencies.note(stamp, now_ns);
            flow.note(now_ns);
        };
        driver::consume(self.consumer.as_mut(), &mut self.reader, ends, &mut note)
    }
}

/// A number that differs for every block of a run.
pub(crate) fn run_number(number: u64, salt: u64) -> u64 {
    salt.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A topic name and a mark for its records that no other block has.
pub(crate) fn new_run(plan: &LoadPlan, target: &SystemTarget, number: u64, salt: u64, queues: u32) -> NewRun {
    let run = run_number(number, salt);
    let name = format!("mqassay-{}-{}-{run:016x}", plan.name, target.name);
    let (clock, windows) = (RunClock::start(), None);
    NewRun { name, run, queues, clock, subscriptions: 1, subscription: 0, windows }
}

pub(crate) fn connect_producers(
    driver: &dyn Driver,
    plan: &LoadPlan,
    topic: &NewRun,
    batching: Batching,
) -> Result<Vec<Box<dyn LoadProducer>>, BenchError> {
    (0..plan.producers).map(|client| driver.producer(plan, topic, batching, client)).collect()
}

pub(crate) type Sending<'a> = dyn Fn(Box<dyn LoadProducer>, u32) -> Result<Delivered, ClientError> + Sync + 'a;

/// Runs each producer on a thread of its own until all have finished.
pub(crate) fn on_threads(
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
pub(crate) fn touch_queues(
    producers: &mut [Box<dyn LoadProducer>],
    plan: &LoadPlan,
    topic: &NewRun,
    load: Unthrottled,
) -> Result<u64, ClientError> {
    let mut writer = PayloadWriter::with_entropy(topic.run, plan.record_bytes, plan.entropy_percent);
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

pub(crate) fn send_unthrottled(
    mut producer: Box<dyn LoadProducer>,
    client: u32,
    plan: &LoadPlan,
    topic: &NewRun,
    load: Unthrottled,
    start_ns: u64,
) -> Result<Delivered, ClientError> {
    let mut writer = PayloadWriter::with_entropy(topic.run, plan.record_bytes, plan.entropy_percent);
    let records_maximum = load.records_maximum / u64::from(plan.producers);
    let deadline_ns = start_ns + nanoseconds(load.seconds);
    // Producers begin at different queues, so that they do not all write to the same one.
    let mut order = QueueOrder::new(plan.skew, load.queues, client * load.queues / plan.producers, 1, client);
    let mut sent = 0;
    while sent < records_maximum {
        let now_ns = topic.clock.now_ns();
        if now_ns >= deadline_ns {
            break;
        }
        let queue = order.next();
        for _ in 0..load.run_length {
            let sequence = producer.next_sequence(queue);
            let stamp = Stamp { client, queue, sequence, intended_ns: now_ns, sent_ns: now_ns };
            producer.send(queue, sequence, writer.write(stamp))?;
        }
        sent += u64::from(load.run_length);
        producer.serve();
    }
    producer.finish()
}

pub(crate) fn send_on_schedule(
    mut producer: Box<dyn LoadProducer>,
    client: u32,
    plan: &LoadPlan,
    topic: &NewRun,
    load: OpenLoop,
    start_ns: u64,
) -> Result<Delivered, ClientError> {
    let mut writer = PayloadWriter::with_entropy(topic.run, plan.record_bytes, plan.entropy_percent);
    let schedule = Schedule::new(load.records_per_second, u64::from(client), u64::from(plan.producers));
    let count = schedule.count_before_ns(nanoseconds(load.seconds));
    let mut served_ns = start_ns;
    let mut order = QueueOrder::new(plan.skew, topic.queues, client, plan.producers, client);
    for index in 0..count {
        let intended_ns = start_ns + schedule.intended_ns(index);
        let mut now_ns = topic.clock.now_ns();
        while now_ns < intended_ns {
            producer.serve();
            std::thread::sleep(Duration::from_nanos((intended_ns - now_ns).min(SERVE_INTERVAL_NS)));
            now_ns = topic.clock.now_ns();
            served_ns = now_ns;
        }
        if now_ns - intended_ns > load.lag_ns_maximum {
            break;
        }
        // A producer that is behind never waits, and must hear of its outcomes all the same.
        if now_ns.saturating_sub(served_ns) > SERVE_INTERVAL_NS {
            producer.serve();
            served_ns = now_ns;
        }
        let queue = order.next();
        let sequence = producer.next_sequence(queue);
        let stamp = Stamp { client, queue, sequence, intended_ns, sent_ns: now_ns };
        producer.send(queue, sequence, writer.write(stamp))?;
    }
    producer.finish()
}

/// Which queue the next record goes to: one after the other, or drawn by Zipf's law, as keys of unequal use would have it.
struct QueueOrder {
    queues: u32,
    next: u32,
    step: u32,
    /// Up to each queue, the share of all records; empty where one comes after the other.
    shares: Vec<f64>,
    state: u64,
}

impl QueueOrder {
    fn new(skew: f64, queues: u32, first: u32, step: u32, client: u32) -> QueueOrder {
        let mut shares = Vec::new();
        if skew > 0.0 {
            let weights = || (1..=queues).map(|rank| f64::from(rank).powf(-skew));
            let all: f64 = weights().sum();
            shares = weights()
                .scan(0.0, |sum, weight| {
                    *sum += weight / all;
                    Some(*sum)
                })
                .collect();
        }
        QueueOrder { queues, next: first % queues, step, shares, state: 0x9E37_79B9_7F4A_7C15 ^ u64::from(client) }
    }

    fn next(&mut self) -> u32 {
        if self.shares.is_empty() {
            let queue = self.next;
            self.next = (self.next + self.step) % self.queues;
            return queue;
        }
        // Marsaglia's xorshift, of which the upper 53 bits make a share.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let share = (self.state >> 11) as f64 / (1_u64 << 53) as f64;
        (self.shares.partition_point(|upto| *upto <= share) as u32).min(self.queues - 1)
    }
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

    /// Those of two subscribers together.
    fn and(mut self, other: Latencies) -> Latencies {
        let parts = [(&mut self.response, &other.response), (&mut self.service, &other.service)];
        for (sum, part) in parts.into_iter().chain([(&mut self.lag, &other.lag)]) {
            sum.add(part).expect("histograms of one range can be added");
        }
        self.not_positive += other.not_positive;
        self
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

/// What was consumed of what was due, over the counted time of an open-loop block.
struct Flow {
    from_ns: u64,
    to_ns: u64,
    start_ns: u64,
    records_per_second: u64,
    /// Records consumed before the counted time.
    before: u64,
    /// Records consumed in each window of the counted time.
    windows: Vec<u64>,
}

impl Flow {
    fn new(from_ns: u64, to_ns: u64, start_ns: u64, records_per_second: u64) -> Flow {
        assert!(start_ns <= from_ns && from_ns < to_ns, "the plan was checked");
        Flow { from_ns, to_ns, start_ns, records_per_second, before: 0, windows: vec![0; FLOW_WINDOWS] }
    }

    fn note(&mut self, polled_ns: u64) {
        if polled_ns < self.from_ns {
            self.before += 1;
        } else if polled_ns < self.to_ns {
            let share = (polled_ns - self.from_ns) as f64 / (self.to_ns - self.from_ns) as f64;
            self.windows[((share * FLOW_WINDOWS as f64) as usize).min(FLOW_WINDOWS - 1)] += 1;
        }
    }

    fn due(&self, at_ns: u64) -> f64 {
        (at_ns - self.start_ns) as f64 / 1e9 * self.records_per_second as f64
    }

    fn achieved_share(&self) -> f64 {
        let consumed: u64 = self.windows.iter().sum();
        consumed as f64 / (self.due(self.to_ns) - self.due(self.from_ns))
    }

    fn backlog_slope(&self) -> f64 {
        let width_ns = (self.to_ns - self.from_ns) as f64 / FLOW_WINDOWS as f64;
        let mut consumed = self.before;
        let mut points = vec![(0.0, self.due(self.from_ns) - consumed as f64)];
        for (number, window) in (1..).zip(&self.windows) {
            consumed += window;
            let after_ns = width_ns * f64::from(number);
            points.push((after_ns / 1e9, self.due(self.from_ns + after_ns as u64) - consumed as f64));
        }
        slope(&points).unwrap_or(0.0) / self.records_per_second as f64
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

pub(crate) fn failures(delivered: &[Delivered]) -> (u64, Option<String>) {
    let unsettled = delivered.iter().map(|delivered| delivered.ledger.unsettled()).sum();
    (unsettled, delivered.iter().find_map(|delivered| delivered.first_error.clone()))
}

pub(crate) fn usage_of(target: &SystemTarget) -> Result<Option<Usage>, BenchError> {
    let failed = |source| BenchError::Accounting { system: target.name.clone(), source };
    let Some(pid) = target.pid else { return Ok(None) };
    let mut usage = Usage::of_process(pid).map_err(failed)?;
    for pid in &target.more_pids {
        usage = usage.and(&Usage::of_process(*pid).map_err(failed)?);
    }
    Ok(Some(usage))
}

pub(crate) fn cost_of(before: Option<Usage>, between: Option<Usage>, after: Option<Usage>) -> Option<Cost> {
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

pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// No bound of our own: the batch's bytes bound it.
pub(crate) const BATCH_RECORDS_MAXIMUM: u32 = 1_000_000;
const SERVE_INTERVAL_NS: u64 = 1_000_000;
/// Points of a backlog's course: enough for a trend, few enough that each holds many polls.
const FLOW_WINDOWS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Consumes `rate` a second from 1 s after the start to 6 s, of 1,000 due; the counted time is from 2 s to 5 s.
    fn flow(rate: u64) -> Flow {
        let mut flow = Flow::new(12 * S, 15 * S, 10 * S, 1_000);
        (0..5 * rate).for_each(|index| flow.note(11 * S + index * S / rate));
        flow
    }

    #[test]
    fn queues_come_one_after_the_other_or_by_zipfs_law() {
        let mut even = QueueOrder::new(0.0, 3, 4, 2, 0);
        assert_eq!([even.next(), even.next(), even.next(), even.next()], [1, 0, 2, 1]);
        let mut skewed = QueueOrder::new(1.0, 4, 0, 1, 7);
        let mut counts = [0; 4];
        (0..12_000).for_each(|_| counts[skewed.next() as usize] += 1);
        // The weights 1, 1/2, 1/3, 1/4 add up to 25/12.
        for (count, expected) in counts.iter().zip([5_760_i32, 2_880, 1_920, 1_440]) {
            assert!((count - expected).abs() < 250, "{counts:?}");
        }
    }

    #[test]
    fn what_keeps_up_has_no_slope_and_what_does_not_has_its_share() {
        assert!((flow(1_000).achieved_share() - 1.0).abs() < 0.001 && flow(1_000).backlog_slope().abs() < 0.001);
        assert!((flow(900).achieved_share() - 0.9).abs() < 0.001);
        assert!((flow(900).backlog_slope() - 0.1).abs() < 0.01, "{}", flow(900).backlog_slope());
        assert!((flow(1_100).backlog_slope() + 0.1).abs() < 0.01, "a backlog that shrinks");
    }
}
