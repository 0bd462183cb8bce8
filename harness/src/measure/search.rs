//! The search for the highest rate that a system holds: exponential probes, bisection, then fresh runs that confirm. Pure:
//! it says which rate to try next and is told whether that was held. Not here: what *held* means, and who tries.

/// How far and how closely is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchBounds {
    /// The first rate tried, records a second.
    pub start: u64,
    /// No rate above it is tried, records a second.
    pub maximum: u64,
    /// Bisection ends where the lowest rate that failed is at most this fraction above the highest that held.
    pub resolution: f64,
    /// Runs that must all hold the rate found.
    pub confirm_runs: u32,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Try this rate, records a second.
    Probe(u64),
    /// Try this rate in a fresh run that counts toward the confirmation.
    Confirm(u64),
    /// The search is over.
    Done,
}

/// One search. Ask for the `step`, try it, `note` the outcome, until it is done.
#[derive(Debug, Clone)]
pub struct Search {
    bounds: SearchBounds,
    held: Option<u64>,
    failed: Option<u64>,
    /// A rate that failed once: it is tried again before it is believed, as a machine's single stall would end the search.
    doubted: Option<u64>,
    confirmations: u32,
    tries: u32,
    step: Step,
}

impl Search {
    /// A search that has tried nothing yet.
    pub fn new(bounds: SearchBounds) -> Search {
        assert!(0 < bounds.start && bounds.start <= bounds.maximum, "a search starts between 1 and its maximum");
        assert!(bounds.resolution > 0.0 && bounds.confirm_runs > 0, "a search ends by its resolution and confirms");
        let step = Step::Probe(bounds.start);
        Search { bounds, held: None, failed: None, doubted: None, confirmations: 0, tries: 0, step }
    }

    /// What to do next.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Takes the outcome of the step.
    pub fn note(&mut self, is_held: bool) {
        self.tries += 1;
        self.step = match (self.step, is_held) {
            (Step::Done, _) => panic!("a search that is over takes no outcome"),
            (Step::Probe(rate), true) => {
                self.doubted = None;
                self.held = Some(rate);
                self.after_probe()
            }
            (Step::Probe(rate), false) if self.doubted != Some(rate) => {
                self.doubted = Some(rate);
                Step::Probe(rate)
            }
            (Step::Probe(rate), false) => {
                self.doubted = None;
                self.failed = Some(rate);
                self.after_probe()
            }
            (Step::Confirm(rate), true) => {
                self.confirmations += 1;
                if self.confirmations == self.bounds.confirm_runs { Step::Done } else { Step::Confirm(rate) }
            }
            (Step::Confirm(rate), false) => {
                self.failed = Some(rate);
                self.confirmations = 0;
                let lower = (rate as f64 / (1.0 + self.bounds.resolution)) as u64;
                self.held = Some(lower).filter(|lower| *lower > 0);
                self.held.map_or(Step::Done, Step::Confirm)
            }
        };
        if self.tries >= TRIES_MAXIMUM {
            self.step = Step::Done;
        }
    }

    /// The rate that all confirming runs held, records a second; none before the end, and where no rate was.
    pub fn confirmed(&self) -> Option<u64> {
        self.held.filter(|_| self.step == Step::Done && self.confirmations == self.bounds.confirm_runs)
    }

    /// The lowest rate known to fail, records a second.
    pub fn failed(&self) -> Option<u64> {
        self.failed
    }

    fn after_probe(&self) -> Step {
        let between = |low: u64, high: u64| ((low as f64 * high as f64).sqrt() as u64).clamp(low, high);
        match (self.held, self.failed) {
            (Some(held), None) if held == self.bounds.maximum => Step::Confirm(held),
            (Some(held), None) => Step::Probe(held.saturating_mul(GROWTH).min(self.bounds.maximum)),
            (None, Some(failed)) if failed < GROWTH => Step::Done,
            (None, Some(failed)) => Step::Probe(failed / GROWTH),
            (Some(held), Some(failed)) => {
                let middle = between(held, failed);
                let is_close = failed as f64 <= held as f64 * (1.0 + self.bounds.resolution);
                if is_close || middle == held || middle == failed { Step::Confirm(held) } else { Step::Probe(middle) }
            }
            (None, None) => unreachable!("a probe that has ended was held or failed"),
        }
    }
}

