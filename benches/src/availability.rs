//! A steady rate through a broker's crash: open-loop load, kill -9 in the midst of it, a restart on the same data, and what
//! a client saw of it: the gap, the time to recover, and what was lost, repeated or never acknowledged.
//! Start at `Session::availability`. Clients that break are made anew, as an application would. Not here: the clients'
//! threads (`crash_clients`), power loss (no plan of ours cuts a real machine's power).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::measure::result::{Timeline, TimelinePoint};
use mqassay_harness::systems;
use serde::{Deserialize, Serialize};

use crate::crash_clients::{self, Clients, Seen};
use crate::plan::{Flush, LoadPlan, is_duration};
use crate::prepare::{self, ReferenceBroker};
use crate::raw::recovery;
use crate::raw::session::one_row;
use crate::session::Session;
use crate::verify::Verification;
use crate::{BenchError, Protocol, Restart, SystemTarget};

/// A broker's crash under load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Availability {
    /// Offered rate of all producers together.
    pub records_per_second: u64,
    /// For how long is sent, seconds, the crash included.
    pub seconds: f64,
    /// When the broker is killed, seconds after the start.
    pub kill_at_seconds: f64,
    /// How long it stays dead before it is started again, seconds.
    pub down_seconds: f64,
    /// Width of a point over time, seconds.
    pub window_seconds: f64,
    /// After the last send, for how long nothing new may be read before reading ends, seconds.
    pub patience_seconds: f64,
    /// The settings that each system is crashed at.
    pub settings: Vec<Setting>,
}

/// How careful clients and topics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// Page cache, no idempotence.
    Default,
    /// A sync before every acknowledgement and an idempotent producer, where the protocol has them.
    Safest,
}

impl Setting {
    fn word(self) -> &'static str {
        match self {
            Setting::Default => "default",
            Setting::Safest => "safest",
        }
    }
}

impl Availability {
    /// The first value out of its bounds.
    pub(crate) fn first_fault(&self) -> Option<&'static str> {
        let restarted = self.kill_at_seconds + self.down_seconds;
        let checks = [
            ((1..=100_000).contains(&self.records_per_second), "availability.records_per_second is not in 1..=100000"),
            (is_duration(self.seconds), "availability.seconds is not in 0.1..=600"),
            (self.kill_at_seconds > 0.0 && restarted < self.seconds, "availability: the crash is not within seconds"),
            ((0.05..=10.0).contains(&self.window_seconds), "availability.window_seconds is not in 0.05..=10"),
            (is_duration(self.patience_seconds), "availability.patience_seconds is not in 0.1..=600"),
            (!self.settings.is_empty(), "availability.settings has none"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }
}

/// When what happened, seconds after the start.
#[derive(Debug, Clone, Copy)]
struct Crash {
    killed: f64,
    restarted: f64,
}

impl Session<'_> {
    /// Crashes one system after the other at each setting. A system that does not come back is left out.
    pub(crate) fn availability(&mut self, load: &Availability) {
        for index in 0..self.systems.len() {
            let mut target = self.systems[index].clone();
            // Ends the broker started last when the section is over.
            let mut started: Option<ReferenceBroker> = None;
            for &setting in &load.settings {
                if setting == Setting::Safest && target.protocol != Protocol::Kafka {
                    let name = &target.name;
                    self.remark(format!("{name}: its class is a setting of the broker and not of this plan's clients; it was crashed once, at {}.", target.durability));
                    continue;
                }
                let text = format!("crash at {}", setting.word());
                self.step(&text, &target.name);
                match self.crash(load, setting, &target, &mut started) {
                    Ok((after, timeline, verification)) => {
                        self.availability_rows(&timeline);
                        self.note(index, &verification, 0, None);
                        self.result.timelines.push(timeline);
                        target = after;
                    }
                    Err(error) => {
                        self.leave_out(index, error.to_string());
                        break;
                    }
                }
            }
        }
    }

