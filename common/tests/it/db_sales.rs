use std::collections::BTreeSet;

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::{Asia::Seoul, Tz};
use dibs_common::{
    clock::{self, Timestamp},
    db::{
        self, best_sellers, job_runs,
        sales::{self, SalesSnapshot},
    },
    domain::ranking::{Scores, days_before, start_of},
    testing::TestEnvironment,
};

use crate::support::{connection, insert_event, product};

const ZONE: Tz = Seoul;

fn day(number: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 3, number).expect("a day")
}

/// An hour after the day began in Seoul, which is the day before in UTC.
fn on(number: u32) -> Timestamp {
    start_of(day(number), ZONE) + TimeDelta::hours(1)
}

/// An order of units of a product.
async fn order(environment: &TestEnvironment, id: u32, paid_at: Timestamp, status: &str, items: &[(u64, u32)]) {
    let ended = if status == "CANCELLED" { "'2026-03-20 00:00:00'" } else { "NULL" };
    let paid = paid_at.format("%Y-%m-%d %H:%M:%S");
    environment
        .execute(&format!(
            "INSERT INTO orders (order_id, user_id, status, total_amount, discount_amount, pay_amount, created_at, expires_at, \
             paid_at, ended_at) VALUES (UNHEX('{id:032x}'), 1, '{status}', 0, 0, 0, '{paid}', '{paid}', '{paid}', {ended})"
        ))
        .await;
    for (product, quantity) in items {
        environment
            .execute(&format!(
                "INSERT INTO order_items (order_id, product_id, name, unit_price, quantity) \
                 VALUES (UNHEX('{id:032x}'), {product}, 'tea', 0, {quantity})"
            ))
            .await;
    }
}

async fn snapshot_of(environment: &TestEnvironment, number: u32) -> (u64, Scores) {
    let mut connection = connection(environment).await;
    let mut snapshot = SalesSnapshot::open(&mut connection, ZONE).await.expect("opened");
    let scores = snapshot.day(day(number)).await.expect("read");
    (snapshot.position.sequence, scores)
}

#[tokio::test]
async fn a_snapshot_sums_the_paid_orders_of_a_business_day() {
    let environment = TestEnvironment::new().await;
    order(&environment, 1, on(10), "PAY_DONE", &[(7, 2), (8, 1)]).await;
    order(&environment, 2, on(10), "BUY_CONFIRM", &[(7, 3)]).await;
    order(&environment, 3, on(10), "CANCELLED", &[(7, 100)]).await;
    order(&environment, 4, start_of(day(10), ZONE) - TimeDelta::seconds(1), "PAY_DONE", &[(7, 50)]).await;
    assert_eq!(snapshot_of(&environment, 10).await, (0, Scores::from([(product(7), 5), (product(8), 1)])));
    assert_eq!(snapshot_of(&environment, 9).await.1, Scores::from([(product(7), 50)]));
    assert_eq!(snapshot_of(&environment, 11).await.1, Scores::new());
    environment.end().await;
}

/// An order that is paid on a stored day counts on it, whatever the time zone makes of its time.
#[tokio::test]
async fn a_stored_day_decides_and_its_time_only_where_there_is_none() {
    let environment = TestEnvironment::new().await;
    order(&environment, 1, on(10), "PAY_DONE", &[(7, 2)]).await;
    order(&environment, 2, on(10), "PAY_DONE", &[(7, 3)]).await;
    environment.execute("UPDATE orders SET paid_on = '2026-03-12' WHERE order_id = UNHEX(LPAD('1', 32, '0'))").await;
    assert_eq!(snapshot_of(&environment, 10).await.1, Scores::from([(product(7), 3)]));
    assert_eq!(snapshot_of(&environment, 12).await.1, Scores::from([(product(7), 2)]));
    let sold = async |number| sales::persist_day(&environment.database, day(number), ZONE).await.expect("persisted");
    assert_eq!((sold(10).await, sold(11).await, sold(12).await), (1, 0, 1));
    let pool = &environment.database.pool();
    assert_eq!(sales::store_days(pool, ZONE, 10).await.expect("stored"), 1);
    assert_eq!(
        environment.texts("SELECT CAST(paid_on AS CHAR) FROM orders ORDER BY 1").await,
        ["2026-03-10", "2026-03-12"]
    );
    environment.execute("UPDATE orders SET status = 'CANCELLED', ended_at = '2026-03-20'").await;
    let cancelled = sales::list_days_cancelled_since(pool, day(12), on(19), chrono_tz::UTC).await.expect("read");
    assert_eq!(cancelled, BTreeSet::from([day(10)]), "days before the 12th, as stored");
    environment.end().await;
}

