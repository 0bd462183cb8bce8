//! Consumers of one queue compete: each message goes to one of them. Tried where a queue is a queue, on RabbitMQ, and in a
//! share group of Kafka, whose members run as children over Kafka's own Java client: librdkafka has none yet.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::block::{self, BATCH_RECORDS_MAXIMUM};
use crate::driver::{self, Batching, LoadConsumer, NewRun, client_error};
use crate::features::java::{SHARE, written};
use crate::payload::{self, PayloadWriter, Stamp};
use crate::plan::LoadPlan;
use crate::prepare::java_class_path;
use crate::rocketmq::{JavaClient, JavaConsumer};
use crate::{BenchError, Protocol, SystemTarget};

/// What the consumers got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// Messages acknowledged to the producer.
    pub sent: u64,
    /// Messages that no consumer got.
    pub lost: u64,
    /// Deliveries too many.
    pub repeated: u64,
    /// Consumers that got a tenth of an equal share or more.
    pub busy: u32,
}

/// Produces into one queue while so many consumers read from it.
pub fn run(target: &SystemTarget, consumers: u32) -> Result<Shared, BenchError> {
    let plan = LoadPlan { name: "compete".to_owned(), record_bytes: RECORD_BYTES, ..LoadPlan::empty() };
    let driver = driver::connect(target)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let topic = block::new_run(&plan, target, 0, now.as_nanos() as u64, 1);
    let member = matches!(target.protocol, Protocol::Kafka).then(|| written(SHARE)).transpose()?;
    let competitor = || match &member {
        Some((source, _folder)) => in_share_group(target, &topic, source),
        None => driver.consumer(&plan, &topic),
    };
    block::on_topic(&plan, driver.as_ref(), &topic, || {
        let readers: Result<Vec<_>, BenchError> = (0..consumers).map(|_| competitor()).collect();
        let batching =
            Batching { linger_ms: 0, batch_bytes: 65_536, batch_records: BATCH_RECORDS_MAXIMUM, is_open_loop: true };
        let mut producer = driver.producer(&plan, &topic, batching, 0)?;
        let seen: Mutex<Vec<u32>> = Mutex::new(vec![0; MESSAGES as usize]);
        let (deliveries, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let (sent, shares) = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for reader in readers? {
                let run = || read(reader, &topic, &seen, &deliveries, &over);
                let thread = std::thread::Builder::new().name("consumer".to_owned()).spawn_scoped(scope, run);
                threads.push(thread.map_err(|source| BenchError::Io { action: "start a consumer's thread", source })?);
            }
            let mut writer = PayloadWriter::new(topic.run, RECORD_BYTES);
            let mut send = || {
                for _ in 0..MESSAGES {
                    let (sequence, now_ns) = (producer.next_sequence(0), topic.clock.now_ns());
                    let stamp = Stamp { client: 0, queue: 0, sequence, intended_ns: now_ns, sent_ns: now_ns };
                    producer.send(0, sequence, writer.write(stamp))?;
                }
                producer.settle()
            };
            let sent = send().map_err(client_error(target, "produce"));
            wait_for(&deliveries, *sent.as_ref().unwrap_or(&0));
            over.store(true, Ordering::SeqCst);
            let shares: Result<Vec<u64>, BenchError> = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| BenchError::Panicked { what: "consumer" }))
                .collect();
            Ok::<_, BenchError>((sent?, shares?))
        })?;
        let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let tenth = sent / u64::from(consumers) / 10;
        Ok(Shared {
            sent,
            lost: seen.iter().filter(|count| **count == 0).count() as u64 - (MESSAGES - sent),
            repeated: seen.iter().map(|count| u64::from(count.saturating_sub(1))).sum(),
            busy: shares.iter().filter(|share| **share >= tenth.max(1)).count() as u32,
        })
    })
}

/// A member of the topic's share group; `member` is its source.
fn in_share_group(target: &SystemTarget, topic: &NewRun, member: &Path) -> Result<Box<dyn LoadConsumer>, BenchError> {
    let what = "share groups, for which the class path of its Java client must be known";
    let unknown = || BenchError::Unsupported { library: target.name.clone(), what };
    let class_path = java_class_path(target).ok_or_else(unknown)?;
    let arguments = ["consume", &target.bootstrap, &topic.name, &topic.name].map(str::to_owned);
    let child = JavaClient::start(&class_path, &member.display().to_string(), &arguments).and_then(JavaClient::ready);
    Ok(Box::new(JavaConsumer { child: child.map_err(client_error(target, "join a share group"))? }))
}

/// Until as many deliveries were made, or none came for a while.
fn wait_for(deliveries: &AtomicU64, sent: u64) {
    let (mut last, mut since) = (0, Instant::now());
    while last < sent && since.elapsed() < IDLE {
        let now = deliveries.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // One more poll of each, so that a second delivery has its chance to come.
    std::thread::sleep(Duration::from_millis(500));
}

fn read(
    mut consumer: Box<dyn LoadConsumer>,
    topic: &NewRun,
    seen: &Mutex<Vec<u32>>,
    deliveries: &AtomicU64,
    over: &AtomicBool,
) -> u64 {
    let mut share = 0;
    while !over.load(Ordering::SeqCst) {
        let polled = consumer.poll(&mut |_, _, bytes| {
            let Some(stamp) = payload::read(topic.run, RECORD_BYTES, bytes) else { return };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = seen.get_mut(stamp.sequence as usize) {
                *count += 1;
            }
            share += 1;
            deliveries.fetch_add(1, Ordering::SeqCst);
        });
        if let Err(error) = polled {
            tracing::info!("a poll failed: {error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    share
}

const RECORD_BYTES: usize = 128;
const MESSAGES: u64 = 20_000;
const IDLE: Duration = Duration::from_secs(10);
