//! A consumer as a process of its own: reads its share of a topic into a sink, commits as it is told to, and kills itself
//! with SIGKILL at the step that it is told to. Start at `run`; `trial` starts such processes. It says on standard output
//! `assigned`, `busy` and `idle`, and ends when its standard input does, so that it never outlives its parent for long.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use crate::consumers::message::Message;
use crate::consumers::sink::{Sink, SinkKind, Step};
use crate::consumers::{ConsumerError, kafka, kafka_error};

/// When the consumer tells the broker that a message is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// Before it is processed, each for itself.
    Before,
    /// After it is processed, several at a time.
    After,
    /// The client library does, now and then, for what it has handed out.
    Automatic,
}

impl Acknowledge {
    /// All.
    pub const ALL: [Acknowledge; 3] = [Acknowledge::Before, Acknowledge::After, Acknowledge::Automatic];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Acknowledge::Before => "before",
            Acknowledge::After => "after",
            Acknowledge::Automatic => "automatic",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Result<Acknowledge, ConsumerError> {
        let found = Acknowledge::ALL.into_iter().find(|one| one.name() == name);
        let known = || Acknowledge::ALL.map(Acknowledge::name).join(", ");
        found.ok_or_else(|| ConsumerError::Unknown { what: "acknowledgement", name: name.to_owned(), known: known() })
    }
}

/// Where the consumer kills itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// At this step …
    pub step: Step,
    /// … when it is passed for this time, from 1.
    pub pass: u64,
    /// Not before the broker has a commit beyond the message in hand, or some seconds have gone by.
    pub late: bool,
}

/// What the consumer is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerOptions {
    /// The cluster.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// A static member's name: one that is started again takes its place at once.
    pub instance: Option<String>,
    /// The sink's database.
    pub database: PathBuf,
    /// The sink.
    pub sink: SinkKind,
    /// When it commits.
    pub acknowledge: Acknowledge,
    /// After how many messages, where it commits after processing.
    pub commit_every: u64,
    /// How long processing takes beside the database.
    pub work: Duration,
    /// Its death.
    pub death: Option<Death>,
}

/// Consumes until its process ends, and tells how it is.
pub fn run(options: &WorkerOptions, tell: &dyn Fn(&str)) -> Result<Infallible, ConsumerError> {
    let sink = Sink::open(options.sink, &options.database)?;
    let placement = Placement::default();
    let shared = Arc::clone(&placement.shared);
    lock(&shared).sink = Some(Sink::open(options.sink, &options.database)?);
    let consumer = connect(options, placement)?;
    let mut worker = Worker { options, sink, consumer, shared, since_commit: 0, passes: 0 };
    let mut is_idle = false;
    let mut failing_since: Option<Instant> = None;
    loop {
        // The message is copied, so that the consumer is free to commit while it is processed.
        let polled = worker.consumer.poll(POLL).map(|polled| {
            polled.map(|record| {
                (record.partition(), record.offset(), record.payload().map(<[u8]>::to_vec).unwrap_or_default())
            })
        });
        // Assignments come while polling: what is said of them comes before what is said of the poll.
        if std::mem::take(&mut lock(&worker.shared).newly_assigned) {
            tell("assigned");
            is_idle = false;
        }
        match polled {
            Some(Ok((queue, offset, payload))) => {
                failing_since = None;
                if std::mem::take(&mut is_idle) {
                    tell("busy");
                }
                worker.handle(&Message::parse(&payload)?, queue, offset)?;
            }
            Some(Err(source)) => {
                // Leaders and coordinators come back; what does not get better is an error.
                if failing_since.get_or_insert_with(Instant::now).elapsed() > kafka::PATIENCE {
                    return Err(ConsumerError::Kafka { action: "consume", source });
                }
            }
            None => {
                if options.acknowledge == Acknowledge::After && worker.has_uncommitted() {
                    worker.commit()?;
                } else if worker.is_placed() && !std::mem::replace(&mut is_idle, true) {
                    tell("idle");
                }
            }
        }
    }
}

fn connect(options: &WorkerOptions, placement: Placement) -> Result<BaseConsumer<Placement>, ConsumerError> {
    let is_automatic = options.acknowledge == Acknowledge::Automatic;
    let mut config = kafka::config(&options.bootstrap);
    config
        .set("group.id", &options.group)
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", SESSION_MS)
        .set("heartbeat.interval.ms", HEARTBEAT_MS)
        .set("fetch.wait.max.ms", "50")
        .set("enable.auto.commit", is_automatic.to_string())
        .set("auto.commit.interval.ms", AUTOMATIC_INTERVAL_MS);
    if let Some(instance) = &options.instance {
        config.set("group.instance.id", instance);
    }
    let consumer: BaseConsumer<Placement> =
        config.create_with_context(placement).map_err(kafka_error("create a consumer"))?;
    consumer.subscribe(&[&options.topic]).map_err(kafka_error("subscribe"))?;
    Ok(consumer)
}

struct Worker<'a> {
    options: &'a WorkerOptions,
    sink: Sink,
    consumer: BaseConsumer<Placement>,
    shared: Arc<Mutex<Shared>>,
    since_commit: u64,
    passes: u64,
}

