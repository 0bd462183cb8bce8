//! `mqassay sinks`: consumers with effects in a database, killed at every step and otherwise ill-treated; what is lost and
//! what is there twice, counted from the database at the end. The trials themselves are in the benches.

use std::io::{Read, Write};
use std::path::PathBuf;

use clap::Subcommand;
use mqassay_benches::consumers::ConsumerError;
use mqassay_benches::consumers::acknowledge;
use mqassay_benches::consumers::cluster::System;
use mqassay_benches::consumers::faults::Fault;
use mqassay_benches::consumers::sink::SinkKind;
use mqassay_benches::consumers::trial::{self, MESSAGES_MINIMUM, Outcome};
use mqassay_benches::consumers::worker::{self, WorkerOptions};

use crate::bench::end_brokers_on_signal;
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::{cannot, json_line};

/// Arguments of `mqassay sinks`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Try sinks under faults: effects lost and effects doubled
    Run(Run),
    /// Commit before, after and automatically, the consumer killed at every step: messages lost and repeated
    Acknowledge(Place),
    /// A consumer, as trials start it
    #[command(hide = true)]
    Worker {
        /// Its orders
        orders: String,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    place: Place,
    /// Sinks, all without
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    sinks: Vec<String>,
    /// Faults, all without
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    faults: Vec<String>,
    /// Messages of each trial
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(MESSAGES_MINIMUM..=100_000))]
    messages: u64,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Whose brokers: reference or kafka
    #[arg(long, default_value = "reference")]
    system: String,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Where the outcomes are kept as well, as JSON lines
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Tries, and exits by whether every sink did as it promises and every mistake showed.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.action {
        Action::Run(run) => run_sinks(run),
        Action::Acknowledge(place) => run_acknowledge(place),
        Action::Worker { orders } => work(orders),
    }
}

fn run_sinks(run: &Run) -> Result<Exit, Failure> {
    let named = |names: &[String]| names.iter().map(|name| SinkKind::named(name)).collect::<Result<Vec<_>, _>>();
    let sinks = if run.sinks.is_empty() { SinkKind::ALL.to_vec() } else { named(&run.sinks).map_err(failure)? };
    let faults = match run.faults.is_empty() {
        true => Fault::ALL.to_vec(),
        false => run.faults.iter().map(|name| Fault::named(name)).collect::<Result<_, _>>().map_err(failure)?,
    };
    let options = trial::Options {
        system: System::named(&run.place.system).map_err(failure)?,
        executable: std::env::current_exe().map_err(Failure::undone)?,
        sinks: sinks.clone(),
        faults: faults.clone(),
        messages: run.messages,
    };
    end_brokers_on_signal().map_err(Failure::undone)?;
    let json = run.place.json;
    let outcomes = trial::run(&options, &mut |outcome| {
        if !json {
            eprintln!("{}", told(outcome));
        }
    })
    .map_err(failure)?;
    put(&run.place, &outcomes)?;
    if !json {
        table(&sinks, &faults, &outcomes);
    }
    Ok(exit(&outcomes))
}

/// A promise that was broken is a violation; a mistake that did not show leaves the trial without proof.
pub(crate) fn exit(outcomes: &[Outcome]) -> Exit {
    let of = |outcome: &Outcome| match (outcome.is_as_promised(), outcome.promise) {
        (Some(false), mqassay_benches::consumers::faults::Promise::ExactlyOnce) => Exit::Violation,
        (Some(false), _) => Exit::Unknown,
        _ => Exit::Valid,
    };
    outcomes.iter().map(of).max().unwrap_or(Exit::Unknown)
}

fn run_acknowledge(place: &Place) -> Result<Exit, Failure> {
    let executable = std::env::current_exe().map_err(Failure::undone)?;
    let system = System::named(&place.system).map_err(failure)?;
    end_brokers_on_signal().map_err(Failure::undone)?;
    let json = place.json;
    let outcomes = acknowledge::run(system, &executable, &mut |outcome| {
        if !json {
            let when = if outcome.late { ", once it was committed" } else { "" };
            tell(&format!(
                "{:10} {:10} killed {} times at {}{when}: {} lost, {} repeated, of {}",
                outcome.system,
                outcome.acknowledge,
                outcome.kills,
                outcome.step,
                outcome.lost,
                outcome.repeated,
                outcome.messages
            ));
        }
    })
    .map_err(failure)?;
    put(place, &outcomes)?;
    Ok(Exit::Valid)
}

fn put<T: serde::Serialize>(place: &Place, outcomes: &[T]) -> Result<(), Failure> {
    let lines = outcomes.iter().map(json_line).collect::<Result<String, _>>()?;
    if place.json {
        tell(lines.trim_end());
    }
    match &place.out {
        Some(path) => std::fs::write(path, lines).map_err(|error| cannot("write", path, error)),
        None => Ok(()),
    }
}

fn told(outcome: &Outcome) -> String {
    let word = match outcome.is_as_promised() {
        _ if !outcome.reached => "it has no such step",
        Some(true) => "as promised",
        Some(false) => "NOT as promised",
        None => "nothing is promised",
    };
    format!(
        "{:22} {:16} {} lost, {} doubled, of {} delivered {} times, {} kills, {:.1} s: {word}",
        outcome.sink,
        outcome.fault,
        outcome.effects.lost,
        outcome.effects.doubled,
        outcome.messages,
        outcome.effects.deliveries,
        outcome.kills,
        outcome.seconds
    )
}

/// Sinks down, faults across: lost and doubled effects.
fn table(sinks: &[SinkKind], faults: &[Fault], outcomes: &[Outcome]) {
    let cell = |sink: &SinkKind, fault: &Fault| {
        let found = outcomes.iter().find(|one| one.sink == sink.name() && one.fault == fault.name());
        found.map_or("?".to_owned(), |one| match one.reached {
            true => format!("{}/{}", one.effects.lost, one.effects.doubled),
            false => "–".to_owned(),
        })
    };
    tell("effects lost/doubled");
    let mut head = format!("{:22}", "");
    faults.iter().for_each(|fault| head.push_str(&format!(" {:>15}", fault.name())));
    tell(&head);
    for sink in sinks {
        let mut row = format!("{:22}", sink.name());
        faults.iter().for_each(|fault| row.push_str(&format!(" {:>15}", cell(sink, fault))));
        tell(&row);
    }
}

/// The consumer's process. It ends with its standard input, which ends with the process that started it.
fn work(orders: &str) -> Result<Exit, Failure> {
    let options: WorkerOptions = serde_json::from_str(orders).map_err(Failure::usage)?;
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        // Whatever ends it, there is nobody left to consume for.
        let _ = std::io::stdin().read_to_end(&mut rest);
        // Leaving its group in good order would take as long as the group's broker, which may be gone as well.
        std::process::exit(0);
    });
    let say = |line: &str| {
        // Whoever started it may be gone; then the standard input has ended as well.
        let mut output = std::io::stdout().lock();
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    };
    match worker::run(&options, &say).map_err(failure)? {}
}

/// What a trial that could not be made means to the command.
pub(crate) fn failure(error: ConsumerError) -> Failure {
    match error {
        ConsumerError::Unknown { .. } | ConsumerError::NoTopics { .. } | ConsumerError::NoQueues { .. } => {
            Failure::usage(error)
        }
        error => Failure::undone(error),
    }
}
