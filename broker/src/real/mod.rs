//! The ports' real arms, and a broker process made of them. The simulated ones are in the scenarios crate.
//! Start at `run_broker`.

pub mod clock;
pub mod disk;
pub mod net;
pub mod observer;
pub mod rand;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::core::config::NodeConfig;
use crate::node::{self, NodeExit, Ports};

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
    let disk = disk::RealDisk::open(data).map_err(|source| BrokerExit::Data { path: data.to_path_buf(), source })?;
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
    let ended = local.block_on(&runtime, Box::pin(node::run(config, ports, None, ready, shutdown)));
    // Tasks of connections that are still open end with the local set; a sync under way ends with the runtime.
    drop(local);
    Ok(ended?)
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

/// As `run_broker`, until SIGTERM or Ctrl-C.
pub fn run_broker_until_signal(
    config: NodeConfig,
    data: &Path,
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
    run_broker(config, data, ready, asked)
}
