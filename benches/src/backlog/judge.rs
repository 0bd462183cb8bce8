//! Names the cause of a backlog from what can be seen from outside: end offsets and committed offsets over a window, who
//! owns each queue, and how fast the log grew before the backlog began. A function of its arguments alone.
//!
//! The reasoning. A queue that its owner does not move for a whole window, in which it should have moved by many records,
//! holds a message that is tried again and again. Else, with a growing lag, the consumers work at their full rate; the
//! question is what changed. The log tells how many records a second used to arrive while the group kept up. Where the
//! consumers' rate of today would still be enough for that, the producer has become faster than they are; where it would
//! not, they have become weaker than they were. No threshold decides between the two but that rate itself.

use serde::Serialize;

/// A queue over the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueWindow {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub queue: i32,
    /// End offsets at the window's beginning and end.
    pub ends: [i64; 2],
    /// Committed offsets at the window's beginning and end.
    pub committed: [i64; 2],
    /// The largest step that the committed offset made between two looks, records.
    pub largest_step: i64,
    /// The member that owned it at the end, where that is known.
    pub owner: Option<String>,
}

impl QueueWindow {
    fn lag(&self, at: usize) -> i64 {
        (self.ends[at] - self.committed[at]).max(0)
    }

    fn stood(&self) -> bool {
        self.committed[0] == self.committed[1] && self.largest_step == 0
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Window {
    /// Its length.
    pub seconds: f64,
    /// The queues of the group's topics.
    pub queues: Vec<QueueWindow>,
    /// Members at the end; none where the cluster does not say.
    pub members: Option<u32>,
    /// Members that came or went between two looks.
    pub member_changes: u32,
    /// Records a second that used to arrive before the backlog began; none where the log does not reach back so far.
    pub usual_rate: Option<f64>,
}

/// Why messages pile up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// They do not: the lag does not grow.
    NoBacklog,
    /// Nobody consumes.
    NoConsumer,
    /// A message is tried again for ever, and what is behind it waits.
    PoisonMessage,
    /// The producer has become faster than the consumers are.
    FasterProducer,
    /// The consumers have become weaker than they were.
    WeakConsumer,
    /// The lag grows, and what was seen does not tell why.
    Unknown,
}

impl Cause {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Cause::NoBacklog => "no-backlog",
            Cause::NoConsumer => "no-consumer",
            Cause::PoisonMessage => "poison-message",
            Cause::FasterProducer => "faster-producer",
            Cause::WeakConsumer => "weak-consumer",
            Cause::Unknown => "unknown",
        }
    }

    /// What to do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Cause::NoBacklog => "nothing",
            Cause::NoConsumer => "start consumers, and see why they ended",
            Cause::PoisonMessage => {
                "give up after a few tries: put the message aside (a dead letter topic) and go on with the next"
            }
            Cause::FasterProducer => "more queues, and as many consumers; beyond the number of queues consumers idle",
            Cause::WeakConsumer => "make processing faster, or process with more threads in each consumer",
            Cause::Unknown => "look longer, or say what the usual rate is",
        }
    }
}

/// The cause, and what decided it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The cause.
    pub cause: Cause,
    /// What decided it, a sentence each.
    pub evidence: Vec<String>,
    /// Records that wait at the window's end.
    pub lag: i64,
    /// By how much that grew a second.
    pub lag_growth_per_second: f64,
    /// Records a second that arrived.
    pub produced_per_second: f64,
    /// Records a second that were consumed.
    pub consumed_per_second: f64,
    /// What arrived a second before the backlog began.
    pub usual_per_second: Option<f64>,
    /// Seconds that a consumer takes for a record while it has some to take; none where it took none.
    pub processing_seconds: Option<f64>,
    /// Queues whose next message is tried again and again: topic, queue, offset.
    pub stuck: Vec<(String, i32, i64)>,
}

/// A consumer that lives and has records in front of it is expected to take this many in the window, and takes none: were
/// it a matter of chance, with records at random moments, that would be one case in twenty thousand.
const DUE_RECORDS: f64 = 10.0;

