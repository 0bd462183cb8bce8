//! Guided against blind sampling: how many runs each needs until a mutant is caught, over independent trials. A trial
//! has seeds of its own, the same for both. Start at `run`. Not here: how plans are guided (`campaign::guided`).

use std::path::PathBuf;

use serde::Serialize;

use crate::campaign::{self, CampaignError, Course, Keep, Options};
use crate::catalogue;
use crate::mutants::{ScoreError, Subject};

/// Seeds between the first of one trial and the first of the next.
pub const STRIDE: u64 = 100_000;

/// What to race.
#[derive(Debug, Clone)]
pub struct Race {
    /// Trials of each mutant.
    pub trials: u64,
    /// First seed of the first trial.
    pub first_seed: u64,
    /// Runs of a trial at most; without a catch it counts as having needed one more.
    pub runs_max: u64,
    /// Threads; the result does not depend on them.
    pub jobs: usize,
}

/// A trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// Its first seed.
    pub first_seed: u64,
    /// Runs until blind sampling caught the mutant; `runs_max` + 1 where it did not.
    pub blind: u64,
    /// As `blind`, for guided sampling.
    pub guided: u64,
}

/// What came of a mutant's trials.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RaceLine {
    /// The mutant's public name.
    pub mutant: String,
    /// The trials, in order of their seeds.
    pub trials: Vec<Trial>,
    /// Median of the blind trials.
    pub blind_median: f64,
    /// Median of the guided trials.
    pub guided_median: f64,
    /// Mean of the blind trials.
    pub blind_mean: f64,
    /// Mean of the guided trials.
    pub guided_mean: f64,
}

/// Runs the trials of one mutant; `on_trial` hears of each.
pub fn run(subject: &Subject, race: &Race, on_trial: &mut dyn FnMut(&Trial)) -> Result<RaceLine, ScoreError> {
    let mut trials = Vec::new();
    for number in 0..race.trials {
        let first_seed = race.first_seed + number * STRIDE;
        let blind = runs_needed(subject, race, first_seed, false)?;
        let guided = runs_needed(subject, race, first_seed, true)?;
        let trial = Trial { first_seed, blind, guided };
        on_trial(&trial);
        trials.push(trial);
    }
    let of = |pick: fn(&Trial) -> u64| trials.iter().map(pick).collect::<Vec<u64>>();
    let (blind, guided) = (of(|trial| trial.blind), of(|trial| trial.guided));
    Ok(RaceLine {
        mutant: subject.culprit.name().to_owned(),
        blind_median: median(&blind),
        guided_median: median(&guided),
        blind_mean: mean(&blind),
        guided_mean: mean(&guided),
        trials,
    })
}

/// Runs until the mutant shows one of its anomalies.
fn runs_needed(subject: &Subject, race: &Race, first_seed: u64, guided: bool) -> Result<u64, ScoreError> {
    let scenarios = subject.scenarios.iter().map(|name| catalogue::find(name)).collect::<Result<Vec<_>, _>>()?;
    let seeds = race.runs_max.div_ceil(scenarios.len() as u64);
    let options = Options {
        scenarios,
        seeds: first_seed..=first_seed + seeds - 1,
        each: true,
        mutant: Some(subject.culprit),
        without: Vec::new(),
        jobs: race.jobs,
        runs_dir: PathBuf::new(),
        keep: Keep::None,
        course: Course { guided, ..Course::default() },
    };
    let (mut runs, mut is_caught) = (0, false);
    let ran: Result<_, CampaignError> = campaign::run(&options, &mut |run| {
        runs += 1;
        is_caught = subject.anomalies.iter().any(|name| run.line.anomalies.contains_key(*name));
        !is_caught && runs < race.runs_max
    });
    ran?;
    Ok(if is_caught { runs } else { race.runs_max + 1 })
}

/// The middle value, or the mean of the two in the middle; 0 of none.
fn median(values: &[u64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2] as f64,
        count => (sorted[count / 2 - 1] + sorted[count / 2]) as f64 / 2.0,
    }
}

fn mean(values: &[u64]) -> f64 {
    values.iter().sum::<u64>() as f64 / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants;

    #[test]
    fn a_median_lies_in_the_middle() {
        assert!(median(&[9, 1, 5]) == 5.0 && median(&[4, 1, 9, 6]) == 5.0 && median(&[]) == 0.0);
    }

    #[test]
    fn both_ways_meet_the_same_mutant_and_a_trial_without_a_catch_counts_one_more_than_its_runs() {
        let subject = mutants::find("S1").unwrap();
        let race = Race { trials: 2, first_seed: 1, runs_max: 20, jobs: 2 };
        let mut told = 0;
        let line = run(&subject, &race, &mut |_| told += 1).unwrap();
        assert!(told == 2 && line.trials.iter().all(|trial| trial.blind <= 20 && trial.guided <= 20), "{line:?}");
        let never = Subject { anomalies: &["dual-ownership"], ..subject };
        let line = run(&never, &Race { trials: 1, runs_max: 3, ..race }, &mut |_| {}).unwrap();
        assert_eq!((line.trials[0].blind, line.trials[0].guided), (4, 4));
    }
}
