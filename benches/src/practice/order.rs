//! What global order takes: one producer, one queue and one consumer of one thread keep it through a broker's death, and each
//! of the three relaxed alone loses it. A message bears a number from one counter, taken just before it is sent; what counts
//! is the order in which processing ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::consumers::cluster::Cluster;
use crate::consumers::kafka::{self, Admin, Onlooker, fresh};
use crate::consumers::{ConsumerError, io_error, kafka_error};

/// How many of each there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Producers.
    pub producers: u32,
    /// Queues.
    pub queues: u32,
    /// Threads that process.
    pub threads: u32,
}

impl Shape {
    /// All three held, and each relaxed alone, by name.
    pub const ALL: [(&'static str, Shape); 4] = [
        ("one-of-each", Shape { producers: 1, queues: 1, threads: 1 }),
        ("four-producers", Shape { producers: 4, queues: 1, threads: 1 }),
        ("four-queues", Shape { producers: 1, queues: 4, threads: 1 }),
        ("four-threads", Shape { producers: 1, queues: 1, threads: 4 }),
    ];
}

/// What was seen of the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Messages processed, copies included.
    pub processed: u64,
    /// Messages whose processing ended after that of a later one.
    pub out_of_order: u64,
    /// Messages that were never processed.
    pub missing: u64,
}

/// Sends, kills the broker in the midst of it and starts it again, and processes everything.
pub fn run(cluster: &mut Cluster, shape: Shape) -> Result<Seen, ConsumerError> {
    let topic = fresh("order");
    let admin = Admin::connect(cluster.bootstrap())?;
    admin.create(&topic, shape.queues, 1)?;
    let address = admin.leader(&topic)?;
    let (bootstrap, counter) = (cluster.bootstrap().to_owned(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let mut producers = Vec::new();
        for number in 0..shape.producers {
            let (topic, bootstrap, counter) = (&topic, &bootstrap, &counter);
            let run = move || produce(bootstrap, topic, shape, counter);
            let thread = std::thread::Builder::new().name(format!("producer-{number}")).spawn_scoped(scope, run);
            producers.push(thread.map_err(io_error("start a thread for", "a producer"))?);
        }
        std::thread::sleep(KILL_AFTER);
        cluster.kill(&address)?;
        std::thread::sleep(DOWN);
        cluster.restart(&address)?;
        producers
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| ConsumerError::Panicked { what: "producer" })?)
    })?;
    let order = process(&bootstrap, &topic, shape)?;
    let mut highest = None;
    let mut seen = Seen { processed: order.len() as u64, ..Seen::default() };
    for number in &order {
        seen.out_of_order += u64::from(highest.is_some_and(|highest| *number < highest));
        highest = highest.max(Some(*number));
    }
    let mut distinct = order;
    distinct.sort_unstable();
    distinct.dedup();
    seen.missing = (MESSAGES - distinct.len() as u64).min(MESSAGES);
    Ok(seen)
}

/// Takes numbers and sends them until all are taken. The client library keeps the order of one producer through retries.
fn produce(bootstrap: &str, topic: &str, shape: Shape, counter: &AtomicU64) -> Result<(), ConsumerError> {
    let mut config = kafka::config(bootstrap);
    config.set("enable.idempotence", "true").set("linger.ms", "2").set("message.timeout.ms", "60000");
    let producer: BaseProducer = config.create().map_err(kafka_error("create a producer"))?;
    loop {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        if number >= MESSAGES {
            break;
        }
        let value = number.to_string();
        let queue = (number % u64::from(shape.queues)) as i32;
        let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(queue).payload(&value);
        producer.send(record).map_err(|(source, _)| kafka_error("send")(source))?;
        producer.poll(PACE * shape.producers);
    }
    producer.flush(kafka::PATIENCE).map_err(kafka_error("send"))
}

/// The numbers in the order in which their processing ended.
fn process(bootstrap: &str, topic: &str, shape: Shape) -> Result<Vec<u64>, ConsumerError> {
    let ends = Onlooker::connect(bootstrap, topic, shape.queues, topic)?.ends()?;
    let mut config = kafka::config(bootstrap);
    config.set("group.id", topic).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().map_err(kafka_error("create a consumer"))?;
    let mut assignment = TopicPartitionList::new();
    for queue in 0..shape.queues as i32 {
        let added = assignment.add_partition_offset(topic, queue, Offset::Offset(0));
        added.map_err(kafka_error("name the queues to read"))?;
    }
    consumer.assign(&assignment).map_err(kafka_error("assign the queues"))?;
    let done: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let (sender, receiver) = mpsc::sync_channel::<u64>(shape.threads as usize);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for number in 0..shape.threads {
            let (done, receiver) = (&done, &receiver);
            let run = move || {
                loop {
                    let taken = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(number) = taken else { return };
                    // Work that takes longer for some than for others, as work does.
                    std::thread::sleep(Duration::from_micros(50 * (number % 7)));
                    lock(done).push(number);
                }
            };
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn_scoped(scope, run);
            thread.map_err(io_error("start a thread for", "a worker"))?;
        }
        let fed = feed(&consumer, &ends, &sender);
        drop(sender);
        fed
    })?;
    let done = std::mem::take(&mut *lock(&done));
    Ok(done)
}

/// Hands every message to the workers as it is read.
fn feed(consumer: &BaseConsumer, ends: &[i64], sender: &mpsc::SyncSender<u64>) -> Result<(), ConsumerError> {
    let (mut next, start) = (vec![0; ends.len()], Instant::now());
    while next.iter().zip(ends).any(|(next, end)| next < end) {
        if start.elapsed() > kafka::PATIENCE {
            return Err(ConsumerError::Late {
                what: "the end of the topic".to_owned(),
                seconds: kafka::PATIENCE.as_secs(),
            });
        }
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        next[record.partition() as usize] = record.offset() + 1;
        let text = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
        let number = text.parse().map_err(|_| ConsumerError::Foreign { text })?;
        // The workers live as long as the channel.
        let _ = sender.send(number);
    }
    Ok(())
}

fn lock(done: &Mutex<Vec<u64>>) -> MutexGuard<'_, Vec<u64>> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}

const MESSAGES: u64 = 3_000;
const PACE: Duration = Duration::from_millis(1);
const KILL_AFTER: Duration = Duration::from_millis(1_000);
const DOWN: Duration = Duration::from_millis(1_000);
