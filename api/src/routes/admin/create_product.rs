use axum::{extract::State, http::StatusCode, response::Response};
use dibs_common::{
    db,
    domain::product::{Product, ProductTerms},
};

use crate::{
    app::SharedApp,
    extract::{Action, ActionQuery, JsonBody},
    problem::ApiError,
    routes::responses::{located, problems, validate},
};

problems! { AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON" }

/// Create a product
#[utoipa::path(
    post, path = "/admin/products", tag = "administration", request_body = ProductTerms,
    params(ActionQuery),
    responses((status = 201, description = "created", body = Product), Problems),
)]
pub async fn create_product(
    State(app): State<SharedApp>,
    Action(context): Action,
    JsonBody(terms): JsonBody<ProductTerms>,
) -> Result<Response, ApiError> {
    let terms = terms.normalized();
    validate(terms.errors())?;
    let database = app.database.clone();
    let creating = async move { db::products::create(&database, &terms, &context).await };
    let product = app.run_to_end(creating).await?;
    let location = format!("/products/{}", product.id);
    Ok(located(StatusCode::CREATED, location, product))
}
