//! `mqassay check`: judges a history file, whoever made it, or the output of Kafka's verifiable clients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::artifact::folder::read_plan;
use mqassay_harness::check::{self, Context, TopicContext, Verdict};
use mqassay_harness::history::open::read_file;
use mqassay_harness::history::{Call, History, Mark};
use mqassay_harness::import::verifiable::{self, Assumed};
use mqassay_harness::sim::clock::EPOCH_MS;
use serde::Serialize;

use crate::arguments::{setting, settings};
use crate::exit::{Exit, Failure};
use crate::progress::tell;
use crate::results::json_line;

/// Settings that `--settings` takes beside the topics' own.
const RUN_SETTINGS: [&str; 7] =
    ["acks", "attempts", "idempotent", "in-flight", "record-bytes-maximum", "replication", "wall-start-ms"];
const TOPIC_SETTINGS: [&str; 4] = ["flush", "layout", "retention-bytes", "retention-ms"];
/// Settings of producers, which a history tells by itself.
const IMPORT_ONLY: [&str; 3] = ["acks", "attempts", "idempotent"];

/// Largest record that Kafka takes by default (`message.max.bytes`), in bytes.
const RECORD_BYTES_DEFAULT: u64 = 1_048_588;

/// Arguments of `mqassay check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A history: JSON lines or binary, told apart by content
    #[arg(value_name = "HISTORY", required_unless_present_any = ["producer", "consumer"], conflicts_with_all = ["producer", "consumer"])]
    history: Option<PathBuf>,
    /// Output of Kafka's VerifiableProducer; may be given several times
    #[arg(long, value_name = "FILE", num_args = 1..)]
    producer: Vec<PathBuf>,
    /// Output of Kafka's VerifiableConsumer, run with --verbose; may be given several times
    #[arg(long, value_name = "FILE", num_args = 1..)]
    consumer: Vec<PathBuf>,
    /// The consumers together read everything to the end: what was acknowledged and is not there is unseen
    #[arg(long, requires = "consumer")]
    read_all: bool,
    /// What the run was made with: flush, layout, retention-ms, retention-bytes, replication, in-flight, …
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, num_args = 1.., conflicts_with = "plan")]
    settings: Vec<(String, String)>,
    /// The plan that the run was made from, in place of settings
    #[arg(long, value_name = "FILE", requires = "history")]
    plan: Option<PathBuf>,
    /// One JSON line on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    history: String,
    operations: u64,
    marks: u64,
    verdict: VerdictKind,
    anomalies: BTreeMap<String, u64>,
    allowed: BTreeMap<String, u64>,
    findings: &'a [check::Finding],
    unjudged: &'a [check::Unjudged],
}

/// Judges and exits by the verdict.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let named = Named::of(settings(&arguments.settings), arguments.history.is_none())?;
    let (history, context) = match &arguments.history {
        Some(path) => {
            let history = read_file(path).map_err(Failure::usage)?;
            let context = match &arguments.plan {
                Some(plan) => planned(plan)?,
                None => named.context(&history, true)?,
            };
            (history, context)
        }
        None => {
            let assumed = named.assumed(arguments.read_all)?;
            let history = verifiable::import(&arguments.producer, &arguments.consumer, assumed);
            let history = history.map_err(Failure::usage)?;
            let context = named.context(&history, false)?;
            (history, context)
        }
    };
    let verdict = check::judge(&history, &context);
    if arguments.json {
        tell(json_line(&line(arguments, &history, &verdict))?.trim_end());
    } else {
        print(&history, &verdict);
    }
    // The process ends here: giving millions of operations back one by one would only take time.
    std::mem::forget(history);
    Ok(Exit::from(verdict.kind))
}

fn planned(path: &Path) -> Result<Context, Failure> {
    let plan = read_plan(path).map_err(Failure::usage)?;
    Ok(Context::of_plan(&plan).with_wall_start_ms(EPOCH_MS))
}

fn line<'a>(arguments: &Arguments, history: &History, verdict: &'a Verdict) -> Line<'a> {
    let path = arguments.history.as_ref().map(|path| path.display().to_string());
    Line {
        history: path.unwrap_or_else(|| history.header.title.clone()),
        operations: history.operations.len() as u64,
        marks: history.marks.len() as u64,
        verdict: verdict.kind,
        anomalies: verdict.violations(),
        allowed: verdict.allowed(),
        findings: &verdict.findings,
        unjudged: &verdict.unjudged,
    }
}

