use axum::{Json, extract::State};
use dibs_common::{
    db::{self, products::ProductsFilter},
    domain::product::{Product, ProductStatus},
    error::Error,
    identifiers::ProductId,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::SharedApp,
    extract::QueryOf,
    problem::{ApiError, Problem},
};

/// Which products.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProductsQuery {
    /// Only those that are for sale, when it is left out.
    #[serde(default)]
    #[param(inline)]
    status: ListedStatus,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<u64>)]
    cursor: Option<ProductId>,
    /// At most so many, 1 to 100.
    #[serde(default = "twenty")]
    #[param(minimum = 1, maximum = 100)]
    limit: u32,
}

const fn twenty() -> u32 {
    20
}

/// Of which status the listed products are.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum ListedStatus {
    #[default]
    Selling,
    Stopped,
    All,
}

impl ListedStatus {
    const fn wanted(self) -> Option<ProductStatus> {
        match self {
            Self::Selling => Some(ProductStatus::Selling),
            Self::Stopped => Some(ProductStatus::Stopped),
            Self::All => None,
        }
    }
}

/// A page of products, by id.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProductsPage {
    items: Vec<Product>,
    /// Asks for the next page; null on the last.
    next_cursor: Option<ProductId>,
}

/// List products
#[utoipa::path(
    get, path = "/products", tag = "products", params(ProductsQuery),
    responses(
        (status = 200, description = "by id", body = ProductsPage),
        (status = 400, description = "VALIDATION_FAILED", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn list_products(
    State(app): State<SharedApp>,
    QueryOf(query): QueryOf<ProductsQuery>,
) -> Result<Json<ProductsPage>, ApiError> {
    let limit = query.limit;
    if !(1..=100).contains(&limit) {
        return Err(ApiError(Error::field("limit", format!("expected 1 to 100, got {limit}"))));
    }
    // One more than asked for tells whether there is a next page.
    let wanted = ProductsFilter { status: query.status.wanted(), after: query.cursor, limit: limit + 1 };
    let mut items = db::within(db::products::list(app.database.pool(), wanted)).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|product| product.id);
    Ok(Json(ProductsPage { items, next_cursor }))
}
