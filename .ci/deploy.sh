#!/usr/bin/env bash
# Are the examples in examples/deploy/ what their readers take them for? The unit is judged by systemd itself (Debian
# package systemd), the manifests by the types of Kubernetes' own API (Python package kubernetes), and both are asked whether
# they hand the server flags that it knows (the given program, built tenured by default).
set -euo pipefail
cd "$(dirname "$0")/.."

server="${1:-${CARGO_TARGET_DIR:-target}/debug/tenured}"
cache="${TENURE_PEERS:-$HOME/.cache/tenure-peers}/deploy"
# Of 10, as `systemd-analyze security` counts, times ten: what is not needed should not be allowed.
exposure_max=20

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

if [ ! -x "$server" ]; then
  echo "deploy.sh: $server is not there; build it with 'cargo build -p tenured'" >&2
  exit 1
fi
if ! command -v systemd-analyze > /dev/null; then
  as_root apt-get -q install --yes systemd > /dev/null || { as_root apt-get -q update && as_root apt-get -q install --yes systemd; } >&2
fi
if [ ! -x "$cache/bin/python" ] || ! "$cache/bin/python" -c 'import kubernetes, yaml' 2> /dev/null; then
  rm -rf "$cache"
  python3 -m venv "$cache" >&2
  "$cache/bin/pip" install --quiet kubernetes==37.0.2 pyyaml==6.0.3 >&2
fi

unit="$(mktemp -d)"
trap 'rm -rf "$unit"' EXIT
# systemd wants to see the program and the file that an operator puts there.
touch "$unit/tenured.env"
sed -e "s|^ExecStart=/usr/local/bin/tenured|ExecStart=$(realpath "$server")|" \
  -e "s|^EnvironmentFile=.*|EnvironmentFile=$unit/tenured.env|" examples/deploy/tenured.service > "$unit/tenured.service"
# It does not fail for what it only warns about, so what it says is a failure too.
said="$(systemd-analyze verify --man=no --recursive-errors=no "$unit/tenured.service" 2>&1)"
if [ -n "$said" ]; then
  echo "$said" >&2
  exit 1
fi
systemd-analyze security --no-pager --offline=true --threshold="$exposure_max" "$unit/tenured.service" > "$unit/exposure" || {
  cat "$unit/exposure" >&2
  exit 1
}
tail -n 1 "$unit/exposure"

"$cache/bin/python" .ci/deploy.py "$server" examples/deploy/kubernetes.yaml examples/deploy/tenured.service
