//! A small model of a broker that keeps its promises, with clients whose requests and answers get late, lost or refused.
//! It writes the histories that a clean broker may leave; the judge must never blame them. Start at `Model::run`.
//! Not here: the protocol, disks, time-outs of the real driver; only their effects on a history.

use std::collections::{BTreeMap, VecDeque};

use mqassay_harness::check::{Context, TopicContext};
use mqassay_harness::guarantee::Flush;
use mqassay_harness::history::{
    Call, ClientId, Header, History, Mark, OffsetQuery, Operation, Outcome, Position, Queue, Run, SCHEMA_VERSION,
    SeekTarget, Value,
};
use mqassay_harness::plan::draws::Draws;

const QUEUES: u32 = 2;
const WALL_START_MS: i64 = 1_000_000;
const RECORD_BYTES: u64 = 100;
const TIME_OUT_US: u64 = 4_000;
/// The client of the final reads.
pub(crate) const READER: ClientId = ClientId(99);

/// A stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    value: Value,
    timestamp_ms: i64,
}

/// A queue: records from offset 0 on, deleted ones included.
#[derive(Debug, Default)]
struct Log {
    records: Vec<Record>,
    start: usize,
    synced: usize,
}

/// A produce operation under way.
#[derive(Debug, Clone)]
struct Batch {
    queue: u32,
    client: ClientId,
    first: u64,
    timestamps_ms: Vec<i64>,
    invoked_us: u64,
    attempts: u32,
    idempotent: bool,
    acks: i8,
    refusals: u32,
    /// Where it was stored, for the idempotence window.
    stored: Option<usize>,
    is_over: bool,
}

#[derive(Debug, Clone, Copy)]
struct Producer {
    id: ClientId,
    idempotent: bool,
    in_flight: u32,
    attempts: u32,
    acks: i8,
}

#[derive(Debug, Clone)]
enum Event {
    Produce { producer: usize },
    Attempt { batch: usize, attempt: u32 },
    Arrive { batch: usize, attempt: u32, counts: bool },
    Answer { batch: usize, attempt: u32, offset: Option<usize> },
    Consume { consumer: usize },
    Effect { operation: Box<Operation>, answered: bool, consumer: usize },
    PowerLoss,
    Retain,
}

/// The model in the middle of a run.
pub(crate) struct Model {
    draws: Draws,
    now_us: u64,
    events: BTreeMap<(u64, u64), Event>,
    event_count: u64,
    logs: Vec<Log>,
    batches: Vec<Batch>,
    producers: Vec<Producer>,
    sequences: BTreeMap<(u32, u32), u64>,
    floors: BTreeMap<u32, u64>,
    open: BTreeMap<u32, u32>,
    waiting: VecDeque<usize>,
    positions: Vec<BTreeMap<u32, u64>>,
    history: History,
    context: Context,
}

impl Model {
    /// A run of the seed; `flush=ack` without retention where `is_strict`.
    pub(crate) fn run(seed: u64, is_strict: bool) -> (History, Context) {
        let mut model = Model::new(seed, is_strict);
        while let Some(((at_us, _), event)) = model.events.pop_first() {
            model.now_us = at_us;
            model.handle(event);
        }
        model.final_reads();
        (model.history, model.context)
    }

    fn new(seed: u64, is_strict: bool) -> Model {
        let draws = Draws::new(seed);
        let flush = if is_strict { Flush::Ack } else { *draws.pick("flush", 0, &[Flush::Ack, Flush::Os]) };
        let topic = TopicContext {
            flush,
            retention_bytes: (!is_strict && draws.chance("by-size", 0, 0.3)).then_some(40 * RECORD_BYTES),
            retention_ms: (!is_strict && draws.chance("by-time", 0, 0.3)).then_some(60),
            is_log_shared: false,
            has_create_time: true,
            ..TopicContext::default()
        };
        let header =
            Header { schema: SCHEMA_VERSION, topics: vec!["events".to_owned()], title: format!("seed {seed}") };
        let mut context = Context::of_topics(vec![topic], RECORD_BYTES).with_wall_start_ms(WALL_START_MS);
        context.has_liveness_phase = true;
        let producers: Vec<Producer> = (0..3)
            .map(|index| {
                let id = u64::from(index);
                let idempotent = draws.chance("idempotent", id, 0.5);
                Producer {
                    id: ClientId(index),
                    idempotent,
                    in_flight: if idempotent { 1 } else { *draws.pick("in-flight", id, &[1, 5]) },
                    attempts: *draws.pick("attempts", id, &[1, 3]),
                    acks: if idempotent { -1 } else { *draws.pick("acks", id, &[-1, -1, 0]) },
                }
            })
            .collect();
        context.in_flight = producers.iter().map(|producer| (producer.id, producer.in_flight)).collect();
        let mut model = Model {
            draws,
            now_us: 0,
            events: BTreeMap::new(),
            event_count: 0,
            logs: (0..QUEUES).map(|_| Log::default()).collect(),
            batches: Vec::new(),
            producers,
            sequences: BTreeMap::new(),
            floors: BTreeMap::new(),
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            positions: vec![(0..QUEUES).map(|queue| (queue, 0)).collect(); 3],
            history: History { header, operations: Vec::new(), marks: Vec::new() },
            context,
        };
        model.plan(is_strict);
        model
    }

