//! What brokers offer beside plain queues: retry, timed messages, query, transactions, trace, filters. The same few messages
//! are sent to each system by the nearest means that it has, every delivery is noted, and one pure judgement says whether the
//! feature was there (`judge`). Odd messages are the ones that a feature singles out.
//! Not here: load, and how well a feature works under faults.

mod amqp;
pub(crate) mod java;
mod kafka;

use std::time::{Duration, Instant};

use crate::{BenchError, Protocol, SystemTarget};

/// A feature that the claim names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// A message that a consumer refuses is delivered again, and the others go on.
    Retry,
    /// A message is delivered only when its time has come.
    Timed,
    /// The broker finds messages by a key.
    Query,
    /// Messages are visible when their transaction is committed, and never when it is rolled back.
    Transaction,
    /// The broker asks the producer what became of a transaction that was left open.
    CheckBack,
    /// The broker's system tells of each message when it was sent and when it was consumed.
    Trace,
    /// A consumer that asks for a tag gets no other messages.
    Filter,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 7] = [
        Feature::Retry,
        Feature::Timed,
        Feature::Query,
        Feature::Transaction,
        Feature::CheckBack,
        Feature::Trace,
        Feature::Filter,
    ];

    /// Its name in plans and results.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Retry => "retry",
            Feature::Timed => "timed",
            Feature::Query => "query",
            Feature::Transaction => "transaction",
            Feature::CheckBack => "check-back",
            Feature::Trace => "trace",
            Feature::Filter => "filter",
        }
    }

    /// How many deliveries of a message there must be at least and at most, and not before how many milliseconds.
    fn expects(self, message: u32) -> (u32, u32, i64) {
        let is_odd = message % 2 == 1;
        match (self, is_odd) {
            (Feature::Retry, true) => (2, u32::MAX, 0),
            (Feature::Timed, _) => (1, 1, DELAY_MS - TIMER_PRECISION_MS),
            (Feature::Query | Feature::Filter, true)
            | (Feature::Retry | Feature::Transaction | Feature::CheckBack, false) => (1, 1, 0),
            (Feature::Query | Feature::Filter, false) | (Feature::Transaction | Feature::CheckBack, true) => (0, 0, 0),
            // Sent and consumed.
            (Feature::Trace, _) => (2, u32::MAX, 0),
        }
    }

    /// How long deliveries may take once consumers are there.
    fn patience(self) -> Duration {
        match self {
            // RocketMQ asks every 30 s, and only for what is older than 6 s.
            Feature::CheckBack => Duration::from_secs(50),
            _ => Duration::from_secs(25),
        }
    }
}

/// Message `number` was delivered so long after it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Which message, counted from 0.
    pub message: u32,
    /// Milliseconds after its sending.
    pub after_ms: i64,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether the feature did what it is for.
    pub works: bool,
    /// What was seen, in a sentence.
    pub told: String,
}

/// Tries a feature on a system. Fails with `Unsupported` where the system has nothing that comes near it.
pub fn run(target: &SystemTarget, feature: Feature) -> Result<Found, BenchError> {
    let mut source: Box<dyn Deliveries> = match &target.protocol {
        Protocol::Rocketmq { class_path } => java::rocketmq(target, class_path, feature)?,
        Protocol::Kafka => kafka::start(target, feature)?,
        Protocol::Amqp { .. } => amqp::start(target, feature)?,
    };
    let (began, mut last) = (Instant::now(), Instant::now());
    let mut seen = Vec::new();
    // When all is there, a little longer, so that what is too much has its chance to come.
    while began.elapsed() < feature.patience() && !(is_enough(feature, &seen) && last.elapsed() > QUIET) {
        match source.next(POLL) {
            Ok(Some(delivery)) => {
                seen.push(delivery);
                last = Instant::now();
            }
            Ok(None) => {}
            Err(refused) => return Ok(Found { works: false, told: format!("refused: {refused}") }),
        }
    }
    Ok(judge(feature, &seen))
}

/// Where deliveries come from.
trait Deliveries {
    /// The next, waited for at most so long; an error is the system's refusal.
    fn next(&mut self, patience: Duration) -> Result<Option<Delivery>, String>;
}

fn count(seen: &[Delivery], message: u32) -> u32 {
    seen.iter().filter(|one| one.message == message).count() as u32
}

fn is_enough(feature: Feature, seen: &[Delivery]) -> bool {
    (0..MESSAGES).all(|message| count(seen, message) >= feature.expects(message).0)
}

/// Whether these deliveries are what the feature promises.
fn judge(feature: Feature, seen: &[Delivery]) -> Found {
    let (mut missing, mut surplus, mut early) = (0, 0, 0);
    for message in 0..MESSAGES {
        let (at_least, at_most, not_before_ms) = feature.expects(message);
        let found = count(seen, message);
        missing += u32::from(found < at_least);
        surplus += u32::from(found > at_most);
        early += u32::from(seen.iter().any(|one| one.message == message && one.after_ms < not_before_ms));
    }
    let stray = seen.iter().filter(|one| one.message >= MESSAGES).count();
    let works = missing == 0 && surplus == 0 && early == 0 && stray == 0;
    let told = format!(
        "{} deliveries of {MESSAGES} messages: {missing} too seldom, {surplus} too often, {early} too early",
        seen.len()
    );
    Found { works, told }
}

/// The number and the time of sending that a message's body has.
fn delivery(body: &[u8]) -> Option<Delivery> {
    let text = std::str::from_utf8(body).ok()?;
    let (number, sent_ms) = text.split_once(' ')?;
    Some(Delivery { message: number.parse().ok()?, after_ms: wall_ms() - sent_ms.parse::<i64>().ok()? })
}

fn body(message: u32) -> String {
    format!("{message} {}", wall_ms())
}

fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

const MESSAGES: u32 = 20;
/// By how much timed messages are put off.
const DELAY_MS: i64 = 3_000;
/// RocketMQ's timer rounds to whole seconds.
const TIMER_PRECISION_MS: i64 = 1_000;
const POLL: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    /// What a system with the feature delivers.
    fn perfect(feature: Feature) -> Vec<Delivery> {
        let of = |message| {
            let (at_least, _, not_before_ms) = feature.expects(message);
            (0..at_least).map(move |_| Delivery { message, after_ms: not_before_ms + 10 })
        };
        (0..MESSAGES).flat_map(of).collect()
    }

    #[test]
    fn a_feature_works_only_where_every_message_is_as_it_should_be() {
        for feature in Feature::ALL {
            assert!(judge(feature, &perfect(feature)).works, "{feature:?}");
            assert!(is_enough(feature, &perfect(feature)));
            assert!(!judge(feature, &[]).works, "{feature:?} with nothing delivered");
            let mut stray = perfect(feature);
            stray.push(Delivery { message: MESSAGES, after_ms: 5_000 });
            assert!(!judge(feature, &stray).works, "{feature:?} with a message that nobody sent");
        }
        // What a broker without the feature does: it delivers every message once, at once.
        let plain: Vec<Delivery> = (0..MESSAGES).map(|message| Delivery { message, after_ms: 5 }).collect();
        for feature in Feature::ALL {
            assert!(!judge(feature, &plain).works, "{feature:?} on plain queues");
        }
    }

    #[test]
    fn a_body_says_which_message_it_is_and_when_it_was_sent() {
        let found = delivery(body(7).as_bytes()).unwrap();
        assert_eq!(found.message, 7);
        assert!((0..5_000).contains(&found.after_ms), "{found:?}");
        assert_eq!(delivery(b"seven now"), None);
    }
}
