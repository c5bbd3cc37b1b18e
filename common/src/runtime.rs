//! The threads of a process.

use std::{io, num::NonZero, thread::available_parallelism};

use tokio::runtime::{Builder, Runtime};

/// A runtime of so many threads; 0 stands for half of the cores, at least one.
///
/// A thread answers more calls than one Redis decides claims, and the servers, the proxy and the kernel need cores as well. More
/// threads than free cores wake each other and wait for each other: decision 0035.
pub fn build(threads: u16) -> io::Result<Runtime> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let threads = if threads == 0 { (cores / 2).max(1) } else { threads.into() };
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
