//! Resident memory of API and worker while many orders are processed.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::{
    client::{ClientPool, Measurement, StopCondition, closed_loop},
    harness::Harness,
    orders::{hot_product, order_target, until_drained},
};
use crate::{latency::Latencies, processes::ResidentBytes};

const PARTS: u64 = 10;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// The memory after a number of orders.
#[derive(Clone, Copy, Debug)]
pub struct MemorySample {
    pub orders: u64,
    pub resident: ResidentBytes,
}

#[derive(Clone, Debug, Default)]
pub struct OrderMemory {
    pub samples: Vec<MemorySample>,
    pub latencies: Latencies,
    /// Orders a second.
    pub rate: f64,
}

/// Sends `orders` orders in ten parts; samples the memory of both processes during each.
pub async fn measure(harness: &mut Harness, clients: ClientPool, orders: u64) -> Result<OrderMemory> {
    let product = hot_product(harness).await?;
    harness.start_worker().await?;
    let mut target = order_target(harness, product);
    let mut memory = OrderMemory::default();
    let mut total = Measurement::default();
    for part in 1..=PARTS {
        let mut samples = Vec::new();
        let measured = tokio::select! {
        // The sampler never finishes: polled first, so that an error of it is not lost.
                    biased;
                    error = sample(harness, &mut samples) => error?,
                    measured = closed_loop(target, clients, StopCondition::Requests(orders / PARTS)) => measured?,
                };
        target.first_user += orders / PARTS;
        total.append(&measured);
        memory.samples.push(MemorySample { orders: orders / PARTS * part, resident: medians(&samples) });
    }
    until_drained(harness).await?;
    harness.stop_worker().await?;
    (memory.rate, memory.latencies) = (total.rate(), total.latencies);
    Ok(memory)
}

/// Samples until it fails or is dropped. Several samples are needed: an allocator keeps a varying part of what is free.
async fn sample<T>(harness: &Harness, samples: &mut Vec<ResidentBytes>) -> Result<T> {
    loop {
        sleep(SAMPLE_INTERVAL).await;
        samples.push(harness.resident_bytes()?);
    }
}

/// The median of each process; 0 without samples.
fn medians(samples: &[ResidentBytes]) -> ResidentBytes {
    let median = |bytes: fn(&ResidentBytes) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(bytes).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    ResidentBytes { api: median(|sample| sample.api), worker: median(|sample| sample.worker) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_its_own_median() {
        let samples = [(5, 10), (1, 30), (3, 20)].map(|(api, worker)| ResidentBytes { api, worker });
        assert_eq!(medians(&samples), ResidentBytes { api: 3, worker: 20 });
        assert_eq!(medians(&[]), ResidentBytes::default());
    }
}
