//! Guided sampling. Half of the plans stay as sampled. Each of the others is the most promising of several candidates:
//! other samples of the scenario, and changes of kept plans, those whose runs reached what few others did. A run reaches
//! faults at points, events with the order of magnitude of their count, and situations (`situations`); it is worth the
//! more, the rarer those are. `foresight` says what a candidate promises, before it runs. Nobody looks at verdicts, or at
//! the mutant. A function of the seeds: plans are made in rounds of fixed size, so the number of threads changes nothing.
//! Start at `Corpus::plans_of`.

mod changes;
mod foresight;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mqassay_harness::artifact::RunRecord;
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::draws::{Draws, draw_at};
use mqassay_harness::plan::scenario::Scenario;

use changes::{CHANGES_MAX, KEPT_SETTING, change};
use foresight::{Foresight, traits};

/// Plans made from what is known so far, before it is looked at again.
pub const ROUND: usize = 8;
/// Share of the plans that are chosen; the others are sampled as ever.
const SHARE_GUIDED: f64 = 0.5;
/// Candidates among which a plan is chosen.
const CANDIDATES: u64 = 16;
/// Share of the candidates that are changes of kept plans; the others are samples.
const SHARE_CHANGED: f64 = 0.5;
/// Share of the changed plans that have the kept plan's faults and settings, and the freshly sampled rest.
const SHARE_CROSSED: f64 = 0.6;
/// Runs of a scenario that are remembered: the newest.
const REMEMBERED: usize = 256;

/// Something that a run can reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    /// A class of fault at a point.
    FaultAt(String, String),
    /// An event, with the order of magnitude of its count (the number of binary digits).
    Event(String, u32),
    /// A situation.
    Situation(String),
}

/// Samples a plan of a scenario with a seed.
pub type Sample<'a> = dyn Fn(&Scenario, u64) -> Plan + 'a;

/// What a scenario's runs have reached, with how many of them did, and the newest of them.
#[derive(Debug, Default)]
struct Known {
    runs: u64,
    reached: BTreeMap<Reached, u64>,
    newest: VecDeque<Past>,
    /// Plans that reached something new.
    kept: u64,
}

/// A run that is remembered.
#[derive(Debug)]
struct Past {
    plan: Plan,
    traits: BTreeSet<String>,
    reached: BTreeSet<Reached>,
    /// Whether it reached something new.
    is_kept: bool,
    /// Changes made of it so far.
    changes: u64,
    /// What it was worth when it was last appraised.
    worth: f64,
}

impl Known {
    /// Appraises the remembered runs by how rare is what they reached, the sum of their surprises in nats, and gives what
    /// their plans foretell.
    fn appraise(&mut self) -> Foresight {
        let mut foresight = Foresight::default();
        let surprise = |count: &u64| (self.runs as f64 / *count as f64).ln();
        for past in &mut self.newest {
            past.worth = past.reached.iter().filter_map(|what| self.reached.get(what)).map(surprise).sum();
            foresight.learn(&past.traits, past.worth);
        }
        foresight
    }

    /// A kept plan, drawn by its worth, less for each change that was made of it; none where nothing was kept.
    fn parent(&mut self, draws: &Draws) -> Option<&mut Past> {
        let energy = |past: &Past| if past.is_kept { past.worth / (1 + past.changes) as f64 } else { 0.0 };
        let energies: Vec<f64> = self.newest.iter().map(energy).collect();
        let mut drawn =
            draws.range("parent", 0, 0, 1 << 32) as f64 / (1u64 << 32) as f64 * energies.iter().sum::<f64>();
        let chosen = energies.iter().position(|energy| {
            drawn -= energy;
            *energy > 0.0 && drawn <= 0.0
        })?;
        self.newest.get_mut(chosen)
    }
}

/// What is known of all scenarios.
#[derive(Debug, Default)]
pub struct Corpus {
    scenarios: BTreeMap<String, Known>,
}

impl Corpus {
    /// Plans that reached something new, over all scenarios.
    pub fn plans(&self) -> u64 {
        self.scenarios.values().map(|known| known.kept).sum()
    }

    /// Learns from a finished run; whether it reached something new, so that its plan is kept.
    pub fn learn(&mut self, plan: &Plan, run: &RunRecord) -> bool {
        let reached = reached(run);
        let known = self.scenarios.entry(plan.scenario.clone()).or_default();
        let before = known.reached.len();
        for what in &reached {
            *known.reached.entry(what.clone()).or_insert(0) += 1;
        }
        known.runs += 1;
        let is_kept = known.reached.len() > before;
        known.kept += u64::from(is_kept);
        known.newest.push_back(Past {
            traits: traits(plan),
            plan: plan.clone(),
            reached,
            is_kept,
            changes: 0,
            worth: 0.0,
        });
        if known.newest.len() > REMEMBERED {
            known.newest.pop_front();
        }
        is_kept
    }

