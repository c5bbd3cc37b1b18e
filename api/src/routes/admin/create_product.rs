use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dibs_common::{
    clock, db,
    domain::product::{Product, ProductTerms},
    error::Error,
};

use crate::{
    app::SharedApp,
    extract::{Administrator, JsonBody, OperationId},
    problem::{ApiError, Problem},
};

/// Make a product
#[utoipa::path(
    post, path = "/admin/products", tag = "administration", request_body = ProductTerms,
    responses(
        (status = 201, description = "made", body = Product),
        (status = 400, description = "VALIDATION_FAILED, MALFORMED_JSON", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn create_product(
    State(app): State<SharedApp>,
    _: Administrator,
    OperationId(operation): OperationId,
    JsonBody(terms): JsonBody<ProductTerms>,
) -> Result<Response, ApiError> {
    let terms = terms.as_kept();
    let errors = terms.errors();
    if !errors.is_empty() {
        return Err(ApiError(Error::ValidationFailed(errors)));
    }
    // In a task of its own: a client that goes away does not stop a transaction half way.
    let database = app.database.clone();
    let making = app.tasks.spawn(async move { db::products::create(&database, &terms, operation, clock::now()).await });
    let product = making.await.map_err(Error::internal)??;
    let location = format!("/products/{}", product.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(product)).into_response())
}
