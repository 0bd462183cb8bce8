//! `mqassay systems matrix`: the loss matrix on real processes whose disks forget. The rows and columns, and what each
//! cell may lose, are those of `mqassay scenarios matrix`. Not here: a run itself (`process_world`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::artifact::recovery::{self, RecoveryTimes};
use mqassay_harness::guarantee::Flush;
use mqassay_harness::history::{Call, History, Outcome};
use mqassay_harness::plan::sample::sample;
use mqassay_harness::process::world::Disks;
use mqassay_scenarios::campaign::{Course, Keep, Options};
use mqassay_scenarios::loss_matrix::{self, COLUMNS, Cell, Column, Durability, LOSSES};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::process_world::{Stand, SystemName, judged};
use crate::progress::tell;
use crate::results::json_line;
use crate::scenarios::{CellLine, cell_line};

/// Arguments of `mqassay systems matrix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The system; its settings are the rows'
    #[arg(value_enum)]
    system: SystemName,
    /// Runs of each cell
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    runs: u64,
    /// Only rows with this acks: all, 1 or 0
    #[arg(long, value_name = "ACKS")]
    acks: Option<String>,
    /// Only rows with this flush: ack, interval or os
    #[arg(long, value_name = "FLUSH")]
    flush: Option<String>,
    /// Only rows with this min.insync.replicas
    #[arg(long, value_name = "COPIES")]
    min_insync: Option<u32>,
    /// Only this column, for example "power loss of all"; may be given several times
    #[arg(long, value_name = "FAULTS")]
    faults: Vec<String>,
    /// Where each run's plan, history and verdict go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// JSON lines on standard output, a cell each
    #[arg(long)]
    json: bool,
}

/// A cell for programs, with what real systems add to it.
#[derive(Debug, Serialize)]
struct SystemCellLine<'a> {
    system: &'a str,
    #[serde(flatten)]
    cell: CellLine<'a>,
    counts: Counts,
    recovery: RecoveryTimes,
    plans: Vec<String>,
}

/// Records of all runs of a cell.
#[derive(Debug, Default, Serialize)]
struct Counts {
    acknowledged: u64,
    lost: u64,
    repeated: u64,
    reordered: u64,
    /// Bytes that power losses took from the disks.
    bytes_lost_by_disks: u64,
}

/// Fills the cells that are asked for; one that breaks a guarantee makes the answer invalid.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| is_asked(arguments, column)).collect();
    let rows: Vec<Durability> = loss_matrix::rows().into_iter().filter(|row| is_row_asked(arguments, row)).collect();
    if columns.is_empty() || rows.is_empty() {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        return Err(Failure::Usage(format!("no cell is left; the faults are: {}", names.join(", "))));
    }
    let mut stand = Stand::prepare(Disks::Forgetting)?;
    let mut exit = Exit::Valid;
    for row in rows {
        if !arguments.json {
            tell(&row_text(&row));
        }
        for column in &columns {
            match not_tested(arguments.system, &row, column) {
                Some(why) if arguments.json => {
                    eprintln!("mqassay: {}, {}: not tested: {why}", row_text(&row), column.name)
                }
                Some(why) => tell(&format!("    {:18} not tested here: {why}", column.name)),
                None => exit = exit.max(fill(arguments, &mut stand, &row, column)?),
            }
        }
    }
    Ok(exit)
}

