use dibs_common::{domain::product::Product, identifiers::ProductId};

use crate::routes::prelude::*;

problems! { ReadProblems: 404 "PRODUCT_NOT_FOUND" }

/// Look at a product
#[utoipa::path(
    get, path = "/products/{productId}", operation_id = "getProduct", tag = "products",
    responses((status = 200, description = "the product now", body = Product), Problems),
)]
pub async fn show_product(app: SharedApp, PathParams(product): PathParams<ProductId>) -> JsonResult<Product> {
    Ok(Json(db::found(db::products::find(&app.database.pool(), product), Error::ProductNotFound(product)).await?))
}
