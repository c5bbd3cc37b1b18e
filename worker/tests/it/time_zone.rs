//! The shop changes `TIME_ZONE`: what was sold stays on the day on which it was sold.

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
use dibs_common::{
    clock::{self, Timestamp},
    domain::{
        order::OrderRules,
        ranking::{Scores, business_day, days_before, start_of},
    },
    redis::sales,
    testing::TestEnvironment,
};
use dibs_worker::{
    jobs::{Job, Jobs, store_missing_days},
    ranking::rebuild,
};

use crate::{
    jobs::jobs,
    ranking::{RULES, ZONE, buy, cancel_by, deliver_all, deliver_all_in, shop},
};

/// Nine hours behind Seoul.
const NEW_ZONE: Tz = chrono_tz::UTC;
const NEW_RULES: OrderRules = OrderRules { time_zone: NEW_ZONE, ..RULES };

fn today() -> NaiveDate {
    business_day(clock::now(), ZONE)
}

/// A time of this day in Seoul that is of the day before in UTC.
fn early(day: NaiveDate) -> Timestamp {
    start_of(day, ZONE) + TimeDelta::hours(1)
}

async fn in_redis(environment: &TestEnvironment, day: NaiveDate) -> Scores {
    sales::daily(&environment.redis, day).await.expect("redis")
}

async fn stored(environment: &TestEnvironment) -> Vec<String> {
    environment.texts("SELECT CONCAT(day, ' ', quantity) FROM product_daily_sales ORDER BY day").await
}

#[tokio::test]
async fn i9_a_cancellation_after_a_change_of_the_time_zone_takes_back_what_the_sale_added() {
    let (environment, products) = shop(1).await;
    let (today, yesterday) = (today(), days_before(today(), 1));
    let order = buy(&environment, products[0], 3, early(today)).await;
    deliver_all(&environment).await;
    assert_eq!(in_redis(&environment, today).await, Scores::from([(products[0], 3)]));
    // Here the worker starts again with another TIME_ZONE, and the days in Redis are rebuilt.
    rebuild(&environment.database, &environment.redis, NEW_ZONE, clock::now()).await.expect("rebuilt");
    assert_eq!(in_redis(&environment, today).await, Scores::from([(products[0], 3)]), "sold on that day");
    assert_eq!(in_redis(&environment, yesterday).await, Scores::new());
    let cancelled = cancel_by(&environment, order, &NEW_RULES, clock::now()).await;
    assert_eq!(cancelled.paid_on, Some(today));
    deliver_all_in(&environment, NEW_ZONE).await;
    assert_eq!(in_redis(&environment, today).await, Scores::new());
    assert_eq!(in_redis(&environment, yesterday).await, Scores::new(), "no day is negative");
    environment.end().await;
}

#[tokio::test]
async fn i9_stored_days_stay_the_same_when_the_time_zone_changes() {
    let (environment, products) = shop(1).await;
    let (day, now) = (days_before(today(), 4), start_of(today(), ZONE) + TimeDelta::hours(12));
    let order = buy(&environment, products[0], 3, early(day)).await;
    buy(&environment, products[0], 2, early(day)).await;
    let (before, after) = (jobs(&environment), Jobs { zone: NEW_ZONE, ..jobs(&environment) });
    before.run_due(now).await.expect("done");
    assert_eq!(stored(&environment).await, [format!("{day} 5")]);
    for again in [days_before(day, 1), day, days_before(today(), 2)] {
        after.run(Job::PersistDailySales, Some(again), now).await.expect("done").expect("run");
    }
    assert_eq!(stored(&environment).await, [format!("{day} 5")]);
    cancel_by(&environment, order, &NEW_RULES, now).await;
    after.run_due(now + TimeDelta::hours(1)).await.expect("done");
    assert_eq!(stored(&environment).await, [format!("{day} 2")]);
    environment.end().await;
}

/// Orders that were paid by a version without the column: their day is stored once, and it is the one that they were
/// counted on.
#[tokio::test]
async fn i9_an_order_without_a_stored_day_gets_that_of_its_payment() {
    let (environment, products) = shop(1).await;
    let today = today();
    let orders = [
        buy(&environment, products[0], 3, early(today)).await,
        buy(&environment, products[0], 2, early(days_before(today, 1))).await,
    ];
    deliver_all(&environment).await;
    environment.execute("UPDATE orders SET paid_on = NULL").await;
    rebuild(&environment.database, &environment.redis, ZONE, clock::now()).await.expect("rebuilt");
    assert_eq!(in_redis(&environment, today).await, Scores::from([(products[0], 3)]), "by the time of its payment");
    let cancelled = cancel_by(&environment, orders[0], &RULES, clock::now()).await;
    assert_eq!(cancelled.paid_on, Some(today), "a cancellation that comes first stores it");
    assert_eq!(store_missing_days(&environment.database, ZONE).await.expect("stored"), 1);
    assert_eq!(store_missing_days(&environment.database, NEW_ZONE).await.expect("stored"), 0, "only once");
    let days = "SELECT CAST(paid_on AS CHAR) FROM orders ORDER BY paid_on";
    assert_eq!(environment.texts(days).await, [days_before(today, 1).to_string(), today.to_string()]);
    environment.end().await;
}
