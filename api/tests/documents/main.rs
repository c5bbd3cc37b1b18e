//! Compares documents with the code, both ways. `make lint` runs these tests: they need no server.

mod architecture;
mod errors;
mod links;
mod metrics;
mod settings;
mod sources;
