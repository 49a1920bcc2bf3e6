#!/usr/bin/env bash
# The dashboards and the rules in grafana/ against a real Prometheus: promtool reads the configuration and the rules; then a cluster of three
# members works under load of every kind, Prometheus scrapes it, and every expression of every panel and alert must give data. About
# two minutes at the most. `.ci/prometheus.sh plots` takes four, draws grafana/plots/ from what Prometheus has then, and needs PyPI.
#
# TENURE_BIN: where tenured, tenure and tenure-bench are, if not in target/debug.
set -euo pipefail
cd "$(dirname "$0")/.."

# Unpacked, not installed: a service would take the port of somebody's own.
cache="${TENURE_PEERS:-$HOME/.cache/tenure-peers}"
if ! command -v promtool > /dev/null && [ ! -x "$cache/prometheus/promtool" ]; then
  as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
  mkdir -p "$cache/prometheus"
  build="$(mktemp -d "$cache/unpack.XXXXXX")"
  trap 'rm -rf "$build"' EXIT
  (
    cd "$build"
    apt-get -q download prometheus || { as_root apt-get -q update && apt-get -q download prometheus; }
    dpkg -x prometheus_*.deb root
  ) >&2
  # promtool last, for it is the sign that both are there.
  cp "$build/root/usr/bin/prometheus" "$cache/prometheus/"
  cp "$build/root/usr/bin/promtool" "$cache/prometheus/"
fi
PATH="$PATH:$cache/prometheus"

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
