//! The loss matrix: settings of durability against classes of fault, each cell found by runs of a small cluster under one
//! class of fault, and compared with the guarantee matrix. Start at `run`. Not here: how a loss is found (the judge).

use std::path::PathBuf;

use mqassay_harness::guarantee::{Anomaly, Facts, Flush, Matrix};
use mqassay_harness::plan::scenario::{Scenario, ScenarioError};

use crate::campaign::{self, CampaignError, Course, Keep, Options};

/// Anomalies that are the loss of an acknowledged record.
pub const LOSSES: [Anomaly; 2] = [Anomaly::LostWrite, Anomaly::Unseen];

/// Settings of durability: a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    /// -1 all, 1 leader, 0 none.
    pub acks: i8,
    /// In-sync copies that acks=all needs, of three.
    pub min_insync: u32,
    /// When appends are synced.
    pub flush: Flush,
    /// Whether a replica that is not in sync may be elected.
    pub unclean: bool,
    /// Whether a dead leader is replaced.
    pub failover: bool,
}

/// Faults of one kind: a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// What people call it.
    pub name: &'static str,
    /// The `[faults]` and `[world]` tables of its scenario.
    faults: &'static str,
    world: &'static str,
    /// Classes of fault, as the guarantee matrix names them.
    classes: &'static [&'static str],
    /// Nodes that may be without power at once.
    powerless: u32,
}

/// The columns.
pub const COLUMNS: [Column; 7] = [
    Column {
        name: "kill of one",
        faults: "kill = [3, 5]\ndown-ms = [300, 2500]",
        world: "down_at_once = 1",
        classes: &["kill"],
        powerless: 0,
    },
    Column {
        name: "kill of all",
        faults: "kill-all = [1, 3]\ndown-ms = [100, 1000]",
        world: "",
        classes: &["kill"],
        powerless: 0,
    },
    Column {
        name: "power loss of one",
        faults: "power-loss = [3, 5]\ndown-ms = [300, 2500]",
        world: "down_at_once = 1\npowerless_at_once = 1",
        classes: &["power-loss"],
        powerless: 1,
    },
    Column {
        name: "power loss of all",
        faults: "power-loss-all = [1, 3]\ndown-ms = [100, 1000]",
        world: "",
        classes: &["power-loss"],
        powerless: 3,
    },
    Column {
        name: "partition",
        faults: "isolate = [1, 3]\nhalves = [0, 1]\none-way = [0, 1]\nlasts-ms = [1000, 4000]",
        world: "",
        classes: &["isolate", "halves", "one-way"],
        powerless: 0,
    },
    Column {
        name: "pause",
        faults: "pause = [3, 5]\nlasts-ms = [1000, 5000]",
        world: "down_at_once = 1",
        classes: &["pause"],
        powerless: 0,
    },
    Column {
        name: "rolling",
        faults: "roll = 1\ndown-ms = [100, 1200]",
        world: "",
        classes: &["restart"],
        powerless: 0,
    },
];

/// The rows.
pub fn rows() -> Vec<Durability> {
    let safe = Durability { acks: -1, min_insync: 2, flush: Flush::Ack, unclean: false, failover: true };
    vec![
        Durability { acks: 0, ..safe },
        Durability { acks: 1, ..safe },
        Durability { min_insync: 1, ..safe },
        safe,
        Durability { min_insync: 1, flush: Flush::Os, ..safe },
        Durability { flush: Flush::Os, ..safe },
        Durability { flush: Flush::Interval, ..safe },
        Durability { min_insync: 1, unclean: true, ..safe },
        Durability { unclean: true, ..safe },
        Durability { failover: false, ..safe },
        Durability { flush: Flush::Os, failover: false, ..safe },
    ]
}

/// What the runs of one cell showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Its row.
    pub durability: Durability,
    /// Its column's name.
    pub faults: &'static str,
    /// Runs.
    pub runs: u64,
    /// Of them, those that lost an acknowledged record.
    pub lost: u64,
    /// Whether the guarantee matrix allows that.
    pub is_allowed: bool,
    /// Runs that are not valid, for whatever reason.
    pub invalid: u64,
}

