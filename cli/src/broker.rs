//! `mqassay broker`: the reference broker as a server. There is no way here to give it a deliberate bug.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use mqassay_broker::core::config::{KEYS, NodeConfig};
use mqassay_broker::real;

use crate::arguments::setting;
use crate::exit::{Exit, Failure};

/// Arguments of `mqassay broker`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = settings())]
pub(crate) struct Arguments {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9092")]
    listen: String,
    /// The data folder; no other process may hold it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Storage layout of new topics: shared or partitioned
    #[arg(long)]
    layout: Option<String>,
    /// When appends of new topics are synced: ack, interval or os
    #[arg(long)]
    flush: Option<String>,
    /// Serve metrics for Prometheus over HTTP on this address, as in 127.0.0.1:9644; off where not given
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<String>,
    /// Any other setting; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

/// The settings that `--set` takes, with their defaults.
fn settings() -> String {
    let defaults = NodeConfig::production();
    let line = |key: &str| {
        let default = defaults.value(key).map_or_else(String::new, |value| format!(" [{value}]"));
        format!("  {key}{default}\n      {}\n", NodeConfig::documentation(key).unwrap_or_default())
    };
    format!("Settings [defaults]:\n{}", KEYS.map(line).concat())
}

/// Serves until SIGTERM or Ctrl-C.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut settings: BTreeMap<String, String> = arguments.set.iter().cloned().collect();
    settings.insert("listen".to_owned(), arguments.listen.clone());
    let named = [("layout", &arguments.layout), ("flush", &arguments.flush), ("metrics", &arguments.metrics)];
    for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        settings.insert(name.to_owned(), value.clone());
    }
    let config = NodeConfig::from_settings(&settings).map_err(Failure::usage)?;
    real::run_broker_until_signal(config, &arguments.data, |address| {
        // Whoever started the broker may not want to hear of it; it serves all the same.
        let _ = writeln!(std::io::stdout().lock(), "listening on {address}");
    })
    .map_err(Failure::undone)?;
    Ok(Exit::Valid)
}
