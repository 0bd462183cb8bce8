//! RabbitMQ through lapin: a queue of the plan is a durable queue of the broker, or one for each subscription behind a
//! fan-out exchange; records are persistent and go through the default exchange else, publishers confirm, consumers
//! acknowledge by hand. AMQP has no offsets: a delivery's place in its queue is counted, and a redelivery therefore shows as a
//! duplicate. No automatic recovery: an outage is an error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind, PublisherConfirm};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::driver::{
    Batching, ClientError, Delivered, Driver, LoadConsumer, LoadProducer, NewRun, PATIENCE, RunClock, SETTLE_PATIENCE,
    client_error,
};
use crate::plan::LoadPlan;
use crate::{BenchError, QueueType, SystemTarget};

pub(crate) struct AmqpDriver {
    target: SystemTarget,
    queue_type: QueueType,
    runtime: Arc<Runtime>,
    channel: Channel,
    _connection: Connection,
}

impl AmqpDriver {
    pub(crate) fn connect(target: &SystemTarget, queue_type: QueueType) -> Result<AmqpDriver, BenchError> {
        // One thread moves bytes; the threads that send and poll are the block's.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|source| BenchError::Io { action: "start the AMQP client's runtime", source })?;
        let runtime = Arc::new(runtime);
        let opened = runtime.block_on(open(target));
        let (connection, channel) = opened.map_err(client_error(target, "connect"))?;
        Ok(AmqpDriver { target: target.clone(), queue_type, runtime, channel, _connection: connection })
    }

    fn each_queue<F>(&self, topic: &NewRun, action: &'static str, run: F) -> Result<(), BenchError>
    where
        F: AsyncFn(u32, ShortString) -> lapin::Result<()>,
    {
        let all = async {
            for queue in 0..topic.queues {
                for subscription in 0..topic.subscriptions {
                    bounded(PATIENCE, run(queue, queue_name(topic, queue, subscription))).await?;
                }
            }
            Ok(())
        };
        self.runtime.block_on(all).map_err(client_error(&self.target, action))
    }
}

impl Driver for AmqpDriver {
    fn create(&self, topic: &NewRun, _plan: &LoadPlan) -> Result<(), BenchError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(self.queue_type.word().into()));
        self.each_queue(topic, "declare a queue", async |queue, name| {
            let options = QueueDeclareOptions::durable();
            self.channel.queue_declare(name.clone(), options, arguments.clone()).await?;
            // A queue gives each message away once: several subscriptions need a queue each, behind one exchange.
            if let Some(exchange) = exchange_name(topic, queue) {
                let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
                let fields = FieldTable::default();
                self.channel.exchange_declare(exchange.clone(), ExchangeKind::Fanout, options, fields.clone()).await?;
                self.channel.queue_bind(name, exchange, "".into(), QueueBindOptions::default(), fields).await?;
            }
            Ok(())
        })
    }

    fn delete(&self, topic: &NewRun) -> Result<(), BenchError> {
        self.each_queue(topic, "delete a queue", async |queue, name| {
            if let Some(exchange) = exchange_name(topic, queue) {
                self.channel.exchange_delete(exchange, ExchangeDeleteOptions::default()).await?;
            }
            self.channel.queue_delete(name, QueueDeleteOptions::default()).await.map(|_| ())
        })
    }

    fn end_offsets(&self, topic: &NewRun, delivered: &[Delivered]) -> Result<Vec<i64>, BenchError> {
        let confirmed = |queue: u32| delivered.iter().map(|one| one.ledger.acknowledged_in(queue) as i64).sum();
        Ok((0..topic.queues).map(confirmed).collect())
    }

    fn producer(
        &self,
        _plan: &LoadPlan,
        topic: &NewRun,
        _batching: Batching,
        client: u32,
    ) -> Result<Box<dyn LoadProducer>, BenchError> {
        let opened = self.runtime.block_on(async {
            let (connection, channel) = open(&self.target).await?;
            bounded(PATIENCE, channel.confirm_select(ConfirmSelectOptions::default())).await?;
            Ok((connection, channel))
        });
        let (connection, channel) = opened.map_err(client_error(&self.target, "create a producer"))?;
        Ok(Box::new(AmqpProducer {
            runtime: Arc::clone(&self.runtime),
            channel,
            places: (0..topic.queues).map(|queue| place(topic, queue)).collect(),
            waiting: VecDeque::new(),
            delivered: Delivered::of(client, topic),
            clock: topic.clock,
            _connection: connection,
        }))
    }

    fn consumer(&self, _plan: &LoadPlan, topic: &NewRun) -> Result<Box<dyn LoadConsumer>, BenchError> {
        let (sender, deliveries) = mpsc::channel(PREFETCH as usize);
        let opened = self.runtime.block_on(async {
            let (connection, channel) = open(&self.target).await?;
            bounded(PATIENCE, channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
            let mut consumers = Vec::new();
            for queue in 0..topic.queues {
                let (tag, options) = (format!("queue-{queue}").into(), BasicConsumeOptions::default());
                let name = queue_name(topic, queue, topic.subscription);
                let consume = channel.basic_consume(name, tag, options, FieldTable::default());
                consumers.push((queue, bounded(PATIENCE, consume).await?));
            }
            for (queue, mut consumer) in consumers {
                let sender = sender.clone();
                self.runtime.spawn(async move {
                    while let Some(delivery) = consumer.next().await {
                        let is_last = delivery.is_err();
                        if sender.send((queue, delivery)).await.is_err() || is_last {
                            return;
                        }
                    }
                });
            }
            Ok(connection)
        });
        let connection = opened.map_err(client_error(&self.target, "create a consumer"))?;
        let next = vec![0; topic.queues as usize];
        Ok(Box::new(AmqpConsumer {
            runtime: Arc::clone(&self.runtime),
            deliveries,
            next,
            acknowledged_tag: 0,
            _connection: connection,
        }))
    }

    fn library(&self) -> String {
        "lapin 4.12".to_owned()
    }
}

