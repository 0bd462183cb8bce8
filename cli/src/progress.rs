//! Progress of long work on standard error: a bar on a terminal, plain lines now and then elsewhere.
//! Results go to standard output; `say` prints above a bar without tearing it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::exit;

/// Prints a line of result to standard output. Where nobody reads any more (a closed pipe), the process ends: nothing that
/// it could still do would be seen.
pub(crate) fn tell(line: &str) {
    if writeln!(std::io::stdout().lock(), "{}", line.trim_end_matches('\n')).is_err() {
        std::process::exit(i32::from(exit::UNKNOWN));
    }
}

/// Elsewhere than on a terminal, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one piece of work.
pub(crate) struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    told: Instant,
}

impl Progress {
    /// Work of a number of steps, 0 where that is not known.
    pub(crate) fn new(what: &str, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
        if bar.is_none() {
            eprintln!("{what} …");
        }
        Progress { what: what.to_owned(), bar, total, done: 0, told: Instant::now() }
    }

    /// One step is done; `now` says what is at hand.
    pub(crate) fn step(&mut self, now: &str) {
        self.reach(self.done + 1, self.total, now);
    }

    /// So many steps of so many are done.
    pub(crate) fn reach(&mut self, done: u64, total: u64, now: &str) {
        (self.done, self.total) = (done, total);
        if let Some(bar) = &self.bar {
            bar.set_length(total.max(done));
            bar.set_position(done);
            bar.set_message(now.to_owned());
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            eprintln!("{}: {done} of {total} {now}", self.what);
        }
    }

    /// Prints a line of result to standard output.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
    }

    /// The work is over; a bar disappears, so that only results stay.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>10} {bar:30} {pos}/{len} {elapsed} {wide_msg}")
        .expect("the template is valid, a test parses it");
    let bar = ProgressBar::new(total).with_style(style).with_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_made() {
        bar("verify", 3).finish_and_clear();
    }
}
