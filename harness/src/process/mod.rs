//! The process world's supervisor: starts a broker as a process of its own, waits for its address, kills or ends it,
//! and never leaves it behind. `accounting` reads what a process has used. Processes are ended by their own id only.
//! Not here: which program to start, and provisioning of external systems.

#![allow(clippy::disallowed_methods, reason = "supervising real processes needs real clocks and threads")]

pub mod accounting;
pub mod disk;
pub mod leftovers;
pub mod signals;
pub mod world;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use accounting::{AccountingError, Usage};

/// How to start a broker.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, the data folder among them.
    pub arguments: Vec<OsString>,
    /// How long it may take until it prints `listening on HOST:PORT`.
    pub ready_timeout: Duration,
}

/// A running broker. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    address: String,
    output: RecentOutput,
    exit: Option<ExitStatus>,
}

/// Why a process could not be supervised.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It could not be started at all.
    #[error("{program} cannot be started: {source}; check the path")]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended, or said nothing useful in time; it has been ended.
    #[error("{program} did not print \"listening on HOST:PORT\": {reason}; its last words:\n{output}")]
    NotReady {
        /// The program.
        program: PathBuf,
        /// What was seen instead.
        reason: String,
        /// The last lines that it printed.
        output: String,
    },
    /// It did not end in time after SIGTERM; it still runs.
    #[error("process {pid} still runs {waited:?} after SIGTERM; its last words:\n{output}")]
    StillRunning {
        /// Its id.
        pid: u32,
        /// How long was waited.
        waited: Duration,
        /// The last lines that it printed.
        output: String,
    },
    /// The system refused a signal or a wait.
    #[error("process {pid} cannot be {what}: {source}")]
    Signal {
        /// Its id.
        pid: u32,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl BrokerProcess {
    /// Starts a broker and waits until it listens.
    pub fn start(options: &ProcessOptions) -> Result<BrokerProcess, ProcessError> {
        let program = &options.program;
        let mut command = Command::new(program);
        command.args(&options.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        leftovers::mark(&mut command);
        let not_started = |source| ProcessError::NotStarted { program: program.clone(), source };
        let mut child = command.spawn().map_err(not_started)?;
        let output = RecentOutput::default();
        let (announce, announced) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            drain(stdout, output.clone(), Some(announce));
        }
        if let Some(stderr) = child.stderr.take() {
            drain(stderr, output.clone(), None);
        }
        let mut process = BrokerProcess { child, address: String::new(), output, exit: None };
        match announced.recv_timeout(options.ready_timeout) {
            Ok(address) => {
                process.address = address;
                Ok(process)
            }
            Err(error) => {
                let reason = match error {
                    mpsc::RecvTimeoutError::Timeout => format!("nothing for {:?}", options.ready_timeout),
                    mpsc::RecvTimeoutError::Disconnected => "it closed its standard output".to_string(),
                };
                process.kill()?;
                Err(ProcessError::NotReady { program: program.clone(), reason, output: process.recent_output() })
            }
        }
    }

    /// The process' id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port` that it listens on.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The last lines that it printed, standard output and error together.
    pub fn recent_output(&self) -> String {
        self.output.text()
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        if self.exit.is_none() {
            let pid = self.pid();
            let waited = self.child.try_wait();
            self.exit = waited.map_err(|source| ProcessError::Signal { pid, what: "waited for", source })?;
        }
        Ok(self.exit)
    }

    /// What it has used so far.
    pub fn usage(&self) -> Result<Usage, AccountingError> {
        Usage::of_process(self.pid())
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        let pid = self.pid();
        self.child.kill().map_err(|source| ProcessError::Signal { pid, what: "killed", source })?;
        let status = self.child.wait().map_err(|source| ProcessError::Signal { pid, what: "waited for", source })?;
        self.exit = Some(status);
        Ok(status)
    }

    /// SIGTERM, and waits for the end, at most so long.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus, ProcessError> {
        self.ask_to_end()?;
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let (pid, output) = (self.pid(), self.recent_output());
                return Err(ProcessError::StillRunning { pid, waited: timeout, output });
            }
            std::thread::sleep(WAIT_STEP);
        }
    }

    /// SIGTERM, without waiting; nothing where it has ended.
    pub fn ask_to_end(&mut self) -> Result<(), ProcessError> {
        match self.exited()? {
            Some(_) => Ok(()),
            None => self.signal(Signal::TERM, "ended"),
        }
    }

    /// SIGSTOP: it stands still, its connections stay.
    pub fn pause(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP, "paused")
    }

    /// SIGCONT: it goes on.
    pub fn resume(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT, "resumed")
    }

    /// The id is this process' for as long as it has not been waited for, so no other process can be hit.
    fn signal(&mut self, signal: Signal, what: &'static str) -> Result<(), ProcessError> {
        let pid = self.pid();
        let failed = |source| ProcessError::Signal { pid, what, source };
        if self.exited()?.is_some() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has ended")));
        }
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let target = target.ok_or_else(|| failed(io::Error::other("the id is out of range")))?;
        kill_process(target, signal).map_err(|error| failed(error.into()))
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!("a broker process may be left behind: {error}");
        }
    }
}

