//! The plan's clients, performed through the driver: one operation at a time and client, clients beside each other.
//! Positions are kept here, so that a driver needs none; records betray any change as everywhere (`workload::payload`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::ExternalError;
use super::child::Driver;
use super::schema::{Answer, AnswerOutcome, RequestCall, WireRecord};
use crate::driver::records::Record;
use crate::history::{
    Call, ClientId, CorruptRecord, Mark, OffsetQuery, Operation, Outcome, Position, Queue, Run, SeekTarget, Value,
};
use crate::plan::{ClientAction, Plan, Role};
use crate::workload::payload;

/// Records that a poll asks for.
const POLL_RECORDS_MAXIMUM: u32 = 500;

/// What the clients of a run share.
pub(crate) struct Stage {
    pub(crate) plan: Plan,
    driver: Rc<Driver>,
    began: Cell<Instant>,
    began_wall_ms: i64,
    operations: RefCell<Vec<Operation>>,
    marks: RefCell<Vec<Mark>>,
}

impl Stage {
    pub(crate) fn new(plan: Plan, driver: Rc<Driver>, began_wall_ms: i64) -> Stage {
        let (operations, marks) = Default::default();
        Stage { plan, driver, began: Cell::new(Instant::now()), began_wall_ms, operations, marks }
    }

    /// Makes every topic of the plan.
    pub(crate) async fn create_topics(&self) -> Result<(), ExternalError> {
        for (index, topic) in self.plan.topics.iter().enumerate() {
            let call = RequestCall::CreateTopic { topic: &topic.name, queues: topic.queues, config: &topic.config };
            let reader = ClientId(self.plan.clients.len() as u32);
            let (since_us, answer) = (self.now_us(), self.driver.call(reader.0, call).await);
            if answer.outcome != AnswerOutcome::Done {
                return Err(ExternalError::NoTopic { topic: topic.name.clone(), why: answer.why });
            }
            self.record(reader, since_us, Outcome::Done, Call::CreateTopic { topic: index as u32 });
        }
        Ok(())
    }

    /// The run begins now: what was done before counts as done at its first moment.
    pub(crate) fn begin(&self) {
        self.began.set(Instant::now());
        for operation in self.operations.borrow_mut().iter_mut() {
            (operation.invoked_us, operation.completed_us) = (0, 0);
        }
    }

    /// When the run began.
    pub(crate) fn began(&self) -> std::time::Instant {
        self.began.get().into_std()
    }

    /// Waits until so many milliseconds of the run have passed.
    pub(crate) async fn until_ms(&self, at_ms: u64) {
        tokio::time::sleep_until(self.began.get() + Duration::from_millis(at_ms)).await;
    }

    /// Adds a mark of this moment.
    pub(crate) fn mark(&self, mark: impl FnOnce(u64) -> Mark) {
        self.marks.borrow_mut().push(mark(self.now_us()));
    }

    /// Everything recorded so far.
    pub(crate) fn take(&self) -> (Vec<Operation>, Vec<Mark>) {
        (self.operations.take(), self.marks.take())
    }

    fn now_us(&self) -> u64 {
        self.began.get().elapsed().as_micros() as u64
    }

    fn record(&self, client: ClientId, invoked_us: u64, outcome: Outcome, call: Call) {
        let operation = Operation { client, invoked_us, completed_us: self.now_us(), outcome, call };
        self.operations.borrow_mut().push(operation);
    }

    fn name(&self, queue: Queue) -> &str {
        &self.plan.topics[queue.topic as usize].name
    }

    async fn produce(&self, client: ClientId, first_value: Value, action: &ClientAction, role: &Role) {
        let ClientAction::Produce { queue, records, value_bytes, timestamp_shift_ms, timestamp_step_ms } = action
        else {
            return;
        };
        let Role::Producer { acks, idempotent, attempts, .. } = role else { return };
        let invoked_us = self.now_us();
        let first_ms = self.began_wall_ms + (invoked_us / 1_000) as i64 + timestamp_shift_ms;
        let timestamps_ms: Vec<i64> =
            (0..i64::from(*records)).map(|nth| (first_ms + nth * timestamp_step_ms).max(0)).collect();
        let values = (first_value.0..).map(Value).zip(&timestamps_ms);
        let wire = values.map(|(value, timestamp)| wire(&payload::encode(value, *queue, *timestamp, *value_bytes)));
        let call = RequestCall::Produce {
            topic: self.name(*queue),
            partition: queue.partition,
            acks: *acks,
            idempotent: *idempotent,
            attempts: *attempts,
            records: wire.collect(),
        };
        let answer = self.driver.call(client.0, call).await;
        // Without acks nothing is known, whatever the driver believes.
        let outcome = match (acks, outcome(&answer)) {
            (0, Outcome::Done) => Outcome::Unknown("acks=0".to_owned()),
            (_, outcome) => outcome,
        };
        let call = Call::Produce {
            queue: *queue,
            first_value,
            count: *records,
            timestamps_ms,
            first_offset: answer.first_offset.filter(|_| outcome == Outcome::Done),
            attempts: answer.attempts.unwrap_or(*attempts),
            acks: *acks,
            idempotent: *idempotent,
        };
        self.record(client, invoked_us, outcome, call);
    }

