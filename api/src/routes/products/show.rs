use axum::{Json, extract::State};
use dibs_common::{db, domain::product::Product, error::Error, identifiers::ProductId};

use crate::{app::SharedApp, extract::PathParams, problem::ApiError, routes::responses::problems};

problems! { ReadProblems: 404 "PRODUCT_NOT_FOUND" }

/// Look at a product
#[utoipa::path(
    get, path = "/products/{productId}", tag = "products", params(("productId" = ProductId, Path)),
    responses((status = 200, description = "the product now", body = Product), Problems),
)]
pub async fn show_product(
    State(app): State<SharedApp>,
    PathParams(product): PathParams<ProductId>,
) -> Result<Json<Product>, ApiError> {
    Ok(Json(db::found(db::products::find(&app.database.pool(), product), Error::ProductNotFound(product)).await?))
}
