//! Jobs that are done late, twice, by two at once, or not at all.

use std::{sync::Arc, time::Duration};

use chrono::{NaiveDate, TimeDelta};
use dibs_common::{
    clock::Timestamp,
    db,
    domain::ranking::{business_day, days_before, start_of},
    identifiers::{OrderId, ProductId},
    testing::{TestEnvironment, eventually},
};
use dibs_worker::{
    jobs::{Job, Jobs},
    settings::Retention,
};

use crate::ranking::{ZONE, buy, cancel, deliver_all, shop};

pub fn jobs(environment: &TestEnvironment) -> Jobs {
    Jobs {
        database: environment.database.clone(),
        redis: environment.redis.clone(),
        zone: ZONE,
        partitions: 1,
        retention: Retention::DEFAULT,
        expiry: Arc::default(),
    }
}

fn noon(day: NaiveDate) -> Timestamp {
    start_of(day, ZONE) + TimeDelta::hours(12)
}

fn today() -> NaiveDate {
    business_day(dibs_common::clock::now(), ZONE)
}

/// A product of which units were sold.
struct Sold {
    environment: TestEnvironment,
    jobs: Jobs,
    product: ProductId,
    /// The order of 3 units.
    order: OrderId,
}

/// On a day 3 units and 2 units of a product are sold.
async fn with_sales(day: NaiveDate) -> Sold {
    let (environment, products) = shop(1).await;
    let order = buy(&environment, products[0], 3, noon(day)).await;
    buy(&environment, products[0], 2, noon(day)).await;
    Sold { jobs: jobs(&environment), environment, product: products[0], order }
}

async fn daily(environment: &TestEnvironment) -> Vec<String> {
    environment
        .texts("SELECT CONCAT(day, ' ', product_id, ' ', quantity) FROM product_daily_sales ORDER BY day, product_id")
        .await
}

async fn best(environment: &TestEnvironment, day: NaiveDate) -> Vec<String> {
    let sql = format!(
        "SELECT CONCAT(rank_number, ' ', product_id, ' ', quantity) FROM best_sellers WHERE day = '{day}' ORDER BY rank_number"
    );
    environment.texts(&sql).await
}

/// `002` section 3-2-2: at 00:10 the sales of the day before are written to the database, and not before.
#[tokio::test]
async fn seed_002_3_2_2_at_ten_past_midnight_the_day_before_is_persisted_by_one_job() {
    let (environment, products) = shop(2).await;
    let (today, yesterday) = (today(), days_before(today(), 1));
    buy(&environment, products[0], 3, noon(yesterday)).await;
    buy(&environment, products[1], 4, noon(yesterday)).await;
    buy(&environment, products[0], 9, start_of(today, ZONE)).await;
    let jobs = jobs(&environment);
    let midnight = start_of(today, ZONE);
    jobs.run_due(midnight + TimeDelta::minutes(10) - TimeDelta::milliseconds(1)).await.expect("done");
    assert_eq!(daily(&environment).await, Vec::<String>::new(), "earlier days are persisted, and were empty");
    let (one, other) =
        tokio::join!(jobs.run_due(midnight + TimeDelta::minutes(10)), jobs.run_due(midnight + TimeDelta::minutes(10)));
    one.and(other).expect("done by one of them");
    let expected = [format!("{yesterday} {} 3", products[0]), format!("{yesterday} {} 4", products[1])];
    assert_eq!(daily(&environment).await, expected);
    assert_eq!(best(&environment, yesterday).await, [format!("1 {} 4", products[1]), format!("2 {} 3", products[0])]);
    let runs = "SELECT COUNT(*) FROM job_runs WHERE name = 'persist-daily-sales' AND status = 'DONE'";
    assert_eq!(environment.count(runs).await, 7, "the last seven days are caught up on");
    environment.end().await;
}

