use axum::{Json, extract::State};
use dibs_common::{
    db::{self, products::ProductsFilter},
    domain::product::{Product, ProductStatus},
    identifiers::ProductId,
};
use serde::Deserialize;
use strum::EnumString;
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::SharedApp,
    extract::{List, ListParams, Page},
    problem::ApiError,
    routes::responses::ReadProblems,
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
}

/// Of which status the listed products are.
#[derive(Clone, Copy, Debug, Default, ToSchema, EnumString)]
#[schema(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
enum ListedStatus {
    #[default]
    Selling,
    Stopped,
    All,
}

dibs_common::json::read_by_spelling!(ListedStatus);

impl ListedStatus {
    const fn wanted(self) -> Option<ProductStatus> {
        match self {
            Self::Selling => Some(ProductStatus::Selling),
            Self::Stopped => Some(ProductStatus::Stopped),
            Self::All => None,
        }
    }
}

/// List products
#[utoipa::path(
    get, path = "/products", tag = "products", params(ProductsQuery, Page::<ProductId>),
    responses((status = 200, description = "by id", body = List<Product, ProductId>), ReadProblems),
)]
pub async fn list_products(
    State(app): State<SharedApp>,
    ListParams { filter, page }: ListParams<ProductsQuery, ProductId>,
) -> Result<Json<List<Product, ProductId>>, ApiError> {
    let wanted = ProductsFilter { status: filter.status.wanted(), after: page.cursor, limit: page.rows() };
    let products = db::within(db::products::list(&app.database.pool(), wanted)).await?;
    Ok(page.list(products, |product| product.id))
}
