//! The mutants' table: which scenarios should catch each, by which anomaly, and which classes of fault it needs.
//! `run` computes the score: every mutant caught or not, and false alarms of the clean broker under the same seeds.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mqassay_broker::mutant::Mutant;
use mqassay_harness::artifact::folder;
use mqassay_harness::artifact::{MutantLine, MutantSummary, ShrunkLine, VerdictKind};
use mqassay_harness::driver::mutant::ClientMutant;
use mqassay_harness::history::Mark;
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::scenario::{Scenario, Span};

use crate::campaign::{self, CampaignError, Course, Keep, Options};
use crate::catalogue::{self, CatalogueError};
use crate::runner::{Run, RunError};
use crate::shrink::{self, Bound, ShrinkError};

/// Who has the deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit {
    /// Every node.
    Broker(Mutant),
    /// Every client.
    Client(ClientMutant),
}

impl Culprit {
    /// The public name of the bug.
    pub fn name(self) -> &'static str {
        match self {
            Culprit::Broker(mutant) => mutant.name(),
            Culprit::Client(mutant) => mutant.name(),
        }
    }

    /// Gives the bug to those who run a plan.
    pub fn infect(self, plan: &mut Plan) {
        match self {
            Culprit::Broker(mutant) => plan.mutant = Some(mutant.name().to_owned()),
            Culprit::Client(mutant) => plan.client_mutant = Some(mutant.name().to_owned()),
        }
    }
}

/// A mutant of the broker's or of the client's table.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Who has which bug.
    pub culprit: Culprit,
    /// See `Row::grade`.
    pub grade: &'static str,
    /// See `Row::title`.
    pub title: &'static str,
    /// See `Row::scenarios`.
    pub scenarios: &'static [&'static str],
    /// See `Row::anomalies`.
    pub anomalies: &'static [&'static str],
    /// See `Row::needs`.
    pub needs: &'static [&'static str],
}

/// The deliberate bugs of clients.
pub const CLIENT_TABLE: &[Subject] = &[
    Subject {
        culprit: Culprit::Client(ClientMutant::RestampsAppended),
        grade: "medium",
        title: "stamps anew what may have been appended, and sends it again",
        scenarios: &["retry-limits"],
        anomalies: &["duplicate"],
        needs: &["one-request", "link-delay", "link-cut", "kill"],
    },
    Subject {
        culprit: Culprit::Client(ClientMutant::OffsetErrorResets),
        grade: "medium",
        title: "takes an error of OffsetFetch for \"nothing is committed\"",
        scenarios: &["resume"],
        anomalies: &["commit-regression", "commit-lost"],
        needs: &["kill", "restart", "link-cut", "link-delay"],
    },
];

/// Every mutant: the brokers', then the clients'.
pub fn subjects() -> Vec<Subject> {
    let brokers = TABLE.iter().map(|row| Subject {
        culprit: Culprit::Broker(row.mutant),
        grade: row.grade,
        title: row.title,
        scenarios: row.scenarios,
        anomalies: row.anomalies,
        needs: row.needs,
    });
    brokers.chain(CLIENT_TABLE.iter().copied()).collect()
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The mutant.
    pub mutant: Mutant,
    /// easy, medium or hard.
    pub grade: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Scenarios that should catch it.
    pub scenarios: &'static [&'static str],
    /// Anomalies that it causes; it is caught when one of them is found.
    pub anomalies: &'static [&'static str],
    /// Without these classes of fault it does no harm.
    pub needs: &'static [&'static str],
}

/// Seeds within which every mutant of the table must be caught; an easy one within the first `SEEDS_EASY` of them.
pub const SEEDS: RangeInclusive<u64> = 1..=500;
/// Seeds within which an easy mutant must be caught.
pub const SEEDS_EASY: u64 = 20;

const LOST: &[&str] = &["lost-write", "unseen", "inconsistent-offsets", "poll-skip"];

