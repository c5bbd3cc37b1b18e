use axum::{Json, extract::State};
use dibs_common::{db, domain::product::Product, error::Error, identifiers::ProductId};

use crate::{
    app::SharedApp,
    extract::PathParameters,
    problem::{ApiError, Problem},
    routes::responses::ReadProblems,
};

/// Look at a product
#[utoipa::path(
    get, path = "/products/{productId}", tag = "products", params(("productId" = ProductId, Path)),
    responses(
        (status = 200, description = "the product now", body = Product),
        (status = 404, description = "PRODUCT_NOT_FOUND", body = Problem),
        ReadProblems,
    ),
)]
pub async fn show_product(
    State(app): State<SharedApp>,
    PathParameters(product): PathParameters<ProductId>,
) -> Result<Json<Product>, ApiError> {
    Ok(Json(db::found(db::products::find(&app.database.pool(), product), Error::ProductNotFound(product)).await?))
}
