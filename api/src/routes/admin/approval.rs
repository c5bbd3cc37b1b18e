//! Approval and refusal of assignments, by a second administrator.

use dibs_common::{
    assignments::decide,
    domain::{
        admin_action::ActionContext,
        assignment::{AssignmentKey, AssignmentState},
        assignment_rules::ApprovalDecision,
    },
    identifiers::CouponId,
};

use crate::routes::prelude::*;

problems! {
    AdminProblems: 400 "VALIDATION_FAILED", 404 "COUPON_NOT_FOUND, ASSIGNMENT_NOT_FOUND", 409 "ASSIGNMENT_STATE_CONFLICT"
}

/// Approve an assignment
///
/// One of more users than `ASSIGNMENT_APPROVAL_THRESHOLD` has no effect before another administrator than the one who
/// asked for it approves it. Approving it twice has no further effect.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/assignments/{key}/approve", operation_id = "approveAssignment",
    tag = "assignments", params(ActionQuery),
    responses(
        (status = 200, description = "the users get it shortly", body = AssignmentState),
        (status = 422, description = "CAMPAIGN_CLOSED, ASSIGNMENT_BUDGET_EXCEEDED", body = Problem), Problems,
    ),
)]
pub async fn approve(
    app: SharedApp,
    Action(context): Action,
    PathParams(path): PathParams<(CouponId, AssignmentKey)>,
) -> JsonResult<AssignmentState> {
    end_approval(&app, path, ApprovalDecision::Approve, context).await
}

/// Reject an assignment that awaits approval
///
/// Any administrator may, also the one who asked for it. It has no effect for good; another one needs another key.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/assignments/{key}/reject", operation_id = "rejectAssignment",
    tag = "assignments", params(ActionQuery),
    responses((status = 200, description = "it has no effect", body = AssignmentState), Problems),
)]
pub async fn reject(
    app: SharedApp,
    Action(context): Action,
    PathParams(path): PathParams<(CouponId, AssignmentKey)>,
) -> JsonResult<AssignmentState> {
    end_approval(&app, path, ApprovalDecision::Reject, context).await
}

async fn end_approval(
    app: &SharedApp,
    (coupon, key): (CouponId, AssignmentKey),
    decision: ApprovalDecision,
    context: ActionContext,
) -> JsonResult<AssignmentState> {
    let deciding = app.clone();
    let decided = app.run_to_end(async move {
        decide(&deciding.database, (coupon, &key), decision, &deciding.settings.assignment_rules(), &context).await
    });
    Ok(Json(decided.await?))
}
