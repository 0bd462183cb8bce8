//! `mqassay systems matrix`: the loss matrix on real processes whose disks forget. The columns, and what each cell may lose,
//! are those of `mqassay scenarios matrix`. Not here: the rows (`rows`), a run itself (`process_world`, `driver_world`).

mod rows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::artifact::recovery::{self, RecoveryTimes};
use mqassay_harness::history::{Call, History, Outcome};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::process::disk::Metadata;
use mqassay_harness::process::world::{Disks, Ran};
use mqassay_reports::{LossCell, render_losses};
use mqassay_scenarios::campaign::{Course, Keep, Options};
use mqassay_scenarios::loss_matrix::{self, COLUMNS, Column, LOSSES};

use crate::disk::MetadataName;
use crate::exit::{Exit, Failure};
use crate::kafka_world::Settings;
use crate::process_world::{NetworkName, Stand, SystemName, judged};
use crate::progress::tell;
use crate::results::json_line;
use rows::{How, Row};

pub(crate) use rows::MatrixSystem;

/// Arguments of `mqassay systems matrix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The systems; none where only --from is given
    #[arg(value_enum)]
    systems: Vec<MatrixSystem>,
    /// Runs of each cell
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    runs: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Only rows whose settings have these words, as in acks=all; where given several times all of them
    #[arg(long, value_name = "TEXT")]
    row: Vec<String>,
    /// Only this column, for example "power loss of all"; may be given several times
    #[arg(long, value_name = "FAULTS")]
    faults: Vec<String>,
    /// When names of files become durable on the nodes' disks
    #[arg(long, value_enum, default_value_t = MetadataName::Journal)]
    metadata: MetadataName,
    /// How the nodes reach each other
    #[arg(long, value_enum, default_value_t = NetworkName::Namespaces)]
    network: NetworkName,
    /// Where each run's plan, history and verdict go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Cells of earlier runs, as --json printed them: shown with the new ones; may be given several times
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Write a page with the table
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// JSON lines on standard output, a cell each
    #[arg(long)]
    json: bool,
}

/// Fills the cells that are asked for; one that breaks a guarantee makes the answer invalid.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut cells = Vec::new();
    for path in &arguments.from {
        let text = std::fs::read_to_string(path).map_err(Failure::usage)?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            cells.push(serde_json::from_str::<LossCell>(line).map_err(Failure::usage)?);
        }
    }
    cells.extend(filled(arguments)?);
    if cells.is_empty() {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        return Err(Failure::Usage(format!("no cell is left; the faults are: {}", names.join(", "))));
    }
    if let Some(path) = &arguments.page {
        let page = render_losses(&cells).map_err(Failure::undone)?;
        std::fs::write(path, page).map_err(Failure::undone)?;
    }
    Ok(if cells.iter().all(LossCell::agrees) { Exit::Valid } else { Exit::Violation })
}

/// Fills the cells that are asked for, and tells each as soon as it is there.
fn filled(arguments: &Arguments) -> Result<Vec<LossCell>, Failure> {
    let mut cells = Vec::new();
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| is_asked(arguments, column)).collect();
    let is_row_asked = |row: &Row| arguments.row.iter().all(|words| is_named(row, words));
    let rows: Vec<Row> = arguments.systems.iter().flat_map(|system| rows::of(*system)).filter(is_row_asked).collect();
    if columns.is_empty() || rows.is_empty() {
        return Ok(cells);
    }
    let mut stand = Stand::prepare(Disks::Forgetting(Metadata::from(arguments.metadata)), arguments.network)?;
    for row in &rows {
        if !arguments.json {
            tell(&format!("{}: {}", row.system.name(), row.name));
            tell(&format!("    documented: {}", row.documented));
        }
        for column in &columns {
            let cell = fill(arguments, &mut stand, row, column)?;
            match arguments.json {
                true => tell(json_line(&cell)?.trim_end()),
                false => tell(&text(&cell)),
            }
            cells.push(cell);
        }
    }
    Ok(cells)
}