impl Worker<'_> {
    fn handle(&mut self, message: &Message, queue: i32, offset: i64) -> Result<(), ConsumerError> {
        self.sink.note_delivery()?;
        self.pass(Step::Polled, queue, offset)?;
        if self.options.acknowledge == Acknowledge::Before {
            lock(&self.shared).next.insert(queue, offset + 1);
            self.commit_surely()?;
            self.pass(Step::Committed, queue, offset)?;
        }
        std::thread::sleep(self.options.work);
        let Worker { options, sink, consumer, passes, .. } = self;
        sink.take(message, (queue, offset), &mut |step| {
            die_if_due(options, consumer, passes, step, (queue, offset));
            Ok(())
        })?;
        if self.options.acknowledge == Acknowledge::After {
            lock(&self.shared).next.insert(queue, offset + 1);
            self.since_commit += 1;
            if self.since_commit >= self.options.commit_every {
                self.commit()?;
                self.pass(Step::Committed, queue, offset)?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, step: Step, queue: i32, offset: i64) -> Result<(), ConsumerError> {
        die_if_due(self.options, &self.consumer, &mut self.passes, step, (queue, offset));
        Ok(())
    }

    /// Commits what is processed. One that fails is no harm: what was not committed comes again.
    fn commit(&mut self) -> Result<Option<KafkaError>, ConsumerError> {
        self.since_commit = 0;
        let next = std::mem::take(&mut lock(&self.shared).next);
        if next.is_empty() {
            return Ok(None);
        }
        let failed = self.consumer.commit(&kafka::offsets(&self.options.topic, &next)?, CommitMode::Sync).err();
        if let Some(error) = &failed {
            tracing::info!("a commit failed: {error}");
            // Kept for the next time; where the queues are another's by then, the rebalance forgets them.
            lock(&self.shared).next.extend(next);
        }
        Ok(failed)
    }

    /// Commits before processing: without the commit the message must not be processed.
    fn commit_surely(&mut self) -> Result<(), ConsumerError> {
        let start = Instant::now();
        while let Some(source) = self.commit()? {
            if start.elapsed() > kafka::PATIENCE {
                return Err(ConsumerError::Kafka { action: "commit", source });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn has_uncommitted(&self) -> bool {
        !lock(&self.shared).next.is_empty()
    }

    fn is_placed(&self) -> bool {
        lock(&self.shared).is_placed
    }
}

/// Kills this process where it is due: nothing of it runs any further, as when a machine takes it away.
fn die_if_due(
    options: &WorkerOptions,
    consumer: &BaseConsumer<Placement>,
    passes: &mut u64,
    step: Step,
    (queue, offset): (i32, i64),
) {
    let Some(death) = options.death.filter(|death| death.step == step) else { return };
    *passes += 1;
    if *passes != death.pass {
        return;
    }
    let start = Instant::now();
    while death.late && start.elapsed() < LATE && !is_committed(options, consumer, queue, offset) {
        std::thread::sleep(POLL);
    }
    if kill_process(getpid(), Signal::KILL).is_ok() {
        // The signal may need a moment; nothing may be done in it.
        std::thread::sleep(LATE);
    }
    std::process::abort();
}

fn is_committed(options: &WorkerOptions, consumer: &BaseConsumer<Placement>, queue: i32, offset: i64) -> bool {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&options.topic, queue);
    let found = consumer.committed_offsets(asked, LATE);
    let found = found.ok().and_then(|found| found.find_partition(&options.topic, queue).map(|one| one.offset()));
    matches!(found, Some(Offset::Offset(committed)) if committed > offset)
}

/// What the group's callbacks and the loop share.
#[derive(Debug, Default)]
struct Shared {
    /// Next offsets of what is processed and not committed.
    next: BTreeMap<i32, i64>,
    is_placed: bool,
    newly_assigned: bool,
    /// Where a sink that keeps offsets says to begin.
    sink: Option<Sink>,
}

#[derive(Debug, Default)]
struct Placement {
    shared: Arc<Mutex<Shared>>,
}

impl ClientContext for Placement {}

impl ConsumerContext for Placement {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let mut shared = lock(&self.shared);
        shared.next.clear();
        let outcome = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            shared.is_placed = true;
            shared.newly_assigned = true;
            from_sink(&mut shared, list);
            consumer.assign(list)
        } else {
            shared.is_placed = false;
            consumer.unassign()
        };
        if let Err(error) = outcome {
            tracing::warn!("an assignment was not taken over: {error}");
        }
    }
}

/// Begins where the sink says, for sinks that keep the offsets.
fn from_sink(shared: &mut Shared, list: &mut TopicPartitionList) {
    let Shared { sink: Some(sink), next: uncommitted, .. } = shared else { return };
    let queues: Vec<(String, i32)> =
        list.elements().iter().map(|one| (one.topic().to_owned(), one.partition())).collect();
    for (topic, queue) in queues {
        // Without the database's word the broker's commit is where to begin: at worst too early.
        let Ok(Some(next)) = sink.position(queue) else { continue };
        match list.set_partition_offset(&topic, queue, Offset::Offset(next)) {
            // The broker is told as well, for those who look at the group's lag.
            Ok(()) => drop(uncommitted.insert(queue, next)),
            Err(error) => tracing::warn!("queue {queue} is read from the broker's commit: {error}"),
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const POLL: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(20);
const SESSION_MS: &str = "2000";
const HEARTBEAT_MS: &str = "300";
const AUTOMATIC_INTERVAL_MS: &str = "50";
