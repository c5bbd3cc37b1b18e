use chrono::TimeDelta;
use dibs_common::{
    Error,
    clock::{self, Timestamp},
    db::charges::{self, ChargeWithBalance},
    domain::{
        charge::{ChargeStatus, Decision, NewCharge, RECONCILIATION_GRACE_PERIOD},
        points::PointRules,
    },
    identifiers::ChargeId,
    testing::TestEnvironment,
};
use futures::future::join_all;

use crate::support::user;

const RULES: PointRules = PointRules { charge_minimum: 1_000, holding_cap: 100_000 };

fn wanted(amount: i64) -> NewCharge {
    NewCharge { id: ChargeId::generate(), user: user(1), amount, payment_method: Some("CARD".into()) }
}

async fn begin(environment: &TestEnvironment, wanted: &NewCharge, now: Timestamp) -> ChargeWithBalance {
    charges::begin(&environment.database, wanted, RULES, now).await.expect("begun")
}

async fn settle(environment: &TestEnvironment, wanted: &NewCharge, decision: Decision) -> ChargeWithBalance {
    charges::settle(&environment.database, wanted.id, wanted.user, decision, clock::now()).await.expect("settled")
}

async fn account(environment: &TestEnvironment) -> (i64, i64) {
    let balance = environment.count("SELECT COALESCE(SUM(balance), 0) FROM point_accounts").await;
    (balance, environment.count("SELECT COALESCE(SUM(pending), 0) FROM point_accounts").await)
}

#[tokio::test]
async fn a_charge_reserves_its_amount_until_it_is_approved_or_declined() {
    let environment = TestEnvironment::new().await;
    let (approved, declined) = (wanted(10_000), wanted(20_000));
    for wanted in [&approved, &declined] {
        assert_eq!(begin(&environment, wanted, clock::now()).await.charge.status, ChargeStatus::Pending);
    }
    assert_eq!(account(&environment).await, (0, 30_000));
    assert_eq!(charges::count_pending(&environment.database.pool()).await.expect("read"), 2);
    let settled = settle(&environment, &approved, Decision::Approved).await;
    assert_eq!((settled.charge.status, settled.balance), (ChargeStatus::Approved, 10_000));
    let settled = settle(&environment, &declined, Decision::Declined).await;
    assert_eq!((settled.charge.status, settled.balance), (ChargeStatus::Declined, 10_000));
    assert_eq!(account(&environment).await, (10_000, 0));
    assert_eq!(environment.texts("SELECT type FROM outbox_events").await, ["points.charged"]);
    environment.end_consistent().await;
}

#[tokio::test]
async fn a_charge_is_settled_once_and_a_repeat_returns_the_first_balance() {
    let environment = TestEnvironment::new().await;
    let charge = wanted(10_000);
    begin(&environment, &charge, clock::now()).await;
    let first = settle(&environment, &charge, Decision::Approved).await;
    charges::begin_approved(&environment.database, &wanted(5_000), RULES, clock::now()).await.expect("another");
    assert_eq!(settle(&environment, &charge, Decision::Declined).await, first, "whatever the decision");
    assert_eq!(begin(&environment, &charge, clock::now()).await, first);
    let at_once = charges::begin_approved(&environment.database, &charge, RULES, clock::now()).await.expect("found");
    assert_eq!(at_once, first);
    assert_eq!(account(&environment).await, (15_000, 0));
    environment.end().await;
}

