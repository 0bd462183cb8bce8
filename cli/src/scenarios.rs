//! `mqassay scenarios`: the built-in catalogue.

use mqassay_harness::plan::scenario::{Scenario, Span};
use mqassay_scenarios::catalogue;
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
}

#[derive(Serialize)]
struct Line<'a> {
    scenario: &'a str,
    title: &'a str,
    faults: Vec<&'static str>,
}

/// Lists the catalogue.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let scenarios = catalogue::catalogue();
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

/// Classes of fault that the scenario may draw.
fn fault_classes(scenario: &Scenario) -> Vec<&'static str> {
    let drawn = |span: Span| span.bounds().1 > 0;
    scenario.faults.classes().into_iter().filter(|(_, span)| drawn(*span)).map(|(name, _)| name).collect()
}
