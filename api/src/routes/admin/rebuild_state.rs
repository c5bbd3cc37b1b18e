use axum::{Json, extract::State};
use dibs_common::{
    db,
    domain::rebuild::Rebuild,
    error::Error,
    identifiers::{CouponId, RebuildId},
};

use crate::{
    app::SharedApp,
    extract::{Administrator, PathParams},
    problem::ApiError,
    routes::responses::problems,
};

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "REBUILD_NOT_FOUND" }

/// Look at a rebuild
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/rebuilds/{rebuildId}", tag = "administration",
    params(("couponId" = CouponId, Path), ("rebuildId" = RebuildId, Path)),
    responses((status = 200, description = "the rebuild now", body = Rebuild), Problems),
)]
pub async fn rebuild_state(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParams((coupon, id)): PathParams<(CouponId, RebuildId)>,
) -> Result<Json<Rebuild>, ApiError> {
    let pool = &app.database.pool();
    let rebuild = db::found(db::rebuilds::find(pool, coupon, id), Error::RebuildNotFound(id));
    Ok(Json(Box::pin(rebuild).await?))
}
