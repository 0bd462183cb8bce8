//! A driver of the judge for RabbitMQ (`harness/docs/driver.md`), over lapin. AMQP has no offsets: a queue is read once, by
//! one consumer that acknowledges nothing, and a delivery's place in that reading is its offset. So only final reads mean
//! anything, and a plan for this driver has no consumers. Start at `serve`. Not here: load (`amqp`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};

use crate::{BenchError, QueueType};

/// Answers requests until the input ends.
pub fn serve(
    address: &str,
    queue_type: QueueType,
    input: impl BufRead + Send + 'static,
    mut output: impl Write,
) -> Result<(), BenchError> {
    let failed = |action| move |source| BenchError::Io { action, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("start the AMQP client's runtime"))?;
    let (lines, mut requests) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // Once nobody serves any more, nobody hears, which is all right.
        input.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
    });
    let judge =
        Rc::new(Judge { address: address.to_owned(), queue_type, senders: Rc::default(), readings: Rc::default() });
    let (answers, mut answered) = mpsc::unbounded_channel::<Value>();
    let serving = async {
        loop {
            tokio::select! {
                biased;
                Some(answer) = answered.recv() => {
                    writeln!(output, "{answer}").and_then(|()| output.flush())?;
                }
                request = requests.recv() => {
                    let Some(line) = request else { return Ok::<(), std::io::Error>(()) };
                    let (judge, answers) = (judge.clone(), answers.clone());
                    tokio::task::spawn_local(async move {
                        // The receiver lives as long as the loop above.
                        let _ = answers.send(judge.answer(&line).await);
                    });
                }
            }
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, serving).map_err(failed("answer the judge"))
}

#[derive(Deserialize)]
struct Request {
    id: u64,
    client: u32,
    call: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    queues: u32,
    #[serde(default)]
    partition: u32,
    #[serde(default)]
    acks: i8,
    #[serde(default)]
    records: Vec<Value>,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    max_records: usize,
    #[serde(default)]
    query: Value,
}

/// Why something was not done, for people.
type Why = String;
/// What is kept of each client or queue, behind a lock that one request holds.
type Kept<K, T> = Rc<RefCell<BTreeMap<K, Rc<Mutex<Option<T>>>>>>;

struct Judge {
    address: String,
    queue_type: QueueType,
    /// By client and whether it awaits confirms.
    senders: Kept<(u32, bool), Link>,
    readings: Kept<String, Reading>,
}

struct Link {
    channel: Channel,
    _connection: Connection,
}

/// A queue as it is read: every delivery so far, none acknowledged.
struct Reading {
    link: Link,
    seen: Rc<RefCell<Seen>>,
}

struct Seen {
    records: Vec<Value>,
    last: Instant,
    is_broken: bool,
}

impl Judge {
    async fn answer(&self, line: &str) -> Value {
        let request: Request = match serde_json::from_str(line) {
            Ok(request) => request,
            Err(error) => return json!({"id": 0, "outcome": "refused", "why": error.to_string()}),
        };
        let done = match request.call.as_str() {
            "create-topic" => self.create(&request).await,
            "produce" => self.produce(&request).await,
            "poll" => self.poll(&request).await,
            "list-offset" if request.query == "earliest" => Ok(json!({"offset": 0, "timestamp_ms": -1})),
            "list-offset" if request.query == "latest" => self.end(&request).await,
            other => {
                let why = format!("AMQP has no {other} of {}", request.query);
                return json!({"id": request.id, "outcome": "refused", "why": why});
            }
        };
        let (outcome, mut answer) = match done {
            Ok(answer) => ("done", answer),
            Err(why) => ("unknown", json!({"why": why})),
        };
        answer["id"] = json!(request.id);
        answer["outcome"] = json!(outcome);
        answer
    }

    async fn open(&self) -> Result<Link, Why> {
        let address = format!("amqp://guest:guest@{}/%2f?heartbeat=10", self.address);
        let opening = async {
            let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
            Ok(Link { channel: connection.create_channel().await?, _connection: connection })
        };
        bounded(opening).await
    }

