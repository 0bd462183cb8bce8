//! Guided sampling: plans whose runs reached something new (a fault at a point, an event, an order of magnitude of an
//! event's count) are kept, and later plans are changes of them. A function of the seeds: plans are made in rounds of
//! fixed size, so the number of threads changes nothing. Start at `Corpus::plan`.

use std::collections::{BTreeMap, BTreeSet};

use mqassay_harness::artifact::RunRecord;
use mqassay_harness::plan::draws::{Draws, draw_at};
use mqassay_harness::plan::scenario::Scenario;
use mqassay_harness::plan::{Fault, Plan, Trigger};

/// Plans made from what is known so far, before it is looked at again.
pub const ROUND: usize = 8;
/// Share of the plans that are changes of kept ones; the others are sampled as ever.
const SHARE_MUTATED: f64 = 0.75;
/// Kept plans that are drawn; the one that reached the rarest, with few changes made of it, is taken.
const CANDIDATES: u64 = 4;
/// Share of the changed plans that have the kept plan's faults and settings, and the freshly sampled rest.
const SHARE_CROSSED: f64 = 0.6;
/// Changes of one plan at most.
const CHANGES_MAX: u64 = 3;
/// Faults of a plan at most, so that plans do not grow without end.
const FAULTS_MAX: usize = 24;
/// Occurrence of a point at which a fault is placed, at most.
const OCCURRENCE_MAX: u64 = 12;
/// A fault is moved by so much at most, in milliseconds, either way.
const MOVE_MS_MAX: u64 = 800;
/// The number of partitions of an automatic topic is written in the plan's topics, so this setting stays with them.
const KEPT_SETTING: &str = "default-partitions";

/// Something that a run can reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// A class of fault at a point.
    FaultAt(String, String),
    /// An event, with the order of magnitude of its count (the number of binary digits).
    Event(String, u32),
}

/// What a scenario's runs have reached, with how many of them did, and the plans that were first.
#[derive(Debug, Default)]
struct Kept {
    reached: BTreeMap<Reached, u64>,
    plans: Vec<Parent>,
}

/// A kept plan.
#[derive(Debug)]
struct Parent {
    plan: Plan,
    /// What its run reached.
    reached: BTreeSet<Reached>,
    /// Changes made of it so far.
    changes: u64,
}

impl Kept {
    /// How little has been made of a plan that reached something rare: the least is worth most.
    fn rank(&self, index: usize) -> u64 {
        let Parent { reached, changes, .. } = &self.plans[index];
        let rarest = reached.iter().filter_map(|what| self.reached.get(what)).min().copied().unwrap_or(u64::MAX);
        rarest.saturating_mul(1 + changes)
    }
}

/// The kept plans of all scenarios.
#[derive(Debug, Default)]
pub struct Corpus {
    scenarios: BTreeMap<String, Kept>,
}

impl Corpus {
    /// Plans that are kept, over all scenarios.
    pub fn plans(&self) -> usize {
        self.scenarios.values().map(|kept| kept.plans.len()).sum()
    }

    /// Learns from a finished run; whether it reached something new, so that its plan is kept.
    pub fn learn(&mut self, plan: &Plan, run: &RunRecord) -> bool {
        let mut reached = BTreeSet::new();
        for (point, classes) in &run.coverage {
            let struck = classes.iter().filter(|(_, count)| **count > 0);
            reached.extend(struck.map(|(class, _)| Reached::FaultAt(point.clone(), class.clone())));
        }
        let happened = run.events.iter().filter(|(_, count)| **count > 0);
        reached.extend(happened.map(|(name, count)| Reached::Event(name.clone(), count.ilog2())));
        let kept = self.scenarios.entry(plan.scenario.clone()).or_default();
        let known = kept.reached.len();
        for what in &reached {
            *kept.reached.entry(what.clone()).or_insert(0) += 1;
        }
        let is_new = kept.reached.len() > known;
        if is_new {
            kept.plans.push(Parent { plan: plan.clone(), reached, changes: 0 });
        }
        is_new
    }

