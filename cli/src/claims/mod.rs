//! `mqassay claims`: the claims that the project began from, each an experiment that anyone can run again. The ledger is
//! data (`cli/claims/ledger.toml`); a verdict is computed from runs by the rules written there, and kept with them.

mod brokers;
mod experiments;
mod powerless;
mod practice;
mod rule;
mod simulated;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mqassay_benches::plan::LoadPlan;
use mqassay_harness::measure::result::BenchResult;
use mqassay_reports::{ClaimFigure, ClaimRow, ReportInput};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::report::write_page;
use crate::results::cannot;
use experiments::Experiment;
use rule::{Outcome, Rule};

/// Arguments of `mqassay claims`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the claims, and what those that are not tested here lack
    List,
    /// Run the experiments of claims, all that can be run without a name, and write the page
    Run(Run),
    /// Write the page again from what was run
    Report(Place),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Claims, as in C15
    ids: Vec<String>,
    /// Systems in place of the claim's
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    systems: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Where results and the page are kept
    #[arg(long, value_name = "DIR", default_value = "claims")]
    out: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ledger {
    claim: Vec<Claim>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    id: String,
    text: String,
    #[serde(default)]
    plans: Vec<String>,
    /// What is run in place of plans.
    experiment: Option<Experiment>,
    #[serde(default)]
    systems: Vec<String>,
    #[serde(default)]
    rule: Vec<Rule>,
    /// What is missing, where it is not tested here.
    needs: Option<String>,
}

/// What is kept of a claim that was run.
#[derive(Debug, Serialize, Deserialize)]
struct Tested {
    id: String,
    command: String,
    outcomes: Vec<Outcome>,
    results: Vec<BenchResult>,
}

/// Lists, runs or reports. A claim that does not hold is a result and no failure.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let ledger = ledger();
    match &arguments.action {
        Action::List => {
            for claim in &ledger.claim {
                let state =
                    claim.needs.as_ref().map_or("tested".to_owned(), |needs| format!("not tested here: {needs}"));
                tell(&format!("{:4} {}\n       {state}", claim.id, claim.text));
            }
            Ok(Exit::Valid)
        }
        Action::Run(run) => run_claims(&ledger, run),
        Action::Report(place) => write_ledger(&ledger, &place.out).map(|()| Exit::Valid),
    }
}

fn ledger() -> Ledger {
    toml::from_str(LEDGER).expect("the ledger that is built in parses, as a test shows")
}

fn run_claims(ledger: &Ledger, run: &Run) -> Result<Exit, Failure> {
    let chosen: Vec<&Claim> = if run.ids.is_empty() {
        ledger.claim.iter().filter(|claim| claim.needs.is_none()).collect()
    } else {
        let find = |id: &String| {
            let found = ledger.claim.iter().find(|claim| claim.id.eq_ignore_ascii_case(id));
            found.ok_or_else(|| Failure::Usage(format!("no claim is called {id:?}; see: mqassay claims list")))
        };
        run.ids.iter().map(find).collect::<Result<_, _>>()?
    };
    std::fs::create_dir_all(&run.place.out).map_err(|error| cannot("make the folder", &run.place.out, error))?;
    let mut exit = Exit::Valid;
    for claim in chosen {
        if let Some(needs) = &claim.needs {
            tell(&format!("{} not tested here: {needs}", claim.id));
            continue;
        }
        let systems = if run.systems.is_empty() { &claim.systems } else { &run.systems };
        let mut results = Vec::new();
        for name in &claim.plans {
            let plan = LoadPlan::named(name).map_err(Failure::usage)?;
            let result = bench::measure(&plan, systems)?;
            exit = exit.max(bench::exit(&result));
            results.push(result);
        }
        if let Some(experiment) = claim.experiment {
            results = experiments::run(experiment, systems)?;
            exit = results.iter().map(bench::exit).fold(exit, Exit::max);
        }
        let outcomes: Vec<Outcome> = claim.rule.iter().map(|rule| rule.apply(&results)).collect();
        for outcome in &outcomes {
            tell(&format!("{} {}: {}, {}", claim.id, outcome.system, word(outcome.holds), outcome.figure));
        }
        let mut command = format!("mqassay claims run {}", claim.id);
        if !run.systems.is_empty() {
            command.push_str(&format!(" --systems {}", run.systems.join(",")));
        }
        keep(&run.place.out, &Tested { id: claim.id.clone(), command, outcomes, results })?;
    }
    write_ledger(ledger, &run.place.out)?;
    Ok(exit)
}

