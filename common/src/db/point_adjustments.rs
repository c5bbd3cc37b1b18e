//! Points that administrators grant and take back: rows of `point_histories` of their own types.

use serde::Serialize;
use sqlx::MySqlConnection;

use super::{Database, admin_actions, points, retrying, statements::insert_event, with_timeout};
use crate::{
    domain::{
        admin_action::{ActionContext, ChangedFields, NewAdminAction},
        event::{Aggregate, Event},
        points::{AdjustmentRejectReason, LedgerType},
    },
    error::{Error, Result},
    identifiers::{AdjustmentId, UserId},
};

/// What an administrator changes of a user's points.
#[derive(Clone, Copy, Debug)]
pub struct Adjustment {
    pub user: UserId,
    /// Won: positive to grant, negative to take back.
    pub amount: i64,
    /// The most that the user may hold afterwards.
    pub holding_cap: i64,
}

/// Grants points or takes them back; the balance after it. A repeat of the operation has no second effect, and returns
/// the balance after the first.
///
/// # Errors
/// [`Error::PointsCapExceeded`] and [`Error::PointsInsufficient`]: nothing changed.
pub async fn adjust(database: &Database, adjustment: Adjustment, context: &ActionContext) -> Result<i64> {
    // The outer result is the database's, the inner one that of the rules: a rejection is not retried.
    retrying("adjust_points", || with_timeout(adjust_locked(database, adjustment, context))).await?
}

async fn adjust_locked(
    database: &Database,
    adjustment: Adjustment,
    context: &ActionContext,
) -> Result<Result<i64>, sqlx::Error> {
    let Adjustment { user, amount, holding_cap } = adjustment;
    let mut transaction = database.begin().await?;
    let account = points::lock(&mut transaction, user, context.at).await?;
    // Under the lock: an earlier attempt whose COMMIT is still under way is waited for.
    if let Some(balance) = find_balance_after(&mut transaction, context).await? {
        return Ok(Ok(balance));
    }
    let adjusted = match account.adjust(amount, holding_cap) {
        Ok(adjusted) => adjusted,
        // Dropping the transaction rolls it back.
        Err(AdjustmentRejectReason::CapExceeded { cap, held }) => {
            return Ok(Err(Error::PointsCapExceeded { cap, held }));
        }
        Err(AdjustmentRejectReason::Insufficient { balance }) => {
            return Ok(Err(Error::PointsInsufficient { balance, required: amount.saturating_neg() }));
        }
    };
    let kind = if amount > 0 { LedgerType::Grant } else { LedgerType::Deduction };
    points::update(&mut transaction, user, adjusted, context.at).await?;
    sqlx::query(
        "INSERT INTO point_histories /* point_adjustments::adjust_locked */ (user_id, type, amount, balance_after, \
         reference_id, created_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(user.get())
    .bind(kind.into_str())
    .bind(amount)
    .bind(adjusted.balance)
    .bind(context.operation)
    .bind(context.at)
    .execute(&mut *transaction)
    .await?;
    let payload = PointsAdjusted {
        user_id: user,
        adjustment_id: AdjustmentId(context.operation),
        amount,
        balance: adjusted.balance,
    };
    insert_event(&mut transaction, Event::new(Aggregate::Points(user), "points.adjusted", &payload), context.at)
        .await?;
    let balance = |balance| Balance { balance };
    let fields = ChangedFields::between(&balance(account.balance), &balance(adjusted.balance));
    let name = if amount > 0 { "points.grant" } else { "points.deduct" };
    let action = NewAdminAction::changed(name, &user, &fields);
    admin_actions::insert(&mut transaction, context, &action).await?;
    transaction.commit().await?;
    Ok(Ok(adjusted.balance))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PointsAdjusted {
    user_id: UserId,
    adjustment_id: AdjustmentId,
    amount: i64,
    balance: i64,
}

/// What an adjustment changes, as `admin_actions` shows it.
#[derive(Serialize)]
struct Balance {
    balance: i64,
}

/// The balance after an attempt of the same request; none when there was none.
async fn find_balance_after(
    connection: &mut MySqlConnection,
    context: &ActionContext,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT /* point_adjustments::find_balance_after */ balance_after FROM point_histories \
         WHERE reference_id = ? AND type IN ('GRANT', 'DEDUCTION')",
    )
    .bind(context.operation)
    .fetch_optional(connection)
    .await
}
