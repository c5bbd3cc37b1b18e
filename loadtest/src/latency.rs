//! Latency histograms with three significant digits, in a few kilobytes.

use std::time::Duration;

use hdrhistogram::Histogram;

const MAX_MICROS: u64 = 120_000_000;

#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(MAX_MICROS, 3).expect("three digits up to two minutes is a range");
        Self(histogram)
    }
}

impl Latencies {
    /// Records a latency. One beyond two minutes counts as two minutes.
    pub fn record(&mut self, latency: Duration) {
        // Microseconds: the fastest response takes about 50 of them, and a claim is retried for 90 s.
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MAX_MICROS);
        self.0.saturating_record(micros);
    }

    /// Adds all latencies of another histogram.
    pub fn merge(&mut self, other: &Self) {
        // Addition fails only for different ranges, and all have the same.
        let _ = self.0.add(&other.0);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// p50, p99 and p99.9, in milliseconds.
    pub fn percentiles(&self) -> [String; 3] {
        [0.5, 0.99, 0.999].map(|quantile| self.at(quantile))
    }

    /// The latency at a quantile from 0 to 1, in milliseconds.
    pub fn at(&self, quantile: f64) -> String {
        milliseconds(self.duration_at(quantile))
    }

    /// The latency at a quantile from 0 to 1.
    pub fn duration_at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }
}

fn milliseconds(latency: Duration) -> String {
    format!("{:.2} ms", latency.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_include_merged_latencies() {
        let (mut fast, mut slow) = (Latencies::default(), Latencies::default());
        (0..98).for_each(|_| fast.record(Duration::from_millis(1)));
        (0..2).for_each(|_| slow.record(Duration::from_millis(50)));
        fast.merge(&slow);
        assert_eq!(fast.count(), 100);
        assert_eq!(fast.percentiles()[0], "1.00 ms");
        assert!(fast.percentiles()[1].starts_with("50."));
    }

    #[test]
    fn an_empty_histogram_has_zero_latencies() {
        assert_eq!(Latencies::default().percentiles(), ["0.00 ms", "0.00 ms", "0.00 ms"]);
    }

    #[test]
    fn a_latency_beyond_two_minutes_counts_as_two_minutes() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_hours(1));
        let highest = latencies.at(1.0);
        let milliseconds: f64 = highest.trim_end_matches(" ms").parse().expect("a number");
        assert!((119_900.0..120_200.0).contains(&milliseconds), "{highest}");
    }

    #[test]
    fn latencies_keep_three_digits() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|milliseconds| latencies.record(Duration::from_millis(milliseconds)));
        let [p50, p99, p999] = latencies.percentiles().map(|text| text.split('.').next().map(str::to_owned));
        assert_eq!([p50.as_deref(), p99.as_deref(), p999.as_deref()], [Some("500"), Some("990"), Some("999")]);
    }
}
