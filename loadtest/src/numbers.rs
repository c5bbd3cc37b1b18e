//! Rates, medians and formats of numbers.

use std::time::Duration;

/// A count as a real number: exact up to 2^53, far beyond any count here.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub fn real(count: u64) -> f64 {
    count as f64
}

/// Counts per second.
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    // Never by zero: a measurement without progress has the rate 0.
    real(count) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// The median; 0 of no values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (_, _) if sorted.is_empty() => 0.0,
        (middle, 1) => sorted[middle],
        (middle, _) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// 1234567 as "1,234,567".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate as a whole number, grouped.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and below 2^53")]
pub fn grouped_rate(rate: f64) -> String {
    grouped(rate.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn a_rate_is_per_second_even_of_no_time() {
        assert!((per_second(30, Duration::from_secs(2)) - 15.0).abs() < f64::EPSILON);
        assert!(per_second(0, Duration::ZERO).abs() < f64::EPSILON);
    }

    #[test]
    fn rates_are_rounded_and_never_negative() {
        assert_eq!([1_234.4, 1_234.5, -3.0].map(grouped_rate), ["1,234", "1,235", "0"]);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
