//! What can be made simpler in a plan: each value has a default that it goes to, at once or by halving the distance.
//! A step lists its candidates in a fixed order, each strictly simpler than the plan, so every step comes to an end.

use super::search::Search;
use crate::plan::{ClientAction, FaultAction, LinkRule, Plan, PlannedOperation, Role, Trigger};

/// Visits every number of a plan that a step may change, with the default that it goes to.
type Numbers = fn(&mut Plan, &mut dyn FnMut(Number<'_>));

/// A step: its name and its numbers.
type Step = (&'static str, Numbers);

/// A number of a plan and its default.
enum Number<'a> {
    Small(&'a mut u32, u32),
    Large(&'a mut u64, u64),
    Signed(&'a mut i64, i64),
}

const STEPS: [Step; 5] = [
    ("world", world_numbers),
    ("producers and consumers", role_numbers),
    ("operations' values", operation_numbers),
    ("faults' values", fault_numbers),
    ("times", times),
];

/// A request's time-out, in milliseconds.
const REQUEST_TIMEOUT_MS: u64 = 1_000;
/// Time until a stopped node is started again, and length of a rule, in milliseconds.
const FAULT_MS: u64 = 100;
/// A sync of a file, in microseconds.
const SYNC_US: u64 = 1_000;
/// Bytes of a record's value; less cannot hold its number.
const VALUE_BYTES: u32 = 24;
/// Upper bound of a fetch's answer, in bytes.
const FETCH_MAX_BYTES: u32 = 65_536;
/// Times are rounded down to whole multiples of this, in milliseconds.
const TIME_STEP_MS: u64 = 100;

/// Makes simpler what can be made simpler.
pub(super) fn simplify(search: &mut Search<'_>) {
    drop_settings(search);
    flags(search);
    triggers(search);
    for (name, numbers) in STEPS {
        all_at_once(search, name, numbers);
        one_by_one(search, name, numbers);
    }
    shorten(search);
}

/// Settings of nodes, then of topics: without one, the preset's value holds.
fn drop_settings(search: &mut Search<'_>) {
    let keys: Vec<String> = search.plan().settings.keys().cloned().collect();
    for key in keys {
        search.round("settings", 1, &|plan, _| {
            let mut simpler = plan.clone();
            simpler.settings.remove(&key);
            simpler
        });
    }
    for topic in 0..search.plan().topics.len() {
        let keys: Vec<String> = search.plan().topics[topic].config.keys().cloned().collect();
        for key in keys {
            search.round("settings", 1, &|plan, _| {
                let mut simpler = plan.clone();
                simpler.topics[topic].config.remove(&key);
                simpler
            });
        }
    }
}

/// Topics that somebody creates, producers without sequence numbers.
fn flags(search: &mut Search<'_>) {
    for topic in 0..search.plan().topics.len() {
        search.round("topics", 1, &|plan, _| {
            let mut simpler = plan.clone();
            simpler.topics[topic].auto_created = false;
            simpler
        });
    }
    for client in 0..search.plan().clients.len() {
        search.round("producers and consumers", 1, &|plan, _| {
            let mut simpler = plan.clone();
            if let Role::Producer { idempotent, .. } = &mut simpler.clients[client].role {
                *idempotent = false;
            }
            simpler
        });
    }
}

/// A time is simpler than a point, where it does as well: when the trigger is armed.
fn triggers(search: &mut Search<'_>) {
    for fault in 0..search.plan().faults.len() {
        search.round("triggers", 1, &|plan, _| {
            let mut simpler = plan.clone();
            let trigger = &mut simpler.faults[fault].trigger;
            if let Trigger::Point { armed_ms, .. } = trigger {
                *trigger = Trigger::At { at_ms: *armed_ms };
            }
            simpler
        });
    }
}

/// All numbers of a step to their defaults.
fn all_at_once(search: &mut Search<'_>, name: &'static str, numbers: Numbers) {
    search.round(name, 1, &|plan, _| {
        let mut simpler = plan.clone();
        numbers(&mut simpler, &mut |number| number.reset());
        simpler
    });
}

/// Each number to its default, or as near to it as halving the distance comes.
fn one_by_one(search: &mut Search<'_>, name: &'static str, numbers: Numbers) {
    let mut start = 0;
    loop {
        let mut count: usize = 0;
        numbers(&mut search.plan().clone(), &mut |_| count += 1);
        // Two candidates a number: its default, and half the way.
        let candidate = |plan: &Plan, number: usize| {
            let number = start + number;
            let mut simpler = plan.clone();
            let mut index = 0;
            numbers(&mut simpler, &mut |value| {
                if index == number / 2 {
                    if number.is_multiple_of(2) { value.reset() } else { value.halve() }
                }
                index += 1;
            });
            simpler
        };
        let Some(won) = search.round(name, (2 * count).saturating_sub(start), &candidate) else { return };
        // The number that went half the way may go on; all before it have failed.
        start = (start + won) / 2 * 2;
    }
}

impl Number<'_> {
    fn reset(self) {
        match self {
            Number::Small(value, default) => *value = default,
            Number::Large(value, default) => *value = default,
            Number::Signed(value, default) => *value = default,
        }
    }

    /// Half the way to the default. A value below its default stays: a step up by halves is no simpler.
    fn halve(self) {
        match self {
            Number::Small(value, default) => {
                *value = default.saturating_add(value.saturating_sub(default) / 2).min(*value)
            }
            Number::Large(value, default) => {
                *value = default.saturating_add(value.saturating_sub(default) / 2).min(*value)
            }
            Number::Signed(value, default) => *value = default.saturating_add(value.saturating_sub(default) / 2),
        }
    }
}

fn world_numbers(plan: &mut Plan, visit: &mut dyn FnMut(Number<'_>)) {
    let world = &mut plan.world;
    visit(Number::Large(&mut world.jitter_ms, 0));
    visit(Number::Large(&mut world.latency_ms, 0));
    visit(Number::Large(&mut world.sync_us, SYNC_US));
}

fn role_numbers(plan: &mut Plan, visit: &mut dyn FnMut(Number<'_>)) {
    for client in &mut plan.clients {
        match &mut client.role {
            Role::Producer { in_flight, attempts, request_timeout_ms, .. } => {
                visit(Number::Small(in_flight, 1));
                visit(Number::Small(attempts, 1));
                visit(Number::Large(request_timeout_ms, REQUEST_TIMEOUT_MS));
            }
            Role::Consumer { request_timeout_ms, fetch_max_bytes, .. }
            | Role::Member { request_timeout_ms, fetch_max_bytes, .. } => {
                visit(Number::Large(request_timeout_ms, REQUEST_TIMEOUT_MS));
                visit(Number::Small(fetch_max_bytes, FETCH_MAX_BYTES));
            }
        }
    }
}

fn operations(plan: &mut Plan) -> impl Iterator<Item = &mut PlannedOperation> {
    plan.clients.iter_mut().flat_map(|client| &mut client.operations)
}

fn operation_numbers(plan: &mut Plan, visit: &mut dyn FnMut(Number<'_>)) {
    for operation in operations(plan) {
        match &mut operation.action {
            ClientAction::Produce { records, value_bytes, timestamp_shift_ms, timestamp_step_ms, .. } => {
                visit(Number::Small(records, 1));
                visit(Number::Small(value_bytes, VALUE_BYTES));
                visit(Number::Signed(timestamp_shift_ms, 0));
                visit(Number::Signed(timestamp_step_ms, 0));
            }
            ClientAction::Poll { max_wait_ms, min_bytes } => {
                visit(Number::Small(max_wait_ms, 0));
                visit(Number::Small(min_bytes, 1));
            }
            ClientAction::Crash { down_ms, .. } => visit(Number::Large(down_ms, FAULT_MS)),
            ClientAction::Seek { .. }
            | ClientAction::ListOffset { .. }
            | ClientAction::DeleteRecords { .. }
            | ClientAction::Leave => {}
        }
    }
}

fn fault_numbers(plan: &mut Plan, visit: &mut dyn FnMut(Number<'_>)) {
    for fault in &mut plan.faults {
        visit(Number::Large(&mut fault.salt, 0));
        if let Trigger::Point { occurrence, .. } = &mut fault.trigger {
            visit(Number::Small(occurrence, 1));
        }
        match &mut fault.action {
            FaultAction::Kill { restart_after_ms, .. }
            | FaultAction::PowerLoss { restart_after_ms, .. }
            | FaultAction::Restart { restart_after_ms, .. } => visit(Number::Large(restart_after_ms, FAULT_MS)),
            FaultAction::KillSet { restart_after_ms, stagger_ms, .. }
            | FaultAction::PowerLossSet { restart_after_ms, stagger_ms, .. } => {
                visit(Number::Large(restart_after_ms, FAULT_MS));
                visit(Number::Large(stagger_ms, 0));
            }
            FaultAction::Partition { reset_after_ms, duration_ms, .. } => {
                visit(Number::Large(reset_after_ms, FAULT_MS));
                visit(Number::Large(duration_ms, FAULT_MS));
            }
            FaultAction::ClockSkew { skew_ms, duration_ms, .. } => {
                visit(Number::Signed(skew_ms, 0));
                visit(Number::Large(duration_ms, FAULT_MS));
            }
            FaultAction::Link { rule, duration_ms, .. } => {
                visit(Number::Large(duration_ms, FAULT_MS));
                match rule {
                    LinkRule::Hold => {}
                    LinkRule::Delay { delay_ms } => visit(Number::Large(delay_ms, FAULT_MS)),
                    LinkRule::Cut { reset_after_ms } => visit(Number::Large(reset_after_ms, FAULT_MS)),
                }
            }
            FaultAction::DiskError { operations, .. } => visit(Number::Small(operations, 1)),
            FaultAction::Pause { duration_ms, .. } | FaultAction::DiskFull { duration_ms, .. } => {
                visit(Number::Large(duration_ms, FAULT_MS));
            }
            FaultAction::DiskSlow { delay_ms, duration_ms, .. } => {
                visit(Number::Large(delay_ms, FAULT_MS));
                visit(Number::Large(duration_ms, FAULT_MS));
            }
            FaultAction::BitFlip { .. } | FaultAction::AddNode { .. } | FaultAction::RemoveNode { .. } => {}
        }
    }
}

/// Times, each rounded down.
fn times(plan: &mut Plan, visit: &mut dyn FnMut(Number<'_>)) {
    each_time(plan, &mut |time| {
        let rounded = *time / TIME_STEP_MS * TIME_STEP_MS;
        visit(Number::Large(time, rounded));
    });
}

fn each_time(plan: &mut Plan, visit: &mut dyn FnMut(&mut u64)) {
    operations(plan).for_each(|operation| visit(&mut operation.at_ms));
    for fault in &mut plan.faults {
        match &mut fault.trigger {
            Trigger::At { at_ms } => visit(at_ms),
            Trigger::Point { armed_ms, .. } => visit(armed_ms),
        }
    }
}

/// Starts the run when something happens, and ends its safety phase soon after the last planned time.
fn shorten(search: &mut Search<'_>) {
    search.round("times", 1, &|plan, _| {
        let mut simpler = plan.clone();
        let mut first = u64::MAX;
        each_time(&mut simpler, &mut |time| first = first.min(*time));
        let shift = first / TIME_STEP_MS * TIME_STEP_MS;
        each_time(&mut simpler, &mut |time| *time -= shift);
        simpler
    });
    search.round("times", 1, &|plan, _| {
        let mut simpler = plan.clone();
        let mut last = 0;
        each_time(&mut simpler, &mut |time| last = last.max(*time));
        let needed = (last / 1_000 + 2) * 1_000;
        simpler.world.safety_ms = simpler.world.safety_ms.min(needed);
        simpler
    });
}
