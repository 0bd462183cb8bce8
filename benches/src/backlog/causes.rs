//! Makes each cause of a backlog for real, lets the diagnosis name it from outside, and measures the cure. The setups are a
//! grid over the seeds, so that no figure of the diagnosis can be fitted to one of them. Start at `run_case`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::backlog::judge::{Cause, Diagnosis, judge};
use crate::backlog::load::{ConsumerDial, Consuming, Producer, ProducerDial, dead_letter_topic};
use crate::backlog::observe;
use crate::consumers::ConsumerError;
use crate::consumers::cluster::Cluster;
use crate::consumers::kafka::{Admin, Onlooker, fresh};

/// The causes that are made.
pub const MADE: [Cause; 3] = [Cause::FasterProducer, Cause::PoisonMessage, Cause::WeakConsumer];

/// How a case is set up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Setup {
    /// Queues of the topic.
    pub queues: u32,
    /// Consumers of the group.
    pub consumers: u32,
    /// What a record takes, microseconds.
    pub work_micros: u64,
    /// Records a second before the cause sets in.
    pub usual_rate: u64,
    /// By how much the producer becomes faster, or processing slower.
    pub factor: u64,
}

impl Setup {
    /// The grid's point for a seed: consumers that manage about three times what usually arrives.
    pub fn of(seed: u64) -> Setup {
        let consumers = 1 + (seed % 2) as u32;
        let queues = consumers * (1 + (seed / 2 % 3) as u32);
        let work_micros = [2_000, 3_000, 5_000, 8_000][(seed / 3 % 4) as usize];
        let capacity = u64::from(consumers) * 1_000_000 / work_micros;
        Setup { queues, consumers, work_micros, usual_rate: capacity * 3 / 10, factor: 5 + seed % 3 }
    }
}

/// How long things take in a case.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Usual load before the cause sets in.
    pub usual: Duration,
    /// From the cause to the diagnosis.
    pub lead_in: Duration,
    /// The diagnosis' window.
    pub window: Duration,
    /// The drain at most.
    pub drain: Duration,
}

impl Timing {
    /// As short as the diagnosis allows.
    pub fn short() -> Timing {
        let seconds = Duration::from_secs_f64;
        Timing { usual: seconds(6.0), lead_in: seconds(1.0), window: seconds(4.0), drain: seconds(90.0) }
    }
}

/// A case.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Whose brokers.
    pub system: &'static str,
    /// The seed of its setup.
    pub seed: u64,
    /// The setup.
    pub setup: Setup,
    /// The cause that was made.
    pub made: Cause,
    /// What was said of it.
    pub diagnosis: Diagnosis,
    /// The cure, where it was tried.
    pub cure: Option<Cure>,
}

impl Outcome {
    /// Whether the diagnosis named the cause.
    pub fn is_right(&self) -> bool {
        self.diagnosis.cause == self.made
    }
}

/// A cure and the drain.
#[derive(Debug, Clone, Serialize)]
pub struct Cure {
    /// What was done.
    pub done: String,
    /// Seconds from the cure until at most half a second's arrivals wait; none where that did not come.
    pub drained_seconds: Option<f64>,
    /// Seconds since the cure, and records that waited.
    pub curve: Vec<(f64, i64)>,
    /// Records that were neither processed nor put aside in the end.
    pub missing: u64,
    /// Messages in the dead letter topic.
    pub put_aside: i64,
}

