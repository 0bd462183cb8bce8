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
    producers: Idle,
    consumers: Idle,
}

/// Children between two blocks. They are used again, because a virtual machine that starts with each block is slower than
/// the broker, and would be measured in its place.
type Idle = Arc<Mutex<Vec<JavaClient>>>;

impl RocketmqDriver {
    pub(crate) fn connect(target: &SystemTarget, class_path: &str) -> Result<RocketmqDriver, BenchError> {
        let arguments = ["admin".to_owned(), target.bootstrap.clone()];
        let admin = JavaClient::start(class_path, LOAD_CLIENT, &arguments)
            .map_err(client_error(target, "start the Java client"))?;
        let (target, class_path, admin) = (target.clone(), class_path.to_owned(), Mutex::new(admin));
        Ok(RocketmqDriver { target, class_path, admin, producers: Idle::default(), consumers: Idle::default() })
    }

    /// Says one line to the admin child and gives the fields of its answer after the first.
    fn ask(&self, line: &str, action: &'static str) -> Result<Vec<String>, BenchError> {
        let mut admin = lock(&self.admin);
        let answer = admin.say(line).and_then(|()| admin.flush()).and_then(|()| admin.hear(START_PATIENCE));
        let answer = answer.map_err(client_error(&self.target, action))?;
        match answer.split_first() {
            Some((kind, rest)) if kind != "error" => Ok(rest.to_vec()),
            _ => Err(client_error(&self.target, action)(ClientError::Rocketmq(answer[1..].join(",")))),
        }
    }

    /// An idle child, or a new one, once it has opened a topic.
    fn child(&self, idle: &Idle, role: &str, open: &str, action: &'static str) -> Result<JavaClient, BenchError> {
        let opened = |mut child: JavaClient| {
            child.say(open)?;
            child.flush()?;
            child.ready()
        };
        // One that has died meanwhile is let go.
        let kept = lock(idle).pop();
        if let Some(Ok(child)) = kept.map(opened) {
            return Ok(child);
        }
        let arguments = [role.to_owned(), self.target.bootstrap.clone()];
        let started = JavaClient::start(&self.class_path, LOAD_CLIENT, &arguments).and_then(opened);
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
        let Batching { batch_records, batch_bytes, linger_ms, .. } = batching;
        let open = format!("[\"open\",\"{}\",{batch_records},{batch_bytes},{linger_ms}]", topic.name);
        let child = self.child(&self.producers, "produce", &open, "create a producer")?;
        let delivered = Arc::new(Mutex::new(Delivered::of(client, topic)));
        let idle = Arc::clone(&self.producers);
        let producer = RocketmqProducer { child, delivered, clock: topic.clock, idle };
        Ok(Box::new(producer))
    }

    fn consumer(&self, _plan: &LoadPlan, topic: &NewRun) -> Result<Box<dyn LoadConsumer>, BenchError> {
        let open = format!("[\"open\",\"{}\",{}]", topic.name, topic.queues);
        let child = self.child(&self.consumers, "consume", &open, "create a consumer")?;
        let idle = Arc::clone(&self.consumers);
        Ok(Box::new(RocketmqConsumer { consumer: Some(JavaConsumer { child }), idle }))
    }

    fn library(&self) -> String {
        format!("rocketmq-client (Java) {}", self.target.version)
    }
}

struct RocketmqProducer {
    child: JavaClient,
    delivered: Arc<Mutex<Delivered>>,
    clock: RunClock,
    idle: Idle,
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
        let RocketmqProducer { child, delivered, idle, .. } = *self;
        lock(&idle).push(child);
        let delivered = Arc::into_inner(delivered).expect("nobody else holds it");
        Ok(delivered.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// RocketMQ's consumer; dropped, its child is idle again.
struct RocketmqConsumer {
    consumer: Option<JavaConsumer>,
    idle: Idle,
}

impl LoadConsumer for RocketmqConsumer {
    fn poll(&mut self, on_record: &mut dyn FnMut(u32, i64, &[u8])) -> Result<u64, String> {
        self.consumer.as_mut().expect("it is taken only on drop").poll(on_record)
    }
}

impl Drop for RocketmqConsumer {
    fn drop(&mut self) {
        let Some(JavaConsumer { mut child }) = self.consumer.take() else { return };
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let mut told = child.say("[\"close\"]").and_then(|()| child.flush()).map(|()| Vec::new());
        // What it read ahead comes first.
        while told.as_ref().is_ok_and(|fields| fields.first().is_none_or(|kind| kind == "r")) {
            told = child.hear(deadline.saturating_duration_since(Instant::now()));
        }
        // One that does not answer is ended with this.
        if told.is_ok_and(|fields| fields == ["closed"]) {
            lock(&self.idle).push(child);
        }
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
        command.args(arguments);
        JavaClient::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<JavaClient, ClientError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
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
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
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

    /// Goal: a consumer's child serves the next block where it has closed the last one's topic, and no other time.
    #[test]
    fn a_consumer_that_has_closed_is_idle_again() {
        let idle_after = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let idle = Idle::default();
            let consumer = Some(JavaConsumer { child: JavaClient::spawn(command).unwrap() });
            drop(RocketmqConsumer { consumer, idle: Arc::clone(&idle) });
            lock(&idle).len()
        };
        assert_eq!(idle_after(r#"read close; echo '["r",0,5,"bXFh"]'; echo '["closed"]'; read more"#), 1);
        assert_eq!(idle_after(r#"read close; echo '["error","it broke"]'; read more"#), 0);
        assert_eq!(idle_after("exit"), 0);
    }

    #[test]
    fn a_producer_notes_runs_of_outcomes() {
        let (_, lines) = channel();
        let child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let mut producer = RocketmqProducer {
            child: JavaClient { child, input: None, lines },
            delivered: Arc::new(Mutex::new(Delivered::new(0, 2))),
            clock: RunClock::start(),
            idle: Idle::default(),
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
