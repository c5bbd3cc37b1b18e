use dibs_common::{
    db::point_adjustments::{Adjustment, adjust},
    domain::{FieldError, admin_action::MAX_REASON_LENGTH, campaign::MAX_AMOUNT},
    identifiers::{AdjustmentId, UserId},
};

use crate::routes::prelude::*;

/// Points that an administrator grants or takes back.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdjustmentBody {
    user_id: UserId,
    /// Won, which is points: positive to grant, negative to take back; not 0.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    amount: i64,
    /// Why: 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

impl AdjustmentBody {
    fn errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.amount == 0 || !(-MAX_AMOUNT..=MAX_AMOUNT).contains(&self.amount) {
            errors.push(FieldError::new("amount", format!("expected -{MAX_AMOUNT} to {MAX_AMOUNT}, but not 0")));
        }
        if !(1..=MAX_REASON_LENGTH).contains(&self.reason.trim().chars().count()) {
            errors.push(FieldError::new("reason", format!("expected 1 to {MAX_REASON_LENGTH} characters")));
        }
        errors
    }
}

/// A user's balance after an adjustment.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adjusted {
    user_id: UserId,
    /// Won.
    balance: i64,
    adjustment_id: AdjustmentId,
}

problems! {
    AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON", 422 "POINTS_CAP_EXCEEDED, POINTS_INSUFFICIENT"
}

/// Grant points, or take them back
///
/// A row of the user's ledger, GRANT or DEDUCTION, with the reason among the actions. The holding cap holds.
#[utoipa::path(
    post, path = "/admin/points", operation_id = "adjustPoints", tag = "support", request_body = AdjustmentBody,
    responses((status = 200, description = "the balance after it", body = Adjusted), Problems),
)]
pub async fn adjust_points(
    app: SharedApp,
    Action(mut context): Action,
    JsonBody(body): JsonBody<AdjustmentBody>,
) -> JsonResult<Adjusted> {
    validate(body.errors())?;
    let AdjustmentBody { user_id: user, amount, reason } = body;
    context.reason = Some(reason.trim().to_owned());
    let adjustment = Adjustment { user, amount, holding_cap: app.settings.shared.point_rules().holding_cap };
    let (database, adjustment_id) = (app.database.clone(), AdjustmentId(context.operation));
    let adjusting = async move { adjust(&database, adjustment, &context).await };
    let balance = app.run_to_end(adjusting).await?;
    Ok(Json(Adjusted { user_id: user, balance, adjustment_id }))
}
