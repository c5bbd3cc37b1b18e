//! What an audit found.

use crate::{Verdict, numbers::grouped, output, output::Table};

/// How many differences of a check are shown; all are counted.
pub(super) const SHOWN: usize = 10;

/// One thing that was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    invariant: &'static str,
    compared: String,
    differences: u64,
    examples: Vec<String>,
}

impl Check {
    /// A check of `invariant`, without a difference so far.
    pub fn new(invariant: &'static str) -> Self {
        Self { invariant, ..Self::default() }
    }

    /// Says what was compared.
    pub fn compared(&mut self, what: impl Into<String>) {
        self.compared = what.into();
    }

    /// Adds a difference unless `holds`.
    pub fn require(&mut self, holds: bool, difference: impl FnOnce() -> String) {
        if !holds {
            self.differences += 1;
            if self.examples.len() < SHOWN {
                self.examples.push(difference());
            }
        }
    }

    /// Adds differences that were counted elsewhere, with some of them as examples.
    pub fn add(&mut self, differences: u64, examples: impl IntoIterator<Item = String>) {
        self.differences += differences;
        let room = SHOWN.saturating_sub(self.examples.len());
        self.examples.extend(examples.into_iter().take(room));
    }

    /// Which invariant.
    pub fn invariant(&self) -> &'static str {
        self.invariant
    }

    /// How many differences there are.
    pub fn differences(&self) -> u64 {
        self.differences
    }

    /// A few of the differences.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}

/// All checks of one campaign, or of the shop.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What was audited: the shop, or which campaign.
    pub subject: String,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Findings {
    /// Right when there is no difference.
    pub fn verdict(&self) -> Verdict {
        if self.checks.iter().all(|check| check.differences == 0) { Verdict::Right } else { Verdict::Wrong }
    }

    /// How many differences there are.
    pub fn differences(&self) -> u64 {
        self.checks.iter().map(Check::differences).sum()
    }

    /// Prints the checks as a table, then the differences.
    pub fn print(&self) {
        let mut table = Table::new(&["invariant", "compared", "differences"], 2);
        for check in &self.checks {
            table.row([check.invariant, &*check.compared, &*grouped(check.differences)]);
        }
        table.print(&format!("Audit of {}", self.subject));
        for check in &self.checks {
            for example in &check.examples {
                output::line(&format!("  {}: {example}", check.invariant));
            }
            let left_out = check.differences - check.examples.len() as u64;
            if left_out > 0 {
                output::line(&format!("  {}: and {} more", check.invariant, grouped(left_out)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_differences_are_counted_and_a_few_are_shown() {
        let mut check = Check::new("I1");
        (0..100).for_each(|number| check.require(number < 50, || number.to_string()));
        assert_eq!((check.differences(), check.examples().len()), (50, SHOWN));
        check.add(7, ["one more".to_owned()]);
        assert_eq!((check.differences(), check.examples().len()), (57, SHOWN));
        let wrong = Findings { subject: String::new(), checks: vec![check] };
        assert_eq!(wrong.verdict(), Verdict::Wrong);
        assert_eq!(Findings { checks: vec![Check::new("I1")], ..wrong }.verdict(), Verdict::Right);
    }
}
