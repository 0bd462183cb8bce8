//! Small histories for the tests of the checkers, written operation by operation; and the checks shared by them.
//! Each operation takes place at its own time, in the order written, unless it says otherwise.

use std::collections::BTreeMap;

use super::{Context, TopicContext, judge};
use crate::artifact::VerdictKind;
use crate::guarantee::Flush;
use crate::history::{
    Call, ClientId, CorruptRecord, Header, History, Mark, OffsetQuery, Operation, Outcome, Position, Queue, Run,
    SCHEMA_VERSION, SeekTarget, Value,
};

/// The queue of every sample.
pub(super) const QUEUE: Queue = Queue { topic: 0, partition: 0 };

/// Writes a history.
pub(super) struct Sample {
    pub(super) history: History,
    pub(super) context: Context,
    now_us: u64,
    idempotent: bool,
    attempts: u32,
}

impl Sample {
    /// No operation yet, `flush=ack`, an idempotent producer, one attempt.
    pub(super) fn new() -> Sample {
        let header = Header { schema: SCHEMA_VERSION, topics: vec!["events".to_owned()], title: "sample".to_owned() };
        Sample {
            history: History { header, operations: Vec::new(), marks: Vec::new() },
            context: Context::of_topics(vec![TopicContext::default()], 1_000),
            now_us: 0,
            idempotent: true,
            attempts: 1,
        }
    }

    /// Sets the flush of the topic.
    pub(super) fn flush(mut self, flush: Flush) -> Sample {
        self.context.topics[0].flush = flush;
        self
    }

    /// The sends that follow come from a plain producer and take so many attempts.
    pub(super) fn plain(mut self, attempts: u32) -> Sample {
        (self.idempotent, self.attempts) = (false, attempts);
        self
    }

    /// The sends that follow come from an idempotent producer and take so many attempts.
    pub(super) fn idempotent(mut self, attempts: u32) -> Sample {
        (self.idempotent, self.attempts) = (true, attempts);
        self
    }

    /// A send of client 0 with the outcome; record n has timestamp 1,000 + n.
    pub(super) fn send(self, sequence: u64, count: u32, outcome: Outcome, offset: Option<i64>) -> Sample {
        let timestamps_ms = (sequence..sequence + u64::from(count)).map(timestamp_of).collect();
        let call = Call::Produce {
            queue: QUEUE,
            first_value: Value::new(ClientId(0), sequence),
            count,
            timestamps_ms,
            first_offset: offset,
            attempts: self.attempts,
            acks: -1,
            idempotent: self.idempotent,
        };
        self.push(0, outcome, call)
    }

    /// An acknowledged send of client 0.
    pub(super) fn sent(self, sequence: u64, count: u32, offset: i64) -> Sample {
        self.send(sequence, count, Outcome::Done, Some(offset))
    }

    /// A send of client 0 whose outcome is unknown.
    pub(super) fn unknown(self, sequence: u64, count: u32) -> Sample {
        self.send(sequence, count, Outcome::Unknown("time-out".to_owned()), None)
    }

    /// A poll of client 9 from the position: runs of (sequence, count, offset), all of client 0.
    pub(super) fn poll(self, position: i64, runs: &[(u64, u32, i64)]) -> Sample {
        self.read(9, position, runs, false)
    }

    /// A poll of a client from the position.
    pub(super) fn polled_by(self, client: u32, position: i64, runs: &[(u64, u32, i64)]) -> Sample {
        self.read(client, position, runs, false)
    }

    /// A final poll.
    pub(super) fn last(self, position: i64, runs: &[(u64, u32, i64)]) -> Sample {
        self.read(99, position, runs, true)
    }

    fn read(self, client: u32, position: i64, runs: &[(u64, u32, i64)], is_final: bool) -> Sample {
        let runs = runs.iter().map(|(sequence, count, offset)| run(*sequence, *count, *offset)).collect();
        let positions = vec![Position { queue: QUEUE, offset: position }];
        self.push(client, Outcome::Done, Call::Poll { runs, corrupt: Vec::new(), positions, is_final })
    }

