//! The API over HTTP, on real servers, with the worker's steps driven by the test.

mod app;
mod assignments;
mod bad_input;
mod campaigns;
mod charges;
mod claims;
mod dead_letters;
mod dependencies;
mod document;
mod documented_commands;
mod edge;
mod errors;
mod gateway;
mod http;
mod idempotency;
mod keyed_changes;
mod operations;
mod orders;
mod owned_coupons;
mod points;
mod process;
mod products;
mod rankings;
mod snapshots;
mod supervision;
mod waiting;