fn print(history: &History, verdict: &Verdict) {
    let kind = match verdict.kind {
        VerdictKind::Valid => "valid",
        VerdictKind::Unknown => "unknown",
        VerdictKind::Invalid => "INVALID",
    };
    let operations = history.operations.len();
    tell(&format!("{kind}: {}, {operations} operations, {} marks", history.header.title, history.marks.len()));
    for finding in &verdict.findings {
        let permitted = if finding.allowed.is_some() { "permitted" } else { "violation" };
        tell(&format!("{permitted}: {} × {}: {}", finding.count, finding.anomaly.name(), finding.explanation));
        if let Some(allowed) = &finding.allowed {
            tell(&format!("  permitted because: {} ({})", allowed.reason, allowed.source));
        }
        for evidence in &finding.evidence {
            match evidence.operation {
                Some(operation) => tell(&format!("  operation {operation}: {}", evidence.text)),
                None => tell(&format!("  {}", evidence.text)),
            }
        }
    }
    for unjudged in &verdict.unjudged {
        tell(&format!("not judged: {}: {}", unjudged.checker, unjudged.reason));
    }
}

/// The settings that were named, all of them known.
struct Named(BTreeMap<String, String>);

impl Named {
    fn of(settings: BTreeMap<String, String>, is_import: bool) -> Result<Named, Failure> {
        for key in settings.keys() {
            if !RUN_SETTINGS.contains(&key.as_str()) && !TOPIC_SETTINGS.contains(&key.as_str()) {
                let known = [&TOPIC_SETTINGS[..], &RUN_SETTINGS[..]].concat().join(", ");
                return Err(Failure::Usage(format!("no setting {key:?}; known are {known}")));
            }
            if !is_import && IMPORT_ONLY.contains(&key.as_str()) {
                return Err(Failure::Usage(format!("leave out {key}: a history tells it for each operation")));
            }
        }
        let named = Named(settings);
        named.one_of("flush", &["ack", "interval", "os"])?;
        named.one_of("layout", &["partitioned", "shared"])?;
        named.number::<i64>("retention-ms", i64::MIN)?;
        named.number::<i64>("retention-bytes", i64::MIN)?;
        Ok(named)
    }

    fn one_of(&self, key: &str, choices: &[&str]) -> Result<(), Failure> {
        match self.0.get(key) {
            Some(value) if !choices.contains(&value.as_str()) => {
                Err(Failure::Usage(format!("{key} is one of {}, not {value:?}", choices.join(", "))))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
        &self,
        key: &str,
        minimum: T,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.0.get(key) else { return Ok(None) };
        match text.parse::<T>().ok().filter(|number| *number >= minimum) {
            Some(number) => Ok(Some(number)),
            None => Err(Failure::Usage(format!("{key} is a number of at least {minimum}, not {text:?}"))),
        }
    }

    fn assumed(&self, has_read_all: bool) -> Result<Assumed, Failure> {
        self.one_of("idempotent", &["true", "false"])?;
        self.one_of("acks", &["all", "-1", "1", "0"])?;
        Ok(Assumed {
            acks: match self.0.get("acks").map(String::as_str) {
                Some("0") => 0,
                Some("1") => 1,
                Some(_) | None => -1,
            },
            idempotent: self.0.get("idempotent").is_some_and(|value| value == "true"),
            attempts: self.number("attempts", 1)?.unwrap_or(1),
            has_read_all,
        })
    }

    /// The context of a history without a plan. Imported records have timestamps that nobody knows.
    fn context(&self, history: &History, has_create_time: bool) -> Result<Context, Failure> {
        let mut topic = TopicContext::of_settings(&self.0, &BTreeMap::new());
        topic.has_create_time = has_create_time;
        let topics = vec![topic; history.header.topics.len()];
        let record_bytes = self.number("record-bytes-maximum", 1)?.unwrap_or(RECORD_BYTES_DEFAULT);
        let mut context = Context::of_topics(topics, record_bytes);
        context.replication = self.number("replication", 1)?.unwrap_or(1);
        context.wall_start_ms = self.number("wall-start-ms", 0)?;
        context.has_liveness_phase =
            history.marks.iter().any(|mark| matches!(mark, Mark::LivenessBegan { .. } | Mark::LivenessEnded { .. }));
        if let Some(in_flight) = self.number::<u32>("in-flight", 1)? {
            let producing = history.operations.iter().filter(|made| matches!(made.call, Call::Produce { .. }));
            context.in_flight = producing.map(|made| (made.client, in_flight)).collect();
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)], is_import: bool) -> Result<Named, Failure> {
        Named::of(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(), is_import)
    }

    #[test]
    fn settings_are_checked_before_anything_is_judged() {
        for (key, value) in [("flush", "never"), ("colour", "red"), ("acks", "1"), ("retention-ms", "long")] {
            assert!(matches!(named(&[(key, value)], false), Err(Failure::Usage(_))), "{key}");
        }
        let good = named(&[("flush", "os"), ("replication", "3"), ("acks", "1"), ("attempts", "4")], true).unwrap();
        assert_eq!(good.assumed(true).unwrap().attempts, 4);
        assert!(named(&[("attempts", "0")], true).unwrap().assumed(true).is_err());
    }
}
