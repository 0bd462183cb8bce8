//! Clusters under faults, seen from inside: the invariants of `mqassay_scenarios::whitebox` hold among the replicas.

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::plan::sample::sample;
use mqassay_scenarios::runner::{Record, run_plan};
use mqassay_scenarios::{catalogue, whitebox};

#[test]
fn replicas_agree_on_all_that_was_confirmed_through_failovers_and_partitions() {
    let mut judged = 0;
    for (name, seeds) in [("failover", 1..=2), ("partition", 1..=2)] {
        let scenario = catalogue::find(name).unwrap();
        for seed in seeds {
            let plan = sample(&scenario, seed, None);
            let run = run_plan(&plan, Record::WhiteBox).unwrap();
            assert_eq!(run.line.verdict, VerdictKind::Valid, "{name} seed {seed}: {:#?}", run.verdict);
            if whitebox::may_lose(&plan) {
                continue;
            }
            assert_eq!(whitebox::violations(&run.states), Vec::<String>::new(), "{name} seed {seed}");
            judged += 1;
        }
    }
    assert!(judged >= 2, "some of the plans promise to lose nothing");
}