/// Makes the cause, has it named, and tries the cure where asked to.
pub fn run_case(
    cluster: &Cluster,
    seed: u64,
    made: Cause,
    timing: Timing,
    with_cure: bool,
) -> Result<Outcome, ConsumerError> {
    let setup = Setup::of(seed);
    let (topic, group) = (fresh("backlog"), fresh("backlog"));
    let admin = Admin::connect(cluster.bootstrap())?;
    admin.create(&topic, setup.queues, 1)?;
    admin.create(&dead_letter_topic(&topic), 1, 1)?;
    let dial = Arc::new(ConsumerDial::default());
    dial.work_micros.store(setup.work_micros, Ordering::SeqCst);
    let consumer = || Consuming::start(cluster.bootstrap(), &topic, &group, &dial);
    let mut consumers = (0..setup.consumers).map(|_| consumer()).collect::<Result<Vec<_>, _>>()?;
    let (rate, queues) = (AtomicU64::new(setup.usual_rate), AtomicU32::new(setup.queues));
    let turned = ProducerDial { rate, queues, poison: AtomicBool::new(false) };
    let producer = Producer::start(cluster.bootstrap(), &topic, turned, 100)?;
    std::thread::sleep(timing.usual);
    match made {
        Cause::FasterProducer => producer.dial.rate.store(setup.usual_rate * setup.factor, Ordering::SeqCst),
        Cause::PoisonMessage => producer.dial.poison.store(true, Ordering::SeqCst),
        _ => dial.work_micros.store(setup.work_micros * setup.factor, Ordering::SeqCst),
    }
    std::thread::sleep(timing.lead_in);
    let options = observe::Options {
        bootstrap: cluster.bootstrap().to_owned(),
        group: group.clone(),
        topics: Vec::new(),
        window: timing.window,
        usual_rate: None,
        client: Default::default(),
    };
    let diagnosis = judge(&observe::observe(&options)?);
    let mut outcome = Outcome { system: cluster.system.name(), seed, setup, made, diagnosis, cure: None };
    if with_cure {
        let mut cured = Cured { queues: setup.queues, done: String::new() };
        match made {
            Cause::FasterProducer => {
                cured = more_consumers(&admin, &topic, &setup)?;
                while consumers.len() < cured.queues as usize {
                    consumers.push(consumer()?);
                }
                producer.dial.queues.store(cured.queues, Ordering::SeqCst);
            }
            Cause::PoisonMessage => {
                dial.dead_letter.store(true, Ordering::SeqCst);
                cured.done = "a message that failed three times goes to a dead letter topic".to_owned();
            }
            _ => {
                let threads = (setup.factor * 2) as u32;
                dial.threads.store(threads, Ordering::SeqCst);
                cured.done = format!("{threads} threads in each consumer");
            }
        }
        outcome.cure = Some(drain(cluster, (&topic, &group), &cured, &producer, timing.drain)?);
        let sent = producer.finish()?;
        let onlooker = Onlooker::connect(cluster.bootstrap(), &topic, cured.queues, &group)?;
        crate::consumers::kafka::wait_until("the last record's commit", &mut || onlooker.is_done())?;
        if let Some(cure) = &mut outcome.cure {
            cure.missing = dial.missing(sent.records) + sent.failed;
            let dead = Onlooker::connect(cluster.bootstrap(), &dead_letter_topic(&topic), 1, &group)?;
            cure.put_aside = dead.ends()?.iter().sum();
        }
    } else {
        producer.finish()?;
    }
    Ok(outcome)
}

struct Cured {
    queues: u32,
    done: String,
}

/// Enough queues and consumers for twice what arrives.
fn more_consumers(admin: &Admin, topic: &str, setup: &Setup) -> Result<Cured, ConsumerError> {
    let each = 1e6 / setup.work_micros as f64;
    let wanted = (2.0 * (setup.usual_rate * setup.factor) as f64 / each).ceil() as u32;
    let queues = wanted.max(setup.queues);
    if queues > setup.queues {
        admin.grow(topic, queues)?;
    }
    Ok(Cured {
        queues,
        done: format!(
            "{queues} queues in place of {}, and as many consumers in place of {}",
            setup.queues, setup.consumers
        ),
    })
}

/// Watches the lag fall.
fn drain(
    cluster: &Cluster,
    (topic, group): (&str, &str),
    cured: &Cured,
    producer: &Producer,
    patience: Duration,
) -> Result<Cure, ConsumerError> {
    let onlooker = Onlooker::connect(cluster.bootstrap(), topic, cured.queues, group)?;
    let start = Instant::now();
    let mut cure =
        Cure { done: cured.done.clone(), drained_seconds: None, curve: Vec::new(), missing: 0, put_aside: 0 };
    while start.elapsed() < patience {
        let (ends, committed) = (onlooker.ends()?, onlooker.committed()?);
        let lag: i64 = ends.iter().zip(&committed).map(|(end, committed)| (end - committed).max(0)).sum();
        let seconds = start.elapsed().as_secs_f64();
        cure.curve.push((seconds, lag));
        let small = (producer.dial.rate.load(Ordering::SeqCst) / 2) as i64;
        if lag <= small {
            cure.drained_seconds = Some(seconds);
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(cure)
}

const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setup_of_the_grid_can_have_each_cause() {
        for seed in 0..100 {
            let setup = Setup::of(seed);
            let capacity = u64::from(setup.consumers) * 1_000_000 / setup.work_micros;
            assert!(setup.usual_rate * 2 < capacity, "{setup:?}: usually there must be no backlog");
            assert!(
                setup.usual_rate * setup.factor > capacity * 5 / 4,
                "{setup:?}: a faster producer must be too fast"
            );
            assert!(capacity / setup.factor < setup.usual_rate * 4 / 5, "{setup:?}: weaker consumers must be too weak");
            assert_eq!(setup.queues % setup.consumers, 0, "{setup:?}");
        }
    }
}