#[tokio::test]
async fn rejections_roll_back_and_are_not_retried() {
    let (environment, now) = (TestEnvironment::new().await, clock::now());
    let charge = wanted(60_000);
    let rejected = async |wanted: &NewCharge| {
        charges::begin(&environment.database, wanted, RULES, now).await.expect_err("rejected")
    };
    assert!(matches!(rejected(&wanted(999)).await, Error::AmountBelowMinimum(1_000)));
    begin(&environment, &charge, now).await;
    assert!(matches!(rejected(&wanted(40_001)).await, Error::PointsCapExceeded { cap: 100_000, held: 60_000 }));
    let changed = NewCharge { amount: 50_000, ..charge.clone() };
    assert!(matches!(rejected(&changed).await, Error::IdempotencyKeyReused));
    let settle = async |id, number| {
        charges::settle(&environment.database, id, user(number), Decision::Approved, now).await.expect_err("rejected")
    };
    assert!(matches!(settle(ChargeId::generate(), 1).await, Error::ChargeNotFound(_)));
    assert!(matches!(settle(charge.id, 2).await, Error::ChargeNotFound(_)), "of another user");
    assert_eq!(account(&environment).await, (0, 60_000));
    assert_eq!(environment.count("SELECT COUNT(*) FROM charges").await, 1);
    environment.end().await;
}

#[tokio::test]
async fn a_charge_without_a_gateway_is_credited_at_once_however_often_it_is_sent() {
    let environment = TestEnvironment::new().await;
    let charge = wanted(10_000);
    let sent = (0..12).map(|_| charges::begin_approved(&environment.database, &charge, RULES, clock::now()));
    for charged in join_all(sent).await {
        let charged = charged.expect("charged");
        assert_eq!((charged.charge.status, charged.balance), (ChargeStatus::Approved, 10_000));
    }
    assert_eq!(account(&environment).await, (10_000, 0));
    environment.end_consistent().await;
}

#[tokio::test]
async fn due_charges_are_taken_oldest_first_up_to_the_limit_and_by_one_worker() {
    let (environment, now) = (TestEnvironment::new().await, clock::now());
    let all: Vec<NewCharge> = (1..=3).map(|_| wanted(1_000)).collect();
    for (charge, age) in all.iter().zip([1, 3, 2]) {
        begin(&environment, charge, now - RECONCILIATION_GRACE_PERIOD - TimeDelta::seconds(age)).await;
    }
    let fresh = wanted(1_000);
    begin(&environment, &fresh, now).await;
    let take = async |limit, at: Timestamp| -> Vec<ChargeId> {
        let taken =
            charges::take_due(&environment.database, limit, at, at + TimeDelta::minutes(1)).await.expect("taken");
        assert!(taken.iter().all(|charge| charge.attempts >= 1));
        taken.iter().map(|charge| charge.wanted.id).collect()
    };
    assert_eq!(take(2, now).await, [all[1].id, all[2].id]);
    assert_eq!(take(9, now).await, [all[0].id], "the others are taken, and the new one is its process's");
    assert_eq!(take(9, now).await, []);
    settle(&environment, &all[0], Decision::Declined).await;
    charges::postpone(&environment.database.pool(), all[1].id, now + TimeDelta::minutes(5)).await.expect("postponed");
    charges::postpone(&environment.database.pool(), all[0].id, now).await.expect("ignored: it is settled");
    let mut again = take(9, now + TimeDelta::minutes(2)).await;
    again.sort_unstable();
    assert_eq!(again, [all[2].id, fresh.id]);
    let found = charges::find(&environment.database.pool(), all[2].id).await.expect("read").expect("it exists");
    assert_eq!(found.attempts, 2);
    assert!(charges::find(&environment.database.pool(), ChargeId::generate()).await.expect("read").is_none());
    environment.end().await;
}

#[tokio::test]
async fn a_charge_that_is_being_settled_is_skipped() {
    let (environment, now) = (TestEnvironment::new().await, clock::now());
    let charge = wanted(1_000);
    begin(&environment, &charge, now - TimeDelta::minutes(1)).await;
    let mut settling = environment.database.begin().await.expect("begun");
    sqlx::query("SELECT 1 FROM charges FOR UPDATE").fetch_all(&mut *settling).await.expect("locked");
    let taken = charges::take_due(&environment.database, 9, now, now + TimeDelta::minutes(1)).await.expect("at once");
    assert_eq!(taken, []);
    settling.rollback().await.expect("rolled back");
    environment.end().await;
}