    fn plan(&mut self, is_strict: bool) {
        for index in 0..60u64 {
            let producer = self.draws.range("producer", index, 0, 2) as usize;
            let at_us = self.draws.range("produce-at", index, 0, 100_000);
            self.schedule(at_us, Event::Produce { producer });
        }
        for consumer in 0..3 {
            let at_us = self.draws.range("consume-at", consumer as u64, 0, 5_000);
            self.schedule(at_us, Event::Consume { consumer });
        }
        for index in 0..2 {
            let at_us = self.draws.range("power-loss-at", index, 5_000, 110_000);
            self.schedule(at_us, Event::PowerLoss);
        }
        if !is_strict {
            (1..12).for_each(|index| self.schedule(index * 10_000, Event::Retain));
        }
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.event_count += 1;
        self.events.insert((at_us, self.event_count), event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Produce { producer } => self.produce(producer),
            Event::Attempt { batch, attempt } => self.attempt(batch, attempt),
            Event::Arrive { batch, attempt, counts } => self.arrive(batch, attempt, counts),
            Event::Answer { batch, attempt, offset } => {
                if self.batches[batch].attempts == attempt {
                    self.end_batch(batch, Outcome::Done, offset.map(|offset| offset as i64));
                }
            }
            Event::Consume { consumer } => self.consume(consumer),
            Event::Effect { operation, answered, consumer } => self.effect(*operation, answered, consumer),
            Event::PowerLoss => self.lose_power(),
            Event::Retain => self.retain(),
        }
    }

    fn produce(&mut self, index: usize) {
        let producer = self.producers[index];
        let open = self.open.entry(producer.id.0).or_insert(0);
        if *open >= producer.in_flight {
            self.waiting.push_back(index);
            return;
        }
        *open += 1;
        let entity = self.batches.len() as u64;
        let queue = self.draws.range("queue", entity, 0, u64::from(QUEUES) - 1) as u32;
        let count = self.draws.range("count", entity, 1, 4);
        let sequence = self.sequences.entry((producer.id.0, queue)).or_insert(0);
        let first = *sequence;
        *sequence += count;
        let wall_ms = WALL_START_MS + (self.now_us / 1_000) as i64;
        let shift = self.draws.range("shift", entity, 0, 40) as i64 - 20;
        let step = self.draws.range("step", entity, 0, 8) as i64 - 4;
        let batch = self.batches.len();
        self.batches.push(Batch {
            queue,
            client: producer.id,
            first,
            timestamps_ms: (0..count as i64).map(|n| wall_ms + shift + n * step).collect(),
            invoked_us: self.now_us,
            attempts: 0,
            idempotent: producer.idempotent,
            acks: producer.acks,
            refusals: 0,
            stored: None,
            is_over: false,
        });
        self.schedule(self.now_us, Event::Attempt { batch, attempt: 1 });
    }

