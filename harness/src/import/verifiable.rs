//! A history from what Kafka's VerifiableProducer and VerifiableConsumer print. Start at `import`.
//! What the tools do not tell, and what follows: when a send or a poll was called (taken as early as possible), where a
//! failed record would have gone (left out unless somebody read it), the records' timestamps (not checked), how often a
//! record was sent (the caller says). The machines' clocks must agree to the accuracy wanted of lost-write.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::lines::{self, Event, Line, Output, Partition};
use crate::history::{
    Call, ClientId, Header, History, Operation, Outcome, Position, Queue, Run, SCHEMA_VERSION, SeekTarget, Value,
};

/// Producers and consumers of one import at most.
pub const CLIENTS_MAXIMUM: usize = 10_000;

/// What the tools' output does not tell about the producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumed {
    /// `acks`: -1 all, 1 leader, 0 none.
    pub acks: i8,
    /// Whether the producers were idempotent.
    pub idempotent: bool,
    /// Sends of one record at most; 1 where the producers did not retry, which is the tool's default.
    pub attempts: u32,
    /// Whether the consumers together read everything to the end after the producers had ended.
    pub has_read_all: bool,
}

/// Why the files give no history.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check the path")]
    Io {
        /// The file's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file without any event.
    #[error("{path} has no line of VerifiableProducer or VerifiableConsumer: name their standard output")]
    Empty {
        /// The file's path.
        path: PathBuf,
    },
    /// A line that the tools do not print.
    #[error("line {line} of {path} is not as VerifiableProducer and VerifiableConsumer print it: {reason}")]
    Malformed {
        /// The file's path.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A consumer that printed summaries only.
    #[error("{path} counts the records of a poll and does not show them: run VerifiableConsumer with --verbose")]
    NotVerbose {
        /// The file's path.
        path: PathBuf,
    },
    /// Two producers sent the same value.
    #[error(
        "{path} line {line}: value {value} was sent before; give each VerifiableProducer a --value-prefix of its own"
    )]
    SameValue {
        /// The file's path.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The value.
        value: String,
    },
    /// More files than clients that a history is to have.
    #[error("{count} files at once are too many, the bound is {CLIENTS_MAXIMUM}: judge them in parts")]
    TooMany {
        /// Files named.
        count: usize,
    },
}

/// A value as the tools write it: the producer's prefix, if any, and its count of records.
type Sent = (Option<u64>, u64);

/// Makes one history of the output of any number of producers and consumers.
pub fn import(producers: &[PathBuf], consumers: &[PathBuf], assumed: Assumed) -> Result<History, ImportError> {
    let count = producers.len() + consumers.len();
    if count > CLIENTS_MAXIMUM {
        return Err(ImportError::TooMany { count });
    }
    let read = |paths: &[PathBuf]| paths.iter().map(|path| lines::read(path)).collect::<Result<Vec<_>, _>>();
    let (producers, consumers) = (read(producers)?, read(consumers)?);
    let mut import = Import::of(&producers, &consumers, assumed)?;
    for output in &consumers {
        import.consumer(output)?;
    }
    for output in &producers {
        import.producer(output)?;
    }
    import.unreported();
    if assumed.has_read_all {
        import.read_all();
    }
    Ok(import.finish())
}

/// The import so far.
struct Import {
    assumed: Assumed,
    began_ms: i64,
    ended_ms: i64,
    topics: Vec<String>,
    /// Producing clients, by prefix.
    clients: BTreeMap<Option<u64>, ClientId>,
    consumers: u32,
    /// Where values were read.
    read: BTreeMap<Sent, BTreeSet<Queue>>,
    /// Values of which a producer told.
    told: BTreeSet<Sent>,
    /// What was read last, by queue and offset.
    latest: BTreeMap<(Queue, i64), Value>,
    operations: Vec<Operation>,
}

