//! The rows of the loss matrix on real systems: each system's settings, what its documentation says of them, in our words,
//! and what the guarantee matrix takes them for. Not here: runs.

use std::collections::BTreeMap;

use mqassay_benches::QueueType;
use mqassay_harness::guarantee::Flush;
use mqassay_scenarios::loss_matrix::{self, Cluster, Column, Durability};

use crate::driver_world::Driven;
use crate::kafka_world::Settings;

/// A system of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MatrixSystem {
    /// The reference broker, three nodes
    Reference,
    /// Apache Kafka, three nodes
    Kafka,
    /// Apache RocketMQ, a master and its slave
    Rocketmq,
    /// RabbitMQ, one node
    Rabbitmq,
}

impl MatrixSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            MatrixSystem::Reference => "reference",
            MatrixSystem::Kafka => "kafka",
            MatrixSystem::Rocketmq => "rocketmq",
            MatrixSystem::Rabbitmq => "rabbitmq",
        }
    }
}

/// One setting of a system.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) system: MatrixSystem,
    /// Its settings as people write them.
    pub(crate) name: String,
    /// What the system's documentation says.
    pub(crate) documented: &'static str,
    /// What the guarantee matrix takes it for.
    pub(crate) durability: Durability,
    pub(crate) cluster: Cluster,
    pub(crate) how: How,
}

/// How a row's system is run.
#[derive(Debug, Clone)]
pub(crate) enum How {
    Reference,
    Kafka(Settings),
    Driven(Driven),
}

/// All rows of a system.
pub(crate) fn of(system: MatrixSystem) -> Vec<Row> {
    match system {
        MatrixSystem::Reference => loss_matrix::rows().into_iter().map(reference).collect(),
        MatrixSystem::Kafka => {
            // Kafka always replaces a dead leader, and an interval of its flush is between the two that are tried.
            let is_tried = |row: &Durability| row.failover && row.flush != Flush::Interval;
            loss_matrix::rows().into_iter().filter(is_tried).map(kafka).collect()
        }
        MatrixSystem::Rocketmq => {
            let pairs = [(false, false), (false, true), (true, false), (true, true)];
            pairs.into_iter().map(|(syncs, replicates)| rocketmq(syncs, replicates)).collect()
        }
        MatrixSystem::Rabbitmq => vec![
            rabbitmq(QueueType::Classic, true),
            rabbitmq(QueueType::Classic, false),
            rabbitmq(QueueType::Quorum, true),
        ],
    }
}

/// Why a cell cannot be tried.
pub(crate) fn not_tested(row: &Row, column: &Column, has_real_links: bool) -> Option<&'static str> {
    let is_partition = column.name == "partition";
    match row.system {
        MatrixSystem::Reference => None,
        MatrixSystem::Kafka if is_partition && !has_real_links => {
            Some("without network namespaces Kafka's nodes reach each other past the links that can be cut")
        }
        MatrixSystem::Kafka => None,
        MatrixSystem::Rocketmq if is_partition => {
            Some("RocketMQ's nodes are provisioned on one loopback address, past the links that can be cut")
        }
        MatrixSystem::Rocketmq | MatrixSystem::Rabbitmq if column.name == "rolling" => Some("it is not a cluster here"),
        MatrixSystem::Rocketmq => None,
        MatrixSystem::Rabbitmq if column.name.ends_with("of all") => Some("there is one node, see the column of one"),
        MatrixSystem::Rabbitmq => None,
    }
}

fn reference(durability: Durability) -> Row {
    let documented = "the guarantee matrix: mqassay guarantees";
    let (name, how) = (text(&durability), How::Reference);
    Row { system: MatrixSystem::Reference, name, documented, durability, cluster: Cluster::THREE, how }
}

fn kafka(durability: Durability) -> Row {
    let documented = match durability {
        Durability { acks: 0, .. } => "nothing is promised: the producer does not wait for the server",
        Durability { acks: 1, .. } => "lost where the leader fails after its answer and before followers have copied",
        Durability { unclean: true, .. } => "replicas out of sync may lead, which may lose data",
        Durability { flush: Flush::Ack, .. } => {
            "every message is flushed, and not lost while an in-sync replica remains"
        }
        _ => "not lost while at least one in-sync replica remains; flushing is left to the operating system",
    };
    let settings = if durability.flush == Flush::Ack { Settings::Safest } else { Settings::Stock };
    let name = match durability.flush {
        Flush::Ack => text(&durability).replace("flush=ack", "flush.messages=1"),
        _ => text(&durability).replace("flush=os", "flush as it comes"),
    };
    let name = name.replace(" failover=on", "");
    let how = How::Kafka(settings);
    Row { system: MatrixSystem::Kafka, name, documented, durability, cluster: Cluster::THREE, how }
}

