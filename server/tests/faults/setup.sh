#!/usr/bin/env bash
# Installs what the fault tests need beside the kernel: namespaces and packet filters (iproute2, nftables), file systems in a
# file (e2fsprogs, mount), and a library that shows a process another time of day (faketime). Needs root; may be run again.
set -euo pipefail

missing=()
need() { if ! command -v "$1" > /dev/null; then missing+=("$2"); fi; }
need ip iproute2
need nft nftables
need mkfs.ext4 e2fsprogs
need fsfreeze util-linux
need faketime faketime

if [ "${#missing[@]}" = 0 ]; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "setup.sh: not installed, and cannot be here: ${missing[*]}; the tests will say which faults they leave out" >&2
  exit 0
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
