//! Runs that the streaming check must pass and must fail: each case is what one queue's consumer saw of ten records.

use super::*;
use crate::payload::PayloadWriter;

const RUN: u64 = 9;

/// One client, one queue, ten records acknowledged at offsets 0 to 9; the consumer sees `seen` as (sequence, offset).
fn verdict_of(seen: &[(u64, i64)], unsettled: &[u64]) -> Verification {
    let mut ledger = Ledger::new(0, 1);
    for sequence in 0..10 {
        assert_eq!(ledger.send(0), sequence);
        if unsettled.contains(&sequence) {
            ledger.fail(0, sequence);
        } else {
            ledger.acknowledge(0, sequence, sequence as i64);
        }
    }
    let mut reader = Reader::new(RUN, 64, 1, 1);
    for &(sequence, offset) in seen {
        let stamp = Stamp { client: 0, queue: 0, sequence, intended_ns: 0, sent_ns: 0 };
        reader.read(0, offset, PayloadWriter::new(RUN, 64).write(stamp));
    }
    judge(&[ledger], &reader, &[seen.len() as i64], None)
}

fn in_order(sequences: impl IntoIterator<Item = u64>) -> Vec<(u64, i64)> {
    sequences.into_iter().zip(0..).collect()
}

#[test]
fn everything_read_once_in_order_is_valid() {
    let found = verdict_of(&in_order(0..10), &[]);
    assert_eq!((found.verdict, found.verified), (VerdictKind::Valid, 10), "{found:?}");
}

#[test]
fn each_fault_is_told_by_its_name() {
    let cases: &[(&str, Vec<(u64, i64)>)] = &[
        ("lost-write", in_order([0, 1, 2, 4, 5, 6, 7, 8, 9])),
        ("unseen", in_order(0..8)),
        ("duplicate", in_order([0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9])),
        ("nonmonotonic-send", in_order([0, 1, 3, 2, 4, 5, 6, 7, 8, 9])),
        ("poll-skip", (0..10).map(|value| (value, value as i64 + i64::from(value > 4))).collect()),
        ("nonmonotonic-poll", (0..10).map(|value| (value, value as i64 - i64::from(value > 4))).collect()),
        ("corrupt-payload", in_order(0..11)),
    ];
    for (anomaly, seen) in cases {
        let found = verdict_of(seen, &[]);
        assert_eq!(found.verdict, VerdictKind::Invalid, "{anomaly}: {found:?}");
        assert!(found.anomalies.contains_key(anomaly), "{anomaly}: {found:?}");
    }
    assert_eq!(verdict_of(&in_order([0, 1, 9]), &[]).anomalies, BTreeMap::from([("lost-write", 7)]));
}

#[test]
fn offsets_other_than_acknowledged_are_inconsistent() {
    let mut ledger = Ledger::new(0, 1);
    let mut reader = Reader::new(RUN, 64, 1, 1);
    for sequence in 0..3 {
        ledger.send(0);
        ledger.acknowledge(0, sequence, [0, 2, 1][sequence as usize]);
        let stamp = Stamp { client: 0, queue: 0, sequence, intended_ns: 0, sent_ns: 0 };
        reader.read(0, sequence as i64, PayloadWriter::new(RUN, 64).write(stamp));
    }
    let found = judge(&[ledger], &reader, &[3], None);
    assert_eq!(found.anomalies, BTreeMap::from([("inconsistent-offsets", 1)]));
}

#[test]
fn records_without_an_acknowledgement_may_be_there_or_not() {
    assert_eq!(verdict_of(&in_order([0, 1, 2, 4, 5, 6, 7, 8]), &[3, 9]).verdict, VerdictKind::Valid);
    assert_eq!(verdict_of(&in_order(0..10), &[3, 9]).verdict, VerdictKind::Valid);
    let found = verdict_of(&in_order([0, 1, 2, 4, 5, 6, 7, 8]), &[3]);
    assert_eq!(found.anomalies, BTreeMap::from([("unseen", 1)]));
}

#[test]
fn a_read_that_stopped_early_is_unknown_and_not_a_loss() {
    let mut ledger = Ledger::new(0, 1);
    ledger.send(0);
    ledger.acknowledge(0, 0, 0);
    let found = judge(&[ledger], &Reader::new(RUN, 64, 1, 1), &[1], Some("no answer".to_owned()));
    assert_eq!((found.verdict, found.verified), (VerdictKind::Unknown, 0));
}

#[test]
fn end_offsets_that_do_not_add_up_are_unknown() {
    let mut ledger = Ledger::new(0, 1);
    ledger.send(0);
    ledger.acknowledge(0, 0, 0);
    let mut reader = Reader::new(RUN, 64, 1, 1);
    let stamp = Stamp { client: 0, queue: 0, sequence: 0, intended_ns: 0, sent_ns: 0 };
    reader.read(0, 0, PayloadWriter::new(RUN, 64).write(stamp));
    assert_eq!(judge(&[ledger], &reader, &[2], None).verdict, VerdictKind::Unknown);
}

#[test]
fn a_gap_that_fills_late_leaves_the_rest_of_the_gap() {
    let found = verdict_of(&in_order([0, 6, 3]), &[]);
    // 1, 2, 4 and 5 lie in gaps; 3 came late; 7 to 9 were never seen.
    let expected = BTreeMap::from([("lost-write", 4), ("nonmonotonic-send", 1), ("unseen", 3)]);
    assert_eq!(found.anomalies, expected);
}
