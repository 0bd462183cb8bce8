//! Features tried through Kafka's protocol: share groups and transactions are real means; for the rest the nearest that a
//! client can say is sent, a time or a tag in the record, to see whether the broker heeds it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::{DELAY_MS, Deliveries, Delivery, Feature, MESSAGES, body, delivery, java, wall_ms};
use crate::block;
use crate::driver::{self, ClientError, Driver, NewRun, PATIENCE, client_error};
use crate::plan::LoadPlan;
use crate::prepare::java_class_path;
use crate::{BenchError, SystemTarget, client};

/// A name that no earlier try has used.
pub(super) fn fresh(feature: Feature) -> String {
    format!("mqassay-{}-{:x}", feature.name(), wall_ms())
}

/// Sends the messages of the feature; what a consumer gets follows.
pub(super) fn start(target: &SystemTarget, feature: Feature) -> Result<Box<dyn Deliveries>, BenchError> {
    let none = |what| Err(BenchError::Unsupported { library: "Kafka's protocol".to_owned(), what });
    match feature {
        Feature::Query => return none("a request for the messages of a key"),
        Feature::Trace => return none("a trace of each message"),
        _ => {}
    }
    let plan = LoadPlan { name: feature.name().to_owned(), ..LoadPlan::empty() };
    let driver = driver::connect(target)?;
    let topic = block::new_run(&plan, target, 0, wall_ms().unsigned_abs(), 1);
    driver.create(&topic, &plan)?;
    if feature == Feature::Retry
        && let Some(class_path) = java_class_path(target)
    {
        let source = java::share_group(target, &class_path, &topic.name)?;
        return Ok(Box::new(OnTopic { source, driver, topic }));
    }
    let consumer = consumer(target, &topic.name, feature)?;
    let refused = match feature {
        Feature::Transaction | Feature::CheckBack => transact(target, &topic.name, feature),
        _ => send(target, &topic.name, feature),
    };
    let library = refused.map_err(|error| error.to_string()).err();
    Ok(Box::new(OnTopic { source: Box::new(Polled { consumer, refused: library }), driver, topic }))
}

/// A source and its topic, which goes with it.
struct OnTopic {
    source: Box<dyn Deliveries>,
    driver: Box<dyn Driver>,
    topic: NewRun,
}

impl Deliveries for OnTopic {
    fn next(&mut self, patience: Duration) -> Result<Option<Delivery>, String> {
        self.source.next(patience)
    }
}

impl Drop for OnTopic {
    fn drop(&mut self) {
        if let Err(error) = self.driver.delete(&self.topic) {
            tracing::warn!("{} may be left behind: {error}", self.topic.name);
        }
    }
}

struct Polled {
    consumer: BaseConsumer,
    /// What the system said to the producer, where it would not do it.
    refused: Option<String>,
}

impl Deliveries for Polled {
    fn next(&mut self, patience: Duration) -> Result<Option<Delivery>, String> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        match self.consumer.poll(patience) {
            // A record that the consumer could not process is not committed; nothing else can be said of it.
            Some(Ok(message)) => Ok(delivery(message.payload().unwrap_or_default())),
            Some(Err(error)) => {
                tracing::info!("a poll failed: {error}");
                Ok(None)
            }
            None => Ok(None),
        }
    }
}

/// The only member of a group, from the first record.
fn consumer(target: &SystemTarget, topic: &str, feature: Feature) -> Result<BaseConsumer, BenchError> {
    let failed =
        |error: rdkafka::error::KafkaError| client_error(target, "create a consumer")(ClientError::Kafka(error));
    let mut config = client::base_config(target);
    config.set("group.id", format!("{topic}-{}", feature.name())).set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().map_err(failed)?;
    consumer.subscribe(&[topic]).map_err(failed)?;
    // A message must not grow old while the group forms.
    let start = Instant::now();
    while consumer.assignment().map_err(failed)?.count() == 0 && start.elapsed() < PATIENCE {
        // The topic is empty: what polls can meet are errors of a group that forms, and the next one tries again.
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(50)) {
            tracing::info!("a poll failed: {error}");
        }
    }
    Ok(consumer)
}

fn send(target: &SystemTarget, topic: &str, feature: Feature) -> Result<(), ClientError> {
    let producer: BaseProducer = client::base_config(target).create()?;
    for message in 0..MESSAGES {
        let value = body(message);
        let mut record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(0).payload(value.as_str());
        if feature == Feature::Timed {
            record = record.timestamp(wall_ms() + DELAY_MS);
        }
        if feature == Feature::Filter {
            let tag = if message % 2 == 1 { "wanted" } else { "other" };
            record = record.headers(OwnedHeaders::new().insert(Header { key: "tag", value: Some(tag) }));
        }
        producer.send(record).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Each message in a transaction of its own: even ones are committed and odd ones rolled back, or all are left open, which
/// a producer can do with one at a time.
fn transact(target: &SystemTarget, topic: &str, feature: Feature) -> Result<(), ClientError> {
    let mut config = client::base_config(target);
    config.set("transactional.id", topic).set("transaction.timeout.ms", "5000");
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(PATIENCE)?;
    let is_left_open = feature == Feature::CheckBack;
    for message in 0..MESSAGES {
        if message == 0 || !is_left_open {
            producer.begin_transaction()?;
        }
        let value = body(message);
        let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(0).payload(value.as_str());
        producer.send(record).map_err(|(error, _)| error)?;
        producer.flush(PATIENCE)?;
        if !is_left_open && message % 2 == 0 {
            producer.commit_transaction(PATIENCE)?;
        } else if !is_left_open {
            producer.abort_transaction(PATIENCE)?;
        }
    }
    Ok(())
}
