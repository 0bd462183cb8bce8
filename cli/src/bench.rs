//! `mqassay bench`: one load plan on one or several systems, figures with intervals.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use mqassay_benches::plan::LoadPlan;
use mqassay_benches::{BenchError, prepare};
use mqassay_harness::measure::result::{BenchResult, least_part};
use mqassay_reports::ReportInput;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};
use crate::progress::{Progress, tell};
use crate::report::write_page;
use crate::results::{Results, json_line};

/// Arguments of `mqassay bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A built-in plan (quick, compare, queues, scale, bounds, m1 to m8) or the path of a plan file (TOML)
    #[arg(default_value = "compare")]
    plan: String,
    /// Systems in place of the plan's; the first is the numerator of ratios
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    systems: Vec<String>,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Where results and a report go; nothing is written without
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures, and exits by the verdict on the messages of the run.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let plan = LoadPlan::named(&arguments.plan).map_err(Failure::usage)?;
    let systems = if arguments.systems.is_empty() { plan.systems.clone() } else { arguments.systems.clone() };
    let result = measure(&plan, &systems)?;
    if arguments.json {
        for row in &result.rows {
            tell(&json_line(row)?);
        }
        for ratio in &result.ratios {
            tell(&json_line(ratio)?);
        }
        for sweep in &result.sweeps {
            tell(&json_line(sweep)?);
        }
        for part in result.targets.iter().chain(least_part(&result.targets)) {
            tell(&json_line(part)?);
        }
    } else {
        print_result(&result);
    }
    if let Some(folder) = &arguments.out {
        let results = Results::create(folder)?;
        results.write_bench(&result)?;
        let exit = exit(&result);
        let title = format!("Measurement of {}", systems.join(" and "));
        let manifest = result.manifest.clone();
        let page = folder.join("report.html");
        write_page(&ReportInput { title, manifest, benches: vec![result], ..ReportInput::default() }, &page)?;
        eprintln!("report: {}", page.display());
        return Ok(exit);
    }
    Ok(exit(&result))
}

/// Starts or finds the systems, runs the plan on those that are there, and notes those that are not.
pub(crate) fn measure(plan: &LoadPlan, systems: &[String]) -> Result<BenchResult, Failure> {
    let executable = std::env::current_exe().map_err(Failure::undone)?;
    end_brokers_on_signal().map_err(Failure::undone)?;
    let prepared = prepare::prepare(plan, systems, &executable, &std::env::temp_dir()).map_err(failure)?;
    for (name, reason) in &prepared.missing {
        eprintln!("mqassay: {name} is left out: {reason}");
    }
    let progress = Mutex::new(Progress::new(&plan.name, 0));
    let mut result = mqassay_benches::run(plan, &prepared.targets, &|now| {
        // A poisoned lock means that a panic is on its way already; progress no longer matters then.
        if let Ok(mut progress) = progress.lock() {
            progress.reach(u64::from(now.done), u64::from(now.total), &now.text);
        }
    })
    .map_err(failure)?;
    let missing = prepared.missing.iter().map(|(name, reason)| format!("{name} was not measured: {reason}"));
    result.remarks.extend(missing);
    Ok(result)
}

/// Sees to it that an interrupt (Ctrl-C) or SIGTERM ends the brokers that were started for a measurement as well: a signal
/// ends a process without dropping its values.
fn end_brokers_on_signal() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = move || {
        let number = runtime.block_on(async {
            tokio::select! {
                biased;
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
            }
        });
        prepare::end_all_started();
        std::process::exit(128 + number.as_raw_value());
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::UnknownSystem { .. } | BenchError::NoSystems => Failure::usage(error),
        error => Failure::undone(error),
    }
}

/// Figures, ratios, sweeps and remarks for people.
fn print_result(result: &BenchResult) {
    print_figures(result);
    for sweep in &result.sweeps {
        for point in &sweep.points {
            let (metric, at) = (&sweep.metric, format!("{} at {} {}", sweep.system, point.x, sweep.variable));
            tell(&format!(
                "  {metric:28} {at:36} {:>14.1} {} ({:.1} to {:.1})",
                point.value, sweep.unit, point.low, point.high
            ));
        }
    }
    for remark in &result.remarks {
        tell(&format!("  note: {remark}"));
    }
}

/// Figures, ratios and verdicts for people; the report has the rest.
pub(crate) fn print_figures(result: &BenchResult) {
    tell(&format!("{}: {}", result.plan, result.title));
    for row in &result.rows {
        let (metric, system, unit) = (&row.metric, &row.system, &row.unit);
        tell(&format!("  {metric:28} {system:22} {:>14.1} {unit} ({:.1} to {:.1})", row.value, row.low, row.high));
    }
    for ratio in &result.ratios {
        let of = ratio.ratio_of.join(" / ");
        tell(&format!("  {:28} {of:22} {:>14.3} ({:.3} to {:.3})", ratio.metric, ratio.ratio, ratio.low, ratio.high));
    }
    for part in &result.targets {
        let (target, text, outcome) = (&part.target, &part.part, if part.met { "met" } else { "missed" });
        let interval = format!("{:.3} ({:.3} to {:.3})", part.ratio, part.low, part.high);
        tell(&format!("  {target}: {text}: {interval}, needs {}: {outcome}", part.needs));
    }
    for verdict in &result.verdicts {
        tell(&format!("  verdict of {}: {}, {} messages", verdict.system, verdict.verdict, verdict.verified_messages));
        for (anomaly, count) in &verdict.anomalies {
            tell(&format!("    {anomaly}: {count}"));
        }
    }
}

/// The gravest verdict on any system's messages; none at all is unknown.
pub(crate) fn exit(result: &BenchResult) -> Exit {
    let of = |verdict: &str| match verdict {
        "valid" => Exit::Valid,
        "invalid" => Exit::Violation,
        _ => Exit::Unknown,
    };
    result.verdicts.iter().map(|verdict| of(&verdict.verdict)).max().unwrap_or(Exit::Unknown)
}

/// Where a page of a folder goes.
pub(crate) fn page_in(folder: &Path) -> PathBuf {
    folder.join("report.html")
}
