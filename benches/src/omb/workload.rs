//! The workload: topics, partitions, messages, producers, subscriptions, rate and durations. Defaults are those of OMB's
//! `Workload` class; a field that it does not know is an error, as it is most likely misspelt.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Read, parse, value};
use crate::over_time::OverTime;
use crate::payload::STAMPED_BYTES_MINIMUM;
use crate::plan::{Acks, Flush, LoadPlan, PlanError};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Workload {
    name: Option<String>,
    topics: u32,
    partitions_per_topic: u32,
    key_distributor: Option<String>,
    message_size: usize,
    #[serde(default)]
    use_randomized_payloads: bool,
    #[serde(default)]
    random_bytes_ratio: f64,
    #[serde(default)]
    randomized_payload_pool_size: u32,
    payload_file: Option<PathBuf>,
    subscriptions_per_topic: u32,
    producers_per_topic: u32,
    consumer_per_subscription: u32,
    #[serde(default)]
    producer_rate: u64,
    #[serde(default, rename = "consumerBacklogSizeGB")]
    consumer_backlog_size_gb: f64,
    #[serde(default = "one")]
    backlog_drain_ratio: f64,
    test_duration_minutes: f64,
    #[serde(default = "one")]
    warmup_duration_minutes: f64,
}

/// The plan that a workload means, with remarks on what is done in another way.
pub(super) fn read(text: &str, path: &Path) -> Result<Read, PlanError> {
    let workload: Workload = parse(text, path)?;
    let mut remarks = Vec::new();
    let payload_file = workload.payload(path)?;
    workload.refuse(path)?;
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let seconds = workload.test_duration_minutes * 60.0;
    let load = OverTime {
        topics: workload.topics,
        subscriptions: workload.subscriptions_per_topic,
        records_per_second: workload.producer_rate,
        warm_up_seconds: workload.warmup_duration_minutes * 60.0,
        seconds,
        window_seconds: WINDOW_SECONDS.min(seconds),
        backlog_bytes: (workload.consumer_backlog_size_gb * GIB) as u64,
        linger_ms: LINGER_MS,
        batch_bytes: BATCH_BYTES,
        payload_file,
        bytes_maximum: BYTES_MAXIMUM,
    };
    workload.remark(&load, &mut remarks);
    let name = workload.name.clone().unwrap_or_else(|| stem.clone());
    let plan = LoadPlan {
        name: slug(&stem),
        title: name,
        systems: vec!["reference".to_owned()],
        nodes: 1,
        record_bytes: workload.message_size,
        queues: workload.partitions_per_topic,
        producers: workload.producers_per_topic,
        acks: Acks::All,
        idempotence: true,
        flush: Flush::Os,
        entropy_percent: if workload.use_randomized_payloads {
            (workload.random_bytes_ratio * 100.0).round() as u32
        } else {
            0
        },
        over_time: Some(load),
        ..LoadPlan::empty()
    };
    Ok(Read { plan, remarks, driver: None })
}