/// The last lines of a process, shared with the threads that read them.
#[derive(Debug, Clone, Default)]
struct RecentOutput {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl RecentOutput {
    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > RECENT_LINES {
            lines.pop_front();
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Reads a pipe to its end on a thread of its own, so that the process never blocks on it.
fn drain(pipe: impl Read + Send + 'static, output: RecentOutput, announce: Option<mpsc::Sender<String>>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut announce = announce;
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line without an end must not fill the memory.
            match reader.by_ref().take(LINE_BYTES_MAXIMUM).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            if let Some(address) = listening_address(&text)
                && let Some(announce) = announce.take()
            {
                // Whoever waited may have given up by now.
                drop(announce.send(address));
            }
            output.push(text);
        }
    });
}

/// The address in a line `listening on HOST:PORT`, whatever stands around it.
fn listening_address(line: &str) -> Option<String> {
    let address = line.split_once(LISTENING)?.1.split_whitespace().next()?;
    let (host, port) = address.rsplit_once(':')?;
    let is_address = !host.is_empty() && port.parse::<u16>().is_ok();
    is_address.then(|| address.to_string())
}

const LISTENING: &str = "listening on ";
const RECENT_LINES: usize = 50;
const LINE_BYTES_MAXIMUM: u64 = 16 << 10;
const WAIT_STEP: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A shell script in place of a broker.
    fn script(text: &str) -> ProcessOptions {
        ProcessOptions {
            program: PathBuf::from("/bin/sh"),
            arguments: vec![OsString::from("-c"), OsString::from(text)],
            ready_timeout: Duration::from_secs(10),
        }
    }

    fn is_there(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn addresses_are_read_from_the_line() {
        assert_eq!(listening_address("listening on 127.0.0.1:4711"), Some("127.0.0.1:4711".to_string()));
        assert_eq!(listening_address("INFO listening on [::1]:80 (shared)"), Some("[::1]:80".to_string()));
        assert_eq!(listening_address("listening on nothing"), None);
        assert_eq!(listening_address("connected to 127.0.0.1:4711"), None);
    }

    #[test]
    fn a_process_is_started_paused_and_killed() {
        let options = script("echo starting; echo listening on 127.0.0.1:4711; exec tail -f /dev/null");
        let mut process = BrokerProcess::start(&options).expect("the script says that it listens");
        assert_eq!(process.address(), "127.0.0.1:4711");
        assert!(process.usage().expect("it runs").resident_bytes > 0);
        process.pause().expect("it runs");
        process.resume().expect("it runs");
        assert_eq!(process.exited().expect("it can be waited for"), None);
        let status = process.kill().expect("it can be killed");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert!(!is_there(process.pid()));
        assert!(process.pause().is_err(), "what has ended gets no signal");
    }

    #[test]
    fn dropping_leaves_nothing_behind() {
        let options = script("echo listening on 127.0.0.1:1; exec tail -f /dev/null");
        let process = BrokerProcess::start(&options).expect("the script says that it listens");
        let pid = process.pid();
        assert!(is_there(pid));
        drop(process);
        assert!(!is_there(pid));
    }

    #[test]
    fn a_clean_end_is_waited_for() {
        let text = "trap 'echo bye; exit 3' TERM; echo listening on 127.0.0.1:1; while :; do :; done";
        let mut process = BrokerProcess::start(&script(text)).expect("the script says that it listens");
        let status = process.terminate(Duration::from_secs(10)).expect("the script ends on SIGTERM");
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn who_does_not_end_is_reported_and_ended_on_drop() {
        let text = "trap '' TERM; echo listening on 127.0.0.1:1; while :; do :; done";
        let mut process = BrokerProcess::start(&script(text)).expect("the script says that it listens");
        let error = process.terminate(Duration::from_millis(30)).expect_err("the script ignores SIGTERM");
        assert!(matches!(error, ProcessError::StillRunning { .. }), "{error}");
    }

    #[test]
    fn who_never_listens_is_reported_with_its_last_words() {
        let error = BrokerProcess::start(&script("echo the folder is locked >&2; exit 1")).expect_err("it ended");
        let ProcessError::NotReady { reason, .. } = &error else { panic!("{error}") };
        assert_eq!(reason, "it closed its standard output");
        let mut silent = script("exec tail -f /dev/null");
        silent.ready_timeout = Duration::from_millis(30);
        assert!(matches!(BrokerProcess::start(&silent), Err(ProcessError::NotReady { .. })));
        let mut missing = script("");
        missing.program = PathBuf::from("/nonexistent/broker");
        assert!(matches!(BrokerProcess::start(&missing), Err(ProcessError::NotStarted { .. })));
    }
}
