use axum::{Json, extract::State};
use dibs_common::{db, domain::product::Product, error::Error, identifiers::ProductId};

use crate::{
    app::SharedApp,
    extract::PathOf,
    problem::{ApiError, Problem},
};

/// Look at a product
#[utoipa::path(
    get, path = "/products/{productId}", tag = "products", params(("productId" = u64, Path)),
    responses(
        (status = 200, description = "the product now", body = Product),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 404, description = "PRODUCT_NOT_FOUND", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn show_product(
    State(app): State<SharedApp>,
    PathOf(product): PathOf<ProductId>,
) -> Result<Json<Product>, ApiError> {
    let found = db::within(db::products::find(app.database.pool(), product)).await?;
    Ok(Json(found.ok_or(Error::ProductNotFound(product))?))
}