struct AmqpProducer {
    runtime: Arc<Runtime>,
    channel: Channel,
    /// Exchange and routing key by queue.
    places: Vec<(ShortString, ShortString)>,
    waiting: VecDeque<(u32, u64, PublisherConfirm)>,
    delivered: Delivered,
    clock: RunClock,
    _connection: Connection,
}

impl AmqpProducer {
    fn note(&mut self, queue: u32, sequence: u64, outcome: lapin::Result<Confirmation>) {
        match outcome {
            // A message that comes back with its acknowledgement could not be routed and is not stored.
            Ok(Confirmation::Ack(None)) => self.delivered.ledger.acknowledge(queue, sequence, -1),
            Ok(other) => self.fail(queue, sequence, format!("{other:?}")),
            Err(error) => self.fail(queue, sequence, error.to_string()),
        }
        self.delivered.last_ns = self.clock.now_ns();
    }

    fn fail(&mut self, queue: u32, sequence: u64, reason: String) {
        self.delivered.ledger.fail(queue, sequence);
        self.delivered.first_error.get_or_insert(reason);
    }

    /// Waits until at most so many records have no outcome yet.
    fn wait_until_waiting(&mut self, count: usize, patience: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + patience;
        while self.waiting.len() > count {
            let Some((queue, sequence, confirm)) = self.waiting.pop_front() else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            let outcome = self.runtime.block_on(async { timeout(left, confirm).await });
            let Ok(outcome) = outcome else {
                self.fail(queue, sequence, "no confirm in time".to_owned());
                for (queue, sequence, _) in std::mem::take(&mut self.waiting) {
                    self.delivered.ledger.fail(queue, sequence);
                }
                return Ok(());
            };
            self.note(queue, sequence, outcome);
        }
        Ok(())
    }
}

impl LoadProducer for AmqpProducer {
    fn next_sequence(&mut self, queue: u32) -> u64 {
        self.delivered.ledger.send(queue)
    }

