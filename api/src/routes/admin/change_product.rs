use dibs_common::{
    domain::product::{Product, ProductChange},
    identifiers::ProductId,
};

use crate::routes::prelude::*;

problems! { AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON", 404 "PRODUCT_NOT_FOUND", 422 "STOCK_INSUFFICIENT" }

/// Change a product
///
/// What is left out stays. `stockChange` is added to the stock that is there, once for an `Idempotency-Key`.
#[utoipa::path(
    patch, path = "/admin/products/{productId}", operation_id = "changeProduct", tag = "catalogue", params(ActionQuery),
    request_body = ProductChange,
    responses((status = 200, description = "the product after the change", body = Product), Problems),
)]
pub async fn change_product(
    app: SharedApp,
    Action(context): Action,
    PathParams(product): PathParams<ProductId>,
    JsonBody(change): JsonBody<ProductChange>,
) -> JsonResult<Product> {
    let change = change.normalized();
    validate(change.errors())?;
    let database = app.database.clone();
    let changing = async move { db::products::update(&database, product, &change, &context).await };
    Ok(Json(app.run_to_end(changing).await?))
}
