//! A run that differs in another process is noticed, and the first event that differs is named. The other process is a
//! script that answers with a recorded trace, changed at one event. One test starts all of them: a script cannot be started
//! while another thread's new process still has it open for writing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mqassay_harness::artifact::Proof;
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_scenarios::campaign::proof::{Prover, answer};
use mqassay_scenarios::catalogue;

fn plan() -> Plan {
    sample(&catalogue::find("no-loss").expect("it is built in"), 3, None)
}

/// A program that reads a plan and answers with a text, whatever it is asked.
fn program(folder: &Path, text: &str) -> Prover {
    let (script, said) = (folder.join("program"), folder.join("said"));
    std::fs::write(&said, text).expect("a temporary folder can be written");
    std::fs::write(&script, format!("#!/bin/sh\ncat > /dev/null\ncat '{}'\n", said.display()))
        .expect("a temporary folder can be written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("the script is there");
    Prover { share: 1.0, program: script }
}

#[test]
fn an_equal_answer_proves_and_a_changed_one_is_narrowed_to_its_event() {
    let (folder, plan) = (tempfile::tempdir().unwrap(), plan());
    let said = answer(&plan, true).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let hash = lines[0];
    assert!(lines.len() > 1_000);
    assert_eq!(program(folder.path(), &said).prove(&plan, hash).unwrap(), Proof::Same);

    let mut changed = lines.clone();
    let other_hash = "f".repeat(32);
    (changed[0], changed[700]) = (&other_hash, "something else");
    let proof = program(folder.path(), &changed.join("\n")).prove(&plan, hash).unwrap();
    let Proof::Differs { trace_hash, first: Some(first) } = proof else { panic!("not noticed: {proof:?}") };
    assert_eq!((trace_hash, first.event), (other_hash.clone(), 700));
    assert_eq!((first.expected.as_str(), first.found.as_str()), (lines[700], "something else"));

    changed[700] = lines[700];
    let proof = program(folder.path(), &changed.join("\n")).prove(&plan, hash).unwrap();
    assert_eq!(proof, Proof::Differs { trace_hash: other_hash, first: None }, "a difference that did not come again");

    // No answer is an error, and never a proof.
    let error = program(folder.path(), "").prove(&plan, "x").unwrap_err().to_string();
    assert!(error.contains("gave no trace hash") && error.contains("no-loss seed 3"), "{error}");
    let missing = Prover { share: 1.0, program: folder.path().join("missing") };
    assert!(missing.prove(&plan, "x").unwrap_err().to_string().contains("missing"));
}

#[test]
fn a_share_chooses_about_as_many_plans_and_always_the_same() {
    let scenario = catalogue::find("no-loss").unwrap();
    let prover = Prover { share: 0.25, program: "unused".into() };
    let chosen = || (1..=400).filter(|seed| prover.chooses(&sample(&scenario, *seed, None))).collect::<Vec<u64>>();
    assert!((60..140).contains(&chosen().len()), "{} of 400", chosen().len());
    assert_eq!(chosen(), chosen());
    let all = Prover { share: 1.0, ..prover.clone() };
    assert!((1..=50).all(|seed| all.chooses(&sample(&scenario, seed, None))));
}