fn word(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "holds",
        Some(false) => "does not hold",
        None => "not shown",
    }
}

/// Keeps what was run.
fn keep(folder: &Path, tested: &Tested) -> Result<(), Failure> {
    let path = folder.join(format!("{}.json", tested.id));
    let text = serde_json::to_string_pretty(tested).map_err(Failure::undone)?;
    std::fs::write(&path, text).map_err(|error| cannot("write", &path, error))
}

/// The page with a claim's figures and charts.
fn write_charts(folder: &Path, claim: &Claim, tested: &Tested) -> Result<(), Failure> {
    let title = format!("{}: {}", tested.id, claim.text);
    let manifest = tested.results.first().map(|result| result.manifest.clone()).unwrap_or_default();
    let input = ReportInput { title, manifest, benches: tested.results.clone(), ..ReportInput::default() };
    write_page(&input, &folder.join(format!("{}.html", tested.id)))
}

/// The page of all claims and those with their charts, from what was kept: the rules are applied to the figures again.
fn write_ledger(ledger: &Ledger, folder: &Path) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for claim in &ledger.claim {
        let path = folder.join(format!("{}.json", claim.id));
        let mut tested: Option<Tested> = match std::fs::read_to_string(&path) {
            Ok(text) => Some(serde_json::from_str(&text).map_err(Failure::undone)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot("read", &path, error)),
        };
        if let Some(tested) = &mut tested {
            tested.outcomes = claim.rule.iter().map(|rule| rule.apply(&tested.results)).collect();
            write_charts(folder, claim, tested)?;
        }
        rows.extend(rows_of(claim, tested.as_ref()));
    }
    let page = mqassay_reports::render_claims(&rows).map_err(Failure::undone)?;
    let path = folder.join("claims.html");
    std::fs::write(&path, page).map_err(|error| cannot("write", &path, error))?;
    tell(&format!("claims: {}", path.display()));
    Ok(())
}

/// One row per system of a claim that was run, else one that says what is missing.
fn rows_of(claim: &Claim, tested: Option<&Tested>) -> Vec<ClaimRow> {
    let row =
        |system: &str, version: &str, verdict: &str, figures: Vec<ClaimFigure>, tested: Option<&Tested>| ClaimRow {
            id: claim.id.clone(),
            text: claim.text.clone(),
            system: system.to_owned(),
            version: version.to_owned(),
            verdict: verdict.to_owned(),
            figures,
            plans: claim.experiment.map_or_else(|| claim.plans.join(", "), |experiment| experiment.gives().join(", ")),
            command: tested.map(|tested| tested.command.clone()).unwrap_or_default(),
            chart: tested.map(|tested| format!("{}.html", tested.id)).unwrap_or_default(),
        };
    let Some(tested) = tested else {
        let missing = claim.needs.clone().unwrap_or_else(|| format!("run it with: mqassay claims run {}", claim.id));
        let missing = ClaimFigure { verdict: String::new(), text: missing };
        return vec![row("", "", "not tested here", vec![missing], None)];
    };
    let version = |system: &str| {
        let name = format!("{system} version");
        tested.results.iter().find_map(|result| result.manifest.get(&name)).cloned().unwrap_or_default()
    };
    let mut systems: Vec<&str> = Vec::new();
    for outcome in &tested.outcomes {
        if !systems.contains(&outcome.system.as_str()) {
            systems.push(&outcome.system);
        }
    }
    let of_system = |system: &str| {
        let outcomes: Vec<&Outcome> = tested.outcomes.iter().filter(|one| one.system == system).collect();
        let figure = |one: &&Outcome| ClaimFigure { verdict: word(one.holds).to_owned(), text: one.figure.clone() };
        row(system, &version(system), word(together(&outcomes)), outcomes.iter().map(figure).collect(), Some(tested))
    };
    systems.into_iter().map(of_system).collect()
}

