# The two words of every day are `just check` and `just fix`. Each recipe is a plain command that can be typed without just.

# Lists the recipes.
default:
    @just --list

# All that must hold before a change is delivered; reads, never writes. `.ci/run` is the same and more, for build machines.
check: format lint test documents licences spelling

# Brings into form what can be brought into form by itself.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# Is everything laid out as rustfmt has it?
format:
    cargo fmt --all --check

# Clippy, with warnings as errors.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests; those that compare with etcd need its programs, which .ci/peers.sh fetches once.
test: peers
    cargo test --workspace --locked

# The real etcd programs that tests compare with, in a cache outside of the repository.
peers:
    .ci/peers.sh > /dev/null

# Do the documentation's links lead anywhere?
documents:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items

# Licences, advisories and sources of dependencies, if cargo-deny is there.
licences:
    @if command -v cargo-deny > /dev/null; then cargo deny check; else echo "cargo-deny is not installed: passed over"; fi

# Typing errors in names and words, if typos is there.
spelling:
    @if command -v typos > /dev/null; then typos; else echo "typos is not installed: passed over"; fi

# One member on 127.0.0.1:2379, its data in default.etcd.
run *flags:
    cargo run --release --bin tenured -- {{ flags }}

# Three members on 127.0.0.1:2379, 2389 and 2399, their data in tenure-cluster; Ctrl-C stops them.
cluster *flags:
    cargo build --release --bin tenured --bin tenure
    target/release/tenure cluster {{ flags }}

# Measures the server against an etcd, in turn; bench/README.md says how to read what it prints.
bench etcd="etcd" *flags:
    cargo build --release --workspace --bins
    target/release/tenure-bench compare --rounds 4 --duration 5s \
        --a '{{ etcd }} --data-dir {dir} --listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --name {name} --initial-cluster {cluster}' \
        --b 'target/release/tenured --data-dir {dir} --listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --name {name} --initial-cluster {cluster}' \
        {{ flags }}
