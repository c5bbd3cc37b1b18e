//! What sold best, as the API shows it.

use std::time::{Duration, Instant};

use chrono::{NaiveDate, TimeDelta};
use dibs_common::{
    clock,
    domain::{
        event::Position,
        ranking::{Scores, business_day, days_before},
    },
    identifiers::{ProductId, new_uuid},
    redis::{sales, scripts::sales_put},
    testing::{TestEnvironment, eventually, expect_windows_of_days},
};
use dibs_worker::ranking::{WindowsBuilt, warm};
use serde_json::{Value, json};

use crate::app::{Answer, TestApp};

const BEST: &str = "/products/best-sellers";

fn today(environment: &TestEnvironment) -> NaiveDate {
    business_day(clock::now(), environment.settings.time_zone)
}

/// Lets Redis hold these units, days ago, and its windows.
async fn sold(environment: &TestEnvironment, units: &[(u64, ProductId, i64)]) {
    let (rebuild, in_a_day) = (new_uuid(), clock::now() + TimeDelta::days(1));
    let mut days = Vec::new();
    for (days_ago, product, units) in units {
        let day = days_before(today(environment), *days_ago);
        let staged = environment.redis.keys.staged(&environment.redis.keys.daily_sales(day), rebuild);
        sales::write_staged(&environment.redis, &staged, &Scores::from([(*product, *units)]), 1).await.expect("staged");
        days.push((day, in_a_day));
    }
    days.sort_unstable();
    days.dedup();
    sales::invalidate(&environment.redis).await.expect("forgotten");
    assert!(sales_put(&environment.redis, rebuild, Position::default(), &days, today(environment)).await.expect("put"));
    let built = warm(&environment.redis, environment.settings.time_zone, clock::now()).await.expect("redis");
    assert!(matches!(built, WindowsBuilt::Shown { .. }), "{built:?}");
}

/// The answer of a path, once it is as `expected`: memory is a second behind.
async fn shown(app: &TestApp, path: &str, expected: impl Fn(&Answer) -> bool) -> Answer {
    eventually(path, Duration::from_secs(5), || async { expected(&app.get(path).await) }).await;
    app.get(path).await
}

fn listed(answer: &Answer) -> Vec<(u64, u64, i64)> {
    let items = answer.body["items"].as_array().expect("items");
    let number = |item: &Value, name: &str| item[name].as_u64().expect("a number");
    let units = |item: &Value| item["soldQuantity"].as_i64().expect("units");
    items.iter().map(|item| (number(item, "rank"), number(item, "productId"), units(item))).collect()
}

/// `002` section 3-2-2, from the order to the reader: paid units count within 2 s, cancelled ones no longer.
#[tokio::test]
async fn seed_002_3_2_2_what_is_paid_is_ranked_within_two_seconds() {
    let app = TestApp::with_worker().await;
    let products = [app.environment.product(1_000, 100).await, app.environment.product(1_000, 100).await];
    app.environment.points(1, 100_000).await;
    let order = async |product: ProductId, quantity: u32| {
        let items = json!([{ "productId": product, "quantity": quantity }]);
        let placed = app.post("/orders", json!({ "userId": 1, "items": items, "pay": true })).await;
        assert_eq!(placed.status, 201);
        placed.body["orderId"].as_str().expect("an id").to_owned()
    };
    shown(&app, BEST, |answer| !answer.body["updatedAt"].is_null()).await;
    let mut times = Vec::new();
    for sold in 1..=4 {
        let paid = order(products[0], 1).await;
        let (began, mut expected) = (Instant::now(), vec![(1, products[0].get(), sold)]);
        shown(&app, BEST, |answer| listed(answer) == expected).await;
        times.push(began.elapsed());
        if sold == 4 {
            order(products[1], 5).await;
            assert_eq!(app.post(&format!("/orders/{paid}/cancel"), json!({ "userId": 1 })).await.status, 200);
            let began = Instant::now();
            expected = vec![(1, products[1].get(), 5), (2, products[0].get(), 3)];
            shown(&app, BEST, |answer| listed(answer) == expected).await;
            times.push(began.elapsed());
        }
    }
    times.sort_unstable();
    // The machine may stop for a while during one of them.
    assert!(times[2] < Duration::from_secs(2), "{times:?}");
    let to = today(&app.environment);
    expect_windows_of_days(&app.environment.redis, to, "at rest").await;
    let rank = app.get(&format!("/products/{}/rank?days=7", products[0])).await;
    assert_eq!((&rank.body["rank"], &rank.body["soldQuantity"]), (&json!(2), &json!(3)));
    app.end().await;
}

