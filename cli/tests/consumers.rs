//! The consumer's half as processes on the reference broker: idempotent sinks bear what the same ideas with one mistake do
//! not, acknowledging early loses, and the cause of a backlog is named from outside. Short forms of what `mqassay sinks`,
//! `mqassay backlog` and `mqassay diagnose` do at length.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::process::{Command, Output};

use serde_json::Value;

fn mqassay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqassay")).args(arguments).output().unwrap()
}

/// The JSON lines of a command that must exit with 0.
fn lines(arguments: &[&str]) -> Vec<Value> {
    let output = mqassay(arguments);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{error}", output.status);
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn idempotent_sinks_bear_a_consumers_deaths_and_their_mistaken_kin_do_not() {
    let sinks = "unique-index,offsets-in-transaction,mark-then-apply,apply-then-mark";
    let found = lines(&[
        "sinks",
        "run",
        "--json",
        "--messages",
        "300",
        "--sinks",
        sinks,
        "--faults",
        "kill-marked,kill-applied",
    ]);
    assert_eq!(found.len(), 8);
    let count = |sink: &str, fault: &str, name: &str| {
        let cell = found.iter().find(|one| one["sink"] == sink && one["fault"] == fault).unwrap();
        assert_eq!(cell["kills"], 3, "{cell}");
        cell[name].as_u64().unwrap()
    };
    for sink in ["unique-index", "offsets-in-transaction"] {
        for fault in ["kill-marked", "kill-applied"] {
            assert_eq!((count(sink, fault, "lost"), count(sink, fault, "doubled")), (0, 0), "{sink} {fault}");
        }
    }
    // Each of three deaths between the two transactions costs, or doubles, exactly one effect.
    assert_eq!(count("mark-then-apply", "kill-marked", "lost"), 3);
    assert_eq!(count("apply-then-mark", "kill-applied", "doubled"), 3);
}

#[test]
fn a_version_check_holds_back_what_came_too_early_and_a_redelivery_finds_a_forgetful_cache() {
    let sinks = "version-check,newest-version-wins,id-cache,forgetful-cache";
    let found =
        lines(&["sinks", "run", "--json", "--messages", "300", "--sinks", sinks, "--faults", "reorder,redelivery"]);
    let of = |sink: &str, fault: &str| found.iter().find(|one| one["sink"] == sink && one["fault"] == fault).unwrap();
    for (sink, fault) in [("version-check", "reorder"), ("version-check", "redelivery"), ("id-cache", "redelivery")] {
        assert_eq!((&of(sink, fault)["lost"], &of(sink, fault)["doubled"]), (&0.into(), &0.into()), "{sink} {fault}");
    }
    assert!(of("newest-version-wins", "reorder")["lost"].as_u64().unwrap() > 0);
    // A group that thought a slow consumer dead delivers some of it once more.
    assert!(of("forgetful-cache", "redelivery")["doubled"].as_u64().unwrap() >= 300);
    assert!(of("id-cache", "redelivery")["deliveries"].as_u64().unwrap() >= 600, "nothing came again");
}

#[test]
fn only_a_consumer_that_acknowledges_after_processing_loses_nothing() {
    let found = lines(&["sinks", "acknowledge", "--json"]);
    let sum = |acknowledge: &str, name: &str| -> u64 {
        found.iter().filter(|one| one["acknowledge"] == acknowledge).map(|one| one[name].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("after", "lost"), 0);
    assert!(sum("after", "repeated") > 0, "no death made anything come again");
    assert!(sum("before", "lost") > 0 && sum("automatic", "lost") > 0);
}

/// Whoever looks from outside sees how fast things move, and on a machine that stands still for seconds everything seems
/// stuck or nothing does: so one of a few looks must find the cause. What the cure does is the same each time.
#[test]
fn a_message_that_is_tried_for_ever_is_found_from_outside_and_the_dead_letter_drains_its_queue() {
    const LOOKS: usize = 4;
    let is_found = |_: &usize| {
        let arguments = ["backlog", "--runs", "1", "--cures", "1", "--causes", "poison-message", "--json"];
        let output = mqassay(&arguments);
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_str(out.lines().next().expect(&error)).unwrap();
        let cure = &told["cure"];
        assert_eq!((&cure["missing"], &cure["put_aside"]), (&0.into(), &1.into()), "{cure}\n{error}");
        let is_right = told["diagnosis"]["cause"] == "poison-message";
        assert_eq!(output.status.code(), Some(if is_right { 0 } else { 2 }), "{told}\n{error}");
        is_right && cure["drained_seconds"].is_number()
    };
    assert!((0..LOOKS).any(|look| is_found(&look)), "none of {LOOKS} looks named the message and saw its queue drain");
}

#[test]
fn names_that_are_not_known_are_refused_with_those_that_are() {
    for (arguments, known) in [
        (&["sinks", "run", "--sinks", "best"][..], "unique-index"),
        (&["sinks", "run", "--faults", "bad-luck"], "redelivery"),
        (&["sinks", "run", "--system", "rabbitmq"], "reference"),
        (&["backlog", "--causes", "moon"], "weak-consumer"),
    ] {
        let output = mqassay(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {error}");
        assert!(error.contains(known), "{error}");
    }
}
