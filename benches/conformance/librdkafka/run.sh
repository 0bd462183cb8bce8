#!/bin/sh
# Runs librdkafka's own tests against a broker that is already up. The tests come with the crate rdkafka-sys, which the
# workspace builds anyway; nothing of them is kept here. Needs a C and C++ compiler and make; the first run builds for
# some minutes.
# Usage: run.sh HOST:PORT[,…] [SCRATCH FOLDER] [TEST …]
#   TEST_CONSUMER_GROUP_PROTOCOL=consumer  KIP-848 in place of the classic protocol, as the suite itself has it
#   SCENARIO=noautocreate                  the tests of that scenario; the broker must not create topics by itself
#   KAFKA_JARS=FOLDER                      Kafka's jars (`mqassay systems up kafka` keeps them as jars-VERSION in its
#                                          folder): some tests make topics with Kafka's own tool
#   AT_ONCE=N                              tests at a time, each a process of its own (2 where nothing is said)
# Prints one line a test of allow.txt (or of those named): number, outcome, seconds; ends with 0 when none failed.
set -eu
bootstrap=${1:?usage: run.sh HOST:PORT[,...] [SCRATCH FOLDER] [TEST ...]}
here=$(cd "$(dirname "$0")" && pwd)
scratch=${2:-$(mktemp -d)}
[ $# -le 2 ] && set -- || shift 2
mkdir -p "$scratch"
scratch=$(cd "$scratch" && pwd)

if [ ! -x "$scratch/src/tests/test-runner" ]; then
    manifest=$(cd "$here" && cargo metadata --format-version 1 |
        grep -o '"manifest_path":"[^"]*/rdkafka-sys-[^"]*/Cargo.toml"' | head -n 1 | cut -d '"' -f 4)
    [ -n "$manifest" ] || { echo "cargo metadata knows no rdkafka-sys; run this within the workspace" >&2; exit 2; }
    rm -rf "$scratch/src"
    cp -r "$(dirname "$manifest")/librdkafka" "$scratch/src"
    (cd "$scratch/src" && ./configure --disable-sasl --disable-gssapi && make libs && make -C tests build) \
        > "$scratch/build.log" 2>&1 || { echo "the suite does not build; see $scratch/build.log" >&2; exit 2; }
fi

protocol=${TEST_CONSUMER_GROUP_PROTOCOL:-classic}
scenario=${SCENARIO:-default}
logs="$scratch/logs-$protocol-$scenario-$(echo "$bootstrap" | tr -c '0-9\n' '-')"
mkdir -p "$logs"
# Topics of random names: runs on one broker do not meet.
printf 'bootstrap.servers=%s\ntest.topic.random=true\n' "$bootstrap" > "$logs/test.conf"
kafka=
if [ -n "${KAFKA_JARS:-}" ]; then
    mkdir -p "$scratch/kafka/bin"
    printf '#!/bin/sh\nexec java -Xmx128m -XX:+UseSerialGC -cp "%s/*" org.apache.kafka.tools.TopicCommand "$@"\n' \
        "$(cd "$KAFKA_JARS" && pwd)" > "$scratch/kafka/bin/kafka-topics.sh"
    chmod +x "$scratch/kafka/bin/kafka-topics.sh"
    kafka="KAFKA_PATH=$scratch/kafka BROKERS=$bootstrap"
fi

one="$logs/one.sh"
cat > "$one" <<ONE
#!/bin/sh
test=\$1
began=\$(date +%s)
cd "$scratch/src/tests"
status=0
env $kafka RDKAFKA_TEST_CONF="$logs/test.conf" LD_LIBRARY_PATH=../src:../src-cpp TEST_KAFKA_VERSION=4.1.0 TESTS=\$test \
    TEST_CONSUMER_GROUP_PROTOCOL=$protocol timeout 300 ./test-runner -p1 -Q -E -L -s $scenario \
    > "$logs/\$test.log" 2>&1 || status=\$?
case \$status in
    0) outcome=passed; grep -qE "Test \${test}_.* PASSED" "$logs/\$test.log" || outcome=skipped ;;
    124) outcome=timed-out ;;
    *) outcome="failed(\$status)" ;;
esac
echo "\$test \$outcome \$((\$(date +%s) - began))"
ONE
allowed() { awk -v scenario="$scenario" '/^[0-9]/ && (NF == 1 ? "default" : $2) == scenario { print $1 }' "$here/allow.txt"; }
if [ $# -gt 0 ]; then printf '%s\n' "$@"; else allowed; fi |
    xargs -n 1 -P "${AT_ONCE:-2}" sh "$one" | tee "$logs/results.txt"
echo "logs in $logs"
! grep -qvE ' (passed|skipped) ' "$logs/results.txt"
