//! The shell of a node: it takes bytes from connections to the core and performs what the core decides, over ports.
//! One node is one shard on one thread: connections, codec, core and inline disk writes share it; only syncs and cold
//! reads run beside it. Start at `run`, then `shard` for the order of effects and `connection` for the bytes.
//! Not here: decisions (`core`), files (`store`), sockets and clocks (`real`, or a simulation's ports).

mod census;
mod connection;
mod intake;
mod outgoing;
mod peers;
mod shard;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::core::config::{Advertised, NodeConfig};
use crate::core::log::Halt;
use crate::core::machine::{Core, Effects, Event, Start, StartError};
use crate::mutant::Mutant;
use crate::ports::{Clock, Disk, Listener, Net, Observer, Rand};
use crate::store::{OpenError, Store, StoreSettings};
pub use census::{Census, Durations};
use intake::Intake;
use shard::{Shard, Shared};

/// What a node needs from the world.
#[derive(Debug, Clone)]
pub struct Ports<D, N, C, R, O> {
    /// The data folder.
    pub disk: D,
    /// Connections.
    pub net: N,
    /// Time.
    pub clock: C,
    /// Draws.
    pub rand: R,
    /// Hears of points and events.
    pub observer: O,
}

/// Why a node ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeExit {
    /// The data folder cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What it holds cannot be started from.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listener cannot be bound.
    #[error("cannot listen on {address}: {source}; choose another with listen")]
    Listen {
        /// The address wanted.
        address: SocketAddr,
        /// The error.
        source: io::Error,
    },
    /// The disk failed, and the node stopped rather than promise what it cannot hold.
    #[error(transparent)]
    DiskFailed(#[from] Halt),
}

impl NodeExit {
    /// Whether the node ended on purpose because its disk failed: it halted, or it refuses to start from what is
    /// corrupt rather than serve or cut it.
    pub fn is_declared(&self) -> bool {
        match self {
            NodeExit::DiskFailed(_) | NodeExit::Start(_) => true,
            NodeExit::Open(error) => match error {
                // A flipped bit can make the format's number a newer one; refusing to start is the answer to both.
                OpenError::Io { .. }
                | OpenError::NewerFormat { .. }
                | OpenError::OlderFormat { .. }
                | OpenError::FormatUnreadable
                | OpenError::SnapshotsUnreadable { .. }
                | OpenError::MetadataCorrupt => true,
                OpenError::Locked => false,
            },
            NodeExit::Listen { .. } => false,
        }
    }
}

