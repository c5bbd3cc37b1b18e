use axum::{Json, extract::State};
use dibs_common::{
    clock, db,
    domain::product::{Product, ProductChange},
    identifiers::ProductId,
};

use crate::{
    app::SharedApp,
    extract::{Administrator, JsonBody, OperationId, PathParameters},
    problem::{ApiError, Problem},
    routes::responses::{AdminProblems, validate},
};

/// Change a product
///
/// What is left out stays. `stockChange` is added to the stock that is there, once for an `Idempotency-Key`.
#[utoipa::path(
    patch, path = "/admin/products/{productId}", tag = "administration", params(("productId" = ProductId, Path)),
    request_body = ProductChange,
    responses(
        (status = 200, description = "the product after the change", body = Product),
        (status = 400, description = "VALIDATION_FAILED, MALFORMED_JSON", body = Problem),
        (status = 404, description = "PRODUCT_NOT_FOUND", body = Problem),
        (status = 422, description = "STOCK_INSUFFICIENT", body = Problem),
        AdminProblems,
    ),
)]
pub async fn change_product(
    State(app): State<SharedApp>,
    _: Administrator,
    PathParameters(product): PathParameters<ProductId>,
    OperationId(operation): OperationId,
    JsonBody(change): JsonBody<ProductChange>,
) -> Result<Json<Product>, ApiError> {
    let change = change.normalized();
    validate(change.errors())?;
    let database = app.database.clone();
    let changing = async move { db::products::update(&database, product, &change, operation, clock::now()).await };
    Ok(Json(app.run_to_end(changing).await?))
}
