//! `dibs-loadtest`: load tests, fault runs, benchmarks and audits of Dibs.

use std::process::ExitCode;

use clap::Parser;
use dibs_loadtest::cli::Cli;

/// The allocator of `dibs-api`, so that the baseline server differs from it only in what it does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dibs_common::config::read_environment_file();
    dibs_loadtest::run(Cli::parse())
}
