//! The tables `products` and `product_changes`.

mod list;

pub use list::{ProductsFilter, list};
use sqlx::{FromRow as _, MySqlConnection, MySqlPool, types::Json};
use uuid::Uuid;

use super::{
    Database, admin_actions,
    decode::{find_row, identifier, parse},
    is_duplicate,
    retention::delete_older,
    retrying,
    statements::insert_event,
    with_timeout,
};
use crate::{
    clock::Timestamp,
    domain::{
        admin_action::{ActionContext, ChangedFields, NewAdminAction},
        campaign::MAX_AMOUNT,
        event::{Aggregate, Event},
        product::{Product, ProductChange, ProductRejectReason, ProductTerms},
    },
    error::{Error, Result},
    identifiers::ProductId,
};

#[derive(sqlx::FromRow)]
pub(super) struct ProductRow {
    product_id: u64,
    name: String,
    price: i64,
    stock: i64,
    status: String,
    payment_required: bool,
}

pub(super) const COLUMNS: &str = "product_id, name, price, stock, status, payment_required <> 0 AS payment_required";

impl ProductRow {
    pub(super) fn decode(self) -> Result<Product, sqlx::Error> {
        Ok(Product {
            id: identifier(self.product_id)?,
            status: parse("products.status", &self.status)?,
            name: self.name,
            price: self.price,
            stock: self.stock,
            payment_required: self.payment_required,
        })
    }
}

/// Whether any product exists.
pub async fn exist(pool: &MySqlPool) -> Result<bool, sqlx::Error> {
    let found: Option<u64> = sqlx::query_scalar("SELECT /* products::exist */ product_id FROM products LIMIT 1")
        .fetch_optional(pool)
        .await?;
    Ok(found.is_some())
}

/// The product of that id, if it exists.
pub async fn find(pool: &MySqlPool, product: ProductId) -> Result<Option<Product>, sqlx::Error> {
    let sql = format!("SELECT /* products::find */ {COLUMNS} FROM products WHERE product_id = ?");
    find_row(pool, sql, product.get()).await?.map(ProductRow::decode).transpose()
}

/// Those of `products` that exist.
pub async fn list_by_ids(
    pool: &MySqlPool,
    products: impl IntoIterator<Item = ProductId> + Send,
) -> Result<Vec<Product>, sqlx::Error> {
    let ids: Vec<String> = products.into_iter().map(|product| product.to_string()).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids = ids.join(",");
    let sql = format!("SELECT /* products::list_by_ids */ {COLUMNS} FROM products WHERE product_id IN ({ids})");
    // As text, not prepared: each length of the list would be a statement of its own.
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await?;
    rows.iter().map(|row| ProductRow::from_row(row)?.decode()).collect()
}

/// Inserts a product with its event. A repeat of `operation` returns the existing product.
pub async fn create(database: &Database, terms: &ProductTerms, context: &ActionContext) -> Result<Product> {
    retrying("create_product", || async {
        match with_timeout(insert(database, terms, context)).await {
            Err(error) if is_duplicate(&error) => find_created_by(&database.pool(), context.operation).await,
            created => created,
        }
    })
    .await
}

async fn find_created_by(pool: &MySqlPool, operation: Uuid) -> Result<Product, sqlx::Error> {
    let sql = format!("SELECT /* products::find_created_by */ {COLUMNS} FROM products WHERE operation_id = ?");
    let row: ProductRow = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(operation).fetch_one(pool).await?;
    row.decode()
}

