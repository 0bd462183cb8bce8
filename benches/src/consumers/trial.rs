//! Trials: messages, a group of its own for each sink, one fault, and the effects counted from the database at the end.
//! All sinks meet a fault side by side, each with its own group and database on one topic. Start at `run`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::consumers::cluster::{Cluster, System};
use crate::consumers::effects::{self, Effects};
use crate::consumers::faults::{Fault, Promise, promise};
use crate::consumers::kafka::{Admin, Onlooker, fresh, wait_until};
use crate::consumers::message::{Message, as_sent, postings};
use crate::consumers::process::Consumer;
use crate::consumers::produce::produce;
use crate::consumers::sink::{SinkKind, Step};
use crate::consumers::worker::{Acknowledge, Death, WorkerOptions};
use crate::consumers::{ConsumerError, io_error};

/// What is to be tried.
#[derive(Debug, Clone)]
pub struct Options {
    /// On whose brokers.
    pub system: System,
    /// The `mqassay` program, for brokers and consumers.
    pub executable: PathBuf,
    /// The sinks.
    pub sinks: Vec<SinkKind>,
    /// The faults.
    pub faults: Vec<Fault>,
    /// Messages of a trial, at least `MESSAGES_MINIMUM`.
    pub messages: u64,
}

/// Below this, some deaths would come after the last message.
pub const MESSAGES_MINIMUM: u64 = 300;
/// Queues of a trial's topic.
pub const QUEUES: u32 = 3;
const COMMIT_EVERY: u64 = 25;
/// On which pass of its step each consumer in turn dies, for steps that each message passes …
const DEATHS: [u64; 3] = [40, 25, 60];
/// … and for the commit, which comes once for many.
const DEATHS_AT_COMMIT: [u64; 3] = [2, 1, 3];
const WORK: Duration = Duration::from_millis(5);
const PACE: Duration = Duration::from_millis(12);

/// One cell of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Whose brokers.
    pub system: &'static str,
    /// The sink.
    pub sink: &'static str,
    /// When the consumer committed.
    pub acknowledge: &'static str,
    /// The fault.
    pub fault: &'static str,
    /// What the sink promises under it.
    pub promise: Promise,
    /// Messages that had been acknowledged to the producer.
    pub messages: u64,
    /// What the database holds at the end.
    #[serde(flatten)]
    pub effects: Effects,
    /// How often a consumer was killed.
    pub kills: u64,
    /// Whether the consumers came to the step at which they were to die.
    pub reached: bool,
    /// How long it took.
    pub seconds: f64,
}

impl Outcome {
    /// Whether the promise was kept, or the mistake shown; none where nothing is promised or the step is not passed.
    pub fn is_as_promised(&self) -> Option<bool> {
        match self.promise {
            _ if !self.reached => None,
            Promise::ExactlyOnce => Some(self.effects.is_exactly_once()),
            Promise::Breaks => Some(self.effects.lost + self.effects.doubled > 0),
            Promise::Nothing => None,
        }
    }
}

