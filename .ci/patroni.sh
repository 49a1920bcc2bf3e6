#!/usr/bin/env bash
# Does Patroni, which speaks JSON over HTTP to what it takes for etcd, found a cluster on the server and survive the crash of its
# primary? (The given program, built tenured by default.) All faults, five times: examples/patroni/test --rounds 5
set -euo pipefail
cd "$(dirname "$0")/.."

export TENURED="${1:-${CARGO_TARGET_DIR:-target}/debug/tenured}"
timeout 600 examples/patroni/test bootstrap kill
