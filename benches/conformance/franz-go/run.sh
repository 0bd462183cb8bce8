#!/bin/sh
# Runs franz-go's own tests of consumer groups against a broker that is already up. Needs Go and its module proxy;
# nothing of franz-go is kept here. Usage: run.sh HOST:PORT [REPLICATION FACTOR] [SCRATCH FOLDER]
# Prints one line a test of allow.txt, and ends with 0 when all of them passed.
set -eu
seeds=${1:?usage: run.sh HOST:PORT [REPLICATION] [SCRATCH]}
replication=${2:-1}
here=$(cd "$(dirname "$0")" && pwd)
scratch=${3:-$(mktemp -d)}
mkdir -p "$scratch"
cd "$scratch"
if [ ! -f go.mod ]; then
    go mod init conformance
    go get github.com/twmb/franz-go/pkg/kgo@v1.22.2
fi
[ -x kgo.test ] || go test -c -o kgo.test github.com/twmb/franz-go/pkg/kgo
# One process for all: the suite asks the broker once which protocols it knows, in its first test that needs to.
tests=$(grep -v -e '^#' -e '^$' "$here/allow.txt" | paste -sd '|' -)
status=0
KGO_SEEDS=$seeds KGO_TEST_RF=$replication KGO_TEST_RECORDS=${KGO_TEST_RECORDS:-10000} \
    timeout 900 ./kgo.test -test.v -test.run "^($tests)\$" > run.log 2>&1 || status=$?
grep -E '^ *--- (PASS|FAIL|SKIP)' run.log || true
[ "$status" -eq 0 ] || echo "the suite ended with $status; see $scratch/run.log"
exit "$status"
