use dibs_common::{
    db::products::ProductsFilter,
    domain::product::{Product, ProductStatus},
    identifiers::ProductId,
};
use strum::EnumString;

use crate::routes::prelude::*;

/// Which products.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProductsQuery {
    /// Only those that are for sale, when it and `ids` are left out.
    #[param(inline)]
    status: Option<ListedStatus>,
    /// Only these, whatever their status.
    #[param(value_type = Option<Vec<ProductId>>, style = Form, explode = false, min_items = 1, max_items = 100)]
    ids: Option<Several<ProductId>>,
    /// Only those whose name contains it.
    #[param(max_length = 200)]
    name: Option<String>,
    /// Only those that cost at least so much, in won.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    min_price: Option<u64>,
    /// Only those that cost at most so much, in won.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    max_price: Option<u64>,
}

/// Of which status the listed products are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema, EnumString)]
#[schema(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
enum ListedStatus {
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
///
/// A page of `name` or price reads at most 10,000 products: it may have fewer items than `limit` and still a `nextCursor`.
#[utoipa::path(
    get, path = "/products", operation_id = "listProducts", tag = "products", params(ProductsQuery, Page::<ProductId>),
    responses((status = 200, description = "by id", body = List<Product, ProductId>), ReadProblems),
)]
pub async fn list_products(
    app: SharedApp,
    ListParams { filter, page }: ListParams<ProductsQuery, ProductId>,
) -> JsonResult<List<Product, ProductId>> {
    // A caller that names products knows them.
    let default = if filter.ids.is_some() { ListedStatus::All } else { ListedStatus::Selling };
    let won = |price: u64| i64::try_from(price).unwrap_or(i64::MAX);
    let wanted = ProductsFilter {
        status: filter.status.unwrap_or(default).wanted(),
        ids: filter.ids.map(|Several(ids)| ids),
        name: filter.name,
        min_price: filter.min_price.map(won),
        max_price: filter.max_price.map(won),
        after: page.cursor,
        limit: page.rows(),
    };
    let search = db::within(db::products::list(&app.database.pool(), &wanted)).await?;
    Ok(page.list_search(search, |product| product.id))
}
