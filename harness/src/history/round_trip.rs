//! Tests of both encodings: any history comes back as it was; what is cut, damaged or newer is told and never half read.

use std::io::Cursor;

use proptest::collection::vec;
use proptest::prelude::*;

use super::binary::{self, BinaryError};
use super::json::{self, JsonError};
use super::{
    Call, ClientId, CorruptRecord, GroupStep, Header, History, Mark, OffsetQuery, Operation, Outcome, Position, Queue,
    Run, SCHEMA_VERSION, SeekTarget, Value,
};

fn queue() -> impl Strategy<Value = Queue> {
    (0u32..5, any::<u32>()).prop_map(|(topic, partition)| Queue { topic, partition })
}

fn text() -> impl Strategy<Value = String> {
    "[a-z\"\\\\\n é]{0,12}"
}

fn run() -> impl Strategy<Value = Run> {
    (queue(), any::<u64>(), any::<u32>(), any::<i64>(), any::<i64>()).prop_map(
        |(queue, value, count, first_offset, first_timestamp_ms)| Run {
            queue,
            first_value: Value(value),
            count,
            first_offset,
            first_timestamp_ms,
        },
    )
}

fn produce() -> impl Strategy<Value = Call> {
    let settings = (any::<u32>(), -1i8..=1, any::<bool>());
    (queue(), any::<u64>(), vec(any::<i64>(), 0..5), any::<Option<i64>>(), settings).prop_map(
        |(queue, value, timestamps_ms, first_offset, (attempts, acks, idempotent))| Call::Produce {
            queue,
            first_value: Value(value),
            count: timestamps_ms.len() as u32,
            timestamps_ms,
            first_offset,
            attempts,
            acks,
            idempotent,
        },
    )
}

fn poll() -> impl Strategy<Value = Call> {
    let corrupt =
        (queue(), any::<i64>(), text()).prop_map(|(queue, offset, what)| CorruptRecord { queue, offset, what });
    let position = (queue(), any::<i64>()).prop_map(|(queue, offset)| Position { queue, offset });
    (vec(run(), 0..4), vec(corrupt, 0..3), vec(position, 0..3), any::<bool>())
        .prop_map(|(runs, corrupt, positions, is_final)| Call::Poll { runs, corrupt, positions, is_final })
}

fn call() -> impl Strategy<Value = Call> {
    let target = prop_oneof![
        Just(SeekTarget::Beginning),
        Just(SeekTarget::End),
        any::<i64>().prop_map(SeekTarget::Offset),
        any::<i64>().prop_map(SeekTarget::Timestamp),
    ];
    let query = prop_oneof![
        Just(OffsetQuery::Earliest),
        Just(OffsetQuery::Latest),
        any::<i64>().prop_map(OffsetQuery::Timestamp)
    ];
    let answer = any::<Option<i64>>;
    prop_oneof![
        produce(),
        poll(),
        (queue(), target, answer()).prop_map(|(queue, to, offset)| Call::Seek { queue, to, offset }),
        (queue(), query, answer(), answer()).prop_map(|(queue, query, offset, timestamp_ms)| Call::ListOffset {
            queue,
            query,
            offset,
            timestamp_ms
        }),
        (queue(), any::<i64>(), answer()).prop_map(|(queue, before, low_watermark)| Call::DeleteRecords {
            queue,
            before,
            low_watermark
        }),
        any::<u32>().prop_map(|topic| Call::CreateTopic { topic }),
        (any::<u32>(), text(), any::<i32>(), step()).prop_map(|(group, member, generation, step)| Call::Group {
            group,
            member,
            generation,
            step
        }),
    ]
}

