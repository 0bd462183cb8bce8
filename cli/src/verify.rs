//! `mqassay verify`: scenarios over seeds, told run by run; in the simulated world, and `process_world` where asked.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use mqassay_harness::artifact::recovery;
use mqassay_harness::artifact::{Divergence, Proof, RunLine, RunRecord, SummaryLine, VerdictKind};
use mqassay_harness::plan::scenario::{FaultRanges, Scenario};
use mqassay_scenarios::campaign::proof::Prover;
use mqassay_scenarios::campaign::{self, Course, Keep, Options};
use mqassay_scenarios::mutants::Culprit;
use mqassay_scenarios::runner::Run;
use mqassay_scenarios::{catalogue, coverage, mutants};

use crate::arguments::{Seeds, ShardArgument, jobs, share};
use crate::exit::{Exit, Failure};
use crate::external;
use crate::journal::Journal;
use crate::junit;
use crate::process_world::{self, DiskName, NetworkName, SystemName, Telling, WorldName};
use crate::progress::{Progress, tell};
use crate::results::{Results, json_line};

/// Arguments of `mqassay verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names of built-in scenarios, or paths of scenario files (TOML); all built-in ones where none is named
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Seeds, both ends included; seed s takes scenario s mod n
    #[arg(long, value_name = "A..B", default_value = "1..100")]
    seeds: Seeds,
    /// Where the runs take place
    #[arg(long, value_enum, default_value_t = WorldName::Simulated)]
    world: WorldName,
    /// The system under test, where the world is one of processes
    #[arg(long, value_enum, default_value_t = SystemName::Reference)]
    system: SystemName,
    /// What the nodes' data lie on, where the world is one of processes
    #[arg(long, value_enum, default_value_t = DiskName::Own)]
    disk: DiskName,
    /// How the nodes reach each other, where the world is one of processes
    #[arg(long, value_enum, default_value_t = NetworkName::Proxies)]
    network: NetworkName,
    /// All scenarios on each seed
    #[arg(long)]
    each: bool,
    /// Let the phase with faults last so long; operations and faults grow or shrink with it
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: Option<u64>,
    /// A deliberate bug for the broker
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// A class of fault to leave out; may be given several times
    #[arg(long, value_name = "CLASS")]
    without: Vec<String>,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Where artifacts and results go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Which runs' artifacts stay
    #[arg(long, value_enum, default_value_t = Kept::Failures)]
    keep: Kept,
    /// Print how often each class of fault struck at each named point of the broker
    #[arg(long)]
    coverage: bool,
    /// Keep plans that reach something new, and make later plans by changing them
    #[arg(long)]
    guided: bool,
    /// Run part k of n of the seeds, k from 1; `merge` adds the parts up
    #[arg(long, value_name = "K/N")]
    shard: Option<ShardArgument>,
    /// Go on with an interrupted campaign: runs in the journal of --runs-dir are not run again
    #[arg(long)]
    resume: bool,
    /// Write the runs as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Run this share of the plans (above 0, at most 1) again in another process and compare the traces
    #[arg(long, value_name = "SHARE", value_parser = share)]
    prove_determinism: Option<f64>,
    #[command(flatten)]
    external: external::DriverArguments,
}

/// Which runs' artifacts stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kept {
    /// Of every run
    All,
    /// Of runs that are not valid
    Failures,
    /// None, and no results either
    None,
}

/// Runs the campaign and exits by its verdict.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut options = options(arguments)?;
    if arguments.world == WorldName::Process {
        return on_processes(arguments, &options);
    }
    if arguments.disk != DiskName::Own || arguments.network != NetworkName::Proxies {
        let why = "the simulated world has its own disks and network";
        return Err(Failure::Usage(format!("--disk and --network go with --world process; {why}")));
    }
    if let Some(driver) = &arguments.external.driver {
        return external::run(&arguments.external, driver, &options, arguments.json);
    }
    let mut results = None;
    let mut journal = None;
    if arguments.keep != Kept::None {
        results = Some(Results::create(&arguments.runs_dir)?);
        journal = Some(open_journal(arguments, &mut options)?);
    }
    let mut records: Vec<RunRecord> = options.course.done.values().cloned().collect();
    let mut progress = Progress::new("verify", campaign::total(&options));
    progress.reach(records.len() as u64, campaign::total(&options), "done before");
    let mut failure = None;
    let summary = campaign::run(&options, &mut |run| {
        let record = run.record();
        let told = tell_run(arguments.json, run, &progress)
            .and_then(|()| journal.as_mut().map_or(Ok(()), |journal| journal.add(&record)));
        progress.step(&run.line.scenario);
        records.push(record);
        failure = told.err();
        failure.is_none()
    })
    .map_err(Failure::undone)?;
    progress.finish();
    if let Some(failure) = failure {
        return Err(failure);
    }
    records.sort_by(|a, b| (a.line.seed, &a.line.scenario).cmp(&(b.line.seed, &b.line.scenario)));
    let lines: Vec<RunLine> = records.into_iter().map(|record| record.line).collect();
    if let Some(results) = results {
        results.write_runs(&lines, &summary)?;
    }
    if let Some(path) = &arguments.junit {
        junit::write(path, &lines)?;
    }
    if arguments.json {
        tell(&json_line(&summary)?);
    } else {
        print_summary(&summary);
        if arguments.coverage {
            print_coverage(&summary);
        }
    }
    Ok(exit(&summary))
}

