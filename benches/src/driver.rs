//! One interface over the client libraries: topics, producers and consumers, whatever the system's protocol. The same
//! block drives every implementation, so that load, history and verdict are the same. Start at `connect`.
//! The implementations are `client` (Kafka's protocol), `amqp` (RabbitMQ) and `rocketmq`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::over_time::windows::{AckTimes, Windows};
use crate::plan::{Compression, FETCH_WAIT_MS, LoadPlan};
use crate::verify::{Ledger, Reader};
use crate::{BenchError, Protocol, SystemTarget, amqp, client, rocketmq};

/// Topics of one system, and the clients made for them.
pub(crate) trait Driver: Sync {
    /// Makes the topic with the plan's durability and waits until every queue takes records.
    fn create(&self, topic: &NewRun, plan: &LoadPlan) -> Result<(), BenchError>;
    /// Deletes a topic whose records have been judged.
    fn delete(&self, topic: &NewRun) -> Result<(), BenchError>;
    /// The end offset of every queue: the broker's word where it has offsets, else how many records it confirmed.
    fn end_offsets(&self, topic: &NewRun, delivered: &[Delivered]) -> Result<Vec<i64>, BenchError>;
    /// A producer that is connected before the clock of a block starts.
    fn producer(
        &self,
        plan: &LoadPlan,
        topic: &NewRun,
        batching: Batching,
        client: u32,
    ) -> Result<Box<dyn LoadProducer>, BenchError>;
    /// A consumer of all queues from their first record.
    fn consumer(&self, plan: &LoadPlan, topic: &NewRun) -> Result<Box<dyn LoadConsumer>, BenchError>;
    /// A consumer of all queues, each from its offset; `Unsupported` where the system has no offsets that a client chooses.
    fn consumer_from(
        &self,
        _plan: &LoadPlan,
        _topic: &NewRun,
        _offsets: &[i64],
    ) -> Result<Box<dyn LoadConsumer>, BenchError> {
        Err(self.unsupported("reading from an offset"))
    }
    /// The offset of every queue's first record at or past a time, milliseconds since the epoch; its end where there is none.
    fn offsets_at(&self, _topic: &NewRun, _wall_ms: i64) -> Result<Vec<i64>, BenchError> {
        Err(self.unsupported("finding an offset by time"))
    }
    /// What of the plan this system cannot do; none where it can do all.
    fn cannot(&self, plan: &LoadPlan) -> Option<&'static str> {
        let needs_kafka = [
            (plan.subscribers > 1, "several subscribers that each read everything"),
            (plan.compression != Compression::None, "the compression of batches"),
            (plan.fetch_wait_ms != FETCH_WAIT_MS, "how long a fetch waits"),
        ];
        needs_kafka.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, what)| what)
    }
    /// The error of something that the system, or its driver here, cannot do.
    fn unsupported(&self, what: &'static str) -> BenchError {
        BenchError::Unsupported { library: self.library(), what }
    }
    /// The client library and its version.
    fn library(&self) -> String;
}

/// One producer, served by the thread that sends.
pub(crate) trait LoadProducer: Send {
    /// The next sequence number of a queue, noted as sent.
    fn next_sequence(&mut self, queue: u32) -> u64;
    /// Hands a record over, waiting while the client's buffer is full; gives up after a long wait or on another error.
    fn send(&mut self, queue: u32, sequence: u64, payload: &[u8]) -> Result<(), ClientError>;
    /// Notes outcomes that are there, without waiting.
    fn serve(&mut self);
    /// Waits until everything handed over so far has its outcome, and gives how many records were acknowledged.
    fn settle(&mut self) -> Result<u64, ClientError>;
    /// Waits until everything handed over has its outcome, and gives what was delivered.
    fn finish(self: Box<Self>) -> Result<Delivered, ClientError>;
}

/// One consumer, polled by one thread.
pub(crate) trait LoadConsumer: Send {
    /// Waits a little for records and gives each to `on_record` (queue, offset, value); how many there were. An error
    /// may pass: the caller decides how long it tries.
    fn poll(&mut self, on_record: &mut dyn FnMut(u32, i64, &[u8])) -> Result<u64, String>;
}

/// Connects to a system in its protocol.
pub(crate) fn connect(target: &SystemTarget) -> Result<Box<dyn Driver>, BenchError> {
    Ok(match &target.protocol {
        Protocol::Kafka => Box::new(client::KafkaDriver::connect(target)?),
        Protocol::Amqp { queue_type } => Box::new(amqp::AmqpDriver::connect(target, *queue_type)?),
        Protocol::Rocketmq { class_path } => Box::new(rocketmq::RocketmqDriver::connect(target, class_path)?),
    })
}

