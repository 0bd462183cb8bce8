//! RocketMQ through its own Java client, run as child processes that take and give JSON lines (`systems/rocketmq`,
//! `LoadClient.java`). Payloads, stamps, schedule and verdict stay here: a child only sends and receives. The pipes are
//! part of the client, and a full one blocks `send`, which the schedule counts as lag.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::driver::{
    Batching, ClientError, Delivered, Driver, LoadConsumer, LoadProducer, NewRun, PATIENCE, RunClock, SETTLE_PATIENCE,
    client_error, lock,
};
use crate::plan::LoadPlan;
use crate::{BenchError, SystemTarget};

pub(crate) struct RocketmqDriver {
    target: SystemTarget,
    class_path: String,
    admin: Mutex<JavaClient>,
}

impl RocketmqDriver {
    pub(crate) fn connect(target: &SystemTarget, class_path: &str) -> Result<RocketmqDriver, BenchError> {
        let arguments = ["admin".to_owned(), target.bootstrap.clone()];
        let admin = JavaClient::start(class_path, LOAD_CLIENT, &arguments)
            .map_err(client_error(target, "start the Java client"))?;
        Ok(RocketmqDriver { target: target.clone(), class_path: class_path.to_owned(), admin: Mutex::new(admin) })
    }

    /// Says one line to the admin child and gives the fields of its answer after the first.
    fn ask(&self, line: &str, action: &'static str) -> Result<Vec<String>, BenchError> {
        let mut admin = self.admin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let answer = admin.say(line).and_then(|()| admin.flush()).and_then(|()| admin.hear(START_PATIENCE));
        let answer = answer.map_err(client_error(&self.target, action))?;
        match answer.split_first() {
            Some((kind, rest)) if kind != "error" => Ok(rest.to_vec()),
            _ => Err(client_error(&self.target, action)(ClientError::Rocketmq(answer[1..].join(",")))),
        }
    }

    fn child(&self, arguments: &[String], action: &'static str) -> Result<JavaClient, BenchError> {
        let started = JavaClient::start(&self.class_path, LOAD_CLIENT, arguments).and_then(JavaClient::ready);
        started.map_err(client_error(&self.target, action))
    }
}

impl Driver for RocketmqDriver {
    fn create(&self, topic: &NewRun, _plan: &LoadPlan) -> Result<(), BenchError> {
        self.ask(&format!("[\"create\",\"{}\",{}]", topic.name, topic.queues), "create a topic").map(|_| ())
    }

    fn delete(&self, topic: &NewRun) -> Result<(), BenchError> {
        self.ask(&format!("[\"delete\",\"{}\"]", topic.name), "delete a topic").map(|_| ())
    }

