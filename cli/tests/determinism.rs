//! Determinism is proved, not hoped for: fifty plans, each run in two processes, must give equal trace hashes.
//! The gate runs this first.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Trace hash by (scenario, seed), as one process tells them.
fn hashes(jobs: &str) -> BTreeMap<(String, u64), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_mqassay"))
        .args(["verify", "--seeds", "1..50", "--json", "--keep", "none", "--jobs", jobs])
        .output()
        .expect("the binary that cargo built can be started");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    assert!(output.status.success(), "verify failed:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"))
        .filter(|line| line.get("summary").is_none())
        .map(|line| {
            let text = |field: &str| line[field].as_str().expect("a run's line has it").to_owned();
            ((text("scenario"), line["seed"].as_u64().expect("seeds are numbers")), text("trace_hash"))
        })
        .collect()
}

#[test]
fn the_same_plans_in_two_processes_give_equal_trace_hashes() {
    let (first, second) = (hashes("1"), hashes("2"));
    assert_eq!(first.len(), 50);
    let distinct: std::collections::BTreeSet<_> = first.values().collect();
    assert_eq!(distinct.len(), 50, "different plans must differ in their hashes");
    for (run, hash) in &first {
        assert_eq!(Some(hash), second.get(run), "scenario {} seed {} differs between two processes", run.0, run.1);
    }
}
