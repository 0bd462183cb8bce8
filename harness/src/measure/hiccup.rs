//! The hiccup meter: a thread that sleeps a fixed time and records by how much it woke late. What it shows is the
//! machine's and the scheduler's stall, which every latency measured beside it contains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::percentile::latency_histogram;

/// A running meter.
#[derive(Debug)]
pub struct HiccupMeter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Histogram<u64>>,
}

impl HiccupMeter {
    /// Starts the thread; it sleeps `interval` again and again.
    pub fn start(interval: Duration) -> std::io::Result<HiccupMeter> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("hiccup".to_owned()).spawn(move || {
            let mut histogram = latency_histogram();
            loop {
                let start = Instant::now();
                std::thread::sleep(interval);
                histogram.saturating_record(overshoot_ns(start.elapsed(), interval));
                if stopped.load(Ordering::Relaxed) {
                    return histogram;
                }
            }
        })?;
        Ok(HiccupMeter { stop, thread })
    }

    /// Ends the thread and gives what it saw, nanoseconds of overshoot; none where the thread died.
    pub fn stop(self) -> Option<Histogram<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok()
    }
}

/// By how much a sleep was too long; 1 where it was not, as the histogram's range begins there.
fn overshoot_ns(slept: Duration, interval: Duration) -> u64 {
    u64::try_from(slept.saturating_sub(interval).as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overshoot_is_what_exceeds_the_interval() {
        let interval = Duration::from_millis(1);
        assert_eq!(overshoot_ns(Duration::from_micros(1_250), interval), 250_000);
        assert_eq!(overshoot_ns(Duration::from_micros(900), interval), 1);
    }

    #[test]
    fn a_meter_stopped_at_once_has_a_sample() {
        let histogram = HiccupMeter::start(Duration::from_micros(1)).unwrap().stop().unwrap();
        assert!(!histogram.is_empty());
    }
}