    /// Reads a queue from the position on; gives the position after.
    async fn poll(
        &self,
        client: ClientId,
        queue: Queue,
        position: i64,
        max_wait_ms: u32,
        is_final: bool,
    ) -> (i64, bool) {
        let invoked_us = self.now_us();
        let (topic, partition, offset) = (self.name(queue), queue.partition, position);
        let call = RequestCall::Poll { topic, partition, offset, max_wait_ms, max_records: POLL_RECORDS_MAXIMUM };
        let answer = self.driver.call(client.0, call).await;
        let (mut runs, mut corrupt, mut next) = (Vec::new(), Vec::new(), position);
        for record in &answer.records {
            let offset = record.offset.unwrap_or(next);
            next = offset + 1;
            match read(record, queue) {
                Ok(value) => extend(&mut runs, queue, offset, value, record.timestamp_ms),
                Err(what) => corrupt.push(CorruptRecord { queue, offset, what }),
            }
        }
        let positions = vec![Position { queue, offset: position }];
        let outcome = outcome(&answer);
        let is_done = outcome == Outcome::Done;
        self.record(client, invoked_us, outcome, Call::Poll { runs, corrupt, positions, is_final });
        (next, is_done)
    }

    async fn list_offset(&self, client: ClientId, queue: Queue, query: OffsetQuery) -> Option<i64> {
        let (invoked_us, answer) = (self.now_us(), self.ask(client, queue, query).await);
        let (outcome, offset, timestamp_ms) = (outcome(&answer), answer.offset, answer.timestamp_ms);
        let is_done = outcome == Outcome::Done;
        self.record(client, invoked_us, outcome, Call::ListOffset { queue, query, offset, timestamp_ms });
        offset.filter(|_| is_done)
    }

    async fn ask(&self, client: ClientId, queue: Queue, query: OffsetQuery) -> Answer {
        let (topic, partition) = (self.name(queue), queue.partition);
        self.driver.call(client.0, RequestCall::ListOffset { topic, partition, query }).await
    }

    /// A seek; gives the position that resulted.
    async fn seek(&self, client: ClientId, queue: Queue, to: SeekTarget) -> Option<i64> {
        let invoked_us = self.now_us();
        let (to, query) = match to {
            SeekTarget::Beginning => (to, Some(OffsetQuery::Earliest)),
            SeekTarget::End => (to, Some(OffsetQuery::Latest)),
            SeekTarget::Offset(_) => (to, None),
            SeekTarget::Timestamp(shift_ms) => {
                let sought = self.began_wall_ms + shift_ms;
                (SeekTarget::Timestamp(sought), Some(OffsetQuery::Timestamp(sought)))
            }
        };
        let (ended, offset) = match (query, to) {
            (Some(query), _) => {
                let mut answer = self.ask(client, queue, query).await;
                if answer.outcome == AnswerOutcome::Done && answer.offset == Some(-1) {
                    // No record is that young: the position goes to the end, as Kafka's own consumer does it.
                    answer = self.ask(client, queue, OffsetQuery::Latest).await;
                }
                (outcome(&answer), answer.offset)
            }
            (None, SeekTarget::Offset(offset)) => (Outcome::Done, Some(offset)),
            (None, SeekTarget::Beginning | SeekTarget::End | SeekTarget::Timestamp(_)) => return None,
        };
        let offset = offset.filter(|_| ended == Outcome::Done);
        self.record(client, invoked_us, ended, Call::Seek { queue, to, offset });
        offset
    }

    async fn delete_records(&self, client: ClientId, queue: Queue) {
        let start = self.list_offset(client, queue, OffsetQuery::Earliest).await;
        let end = self.list_offset(client, queue, OffsetQuery::Latest).await;
        let (Some(start), Some(end)) = (start, end) else { return };
        let (invoked_us, before) = (self.now_us(), start + (end - start) / 2);
        let (topic, partition) = (self.name(queue), queue.partition);
        let answer = self.driver.call(client.0, RequestCall::DeleteRecords { topic, partition, before }).await;
        let low_watermark = answer.low_watermark;
        self.record(client, invoked_us, outcome(&answer), Call::DeleteRecords { queue, before, low_watermark });
    }
}