/// Tries every sink under every fault, telling each outcome as it is known.
pub fn run(options: &Options, tell: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>, ConsumerError> {
    let messages = postings(options.messages.max(MESSAGES_MINIMUM));
    let mut outcomes = Vec::new();
    for nodes in [1, 3] {
        let faults: Vec<Fault> = options.faults.iter().copied().filter(|fault| fault.nodes() == nodes).collect();
        if faults.is_empty() {
            continue;
        }
        let mut cluster = Cluster::start(options.system, nodes, &options.executable)?;
        for fault in faults {
            let found = try_fault(options, &mut cluster, &messages, fault)?;
            found.iter().for_each(&mut *tell);
            outcomes.extend(found);
        }
    }
    Ok(outcomes)
}

/// All sinks under one fault, side by side.
fn try_fault(
    options: &Options,
    cluster: &mut Cluster,
    messages: &[Message],
    fault: Fault,
) -> Result<Vec<Outcome>, ConsumerError> {
    let topic = fresh("sinks");
    let admin = Admin::connect(cluster.bootstrap())?;
    admin.create(&topic, QUEUES, cluster.nodes)?;
    let bootstrap = cluster.bootstrap().to_owned();
    let log = as_sent(messages, fault.sent());
    let produced = AtomicBool::new(false);
    let progress: Vec<AtomicU64> = options.sinks.iter().map(|_| AtomicU64::new(0)).collect();
    if fault != Fault::Failover {
        produce(&bootstrap, &topic, QUEUES, &log, Duration::ZERO)?;
        produced.store(true, Ordering::SeqCst);
    }
    std::thread::scope(|scope| {
        let trials: Vec<_> = options
            .sinks
            .iter()
            .zip(&progress)
            .map(|(sink, progress)| {
                let trial = Trial {
                    executable: &options.executable,
                    system: options.system,
                    bootstrap: &bootstrap,
                    topic: &topic,
                    messages,
                    sink: *sink,
                    acknowledge: Acknowledge::After,
                    fault,
                    late: false,
                    produced: &produced,
                    progress,
                };
                scope.spawn(move || trial.run())
            })
            .collect();
        let led = (fault == Fault::Failover).then(|| {
            let sending = scope.spawn(|| produce(&bootstrap, &topic, QUEUES, &log, PACE));
            let outcome = fail_over(cluster, &admin, &topic, &progress, messages.len() as u64 / 5);
            let sent = sending.join().map_err(|_| ConsumerError::Panicked { what: "producer" });
            // Set also where something failed: the trials then end by their patience, and the error is told.
            produced.store(true, Ordering::SeqCst);
            outcome.and_then(|address| sent?.and_then(|()| cluster.restart(&address)))
        });
        let join = |trial: std::thread::ScopedJoinHandle<'_, Result<Outcome, ConsumerError>>| {
            trial.join().map_err(|_| ConsumerError::Panicked { what: "trial" })?
        };
        let outcomes: Result<Vec<Outcome>, ConsumerError> = trials.into_iter().map(join).collect();
        led.unwrap_or(Ok(()))?;
        outcomes
    })
}

/// Kills the leader of the first queue once every sink has so many deliveries, and gives its address.
fn fail_over(
    cluster: &mut Cluster,
    admin: &Admin,
    topic: &str,
    progress: &[AtomicU64],
    deliveries: u64,
) -> Result<String, ConsumerError> {
    wait_until("the first deliveries to every sink", &mut || {
        Ok(progress.iter().all(|one| one.load(Ordering::SeqCst) >= deliveries))
    })?;
    let address = admin.leader(topic)?;
    cluster.kill(&address)?;
    Ok(address)
}

/// One sink under one fault.
pub(crate) struct Trial<'a> {
    pub(crate) executable: &'a Path,
    pub(crate) system: System,
    pub(crate) bootstrap: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) messages: &'a [Message],
    pub(crate) sink: SinkKind,
    pub(crate) acknowledge: Acknowledge,
    pub(crate) fault: Fault,
    pub(crate) late: bool,
    pub(crate) produced: &'a AtomicBool,
    pub(crate) progress: &'a AtomicU64,
}

