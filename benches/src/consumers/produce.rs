//! Leaves a trial's messages in its topic: an idempotent producer that waits for every replica, so that the log holds
//! exactly what the trial wants in it, whatever happens to brokers meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::consumers::message::Message;
use crate::consumers::{ConsumerError, kafka, kafka_error};

#[derive(Debug, Default)]
struct Delivered {
    count: Arc<AtomicU64>,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.count.fetch_add(u64::from(result.is_ok()), Ordering::SeqCst);
    }
}

/// Sends all, `pace` apart, and fails where one was not acknowledged.
pub(crate) fn produce(
    bootstrap: &str,
    topic: &str,
    queues: u32,
    log: &[Message],
    pace: Duration,
) -> Result<(), ConsumerError> {
    let delivered = Delivered::default();
    let count = Arc::clone(&delivered.count);
    let mut config = kafka::config(bootstrap);
    config.set("enable.idempotence", "true").set("linger.ms", "2").set("message.timeout.ms", "60000");
    let producer: BaseProducer<Delivered> =
        config.create_with_context(delivered).map_err(kafka_error("create a producer"))?;
    for message in log {
        let (key, value) = (message.key.to_string(), message.encode());
        let record = BaseRecord::to(topic).partition((message.key % queues) as i32).key(&key).payload(&value);
        producer.send(record).map_err(|(source, _)| kafka_error("send")(source))?;
        producer.poll(pace);
    }
    producer.flush(kafka::PATIENCE).map_err(kafka_error("send"))?;
    if count.load(Ordering::SeqCst) < log.len() as u64 {
        return Err(kafka_error("send every message")(KafkaError::Canceled));
    }
    Ok(())
}
