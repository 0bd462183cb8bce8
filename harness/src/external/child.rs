//! The driver's process: requests out, answers in, matched by number. It is killed, by its own id, when dropped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, oneshot};

use super::ExternalError;
use super::schema::{Answer, AnswerOutcome, Request, RequestCall};

/// How long a driver may take to end once its input is closed.
const END_BOUND: Duration = Duration::from_secs(5);

/// A running driver.
pub(crate) struct Driver {
    child: RefCell<Option<Child>>,
    input: Mutex<Option<ChildStdin>>,
    open: Rc<RefCell<BTreeMap<u64, oneshot::Sender<Answer>>>>,
    broken: Rc<RefCell<Option<String>>>,
    next_id: Cell<u64>,
    request_timeout: Duration,
}

impl Driver {
    /// Starts the process.
    pub(crate) fn start(command: &[String], request_timeout: Duration) -> Result<Driver, ExternalError> {
        let not_started = |source| ExternalError::NotStarted { command: command.join(" "), source };
        let (program, arguments) =
            command.split_first().ok_or_else(|| not_started(std::io::ErrorKind::NotFound.into()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_started)?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("the child was started with a pipe for its output");
        let (open, broken) = (Rc::default(), Rc::default());
        tokio::task::spawn_local(listen(output, Rc::clone(&open), Rc::clone(&broken)));
        Ok(Driver {
            child: RefCell::new(Some(child)),
            input: Mutex::new(input),
            open,
            broken,
            next_id: Cell::new(1),
            request_timeout,
        })
    }

    /// What is wrong with the driver, if anything.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.borrow().clone()
    }

    /// One request and its answer; unknown after the time-out or where the driver is gone.
    pub(crate) async fn call(&self, client: u32, call: RequestCall<'_>) -> Answer {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let (sender, receiver) = oneshot::channel();
        self.open.borrow_mut().insert(id, sender);
        let exchange = async {
            let line = serde_json::to_string(&Request { id, client, call });
            let line = line.expect("requests consist of numbers and strings") + "\n";
            if self.broken().is_some() {
                return None;
            }
            let mut input = self.input.lock().await;
            if let Some(pipe) = input.as_mut() {
                // A pipe that does not take the line belongs to a process that has ended; `listen` says so.
                pipe.write_all(line.as_bytes()).await.ok()?;
                pipe.flush().await.ok()?;
            }
            drop(input);
            receiver.await.ok()
        };
        let answer = tokio::time::timeout(self.request_timeout, exchange).await;
        self.open.borrow_mut().remove(&id);
        match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => unknown(id, "the driver is gone".to_owned()),
            Err(_) => unknown(id, format!("no answer within {} ms", self.request_timeout.as_millis())),
        }
    }

    /// Closes the driver's input and waits for its end, for a while.
    pub(crate) async fn end(&self) {
        drop(self.input.lock().await.take());
        let child = self.child.borrow_mut().take();
        if let Some(mut child) = child {
            // One that stays is killed as it is dropped.
            let _ = tokio::time::timeout(END_BOUND, child.wait()).await;
        }
    }
}

fn unknown(id: u64, why: String) -> Answer {
    Answer {
        id,
        outcome: AnswerOutcome::Unknown,
        why,
        first_offset: None,
        attempts: None,
        records: Vec::new(),
        offset: None,
        timestamp_ms: None,
        low_watermark: None,
    }
}

/// Hands each answer to who waits for it; late ones are passed over.
async fn listen(
    output: ChildStdout,
    open: Rc<RefCell<BTreeMap<u64, oneshot::Sender<Answer>>>>,
    broken: Rc<RefCell<Option<String>>>,
) {
    let mut lines = BufReader::new(output).lines();
    let what = loop {
        let line = match lines.next_line().await {
            Ok(Some(line)) => line,
            Ok(None) => break "ended before the run did".to_owned(),
            Err(error) => break format!("could not be read: {error}"),
        };
        match serde_json::from_str::<Answer>(&line) {
            Ok(answer) => {
                if let Some(waiting) = open.borrow_mut().remove(&answer.id) {
                    // Whoever gave up waiting has recorded the operation as unknown.
                    let _ = waiting.send(answer);
                }
            }
            Err(error) => break format!("said {line:?}, which is no answer: {error}"),
        }
    };
    *broken.borrow_mut() = Some(what);
    open.borrow_mut().clear();
}
