//! `mqassay bench`: one load plan on one or several systems, figures with intervals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use mqassay_benches::consumers::cluster;
use mqassay_benches::plan::LoadPlan;
use mqassay_benches::{BenchError, SystemTarget, omb, prepare};
use mqassay_harness::measure::result::{BenchResult, LeftOut, RatioRow, least_part};
use mqassay_harness::process::signals::on_first_signal;
use mqassay_reports::ReportInput;
use serde::Serialize;

use crate::arguments::{percent, setting, settings};
use crate::baseline;
use crate::exit::{Exit, Failure};
use crate::progress::{Progress, tell};
use crate::report::write_page;
use crate::results::{Results, cannot, json_line};

/// Arguments of `mqassay bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A built-in plan (quick, compare, search, cluster, queues, scale, bounds, availability, m1 to m10), a plan file's path (TOML),
    /// or a workload of OpenMessaging Benchmark (YAML)
    #[arg(default_value = "compare")]
    plan: String,
    /// Systems in place of the plan's; the first is the numerator of ratios
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    systems: Vec<String>,
    /// Address of a cluster of your own that speaks Kafka's protocol; it is measured under the name `cluster`
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// A setting of the client library for that cluster, as in security.protocol=SSL; may be given several times
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = setting, requires = "bootstrap")]
    client: Vec<(String, String)>,
    /// A driver's settings of OpenMessaging Benchmark (YAML), beside its workload
    #[arg(long, value_name = "FILE")]
    omb_driver: Option<PathBuf>,
    /// Write the result as OpenMessaging Benchmark does, for its charts; one file a system, named after it where there are several
    #[arg(long, value_name = "FILE")]
    omb_result: Option<PathBuf>,
    /// Compare with an earlier result, as `--out` wrote it, and fail where a figure got worse
    #[arg(long, value_name = "BASELINE.json")]
    against: Option<PathBuf>,
    /// How much worse, in percent, with the intervals apart, is too much
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent, requires = "against")]
    fail_above: f64,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Where results and a report go; nothing is written without
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures, and exits by the verdict on the messages of the run.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let omb::Read { plan, remarks, driver } = read_plan(arguments)?;
    // Read before the run: a file that is not there should not be found out about minutes later.
    let baseline = arguments.against.as_deref().map(baseline::read).transpose()?;
    let mut systems = match (&arguments.bootstrap, arguments.systems.is_empty()) {
        (None, true) => plan.systems.clone(),
        (_, false) => arguments.systems.clone(),
        (Some(_), true) => Vec::new(),
    };
    let cluster = arguments
        .bootstrap
        .as_ref()
        .map(|bootstrap| prepare::cluster_target(bootstrap, settings(&arguments.client), plan.flush));
    let mut result = measure_with(&plan, &systems, cluster)?;
    result.remarks.extend(remarks);
    if let Some(path) = &arguments.omb_result {
        write_omb(&plan, &result, driver.as_deref(), path)?;
    }
    if arguments.bootstrap.is_some() {
        systems.push("cluster".to_owned());
    }
    if arguments.json {
        json_lines(&result)?.iter().for_each(|line| tell(line));
    } else {
        print_result(&result);
    }
    if let Some(folder) = &arguments.out {
        let results = Results::create(folder)?;
        results.write_bench(&result)?;
        let title = format!("Measurement of {}", systems.join(" and "));
        let manifest = result.manifest.clone();
        let page = folder.join("report.html");
        write_page(&ReportInput { title, manifest, benches: vec![result.clone()], ..ReportInput::default() }, &page)?;
        eprintln!("report: {}", page.display());
    }
    match baseline {
        Some(baseline) => Ok(exit(&result).max(baseline::compare(&baseline, &result, &systems, arguments.fail_above))),
        None => Ok(exit(&result)),
    }
}

/// The plan, of our own or a workload of OpenMessaging Benchmark, and what is to be remarked on it.
fn read_plan(arguments: &Arguments) -> Result<omb::Read, Failure> {
    let driver = arguments.omb_driver.as_deref();
    let read = if omb::is_workload(&arguments.plan) {
        omb::read(Path::new(&arguments.plan), driver).map_err(Failure::usage)?
    } else if driver.is_some() {
        return Err(Failure::Usage("--omb-driver goes with a workload of OpenMessaging Benchmark (.yaml)".to_owned()));
    } else {
        let plan = LoadPlan::named(&arguments.plan).map_err(Failure::usage)?;
        omb::Read { plan, remarks: Vec::new(), driver: None }
    };
    if arguments.omb_result.is_some() && read.plan.over_time.is_none() {
        let text =
            "--omb-result needs a load over time: a workload of OpenMessaging Benchmark, or a plan with [over_time]";
        return Err(Failure::Usage(text.to_owned()));
    }
    Ok(read)
}

/// One file for each system that was measured, under the driver's name where a driver file gave one.
fn write_omb(plan: &LoadPlan, result: &BenchResult, driver: Option<&str>, path: &Path) -> Result<(), Failure> {
    for series in &result.series {
        let is_only = result.series.len() == 1;
        let name = driver.filter(|_| is_only).unwrap_or(&series.system);
        let path = if is_only { path.to_path_buf() } else { beside(path, &series.system) };
        let value = omb::result::of(result, series, name, plan.record_bytes);
        std::fs::write(&path, json_line(&value)?).map_err(|error| cannot("write", &path, error))?;
        eprintln!("OMB result of {}: {}", series.system, path.display());
    }
    Ok(())
}