    /// The plan for a scenario and a seed: the one freshly sampled, or a change of a kept one.
    pub fn plan(&mut self, scenario: &Scenario, fresh: Plan) -> Plan {
        let draws = Draws::new(draw_at(fresh.salt, "guided", fresh.seed, 0));
        let Some(kept) = self.scenarios.get_mut(&scenario.name).filter(|kept| !kept.plans.is_empty()) else {
            return fresh;
        };
        if !draws.chance("is-mutated", 0, SHARE_MUTATED) {
            return fresh;
        }
        let last = kept.plans.len() as u64 - 1;
        let candidates = (0..CANDIDATES).map(|_| draws.range("parent", 0, 0, last) as usize);
        let parent = candidates.min_by_key(|index| kept.rank(*index)).expect("there are candidates");
        let parent = &mut kept.plans[parent];
        parent.changes += 1;
        let is_crossed = draws.chance("is-crossed", 0, SHARE_CROSSED) && parent.plan.world.nodes == fresh.world.nodes;
        let mut plan = if is_crossed {
            // The kept plan's faults meet another workload: where they strike is near to what was reached, and new.
            let mut settings = parent.plan.settings.clone();
            settings
                .extend(fresh.settings.get_key_value(KEPT_SETTING).map(|(key, value)| (key.clone(), value.clone())));
            Plan { faults: parent.plan.faults.clone(), settings, ..fresh.clone() }
        } else {
            Plan { seed: fresh.seed, ..parent.plan.clone() }
        };
        for _ in 0..draws.range("changes", 0, 1, CHANGES_MAX) {
            change(&mut plan, scenario, &fresh, &draws);
        }
        plan
    }
}

/// One change; where there is nothing to change in the way that was drawn, the plan stays as it was.
fn change(plan: &mut Plan, scenario: &Scenario, fresh: &Plan, draws: &Draws) {
    const WAYS: u64 = 9;
    match draws.range("way", 0, 1, WAYS) {
        1 => swap_setting(plan, scenario, draws),
        // Faults make runs go wrong, so the way that adds one is drawn more often.
        2 | 8 | 9 => bring_fault(plan, fresh, draws),
        way => {
            let Some(last) = (plan.faults.len() as u64).checked_sub(1) else { return };
            let fault = &mut plan.faults[draws.range("fault", 0, 0, last) as usize];
            match way {
                3 => fault.salt = draws.draw("salt", 0) >> 1,
                4 => move_fault(fault, plan.world.safety_ms, draws),
                5 => change_point(fault, scenario, draws),
                6 => change_occurrence(fault, draws),
                _ => change_trigger(fault, plan.world.nodes, scenario, draws),
            }
        }
    }
}

fn swap_setting(plan: &mut Plan, scenario: &Scenario, draws: &Draws) {
    let settings: Vec<_> = scenario.settings.iter().filter(|(key, _)| key.as_str() != KEPT_SETTING).collect();
    if !settings.is_empty() {
        let (key, choices) = draws.pick("setting", 0, &settings);
        plan.settings.insert((*key).clone(), draws.pick("choice", 0, choices).clone());
    }
}

/// A fault of the freshly sampled plan joins, or takes another's place where the plan is full.
fn bring_fault(plan: &mut Plan, fresh: &Plan, draws: &Draws) {
    if fresh.faults.is_empty() || fresh.world.nodes > plan.world.nodes || fresh.clients.len() > plan.clients.len() {
        return;
    }
    let fault = draws.pick("brought", 0, &fresh.faults).clone();
    if plan.faults.len() < FAULTS_MAX {
        plan.faults.push(fault);
    } else {
        let place = draws.range("replaced", 0, 0, plan.faults.len() as u64 - 1) as usize;
        plan.faults[place] = fault;
    }
}

fn move_fault(fault: &mut Fault, safety_ms: u64, draws: &Draws) {
    let (Trigger::At { at_ms } | Trigger::Point { armed_ms: at_ms, .. }) = &mut fault.trigger;
    let moved = (*at_ms + draws.range("move", 0, 0, 2 * MOVE_MS_MAX)).saturating_sub(MOVE_MS_MAX);
    *at_ms = moved.min(safety_ms);
}

fn change_point(fault: &mut Fault, scenario: &Scenario, draws: &Draws) {
    if let Trigger::Point { name, .. } = &mut fault.trigger
        && !scenario.faults.points.is_empty()
    {
        name.clone_from(draws.pick("point", 0, &scenario.faults.points));
    }
}

