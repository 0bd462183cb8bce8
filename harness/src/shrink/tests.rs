//! The algorithm against oracles that know the smallest plan: a plan fails where it holds a core of faults and
//! operations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::history::Queue;
use crate::plan::draws::draw_at;
use crate::plan::{Client, ClientAction, Fault, FaultAction, PlannedOperation, Role, Topic, Trigger, World};

const WANTED: EvidenceKind = EvidenceKind { anomaly: Anomaly::LostWrite, proof: Proof::Operations };
const OTHER: EvidenceKind = EvidenceKind { anomaly: Anomaly::LostWrite, proof: Proof::Marks };

/// Operations per client of the generated plans; an operation is known by its `value_bytes`, a fault by its salt.
const OPERATIONS: u64 = 40;

fn plan(clients: u64, faults: u64) -> Plan {
    let operation = |id: u64| PlannedOperation {
        at_ms: 1_000 + id * 7,
        action: ClientAction::Produce {
            queue: Queue { topic: 1, partition: (id % 3) as u32 },
            records: 5,
            value_bytes: 1_000 + id as u32,
            timestamp_shift_ms: 0,
            timestamp_step_ms: 0,
        },
    };
    let role = Role::Producer { acks: -1, idempotent: true, in_flight: 5, attempts: 4, request_timeout_ms: 700 };
    let client = |client: u64| Client {
        role: role.clone(),
        operations: (0..OPERATIONS).map(|index| operation(client * OPERATIONS + index)).collect(),
    };
    let fault = |id: u64| Fault {
        trigger: Trigger::At { at_ms: 2_000 + id },
        action: FaultAction::Kill { node: 0, restart_after_ms: 900 },
        salt: 1_000 + id,
    };
    let topic = |name: &str| Topic {
        name: name.to_owned(),
        queues: 3,
        replication: 1,
        config: BTreeMap::new(),
        auto_created: false,
    };
    Plan {
        schema: crate::plan::SCHEMA_VERSION,
        scenario: "s".to_owned(),
        seed: 1,
        salt: 1,
        mutant: None,
        client_mutant: None,
        world: World {
            nodes: 3,
            joining: 0,
            tick_ms: 10,
            latency_ms: 5,
            jitter_ms: 9,
            sync_us: 5_000,
            safety_ms: 20_000,
            liveness_ms: 60_000,
            disk_bytes: 1 << 20,
            core: Vec::new(),
            budget: crate::plan::Budget::default(),
        },
        settings: BTreeMap::from([("flush".to_owned(), "os".to_owned()), ("layout".to_owned(), "shared".to_owned())]),
        topics: vec![topic("a"), topic("b")],
        clients: (0..clients).map(client).collect(),
        faults: (0..faults).map(fault).collect(),
        recorded_trace: Some("0".repeat(32)),
    }
}

fn operation_ids(plan: &Plan) -> BTreeSet<u64> {
    let operations = plan.clients.iter().flat_map(|client| &client.operations);
    operations
        .map(|operation| match operation.action {
            ClientAction::Produce { value_bytes, .. } => u64::from(value_bytes) - 1_000,
            ClientAction::Poll { .. }
            | ClientAction::Seek { .. }
            | ClientAction::ListOffset { .. }
            | ClientAction::Crash { .. }
            | ClientAction::Leave
            | ClientAction::DeleteRecords { .. } => unreachable!("these plans only produce"),
        })
        .collect()
}

fn fault_ids(plan: &Plan) -> BTreeSet<u64> {
    plan.faults.iter().map(|fault| fault.salt - 1_000).collect()
}

/// Whether ids can still be told: simpler values make them unknown, and such a plan does not fail.
fn has_ids(plan: &Plan) -> bool {
    let bytes =
        plan.clients.iter().flat_map(|client| &client.operations).all(
            |operation| matches!(operation.action, ClientAction::Produce { value_bytes, .. } if value_bytes >= 1_000),
        );
    bytes && plan.faults.iter().all(|fault| fault.salt >= 1_000)
}

fn unbounded<'a>(jobs: usize, on_progress: &'a mut dyn FnMut(Progress)) -> Options<'a> {
    Options { wanted: WANTED, jobs, may_go_on: &|| true, tries_max: None, on_progress }
}