/// A slave never leads by itself, so that what matters is the flush; how many copies an acknowledgement waits for is
/// `min_insync`.
fn rocketmq(syncs: bool, replicates: bool) -> Row {
    let flush = if syncs { "SYNC_FLUSH" } else { "ASYNC_FLUSH" };
    let role = if replicates { "SYNC_MASTER" } else { "ASYNC_MASTER" };
    let documented = match (syncs, replicates) {
        (false, false) => "answered from the page cache of the master: lost with its power",
        (false, true) => "answered once the slave has it too; each from its page cache",
        (true, false) => "answered once the master has flushed: not lost while its disk remains",
        (true, true) => "answered once the master has flushed and the slave has it: the safest",
    };
    let durability = Durability {
        acks: -1,
        min_insync: if replicates { 2 } else { 1 },
        flush: if syncs { Flush::Ack } else { Flush::Os },
        unclean: false,
        failover: false,
    };
    let settings = [
        ("flushDiskType", flush),
        ("brokerRole", role),
        // Of a size that the disk has room for, and without files that no record needs.
        ("mappedFileSizeCommitLog", "67108864"),
        ("messageIndexEnable", "false"),
        ("timerWheelEnable", "false"),
    ];
    let settings: BTreeMap<String, String> = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (name, how) = (format!("{flush} {role}"), How::Driven(Driven::Rocketmq(settings)));
    let cluster = Cluster { nodes: 2, consumers: 1 };
    Row { system: MatrixSystem::Rocketmq, name, documented, durability, cluster, how }
}

fn rabbitmq(queue_type: QueueType, confirms: bool) -> Row {
    let documented = match (queue_type, confirms) {
        (_, false) => "without confirms nothing is promised",
        (QueueType::Classic, true) => "confirmed once a persistent message of a durable queue is on disk",
        (QueueType::Quorum, true) => "confirmed once a quorum has it on disk; here the only node",
    };
    let durability = Durability {
        acks: if confirms { -1 } else { 0 },
        min_insync: 1,
        flush: Flush::Ack,
        unclean: false,
        failover: true,
    };
    let confirming = if confirms { "confirms" } else { "no confirms" };
    let name = format!("{} durable, persistent, {confirming}", queue_type.word());
    let how = How::Driven(Driven::Rabbitmq(queue_type));
    Row {
        system: MatrixSystem::Rabbitmq,
        name,
        documented,
        durability,
        cluster: Cluster { nodes: 1, consumers: 0 },
        how,
    }
}

/// The settings of the matrix' rows.
pub(crate) fn text(row: &Durability) -> String {
    let election = if row.unclean { "unclean" } else { "clean" };
    format!(
        "acks={} min.insync.replicas={} flush={} election={election} failover={}",
        loss_matrix::acks_name(row.acks),
        row.min_insync,
        loss_matrix::flush_name(row.flush),
        if row.failover { "on" } else { "off" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_promises_that_follow_from_their_settings() {
        let power = |row: &Row, of: &str| {
            let column = loss_matrix::COLUMNS.iter().find(|column| column.name == of).unwrap();
            loss_matrix::is_allowed(&row.durability, column, row.cluster.nodes)
        };
        for system in [MatrixSystem::Reference, MatrixSystem::Kafka, MatrixSystem::Rocketmq, MatrixSystem::Rabbitmq] {
            let rows = of(system);
            let names: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            assert_eq!(names.len(), rows.len(), "{names:?}");
        }
        let lose: Vec<bool> = of(MatrixSystem::Rocketmq).iter().map(|row| power(row, "power loss of one")).collect();
        assert_eq!(lose, [true, true, false, false], "a master without its flush waits for nobody");
        let lose: Vec<bool> = of(MatrixSystem::Rabbitmq).iter().map(|row| power(row, "power loss of one")).collect();
        assert_eq!(lose, [false, true, false]);
        let kafka = of(MatrixSystem::Kafka);
        let stock =
            kafka.iter().find(|row| row.name.contains("acks=all min.insync.replicas=1 flush as it comes")).unwrap();
        assert!(power(stock, "power loss of all"));
    }
}
