//! Latencies, to three digits, in a few kilobytes.

use std::time::Duration;

use hdrhistogram::Histogram;

const HIGHEST_MICROS: u64 = 120_000_000;

/// Recorded latencies.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(HIGHEST_MICROS, 3).expect("three digits up to two minutes is a range");
        Self(histogram)
    }
}

impl Latencies {
    /// Adds one; what is beyond two minutes counts as two minutes.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(HIGHEST_MICROS);
        self.0.saturating_record(micros);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same range, the only thing that addition can refuse.
        let _ = self.0.add(&other.0);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// p50, p99 and p99.9, as a person reads them.
    pub fn percentiles(&self) -> [String; 3] {
        [0.5, 0.99, 0.999].map(|quantile| self.at(quantile))
    }

    /// What that share of them is at most, as a person reads it.
    pub fn at(&self, quantile: f64) -> String {
        milliseconds(Duration::from_micros(self.0.value_at_quantile(quantile)))
    }
}

fn milliseconds(latency: Duration) -> String {
    format!("{:.2} ms", latency.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_that_was_merged() {
        let (mut fast, mut slow) = (Latencies::default(), Latencies::default());
        (0..98).for_each(|_| fast.record(Duration::from_millis(1)));
        (0..2).for_each(|_| slow.record(Duration::from_millis(50)));
        fast.merge(&slow);
        assert_eq!(fast.count(), 100);
        assert_eq!(fast.percentiles()[0], "1.00 ms");
        assert!(fast.percentiles()[1].starts_with("50."));
    }
}
