//! Experiments of the ledger on how queues are used: members of a group, answers of a broker, global order, seeking to a
//! time, and what more members and threads give. Not here: the experiments themselves (`benches::practice`).

use std::time::Duration;

use mqassay_benches::consumers::cluster::System;
use mqassay_benches::practice::answers::{self, Answers};
use mqassay_benches::practice::members::{self, Crew};
use mqassay_benches::practice::order::{self, Shape};
use mqassay_benches::practice::replay;
use mqassay_harness::measure::result::{Sweep, SweepPoint};

use super::experiments::Gathered;
use crate::exit::{Exit, Failure};
use crate::sinks::failure;

pub(super) fn members_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    let cluster = gathered.cluster(system)?;
    for queues in [2, 8] {
        let plan = format!("members/{queues}-queues");
        let crew = Crew { members: 8, threads: 1, queues, work: Duration::from_millis(5) };
        let done = members::work(&cluster, crew, SPAN).map_err(failure)?;
        gathered.count(&plan, system.name(), "consumers_busy", f64::from(done.busy));
        gathered.count(&plan, system.name(), "consumers_idle", f64::from(done.idle));
        gathered.verdict(&plan, system.name(), Exit::Valid, 0);
    }
    let rates: Result<Vec<f64>, Failure> =
        (0..6).map(|_| members::create_topics(&cluster, TOPICS).map_err(failure)).collect();
    gathered.median("topics", system.name(), "topics_created_per_second", &rates?);
    gathered.verdict("topics", system.name(), Exit::Valid, 0);
    Ok(())
}

pub(super) fn answers_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    for answers in Answers::ALL {
        let mut cluster = gathered.cluster(system)?;
        let kept = answers::run(&mut cluster, answers).map_err(failure)?;
        let plan = format!("answers/{}", answers.name());
        gathered.count(&plan, system.name(), "messages_lost", kept.lost as f64);
        gathered.count(&plan, system.name(), "messages_lost_untold", kept.lost_untold as f64);
        gathered.count(&plan, system.name(), "messages_repeated", kept.repeated as f64);
        gathered.verdict(&plan, system.name(), Exit::Valid, kept.sent - kept.lost);
    }
    Ok(())
}

pub(super) fn order_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    for (name, shape) in Shape::ALL {
        let mut cluster = gathered.cluster(system)?;
        let seen = order::run(&mut cluster, shape).map_err(failure)?;
        let plan = format!("order/{name}");
        gathered.count(&plan, system.name(), "messages_out_of_order", seen.out_of_order as f64);
        gathered.count(&plan, system.name(), "records_missing", seen.missing as f64);
        gathered.verdict(&plan, system.name(), Exit::Valid, seen.processed);
    }
    Ok(())
}

pub(super) fn replay_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    let cluster = gathered.cluster(system)?;
    let landed = replay::run(&cluster).map_err(failure)?;
    gathered.count("replay", system.name(), "seeks_right_share", landed.right as f64 / landed.asked as f64);
    gathered.verdict("replay", system.name(), Exit::Valid, landed.asked);
    let text = format!(
        "{}: {} of {} times right, the furthest {} records off",
        system.name(),
        landed.right,
        landed.asked,
        landed.worst
    );
    gathered.result("replay").remarks.push(text);
    Ok(())
}

pub(super) fn parallelism_on(system: System, gathered: &mut Gathered) -> Result<(), Failure> {
    let cluster = gathered.cluster(system)?;
    let crew = Crew { members: 1, threads: 1, queues: QUEUES, work: Duration::from_millis(10) };
    let members = |members| Crew { members, ..crew };
    let threads = |threads| Crew { threads, ..crew };
    let sweeps = [
        ("parallelism/members", "members", [1, 2, 4, 8].map(|count| (count, members(count)))),
        ("parallelism/threads", "threads", [1, 4, 16, 64].map(|count| (count, threads(count)))),
    ];
    for (plan, variable, crews) in sweeps {
        let mut points = Vec::new();
        for (count, crew) in crews {
            let value = members::work(&cluster, crew, SPAN).map_err(failure)?.records_per_second;
            points.push(SweepPoint { x: f64::from(count), value, low: value, high: value, records_per_batch: None });
        }
        gathered.result(plan).sweeps.push(Sweep {
            system: system.name().to_owned(),
            variable: variable.to_owned(),
            metric: "processed_records_per_second".to_owned(),
            unit: "processed/s".to_owned(),
            points,
            stopped: None,
        });
        gathered.verdict(plan, system.name(), Exit::Valid, 0);
    }
    Ok(())
}

const QUEUES: u32 = 4;
const TOPICS: u32 = 20;
const SPAN: Duration = Duration::from_secs(4);
