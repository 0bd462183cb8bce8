//! Experiments of the ledger that are more than a load plan: consumers that crash, backlogs and their cures, and what a
//! queue is for. Each gives results in the form of a measurement's, so that the same rules apply. Not here: the experiments
//! themselves (the benches), and the rules (`rule`).

use std::collections::BTreeMap;
use std::time::Duration;

use mqassay_benches::backlog::causes::{MADE, Outcome as Case};
use mqassay_benches::backlog::uses::{self, Latencies};
use mqassay_benches::consumers::acknowledge;
use mqassay_benches::consumers::cluster::{Cluster, System};
use mqassay_benches::consumers::faults::{Fault, Promise};
use mqassay_benches::consumers::sink::SinkKind;
use mqassay_benches::consumers::trial;
use mqassay_harness::measure::manifest;
use mqassay_harness::measure::result::{BenchResult, METRICS, MetricRow, RatioRow, Sweep, SweepPoint, SystemVerdict};
use mqassay_harness::measure::statistics::{median_interval, ratio_interval};
use serde::Deserialize;

use super::{brokers, powerless, practice, simulated};
use crate::backlog;
use crate::bench::end_brokers_on_signal;
use crate::exit::{Exit, Failure};
use crate::sinks::{self, failure};

/// An experiment that is not a load plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Experiment {
    /// Idempotent consumers and their mistakes under every fault.
    Sinks,
    /// Committing before, after and automatically.
    Acknowledge,
    /// The causes of a backlog, ten runs each, and their cures.
    Backlog,
    /// The producer's latency beside quick and slow consumers.
    Asynchrony,
    /// A burst of ten times the rate.
    Burst,
    /// Consumers stopped for a minute.
    Decoupling,
    /// Consumers of one queue, on brokers whose queues are queues.
    Compete,
    /// Where messages lie on the disk, and what they take.
    Placement,
    /// Retry, timed messages, query, transactions, trace, filter.
    Features,
    /// A group larger than its topic's queues, and topics made.
    Members,
    /// What the producer does with its answers.
    Answers,
    /// What global order takes.
    Order,
    /// Seeking to a time.
    Replay,
    /// Members, queues and threads against throughput.
    Parallelism,
    /// Settings of durability under faults, in the simulated world.
    Losses,
    /// Settings of durability under real power losses, on disks that forget.
    Powerless,
    /// A producer's order across its leader's death, in the simulated world.
    Deaths,
}

impl Experiment {
    /// How the names of its results begin.
    pub(crate) fn gives(self) -> &'static [&'static str] {
        match self {
            Experiment::Sinks => &["sinks", "mistakes"],
            Experiment::Acknowledge => &["acknowledge"],
            Experiment::Backlog => &["backlog"],
            Experiment::Asynchrony => &["asynchrony"],
            Experiment::Burst => &["burst"],
            Experiment::Decoupling => &["decoupling"],
            Experiment::Compete => &["compete"],
            Experiment::Placement => &["placement"],
            Experiment::Features => &["features"],
            Experiment::Members => &["members", "topics"],
            Experiment::Answers => &["answers"],
            Experiment::Order => &["order"],
            Experiment::Replay => &["replay"],
            Experiment::Parallelism => &["parallelism"],
            Experiment::Losses => &["losses"],
            Experiment::Powerless => &["powerless"],
            Experiment::Deaths => &["deaths"],
        }
    }
}

/// Runs it on each system that can be had.
pub(crate) fn run(experiment: Experiment, systems: &[String]) -> Result<Vec<BenchResult>, Failure> {
    end_brokers_on_signal().map_err(Failure::undone)?;
    let mut gathered = Gathered { manifest: manifest::machine(&std::env::temp_dir()), results: Vec::new() };
    for name in systems {
        let outcome = run_on(experiment, name, &mut gathered);
        // The others can be tried all the same; a rule about this one then says that it was not measured.
        if let Err(Failure::Undone(error)) = outcome {
            eprintln!("mqassay: {name} is left out: {error:#}");
        } else {
            outcome?;
        }
    }
    for result in &mut gathered.results {
        result.manifest = gathered.manifest.clone();
    }
    Ok(gathered.results)
}

