//! `mqassay cluster`: several nodes of the reference broker in one process, each on a thread of its own, on consecutive
//! ports of the loopback. The nodes are those of `mqassay broker`; only the process is shared.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use mqassay_broker::core::config::NodeConfig;
use mqassay_broker::real::{self, BrokerExit};
use tokio::sync::watch;

use crate::arguments::setting;
use crate::exit::{Exit, Failure};

/// Arguments of `mqassay cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// The first node's port on 127.0.0.1; the others follow
    #[arg(long, default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// Folder of the nodes' data folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Any setting of the nodes; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

/// Serves until SIGTERM or Ctrl-C, or until a node fails.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let addresses: Vec<String> =
        (0..arguments.nodes).map(|index| format!("127.0.0.1:{}", arguments.port + index)).collect();
    let numbered = addresses.iter().enumerate().map(|(index, address)| format!("{}={address}", index + 1));
    let cluster = numbered.collect::<Vec<_>>().join(",");
    let factor = arguments.nodes.min(3).to_string();
    let mut configs = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let mut settings = BTreeMap::from([("default-replication-factor".to_owned(), factor.clone())]);
        settings.extend(arguments.set.iter().cloned());
        settings.insert("node-id".to_owned(), (index + 1).to_string());
        settings.insert("listen".to_owned(), address.clone());
        settings.insert("cluster".to_owned(), cluster.clone());
        configs.push(NodeConfig::from_settings(&settings).map_err(Failure::usage)?);
    }
    serve(configs, &arguments.data, &addresses.join(",")).map_err(Failure::undone)?;
    Ok(Exit::Valid)
}

enum Said {
    Ready,
    Ended(Result<(), BrokerExit>),
}

/// Runs the nodes until they have all ended; when one ends, so do the others.
fn serve(configs: Vec<NodeConfig>, data: &Path, bootstrap: &str) -> Result<(), BrokerExit> {
    let (stop, stopped) = watch::channel(false);
    let (say, heard) = mpsc::channel();
    let mut left = configs.len();
    let threads: Vec<_> = configs
        .into_iter()
        .map(|config| {
            let (say, mut stopped) = (say.clone(), stopped.clone());
            let folder = data.join(format!("node-{}", config.node_id));
            thread::spawn(move || {
                let shutdown = async move {
                    // The sender lives until every node has ended.
                    let _ = stopped.wait_for(|stopped| *stopped).await;
                };
                let told = say.clone();
                let ended = real::run_broker(config, &folder, |_| drop(told.send(Said::Ready)), shutdown);
                drop(say.send(Said::Ended(ended)));
            })
        })
        .collect();
    let asked = stop.clone();
    thread::spawn(move || {
        if real::wait_for_signal().is_ok() {
            asked.send_replace(true);
        }
    });
    let mut ready = 0;
    let mut result = Ok(());
    while left > 0 {
        match heard.recv().expect("every node says how it ended") {
            Said::Ready => {
                ready += 1;
                if ready == threads.len() {
                    // Whoever started the cluster may not want to hear of it; it serves all the same.
                    let _ = writeln!(std::io::stdout().lock(), "bootstrap {bootstrap}");
                }
            }
            Said::Ended(ended) => {
                left -= 1;
                stop.send_replace(true);
                result = result.and(ended);
            }
        }
    }
    for thread in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
    result
}
