//! librdkafka as the driver of every broker that speaks Kafka's protocol: how producers, consumers and the admin client
//! are configured. The same settings for each. Not here: the interface (`driver`), and what a block is (`block`).

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

use crate::driver::{
    Batching, ClientError, Delivered, Driver, LoadConsumer, LoadProducer, NewRun, PATIENCE, RunClock, SETTLE_PATIENCE,
    client_error, lock,
};
use crate::plan::{Acks, Flush, LoadPlan};
use crate::{BenchError, SystemTarget};

/// One producer, served by the thread that sends.
struct KafkaProducer {
    producer: BaseProducer<DeliveryContext>,
    topic: String,
    delivered: Arc<Mutex<Delivered>>,
    is_open_loop: bool,
}

struct DeliveryContext {
    delivered: Arc<Mutex<Delivered>>,
    clock: RunClock,
}

impl KafkaProducer {
    /// Connects, and learns the topic's leaders before the clock of a block starts.
    fn connect(
        target: &SystemTarget,
        plan: &LoadPlan,
        topic: &NewRun,
        batching: Batching,
        client: u32,
    ) -> Result<KafkaProducer, BenchError> {
        let delivered = Delivered::of(client, topic);
        let delivered = Arc::new(Mutex::new(delivered));
        let context = DeliveryContext { delivered: Arc::clone(&delivered), clock: topic.clock };
        let mut config = base_config(target);
        config
            .set("acks", if plan.acks == Acks::All { "all" } else { "1" })
            .set("enable.idempotence", plan.idempotence.to_string())
            .set("linger.ms", batching.linger_ms.to_string())
            .set("batch.size", batching.batch_bytes.to_string())
            .set("compression.type", plan.compression.word())
            .set("batch.num.messages", batching.batch_records.to_string())
            .set("queue.buffering.max.messages", QUEUED_RECORDS_MAXIMUM.to_string())
            .set("queue.buffering.max.kbytes", "131072")
            .set("statistics.interval.ms", if batching.is_open_loop { "0" } else { STATISTICS_INTERVAL_MS });
        let failed = kafka_error(target, "create a producer");
        let producer = BaseProducer::from_config_and_context(&config, context).map_err(failed)?;
        let failed = kafka_error(target, "ask for the topic's leaders");
        producer.client().fetch_metadata(Some(&topic.name), PATIENCE).map_err(failed)?;
        Ok(KafkaProducer { producer, topic: topic.name.clone(), delivered, is_open_loop: batching.is_open_loop })
    }
}

impl LoadProducer for KafkaProducer {
    fn next_sequence(&mut self, queue: u32) -> u64 {
        lock(&self.delivered).ledger.send(queue)
    }