/// By how much an exponential probe is above the one before.
const GROWTH: u64 = 2;
/// A search gives up after so many tries; one that is not disturbed needs about a third of them.
const TRIES_MAXIMUM: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SearchBounds = SearchBounds { start: 1_000, maximum: 10_000_000, resolution: 0.05, confirm_runs: 3 };

    /// Searches a system that answers by a function of the rate and the number of the try; gives the tries as well.
    fn search(bounds: SearchBounds, mut holds: impl FnMut(u64, usize) -> bool) -> (Search, Vec<Step>) {
        let mut search = Search::new(bounds);
        let mut steps = Vec::new();
        while search.step() != Step::Done {
            let (Step::Probe(rate) | Step::Confirm(rate)) = search.step() else { unreachable!() };
            steps.push(search.step());
            search.note(holds(rate, steps.len()));
        }
        (search, steps)
    }

    #[test]
    fn the_highest_rate_is_found_within_the_resolution_and_confirmed() {
        for capacity in [1_000, 1_001, 1_999, 2_000, 77_777, 640_000, 9_999_999] {
            let (found, steps) = search(BOUNDS, |rate, _| rate <= capacity);
            let confirmed = found.confirmed().unwrap();
            assert!(confirmed <= capacity && capacity as f64 <= confirmed as f64 * 1.05, "{capacity}: {confirmed}");
            assert_eq!(steps[steps.len() - 3..], [Step::Confirm(confirmed); 3], "{capacity}");
            assert!(found.failed().is_some_and(|failed| failed > capacity), "{capacity}");
            assert!(steps.len() <= 30, "{capacity}: {} tries", steps.len());
        }
    }

    #[test]
    fn a_system_below_the_first_rate_is_found_by_halving_and_one_that_holds_nothing_has_no_rate() {
        let (found, _) = search(BOUNDS, |rate, _| rate <= 17);
        assert!((16..=17).contains(&found.confirmed().unwrap()));
        let (none, _) = search(BOUNDS, |_, _| false);
        assert_eq!((none.confirmed(), none.failed()), (None, Some(1)));
    }

    #[test]
    fn a_system_above_the_maximum_is_confirmed_there() {
        let (found, _) = search(BOUNDS, |_, _| true);
        assert_eq!((found.confirmed(), found.failed()), (Some(10_000_000), None));
    }

    #[test]
    fn one_stall_does_not_end_the_search_and_two_at_one_rate_do() {
        let (found, _) = search(BOUNDS, |rate, number| rate <= 64_000 && number != 3);
        assert!(found.confirmed().unwrap() > 60_000);
        let (found, _) = search(BOUNDS, |rate, number| rate <= 64_000 && number != 3 && number != 4);
        assert!(found.confirmed().unwrap() < 4_000);
    }

    #[test]
    fn a_rate_that_a_fresh_run_does_not_hold_is_lowered_until_one_does() {
        // Probes are lucky: they hold what no fresh run holds.
        let mut search = Search::new(BOUNDS);
        let mut confirming = 0;
        while search.step() != Step::Done {
            match search.step() {
                Step::Probe(rate) => search.note(rate <= 100_000),
                Step::Confirm(rate) => {
                    confirming += 1;
                    search.note(rate <= 80_000);
                }
                Step::Done => unreachable!(),
            }
        }
        let confirmed = search.confirmed().unwrap();
        assert!((76_000..=80_000).contains(&confirmed), "{confirmed}");
        assert!(confirming > 5 && search.failed().unwrap() > 80_000);
    }
}
