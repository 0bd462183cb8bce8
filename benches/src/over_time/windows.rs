//! What happened when: counts and latencies in windows of equal width, shared by all producers and consumers of a load.
//! Events before the load's start or behind its end are left out of the windows; the verdict has them all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hdrhistogram::Histogram;
use mqassay_harness::measure::percentile::{latencies, latency_histogram};
use mqassay_harness::measure::result::SeriesPoint;

use crate::assemble::Sample;
use crate::block::nanoseconds;
use crate::driver::RunClock;
use crate::payload::Stamp;

/// The windows of one load; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    clock: RunClock,
    /// Windows of the warm-up and of a backlog's building end at their own border, so that none belongs to two phases.
    before: usize,
    measured_from_ns: u64,
    end_ns: u64,
    width_ns: u64,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start_ns: OnceLock<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    windows: Vec<Window>,
    /// Over what is counted: acknowledgement, lag, end to end.
    totals: [Histogram<u64>; 3],
    totals_from_ns: u64,
}

#[derive(Debug, Default)]
struct Window {
    acknowledged: u64,
    failed: u64,
    consumed: u64,
    /// Made when the first sample comes: most of a long load's windows are not there yet.
    latencies: [Option<Histogram<u64>>; 3],
}

/// Which clock an event's latency is of, as an index.
#[derive(Debug, Clone, Copy)]
enum Timed {
    Acknowledge = 0,
    Lag = 1,
    EndToEnd = 2,
}

impl Windows {
    /// Windows from the load's start to `end_seconds`, of which those from `measured_seconds` on begin a new row.
    pub(crate) fn new(clock: RunClock, measured_seconds: f64, end_seconds: f64, width_seconds: f64) -> Windows {
        let before = (measured_seconds / width_seconds).ceil() as usize;
        let after = ((end_seconds - measured_seconds) / width_seconds).ceil() as usize;
        let windows = (0..before + after).map(|_| Window::default()).collect();
        let totals = std::array::from_fn(|_| latency_histogram());
        let state = State { windows, totals, totals_from_ns: nanoseconds(measured_seconds) };
        Windows {
            clock,
            before,
            measured_from_ns: nanoseconds(measured_seconds),
            end_ns: nanoseconds(end_seconds),
            width_ns: nanoseconds(width_seconds),
            shared: Arc::new(Shared { start_ns: OnceLock::new(), state: Mutex::new(state) }),
        }
    }

    /// The clock that all of the load's times are read from.
    pub(crate) fn clock(&self) -> RunClock {
        self.clock
    }

    /// The load starts now; totals count from `totals_seconds` on.
    pub(crate) fn start(&self, start_ns: u64, totals_seconds: f64) {
        self.lock().totals_from_ns = nanoseconds(totals_seconds);
        self.shared.start_ns.get_or_init(|| start_ns);
    }

    /// A record was handed over.
    pub(crate) fn sent(&self, intended_ns: u64, now_ns: u64) {
        self.add(now_ns, |_| {}, Some((Timed::Lag, now_ns.saturating_sub(intended_ns))));
    }

    fn acknowledged(&self, sent_ns: u64) {
        let now_ns = self.clock.now_ns();
        let latency = Some((Timed::Acknowledge, now_ns.saturating_sub(sent_ns)));
        self.add(now_ns, |window| window.acknowledged += 1, latency);
    }

    fn failed(&self) {
        self.add(self.clock.now_ns(), |window| window.failed += 1, None);
    }

    /// A record was read.
    pub(crate) fn consumed(&self, stamp: Stamp, now_ns: u64) {
        let latency = Some((Timed::EndToEnd, now_ns.saturating_sub(stamp.intended_ns)));
        self.add(now_ns, |window| window.consumed += 1, latency);
    }