impl Cell {
    /// Whether the runs agree with the guarantee matrix.
    pub fn agrees(&self) -> bool {
        self.invalid == 0 && (self.lost == 0 || self.is_allowed)
    }

    /// The cell for people.
    pub fn text(&self) -> String {
        let found = match self.lost {
            0 if self.durability.acks == 0 => format!("nothing is acknowledged in {}", self.runs),
            0 => format!("not lost in {}", self.runs),
            lost => format!("lost {lost}/{}", self.runs),
        };
        let promise = if self.is_allowed { "may" } else { "never" };
        let broken = if self.agrees() { "" } else { " BROKEN" };
        format!("{found} ({promise}{broken})")
    }
}

/// How to fill the cells.
#[derive(Debug, Clone)]
pub struct MatrixOptions {
    /// Runs of each cell.
    pub runs: u64,
    /// Threads.
    pub jobs: usize,
    /// Where artifacts of runs that are not valid go.
    pub runs_dir: PathBuf,
}

/// Why a cell could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// A run failed.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
    /// A cell's scenario is none.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

/// Fills every cell, row by row; `on_cell` hears of each.
pub fn run(options: &MatrixOptions, on_cell: &mut dyn FnMut(&Cell)) -> Result<Vec<Cell>, MatrixError> {
    let mut cells = Vec::new();
    for durability in rows() {
        for column in COLUMNS {
            let cell = fill(durability, &column, options)?;
            on_cell(&cell);
            cells.push(cell);
        }
    }
    Ok(cells)
}

fn fill(durability: Durability, column: &Column, options: &MatrixOptions) -> Result<Cell, MatrixError> {
    let mut cell = Cell {
        durability,
        faults: column.name,
        runs: 0,
        lost: 0,
        is_allowed: is_allowed(&durability, column, Cluster::THREE.nodes),
        invalid: 0,
    };
    let campaign = Options {
        scenarios: vec![scenario(&durability, column, &Cluster::THREE)?],
        seeds: 1..=options.runs,
        each: true,
        mutant: None,
        without: Vec::new(),
        jobs: options.jobs,
        runs_dir: options.runs_dir.clone(),
        keep: Keep::Failures,
        course: Course::default(),
    };
    let summary = campaign::run(&campaign, &mut |run| {
        cell.lost += u64::from(run.verdict.findings.iter().any(|finding| LOSSES.contains(&finding.anomaly)));
        true
    })?;
    (cell.runs, cell.invalid) = (summary.runs, summary.invalid + summary.unknown);
    Ok(cell)
}

/// Whether the guarantee matrix allows a loss in the cell, of records with so many copies.
pub fn is_allowed(durability: &Durability, column: &Column, copies: u32) -> bool {
    let facts = Facts {
        flush: Some(durability.flush),
        acks: Some(durability.acks),
        idempotent: Some(false),
        retried: Some(false),
        faults: column.classes.to_vec(),
        replication: copies,
        min_insync_replicas: Some(durability.min_insync),
        unclean_election: Some(durability.unclean),
        failover: Some(durability.failover),
        copies_lost: Some(column.powerless >= durability.min_insync.min(copies)),
        newest: Some(false),
        ..Facts::default()
    };
    Matrix::standard().allowance(Anomaly::LostWrite, &facts).is_some()
}

/// What the scenarios of cells run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Nodes, each with a copy of every record.
    pub nodes: u32,
    /// Clients that read while others write; the final reads are made in any case.
    pub consumers: u32,
}

impl Cluster {
    /// What the rows are meant for.
    pub const THREE: Cluster = Cluster { nodes: 3, consumers: 1 };
}