/// A claim holds of a system where each of its rules does; one that does not is enough against it.
fn together(outcomes: &[&Outcome]) -> Option<bool> {
    if outcomes.iter().any(|one| one.holds == Some(false)) {
        return Some(false);
    }
    outcomes.iter().all(|one| one.holds == Some(true)).then_some(true)
}

const LEDGER: &str = include_str!("../../claims/ledger.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_holds_the_27_claims_and_each_is_tested_or_says_what_is_missing() {
        let ledger = ledger();
        let mut ids: Vec<String> = ledger.claim.iter().map(|claim| claim.id.clone()).collect();
        ids.sort();
        let mut wanted: Vec<String> = (1..=27).map(|number| format!("C{number}")).collect();
        wanted.sort();
        assert_eq!(ids, wanted);
        for claim in &ledger.claim {
            let is_tested = (claim.experiment.is_some() || !claim.plans.is_empty())
                && !claim.systems.is_empty()
                && !claim.rule.is_empty();
            assert_ne!(is_tested, claim.needs.is_some(), "{}", claim.id);
            for plan in &claim.plans {
                LoadPlan::named(plan).unwrap();
            }
            for rule in &claim.rule {
                assert!(claim.systems.contains(&rule.system), "{}: {rule:?}", claim.id);
                let gives = claim.experiment.map(Experiment::gives).unwrap_or_default();
                let is_known = |plan: &String| {
                    let begins = plan.split('/').next().unwrap_or_default();
                    claim.plans.contains(plan) || gives.contains(&begins)
                };
                assert!(rule.plan.iter().chain(&rule.over_plan).all(is_known), "{rule:?}");
            }
        }
    }

    #[test]
    fn a_claim_that_was_not_run_says_what_to_do() {
        let ledger = ledger();
        let claim = |id: &str| ledger.claim.iter().find(|claim| claim.id == id).unwrap();
        assert!(rows_of(claim("C15"), None)[0].figures[0].text.contains("mqassay claims run C15"));
        assert_eq!(rows_of(claim("C13"), None)[0].verdict, "not tested here");
    }

    #[test]
    fn a_claim_holds_of_a_system_where_all_rules_do() {
        let outcome = |system: &str, holds| Outcome { system: system.to_owned(), holds, figure: "f".to_owned() };
        let cases = [
            (vec![Some(true), Some(true)], "holds"),
            (vec![Some(true), None], "not shown"),
            (vec![None, Some(false)], "does not hold"),
        ];
        for (rules, expected) in cases {
            let mut outcomes: Vec<Outcome> = rules.iter().map(|holds| outcome("kafka", *holds)).collect();
            outcomes.push(outcome("rocketmq", Some(true)));
            let tested = Tested { id: "C15".to_owned(), command: String::new(), outcomes, results: Vec::new() };
            let ledger = ledger();
            let claim = ledger.claim.iter().find(|claim| claim.id == "C15").unwrap();
            let rows = rows_of(claim, Some(&tested));
            let found: Vec<(&str, &str)> = rows.iter().map(|row| (row.system.as_str(), row.verdict.as_str())).collect();
            assert_eq!(found, [("kafka", expected), ("rocketmq", "holds")]);
            assert_eq!(rows[0].figures.len(), 2);
        }
    }
}
