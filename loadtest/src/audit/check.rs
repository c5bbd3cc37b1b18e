//! The result of an audit: checks, each with its differences.

use crate::{numbers::grouped, output::Table};

/// Differences of a check that are shown. All are counted.
pub(super) const MAX_EXAMPLES: usize = 10;

/// One comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    invariant: &'static str,
    compared: String,
    differences: u64,
    examples: Vec<String>,
}

impl Check {
    /// A check of `invariant` without differences.
    pub fn new(invariant: &'static str) -> Self {
        Self { invariant, ..Self::default() }
    }

    /// Describes what was compared, with counts.
    pub fn compared(&mut self, what: impl Into<String>) {
        self.compared = what.into();
    }

    /// Adds a difference unless `holds`.
    pub fn require(&mut self, holds: bool, difference: impl FnOnce() -> String) {
        if !holds {
            self.differences += 1;
            // Formatted only when shown: a broken campaign may have 100,000 differences.
            if self.examples.len() < MAX_EXAMPLES {
                self.examples.push(difference());
            }
        }
    }

    /// Adds differences that were counted elsewhere, with some examples.
    pub fn add(&mut self, differences: u64, examples: impl IntoIterator<Item = String>) {
        self.differences += differences;
        let room = MAX_EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(examples.into_iter().take(room));
    }

    pub fn invariant(&self) -> &'static str {
        self.invariant
    }

    pub fn differences(&self) -> u64 {
        self.differences
    }

    /// At most [`MAX_EXAMPLES`] of the differences.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}

#[derive(Clone, Debug)]
pub struct AuditReport {
    /// The shop, or a campaign.
    pub subject: String,
    pub checks: Vec<Check>,
}

impl AuditReport {
    pub fn differences(&self) -> u64 {
        self.checks.iter().map(Check::differences).sum()
    }

    /// The checks as a table, then the differences.
    pub fn render(&self) -> String {
        let mut table = Table::new(&["invariant", "compared", "differences"], 2);
        for check in &self.checks {
            table.row([check.invariant, &*check.compared, &*grouped(check.differences)]);
        }
        let mut lines = vec![table.render(&format!("Audit of {}", self.subject))];
        for check in &self.checks {
            for example in &check.examples {
                lines.push(format!("  {}: {example}", check.invariant));
            }
            let left_out = check.differences - check.examples.len() as u64;
            if left_out > 0 {
                lines.push(format!("  {}: and {} more", check.invariant, grouped(left_out)));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_differences_are_counted_and_a_few_are_shown() {
        let mut check = Check::new("I1");
        (0..100).for_each(|number| check.require(number < 50, || number.to_string()));
        assert_eq!((check.differences(), check.examples().len()), (50, MAX_EXAMPLES));
        check.add(7, ["one more".to_owned()]);
        assert_eq!((check.differences(), check.examples().len()), (57, MAX_EXAMPLES));
    }

    #[test]
    fn a_check_without_a_difference_describes_none() {
        let mut check = Check::new("I1");
        check.require(true, || unreachable!("only a difference is described"));
        assert_eq!((check.invariant(), check.differences(), check.examples().len()), ("I1", 0, 0));
    }

    #[test]
    fn a_report_lists_checks_and_then_differences() {
        let mut good = Check::new("I1");
        good.compared("3 issued in MySQL, 3 claimed in Redis, of 10");
        let mut bad = Check::new("I3");
        bad.compared("12 claims in Redis: each issued or rejected in MySQL");
        (0..12).for_each(|claim| bad.require(false, || format!("claim {claim} has no outcome")));
        let report = AuditReport { subject: "coupon 7, 'burst'".into(), checks: vec![good, bad] };
        assert_eq!(report.differences(), 12);
        insta::assert_snapshot!(report.render());
    }
}