/// The same in the process world, which has neither exact replay nor points, and no use for more than one run at a time.
fn on_processes(arguments: &Arguments, options: &Options) -> Result<Exit, Failure> {
    let simulated = [
        ("--guided", arguments.guided),
        ("--resume", arguments.resume),
        ("--coverage", arguments.coverage),
        ("--prove-determinism", arguments.prove_determinism.is_some()),
        ("--jobs", arguments.jobs.is_some()),
    ];
    if let Some((flag, _)) = simulated.iter().find(|(_, given)| *given) {
        return Err(Failure::Usage(format!("{flag} goes with the simulated world only; leave it out")));
    }
    let telling = Telling { json: arguments.json, junit: arguments.junit.as_deref() };
    process_world::run(options, arguments.system, (arguments.disk, arguments.network), &telling)
}

/// The campaign's journal; the runs in it are taken over where the campaign goes on.
fn open_journal(arguments: &Arguments, options: &mut Options) -> Result<Journal, Failure> {
    if !arguments.resume {
        return Journal::create(&arguments.runs_dir, options);
    }
    let (journal, done) = Journal::resume(&arguments.runs_dir, options)?;
    options.course.done = done;
    Ok(journal)
}

/// A run on standard output: every one as JSON, else those that are worth a line.
fn tell_run(json: bool, run: &Run, progress: &Progress) -> Result<(), Failure> {
    if json {
        progress.say(json_line(&run.line)?.trim_end());
    } else if run.line.verdict != VerdictKind::Valid {
        progress.say(&told(&run.line));
    }
    if let Some(Proof::Differs { trace_hash, first }) = &run.proof {
        let RunLine { scenario, seed, trace_hash: expected, .. } = &run.line;
        eprintln!(
            "mqassay: NOT DETERMINISTIC: {scenario} seed {seed} has trace {expected} here and {trace_hash} in another \
             process; this is a bug of mqassay"
        );
        match first {
            Some(first) => eprintln!("{}", diverged(first)),
            None => eprintln!("  the recorded runs came out equal, so that no event can be named"),
        }
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Result<Options, Failure> {
    let scenarios: Vec<Scenario> = if arguments.scenarios.is_empty() {
        catalogue::catalogue()
    } else {
        arguments
            .scenarios
            .iter()
            .map(|name| catalogue::find(name))
            .collect::<Result<_, _>>()
            .map_err(Failure::usage)?
    };
    let scenarios = match arguments.duration {
        Some(seconds) => scenarios.iter().map(|scenario| scenario.lasting(1_000 * seconds)).collect(),
        None => scenarios,
    };
    for class in &arguments.without {
        let known = FaultRanges::default().classes().map(|(name, _)| name);
        if !known.contains(&class.as_str()) {
            return Err(Failure::Usage(format!("no class of fault {class:?}; known are {}", known.join(", "))));
        }
    }
    if arguments.keep == Kept::None && (arguments.resume || arguments.guided) {
        let asked = if arguments.resume { "--resume needs the journal" } else { "--guided needs the plans" };
        return Err(Failure::Usage(format!("{asked} that --keep none does not write; use --keep failures")));
    }
    Ok(Options {
        scenarios,
        seeds: arguments.seeds.0.clone(),
        each: arguments.each,
        mutant: arguments.mutant.as_deref().map(mutant).transpose()?,
        without: arguments.without.clone(),
        jobs: jobs(arguments.jobs),
        runs_dir: arguments.runs_dir.clone(),
        keep: match arguments.keep {
            Kept::All => Keep::All,
            Kept::Failures => Keep::Failures,
            Kept::None => Keep::None,
        },
        course: Course {
            shard: arguments.shard.map(|shard| shard.0).unwrap_or_default(),
            guided: arguments.guided,
            prove: arguments.prove_determinism.map(prover).transpose()?,
            done: BTreeMap::new(),
        },
    })
}

fn prover(share: f64) -> Result<Prover, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::Undone(anyhow::anyhow!("cannot find this program to run it again: {error}")))?;
    Ok(Prover { share, program })
}

