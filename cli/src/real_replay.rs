//! `mqassay replay PLAN --world process`: a plan of the simulation, shrunk perhaps, on real processes whose disks forget.
//! Time is real there and processes have no points to stop at, so that triggers become times, and the runs try times around
//! them. Disks are as slow as the plan's. A plan with a mutant needs a build with the feature `mutants`.

use std::collections::BTreeMap;

use mqassay_harness::check;
use mqassay_harness::plan::{Plan, Trigger};
use mqassay_harness::process::disk::Metadata;
use mqassay_harness::process::world::Disks;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::process_world::{NetworkName, Stand, SystemName};
use crate::progress::tell;
use crate::results::json_line;

#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    scenario: &'a str,
    seed: u64,
    mutant: Option<&'a str>,
    runs: u64,
    /// Runs with a violation.
    shown: u64,
    /// Violation → runs that had it.
    anomalies: BTreeMap<String, u64>,
    /// Faults that struck, of all runs.
    struck: u64,
    /// Classes of fault that this world cannot make.
    left_out: Vec<&'static str>,
}

/// Runs the plan so often; a violation makes the answer invalid.
pub(crate) fn run(plan: &Plan, runs: u64, window_ms: u64, json: bool) -> Result<Exit, Failure> {
    if plan.mutant.is_some() && cfg!(not(feature = "mutants")) {
        let how = "cargo run -p mqassay --features mutants -- replay …";
        return Err(Failure::Usage(format!(
            "this build's server has no way to be given a deliberate bug; take: {how}"
        )));
    }
    let mut stand = Stand::prepare(Disks::Forgetting(Metadata::Posix), NetworkName::Proxies)?;
    stand.plan_syncs();
    let mut line =
        Line { scenario: &plan.scenario, seed: plan.seed, mutant: plan.mutant.as_deref(), ..Line::default() };
    for nth in 0..runs {
        let ran = stand.run(&shifted(plan, nth, runs, window_ms), SystemName::Reference)?;
        let violations = check::judge(&ran.history, &ran.judge).violations();
        line.runs += 1;
        line.shown += u64::from(!violations.is_empty());
        line.struck += ran.struck;
        violations.into_keys().for_each(|name| *line.anomalies.entry(name).or_insert(0) += 1);
        line.left_out = ran.left_out;
    }
    if json {
        tell(json_line(&line)?.trim_end());
    } else {
        let of = line.mutant.map_or_else(String::new, |mutant| format!(" with {mutant}"));
        let found: Vec<String> = line.anomalies.iter().map(|(name, runs)| format!("{name} in {runs}")).collect();
        let found = if found.is_empty() { "nothing wrong".to_owned() } else { found.join(", ") };
        tell(&format!(
            "{} seed {}{of} on processes: {} of {} runs show a violation ({found}); {} faults struck",
            line.scenario, line.seed, line.shown, line.runs, line.struck
        ));
        if !line.left_out.is_empty() {
            tell(&format!("  left out: {}", line.left_out.join(", ")));
        }
    }
    Ok(if line.shown > 0 { Exit::Violation } else { Exit::Valid })
}

/// The plan with its faults a little earlier or later, and with another draw of what survives: run `nth` of `runs`.
fn shifted(plan: &Plan, nth: u64, runs: u64, window_ms: u64) -> Plan {
    let mut plan = plan.clone();
    let shift = window_ms * nth / runs.saturating_sub(1).max(1);
    for fault in &mut plan.faults {
        let at_ms = match fault.trigger {
            Trigger::At { at_ms } => at_ms,
            Trigger::Point { armed_ms, .. } => armed_ms,
        };
        fault.trigger = Trigger::At { at_ms: (at_ms + shift).saturating_sub(window_ms / 2) };
        fault.salt = fault.salt.wrapping_add(nth);
    }
    plan.seed = plan.seed.wrapping_add(nth);
    plan
}

#[cfg(test)]
mod tests {
    use mqassay_harness::plan::sample::sample;
    use mqassay_scenarios::catalogue;

    use super::*;

    #[test]
    fn runs_try_times_around_those_of_the_plan() {
        let plan = sample(&catalogue::find("no-loss").expect("it is built in"), 5, None);
        let first = |nth| match shifted(&plan, nth, 5, 400).faults[0].trigger {
            Trigger::At { at_ms } => at_ms,
            Trigger::Point { .. } => panic!("points become times"),
        };
        let times: Vec<u64> = (0..5).map(first).collect();
        assert!(times.windows(2).all(|pair| pair[0] + 100 == pair[1]), "{times:?}");
    }
}