    /// The windows as they are told; each subscription is to read every acknowledged record.
    pub(crate) fn points(&self, subscriptions: u32) -> Vec<SeriesPoint> {
        let state = self.lock();
        let seconds = |ns: u64| ns as f64 / 1e9;
        let mut waiting: i64 = 0;
        let mut points = Vec::with_capacity(state.windows.len());
        for (index, window) in state.windows.iter().enumerate() {
            let from_ns = match index.checked_sub(self.before) {
                None => index as u64 * self.width_ns,
                Some(after) => self.measured_from_ns + after as u64 * self.width_ns,
            };
            // The warm-up's last window and the very last may be cut off.
            let border_ns = if index < self.before { self.measured_from_ns } else { self.end_ns };
            let width = seconds(self.width_ns.min(border_ns - from_ns));
            waiting += window.acknowledged as i64 * i64::from(subscriptions) - window.consumed as i64;
            let summary = |timed: Timed| window.latencies[timed as usize].as_ref().and_then(latencies);
            points.push(SeriesPoint {
                seconds: seconds(from_ns),
                acknowledged_per_second: window.acknowledged as f64 / width,
                failed_per_second: window.failed as f64 / width,
                consumed_per_second: window.consumed as f64 / width,
                // A record may be read before its acknowledgement has come.
                waiting: waiting.max(0) as u64,
                acknowledge: summary(Timed::Acknowledge),
                lag: summary(Timed::Lag),
                end_to_end: summary(Timed::EndToEnd),
            });
        }
        points
    }

