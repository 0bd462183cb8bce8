//! Producers and consumers whose speed is a dial: an open-loop producer at a rate that may change, consumers that take a
//! given time for each record, with one thread or several, and that try a poison message for ever or put it aside.
//! Not here: load that measures brokers (`session`), whose clients must cost as little as they can.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::consumers::{ConsumerError, io_error, kafka, kafka_error};

/// The mark of a message that no consumer can process.
const POISON: &str = "poison";

/// How a producer is turned while it runs.
#[derive(Debug)]
pub struct ProducerDial {
    /// Records a second.
    pub rate: AtomicU64,
    /// Queues that it sends to, in turn.
    pub queues: AtomicU32,
    /// Whether its next message is to be poison.
    pub poison: AtomicBool,
}

/// What a producer has done.
#[derive(Debug, Default, Clone)]
pub struct Sent {
    /// Records handed over, numbered from 0.
    pub records: u64,
    /// Those not acknowledged.
    pub failed: u64,
    /// For each acknowledged record when it was due, and how long after that it was acknowledged, nanoseconds.
    pub latencies: Vec<(u64, u64)>,
}

/// A producer at work.
#[derive(Debug)]
pub struct Producer {
    /// Its dial.
    pub dial: Arc<ProducerDial>,
    /// When its clock began: latencies count from here.
    pub start: Instant,
    over: Arc<AtomicBool>,
    sent: Arc<Mutex<Sent>>,
    thread: JoinHandle<Result<(), ConsumerError>>,
}

struct Delivered {
    start: Instant,
    sent: Arc<Mutex<Sent>>,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        let now = self.start.elapsed().as_nanos() as u64;
        let mut sent = lock(&self.sent);
        match result {
            Ok(_) => sent.latencies.push((due as u64, now.saturating_sub(due as u64))),
            Err(_) => sent.failed += 1,
        }
    }
}

impl Producer {
    /// Starts to send records of so many bytes to a topic.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        dial: ProducerDial,
        record_bytes: usize,
    ) -> Result<Producer, ConsumerError> {
        let (dial, over) = (Arc::new(dial), Arc::new(AtomicBool::new(false)));
        let (start, sent) = (Instant::now(), Arc::new(Mutex::new(Sent::default())));
        let mut config = kafka::config(bootstrap);
        config.set("linger.ms", "0").set("acks", "all").set("message.timeout.ms", "60000");
        let context = Delivered { start, sent: Arc::clone(&sent) };
        let producer: BaseProducer<Delivered> =
            config.create_with_context(context).map_err(kafka_error("create a producer"))?;
        let work = Sending {
            producer,
            topic: topic.to_owned(),
            record_bytes,
            start,
            dial: Arc::clone(&dial),
            over: Arc::clone(&over),
            sent: Arc::clone(&sent),
        };
        let thread = std::thread::Builder::new().name("producer".to_owned()).spawn(move || work.run());
        let thread = thread.map_err(io_error("start a thread for", "a producer"))?;
        Ok(Producer { dial, start, over, sent, thread })
    }

    /// What it has done so far.
    pub fn sent(&self) -> Sent {
        lock(&self.sent).clone()
    }

    /// Ends it once everything has its outcome.
    pub fn finish(self) -> Result<Sent, ConsumerError> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| ConsumerError::Panicked { what: "producer" })??;
        Ok(lock(&self.sent).clone())
    }
}

struct Sending {
    producer: BaseProducer<Delivered>,
    topic: String,
    record_bytes: usize,
    start: Instant,
    dial: Arc<ProducerDial>,
    over: Arc<AtomicBool>,
    sent: Arc<Mutex<Sent>>,
}

impl Sending {
    fn run(&self) -> Result<(), ConsumerError> {
        let mut due = Duration::ZERO;
        let mut number: u64 = 0;
        while !self.over.load(Ordering::SeqCst) {
            let now = self.start.elapsed();
            while due <= now {
                self.send(number, due)?;
                number += 1;
                let rate = self.dial.rate.load(Ordering::SeqCst).max(1);
                due += Duration::from_nanos(1_000_000_000 / rate);
            }
            let wait = due.saturating_sub(self.start.elapsed()).min(Duration::from_millis(1));
            self.producer.poll(wait);
        }
        self.producer.flush(kafka::PATIENCE).map_err(kafka_error("send"))
    }

    fn send(&self, number: u64, due: Duration) -> Result<(), ConsumerError> {
        let is_poison = self.dial.poison.swap(false, Ordering::SeqCst);
        let mut value = format!("{number} {}", if is_poison { POISON } else { "" });
        value.extend(std::iter::repeat_n('.', self.record_bytes.saturating_sub(value.len())));
        let queue = (number % u64::from(self.dial.queues.load(Ordering::SeqCst))) as i32;
        lock(&self.sent).records += 1;
        let start = Instant::now();
        loop {
            let record: BaseRecord<'_, (), str, usize> =
                BaseRecord::with_opaque_to(&self.topic, due.as_nanos() as usize).partition(queue).payload(&value);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                // The buffer empties; a queue that was just added is heard of with the next look at the metadata.
                Err((error, _)) if passes(&error) && start.elapsed() < kafka::PATIENCE => {
                    self.producer.poll(Duration::from_millis(1));
                }
                Err((source, _)) => return Err(kafka_error("send")(source)),
            }
        }
    }
}

/// Whether a refusal of the client library is gone after a while.
fn passes(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::UnknownPartition))
}

