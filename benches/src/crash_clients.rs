//! The clients of a run through a crash: producers on a schedule and one consumer, each made anew where it breaks.
//! Start at `run`. Not here: the crash itself and what is made of it (`availability`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mqassay_harness::measure::schedule::Schedule;

use crate::availability::Availability;
use crate::block::BATCH_RECORDS_MAXIMUM;
use crate::driver::{self, Batching, Delivered, Driver, LoadConsumer, LoadProducer, NewRun};
use crate::payload::{PayloadWriter, Stamp};
use crate::plan::LoadPlan;
use crate::verify::{self, Reader, Verification};
use crate::{BenchError, SystemTarget};

/// One record as it was read; times are nanoseconds after the load's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poll {
    pub(crate) intended_ns: u64,
    pub(crate) sent_ns: u64,
    pub(crate) polled_ns: u64,
}

/// What the clients saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) polls: Vec<Poll>,
    pub(crate) unsettled: u64,
    /// Why reading ended before what was acknowledged had been read, if it did.
    pub(crate) unread: Option<String>,
    pub(crate) verification: Verification,
}

/// Connected clients.
pub(crate) struct Clients {
    driver: Box<dyn Driver>,
    producers: Vec<Box<dyn LoadProducer>>,
    consumer: Box<dyn LoadConsumer>,
}

impl Clients {
    /// Makes the topic and connects before any clock starts.
    pub(crate) fn connect(target: &SystemTarget, plan: &LoadPlan, topic: &NewRun) -> Result<Clients, BenchError> {
        let driver = driver::connect(target)?;
        driver.create(topic, plan)?;
        let producers: Result<Vec<_>, BenchError> =
            (0..plan.producers).map(|client| driver.producer(plan, topic, BATCHING, client)).collect();
        let (producers, consumer) = (producers?, driver.consumer(plan, topic)?);
        Ok(Clients { driver, producers, consumer })
    }
}

/// Sends on schedule and reads until everything acknowledged has been read, or nothing comes any more. `is_over` ends it
/// early.
pub(crate) fn run(
    clients: Clients,
    target: &SystemTarget,
    plan: &LoadPlan,
    topic: &NewRun,
    load: &Availability,
    is_over: &AtomicBool,
) -> Result<Seen, BenchError> {
    let Clients { driver, producers, mut consumer } = clients;
    let start_ns = topic.clock.now_ns();
    let sending = Sending { target, plan, topic, load, start_ns, is_over };
    let mut reader = Reader::new(topic.run, plan.record_bytes, topic.queues, plan.producers * GENERATIONS);
    let mut polls = Vec::new();
    let (ledgers, unread) = std::thread::scope(|scope| {
        let spawn = |(client, producer): (u32, Box<dyn LoadProducer>)| {
            let sending = &sending;
            scope.spawn(move || sending.send(producer, client))
        };
        let threads: Vec<_> = (0..).zip(producers).map(spawn).collect();
        let mut reading = Reading { consumer: &mut consumer, reader: &mut reader, polls: &mut polls, start_ns };
        while !threads.iter().all(|thread| thread.is_finished()) {
            reading.poll(&sending);
        }
        let mut delivered: Vec<Delivered> = Vec::new();
        for thread in threads {
            delivered.extend(thread.join().map_err(|_| BenchError::Panicked { what: "producer" })?);
        }
        let acknowledged: u64 = delivered.iter().map(|one| one.ledger.acknowledged()).sum();
        let unread = reading.finish(&sending, acknowledged);
        Ok::<_, BenchError>((delivered, unread))
    })?;
    let unsettled = ledgers.iter().map(|one| one.ledger.unsettled()).sum();
    let ends = driver.end_offsets(topic, &ledgers);
    let ledgers: Vec<_> = ledgers.into_iter().map(|one| one.ledger).collect();
    let verification = verify::judge(&ledgers, &reader, &ends.unwrap_or_default(), unread.clone());
    drop(consumer);
    // The connection that made the topic may have died with the broker. A topic that cannot be deleted stays, and nothing
    // that was measured depends on it.
    let deleted = driver::connect(target).and_then(|driver| driver.delete(topic));
    if let Err(error) = deleted {
        tracing::warn!(%error, topic = topic.name, "the topic stays on the broker");
    }
    Ok(Seen { polls, unsettled, unread, verification })
}

struct Sending<'a> {
    target: &'a SystemTarget,
    plan: &'a LoadPlan,
    topic: &'a NewRun,
    load: &'a Availability,
    start_ns: u64,
    is_over: &'a AtomicBool,
}

