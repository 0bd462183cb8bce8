//! librdkafka as the measuring client: how producers, consumers and the admin client are configured and driven.
//! The same settings for every system. Not here: what a block is (`block`), and what its figures become (`assemble`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::Deserialize;

use crate::plan::{Acks, Flush, LoadPlan};
use crate::verify::{Ledger, Reader};
use crate::{BenchError, SystemTarget};

/// How the producers of a block batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batching {
    pub(crate) linger_ms: u32,
    pub(crate) batch_bytes: u32,
    pub(crate) batch_records: u32,
}

/// The clock that stamps records: nanoseconds since it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunClock(Instant);

impl RunClock {
    pub(crate) fn start() -> RunClock {
        RunClock(Instant::now())
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).expect("584 years hold every run")
    }
}

/// What delivery reports and statistics have told so far.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) ledger: Ledger,
    pub(crate) last_ns: u64,
    pub(crate) first_error: Option<String>,
    batches: u64,
    batched_records: u64,
}

impl Delivered {
    /// Records per batch over the statistics' whole windows: (records, batches).
    pub(crate) fn batched(&self) -> (u64, u64) {
        (self.batched_records, self.batches)
    }
}

/// One producer, served by the thread that sends.
pub(crate) struct LoadProducer {
    producer: BaseProducer<DeliveryContext>,
    topic: String,
    delivered: Arc<Mutex<Delivered>>,
}

struct DeliveryContext {
    delivered: Arc<Mutex<Delivered>>,
    clock: RunClock,
}

impl LoadProducer {
    /// Connects, and learns the topic's leaders before the clock of a block starts.
    pub(crate) fn connect(
        target: &SystemTarget,
        plan: &LoadPlan,
        topic: &NewRun,
        batching: Batching,
        client: u32,
    ) -> Result<LoadProducer, BenchError> {
        let delivered = Delivered {
            ledger: Ledger::new(client, topic.queues),
            last_ns: 0,
            first_error: None,
            batches: 0,
            batched_records: 0,
        };
        let delivered = Arc::new(Mutex::new(delivered));
        let context = DeliveryContext { delivered: Arc::clone(&delivered), clock: topic.clock };
        let mut config = base_config(target);
        config
            .set("acks", if plan.acks == Acks::All { "all" } else { "1" })
            .set("enable.idempotence", plan.idempotence.to_string())
            .set("linger.ms", batching.linger_ms.to_string())
            .set("batch.size", batching.batch_bytes.to_string())
            .set("batch.num.messages", batching.batch_records.to_string())
            .set("queue.buffering.max.messages", QUEUED_RECORDS_MAXIMUM.to_string())
            .set("queue.buffering.max.kbytes", "131072")
            .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
        let failed = client_error(target, "create a producer");
        let producer = BaseProducer::from_config_and_context(&config, context).map_err(failed)?;
        let failed = client_error(target, "ask for the topic's leaders");
        producer.client().fetch_metadata(Some(&topic.name), PATIENCE).map_err(failed)?;
        Ok(LoadProducer { producer, topic: topic.name.clone(), delivered })
    }

    /// The next sequence number of a queue, noted as sent.
    pub(crate) fn next_sequence(&self, queue: u32) -> u64 {
        lock(&self.delivered).ledger.send(queue)
    }