    fn send(&mut self, queue: u32, sequence: u64, payload: &[u8]) -> Result<(), ClientError> {
        self.wait_until_waiting(UNCONFIRMED_MAXIMUM - 1, PATIENCE)?;
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let (exchange, key) = self.places[queue as usize].clone();
        let publish = self.channel.basic_publish(exchange, key, BasicPublishOptions::default(), payload, properties);
        let published = self.runtime.block_on(bounded(PATIENCE, publish));
        match published {
            Ok(confirm) => self.waiting.push_back((queue, sequence, confirm)),
            // Whether it was sent is not known: the record counts as not acknowledged. The block goes on while it can.
            Err(error) => {
                self.fail(queue, sequence, error.to_string());
                if !self.channel.status().connected() {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self) {
        while let Some((_, _, confirm)) = self.waiting.front_mut() {
            let Some(outcome) = confirm.now_or_never() else { return };
            let Some((queue, sequence, _)) = self.waiting.pop_front() else { return };
            self.note(queue, sequence, outcome);
        }
    }

    fn settle(&mut self) -> Result<u64, ClientError> {
        self.wait_until_waiting(0, SETTLE_PATIENCE)?;
        Ok(self.delivered.ledger.acknowledged())
    }

    fn finish(mut self: Box<Self>) -> Result<Delivered, ClientError> {
        self.settle()?;
        Ok(self.delivered)
    }
}

struct AmqpConsumer {
    runtime: Arc<Runtime>,
    deliveries: mpsc::Receiver<(u32, lapin::Result<Delivery>)>,
    /// The place of each queue's next delivery.
    next: Vec<i64>,
    /// The highest delivery tag that has been acknowledged; all below it are too.
    acknowledged_tag: u64,
    _connection: Connection,
}

impl LoadConsumer for AmqpConsumer {
    fn poll(&mut self, on_record: &mut dyn FnMut(u32, i64, &[u8])) -> Result<u64, String> {
        let first = self.runtime.block_on(async { timeout(POLL, self.deliveries.recv()).await });
        let mut received = match first {
            Err(_) => return Ok(0),
            Ok(None) => return Err("the connection has ended".to_owned()),
            Ok(received) => received,
        };
        let mut count = 0;
        let mut newest = None;
        while let Some((queue, delivery)) = received {
            let delivery = delivery.map_err(|error| error.to_string())?;
            let place = &mut self.next[queue as usize];
            on_record(queue, *place, &delivery.data);
            *place += 1;
            count += 1;
            newest = newest.filter(|known: &Delivery| known.delivery_tag > delivery.delivery_tag).or(Some(delivery));
            if count >= u64::from(PREFETCH) / 4 {
                break;
            }
            received = self.deliveries.try_recv().ok();
        }
        // One acknowledgement covers all lower tags. Tags of several queues may reach us a little out of order, and one
        // that is covered already must not be acknowledged again.
        if let Some(delivery) = newest.filter(|delivery| delivery.delivery_tag > self.acknowledged_tag) {
            let ack = delivery.acker.ack(BasicAckOptions { multiple: true });
            self.runtime
                .block_on(bounded(PATIENCE, async { ack.await.map(|_| ()) }))
                .map_err(|error| error.to_string())?;
            self.acknowledged_tag = delivery.delivery_tag;
        }
        Ok(count)
    }
}

/// A connection and a channel of it.
pub(crate) async fn open(target: &SystemTarget) -> Result<(Connection, Channel), ClientError> {
    let address = format!("amqp://guest:guest@{}/%2f?heartbeat=10", target.bootstrap);
    let connection = bounded(PATIENCE, Connection::connect(&address, ConnectionProperties::default())).await?;
    let channel = bounded(PATIENCE, connection.create_channel()).await?;
    Ok((connection, channel))
}

async fn bounded<T>(patience: Duration, step: impl Future<Output = lapin::Result<T>>) -> Result<T, ClientError> {
    match timeout(patience, step).await {
        Ok(result) => result.map_err(|error| ClientError::Amqp(Box::new(error))),
        Err(_) => Err(ClientError::Silent { seconds: patience.as_secs() }),
    }
}

fn queue_name(topic: &NewRun, queue: u32, subscription: u32) -> ShortString {
    format!("{}-{queue}-{subscription}", topic.name).into()
}

/// The exchange before the queues of several subscriptions; one subscription needs none.
fn exchange_name(topic: &NewRun, queue: u32) -> Option<ShortString> {
    (topic.subscriptions > 1).then(|| format!("{}-{queue}", topic.name).into())
}

/// Where records of a queue are published: exchange and routing key.
fn place(topic: &NewRun, queue: u32) -> (ShortString, ShortString) {
    match exchange_name(topic, queue) {
        Some(exchange) => (exchange, "".into()),
        None => ("".into(), queue_name(topic, queue, 0)),
    }
}

/// AMQP's delivery mode of messages that survive a restart.
const PERSISTENT: u8 = 2;
/// Deliveries that a consumer may have unacknowledged.
const PREFETCH: u16 = 2_000;
/// Records published and not yet confirmed, at most.
const UNCONFIRMED_MAXIMUM: usize = 2_000;
const POLL: Duration = Duration::from_millis(10);
