//! How probable an anomaly is from each moment of a plan on: what lies before the moment stays, what lies behind it is
//! drawn again, many times. Draws are named (try and entity), so the runs are the same each time; how many of them are
//! done depends on the budget. Start at `resample`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mqassay_harness::history::{Mark, Queue};
use mqassay_harness::plan::draws::{Draws, draw_at};
use mqassay_harness::plan::{ClientAction, Fault, Plan, Trigger};
use mqassay_harness::story::{Curve, CurvePoint, Story};

use crate::runner::{self, Record, RunError};

/// Moments at most.
const CUTS_MAX: usize = 14;
/// Runs of one moment at most.
const RUNS_MAX: usize = 60;

/// How long to try, and how.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Real time, up to the length of the runs under way when it ends.
    pub budget: Duration,
    /// Threads, at least 1.
    pub jobs: usize,
}

/// Tries the story's plan with its tail drawn again behind each of several moments; none where nothing was violated.
pub fn resample(story: &Story, effort: Effort) -> Result<Option<Curve>, RunError> {
    let Some(finding) = story.verdict.findings.iter().find(|finding| finding.allowed.is_none()) else {
        return Ok(None);
    };
    let anomaly = finding.anomaly.name();
    let cuts = cuts(story);
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let counts: Vec<(AtomicU32, AtomicU32)> = cuts.iter().map(|_| (AtomicU32::new(0), AtomicU32::new(0))).collect();
    let work = || -> Result<(), RunError> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            // The cheapest useful answer is one run of every moment, however small the budget.
            if index >= cuts.len() * RUNS_MAX || (index >= cuts.len() && began.elapsed() >= effort.budget) {
                return Ok(());
            }
            let (cut, attempt) = (index % cuts.len(), index / cuts.len());
            let plan = redrawn(story, cuts[cut], attempt as u64);
            let run = runner::run_plan(&plan, Record::HashOnly)?;
            counts[cut].0.fetch_add(1, Ordering::Relaxed);
            counts[cut].1.fetch_add(u32::from(run.line.anomalies.contains_key(anomaly)), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..effort.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        for ended in ended {
            match ended {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<(), RunError>(())
    })?;
    let point = |(cut_ms, (runs, with_anomaly)): (&u64, &(AtomicU32, AtomicU32))| CurvePoint {
        cut_ms: *cut_ms,
        runs: runs.load(Ordering::Relaxed),
        with_anomaly: with_anomaly.load(Ordering::Relaxed),
    };
    let points = cuts.iter().zip(&counts).map(point).collect();
    Ok(Some(Curve { anomaly: anomaly.to_owned(), points, wall_seconds: began.elapsed().as_secs_f64() }))
}

/// The moments: the beginning, each fault that struck and just behind it, the rest evenly up to the evidence's end.
fn cuts(story: &Story) -> Vec<u64> {
    let mut cuts = BTreeSet::from([0]);
    let last_ms = evidence_end_ms(story).min(story.plan.world.safety_ms);
    for mark in &story.history.marks {
        if let Mark::Fault { at_us, .. } = mark
            && at_us / 1000 <= last_ms
        {
            cuts.insert(at_us / 1000);
            cuts.insert(at_us / 1000 + 1);
        }
    }
    while cuts.len() > CUTS_MAX - 2 {
        // Thin out where moments lie closest.
        let ordered: Vec<u64> = cuts.iter().copied().collect();
        let closest = ordered.windows(3).min_by_key(|three| three[2] - three[0]).map(|three| three[1]);
        let Some(closest) = closest else { break };
        cuts.remove(&closest);
    }
    cuts.insert(last_ms + 1);
    while cuts.len() < CUTS_MAX {
        let ordered: Vec<u64> = cuts.iter().copied().collect();
        let widest = ordered.windows(2).max_by_key(|two| two[1] - two[0]);
        let Some(&[low, high]) = widest.filter(|two| two[1] - two[0] > 1) else { break };
        cuts.insert(low + (high - low) / 2);
    }
    cuts.into_iter().collect()
}

/// When the last client operation of the evidence was planned to be over, in milliseconds.
fn evidence_end_ms(story: &Story) -> u64 {
    let findings = story.verdict.findings.iter().filter(|finding| finding.allowed.is_none());
    let indices = findings.flat_map(|finding| &finding.evidence).filter_map(|evidence| evidence.operation);
    let ends = indices.filter_map(|index| story.history.operations.get(index as usize));
    ends.map(|operation| operation.completed_us / 1000).max().unwrap_or(story.plan.world.safety_ms)
}

/// The plan with everything behind the moment drawn again: times and queues of operations, times and salts of faults.
/// What has struck or begun before the moment stays to the letter.
fn redrawn(story: &Story, cut_ms: u64, attempt: u64) -> Plan {
    let mut plan = story.plan.clone();
    let draws = Draws::new(draw_at(plan.salt, "tail", cut_ms, attempt));
    let last_ms = plan.world.safety_ms.saturating_mul(9) / 10;
    let draw_time = |label, entity| draws.range(label, entity, cut_ms, cut_ms.max(last_ms));
    for (number, client) in (0u64..).zip(&mut plan.clients) {
        let tail = client.operations.partition_point(|operation| operation.at_ms < cut_ms);
        let queues: Vec<Queue> = client.operations.iter().filter_map(|operation| queue_of(&operation.action)).collect();
        for (index, operation) in (0u64..).zip(&mut client.operations[tail..]) {
            let entity = number << 32 | index;
            operation.at_ms = draw_time("operation-time", entity);
            redraw_queue(&mut operation.action, &draws, entity, &queues);
        }
        client.operations[tail..].sort_by_key(|operation| operation.at_ms);
    }
    let struck_before = |fault: u32| {
        story.history.marks.iter().any(|mark| {
            matches!(mark, Mark::Fault { at_us, fault: struck, .. } if *struck == fault && at_us / 1000 < cut_ms)
        })
    };
    for (index, fault) in (0u32..).zip(&mut plan.faults) {
        if struck_before(index) {
            continue;
        }
        let entity = u64::from(index);
        redraw_fault(fault, draws.draw("fault-salt", entity) >> 1, draw_time("fault-time", entity));
    }
    plan.recorded_trace = None;
    plan
}

fn redraw_fault(fault: &mut Fault, salt: u64, time_ms: u64) {
    fault.salt = salt;
    match &mut fault.trigger {
        Trigger::At { at_ms } => *at_ms = time_ms,
        Trigger::Point { armed_ms, .. } => *armed_ms = time_ms,
    }
}

/// The queue that an operation chooses; a poll reads those of its consumer.
fn queue_of(action: &ClientAction) -> Option<Queue> {
    match action {
        ClientAction::Produce { queue, .. }
        | ClientAction::Seek { queue, .. }
        | ClientAction::ListOffset { queue, .. }
        | ClientAction::DeleteRecords { queue } => Some(*queue),
        ClientAction::Poll { .. } | ClientAction::Crash { .. } | ClientAction::Leave => None,
    }
}

fn redraw_queue(action: &mut ClientAction, draws: &Draws, entity: u64, queues: &[Queue]) {
    match action {
        ClientAction::Produce { queue, .. }
        | ClientAction::Seek { queue, .. }
        | ClientAction::ListOffset { queue, .. }
        | ClientAction::DeleteRecords { queue } => *queue = *draws.pick("operation-queue", entity, queues),
        ClientAction::Poll { .. } | ClientAction::Crash { .. } | ClientAction::Leave => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::explain::story;
    use mqassay_harness::plan::sample::sample;

    fn mutant_story() -> Story {
        let scenario = catalogue::find("no-loss").expect("the catalogue has no-loss");
        let invalid = (1..40).map(|seed| story(&sample(&scenario, seed, Some("S1"))).expect("the plan runs"));
        let mut invalid = invalid.filter(|story| !story.line.anomalies.is_empty());
        invalid.next().expect("S1 violates no-loss within forty seeds")
    }

    #[test]
    fn what_lies_before_the_moment_stays_and_the_whole_plan_gives_the_anomaly() {
        let story = mutant_story();
        let all = redrawn(&story, u64::MAX, 0);
        assert_eq!(all.clients, story.plan.clients);
        let cut_ms = story.plan.world.safety_ms / 2;
        let half = redrawn(&story, cut_ms, 3);
        assert_ne!(half.clients, story.plan.clients);
        assert_ne!(half.clients, redrawn(&story, cut_ms, 4).clients);
        assert_eq!(half, redrawn(&story, cut_ms, 3));
        for (kept, client) in half.clients.iter().zip(&story.plan.clients) {
            let head = client.operations.iter().filter(|operation| operation.at_ms < cut_ms);
            assert!(head.zip(&kept.operations).all(|(one, other)| one == other));
        }
        let effort = Effort { budget: Duration::ZERO, jobs: 2 };
        let curve = resample(&story, effort).expect("the variants run").expect("there is a violation");
        assert!(curve.points.is_sorted_by_key(|point| point.cut_ms) && curve.points.len() <= CUTS_MAX);
        assert!(curve.points.iter().all(|point| point.runs == 1));
        assert_eq!(curve.points.last().map(|point| point.with_anomaly), Some(1), "nothing was drawn again there");
    }

    #[test]
    fn a_white_box_changes_nothing_in_the_run() {
        let story = mutant_story();
        let plain = runner::run_plan(&story.plan, Record::HashOnly).expect("the plan runs");
        assert_eq!(plain.line.trace_hash, story.line.trace_hash);
        assert!(plain.states.is_empty() && !story.states.is_empty() && !story.messages.is_empty());
        let batches = |state: &mqassay_harness::story::NodeState| state.queues.iter().any(|q| !q.batches.is_empty());
        assert!(story.states.iter().any(batches), "no state shows a batch");
        assert!(story.messages.iter().any(|message| message.received_us.is_some()));
    }
}