    fn crash(
        &self,
        load: &Availability,
        setting: Setting,
        target: &SystemTarget,
        started: &mut Option<ReferenceBroker>,
    ) -> Result<(SystemTarget, Timeline, Verification), BenchError> {
        if let Some(Restart::Provisioned) = &target.restart {
            // A system under another name may be the same processes, on their way back from their last crash.
            let name = prepare::external(&target.name).unwrap_or_else(|| target.name.clone());
            systems::wait(&name, &systems::Options::from_environment()?)?;
        }
        let mut plan: LoadPlan = self.plan.clone();
        let mut at = target.clone();
        if at.protocol == Protocol::Kafka {
            plan.flush = if setting == Setting::Safest { Flush::Ack } else { Flush::Os };
            plan.idempotence = setting == Setting::Safest;
            // By default the library waits up to ten seconds before it tries again, and that would be all one sees.
            for (name, milliseconds) in RECONNECT {
                at.client_settings.entry(name.to_owned()).or_insert_with(|| milliseconds.to_owned());
            }
            at.durability = plan.flush.durability().to_owned();
            if at.is_reference() {
                at.topic_settings.insert("mqassay.flush".to_owned(), plan.flush.word().to_owned());
            }
        }
        let topic = self.topic_on(&at, plan.queues);
        let clients = Clients::connect(&at, &plan, &topic)?;
        let is_over = AtomicBool::new(false);
        let (crash, seen) = std::thread::scope(|scope| {
            let nemesis = scope.spawn(|| {
                let crash = kill_and_restart(target, load, started);
                if crash.is_err() {
                    is_over.store(true, Ordering::Relaxed);
                }
                crash
            });
            let seen = crash_clients::run(clients, &at, &plan, &topic, load, &is_over);
            let crash = nemesis.join().map_err(|_| BenchError::Panicked { what: "nemesis" })?;
            // Why the crash could not be made explains whatever the clients met.
            crash.and_then(|crash| Ok((crash, seen?)))
        })?;
        let (after, crash) = crash;
        let timeline = timeline(&at, setting, load, crash, &seen);
        Ok((after, timeline, allowed(&plan, &at, seen)))
    }

    fn availability_rows(&mut self, timeline: &Timeline) {
        let system = format!("{}, {}", timeline.system, timeline.setting);
        let mut figures = vec![
            ("availability_gap_seconds", timeline.gap_seconds),
            ("lost_messages", timeline.lost as f64),
            ("repeated_messages", timeline.repeated as f64),
            ("unacknowledged_messages", timeline.unacknowledged as f64),
        ];
        figures.extend(timeline.recovered_seconds.map(|at| ("recovery_seconds", at - timeline.killed_seconds)));
        for (metric, value) in figures {
            self.result.rows.push(one_row(&self.plan.name, &system, metric, value));
        }
    }
}

/// Kills the broker and starts it again on the same data and address. What comes back describes the one that runs then.
fn kill_and_restart(
    target: &SystemTarget,
    load: &Availability,
    started: &mut Option<ReferenceBroker>,
) -> Result<(SystemTarget, Crash), BenchError> {
    let begun = Instant::now();
    let until = |seconds: f64| {
        std::thread::sleep(Duration::from_secs_f64(seconds).saturating_sub(begun.elapsed()));
    };
    // Noted when the process is gone: what was sent before may still have been served.
    let killed;
    let after = match &target.restart {
        Some(Restart::Provisioned) => {
            let options = systems::Options::from_environment()?;
            let name = prepare::external(&target.name).unwrap_or_else(|| target.name.clone());
            let role = prepare::broker_role(&name, &options)?;
            until(load.kill_at_seconds);
            systems::kill(&name, &role, &options)?;
            killed = begun.elapsed().as_secs_f64();
            until(load.kill_at_seconds + load.down_seconds);
            let running = systems::restart(&name, &role, &options)?;
            SystemTarget { pid: running.broker_pids().first().copied(), ..target.clone() }
        }
        Some(Restart::Program { .. }) => {
            let failed = |source| BenchError::Raw { system: target.name.clone(), action: "kill it", source };
            until(load.kill_at_seconds);
            recovery::kill(target).map_err(failed)?;
            killed = begun.elapsed().as_secs_f64();
            drop(started.take());
            until(load.kill_at_seconds + load.down_seconds);
            let (after, broker) = prepare::restart_in_place(target)?;
            *started = broker;
            after
        }
        None => return Err(BenchError::NoRestart { system: target.name.clone() }),
    };
    Ok((after, Crash { killed, restarted: load.kill_at_seconds + load.down_seconds }))
}

/// The verdict with what this setting allows taken out: without idempotence, a client that repeats what it was not told
/// the outcome of may have it stored twice and out of its order.
fn allowed(plan: &LoadPlan, target: &SystemTarget, seen: Seen) -> Verification {
    let mut found = seen.verification;
    if !plan.idempotence || target.protocol != Protocol::Kafka {
        for name in ["duplicate", "nonmonotonic-send", "nonmonotonic-poll", "poll-skip"] {
            found.anomalies.remove(name);
        }
        // Repeated records make the broker's end and the count of acknowledgements differ.
        if seen.unread.is_none() {
            found.unknown = None;
        }
    }
    found.verdict = match (found.anomalies.is_empty(), &found.unknown) {
        (false, _) => VerdictKind::Invalid,
        (true, Some(_)) => VerdictKind::Unknown,
        (true, None) => VerdictKind::Valid,
    };
    found
}

