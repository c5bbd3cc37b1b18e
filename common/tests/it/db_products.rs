use dibs_common::{
    Error,
    db::products::{self, ProductsFilter},
    domain::product::{ProductChange, ProductStatus, ProductTerms},
    identifiers::ProductId,
    testing::{TestEnvironment, action},
};
use futures::future::join_all;

use crate::support::product;

fn terms(name: &str, status: ProductStatus) -> ProductTerms {
    ProductTerms { name: name.into(), price: 12_000, stock: 5, status, payment_required: false }
}

#[tokio::test]
async fn a_repeated_operation_creates_one_product() {
    let environment = TestEnvironment::new().await;
    assert!(!products::exist(&environment.database.pool()).await.expect("read"));
    let (wanted, context) = (terms("커피 'Guji'", ProductStatus::Selling), action());
    let created = join_all((0..5).map(|_| products::create(&environment.database, &wanted, &context))).await;
    let first = created[0].as_ref().expect("created").clone();
    assert!(created.iter().all(|product| product.as_ref().is_ok_and(|product| *product == first)));
    assert_eq!(products::find(&environment.database.pool(), first.id).await.expect("read"), Some(first));
    assert!(products::exist(&environment.database.pool()).await.expect("read"));
    assert_eq!(environment.texts("SELECT type FROM outbox_events").await, ["product.created"]);
    environment.end().await;
}

#[tokio::test]
async fn products_are_listed_by_status_and_page_and_by_id() {
    let environment = TestEnvironment::new().await;
    let mut ids: Vec<ProductId> = Vec::new();
    for status in [ProductStatus::Selling, ProductStatus::Stopped, ProductStatus::Selling] {
        let created = products::create(&environment.database, &terms("tea", status), &action()).await;
        ids.push(created.expect("created").id);
    }
    let list = async |status, after, limit| -> Vec<ProductId> {
        let filter = ProductsFilter { status, after, limit, ..ProductsFilter::default() };
        let page = products::list(&environment.database.pool(), &filter).await.expect("read").found;
        page.iter().map(|product| product.id).collect()
    };
    assert_eq!(list(None, None, 2).await, ids[..2]);
    assert_eq!(list(None, Some(ids[1]), 2).await, ids[2..]);
    assert_eq!(list(Some(ProductStatus::Selling), None, 9).await, [ids[0], ids[2]]);
    assert_eq!(list(Some(ProductStatus::Stopped), Some(ids[1]), 9).await, []);
    let unknown = product(ids[2].get() + 1);
    let found = products::list_by_ids(&environment.database.pool(), [ids[2], unknown, ids[0]]).await.expect("read");
    let mut found: Vec<ProductId> = found.iter().map(|product| product.id).collect();
    found.sort_unstable();
    assert_eq!(found, [ids[0], ids[2]]);
    assert_eq!(products::list_by_ids(&environment.database.pool(), []).await.expect("read"), []);
    assert_eq!(products::find(&environment.database.pool(), unknown).await.expect("read"), None);
    environment.end().await;
}

#[tokio::test]
async fn an_update_changes_the_stock_by_a_difference_and_rejects_what_is_not_there() {
    let environment = TestEnvironment::new().await;
    let id = environment.product(12_000, 5).await;
    let update = async |change: ProductChange| products::update(&environment.database, id, &change, &action()).await;
    let more = ProductChange { stock_change: Some(3), price: Some(9_000), ..ProductChange::default() };
    let changed = update(more).await.expect("changed");
    assert_eq!((changed.stock, changed.price), (8, 9_000));
    let fewer = ProductChange { stock_change: Some(-9), name: Some("x".into()), ..ProductChange::default() };
    let rejected = update(fewer).await.expect_err("too few");
    assert!(matches!(rejected, Error::StockInsufficient { stock: 8, change: -9, .. }), "{rejected:?}");
    let unknown =
        products::update(&environment.database, product(id.get() + 1), &ProductChange::default(), &action()).await;
    assert!(matches!(unknown, Err(Error::ProductNotFound(_))));
    assert_eq!(environment.count("SELECT restocked FROM products").await, 3);
    assert_eq!(
        environment.texts("SELECT type FROM outbox_events ORDER BY event_id").await,
        ["product.created", "product.changed"]
    );
    environment.end_consistent().await;
}

#[tokio::test]
async fn simultaneous_stock_changes_are_all_counted() {
    let environment = TestEnvironment::new().await;
    let id = environment.product(12_000, 0).await;
    let change = ProductChange { stock_change: Some(1), ..ProductChange::default() };
    let contexts: Vec<_> = (0..12).map(|_| action()).collect();
    let updates = contexts.iter().map(|context| products::update(&environment.database, id, &change, context));
    for changed in join_all(updates).await {
        changed.expect("changed");
    }
    assert_eq!(environment.count("SELECT stock FROM products").await, 12);
    environment.end().await;
}