fn run_on(experiment: Experiment, name: &str, gathered: &mut Gathered) -> Result<(), Failure> {
    let system = || System::named(name).map_err(failure);
    match experiment {
        Experiment::Sinks => sinks_on(system()?, gathered),
        Experiment::Acknowledge => acknowledge_on(system()?, gathered),
        Experiment::Backlog => backlog_on(system()?, gathered),
        Experiment::Asynchrony => asynchrony_on(system()?, gathered),
        Experiment::Burst => burst_on(system()?, gathered),
        Experiment::Decoupling => decoupling_on(system()?, gathered),
        Experiment::Compete => brokers::compete_on(name, gathered),
        Experiment::Placement => brokers::placement_on(name, gathered),
        Experiment::Features => brokers::features_on(name, gathered),
        Experiment::Members => practice::members_on(system()?, gathered),
        Experiment::Answers => practice::answers_on(system()?, gathered),
        Experiment::Order => practice::order_on(system()?, gathered),
        Experiment::Replay => practice::replay_on(system()?, gathered),
        Experiment::Parallelism => practice::parallelism_on(system()?, gathered),
        Experiment::Losses => simulated::losses_on(name, gathered),
        Experiment::Powerless => powerless::losses_on(name, gathered),
        Experiment::Deaths => simulated::deaths_on(name, gathered),
    }
}

/// Results by plan, in order of their first figure.
pub(super) struct Gathered {
    pub(super) manifest: BTreeMap<String, String>,
    results: Vec<BenchResult>,
}

impl Gathered {
    pub(super) fn result(&mut self, plan: &str) -> &mut BenchResult {
        let index = self.results.iter().position(|result| result.plan == plan).unwrap_or_else(|| {
            self.results.push(BenchResult {
                plan: plan.to_owned(),
                title: plan.replace(['/', '-'], " "),
                ..BenchResult::default()
            });
            self.results.len() - 1
        });
        &mut self.results[index]
    }

    /// A figure that was counted.
    pub(super) fn count(&mut self, plan: &str, system: &str, metric: &str, value: f64) {
        self.row(plan, system, metric, [value; 3]);
    }

    /// A figure with its interval: the median of several.
    pub(super) fn median(&mut self, plan: &str, system: &str, metric: &str, values: &[f64]) {
        if let Some(interval) = median_interval(values, 1) {
            self.row(plan, system, metric, [interval.value, interval.low, interval.high]);
        }
    }

    fn row(&mut self, plan: &str, system: &str, metric: &str, [value, low, high]: [f64; 3]) {
        let unit = METRICS.iter().find(|(name, ..)| *name == metric).map_or("", |(_, unit, _)| unit);
        let (metric, unit, system) = (metric.to_owned(), unit.to_owned(), system.to_owned());
        let row = MetricRow { plan: plan.to_owned(), system, metric, unit, value, low, high };
        self.result(plan).rows.push(row);
    }

    pub(super) fn verdict(&mut self, plan: &str, system: &str, exit: Exit, messages: u64) {
        let verdict = match exit {
            Exit::Valid => "valid",
            Exit::Unknown => "unknown",
            Exit::Violation => "invalid",
        };
        self.result(plan).verdicts.push(SystemVerdict {
            system: system.to_owned(),
            verdict: verdict.to_owned(),
            verified_messages: messages,
            anomalies: BTreeMap::new(),
            durability: "page cache".to_owned(),
        });
    }

    /// A cluster of one node, its version noted.
    pub(super) fn cluster(&mut self, system: System) -> Result<Cluster, Failure> {
        let executable = std::env::current_exe().map_err(Failure::undone)?;
        let cluster = Cluster::start(system, 1, &executable).map_err(failure)?;
        self.manifest.insert(format!("{} version", system.name()), cluster.version.clone());
        Ok(cluster)
    }
}

