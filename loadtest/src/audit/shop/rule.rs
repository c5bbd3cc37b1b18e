use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, MySqlPool};

use crate::{
    audit::check::{Check, SHOWN},
    numbers::grouped,
};

/// Something that the tables must say, written as the query for the rows that say otherwise. It is one statement, and
/// so sees one moment, whatever goes on meanwhile.
pub struct Rule {
    /// Which invariant it belongs to.
    pub invariant: &'static str,
    /// What must hold; begins with what is counted.
    pub holds: &'static str,
    /// The rows that are compared, as what follows `FROM`.
    pub rows: &'static str,
    /// A text for each row that breaks it, as column `difference`.
    pub broken: &'static str,
}

/// Where a rule means the most points that a user may hold.
pub const CAP: &str = ":cap";

impl Rule {
    /// Holds the tables against it.
    pub async fn check(&self, pool: &MySqlPool, holding_cap: i64) -> Result<Check> {
        let mut check = Check::new(self.invariant);
        let rows = format!("SELECT /* audit rows */ COUNT(*) FROM {}", self.rows);
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(pool).await.context(self.holds)?;
        check.compared(format!("{} {}", grouped(rows.unsigned_abs()), self.holds));
        let broken = self.broken.replace(CAP, &holding_cap.to_string());
        // All are counted, a few are read.
        let broken = format!(
            "SELECT /* audit broken */ COUNT(*) OVER (), CAST(d.difference AS CHAR) FROM ({broken}) AS d LIMIT {SHOWN}"
        );
        let broken: Vec<(i64, String)> =
            sqlx::query_as(AssertSqlSafe(broken)).fetch_all(pool).await.context(self.holds)?;
        if let Some(&(differences, _)) = broken.first() {
            check.add(differences.unsigned_abs(), broken.into_iter().map(|(_, difference)| difference));
        }
        Ok(check)
    }
}
