use dibs_common::{
    assignments::{NewAssignment, UserList, create},
    db::assignments::{FoundAssignment, users::ListUser},
    domain::{
        admin_action::ActionContext,
        assignment::{AssignmentKey, AssignmentState, Recipients},
    },
    identifiers::{AssignmentId, CouponId},
};
use sha2::{Digest as _, Sha256};

use crate::routes::prelude::*;

problems! {
    AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "COUPON_NOT_FOUND", 413 "PAYLOAD_TOO_LARGE",
    422 "CAMPAIGN_CLOSED: by an administrator, ASSIGNMENT_BUDGET_EXCEEDED"
}

/// Give a coupon to many users
///
/// It counts against the total quantity and each user's limit, but the claim window and a pause do not matter. The
/// worker executes it, at once or when a second administrator has approved it; `Location` shows its progress. Lists of
/// more than 10,000 users are uploaded.
#[utoipa::path(
    post, path = "/admin/coupons/{couponId}/assignments", operation_id = "assignCoupon", tag = "assignments",
    params(ActionQuery), request_body = Recipients,
    responses(
        (status = 202, description = "accepted; the users get it shortly", body = AssignmentState, headers(("Location"))),
        Problems,
    ),
)]
pub async fn assign(
    app: SharedApp,
    Action(context): Action,
    PathParams(coupon): PathParams<CouponId>,
    JsonBody(recipients): JsonBody<Recipients>,
) -> ApiResult {
    validate(recipients.errors())?;
    let assigning = assign_all(app.clone(), coupon, recipients, context);
    let state = app.run_to_end(assigning).await?;
    let location = format!("/admin/coupons/{coupon}/assignments/{}", state.key);
    Ok(located(StatusCode::ACCEPTED, location, state))
}

async fn assign_all(
    app: SharedApp,
    coupon: CouponId,
    recipients: Recipients,
    context: ActionContext,
) -> Result<AssignmentState> {
    let id = AssignmentId(context.operation);
    let key = AssignmentKey::from(id);
    let mut hash = Sha256::new();
    for user in &recipients.user_ids {
        hash.update(user.get().to_be_bytes());
    }
    let hash = hash.finalize().into();
    let users: Vec<ListUser> = recipients.user_ids.iter().copied().map(ListUser::new).collect();
    let requested = u32::try_from(users.len()).map_err(Error::internal)?;
    let list = UserList::Whole(&users);
    let new = NewAssignment { id, coupon, key: &key, requested, list, list_hash: &hash };
    let rules = app.settings.assignment_rules();
    let FoundAssignment { state, .. } = create(&app.database, new, &rules, &context).await?;
    Ok(state)
}
