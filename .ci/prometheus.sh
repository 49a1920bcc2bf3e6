#!/usr/bin/env bash
# The dashboards and the rules in grafana/ against a real Prometheus: promtool reads the configuration and the rules; then a cluster of three
# members works under load of every kind, Prometheus scrapes it, and every expression of every panel and alert must give data; and it
# finds registered instances by http_sd. About two minutes at the most. `.ci/prometheus.sh plots` takes four, draws grafana/plots/ from
# what Prometheus has then, and needs PyPI.
#
# TENURE_BIN: where tenured, tenure and tenure-bench are, if not in target/debug.
set -euo pipefail
cd "$(dirname "$0")/.."

source grafana/setup

promtool check config grafana/prometheus.yml
promtool check rules grafana/rules.yml

bin="${TENURE_BIN:-${CARGO_TARGET_DIR:-target}/debug}"
for program in tenured tenure tenure-bench; do
  if [ ! -x "$bin/$program" ]; then
    echo "prometheus.sh: $bin/$program is not there; build it with 'cargo build'" >&2
    exit 1
  fi
done
python=python3
if [ "${1:-}" = plots ]; then
  python3 -m venv "$cache/plots"
  python="$cache/plots/bin/python"
  "$python" -m pip install --quiet matplotlib
fi
"$python" .ci/prometheus.py "$bin" "$@"
