//! commit-lost: a committed offset is gone. commit-regression: it goes back, or is one that was superseded.
//! What OffsetFetch answers must be the offset of a commit that no later one surely replaced. A commit of unknown outcome
//! may take effect at any later time.

use super::case::Case;
use super::groups::{Commit, Fetched};
use super::verdict::{Evidence, Occurrence};
use crate::guarantee::{Anomaly, Facts};
use crate::history::Queue;

/// Offsets that are gone.
pub(super) fn check_lost(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    Ok(found(case).into_iter().filter(|occurrence| occurrence.anomaly == Anomaly::CommitLost).collect())
}

/// Offsets that went back.
pub(super) fn check_regression(case: &Case<'_>) -> Result<Vec<Occurrence>, String> {
    Ok(found(case).into_iter().filter(|occurrence| occurrence.anomaly == Anomaly::CommitRegression).collect())
}

fn found(case: &Case<'_>) -> Vec<Occurrence> {
    let mut found = Vec::new();
    for (group, view) in case.groups() {
        for (queue, commits) in &view.commits {
            let fetched = view.fetched.get(queue).map(Vec::as_slice).unwrap_or_default();
            found.extend(fetched.iter().filter_map(|fetched| answer(case, *group, *queue, commits, fetched)));
            found.extend(backward(case, *group, *queue, commits));
        }
    }
    found
}

/// What is wrong with an answer.
fn answer(case: &Case<'_>, group: u32, queue: Queue, commits: &[Commit], fetched: &Fetched) -> Option<Occurrence> {
    let before = |commit: &&Commit| commit.completed_us.is_some_and(|at_us| at_us < fetched.invoked_us);
    let sure: Vec<&Commit> = commits.iter().filter(before).collect();
    let is_possible = |commit: &Commit| {
        let is_superseded =
            |later: &&&Commit| commit.completed_us.is_some_and(|completed_us| later.invoked_us > completed_us);
        commit.offset == fetched.offset
            && commit.invoked_us <= fetched.completed_us
            && !sure.iter().any(|later| is_superseded(&later))
    };
    let latest = sure.iter().max_by_key(|commit| commit.completed_us)?;
    if commits.iter().any(is_possible) {
        return None;
    }
    let name = case.name(queue);
    let (anomaly, what) = match fetched.offset {
        -1 => (Anomaly::CommitLost, "nothing".to_owned()),
        offset => (Anomaly::CommitRegression, format!("offset {offset}")),
    };
    Some(Occurrence {
        anomaly,
        count: 1,
        allowed: case.matrix.allowance(anomaly, &facts(case, queue, fetched.completed_us)),
        explanation: format!(
            "Group {group} had committed offset {} of {name}, and was later told that {what} is committed.",
            latest.offset
        ),
        evidence: vec![
            Evidence::operation(latest.operation, format!("offset {} of {name} is committed", latest.offset)),
            Evidence::operation(fetched.operation, format!("{what} is committed for {name}")),
        ],
    })
}

/// Commits below an earlier one: the member that made them began below what was committed.
fn backward(case: &Case<'_>, group: u32, queue: Queue, commits: &[Commit]) -> Vec<Occurrence> {
    let mut done: Vec<&Commit> = commits.iter().filter(|commit| commit.completed_us.is_some()).collect();
    done.sort_by_key(|commit| commit.completed_us);
    let mut by_call = done.clone();
    by_call.sort_by_key(|commit| commit.invoked_us);
    let mut done = done.into_iter().peekable();
    let mut floor: Option<&Commit> = None;
    let mut found = Vec::new();
    for commit in by_call {
        while let Some(earlier) = done.next_if(|earlier| earlier.completed_us < Some(commit.invoked_us)) {
            floor = Some(floor.filter(|floor| floor.offset >= earlier.offset).unwrap_or(earlier));
        }
        let Some(floor) = floor.filter(|floor| floor.offset > commit.offset) else { continue };
        let (name, until_us) = (case.name(queue), commit.completed_us.unwrap_or(u64::MAX));
        found.push(Occurrence {
            anomaly: Anomaly::CommitRegression,
            count: 1,
            allowed: case.matrix.allowance(Anomaly::CommitRegression, &facts(case, queue, until_us)),
            explanation: format!(
                "Group {group} had committed offset {} of {name}, and then committed {}.",
                floor.offset, commit.offset
            ),
            evidence: vec![
                Evidence::operation(floor.operation, format!("offset {} of {name} is committed", floor.offset)),
                Evidence::operation(commit.operation, format!("offset {} of {name} is committed", commit.offset)),
            ],
        });
    }
    found
}

/// Commits are records of an internal topic, sent with acks=all.
fn facts<'a>(case: &Case<'a>, queue: Queue, until_us: u64) -> Facts<'a> {
    Facts { acks: Some(-1), ..case.topic_facts(queue, 0, until_us) }
}
