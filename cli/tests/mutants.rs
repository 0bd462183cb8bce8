//! The judge sees: every mutant is caught within its seeds by the anomaly it causes, and without the class of fault that
//! it needs nobody is blamed.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::process::Command;

use serde_json::Value;

fn lines(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_mqassay"))
        .args(arguments)
        .output()
        .expect("the binary that cargo built can be started");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    (output.status.code(), lines)
}

#[test]
fn every_mutant_is_caught_and_the_clean_broker_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().to_str().unwrap();
    let (code, lines) = lines(&["mutants", "run", "--json", "--runs-dir", runs]);
    let (summary, mutants) = lines.split_last().expect("there is a summary");
    for line in mutants {
        assert_eq!(line["caught"], true, "{line}");
        let most = if line["grade"] == "easy" { 20 } else { 500 };
        assert!(line["seeds_tried"].as_u64().unwrap() <= most, "{line}");
    }
    assert_eq!(summary["mutants"], summary["caught"], "{summary}");
    assert_eq!(summary["false_alarms"], 0, "{summary}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_mutant_without_its_class_of_fault_is_green() {
    let (_, table) = lines(&["mutants", "--json"]);
    assert!(table.len() >= 6);
    for row in &table {
        let text = |field: &str| row[field].as_str().expect("the table's field is text").to_owned();
        let mutant = text("mutant");
        let scenario = row["scenarios"][0].as_str().unwrap().to_owned();
        let mut arguments =
            vec!["verify", &scenario, "--mutant", &mutant, "--seeds", "1..50", "--keep", "none", "--json"];
        let needs: Vec<&str> = row["needs"].as_array().unwrap().iter().map(|class| class.as_str().unwrap()).collect();
        if needs.is_empty() {
            // What clients do of themselves suffices.
            continue;
        }
        needs.iter().for_each(|class| arguments.extend(["--without", class]));
        let (code, lines) = lines(&arguments);
        assert_eq!(code, Some(0), "{mutant} without {needs:?}: {lines:#?}");
    }
}