/// Shrinks with an oracle of "holds these faults and operations", which counts and refuses to see a plan twice.
fn shrink_to_core(start: &Plan, faults: &BTreeSet<u64>, operations: &BTreeSet<u64>, jobs: usize) -> Shrunk {
    let seen: Mutex<BTreeSet<String>> = Mutex::default();
    let oracle = |plan: &Plan| {
        let text = serde_json::to_string(plan).unwrap();
        assert!(seen.lock().unwrap().insert(text), "the oracle was asked twice for one plan");
        let holds = has_ids(plan) && fault_ids(plan).is_superset(faults) && operation_ids(plan).is_superset(operations);
        Some(BTreeSet::from([if holds { WANTED } else { OTHER }]))
    };
    let shrunk = shrink(start, &oracle, unbounded(jobs, &mut |_| {}));
    assert_eq!(shrunk.runs, seen.lock().unwrap().len() as u64);
    shrunk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_known_core_is_what_is_left(
        faults in proptest::collection::btree_set(0u64..12, 0..5),
        operations in proptest::collection::btree_set(0u64..3 * OPERATIONS, 0..8),
    ) {
        let shrunk = shrink_to_core(&plan(3, 12), &faults, &operations, 1);
        prop_assert!(shrunk.is_minimal);
        prop_assert_eq!(fault_ids(&shrunk.plan), faults);
        prop_assert_eq!(operation_ids(&shrunk.plan), operations);
        // Every other value went to its default.
        let world = &shrunk.plan.world;
        prop_assert_eq!((world.nodes, world.jitter_ms, world.latency_ms), (1, 0, 0));
        prop_assert!(shrunk.plan.settings.is_empty() && shrunk.plan.recorded_trace.is_none());
        prop_assert_eq!((shrunk.plan.topics.len(), shrunk.plan.topics[0].queues), (1, 1));
    }

    #[test]
    fn the_number_of_threads_changes_nothing(
        faults in proptest::collection::btree_set(0u64..12, 0..4),
        operations in proptest::collection::btree_set(0u64..2 * OPERATIONS, 0..6),
    ) {
        let alone = shrink_to_core(&plan(2, 12), &faults, &operations, 1);
        for jobs in [2, 3, 8] {
            prop_assert_eq!(&shrink_to_core(&plan(2, 12), &faults, &operations, jobs).plan, &alone.plan);
        }
    }

    /// Fails where at least so many operations and faults of a kind are there, or a sum is odd: not monotonic, so that
    /// leaving one piece out can make another one needless.
    #[test]
    fn no_single_piece_of_the_result_can_be_left_out(modulus in 2u64..7, dropped in 0usize..9, least in 0usize..4) {
        let mut start = plan(2, 9);
        start.clients[1].operations.drain(..dropped);
        let sum = |plan: &Plan| operation_ids_or_zero(plan).iter().sum::<u64>() + plan.faults.len() as u64;
        let rest = sum(&start) % modulus;
        let fails = |plan: &Plan| {
            plan.operation_count() >= 3 && plan.faults.len() >= least && sum(plan) % modulus == rest
        };
        let oracle = |plan: &Plan| fails(plan).then(|| BTreeSet::from([WANTED]));
        let shrunk = shrink(&start, &oracle, unbounded(2, &mut |_| {}));
        prop_assert!(shrunk.is_minimal && fails(&shrunk.plan));
        for fault in 0..shrunk.plan.faults.len() {
            let mut smaller = shrunk.plan.clone();
            smaller.faults.remove(fault);
            prop_assert!(!fails(&smaller), "fault {fault} is not needed");
        }
        for client in 0..shrunk.plan.clients.len() {
            for operation in 0..shrunk.plan.clients[client].operations.len() {
                let mut smaller = shrunk.plan.clone();
                smaller.clients[client].operations.remove(operation);
                prop_assert!(!fails(&smaller), "operation {operation} of client {client} is not needed");
            }
        }
    }
}

/// Ids by `value_bytes`, whatever the value has become.
fn operation_ids_or_zero(plan: &Plan) -> Vec<u64> {
    let operations = plan.clients.iter().flat_map(|client| &client.operations);
    operations
        .map(|operation| match operation.action {
            ClientAction::Produce { value_bytes, .. } => u64::from(value_bytes),
            ClientAction::Poll { .. }
            | ClientAction::Seek { .. }
            | ClientAction::ListOffset { .. }
            | ClientAction::Crash { .. }
            | ClientAction::Leave
            | ClientAction::DeleteRecords { .. } => 0,
        })
        .collect()
}

#[test]
fn a_client_that_others_stand_behind_keeps_its_slot() {
    let operations = BTreeSet::from([OPERATIONS + 3]);
    let shrunk = shrink_to_core(&plan(3, 2), &BTreeSet::new(), &operations, 1);
    let counts: Vec<usize> = shrunk.plan.clients.iter().map(|client| client.operations.len()).collect();
    assert_eq!(counts, [0, 1], "the first stays as an empty slot, the third is dropped");
}

