//! `mqassay diagnose`: why messages pile up in front of a consumer group, on any live cluster that speaks Kafka's protocol.
//! It joins no group and commits nothing. The looking and the reasoning are in the benches (`backlog`).

use std::time::Duration;

use mqassay_benches::backlog::judge::{Cause, Diagnosis, judge};
use mqassay_benches::backlog::observe::{self, Options};

use crate::arguments::{seconds, setting, settings};
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;
use crate::sinks::failure;

/// Arguments of `mqassay diagnose`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The cluster
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: String,
    /// The consumer group
    #[arg(long)]
    group: String,
    /// A topic of the group; may be given several times [default: what its members own]
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// For how long it looks, in seconds: several times longer than the group's commits are apart, and longer than any
    /// record takes
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    window: Duration,
    /// Records a second that usually arrive [default: what the log says of the time before the backlog]
    #[arg(long, value_name = "RATE")]
    usual: Option<f64>,
    /// A setting of the client library, as in security.protocol=SSL; may be given several times
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = setting)]
    client: Vec<(String, String)>,
    /// JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Looks and says; a backlog whose cause is not known is unknown, any other result is valid.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let options = Options {
        bootstrap: arguments.bootstrap.clone(),
        group: arguments.group.clone(),
        topics: arguments.topic.clone(),
        window: arguments.window,
        usual_rate: arguments.usual,
        client: settings(&arguments.client),
    };
    let diagnosis = judge(&observe::observe(&options).map_err(failure)?);
    if arguments.json {
        tell(json_line(&diagnosis)?.trim_end());
    } else {
        print(&diagnosis);
    }
    Ok(if diagnosis.cause == Cause::Unknown { Exit::Unknown } else { Exit::Valid })
}

fn print(diagnosis: &Diagnosis) {
    tell(&format!(
        "{}: {} records wait, {:+.1} a second",
        diagnosis.cause.name(),
        diagnosis.lag,
        diagnosis.lag_growth_per_second
    ));
    for line in &diagnosis.evidence {
        tell(&format!("  {line}"));
    }
    tell(&format!("  what helps: {}", diagnosis.cause.cure()));
}