fn step() -> impl Strategy<Value = GroupStep> {
    let positions = || vec((queue(), any::<i64>()).prop_map(|(queue, offset)| Position { queue, offset }), 0..3);
    prop_oneof![
        vec(queue(), 0..3).prop_map(|queues| GroupStep::Own { queues }),
        vec(queue(), 0..3).prop_map(|queues| GroupStep::Release { queues }),
        positions().prop_map(|offsets| GroupStep::Commit { offsets }),
        positions().prop_map(|offsets| GroupStep::FetchOffsets { offsets }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let outcome =
        prop_oneof![Just(Outcome::Done), text().prop_map(Outcome::Refused), text().prop_map(Outcome::Unknown)];
    (any::<u32>(), any::<u64>(), any::<u64>(), outcome, call()).prop_map(
        |(client, invoked_us, completed_us, outcome, call)| Operation {
            client: ClientId(client),
            invoked_us,
            completed_us,
            outcome,
            call,
        },
    )
}

fn mark() -> impl Strategy<Value = Mark> {
    prop_oneof![
        (any::<u64>(), text(), any::<u32>(), vec(any::<u32>(), 0..3))
            .prop_map(|(at_us, class, fault, nodes)| Mark::Fault { at_us, class, fault, nodes }),
        (any::<u64>(), any::<u32>(), text(), any::<bool>())
            .prop_map(|(at_us, node, reason, declared)| Mark::NodeExit { at_us, node, reason, declared }),
        any::<u64>().prop_map(|at_us| Mark::LivenessBegan { at_us }),
        (any::<u64>(), any::<bool>(), vec(text(), 0..3)).prop_map(|(at_us, reached, missing)| Mark::LivenessEnded {
            at_us,
            reached,
            missing
        }),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let header =
        (vec(text(), 0..3), text()).prop_map(|(topics, title)| Header { schema: SCHEMA_VERSION, topics, title });
    (header, vec(operation(), 0..12), vec(mark(), 0..6)).prop_map(|(header, operations, marks)| History {
        header,
        operations,
        marks,
    })
}

fn encoded(history: &History) -> Vec<u8> {
    let mut bytes = Vec::new();
    binary::write(history, &mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn a_history_comes_back_from_either_encoding(history in history()) {
        prop_assert_eq!(&binary::read(Cursor::new(encoded(&history))).unwrap(), &history);
        let mut lines = Vec::new();
        json::write(&history, &mut lines).unwrap();
        prop_assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1 + history.operations.len() + history.marks.len());
        prop_assert_eq!(json::read(Cursor::new(lines)).unwrap(), history);
    }

    #[test]
    fn a_binary_history_that_is_cut_or_altered_is_never_taken_for_a_whole_one(
        history in history(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..=255,
    ) {
        let bytes = encoded(&history);
        let at = at.index(bytes.len());
        prop_assert!(binary::read(Cursor::new(&bytes[..at])).is_err());
        let mut altered = bytes.clone();
        altered[at] ^= flip;
        prop_assert!(binary::read(Cursor::new(altered)).is_err());
    }

    #[test]
    fn random_bytes_end_in_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let mut framed = binary::MAGIC.to_vec();
        framed.extend_from_slice(&SCHEMA_VERSION.to_le_bytes());
        framed.extend_from_slice(&bytes);
        prop_assert!(binary::read(Cursor::new(bytes)).is_err());
        prop_assert!(binary::read(Cursor::new(framed)).is_err());
    }
}

fn small() -> History {
    let operations = (0..5_000u64)
        .map(|index| Operation {
            client: ClientId(1),
            invoked_us: index * 10,
            completed_us: index * 10 + 7,
            outcome: Outcome::Done,
            call: Call::Poll {
                runs: vec![Run {
                    queue: Queue { topic: 0, partition: 1 },
                    first_value: Value(index * 100),
                    count: 100,
                    first_offset: index as i64 * 100,
                    first_timestamp_ms: 1_700_000_000_000,
                }],
                corrupt: Vec::new(),
                positions: Vec::new(),
                is_final: false,
            },
        })
        .collect();
    let header = Header { schema: SCHEMA_VERSION, topics: vec!["t".to_owned()], title: "small".to_owned() };
    History { header, operations, marks: Vec::new() }
}

#[test]
fn several_blocks_are_read_in_order_and_cost_few_bytes() {
    let history = small();
    let bytes = encoded(&history);
    assert_eq!(binary::read(Cursor::new(&bytes)).unwrap(), history);
    let per_operation = bytes.len() / history.operations.len();
    assert!(per_operation < 40, "{per_operation} bytes per poll of one run");
    assert!(bytes.len() > 100_000, "one block would not show that several are read in order");
}

#[test]
fn newer_and_foreign_files_are_told_apart() {
    let mut newer = encoded(&small());
    newer[8] = 99;
    assert!(matches!(binary::read(Cursor::new(newer)), Err(BinaryError::Newer { found: 99 })));
    assert!(matches!(binary::read(Cursor::new(b"{\"schema\":1}")), Err(BinaryError::Foreign)));
    let line = "{\"schema\":99,\"topics\":[],\"title\":\"\"}\n";
    assert!(matches!(json::read(Cursor::new(line)), Err(JsonError::Newer { found: 99 })));
    assert!(matches!(json::read(Cursor::new("")), Err(JsonError::Empty)));
    let cut = format!("{}{{\"client\":1,\"invo", line.replace("99", "1"));
    assert!(matches!(json::read(Cursor::new(cut)), Err(JsonError::Malformed { line: 2, .. })));
}