impl Trial<'_> {
    /// Runs it to its end, and counts.
    pub(crate) fn run(&self) -> Result<Outcome, ConsumerError> {
        let start = Instant::now();
        let folder = tempfile::Builder::new().prefix("mqassay-sink-").tempdir();
        let folder = folder.map_err(io_error("make a folder in", std::env::temp_dir()))?;
        let group = fresh(self.sink.name());
        let onlooker = Onlooker::connect(self.bootstrap, self.topic, QUEUES, &group)?;
        let scene = Scene { trial: self, group, database: folder.path().join("sink.sqlite"), onlooker };
        let (kills, reached) = scene.play()?;
        let effects = Effects::count(&scene.database, self.messages)?;
        Ok(Outcome {
            system: self.system.name(),
            sink: self.sink.name(),
            acknowledge: self.acknowledge.name(),
            fault: self.fault.name(),
            promise: promise(self.sink, self.fault),
            messages: self.messages.len() as u64,
            effects,
            kills,
            reached,
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

/// A trial under way.
struct Scene<'a> {
    trial: &'a Trial<'a>,
    group: String,
    database: PathBuf,
    onlooker: Onlooker,
}

impl Scene<'_> {
    /// How often a consumer was killed, and whether they reached the step at which they were to be.
    fn play(&self) -> Result<(u64, bool), ConsumerError> {
        let part = |share: u64| self.trial.messages.len() as u64 * share / 4;
        match self.trial.fault {
            Fault::None | Fault::ProducerRepeat | Fault::Reorder | Fault::Failover => {
                self.finish(&mut [self.start(None, None)?])?;
                Ok((0, true))
            }
            Fault::Redelivery => {
                self.finish(&mut [self.start(Some("a"), None)?])?;
                // It has been killed, and is a member for a while yet.
                self.onlooker.rewind()?;
                self.finish(&mut [self.start(Some("a"), None)?])?;
                Ok((1, true))
            }
            Fault::Kill(step) => self.kill_at(step),
            Fault::Rebalance => {
                let mut first = self.start(None, None)?;
                self.wait_for_deliveries(part(1), &mut first)?;
                let mut second = self.start(None, None)?;
                wait_until("the second consumer's assignment", &mut || {
                    first.must_live()?;
                    second.must_live()?;
                    Ok(second.was_assigned())
                })?;
                self.wait_for_deliveries(part(2), &mut first)?;
                drop(first);
                self.finish(&mut [second])?;
                Ok((1, true))
            }
            Fault::Zombie => {
                let mut first = self.start(None, None)?;
                self.wait_for_deliveries(part(1), &mut first)?;
                first.pause()?;
                let mut others = [self.start(None, None)?];
                self.finish(&mut others)?;
                first.resume()?;
                let [second] = others;
                self.finish(&mut [first, second])?;
                Ok((0, true))
            }
        }
    }

    fn kill_at(&self, step: Step) -> Result<(u64, bool), ConsumerError> {
        let deaths = if step == Step::Committed { DEATHS_AT_COMMIT } else { DEATHS };
        let deaths = if self.trial.acknowledge == Acknowledge::Before { DEATHS } else { deaths };
        let mut kills = 0;
        for pass in deaths {
            let death = Death { step, pass, late: self.trial.late };
            let mut consumer = self.start(Some("a"), Some(death))?;
            let mut died = false;
            wait_until("the consumer's death", &mut || {
                died = consumer.has_died()?;
                Ok(died || (consumer.is_idle() && self.is_done()?))
            })?;
            kills += u64::from(died);
        }
        self.finish(&mut [self.start(Some("a"), None)?])?;
        Ok((kills, kills > 0))
    }

    /// Starts a consumer; one with a name takes the place of the last of that name at once.
    fn start(&self, instance: Option<&str>, death: Option<Death>) -> Result<Consumer, ConsumerError> {
        let trial = self.trial;
        let takes_time = matches!(trial.fault, Fault::Rebalance | Fault::Zombie);
        let options = WorkerOptions {
            bootstrap: trial.bootstrap.to_owned(),
            topic: trial.topic.to_owned(),
            group: self.group.clone(),
            instance: instance.map(str::to_owned),
            database: self.database.clone(),
            sink: trial.sink,
            acknowledge: trial.acknowledge,
            commit_every: COMMIT_EVERY,
            work: if takes_time { WORK } else { Duration::ZERO },
            death,
        };
        Consumer::start(trial.executable, &options)
    }

    fn wait_for_deliveries(&self, count: u64, consumer: &mut Consumer) -> Result<(), ConsumerError> {
        wait_until("the first deliveries", &mut || {
            consumer.must_live()?;
            Ok(effects::deliveries(&self.database)? >= count)
        })
    }

    fn is_done(&self) -> Result<bool, ConsumerError> {
        Ok(self.trial.produced.load(Ordering::SeqCst) && self.onlooker.is_done()?)
    }

    /// Waits until everything is committed and every consumer waits for more, and ends the consumers.
    fn finish(&self, consumers: &mut [Consumer]) -> Result<(), ConsumerError> {
        wait_until("the end of the messages", &mut || {
            for consumer in consumers.iter_mut() {
                consumer.must_live()?;
            }
            if self.trial.fault == Fault::Failover {
                self.trial.progress.store(effects::deliveries(&self.database)?, Ordering::SeqCst);
            }
            // A consumer without queues of its own never says that it waits.
            let is_idle = consumers.iter().all(|consumer| consumer.is_idle());
            Ok(is_idle && self.is_done()?)
        })
    }
}