/// The path with a system's name before its ending.
fn beside(path: &Path, system: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map_or(String::new(), |ending| format!(".{}", ending.to_string_lossy()));
    path.with_file_name(format!("{stem}-{system}{ending}"))
}

/// Starts or finds the systems, runs the plan on those that are there, and notes those that are not.
pub(crate) fn measure(plan: &LoadPlan, systems: &[String]) -> Result<BenchResult, Failure> {
    measure_with(plan, systems, None)
}

/// The same, with a cluster that is not of ours to start or find.
fn measure_with(plan: &LoadPlan, systems: &[String], cluster: Option<SystemTarget>) -> Result<BenchResult, Failure> {
    let executable = std::env::current_exe().map_err(Failure::undone)?;
    end_brokers_on_signal().map_err(Failure::undone)?;
    let mut prepared = prepare::prepare(plan, systems, &executable, &std::env::temp_dir()).map_err(failure)?;
    prepared.targets.extend(cluster);
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
    for (name, reason) in &prepared.missing {
        result.remarks.push(format!("{name} was not measured: {reason}"));
        result.left_out.push(LeftOut { left_out: name.clone(), reason: reason.clone() });
    }
    Ok(result)
}

/// Sees to it that an interrupt (Ctrl-C) or SIGTERM ends the brokers that were started for a measurement as well: a signal
/// ends a process without dropping its values.
pub(crate) fn end_brokers_on_signal() -> std::io::Result<()> {
    on_first_signal(|number| {
        prepare::end_all_started();
        cluster::end_all_started();
        std::process::exit(128 + number);
    })
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::UnknownSystem { .. } | BenchError::NoSystems => Failure::usage(error),
        error => Failure::undone(error),
    }
}

/// The result as lines of JSON, the target's worst part last. What a line is, its field names tell: `metric` and `value` or
/// `ratio` (a figure, a ratio), `variable` (a sweep), `bound_ns` (a search), `killed_seconds` (a timeline),
/// `injected` (a trial), `verdict`,
/// `left_out`, `remark`, `manifest`, `target`.
fn json_lines(result: &BenchResult) -> Result<Vec<String>, Failure> {
    #[derive(Serialize)]
    struct Remark<'a> {
        remark: &'a str,
    }
    #[derive(Serialize)]
    struct Ratio<'a> {
        #[serde(flatten)]
        ratio: &'a RatioRow,
        smallest_detectable_effect: Option<f64>,
    }
    let ratio = |ratio| Ratio { ratio, smallest_detectable_effect: ratio.smallest_detectable_effect() };
    fn each<'a, Line: Serialize + 'a>(values: impl IntoIterator<Item = Line>) -> Result<Vec<String>, Failure> {
        values.into_iter().map(|value| json_line(&value)).collect()
    }
    #[derive(Serialize)]
    struct Manifest<'a> {
        manifest: &'a BTreeMap<String, String>,
    }
    let mut lines = each([Manifest { manifest: &result.manifest }])?;
    lines.extend(each(&result.rows)?);
    lines.extend(each(result.ratios.iter().map(ratio))?);
    lines.extend(each(&result.sweeps)?);
    lines.extend(each(&result.searches)?);
    lines.extend(each(&result.timelines)?);
    lines.extend(each(&result.series)?);
    lines.extend(each(&result.trials)?);
    lines.extend(each(&result.verdicts)?);
    lines.extend(each(&result.left_out)?);
    lines.extend(each(result.remarks.iter().map(|remark| Remark { remark }))?);
    lines.extend(each(result.targets.iter().chain(least_part(&result.targets)))?);
    Ok(lines)
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
        // What the machine alone adds stands beside the tail that contains it.
        let floor = result.manifest.get("hiccup p99.9").filter(|_| metric == "end_to_end_p999_ns");
        let floor = floor.map_or_else(String::new, |floor| format!(", the machine's hiccups alone {floor}"));
        let interval = format!("({:.1} to {:.1}){floor}", row.low, row.high);
        tell(&format!("  {metric:28} {system:22} {:>14.1} {unit} {interval}", row.value));
    }
    for ratio in &result.ratios {
        let of = ratio.ratio_of.join(" / ");
        let effect = ratio.smallest_detectable_effect();
        let effect = effect.map_or_else(String::new, |share| format!(", shows changes above {:.1} %", 100.0 * share));
        let interval = format!("({:.3} to {:.3}{effect})", ratio.low, ratio.high);
        tell(&format!("  {:28} {of:22} {:>14.3} {interval}", ratio.metric, ratio.ratio));
    }
    for part in &result.targets {
        let (target, text, outcome) = (&part.target, &part.part, if part.met { "met" } else { "missed" });
        let interval = format!("{:.3} ({:.3} to {:.3})", part.ratio, part.low, part.high);
        let needs = part.at_most.map_or(part.needs.to_string(), |at_most| format!("{} to {at_most}", part.needs));
        tell(&format!("  {target}: {text}: {interval}, needs {needs}: {outcome}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_stands_before_the_ending() {
        assert_eq!(beside(Path::new("out/w.json"), "kafka"), Path::new("out/w-kafka.json"));
        assert_eq!(beside(Path::new("w"), "kafka"), Path::new("w-kafka"));
    }
}
