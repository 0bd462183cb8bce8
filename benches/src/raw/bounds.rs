//! Memory stays bounded while clients misbehave, and another client is unharmed. Three kinds, one after the other: a
//! consumer that asks and never reads, a producer that floods and never reads its answers, connections that do nothing.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqassay_harness::measure::percentile::percentile;
use mqassay_harness::measure::result::TargetPart;
use serde::{Deserialize, Serialize};

use super::admin::TopicAdmin;
use super::fetch::{self, Limits};
use super::idle::Holdings;
use super::lanes::Lanes;
use super::plan::{Linger, RawShape};
use super::session::{one_row, topic_settings};
use super::template::{RequestShape, Slot, Template};
use super::wire::ProducerIdentity;
use crate::session::Session;
use crate::{BenchError, SystemTarget};

/// Clients misbehave for so long each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// For how long each kind misbehaves, seconds.
    pub seconds: f64,
    /// Resident bytes that the broker may have at most.
    pub resident_bytes_allowed: f64,
    /// Connections that do nothing.
    pub idle_connections: u32,
    /// What the other client sends meanwhile, open-loop.
    pub records_per_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NeverReads,
    Floods,
    Idles,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Kind::NeverReads => "a consumer that never reads",
            Kind::Floods => "a producer that floods",
            Kind::Idles => "idle connections",
        }
    }
}

impl Session<'_> {
    /// The three kinds on each system, each beside a client that behaves.
    pub(crate) fn bounds(&mut self, bounds: &Bounds) -> Result<(), BenchError> {
        for index in 0..self.systems.len() {
            for kind in [Kind::NeverReads, Kind::Floods, Kind::Idles] {
                self.misbehave(bounds, kind, index)?;
            }
        }
        Ok(())
    }

    fn misbehave(&mut self, bounds: &Bounds, kind: Kind, index: usize) -> Result<(), BenchError> {
        let target = self.systems[index].clone();
        let name = target.name.clone();
        let failed = |action: &'static str| {
            let system = name.clone();
            move |source| BenchError::Raw { system, action, source }
        };
        let shape = shape_of(bounds, kind);
        let prefix = format!("mqassay-{}-bad-{:016x}", self.plan.name, self.run_number());
        let lanes = Lanes { prefix, queues: 1, connections: 1 };
        let mut admin = TopicAdmin::connect(&target.bootstrap).map_err(failed("connect"))?;
        let mut settings = topic_settings(&target, self.plan.flush);
        settings.insert("retention.bytes".to_owned(), FLOOD_RETAINED_BYTES.to_string());
        settings.insert("segment.bytes".to_owned(), (FLOOD_RETAINED_BYTES / 8).to_string());
        admin.create(&lanes, &settings).map_err(failed("create topics"))?;
        let is_over = AtomicBool::new(false);
        let (block, resident_bytes, outcome) = std::thread::scope(|scope| {
            let bad = scope.spawn(|| {
                let result = play(kind, &target, &lanes, bounds.idle_connections, &is_over);
                // A refusal of what it does is one way to be bounded; what it met is told, not judged.
                result.err().map(|error| error.to_string())
            });
            let watch = scope.spawn(|| highest_resident(target.pid, &is_over));
            let block = self.raw_block(&shape, index, bounds.seconds, 1.0);
            is_over.store(true, Ordering::Relaxed);
            let resident = watch.join().map_err(|_| BenchError::Panicked { what: "watcher" })?;
            let outcome = bad.join().map_err(|_| BenchError::Panicked { what: "misbehaving client" })?;
            Ok::<_, BenchError>((block, resident, outcome))
        })?;
        let (what, shown) = (kind.text(), format!("{name}, {}", kind.text()));
        if let Some(error) = outcome {
            self.remark(format!("{name}: {what} was ended: {error}."));
        }
        self.result.rows.push(one_row(&self.plan.name, &shown, "broker_resident_bytes", resident_bytes));
        let achieved_share = match &block {
            Ok(block) => block.achieved_share,
            Err(error) => {
                self.remark(format!("{name}: beside {what}, another client met: {error}."));
                0.0
            }
        };
        if let Some(p99) = block.ok().and_then(|block| percentile(&block.response, 99.0)) {
            self.result.rows.push(one_row(&self.plan.name, &shown, "end_to_end_p99_ns", p99 as f64));
        }
        let parts = [
            ("allowed over largest resident bytes", bounds.resident_bytes_allowed / resident_bytes.max(1.0), 1.0),
            ("another client's share of its rate", achieved_share, 0.99),
        ];
        for (part, ratio, needs) in parts {
            let (target, part) = (self.plan.name.clone(), format!("{name}, {what}: {part}"));
            self.result.targets.push(TargetPart::exact(target, part, ratio, needs));
        }
        // A broker that has stopped answering cannot be measured any further.
        let deleted = TopicAdmin::connect(&target.bootstrap).and_then(|mut admin| admin.delete(&lanes));
        deleted.map_err(failed("delete topics"))?;
        Ok(())
    }
}

