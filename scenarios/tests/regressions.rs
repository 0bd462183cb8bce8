//! Every plan of `scenarios/regressions` still shows what `expected.toml` says: with its mutant the anomaly, without it
//! nothing. A new plan is a file there, as `mqassay shrink` writes it, and a line in `expected.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mqassay_broker::mutant::Mutant;
use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::artifact::folder::read_plan;
use mqassay_harness::driver::mutant::ClientMutant;
use mqassay_harness::guarantee::Anomaly;
use mqassay_scenarios::runner::{Record, run_plan};
use mqassay_scenarios::score_table::{self, EXPECTED};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// Anomalies by name of the plan's file.
fn expected() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join(EXPECTED)).expect("the folder has its index");
    toml::from_str(&text).expect("the index names an anomaly for each file")
}

#[test]
fn every_plan_has_an_expectation_and_every_expectation_a_plan() {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let plans: BTreeSet<String> = files.filter(|name| name != EXPECTED).collect();
    assert_eq!(plans, expected().into_keys().collect());
    let anomalies: Vec<&str> = Anomaly::ALL.map(Anomaly::name).into();
    for (file, anomaly) in expected() {
        assert!(anomalies.contains(&anomaly.as_str()), "{file}: {anomaly} is no anomaly");
    }
}

#[test]
fn every_mutant_has_a_plan() {
    let plans = expected().into_keys().map(|file| read_plan(&folder().join(file)).unwrap());
    let with: BTreeSet<String> = plans.filter_map(|plan| plan.culprit().map(str::to_owned)).collect();
    let brokers = Mutant::ALL.iter().map(|mutant| mutant.name());
    let clients = ClientMutant::ALL.iter().map(|mutant| mutant.name());
    let all: BTreeSet<String> = brokers.chain(clients).map(str::to_owned).collect();
    let without: Vec<&str> = all.difference(&with).map(String::as_str).collect();
    assert!(without.is_empty(), "shrink plans that catch {without:?}: mqassay mutants run --shrink");
    assert!(with.is_subset(&all));
}

#[test]
fn the_table_in_the_readme_is_what_the_plans_show() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let table = score_table::table(&folder()).unwrap();
    let current = score_table::placed(&readme, &table).unwrap();
    assert_eq!(readme, current, "write it again: mqassay mutants table --into README.md");
}

#[test]
fn a_plan_shows_its_anomaly_with_its_mutant_and_nothing_without() {
    for (file, anomaly) in expected() {
        let mut plan = read_plan(&folder().join(&file)).unwrap();
        if plan.culprit().is_some() {
            let run = run_plan(&plan, Record::HashOnly).unwrap();
            assert!(run.line.anomalies.contains_key(&anomaly), "{file} shows {:?}", run.line.anomalies);
        }
        (plan.mutant, plan.client_mutant) = (None, None);
        let run = run_plan(&plan, Record::HashOnly).unwrap();
        assert_eq!(run.line.verdict, VerdictKind::Valid, "{file} without a mutant: {:#?}", run.verdict);
    }
}
