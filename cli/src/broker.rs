//! `mqassay broker`: the reference broker as a server. There is no way here to give it a deliberate bug, but in a build with
//! the feature `mutants`, which only replays of mutants on real processes want (`real_replay`).

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use mqassay_broker::core::config::{Advertised, KEYS, NodeConfig};
use mqassay_broker::mutant::Mutant;
use mqassay_broker::real;

use crate::arguments::setting;
use crate::exit::{Exit, Failure};

/// Arguments of `mqassay broker`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = settings())]
pub(crate) struct Arguments {
    /// Address and port to listen on; port 0 takes a free one [default: the node's place in the cluster, or
    /// 127.0.0.1:9092]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The node's id in the cluster
    #[arg(long, value_name = "ID")]
    node: Option<i32>,
    /// Every node of the cluster, this one included: 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    #[arg(long, value_name = "NODES", requires = "node")]
    cluster: Option<String>,
    /// Join a cluster that exists, rather than begin it together with the others; AddRaftVoter gives the node a vote
    #[arg(long, requires = "cluster")]
    join: bool,
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
    /// A deliberate bug
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME", hide = true)]
    mutant: Option<String>,
}

#[cfg(feature = "mutants")]
fn mutant(arguments: &Arguments) -> Result<Option<Mutant>, Failure> {
    let named = |name: &String| mqassay_scenarios::runner::mutant_named(name).map_err(Failure::usage);
    arguments.mutant.as_ref().map(named).transpose()
}

#[cfg(not(feature = "mutants"))]
fn mutant(_: &Arguments) -> Result<Option<Mutant>, Failure> {
    Ok(None)
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
    if let Some(node) = arguments.node {
        settings.insert("node-id".to_owned(), node.to_string());
    }
    if let Some(cluster) = &arguments.cluster {
        settings.insert("cluster".to_owned(), cluster.clone());
        settings.insert("join".to_owned(), arguments.join.to_string());
    }
    if let Some(listen) = &arguments.listen {
        settings.insert("listen".to_owned(), listen.clone());
    }
    let named = [("layout", &arguments.layout), ("flush", &arguments.flush), ("metrics", &arguments.metrics)];
    for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        settings.insert(name.to_owned(), value.clone());
    }
    let mut config = NodeConfig::from_settings(&settings).map_err(Failure::usage)?;
    if arguments.cluster.is_some() {
        let own = config.cluster.iter().find(|peer| peer.id.0 == config.node_id).cloned();
        let own = own.ok_or_else(|| Failure::usage("--cluster does not list this --node"))?;
        if !settings.contains_key("listen") {
            // A name is bound on every interface: which of them it means is the resolver's business.
            let address = own.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            config.listen = SocketAddr::new(address, own.port);
        }
        config.advertised.get_or_insert(Advertised { host: own.host, port: own.port });
    }
    real::run_broker_until_signal(config, &arguments.data, mutant(arguments)?, |address| {
        // Whoever started the broker may not want to hear of it; it serves all the same.
        let _ = writeln!(std::io::stdout().lock(), "listening on {address}");
    })
    .map_err(Failure::undone)?;
    Ok(Exit::Valid)
}