/// `004`, the daily and three-day tables: days that were missed are made up for, the earliest first.
#[tokio::test]
async fn seed_004_missed_days_are_caught_up_on_and_three_days_are_ranked() {
    let (environment, products) = shop(3).await;
    let today = today();
    for (days_ago, product, quantity) in [(4, 0, 50), (3, 0, 1), (2, 1, 2), (1, 2, 2), (1, 0, 1), (0, 0, 70)] {
        buy(&environment, products[product], quantity, noon(days_before(today, days_ago))).await;
    }
    jobs(&environment).run_due(noon(today)).await.expect("done");
    assert_eq!(daily(&environment).await.len(), 5, "not today");
    let [first, second, third] = [products[0], products[1], products[2]];
    assert_eq!(
        best(&environment, days_before(today, 1)).await,
        [format!("1 {first} 2"), format!("2 {second} 2"), format!("3 {third} 2")]
    );
    assert_eq!(best(&environment, days_before(today, 2)).await, [format!("1 {first} 51"), format!("2 {second} 2")]);
    environment.end().await;
}

/// I9: an order that is cancelled days later leaves the day on which it was paid, in Redis and in the table.
#[tokio::test]
async fn i9_the_stored_day_follows_a_cancellation_that_comes_later() {
    let (today, paid) = (today(), days_before(today(), 5));
    let Sold { environment, jobs, product, order } = with_sales(paid).await;
    jobs.run_due(noon(days_before(today, 4))).await.expect("done");
    assert_eq!(daily(&environment).await, [format!("{paid} {product} 5")]);
    cancel(&environment, order, noon(days_before(today, 1))).await;
    jobs.run_due(noon(today)).await.expect("done");
    assert_eq!(daily(&environment).await, [format!("{paid} {product} 2")]);
    deliver_all(&environment).await;
    let scores = dibs_common::redis::sales::daily(&environment.redis, paid).await.expect("redis");
    assert_eq!(scores.get(&product), Some(&2));
    environment.end().await;
}

/// I9: the hour after a cancellation, without waiting for the next midnight; and nothing is written when none was.
#[tokio::test]
async fn i9_a_stored_day_is_rewritten_within_the_hour_when_an_order_of_it_was_cancelled() {
    let (today, yesterday) = (today(), days_before(today(), 1));
    let Sold { environment, jobs, product, order } = with_sales(yesterday).await;
    let morning = start_of(today, ZONE) + TimeDelta::hours(1);
    jobs.run_due(morning).await.expect("done");
    assert_eq!(daily(&environment).await, [format!("{yesterday} {product} 5")]);
    let began = "SELECT UNIX_TIMESTAMP(MAX(as_of)) FROM job_runs WHERE name = 'persist-daily-sales'";
    let first = environment.count(began).await;
    jobs.run_due(morning + TimeDelta::hours(1)).await.expect("done");
    assert_eq!(environment.count(began).await, first, "nothing changed since");
    cancel(&environment, order, morning + TimeDelta::minutes(90)).await;
    jobs.run_due(morning + TimeDelta::hours(2)).await.expect("done");
    assert_eq!(daily(&environment).await, [format!("{yesterday} {product} 2")]);
    assert!(environment.count(began).await > first);
    environment.end().await;
}

/// Two workers that are started again three times at ten past midnight, one of them killed at its work.
#[tokio::test]
async fn a_day_is_persisted_once_by_two_workers_that_are_started_again_at_ten_past_midnight() {
    let (environment, products) = shop(1).await;
    let today = today();
    let yesterday = days_before(today, 1);
    buy(&environment, products[0], 3, noon(yesterday)).await;
    let at_ten_past = start_of(today, ZONE) + TimeDelta::minutes(10);
    for restart in 0..3 {
        let now = at_ten_past + TimeDelta::seconds(restart);
        let killed = tokio::spawn({
            let jobs = jobs(&environment);
            async move { jobs.run_due(now).await }
        });
        tokio::task::yield_now().await;
        let (one, other) = (jobs(&environment), jobs(&environment));
        let (one, other) = tokio::join!(one.run_due(now), other.run_due(now));
        one.and(other).expect("done by one of them");
        killed.abort();
    }
    // What was killed may have held its lock a moment longer.
    eventually("the day is persisted", Duration::from_secs(20), || async {
        jobs(&environment).run_due(at_ten_past + TimeDelta::minutes(1)).await.expect("done");
        environment
            .count("SELECT COUNT(*) FROM job_runs WHERE name = 'persist-daily-sales' AND as_of IS NOT NULL")
            .await
            == 7
    })
    .await;
    assert_eq!(daily(&environment).await, [format!("{yesterday} {} 3", products[0])]);
    assert_eq!(best(&environment, yesterday).await, [format!("1 {} 3", products[0])]);
    environment.end().await;
}