    /// The plans of a round, from those that were freshly sampled for it.
    pub fn plans_of(&mut self, round: Vec<(&Scenario, Plan)>, sample: &Sample<'_>) -> Vec<Plan> {
        let names: BTreeSet<String> = round.iter().map(|(scenario, _)| scenario.name.clone()).collect();
        let known = self.scenarios.iter_mut().filter(|(name, _)| names.contains(*name));
        let foresights: BTreeMap<String, Foresight> =
            known.map(|(name, known)| (name.clone(), known.appraise())).collect();
        let plan = |(scenario, fresh): (&Scenario, Plan)| match foresights.get(&scenario.name) {
            Some(foresight) => self.plan(scenario, fresh, foresight, sample),
            None => fresh,
        };
        round.into_iter().map(plan).collect()
    }

    /// The plan for a scenario and a seed: the one freshly sampled, or the most promising candidate.
    fn plan(&mut self, scenario: &Scenario, fresh: Plan, foresight: &Foresight, sample: &Sample<'_>) -> Plan {
        let draws = Draws::new(draw_at(fresh.salt, "guided", fresh.seed, 0));
        let Some(known) = self.scenarios.get_mut(&scenario.name) else { return fresh };
        if !draws.chance("is-guided", 0, SHARE_GUIDED) {
            return fresh;
        }
        let mut best: Option<(f64, Plan)> = None;
        for number in 0..CANDIDATES {
            let candidate = candidate(known, scenario, sample, fresh.seed, number, &draws);
            let promise = foresight.promise(&traits(&candidate));
            if best.as_ref().is_none_or(|(most, _)| promise > *most) {
                best = Some((promise, candidate));
            }
        }
        best.map_or(fresh, |(_, plan)| plan)
    }
}

/// What a run reached.
fn reached(run: &RunRecord) -> BTreeSet<Reached> {
    let mut reached = BTreeSet::new();
    for (point, classes) in &run.coverage {
        let struck = classes.iter().filter(|(_, count)| **count > 0);
        reached.extend(struck.map(|(class, _)| Reached::FaultAt(point.clone(), class.clone())));
    }
    let happened = run.events.iter().filter(|(_, count)| **count > 0);
    reached.extend(happened.map(|(name, count)| Reached::Event(name.clone(), count.ilog2())));
    reached.extend(run.situations.iter().cloned().map(Reached::Situation));
    reached
}

/// A candidate for the place of a freshly sampled plan: another sample, or a change of a kept plan.
fn candidate(
    known: &mut Known,
    scenario: &Scenario,
    sample: &Sample<'_>,
    seed: u64,
    number: u64,
    draws: &Draws,
) -> Plan {
    let sampled = Plan { seed, ..sample(scenario, draws.draw("another", number) >> 1) };
    if !draws.chance("is-changed", 0, SHARE_CHANGED) {
        return sampled;
    }
    let Some(parent) = known.parent(draws) else { return sampled };
    parent.changes += 1;
    let is_crossed = draws.chance("is-crossed", 0, SHARE_CROSSED) && parent.plan.world.nodes == sampled.world.nodes;
    let mut plan = if is_crossed {
        // The kept plan's faults meet another workload: where they strike is near to what was reached, and new.
        let mut settings = parent.plan.settings.clone();
        settings.extend(sampled.settings.get_key_value(KEPT_SETTING).map(|(key, value)| (key.clone(), value.clone())));
        Plan { faults: parent.plan.faults.clone(), settings, ..sampled.clone() }
    } else {
        Plan { seed: sampled.seed, ..parent.plan.clone() }
    };
    for _ in 0..draws.range("changes", 0, 1, CHANGES_MAX) {
        change(&mut plan, scenario, &sampled, draws);
    }
    plan
}

#[cfg(test)]
mod tests {
    use mqassay_harness::plan::Trigger;
    use mqassay_harness::plan::sample::sample;

    use super::changes::FAULTS_MAX;
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
                let plan = corpus
                    .plans_of(vec![(&scenario, sample(&scenario, seed, None))], &|scenario, seed| {
                        sample(scenario, seed, None)
                    })
                    .remove(0);
                corpus.learn(&plan, &record(&[("kill", 1 << (seed % 40))], None));
                plans.push(plan);
            }
            plans
        };
        let plans = grown();
        assert_eq!(plans, grown());
        let changed = plans.iter().filter(|plan| **plan != sample(&scenario, plan.seed, None)).count();
        assert!((120..=180).contains(&changed), "{changed} of 300 were changed");
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