    /// What was timed over all that counts, by name.
    pub(crate) fn totals(&self) -> [(&'static str, Histogram<u64>); 3] {
        let totals = &self.lock().totals;
        let [acknowledge, lag, end_to_end] = std::array::from_fn(|index| totals[index].clone());
        [("acknowledgement", acknowledge), ("schedule lag", lag), ("end to end", end_to_end)]
    }

    fn add(&self, now_ns: u64, count: impl FnOnce(&mut Window), latency: Option<(Timed, u64)>) {
        let Some(start_ns) = self.shared.start_ns.get() else { return };
        let Some(since_ns) = now_ns.checked_sub(*start_ns) else { return };
        let index = match since_ns.checked_sub(self.measured_from_ns) {
            None => (since_ns / self.width_ns) as usize,
            Some(after_ns) => self.before + (after_ns / self.width_ns) as usize,
        };
        let mut state = self.lock();
        let counts = since_ns >= state.totals_from_ns;
        let State { windows, totals, .. } = &mut *state;
        let Some(window) = windows.get_mut(index) else { return };
        count(window);
        if let Some((timed, latency_ns)) = latency {
            let histogram = window.latencies[timed as usize].get_or_insert_with(latency_histogram);
            histogram.saturating_record(latency_ns.max(1));
            if counts {
                totals[timed as usize].saturating_record(latency_ns.max(1));
            }
        }
    }

    /// A poisoned lock only means that another thread's panic is on its way; its counts are still counts.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The figures of one window, by metric.
pub(crate) fn sample(point: &SeriesPoint) -> Sample {
    let mut sample = Sample::from([
        ("acknowledged_records_per_second", point.acknowledged_per_second),
        ("end_to_end_records_per_second", point.consumed_per_second),
    ]);
    let mut put = |metric, value: Option<f64>| {
        if let Some(value) = value {
            sample.insert(metric, value);
        }
    };
    let at = |one: &Option<mqassay_harness::measure::result::Latencies>, index: usize| {
        one.and_then(|one| one.percentiles_ns[index]).map(|value| value as f64)
    };
    put("acknowledge_p50_ns", at(&point.acknowledge, 0));
    put("acknowledge_p99_ns", at(&point.acknowledge, 3));
    put("end_to_end_p50_ns", at(&point.end_to_end, 0));
    put("end_to_end_p99_ns", at(&point.end_to_end, 3));
    put("end_to_end_p999_ns", at(&point.end_to_end, 4));
    put("end_to_end_max_ns", point.end_to_end.map(|one| one.max_ns as f64));
    put("schedule_lag_p99_ns", at(&point.lag, 3));
    sample
}

/// When each record of one producer was handed over, until its outcome is there.
#[derive(Debug)]
pub(crate) struct AckTimes {
    windows: Windows,
    waiting: Vec<VecDeque<(u64, u64)>>,
}

impl AckTimes {
    pub(crate) fn new(windows: Windows, queues: u32) -> AckTimes {
        AckTimes { windows, waiting: vec![VecDeque::new(); queues as usize] }
    }

    pub(crate) fn sent(&mut self, queue: u32, sequence: u64) {
        let now_ns = self.windows.clock.now_ns();
        self.waiting[queue as usize].push_back((sequence, now_ns));
    }

    pub(crate) fn take_back(&mut self, queue: u32) {
        self.waiting[queue as usize].pop_back();
    }

    pub(crate) fn acknowledged(&mut self, queue: u32, sequence: u64) {
        if let Some(sent_ns) = self.take(queue, sequence) {
            self.windows.acknowledged(sent_ns);
        }
    }

    pub(crate) fn failed(&mut self, queue: u32, sequence: u64) {
        if self.take(queue, sequence).is_some() {
            self.windows.failed();
        }
    }

    /// Outcomes come nearly in order, so that the search ends after a few steps.
    fn take(&mut self, queue: u32, sequence: u64) -> Option<u64> {
        let waiting = &mut self.waiting[queue as usize];
        let place = waiting.iter().position(|(known, _)| *known == sequence)?;
        waiting.remove(place).map(|(_, sent_ns)| sent_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(intended_ns: u64) -> Stamp {
        Stamp { client: 0, queue: 0, sequence: 0, intended_ns, sent_ns: intended_ns }
    }

    #[test]
    fn events_fall_into_their_windows_and_totals_leave_the_warm_up_out() {
        // Two windows of warm-up, of which the second is cut off at 1.5 s; then three, of which the last is cut off at 3.75 s.
        let windows = Windows::new(RunClock::start(), 1.5, 3.75, 1.0);
        let at = |seconds: f64| nanoseconds(10.0 + seconds);
        windows.consumed(stamp(0), at(0.5));
        windows.start(at(0.0), 1.5);
        for seconds in [0.5, 1.2, 1.6, 2.4, 2.6, 3.6, 9.0] {
            windows.consumed(stamp(at(seconds - 0.1)), at(seconds));
        }
        windows.sent(at(1.7), at(1.9));
        let points = windows.points(1);
        let found: Vec<(f64, f64)> = points.iter().map(|point| (point.seconds, point.consumed_per_second)).collect();
        assert_eq!(found, [(0.0, 1.0), (1.0, 2.0), (1.5, 2.0), (2.5, 1.0), (3.5, 4.0)]);
        let [_, lag, end_to_end] = windows.totals();
        assert_eq!((lag.1.len(), end_to_end.1.len()), (1, 4));
        assert!((lag.1.max() as f64 / 2e8 - 1.0).abs() < 0.01, "{}", lag.1.max());
    }

    #[test]
    fn what_waits_is_what_was_acknowledged_and_not_read_by_every_subscription() {
        let windows = Windows::new(RunClock::start(), 0.0, 3_600.0, 3_600.0);
        windows.start(0, 0.0);
        let mut times = AckTimes::new(windows.clone(), 1);
        for sequence in 0..5 {
            times.sent(0, sequence);
        }
        for sequence in [1, 0, 3] {
            times.acknowledged(0, sequence);
        }
        times.failed(0, 2);
        times.take_back(0);
        times.acknowledged(0, 4);
        windows.consumed(stamp(0), windows.clock().now_ns());
        let point = &windows.points(2)[0];
        assert_eq!((point.waiting, point.acknowledge.unwrap().count), (5, 3));
        assert!(point.failed_per_second > 0.0);
    }
}
