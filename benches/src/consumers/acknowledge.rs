//! When to acknowledge: a consumer without any memory of what it has done, killed at every step, committing before it
//! processes, after, or leaving that to the client library. What is lost and what comes twice is counted as for sinks.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use serde::Serialize;

use crate::consumers::ConsumerError;
use crate::consumers::cluster::{Cluster, System};
use crate::consumers::faults::Fault;
use crate::consumers::kafka::{Admin, fresh};
use crate::consumers::message::postings;
use crate::consumers::produce::produce;
use crate::consumers::sink::{SinkKind, Step};
use crate::consumers::trial::{MESSAGES_MINIMUM, QUEUES, Trial};
use crate::consumers::worker::Acknowledge;

/// One consumer's way to acknowledge, and its death.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Whose brokers.
    pub system: &'static str,
    /// When it commits.
    pub acknowledge: &'static str,
    /// At which step it was killed.
    pub step: &'static str,
    /// Whether it was killed only when the broker had a commit beyond the message in hand.
    pub late: bool,
    /// Messages in the log.
    pub messages: u64,
    /// Messages that were never processed.
    pub lost: u64,
    /// Times that a message was processed beyond its first.
    pub repeated: u64,
    /// How often the consumer was killed.
    pub kills: u64,
}

/// Tries each way of acknowledging at each step, several deaths each, all side by side.
pub fn run(system: System, executable: &Path, tell: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>, ConsumerError> {
    let cluster = Cluster::start(system, 1, executable)?;
    let messages = postings(MESSAGES_MINIMUM);
    let topic = fresh("acknowledge");
    Admin::connect(cluster.bootstrap())?.create(&topic, QUEUES, 1)?;
    produce(cluster.bootstrap(), &topic, QUEUES, &messages, Duration::ZERO)?;
    let (produced, progress) = (AtomicBool::new(true), AtomicU64::new(0));
    let mut outcomes = Vec::new();
    for acknowledge in Acknowledge::ALL {
        let found: Result<Vec<Outcome>, ConsumerError> = std::thread::scope(|scope| {
            let trials: Vec<_> = deaths(acknowledge)
                .into_iter()
                .map(|(step, late)| {
                    let trial = Trial {
                        executable,
                        system,
                        bootstrap: cluster.bootstrap(),
                        topic: &topic,
                        messages: &messages,
                        sink: SinkKind::Naive,
                        acknowledge,
                        fault: Fault::Kill(step),
                        late,
                        produced: &produced,
                        progress: &progress,
                    };
                    (step, late, scope.spawn(move || trial.run()))
                })
                .collect();
            let join = |(step, late, trial): (Step, bool, std::thread::ScopedJoinHandle<'_, Result<_, _>>)| {
                let found: super::trial::Outcome =
                    trial.join().map_err(|_| ConsumerError::Panicked { what: "trial" })??;
                let (lost, repeated) = (found.effects.lost, found.effects.doubled);
                let (acknowledge, step, kills) = (acknowledge.name(), step.name(), found.kills);
                Ok(Outcome {
                    system: system.name(),
                    acknowledge,
                    step,
                    late,
                    messages: found.messages,
                    lost,
                    repeated,
                    kills,
                })
            };
            trials.into_iter().map(join).collect()
        });
        let found = found?;
        found.iter().for_each(&mut *tell);
        outcomes.extend(found);
    }
    Ok(outcomes)
}

/// The steps that such a consumer passes. Only the library's own commits go on while the consumer is at a step.
fn deaths(acknowledge: Acknowledge) -> Vec<(Step, bool)> {
    match acknowledge {
        Acknowledge::Before | Acknowledge::After => {
            [Step::Polled, Step::Applied, Step::Committed].map(|step| (step, false)).into()
        }
        Acknowledge::Automatic => {
            vec![(Step::Polled, false), (Step::Applied, false), (Step::Polled, true), (Step::Applied, true)]
        }
    }
}
