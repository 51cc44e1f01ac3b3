# What is done here every day. `just` lists it; `scripts/test` is everything that must hold before a change is good.

_list:
    @just --list --unsorted

# Start the gateway on SQLite, with the built-in echo model
run *arguments:
    cargo run --locked -- serve {{ arguments }}

# Everything: format, lints, dependencies, build, tests on both databases, documentation
test:
    scripts/test

# The integration suite on SQLite, or those of its tests whose name contains a word
suite-sqlite *arguments:
    BONITO_TEST_DATABASE=sqlite cargo test --locked --test suite -- {{ arguments }}

# The same on a private Postgres, with a private Redis
suite-postgres *arguments:
    scripts/with-postgres scripts/with-redis env BONITO_TEST_DATABASE=postgres cargo test --locked --test suite -- {{ arguments }}

# The official SDKs against the gateway: the part of the suite that starts tests/clients
clients:
    BONITO_TEST_DATABASE=sqlite cargo test --locked --test suite -- clients --nocapture

# The promises of docs/promises.md at full size, all or those given (P1 P2 …), with a private Postgres; see there
promises *which:
    scripts/promises {{ which }}

# The outage table of docs/operations.md, and faults at random on every link and kills, under load; the seed is printed
chaos seed="":
    {{ if seed == "" { "" } else { "BONITO_PROMISES_SEED=" + seed } }} scripts/promises chaos

# Questions about a month of so many requests, on SQLite and on a private Postgres; see docs/performance.md
history requests="10000000":
    BONITO_HISTORY_REQUESTS={{ requests }} BONITO_TEST_DATABASE=sqlite cargo test --release --locked --test suite -- --ignored --nocapture history
    BONITO_HISTORY_REQUESTS={{ requests }} scripts/with-postgres env BONITO_TEST_DATABASE=postgres cargo test --release --locked --test suite -- --ignored --nocapture history

fmt:
    cargo fmt --all

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# What the binary is made of, as CycloneDX, in target/sbom
sbom *target:
    scripts/sbom {{ target }}

# The image; what is linked into its binary is written in it
image tag="bonito-gateway":
    docker build --tag {{ tag }} .

# The book of docs/, in target/book; mdBook is `cargo install mdbook`
book:
    mdbook build docs

# Fuzz one target, or all of them in turn, for so many seconds each; see tests/fuzz/run
fuzz target="all" seconds="60":
    tests/fuzz/run {{ target }} {{ seconds }}

# Write docs/capabilities.md anew, after an adapter has changed what it takes
capabilities:
    cargo run --locked --quiet -- capabilities > docs/capabilities.md

# The gateway next to nginx and next to no proxy; see tests/load/README.md
load *arguments:
    cargo build --release --locked --package bonito-gateway --package bonito-load
    target/release/bonito-load run {{ arguments }}

# The same beside a bonito with limits and budgets, and one that has them in a private Redis
load-governed *arguments:
    cargo build --release --locked --package bonito-gateway --package bonito-load
    scripts/with-redis target/release/bonito-load run --governed {{ arguments }}