async fn insert(database: &Database, terms: &ProductTerms, context: &ActionContext) -> Result<Product, sqlx::Error> {
    let mut transaction = database.begin().await?;
    // The key on `operation_id` refuses a repeat, and `create` then returns the first product.
    let inserted = sqlx::query(
        "INSERT INTO products /* products::insert */ \
         (name, price, stock, initial_stock, status, payment_required, operation_id, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&terms.name)
    .bind(terms.price)
    .bind(terms.stock)
    .bind(terms.stock)
    .bind(terms.status.into_str())
    .bind(terms.payment_required)
    .bind(context.operation)
    .bind(context.at)
    .bind(context.at)
    .execute(&mut *transaction)
    .await?;
    let id = identifier(inserted.last_insert_id())?;
    let ProductTerms { name, price, stock, status, payment_required } = terms.clone();
    let product = Product { id, name, price, stock, status, payment_required };
    insert_event(&mut transaction, Event::new(Aggregate::Product(id), "product.created", &product), context.at).await?;
    let action = NewAdminAction::created("product.create", &id, &product);
    admin_actions::insert(&mut transaction, context, &action).await?;
    transaction.commit().await?;
    Ok(product)
}

/// Applies a change to a product, with its event. Returns the product after it. A repeat of `operation` changes
/// nothing.
pub async fn update(
    database: &Database,
    product: ProductId,
    change: &ProductChange,
    context: &ActionContext,
) -> Result<Product> {
    // The outer result is the database's, the inner one the rules': a rejection is not retried.
    retrying("change_product", || with_timeout(update_locked(database, product, change, context))).await?
}

async fn update_locked(
    database: &Database,
    id: ProductId,
    change: &ProductChange,
    context: &ActionContext,
) -> Result<Result<Product>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let Some(product) = lock(&mut transaction, id).await? else {
        // Dropping the transaction rolls it back, here and below.
        return Ok(Err(Error::ProductNotFound(id)));
    };
    // Under the lock: an earlier attempt whose COMMIT is still under way is waited for.
    if let Some(Json(changed)) = find_change(&mut transaction, context.operation).await? {
        return Ok(Ok(changed));
    }
    let stock = product.stock;
    let before = product.clone();
    let changed = match change.apply(product) {
        Ok(changed) => changed,
        Err(reason) => return Ok(Err(rejection(reason, id, stock, change))),
    };
    sqlx::query(
        // `restocked` as well: initial stock, restocks, sales and returns must add up to the stock (I5).
        "UPDATE products /* products::update_locked */ \
         SET name = ?, price = ?, stock = ?, restocked = restocked + ?, status = ?, payment_required = ?, updated_at = ? \
         WHERE product_id = ?",
    )
    .bind(&changed.name)
    .bind(changed.price)
    .bind(changed.stock)
    .bind(changed.stock - stock)
    .bind(changed.status.into_str())
    .bind(changed.payment_required)
    .bind(context.at)
    .bind(id.get())
    .execute(&mut *transaction)
    .await?;
    let fields = ChangedFields::between(&before, &changed);
    insert_change(&mut transaction, context.operation, &changed, context.at).await?;
    insert_event(&mut transaction, Event::new(Aggregate::Product(id), "product.changed", &changed), context.at).await?;
    let action = NewAdminAction::changed("product.change", &id, &fields);
    admin_actions::insert(&mut transaction, context, &action).await?;
    transaction.commit().await?;
    Ok(Ok(changed))
}

/// The product after a change, when the change was made before.
async fn find_change(connection: &mut MySqlConnection, operation: Uuid) -> Result<Option<Json<Product>>, sqlx::Error> {
    sqlx::query_scalar("SELECT /* products::find_change */ product FROM product_changes WHERE operation_id = ?")
        .bind(operation)
        .fetch_optional(connection)
        .await
}

/// In the transaction of the change: the answer to COMMIT may be lost, and then only this row knows of the change.
async fn insert_change(
    connection: &mut MySqlConnection,
    operation: Uuid,
    changed: &Product,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO product_changes /* products::insert_change */ (operation_id, product_id, product, created_at) \
         VALUES (?, ?, ?, ?)",
    )
    .bind(operation)
    .bind(changed.id.get())
    .bind(Json(changed))
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

/// Deletes at most `limit` records of changes that were made before `before`. Returns their number.
pub async fn purge_changes(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let sql =
        "DELETE /* products::purge_changes */ FROM product_changes WHERE created_at < ? ORDER BY created_at LIMIT ?";
    delete_older(pool, sql, before, limit).await
}

async fn lock(connection: &mut MySqlConnection, product: ProductId) -> Result<Option<Product>, sqlx::Error> {
    let sql = format!(
        "SELECT /* products::lock: orders change the stock under the same lock */ {COLUMNS} \
         FROM products WHERE product_id = ? FOR UPDATE"
    );
    find_row(connection, sql, product.get()).await?.map(ProductRow::decode).transpose()
}

fn rejection(reason: ProductRejectReason, product: ProductId, stock: i64, change: &ProductChange) -> Error {
    match reason {
        ProductRejectReason::StockInsufficient => {
            Error::StockInsufficient { product, stock, change: change.stock_change.unwrap_or(0) }
        }
        ProductRejectReason::StockTooLarge => {
            Error::field("stockChange", format!("expected at most {} more, as {stock} are there", MAX_AMOUNT - stock))
        }
    }
}