/// The client that behaves.
fn shape_of(bounds: &Bounds, kind: Kind) -> RawShape {
    RawShape {
        name: format!("beside {}", kind.text()),
        connections: 1,
        in_flight: 5,
        records_per_batch: 100,
        batches_per_request: 1,
        queues: Some(1),
        flush: None,
        record_bytes: None,
        records_per_second: Some(bounds.records_per_second),
        linger: Linger::None,
        consumers: 1,
        is_bare: false,
        rounds_maximum: None,
        records_maximum: 100_000_000,
    }
}

/// Misbehaves until it is over.
fn play(kind: Kind, target: &SystemTarget, lanes: &Lanes, idle: u32, is_over: &AtomicBool) -> io::Result<()> {
    match kind {
        Kind::Floods => flood(target, lanes, None, is_over),
        Kind::NeverReads => {
            // Something must be there to be sent.
            flood(target, lanes, Some(FEED_REQUESTS), is_over)?;
            let limits = Limits { wait_ms: 0, queue_bytes: 8 << 20 };
            let request = fetch::request(0, lanes, &[(0, 0)], limits);
            let mut streams = Vec::new();
            for _ in 0..NEVER_READING {
                streams.push(connect(target)?);
            }
            while !is_over.load(Ordering::Relaxed) {
                for stream in &mut streams {
                    send(stream, &request, is_over)?;
                }
            }
            Ok(())
        }
        Kind::Idles => {
            let mut streams = Vec::new();
            for _ in 0..idle {
                streams.push(connect(target)?);
            }
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(WATCH_INTERVAL);
            }
            Ok(())
        }
    }
}

/// Sends produce requests as fast as they are taken, and never reads an answer.
fn flood(target: &SystemTarget, lanes: &Lanes, requests: Option<u32>, is_over: &AtomicBool) -> io::Result<()> {
    let mut stream = connect(target)?;
    let mut template = Template::new(RequestShape {
        topic: lanes.topic(0),
        client: 0,
        run: 1,
        record_bytes: 1_000,
        records: 500,
        batches: 1,
        acks: 1,
        producer: ProducerIdentity::NONE,
        is_bare: false,
        timestamp_ms: 0,
    });
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) && requests.is_none_or(|requests| number < requests) {
        let slot = Slot { partition: 0, queue: 0, sequence_first: u64::from(number) * 500 };
        number += 1;
        send(&mut stream, template.patch(1, &lanes.topic(0), &[slot], 500, (0, 0)), is_over)?;
    }
    Ok(())
}

fn connect(target: &SystemTarget) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(&target.bootstrap)?;
    stream.set_write_timeout(Some(WATCH_INTERVAL))?;
    Ok(stream)
}

/// Writes all of it, however long the broker does not take it, until it is over.
fn send(stream: &mut TcpStream, mut bytes: &[u8], is_over: &AtomicBool) -> io::Result<()> {
    while !bytes.is_empty() && !is_over.load(Ordering::Relaxed) {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The largest resident size that was seen, bytes.
fn highest_resident(pid: Option<u32>, is_over: &AtomicBool) -> f64 {
    let mut highest = 0;
    while !is_over.load(Ordering::Relaxed) {
        let now = pid.and_then(|pid| Holdings::of_process(pid).ok()).map_or(0, |holdings| holdings.resident_bytes);
        highest = highest.max(now);
        std::thread::sleep(WATCH_INTERVAL);
    }
    highest as f64
}

const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Half a megabyte each: enough to be asked for again and again.
const FEED_REQUESTS: u32 = 200;
const NEVER_READING: u32 = 8;
const FLOOD_RETAINED_BYTES: u64 = 1 << 30;
