//! Reading again from points in time: records are sent in phases, and between two phases stands a moment that no record
//! bears. Looking that moment up must give exactly the first record after it, and everything from there must come again.
//! Start at `Session::replay`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mqassay_harness::artifact::VerdictKind;
use serde::{Deserialize, Serialize};

use crate::block;
use crate::driver::{Batching, Driver, LoadConsumer, NewRun};
use crate::payload::{self, PayloadWriter, Stamp};
use crate::plan::{LoadPlan, is_duration};
use crate::raw::session::rows_of;
use crate::session::Session;
use crate::verify::Verification;
use crate::{BenchError, SystemTarget, assemble, driver};

/// Phases of records, and reading again from between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Phases; there is a moment to go back to between each two.
    pub phases: u32,
    /// Records of a phase.
    pub phase_records: u64,
    /// How long a phase may take, seconds; it ends early then.
    pub phase_seconds: f64,
    /// Blocks per system.
    pub pairs: u32,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
}

impl Replay {
    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self, plan: &LoadPlan) -> Option<&'static str> {
        let checks = [
            ((2..=100).contains(&self.phases), "replay.phases is not in 2..=100"),
            ((1..=100_000_000).contains(&self.phase_records), "replay.phase_records is not in 1..=100000000"),
            (is_duration(self.phase_seconds), "replay.phase_seconds is not in 0.1..=600"),
            ((1..=1_000).contains(&self.pairs), "replay.pairs is not in 1..=1000"),
            (plan.producers == 1, "replay goes with producers = 1 only"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }
}

/// What one block found.
#[derive(Debug, Default)]
struct ReplayBlock {
    lookup_ns: Vec<f64>,
    records_per_second: Vec<f64>,
    wrong_lookups: u64,
    corrupt: u64,
    skipped: u64,
    read_again: u64,
    unread: Option<String>,
}

impl ReplayBlock {
    fn verification(&self) -> Verification {
        let counts = [
            ("wrong-offset-lookup", self.wrong_lookups),
            ("corrupt-payload", self.corrupt),
            ("poll-skip", self.skipped),
        ];
        let anomalies: std::collections::BTreeMap<_, _> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        let verdict = match (anomalies.is_empty(), &self.unread) {
            (false, _) => VerdictKind::Invalid,
            (true, Some(_)) => VerdictKind::Unknown,
            (true, None) => VerdictKind::Valid,
        };
        Verification { verdict, verified: self.read_again, anomalies, unknown: self.unread.clone() }
    }
}

impl Session<'_> {
    /// The blocks of every system in turn.
    pub(crate) fn replay(&mut self, load: &Replay) {
        let mut found: Vec<[Vec<f64>; 2]> = vec![Default::default(); self.systems.len()];
        for pair in 0..load.pairs {
            for index in assemble::order(pair, self.systems.len()) {
                let topic = self.topic_on(&self.systems[index], self.plan.queues);
                let block = self.guarded(index, "replay", |target, plan, driver| {
                    block::on_topic(plan, driver, &topic, || measure(target, plan, driver, &topic, load))
                });
                let Some(block) = block else { continue };
                self.note(index, &block.verification(), 0, None);
                found[index][0].extend(&block.lookup_ns);
                found[index][1].extend(&block.records_per_second);
            }
        }
        for (index, values) in found.iter().enumerate() {
            let name = self.systems[index].name.clone();
            for (metric, values) in ["timestamp_lookup_ns", "replay_records_per_second"].iter().zip(values) {
                self.result.rows.extend(rows_of(&self.plan.name, &name, metric, values));
            }
        }
    }
}

