//! Runs through drivers: the documented example, which must be judged clean, and ones that break in every way.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::check::{Context, Verdict, judge};
use mqassay_harness::external::{ExternalError, ExternalOptions, Hooks, run};
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::plan::scenario::Scenario;

const SCENARIO: &str = r#"
name = "toy"
title = "A driver."
[world]
safety_ms = 300
[workload]
batches = 80
polls = 40
seeks = 6
list_offsets = 10
delete_records = 2
[faults]
kill = 2
down-ms = 20
"#;

const BEGAN_WALL_MS: i64 = 1_700_000_000_000;

fn options(command: &[&str], hooks: Hooks) -> ExternalOptions {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    ExternalOptions { command, request_timeout: Duration::from_secs(10), hooks, began_wall_ms: BEGAN_WALL_MS }
}

fn plan(seed: u64) -> Plan {
    sample(&Scenario::parse("toy.toml", SCENARIO).expect("the scenario above is well-formed"), seed, None)
}

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/driver_example.py").display().to_string()
}

fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_example_is_valid_and_its_forgetful_form_is_caught() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let struck = folder.path().join("struck");
    let say = |what: &str| Some(format!("echo {what} {{node}} >> '{}'", struck.display()));
    let hooks = Hooks { kill: say("kill"), restart: say("restart") };
    let plan = plan(3);
    let context = Context::of_plan(&plan).with_wall_start_ms(BEGAN_WALL_MS);
    let history = run(&plan, &options(&["python3", &example()], hooks)).unwrap();
    let verdict = judge(&history, &context);
    assert_eq!(verdict.kind, VerdictKind::Valid, "{verdict:?}");
    assert!(history.operations.len() > plan.operation_count(), "{}", history.operations.len());
    let struck = std::fs::read_to_string(struck).unwrap();
    assert_eq!(struck.matches("kill 0").count(), 2, "{struck}");
    assert_eq!(struck.matches("restart 0").count(), 2, "{struck}");
    let history = run(&plan, &options(&["python3", &example(), "forget"], Hooks::default())).unwrap();
    let found = judge(&history, &context).violations();
    assert!(found.contains_key("unseen") || found.contains_key("inconsistent-offsets"), "{found:?}");
}

/// The toy broker as a process of its own; ended with the test, by its own id.
struct Toy {
    folder: tempfile::TempDir,
    script: String,
}

impl Toy {
    fn new() -> Toy {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/toy_broker.py").display().to_string();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("0")).unwrap();
        Toy { folder, script }
    }

    /// The folder of the node whose number a hook fills in.
    fn node(&self) -> String {
        format!("{}/{{node}}", self.folder.path().display())
    }

    /// A hook's command that starts the broker and ends once it listens.
    fn start(&self, word: &str) -> String {
        let (script, node) = (&self.script, self.node());
        format!(
            "python3 '{script}' serve '{node}' {word} & \
             until test -e '{node}/port' || ! kill -0 $!; do sleep 0.01; done; test -e '{node}/port'"
        )
    }

    fn kill(&self) -> String {
        let node = self.node();
        format!("rm '{node}/port' && kill -9 $(cat '{node}/pid') && echo killed >> '{node}/kills'")
    }

    /// Runs a plan against it, struck by the hooks; gives the verdict.
    fn judged(&self, word: &str) -> Verdict {
        let start = self.start(word);
        let started = Command::new("sh").args(["-c", &start.replace("{node}", "0")]).status().unwrap();
        assert!(started.success(), "{start}");
        let hooks = Hooks { kill: Some(self.kill()), restart: Some(start) };
        let plan = plan(5);
        let node = self.node().replace("{node}", "0");
        let history = run(&plan, &options(&["python3", &self.script, "drive", &node], hooks)).unwrap();
        let kills = std::fs::read_to_string(format!("{node}/kills")).unwrap();
        assert_eq!(kills.lines().count(), 2, "{kills}");
        judge(&history, &Context::of_plan(&plan).with_wall_start_ms(BEGAN_WALL_MS))
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.folder.path().join("0/pid")).unwrap_or_default();
        // A toy that never started has no id, and then there is nothing to end.
        let _ = Command::new("kill").args(["-9", pid.trim()]).status();
    }
}

#[test]
fn a_broker_that_hooks_kill_is_valid_and_its_lossy_form_is_caught() {
    if !has_python() {
        return;
    }
    let verdict = Toy::new().judged("");
    assert_eq!(verdict.kind, VerdictKind::Valid, "{verdict:?}");
    let verdict = Toy::new().judged("lossy");
    assert_eq!(verdict.kind, VerdictKind::Invalid, "{verdict:?}");
    let found = verdict.violations();
    assert!(found.contains_key("unseen") || found.contains_key("inconsistent-offsets"), "{found:?}");
}

#[test]
fn a_hook_that_fails_ends_the_run_without_a_verdict() {
    if !has_python() {
        return;
    }
    let hooks = Hooks { kill: Some("exit 3".to_owned()), restart: Some("true".to_owned()) };
    let error = run(&plan(3), &options(&["python3", &example()], hooks)).unwrap_err();
    assert!(matches!(error, ExternalError::Hook { .. }), "{error}");
    assert!(error.to_string().contains("exit 3"), "{error}");
}

#[test]
fn a_driver_that_is_none_ends_the_run_with_what_it_did() {
    let refused = |command: &[&str]| run(&plan(1), &options(command, Hooks::default())).unwrap_err();
    assert!(matches!(refused(&["no-such-driver"]), ExternalError::NotStarted { .. }));
    for command in [&["true"][..], &["sh", "-c", "read line; echo hello"]] {
        let error = refused(command);
        assert!(matches!(error, ExternalError::NoTopic { .. } | ExternalError::Broken { .. }), "{error}");
    }
}
