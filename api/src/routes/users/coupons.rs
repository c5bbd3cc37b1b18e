use axum::{Json, extract::State};
use dibs_common::{
    clock,
    db::{
        self,
        owned_coupons::{OwnedCoupon, OwnedCouponsFilter, OwnedStatus},
    },
    error::Error,
    identifiers::{ClaimId, UserId},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::SharedApp,
    extract::{PathOf, QueryOf},
    problem::{ApiError, Problem},
};

/// Which of the user's coupons.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CouponsQuery {
    /// Only those of this status; all when it is left out.
    status: Option<OwnedStatus>,
    /// `nextCursor` of the page before.
    cursor: Option<ClaimId>,
    /// At most so many, 1 to 100.
    #[serde(default = "twenty")]
    #[param(minimum = 1, maximum = 100)]
    limit: u32,
}

const fn twenty() -> u32 {
    20
}

/// A page of a user's coupons, the newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CouponsPage {
    items: Vec<OwnedCoupon>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<ClaimId>,
}

/// List a user's coupons
#[utoipa::path(
    get, path = "/users/{userId}/coupons", tag = "coupons", params(("userId" = u64, Path), CouponsQuery),
    responses(
        (status = 200, description = "the newest first", body = CouponsPage),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn coupons(
    State(app): State<SharedApp>,
    PathOf(user): PathOf<UserId>,
    QueryOf(query): QueryOf<CouponsQuery>,
) -> Result<Json<CouponsPage>, ApiError> {
    let limit = query.limit;
    if !(1..=100).contains(&limit) {
        return Err(ApiError(Error::field("limit", format!("expected 1 to 100, got {limit}"))));
    }
    // One more than asked for tells whether there is a next page.
    let wanted = OwnedCouponsFilter { user, status: query.status, before: query.cursor, limit: limit + 1 };
    let mut items = db::within(db::owned_coupons::list(app.database.pool(), wanted, clock::now())).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|coupon| coupon.user_coupon_id);
    Ok(Json(CouponsPage { items, next_cursor }))
}
