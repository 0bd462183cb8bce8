//! Three nodes in the simulated world: they form a cluster, take topics through any node, and go on when any one of them
//! is killed, loses power, stands still or is cut off.

use std::collections::BTreeSet;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::plan::sample::sample;
use mqassay_harness::plan::scenario::Scenario;
use mqassay_harness::plan::{Endpoint, Fault, FaultAction, LinkRule, Plan, Trigger};
use mqassay_scenarios::runner::{Record, Run, run_plan};

fn plan(seed: u64, faults: Vec<FaultAction>) -> Plan {
    plan_with("flush = [\"ack\"]\n", seed, faults)
}

fn plan_with(settings: &str, seed: u64, faults: Vec<FaultAction>) -> Plan {
    let text = format!(
        "name = \"cluster\"\ntitle = \"Three nodes.\"\n[world]\nnodes = 3\n[settings]\n{settings}\
         [topics]\ncount = 2\nqueues = 4\n[workload]\nacks = [-1]\n"
    );
    let mut plan = sample(&Scenario::parse("cluster", &text).expect("the text is a scenario"), seed, None);
    let fault = |action| Fault { trigger: Trigger::At { at_ms: 3_000 }, action, salt: seed };
    plan.faults = faults.into_iter().map(fault).collect();
    plan
}

fn run(plan: &Plan) -> Run {
    let run = run_plan(plan, Record::WhiteBox).expect("the plan is sound");
    assert_eq!(run.line.verdict, VerdictKind::Valid, "seed {}: {:#?}", plan.seed, run.verdict);
    run
}

/// Every node knows the same partitions at the end.
fn assert_one_view(run: &Run) {
    let mut last = std::collections::BTreeMap::new();
    for seen in &run.states {
        last.insert(seen.node, &seen.state.partitions);
    }
    assert_eq!(last.len(), 3);
    let views: BTreeSet<String> = last.values().map(|partitions| format!("{partitions:?}")).collect();
    assert_eq!(views.len(), 1, "{views:#?}");
    assert!(last.values().all(|partitions| !partitions.is_empty()));
}

/// Both directions between a node and the two others.
fn cut_off(node: u32, duration_ms: u64) -> Vec<FaultAction> {
    let others = (0..3).filter(|other| *other != node);
    let link = |from, to| FaultAction::Link {
        from: Endpoint::Node(from),
        to: Endpoint::Node(to),
        rule: LinkRule::Hold,
        duration_ms,
        only: None,
    };
    others.flat_map(|other| [link(node, other), link(other, node)]).collect()
}

/// Everything that can befall one node.
fn single_faults(node: u32) -> [Vec<FaultAction>; 5] {
    let restart_after_ms = 2_500;
    [
        vec![FaultAction::Kill { node, restart_after_ms }],
        vec![FaultAction::PowerLoss { node, restart_after_ms }],
        vec![FaultAction::Restart { node, restart_after_ms: 500 }],
        vec![FaultAction::Pause { node, duration_ms: 2_500 }],
        cut_off(node, 2_500),
    ]
}

#[test]
fn three_nodes_form_a_cluster_without_faults() {
    for seed in 1..=3 {
        let run = run(&plan(seed, Vec::new()));
        assert_eq!(run.events["controller-elected"], 1, "seed {seed}: nobody disturbs the first leader");
        assert_one_view(&run);
    }
}

#[test]
fn a_cluster_survives_any_one_node() {
    let mut elected = 0;
    let mut fenced = 0;
    for node in 0..3 {
        for (index, faults) in single_faults(node).into_iter().enumerate() {
            let run = run(&plan(10 + index as u64, faults));
            elected += run.events["controller-elected"];
            fenced += run.events["broker-fenced"];
            assert_one_view(&run);
        }
    }
    // One of three was the controller each time.
    assert!(elected >= 15 + 4, "{elected} elections");
    assert!(fenced >= 8, "{fenced} brokers were fenced");
}

#[test]
fn replicated_topics_survive_any_one_node() {
    for node in 0..3 {
        for (index, faults) in single_faults(node).into_iter().enumerate() {
            let settings =
                "flush = [\"ack\", \"os\"]\ndefault-replication-factor = [\"3\"]\nmin-insync-replicas = [\"2\"]\n";
            let run = run(&plan_with(settings, 30 + index as u64, faults));
            assert_one_view(&run);
        }
    }
}
