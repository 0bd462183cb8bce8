//! The search's state: the best plan so far, what is known of the plans tried, and rounds of candidates run side by
//! side. A round's winner is the first success in the candidates' order, so the number of threads changes nothing but
//! the time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_128;

use super::{EvidenceKind, Options, Oracle, Progress, Shrunk};
use crate::plan::Plan;

/// A search in progress.
pub(super) struct Search<'a> {
    plan: Plan,
    oracle: &'a Oracle<'a>,
    options: Options<'a>,
    /// By digest of the plan: whether it shows what is wanted; nothing while it is being run.
    known: BTreeMap<u128, Option<bool>>,
    runs: u64,
    /// Candidates considered, up to the winner of each round.
    tries: u64,
    steps: u64,
    is_stopped: bool,
}

/// What the threads of a round share.
struct Round {
    known: BTreeMap<u128, Option<bool>>,
    next: usize,
    winner: Option<(usize, Plan)>,
    runs: u64,
    is_stopped: bool,
}

/// What a thread of a round needs.
struct Worker<'a> {
    plan: &'a Plan,
    oracle: &'a Oracle<'a>,
    wanted: EvidenceKind,
    may_go_on: &'a (dyn Fn() -> bool + Sync),
    count: usize,
    candidate: &'a (dyn Fn(&Plan, usize) -> Plan + Sync),
}

impl<'a> Search<'a> {
    pub(super) fn new(plan: Plan, oracle: &'a Oracle<'a>, options: Options<'a>) -> Search<'a> {
        assert!(options.jobs >= 1, "shrinking needs a thread");
        let known = BTreeMap::from([(digest(&plan), Some(true))]);
        Search { plan, oracle, options, known, runs: 0, tries: 0, steps: 0, is_stopped: false }
    }

    /// The best plan so far.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Steps down so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether the time or the tries are over.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub(super) fn finish(self) -> Shrunk {
        Shrunk { plan: self.plan, runs: self.runs, is_minimal: !self.is_stopped }
    }

    /// Tries `count` candidates, made from the best plan by number; the first that shows what is wanted becomes the
    /// best plan, and its number is the answer. `now` says what is being tried.
    pub(super) fn round(
        &mut self,
        now: &'static str,
        count: usize,
        candidate: &(dyn Fn(&Plan, usize) -> Plan + Sync),
    ) -> Option<usize> {
        if self.is_stopped || count == 0 {
            return None;
        }
        let tries_left = self.options.tries_max.map_or(u64::MAX, |most| most.saturating_sub(self.tries));
        let count = count.min(usize::try_from(tries_left).unwrap_or(usize::MAX));
        if count == 0 {
            self.is_stopped = true;
            return None;
        }
        let known = std::mem::take(&mut self.known);
        let round = Mutex::new(Round { known, next: 0, winner: None, runs: 0, is_stopped: false });
        let worker = Worker {
            plan: &self.plan,
            oracle: self.oracle,
            wanted: self.options.wanted,
            may_go_on: self.options.may_go_on,
            count,
            candidate,
        };
        std::thread::scope(|scope| {
            for _ in 1..self.options.jobs.min(count) {
                scope.spawn(|| worker.work(&round));
            }
            worker.work(&round);
        });
        let round = round.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.known = round.known;
        self.runs += round.runs;
        self.tries += round.winner.as_ref().map_or(count, |(number, _)| number + 1) as u64;
        self.is_stopped |= round.is_stopped;
        let won = round.winner.map(|(number, plan)| {
            self.plan = plan;
            self.steps += 1;
            number
        });
        let (faults, operations) = (self.plan.faults.len(), self.plan.operation_count());
        (self.options.on_progress)(Progress { now, runs: self.runs, faults, operations });
        won
    }
}

impl Worker<'_> {
    /// Takes candidates in order until one has won that lies before all that are left.
    fn work(&self, round: &Mutex<Round>) {
        loop {
            // Numbers are given out and looked up under one lock: of two equal candidates the first is the one that
            // runs.
            let mut state = lock(round);
            let number = state.next;
            if number >= self.count || state.is_stopped || state.winner.as_ref().is_some_and(|(won, _)| *won < number) {
                return;
            }
            state.next += 1;
            let plan = (self.candidate)(self.plan, number);
            let digest = digest(&plan);
            match state.known.get(&digest) {
                Some(Some(true)) if plan != *self.plan => state.win(number, plan),
                // Failed before, is being run under a lower number, or is the best plan itself.
                Some(_) => {}
                None if !(self.may_go_on)() => state.is_stopped = true,
                None => {
                    state.known.insert(digest, None);
                    state.runs += 1;
                    drop(state);
                    let shows = (self.oracle)(&plan).is_some_and(|kinds| kinds.contains(&self.wanted));
                    let mut state = lock(round);
                    state.known.insert(digest, Some(shows));
                    if shows {
                        state.win(number, plan);
                    }
                }
            }
        }
    }
}

impl Round {
    fn win(&mut self, number: usize, plan: Plan) {
        if self.winner.as_ref().is_none_or(|(won, _)| number < *won) {
            self.winner = Some((number, plan));
        }
    }
}

/// A thread that panicked ends the whole scope with its panic, so a poisoned state is never used for long.
fn lock(round: &Mutex<Round>) -> MutexGuard<'_, Round> {
    round.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(plan: &Plan) -> u128 {
    let text = serde_json::to_vec(plan).expect("plans consist of numbers, strings and maps with text keys");
    xxh3_128(&text)
}
