//! What a node knows, as plain data for people and pictures. It changes nothing and nobody decides by it.

use serde::Serialize;

use super::log::LogDump;
use super::machine::Core;

/// A node's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoreDump {
    /// Its logs by number, the metadata log first.
    pub logs: Vec<LogDump>,
    /// Which queue each partition is, by topic and partition.
    pub partitions: Vec<PartitionDump>,
}

/// The queue that a partition is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionDump {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The queue's number.
    pub queue: u64,
    /// Number of the log that holds it.
    pub log: u64,
}

impl Core {
    /// The node's state as plain data.
    pub fn dump(&self) -> CoreDump {
        let partitions = self.metadata.topics().flat_map(|(name, topic)| {
            let numbered = (0..).zip(&topic.partitions);
            numbered.map(|(partition, place)| PartitionDump {
                topic: name.to_owned(),
                partition,
                queue: place.queue().0,
                log: place.log().0,
            })
        });
        CoreDump { logs: self.logs.values().map(super::log::Log::dump).collect(), partitions: partitions.collect() }
    }
}