impl Sending<'_> {
    /// Sends one producer's share. Where the client breaks, its outcomes are kept and another takes over under a number of
    /// its own, so that what the first had under way cannot be taken for the second's.
    fn send(&self, producer: Box<dyn LoadProducer>, client: u32) -> Vec<Delivered> {
        let (plan, topic) = (self.plan, self.topic);
        let mut producer = Some(producer);
        let mut number = client;
        let mut broken: Vec<Box<dyn LoadProducer>> = Vec::new();
        let mut writer = PayloadWriter::new(topic.run, plan.record_bytes);
        let schedule = Schedule::new(self.load.records_per_second, u64::from(client), u64::from(plan.producers));
        let count = schedule.count_before_ns((self.load.seconds * 1e9) as u64);
        let mut index = 0;
        while index < count && !self.is_over.load(Ordering::Relaxed) {
            let Some(sender) = producer.as_mut() else {
                number += plan.producers;
                producer = self.again(number);
                if producer.is_none() {
                    break;
                }
                continue;
            };
            let intended_ns = self.start_ns + schedule.intended_ns(index);
            let mut now_ns = topic.clock.now_ns();
            while now_ns < intended_ns {
                sender.serve();
                std::thread::sleep(Duration::from_nanos((intended_ns - now_ns).min(SERVE_INTERVAL_NS)));
                now_ns = topic.clock.now_ns();
            }
            let queue = ((index * u64::from(plan.producers) + u64::from(client)) % u64::from(topic.queues)) as u32;
            let sequence = sender.next_sequence(queue);
            let stamp = Stamp { client: number, queue, sequence, intended_ns, sent_ns: now_ns };
            match sender.send(queue, sequence, writer.write(stamp)) {
                Ok(()) => index += 1,
                Err(error) => {
                    tracing::info!(%error, "a producer broke");
                    broken.extend(producer.take());
                }
            }
        }
        // Only now, as a broken one may wait long for outcomes. What a client that cannot even finish has had acknowledged
        // is not known, and is not judged.
        broken.into_iter().chain(producer).filter_map(|producer| producer.finish().ok()).collect()
    }

    /// A new producer, as soon as the system takes one; none where it does not in time.
    fn again(&self, number: u32) -> Option<Box<dyn LoadProducer>> {
        let deadline = Instant::now() + Duration::from_secs_f64(self.load.seconds + self.load.patience_seconds);
        // A system on its way back may take a connection and break it again at once.
        std::thread::sleep(RETRY_INTERVAL);
        while number < self.plan.producers * GENERATIONS
            && Instant::now() < deadline
            && !self.is_over.load(Ordering::Relaxed)
        {
            let made = driver::connect(self.target)
                .and_then(|driver| driver.producer(self.plan, self.topic, BATCHING, number));
            match made {
                Ok(producer) => return Some(producer),
                Err(_) => std::thread::sleep(RETRY_INTERVAL),
            }
        }
        None
    }
}

struct Reading<'a> {
    consumer: &'a mut Box<dyn LoadConsumer>,
    reader: &'a mut Reader,
    polls: &'a mut Vec<Poll>,
    start_ns: u64,
}

impl Reading<'_> {
    /// Reads what is there; how many records. A consumer that fails is made anew.
    fn poll(&mut self, sending: &Sending<'_>) -> u64 {
        let (clock, start_ns) = (sending.topic.clock, self.start_ns);
        let (reader, polls) = (&mut *self.reader, &mut *self.polls);
        let polled = self.consumer.poll(&mut |queue, offset, value| {
            let Some(stamp) = reader.read(queue, offset, value) else { return };
            let since = |ns: u64| ns.saturating_sub(start_ns);
            let polled_ns = since(clock.now_ns());
            polls.push(Poll { intended_ns: since(stamp.intended_ns), sent_ns: since(stamp.sent_ns), polled_ns });
        });
        match polled {
            Ok(count) => count,
            Err(_) if sending.target.protocol == crate::Protocol::Kafka => 0, // librdkafka connects again by itself.
            Err(error) => {
                tracing::info!(error, "the consumer broke");
                let made =
                    driver::connect(sending.target).and_then(|driver| driver.consumer(sending.plan, sending.topic));
                match made {
                    Ok(consumer) => *self.consumer = consumer,
                    Err(_) => std::thread::sleep(RETRY_INTERVAL),
                }
                0
            }
        }
    }

    /// Reads on after the last send; why it ended before as much was read as was acknowledged.
    fn finish(&mut self, sending: &Sending<'_>, acknowledged: u64) -> Option<String> {
        let patience = Duration::from_secs_f64(sending.load.patience_seconds);
        let mut heard = Instant::now();
        while !sending.is_over.load(Ordering::Relaxed) {
            if self.poll(sending) > 0 {
                heard = Instant::now();
            } else if self.reader.consumed() >= acknowledged && heard.elapsed() > QUIET {
                return None;
            } else if heard.elapsed() > patience {
                // Having had time enough, what is missing then is lost and not unread.
                return None;
            }
        }
        Some("the crash could not be made".to_owned())
    }
}

/// Clients that may take over from one another, at most.
const GENERATIONS: u32 = 256;
const BATCHING: Batching =
    Batching { linger_ms: 0, batch_bytes: 65_536, batch_records: BATCH_RECORDS_MAXIMUM, is_open_loop: true };
const SERVE_INTERVAL_NS: u64 = 1_000_000;
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Nothing more for so long when everything acknowledged has been read: what was repeated has come too.
const QUIET: Duration = Duration::from_secs(1);
