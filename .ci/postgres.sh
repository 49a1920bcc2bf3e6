#!/usr/bin/env bash
# Installs PostgreSQL for the example that it has a part in. Needs apt and, unless it is there already, root; may be run again.
set -euo pipefail

if command -v pg_virtualenv > /dev/null; then exit 0; fi
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
as_root apt-get -qq update
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends postgresql-15 > /dev/null
