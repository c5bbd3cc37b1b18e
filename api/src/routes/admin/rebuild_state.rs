use dibs_common::{
    domain::rebuild::Rebuild,
    identifiers::{CouponId, RebuildId},
};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED", 404 "REBUILD_NOT_FOUND" }

/// Look at a rebuild
#[utoipa::path(
    get, path = "/admin/coupons/{couponId}/rebuilds/{rebuildId}", operation_id = "getRebuild", tag = "campaigns",
    responses((status = 200, description = "the rebuild now", body = Rebuild), Problems),
)]
pub async fn rebuild_state(
    app: SharedApp,
    _: Administrator,
    PathParams((coupon, id)): PathParams<(CouponId, RebuildId)>,
) -> JsonResult<Rebuild> {
    let pool = &app.database.pool();
    let rebuild = db::found(db::rebuilds::find(pool, coupon, id), Error::RebuildNotFound(id));
    Ok(Json(Box::pin(rebuild).await?))
}