/// The table.
pub const TABLE: &[Row] = &[
    Row {
        mutant: Mutant::AckBeforeSync,
        grade: "easy",
        title: "acknowledges before the sync has ended",
        scenarios: &["no-loss"],
        anomalies: LOST,
        needs: &["power-loss"],
    },
    Row {
        mutant: Mutant::DirectoryNotSynced,
        grade: "medium",
        title: "syncs a new segment, but not its directory",
        scenarios: &["no-loss"],
        anomalies: LOST,
        needs: &["power-loss"],
    },
    Row {
        mutant: Mutant::ChecksumNotVerified,
        grade: "medium",
        title: "does not verify checksums of what it reads back",
        scenarios: &["rot"],
        anomalies: &["corrupt-payload"],
        // A torn tail is found by its checksums too.
        needs: &["bit-flip", "power-loss"],
    },
    Row {
        mutant: Mutant::ProducerExpiresEarly,
        grade: "medium",
        title: "forgets an idle producer, and takes its late retry for new",
        scenarios: &["idempotent-delivery"],
        anomalies: &["duplicate"],
        needs: &["one-request", "link-cut", "kill", "power-loss"],
    },
    Row {
        mutant: Mutant::WindowNotRecovered,
        grade: "medium",
        title: "does not recover the idempotence window after a restart",
        scenarios: &["idempotent-delivery"],
        anomalies: &["duplicate"],
        needs: &["kill", "power-loss"],
    },
    Row {
        mutant: Mutant::TornTailKept,
        grade: "medium",
        title: "appends behind a torn tail instead of cutting it",
        scenarios: &["no-loss"],
        anomalies: LOST,
        needs: &["power-loss"],
    },
    Row {
        mutant: Mutant::ProducerSnapshotsRemoved,
        grade: "medium",
        title: "finds no producers in the indexes of sealed segments after a restart",
        scenarios: &["idempotent-delivery"],
        anomalies: &["duplicate"],
        needs: &["kill", "power-loss"],
    },
    Row {
        mutant: Mutant::TombstoneDroppedEarly,
        grade: "medium",
        title: "compacts a tombstone away before its time",
        scenarios: &["compaction"],
        anomalies: LOST,
        needs: &[],
    },
    Row {
        mutant: Mutant::TruncateToWatermark,
        grade: "medium",
        title: "truncates a new follower to its own watermark",
        scenarios: &["replication"],
        anomalies: LOST,
        needs: &["kill", "power-loss", "pause", "restart"],
    },
    Row {
        mutant: Mutant::FetchNotFenced,
        grade: "medium",
        title: "does not fence followers' fetches by epochs",
        scenarios: &["replication"],
        anomalies: &["lost-write", "unseen", "inconsistent-offsets", "poll-skip", "ghost", "no-progress"],
        needs: &["kill", "power-loss", "pause", "restart"],
    },
    Row {
        mutant: Mutant::AckJumpsAhead,
        grade: "medium",
        title: "confirms what a follower was only sent",
        scenarios: &["replication"],
        anomalies: LOST,
        needs: &["kill", "power-loss", "pause", "restart"],
    },
    Row {
        mutant: Mutant::WatermarkWaitsForIneligible,
        grade: "medium",
        title: "waits for a replica that was refused to be in sync",
        scenarios: &["replication"],
        anomalies: &["no-progress"],
        needs: &["kill", "power-loss", "restart"],
    },
    Row {
        mutant: Mutant::EpochsNotSynced,
        grade: "hard",
        title: "forgets the newest epochs in a restart",
        scenarios: &["replication"],
        anomalies: LOST,
        needs: &["kill", "power-loss", "restart"],
    },
    Row {
        mutant: Mutant::ReadsUnconfirmed,
        grade: "medium",
        title: "gives out what is not confirmed",
        scenarios: &["replication"],
        anomalies: &["lost-write", "unseen", "inconsistent-offsets", "poll-skip", "ghost", "phantom-write"],
        needs: &["kill", "power-loss", "pause", "restart"],
    },
    Row {
        mutant: Mutant::ProducersNotReplicated,
        grade: "medium",
        title: "does not copy the idempotence window to followers",
        scenarios: &["replication"],
        anomalies: &["duplicate"],
        needs: &["kill", "power-loss", "pause", "restart", "one-request", "link-cut"],
    },
    Row {
        mutant: Mutant::LastReplicaKeptInSync,
        grade: "easy",
        title: "lets the last replica lead again after it lost what others have",
        scenarios: &["unclean-restart"],
        anomalies: LOST,
        needs: &["power-loss"],
    },
    Row {
        mutant: Mutant::UncleanElection,
        grade: "easy",
        title: "elects a replica that is not in sync",
        scenarios: &["leader-storm"],
        anomalies: LOST,
        needs: &["kill", "power-loss", "pause", "restart", "isolate"],
    },
    Row {
        mutant: Mutant::FencedReplicaRejoins,
        grade: "medium",
        title: "lets a replica that was fenced lead, whatever it lost",
        scenarios: &["unclean-restart"],
        anomalies: LOST,
        needs: &["power-loss"],
    },
    Row {
        mutant: Mutant::EpochNotAnswered,
        grade: "hard",
        title: "does not say which epoch's end it answers",
        scenarios: &["leader-storm"],
        anomalies: &["lost-write", "unseen", "inconsistent-offsets", "poll-skip", "no-progress"],
        needs: &["kill", "power-loss", "pause", "restart", "isolate"],
    },
    Row {
        mutant: Mutant::EpochsOutliveCut,
        grade: "medium",
        title: "remembers epochs that were cut with the log's end",
        scenarios: &["leader-storm"],
        anomalies: &["no-progress"],
        needs: &["kill", "power-loss", "pause", "restart", "isolate"],
    },
    Row {
        mutant: Mutant::CacheOutlivesCut,
        grade: "medium",
        title: "serves from memory what it cut from its log",
        scenarios: &["deposed"],
        anomalies: LOST,
        needs: &["pause", "isolate"],
    },
    Row {
        mutant: Mutant::HastyVoters,
        grade: "hard",
        title: "changes voters before the change before is committed",
        scenarios: &["membership"],
        anomalies: LOST,
        needs: &["add-node", "remove-node"],
    },
    Row {
        mutant: Mutant::UnreadableSnapshotIsNone,
        grade: "medium",
        title: "takes a metadata snapshot that it cannot read for none, and its logs for orphans",
        scenarios: &["metadata-rot"],
        anomalies: LOST,
        needs: &["bit-flip"],
    },
    Row {
        mutant: Mutant::OwnershipLostOnReassignment,
        grade: "medium",
        title: "forgets who owns a queue when a member is given another assignment",
        scenarios: &["regroup"],
        anomalies: &["dual-ownership"],
        needs: &[],
    },
];

