use axum::http::header;
use dibs_common::{
    campaigns::{self, ChangeRequest},
    domain::{
        admin_action::ChangedFields,
        campaign_change::{CampaignChange, CampaignPatch, differences},
    },
    identifiers::CouponId,
};

use super::campaign::AdminCampaign;
use crate::{
    extract::{IfMatch, entity_tag},
    routes::prelude::*,
};

/// A campaign after a change, and what changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedCampaign {
    #[serde(flatten)]
    campaign: AdminCampaign,
    /// The changed fields before and after; empty when nothing changed.
    changes: ChangedFields,
    /// Whether nothing was changed, as `dryRun` asked.
    dry_run: bool,
}

problems! {
    AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "COUPON_NOT_FOUND",
    412 "PRECONDITION_FAILED: it was changed since", 422 "QUANTITY_BELOW_CLAIMED, CAMPAIGN_CLOSED",
    428 "PRECONDITION_REQUIRED: there is no If-Match"
}

/// Change a campaign
///
/// What is left out stays. The total quantity goes up or down while claims come in, never below what is claimed. Issued
/// coupons keep their terms. Claims are decided by the new terms when the answer is there.
#[utoipa::path(
    patch, path = "/admin/coupons/{couponId}", operation_id = "changeCampaign",
    tag = "campaigns", request_body = CampaignPatch,
    params(ChangeQuery, ("If-Match" = String, Header, description = "`ETag` of the version that is changed, or `*`")),
    responses(
        (status = 200, description = "the campaign after the change", body = ChangedCampaign, headers(("ETag"))),
        Problems,
    ),
)]
pub async fn change_campaign(
    app: SharedApp,
    action: Change,
    PathParams(coupon): PathParams<CouponId>,
    precondition: IfMatch,
    JsonBody(patch): JsonBody<CampaignPatch>,
) -> ApiResult {
    // Two administrators who edit at once would otherwise undo each other's fields without notice.
    let expected = precondition.required()?;
    change(&app, action, coupon, CampaignChange::Terms(patch), expected).await
}

/// Makes a change to the end, also when the caller goes away: it has several steps.
pub(super) async fn change(
    app: &SharedApp,
    Change { context, is_dry_run }: Change,
    coupon: CouponId,
    change: CampaignChange,
    expected: Option<Vec<u32>>,
) -> ApiResult {
    let request = ChangeRequest { coupon, change, expected, is_dry_run };
    let changing = app.clone();
    let changed =
        app.run_to_end(async move { campaigns::change(&changing.database, &changing.redis, &request, &context).await });
    let changed = changed.await?;
    let fields = differences(&changed.before, &changed.after);
    let tag = entity_tag(changed.after.revision);
    // After the change, so that the counts are those that the new terms are decided by.
    let campaign = AdminCampaign::read(&app.redis, changed.after).await;
    let body = ChangedCampaign { campaign, changes: fields, dry_run: is_dry_run };
    Ok(([(header::ETAG, tag)], Json(body)).into_response())
}
