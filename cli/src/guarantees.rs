//! `mqassay guarantees`: what the guarantee matrix allows under one's own settings, fault by fault, with the reason, its
//! source, and the built-in scenarios that draw such a fault under such settings.

use mqassay_harness::guarantee::{Anomaly, FaultRow, Flush, Matrix, Settings};
use mqassay_harness::plan::scenario::{FaultRanges, Scenario};
use mqassay_scenarios::catalogue;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;

/// Arguments of `mqassay guarantees`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The producer's acks
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// When appends are synced
    #[arg(long, value_enum, default_value_t = FlushChoice::Ack)]
    flush: FlushChoice,
    /// Copies of each record
    #[arg(long, visible_alias = "replication", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rf: u32,
    /// In-sync copies that acks=all needs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    min_isr: u32,
    /// Whether a replica that is not in sync may be elected.
    #[arg(long)]
    unclean: bool,
    /// A dead leader is not replaced.
    #[arg(long)]
    no_failover: bool,
    /// The producer sends sequence numbers
    #[arg(long)]
    idempotent: bool,
    /// The producer's requests in flight at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=5))]
    in_flight: u32,
    /// Sends of one batch at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
    /// JSON lines on standard output
    #[arg(long)]
    json: bool,
}

/// The producer's acks, as Kafka's configuration has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Acks {
    /// Every in-sync copy
    All,
    /// The leader
    #[value(name = "1")]
    Leader,
    /// Nobody
    #[value(name = "0")]
    Nobody,
}

/// When appends are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FlushChoice {
    /// Before the acknowledgement
    Ack,
    /// At intervals
    Interval,
    /// Whenever the operating system writes back
    Os,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    row: &'a FaultRow,
    scenarios: Vec<&'a str>,
}

/// The last line: what nothing allows under the settings.
#[derive(Serialize)]
struct Never {
    never_allowed: Vec<Anomaly>,
}

/// Prints the matrix.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let settings = settings(arguments);
    let scenarios = catalogue::all();
    let table = Matrix::standard().fault_table(&settings);
    let never: Vec<Anomaly> =
        Anomaly::ALL.into_iter().filter(|anomaly| !table.iter().any(|row| row.anomalies.contains(anomaly))).collect();
    for row in &table {
        let shown = scenarios.iter().filter(|scenario| shows(scenario, &settings, row.fault.as_deref()));
        let line = Line { row, scenarios: shown.map(|scenario| scenario.name.as_str()).collect() };
        match arguments.json {
            true => tell(json_line(&line)?.trim_end()),
            false => print(&line),
        }
    }
    if arguments.json {
        tell(json_line(&Never { never_allowed: never })?.trim_end());
        return Ok(Exit::Valid);
    }
    let harmless: Vec<&str> = FaultRanges::default()
        .classes()
        .into_iter()
        .map(|(class, _)| class)
        .filter(|class| !table.iter().any(|row| row.fault.as_deref() == Some(class)))
        .collect();
    if !harmless.is_empty() {
        tell(&format!("{}: by themselves they allow nothing more", harmless.join(", ")));
    }
    tell(&format!("never allowed under these settings: {}", names(&never)));
    Ok(Exit::Valid)
}

fn settings(arguments: &Arguments) -> Settings {
    Settings {
        flush: match arguments.flush {
            FlushChoice::Ack => Flush::Ack,
            FlushChoice::Interval => Flush::Interval,
            FlushChoice::Os => Flush::Os,
        },
        acks: match arguments.acks {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::Nobody => 0,
        },
        idempotent: arguments.idempotent,
        in_flight: arguments.in_flight,
        attempts: arguments.attempts,
        replication: arguments.rf,
        min_insync_replicas: arguments.min_isr.min(arguments.rf),
        unclean_election: arguments.unclean,
        failover: !arguments.no_failover,
    }
}

fn print(line: &Line<'_>) {
    let row = line.row;
    let fault = row.fault.as_deref().unwrap_or("any fault or none");
    let under = if row.under.is_empty() { String::new() } else { format!(", {}", row.under) };
    tell(&format!("{fault}{under}: allows {}", names(&row.anomalies)));
    tell(&format!("    {} Source: {}.", row.reason, row.source));
    match line.scenarios.is_empty() {
        true => tell("    no built-in scenario draws it under these settings"),
        false => tell(&format!("    see it: mqassay verify {}", line.scenarios.join(" "))),
    }
}

fn names(anomalies: &[Anomaly]) -> String {
    anomalies.iter().map(|anomaly| anomaly.name()).collect::<Vec<_>>().join(", ")
}

/// Whether a run of the scenario may have the settings and the fault.
fn shows(scenario: &Scenario, settings: &Settings, fault: Option<&str>) -> bool {
    let flush = match settings.flush {
        Flush::Ack => "ack",
        Flush::Interval => "interval",
        Flush::Os => "os",
    };
    let may_flush = match scenario.settings.get("flush") {
        Some(choices) => choices.iter().any(|choice| choice == flush),
        None => settings.flush == Flush::Ack,
    };
    let load = &scenario.workload;
    let may_send = load.acks.contains(&settings.acks)
        && load.idempotent.contains(&settings.idempotent)
        && load.attempts.iter().any(|attempts| (*attempts > 1) == (settings.attempts > 1))
        && load.in_flight.iter().any(|count| (*count > 1) == (settings.in_flight > 1));
    let mut drawn = scenario.faults.classes().into_iter().filter(|(_, span)| span.bounds().1 > 0);
    let may_strike = match fault {
        Some(fault) => drawn.any(|(class, _)| class == fault),
        None => drawn.next().is_some(),
    };
    let (_, copies) = scenario.topics.replication.bounds();
    (settings.replication > 1) == (copies > 1) && may_flush && may_send && may_strike
}
