//! Bad arguments, files and plans get one clear line that says what to do, and exit code 64.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::process::{Command, Output};

fn mqassay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqassay"))
        .args(arguments)
        .output()
        .expect("the binary that cargo built can be started")
}

#[test]
fn what_cannot_be_done_is_told_in_one_line_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.toml");
    std::fs::write(&bad, "name = \"bad\"\ntitle = \"t\"\n[workload]\nrecords = [9, 1]\n").unwrap();
    let not_a_plan = folder.path().join("plan.json");
    std::fs::write(&not_a_plan, "{\"schema\": 1}").unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["verify", "no-los"], "no-loss"),
        (&["verify", "--seeds", "9..1"], "seeds"),
        (&["verify", "--seeds", "one"], "seeds"),
        (&["verify", "--mutant", "S99"], "S1"),
        (&["verify", bad.to_str().unwrap()], "workload.records"),
        (&["replay", "missing.json"], "missing.json"),
        (&["replay", not_a_plan.to_str().unwrap()], "plan"),
        (&["bench", "missing.toml"], "missing.toml"),
        (&["broker", "--data", folder.path().to_str().unwrap(), "--flush", "never"], "ack"),
        (&["no-such-command"], "no-such-command"),
    ];
    for (arguments, hint) in cases {
        let output = mqassay(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {told}");
        assert!(told.contains(hint), "{arguments:?} must name {hint:?}: {told}");
        assert!(!told.contains("panicked"), "{arguments:?}: {told}");
    }
}