/// Runs a node until `stop` ends or the node cannot go on. Must be called within a `LocalSet`; `ready` hears the
/// address once clients are welcome. A clean end answers what was accepted, syncs, and releases the data folder.
pub async fn run<D: Disk, N: Net, C: Clock, R: Rand, O: Observer>(
    config: NodeConfig,
    ports: Ports<D, N, C, R, O>,
    mutant: Option<Mutant>,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeExit> {
    run_watched(config, ports, mutant, |started| ready(started.address), stop).await
}

/// A node that welcomes clients.
pub struct Started {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its numbers; none once it has ended. Not to be called from within one of the node's ports.
    pub census: Box<dyn Fn() -> Option<Census>>,
}

/// As `run`; `started` is also given a way to the node's numbers.
pub async fn run_watched<D: Disk, N: Net, C: Clock, R: Rand, O: Observer>(
    config: NodeConfig,
    ports: Ports<D, N, C, R, O>,
    mutant: Option<Mutant>,
    started: impl FnOnce(Started),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeExit> {
    let Ports { disk, net, clock, rand, observer } = ports;
    let settings = StoreSettings { open_files_max: config.open_files_max, preallocate_bytes: config.preallocate_bytes };
    let mut stop = std::pin::pin!(stop);
    let opening = Box::pin(Store::open(disk, observer.clone(), mutant, settings));
    let (store, recovered) = tokio::select! {
        biased;
        // Recovery goes on where it was with the next start.
        () = &mut stop => return Ok(()),
        opened = opening => opened?,
    };
    let address = config.listen;
    let listen_error = |source| NodeExit::Listen { address, source };
    let listener = net.listen(address).await.map_err(listen_error)?;
    let bound = listener.local_address().map_err(listen_error)?;
    let advertised = config.advertised.clone().unwrap_or_else(|| reachable(bound));
    let connections_max = config.connections_max;
    let frame_bytes_max = config.frame_bytes_max;
    let intake = Rc::new(Intake::new(config.inflight_bytes_max));
    let cluster_draw = rand.draw("cluster", u64::from(config.node_id.unsigned_abs()));
    let incarnation = rand.draw("incarnation", u64::from(config.node_id.unsigned_abs()));
    let mut effects = Effects::default();
    let start = Start { config, advertised, recovered, mutant, cluster_draw, incarnation };
    let core = Core::new(start, shard::now(&clock), &mut effects)?;
    let shared: Shared<D, C, O> = Rc::new_cyclic(|itself: &Weak<RefCell<Shard<D, C, O>>>| {
        RefCell::new(Shard::new(core, store, clock.clone(), observer, intake, itself.clone()))
    });
    shared.borrow_mut().take_turn_with(effects, []);
    let (halted, deadline_moved, serving) = {
        let shard = shared.borrow();
        (shard.halted.clone(), shard.deadline_moved.clone(), shard.serving.clone())
    };
    tokio::task::spawn_local(take_turns(Rc::downgrade(&shared)));
    let bounds = connection::Bounds { connections_max, frame_bytes_max };
    let welcome = async {
        while !shared.borrow().is_serving() {
            serving.notified().await;
        }
        let watched = Rc::downgrade(&shared);
        let census = Box::new(move || watched.upgrade().map(|shard| shard.borrow().census()));
        started(Started { address: bound, census });
        accept(&shared, listener, &clock, bounds).await;
    };
    // Ends with the local set, or with the shard.
    tokio::task::spawn_local(peers::keep_links(Rc::downgrade(&shared), net, clock.clone()));
    tokio::select! {
        biased;
        () = halted.notified() => {}
        () = &mut stop => {}
        () = keep_deadlines(&shared, &clock, &deadline_moved) => {}
        () = connection::close_stalled(&shared, &clock) => {}
        () = welcome => {}
    }
    let result = end(&shared, &clock, &deadline_moved).await;
    connection::close_all(&shared);
    result
}

/// Takes a turn whenever requests have come. It stands in line behind the connections that are being read, so that one
/// turn takes the requests of all of them.
async fn take_turns<D: Disk, C: Clock, O: Observer>(shard: Weak<RefCell<Shard<D, C, O>>>) {
    let Some(intake) = shard.upgrade().map(|shard| shard.borrow().intake.clone()) else { return };
    loop {
        intake.arrived.notified().await;
        let Some(shard) = shard.upgrade() else { return };
        shard.borrow_mut().take_turn([]);
    }
}

async fn accept<D: Disk, C: Clock, O: Observer, L>(
    shared: &Shared<D, C, O>,
    mut listener: L,
    clock: &C,
    bounds: connection::Bounds,
) where
    L: Listener,
    L::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) if shared.borrow().connections.len() < bounds.connections_max => {
                connection::serve(shared, clock, stream, bounds);
            }
            Ok((stream, peer)) => {
                tracing::warn!(%peer, "connection refused: connections-max is reached");
                drop(stream);
            }
            Err(error) => {
                // Out of descriptors, or a peer that went at once; the wait keeps a lasting error from spinning.
                tracing::warn!(%error, "accept failed");
                clock.sleep_until(clock.monotonic() + ACCEPT_RETRY).await;
            }
        }
    }
}

async fn keep_deadlines<D: Disk, C: Clock, O: Observer>(
    shared: &Shared<D, C, O>,
    clock: &C,
    moved: &tokio::sync::Notify,
) {
    loop {
        let deadline = shared.borrow_mut().arm();
        let Some(deadline) = deadline else {
            moved.notified().await;
            continue;
        };
        tokio::select! {
            biased;
            () = moved.notified() => {}
            () = clock.sleep_until(deadline) => shared.borrow_mut().take_turn([Event::Deadline]),
        }
    }
}

/// Ends cleanly: no more requests are taken, what was accepted is confirmed and answered, everything is synced.
async fn end<D: Disk, C: Clock, O: Observer>(
    shared: &Shared<D, C, O>,
    clock: &C,
    deadline_moved: &tokio::sync::Notify,
) -> Result<(), NodeExit> {
    let (halted, intake) = {
        let mut shard = shared.borrow_mut();
        if let Some(halt) = shard.halt.take() {
            return Err(halt.into());
        }
        shard.start_draining();
        (shard.halted.clone(), shard.intake.clone())
    };
    let deadline = clock.sleep_until(clock.monotonic() + DRAIN);
    let wait = async {
        loop {
            while !shared.borrow().is_drained() {
                intake.drained.notified().await;
            }
            // Only what is written down last says that the end was clean.
            if !shared.borrow_mut().end_cleanly() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = halted.notified() => {}
        () = wait => {}
        () = keep_deadlines(shared, clock, deadline_moved) => {}
        () = deadline => tracing::warn!("the disk did not answer in time; unconfirmed appends are left to recovery"),
    }
    let halt = shared.borrow_mut().halt.take();
    halt.map_or(Ok(()), |halt| Err(halt.into()))
}

/// An address that a client on this machine can dial: a wildcard is nobody's address.
fn reachable(bound: SocketAddr) -> Advertised {
    let ip = if bound.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bound.ip() };
    Advertised { host: ip.to_string(), port: bound.port() }
}

const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long a clean end waits for the disk.
const DRAIN: Duration = Duration::from_secs(10);