    /// Sends the batch, or gives up when its attempts are used.
    fn attempt(&mut self, index: usize, attempt: u32) {
        let batch = &mut self.batches[index];
        if batch.is_over {
            return;
        }
        let producer = self.producers[batch.client.0 as usize];
        if attempt > producer.attempts {
            let all_refused = batch.refusals == batch.attempts;
            let why = "no attempt was answered".to_owned();
            let outcome = if all_refused { Outcome::Refused(why) } else { Outcome::Unknown(why) };
            self.end_batch(index, outcome, None);
            return;
        }
        batch.attempts = attempt;
        let entity = index as u64;
        let is_refused = self.draws.chance("refused", entity, 0.05);
        if is_refused {
            self.batches[index].refusals += 1;
        } else if !self.draws.chance("request-lost", entity, 0.07) {
            let is_late = self.draws.chance("request-late", entity, 0.08);
            if is_late {
                let at_us = self.now_us + self.draws.range("late-by", entity, TIME_OUT_US, 6 * TIME_OUT_US);
                self.schedule(at_us, Event::Arrive { batch: index, attempt, counts: false });
            } else {
                // What arrives in time arrives in the order of a connection's bytes.
                let delay = self.draws.range("request-delay", entity, 50, 1_500);
                let floor = self.floors.entry(producer.id.0).or_insert(0);
                let at_us = (self.now_us + delay).max(*floor + 1);
                *floor = at_us;
                self.schedule(at_us, Event::Arrive { batch: index, attempt, counts: true });
            }
        }
        if producer.acks == 0 {
            self.end_batch(index, Outcome::Unknown("acks=0".to_owned()), None);
        } else {
            self.schedule(self.now_us + TIME_OUT_US, Event::Attempt { batch: index, attempt: attempt + 1 });
        }
    }

    fn arrive(&mut self, index: usize, attempt: u32, counts: bool) {
        let batch = self.batches[index].clone();
        let log = &mut self.logs[batch.queue as usize];
        let offset = match batch.stored.filter(|_| batch.idempotent) {
            Some(offset) => offset,
            None => {
                let offset = log.records.len();
                let values = (batch.first..).map(|sequence| Value::new(batch.client, sequence));
                let records = values.zip(&batch.timestamps_ms);
                log.records.extend(records.map(|(value, timestamp)| Record { value, timestamp_ms: *timestamp }));
                offset
            }
        };
        self.batches[index].stored = Some(offset);
        let entity = index as u64;
        if counts && !self.draws.chance("answer-lost", entity, 0.1) {
            let at_us = self.now_us + self.draws.range("answer-delay", entity, 50, 1_500);
            let told = (!self.draws.chance("offset-untold", entity, 0.05)).then_some(offset);
            self.schedule(at_us, Event::Answer { batch: index, attempt, offset: told });
        }
    }

    fn end_batch(&mut self, index: usize, outcome: Outcome, first_offset: Option<i64>) {
        let batch = &mut self.batches[index];
        if std::mem::replace(&mut batch.is_over, true) {
            return;
        }
        let call = Call::Produce {
            queue: queue(batch.queue),
            first_value: Value::new(batch.client, batch.first),
            count: batch.timestamps_ms.len() as u32,
            timestamps_ms: batch.timestamps_ms.clone(),
            first_offset,
            attempts: batch.attempts,
            acks: batch.acks,
            idempotent: batch.idempotent,
        };
        let (client, invoked_us, completed_us) = (batch.client, batch.invoked_us, self.now_us);
        self.history.operations.push(Operation { client, invoked_us, completed_us, outcome, call });
        *self.open.entry(client.0).or_insert(1) -= 1;
        if let Some(at) = self.waiting.iter().position(|waiting| self.producers[*waiting].id == client) {
            let producer = self.waiting.remove(at).expect("the position was found in the queue");
            self.schedule(self.now_us + 1, Event::Produce { producer });
        }
    }

    /// The consumer's next operation; it takes effect later, and is answered later still.
    fn consume(&mut self, consumer: usize) {
        if self.now_us > 120_000 {
            return;
        }
        let entity = consumer as u64;
        let on = queue(self.draws.range("read-queue", entity, 0, u64::from(QUEUES) - 1) as u32);
        let wall_ms = WALL_START_MS + (self.now_us / 1_000) as i64;
        let sought = wall_ms - self.draws.range("sought", entity, 0, 60) as i64;
        let call = match self.draws.range("kind", entity, 0, 19) {
            0..=9 => Call::Poll { runs: Vec::new(), corrupt: Vec::new(), positions: Vec::new(), is_final: false },
            10 => Call::Seek { queue: on, to: SeekTarget::Beginning, offset: None },
            11 => Call::Seek { queue: on, to: SeekTarget::End, offset: None },
            12 => Call::Seek { queue: on, to: SeekTarget::Timestamp(sought), offset: None },
            13 => list(on, OffsetQuery::Earliest),
            14 => list(on, OffsetQuery::Latest),
            15..=17 => list(on, OffsetQuery::Timestamp(sought)),
            _ if self.draws.chance("delete", entity, 0.4) => {
                let log = &self.logs[on.partition as usize];
                let before = (log.start + (log.records.len() - log.start) / 3) as i64;
                Call::DeleteRecords { queue: on, before, low_watermark: None }
            }
            _ => list(on, OffsetQuery::Latest),
        };
        let (client, invoked_us) = (ClientId(10 + consumer as u32), self.now_us);
        let operation = Operation { client, invoked_us, completed_us: 0, outcome: Outcome::Done, call };
        let answered = !self.draws.chance("call-lost", entity, 0.05);
        let at_us = self.now_us + self.draws.range("call-delay", entity, 50, 2_000);
        self.schedule(at_us, Event::Effect { operation: Box::new(operation), answered, consumer });
    }