/// Names the cause.
pub fn judge(window: &Window) -> Diagnosis {
    let sum = |of: &dyn Fn(&QueueWindow) -> i64| window.queues.iter().map(of).sum::<i64>();
    let lags = [sum(&|queue| queue.lag(0)), sum(&|queue| queue.lag(1))];
    let produced = sum(&|queue| queue.ends[1] - queue.ends[0]) as f64 / window.seconds;
    let consumed = sum(&|queue| queue.committed[1] - queue.committed[0]) as f64 / window.seconds;
    let busy = busy_owners(window);
    let mut diagnosis = Diagnosis {
        cause: Cause::Unknown,
        evidence: Vec::new(),
        lag: lags[1],
        lag_growth_per_second: (lags[1] - lags[0]) as f64 / window.seconds,
        produced_per_second: produced,
        consumed_per_second: consumed,
        usual_per_second: window.usual_rate,
        processing_seconds: (consumed > 0.0 && busy > 0).then(|| f64::from(busy) / consumed),
        stuck: Vec::new(),
    };
    diagnosis.cause = cause(window, lags, &mut diagnosis);
    diagnosis
}

fn cause(window: &Window, lags: [i64; 2], diagnosis: &mut Diagnosis) -> Cause {
    let say = |diagnosis: &mut Diagnosis, text: String| diagnosis.evidence.push(text);
    let (seconds, produced, consumed) = (window.seconds, diagnosis.produced_per_second, diagnosis.consumed_per_second);
    if lags[1] == 0 {
        say(diagnosis, "everything is consumed".to_owned());
        return Cause::NoBacklog;
    }
    if window.members.unwrap_or(0) == 0 && consumed == 0.0 {
        say(diagnosis, format!("none of {} records is taken, and the cluster names no member of the group", lags[1]));
        if window.members.is_none() {
            say(diagnosis, "members of the newer protocol (KIP-848) cannot be seen this way: look for them".to_owned());
        }
        return Cause::NoConsumer;
    }
    let stuck = stuck(window, diagnosis);
    if !stuck.is_empty() {
        for queue in &stuck {
            let owner = queue.owner.as_deref().map_or(String::new(), |owner| format!(", though {owner} has it"));
            say(
                diagnosis,
                format!(
                    "{} {} stands at offset {} for {seconds:.1} s with {} records waiting{owner}",
                    queue.topic,
                    queue.queue,
                    queue.committed[1],
                    queue.lag(1)
                ),
            );
        }
        if window.member_changes > 0 {
            say(diagnosis, format!("members came or went {} times meanwhile: it may kill them", window.member_changes));
        }
        diagnosis.stuck = stuck.iter().map(|one| (one.topic.clone(), one.queue, one.committed[1])).collect();
        return Cause::PoisonMessage;
    }
    // Commits come in steps, so that a lag of one step more is no growth.
    let step: i64 = window.queues.iter().map(|queue| queue.largest_step).sum();
    if lags[1] - lags[0] <= step {
        let change = lags[1] - lags[0];
        say(diagnosis, format!("the lag changed by {change} in {seconds:.1} s, and commits come in steps of {step}"));
        return Cause::NoBacklog;
    }
    let gap = produced - consumed;
    say(diagnosis, format!("{produced:.0} records a second arrive and {consumed:.0} are consumed: {gap:.0} more wait"));
    if let Some(processing) = diagnosis.processing_seconds {
        say(diagnosis, format!("a consumer takes {:.2} ms for a record", processing * 1e3));
    }
    let Some(usual) = window.usual_rate else {
        say(diagnosis, "the log does not reach back before the backlog, so that nothing tells what changed".to_owned());
        return Cause::Unknown;
    };
    say(diagnosis, format!("before the backlog {usual:.0} records a second arrived, and were consumed"));
    if consumed >= usual {
        say(
            diagnosis,
            format!("the consumers still take more than that; {:.1} times as much arrives", produced / usual),
        );
        Cause::FasterProducer
    } else {
        say(diagnosis, format!("the consumers no longer take that: {:.0} %", 100.0 * consumed / usual));
        Cause::WeakConsumer
    }
}

/// Queues that stood although much was due.
fn stuck<'a>(window: &'a Window, diagnosis: &Diagnosis) -> Vec<&'a QueueWindow> {
    let moved: Vec<&QueueWindow> = window.queues.iter().filter(|queue| !queue.stood()).collect();
    // A queue's share of what the group is known to manage: of old, else now where others move, else of what arrives.
    let rate = match (window.usual_rate, moved.len()) {
        (Some(usual), _) => usual / window.queues.len() as f64,
        (None, 0) => diagnosis.produced_per_second / window.queues.len() as f64,
        (None, count) => diagnosis.consumed_per_second / count as f64,
    };
    let due = |queue: &QueueWindow| (rate * window.seconds).min(queue.lag(0) as f64 + rate * window.seconds);
    let waits = |queue: &QueueWindow| queue.lag(0) > 0 && queue.lag(1) > 0;
    window.queues.iter().filter(|queue| queue.stood() && waits(queue) && due(queue) >= DUE_RECORDS).collect()
}