/// How the consumers of a group are turned while they run, and what they have done.
#[derive(Debug, Default)]
pub struct ConsumerDial {
    /// What a record takes, microseconds.
    pub work_micros: AtomicU64,
    /// Records that one consumer processes at a time, each in a thread of its own; 0 is taken as 1.
    pub threads: AtomicU32,
    /// Whether a message that failed three times is put aside.
    pub dead_letter: AtomicBool,
    /// Records processed.
    pub processed: AtomicU64,
    /// Tries of messages that had failed before.
    pub retries: AtomicU64,
    seen: Mutex<Vec<bool>>,
}

impl ConsumerDial {
    /// Those below this number that were never processed nor put aside.
    pub fn missing(&self, records: u64) -> u64 {
        let seen = lock(&self.seen);
        (0..records as usize).filter(|number| !seen.get(*number).copied().unwrap_or(false)).count() as u64
    }

    fn note(&self, value: &str) {
        let Some(number) = value.split(' ').next().and_then(|number| number.parse::<usize>().ok()) else { return };
        let mut seen = lock(&self.seen);
        if seen.len() <= number {
            seen.resize(number + 1, false);
        }
        seen[number] = true;
        self.processed.fetch_add(1, Ordering::SeqCst);
    }
}

/// A consumer at work, in a thread of this process. Dropping it ends it, with its commits made.
#[derive(Debug)]
pub struct Consuming {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Consuming {
    /// Starts a member of the group. What it cannot process goes to `TOPIC-dead`, where the dial says so.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        group: &str,
        dial: &Arc<ConsumerDial>,
    ) -> Result<Consuming, ConsumerError> {
        let mut config = kafka::config(bootstrap);
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "100")
            // Only what is processed is committed.
            .set("enable.auto.offset.store", "false")
            .set("queued.min.messages", "1000");
        let consumer: BaseConsumer = config.create().map_err(kafka_error("create a consumer"))?;
        consumer.subscribe(&[topic]).map_err(kafka_error("subscribe"))?;
        let dead: BaseProducer = kafka::config(bootstrap).create().map_err(kafka_error("create a producer"))?;
        let over = Arc::new(AtomicBool::new(false));
        let work = Work { consumer, dead, topic: topic.to_owned(), dial: Arc::clone(dial), over: Arc::clone(&over) };
        let thread = std::thread::Builder::new().name("consumer".to_owned()).spawn(move || work.run());
        let thread = thread.map_err(io_error("start a thread for", "a consumer"))?;
        Ok(Consuming { over, thread: Some(thread) })
    }
}

impl Drop for Consuming {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::warn!("a consumer's thread died; its panic has been printed");
        }
    }
}

struct Work {
    consumer: BaseConsumer,
    dead: BaseProducer,
    topic: String,
    dial: Arc<ConsumerDial>,
    over: Arc<AtomicBool>,
}

impl Work {
    fn run(&self) {
        while !self.is_over() {
            let batch = self.batch();
            if let [(_, _, value)] = &batch[..] {
                if !self.process(value) {
                    return;
                }
            } else {
                std::thread::scope(|scope| {
                    for (_, _, value) in &batch {
                        scope.spawn(|| self.process(value));
                    }
                });
                if self.is_over() {
                    return;
                }
            }
            for (queue, offset, _) in &batch {
                // It fails where the queue was taken away meanwhile: whoever has it now will process the record again.
                if let Err(error) = self.consumer.store_offset(&self.topic, *queue, *offset) {
                    tracing::info!("an offset is not stored: {error}");
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// As many records as there are threads and records in hand.
    fn batch(&self) -> Vec<(i32, i64, String)> {
        let mut batch = Vec::new();
        let mut wait = Duration::from_millis(50);
        while batch.len() < self.dial.threads.load(Ordering::SeqCst).max(1) as usize {
            match self.consumer.poll(wait) {
                Some(Ok(record)) => {
                    let value = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
                    batch.push((record.partition(), record.offset(), value));
                }
                // Errors of the connection pass; what lasts shows as lag.
                Some(Err(error)) => tracing::info!("a poll failed: {error}"),
                None => break,
            }
            wait = Duration::ZERO;
        }
        batch
    }

    /// Processes a record, however often it takes; false where the consumer is to end before that.
    fn process(&self, value: &str) -> bool {
        let is_poison = value.contains(POISON);
        for attempt in 1_u64.. {
            std::thread::sleep(Duration::from_micros(self.dial.work_micros.load(Ordering::SeqCst)));
            if !is_poison {
                break;
            }
            if self.is_over() {
                return false;
            }
            if attempt >= TRIES && self.dial.dead_letter.load(Ordering::SeqCst) {
                return self.put_aside(value);
            }
            self.dial.retries.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(BACKOFF);
        }
        self.dial.note(value);
        true
    }

    fn put_aside(&self, value: &str) -> bool {
        let topic = dead_letter_topic(&self.topic);
        let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic).partition(0).payload(value);
        let sent = self.dead.send(record).map_err(|(error, _)| error).and_then(|()| self.dead.flush(kafka::PATIENCE));
        if let Err(error) = sent {
            tracing::warn!("a message could not be put aside: {error}");
            return false;
        }
        self.dial.note(value);
        true
    }
}

/// Where messages go that cannot be processed.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}-dead")
}

const TRIES: u64 = 3;
const BACKOFF: Duration = Duration::from_millis(20);

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
