//! A backlog and how it is worked off: producers send at a steady rate, the consumer comes later, and reads what has piled
//! up while more arrives. Start at `Session::drain`. Not here: why a backlog of a consumer group grows (`backlog`).

use std::cell::OnceCell;
use std::sync::OnceLock;

use mqassay_harness::measure::result::{Sweep, SweepPoint};
use mqassay_harness::measure::statistics::median_interval;
use serde::{Deserialize, Serialize};

use crate::block::{self, OpenLoop};
use crate::driver::{self, Delivered, Driver, LoadProducer, NewRun};
use crate::plan::{LoadPlan, Rate, is_duration};
use crate::raw::session::rows_of;
use crate::session::Session;
use crate::verify::{self, Reader, Verification};
use crate::{BenchError, SystemTarget, assemble};

/// A backlog and its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Rate of all producers together.
    pub records_per_second: u64,
    /// For how long they send before the consumer comes, seconds.
    pub backlog_seconds: f64,
    /// For how long they go on after it came, seconds; a backlog that is not worked off by then is drained without load.
    pub seconds: f64,
    /// A backlog is worked off when a record is read so soon after it was due, milliseconds.
    pub young_ms: f64,
    /// Width of the curve's points, seconds.
    pub window_seconds: f64,
    /// Blocks per system.
    pub pairs: u32,
    /// How long a producer waits for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// Largest batch, bytes.
    pub batch_bytes: u32,
}

impl Drain {
    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self) -> Option<&'static str> {
        let checks = [
            ((1..=10_000_000).contains(&self.records_per_second), "drain.records_per_second is not in 1..=10000000"),
            (is_duration(self.backlog_seconds), "drain.backlog_seconds is not in 0.1..=600"),
            (is_duration(self.seconds), "drain.seconds is not in 0.1..=600"),
            (self.young_ms > 0.0, "drain.young_ms is not above 0"),
            (
                (0.01..=self.seconds).contains(&self.window_seconds),
                "drain.window_seconds is not in 0.01..=drain.seconds",
            ),
            ((1..=1_000).contains(&self.pairs), "drain.pairs is not in 1..=1000"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }

    fn open_loop(&self) -> OpenLoop {
        let Drain { records_per_second, linger_ms, batch_bytes, pairs, .. } = *self;
        let block_seconds = self.backlog_seconds + self.seconds;
        Rate { records_per_second, block_seconds, lead_in_seconds: 0.0, pairs, linger_ms, batch_bytes }.into()
    }
}

/// What one block found.
#[derive(Debug)]
struct DrainBlock {
    /// From the consumer's first poll to the first record that was read soon enough; none where none was.
    drain_seconds: Option<f64>,
    course: Course,
    unsettled: u64,
    first_error: Option<String>,
    verification: Verification,
}

/// Records waiting, over the time since the consumer came.
#[derive(Debug, Clone)]
struct Course {
    began_ns: u64,
    window_ns: u64,
    young_ns: u64,
    consumed: Vec<u64>,
    young_after_ns: Option<u64>,
}

impl Course {
    fn new(began_ns: u64, load: &Drain) -> Course {
        let windows = (load.seconds / load.window_seconds).ceil() as usize;
        let window_ns = block::nanoseconds(load.window_seconds).max(1);
        let young_ns = (load.young_ms * 1e6) as u64;
        Course { began_ns, window_ns, young_ns, consumed: vec![0; windows], young_after_ns: None }
    }

    fn note(&mut self, intended_ns: u64, polled_ns: u64) {
        let after_ns = polled_ns.saturating_sub(self.began_ns);
        if let Some(window) = self.consumed.get_mut((after_ns / self.window_ns) as usize) {
            *window += 1;
        }
        if polled_ns.saturating_sub(intended_ns) <= self.young_ns {
            self.young_after_ns.get_or_insert(after_ns);
        }
    }

    /// At each window's end, seconds since the consumer came, the records due and not consumed.
    fn waiting(&self, start_ns: u64, records_per_second: u64) -> Vec<(f64, f64)> {
        let mut consumed = 0;
        let mut points = Vec::new();
        for (number, window) in (1..).zip(&self.consumed) {
            consumed += window;
            let after_ns = number * self.window_ns;
            let due = (self.began_ns + after_ns - start_ns) as f64 / 1e9 * records_per_second as f64;
            points.push((after_ns as f64 / 1e9, (due - consumed as f64).max(0.0)));
        }
        points
    }
}

impl Session<'_> {
    /// The blocks of every system in turn; the time to drain as a row, the curves' medians as sweeps.
    pub(crate) fn drain(&mut self, load: &Drain) {
        let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); self.systems.len()];
        let mut curves: Vec<Vec<Vec<(f64, f64)>>> = vec![Vec::new(); self.systems.len()];
        for pair in 0..load.pairs {
            for index in assemble::order(pair, self.systems.len()) {
                let topic = self.topic_on(&self.systems[index], self.plan.queues);
                let mut start_ns = 0;
                let block = self.guarded(index, "drain", |target, plan, driver| {
                    let measure = || measure(target, plan, driver, &topic, load, &mut start_ns);
                    block::on_topic(plan, driver, &topic, measure)
                });
                let Some(block) = block else { continue };
                self.note(index, &block.verification, block.unsettled, block.first_error.as_deref());
                if block.drain_seconds.is_none() {
                    let name = self.systems[index].name.clone();
                    self.remark(format!("{name}: a backlog was not worked off while the load went on."));
                }
                seconds[index].extend(block.drain_seconds);
                curves[index].push(block.course.waiting(start_ns, load.records_per_second));
            }
        }
        for (index, (seconds, curves)) in seconds.iter().zip(&curves).enumerate() {
            let name = self.systems[index].name.clone();
            self.result.rows.extend(rows_of(&self.plan.name, &name, "drain_seconds", seconds));
            let points = median_curve(curves);
            if !points.is_empty() {
                self.result.sweeps.push(Sweep {
                    system: name,
                    variable: "seconds after the consumer came".to_owned(),
                    metric: "records_waiting".to_owned(),
                    unit: "records".to_owned(),
                    points,
                    stopped: None,
                });
            }
        }
    }
}

