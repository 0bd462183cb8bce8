//! Features tried through a Java client that runs from its source: RocketMQ's, and Kafka's share groups.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::{Deliveries, Delivery, Feature, MESSAGES};
use crate::driver::{ClientError, client_error};
use crate::rocketmq::JavaClient;
use crate::{BenchError, SystemTarget};

/// A child that tells deliveries as lines.
struct JavaProbe {
    child: JavaClient,
    _source: TempDir,
}

/// RocketMQ's own client library, which tries one feature on a fresh topic.
pub(super) fn rocketmq(
    target: &SystemTarget,
    class_path: &str,
    feature: Feature,
) -> Result<Box<dyn Deliveries>, BenchError> {
    let topic = super::kafka::fresh(feature);
    let arguments = [target.bootstrap.clone(), feature.name().to_owned(), topic, MESSAGES.to_string()];
    start(target, class_path, ROCKETMQ, &arguments)
}

/// Kafka's share group, in which a member can give a record back.
pub(super) fn share_group(
    target: &SystemTarget,
    class_path: &str,
    topic: &str,
) -> Result<Box<dyn Deliveries>, BenchError> {
    let arguments = ["retry", &target.bootstrap, topic, topic, &MESSAGES.to_string()].map(str::to_owned);
    start(target, class_path, SHARE, &arguments)
}

fn start(
    target: &SystemTarget,
    class_path: &str,
    source: (&str, &str),
    arguments: &[String],
) -> Result<Box<dyn Deliveries>, BenchError> {
    let (path, folder) = written(source)?;
    let child = JavaClient::start(class_path, &path.display().to_string(), arguments).and_then(JavaClient::ready);
    Ok(Box::new(JavaProbe { child: child.map_err(client_error(target, "start the Java client"))?, _source: folder }))
}

/// The source as a file; it goes with the folder.
pub(crate) fn written((name, text): (&str, &str)) -> Result<(PathBuf, TempDir), BenchError> {
    let failed = |source| BenchError::Io { action: "write a Java source", source };
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join(name);
    std::fs::write(&path, text).map_err(failed)?;
    Ok((path, folder))
}

impl Deliveries for JavaProbe {
    fn next(&mut self, patience: Duration) -> Result<Option<Delivery>, String> {
        let fields = match self.child.hear(patience) {
            Ok(fields) => fields,
            Err(ClientError::Silent { .. }) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let words: Vec<&str> = fields.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["d", message, after_ms] => match (message.parse(), after_ms.parse()) {
                (Ok(message), Ok(after_ms)) => Ok(Some(Delivery { message, after_ms })),
                _ => Err(fields.join(",")),
            },
            _ => Err(words.last().copied().unwrap_or_default().to_owned()),
        }
    }
}

const ROCKETMQ: (&str, &str) = ("FeatureProbe.java", include_str!("../../../systems/rocketmq/FeatureProbe.java"));
/// A member of a share group of Kafka.
pub(crate) const SHARE: (&str, &str) = ("ShareProbe.java", include_str!("../../../systems/kafka/ShareProbe.java"));
