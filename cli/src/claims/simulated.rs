//! Experiments of the ledger in the simulated world, where power is lost and leaders die thousands of times a minute: what
//! settings of durability lose, and what becomes of order. They are about the reference broker, whose replication is
//! Kafka's; figures are shares of runs and never speeds.

use std::path::PathBuf;

use mqassay_harness::guarantee::{Anomaly, Flush};
use mqassay_harness::plan::scenario::Scenario;
use mqassay_scenarios::campaign::{self, Course, Keep, Options};
use mqassay_scenarios::loss_matrix::{self, COLUMNS, Cluster, Durability, LOSSES};

use super::experiments::Gathered;
use crate::arguments::jobs;
use crate::exit::{Exit, Failure};

/// The rows of the loss matrix that claims are about, by name.
const ROWS: [(&str, Durability); 5] = [
    ("all-flushed", SAFE),
    ("all-unflushed", Durability { flush: Flush::Os, ..SAFE }),
    ("leader-flushed", Durability { acks: 1, ..SAFE }),
    ("none", Durability { acks: 0, ..SAFE }),
    ("unclean", Durability { unclean: true, min_insync: 1, ..SAFE }),
];
const SAFE: Durability = Durability { acks: -1, min_insync: 2, flush: Flush::Ack, unclean: false, failover: true };

pub(super) fn losses_on(name: &str, gathered: &mut Gathered) -> Result<(), Failure> {
    is_reference(name)?;
    for (row, durability) in ROWS {
        for column in &COLUMNS {
            let scenario = loss_matrix::scenario(&durability, column, &Cluster::THREE).map_err(Failure::undone)?;
            let plan = format!("losses/{row}/{}", column.name.replace(' ', "-"));
            count_runs(&plan, name, scenario, "runs_that_lost_share", &LOSSES, gathered)?;
        }
    }
    Ok(())
}

/// A producer's settings, and whether a dead leader is replaced.
const DEATHS: [(&str, &str, &str, &str); 4] = [
    ("idempotent", "[true]", "[5]", "true"),
    ("one-in-flight", "[false]", "[1]", "true"),
    ("five-in-flight", "[false]", "[5]", "true"),
    ("no-failover", "[true]", "[5]", "false"),
];

pub(super) fn deaths_on(name: &str, gathered: &mut Gathered) -> Result<(), Failure> {
    is_reference(name)?;
    for (setting, idempotent, in_flight, failover) in DEATHS {
        let text = format!(
            r#"
name = "deaths-{setting}"
title = "Keyed sends across the death of their leader."
[world]
nodes = 3
down_at_once = 1
[settings]
layout = ["shared", "partitioned"]
flush = ["ack"]
[topics]
count = 1
queues = [1, 2]
replication = 3
auto_created = 0.0
[topics.config]
"min.insync.replicas" = ["2"]
"mqassay.failover" = ["{failover}"]
[workload]
producers = [1, 2]
consumers = 1
idempotent = {idempotent}
in_flight = {in_flight}
attempts = [12]
batches = [140, 200]
polls = [60, 90]
[faults]
kill = [2, 4]
at-point = 0.5
points = ["append-written", "produce-appended", "reply-queued", "request-received"]
down-ms = [200, 3000]
"#
        );
        let scenario = Scenario::parse(&format!("deaths-{setting}"), &text).map_err(Failure::undone)?;
        let plan = format!("deaths/{setting}");
        count_runs(&plan, name, scenario, "runs_out_of_order_share", &[Anomaly::NonmonotonicSend], gathered)?;
    }
    Ok(())
}

/// Runs a scenario over seeds, and counts the runs that show one of the anomalies, allowed or not.
fn count_runs(
    plan: &str,
    name: &str,
    scenario: Scenario,
    metric: &str,
    anomalies: &[Anomaly],
    gathered: &mut Gathered,
) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(Failure::undone)?;
    let options = Options {
        scenarios: vec![scenario],
        seeds: 1..=RUNS,
        each: true,
        mutant: None,
        without: Vec::new(),
        jobs: jobs(None),
        runs_dir: PathBuf::from(folder.path()),
        keep: Keep::Failures,
        course: Course::default(),
    };
    let (mut shown, mut operations) = (0_u64, 0_u64);
    let summary = campaign::run(&options, &mut |run| {
        shown += u64::from(run.verdict.findings.iter().any(|finding| anomalies.contains(&finding.anomaly)));
        operations += run.line.operations;
        true
    })
    .map_err(Failure::undone)?;
    gathered.count(plan, name, metric, shown as f64 / summary.runs.max(1) as f64);
    // What a setting permits is the claim's figure; what it forbids and is seen all the same would be the broker's fault.
    let exit = if summary.invalid > 0 {
        Exit::Violation
    } else if summary.unknown > 0 {
        Exit::Unknown
    } else {
        Exit::Valid
    };
    gathered.verdict(plan, name, exit, operations);
    gathered.result(plan).remarks.push(format!("{shown} of {} simulated runs, seeds 1..{RUNS}", summary.runs));
    Ok(())
}

fn is_reference(name: &str) -> Result<(), Failure> {
    if name == "reference" {
        return Ok(());
    }
    let text = format!("{name} does not run in the simulated world; on real processes: mqassay systems matrix {name}");
    Err(Failure::Undone(anyhow::anyhow!(text)))
}

/// Runs of each setting and class of fault.
const RUNS: u64 = 40;
