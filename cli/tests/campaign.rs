//! Campaigns as people run them: shards that add up, interruption and going on, coverage, guidance, proof of determinism,
//! JUnit's XML, and a replay that says where it diverges.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqassay"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn mqassay(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary that cargo built can be started")
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary folders have names in UTF-8")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines of `verify.jsonl`: trace hash by (scenario, seed), and the summary.
fn results(folder: &Path) -> (BTreeMap<(String, u64), String>, Value) {
    let text = std::fs::read_to_string(folder.join("verify.jsonl")).expect("the campaign wrote its results");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("lines are JSON")).collect();
    let summary = lines.pop().expect("the last line is the summary");
    let text = |line: &Value, field: &str| line[field].as_str().expect("a run's line has it").to_owned();
    let runs = lines.iter().map(|line| {
        ((text(line, "scenario"), line["seed"].as_u64().expect("seeds are numbers")), text(line, "trace_hash"))
    });
    (runs.collect(), summary)
}

#[test]
fn two_processes_as_shards_add_up_to_the_whole_campaign() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, one, two, sum] = ["whole", "one", "two", "sum"].map(|name| folder.path().join(name));
    // With a mutant, so that there are failures to group and artifacts to carry over.
    let campaign = ["verify", "no-loss", "--seeds", "1..12", "--mutant", "S1", "--jobs", "1", "--runs-dir"];
    let start = |more: &[&str]| {
        let arguments: Vec<&str> = campaign.iter().chain(more).copied().collect();
        command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary can be started")
    };
    let shards = [start(&[utf8(&one), "--shard", "1/2"]), start(&[utf8(&two), "--shard", "2/2"])];
    let mut all = start(&[utf8(&whole)]);
    assert_eq!(all.wait().unwrap().code(), Some(1), "S1 is caught within twelve seeds");
    shards.into_iter().for_each(|mut shard| assert!(shard.wait().unwrap().code().is_some_and(|code| code < 2)));
    let junit = folder.path().join("junit.xml");
    let merged = mqassay(&["merge", utf8(&one), utf8(&two), "-o", utf8(&sum), "--junit", utf8(&junit)]);
    assert_eq!(merged.status.code(), Some(1), "{}", stderr(&merged));

    let ((runs, summary), (merged_runs, mut merged_summary)) = (results(&whole), results(&sum));
    assert_eq!((runs.len(), &merged_runs), (12, &runs));
    let failures = merged_summary["failures"].as_object_mut().unwrap();
    assert_eq!(failures.len(), summary["failures"].as_object().unwrap().len());
    for (fingerprint, group) in failures {
        let path = group["plan"].as_str().unwrap().to_owned();
        assert!(path.starts_with(utf8(&sum)) && Path::new(&path).is_file(), "{fingerprint}: {path}");
        assert!(fingerprint.contains(" on ") && fingerprint.contains(" after "), "{fingerprint}");
        group["plan"] = summary["failures"][fingerprint]["plan"].clone();
    }
    assert_eq!(merged_summary, summary);
    let xml = std::fs::read_to_string(&junit).unwrap();
    let invalid = summary["invalid"].as_u64().unwrap();
    assert!(invalid > 0 && xml.contains(&format!("tests=\"12\" failures=\"{invalid}\" errors=\"0\"")), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), 12);

    let again = mqassay(&["merge", utf8(&one), utf8(&whole), "-o", utf8(&sum)]);
    assert_eq!(again.status.code(), Some(64), "the same run twice must not be added up");
    assert!(stderr(&again).contains("in common"), "{}", stderr(&again));
}

#[test]
fn a_campaign_goes_on_where_it_was_interrupted() {
    for guided in [None, Some("--guided")] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
        let campaign = |runs: &Path, more: &[&str]| {
            let mut arguments = vec!["verify", "no-loss", "points", "--seeds", "5..20", "--runs-dir", utf8(runs)];
            arguments.extend(guided);
            arguments.extend(more);
            mqassay(&arguments)
        };
        assert!(campaign(&whole, &[]).status.success());
        // What a process that was killed leaves: some runs, the last one cut off in the middle of its line.
        let journal = std::fs::read_to_string(whole.join("campaign.jsonl")).unwrap();
        let lines: Vec<&str> = journal.split_inclusive('\n').collect();
        assert_eq!(lines.len(), 17);
        let marked = lines[..11].concat().replace("\"operations\":", "\"operations\":1000");
        std::fs::create_dir(&cut).unwrap();
        std::fs::write(cut.join("campaign.jsonl"), marked + &lines[11][..40]).unwrap();
        let resumed = campaign(&cut, &["--resume"]);
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        let (runs, summary) = results(&cut);
        assert_eq!((runs, summary), results(&whole), "guided: {guided:?}");
        let text = std::fs::read_to_string(cut.join("verify.jsonl")).unwrap();
        let taken_over = text.matches("\"operations\":1000").count();
        assert_eq!(taken_over, 10, "ten runs come from the journal, six were run");
        assert_eq!(std::fs::read_to_string(cut.join("campaign.jsonl")).unwrap().lines().count(), 17);
        let other = campaign(&cut, &["--resume", "--without", "kill"]);
        assert_eq!(other.status.code(), Some(64), "{}", stderr(&other));
        assert!(stderr(&other).contains("another campaign"), "{}", stderr(&other));
    }
}

