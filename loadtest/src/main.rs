//! `dibs-loadtest`: loads a stack, breaks it, measures it, and looks afterwards whether everything is right.

use std::process::ExitCode;

use clap::Parser;
use dibs_loadtest::cli::Cli;

/// The same allocator as `dibs-api`, for the bare server to be compared with it, and for a cheap client.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dibs_common::config::read_environment_file();
    dibs_loadtest::run(Cli::parse())
}
