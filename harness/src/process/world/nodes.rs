//! What the nemesis of the process world can do to a node, and the reference broker as such a node.
//! Start at `Node`. Not here: external systems' nodes (`system`), and when things happen (`nemesis`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::super::disk::{DiskError, ForgettingDisk};
use super::super::{BrokerProcess, ProcessError, ProcessOptions};
use super::namespaces::NamespaceError;
use crate::systems::SystemError;

/// Why a node could not be made to do something.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A process of ours.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A process of an external system.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The disk that a node's data lie on.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The links among nodes that have namespaces.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The node was asked to end and has not.
    #[error("the node at {address} was asked to end and has not within {waited:?}: {last_words}")]
    Lingers {
        /// Where it listens.
        address: SocketAddr,
        /// How long it was waited for.
        waited: Duration,
        /// What it said last, or where that stands.
        last_words: String,
    },
    /// The node's address cannot be linked.
    #[error("{name} listens on {address:?}, which is not an address and a port; links need one")]
    NoAddress {
        /// The system and the node.
        name: String,
        /// What was recorded.
        address: String,
    },
}

/// A node of a system under test: a process of its own.
pub trait Node: Send {
    /// Where its clients are told to connect.
    fn address(&self) -> SocketAddr;
    /// Starts the process; it may take a while until it serves.
    fn start(&mut self) -> Result<(), NodeError>;
    /// `kill -9`.
    fn kill(&mut self) -> Result<(), NodeError>;
    /// SIGTERM, without waiting for the end.
    fn ask_to_end(&mut self) -> Result<(), NodeError>;
    /// Whether it has ended since it was asked to.
    fn has_ended(&mut self) -> Result<bool, NodeError>;
    /// What its process said last, or where that stands.
    fn last_words(&self) -> String;
    /// The error of a node that was asked to end and has not for so long.
    fn lingers(&self, waited: Duration) -> NodeError {
        NodeError::Lingers { address: self.address(), waited, last_words: self.last_words() }
    }
    /// Asks it to end, and waits at most so long; one that does not end is an error and still runs.
    fn stop(&mut self, timeout: Duration) -> Result<(), NodeError> {
        self.ask_to_end()?;
        let deadline = Instant::now() + timeout;
        while !self.has_ended()? {
            if Instant::now() >= deadline {
                return Err(self.lingers(timeout));
            }
            std::thread::sleep(WAIT_STEP);
        }
        Ok(())
    }
    /// SIGSTOP.
    fn pause(&mut self) -> Result<(), NodeError>;
    /// SIGCONT.
    fn resume(&mut self) -> Result<(), NodeError>;
    /// How it ended by itself, if it has.
    fn exited(&mut self) -> Result<Option<String>, NodeError>;
    /// The disk that its data lie on, where that can lose its power.
    fn disk(&mut self) -> Option<&mut ForgettingDisk> {
        None
    }
    /// Only the disk that its data lie on; the node ends to be one, whatever becomes of the process.
    fn into_disk(self: Box<Self>) -> Option<ForgettingDisk> {
        None
    }
}

/// A node whose data lie on a disk that forgets; the disk goes with it, after it.
pub struct OnForgettingDisk {
    // Dropped first, so that nothing uses the disk any more.
    node: Box<dyn Node>,
    disk: ForgettingDisk,
}

impl OnForgettingDisk {
    /// The node, whose data folder is on the disk.
    pub fn new(node: Box<dyn Node>, disk: ForgettingDisk) -> OnForgettingDisk {
        OnForgettingDisk { node, disk }
    }
}

impl Node for OnForgettingDisk {
    fn address(&self) -> SocketAddr {
        self.node.address()
    }

    fn start(&mut self) -> Result<(), NodeError> {
        self.node.start()
    }

    fn kill(&mut self) -> Result<(), NodeError> {
        self.node.kill()
    }

    fn ask_to_end(&mut self) -> Result<(), NodeError> {
        self.node.ask_to_end()
    }

    fn has_ended(&mut self) -> Result<bool, NodeError> {
        self.node.has_ended()
    }

    fn last_words(&self) -> String {
        self.node.last_words()
    }

    fn pause(&mut self) -> Result<(), NodeError> {
        self.node.pause()
    }

    fn resume(&mut self) -> Result<(), NodeError> {
        self.node.resume()
    }

    fn exited(&mut self) -> Result<Option<String>, NodeError> {
        self.node.exited()
    }

    fn disk(&mut self) -> Option<&mut ForgettingDisk> {
        Some(&mut self.disk)
    }

    fn into_disk(self: Box<Self>) -> Option<ForgettingDisk> {
        Some(self.disk)
    }
}

/// A node of the reference broker.
#[derive(Debug)]
pub struct ReferenceNode {
    options: ProcessOptions,
    address: SocketAddr,
    process: Option<BrokerProcess>,
}

impl ReferenceNode {
    /// A node that is not started; `options` without the address, which is added as `--listen`.
    pub fn new(mut options: ProcessOptions, address: SocketAddr) -> ReferenceNode {
        options.arguments.push(OsString::from("--listen"));
        options.arguments.push(OsString::from(address.to_string()));
        ReferenceNode { options, address, process: None }
    }
}

impl Node for ReferenceNode {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(&mut self) -> Result<(), NodeError> {
        self.process = None;
        self.process = Some(BrokerProcess::start(&self.options)?);
        Ok(())
    }

    fn kill(&mut self) -> Result<(), NodeError> {
        match self.process.take() {
            Some(mut process) => Ok(process.kill().map(drop)?),
            None => Ok(()),
        }
    }

    fn ask_to_end(&mut self) -> Result<(), NodeError> {
        Ok(self.process.as_mut().map_or(Ok(()), BrokerProcess::ask_to_end)?)
    }

    fn has_ended(&mut self) -> Result<bool, NodeError> {
        let Some(process) = &mut self.process else { return Ok(true) };
        let has_ended = process.exited()?.is_some();
        if has_ended {
            self.process = None;
        }
        Ok(has_ended)
    }

    fn last_words(&self) -> String {
        let output = self.process.as_ref().map(BrokerProcess::recent_output).unwrap_or_default();
        output.lines().last().unwrap_or("it said nothing").to_owned()
    }

    fn pause(&mut self) -> Result<(), NodeError> {
        Ok(self.process.as_mut().map_or(Ok(()), BrokerProcess::pause)?)
    }

    fn resume(&mut self) -> Result<(), NodeError> {
        Ok(self.process.as_mut().map_or(Ok(()), BrokerProcess::resume)?)
    }

    fn exited(&mut self) -> Result<Option<String>, NodeError> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let Some(status) = process.exited()? else { return Ok(None) };
        let last_words = self.last_words();
        self.process = None;
        Ok(Some(format!("{status}: {last_words}")))
    }
}

const WAIT_STEP: Duration = Duration::from_millis(20);
