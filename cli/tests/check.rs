//! `mqassay check` and `mqassay guarantees` as processes: exit codes, stable field names, both encodings.

use std::path::Path;
use std::process::{Command, Output};

use mqassay_harness::history::{Call, History, json, sample};
use serde_json::Value;

fn mqassay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqassay"))
        .args(arguments)
        .output()
        .expect("the binary that cargo built can be started")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

fn check(path: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let output = mqassay(&[&["check", "--json", path.to_str().expect("the path is UTF-8")], more].concat());
    (output.status.code(), lines(&output).pop().unwrap_or(Value::Null))
}

/// The history without what any poll delivered of the first batch that was acknowledged.
fn with_a_loss(mut history: History) -> History {
    let lost = history.operations.iter().find_map(|made| match &made.call {
        Call::Produce { first_value, queue, first_offset: Some(_), .. } => Some((*queue, *first_value)),
        _ => None,
    });
    for made in &mut history.operations {
        if let Call::Poll { runs, .. } = &mut made.call {
            runs.retain(|run| Some((run.queue, run.first_value)) != lost);
        }
    }
    history
}

#[test]
fn a_history_is_judged_in_either_encoding_and_the_exit_code_is_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("history");
    assert!(mqassay(&["history-sample", "3000", binary.to_str().unwrap()]).status.success());
    let (code, line) = check(&binary, &[]);
    assert_eq!((code, &line["verdict"], &line["operations"]), (Some(0), &"valid".into(), &3000.into()));
    let text = folder.path().join("history.jsonl");
    json::write(&with_a_loss(sample::sample(3_000, 1)), std::fs::File::create(&text).unwrap()).unwrap();
    let (code, line) = check(&text, &["--settings", "flush=os", "replication=3"]);
    assert_eq!((code, &line["verdict"]), (Some(1), &"invalid".into()), "{line}");
    assert!(line["anomalies"]["unseen"].as_u64() > Some(0), "{line}");
    let fields: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["allowed", "anomalies", "findings", "history", "marks", "operations", "unjudged", "verdict"]);
}

#[test]
fn what_cannot_be_judged_is_refused_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter");
    std::fs::write(&path, "no history").unwrap();
    let path = path.to_str().unwrap();
    for arguments in [
        &["check"][..],
        &["check", "no-such-file"],
        &["check", path],
        &["check", path, "--settings", "colour=red"],
        &["check", "--producer", path],
        &["guarantees", "--acks", "2"],
    ] {
        let output = mqassay(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "{arguments:?}");
    }
}

#[test]
fn guarantees_tell_what_a_power_loss_may_take_and_which_scenario_shows_it() {
    let os = lines(&mqassay(&["guarantees", "--acks", "all", "--flush", "os", "--rf", "1", "--json"]));
    let of_power_loss: Vec<&Value> = os.iter().filter(|line| line["fault"] == "power-loss").collect();
    let allows = |line: &&&Value| line["anomalies"].as_array().is_some_and(|all| all.contains(&"lost-write".into()));
    let loss = of_power_loss.iter().find(allows).expect("unsynced records may be lost");
    assert!(loss["scenarios"].as_array().unwrap().contains(&"no-loss".into()), "{loss}");
    assert!(os.last().unwrap()["never_allowed"].as_array().unwrap().contains(&"corrupt-payload".into()));
    let ack = lines(&mqassay(&["guarantees", "--flush", "ack", "--json"]));
    assert!(!ack.iter().filter(|line| line["fault"] == "power-loss").any(|line| allows(&&line)));
    let text = mqassay(&["guarantees", "--flush", "os"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("mqassay verify no-loss"));
}