fn change_occurrence(fault: &mut Fault, draws: &Draws) {
    if let Trigger::Point { occurrence, .. } = &mut fault.trigger {
        *occurrence = draws.range("occurrence", 0, 1, OCCURRENCE_MAX) as u32;
    }
}

/// From a time to a point, or back.
fn change_trigger(fault: &mut Fault, nodes: u32, scenario: &Scenario, draws: &Draws) {
    fault.trigger = match &fault.trigger {
        Trigger::Point { armed_ms, .. } => Trigger::At { at_ms: *armed_ms },
        Trigger::At { at_ms } if !scenario.faults.points.is_empty() => Trigger::Point {
            name: draws.pick("point", 0, &scenario.faults.points).clone(),
            node: draws.range("node", 0, 0, u64::from(nodes) - 1) as u32,
            occurrence: draws.range("occurrence", 0, 1, OCCURRENCE_MAX) as u32,
            armed_ms: *at_ms,
        },
        Trigger::At { at_ms } => Trigger::At { at_ms: *at_ms },
    };
}

#[cfg(test)]
mod tests {
    use mqassay_harness::plan::sample::sample;

    use super::*;
    use crate::catalogue;

    fn record(events: &[(&str, u64)], at: Option<(&str, &str)>) -> RunRecord {
        let text = "{\"line\":{\"scenario\":\"s\",\"seed\":1,\"mutant\":null,\"verdict\":\"valid\",\"anomalies\":{},\
                    \"allowed\":{},\"operations\":1,\"faults\":1,\"trace_hash\":\"\",\"plan\":\"\",\
                    \"simulated_seconds\":1.0,\"wall_seconds\":1.0},\"events\":{}}";
        let mut record: RunRecord = serde_json::from_str(text).unwrap();
        record.events = events.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        if let Some((point, class)) = at {
            record.coverage.entry(point.to_owned()).or_default().insert(class.to_owned(), 1);
        }
        record
    }

    #[test]
    fn only_plans_that_reach_something_new_are_kept() {
        let scenario = catalogue::find("no-loss").unwrap();
        let plan = sample(&scenario, 1, None);
        let mut corpus = Corpus::default();
        let cases = [
            (record(&[("kill", 2)], None), true),
            (record(&[("kill", 3)], None), false),
            (record(&[("kill", 4)], None), true),
            (record(&[("kill", 4), ("sync", 0)], None), false),
            (record(&[], Some(("sync-started", "kill"))), true),
            (record(&[], Some(("sync-started", "kill"))), false),
            (record(&[], Some(("sync-started", "pause"))), true),
        ];
        for (index, (run, is_new)) in cases.iter().enumerate() {
            assert_eq!(corpus.learn(&plan, run), *is_new, "case {index}");
        }
        assert_eq!(corpus.plans(), 4);
    }

    #[test]
    fn changed_plans_are_a_function_of_what_was_learnt_and_stay_within_bounds() {
        let scenario = catalogue::find("no-loss").unwrap();
        let grown = || {
            let mut corpus = Corpus::default();
            let mut plans = Vec::new();
            for seed in 1..=300 {
                let plan = corpus.plan(&scenario, sample(&scenario, seed, None));
                corpus.learn(&plan, &record(&[("kill", 1 << (seed % 40))], None));
                plans.push(plan);
            }
            plans
        };
        let plans = grown();
        assert_eq!(plans, grown());
        let changed = plans.iter().filter(|plan| **plan != sample(&scenario, plan.seed, None)).count();
        assert!((180..=260).contains(&changed), "{changed} of 300 were changed");
        for plan in &plans {
            assert!(plan.faults.len() <= FAULTS_MAX);
            for (key, value) in &plan.settings {
                assert!(scenario.settings[key].contains(value), "{key} = {value}");
            }
            for fault in &plan.faults {
                if let Trigger::Point { name, occurrence, .. } = &fault.trigger {
                    assert!(scenario.faults.points.contains(name) && (1..=12).contains(occurrence), "{fault:?}");
                }
            }
        }
    }
}
