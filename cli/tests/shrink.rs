//! Plans that break a guarantee become small, stay broken in the same way, and replay from the file they are written
//! to.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn mqassay(arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mqassay"))
        .args(arguments)
        .output()
        .expect("the binary that cargo built can be started");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    (output.status.code(), lines, text + &String::from_utf8_lossy(&output.stderr))
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("the folder's path is text")
}

/// The plan without the comment, which names the file.
fn plan_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("the small plan was written");
    text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_failing_run_offers_to_be_shrunk_and_the_small_plan_fails_alike_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let verify = ["verify", "no-loss", "--mutant", "S1", "--seeds", "5", "--runs-dir", text_of(folder.path())];
    let (code, _, told) = mqassay(&verify);
    let plan = path("no-loss@S1").join("5").join("plan.json");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(&format!("mqassay shrink {} -o ", plan.display())), "{told}");
    for jobs in ["1", "3"] {
        let small = path(&format!("small-{jobs}.toml"));
        // Bounded by what is tried, not by time: the result is the same on a slow machine.
        let arguments = ["shrink", text_of(&plan), "-o", text_of(&small), "--tries", "20000", "--jobs", jobs, "--json"];
        let (code, lines, told) = mqassay(&arguments);
        assert_eq!((code, lines.len()), (Some(1), 1), "{told}");
        let line = &lines[0];
        assert_eq!((&line["anomaly"], &line["minimal"]), (&Value::from("lost-write"), &Value::from(true)), "{line}");
        assert!(line["faults"].as_u64() <= Some(5) && line["operations"].as_u64() <= Some(20), "{line}");
        assert!(line["operations_before"].as_u64() >= Some(200), "{line}");
        let (code, lines, told) = mqassay(&["replay", text_of(&small), "--json"]);
        assert_eq!(code, Some(1), "{told}");
        assert!(lines[0]["anomalies"]["lost-write"].as_u64() >= Some(1), "{told}");
    }
    assert_eq!(plan_of(&path("small-1.toml")), plan_of(&path("small-3.toml")));
}

#[test]
fn a_plan_that_breaks_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let runs = text_of(folder.path());
    let (code, _, told) = mqassay(&["verify", "order", "--seeds", "1", "--runs-dir", runs, "--keep", "all"]);
    assert_eq!(code, Some(0), "{told}");
    let plan = folder.path().join("order").join("1").join("plan.json");
    let small = folder.path().join("small.toml");
    let (code, _, told) = mqassay(&["shrink", text_of(&plan), "-o", text_of(&small)]);
    assert_eq!(code, Some(64), "{told}");
    assert!(told.contains("nothing to shrink") && !small.exists(), "{told}");
}

/// Candidates for each plan at most; the mutants below need fewer.
const TRIES: &str = "6000";

/// The plans have at least 8 faults and 200 operations; nine of ten become at most 5 and 20.
#[test]
fn crowded_plans_that_catch_mutants_become_small() {
    let folder = tempfile::tempdir().unwrap();
    let runs = text_of(folder.path());
    let mut arguments = vec!["mutants", "run", "--crowded", "--shrink-tries", TRIES, "--json", "--runs-dir", runs];
    // Those whose plans take thousands of runs to become small are left to the command.
    let mutants =
        ["S1", "S2", "S6", "P3", "window-not-recovered", "torn-tail-kept", "R1", "P1", "S4", "S12", "P4", "R10"];
    mutants.iter().for_each(|name| arguments.extend(["--mutant", name]));
    let (_, lines, told) = mqassay(&arguments);
    let (_, mutants) = lines.split_last().expect("there is a summary");
    assert!(mutants.len() >= 6 && mutants.iter().all(|line| line["caught"] == true), "{told}");
    let small = mutants.iter().filter(|line| {
        let shrunk = |field: &str| line["shrunk"][field].as_u64().expect("a caught mutant's plan is shrunk");
        assert!(shrunk("faults_before") >= 8 && shrunk("operations_before") >= 200, "{line}");
        assert!(Path::new(line["shrunk"]["plan"].as_str().unwrap()).exists(), "{line}");
        shrunk("faults") <= 5 && shrunk("operations") <= 20
    });
    assert!(small.count() * 10 >= mutants.len() * 9, "{told}");
}
