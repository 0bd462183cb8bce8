//! Imports of small outputs, and what the judge says of them.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::artifact::VerdictKind;
use crate::check::{Context, TopicContext, judge};

const ASSUMED: Assumed = Assumed { acks: -1, idempotent: false, attempts: 1, has_read_all: true };

/// A folder with the outputs of producers and consumers.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        Case { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, lines: &[String]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        path
    }
}

fn started(at: i64) -> String {
    format!(r#"{{"timestamp":{at},"name":"startup_complete"}}"#)
}

fn acknowledged(at: i64, value: &str, partition: u32, offset: i64) -> String {
    format!(
        r#"{{"timestamp":{at},"name":"producer_send_success","key":null,"value":"{value}","topic":"t","partition":{partition},"offset":{offset}}}"#
    )
}

fn failed(at: i64, value: &str) -> String {
    format!(
        r#"{{"timestamp":{at},"name":"producer_send_error","key":null,"value":"{value}","topic":"t","exception":"class org.apache.kafka.common.errors.TimeoutException","message":"expired"}}"#
    )
}

fn assigned(at: i64) -> String {
    format!(r#"{{"timestamp":{at},"name":"partitions_assigned","partitions":[{{"topic":"t","partition":0}}]}}"#)
}

/// The lines of one poll.
fn polled(at: i64, records: &[(&str, i64)]) -> Vec<String> {
    let record = |(value, offset): &(&str, i64)| {
        format!(
            r#"{{"timestamp":{at},"name":"record_data","key":null,"value":"{value}","topic":"t","partition":0,"offset":{offset}}}"#
        )
    };
    let (count, first, last) = (records.len(), records[0].1, records[records.len() - 1].1);
    let summary = format!(
        r#"{{"timestamp":{at},"name":"records_consumed","count":{count},"partitions":[{{"topic":"t","partition":0,"count":{count},"minOffset":{first},"maxOffset":{last}}}]}}"#
    );
    records.iter().map(record).chain([summary]).collect()
}

fn verdict(producer: &[String], consumer: &[String], assumed: Assumed) -> (VerdictKind, Vec<&'static str>) {
    let case = Case::new();
    let history = import(&[case.file("producer", producer)], &[case.file("consumer", consumer)], assumed).unwrap();
    let topic = TopicContext { has_create_time: false, ..TopicContext::default() };
    let verdict = judge(&history, &Context::of_topics(vec![topic], 1 << 20));
    (verdict.kind, verdict.findings.iter().map(|finding| finding.anomaly.name()).collect())
}

fn producer() -> Vec<String> {
    (0..4).map(|n| acknowledged(1_010 + n, &n.to_string(), 0, n)).fold(vec![started(1_000)], |mut lines, line| {
        lines.push(line);
        lines
    })
}

#[test]
fn a_clean_run_is_valid_also_across_a_rebalance_and_a_send_that_failed() {
    let mut sends = producer();
    sends.insert(3, failed(1_012, "7"));
    sends.insert(4, failed(1_012, "8"));
    let mut reads = vec!["log4j: a line of another's".to_owned(), started(1_000), assigned(1_001)];
    reads.extend(polled(2_000, &[("0", 0), ("1", 1), ("2", 2)]));
    // The group goes back to what was committed; the value 7, which timed out, did arrive.
    reads.push(assigned(2_100));
    reads.extend(polled(2_200, &[("1", 1), ("2", 2), ("3", 3), ("7", 4)]));
    assert_eq!(verdict(&sends, &reads, ASSUMED), (VerdictKind::Valid, vec![]));
}

#[test]
fn a_record_that_was_acknowledged_and_not_read_is_lost_and_unseen() {
    let mut reads = vec![started(1_000), assigned(1_001)];
    reads.extend(polled(2_000, &[("0", 0), ("1", 1), ("3", 3)]));
    let found = verdict(&producer(), &reads, ASSUMED);
    assert_eq!(found, (VerdictKind::Invalid, vec!["lost-write", "unseen", "poll-skip"]));
    // At the end nobody can say whether the consumer would have got it, unless it read everything.
    let mut reads = vec![started(1_000), assigned(1_001)];
    reads.extend(polled(2_000, &[("0", 0), ("1", 1), ("2", 2)]));
    assert_eq!(verdict(&producer(), &reads, ASSUMED), (VerdictKind::Invalid, vec!["unseen"]));
    let partly = Assumed { has_read_all: false, ..ASSUMED };
    assert_eq!(verdict(&producer(), &reads, partly), (VerdictKind::Valid, vec![]));
}

#[test]
fn a_record_twice_in_the_log_is_a_duplicate_and_allowed_where_producers_retry() {
    let mut reads = vec![started(1_000), assigned(1_001)];
    reads.extend(polled(2_000, &[("0", 0), ("1", 1), ("2", 2), ("3", 3), ("3", 4)]));
    assert_eq!(verdict(&producer(), &reads, ASSUMED), (VerdictKind::Invalid, vec!["duplicate"]));
    let retrying = Assumed { attempts: 3, ..ASSUMED };
    assert_eq!(verdict(&producer(), &reads, retrying), (VerdictKind::Valid, vec!["duplicate"]));
}

#[test]
fn a_poll_that_goes_back_without_a_rebalance_is_found() {
    let mut reads = vec![started(1_000), assigned(1_001)];
    reads.extend(polled(2_000, &[("0", 0), ("1", 1), ("2", 2), ("3", 3)]));
    reads.extend(polled(2_100, &[("2", 2)]));
    assert_eq!(verdict(&producer(), &reads, ASSUMED), (VerdictKind::Invalid, vec!["nonmonotonic-poll"]));
}

#[test]
fn files_that_cannot_be_judged_are_refused_with_what_to_do() {
    let case = Case::new();
    let sends = case.file("producer", &producer());
    let again = case.file("again", &producer());
    let refused = |producers: &[PathBuf], consumers: &[PathBuf]| import(producers, consumers, ASSUMED).unwrap_err();
    assert!(matches!(refused(&[sends.clone(), again], &[]), ImportError::SameValue { line: 2, .. }));
    let quiet = polled(2_000, &[("0", 0)]).split_off(1);
    let quiet = refused(std::slice::from_ref(&sends), &[case.file("quiet", &quiet)]);
    assert!(quiet.to_string().contains("--verbose"), "{quiet}");
    let strange = refused(&[case.file("strange", &[acknowledged(1, "seven", 0, 0)])], &[]);
    assert!(matches!(strange, ImportError::Malformed { line: 1, .. }), "{strange}");
    assert!(matches!(refused(&[case.file("empty", &[])], &[]), ImportError::Empty { .. }));
    assert!(matches!(refused(&[case.folder.path().join("none")], &[]), ImportError::Io { .. }));
}

#[test]
fn a_last_line_cut_off_by_a_kill_is_passed_over() {
    let case = Case::new();
    let path = case.file("producer", &producer());
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str(r#"{"timestamp":1020,"name":"producer_se"#);
    fs::write(&path, text).unwrap();
    assert_eq!(import(&[path], &[], Assumed { has_read_all: false, ..ASSUMED }).unwrap().operations.len(), 4);
}