impl Workload {
    /// What cannot be honoured without figures that mean something else.
    fn refuse(&self, path: &Path) -> Result<(), PlanError> {
        let random = 0.0..=1.0;
        let checks = [
            (
                self.message_size >= STAMPED_BYTES_MINIMUM,
                format!(
                    "messageSize is {}: at least {STAMPED_BYTES_MINIMUM} bytes are needed, since every message carries its stamp and checksum",
                    self.message_size
                ),
            ),
            (random.contains(&self.random_bytes_ratio), "randomBytesRatio is not in 0..=1".to_owned()),
            (random.contains(&self.backlog_drain_ratio), "backlogDrainRatio is not in 0..=1".to_owned()),
            (self.consumer_per_subscription >= 1, "consumerPerSubscription is 0: nothing would be read".to_owned()),
            (
                self.consumer_backlog_size_gb == 0.0 || self.producer_rate > 0,
                "consumerBacklogSizeGB needs a producerRate: a backlog is not built while the rate is looked for"
                    .to_owned(),
            ),
            (
                self.consumer_backlog_size_gb * GIB / f64::from(self.subscriptions_per_topic.max(1))
                    <= BYTES_MAXIMUM as f64,
                format!(
                    "consumerBacklogSizeGB is {}: at most {} GiB of messages are written here",
                    self.consumer_backlog_size_gb,
                    BYTES_MAXIMUM >> 30
                ),
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err(value(path, reason)),
            None => Ok(()),
        }
    }

    /// The file that messages are filled from: looked for from here, from the workload's folder and from the one above it,
    /// which is where OMB's own workloads mean it.
    fn payload(&self, path: &Path) -> Result<Option<PathBuf>, PlanError> {
        let Some(file) = self.payload_file.as_ref().filter(|_| !self.use_randomized_payloads) else { return Ok(None) };
        let folders = path.ancestors().skip(1).take(2);
        let places = [file.clone()].into_iter().chain(folders.map(|folder| folder.join(file)));
        let Some(found) = places.into_iter().find(|place| place.is_file()) else {
            return Err(value(path, format!("payloadFile {} is not there", file.display())));
        };
        let length = std::fs::metadata(&found).map(|file| file.len()).unwrap_or(0);
        if length != self.message_size as u64 {
            let reason =
                format!("payloadFile {} has {length} bytes and messageSize is {}", file.display(), self.message_size);
            return Err(value(path, reason));
        }
        Ok(Some(found))
    }

    /// What is done in another way than OMB does it.
    fn remark(&self, load: &OverTime, remarks: &mut Vec<String>) {
        let mut put = |text: String| remarks.push(text);
        if self.producer_rate == 0 {
            put("producerRate 0: messages are sent as fast as the client takes them; OMB adjusts a rate until consumers keep up.".to_owned());
        }
        if self.consumer_per_subscription > 1 {
            put(format!(
                "consumerPerSubscription {}: each subscription reads with one consumer, which reads all of a topic's partitions.",
                self.consumer_per_subscription
            ));
        }
        if let Some(distributor) = self.key_distributor.as_deref().filter(|name| *name != "NO_KEY") {
            put(format!(
                "keyDistributor {distributor}: messages have no key; partitions have their turn one after the other."
            ));
        }
        if self.use_randomized_payloads && self.randomized_payload_pool_size > 1 {
            put("randomizedPayloadPoolSize: there is one payload, of which every message's stamp and checksum differ."
                .to_owned());
        }
        if load.payload_file.is_some() {
            put("payloadFile: the first 44 and the last 4 bytes of each message are its stamp and its checksum."
                .to_owned());
        }
        if load.backlog_bytes > 0 && self.backlog_drain_ratio < 1.0 {
            put("backlogDrainRatio: sending goes on for testDurationMinutes after the backlog is there, drained or not.".to_owned());
        }
        let bytes = load.records_per_second as f64 * (load.warm_up_seconds + load.seconds) * self.message_size as f64;
        if bytes > BYTES_MAXIMUM as f64 {
            put(format!(
                "The load would write {:.0} GiB: it ends early, after {} GiB.",
                bytes / GIB,
                BYTES_MAXIMUM >> 30
            ));
        }
        put(format!(
            "Producers: acks=all, idempotent, linger.ms {LINGER_MS}, batches of at most {BATCH_BYTES} bytes, unless a driver file says otherwise."
        ));
    }
}

/// A name of a-z, 0-9 and -.
fn slug(text: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let slug: String = text.chars().map(letter).collect();
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "workload".to_owned() } else { slug.to_owned() }
}

fn one() -> f64 {
    1.0
}