#[test]
fn another_kind_of_evidence_does_not_count() {
    let start = plan(1, 3);
    // Everything shows the same anomaly by marks; only plans with all three faults show it by operations.
    let oracle = |plan: &Plan| {
        let kind = if plan.faults.len() == 3 { WANTED } else { OTHER };
        Some(BTreeSet::from([kind]))
    };
    let shrunk = shrink(&start, &oracle, unbounded(1, &mut |_| {}));
    assert_eq!((shrunk.plan.faults.len(), shrunk.plan.operation_count()), (3, 0));
}

#[test]
fn when_the_time_is_over_the_best_so_far_is_the_result() {
    let runs = AtomicU64::new(0);
    let oracle = |plan: &Plan| {
        runs.fetch_add(1, Ordering::Relaxed);
        (plan.faults.len() >= 2).then(|| BTreeSet::from([WANTED]))
    };
    let may_go_on = || runs.load(Ordering::Relaxed) < 6;
    let mut told = Vec::new();
    let mut on_progress = |progress: Progress| told.push(progress);
    let options =
        Options { wanted: WANTED, jobs: 1, may_go_on: &may_go_on, tries_max: None, on_progress: &mut on_progress };
    let shrunk = shrink(&plan(2, 12), &oracle, options);
    assert_eq!((shrunk.runs, shrunk.is_minimal), (6, false));
    assert!((2..12).contains(&shrunk.plan.faults.len()), "{} faults", shrunk.plan.faults.len());
    assert_eq!(told.last().map(|progress| progress.faults), Some(shrunk.plan.faults.len()));
}

#[test]
fn a_fault_that_only_the_draws_made_needful_is_left_out_under_another_salt() {
    // One fault suffices; but with fewer than all of them half of the salts hide what it does.
    let is_hidden = |plan: &Plan| plan.faults.len() < 4 && plan.salt % 2 == 1;
    let oracle = |plan: &Plan| (!plan.faults.is_empty() && !is_hidden(plan)).then(|| BTreeSet::from([WANTED]));
    let start = plan(1, 4);
    assert!(is_hidden(&Plan { faults: Vec::new(), ..start.clone() }), "its own salt is one of those");
    let shrunk = shrink(&start, &oracle, unbounded(2, &mut |_| {}));
    assert_eq!((shrunk.plan.faults.len(), shrunk.plan.salt % 2), (1, 0));
}

#[test]
fn tries_bound_the_search_at_the_same_plan_whatever_the_threads() {
    let start = plan(2, 12);
    let oracle =
        |plan: &Plan| (plan.faults.len() >= 2 && plan.operation_count() >= 3).then(|| BTreeSet::from([WANTED]));
    let bounded = |jobs: usize, tries: u64| {
        shrink(&start, &oracle, Options { tries_max: Some(tries), ..unbounded(jobs, &mut |_| {}) })
    };
    let mut sizes = BTreeSet::new();
    for tries in [0, 1, 5, 20, 60] {
        let alone = bounded(1, tries);
        assert!(!alone.is_minimal && alone.runs <= tries, "{tries}");
        sizes.insert(alone.plan.operation_count());
        for jobs in [2, 5] {
            assert_eq!(bounded(jobs, tries).plan, alone.plan, "{tries} tries on {jobs} threads");
        }
    }
    assert!(sizes.len() > 2, "{sizes:?}");
}

#[test]
fn a_race_that_every_step_decides_anew_becomes_small_all_the_same() {
    // One fault and two operations suffice, but of all plans only one in eight shows it.
    let is_lucky = |plan: &Plan| {
        let sum = operation_ids_or_zero(plan).iter().sum::<u64>();
        draw_at(plan.salt, "race", sum, plan.faults.len() as u64).is_multiple_of(8)
    };
    let oracle = |plan: &Plan| {
        let shows = plan.operation_count() >= 2 && !plan.faults.is_empty() && is_lucky(plan);
        shows.then(|| BTreeSet::from([WANTED]))
    };
    for start in (0..80).map(|salt| Plan { salt, ..plan(3, 12) }).filter(is_lucky) {
        let shrunk = shrink(&start, &oracle, Options { tries_max: Some(2_000), ..unbounded(2, &mut |_| {}) });
        let (faults, operations) = (shrunk.plan.faults.len(), shrunk.plan.operation_count());
        assert!(faults <= 4 && operations <= 6, "salt {}: {faults} faults, {operations} operations", start.salt);
    }
}
