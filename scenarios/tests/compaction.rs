//! Compacted topics in the simulated world: nothing goes that must stay, at whatever step of a pass a node is struck; and
//! the judge sees the two mutants that concern what outlives a segment.

use mqassay_broker::points;
use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::plan::sample::sample;
use mqassay_scenarios::catalogue;
use mqassay_scenarios::runner::{Record, Run, run_plan};

fn run(scenario: &str, seed: u64, mutant: Option<&str>) -> Run {
    let scenario = catalogue::find(scenario).expect("the scenario is built in");
    let mut plan = sample(&scenario, seed, None);
    plan.mutant = mutant.map(str::to_owned);
    run_plan(&plan, Record::HashOnly).expect("the plan is sound")
}

#[test]
fn compacted_topics_keep_what_they_must() {
    let mut passes = 0;
    for seed in 1..=SEEDS {
        let run = run("compaction", seed, None);
        assert_eq!(run.line.verdict, VerdictKind::Valid, "seed {seed}: {:#?}", run.verdict);
        passes += run.events.get(points::COMPACTION).copied().unwrap_or(0);
    }
    assert!(passes > SEEDS, "{passes} passes of compaction in {SEEDS} runs");
}

#[test]
fn a_tombstone_that_goes_before_its_time_is_missed() {
    let is_caught = |seed: &u64| run("compaction", *seed, Some("S12")).line.verdict == VerdictKind::Invalid;
    assert!((1..=SEEDS).any(|seed| is_caught(&seed)));
}

const SEEDS: u64 = 12;