/// The scenario of a cell.
pub fn scenario(durability: &Durability, column: &Column, cluster: &Cluster) -> Result<Scenario, ScenarioError> {
    let Durability { acks, min_insync, unclean, failover, .. } = *durability;
    let flush = flush_name(durability.flush);
    let column_name = column.name.replace(' ', "-");
    let acks_name = acks_name(acks);
    let clean = if unclean { "unclean" } else { "clean" };
    let over = if failover { "" } else { "-no-failover" };
    let name = format!("loss-{acks_name}-{min_insync}-{flush}-{clean}{over}-{column_name}");
    let Cluster { nodes, consumers } = *cluster;
    let faults = match (column.name, nodes) {
        // One node can be cut off from its clients only, and two have no halves.
        ("partition", 1) => CUT,
        ("partition", 2) => ISOLATE,
        _ => column.faults,
    };
    // Whether fewer than all have power at once is nothing that one node can choose.
    let world = if nodes == 1 { "" } else { column.world };
    let min_insync = min_insync.min(nodes);
    let text = format!(
        r#"
name = "{name}"
title = "One cell of the loss matrix."
[world]
nodes = {nodes}
safety_ms = [6000, 9000]
sync_us = [2000, 40000]
{world}
[settings]
layout = ["shared", "partitioned"]
flush = ["{flush}"]
flush-interval-ms = ["200"]
[topics]
count = 1
queues = [1, 2]
replication = {nodes}
auto_created = 0.0
[topics.config]
"min.insync.replicas" = ["{min_insync}"]
"unclean.leader.election.enable" = ["{unclean}"]
"mqassay.failover" = ["{failover}"]
[workload]
producers = 2
consumers = {consumers}
acks = [{acks}]
idempotent = [false]
in_flight = [5]
attempts = [10]
batches = [120, 160]
polls = [30, 40]
[faults]
{faults}
"#
    );
    Scenario::parse(&name, &text)
}

const CUT: &str = "link-cut = [4, 6]\nlasts-ms = [1000, 4000]";
const ISOLATE: &str = "isolate = [1, 3]\nlasts-ms = [1000, 4000]";

/// The name of a flush setting.
pub fn flush_name(flush: Flush) -> &'static str {
    match flush {
        Flush::Ack => "ack",
        Flush::Interval => "interval",
        Flush::Os => "os",
    }
}

/// The name of an acks setting.
pub fn acks_name(acks: i8) -> &'static str {
    match acks {
        0 => "0",
        1 => "1",
        _ => "all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_scenario_and_the_promise_of_the_guarantee_matrix() {
        let allowed = |durability: &Durability| -> Vec<&str> {
            COLUMNS.iter().filter(|column| is_allowed(durability, column, 3)).map(|column| column.name).collect()
        };
        for row in rows() {
            for column in &COLUMNS {
                for nodes in 1..=3 {
                    scenario(&row, column, &Cluster { nodes, consumers: 0 }).unwrap();
                }
            }
            match row {
                Durability { acks: -1, flush: Flush::Ack, unclean: false, .. } => assert!(allowed(&row).is_empty()),
                Durability { acks: 0 | 1, .. } | Durability { unclean: true, .. } => {
                    assert_eq!(allowed(&row).len(), COLUMNS.len(), "{row:?}");
                }
                Durability { min_insync: 1, .. } | Durability { failover: false, .. } => {
                    assert_eq!(allowed(&row), ["power loss of one", "power loss of all"], "{row:?}");
                }
                _ => assert_eq!(allowed(&row), ["power loss of all"], "{row:?}"),
            }
        }
    }

    #[test]
    fn a_cell_that_the_matrix_forbids_is_broken() {
        let cell_of = |durability, lost, is_allowed| Cell {
            durability,
            faults: "kill of one",
            runs: 20,
            lost,
            is_allowed,
            invalid: 0,
        };
        let cell = |lost, is_allowed| cell_of(rows()[3], lost, is_allowed);
        assert_eq!(cell_of(rows()[0], 0, true).text(), "nothing is acknowledged in 20 (may)");
        assert_eq!(cell(0, false).text(), "not lost in 20 (never)");
        assert_eq!(cell(3, true).text(), "lost 3/20 (may)");
        assert_eq!(cell(3, false).text(), "lost 3/20 (never BROKEN)");
    }
}