    /// A poll that delivered an altered record.
    pub(super) fn corrupt(self, offset: i64) -> Sample {
        let corrupt = vec![CorruptRecord { queue: QUEUE, offset, what: "value differs".to_owned() }];
        let positions = vec![Position { queue: QUEUE, offset }];
        self.push(9, Outcome::Done, Call::Poll { runs: Vec::new(), corrupt, positions, is_final: false })
    }

    /// A seek of client 9.
    pub(super) fn seek(self, to: SeekTarget, offset: i64) -> Sample {
        self.push(9, Outcome::Done, Call::Seek { queue: QUEUE, to, offset: Some(offset) })
    }

    /// A ListOffsets and its answer.
    pub(super) fn list(self, query: OffsetQuery, offset: i64, timestamp_ms: i64) -> Sample {
        let (offset, timestamp_ms) = (Some(offset), Some(timestamp_ms));
        self.push(9, Outcome::Done, Call::ListOffset { queue: QUEUE, query, offset, timestamp_ms })
    }

    /// A DeleteRecords that was answered.
    pub(super) fn delete(self, before: i64) -> Sample {
        let call = Call::DeleteRecords { queue: QUEUE, before, low_watermark: Some(before) };
        self.push(9, Outcome::Done, call)
    }

    /// A DeleteRecords whose answer got lost.
    pub(super) fn delete_unknown(self, before: i64) -> Sample {
        let call = Call::DeleteRecords { queue: QUEUE, before, low_watermark: None };
        self.push(9, Outcome::Unknown("time-out".to_owned()), call)
    }

    /// A fault of the class strikes.
    pub(super) fn fault(self, class: &str) -> Sample {
        self.strike(class, &[0])
    }

    /// Time passes.
    pub(super) fn after_us(mut self, us: u64) -> Sample {
        self.now_us += us;
        self
    }

    /// A fault of the class strikes these nodes.
    pub(super) fn strike(mut self, class: &str, nodes: &[u32]) -> Sample {
        self.now_us += 1_000;
        let (class, nodes) = (class.to_owned(), nodes.to_vec());
        self.history.marks.push(Mark::Fault { at_us: self.now_us, class, fault: 0, nodes });
        self
    }

    /// Any other mark.
    pub(super) fn mark(mut self, mark: Mark) -> Sample {
        self.history.marks.push(mark);
        self
    }

    /// The last operation was invoked before the one before it completed.
    pub(super) fn overlapping(mut self) -> Sample {
        let last = self.history.operations.last_mut().expect("an operation was written before");
        last.invoked_us -= 1_600;
        self
    }

    /// An operation of a client.
    pub(super) fn push_for(self, client: u32, outcome: Outcome, call: Call) -> Sample {
        self.push(client, outcome, call)
    }

    fn push(mut self, client: u32, outcome: Outcome, call: Call) -> Sample {
        self.now_us += 1_000;
        let (invoked_us, completed_us) = (self.now_us, self.now_us + 500);
        self.history.operations.push(Operation { client: ClientId(client), invoked_us, completed_us, outcome, call });
        self
    }

    /// Asserts which anomalies are violations and which are allowed, with their counts.
    #[track_caller]
    pub(super) fn expect(&self, violations: &[(&str, u64)], allowed: &[(&str, u64)]) {
        let verdict = judge(&self.history, &self.context);
        let map = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
            pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        assert_eq!(verdict.violations(), map(violations), "violations of {verdict:#?}");
        assert_eq!(verdict.allowed(), map(allowed), "allowed of {verdict:#?}");
        let kind = if violations.is_empty() { VerdictKind::Valid } else { VerdictKind::Invalid };
        assert_eq!(verdict.kind, kind, "{verdict:#?}");
        for finding in &verdict.findings {
            assert!(!finding.evidence.is_empty(), "{} has no evidence", finding.anomaly);
        }
    }

    /// Asserts a clean verdict.
    #[track_caller]
    pub(super) fn expect_clean(&self) {
        self.expect(&[], &[]);
    }
}

/// The timestamp of a record in the samples.
pub(super) fn timestamp_of(sequence: u64) -> i64 {
    1_000 + sequence as i64
}

/// A run of client 0's records.
pub(super) fn run(sequence: u64, count: u32, offset: i64) -> Run {
    Run {
        queue: QUEUE,
        first_value: Value::new(ClientId(0), sequence),
        count,
        first_offset: offset,
        first_timestamp_ms: timestamp_of(sequence),
    }
}
