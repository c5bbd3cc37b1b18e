use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, MySqlPool};

use crate::{
    audit::check::{Check, MAX_EXAMPLES},
    numbers::grouped,
};

/// A condition on the tables, written as the query of the rows that violate it. One statement sees one snapshot of the
/// data, whatever is written at the same time.
pub struct Rule {
    invariant: &'static str,
    /// What must hold; begins with what is counted.
    condition: &'static str,
    /// The compared rows, as the text after `FROM`.
    rows: &'static str,
    /// Selects a text for each violation, as column `difference`.
    violations: &'static str,
}

/// The placeholder of the holding cap in a rule.
const CAP: &str = ":cap";

impl Rule {
    pub const fn new(
        invariant: &'static str,
        condition: &'static str,
        rows: &'static str,
        violations: &'static str,
    ) -> Self {
        Self { invariant, condition, rows, violations }
    }

    /// Compares the tables with the rule.
    pub async fn check(&self, pool: &MySqlPool, holding_cap: i64) -> Result<Check> {
        let mut check = Check::new(self.invariant);
        // Shows that a rule without differences did compare something.
        let rows = format!("SELECT /* audit rows */ COUNT(*) FROM {}", self.rows);
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(pool).await.context(self.condition)?;
        check.compared(format!("{} {}", grouped(rows.unsigned_abs()), self.condition));
        let sql = self.sql(holding_cap);
        let violations: Vec<(i64, String)> =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(pool).await.context(self.condition)?;
        if let Some(&(count, _)) = violations.first() {
            check.add(count.unsigned_abs(), violations.into_iter().map(|(_, difference)| difference));
        }
        Ok(check)
    }

    /// Counts all violations and reads a few.
    fn sql(&self, holding_cap: i64) -> String {
        let violations = self.violations.replace(CAP, &holding_cap.to_string());
        format!(
            // COUNT(*) OVER () counts before LIMIT, so one statement gives the number and the examples.
            "SELECT /* audit violations */ COUNT(*) OVER (), CAST(d.difference AS CHAR) FROM ({violations}) AS d \
             LIMIT {MAX_EXAMPLES}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::audit::shop::rules;

    #[test]
    fn the_holding_cap_is_written_into_the_query() {
        let sql = Rule::new("I6", "accounts", "point_accounts", "SELECT 1 AS difference WHERE balance > :cap").sql(70);
        assert!(sql.contains("WHERE balance > 70") && !sql.contains(CAP), "{sql}");
        assert!(sql.ends_with("LIMIT 10"), "{sql}");
    }

    #[test]
    fn each_condition_is_stated_once_and_each_query_names_its_difference() {
        let conditions: HashSet<&str> = rules().map(|rule| rule.condition).collect();
        assert_eq!(conditions.len(), rules().count());
        for rule in rules() {
            assert!(rule.violations.contains("AS difference"), "{}", rule.condition);
            assert!(rule.violations.starts_with("SELECT "), "{}", rule.condition);
        }
    }

    #[test]
    fn rules_cover_the_invariants_of_the_tables() {
        let invariants: HashSet<&str> = rules().map(|rule| rule.invariant).collect();
        assert_eq!(invariants, HashSet::from(["I5", "I6", "I7", "I8", "I10", "I12"]));
    }
}
