//! A broker process of an external system that `systems::up` started, as a node of the process world.
//! Not here: provisioning (`systems`). The processes are not our children: they are known by id and time of start.

use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

use super::nodes::{Node, NodeError};
use crate::systems::{self, Options, Running, SystemError, SystemProcess};

/// One process of a provisioned system.
#[derive(Debug)]
pub struct SystemNode {
    name: String,
    options: Options,
    address: SocketAddr,
    process: SystemProcess,
    is_wanted: bool,
}

impl SystemNode {
    /// The broker processes of a running system, as nodes that are up.
    pub fn of(running: &Running, options: &Options) -> Result<Vec<SystemNode>, NodeError> {
        let brokers = running.processes.iter().filter(|process| process.is_broker);
        brokers
            .map(|process| {
                let address = process.address.parse().map_err(|_| NodeError::NoAddress {
                    name: format!("{} {}", running.name, process.role),
                    address: process.address.clone(),
                })?;
                let (name, options, process) = (running.name.clone(), options.clone(), process.clone());
                Ok(SystemNode { name, options, address, process, is_wanted: true })
            })
            .collect()
    }

    fn signal(&self, signal: Signal) -> Result<(), NodeError> {
        let id = i32::try_from(self.process.pid).ok().and_then(Pid::from_raw).filter(|_| self.process.is_alive());
        let gone = || NodeError::System(SystemError::NotRunning { name: self.name.clone() });
        kill_process(id.ok_or_else(gone)?, signal).map_err(|_| gone())
    }
}

impl Node for SystemNode {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(&mut self) -> Result<(), NodeError> {
        let running = systems::restart(&self.name, &self.process.role, &self.options)?;
        if let Some(process) = running.processes.into_iter().find(|process| process.role == self.process.role) {
            self.process = process;
        }
        self.is_wanted = true;
        Ok(())
    }

    fn kill(&mut self) -> Result<(), NodeError> {
        self.is_wanted = false;
        Ok(systems::kill(&self.name, &self.process.role, &self.options)?)
    }

    fn ask_to_end(&mut self) -> Result<(), NodeError> {
        self.is_wanted = false;
        self.signal(Signal::TERM)
    }

    fn has_ended(&mut self) -> Result<bool, NodeError> {
        Ok(!self.process.is_alive())
    }

    fn last_words(&self) -> String {
        let SystemProcess { role, pid, log, .. } = &self.process;
        format!("{} {role} (process {pid}); see {}", self.name, log.display())
    }

    fn pause(&mut self) -> Result<(), NodeError> {
        self.signal(Signal::STOP)
    }

    fn resume(&mut self) -> Result<(), NodeError> {
        self.signal(Signal::CONT)
    }

    fn exited(&mut self) -> Result<Option<String>, NodeError> {
        if !self.is_wanted || self.process.is_alive() {
            return Ok(None);
        }
        self.is_wanted = false;
        Ok(Some(format!("it has ended: {}", self.last_words())))
    }
}