fn fill(arguments: &Arguments, stand: &mut Stand, row: &Row, column: &Column) -> Result<LossCell, Failure> {
    let mut cell = LossCell {
        system: row.system.name().to_owned(),
        row: row.name.clone(),
        documented: row.documented.to_owned(),
        faults: column.name.to_owned(),
        allowed: loss_matrix::is_allowed(&row.durability, column, row.cluster.nodes),
        ..LossCell::default()
    };
    if let Some(why) = rows::not_tested(row, column, stand.has_real_links()) {
        cell.not_tested = Some(why.to_owned());
        return Ok(cell);
    }
    let scenario = loss_matrix::scenario(&row.durability, column, &row.cluster).map_err(Failure::undone)?;
    let seeds = arguments.seed..=arguments.seed + arguments.runs - 1;
    let options = Options {
        scenarios: vec![scenario.clone()],
        seeds: seeds.clone(),
        each: true,
        mutant: None,
        without: Vec::new(),
        jobs: 1,
        runs_dir: arguments.runs_dir.join(row.system.name()).join(row.name.replace([' ', '='], "-")),
        keep: Keep::All,
        course: Course::default(),
    };
    let mut times = RecoveryTimes::new();
    for seed in seeds {
        let began = Instant::now();
        let ran = play(stand, row, &sample(&scenario, seed, None), &mut cell)?;
        let record = judged(&options, &ran, began)?;
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, count) in [&record.line.anomalies, &record.line.allowed].into_iter().flatten() {
            *found.entry(name.as_str()).or_insert(0) += count;
        }
        let of = |name: &str| found.get(name).copied().unwrap_or(0);
        let lost: u64 = LOSSES.iter().map(|anomaly| of(anomaly.name())).sum();
        cell.acknowledged += acknowledged(&ran.history);
        cell.lost += lost;
        cell.repeated += of("duplicate");
        cell.reordered += of("nonmonotonic-send");
        cell.bytes_lost_by_disks += ran.power_losses.iter().map(|loss| loss.bytes).sum::<u64>();
        recovery::add(&mut times, &record.recovery);
        cell.runs += 1;
        cell.lost_in += u64::from(lost > 0);
        cell.invalid += u64::from(record.line.verdict != VerdictKind::Valid);
        cell.plans.push(record.line.plan);
    }
    cell.recovery_ms = recovery::median_and_worst(&times);
    Ok(cell)
}

/// Cells for a caller that judges them by rules of its own: of the rows whose settings have the words of `row`, under `faults`.
pub(crate) fn cells(
    system: MatrixSystem,
    row: &str,
    faults: &[&str],
    runs: u64,
    runs_dir: PathBuf,
) -> Result<Vec<LossCell>, Failure> {
    filled(&Arguments {
        systems: vec![system],
        runs,
        seed: 1,
        row: vec![row.to_owned()],
        faults: faults.iter().map(|name| (*name).to_owned()).collect(),
        metadata: MetadataName::Journal,
        network: NetworkName::Namespaces,
        runs_dir,
        from: Vec::new(),
        page: None,
        json: false,
    })
}

/// How many rows of a system have settings with these words.
#[cfg(test)]
pub(crate) fn rows_named(system: MatrixSystem, words: &str) -> usize {
    rows::of(system).iter().filter(|row| is_named(row, words)).count()
}

/// Whether a row's name has the words, the first from its beginning: SYNC_FLUSH is not in ASYNC_FLUSH.
fn is_named(row: &Row, words: &str) -> bool {
    row.name.match_indices(words).any(|(at, _)| row.name[..at].chars().next_back().is_none_or(|before| before == ' '))
}

/// Runs the plan on the row's system, and notes its version.
fn play(stand: &mut Stand, row: &Row, plan: &Plan, cell: &mut LossCell) -> Result<Ran, Failure> {
    match &row.how {
        How::Reference => {
            cell.version = env!("CARGO_PKG_VERSION").to_owned();
            stand.run(plan, SystemName::Reference)
        }
        How::Kafka(settings) => {
            let system = match settings {
                Settings::Stock => SystemName::Kafka,
                Settings::Safest => SystemName::KafkaSafest,
            };
            let ran = stand.run(plan, system)?;
            if !stand.kafka_version().is_empty() {
                cell.version = stand.kafka_version().to_owned();
            }
            Ok(ran)
        }
        How::Driven(driven) => {
            let (ran, version) = driven.run(plan, stand.ground())?;
            cell.version = version;
            Ok(ran)
        }
    }
}

fn text(cell: &LossCell) -> String {
    if let Some(why) = &cell.not_tested {
        return format!("    {:18} not tested here: {why}", cell.faults);
    }
    let LossCell { runs, lost_in, acknowledged, lost, repeated, reordered, .. } = cell;
    let found = match lost_in {
        0 if *acknowledged == 0 => format!("nothing is acknowledged in {runs}"),
        0 => format!("not lost in {runs}"),
        lost_in => format!("lost in {lost_in} of {runs}"),
    };
    let promise = if cell.allowed { "may" } else { "never" };
    let broken = if cell.agrees() { "" } else { " BROKEN" };
    let recovery = match cell.recovery_ms {
        Some((median, worst)) => format!("; next acknowledged send: median ≤ {median} ms, worst ≤ {worst} ms"),
        None => String::new(),
    };
    format!(
        "    {:18} {found} ({promise}{broken}); records: {acknowledged} acknowledged, {lost} lost, {repeated} repeated, {reordered} reordered{recovery}",
        cell.faults
    )
}

/// Records that were acknowledged.
fn acknowledged(history: &History) -> u64 {
    let counts = history.operations.iter().map(|operation| match (&operation.call, &operation.outcome) {
        (Call::Produce { count, acks, .. }, Outcome::Done) if *acks != 0 => u64::from(*count),
        _ => 0,
    });
    counts.sum()
}

fn is_asked(arguments: &Arguments, column: &Column) -> bool {
    arguments.faults.is_empty() || arguments.faults.iter().any(|name| name == column.name)
}