impl Import {
    /// Names topics and clients.
    fn of(producers: &[Output], consumers: &[Output], assumed: Assumed) -> Result<Import, ImportError> {
        let (mut topics, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        let (mut began_ms, mut ended_ms) = (i64::MAX, i64::MIN);
        for output in producers.iter().chain(consumers) {
            for line in &output.lines {
                began_ms = began_ms.min(line.timestamp);
                ended_ms = ended_ms.max(line.timestamp);
                match &line.event {
                    Event::ProducerSendSuccess { topic, value, .. } | Event::RecordData { topic, value, .. } => {
                        topics.insert(topic.clone());
                        prefixes.insert(sent(output, line, value)?.0);
                    }
                    Event::ProducerSendError { value, .. } => {
                        prefixes.insert(sent(output, line, value)?.0);
                    }
                    Event::PartitionsAssigned { partitions } => {
                        topics.extend(partitions.iter().map(|partition| partition.topic.clone()));
                    }
                    Event::RecordsConsumed { .. } | Event::Other => {}
                }
            }
        }
        let clients = prefixes.into_iter().zip((0..).map(ClientId)).collect();
        Ok(Import {
            assumed,
            began_ms,
            ended_ms,
            topics: topics.into_iter().collect(),
            clients,
            consumers: 0,
            read: BTreeMap::new(),
            told: BTreeSet::new(),
            latest: BTreeMap::new(),
            operations: Vec::new(),
        })
    }

    /// Polls, and seeks where the group assigned partitions anew.
    fn consumer(&mut self, output: &Output) -> Result<(), ImportError> {
        let client = ClientId(self.clients.len() as u32 + self.consumers);
        self.consumers += 1;
        // Where the consumer goes on, by queue; nothing after an assignment, which goes back to what was committed.
        let mut due: BTreeMap<Queue, i64> = BTreeMap::new();
        let mut delivered: Vec<(Queue, i64, Value)> = Vec::new();
        let mut since_ms = output.lines.first().map_or(self.began_ms, |line| line.timestamp);
        for line in &output.lines {
            match &line.event {
                Event::RecordData { topic, partition, offset, value } => {
                    let queue = self.queue(topic, *partition);
                    let sent = sent(output, line, value)?;
                    self.read.entry(sent).or_default().insert(queue);
                    delivered.push((queue, *offset, self.value(sent)));
                }
                Event::RecordsConsumed { partitions } => {
                    if delivered.is_empty() && partitions.iter().any(|consumed| consumed.count > 0) {
                        return Err(ImportError::NotVerbose { path: output.path.clone() });
                    }
                    self.poll(client, (since_ms, line.timestamp), &delivered, &mut due);
                    delivered.clear();
                    since_ms = line.timestamp;
                }
                Event::PartitionsAssigned { partitions } => {
                    for Partition { topic, partition } in partitions {
                        due.remove(&self.queue(topic, *partition));
                    }
                }
                Event::ProducerSendSuccess { .. } | Event::ProducerSendError { .. } | Event::Other => {}
            }
        }
        // Records of a poll whose summary a kill cut off were delivered all the same.
        self.poll(client, (since_ms, self.ended_ms), &delivered, &mut due);
        Ok(())
    }

    fn poll(
        &mut self,
        client: ClientId,
        (since_ms, until_ms): (i64, i64),
        delivered: &[(Queue, i64, Value)],
        due: &mut BTreeMap<Queue, i64>,
    ) {
        if delivered.is_empty() {
            return;
        }
        let mut positions: BTreeMap<Queue, i64> = BTreeMap::new();
        let mut runs: Vec<Run> = Vec::new();
        for (queue, offset, value) in delivered {
            self.latest.insert((*queue, *offset), *value);
            if !due.contains_key(queue) {
                let call = Call::Seek { queue: *queue, to: SeekTarget::Offset(*offset), offset: Some(*offset) };
                self.add(client, (since_ms, since_ms), Outcome::Done, call);
                due.insert(*queue, *offset);
            }
            positions.entry(*queue).or_insert(due[queue]);
            due.insert(*queue, offset + 1);
            extend(&mut runs, *queue, *offset, *value);
        }
        let positions = positions.into_iter().map(|(queue, offset)| Position { queue, offset }).collect();
        let call = Call::Poll { runs, corrupt: Vec::new(), positions, is_final: false };
        self.add(client, (since_ms, until_ms), Outcome::Done, call);
    }

    /// Sends of which a producer told.
    fn producer(&mut self, output: &Output) -> Result<(), ImportError> {
        let began_ms = output.lines.first().map_or(self.began_ms, |line| line.timestamp);
        for line in &output.lines {
            let text = match &line.event {
                Event::ProducerSendSuccess { value, .. } | Event::ProducerSendError { value, .. } => value,
                Event::RecordData { .. }
                | Event::RecordsConsumed { .. }
                | Event::PartitionsAssigned { .. }
                | Event::Other => continue,
            };
            let sent = sent(output, line, text)?;
            if !self.told.insert(sent) {
                let (path, value) = (output.path.clone(), text.clone());
                return Err(ImportError::SameValue { path, line: line.number, value });
            }
            match &line.event {
                Event::ProducerSendSuccess { topic, partition, offset, .. } => {
                    let queue = self.queue(topic, *partition);
                    // With acks=0 the client makes up an offset of -1, and nothing is known.
                    let (outcome, offset) = match self.assumed.acks {
                        0 => (Outcome::Unknown("acks=0".to_owned()), None),
                        _ => (Outcome::Done, Some(*offset)),
                    };
                    self.send(sent, queue, (began_ms, line.timestamp), outcome, offset);
                }
                Event::ProducerSendError { exception, message, .. } => {
                    let why = message.clone().unwrap_or_else(|| exception.clone());
                    for queue in self.read.get(&sent).cloned().unwrap_or_default() {
                        let outcome = Outcome::Unknown(why.clone());
                        self.send(sent, queue, (began_ms, line.timestamp), outcome, None);
                    }
                }
                Event::RecordData { .. }
                | Event::RecordsConsumed { .. }
                | Event::PartitionsAssigned { .. }
                | Event::Other => {}
            }
        }
        Ok(())
    }

    /// Values that were read and of which no producer told: it was killed, or its output is not at hand.
    fn unreported(&mut self) {
        for (sent, queues) in self.read.clone() {
            if self.told.contains(&sent) {
                continue;
            }
            for queue in queues {
                let outcome = Outcome::Unknown("its producer did not tell".to_owned());
                self.send(sent, queue, (self.began_ms, self.ended_ms), outcome, None);
            }
        }
    }

    fn send(&mut self, sent: Sent, queue: Queue, span_ms: (i64, i64), outcome: Outcome, offset: Option<i64>) {
        let Assumed { acks, idempotent, attempts, .. } = self.assumed;
        let call = Call::Produce {
            queue,
            first_value: self.value(sent),
            count: 1,
            timestamps_ms: vec![0],
            first_offset: offset,
            attempts,
            acks,
            idempotent,
        };
        self.add(self.clients[&sent.0], span_ms, outcome, call);
    }

    /// One more reader that delivers, queue by queue, everything that any consumer got, as the final reads.
    fn read_all(&mut self) {
        let client = ClientId(self.clients.len() as u32 + self.consumers);
        let mut runs_of: BTreeMap<Queue, Vec<Run>> = BTreeMap::new();
        for operation in &self.operations {
            match &operation.call {
                Call::Produce { queue, .. } => {
                    runs_of.entry(*queue).or_default();
                }
                Call::Poll { .. }
                | Call::Seek { .. }
                | Call::ListOffset { .. }
                | Call::DeleteRecords { .. }
                | Call::Group { .. }
                | Call::CreateTopic { .. } => {}
            }
        }
        for ((queue, offset), value) in &self.latest {
            extend(runs_of.entry(*queue).or_default(), *queue, *offset, *value);
        }
        for (queue, runs) in runs_of {
            let positions = vec![Position { queue, offset: 0 }];
            let call = Call::Poll { runs, corrupt: Vec::new(), positions, is_final: true };
            self.add(client, (self.ended_ms + 1, self.ended_ms + 1), Outcome::Done, call);
        }
    }

    fn add(&mut self, client: ClientId, (since_ms, until_ms): (i64, i64), outcome: Outcome, call: Call) {
        let micros = |at_ms: i64| at_ms.saturating_sub(self.began_ms).unsigned_abs().saturating_mul(1_000);
        let invoked_us = micros(since_ms);
        let completed_us = micros(until_ms).max(invoked_us);
        self.operations.push(Operation { client, invoked_us, completed_us, outcome, call });
    }

    fn queue(&self, topic: &str, partition: u32) -> Queue {
        let index = self.topics.binary_search_by(|known| known.as_str().cmp(topic));
        let index = index.expect("every topic of every line was collected before");
        Queue { topic: index as u32, partition }
    }

    fn value(&self, (prefix, number): Sent) -> Value {
        Value::new(self.clients[&prefix], number)
    }

    fn finish(mut self) -> History {
        self.operations.sort_by_key(|operation| operation.completed_us);
        let title = "import of VerifiableProducer and VerifiableConsumer".to_owned();
        let header = Header { schema: SCHEMA_VERSION, topics: self.topics, title };
        History { header, operations: self.operations, marks: Vec::new() }
    }
}

/// Adds a record to the last run where it continues it.
fn extend(runs: &mut Vec<Run>, queue: Queue, offset: i64, value: Value) {
    match runs.last_mut() {
        Some(run)
            if run.queue == queue
                && run.first_offset + i64::from(run.count) == offset
                && run.first_value.0 + u64::from(run.count) == value.0 =>
        {
            run.count += 1;
        }
        Some(_) | None => {
            runs.push(Run { queue, first_value: value, count: 1, first_offset: offset, first_timestamp_ms: 0 });
        }
    }
}

/// `number` or `prefix.number`.
fn sent(output: &Output, line: &Line, text: &str) -> Result<Sent, ImportError> {
    let parsed = match text.split_once('.') {
        Some((prefix, number)) => prefix.parse().ok().zip(number.parse().ok()).map(|(p, n)| (Some(p), n)),
        None => text.parse().ok().map(|number| (None, number)),
    };
    parsed.filter(|(_, number)| *number < 1 << 40).ok_or_else(|| ImportError::Malformed {
        path: output.path.clone(),
        line: line.number,
        reason: format!("the value {text:?} is no number of VerifiableProducer"),
    })
}

#[cfg(test)]
#[path = "verifiable_tests.rs"]
mod tests;