/// Performs the client's operations in order, none before its time.
pub(crate) async fn run_client(stage: Rc<Stage>, client: ClientId) {
    let planned = &stage.plan.clients[client.0 as usize];
    let mut sent: BTreeMap<Queue, u64> = BTreeMap::new();
    let mut positions: BTreeMap<Queue, i64> = match &planned.role {
        Role::Consumer { queues, .. } => queues.iter().map(|queue| (*queue, 0)).collect(),
        Role::Producer { .. } | Role::Member { .. } => BTreeMap::new(),
    };
    let mut turn = 0;
    for operation in &planned.operations {
        stage.until_ms(operation.at_ms).await;
        match &operation.action {
            ClientAction::Produce { queue, records, .. } => {
                let sequence = sent.entry(*queue).or_insert(0);
                let first_value = Value::new(client, *sequence);
                *sequence += u64::from(*records);
                stage.produce(client, first_value, &operation.action, &planned.role).await;
            }
            ClientAction::Poll { max_wait_ms, .. } => {
                let Some((queue, position)) = positions.iter_mut().nth(turn) else { continue };
                *position = stage.poll(client, *queue, *position, *max_wait_ms, false).await.0;
                turn = (turn + 1) % positions.len();
            }
            ClientAction::Seek { queue, to } => {
                if let Some(offset) = stage.seek(client, *queue, *to).await {
                    positions.insert(*queue, offset);
                }
            }
            ClientAction::ListOffset { queue, query } => {
                let query = match query {
                    OffsetQuery::Timestamp(shift_ms) => OffsetQuery::Timestamp(stage.began_wall_ms + shift_ms),
                    OffsetQuery::Earliest | OffsetQuery::Latest => *query,
                };
                stage.list_offset(client, *queue, query).await;
            }
            ClientAction::DeleteRecords { queue } => stage.delete_records(client, *queue).await,
            ClientAction::Crash { .. } | ClientAction::Leave => {
                unreachable!("these belong to members of groups, which `run` refuses")
            }
        }
    }
}

/// Reads every queue from its start to its end; gives what could not be read.
pub(crate) async fn final_reads(stage: &Stage) -> Vec<String> {
    let client = ClientId(stage.plan.clients.len() as u32);
    let mut missing = Vec::new();
    for (topic, planned) in stage.plan.topics.iter().enumerate() {
        for partition in 0..planned.queues {
            let queue = Queue { topic: topic as u32, partition };
            let start = stage.list_offset(client, queue, OffsetQuery::Earliest).await;
            let end = stage.list_offset(client, queue, OffsetQuery::Latest).await;
            let (Some(mut position), Some(end)) = (start, end) else {
                missing.push(format!("the bounds of {}/{partition}", planned.name));
                continue;
            };
            while position < end {
                let (next, is_done) = stage.poll(client, queue, position, 0, true).await;
                if !is_done || next <= position {
                    missing.push(format!("{}/{partition} from offset {position} to {end}", planned.name));
                    break;
                }
                position = next;
            }
        }
    }
    missing
}

fn outcome(answer: &Answer) -> Outcome {
    match answer.outcome {
        AnswerOutcome::Done => Outcome::Done,
        AnswerOutcome::Refused => Outcome::Refused(answer.why.clone()),
        AnswerOutcome::Unknown => Outcome::Unknown(answer.why.clone()),
    }
}

fn wire(record: &Record) -> WireRecord {
    let (key, value) = (record.key.as_deref().map(hexadecimal), record.value.as_deref().unwrap_or_default());
    WireRecord { offset: None, key, value: hexadecimal(value), timestamp_ms: record.timestamp_ms }
}

/// The value of a record that is what was sent; otherwise what differs. Headers do not travel through drivers.
fn read(record: &WireRecord, queue: Queue) -> Result<Value, String> {
    let strange = || "key or value is not in hexadecimal digits".to_owned();
    let key = record.key.as_deref().map(|key| bytes_of(key).ok_or_else(strange)).transpose()?;
    let value = bytes_of(&record.value).ok_or_else(strange)?;
    let number = value.first_chunk::<8>().map_or(0, |word| u64::from_be_bytes(*word));
    let headers = payload::encode(Value(number), queue, record.timestamp_ms, value.len() as u32).headers;
    let record =
        Record { timestamp_ms: record.timestamp_ms, key: key.map(Into::into), value: Some(value.into()), headers };
    payload::check(&record, queue)
}

/// Adds a record to the last run where it continues it.
fn extend(runs: &mut Vec<Run>, queue: Queue, offset: i64, value: Value, timestamp_ms: i64) {
    match runs.last_mut() {
        Some(run)
            if run.first_offset + i64::from(run.count) == offset
                && run.first_value.0 + u64::from(run.count) == value.0 =>
        {
            run.count += 1;
        }
        Some(_) | None => {
            let (first_value, first_offset, first_timestamp_ms) = (value, offset, timestamp_ms);
            runs.push(Run { queue, first_value, count: 1, first_offset, first_timestamp_ms });
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