/// Their events come later, and are counted then.
#[tokio::test]
async fn a_snapshot_leaves_out_orders_whose_events_have_no_sequence() {
    let environment = TestEnvironment::new().await;
    order(&environment, 1, on(10), "PAY_DONE", &[(7, 2)]).await;
    let payload = format!(r#"{{"items": [{{"productId": 7, "quantity": 2}}], "paidAt": "{}"}}"#, on(10).to_rfc3339());
    let mut writer = connection(&environment).await;
    insert_event(&mut writer, "order.paid", &payload).await;
    drop(writer);
    assert_eq!(snapshot_of(&environment, 10).await, (0, Scores::new()));
    db::outbox::sequence_events(&environment.database).await.expect("sequenced");
    assert_eq!(snapshot_of(&environment, 10).await, (1, Scores::from([(product(7), 2)])));
    environment.end().await;
}

#[tokio::test]
async fn all_reads_of_a_snapshot_are_of_one_moment() {
    let environment = TestEnvironment::new().await;
    let mut connection = connection(&environment).await;
    let mut snapshot = SalesSnapshot::open(&mut connection, ZONE).await.expect("opened");
    order(&environment, 1, on(10), "PAY_DONE", &[(7, 2)]).await;
    assert_eq!(snapshot.day(day(10)).await.expect("read"), Scores::new());
    drop(snapshot);
    drop(connection);
    environment.end().await;
}

#[tokio::test]
async fn days_and_best_sellers_are_replaced_as_a_whole() {
    let environment = TestEnvironment::new().await;
    let persist = async |number| sales::persist_day(&environment.database, day(number), ZONE).await.expect("persisted");
    order(&environment, 1, on(10), "PAY_DONE", &[(7, 2), (8, 5), (9, 5)]).await;
    order(&environment, 2, on(8), "PAY_DONE", &[(7, 1)]).await;
    order(&environment, 3, on(7), "PAY_DONE", &[(7, 100)]).await;
    assert_eq!((persist(10).await, persist(8).await, persist(7).await, persist(9).await), (3, 1, 1, 0));
    assert_eq!(sales::persist_best_sellers(&environment.database, day(10)).await.expect("ranked"), 3);
    let pool = &environment.database.pool();
    let list = async |days| best_sellers::list(pool, day(10), days).await.expect("read");
    let ranked = [(product(8), 5), (product(9), 5), (product(7), 3)];
    assert_eq!(list(3).await, ranked, "of equal units, the lower id first");
    assert_eq!(list(1).await, [(product(8), 5), (product(9), 5), (product(7), 2)]);
    assert_eq!(list(7).await[0], (product(7), 103));
    let units = async |number, days| best_sellers::sum_units(pool, product(number), day(10), days).await.expect("read");
    assert_eq!((units(7, 3).await, units(7, 7).await, units(6, 7).await), (3, 103, 0));
    environment.execute("UPDATE orders SET status = 'CANCELLED' WHERE paid_at >= '2026-03-09'").await;
    assert_eq!(persist(10).await, 0);
    assert_eq!(sales::persist_best_sellers(&environment.database, day(10)).await.expect("ranked"), 1);
    assert_eq!(list(3).await, [(product(7), 1)]);
    environment.end().await;
}

#[tokio::test]
async fn days_whose_orders_were_cancelled_since_are_found() {
    let environment = TestEnvironment::new().await;
    for (id, number) in [(1, 10), (2, 12), (3, 14)] {
        order(&environment, id, on(number), "CANCELLED", &[(7, 1)]).await;
    }
    order(&environment, 4, on(11), "PAY_DONE", &[(7, 1)]).await;
    let since = async |number| {
        let pool = &environment.database.pool();
        let cancelled = sales::list_days_cancelled_since(pool, day(13), on(number), ZONE);
        cancelled.await.expect("read")
    };
    assert_eq!(since(19).await, BTreeSet::from([day(10), day(12)]), "days before the 13th");
    assert_eq!(since(22).await, BTreeSet::new());
    environment.end().await;
}

#[tokio::test]
async fn a_job_run_shows_when_the_last_completed_one_began() {
    let environment = TestEnvironment::new().await;
    let (pool, now) = (&environment.database.pool(), clock::now());
    let name = "persist-daily-sales";
    assert_eq!(best_sellers::find_last_day(pool).await.expect("read"), None);
    let run = async |number, outcome: Result<&str, &str>, at: Timestamp| {
        job_runs::begin(pool, name, day(number), at).await.expect("written");
        job_runs::end(pool, name, day(number), outcome, at + TimeDelta::seconds(1)).await.expect("written");
    };
    run(10, Ok("3 products"), now).await;
    run(11, Err("no database"), now).await;
    let done =
        async |first| job_runs::list_done(pool, name, first).await.expect("read").into_iter().collect::<Vec<_>>();
    assert_eq!(done(day(1)).await, [(day(10), now)]);
    run(10, Err(&"long ".repeat(100)), now + TimeDelta::minutes(1)).await;
    assert_eq!(done(day(1)).await, [(day(10), now)], "a failed run does not take back the completed one");
    assert_eq!(environment.count("SELECT CHAR_LENGTH(detail) FROM job_runs WHERE day = '2026-03-10'").await, 300);
    job_runs::begin(pool, name, day(11), now).await.expect("written");
    assert_eq!(environment.texts("SELECT status FROM job_runs ORDER BY day").await, ["FAILED", "RUNNING"]);
    assert_eq!(best_sellers::find_last_day(pool).await.expect("read"), Some((day(10), now)));
    assert_eq!(done(day(11)).await, []);
    assert_eq!(job_runs::list_done(pool, "purge", days_before(day(10), 9)).await.expect("read").len(), 0);
    environment.end().await;
}
