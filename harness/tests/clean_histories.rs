//! Laws of the judge over random histories of a model broker that keeps its promises: none is ever blamed, and an anomaly
//! planted into one is found under its name.

mod model;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::check::{Context, judge};
use mqassay_harness::history::{
    Call, ClientId, CorruptRecord, History, Mark, OffsetQuery, Operation, Outcome, Queue, Run, Value,
};
use proptest::prelude::*;

use model::{Model, READER, queue};

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn a_broker_that_keeps_its_promises_is_never_blamed(seed in any::<u64>(), is_strict in any::<bool>()) {
        let (history, context) = Model::run(seed, is_strict);
        let verdict = judge(&history, &context);
        let blamed: Vec<_> = verdict.findings.iter().filter(|finding| finding.allowed.is_none()).collect();
        prop_assert_eq!(verdict.kind, VerdictKind::Valid, "seed {}: {:#?} {:?}", seed, blamed, verdict.unjudged);
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn a_planted_anomaly_is_found_under_its_name(seed in any::<u64>(), which in any::<usize>()) {
        let (clean, context) = Model::run(seed, true);
        for (name, plant) in PLANTS {
            let mut history = clean.clone();
            if plant(&mut history, which) {
                let violations = judge(&history, &context).violations();
                prop_assert!(violations.contains_key(*name), "seed {}: {} not in {:?}", seed, name, violations);
            }
        }
    }
}

/// A failing seed is told, and belongs into a test of its own; no file is kept beside the tests.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() }
}

#[test]
fn model_histories_have_what_the_laws_are_about() {
    let mut seen = std::collections::BTreeSet::new();
    let mut planted = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (history, context) = Model::run(seed, false);
        seen.extend(judge(&history, &context).allowed().into_keys());
        seen.extend(history.operations.iter().map(|operation| outcome_of(operation).to_owned()));
        let (strict, _) = Model::run(seed, true);
        for (name, plant) in PLANTS {
            if plant(&mut strict.clone(), seed_index(seed)) {
                planted.insert(*name);
            }
        }
    }
    let wanted =
        ["done", "refused", "unknown", "duplicate", "unseen", "ghost", "inconsistent-offsets", "nonmonotonic-send"];
    for name in wanted.into_iter().chain(["nonmonotonic-poll", "lost-write", "regression"]) {
        assert!(seen.contains(name), "no model history has {name}; they have {seen:?}");
    }
    assert_eq!(planted.len(), PLANTS.len(), "{planted:?}");
}

fn outcome_of(operation: &Operation) -> &'static str {
    match operation.outcome {
        Outcome::Done => "done",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown(_) => "unknown",
    }
}

type Plant = fn(&mut History, usize) -> bool;

