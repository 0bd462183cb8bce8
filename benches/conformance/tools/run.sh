#!/bin/sh
# Runs Kafka's own Java tools, and kcat, against a broker that is already up, and looks at what they say and not only at how
# they end. Needs Java, kcat (Debian: kafkacat), and Kafka's jars: `mqassay systems up kafka` keeps them as jars-VERSION
# in its folder; nothing of them is kept here.
# Usage: KAFKA_JARS=FOLDER run.sh HOST:PORT[,…] [NODES] [SCRATCH FOLDER]
# Prints one line a tool: name, outcome, seconds; ends with 0 when all passed.
set -eu
bootstrap=${1:?usage: KAFKA_JARS=FOLDER run.sh HOST:PORT[,...] [NODES] [SCRATCH FOLDER]}
nodes=${2:-1}
scratch=${3:-$(mktemp -d)}
jars=$(cd "${KAFKA_JARS:?the folder of the jars of Kafka}" && pwd)
logs="$scratch/tools-$(echo "$bootstrap" | tr -c '0-9\n' '-')"
mkdir -p "$logs"
copies=$([ "$nodes" -ge 3 ] && echo 3 || echo 1)
topic="tools-$(date +%s)-$$"
failed=0

# A Java class with its arguments.
java_tool() {
    class=$1; shift
    timeout 120 java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars/*" "org.apache.kafka.tools.$class" "$@"
}

# Name, what its output must have (an extended regular expression), command.
try() {
    name=$1; wanted=$2; shift 2
    began=$(date +%s)
    if "$@" > "$logs/$name.log" 2>&1 && grep -qE "$wanted" "$logs/$name.log"; then outcome=passed; else outcome=failed; failed=1; fi
    echo "$name $outcome $(($(date +%s) - began))"
}

# It runs until it is ended; what it has said by then counts.
verify_replicas() {
    timeout 25 java -Xmx256m -cp "$jars/*" org.apache.kafka.tools.ReplicaVerificationTool --broker-list "$bootstrap" \
        --topics-include "$topic" --report-interval-ms 5000 || [ $? -eq 124 ]
}
kcat_produce() { seq 1 1000 | timeout 60 kcat -b "$bootstrap" -P -t "$topic-kcat" -X acks=all; echo "produced $?"; }
kcat_consume() { timeout 60 kcat -b "$bootstrap" -C -t "$topic-kcat" -o beginning -e -q | sort -n | tail -n 1; }
kcat_group() { timeout 60 kcat -b "$bootstrap" -G "$topic-group" -o beginning -e -q "$topic-kcat" -X auto.offset.reset=earliest | wc -l; }

try BrokerApiVersionsCommand 'ApiVersions\(18\)|ApiVersions' java_tool BrokerApiVersionsCommand --bootstrap-server "$bootstrap"
try TopicCommand-create 'Created topic' java_tool TopicCommand --bootstrap-server "$bootstrap" --create --topic "$topic" \
    --partitions 3 --replication-factor "$copies"
try TopicCommand-describe 'PartitionCount: 3' java_tool TopicCommand --bootstrap-server "$bootstrap" --describe --topic "$topic"
try ClientCompatibilityTest 'SUCCESS' java_tool ClientCompatibilityTest --topic "$topic" --bootstrap-server "$bootstrap" \
    --offsets-for-times-supported true --cluster-id-supported true --expect-record-too-large-exception false \
    --num-cluster-nodes "$nodes" --create-topics-supported true --describe-acls-supported "${ACLS:-true}" \
    --describe-configs-supported true --idempotent-producer-supported true
try VerifiableProducer '"acked":10000' java_tool VerifiableProducer --topic "$topic-v" --max-messages 10000 --acks -1 \
    --bootstrap-server "$bootstrap"
try VerifiableConsumer 'shutdown_complete' java_tool VerifiableConsumer --topic "$topic-v" --group-id "$topic-classic" \
    --reset-policy earliest --max-messages 10000 --bootstrap-server "$bootstrap"
try VerifiableConsumer-848 'shutdown_complete' java_tool VerifiableConsumer --topic "$topic-v" --group-id "$topic-848" \
    --group-protocol consumer --reset-policy earliest --max-messages 10000 --bootstrap-server "$bootstrap"
try ProducerPerformance '^20000 records sent' java_tool ProducerPerformance --topic "$topic" --num-records 20000 \
    --record-size 100 --throughput -1 --bootstrap-server "$bootstrap"
try ConsumerPerformance ', [0-9.]+, 2[0-9]{4}, ' java_tool ConsumerPerformance --topic "$topic" --num-records 20000 \
    --bootstrap-server "$bootstrap" --hide-header --timeout 60000
try EndToEndLatency 'Avg latency' java_tool EndToEndLatency --bootstrap-server "$bootstrap" --topic "$topic" \
    --num-records 200 --producer-acks all --record-size 100
try GetOffsetShell "^$topic:2:[0-9]+" java_tool GetOffsetShell --bootstrap-server "$bootstrap" --topic "$topic"
try ReplicaVerificationTool 'max lag is 0 for partition' verify_replicas
try GroupsCommand "$topic-848" java_tool GroupsCommand --bootstrap-server "$bootstrap" --list
try MetadataQuorumCommand 'LeaderId' java_tool MetadataQuorumCommand --bootstrap-server "$bootstrap" describe --status
try ClusterTool 'Cluster ID' java_tool ClusterTool cluster-id --bootstrap-server "$bootstrap"
try FeatureCommand 'metadata.version' java_tool FeatureCommand --bootstrap-server "$bootstrap" describe
try LogDirsCommand '"brokers"' java_tool LogDirsCommand --bootstrap-server "$bootstrap" --describe
try kcat-produce '^produced 0' kcat_produce
try kcat-consume '^1000$' kcat_consume
try kcat-group '^1000$' kcat_group
try kcat-list "topic \"$topic-kcat\" with" kcat -b "$bootstrap" -L
echo "logs in $logs"
exit "$failed"
