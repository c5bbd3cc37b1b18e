//! Compares documents with the code, both ways. `make lint` runs these tests: they need no server.

mod alerts;
mod architecture;
mod commands;
mod errors;
mod links;
mod metrics;
mod policies;
mod settings;
mod sizes;
mod sources;
mod toolchain;
mod words;

/// The text of a file, by its path from the root.
fn read(path: &str) -> String {
    std::fs::read_to_string(sources::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