/// A worker that was away for longer than a week, and a day that is not over.
#[tokio::test]
async fn every_day_since_the_last_persisted_one_is_made_up_for_and_none_is_persisted_before_it_is_over() {
    let (environment, products) = shop(1).await;
    let today = today();
    let jobs = jobs(&environment);
    jobs.run_due(noon(days_before(today, 12))).await.expect("done");
    buy(&environment, products[0], 3, noon(days_before(today, 11))).await;
    jobs.run_due(noon(today)).await.expect("done");
    assert_eq!(daily(&environment).await, [format!("{} {} 3", days_before(today, 11), products[0])]);
    for day in [today, today + TimeDelta::days(30)] {
        let refused = jobs.run(Job::PersistDailySales, Some(day), noon(today)).await.expect_err("it is not over");
        assert!(refused.to_string().starts_with("--day: expected a day that is over"), "{refused}");
    }
    environment.end().await;
}

#[tokio::test]
async fn a_job_run_on_demand_is_recorded_and_gives_the_same_when_it_runs_again() {
    let (environment, products) = shop(1).await;
    let today = today();
    buy(&environment, products[0], 3, noon(days_before(today, 1))).await;
    let jobs = jobs(&environment);
    for _ in 0..2 {
        let done = jobs.run(Job::PersistDailySales, None, noon(today)).await.expect("done");
        assert_eq!(done.as_deref(), Some("1 products sold; 3 days written, 1 best sellers"));
        assert_eq!(daily(&environment).await.len(), 1);
    }
    for job in [Job::WarmRanking, Job::ExpireOrders, Job::ExpireCoupons, Job::Purge] {
        assert!(jobs.run(job, None, noon(today)).await.expect("done").is_some(), "{job:?}");
    }
    let done = environment
        .texts("SELECT name FROM job_runs WHERE status = 'DONE' AND ended_at IS NOT NULL ORDER BY name")
        .await;
    assert_eq!(done, ["expire-coupons", "expire-orders", "persist-daily-sales", "purge", "warm-ranking"]);
    environment.end().await;
}

#[tokio::test]
async fn a_job_that_another_process_is_at_is_left_to_it_and_one_that_fails_says_why() {
    let (environment, _) = shop(1).await;
    let jobs = jobs(&environment);
    let lock = environment.database.try_lease("job purge").await.expect("asked").expect("free");
    assert_eq!(jobs.run(Job::Purge, None, noon(today())).await.expect("asked"), None);
    lock.release().await.expect("released");
    environment.execute("RENAME TABLE idempotency_keys TO away").await;
    jobs.run(Job::Purge, None, noon(today())).await.expect_err("a table is missing");
    let failed = environment.texts("SELECT detail FROM job_runs WHERE name = 'purge' AND status = 'FAILED'").await;
    assert!(failed.first().is_some_and(|why| why.contains("idempotency_keys")), "{failed:?}");
    environment.execute("RENAME TABLE away TO idempotency_keys").await;
    assert!(
        db::within(db::job_runs::list_done(&environment.database.pool(), "purge", today()))
            .await
            .expect("read")
            .is_empty()
    );
    environment.end().await;
}
