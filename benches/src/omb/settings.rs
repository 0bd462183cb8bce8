//! A driver's settings, as far as they fit a plan: OMB's Kafka driver keeps them as properties within its YAML. What else is
//! in there is remarked on by name, so that nobody takes it for honoured.

use std::path::Path;

use serde::Deserialize;

use super::{Read, parse, value};
use crate::plan::{Acks, Flush, PlanError};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    name: String,
    replication_factor: Option<u32>,
    #[serde(default)]
    topic_config: String,
    #[serde(default)]
    common_config: String,
    #[serde(default)]
    producer_config: String,
    #[serde(default)]
    consumer_config: String,
}

/// Puts the settings into the plan.
pub(super) fn apply(text: &str, path: &Path, read: &mut Read) -> Result<(), PlanError> {
    let settings: Settings = parse(text, path)?;
    read.driver = Some(settings.name.clone());
    if let Some(copies) = settings.replication_factor {
        if !(1..=3).contains(&copies) {
            return Err(value(path, format!("replicationFactor is {copies}: 1 to 3 copies are kept here")));
        }
        read.plan.nodes = copies;
    }
    let sections = [
        ("producerConfig", &settings.producer_config),
        ("topicConfig", &settings.topic_config),
        ("commonConfig", &settings.common_config),
        ("consumerConfig", &settings.consumer_config),
    ];
    let mut ignored = Vec::new();
    for (section, text) in sections {
        for (name, set) in properties(text) {
            if !honour(section, name, set, read).map_err(|reason| value(path, format!("{section} {name}: {reason}")))? {
                ignored.push(format!("{section} {name}={set}"));
            }
        }
    }
    // A producer that asks for idempotence gets it only with acks=all, as Kafka's does.
    read.plan.idempotence &= read.plan.acks == Acks::All;
    if !ignored.is_empty() {
        read.remarks.push(format!("Not honoured of the driver's settings: {}.", ignored.join(", ")));
    }
    Ok(())
}

/// Puts one setting into the plan; false where there is no place for it.
fn honour(section: &str, name: &str, set: &str, read: &mut Read) -> Result<bool, String> {
    let Some(load) = &mut read.plan.over_time else { return Ok(false) };
    let number = || set.parse::<u32>().map_err(|_| format!("{set} is not a whole number"));
    match (section, name) {
        ("producerConfig", "acks") => {
            read.plan.acks = match set {
                "all" | "-1" => Acks::All,
                "1" => Acks::Leader,
                _ => return Err(format!("{set} is not honoured: without acknowledgements nothing can be verified")),
            };
        }
        ("producerConfig", "linger.ms") => load.linger_ms = number()?,
        ("producerConfig", "batch.size") => load.batch_bytes = number()?.clamp(1, BATCH_BYTES_MAXIMUM),
        ("producerConfig", "enable.idempotence") => read.plan.idempotence = set == "true",
        ("topicConfig", "flush.messages") if set == "1" => read.plan.flush = Flush::Ack,
        // They are so here in any case.
        ("consumerConfig", "auto.offset.reset") => return Ok(set == "earliest"),
        ("consumerConfig", "enable.auto.commit") => return Ok(set == "false"),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Name and value of each line, as Java's properties have them; comments begin with # or !.
fn properties(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_setting = |line: &&str| !line.is_empty() && !line.starts_with(['#', '!']);
    text.lines().map(str::trim).filter(is_setting).filter_map(|line| {
        let (name, set) = line.split_once(['=', ':'])?;
        Some((name.trim(), set.trim()))
    })
}

/// A batch above this may be larger than what brokers take by default, 1 MB with its headers.
const BATCH_BYTES_MAXIMUM: u32 = 900_000;

#[cfg(test)]
mod tests {
    use super::super::workload;
    use super::*;

    const DRIVER: &str = "
name: Kafka, synced
driverClass: some.Driver
replicationFactor: 3
topicConfig: |
  # every message
  flush.messages=1
  min.insync.replicas=2
producerConfig: |
  acks=1
  linger.ms = 7
  batch.size=1048576
consumerConfig: |
  auto.offset.reset=earliest
  max.partition.fetch.bytes=10485760
";

    fn sample() -> Read {
        let text = "topics: 1\npartitionsPerTopic: 1\nmessageSize: 100\nsubscriptionsPerTopic: 1\n\
                    consumerPerSubscription: 1\nproducersPerTopic: 1\nproducerRate: 1000\ntestDurationMinutes: 1\n";
        workload::read(text, Path::new("w.yaml")).unwrap()
    }

    #[test]
    fn settings_that_fit_are_put_into_the_plan_and_the_others_are_named() {
        let mut read = sample();
        apply(DRIVER, Path::new("d.yaml"), &mut read).unwrap();
        assert_eq!(read.driver.as_deref(), Some("Kafka, synced"));
        assert_eq!(
            (read.plan.acks, read.plan.idempotence, read.plan.flush, read.plan.nodes),
            (Acks::Leader, false, Flush::Ack, 3)
        );
        let load = read.plan.over_time.as_ref().unwrap();
        assert_eq!((load.linger_ms, load.batch_bytes), (7, 900_000));
        let told = read.remarks.last().unwrap();
        assert!(told.contains("min.insync.replicas=2") && told.contains("max.partition.fetch.bytes"), "{told}");
        assert!(!told.contains("auto.offset.reset"), "{told}");
    }

    #[test]
    fn what_would_change_the_meaning_of_figures_is_refused() {
        for (from, to, named) in
            [("acks=1", "acks=0", "acks"), ("= 7", "= soon", "soon"), ("Factor: 3", "Factor: 5", "5")]
        {
            let error = apply(&DRIVER.replace(from, to), Path::new("d.yaml"), &mut sample()).unwrap_err().to_string();
            assert!(error.contains("d.yaml") && error.contains(named), "{error}");
        }
    }
}