/// `004`, what sold best: pages of products with name, price and status, over 1, 3 or 7 days.
#[tokio::test]
async fn seed_004_best_sellers_are_listed_page_by_page() {
    let app = TestApp::new().await;
    let mut products = Vec::new();
    for _ in 0..12 {
        products.push(app.environment.product(5_000, 10).await);
    }
    let mut units: Vec<(u64, ProductId, i64)> = products.iter().map(|product| (0, *product, 4)).collect();
    units.extend([(1, products[11], 1), (2, products[10], 1), (3, products[0], 90)]);
    sold(&app.environment, &units).await;
    let first = shown(&app, BEST, |answer| listed(answer).len() == 10).await;
    assert_eq!(first.status, 200);
    let ids: Vec<u64> = listed(&first).iter().map(|(_, product, _)| *product).collect();
    let ordered = [10, 11, 0, 1, 2, 3, 4, 5, 6, 7].map(|index: usize| products[index].get());
    assert_eq!(ids, ordered, "ties go to the lower id");
    let best = &first.body["items"][0];
    assert_eq!((&best["rank"], &best["price"], &best["status"]), (&json!(1), &json!(5_000), &json!("SELLING")));
    assert!(best["name"].as_str().is_some_and(|name| name.starts_with("커피")));
    let today = today(&app.environment);
    assert_eq!(first.body["from"], json!(days_before(today, 2)));
    assert_eq!((&first.body["to"], &first.body["days"]), (&json!(today), &json!(3)));
    assert!(first.body["updatedAt"].is_string());

    let second = app.get(&format!("{BEST}?pageNumber=2&pageSize=10")).await;
    assert_eq!(listed(&second), [(11, products[8].get(), 4), (12, products[9].get(), 4)]);
    assert_eq!(listed(&app.get(&format!("{BEST}?pageNumber=4294967295&pageSize=100")).await), []);
    let week = app.get(&format!("{BEST}?days=7&pageSize=5")).await;
    assert_eq!((listed(&week).len(), listed(&week)[0]), (5, (1, products[0].get(), 94)));
    assert_eq!(listed(&app.get(&format!("{BEST}?days=1&pageSize=1")).await), [(1, products[0].get(), 4)]);

    app.patch(&format!("/admin/products/{}", products[10]), json!({ "price": 1, "status": "STOPPED" })).await;
    shown(&app, BEST, |answer| answer.body["items"][0]["price"] == 1 && answer.body["items"][0]["status"] == "STOPPED")
        .await;
    app.end().await;
}

/// `002` section 3-2-1: the stored tables answer when Redis has nothing, the top five among them.
#[tokio::test]
async fn seed_002_3_2_1_the_tables_answer_when_redis_is_empty() {
    let app = TestApp::new().await;
    let nothing = app.get(BEST).await;
    assert_eq!((nothing.status.as_u16(), &nothing.body["items"]), (200, &json!([])));
    assert_eq!(nothing.body["updatedAt"], Value::Null);
    let product = app.environment.product(5_000, 10).await;
    let other = app.environment.product(5_000, 10).await;
    let yesterday = days_before(today(&app.environment), 1);
    for sql in [
        format!(
            "INSERT INTO product_daily_sales VALUES ('{yesterday}', {product}, 4), ('{}', {product}, 3)",
            days_before(yesterday, 1)
        ),
        format!("INSERT INTO product_daily_sales VALUES ('{}', {other}, 9)", days_before(yesterday, 6)),
        format!("INSERT INTO best_sellers VALUES ('{yesterday}', 1, {product}, 7)"),
        format!(
            "INSERT INTO job_runs VALUES ('persist-daily-sales', '{yesterday}', 'DONE', NOW(3), NOW(3), NOW(3), 'done')"
        ),
    ] {
        app.environment.execute(&sql).await;
    }
    let stored = shown(&app, &format!("{BEST}?pageSize=5"), |answer| !listed(answer).is_empty()).await;
    assert_eq!(listed(&stored), [(1, product.get(), 7)]);
    assert_eq!((&stored.body["from"], &stored.body["to"]), (&json!(days_before(yesterday, 2)), &json!(yesterday)));
    assert_eq!(listed(&app.get(&format!("{BEST}?days=1")).await), [(1, product.get(), 4)]);
    let week = app.get(&format!("{BEST}?days=7")).await;
    assert_eq!(listed(&week), [(1, other.get(), 9), (2, product.get(), 7)]);
    let rank = app.get(&format!("/products/{other}/rank")).await;
    assert_eq!((&rank.body["rank"], &rank.body["soldQuantity"]), (&Value::Null, &json!(0)));
    sold(&app.environment, &[(0, other, 1)]).await;
    shown(&app, BEST, |answer| listed(answer) == [(1, other.get(), 1)]).await;
    app.end().await;
}

#[tokio::test]
async fn a_product_has_its_rank() {
    let app = TestApp::new().await;
    let products =
        [app.environment.product(1, 1).await, app.environment.product(1, 1).await, app.environment.product(1, 1).await];
    sold(&app.environment, &[(0, products[0], 2), (1, products[1], 5)]).await;
    let path = |product: &ProductId| format!("/products/{product}/rank");
    let answer = shown(&app, &path(&products[0]), |answer| answer.body["rank"] == 2).await;
    let today = today(&app.environment);
    let updated_at = answer.body["updatedAt"].clone();
    assert_eq!(
        answer.body,
        json!({
            "productId": products[0], "rank": 2, "soldQuantity": 2, "days": 3,
            "from": days_before(today, 2), "to": today, "updatedAt": updated_at,
        })
    );
    assert_eq!(app.get(&format!("{}?days=1", path(&products[1]))).await.body["rank"], Value::Null);
    assert_eq!(app.get(&path(&products[2])).await.body["soldQuantity"], 0);
    let unknown = app.get("/products/999/rank").await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "PRODUCT_NOT_FOUND"));
    app.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_question_for_rankings_is_named() {
    let wrong = [
        ("pageNumber=0", "pageNumber"),
        ("pageSize=0", "pageSize"),
        ("pageSize=101", "pageSize"),
        ("days=2", "days"),
        ("days=x", "days"),
        ("page=1", "page"),
    ];
    let app = TestApp::new().await;
    for (query, field) in wrong {
        let answer = app.get(&format!("{BEST}?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"), "{query}");
        assert_eq!(answer.body["errors"][0]["field"], field);
    }
    let answer = app.get("/products/1/rank?days=0").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "VALIDATION_FAILED"));
    app.end().await;
}