fn sinks_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    drop(gathered.cluster(system)?);
    let options = trial::Options {
        system,
        executable: std::env::current_exe().map_err(Failure::undone)?,
        sinks: SinkKind::ALL.to_vec(),
        faults: Fault::ALL.to_vec(),
        messages: trial::MESSAGES_MINIMUM,
    };
    let outcomes =
        trial::run(&options, &mut |outcome| eprintln!("{} {}", outcome.sink, outcome.fault)).map_err(failure)?;
    for sink in SinkKind::ALL {
        // Under what it promises to bear; a mistake, or a limit, under what shows it.
        for (promise, plan) in [(Promise::ExactlyOnce, "sinks"), (Promise::Breaks, "mistakes")] {
            let of = || outcomes.iter().filter(|one| one.sink == sink.name() && one.promise == promise && one.reached);
            let plan = format!("{plan}/{}", sink.name());
            if of().next().is_some() {
                gathered.count(&plan, system.name(), "effects_lost", of().map(|one| one.effects.lost as f64).sum());
                gathered.count(
                    &plan,
                    system.name(),
                    "effects_doubled",
                    of().map(|one| one.effects.doubled as f64).sum(),
                );
                let judged: Vec<trial::Outcome> = of().cloned().collect();
                let messages = judged.iter().map(|one| one.messages).sum();
                gathered.verdict(&plan, system.name(), sinks::exit(&judged), messages);
                let cell = |one: &trial::Outcome| {
                    format!("{} {}/{} of {}", one.fault, one.effects.lost, one.effects.doubled, one.effects.deliveries)
                };
                let cells: Vec<String> = judged.iter().map(cell).collect();
                let remark = format!("{}, lost/doubled of deliveries: {}", system.name(), cells.join(", "));
                gathered.result(&plan).remarks.push(remark);
            }
        }
    }
    Ok(())
}

fn acknowledge_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    drop(gathered.cluster(system)?);
    let executable = std::env::current_exe().map_err(Failure::undone)?;
    let outcomes = acknowledge::run(system, &executable, &mut |_| {}).map_err(failure)?;
    let mut plans: Vec<&str> = outcomes.iter().map(|one| one.acknowledge).collect();
    plans.dedup();
    for acknowledge in plans {
        let of = || outcomes.iter().filter(|one| one.acknowledge == acknowledge);
        let plan = format!("acknowledge/{acknowledge}");
        gathered.count(&plan, system.name(), "messages_lost", of().map(|one| one.lost as f64).sum());
        gathered.count(&plan, system.name(), "messages_repeated", of().map(|one| one.repeated as f64).sum());
        gathered.verdict(&plan, system.name(), Exit::Valid, of().map(|one| one.messages).sum());
    }
    Ok(())
}

fn backlog_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    drop(gathered.cluster(system)?);
    let told = &mut |case: &Case| {
        let word = if case.is_right() { "right" } else { "wrong" };
        let (made, named) = (case.made.name(), case.diagnosis.cause.name());
        eprintln!("{made} seed {}, named {named}: {word}", case.seed);
    };
    let cases = backlog::cases(system, &MADE, (RUNS, CURES), told)?;
    let right = cases.iter().filter(|case| case.is_right()).count();
    gathered.count("backlog", system.name(), "diagnoses_right_share", right as f64 / cases.len() as f64);
    gathered.verdict("backlog", system.name(), Exit::Valid, 0);
    for cause in MADE {
        let plan = format!("backlog/{}", cause.name());
        let cures: Vec<_> =
            cases.iter().filter(|case| case.made == cause).filter_map(|case| case.cure.as_ref()).collect();
        let drained: Vec<f64> = cures.iter().map(|cure| cure.drained_seconds.unwrap_or(f64::INFINITY)).collect();
        gathered.median(&plan, system.name(), "drain_seconds", &drained);
        let missing: u64 = cures.iter().map(|cure| cure.missing).sum();
        gathered.count(&plan, system.name(), "records_missing", missing as f64);
        gathered.verdict(&plan, system.name(), if missing == 0 { Exit::Valid } else { Exit::Violation }, 0);
        if let Some(cure) = cures.first() {
            gathered.result(&plan).sweeps.push(curve(system.name(), &cure.curve));
            gathered.result(&plan).remarks.push(format!("{}: {}", system.name(), cure.done));
        }
    }
    Ok(())
}