/// Each plants one anomaly, or says that the history has no place for it.
const PLANTS: &[(&str, Plant)] = &[
    ("unseen", |history, which| remove_everywhere(history, which, is_acknowledged)),
    ("lost-write", |history, which| {
        remove_everywhere(history, which, |history, on, value| {
            is_acknowledged(history, on, value) && is_followed(history, on, value)
        })
    }),
    ("duplicate", |history, which| {
        let Some(sent) = pick(sent_once(history), which) else { return false };
        add_to_last_poll(history, sent)
    }),
    ("inconsistent-offsets", |history, which| {
        let Some(run) = pick(final_runs(history), which) else { return false };
        let other = Value::new(run.first_value.client(), (1 << 40) - 1);
        let altered = Run { first_value: other, count: 1, ..run };
        add_poll(history, altered);
        true
    }),
    ("nonmonotonic-poll", |history, which| {
        let Some(run) = pick(final_runs(history), which) else { return false };
        add_poll(history, run);
        add_poll(history, run);
        true
    }),
    ("poll-skip", |history, which| {
        let Some(run) = pick(final_runs(history).into_iter().filter(|run| run.count > 2).collect(), which) else {
            return false;
        };
        add_poll(history, Run { count: 1, ..run });
        add_poll(history, part(run, 2));
        true
    }),
    ("corrupt-payload", |history, which| {
        let Some(run) = pick(final_runs(history), which) else { return false };
        let record = CorruptRecord { queue: run.queue, offset: run.first_offset, what: "value".to_owned() };
        let call = Call::Poll { runs: Vec::new(), corrupt: vec![record], positions: Vec::new(), is_final: false };
        add(history, call);
        true
    }),
    ("wrong-offset-lookup", |history, which| {
        let Some(run) = pick(sent_once(history), which) else { return false };
        let query = OffsetQuery::Timestamp(run.first_timestamp_ms);
        let offset = Some(run.first_offset + 1);
        add(history, Call::ListOffset { queue: run.queue, query, offset, timestamp_ms: None });
        true
    }),
    ("premature-deletion", |history, which| {
        let Some(run) = pick(undeleted(history), which) else { return false };
        let offset = Some(run.first_offset + 1);
        let query = OffsetQuery::Earliest;
        add(history, Call::ListOffset { queue: run.queue, query, offset, timestamp_ms: Some(-1) });
        true
    }),
    ("regression", |history, which| {
        let Some(run) = pick(final_runs(history), which) else { return false };
        let (query, offset) = (OffsetQuery::Latest, Some(run.first_offset));
        add(history, Call::ListOffset { queue: run.queue, query, offset, timestamp_ms: Some(-1) });
        true
    }),
    ("phantom-write", |history, which| {
        let refused = history.operations.iter().filter_map(|operation| match (&operation.outcome, &operation.call) {
            (Outcome::Refused(_), Call::Produce { queue, first_value, timestamps_ms, .. }) => Some(Run {
                queue: *queue,
                first_value: *first_value,
                count: 1,
                first_offset: 1_000_000,
                first_timestamp_ms: timestamps_ms[0],
            }),
            _ => None,
        });
        let Some(run) = pick(refused.collect(), which) else { return false };
        add_poll(history, run);
        true
    }),
    ("self-crash", |history, _| {
        let (at_us, reason) = (5, "panicked".to_owned());
        history.marks.push(Mark::NodeExit { at_us, node: 0, reason, declared: false });
        true
    }),
    ("no-progress", |history, _| {
        history.marks.pop();
        history.marks.push(Mark::LivenessEnded { at_us: 9, reached: false, missing: vec!["a poll".to_owned()] });
        true
    }),
];

