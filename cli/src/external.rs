//! `mqassay verify --driver`: a plan's clients against any broker, through a driver that the user brings.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mqassay_harness::artifact::folder::{self, KeptRun};
use mqassay_harness::artifact::{RunLine, SummaryLine, VerdictKind};
use mqassay_harness::check::{self, Context};
use mqassay_harness::external::{self, ExternalError, ExternalOptions, Hooks};
use mqassay_harness::history::Mark;
use mqassay_harness::plan::Plan;
use mqassay_harness::plan::sample::sample;
use mqassay_scenarios::campaign::{Keep, Options};

use crate::arguments::setting;
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;
use crate::verify;

/// Arguments of `mqassay verify` for a broker behind a driver.
#[derive(Debug, clap::Args)]
pub(crate) struct DriverArguments {
    /// Verify another broker, through a driver: a command that speaks JSON lines, see harness/docs/driver.md
    #[arg(long, value_name = "COMMAND", conflicts_with = "mutant")]
    pub(crate) driver: Option<String>,
    /// With --driver: a command that kills or restarts node {node}, kill='…' and restart='…'
    #[arg(long, value_name = "HOOK=COMMAND", value_parser = setting, requires = "driver")]
    nemesis: Vec<(String, String)>,
    /// With --driver: milliseconds until a request without an answer counts as unknown
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    driver_timeout_ms: u64,
}

/// Runs each seed in real time, one after the other.
pub(crate) fn run(arguments: &DriverArguments, driver: &str, options: &Options, json: bool) -> Result<Exit, Failure> {
    let hooks = hooks(&arguments.nemesis)?;
    let mut summary = SummaryLine { summary: true, ..SummaryLine::default() };
    for seed in options.seeds.clone() {
        let own = (seed % options.scenarios.len() as u64) as usize;
        for scenario in if options.each { &options.scenarios[..] } else { &options.scenarios[own..=own] } {
            let mut plan = sample(scenario, seed, None);
            plan.faults.retain(|fault| !options.without.iter().any(|class| class == fault.action.class()));
            let external = ExternalOptions {
                // The shell gives way to the driver, so that ending the one ends the other.
                command: ["sh", "-c", &format!("exec {driver}")].map(str::to_owned).to_vec(),
                request_timeout: Duration::from_millis(arguments.driver_timeout_ms),
                hooks: hooks.clone(),
                began_wall_ms: wall_ms(),
            };
            let line = run_one(plan, &external, options)?;
            summary.runs += 1;
            match line.verdict {
                VerdictKind::Valid => summary.valid += 1,
                VerdictKind::Unknown => summary.unknown += 1,
                VerdictKind::Invalid => summary.invalid += 1,
            }
            match json {
                true => tell(json_line(&line)?.trim_end()),
                false => tell(&told(&line)),
            }
        }
    }
    match json {
        true => tell(json_line(&summary)?.trim_end()),
        false => verify::print_summary(&summary),
    }
    Ok(verify::exit(&summary))
}

fn hooks(pairs: &[(String, String)]) -> Result<Hooks, Failure> {
    let mut hooks = Hooks::default();
    for (name, command) in pairs {
        let command = Some(command.clone());
        match name.as_str() {
            "kill" => hooks.kill = command,
            "restart" => hooks.restart = command,
            _ => return Err(Failure::Usage(format!("no hook {name:?}: name kill='…' and restart='…'"))),
        }
    }
    match hooks.kill.is_some() == hooks.restart.is_some() {
        true => Ok(hooks),
        false => Err(Failure::Usage("--nemesis needs both: kill='…' and restart='…'".to_owned())),
    }
}

fn run_one(mut plan: Plan, external: &ExternalOptions, options: &Options) -> Result<RunLine, Failure> {
    let began = Instant::now();
    // A cluster outlives a run: topics of their own keep its records apart from those of earlier runs.
    for topic in &mut plan.topics {
        topic.name = format!("{}-{}", topic.name, external.began_wall_ms);
    }
    let history = external::run(&plan, external).map_err(|error| match error {
        ExternalError::NotStarted { .. } | ExternalError::Hook { .. } => Failure::usage(error),
        error => Failure::undone(error),
    })?;
    let verdict = check::judge(&history, &Context::of_plan(&plan).with_wall_start_ms(external.began_wall_ms));
    let seconds = began.elapsed().as_secs_f64();
    let mut line = RunLine {
        scenario: plan.scenario.clone(),
        seed: plan.seed,
        mutant: None,
        verdict: verdict.kind,
        anomalies: verdict.violations(),
        allowed: verdict.allowed(),
        operations: history.operations.len() as u64,
        faults: history.marks.iter().filter(|mark| matches!(mark, Mark::Fault { .. })).count() as u64,
        trace_hash: String::new(),
        plan: String::new(),
        simulated_seconds: 0.0,
        wall_seconds: seconds,
    };
    let is_kept = match options.keep {
        Keep::All => true,
        Keep::Failures => verdict.kind != VerdictKind::Valid,
        Keep::None => false,
    };
    if is_kept {
        let run_folder = run_folder(&options.runs_dir, &plan);
        line.plan = folder::write_plan(&run_folder, &plan).map_err(Failure::undone)?.display().to_string();
        let kept = KeptRun { line: line.clone(), verdict };
        folder::write_run(&run_folder, &kept, &history, &[]).map_err(Failure::undone)?;
    }
    Ok(line)
}

fn run_folder(runs_dir: &Path, plan: &Plan) -> std::path::PathBuf {
    runs_dir.join(&plan.scenario).join(plan.seed.to_string())
}

fn told(line: &RunLine) -> String {
    let verdict = match line.verdict {
        VerdictKind::Valid => "valid",
        VerdictKind::Unknown => "unknown",
        VerdictKind::Invalid => "INVALID",
    };
    let found: Vec<String> = line.anomalies.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let found = if found.is_empty() { String::new() } else { format!(" ({})", found.join(", ")) };
    let RunLine { scenario, seed, operations, faults, .. } = line;
    let kept = if line.plan.is_empty() { String::new() } else { format!("; kept with {}", line.plan) };
    format!("{verdict}{found}: {scenario} seed {seed}, {operations} operations, {faults} faults{kept}")
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