/// A drain as a sweep over time.
fn curve(system: &str, curve: &[(f64, i64)]) -> Sweep {
    let point = |(x, waiting): &(f64, i64)| {
        let value = *waiting as f64;
        SweepPoint { x: *x, value, low: value, high: value, records_per_batch: None }
    };
    Sweep {
        system: system.to_owned(),
        variable: "seconds".to_owned(),
        metric: "records_waiting".to_owned(),
        unit: "records".to_owned(),
        points: curve.iter().filter(|point| point.0 > 0.0 && point.1 > 0).map(point).collect(),
        stopped: None,
    }
}

fn asynchrony_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    let cluster = gathered.cluster(system)?;
    let found = uses::asynchrony(&cluster, 12, Duration::from_secs(4)).map_err(failure)?;
    latencies("asynchrony/quick", system.name(), &found.quick, gathered);
    latencies("asynchrony/slow", system.name(), &found.slow, gathered);
    over("asynchrony/slow", system.name(), "quick", (&found.slow, &found.quick), gathered);
    Ok(())
}

fn latencies(plan: &str, system: &str, found: &Latencies, gathered: &mut Gathered) {
    gathered.median(plan, system, "acknowledge_p50_ns", &found.p50_ns);
    gathered.median(plan, system, "acknowledge_p99_ns", &found.p99_ns);
    gathered.verdict(plan, system, Exit::Valid, 0);
}

/// The ratio of the medians, block by block, to those beside other consumers.
fn over(plan: &str, system: &str, other: &str, (found, than): (&Latencies, &Latencies), gathered: &mut Gathered) {
    let pairs: Vec<(f64, f64)> = found.p50_ns.iter().copied().zip(than.p50_ns.iter().copied()).collect();
    let Some(interval) = ratio_interval(&pairs, 1) else { return };
    let ratio = RatioRow {
        plan: plan.to_owned(),
        metric: "acknowledge_p50_ns".to_owned(),
        ratio_of: [system.to_owned(), format!("{system} beside {other} consumers")],
        ratio: interval.value,
        low: interval.low,
        high: interval.high,
        pairs: pairs.len() as u32,
    };
    gathered.result(plan).ratios.push(ratio);
}

fn burst_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    let cluster = gathered.cluster(system)?;
    let found = uses::burst(&cluster, Duration::from_secs(6)).map_err(failure)?;
    let rates = &found.consumed_per_second;
    let ends = rates.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
    gathered.count("burst", system.name(), "burst_acknowledged_share", found.acknowledged_share);
    gathered.count("burst", system.name(), "consume_rate_spread", ends.1 / ends.0);
    gathered.count("burst", system.name(), "broker_memory_growth_bytes", found.memory_growth_bytes as f64);
    gathered.count("burst", system.name(), "records_missing", found.missing as f64);
    gathered.count("burst", system.name(), "drain_seconds", found.drained_seconds);
    gathered.verdict("burst", system.name(), if found.missing == 0 { Exit::Valid } else { Exit::Violation }, 0);
    gathered.result("burst").sweeps.push(curve(system.name(), &found.curve));
    Ok(())
}

fn decoupling_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    let cluster = gathered.cluster(system)?;
    let minute = Duration::from_secs(60);
    let found = uses::decoupling(&cluster, minute, minute).map_err(failure)?;
    latencies("decoupling/running", system.name(), &found.running, gathered);
    latencies("decoupling/stopped", system.name(), &found.stopped, gathered);
    over("decoupling/stopped", system.name(), "running", (&found.stopped, &found.running), gathered);
    gathered.count("decoupling/stopped", system.name(), "records_missing", found.missing as f64);
    gathered.count("decoupling/stopped", system.name(), "drain_seconds", found.drained_seconds);
    Ok(())
}

const RUNS: u64 = 10;
const CURES: u64 = 3;