/// Members that own a queue with records waiting.
fn busy_owners(window: &Window) -> u32 {
    let waiting = window.queues.iter().filter(|queue| queue.lag(0) > 0 && queue.lag(1) > 0);
    let mut owners: Vec<&str> = waiting.filter_map(|queue| queue.owner.as_deref()).collect();
    owners.sort_unstable();
    owners.dedup();
    owners.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two queues of two members over ten seconds: (produced, consumed, lag at the beginning) of each.
    fn window(queues: [(i64, i64, i64); 2], usual_rate: Option<f64>) -> Window {
        let queue = |(number, (produced, consumed, lag)): (usize, (i64, i64, i64))| QueueWindow {
            topic: "t".to_owned(),
            queue: number as i32,
            ends: [1_000 + lag, 1_000 + lag + produced],
            committed: [1_000, 1_000 + consumed],
            largest_step: consumed.min(50),
            owner: Some(format!("m{number}")),
        };
        let queues = queues.into_iter().enumerate().map(queue).collect();
        Window { seconds: 10.0, queues, members: Some(2), member_changes: 0, usual_rate }
    }

    #[test]
    fn each_cause_is_told_by_what_changed() {
        let cases = [
            // Kept up with 200 a second; now 500 arrive and 300 are consumed.
            ([(2_500, 1_500, 500), (2_500, 1_500, 500)], Some(200.0), Cause::FasterProducer),
            // Kept up with 200 a second; 200 arrive, and only 80 are consumed.
            ([(1_000, 400, 500), (1_000, 400, 500)], Some(200.0), Cause::WeakConsumer),
            // One queue stands, the other is consumed as it comes.
            ([(1_000, 0, 500), (1_000, 1_000, 0)], Some(200.0), Cause::PoisonMessage),
            ([(1_000, 0, 500), (1_000, 1_000, 0)], None, Cause::PoisonMessage),
            // Both stand.
            ([(1_000, 0, 500), (1_000, 0, 500)], Some(200.0), Cause::PoisonMessage),
            ([(1_000, 1_000, 40), (1_000, 990, 20)], Some(200.0), Cause::NoBacklog),
            ([(1_000, 1_000, 0), (1_000, 1_000, 0)], Some(200.0), Cause::NoBacklog),
            // It drains.
            ([(100, 600, 5_000), (100, 600, 5_000)], Some(200.0), Cause::NoBacklog),
            ([(2_500, 1_500, 500), (2_500, 1_500, 500)], None, Cause::Unknown),
            // Too little was due for a queue that stands to mean anything.
            ([(3, 0, 2), (3, 3, 0)], Some(0.6), Cause::NoBacklog),
        ];
        for (queues, usual, expected) in cases {
            let found = judge(&window(queues, usual));
            assert_eq!(found.cause, expected, "{queues:?} {usual:?}: {:?}", found.evidence);
            assert!(!found.evidence.is_empty());
        }
    }

    #[test]
    fn a_group_without_members_is_no_poison() {
        for (members, produced) in [(Some(0), 1_000), (None, 1_000), (None, 0)] {
            let mut seen = window([(produced, 0, 500), (produced, 0, 500)], Some(200.0));
            seen.members = members;
            seen.queues.iter_mut().for_each(|queue| queue.owner = None);
            assert_eq!(judge(&seen).cause, Cause::NoConsumer, "{members:?}");
        }
    }

    #[test]
    fn the_stuck_offset_and_the_processing_time_are_told() {
        let found = judge(&window([(1_000, 0, 500), (1_000, 1_000, 0)], Some(200.0)));
        assert_eq!(found.stuck, [("t".to_owned(), 0, 1_000)]);
        let found = judge(&window([(1_000, 400, 500), (1_000, 400, 500)], Some(200.0)));
        // Two members take 80 a second together.
        assert_eq!(found.processing_seconds, Some(0.025));
    }
}