    /// RocketMQ builds a queue's index behind its commit log, so that an end offset may lag behind acknowledgements for a
    /// moment; asked again until it has caught up or patience is over, and what it then says is judged.
    fn end_offsets(&self, topic: &NewRun, delivered: &[Delivered]) -> Result<Vec<i64>, BenchError> {
        let action = "ask for end offsets";
        let confirmed = |queue: u32| delivered.iter().map(|one| one.ledger.acknowledged_in(queue) as i64).sum();
        let wanted: Vec<i64> = (0..topic.queues).map(confirmed).collect();
        let start = Instant::now();
        loop {
            let answer = self.ask(&format!("[\"ends\",\"{}\",{}]", topic.name, topic.queues), action)?;
            let parsed: Option<Vec<i64>> = answer.iter().map(|end| end.parse().ok()).collect();
            let ends =
                parsed.ok_or_else(|| client_error(&self.target, action)(ClientError::Rocketmq(answer.join(","))))?;
            if ends.iter().zip(&wanted).all(|(end, wanted)| end >= wanted) || start.elapsed() >= PATIENCE {
                return Ok(ends);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn producer(
        &self,
        _plan: &LoadPlan,
        topic: &NewRun,
        batching: Batching,
        client: u32,
    ) -> Result<Box<dyn LoadProducer>, BenchError> {
        let arguments = [
            "produce".to_owned(),
            self.target.bootstrap.clone(),
            topic.name.clone(),
            batching.batch_records.to_string(),
            batching.batch_bytes.to_string(),
            batching.linger_ms.to_string(),
        ];
        let child = self.child(&arguments, "create a producer")?;
        let delivered = Arc::new(Mutex::new(Delivered::of(client, topic)));
        let producer = RocketmqProducer { child, delivered, clock: topic.clock };
        Ok(Box::new(producer))
    }

    fn consumer(&self, _plan: &LoadPlan, topic: &NewRun) -> Result<Box<dyn LoadConsumer>, BenchError> {
        let (name_server, queues) = (self.target.bootstrap.clone(), topic.queues.to_string());
        let arguments = ["consume".to_owned(), name_server, topic.name.clone(), queues];
        Ok(Box::new(JavaConsumer { child: self.child(&arguments, "create a consumer")? }))
    }

    fn library(&self) -> String {
        format!("rocketmq-client (Java) {}", self.target.version)
    }
}

struct RocketmqProducer {
    child: JavaClient,
    delivered: Arc<Mutex<Delivered>>,
    clock: RunClock,
}

impl RocketmqProducer {
    /// Notes one line of the child; whether it says that everything has its outcome.
    fn note(&self, fields: &[String]) -> Result<bool, ClientError> {
        let number = |index: usize| fields.get(index).and_then(|word| word.parse::<u64>().ok());
        let kind = fields.first().map_or("", String::as_str);
        if kind == "f" {
            return Ok(true);
        }
        let (Some(queue), Some(first), Some(count)) = (number(1), number(2), number(3)) else {
            return Err(ClientError::Rocketmq(format!("the Java client says {}", fields.join(","))));
        };
        let mut delivered = lock(&self.delivered);
        match (kind, number(4)) {
            ("a", Some(offset)) => {
                delivered.batches += 1;
                delivered.batched_records += count;
                for index in 0..count {
                    delivered.ledger.acknowledge(queue as u32, first + index, (offset + index) as i64);
                }
            }
            _ => {
                (first..first + count).for_each(|sequence| delivered.ledger.fail(queue as u32, sequence));
                delivered.first_error.get_or_insert_with(|| fields[4..].join(","));
            }
        }
        delivered.last_ns = self.clock.now_ns();
        Ok(false)
    }
}

impl LoadProducer for RocketmqProducer {
    fn next_sequence(&mut self, queue: u32) -> u64 {
        lock(&self.delivered).ledger.send(queue)
    }

    fn send(&mut self, queue: u32, sequence: u64, payload: &[u8]) -> Result<(), ClientError> {
        let line = format!("[\"s\",{queue},{sequence},\"{}\"]", STANDARD.encode(payload));
        self.child.say(&line).inspect_err(|_| lock(&self.delivered).ledger.take_back(queue))
    }

    fn serve(&mut self) {
        // A child that has ended is noticed where its outcomes are waited for.
        let _ = self.child.flush();
        while let Some(fields) = self.child.heard() {
            // A line that is none of the protocol's leaves its records without outcome, which the end tells.
            let _ = self.note(&fields);
        }
    }

    fn settle(&mut self) -> Result<u64, ClientError> {
        self.child.say("[\"f\"]")?;
        self.child.flush()?;
        let deadline = Instant::now() + SETTLE_PATIENCE;
        loop {
            let fields = self.child.hear(deadline.saturating_duration_since(Instant::now()))?;
            if self.note(&fields)? {
                return Ok(lock(&self.delivered).ledger.acknowledged());
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Delivered, ClientError> {
        self.settle()?;
        let RocketmqProducer { child, delivered, .. } = *self;
        drop(child);
        let delivered = Arc::into_inner(delivered).expect("nobody else holds it");
        Ok(delivered.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// A child that tells each record as a line.
pub(crate) struct JavaConsumer {
    pub(crate) child: JavaClient,
}

impl LoadConsumer for JavaConsumer {
    fn poll(&mut self, on_record: &mut dyn FnMut(u32, i64, &[u8])) -> Result<u64, String> {
        let mut next = match self.child.hear(POLL) {
            Ok(fields) => Some(fields),
            Err(ClientError::Silent { .. }) => return Ok(0),
            Err(error) => return Err(error.to_string()),
        };
        let mut count = 0;
        while let Some(fields) = next.take() {
            let [kind, queue, offset, value] = fields.as_slice() else { return Err(fields.join(",")) };
            let (Ok(queue), Ok(offset), true) = (queue.parse(), offset.parse(), kind == "r") else {
                return Err(fields.join(","));
            };
            // What is not base64 is not what was sent: an empty value is found to be corrupt.
            on_record(queue, offset, &STANDARD.decode(value).unwrap_or_default());
            count += 1;
            if count < POLL_RECORDS_MAXIMUM {
                next = self.child.heard();
            }
        }
        Ok(count)
    }
}

/// A Java client as a child process; dropping it ends it.
pub(crate) struct JavaClient {
    child: Child,
    input: Option<BufWriter<ChildStdin>>,
    lines: Receiver<String>,
}

impl JavaClient {
    /// Starts `program`, a class of the class path or a source file.
    pub(crate) fn start(class_path: &str, program: &str, arguments: &[String]) -> Result<JavaClient, ClientError> {
        let mut command = Command::new("java");
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-cp", class_path, program]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let failed = |error: std::io::Error| ClientError::Rocketmq(format!("cannot start java: {error}"));
        let mut child = command.spawn().map_err(failed)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = channel();
        let Some(output) = output else { return Err(ClientError::Rocketmq("its output is not piped".to_owned())) };
        let read = move || {
            for line in BufReader::with_capacity(1 << 20, output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("rocketmq-client".to_owned()).spawn(read).map_err(failed)?;
        Ok(JavaClient { child, input: input.map(|input| BufWriter::with_capacity(1 << 16, input)), lines })
    }

    /// The child once it has said that it is ready.
    pub(crate) fn ready(self) -> Result<JavaClient, ClientError> {
        let ready = self.hear(START_PATIENCE)?;
        match ready.first().map(String::as_str) {
            Some("ready") => Ok(self),
            _ => Err(ClientError::Rocketmq(ready.join(","))),
        }
    }

    fn say(&mut self, line: &str) -> Result<(), ClientError> {
        let input = self.input.as_mut().expect("the input is closed only on drop");
        writeln!(input, "{line}").map_err(|error| ClientError::Rocketmq(format!("the Java client has ended: {error}")))
    }

    fn flush(&mut self) -> Result<(), ClientError> {
        let input = self.input.as_mut().expect("the input is closed only on drop");
        input.flush().map_err(|error| ClientError::Rocketmq(format!("the Java client has ended: {error}")))
    }

    /// The next line's fields, waited for.
    pub(crate) fn hear(&self, patience: Duration) -> Result<Vec<String>, ClientError> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(fields(&line)),
            Err(RecvTimeoutError::Timeout) => Err(ClientError::Silent { seconds: patience.as_secs() }),
            Err(RecvTimeoutError::Disconnected) => Err(ClientError::Rocketmq("the Java client has ended".to_owned())),
        }
    }

    /// The next line's fields, if it is there.
    fn heard(&self) -> Option<Vec<String>> {
        self.lines.try_recv().ok().map(|line| fields(&line))
    }
}

impl Drop for JavaClient {
    fn drop(&mut self) {
        drop(self.input.take());
        // Both fail only where the child has ended already, and nothing of it is still needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fields of a line: an array of numbers and of strings without commas or quotes in them.
fn fields(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('[').trim_end_matches(']');
    inner.split(',').map(|field| field.trim_matches('"').to_owned()).collect()
}

const LOAD_CLIENT: &str = "LoadClient";
const POLL: Duration = Duration::from_millis(10);
const POLL_RECORDS_MAXIMUM: u64 = 1_000;
/// The child is a virtual machine that has to start before its first answer.
const START_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_into_its_fields() {
        assert_eq!(fields(r#"["a",3,17,64,1024]"#), ["a", "3", "17", "64", "1024"]);
        assert_eq!(fields(r#"["r",0,5,"bXFhMQ=="]"#), ["r", "0", "5", "bXFhMQ=="]);
        assert_eq!(fields(r#"["ready"]"#), ["ready"]);
    }

    #[test]
    fn a_producer_notes_runs_of_outcomes() {
        let (_, lines) = channel();
        let child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let mut producer = RocketmqProducer {
            child: JavaClient { child, input: None, lines },
            delivered: Arc::new(Mutex::new(Delivered::new(0, 2))),
            clock: RunClock::start(),
        };
        for _ in 0..5 {
            producer.next_sequence(1);
        }
        assert!(!producer.note(&fields(r#"["a",1,0,3,40]"#)).unwrap());
        assert!(!producer.note(&fields(r#"["e",1,3,2,"no room"]"#)).unwrap());
        assert!(producer.note(&fields(r#"["f"]"#)).unwrap());
        assert!(producer.note(&fields(r#"["huh"]"#)).is_err());
        let delivered = lock(&producer.delivered);
        assert_eq!((delivered.ledger.acknowledged(), delivered.ledger.unsettled()), (3, 2));
        assert_eq!((delivered.batched(), delivered.first_error.as_deref()), ((3, 1), Some("no room")));
    }
}
