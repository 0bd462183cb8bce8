//! Trials of the instrument: is a slowdown of a few percent found in the broker's CPU per message? Two reference brokers,
//! the second with a calibrated spin (`spin`) or, in every other trial, without, under the same load in blocks A B B A.
//! Start at `Session::slowdown`.
//!
//! Two processes of one program differ by themselves (where their memory lies, how their maps are seeded), for as long as
//! they live. So both brokers are started anew for every round, a round gives one ratio, and the test is over rounds.

use std::time::Instant;

use mqassay_harness::measure::result::{SlowdownTrial, TargetPart};
use mqassay_harness::measure::statistics::{median_interval, signed_rank_probability};
use serde::{Deserialize, Serialize};

use super::plan::RawShape;
use crate::plan::{LoadPlan, is_duration};
use crate::prepare::ReferenceBroker;
use crate::session::Session;
use crate::{BenchError, Restart, SystemTarget, assemble, spin};

/// Trials with a slowdown and as many without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slowdown {
    /// The target's name, for example `M10`.
    pub target: String,
    /// The slowdown, percent.
    pub percent: u32,
    /// How often a slowdown may be told where there is none: the level of the test.
    pub level: f64,
    /// Trials with the slowdown, and as many without.
    pub trials: u32,
    /// How long a trial takes, seconds.
    pub trial_seconds: f64,
    /// Pairs of blocks on one pair of broker processes.
    pub pairs_per_round: u32,
    /// For how long a block produces, seconds.
    pub block_seconds: f64,
    /// The least share of trials that meets the target.
    pub needs: f64,
    /// The load.
    pub shape: RawShape,
}

impl Slowdown {
    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self, plan: &LoadPlan) -> Option<String> {
        let checks = [
            ((1..=100).contains(&self.percent), "slowdown.percent is not in 1..=100"),
            ((0.0001..=0.2).contains(&self.level), "slowdown.level is not in 0.0001..=0.2"),
            ((1..=1_000).contains(&self.trials), "slowdown.trials is not in 1..=1000"),
            ((1.0..=3_600.0).contains(&self.trial_seconds), "slowdown.trial_seconds is not in 1..=3600"),
            ((1..=1_000).contains(&self.pairs_per_round), "slowdown.pairs_per_round is not in 1..=1000"),
            (is_duration(self.block_seconds), "slowdown.block_seconds is not in 0.1..=600"),
            ((0.0..=1.0).contains(&self.needs), "slowdown.needs is not in 0..=1"),
            (plan.nodes == 1, "slowdown goes with nodes = 1 only"),
        ];
        let own = checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason);
        own.or_else(|| self.shape.first_fault(plan)).map(str::to_owned)
    }

    /// About how many blocks the trials take; progress needs no more.
    pub(crate) fn blocks_expected(&self) -> u32 {
        (2.0 * f64::from(self.trials) * self.trial_seconds / (1.5 * self.block_seconds)) as u32
    }
}

/// What one round found.
struct Round {
    /// CPU per message of each pair of blocks, nanoseconds, first and second broker.
    pairs: Vec<[f64; 2]>,
    /// Processor time of the second broker's spin, nanoseconds.
    spun_ns: u64,
    /// That of its other threads, nanoseconds.
    others_ns: u64,
}

