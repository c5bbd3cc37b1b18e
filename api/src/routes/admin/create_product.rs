use axum::{extract::State, http::StatusCode, response::Response};
use dibs_common::{
    clock, db,
    domain::product::{Product, ProductTerms},
};

use crate::{
    app::SharedApp,
    extract::{Administrator, JsonBody, OperationId},
    problem::ApiError,
    routes::responses::{located, problems, validate},
};

problems! { AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON" }

/// Create a product
#[utoipa::path(
    post, path = "/admin/products", tag = "administration", request_body = ProductTerms,
    responses((status = 201, description = "created", body = Product), Problems),
)]
pub async fn create_product(
    State(app): State<SharedApp>,
    _: Administrator,
    OperationId(operation): OperationId,
    JsonBody(terms): JsonBody<ProductTerms>,
) -> Result<Response, ApiError> {
    let terms = terms.normalized();
    validate(terms.errors())?;
    let database = app.database.clone();
    let creating = async move { db::products::create(&database, &terms, operation, clock::now()).await };
    let product = app.run_to_end(creating).await?;
    let location = format!("/products/{}", product.id);
    Ok(located(StatusCode::CREATED, location, product))
}