fn measure(
    target: &SystemTarget,
    plan: &LoadPlan,
    driver: &dyn Driver,
    topic: &NewRun,
    load: &Replay,
) -> Result<ReplayBlock, BenchError> {
    let batch_records = block::BATCH_RECORDS_MAXIMUM;
    let batching =
        Batching { linger_ms: load.linger_ms, batch_bytes: load.batch_bytes, batch_records, is_open_loop: true };
    let failed = || driver::client_error(target, "produce");
    let mut producer = driver.producer(plan, topic, batching, 0)?;
    let mut writer = PayloadWriter::with_entropy(topic.run, plan.record_bytes, plan.entropy_percent);
    let mut moments: Vec<(i64, Vec<i64>)> = Vec::new();
    let mut ends = vec![0; topic.queues as usize];
    for phase in 0..load.phases {
        if phase > 0 {
            // Timestamps are whole milliseconds: a moment of which no record is has one before and one after it.
            std::thread::sleep(BETWEEN);
            moments.push((wall_ms(), ends.clone()));
            std::thread::sleep(BETWEEN);
        }
        let deadline = Instant::now() + Duration::from_secs_f64(load.phase_seconds);
        for index in 0..load.phase_records {
            if index % SERVED_EVERY == 0 {
                if Instant::now() > deadline {
                    break;
                }
                producer.serve();
            }
            let queue = (index % u64::from(topic.queues)) as u32;
            let (sequence, now_ns) = (producer.next_sequence(queue), topic.clock.now_ns());
            let stamp = Stamp { client: 0, queue, sequence, intended_ns: now_ns, sent_ns: now_ns };
            producer.send(queue, sequence, writer.write(stamp)).map_err(failed())?;
            ends[queue as usize] += 1;
        }
        producer.settle().map_err(failed())?;
    }
    let delivered = producer.finish().map_err(failed())?;
    let last = driver.end_offsets(topic, std::slice::from_ref(&delivered))?;
    let mut block = ReplayBlock::default();
    for (moment, expected) in &moments {
        let asked = Instant::now();
        let offsets = driver.offsets_at(topic, *moment)?;
        block.lookup_ns.push(asked.elapsed().as_nanos() as f64 / f64::from(topic.queues));
        block.wrong_lookups +=
            offsets.iter().zip(expected).filter(|(found, expected)| found != expected).count() as u64;
        let mut consumer = driver.consumer_from(plan, topic, &offsets)?;
        read_again(consumer.as_mut(), plan, topic, &offsets, &last, &mut block);
    }
    Ok(block)
}

/// Reads from `offsets` to `ends`, and checks that every record is there and whole.
fn read_again(
    consumer: &mut dyn LoadConsumer,
    plan: &LoadPlan,
    topic: &NewRun,
    offsets: &[i64],
    ends: &[i64],
    block: &mut ReplayBlock,
) {
    let mut next = offsets.to_vec();
    let (mut count, mut first, mut last) = (0_u64, None, Instant::now());
    let began = Instant::now();
    while next.iter().zip(ends).any(|(next, end)| next < end) {
        let polled = consumer.poll(&mut |queue, offset, value| {
            let place = &mut next[queue as usize];
            block.skipped += u64::from(offset != *place);
            *place = offset + 1;
            // A queue's offsets are its sequence numbers here: one producer sends, and nothing else does.
            let stamp = payload::read(topic.run, plan.record_bytes, value);
            let is_whole = stamp.is_some_and(|stamp| stamp.queue == queue && stamp.sequence as i64 == offset);
            block.corrupt += u64::from(!is_whole);
            count += 1;
        });
        match polled {
            Ok(0) => {}
            Ok(_) => {
                last = Instant::now();
                first.get_or_insert((last, count));
            }
            Err(error) if last.elapsed() > driver::PATIENCE => {
                block.unread = Some(format!("the consumer meets: {error}"));
                return;
            }
            Err(_) => {}
        }
        if last.max(began).elapsed() > driver::PATIENCE {
            block.unread = Some("the consumer saw nothing more before the end offsets".to_owned());
            return;
        }
    }
    block.read_again += count;
    if let Some((first_at, first_count)) = first
        && last > first_at
    {
        block.records_per_second.push((count - first_count) as f64 / (last - first_at).as_secs_f64());
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

const BETWEEN: Duration = Duration::from_millis(20);
const SERVED_EVERY: u64 = 256;
