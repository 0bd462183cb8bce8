//! From kill -9 to every queue answering: topics filled, the process killed, started again on the same data, every queue
//! asked for its end; at last everything is read back. The clock runs from the kill, so that a process' start counts.

use std::io;
use std::time::{Duration, Instant};

use mqassay_harness::measure::result::TargetPart;
use mqassay_harness::measure::statistics::ratio_interval;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::admin::TopicAdmin;
use super::driver::{self, Load};
use super::lanes::{Check, Lanes};
use super::plan::{Linger, RawShape};
use super::session::{rows_of, topic_settings};
use crate::prepare::{self, ReferenceBroker};
use crate::session::Session;
use crate::{BenchError, SystemTarget};

/// Queues are filled, and the broker is killed and started again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Bytes of records' values in all queues together.
    pub bytes: u64,
    /// Records of a batch.
    pub records_per_batch: u32,
    /// Kills of each system; before each but the first, every queue gets one more batch.
    pub recoveries: u32,
    /// The least ratio of the other systems' time over the first's.
    pub needs: f64,
}

impl Session<'_> {
    /// Fills, kills and recovers one system after the other.
    pub(crate) fn recovery(&mut self, recovery: &Recovery) -> Result<(), BenchError> {
        let mut seconds: Vec<Vec<f64>> = Vec::new();
        for index in 0..self.systems.len() {
            let found = self.recover_system(recovery, index)?;
            let name = self.systems[index].name.clone();
            let rows = rows_of(&self.plan.name, &name, "recovery_seconds", &found);
            self.result.rows.extend(rows);
            seconds.push(found);
        }
        for index in 1..self.systems.len() {
            let pairs: Vec<(f64, f64)> = seconds[index].iter().copied().zip(seconds[0].iter().copied()).collect();
            let Some(ratio) = ratio_interval(&pairs, index as u64) else { continue };
            let (first, other) = (&self.systems[0].name, &self.systems[index].name);
            self.result.targets.push(TargetPart {
                target: self.plan.name.to_uppercase(),
                part: format!("kill -9 to every queue answering, {other} over {first}"),
                ratio: ratio.value,
                low: ratio.low,
                high: ratio.high,
                needs: recovery.needs,
                at_most: None,
                met: ratio.low >= recovery.needs,
            });
        }
        Ok(())
    }

    fn recover_system(&mut self, recovery: &Recovery, index: usize) -> Result<Vec<f64>, BenchError> {
        let mut target = self.systems[index].clone();
        let name = target.name.clone();
        let failed = |action: &'static str| {
            let system = name.clone();
            move |source| BenchError::Raw { system, action, source }
        };
        let run = self.run_number();
        let lanes = Lanes {
            prefix: format!("mqassay-{}-{run:016x}", self.plan.name),
            queues: self.plan.queues,
            connections: self.plan.producers.min(self.plan.queues),
        };
        let mut shape = shape_of(recovery, &lanes, recovery.bytes / self.plan.record_bytes as u64);
        self.step("filling", &name);
        let mut admin = TopicAdmin::connect(&target.bootstrap).map_err(failed("connect"))?;
        admin.create(&lanes, &topic_settings(&target, self.plan.flush)).map_err(failed("create topics"))?;
        let mut check = Check::new(lanes.clone(), run, self.plan.record_bytes);
        let mut seconds = Vec::new();
        // Ends the broker started last when this returns.
        let mut started: Option<ReferenceBroker> = None;
        for round in 0..recovery.recoveries {
            if round > 0 {
                shape.records_maximum = 1;
            }
            let load = self.recovery_load(&target, &lanes, &shape, run);
            check = driver::fill(&load, check).map_err(failed("fill its queues"))?;
            let text = format!("recovery {}", round + 1);
            self.step(&text, &name);
            let killed = Instant::now();
            kill(&target).map_err(failed("kill it"))?;
            drop(started.take());
            (target, started) = prepare::restart(&target)?;
            wait_for_every_queue(&target, &lanes, &check).map_err(failed("hear every queue answer"))?;
            seconds.push(killed.elapsed().as_secs_f64());
        }
        self.step("reading everything back", &name);
        let unsettled = check.unsettled;
        let load = self.recovery_load(&target, &lanes, &shape, run);
        let verification = driver::read_back(&load, check).map_err(failed("read everything back"))?;
        self.note(index, &verification, unsettled, None);
        let mut admin = TopicAdmin::connect(&target.bootstrap).map_err(failed("connect"))?;
        admin.delete(&lanes).map_err(failed("delete topics"))?;
        Ok(seconds)
    }

    fn recovery_load<'a>(&self, target: &'a SystemTarget, lanes: &Lanes, shape: &'a RawShape, run: u64) -> Load<'a> {
        Load {
            bootstrap: &target.bootstrap,
            pid: None,
            is_relay: false,
            lanes: lanes.clone(),
            shape,
            run,
            record_bytes: self.plan.record_bytes,
            acks: -1,
            // The connections of a later round are other producers, whose sequences would have to begin anew.
            is_idempotent: false,
            seconds: FILL_SECONDS_MAXIMUM,
            lead_in_seconds: 0.0,
            stall_ns: driver::STALL_NS,
        }
    }
}

fn shape_of(recovery: &Recovery, lanes: &Lanes, records_maximum: u64) -> RawShape {
    RawShape {
        name: "recovery".to_owned(),
        connections: lanes.connections,
        in_flight: 5,
        records_per_batch: recovery.records_per_batch,
        batches_per_request: 1,
        queues: None,
        flush: None,
        record_bytes: None,
        records_per_second: None,
        linger: Linger::Full,
        consumers: 0,
        is_bare: false,
        rounds_maximum: None,
        records_maximum,
    }
}

/// Kills the process and waits until it is gone, or a zombie that holds nothing.
pub(crate) fn kill(target: &SystemTarget) -> io::Result<()> {
    let unknown = || io::Error::other("its process is not on this machine");
    let pid = target.pid.ok_or_else(unknown)?;
    let signalled = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(unknown)?;
    kill_process(signalled, Signal::KILL)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|fields| fields.trim_start().chars().next());
        // The first thread can be a zombie while another, deep in a sync, still holds the process' files and locks.
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        if matches!(state, None | Some('Z' | 'X')) && threads <= 1 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other("it does not end"))
}

/// Asks every queue for its end until each answers with at least what was acknowledged.
fn wait_for_every_queue(target: &SystemTarget, lanes: &Lanes, check: &Check) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut admin = None;
    let mut topic = 0;
    while topic < lanes.topics() {
        let answered = match &mut admin {
            None => TopicAdmin::connect(&target.bootstrap).map(|connected| {
                admin = Some(connected);
                false
            }),
            Some(admin) => admin.has_ends(lanes, topic, &|queue| check.end(queue)),
        };
        match answered {
            Ok(true) => {
                topic += 1;
                continue;
            }
            Ok(false) => {}
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => admin = None,
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "not every queue of {} answers with what was acknowledged after {} s",
                lanes.topic(topic),
                PATIENCE.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(240);
const FILL_SECONDS_MAXIMUM: f64 = 240.0;
