//! Simulated time: `SimTime` for the world's own parts, `SimClock` as a node or client sees it.
//! A wall clock can be skewed; the monotonic one cannot. Nothing here reads the real clock.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Wall time at the start of every run, in milliseconds since the Unix epoch (2024-01-01T00:00:00Z).
pub const EPOCH_MS: i64 = 1_704_067_200_000;

/// Microseconds since the run began, for the parts of the world. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimTime {
    step_us: Rc<Cell<u64>>,
    /// While a host's future is polled: its time, which turmoil is asked for once.
    polled_us: Rc<Cell<Option<u64>>>,
}

/// While it lasts a host's future is polled; it ends in a panic too.
struct Polled<'a>(&'a Cell<Option<u64>>);

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl SimTime {
    /// Time of the running host, or between steps the time of the step.
    ///
    /// turmoil's own answer counts only inside a host's runtime: outside of one it would read the real clock.
    pub fn now_us(&self) -> u64 {
        if let Some(polled_us) = self.polled_us.get() {
            return polled_us;
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return self.step_us.get();
        }
        match turmoil::sim_elapsed() {
            Some(elapsed) => elapsed.as_micros() as u64,
            None => self.step_us.get(),
        }
    }

    /// Runs a host's software. Time stands still while it is polled, since tokio moves a paused clock only where nothing
    /// can run; so it is asked for once a poll, and not at each event.
    pub(crate) async fn run<F: Future>(self, software: F) -> F::Output {
        let mut software = pin!(software);
        poll_fn(|context| {
            self.polled_us.set(Some(self.now_us()));
            let _polled = Polled(&self.polled_us);
            software.as_mut().poll(context)
        })
        .await
    }

    /// Sets the time that counts between steps.
    pub(crate) fn set_step_us(&self, step_us: u64) {
        self.step_us.set(step_us);
    }
}

/// A clock as one host sees it. Clones share its skew.
#[derive(Debug, Clone)]
pub struct SimClock {
    time: SimTime,
    wall_skew_ms: Rc<Cell<i64>>,
}

impl SimClock {
    /// A clock without skew.
    pub fn new(time: SimTime) -> SimClock {
        SimClock { time, wall_skew_ms: Rc::default() }
    }

    /// Runs the software of the clock's host, as `SimTime::run` says.
    pub(crate) async fn run<F: Future>(self, software: F) -> F::Output {
        self.time.run(software).await
    }

    /// Time since the run began.
    pub fn monotonic(&self) -> Duration {
        Duration::from_micros(self.time.now_us())
    }

    /// Wall time in milliseconds since the Unix epoch, with the host's skew.
    pub fn wall_ms(&self) -> i64 {
        EPOCH_MS + (self.time.now_us() / 1000) as i64 + self.wall_skew_ms.get()
    }

    /// Ends when `monotonic` has reached `deadline`; timers have a resolution of one millisecond, rounded up.
    pub fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()> + 'static {
        let clock = self.clone();
        async move {
            loop {
                let now = clock.monotonic();
                if now >= deadline {
                    return;
                }
                tokio::time::sleep(deadline - now).await;
            }
        }
    }

    /// Moves the host's wall clock by so many milliseconds.
    pub fn shift_wall_ms(&self, by_ms: i64) {
        self.wall_skew_ms.set(self.wall_skew_ms.get() + by_ms);
    }

    /// Sets how far the host's wall clock is ahead (or, if negative, behind), in milliseconds.
    pub fn set_wall_skew_ms(&self, skew_ms: i64) {
        self.wall_skew_ms.set(skew_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_moves_the_wall_clock_alone() {
        let time = SimTime::default();
        time.set_step_us(2_500_000);
        let clock = SimClock::new(time);
        assert_eq!(clock.wall_ms(), EPOCH_MS + 2500);
        clock.set_wall_skew_ms(-700);
        assert_eq!(clock.wall_ms(), EPOCH_MS + 1800);
        assert_eq!(clock.monotonic(), Duration::from_millis(2500));
    }
}