fn timeline(target: &SystemTarget, setting: Setting, load: &Availability, crash: Crash, seen: &Seen) -> Timeline {
    let count = |names: &[&str]| names.iter().filter_map(|name| seen.verification.anomalies.get(name)).sum::<u64>();
    let killed_ns = (crash.killed * 1e9) as u64;
    // The first record that was sent after the kill and came through.
    let recovered = seen.polls.iter().filter(|poll| poll.sent_ns > killed_ns).map(|poll| poll.polled_ns).min();
    let mut times: Vec<u64> = seen.polls.iter().map(|poll| poll.polled_ns).collect();
    if recovered.is_none() {
        // Nothing came back: the gap lasts at least to the end of the load.
        times.push((load.seconds * 1e9) as u64);
    }
    times.sort_unstable();
    let gap_ns = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    Timeline {
        system: target.name.clone(),
        setting: setting.word().to_owned(),
        durability: target.durability.clone(),
        window_seconds: load.window_seconds,
        killed_seconds: crash.killed,
        restarted_seconds: crash.restarted,
        recovered_seconds: recovered.map(|ns| ns as f64 / 1e9),
        gap_seconds: gap_ns as f64 / 1e9,
        lost: count(&["lost-write", "unseen"]),
        repeated: count(&["duplicate"]),
        unacknowledged: seen.unsettled,
        points: points(load.window_seconds, seen),
    }
}

/// What was read in each window, with the latency of what was read in it; a window without records has a rate of 0.
fn points(window_seconds: f64, seen: &Seen) -> Vec<TimelinePoint> {
    let window_ns = ((window_seconds * 1e9) as u64).max(1);
    let last_ns = seen.polls.iter().map(|poll| poll.polled_ns).max().unwrap_or(0);
    let mut windows: Vec<Vec<u64>> = vec![Vec::new(); (last_ns / window_ns + 1) as usize];
    for poll in &seen.polls {
        windows[(poll.polled_ns / window_ns) as usize].push(poll.polled_ns.saturating_sub(poll.intended_ns));
    }
    let point = |(number, mut latencies): (usize, Vec<u64>)| {
        latencies.sort_unstable();
        TimelinePoint {
            seconds: number as f64 * window_seconds,
            records_per_second: latencies.len() as f64 / window_seconds,
            latency_p50_ns: latencies.get(latencies.len() / 2).copied(),
            latency_max_ns: latencies.last().copied(),
        }
    };
    windows.into_iter().enumerate().map(point).collect()
}

/// How soon the library tries to connect again, first and at most, milliseconds.
const RECONNECT: [(&str, &str); 2] = [("reconnect.backoff.ms", "50"), ("reconnect.backoff.max.ms", "200")];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::crash_clients::Poll;
    use crate::fake::FakeBroker;

    const S: u64 = 1_000_000_000;

    /// Ten records a second, none between 2 s and 5 s; the two that were due while the broker was dead come late.
    fn seen(anomalies: &[(&'static str, u64)]) -> Seen {
        let on_time = (0..20).chain(50..60).map(|tenth| (tenth * S / 10, tenth * S / 10));
        let late = [(25 * S / 10, 5 * S), (3 * S, 5 * S)];
        let poll = |(due_ns, polled_ns)| Poll { intended_ns: due_ns, sent_ns: due_ns, polled_ns: polled_ns + 1 };
        Seen {
            polls: on_time.chain(late).map(poll).collect(),
            unsettled: 3,
            unread: None,
            verification: Verification {
                verdict: VerdictKind::Invalid,
                verified: 30,
                anomalies: anomalies.iter().copied().collect::<BTreeMap<_, _>>(),
                unknown: None,
            },
        }
    }

    fn plan() -> (LoadPlan, Availability) {
        let plan = LoadPlan::named("availability").unwrap();
        let load = plan.availability.clone().unwrap();
        (plan, load)
    }

    #[test]
    fn the_gap_the_recovery_and_the_losses_are_told() {
        let target = FakeBroker::start().unwrap().target();
        let crash = Crash { killed: 2.05, restarted: 4.0 };
        let seen = seen(&[("lost-write", 2), ("unseen", 1), ("duplicate", 4)]);
        let found = timeline(&target, Setting::Default, &plan().1, crash, &seen);
        assert_eq!((found.lost, found.repeated, found.unacknowledged), (3, 4, 3));
        assert!((3.09..3.11).contains(&found.gap_seconds), "{found:?}");
        assert!(found.recovered_seconds.is_some_and(|at| (5.0..5.01).contains(&at)), "{found:?}");
        let rates: Vec<f64> = found.points.iter().map(|point| point.records_per_second).collect();
        assert_eq!(rates, [10.0, 10.0, 10.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 14.0, 10.0]);
        assert_eq!(found.points[5].latency_max_ns, None);
        assert_eq!(found.points[10].latency_max_ns, Some(25 * S / 10 + 1));
    }

    #[test]
    fn repeats_are_allowed_without_idempotence_and_losses_never() {
        let target = FakeBroker::start().unwrap().target();
        let (mut plan, _) = plan();
        let verdict = |plan: &LoadPlan, anomaly| allowed(plan, &target, seen(&[(anomaly, 1)])).verdict;
        assert_eq!(verdict(&plan, "duplicate"), VerdictKind::Valid);
        assert_eq!(verdict(&plan, "lost-write"), VerdictKind::Invalid);
        plan.idempotence = true;
        assert_eq!(verdict(&plan, "duplicate"), VerdictKind::Invalid);
    }
}