#[test]
fn every_class_of_fault_strikes_at_every_point_in_one_campaign() {
    let arguments = ["verify", "points", "log-cuts", "voter-changes", "--seeds", "1..360", "--keep", "none", "--json"];
    let output = mqassay(&arguments);
    assert!(output.status.success(), "{}", stdout(&output));
    let text = stdout(&output);
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let coverage = summary["coverage"].as_object().unwrap();
    assert_eq!(coverage.len(), 20);
    // A log is cut by a follower alone, in `log-cuts`, and voters change in `voter-changes`; a single node goes by all others.
    for (point, classes) in coverage {
        for class in ["kill", "power-loss", "pause"] {
            assert!(classes[class].as_u64().unwrap() > 0, "{class} never struck at {point}: {classes}");
        }
    }
    let told = stdout(&mqassay(&["verify", "points", "--seeds", "1..2", "--keep", "none", "--coverage"]));
    assert!(told.contains(" of 60 pairs of point and fault hit") && told.contains("never: "), "{told}");
}

#[test]
fn guided_campaigns_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let run = |jobs: &str| {
        let runs = folder.path().join(jobs);
        let arguments = ["verify", "points", "order", "--seeds", "1..40", "--guided", "--jobs", jobs, "--runs-dir"];
        let output = mqassay(&[arguments.as_slice(), &[utf8(&runs)]].concat());
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        results(&runs)
    };
    let guided = run("1");
    assert_eq!(guided, run("3"));
    let blind = folder.path().join("blind");
    mqassay(&["verify", "points", "order", "--seeds", "1..40", "--runs-dir", utf8(&blind)]);
    let changed = results(&blind).0.iter().filter(|(run, hash)| guided.0[run] != **hash).count();
    assert!((8..32).contains(&changed), "{changed} of 40 plans were chosen ones");
}

#[test]
fn runs_repeated_in_another_process_come_out_equal_and_a_difference_is_named() {
    let output = mqassay(&["verify", "--seeds", "1..16", "--keep", "none", "--prove-determinism", "1", "--json"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary["repeated"], serde_json::json!({"runs": 16, "differing": 0}));
    let some = mqassay(&["verify", "--seeds", "1..16", "--keep", "none", "--prove-determinism", "0.5"]);
    let told = stdout(&some);
    let line = told.lines().find(|line| line.contains("repeated in another process, 0 differ")).expect(&told);
    let count: u32 = line.split(' ').next().unwrap().parse().unwrap();
    assert!((1..16).contains(&count), "{line}");
}

#[test]
fn a_replay_says_at_which_event_it_parts_from_the_recorded_run() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    mqassay(&["verify", "no-loss", "--seeds", "3..3", "--keep", "all", "--runs-dir", utf8(&runs)]);
    let run = runs.join("no-loss/3");
    let plan = run.join("plan.json");
    let same = mqassay(&["replay", utf8(&plan)]);
    assert_eq!((same.status.code(), stderr(&same).as_str()), (Some(0), ""));

    // As another build would have recorded it: a hash of its own, and a trace that parts at event 100.
    let text = std::fs::read_to_string(&plan).unwrap();
    let trace = std::fs::read_to_string(run.join("trace.txt")).unwrap();
    let mut lines: Vec<&str> = trace.lines().collect();
    assert!(lines.len() > 1_000 && text.contains(lines[0]), "{} lines", lines.len());
    let other_hash = "0".repeat(32);
    std::fs::write(&plan, text.replace(lines[0], &other_hash)).unwrap();
    let differs = |hint: &str| {
        let output = mqassay(&["replay", utf8(&plan)]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "unknown at best: {told}");
        assert!(told.contains("DIFFERS") && told.contains(hint), "{told}");
        assert!(stdout(&output).contains("valid: no-loss seed 3"), "it goes on judging");
    };
    differs("every event is as recorded");
    lines[100] = "0.000000 nemesis something-else n=1";
    std::fs::write(run.join("trace.txt"), lines.join("\n")).unwrap();
    differs("number 100\n    expected: 0.000000 nemesis something-else n=1");
    std::fs::remove_file(run.join("trace.txt")).unwrap();
    differs("no events were recorded");
}
