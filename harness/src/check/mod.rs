//! The checkers: pure functions from a history and the settings it ran under to a verdict, one file per guarantee.
//! Start at `judge`. `order` is the index that all of them read, `case` answers what several ask, `guarantee` says what
//! is allowed. Nothing here reads a clock, the environment or a container in hash order. Departures from what public
//! checkers do: outcomes of three kinds, and a finding is weighed by the producer and the topic it concerns.

mod case;
mod commit_ahead;
mod commits;
mod compacted;
mod context;
mod corrupt_payload;
mod deletion;
mod dual_ownership;
mod duplicate;
mod final_reads;
mod ghost;
mod groups;
#[cfg(test)]
mod groups_tests;
mod inconsistent_offsets;
mod lost_write;
mod no_progress;
mod nonmonotonic_poll;
mod nonmonotonic_send;
mod order;
mod permitted_loss_exceeded;
mod phantom_write;
mod poll_skip;
mod premature_deletion;
mod ranges;
mod rebalance_livelock;
#[cfg(test)]
mod recorded;
mod regression;
mod resurrected;
#[cfg(test)]
mod samples;
mod self_crash;
mod steps;
mod strands;
mod unseen;
mod verdict;
mod wrong_offset_lookup;
mod zombie_commit;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use context::{Context, GroupContext, TopicContext};
pub use verdict::{Evidence, Finding, Unjudged, Verdict};

use crate::guarantee::Matrix;
use crate::history::History;
use case::Case;
use verdict::Occurrence;

/// A checker: what it found, or why it cannot judge.
struct Checker {
    name: &'static str,
    check: fn(&Case<'_>) -> Result<Vec<Occurrence>, String>,
}

/// Every checker, in the order of the published taxonomy.
const CHECKERS: [Checker; 23] = [
    Checker { name: "lost-write", check: lost_write::check },
    Checker { name: "unseen", check: unseen::check },
    Checker { name: "ghost", check: ghost::check },
    Checker { name: "duplicate", check: duplicate::check },
    Checker { name: "inconsistent-offsets", check: inconsistent_offsets::check },
    Checker { name: "nonmonotonic-send", check: nonmonotonic_send::check },
    Checker { name: "nonmonotonic-poll", check: nonmonotonic_poll::check },
    Checker { name: "poll-skip", check: poll_skip::check },
    Checker { name: "corrupt-payload", check: corrupt_payload::check },
    Checker { name: "phantom-write", check: phantom_write::check },
    Checker { name: "wrong-offset-lookup", check: wrong_offset_lookup::check },
    Checker { name: "regression", check: regression::check },
    Checker { name: "resurrected", check: resurrected::check },
    Checker { name: "premature-deletion", check: premature_deletion::check },
    Checker { name: "permitted-loss-exceeded", check: permitted_loss_exceeded::check },
    Checker { name: "dual-ownership", check: dual_ownership::check },
    Checker { name: "commit-regression", check: commits::check_regression },
    Checker { name: "commit-lost", check: commits::check_lost },
    Checker { name: "commit-ahead", check: commit_ahead::check },
    Checker { name: "zombie-commit", check: zombie_commit::check },
    Checker { name: "rebalance-livelock", check: rebalance_livelock::check },
    Checker { name: "self-crash", check: self_crash::check },
    Checker { name: "no-progress", check: no_progress::check },
];

/// Judges a history by the standard guarantee matrix. A checker that panics or cannot judge makes the verdict unknown at
/// best, never valid.
pub fn judge(history: &History, context: &Context) -> Verdict {
    judge_by(history, context, Matrix::standard(), &CHECKERS)
}

/// Judges a history by another guarantee matrix.
pub fn judge_under(history: &History, context: &Context, matrix: &Matrix) -> Verdict {
    judge_by(history, context, matrix, &CHECKERS)
}

fn judge_by(history: &History, context: &Context, matrix: &Matrix, checkers: &[Checker]) -> Verdict {
    let unjudged = |checker: &str, reason: String| Unjudged { checker: checker.to_owned(), reason };
    let case = match catch_unwind(AssertUnwindSafe(|| Case::of(history, context, matrix))) {
        Ok(Ok(case)) => case,
        Ok(Err(order::Malformed(why))) => {
            let reason = format!("the history is malformed: {why}");
            return Verdict::of(Vec::new(), vec![unjudged("version-order", reason)]);
        }
        Err(panic) => return Verdict::of(Vec::new(), vec![unjudged("version-order", panic_text(panic.as_ref()))]),
    };
    let (mut occurrences, mut failed) = (Vec::new(), Vec::new());
    for checker in checkers {
        match catch_unwind(AssertUnwindSafe(|| (checker.check)(&case))) {
            Ok(Ok(found)) => occurrences.extend(found),
            Ok(Err(reason)) => failed.push(unjudged(checker.name, reason)),
            Err(panic) => failed.push(unjudged(checker.name, panic_text(panic.as_ref()))),
        }
    }
    Verdict::of(occurrences, failed)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("the checker panicked: {}", text.unwrap_or("without a message"))
}
