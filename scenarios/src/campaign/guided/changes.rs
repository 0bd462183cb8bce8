//! Changes of a plan: faults that move, come and go, points and settings that change. Each is drawn from named draws
//! and stays within what the scenario allows. Start at `change`.

use mqassay_harness::plan::draws::Draws;
use mqassay_harness::plan::scenario::Scenario;
use mqassay_harness::plan::{Fault, Plan, Trigger};

/// Changes of one plan at most.
pub(super) const CHANGES_MAX: u64 = 3;
/// Faults of a plan at most, so that plans do not grow without end.
pub(super) const FAULTS_MAX: usize = 24;
/// Occurrence of a point at which a fault is placed, at most.
const OCCURRENCE_MAX: u64 = 12;
/// A fault is moved by so much at most, in milliseconds, either way.
const MOVE_MS_MAX: u64 = 800;
/// The number of partitions of an automatic topic is written in the plan's topics, so this setting stays with them.
pub(super) const KEPT_SETTING: &str = "default-partitions";

/// One change; where there is nothing to change in the way that was drawn, the plan stays as it was.
pub(super) fn change(plan: &mut Plan, scenario: &Scenario, fresh: &Plan, draws: &Draws) {
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
