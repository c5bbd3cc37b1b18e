use axum::{Json, extract::State};
use dibs_common::{
    db,
    domain::product::{Product, ProductChange},
    identifiers::ProductId,
};

use crate::{
    app::SharedApp,
    extract::{Action, ActionQuery, JsonBody, PathParams},
    problem::ApiError,
    routes::responses::{problems, validate},
};

problems! { AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "PRODUCT_NOT_FOUND", 422 "STOCK_INSUFFICIENT" }

/// Change a product
///
/// What is left out stays. `stockChange` is added to the stock that is there, once for an `Idempotency-Key`.
#[utoipa::path(
    patch, path = "/admin/products/{productId}", tag = "administration", params(("productId" = ProductId, Path), ActionQuery),
    request_body = ProductChange,
    responses((status = 200, description = "the product after the change", body = Product), Problems),
)]
pub async fn change_product(
    State(app): State<SharedApp>,
    Action(context): Action,
    PathParams(product): PathParams<ProductId>,
    JsonBody(change): JsonBody<ProductChange>,
) -> Result<Json<Product>, ApiError> {
    let change = change.normalized();
    validate(change.errors())?;
    let database = app.database.clone();
    let changing = async move { db::products::update(&database, product, &change, &context).await };
    Ok(Json(app.run_to_end(changing).await?))
}