/// The mutant with a public name.
pub fn find(name: &str) -> Option<Subject> {
    subjects().into_iter().find(|subject| subject.culprit.name().eq_ignore_ascii_case(name))
}

/// What to try.
#[derive(Debug, Clone)]
pub struct ScoreOptions {
    /// Seeds tried per mutant, and on the clean broker.
    pub seeds: RangeInclusive<u64>,
    /// Real time for all of it; a mutant that is not caught when it ends counts as not caught.
    pub budget: Option<Duration>,
    /// Threads.
    pub jobs: usize,
    /// Where the artifacts of catching runs go.
    pub runs_dir: PathBuf,
    /// Where shrinking the plan that catches a mutant ends at the latest; none leaves it as it is.
    pub shrink: Option<Bound>,
    /// Public names of the mutants to try; all of them where none is named.
    pub only: Vec<String>,
    /// Whether faults that no mutant needs are added, so that every plan has `CROWD` of them at least.
    pub crowded: bool,
}

/// Faults of a crowded plan at least.
pub const CROWD: i64 = 8;

/// Why there is no score.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// A run failed.
    #[error(transparent)]
    Campaign(#[from] CampaignError),
    /// A scenario of the table is missing.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A catching plan cannot be shrunk.
    #[error(transparent)]
    Shrink(#[from] ShrinkError),
}

/// Tries every mutant, then the clean broker on as many seeds as the slowest mutant needed. `on_line` hears of each
/// mutant with the run that caught it.
pub fn run(
    options: &ScoreOptions,
    on_line: &mut dyn FnMut(&MutantLine, Option<&Run>),
) -> Result<MutantSummary, ScoreError> {
    let began = Instant::now();
    let out_of_time = || options.budget.is_some_and(|budget| began.elapsed() > budget);
    let mut summary = MutantSummary { summary: true, ..MutantSummary::default() };
    let mut most_seeds = 0;
    let mut used: Vec<&str> = Vec::new();
    let is_asked =
        |name: &str| options.only.is_empty() || options.only.iter().any(|only| only.eq_ignore_ascii_case(name));
    for subject in subjects().into_iter().filter(|subject| is_asked(subject.culprit.name())) {
        if out_of_time() {
            summary.left_out += 1;
            continue;
        }
        let (line, run) = attempt(&subject, options, &out_of_time)?;
        if !line.caught && options.seeds.start() + line.seeds_tried <= last_seed(subject.grade, options) {
            // Cut short: that it was not caught yet says nothing.
            summary.left_out += 1;
            continue;
        }
        for name in subject.scenarios {
            if !used.contains(name) {
                used.push(name);
            }
        }
        summary.mutants += 1;
        summary.caught += u64::from(line.caught);
        most_seeds = most_seeds.max(line.seeds_tried);
        on_line(&line, run.as_ref());
    }
    if used.is_empty() {
        return Ok(summary);
    }
    let last = options.seeds.start().saturating_add(most_seeds.max(1) - 1).min(*options.seeds.end());
    let clean = campaign_options(&used, options, None, last)?;
    campaign::run(&clean, &mut |run| {
        summary.false_alarms += u64::from(run.line.verdict == VerdictKind::Invalid);
        !out_of_time()
    })?;
    Ok(summary)
}

/// One mutant over the seeds until it is caught.
pub fn attempt(
    row: &Subject,
    options: &ScoreOptions,
    out_of_time: &dyn Fn() -> bool,
) -> Result<(MutantLine, Option<Run>), ScoreError> {
    let began = Instant::now();
    let mut line = MutantLine {
        mutant: row.culprit.name().to_owned(),
        grade: row.grade.to_owned(),
        caught: false,
        anomaly: None,
        seeds_tried: 0,
        wall_seconds: 0.0,
        fault_classes: BTreeMap::new(),
        shrunk: None,
    };
    let mut catching = None;
    let last = last_seed(row.grade, options);
    let campaign = campaign_options(row.scenarios, options, Some(row.culprit), last)?;
    campaign::run(&campaign, &mut |run| {
        line.seeds_tried = run.line.seed - options.seeds.start() + 1;
        line.anomaly =
            row.anomalies.iter().find(|name| run.line.anomalies.contains_key(**name)).map(|s| (*s).to_owned());
        line.caught = line.anomaly.is_some();
        if line.caught {
            for mark in &run.history.marks {
                if let Mark::Fault { class, .. } = mark {
                    *line.fault_classes.entry(class.clone()).or_insert(0) += 1;
                }
            }
            catching = Some(run.clone());
        }
        !line.caught && !out_of_time()
    })?;
    line.wall_seconds = began.elapsed().as_secs_f64();
    if let (Some(bound), Some(run)) = (options.shrink, &catching) {
        line.shrunk = Some(shrunk(run, &line, bound, options)?);
    }
    Ok((line, catching))
}

/// The last seed on which a mutant of a grade is tried.
fn last_seed(grade: &str, options: &ScoreOptions) -> u64 {
    match grade {
        // A crowd of faults makes an easy mutant a little harder to hit; what is wanted then is a plan to shrink.
        "easy" if !options.crowded => options.seeds.start().saturating_add(SEEDS_EASY - 1).min(*options.seeds.end()),
        _ => *options.seeds.end(),
    }
}

/// Shrinks the plan that caught a mutant, into a file beside its artifacts.
fn shrunk(run: &Run, line: &MutantLine, bound: Bound, options: &ScoreOptions) -> Result<ShrunkLine, ScoreError> {
    let path = PathBuf::from(&run.line.plan);
    let plan = folder::read_plan(&path).map_err(RunError::from).map_err(ShrinkError::from)?;
    let how = shrink::Options { anomaly: line.anomaly.clone(), bound, jobs: options.jobs };
    let small = shrink::shrink_plan(&plan, &how, &mut |_| {})?;
    Ok(small.write(&path.with_file_name("shrunk.toml"))?)
}

/// The scenario with more faults, all of classes that harm nobody: links, slow disks, clean restarts.
fn crowded(mut scenario: Scenario) -> Scenario {
    let faults = &mut scenario.faults;
    let extra = Span::Between([CROWD / 4, CROWD / 2]);
    (faults.link_hold, faults.link_delay, faults.disk_slow, faults.restart) = (extra, extra, extra, extra);
    scenario
}

fn campaign_options(
    scenarios: &[&str],
    options: &ScoreOptions,
    mutant: Option<Culprit>,
    last: u64,
) -> Result<Options, CatalogueError> {
    Ok(Options {
        scenarios: scenarios
            .iter()
            .map(|name| catalogue::find(name).map(|found| if options.crowded { crowded(found) } else { found }))
            .collect::<Result<_, _>>()?,
        seeds: *options.seeds.start()..=last,
        each: true,
        mutant,
        without: Vec::new(),
        jobs: options.jobs,
        runs_dir: options.runs_dir.clone(),
        keep: Keep::Failures,
        course: Course::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_for_which_time_does_not_suffice_are_left_out_and_not_called_uncaught() {
        let folder = tempfile::tempdir().unwrap();
        let options = ScoreOptions {
            seeds: SEEDS,
            budget: Some(Duration::ZERO),
            jobs: 1,
            runs_dir: folder.path().to_path_buf(),
            shrink: None,
            only: Vec::new(),
            crowded: false,
        };
        let summary = run(&options, &mut |line, _| panic!("{} was tried", line.mutant)).unwrap();
        assert_eq!((summary.mutants, summary.left_out), (0, subjects().len() as u64));
    }
}