/// OMB's charts place windows ten seconds apart.
const WINDOW_SECONDS: f64 = 10.0;
const GIB: f64 = (1u64 << 30) as f64;
const BYTES_MAXIMUM: u64 = 8 << 30;
const LINGER_MS: u32 = 1;
const BATCH_BYTES: u32 = 524_288;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
# A comment, as OMB's files begin with.
name: two topics, three readers
topics: 2
partitionsPerTopic: 4
messageSize: 128
useRandomizedPayloads: true
randomBytesRatio: 0.5
randomizedPayloadPoolSize: 10
subscriptionsPerTopic: 3
consumerPerSubscription: 2
producersPerTopic: 1
producerRate: 5000
consumerBacklogSizeGB: 0
testDurationMinutes: 1
";

    fn fault(text: &str) -> String {
        let read = read(text, Path::new("small.yaml")).and_then(|read| read.plan.check("small.yaml").map(|()| read));
        read.unwrap_err().to_string()
    }

    #[test]
    fn a_workload_becomes_a_plan_and_says_what_is_done_in_another_way() {
        let found = read(SMALL, Path::new("w/My small_one.yaml")).unwrap();
        found.plan.check("w").unwrap();
        assert_eq!(
            (found.plan.name.as_str(), found.plan.title.as_str()),
            ("my-small-one", "two topics, three readers")
        );
        assert_eq!((found.plan.queues, found.plan.producers, found.plan.record_bytes), (4, 1, 128));
        let load = found.plan.over_time.clone().unwrap();
        assert_eq!((load.topics, load.subscriptions, load.records_per_second), (2, 3, 5_000));
        assert_eq!((load.warm_up_seconds, load.seconds, load.window_seconds), (60.0, 60.0, 10.0));
        assert_eq!((found.plan.entropy_percent, load.backlog_bytes), (50, 0));
        assert!(found.remarks[0].contains("consumerPerSubscription 2"), "{:?}", found.remarks);
        assert!(found.remarks[1].contains("randomizedPayloadPoolSize"), "{:?}", found.remarks);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let cases = [
            ("messageSize: 128", "messageSize: 10", "at least 64 bytes"),
            ("topics: 2", "topic: 2", "topic"),
            ("producerRate: 5000", "producerRate: fast", "fast"),
            ("randomBytesRatio: 0.5", "randomBytesRatio: 2", "randomBytesRatio"),
            ("consumerPerSubscription: 2", "consumerPerSubscription: 0", "nothing would be read"),
            ("consumerBacklogSizeGB: 0", "consumerBacklogSizeGB: 512", "at most 8 GiB"),
            ("topics: 2", "topics: 100000", "256 producers and consumers"),
            ("testDurationMinutes: 1", "testDurationMinutes: 0", "seconds"),
        ];
        for (from, to, named) in cases {
            assert!(SMALL.contains(from), "{from}");
            let message = fault(&SMALL.replacen(from, to, 1));
            assert!(message.contains("small.yaml") && message.contains(named), "{to}: {message}");
        }
        let unthrottled = SMALL.replace("producerRate: 5000", "producerRate: 0");
        assert!(read(&unthrottled, Path::new("a.yaml")).unwrap().remarks[0].starts_with("producerRate 0"));
        let message = fault(&unthrottled.replace("SizeGB: 0", "SizeGB: 1"));
        assert!(message.contains("needs a producerRate"), "{message}");
    }

    #[test]
    fn a_payload_file_is_found_beside_the_workload_and_must_have_the_messages_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.yaml");
        std::fs::write(folder.path().join("payload.data"), [7; 128]).unwrap();
        let text = SMALL.replace("useRandomizedPayloads: true", "payloadFile: payload.data");
        let found = read(&text, &path).unwrap();
        assert_eq!(found.plan.over_time.unwrap().payload_file, Some(folder.path().join("payload.data")));
        let message = read(&text.replace("128", "256"), &path).unwrap_err().to_string();
        assert!(message.contains("has 128 bytes and messageSize is 256"), "{message}");
        let message = read(&text.replace("payload.data", "gone.data"), &path).unwrap_err().to_string();
        assert!(message.contains("gone.data is not there"), "{message}");
    }
}
