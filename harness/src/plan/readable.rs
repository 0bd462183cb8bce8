//! A plan as TOML that people read: one line for each operation and fault, and for each other table.
//! `artifact::folder::read_plan` reads it back.

use std::fmt::Write;

use serde::Serialize;
use toml::Value;

use super::Plan;

/// The plan as TOML, behind comment lines of the given text.
pub fn to_toml(plan: &Plan, comment: &str) -> String {
    let mut text: String = comment.lines().map(|line| format!("# {line}\n")).collect();
    let mut entry = |name: &str, value: String| {
        writeln!(text, "{name} = {value}").expect("writing into a string cannot fail");
    };
    entry("schema", inline(&plan.schema));
    entry("scenario", inline(&plan.scenario));
    entry("seed", inline(&plan.seed));
    entry("salt", inline(&plan.salt));
    if let Some(mutant) = &plan.mutant {
        entry("mutant", inline(mutant));
    }
    if let Some(mutant) = &plan.client_mutant {
        entry("client_mutant", inline(mutant));
    }
    if let Some(trace) = &plan.recorded_trace {
        entry("recorded_trace", inline(trace));
    }
    entry("world", inline(&plan.world));
    entry("settings", inline(&plan.settings));
    entry("topics", lines(&plan.topics));
    entry("faults", lines(&plan.faults));
    if plan.clients.is_empty() {
        entry("clients", "[]".to_owned());
    }
    for client in &plan.clients {
        let (role, operations) = (inline(&client.role), lines(&client.operations));
        write!(text, "\n[[clients]]\nrole = {role}\noperations = {operations}\n")
            .expect("writing into a string cannot fail");
    }
    text
}

fn lines<T: Serialize>(items: &[T]) -> String {
    if items.is_empty() {
        return "[]".to_owned();
    }
    let items: String = items.iter().map(|item| format!("  {},\n", inline(item))).collect();
    format!("[\n{items}]")
}

/// A value on one line.
fn inline(value: &impl Serialize) -> String {
    let value = Value::try_from(value).expect("plans hold what TOML can hold: salts and seeds are below 2^63");
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::sample;
    use crate::plan::scenario::Scenario;

    #[test]
    fn a_plan_survives_the_way_through_toml() {
        let text = "name = \"s\"\ntitle = \"t\"\n[workload]\nseeks = 5\nlist_offsets = 5\ndelete_records = 2\n\
            [settings]\nflush = [\"os\"]\n[faults]\nkill = 2\n\
            link-cut = 2\none-request = 1\nlink-hold = 1\nsync-error = 1\nat-point = 0.5\npoints = [\"a\"]\n";
        let scenario = Scenario::parse("s.toml", text).unwrap();
        for seed in 1..20 {
            let mut plan = sample(&scenario, seed, (seed % 2 == 0).then_some("S1"));
            plan.client_mutant = (seed % 3 == 0).then(|| "P4".to_owned());
            let text = to_toml(&plan, "Two lines,\nof comment.");
            assert!(text.starts_with("# Two lines,\n# of comment.\n"));
            assert!(text.lines().count() < plan.operation_count() + plan.faults.len() + 60, "{text}");
            assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
        }
    }
}
