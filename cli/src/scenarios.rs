//! `mqassay scenarios`: the built-in catalogue.

use std::path::PathBuf;

use mqassay_harness::plan::scenario::{Scenario, Span};
use mqassay_scenarios::catalogue;
use mqassay_scenarios::loss_matrix::{self, Cell, MatrixOptions};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;

/// Arguments of `mqassay scenarios`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What else can be asked of the scenarios.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Find by runs which settings of durability lose acknowledged records under which faults
    Matrix(MatrixArguments),
}

/// Arguments of `mqassay scenarios matrix`.
#[derive(Debug, clap::Args)]
struct MatrixArguments {
    /// Runs of each cell
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: u64,
    /// Where artifacts of runs that break a guarantee go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
}

/// A cell of a loss matrix, for programs.
#[derive(Debug, Serialize)]
struct CellLine<'a> {
    acks: &'a str,
    min_insync: u32,
    flush: &'a str,
    unclean: bool,
    failover: bool,
    faults: &'a str,
    runs: u64,
    lost: u64,
    allowed: bool,
    invalid: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    scenario: &'a str,
    title: &'a str,
    faults: Vec<&'static str>,
}

/// Lists the catalogue.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if let Some(Action::Matrix(matrix)) = &arguments.action {
        return print_matrix(matrix);
    }
    let scenarios = catalogue::all();
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    for scenario in &scenarios {
        let line = Line { scenario: &scenario.name, title: &scenario.title, faults: fault_classes(scenario) };
        if arguments.json {
            tell(&json_line(&line)?);
        } else {
            tell(&format!("{:width$}  {}", line.scenario, line.title));
            tell(&format!("{:width$}  faults: {}", "", line.faults.join(", ")));
        }
    }
    Ok(Exit::Valid)
}

/// Fills the loss matrix; a cell that breaks a guarantee makes the answer invalid.
fn print_matrix(arguments: &MatrixArguments) -> Result<Exit, Failure> {
    let options = MatrixOptions {
        runs: arguments.runs,
        jobs: usize::try_from(arguments.jobs).unwrap_or(1),
        runs_dir: arguments.runs_dir.clone(),
    };
    let mut broken: Option<serde_json::Error> = None;
    let mut row: Vec<String> = Vec::new();
    let cells = loss_matrix::run(&options, &mut |cell| {
        if arguments.json {
            match serde_json::to_string(&cell_line(cell)) {
                Ok(line) => tell(&line),
                Err(error) => broken = Some(error),
            }
            return;
        }
        if row.is_empty() {
            tell(&settings_of(cell));
        }
        row.push(cell.text());
        tell(&format!("    {:18} {}", cell.faults, cell.text()));
        if row.len() == loss_matrix::COLUMNS.len() {
            row.clear();
        }
    });
    let cells = cells.map_err(|error| Failure::Undone(error.into()))?;
    if let Some(error) = broken {
        return Err(Failure::Undone(error.into()));
    }
    Ok(if cells.iter().all(Cell::agrees) { Exit::Valid } else { Exit::Violation })
}

fn settings_of(cell: &Cell) -> String {
    let settings = &cell.durability;
    let election = if settings.unclean { "unclean" } else { "clean" };
    let failover = if settings.failover { "on" } else { "off" };
    format!(
        "acks={} min.insync.replicas={} flush={} election={election} failover={failover}",
        loss_matrix::acks_name(settings.acks),
        settings.min_insync,
        loss_matrix::flush_name(settings.flush)
    )
}

fn cell_line(cell: &Cell) -> CellLine<'_> {
    CellLine {
        acks: loss_matrix::acks_name(cell.durability.acks),
        min_insync: cell.durability.min_insync,
        flush: loss_matrix::flush_name(cell.durability.flush),
        unclean: cell.durability.unclean,
        failover: cell.durability.failover,
        faults: cell.faults,
        runs: cell.runs,
        lost: cell.lost,
        allowed: cell.is_allowed,
        invalid: cell.invalid,
    }
}

/// Classes of fault that the scenario may draw.
fn fault_classes(scenario: &Scenario) -> Vec<&'static str> {
    let drawn = |span: Span| span.bounds().1 > 0;
    scenario.faults.classes().into_iter().filter(|(_, span)| drawn(*span)).map(|(name, _)| name).collect()
}
