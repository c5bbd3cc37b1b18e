use dibs_common::domain::product::{Product, ProductTerms};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON" }

/// Create a product
#[utoipa::path(
    post, path = "/admin/products", operation_id = "createProduct",
    tag = "catalogue", request_body = ProductTerms, params(ActionQuery),
    responses((status = 201, description = "created", body = Product, headers(("Location"))), Problems),
)]
pub async fn create_product(
    app: SharedApp,
    Action(context): Action,
    JsonBody(terms): JsonBody<ProductTerms>,
) -> ApiResult {
    let terms = terms.normalized();
    validate(terms.errors())?;
    let database = app.database.clone();
    let creating = async move { db::products::create(&database, &terms, &context).await };
    let product = app.run_to_end(creating).await?;
    let location = format!("/products/{}", product.id);
    Ok(located(StatusCode::CREATED, location, product))
}