fn fill(arguments: &Arguments, stand: &mut Stand, row: &Durability, column: &Column) -> Result<Exit, Failure> {
    let scenario = loss_matrix::scenario(row, column).map_err(Failure::undone)?;
    let system = match (arguments.system, row.flush) {
        (SystemName::Reference, _) => SystemName::Reference,
        (SystemName::Kafka | SystemName::KafkaSafest, Flush::Ack) => SystemName::KafkaSafest,
        (SystemName::Kafka | SystemName::KafkaSafest, Flush::Interval | Flush::Os) => SystemName::Kafka,
    };
    let name = if system == SystemName::Reference { "reference" } else { "kafka" };
    let options = Options {
        scenarios: vec![scenario.clone()],
        seeds: 1..=arguments.runs,
        each: true,
        mutant: None,
        without: Vec::new(),
        jobs: 1,
        runs_dir: arguments.runs_dir.join(name),
        keep: Keep::All,
        course: Course::default(),
    };
    let is_allowed = loss_matrix::is_allowed(row, column);
    let mut cell = Cell { durability: *row, faults: column.name, runs: 0, lost: 0, is_allowed, invalid: 0 };
    let (mut counts, mut times, mut plans) = (Counts::default(), RecoveryTimes::new(), Vec::new());
    for seed in 1..=arguments.runs {
        let began = Instant::now();
        let ran = stand.run(&sample(&scenario, seed, None), system)?;
        let record = judged(&options, &ran, began)?;
        let found: BTreeMap<&str, u64> = [&record.line.anomalies, &record.line.allowed].into_iter().flatten().fold(
            BTreeMap::new(),
            |mut found, (name, count)| {
                *found.entry(name.as_str()).or_insert(0) += count;
                found
            },
        );
        let of = |name: &str| found.get(name).copied().unwrap_or(0);
        let lost: u64 = LOSSES.iter().map(|anomaly| of(anomaly.name())).sum();
        counts.acknowledged += acknowledged(&ran.history);
        counts.lost += lost;
        counts.repeated += of("duplicate");
        counts.reordered += of("nonmonotonic-send");
        counts.bytes_lost_by_disks += ran.power_losses.iter().map(|loss| loss.bytes).sum::<u64>();
        recovery::add(&mut times, &record.recovery);
        cell.runs += 1;
        cell.lost += u64::from(lost > 0);
        cell.invalid += u64::from(record.line.verdict != VerdictKind::Valid);
        plans.push(record.line.plan);
    }
    let exit = if cell.agrees() { Exit::Valid } else { Exit::Violation };
    if arguments.json {
        tell(json_line(&line(name, &cell, counts, times, plans))?.trim_end());
    } else {
        let Counts { acknowledged, lost, repeated, reordered, .. } = counts;
        tell(&format!(
            "    {:18} {}; records: {acknowledged} acknowledged, {lost} lost, {repeated} repeated, {reordered} reordered",
            column.name,
            cell.text()
        ));
        recovery::table(&times)
            .iter()
            .for_each(|text| tell(&format!("      until the next acknowledged send: {text}")));
    }
    Ok(exit)
}

fn line<'a>(
    system: &'a str,
    cell: &'a Cell,
    counts: Counts,
    recovery: RecoveryTimes,
    plans: Vec<String>,
) -> SystemCellLine<'a> {
    SystemCellLine { system, cell: cell_line(cell), counts, recovery, plans }
}

/// Records that were acknowledged.
fn acknowledged(history: &History) -> u64 {
    let counts = history.operations.iter().map(|operation| match (&operation.call, &operation.outcome) {
        (Call::Produce { count, acks, .. }, Outcome::Done) if *acks != 0 => u64::from(*count),
        _ => 0,
    });
    counts.sum()
}

/// Why a cell cannot be tried on the system.
fn not_tested(system: SystemName, row: &Durability, column: &Column) -> Option<&'static str> {
    if system == SystemName::Reference {
        return None;
    }
    if !row.failover {
        return Some("Kafka always replaces a dead leader");
    }
    if row.flush == Flush::Interval {
        return Some("of Kafka the stock flush and flush.messages=1 are tried");
    }
    if column.name == "partition" {
        return Some("Kafka's nodes reach each other past the links that can be cut");
    }
    None
}

fn is_asked(arguments: &Arguments, column: &Column) -> bool {
    arguments.faults.is_empty() || arguments.faults.iter().any(|name| name == column.name)
}

fn is_row_asked(arguments: &Arguments, row: &Durability) -> bool {
    let is_acks = arguments.acks.as_deref().is_none_or(|acks| acks == loss_matrix::acks_name(row.acks));
    let is_flush = arguments.flush.as_deref().is_none_or(|flush| flush == loss_matrix::flush_name(row.flush));
    is_acks && is_flush && arguments.min_insync.is_none_or(|copies| copies == row.min_insync)
}

fn row_text(row: &Durability) -> String {
    let election = if row.unclean { "unclean" } else { "clean" };
    format!(
        "acks={} min.insync.replicas={} flush={} election={election} failover={}",
        loss_matrix::acks_name(row.acks),
        row.min_insync,
        loss_matrix::flush_name(row.flush),
        if row.failover { "on" } else { "off" }
    )
}
