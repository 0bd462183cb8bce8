//! Which operations a client may perform (KIP-430), as bit fields: all that Kafka has for the resource, since nobody is
//! refused anything here. Told only where a request asks. Not here: who asks for what (`describe`, `group`).

/// Numbers of Kafka's operations on resources.
const READ: i32 = 3;
const WRITE: i32 = 4;
const CREATE: i32 = 5;
const DELETE: i32 = 6;
const ALTER: i32 = 7;
const DESCRIBE: i32 = 8;
const CLUSTER_ACTION: i32 = 9;
const DESCRIBE_CONFIGS: i32 = 10;
const ALTER_CONFIGS: i32 = 11;
const IDEMPOTENT_WRITE: i32 = 12;

/// What can be done to a topic.
pub(in crate::core) const TOPIC: i32 =
    field(&[READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
/// What can be done to a group.
pub(in crate::core) const GROUP: i32 = field(&[READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
/// What can be done to the cluster.
pub(in crate::core) const CLUSTER: i32 =
    field(&[CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE]);

/// The field in an answer that was not asked for it.
pub(in crate::core) const NOT_ASKED: i32 = i32::MIN;

const fn field(operations: &[i32]) -> i32 {
    let mut bits = 0;
    let mut index = 0;
    while index < operations.len() {
        bits |= 1 << operations[index];
        index += 1;
    }
    bits
}

/// The field where it was asked for.
pub(in crate::core) fn told(is_asked: bool, operations: i32) -> i32 {
    if is_asked { operations } else { NOT_ASKED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_that_kafka_sends_without_an_authorizer() {
        assert_eq!(TOPIC, 0b1101_1111_1000);
        assert_eq!(GROUP, 0b1101_0100_1000);
        assert_eq!(CLUSTER, 0b1_1111_1010_0000);
        assert_eq!(told(false, TOPIC), i32::MIN);
    }
}
