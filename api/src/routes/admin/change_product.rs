use axum::{Json, extract::State};
use dibs_common::{
    clock, db,
    domain::product::{Product, ProductChange},
    error::Error,
    identifiers::ProductId,
};

use crate::{
    app::SharedApp,
    extract::{Administrator, JsonBody, PathOf},
    problem::{ApiError, Problem},
};

/// Change a product
///
/// What is left out stays. `stockChange` is added to the stock that is there.
#[utoipa::path(
    patch, path = "/admin/products/{productId}", tag = "administration", params(("productId" = u64, Path)),
    request_body = ProductChange,
    responses(
        (status = 200, description = "the product after the change", body = Product),
        (status = 400, description = "VALIDATION_FAILED, MALFORMED_JSON", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 404, description = "PRODUCT_NOT_FOUND", body = Problem),
        (status = 422, description = "STOCK_INSUFFICIENT", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn change_product(
    State(app): State<SharedApp>,
    _: Administrator,
    PathOf(product): PathOf<ProductId>,
    JsonBody(change): JsonBody<ProductChange>,
) -> Result<Json<Product>, ApiError> {
    let change = change.as_kept();
    let errors = change.errors();
    if !errors.is_empty() {
        return Err(ApiError(Error::ValidationFailed(errors)));
    }
    // In a task of its own: a client that goes away does not stop a transaction half way.
    let database = app.database.clone();
    let changing =
        app.tasks.spawn(async move { db::products::update(&database, product, &change, clock::now()).await });
    Ok(Json(changing.await.map_err(Error::internal)??))
}
