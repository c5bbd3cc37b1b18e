//! The table `assignment_budgets`: what is assigned on a business day. Its CHECK refuses more than the budget.

use chrono::NaiveDate;
use sqlx::MySqlConnection;

use crate::identifiers::CouponId;

/// Users assigned on that day. The caller has locked the campaign, so it stays.
pub async fn find_assigned(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    day: NaiveDate,
) -> Result<u32, sqlx::Error> {
    let sql = "SELECT /* assignments::find_assigned */ assigned FROM assignment_budgets \
               WHERE coupon_id = ? AND business_day = ?";
    let assigned: Option<u32> = sqlx::query_scalar(sql).bind(coupon.get()).bind(day).fetch_optional(connection).await?;
    Ok(assigned.unwrap_or(0))
}

/// Adds users to what is assigned on a day; an error when that exceeds `budget`.
pub async fn add_assigned(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    day: NaiveDate,
    users: u32,
    budget: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        // The CHECK of the table refuses more than the budget, whatever was found before.
        "INSERT INTO assignment_budgets /* assignments::add_assigned */ (coupon_id, business_day, assigned, budget) \
         VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE assigned = assigned + VALUES(assigned), budget = VALUES(budget)",
    )
    .bind(coupon.get())
    .bind(day)
    .bind(users)
    .bind(budget)
    .execute(connection)
    .await
    .map(drop)
}
