//! Features tried on RabbitMQ: refusing with requeue, expiry into another queue, AMQP's transactions, and routing keys. A
//! trace is left out: it needs RabbitMQ's own command line tool.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, Consumer, ExchangeKind};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{DELAY_MS, Deliveries, Delivery, Feature, MESSAGES, body, delivery};
use crate::amqp::open;
use crate::driver::{ClientError, client_error};
use crate::{BenchError, SystemTarget};

/// Sends the messages of the feature; what a consumer gets follows.
pub(super) fn start(target: &SystemTarget, feature: Feature) -> Result<Box<dyn Deliveries>, BenchError> {
    let none = |what| Err(BenchError::Unsupported { library: "AMQP".to_owned(), what });
    match feature {
        Feature::Query => return none("a request for the messages of a key"),
        Feature::CheckBack => return none("a question about a transaction that was left open"),
        Feature::Trace => return none("a trace of each message without RabbitMQ's command line tool"),
        Feature::Retry | Feature::Timed | Feature::Transaction | Feature::Filter => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|source| BenchError::Io { action: "start the AMQP client's runtime", source })?;
    let started = runtime.block_on(async {
        let (connection, channel) = open(target).await?;
        let queue = super::kafka::fresh(feature);
        let failed = |error| ClientError::Amqp(Box::new(error));
        let consumer = declare(&channel, &queue).await.map_err(failed)?;
        publish(&channel, &queue, feature).await.map_err(failed)?;
        Ok::<_, ClientError>((connection, consumer))
    });
    let (connection, consumer) = started.map_err(client_error(target, "send the messages of a feature"))?;
    Ok(Box::new(Consumed { runtime, consumer, is_retry: feature == Feature::Retry, _connection: connection }))
}

/// A queue that goes with its connection, behind an exchange of the same name with the key `wanted`.
async fn declare(channel: &Channel, queue: &str) -> lapin::Result<Consumer> {
    let fields = FieldTable::default;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), exclusive, fields()).await?;
    let mut waiting = fields();
    waiting.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    waiting.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
    channel.queue_declare(waiting_queue(queue).into(), exclusive, waiting).await?;
    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(queue.into(), ExchangeKind::Direct, options, fields()).await?;
    channel.queue_bind(queue.into(), queue.into(), "wanted".into(), QueueBindOptions::default(), fields()).await?;
    channel.basic_consume(queue.into(), "features".into(), BasicConsumeOptions::default(), fields()).await
}

async fn publish(channel: &Channel, queue: &str, feature: Feature) -> lapin::Result<()> {
    if feature == Feature::Transaction {
        channel.tx_select().await?;
    }
    for message in 0..MESSAGES {
        let is_odd = message % 2 == 1;
        let mut properties = BasicProperties::default();
        let (exchange, key) = match feature {
            Feature::Filter => (queue.to_owned(), if is_odd { "wanted" } else { "other" }.to_owned()),
            Feature::Timed => {
                properties = properties.with_expiration(DELAY_MS.to_string().into());
                (String::new(), waiting_queue(queue))
            }
            _ => (String::new(), queue.to_owned()),
        };
        let (value, options) = (body(message), BasicPublishOptions::default());
        channel.basic_publish(exchange.into(), key.into(), options, value.as_bytes(), properties).await?.await?;
        if feature == Feature::Transaction && is_odd {
            channel.tx_rollback().await?;
        } else if feature == Feature::Transaction {
            channel.tx_commit().await?;
        }
    }
    Ok(())
}

fn waiting_queue(queue: &str) -> String {
    format!("{queue}-waiting")
}

struct Consumed {
    runtime: Runtime,
    consumer: Consumer,
    is_retry: bool,
    _connection: Connection,
}

impl Deliveries for Consumed {
    fn next(&mut self, patience: Duration) -> Result<Option<Delivery>, String> {
        let next = self.runtime.block_on(async { timeout(patience, self.consumer.next()).await });
        let Ok(Some(received)) = next else { return Ok(None) };
        let received = received.map_err(|error| error.to_string())?;
        let found = delivery(&received.data);
        let is_refused = self.is_retry && !received.redelivered && found.is_some_and(|one| one.message % 2 == 1);
        let settled = self.runtime.block_on(async {
            if is_refused {
                let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                received.acker.nack(options).await
            } else {
                received.acker.ack(BasicAckOptions::default()).await
            }
        });
        settled.map_err(|error| error.to_string())?;
        Ok(found)
    }
}
