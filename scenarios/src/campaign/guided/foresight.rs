//! What a plan will probably reach, from what is written in it: each trait of a plan (a setting, a role, how many faults
//! of a class, at which point one strikes, two faults that follow each other) has the mean worth of the runs whose plans
//! had it, and a plan is worth what its traits add to the mean. A crude model, and enough to choose among candidates,
//! which cost nothing before they run.

use std::collections::{BTreeMap, BTreeSet};

use mqassay_harness::plan::{Plan, Role, Trigger};

/// Runs at the mean that a trait is taken to have had before its first, so that few runs prove little.
const PRIOR_RUNS: f64 = 4.0;

/// The traits of a plan.
pub(super) fn traits(plan: &Plan) -> BTreeSet<String> {
    let mut traits = BTreeSet::new();
    traits.extend(plan.settings.iter().map(|(key, value)| format!("{key} = {value}")));
    for topic in &plan.topics {
        traits.extend(topic.config.iter().map(|(key, value)| format!("{key} = {value}")));
        traits.insert(format!("{} queues, {} replicas", topic.queues, topic.replication));
    }
    for client in &plan.clients {
        traits.insert(match &client.role {
            Role::Producer { acks, idempotent, in_flight, attempts, .. } => {
                format!("acks {acks}, idempotent {idempotent}, {in_flight} in flight, {attempts} attempts")
            }
            Role::Consumer { .. } => "a consumer".to_owned(),
            Role::Member { protocol, commit, .. } => format!("a member, {protocol:?}, commits {commit:?}"),
        });
    }
    traits.insert(format!("sync takes 2^{} us", magnitude(plan.world.sync_us)));
    traits.extend(faults(plan));
    traits
}

/// How many faults of each class there are, at which points they strike, and which follow which, on the same node or
/// another, after how long.
fn faults(plan: &Plan) -> BTreeSet<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut timeline, mut struck) = (Vec::new(), BTreeSet::new());
    for fault in &plan.faults {
        let class = fault.action.class();
        *counts.entry(class).or_insert(0) += 1;
        if let Trigger::Point { name, .. } = &fault.trigger {
            struck.insert(format!("{class} at {name}"));
        }
        let (Trigger::At { at_ms } | Trigger::Point { armed_ms: at_ms, .. }) = &fault.trigger;
        timeline.push((*at_ms, class, fault.action.nodes()));
    }
    timeline.sort();
    let pairs = timeline.windows(2).map(|pair| {
        let [(first_ms, first, nodes), (second_ms, second, others)] = pair else { unreachable!("windows of two") };
        let place = if nodes.iter().any(|node| others.contains(node)) { "there" } else { "elsewhere" };
        format!("{first}, after 2^{} ms {place} {second}", magnitude(second_ms - first_ms).max(8))
    });
    let counted = counts.iter().map(|(class, count)| format!("{class} 2^{} times", magnitude(*count)));
    pairs.chain(counted).chain(struck).collect()
}

/// The order of magnitude: binary digits.
fn magnitude(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

/// What traits were worth so far.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// Runs and their summed worth, by trait.
    known: BTreeMap<String, (f64, f64)>,
    runs: f64,
    worth: f64,
}

impl Foresight {
    /// Adds a run that was worth so much.
    pub(super) fn learn(&mut self, traits: &BTreeSet<String>, worth: f64) {
        self.runs += 1.0;
        self.worth += worth;
        for one in traits {
            let (runs, sum) = self.known.entry(one.clone()).or_insert((0.0, 0.0));
            *runs += 1.0;
            *sum += worth;
        }
    }

    /// What a plan with these traits adds to the mean; 0 where nothing is known.
    pub(super) fn promise(&self, traits: &BTreeSet<String>) -> f64 {
        if self.runs == 0.0 {
            return 0.0;
        }
        let mean = self.worth / self.runs;
        let known = traits.iter().filter_map(|one| self.known.get(one));
        known.map(|(runs, sum)| (sum + PRIOR_RUNS * mean) / (runs + PRIOR_RUNS) - mean).sum()
    }
}

#[cfg(test)]
mod tests {
    use mqassay_harness::plan::sample::sample;

    use super::*;
    use crate::catalogue;

    fn named(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_trait_is_worth_what_its_runs_were_above_the_mean_and_few_runs_prove_little() {
        let mut foresight = Foresight::default();
        assert!(foresight.promise(&named(&["a"])) == 0.0);
        for _ in 0..12 {
            foresight.learn(&named(&["a", "x"]), 8.0);
            foresight.learn(&named(&["b", "x"]), 0.0);
        }
        foresight.learn(&named(&["c"]), 8.0);
        let [good, bad, new, unknown] = ["a", "b", "c", "d"].map(|name| foresight.promise(&named(&[name])));
        assert!(good > new && new > 0.0 && bad < 0.0 && unknown == 0.0, "{good} {new} {bad} {unknown}");
        assert!(foresight.promise(&named(&["a", "d"])) == good);
    }

    #[test]
    fn traits_tell_which_faults_follow_each_other() {
        let scenario = catalogue::find("leader-storm").unwrap();
        let traits: BTreeSet<String> = (1..=8).flat_map(|seed| traits(&sample(&scenario, seed, None))).collect();
        let has = |part: &str| traits.iter().any(|one| one.contains(part));
        assert!(
            has("layout = ") && has("acks ") && has("kill 2^") && has(" there ") && has(" elsewhere "),
            "{traits:?}"
        );
    }
}
