//! A calibrated slowdown of the process that it is started in: a thread that spins for a fixed share of the processor time
//! that the rest of the process uses. It exists to try whether the instrument finds it (`slowdown`), and only the hidden
//! subcommand `slowed-broker` starts it: no flag, setting or variable of a normal broker can.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The spinning thread's name, by which its time is told from the rest of its process.
pub const THREAD: &str = "spin";

/// Slows this process down by `share`, a fraction of what its other threads use, until it ends.
pub fn start(share: f64) -> io::Result<()> {
    assert!((0.0..=1.0).contains(&share), "a share is from 0 to 1");
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        let mut debt = Debt::new(share, Times::now());
        loop {
            std::thread::sleep(INTERVAL);
            while debt.is_owed(Times::now()) {
                spin();
            }
        }
    })?;
    Ok(())
}

/// Processor time of a process' spinning thread and of its others so far, nanoseconds; none where it cannot be read.
pub(crate) fn spun_and_others_ns(pid: u32) -> Option<(u64, u64)> {
    let (mut spun_ns, mut others_ns) = (0, 0);
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let folder = thread.ok()?.path();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        // A thread may end between the listing and the reading.
        let (Some(name), Some(text)) = (read("comm"), read("schedstat")) else { continue };
        let time_ns: u64 = text.split_whitespace().next()?.parse().ok()?;
        *(if name.trim() == THREAD { &mut spun_ns } else { &mut others_ns }) += time_ns;
    }
    Some((spun_ns, others_ns))
}

/// Processor time so far, nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    process_ns: u64,
    thread_ns: u64,
}

impl Times {
    fn now() -> Times {
        let of = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
        };
        // The thread's first, so that what it uses between the readings is not taken for the others'.
        let thread_ns = of(ClockId::ThreadCPUTime);
        Times { process_ns: of(ClockId::ProcessCPUTime), thread_ns }
    }
}

/// What the thread owes for the time that the others used. Its own wake-ups count toward it; where they were more, in an
/// idle process, that is forgotten and not held against the load that follows.
struct Debt {
    share: f64,
    seen: Times,
    owed_ns: f64,
}

impl Debt {
    fn new(share: f64, now: Times) -> Debt {
        Debt { share, seen: now, owed_ns: 0.0 }
    }

    fn is_owed(&mut self, now: Times) -> bool {
        let own_ns = (now.thread_ns - self.seen.thread_ns) as f64;
        let others_ns = (now.process_ns - self.seen.process_ns) as f64 - own_ns;
        self.seen = now;
        self.owed_ns = (self.owed_ns + self.share * others_ns.max(0.0) - own_ns).max(-FORGIVEN_NS);
        self.owed_ns > 0.0
    }
}

/// About a microsecond of work.
fn spin() {
    let mut sum = 0_u64;
    for number in 0..1_000_u64 {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(number));
    }
}

/// Long enough that waking is a small part of what is owed, also where the processor is shared; short against a block.
const INTERVAL: Duration = Duration::from_millis(20);
/// About what one wake-up costs.
const FORGIVEN_NS: f64 = 50_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spun_is_the_share_of_what_the_others_used() {
        let mut now = Times { process_ns: 0, thread_ns: 0 };
        let mut debt = Debt::new(0.02, now);
        for _ in 0..1_000 {
            now.process_ns += 3_000_000;
            while debt.is_owed(now) {
                now.process_ns += 1_000;
                now.thread_ns += 1_000;
            }
        }
        let others_ns = now.process_ns - now.thread_ns;
        let share = now.thread_ns as f64 / others_ns as f64;
        assert!((share - 0.02).abs() < 0.0001, "{share}");
    }

    #[test]
    fn waking_while_nothing_is_done_is_forgiven() {
        let mut now = Times { process_ns: 0, thread_ns: 0 };
        let mut debt = Debt::new(0.02, now);
        for _ in 0..1_000 {
            now.process_ns += 5_000;
            now.thread_ns += 5_000;
            assert!(!debt.is_owed(now));
        }
        now.process_ns += 10_000_000;
        assert!(debt.is_owed(now), "the load after an idle time is slowed down as any other");
    }
}