    fn effect(&mut self, mut operation: Operation, answered: bool, consumer: usize) {
        let mut positions = self.positions[consumer].clone();
        self.perform(&mut operation.call, &mut positions, 0);
        let delay = self.draws.range("return-delay", consumer as u64, 50, 2_000);
        operation.completed_us = self.now_us + delay;
        if answered {
            self.positions[consumer] = positions;
        } else {
            operation.outcome = Outcome::Unknown("the answer was lost".to_owned());
            operation.call = unanswered(operation.call);
        }
        let next_us = operation.completed_us + self.draws.range("pause", consumer as u64, 1, 1_500);
        self.schedule(next_us, Event::Consume { consumer });
        self.history.operations.push(operation);
    }

    /// What the broker does and answers.
    fn perform(&mut self, call: &mut Call, positions: &mut BTreeMap<u32, u64>, wanted: usize) {
        match call {
            Call::Poll { runs, positions: told, .. } => {
                for (partition, position) in positions.iter_mut() {
                    let log = &self.logs[*partition as usize];
                    if *position < log.start as u64 || *position > log.records.len() as u64 {
                        *position = log.start as u64;
                        continue;
                    }
                    told.push(Position { queue: queue(*partition), offset: *position as i64 });
                    let most = if wanted > 0 { wanted } else { 15 };
                    let end = log.records.len().min(*position as usize + most);
                    runs.extend(runs_of(queue(*partition), log, *position as usize, end));
                    *position = end as u64;
                }
            }
            Call::Seek { queue, to, offset } => {
                let log = &self.logs[queue.partition as usize];
                let target = match to {
                    SeekTarget::Beginning => log.start,
                    SeekTarget::End => log.records.len(),
                    SeekTarget::Offset(target) => *target as usize,
                    SeekTarget::Timestamp(sought) => log.look_up(*sought).unwrap_or(log.records.len()),
                };
                *offset = Some(target as i64);
                positions.insert(queue.partition, target as u64);
            }
            Call::ListOffset { queue, query, offset, timestamp_ms } => {
                let log = &self.logs[queue.partition as usize];
                let found = match query {
                    OffsetQuery::Earliest => Some(log.start),
                    OffsetQuery::Latest => Some(log.records.len()),
                    OffsetQuery::Timestamp(sought) => log.look_up(*sought),
                };
                *offset = Some(found.map_or(-1, |found| found as i64));
                let of_record = found.filter(|_| matches!(query, OffsetQuery::Timestamp(_)));
                *timestamp_ms = Some(of_record.map_or(-1, |found| log.records[found].timestamp_ms));
            }
            Call::DeleteRecords { queue, before, low_watermark } => {
                let log = &mut self.logs[queue.partition as usize];
                log.start = log.start.max((*before as usize).min(log.records.len()));
                log.synced = log.synced.max(log.start);
                *low_watermark = Some(log.start as i64);
            }
            Call::Produce { .. } | Call::CreateTopic { .. } | Call::Group { .. } => {
                unreachable!("consumers do neither")
            }
        }
    }