    /// Hands a record over, waiting while the client's buffer is full; gives up after a long wait or on another error.
    pub(crate) fn send(&self, queue: u32, sequence: u64, payload: &[u8]) -> Result<(), KafkaError> {
        let partition = i32::try_from(queue).expect("the plan bounds the queues");
        let opaque = usize::try_from(sequence).expect("sequence numbers fit a 64-bit word");
        let mut record =
            BaseRecord::<(), [u8], usize>::with_opaque_to(&self.topic, opaque).partition(partition).payload(payload);
        let start = Instant::now();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused))
                    if start.elapsed() < PATIENCE =>
                {
                    record = refused;
                    self.producer.poll(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    lock(&self.delivered).ledger.take_back(queue);
                    return Err(error);
                }
            }
        }
    }

    /// Waits until everything handed over so far has its outcome, and gives how many records were acknowledged.
    pub(crate) fn settle(&self) -> Result<u64, KafkaError> {
        self.producer.flush(SETTLE_PATIENCE)?;
        Ok(lock(&self.delivered).ledger.acknowledged())
    }

    /// Serves delivery reports that are there, without waiting.
    pub(crate) fn serve(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until everything handed over has its outcome, and gives what was delivered.
    pub(crate) fn finish(self) -> Result<Delivered, KafkaError> {
        self.producer.flush(SETTLE_PATIENCE)?;
        drop(self.producer);
        let delivered = Arc::into_inner(self.delivered).expect("the producer held the only other reference");
        Ok(delivered.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for DeliveryContext {
    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else {
            tracing::warn!("librdkafka's statistics have another form than its documentation says");
            return;
        };
        let mut delivered = lock(&self.delivered);
        for topic in statistics.topics.values() {
            delivered.batches += topic.batchcnt.cnt;
            delivered.batched_records += topic.batchcnt.sum;
        }
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: usize) {
        let mut delivered = lock(&self.delivered);
        let queue = |partition: i32| u32::try_from(partition).expect("records are sent to queues from 0 up");
        match result {
            Ok(message) => {
                delivered.ledger.acknowledge(queue(message.partition()), sequence as u64, message.offset());
            }
            Err((error, message)) => {
                delivered.ledger.fail(queue(message.partition()), sequence as u64);
                delivered.first_error.get_or_insert_with(|| error.to_string());
            }
        }
        delivered.last_ns = self.clock.now_ns();
    }
}

/// A topic made for one block, and what its records bear.
#[derive(Debug, Clone)]
pub(crate) struct NewRun {
    pub(crate) name: String,
    pub(crate) run: u64,
    pub(crate) queues: u32,
    pub(crate) clock: RunClock,
}

/// A consumer that reads all queues of the topic from the first offset.
pub(crate) fn connect_consumer(target: &SystemTarget, topic: &NewRun) -> Result<BaseConsumer, BenchError> {
    let mut config = base_config(target);
    config
        // The library assigns queues only to a member of a group. A static member does not tell the coordinator when it
        // leaves; any other waits 5 s for that at the end of each block where a broker has no coordinator.
        .set("group.id", "mqassay-bench")
        .set("group.instance.id", "mqassay-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.wait.max.ms", "100")
        // By default a consumer with 100,000 records in hand does not ask for more for a second.
        .set("queued.min.messages", "1000000")
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.max.messages.kbytes", "65536");
    let consumer: BaseConsumer = config.create().map_err(client_error(target, "create a consumer"))?;
    let mut assignment = TopicPartitionList::with_capacity(topic.queues as usize);
    for queue in 0..topic.queues {
        let partition = i32::try_from(queue).expect("the plan bounds the queues");
        let added = assignment.add_partition_offset(&topic.name, partition, Offset::Offset(0));
        added.map_err(client_error(target, "name the queues to read"))?;
    }
    consumer.assign(&assignment).map_err(client_error(target, "assign the queues"))?;
    Ok(consumer)
}

/// Polls until `ends` are known and reached. `on_record` gets each sound record with the time it was polled at.
/// Gives why reading stopped before the end, if it did.
pub(crate) fn consume(
    consumer: &BaseConsumer,
    reader: &mut Reader,
    ends: &dyn Fn() -> Option<Vec<i64>>,
    on_record: &mut dyn FnMut(crate::payload::Stamp),
) -> Option<String> {
    let mut known_ends = None;
    let mut last_progress = Instant::now();
    let mut polled: u64 = 0;
    loop {
        if known_ends.is_none() {
            known_ends = ends();
        }
        // The comparison walks all queues, so it is made seldom while records flow.
        if polled.is_multiple_of(64) && known_ends.as_ref().is_some_and(|ends| reader.has_reached(ends)) {
            return None;
        }
        match consumer.poll(Duration::from_millis(10)) {
            Some(Ok(message)) => {
                polled += 1;
                last_progress = Instant::now();
                let queue = u32::try_from(message.partition()).expect("only queues from 0 up are assigned");
                if let Some(stamp) = reader.read(queue, message.offset(), message.payload().unwrap_or_default()) {
                    on_record(stamp);
                }
            }
            Some(Err(error)) if last_progress.elapsed() > PATIENCE => {
                return Some(format!("the consumer meets: {error}"));
            }
            Some(Err(_)) => {}
            None => {
                polled = 0;
                if known_ends.is_some() && last_progress.elapsed() > IDLE_PATIENCE {
                    let seconds = IDLE_PATIENCE.as_secs();
                    return Some(format!("the consumer saw nothing for {seconds} s before the end offsets"));
                }
            }
        }
    }
}

/// Makes and deletes topics; one for each system.
pub(crate) struct Admin {
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    pub(crate) fn connect(target: &SystemTarget) -> Result<Admin, BenchError> {
        let client = base_config(target).create().map_err(client_error(target, "create an admin client"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime =
            runtime.map_err(|source| BenchError::Io { action: "start the admin client's runtime", source })?;
        Ok(Admin { client, runtime })
    }

    /// Creates the topic with the plan's durability and waits until every queue has a leader.
    pub(crate) fn create(&self, target: &SystemTarget, topic: &NewRun, flush: Flush) -> Result<(), BenchError> {
        let queues = i32::try_from(topic.queues).expect("the plan bounds the queues");
        let mut settings: BTreeMap<String, String> = target.topic_settings.clone();
        if flush == Flush::Ack && !target.is_reference() {
            settings.insert("flush.messages".to_owned(), "1".to_owned());
        }
        let mut new = NewTopic::new(&topic.name, queues, TopicReplication::Fixed(1));
        for (name, value) in &settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let failed = client_error(target, "create a topic");
        let results = self.runtime.block_on(self.client.create_topics([&new], &options)).map_err(failed)?;
        if let Some(Err((_, code))) = results.into_iter().next() {
            return Err(client_error(target, "create a topic")(KafkaError::AdminOp(code)));
        }
        self.wait_for_leaders(target, topic)
    }

    /// The end offset of every queue, as the broker reports it. Asked on a connection of its own: on the consumer's, each
    /// question would stand behind a fetch that waits for more.
    pub(crate) fn end_offsets(&self, target: &SystemTarget, topic: &NewRun) -> Result<Vec<i64>, BenchError> {
        let end = |queue: u32| {
            let partition = i32::try_from(queue).expect("the plan bounds the queues");
            self.client.inner().fetch_watermarks(&topic.name, partition, PATIENCE).map(|(_, high)| high)
        };
        let ends: Result<Vec<i64>, KafkaError> = (0..topic.queues).map(end).collect();
        ends.map_err(client_error(target, "ask for end offsets"))
    }

    fn wait_for_leaders(&self, target: &SystemTarget, topic: &NewRun) -> Result<(), BenchError> {
        let start = Instant::now();
        loop {
            let failed = client_error(target, "wait for the topic's leaders");
            let metadata = self.client.inner().fetch_metadata(Some(&topic.name), PATIENCE).map_err(failed)?;
            let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
            let led = partitions.iter().filter(|partition| partition.leader() >= 0 && partition.error().is_none());
            if led.count() == topic.queues as usize {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let system = target.name.clone();
                return Err(BenchError::NoLeaders { system, queues: topic.queues, seconds: PATIENCE.as_secs() });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Deletes a topic whose records have been judged.
    pub(crate) fn delete(&self, target: &SystemTarget, topic: &NewRun) -> Result<(), BenchError> {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let results = self.runtime.block_on(self.client.delete_topics(&[&topic.name], &options));
        let results = results.map_err(client_error(target, "delete a topic"))?;
        match results.into_iter().next() {
            Some(Err((_, code))) => Err(client_error(target, "delete a topic")(KafkaError::AdminOp(code))),
            _ => Ok(()),
        }
    }
}

/// The client library's version.
pub(crate) fn library_version() -> String {
    format!("librdkafka {}", rdkafka::util::get_rdkafka_version().1)
}

fn base_config(target: &SystemTarget) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &target.bootstrap)
        .set("client.id", "mqassay-bench")
        .set("broker.address.family", "v4")
        .set("socket.nagle.disable", "true")
        .set("topic.metadata.refresh.interval.ms", "-1");
    config
}

pub(crate) fn client_error(target: &SystemTarget, action: &'static str) -> impl FnOnce(KafkaError) -> BenchError {
    let system = target.name.clone();
    move |source| BenchError::Client { system, action, source }
}

/// A poisoned lock only means that another thread's panic is on its way; its counts are still counts.
fn lock(delivered: &Mutex<Delivered>) -> std::sync::MutexGuard<'_, Delivered> {
    delivered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long one step may take before the run gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long what a producer holds may take to be acknowledged.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a consumer that knows where the end is may see nothing before it gives up.
const IDLE_PATIENCE: Duration = Duration::from_secs(5);
const QUEUED_RECORDS_MAXIMUM: u32 = 200_000;
const STATISTICS_INTERVAL_MS: &str = "400";

#[derive(Deserialize)]
struct Statistics {
    topics: BTreeMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    batchcnt: WindowStatistics,
}

#[derive(Deserialize)]
struct WindowStatistics {
    sum: u64,
    cnt: u64,
}