    fn send(&mut self, queue: u32, sequence: u64, payload: &[u8]) -> Result<(), ClientError> {
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
                    return Err(error.into());
                }
            }
        }
    }

    fn settle(&mut self) -> Result<u64, ClientError> {
        flush(&self.producer, FLUSH_STEP)?;
        Ok(lock(&self.delivered).ledger.acknowledged())
    }

    fn serve(&mut self) {
        self.producer.poll(Duration::ZERO);
    }

    fn finish(self: Box<Self>) -> Result<Delivered, ClientError> {
        let KafkaProducer { producer, delivered, is_open_loop, .. } = *self;
        flush(&producer, if is_open_loop { QUIET_FLUSH_STEP } else { FLUSH_STEP })?;
        // What was sent within one window of the statistics is told only when that ends.
        let start = Instant::now();
        while !is_open_loop && lock(&delivered).is_without_batches() && start.elapsed() < STATISTICS_PATIENCE {
            producer.poll(FLUSH_STEP);
        }
        drop(producer);
        let delivered = Arc::into_inner(delivered).expect("the producer held the only other reference");
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

/// A consumer that reads all queues of the topic, each from its offset.
fn connect_consumer(
    target: &SystemTarget,
    plan: &LoadPlan,
    topic: &NewRun,
    offsets: &[i64],
) -> Result<BaseConsumer, BenchError> {
    let mut config = base_config(target);
    config
        // The library assigns queues only to a member of a group. A static member does not tell the coordinator when it
        // leaves; any other waits 5 s for that at the end of each block where a broker has no coordinator.
        .set("group.id", format!("mqassay-bench-{}", topic.subscription))
        .set("group.instance.id", "mqassay-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.wait.max.ms", plan.fetch_wait_ms.to_string())
        // By default a consumer with 100,000 records in hand does not ask for more for a second.
        .set("queued.min.messages", "1000000")
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.max.messages.kbytes", "65536");
    let consumer: BaseConsumer = config.create().map_err(kafka_error(target, "create a consumer"))?;
    let assignment = every_queue(topic, |queue| Offset::Offset(offsets[queue]));
    let assignment = assignment.map_err(kafka_error(target, "name the queues to read"))?;
    consumer.assign(&assignment).map_err(kafka_error(target, "assign the queues"))?;
    Ok(consumer)
}

struct KafkaConsumer(BaseConsumer);

impl LoadConsumer for KafkaConsumer {
    fn poll(&mut self, on_record: &mut dyn FnMut(u32, i64, &[u8])) -> Result<u64, String> {
        match self.0.poll(Duration::from_millis(10)) {
            Some(Ok(message)) => {
                let queue = u32::try_from(message.partition()).expect("only queues from 0 up are assigned");
                on_record(queue, message.offset(), message.payload().unwrap_or_default());
                Ok(1)
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(0),
        }
    }
}

/// A broker that speaks Kafka's protocol.
pub(crate) struct KafkaDriver {
    target: SystemTarget,
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl KafkaDriver {
    pub(crate) fn connect(target: &SystemTarget) -> Result<KafkaDriver, BenchError> {
        let client = base_config(target).create().map_err(kafka_error(target, "create an admin client"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime =
            runtime.map_err(|source| BenchError::Io { action: "start the admin client's runtime", source })?;
        Ok(KafkaDriver { target: target.clone(), client, runtime })
    }

    /// Until the system knows all of its nodes: one that is still forming has no controller to make topics, and the
    /// library asks again who it is only when it is made to.
    fn wait_for_nodes(&self, nodes: u32) -> Result<(), BenchError> {
        let start = Instant::now();
        loop {
            let failed = kafka_error(&self.target, "ask for the nodes");
            let metadata = self.client.inner().fetch_metadata(None, PATIENCE).map_err(failed)?;
            if metadata.brokers().len() >= nodes as usize || start.elapsed() > PATIENCE {
                // Too few in the end shows where the topic is made.
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn wait_for_leaders(&self, topic: &NewRun) -> Result<(), BenchError> {
        let target = &self.target;
        let start = Instant::now();
        loop {
            let failed = kafka_error(target, "wait for the topic's leaders");
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

    /// Until the leaders serve: who leads is known before the leader has made its log, and what is sent meanwhile can be lost
    /// though it is acknowledged (`systems/kafka/README.md`). All queues in one question.
    fn wait_for_logs(&self, topic: &NewRun) -> Result<(), BenchError> {
        let failed = || kafka_error(&self.target, "wait for the topic's logs");
        let consumer: BaseConsumer = base_config(&self.target).create().map_err(failed())?;
        let start = Instant::now();
        loop {
            let asked = every_queue(topic, |_| Offset::End).map_err(failed())?;
            let outcome = consumer
                .offsets_for_times(asked, PATIENCE)
                .and_then(|answered| answered.elements().iter().try_for_each(|queue| queue.error()));
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => return Err(failed()(error)),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Driver for KafkaDriver {
    fn create(&self, topic: &NewRun, plan: &LoadPlan) -> Result<(), BenchError> {
        let target = &self.target;
        let queues = i32::try_from(topic.queues).expect("the plan bounds the queues");
        let copies = i32::try_from(plan.replication()).expect("at most three");
        let mut settings: BTreeMap<String, String> = target.topic_settings.clone();
        if target.is_reference() {
            settings.entry("mqassay.flush".to_owned()).or_insert_with(|| plan.flush.word().to_owned());
        } else if plan.flush == Flush::Ack {
            settings.insert("flush.messages".to_owned(), "1".to_owned());
        }
        let mut new = NewTopic::new(&topic.name, queues, TopicReplication::Fixed(copies));
        for (name, value) in &settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        if plan.nodes > 1 {
            self.wait_for_nodes(plan.nodes)?;
        }
        let failed = kafka_error(target, "create a topic");
        let results = self.runtime.block_on(self.client.create_topics([&new], &options)).map_err(failed)?;
        if let Some(Err((_, code))) = results.into_iter().next() {
            return Err(kafka_error(target, "create a topic")(KafkaError::AdminOp(code)));
        }
        self.wait_for_leaders(topic)?;
        self.wait_for_logs(topic)
    }

    /// Asked on a connection of its own: on the consumer's, each
    /// question would stand behind a fetch that waits for more.
    fn end_offsets(&self, topic: &NewRun, _delivered: &[Delivered]) -> Result<Vec<i64>, BenchError> {
        let end = |queue: u32| {
            let partition = i32::try_from(queue).expect("the plan bounds the queues");
            let start = Instant::now();
            loop {
                match self.client.inner().fetch_watermarks(&topic.name, partition, PATIENCE) {
                    // A node may not have heard yet of a topic that another has made.
                    Err(KafkaError::MetadataFetch(
                        RDKafkaErrorCode::UnknownPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownTopicOrPartition,
                    )) if start.elapsed() < PATIENCE => {
                        std::thread::sleep(Duration::from_millis(20));
                        // It makes the library ask again; what it says is asked for above.
                        let _ = self.client.inner().fetch_metadata(Some(&topic.name), PATIENCE);
                    }
                    found => return found.map(|(_, high)| high),
                }
            }
        };
        let ends: Result<Vec<i64>, KafkaError> = (0..topic.queues).map(end).collect();
        ends.map_err(kafka_error(&self.target, "ask for end offsets"))
    }

    fn delete(&self, topic: &NewRun) -> Result<(), BenchError> {
        let target = &self.target;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let results = self.runtime.block_on(self.client.delete_topics(&[&topic.name], &options));
        let results = results.map_err(kafka_error(target, "delete a topic"))?;
        match results.into_iter().next() {
            Some(Err((_, code))) => Err(kafka_error(target, "delete a topic")(KafkaError::AdminOp(code))),
            _ => Ok(()),
        }
    }

    fn producer(
        &self,
        plan: &LoadPlan,
        topic: &NewRun,
        batching: Batching,
        client: u32,
    ) -> Result<Box<dyn LoadProducer>, BenchError> {
        Ok(Box::new(KafkaProducer::connect(&self.target, plan, topic, batching, client)?))
    }

    fn consumer(&self, plan: &LoadPlan, topic: &NewRun) -> Result<Box<dyn LoadConsumer>, BenchError> {
        self.consumer_from(plan, topic, &vec![0; topic.queues as usize])
    }

    fn consumer_from(
        &self,
        plan: &LoadPlan,
        topic: &NewRun,
        offsets: &[i64],
    ) -> Result<Box<dyn LoadConsumer>, BenchError> {
        Ok(Box::new(KafkaConsumer(connect_consumer(&self.target, plan, topic, offsets)?)))
    }

    fn offsets_at(&self, topic: &NewRun, wall_ms: i64) -> Result<Vec<i64>, BenchError> {
        let failed = || kafka_error(&self.target, "ask for offsets by time");
        let consumer: BaseConsumer = base_config(&self.target).create().map_err(failed())?;
        let asked = every_queue(topic, |_| Offset::Offset(wall_ms)).map_err(failed())?;
        let answered = consumer.offsets_for_times(asked, PATIENCE).map_err(failed())?;
        let ends = self.end_offsets(topic, &[])?;
        let of = |queue: usize| {
            let partition = i32::try_from(queue).expect("the plan bounds the queues");
            match answered.find_partition(&topic.name, partition).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => ends[queue],
            }
        };
        Ok((0..topic.queues as usize).map(of).collect())
    }

    fn cannot(&self, _plan: &LoadPlan) -> Option<&'static str> {
        None
    }

    fn library(&self) -> String {
        format!("librdkafka {}", rdkafka::util::get_rdkafka_version().1)
    }
}

/// The topic's queues, each with an offset.
fn every_queue(topic: &NewRun, offset: impl Fn(usize) -> Offset) -> Result<TopicPartitionList, KafkaError> {
    let mut queues = TopicPartitionList::with_capacity(topic.queues as usize);
    for (partition, queue) in (0..).zip(0..topic.queues as usize) {
        queues.add_partition_offset(&topic.name, partition, offset(queue))?;
    }
    Ok(queues)
}

/// What every client of librdkafka has.
pub(crate) fn base_config(target: &SystemTarget) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &target.bootstrap)
        .set("client.id", "mqassay-bench")
        .set("broker.address.family", "v4")
        .set("socket.nagle.disable", "true")
        .set("topic.metadata.refresh.interval.ms", "-1");
    // What the user passes through comes last, so that it wins: their cluster may need its security settings.
    for (name, value) in &target.client_settings {
        config.set(name, value);
    }
    config
}

fn kafka_error(target: &SystemTarget, action: &'static str) -> impl FnOnce(KafkaError) -> BenchError {
    let failed = client_error(target, action);
    move |source| failed(ClientError::Kafka(source))
}

/// Until everything sent has an outcome. In short steps: the library's own wait looks up only every 100 ms.
fn flush(producer: &BaseProducer<DeliveryContext>, step: Duration) -> Result<(), KafkaError> {
    let start = Instant::now();
    loop {
        match producer.flush(step) {
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) if start.elapsed() < SETTLE_PATIENCE => {}
            flushed => return flushed,
        }
    }
}

const FLUSH_STEP: Duration = Duration::from_millis(1);
/// Each look wakes all threads of the library, ten producers' at once, while their last records are still on their way.
const QUIET_FLUSH_STEP: Duration = Duration::from_millis(20);
const QUEUED_RECORDS_MAXIMUM: u32 = 200_000;
const STATISTICS_INTERVAL_MS: &str = "400";
const STATISTICS_PATIENCE: Duration = Duration::from_secs(2);

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
