//! What becomes of messages while the broker is killed and started again, by what the producer does with its answers: it
//! ignores them, it looks at them, or it sends again what was not acknowledged. The library itself never retries here, so
//! that the difference is the application's. Afterwards the topic is read, and only what stands there counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::consumers::cluster::Cluster;
use crate::consumers::kafka::{self, Admin, Onlooker, fresh};
use crate::consumers::{ConsumerError, kafka_error};

/// What a producer does with its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Nothing.
    Ignored,
    /// It knows what was not acknowledged.
    Seen,
    /// It sends that again until it is acknowledged.
    SentAgain,
}

impl Answers {
    /// All of them.
    pub const ALL: [Answers; 3] = [Answers::Ignored, Answers::Seen, Answers::SentAgain];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Answers::Ignored => "ignored",
            Answers::Seen => "seen",
            Answers::SentAgain => "sent-again",
        }
    }
}

/// What stands in the topic in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Messages that the application sent.
    pub sent: u64,
    /// Of them, those that are not there.
    pub lost: u64,
    /// Of those, the ones that the producer does not know of.
    pub lost_untold: u64,
    /// Copies too many.
    pub repeated: u64,
}

struct Outcomes {
    failed: Arc<Mutex<Vec<usize>>>,
}

impl ClientContext for Outcomes {}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if result.is_err() {
            lock(&self.failed).push(number);
        }
    }
}

/// Sends at a steady rate while the broker is killed and comes back, and reads what is there.
pub fn run(cluster: &mut Cluster, answers: Answers) -> Result<Kept, ConsumerError> {
    let topic = fresh("answers");
    let admin = Admin::connect(cluster.bootstrap())?;
    admin.create(&topic, 1, 1)?;
    let address = admin.leader(&topic)?;
    let failed = Arc::new(Mutex::new(Vec::new()));
    let mut config = kafka::config(cluster.bootstrap());
    config
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("message.send.max.retries", "0")
        .set("message.timeout.ms", "1000");
    let context = Outcomes { failed: Arc::clone(&failed) };
    let producer: BaseProducer<Outcomes> =
        config.create_with_context(context).map_err(kafka_error("create a producer"))?;
    let (start, mut is_down, mut is_back) = (Instant::now(), false, false);
    for number in 0..MESSAGES {
        while start.elapsed() < PACE * number as u32 {
            producer.poll(Duration::from_millis(1));
        }
        if !is_down && start.elapsed() >= KILL_AT {
            cluster.kill(&address)?;
            is_down = true;
        }
        if is_down && !is_back && start.elapsed() >= KILL_AT + DOWN {
            cluster.restart(&address)?;
            is_back = true;
        }
        send(&producer, &topic, number)?;
        if answers == Answers::SentAgain {
            send_again(&producer, &topic, &failed)?;
        }
    }
    let deadline = Instant::now() + kafka::PATIENCE;
    loop {
        // What has failed by then is an outcome too.
        if let Err(error) = producer.flush(kafka::PATIENCE) {
            return Err(kafka_error("send")(error));
        }
        if answers != Answers::SentAgain || lock(&failed).is_empty() {
            break;
        }
        if Instant::now() > deadline {
            let seconds = kafka::PATIENCE.as_secs();
            return Err(ConsumerError::Late { what: "the acknowledgement of every message".to_owned(), seconds });
        }
        send_again(&producer, &topic, &failed)?;
    }
    let known: Vec<usize> = if answers == Answers::Ignored { Vec::new() } else { lock(&failed).clone() };
    let found = read(cluster, &topic)?;
    let missing: Vec<usize> = (0..MESSAGES).filter(|number| !found.contains_key(number)).collect();
    Ok(Kept {
        sent: MESSAGES as u64,
        lost: missing.len() as u64,
        lost_untold: missing.iter().filter(|number| !known.contains(number)).count() as u64,
        repeated: found.values().map(|copies| copies - 1).sum(),
    })
}

fn send(producer: &BaseProducer<Outcomes>, topic: &str, number: usize) -> Result<(), ConsumerError> {
    let value = format!("{number} {}", ".".repeat(80));
    let record: BaseRecord<'_, (), str, usize> = BaseRecord::with_opaque_to(topic, number).partition(0).payload(&value);
    producer.send(record).map_err(|(source, _)| kafka_error("send")(source))
}

fn send_again(producer: &BaseProducer<Outcomes>, topic: &str, failed: &Mutex<Vec<usize>>) -> Result<(), ConsumerError> {
    let numbers = std::mem::take(&mut *lock(failed));
    numbers.into_iter().try_for_each(|number| send(producer, topic, number))
}

/// Every message of the topic and how many copies of it there are.
fn read(cluster: &Cluster, topic: &str) -> Result<BTreeMap<usize, u64>, ConsumerError> {
    let end = Onlooker::connect(cluster.bootstrap(), topic, 1, topic)?.ends()?[0];
    let mut config = kafka::config(cluster.bootstrap());
    config.set("group.id", topic).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().map_err(kafka_error("create a consumer"))?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Offset(0)).map_err(kafka_error("name the queue to read"))?;
    consumer.assign(&assignment).map_err(kafka_error("assign the queue"))?;
    let (mut found, mut next, start) = (BTreeMap::new(), 0, Instant::now());
    while next < end {
        if start.elapsed() > kafka::PATIENCE {
            return Err(ConsumerError::Late {
                what: "the end of the topic".to_owned(),
                seconds: kafka::PATIENCE.as_secs(),
            });
        }
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        next = record.offset() + 1;
        let text = String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
        let number = text.split(' ').next().and_then(|number| number.parse().ok());
        *found.entry(number.ok_or(ConsumerError::Foreign { text })?).or_default() += 1;
    }
    Ok(found)
}

fn lock(failed: &Mutex<Vec<usize>>) -> MutexGuard<'_, Vec<usize>> {
    failed.lock().unwrap_or_else(PoisonError::into_inner)
}

const MESSAGES: usize = 4_000;
const PACE: Duration = Duration::from_millis(2);
const KILL_AT: Duration = Duration::from_secs(2);
const DOWN: Duration = Duration::from_secs(2);
