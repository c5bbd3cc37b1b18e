use sqlx::{MySqlPool, QueryBuilder};

use super::{COLUMNS, ProductRow};
use crate::{
    db::{MAX_ROWS_READ, Search},
    domain::product::{Product, ProductStatus},
    identifiers::ProductId,
};

#[derive(Clone, Debug, Default)]
pub struct ProductsFilter {
    /// Only products of this status.
    pub status: Option<ProductStatus>,
    /// Only these.
    pub ids: Option<Vec<ProductId>>,
    /// Only products whose name contains it.
    pub name: Option<String>,
    /// Only products that cost at least so much, in won.
    pub min_price: Option<i64>,
    /// Only products that cost at most so much, in won.
    pub max_price: Option<i64>,
    /// Only products after this one.
    pub after: Option<ProductId>,
    pub limit: u32,
}

impl ProductsFilter {
    /// Whether many products may have to be read for each that is found: no index leads to a part of a name, and with one
    /// on the price a page could not be in the order of ids.
    const fn is_search(&self) -> bool {
        self.ids.is_none() && (self.name.is_some() || self.min_price.is_some() || self.max_price.is_some())
    }

    /// The index that has the products of the page in their order.
    const fn index(&self) -> &'static str {
        // Few ids: each is a lookup.
        if self.status.is_some() && self.ids.is_none() { "by_status" } else { "PRIMARY" }
    }

    fn push_range(&self, query: &mut QueryBuilder<sqlx::MySql>) {
        query.push(" FROM products FORCE INDEX (").push(self.index()).push(") WHERE product_id > ");
        query.push_bind(self.after.map_or(0, ProductId::get));
        if let Some(status) = self.status {
            query.push(" AND status = ").push_bind(status.into_str());
        }
    }
}

/// A page of products by id.
pub async fn list(pool: &MySqlPool, wanted: &ProductsFilter) -> Result<Search<Product, ProductId>, sqlx::Error> {
    let read_until = if wanted.is_search() { find_end(pool, wanted).await? } else { None };
    let mut query = QueryBuilder::new(format!("SELECT /* products::list */ {COLUMNS}"));
    wanted.push_range(&mut query);
    if let Some(end) = read_until {
        query.push(" AND product_id <= ").push_bind(end.get());
    }
    if let Some(ids) = &wanted.ids {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        query.push(format!(" AND product_id IN ({})", ids.join(",")));
    }
    if let Some(name) = &wanted.name {
        // Not LIKE, whose wildcards a name may contain.
        query.push(" AND LOCATE(").push_bind(name).push(", name) > 0");
    }
    if let Some(price) = wanted.min_price {
        query.push(" AND price >= ").push_bind(price);
    }
    if let Some(price) = wanted.max_price {
        query.push(" AND price <= ").push_bind(price);
    }
    query.push(" ORDER BY product_id LIMIT ").push_bind(wanted.limit);
    // As for orders: each list of ids would be a prepared statement of its own.
    let rows: Vec<ProductRow> = query.build_query_as().persistent(wanted.ids.is_none()).fetch_all(pool).await?;
    let found = rows.into_iter().map(ProductRow::decode).collect::<Result<_, _>>()?;
    Ok(Search { found, read_until })
}

/// The last product that a search reads; none when it reads all of them.
async fn find_end(pool: &MySqlPool, wanted: &ProductsFilter) -> Result<Option<ProductId>, sqlx::Error> {
    let mut query = QueryBuilder::new("SELECT /* products::find_end */ product_id");
    wanted.push_range(&mut query);
    query.push(" ORDER BY product_id LIMIT 1 OFFSET ").push_bind(MAX_ROWS_READ - 1);
    let end: Option<u64> = query.build_query_scalar().fetch_optional(pool).await?;
    end.map(super::identifier).transpose()
}