fn seed_index(seed: u64) -> usize {
    (seed as usize).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn pick<T>(choices: Vec<T>, which: usize) -> Option<T> {
    if choices.is_empty() {
        return None;
    }
    let index = which % choices.len();
    choices.into_iter().nth(index)
}

fn runs(history: &History) -> impl Iterator<Item = (bool, &Run)> {
    history.operations.iter().flat_map(|operation| match &operation.call {
        Call::Poll { runs, is_final, .. } => runs.iter().map(|run| (*is_final, run)).collect(),
        _ => Vec::new(),
    })
}

fn final_runs(history: &History) -> Vec<Run> {
    runs(history).filter(|(is_final, _)| *is_final).map(|(_, run)| *run).collect()
}

/// Runs of queues from which nothing was ever deleted.
fn undeleted(history: &History) -> Vec<Run> {
    let is_deleted = |run: &Run| {
        history
            .operations
            .iter()
            .any(|operation| matches!(operation.call, Call::DeleteRecords { queue, .. } if queue == run.queue))
    };
    final_runs(history).into_iter().filter(|run| !is_deleted(run)).collect()
}

/// First records of batches that took one attempt and are in the log at the end.
fn sent_once(history: &History) -> Vec<Run> {
    let is_sent_once = |run: &Run| {
        history.operations.iter().any(|operation| {
            matches!(operation.call, Call::Produce { queue, first_value, attempts: 1, .. }
                if queue == run.queue && first_value == run.first_value)
        })
    };
    final_runs(history).into_iter().filter(is_sent_once).collect()
}

/// Whether the value was acknowledged to its only attempt, so that there is one copy, at the offset answered.
fn is_acknowledged(history: &History, on: Queue, value: Value) -> bool {
    history.operations.iter().any(|operation| match &operation.call {
        Call::Produce { queue, first_value, count, first_offset: Some(_), attempts: 1, .. } if *queue == on => {
            operation.outcome == Outcome::Done && (first_value.0..first_value.0 + u64::from(*count)).contains(&value.0)
        }
        _ => false,
    })
}

/// Whether a final poll delivered records on both sides of the value.
fn is_followed(history: &History, on: Queue, value: Value) -> bool {
    history.operations.iter().any(|operation| match &operation.call {
        Call::Poll { runs, is_final: true, .. } => {
            let holder = runs.iter().find(|run| run.queue == on && holds(run, value));
            holder.is_some_and(|run| {
                let offset = run.first_offset + (value.0 - run.first_value.0) as i64;
                let of_queue = || runs.iter().filter(|other| other.queue == run.queue);
                of_queue().any(|other| other.first_offset < offset)
                    && of_queue().any(|other| other.first_offset + i64::from(other.count) > offset + 1)
            })
        }
        _ => false,
    })
}

fn holds(run: &Run, value: Value) -> bool {
    (run.first_value.0..run.first_value.0 + u64::from(run.count)).contains(&value.0)
}

fn part(run: Run, from: u32) -> Run {
    Run {
        first_value: Value(run.first_value.0 + u64::from(from)),
        count: run.count - from,
        first_offset: run.first_offset + i64::from(from),
        // The timestamp of a later record is not in the run; the judge compares what it can tell.
        first_timestamp_ms: run.first_timestamp_ms,
        ..run
    }
}

/// Takes a value that fits out of every poll.
fn remove_everywhere(history: &mut History, which: usize, fits: fn(&History, Queue, Value) -> bool) -> bool {
    let first_values = final_runs(history).into_iter().map(|run| (run.queue, run.first_value));
    let fitting: Vec<_> = first_values.filter(|(on, value)| fits(history, *on, *value)).collect();
    let Some((on, value)) = pick(fitting, which) else { return false };
    for operation in &mut history.operations {
        let Call::Poll { runs, .. } = &mut operation.call else { continue };
        let mut left = Vec::new();
        for run in runs.drain(..) {
            if run.queue != on || !holds(&run, value) {
                left.push(run);
                continue;
            }
            let before = (value.0 - run.first_value.0) as u32;
            left.extend((before > 0).then_some(Run { count: before, ..run }));
            left.extend((before + 1 < run.count).then(|| part(run, before + 1)));
        }
        *runs = left;
    }
    true
}

fn add_to_last_poll(history: &mut History, run: Run) -> bool {
    let end = final_runs(history)
        .iter()
        .filter(|other| other.queue == run.queue)
        .map(|other| other.first_offset + i64::from(other.count))
        .max();
    let copy = Run { count: 1, first_offset: end.unwrap_or(0), ..run };
    let last = history.operations.iter_mut().rev().find_map(|operation| match &mut operation.call {
        Call::Poll { runs, is_final: true, .. } => Some(runs),
        _ => None,
    });
    last.map(|runs| runs.push(copy)).is_some()
}

/// A poll of a client of its own, after everything else.
fn add_poll(history: &mut History, run: Run) {
    add(history, Call::Poll { runs: vec![run], corrupt: Vec::new(), positions: Vec::new(), is_final: false });
}

fn add(history: &mut History, call: Call) {
    let now_us = history.operations.iter().map(|operation| operation.completed_us).max().unwrap_or(0) + 100;
    let client = ClientId(50);
    assert!(client != READER && queue(0).topic == 0);
    let (invoked_us, completed_us, outcome) = (now_us, now_us + 50, Outcome::Done);
    history.operations.push(Operation { client, invoked_us, completed_us, outcome, call });
}

#[test]
fn a_model_history_keeps_its_verdict_in_either_encoding() {
    let (history, context): (History, Context) = Model::run(7, false);
    let mut lines = Vec::new();
    mqassay_harness::history::json::write(&history, &mut lines).unwrap();
    let mut blocks = Vec::new();
    mqassay_harness::history::binary::write(&history, &mut blocks).unwrap();
    let from_lines = mqassay_harness::history::json::read(lines.as_slice()).unwrap();
    let from_blocks = mqassay_harness::history::binary::read(blocks.as_slice()).unwrap();
    assert_eq!(judge(&from_lines, &context), judge(&history, &context));
    assert_eq!(from_blocks, history);
    assert!(blocks.len() * 4 < lines.len(), "{} bytes of blocks, {} of lines", blocks.len(), lines.len());
}