impl Session<'_> {
    /// Trials with and without the slowdown in turn.
    pub(crate) fn slowdown(&mut self, load: &Slowdown) -> Result<(), BenchError> {
        let Some(index) = self.systems.iter().position(SystemTarget::is_reference) else {
            self.remark("The slowdown is tried on the reference broker, which is not among the systems.".to_owned());
            return Ok(());
        };
        for _ in 0..load.trials {
            for percent in [load.percent, 0] {
                let trial = self.slowdown_trial(load, index, percent)?;
                self.result.trials.push(trial);
            }
        }
        let of = |is_slowed: bool| self.result.trials.iter().filter(move |trial| (trial.injected > 0.0) == is_slowed);
        let found = of(true).filter(|trial| trial.is_found).count();
        let alarms = of(false).filter(|trial| trial.is_found).count();
        let (percent, trials, seconds) = (load.percent, load.trials, load.trial_seconds);
        let share = |count: usize| count as f64 / f64::from(trials);
        let parts = [
            (format!("a slowdown of {percent} % found in {found} of {trials} trials of {seconds} s"), share(found)),
            (
                format!("false alarms without a slowdown: {alarms} of {trials} trials of {seconds} s"),
                1.0 - share(alarms),
            ),
        ];
        for (part, ratio) in parts {
            self.result.targets.push(TargetPart::exact(load.target.clone(), part, ratio, load.needs));
        }
        Ok(())
    }

    /// Rounds until the trial's time is over, each on brokers of its own.
    fn slowdown_trial(&mut self, load: &Slowdown, index: usize, percent: u32) -> Result<SlowdownTrial, BenchError> {
        let started = Instant::now();
        let mut rounds: Vec<Vec<[f64; 2]>> = Vec::new();
        let (mut spun_ns, mut others_ns) = (0, 0);
        let mut round_seconds = 0.0;
        while started.elapsed().as_secs_f64() + round_seconds <= load.trial_seconds || rounds.is_empty() {
            let began = Instant::now();
            let round = self.slowdown_round(load, index, percent, rounds.len() as u32)?;
            rounds.push(round.pairs);
            spun_ns += round.spun_ns;
            others_ns += round.others_ns;
            round_seconds = began.elapsed().as_secs_f64();
        }
        let seconds = started.elapsed().as_secs_f64();
        let realised = spun_ns as f64 / others_ns.max(1) as f64;
        Ok(judge(f64::from(percent) / 100.0, realised, load.level, seconds, rounds))
    }

    /// Pairs of blocks on two fresh brokers.
    fn slowdown_round(&mut self, load: &Slowdown, index: usize, percent: u32, round: u32) -> Result<Round, BenchError> {
        // Which of the two is started first must not matter.
        let mut brokers = [None, None];
        for side in assemble::order(round, 2) {
            brokers[side] = Some(self.slowdown_broker(index, if side == 1 { percent } else { 0 })?);
        }
        let [Some(plain), Some(slowed)] = brokers else { unreachable!("both sides were started") };
        let targets = [&plain, &slowed].map(|broker| broker.target("reference", self.plan.flush));
        // A process' first block makes its pools and its files, and is none of the figures.
        for target in &targets {
            self.slowdown_block(load, index, target)?;
        }
        let mut pairs = Vec::new();
        let (mut spun_ns, mut others_ns) = (0, 0);
        // Only what is spun in the second's blocks counts: while it is idle, the spin's own waking is most of what it uses.
        let times = || targets[1].pid.and_then(spin::spun_and_others_ns).unwrap_or_default();
        for pair in 0..load.pairs_per_round {
            let mut costs = [0.0; 2];
            for side in assemble::order(round + pair, 2) {
                let before = times();
                costs[side] = self.slowdown_block(load, index, &targets[side])?;
                if side == 1 {
                    let after = times();
                    spun_ns += after.0.saturating_sub(before.0);
                    others_ns += after.1.saturating_sub(before.1);
                }
            }
            pairs.push(costs);
        }
        Ok(Round { pairs, spun_ns, others_ns })
    }

    /// CPU per message of one block, nanoseconds.
    fn slowdown_block(&mut self, load: &Slowdown, index: usize, target: &SystemTarget) -> Result<f64, BenchError> {
        self.step("slowdown", &target.name);
        let block = self.raw_block_on(&load.shape, target, load.block_seconds, 0.0)?;
        self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
        let (produce_ns, consume_ns) = block.cpu_ns.unwrap_or_default();
        Ok((produce_ns + consume_ns) / block.records.max(1) as f64)
    }

    /// A broker started as the measured one was, slowed down where `percent` is not 0.
    fn slowdown_broker(&self, index: usize, percent: u32) -> Result<ReferenceBroker, BenchError> {
        let target = &self.systems[index];
        let (Some(Restart::Program { executable, arguments }), Some(data)) = (&target.restart, &target.data_dir) else {
            return Err(BenchError::NoRestart { system: target.name.clone() });
        };
        let mut arguments = arguments.clone();
        if percent > 0 {
            // Only this command slows a broker down; the rest is as every broker takes it.
            arguments.splice(..1, ["slowed-broker".to_owned(), "--percent".to_owned(), percent.to_string()]);
        }
        let layout = target.settings.get("layout").map_or("", String::as_str);
        let parent = data.parent().map_or_else(std::env::temp_dir, std::path::Path::to_path_buf);
        ReferenceBroker::start_as(executable, &arguments, layout, &parent)
    }
}

/// The trial's figures: each round's mean log-ratio is one value, and the test is whether they lie above zero.
fn judge(injected: f64, realised: f64, level: f64, seconds: f64, rounds: Vec<Vec<[f64; 2]>>) -> SlowdownTrial {
    let values: Vec<f64> = rounds.iter().filter_map(|pairs| round_value(pairs)).collect();
    let interval = median_interval(&values, SEED)
        .map_or([f64::NAN; 3], |interval| [interval.value, interval.low, interval.high].map(f64::exp));
    let [ratio, low, high] = interval;
    let probability = signed_rank_probability(&values, SEED);
    let is_found = probability <= level;
    SlowdownTrial { injected, realised, ratio, low, high, probability, is_found, seconds, rounds }
}

fn round_value(pairs: &[[f64; 2]]) -> Option<f64> {
    let logs: Vec<f64> =
        pairs.iter().filter(|[first, second]| *first > 0.0 && *second > 0.0).map(|[a, b]| (b / a).ln()).collect();
    (!logs.is_empty()).then(|| logs.iter().sum::<f64>() / logs.len() as f64)
}

const SEED: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of four pairs: every pair of brokers differs by itself by up to 1 %, every block by up to 2 %.
    fn rounds(slowdown: f64) -> Vec<Vec<[f64; 2]>> {
        let wobble = |number: u32, width: f64| width * ((f64::from(number) * 0.618_034).fract() * 2.0 - 1.0);
        let round = |round: u32| {
            let own = 1.0 + wobble(round, 0.01);
            let cost = |number: u32| 100.0 * (1.0 + wobble(round * 31 + number, 0.02));
            (0..4).map(|pair| [cost(2 * pair), cost(2 * pair + 1) * own * (1.0 + slowdown)]).collect()
        };
        (0..16).map(round).collect()
    }

    #[test]
    fn two_percent_are_found_and_none_are_not() {
        let slowed = judge(0.02, 0.02, 0.01, 60.0, rounds(0.02));
        assert!(slowed.is_found && slowed.probability <= 0.01, "{}", slowed.probability);
        assert!((1.01..1.03).contains(&slowed.ratio) && slowed.low < slowed.ratio, "{}", slowed.ratio);
        let plain = judge(0.0, 0.0, 0.01, 60.0, rounds(0.0));
        assert!(!plain.is_found, "{}", plain.probability);
    }

    #[test]
    fn a_round_without_figures_is_no_round() {
        assert_eq!(round_value(&[[0.0, 1.0], [1.0, 0.0]]), None);
        assert!(!judge(0.02, 0.0, 0.01, 1.0, vec![vec![[0.0, 1.0]]]).is_found);
    }
}
