//! The ports' real arms, and a broker process made of them. The simulated ones are in the scenarios crate.
//! Start at `run_broker`.

pub mod clock;
pub mod disk;
mod metrics;
pub mod net;
pub mod observer;
pub mod rand;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::core::config::NodeConfig;
use crate::mutant::Mutant;
use crate::node::{self, NodeExit, Ports, Started};

/// Why a broker process ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum BrokerExit {
    /// The data folder cannot be created or entered.
    #[error("data folder {path}: {source}; choose another with --data", path = path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The system refuses a runtime or a signal handler.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The error.
        source: io::Error,
    },
    /// The address for metrics cannot be bound.
    #[error("metrics cannot be served on {address}: {source}; choose another with --metrics")]
    Metrics {
        /// The address wanted.
        address: SocketAddr,
        /// The error.
        source: io::Error,
    },
    /// The node ended.
    #[error(transparent)]
    Node(#[from] NodeExit),
}

/// Runs a broker over a data folder until `shutdown` ends; the calling thread is the node's.
/// `ready` hears the address once clients are welcome.
pub fn run_broker(
    config: NodeConfig,
    data: &Path,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), BrokerExit> {
    run(config, data, None, ready, shutdown)
}

fn run(
    config: NodeConfig,
    data: &Path,
    mutant: Option<Mutant>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), BrokerExit> {
    let disk = disk::RealDisk::open(data).map_err(|source| BrokerExit::Data { path: data.to_path_buf(), source })?;
    let config = within_open_files(config, raise_open_files());
    let ports = Ports {
        disk,
        net: net::TcpNet,
        clock: clock::SystemClock::new(),
        rand: rand::SystemRand::default(),
        observer: observer::CountingObserver::default(),
    };
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| BrokerExit::System { what: "a runtime", source })?;
    let local = LocalSet::new();
    let ended = local.block_on(&runtime, Box::pin(serve(config, ports, mutant, ready, shutdown)));
    // Tasks of connections that are still open end with the local set; a sync under way ends with the runtime.
    drop(local);
    ended
}

/// Raises the process's limit on open files as far as it may, and gives it.
fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}

/// Divides a limit on open files between segments and connections, where it is too low for what is configured.
fn within_open_files(mut config: NodeConfig, limit: u64) -> NodeConfig {
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(FILES_ASIDE);
    if config.open_files_max.saturating_add(config.connections_max) <= room {
        return config;
    }
    let half = room / 2;
    config.open_files_max = config.open_files_max.min(room.saturating_sub(config.connections_max).max(half)).max(16);
    config.connections_max = config.connections_max.min(room.saturating_sub(config.open_files_max)).max(1);
    let (open_files_max, connections_max) = (config.open_files_max, config.connections_max);
    tracing::warn!(limit, open_files_max, connections_max, "the limit on open files (ulimit -n) is low");
    config
}

/// Files that are neither segments nor connections, with room to spare.
const FILES_ASIDE: usize = 64;

type RealPorts = Ports<disk::RealDisk, net::TcpNet, clock::SystemClock, rand::SystemRand, observer::CountingObserver>;

async fn serve(
    config: NodeConfig,
    ports: RealPorts,
    mutant: Option<Mutant>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), BrokerExit> {
    let metrics = match config.metrics {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|source| BrokerExit::Metrics { address, source })?)
        }
        None => None,
    };
    let observer = ports.observer.clone();
    let started = |started: Started| {
        if let Some(listener) = metrics {
            tracing::info!(address = ?listener.local_addr(), "metrics");
            let source = metrics::Source { census: started.census, observer };
            tokio::task::spawn_local(metrics::serve(listener, source));
        }
        ready(started.address);
    };
    Ok(node::run_watched(config, ports, mutant, started, shutdown).await?)
}

/// Blocks the calling thread until SIGTERM or Ctrl-C.
pub fn wait_for_signal() -> Result<(), BrokerExit> {
    let system = |what| move |source| BrokerExit::System { what, source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(system("a runtime"))?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(system("a signal handler"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("a signal handler"))?;
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// As `run_broker`, until SIGTERM or Ctrl-C; with a deliberate bug, where the caller has one to give.
pub fn run_broker_until_signal(
    config: NodeConfig,
    data: &Path,
    mutant: Option<Mutant>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), BrokerExit> {
    let asked = async {
        // Without handlers the signals keep their default, which ends the process too, only not cleanly.
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::warn!("no signal handlers; the broker will end without a last sync");
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run(config, data, mutant, ready, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_on_open_files_is_divided_and_a_high_one_changes_nothing() {
        let divided = |limit| {
            let config = within_open_files(NodeConfig::production(), limit);
            (config.open_files_max, config.connections_max)
        };
        assert_eq!(divided(u64::MAX), (4096, 4096));
        assert_eq!(divided(4096 + 4096 + FILES_ASIDE as u64), (4096, 4096));
        assert_eq!(divided(1024), (480, 480));
        assert_eq!(divided(6000), (2968, 2968));
        assert_eq!(divided(0), (16, 1));
    }
}