/// What a client library says when it fails.
#[derive(Debug, Error)]
pub enum ClientError {
    /// librdkafka.
    #[error(transparent)]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// lapin.
    #[error(transparent)]
    Amqp(#[from] Box<lapin::Error>),
    /// RocketMQ's Java client, or its process.
    #[error("{0}")]
    Rocketmq(String),
    /// Nothing for too long.
    #[error("no answer for {seconds} s")]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
}

/// The error of an action on a system.
pub(crate) fn client_error(target: &SystemTarget, action: &'static str) -> impl FnOnce(ClientError) -> BenchError {
    let system = target.name.clone();
    move |source| BenchError::Client { system, action, source }
}

/// How the producers of a block batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batching {
    pub(crate) linger_ms: u32,
    pub(crate) batch_bytes: u32,
    pub(crate) batch_records: u32,
    /// Whether latencies count, and not how much gets through. Then nothing counts the records per batch, and the end is
    /// looked for more seldom: the work for both would be seen as latency.
    pub(crate) is_open_loop: bool,
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

/// A topic made for one block, and what its records bear.
#[derive(Debug, Clone)]
pub(crate) struct NewRun {
    pub(crate) name: String,
    pub(crate) run: u64,
    pub(crate) queues: u32,
    pub(crate) clock: RunClock,
    /// How many subscriptions are to get every record, each for itself.
    pub(crate) subscriptions: u32,
    /// Which of them a consumer is made for, counted from 0.
    pub(crate) subscription: u32,
    /// Where acknowledgements are timed, if they are.
    pub(crate) windows: Option<Windows>,
}

/// What outcomes and statistics have told so far.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) ledger: Ledger,
    pub(crate) last_ns: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) batches: u64,
    pub(crate) batched_records: u64,
}

impl Delivered {
    pub(crate) fn new(client: u32, queues: u32) -> Delivered {
        let ledger = Ledger::new(client, queues);
        Delivered { ledger, last_ns: 0, first_error: None, batches: 0, batched_records: 0 }
    }

    /// What one producer of a topic is told; its acknowledgements are timed where the topic wants it.
    pub(crate) fn of(client: u32, topic: &NewRun) -> Delivered {
        let mut delivered = Delivered::new(client, topic.queues);
        delivered.ledger.times = topic.windows.clone().map(|windows| AckTimes::new(windows, topic.queues));
        delivered
    }

    /// Whether records were acknowledged of which no statistics have told yet.
    pub(crate) fn is_without_batches(&self) -> bool {
        self.batches == 0 && self.ledger.acknowledged() > 0
    }

    /// Records per batch over the statistics' whole windows: (records, batches).
    pub(crate) fn batched(&self) -> (u64, u64) {
        (self.batched_records, self.batches)
    }
}

/// Polls until `ends` are known and reached. `on_record` gets each sound record's stamp as it is polled.
/// Gives why reading stopped before the end, if it did.
pub(crate) fn consume(
    consumer: &mut dyn LoadConsumer,
    reader: &mut Reader,
    ends: &dyn Fn() -> Option<Vec<i64>>,
    on_record: &mut dyn FnMut(crate::payload::Stamp),
) -> Option<String> {
    let mut known_ends = None;
    let mut last_progress = Instant::now();
    let mut unchecked: u64 = 0;
    loop {
        if known_ends.is_none() {
            known_ends = ends();
        }
        // The comparison walks all queues, so it is made seldom while records flow.
        if unchecked == 0 && known_ends.as_ref().is_some_and(|ends| reader.has_reached(ends)) {
            return None;
        }
        let polled = consumer.poll(&mut |queue, offset, payload| {
            if let Some(stamp) = reader.read(queue, offset, payload) {
                on_record(stamp);
            }
        });
        match polled {
            Ok(0) => {
                unchecked = 0;
                if known_ends.is_some() && last_progress.elapsed() > IDLE_PATIENCE {
                    let seconds = IDLE_PATIENCE.as_secs();
                    return Some(format!("the consumer saw nothing for {seconds} s before the end offsets"));
                }
            }
            Ok(count) => {
                unchecked = if unchecked + count >= CHECK_INTERVAL_RECORDS { 0 } else { unchecked + count };
                last_progress = Instant::now();
            }
            Err(error) if last_progress.elapsed() > PATIENCE => return Some(format!("the consumer meets: {error}")),
            Err(_) => {}
        }
    }
}

/// A poisoned lock only means that another thread's panic is on its way; its counts are still counts.
pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long one step may take before the run gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long what a producer holds may take to be acknowledged.
pub(crate) const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a consumer that knows where the end is may see nothing before it gives up. RocketMQ looks only every 5 s at the pulls
/// that it holds, and one that came in together with its message waits for that.
const IDLE_PATIENCE: Duration = Duration::from_secs(15);
const CHECK_INTERVAL_RECORDS: u64 = 64;