    async fn create(&self, request: &Request) -> Result<Value, Why> {
        let link = self.open().await?;
        for queue in 0..request.queues {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(self.queue_type.word().into()));
            let name = name(&request.topic, queue);
            bounded(link.channel.queue_declare(name, QueueDeclareOptions::durable(), arguments)).await?;
        }
        Ok(json!({}))
    }

    async fn produce(&self, request: &Request) -> Result<Value, Why> {
        let awaits = request.acks != 0;
        let slot = self.senders.borrow_mut().entry((request.client, awaits)).or_default().clone();
        let mut sender = slot.lock().await;
        let link = match sender.take().filter(|link| link.channel.status().connected()) {
            Some(link) => link,
            None => {
                let link = self.open().await?;
                if awaits {
                    bounded(link.channel.confirm_select(ConfirmSelectOptions::default())).await?;
                }
                link
            }
        };
        // Where a step fails the connection is dropped: a late confirm must not be taken for a later record's.
        let mut confirms = Vec::new();
        for record in &request.records {
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let (name, body) = (name(&request.topic, request.partition), record.to_string());
            let options = BasicPublishOptions::default();
            confirms.push(
                bounded(link.channel.basic_publish("".into(), name, options, body.as_bytes(), properties)).await?,
            );
        }
        for confirm in confirms.into_iter().filter(|_| awaits) {
            // A message that comes back with its acknowledgement could not be routed and is not stored.
            match bounded(confirm).await? {
                Confirmation::Ack(None) => {}
                other => return Err(format!("{other:?}")),
            }
        }
        *sender = Some(link);
        Ok(json!({"attempts": 1}))
    }

    /// Where the queue's end is, by reading until nothing more comes and the broker has nothing more to give.
    async fn end(&self, request: &Request) -> Result<Value, Why> {
        let name = name(&request.topic, request.partition);
        let slot = self.readings.borrow_mut().entry(name.to_string()).or_default().clone();
        let mut kept = slot.lock().await;
        let reading = match kept.take().filter(|reading| !reading.seen.borrow().is_broken) {
            Some(reading) => reading,
            None => self.read(&name).await?,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            let declared =
                bounded(reading.link.channel.queue_declare(name.clone(), passive, FieldTable::default())).await?;
            let (count, quiet) = (reading.seen.borrow().records.len(), reading.seen.borrow().last.elapsed());
            if reading.seen.borrow().is_broken {
                return Err("the consumer's connection has ended".to_owned());
            }
            if declared.message_count() == 0 && quiet >= QUIET {
                *kept = Some(reading);
                return Ok(json!({"offset": count, "timestamp_ms": -1}));
            }
            if Instant::now() >= deadline {
                return Err(format!("{} messages of {name} are not delivered", declared.message_count()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Begins to read a queue.
    async fn read(&self, name: &ShortString) -> Result<Reading, Why> {
        let link = self.open().await?;
        bounded(link.channel.basic_qos(0, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        let consume = link.channel.basic_consume(name.clone(), "judge".into(), options, FieldTable::default());
        let mut consumer = bounded(consume).await?;
        let seen = Seen { records: Vec::new(), last: Instant::now(), is_broken: false };
        let seen = Rc::new(RefCell::new(seen));
        let noting = seen.clone();
        tokio::task::spawn_local(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let record = serde_json::from_slice(&delivery.data).unwrap_or(Value::Null);
                let mut seen = noting.borrow_mut();
                seen.records.push(record);
                seen.last = Instant::now();
            }
            noting.borrow_mut().is_broken = true;
        });
        Ok(Reading { link, seen })
    }

    async fn poll(&self, request: &Request) -> Result<Value, Why> {
        let name = name(&request.topic, request.partition).to_string();
        let slot = self.readings.borrow().get(&name).cloned();
        let Some(slot) = slot else { return Ok(json!({"records": []})) };
        let kept = slot.lock().await;
        let Some(reading) = kept.as_ref() else { return Err("the reading has been cut off".to_owned()) };
        let seen = reading.seen.borrow();
        let wanted = seen.records.iter().enumerate().skip(request.offset).take(request.max_records);
        let placed = wanted.map(|(place, record)| {
            let mut record = record.clone();
            // A body that is no record of ours has no fields; the judge finds its value wrong.
            match record.as_object_mut() {
                Some(fields) => drop(fields.insert("offset".to_owned(), json!(place))),
                None => record = json!({"offset": place, "key": null, "value": "", "timestamp_ms": 0}),
            }
            record
        });
        Ok(json!({"records": placed.collect::<Vec<_>>()}))
    }
}

async fn bounded<T>(step: impl Future<Output = lapin::Result<T>>) -> Result<T, Why> {
    match timeout(STEP, step).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing for {} s", STEP.as_secs())),
    }
}

fn name(topic: &str, queue: u32) -> ShortString {
    format!("{topic}-{queue}").into()
}

/// AMQP's delivery mode of messages that survive a restart.
const PERSISTENT: u8 = 2;
/// How long one step may take; less than the judge waits for an answer.
const STEP: Duration = Duration::from_secs(4);
/// How long a queue may take to be read.
const PATIENCE: Duration = Duration::from_secs(8);
/// A queue that has nothing ready and brought nothing for so long has been read.
const QUIET: Duration = Duration::from_millis(1_500);
const LOOK_EVERY: Duration = Duration::from_millis(100);
