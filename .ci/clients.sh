#!/usr/bin/env bash
# Runs client libraries that are not ours against a server: the given program (built tenured by default; any etcd will do).
set -euo pipefail
cd "$(dirname "$0")/.."

server="${1:-${CARGO_TARGET_DIR:-target}/debug/tenured}"
peers="${TENURE_PEERS:-$HOME/.cache/tenure-peers}"
client_port="${TENURE_CLIENT_PORT:-23790}"
peer_port="${TENURE_PEER_PORT:-23800}"

if [ ! -x "$server" ]; then
  echo "clients.sh: $server is not there; build it with 'cargo build -p tenured'" >&2
  exit 1
fi
if [ ! -x "$peers/protoc" ]; then
  echo "clients.sh: $peers/protoc is not there; run .ci/peers.sh" >&2
  exit 1
fi

# Built before the server starts: what takes minutes should not count against its patience, nor ours.
export PROTOC="$peers/protoc"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/clients"
project=server/tests/clients/rust/Cargo.toml
cargo fmt --manifest-path "$project" --check
cargo clippy --locked --manifest-path "$project" --all-targets -- -D warnings
cargo test --locked --manifest-path "$project" --no-run

home="$(mktemp -d)"
pid=
finish() {
  local status=$?
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  if [ "$status" != 0 ]; then tail -n 100 "$home/server.log" >&2 || true; fi
  rm -rf "$home"
}
trap finish EXIT

client="http://127.0.0.1:$client_port"
peer="http://127.0.0.1:$peer_port"
"$server" --name default --data-dir "$home/data" \
  --listen-client-urls "$client" --advertise-client-urls "$client" \
  --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" \
  > "$home/server.log" 2>&1 < /dev/null &
pid=$!
for _ in $(seq 600); do
  if grep -q 'ready to serve client requests' "$home/server.log"; then break; fi
  if ! kill -0 "$pid" 2>/dev/null; then echo "clients.sh: $server ended instead of serving" >&2; exit 1; fi
  sleep 0.1
done

ENDPOINT="$client" cargo test --locked --manifest-path "$project"
