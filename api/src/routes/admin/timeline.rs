use std::time::Duration;

use dibs_common::{
    db::timeline::TimelineFilter,
    domain::timeline::{TimelineEntry, TimelinePosition},
    identifiers::{CouponId, UserId},
};

use crate::routes::prelude::*;

/// All rows of a user may have to be sorted.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Which entries.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// Only what is about this campaign.
    coupon_id: Option<CouponId>,
}

problems! { AdminProblems: 400 "VALIDATION_FAILED" }

/// List what happened to a user
///
/// Claims that were refused, with the reason; accepted, issued, used, restored and expired coupons; charges, the
/// ledger, orders and payments. Refused claims are stored within seconds, at a bounded rate, and kept for some days. A
/// claim on its way has no entry yet.
#[utoipa::path(
    get, path = "/admin/users/{userId}/timeline", operation_id = "listTimeline", tag = "support",
    params(TimelineQuery, Page::<TimelinePosition>),
    responses((status = 200, description = "the newest first", body = List<TimelineEntry, TimelinePosition>), Problems),
)]
pub async fn timeline(
    app: SharedApp,
    _: Administrator,
    PathParams(user): PathParams<UserId>,
    ListParams { filter, page }: ListParams<TimelineQuery, TimelinePosition>,
) -> JsonResult<List<TimelineEntry, TimelinePosition>> {
    let (pool, limit) = (&app.database.pool(), page.rows());
    let wanted = TimelineFilter { user, coupon: filter.coupon_id, after: page.cursor.clone(), limit };
    let listed = db::timeline::list(pool, &wanted);
    let entries = db::within_limit(READ_TIMEOUT, listed).await?;
    Ok(page.list(entries, |entry| entry.into()))
}