    fn lose_power(&mut self) {
        self.history.marks.push(Mark::Fault {
            at_us: self.now_us,
            class: "power-loss".to_owned(),
            fault: 0,
            nodes: vec![0],
        });
        if self.context.topics[0].flush == Flush::Ack {
            return;
        }
        for (partition, log) in self.logs.iter_mut().enumerate() {
            let entity = partition as u64;
            let synced = log.synced.max(log.start);
            let kept = self.draws.range("kept", entity, synced as u64, log.records.len() as u64) as usize;
            log.records.truncate(kept);
            log.synced = kept;
            // A retry is stored anew where its original is gone.
            let of_queue = self.batches.iter_mut().filter(|batch| batch.queue == partition as u32);
            of_queue.for_each(|batch| batch.stored = batch.stored.filter(|offset| *offset < kept));
        }
    }

    fn retain(&mut self) {
        let topic = self.context.topics[0].clone();
        let now_ms = WALL_START_MS + (self.now_us / 1_000) as i64;
        for (partition, log) in self.logs.iter_mut().enumerate() {
            let synced = self.draws.range("synced", partition as u64, 0, log.records.len() as u64) as usize;
            log.synced = log.synced.max(synced);
            if let Some(age_ms) = topic.retention_ms {
                while log.records.get(log.start).is_some_and(|record| record.timestamp_ms + age_ms <= now_ms) {
                    log.start += 1;
                }
            }
            if let Some(limit) = topic.retention_bytes {
                let most = (limit / RECORD_BYTES) as usize;
                log.start = log.start.max(log.records.len().saturating_sub(most));
            }
            log.synced = log.synced.max(log.start);
        }
    }

    fn final_reads(&mut self) {
        self.history.marks.push(Mark::LivenessBegan { at_us: self.now_us });
        let mut positions = BTreeMap::new();
        for partition in 0..QUEUES {
            for query in [OffsetQuery::Earliest, OffsetQuery::Latest] {
                self.final_call(list(queue(partition), query), &mut positions);
            }
            positions.insert(partition, self.logs[partition as usize].start as u64);
        }
        for _ in 0..100 {
            let call = Call::Poll { runs: Vec::new(), corrupt: Vec::new(), positions: Vec::new(), is_final: true };
            self.final_call(call, &mut positions);
            let ends = self.logs.iter().map(|log| log.records.len() as u64);
            if positions.values().copied().eq(ends) {
                break;
            }
        }
        self.history.operations.sort_by_key(|operation| operation.completed_us);
        let ended = Mark::LivenessEnded { at_us: self.now_us, reached: true, missing: Vec::new() };
        self.history.marks.push(ended);
    }

    fn final_call(&mut self, mut call: Call, positions: &mut BTreeMap<u32, u64>) {
        self.now_us += 1_000;
        self.perform(&mut call, positions, 7);
        let (invoked_us, completed_us) = (self.now_us, self.now_us + 300);
        let outcome = Outcome::Done;
        self.history.operations.push(Operation { client: READER, invoked_us, completed_us, outcome, call });
    }
}

impl Log {
    fn look_up(&self, sought_ms: i64) -> Option<usize> {
        (self.start..self.records.len()).find(|offset| self.records[*offset].timestamp_ms >= sought_ms)
    }
}

/// The queue with the number.
pub(crate) fn queue(partition: u32) -> Queue {
    Queue { topic: 0, partition }
}

fn list(queue: Queue, query: OffsetQuery) -> Call {
    Call::ListOffset { queue, query, offset: None, timestamp_ms: None }
}

fn unanswered(call: Call) -> Call {
    match call {
        Call::Poll { is_final, .. } => {
            Call::Poll { runs: Vec::new(), corrupt: Vec::new(), positions: Vec::new(), is_final }
        }
        Call::Seek { queue, to, .. } => Call::Seek { queue, to, offset: None },
        Call::ListOffset { queue, query, .. } => list(queue, query),
        Call::DeleteRecords { queue, before, .. } => Call::DeleteRecords { queue, before, low_watermark: None },
        other @ (Call::Produce { .. } | Call::CreateTopic { .. } | Call::Group { .. }) => other,
    }
}

/// The records as runs of consecutive values.
fn runs_of(queue: Queue, log: &Log, start: usize, end: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (offset, record) in log.records.iter().enumerate().take(end).skip(start) {
        match runs.last_mut() {
            Some(run) if run.first_value.0 + u64::from(run.count) == record.value.0 => run.count += 1,
            Some(_) | None => runs.push(Run {
                queue,
                first_value: record.value,
                count: 1,
                first_offset: offset as i64,
                first_timestamp_ms: record.timestamp_ms,
            }),
        }
    }
    runs
}