fn median_curve(curves: &[Vec<(f64, f64)>]) -> Vec<SweepPoint> {
    let Some(first) = curves.first() else { return Vec::new() };
    let at = |place: usize| {
        let values: Vec<f64> = curves.iter().filter_map(|curve| Some(curve.get(place)?.1)).collect();
        let interval = median_interval(&values, place as u64)?;
        let x = first[place].0;
        Some(SweepPoint { x, value: interval.value, low: interval.low, high: interval.high, records_per_batch: None })
    };
    (0..first.len()).filter_map(at).collect()
}

/// One block. Producers send on threads of their own; this one consumes, and asks for the ends when they are done.
fn measure(
    target: &SystemTarget,
    plan: &LoadPlan,
    driver: &dyn Driver,
    topic: &NewRun,
    load: &Drain,
    start_ns: &mut u64,
) -> Result<DrainBlock, BenchError> {
    let open_loop = load.open_loop();
    let producers = block::connect_producers(driver, plan, topic, open_loop.batching)?;
    let begin_ns = topic.clock.now_ns();
    *start_ns = begin_ns;
    let sent: OnceLock<Result<Vec<Delivered>, BenchError>> = OnceLock::new();
    let ends: OnceCell<Result<Vec<i64>, BenchError>> = OnceCell::new();
    let mut reader = Reader::new(topic.run, plan.record_bytes, topic.queues, plan.producers);
    let send = |producer: Box<dyn LoadProducer>, client: u32| {
        block::send_on_schedule(producer, client, plan, topic, open_loop, begin_ns)
    };
    let (course, unread) = std::thread::scope(|scope| {
        let (sent, send) = (&sent, &send);
        let sending = move || {
            let _ = sent.set(block::on_threads(target, producers, send));
        };
        let sending = std::thread::Builder::new().name("producers".to_owned()).spawn_scoped(scope, sending);
        sending.map_err(|source| BenchError::Io { action: "start the producers' thread", source })?;
        std::thread::sleep(std::time::Duration::from_secs_f64(load.backlog_seconds));
        let mut consumer = driver.consumer(plan, topic)?;
        let mut course = Course::new(topic.clock.now_ns(), load);
        let known = || {
            let delivered = sent.get()?.as_ref();
            let asked = ends.get_or_init(|| {
                delivered.map_or(Ok(vec![0; topic.queues as usize]), |delivered| driver.end_offsets(topic, delivered))
            });
            Some(asked.as_ref().map_or_else(|_| vec![0; topic.queues as usize], Clone::clone))
        };
        let mut note = |stamp: crate::payload::Stamp| course.note(stamp.intended_ns, topic.clock.now_ns());
        let unread = driver::consume(consumer.as_mut(), &mut reader, &known, &mut note);
        Ok::<_, BenchError>((course, unread))
    })?;
    let delivered = sent.into_inner().ok_or(BenchError::Panicked { what: "producer" })??;
    let ends = ends.into_inner().unwrap_or_else(|| driver.end_offsets(topic, &delivered))?;
    let (unsettled, first_error) = block::failures(&delivered);
    let ledgers: Vec<_> = delivered.into_iter().map(|delivered| delivered.ledger).collect();
    let verification = verify::judge(&ledgers, &reader, &ends, unread);
    let drain_seconds = course.young_after_ns.map(|after_ns| after_ns as f64 / 1e9);
    Ok(DrainBlock { drain_seconds, course, unsettled, first_error, verification })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_course_is_what_is_due_and_not_consumed_and_ends_with_the_first_young_record() {
        let load = LoadPlan::named("drain").unwrap().drain.unwrap();
        let load = Drain { seconds: 4.0, window_seconds: 1.0, young_ms: 100.0, records_per_second: 10, ..load };
        // The consumer comes 5 s after the start, with 50 records due, and reads 20 a second.
        let mut course = Course::new(15 * S, &load);
        for index in 0..80_u64 {
            course.note(10 * S + index * S / 10, 15 * S + index * S / 20);
        }
        let waiting: Vec<f64> = course.waiting(10 * S, 10).iter().map(|point| point.1).collect();
        assert_eq!(waiting, [40.0, 30.0, 20.0, 10.0]);
        assert_eq!(course.young_after_ns, None);
        course.note(20 * S - S / 20, 20 * S);
        assert_eq!(course.young_after_ns, Some(5 * S));
    }

    #[test]
    fn curves_are_merged_point_by_point() {
        let points = median_curve(&[vec![(1.0, 4.0), (2.0, 1.0)], vec![(1.0, 6.0), (2.0, 1.0)]]);
        assert_eq!(points.iter().map(|point| (point.x, point.value)).collect::<Vec<_>>(), [(1.0, 5.0), (2.0, 1.0)]);
        assert!(median_curve(&[]).is_empty());
    }
}
