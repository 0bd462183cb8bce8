//! A consumer's process as a trial sees it: started with its orders, stopped, killed, and what it said last.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::consumers::cluster::{forget_process, note_process};
use crate::consumers::worker::WorkerOptions;
use crate::consumers::{ConsumerError, io_error};

/// What a process has said so far.
#[derive(Debug, Default)]
struct Said {
    last: String,
    was_assigned: bool,
}

/// A running consumer. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Consumer {
    child: Child,
    what: String,
    said: Arc<Mutex<Said>>,
}

impl Consumer {
    /// Starts `executable` as the consumer's process.
    pub(crate) fn start(executable: &Path, options: &WorkerOptions) -> Result<Consumer, ConsumerError> {
        let orders =
            serde_json::to_string(options).map_err(|error| io_error("write orders for", executable)(error.into()));
        let mut command = Command::new(executable);
        // Its standard input ends with this process, and so does the consumer.
        command.args(["sinks", "worker", &orders?]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(io_error("start", executable))?;
        note_process(child.id());
        let said = Arc::new(Mutex::new(Said::default()));
        if let Some(output) = child.stdout.take() {
            let said = Arc::clone(&said);
            let read = move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut said = lock(&said);
                    said.was_assigned |= line == "assigned";
                    said.last = line;
                }
            };
            let spawned = std::thread::Builder::new().name("consumer-output".to_owned()).spawn(read);
            spawned.map_err(io_error("read the output of", executable))?;
        }
        Ok(Consumer { child, what: format!("with sink {}", options.sink.name()), said })
    }

    /// Whether it has been given queues since it started.
    pub(crate) fn was_assigned(&self) -> bool {
        lock(&self.said).was_assigned
    }

    /// Whether it waits for messages, with everything committed that it has done.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.said).last == "idle"
    }

    /// Whether it has ended by SIGKILL; any other end is an error.
    pub(crate) fn has_died(&mut self) -> Result<bool, ConsumerError> {
        let Some(status) = self.child.try_wait().map_err(io_error("wait for", "a consumer"))? else { return Ok(false) };
        forget_process(self.child.id());
        if status.signal() == Some(Signal::KILL.as_raw()) {
            return Ok(true);
        }
        let last = lock(&self.said).last.clone();
        Err(ConsumerError::Ended { what: self.what.clone(), status: status.to_string(), last })
    }

    /// Fails where it is no longer there, however it ended.
    pub(crate) fn must_live(&mut self) -> Result<(), ConsumerError> {
        if self.has_died()? {
            let last = lock(&self.said).last.clone();
            return Err(ConsumerError::Ended { what: self.what.clone(), status: "a kill of its own".to_owned(), last });
        }
        Ok(())
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self) -> Result<(), ConsumerError> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT. What it said before counts no more.
    pub(crate) fn resume(&self) -> Result<(), ConsumerError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), ConsumerError> {
        let target = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let sent = target.map_or(Err(rustix::io::Errno::SRCH), |target| kill_process(target, signal));
        sent.map_err(|error| io_error("send a signal to", "a consumer")(error.into()))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        forget_process(self.child.id());
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}
