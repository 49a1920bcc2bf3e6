#!/usr/bin/env bash
# Client libraries in other languages, by their own tests where their packages bring them, against Tenure and against etcd with the
# same result: see server/tests/libraries/README.md, also for the longer form. Installs what it needs from PyPI, npm
# and the Go module proxy. First argument: the program to be tried instead of the built one.
set -euo pipefail
cd "$(dirname "$0")/.."

.ci/peers.sh > /dev/null
exec server/tests/libraries/run ${1:+--server "$1"}
