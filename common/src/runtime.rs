//! The threads of a process.

use std::{io, num::NonZero, thread::available_parallelism};

use tokio::runtime::{Builder, Runtime};

/// A runtime of `threads`; 0 stands for `default`.
pub fn build(threads: u16, default: usize) -> io::Result<Runtime> {
    let threads = if threads == 0 { default } else { threads.into() };
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

pub fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// What an API takes: the servers, the proxy and the kernel need cores as well, and threads that have none to themselves wake
/// each other and wait for each other. Decision 0035.
pub fn half_of_the_cores() -> usize {
    (cores() / 2).max(1)
}
