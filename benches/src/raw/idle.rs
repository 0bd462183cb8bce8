//! What an idle queue costs: resident memory, files, mappings and threads of the broker's process before and after topics
//! were made. Each system starts at its smallest count and grows; the first figures are of a process that has served nothing.

use std::io;

use mqassay_harness::measure::result::{LeftOut, TargetPart};
use serde::{Deserialize, Serialize};

use super::admin::TopicAdmin;
use super::lanes::Lanes;
use super::session::{one_row, topic_settings};
use crate::BenchError;
use crate::session::Session;

/// Topics are made and left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idle {
    /// The numbers of queues, growing.
    pub queues: Vec<u32>,
    /// Resident bytes of a queue that are allowed.
    pub bytes_allowed: f64,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) resident_bytes: u64,
    pub(super) files: u64,
    pub(super) mappings: u64,
    pub(super) threads: u64,
}

impl Holdings {
    /// Reads them from `/proc`.
    pub(super) fn of_process(pid: u32) -> io::Result<Holdings> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
            line.trim_start_matches(':').split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let mappings = std::fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().count() as u64;
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        Ok(Holdings { resident_bytes: field("VmRSS") * 1024, files, mappings, threads: field("Threads") })
    }

    fn things(&self) -> u64 {
        self.files + self.mappings + self.threads
    }
}

impl Session<'_> {
    /// Makes topics until each count is reached, and reads the process after each. A system that does not get so far is
    /// left out.
    pub(crate) fn idle(&mut self, idle: &Idle) -> Result<(), BenchError> {
        for index in 0..self.systems.len() {
            let name = self.systems[index].name.clone();
            let Some(pid) = self.systems[index].pid else { continue };
            let mut found = Vec::new();
            let outcome = self.idle_system(idle, index, pid, &mut found);
            // What was read before a failure holds all the same.
            for (count, before, now) in found {
                self.idle_figures(idle, &name, count, before, now);
            }
            if let Err(error) = outcome {
                self.remark(format!("{name} is left out from here on: {error}."));
                self.result.left_out.push(LeftOut { left_out: name, reason: error.to_string() });
            }
        }
        self.remark("Idle queues: one reading of each process, so that the intervals are points.".to_owned());
        Ok(())
    }

    /// Puts into `found`, for each count, what the process held at first and then.
    fn idle_system(
        &mut self,
        idle: &Idle,
        index: usize,
        pid: u32,
        found: &mut Vec<(u32, Holdings, Holdings)>,
    ) -> Result<(), BenchError> {
        let target = &self.systems[index];
        let name = target.name.clone();
        let failed = |action: &'static str| {
            let system = name.clone();
            move |source| BenchError::Raw { system, action, source }
        };
        let mut admin = TopicAdmin::connect(&target.bootstrap).map_err(failed("connect"))?;
        let before = Holdings::of_process(pid).map_err(failed("read its process"))?;
        let settings = topic_settings(target, self.plan.flush);
        let (mut made, mut all): (u32, Vec<Lanes>) = (0, Vec::new());
        for &count in &idle.queues {
            self.step(&format!("{count} idle queues"), &name);
            let prefix = format!("mqassay-{}-{:016x}", self.plan.name, self.run_number().wrapping_add(made.into()));
            let lanes = Lanes { prefix, queues: count - made, connections: 1 };
            admin.create(&lanes, &settings).map_err(failed("create topics"))?;
            made = count;
            all.push(lanes);
            let now = Holdings::of_process(pid).map_err(failed("read its process"))?;
            found.push((count, before, now));
        }
        for lanes in &all {
            admin.delete(lanes).map_err(failed("delete topics"))?;
        }
        Ok(())
    }

    fn idle_figures(&mut self, idle: &Idle, name: &str, count: u32, before: Holdings, now: Holdings) {
        let per_queue = now.resident_bytes.saturating_sub(before.resident_bytes) as f64 / f64::from(count);
        let shown = format!("{name}, {count} queues");
        let row = one_row(&self.plan.name, &shown, "broker_resident_bytes_per_queue", per_queue);
        self.result.rows.push(row);
        self.result.rows.push(one_row(&self.plan.name, &shown, "broker_files", now.files as f64));
        // One file, mapping or thread in a thousand queues is none of a queue's own.
        let things = now.things().saturating_sub(before.things()).max(1) as f64;
        let parts = [
            (
                format!("{name}: allowed over resident bytes at {count} idle queues"),
                idle.bytes_allowed / per_queue.max(0.01),
            ),
            (
                format!("{name}: thousandth of {count} queues over files, mappings and threads"),
                f64::from(count) / 1e3 / things,
            ),
        ];
        for (part, ratio) in parts {
            self.result.targets.push(TargetPart::exact(self.plan.name.to_uppercase(), part, ratio, 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_memory_files_mappings_and_threads() {
        let first = Holdings::of_process(std::process::id()).unwrap();
        assert!(first.resident_bytes > 100_000 && first.mappings > 3 && first.threads > 0, "{first:?}");
        let open: Vec<std::fs::File> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let second = Holdings::of_process(std::process::id()).unwrap();
        assert!(second.files >= 200, "{} of {}", second.files, open.len());
    }
}