fn mutant(name: &str) -> Result<Culprit, Failure> {
    mutants::find(name).map(|row| row.culprit).ok_or_else(|| {
        let known: Vec<&str> = mutants::subjects().iter().map(|subject| subject.culprit.name()).collect();
        Failure::Usage(format!("no mutant {name:?}; known are {}", known.join(", ")))
    })
}

/// A run that is not valid, with the lines that replay and shrink it.
pub(crate) fn told(line: &RunLine) -> String {
    let verdict = match line.verdict {
        VerdictKind::Valid => "valid",
        VerdictKind::Unknown => "unknown",
        VerdictKind::Invalid => "INVALID",
    };
    let anomalies: Vec<String> = line.anomalies.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let found = if anomalies.is_empty() { String::new() } else { format!(" ({})", anomalies.join(", ")) };
    let shrink = match line.verdict {
        VerdictKind::Invalid if !line.plan.is_empty() => {
            format!("; shrink: mqassay shrink {} -o small.toml", line.plan)
        }
        VerdictKind::Valid | VerdictKind::Unknown | VerdictKind::Invalid => String::new(),
    };
    format!("{verdict}{found}: {} seed {}; replay: {}{shrink}", line.scenario, line.seed, campaign::replay_line(line))
}

/// The sum of a campaign for people.
pub(crate) fn print_summary(summary: &SummaryLine) {
    let SummaryLine { runs, valid, unknown, invalid, .. } = summary;
    tell(&format!("{runs} runs: {valid} valid, {unknown} unknown, {invalid} invalid"));
    let events: Vec<String> = summary.events.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if !events.is_empty() {
        tell(&format!("events: {}", events.join(", ")));
    }
    if let Some(pace) = &summary.pace {
        let seconds = pace.simulated_us as f64 / 1e6;
        let a_second = |count: u64| count as f64 / seconds.max(1e-9);
        tell(&format!(
            "simulated {:.0} s, {:.0} times as fast as real time on one thread; {:.1} acknowledged sends and {:.2} faults a simulated second",
            seconds,
            pace.ratio(),
            a_second(pace.acknowledged_sends),
            a_second(pace.faults)
        ));
    }
    if !summary.recovery.is_empty() {
        tell("time from a fault to the next acknowledged send, in the run's own clock:");
        recovery::table(&summary.recovery).iter().for_each(|line| tell(&format!("  {line}")));
    }
    for (fingerprint, group) in &summary.failures {
        let times = if group.runs == 1 { "1 run".to_owned() } else { format!("{} runs", group.runs) };
        tell(&format!("{times}: {fingerprint}; first: {} seed {} {}", group.scenario, group.seed, group.plan));
    }
    if let Some(repeated) = &summary.repeated {
        tell(&format!("{} runs repeated in another process, {} differ", repeated.runs, repeated.differing));
    }
}

/// Coverage of point × fault for people.
pub(crate) fn print_coverage(summary: &SummaryLine) {
    coverage::table(&summary.coverage).iter().for_each(|line| tell(line));
}

/// Where two traces part, for people.
pub(crate) fn diverged(first: &Divergence) -> String {
    let Divergence { event, expected, found } = first;
    format!("  the first event that differs is number {event}\n    expected: {expected}\n    found:    {found}")
}

/// A run's folder within the folder of a campaign.
pub(crate) fn run_folder(line: &RunLine) -> PathBuf {
    campaign::folder_in(&line.scenario, line.mutant.as_deref(), line.seed)
}

/// The gravest verdict of a campaign; one without runs showed nothing, and one that is not deterministic is not to be
/// believed.
pub(crate) fn exit(summary: &SummaryLine) -> Exit {
    let differing = summary.repeated.map_or(0, |repeated| repeated.differing);
    if summary.invalid > 0 {
        Exit::Violation
    } else if summary.unknown > 0 || summary.runs == 0 || differing > 0 {
        Exit::Unknown
    } else {
        Exit::Valid
    }
}
