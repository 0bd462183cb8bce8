//! The `mqassay` command. Thin: each subcommand has a file that turns arguments into calls of the rooms and results into
//! text. Start at `Command`; what an exit code means is in `exit`. Not here: anything that runs, judges or draws.

mod arguments;
mod assay;
mod backlog;
mod baseline;
mod bench;
mod broker;
mod check;
mod claims;
mod cluster;
mod diagnose;
mod disk;
mod driver_world;
mod exit;
mod explain;
mod external;
mod guarantees;
mod history_sample;
mod journal;
mod junit;
mod kafka_world;
mod merge;
mod mutants;
mod outages;
mod process_world;
mod progress;
mod real_replay;
mod relay;
mod replay;
mod report;
mod rerun;
mod results;
mod rows;
mod scenarios;
mod shrink;
mod sinks;
mod slowed_broker;
mod system_bugs;
mod system_matrix;
mod systems;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use exit::{Exit, Failure};

/// A broker makes and drops a few small buffers for every request, on one thread, in the order of a queue; glibc's allocator
/// took a third of its time for that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Puts message brokers to the proof: do they keep their promises under faults, and how fast are they while they do.
///
/// Without a subcommand it does the main job: verify the reference broker, catch deliberate bugs, measure, and write a
/// report.
#[derive(Debug, Parser)]
#[command(name = "mqassay", version, after_help = exit::MEANING)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main job: verify, catch deliberate bugs, measure, and write a report
    Assay(assay::Arguments),
    /// Run scenarios over seeds, in the simulated world or on real processes
    Verify(verify::Arguments),
    /// Add up the results of shards
    Merge(merge::Arguments),
    /// Run a plan again
    Replay(replay::Arguments),
    /// Run a plan again, and make a page that shows what happened and why
    Explain(explain::Arguments),
    #[command(hide = true, name = mqassay_scenarios::campaign::proof::SUBCOMMAND)]
    Rerun(rerun::Arguments),
    /// Make a plan that breaks a guarantee as small as it can be
    Shrink(shrink::Arguments),
    /// Judge a history, or the output of Kafka's verifiable clients
    Check(check::Arguments),
    /// Print what the guarantee matrix allows under your settings
    Guarantees(guarantees::Arguments),
    /// List the built-in scenarios
    Scenarios(scenarios::Arguments),
    /// List the deliberate bugs, or try whether each is caught
    Mutants(mutants::Arguments),
    /// Measure systems side by side under a load plan
    Bench(bench::Arguments),
    /// The claims that the project began from: list them, run their experiments, report the verdicts
    Claims(claims::Arguments),
    /// Idempotent consumers under faults: effects lost and doubled
    Sinks(sinks::Arguments),
    /// Say why messages pile up in front of a consumer group of any live cluster
    Diagnose(diagnose::Arguments),
    /// Make each cause of a backlog, have it named, and measure its cure
    Backlog(backlog::Arguments),
    /// Make a page of the results in a folder, or of what differs between two
    Report(report::Arguments),
    /// Run the reference broker
    Broker(broker::Arguments),
    /// Run several nodes of the reference broker in one process
    Cluster(cluster::Arguments),
    /// Mount a disk that forgets unsynced writes when the power is lost
    Disk(disk::Arguments),
    /// Provision external systems
    Systems(systems::Arguments),
    /// Run the bare program that brokers' costs are held against
    #[command(hide = true)]
    Relay(relay::Arguments),
    /// Run the reference broker slowed down on purpose
    #[command(hide = true)]
    SlowedBroker(slowed_broker::Arguments),
    /// Write a clean history of any length
    #[command(hide = true)]
    HistorySample(history_sample::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::of_clap(&error),
    };
    start_log(&arguments);
    match run(arguments.command) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

/// Logs to standard error, as `MQASSAY_LOG` says. Simulated nodes fail because they are made to, so that only a real broker
/// warns unasked.
fn start_log(arguments: &Arguments) {
    let level =
        if matches!(arguments.command, Some(Command::Broker(_) | Command::Cluster(_))) { "warn" } else { "off" };
    let filter = EnvFilter::try_from_env("MQASSAY_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn run(command: Option<Command>) -> Result<Exit, Failure> {
    match command {
        None => assay::run(&assay::Arguments::default()),
        Some(Command::Assay(arguments)) => assay::run(&arguments),
        Some(Command::Verify(arguments)) => verify::run(&arguments),
        Some(Command::Merge(arguments)) => merge::run(&arguments),
        Some(Command::Replay(arguments)) => replay::run(&arguments),
        Some(Command::Explain(arguments)) => explain::run(&arguments),
        Some(Command::Rerun(arguments)) => rerun::run(&arguments),
        Some(Command::Shrink(arguments)) => shrink::run(&arguments),
        Some(Command::Check(arguments)) => check::run(&arguments),
        Some(Command::Guarantees(arguments)) => guarantees::run(&arguments),
        Some(Command::HistorySample(arguments)) => history_sample::run(&arguments),
        Some(Command::Scenarios(arguments)) => scenarios::run(&arguments),
        Some(Command::Mutants(arguments)) => mutants::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Claims(arguments)) => claims::run(&arguments),
        Some(Command::Diagnose(arguments)) => diagnose::run(&arguments),
        Some(Command::Backlog(arguments)) => backlog::run(&arguments),
        Some(Command::Sinks(arguments)) => sinks::run(&arguments),
        Some(Command::Report(arguments)) => report::run(&arguments),
        Some(Command::Broker(arguments)) => broker::run(&arguments),
        Some(Command::Relay(arguments)) => relay::run(&arguments),
        Some(Command::SlowedBroker(arguments)) => slowed_broker::run(&arguments),
        Some(Command::Cluster(arguments)) => cluster::run(&arguments),
        Some(Command::Disk(arguments)) => disk::run(&arguments),
        Some(Command::Systems(arguments)) => systems::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declaration_of_arguments_holds_together() {
        Arguments::command().debug_assert();
    }
}
