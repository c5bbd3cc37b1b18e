use dibs_common::{
    clock,
    db::{self, points},
    domain::points::{Account, LedgerType},
    testing::TestEnvironment,
};
use futures::future::join_all;

use crate::support::{connection, user};

#[tokio::test]
async fn a_lock_creates_the_account_that_is_missing() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    let mut transaction = environment.database.begin().await.expect("begun");
    let account = points::lock(&mut transaction, user(1), now).await.expect("locked");
    assert_eq!(account, Account::default());
    let changed = Account { balance: 500, pending: 20 };
    points::update(&mut transaction, user(1), changed, now).await.expect("updated");
    assert_eq!(points::lock(&mut transaction, user(1), now).await.expect("locked"), changed);
    transaction.commit().await.expect("committed");
    assert_eq!(points::find_balance(&environment.database.pool(), user(1)).await.expect("read"), 500);
    assert_eq!(points::find_balance(&environment.database.pool(), user(2)).await.expect("read"), 0);
    environment.end().await;
}

/// Two transactions that create an account at a time must not end in a deadlock.
#[tokio::test]
async fn simultaneous_transactions_on_a_new_account_run_one_after_the_other() {
    let environment = TestEnvironment::new().await;
    let add = async || {
        db::retrying("add", || async {
            let mut transaction = environment.database.begin().await?;
            let mut account = points::lock(&mut transaction, user(1), clock::now()).await?;
            account.balance += 1;
            points::update(&mut transaction, user(1), account, clock::now()).await?;
            transaction.commit().await
        })
        .await
        .expect("added");
    };
    join_all((0..12).map(|_| add())).await;
    assert_eq!(points::find_balance(&environment.database.pool(), user(1)).await.expect("read"), 12);
    environment.end().await;
}

#[tokio::test]
async fn an_update_of_a_missing_account_is_an_error() {
    let environment = TestEnvironment::new().await;
    let mut connection = connection(&environment).await;
    let failed = points::update(&mut connection, user(1), Account::default(), clock::now()).await;
    assert!(matches!(failed, Err(sqlx::Error::RowNotFound)), "{failed:?}");
    drop(connection);
    environment.end().await;
}

#[tokio::test]
async fn a_ledger_is_listed_newest_first_before_a_row() {
    let environment = TestEnvironment::new().await;
    environment.points(1, 100).await;
    environment.points(2, 700).await;
    environment
        .execute(
            "INSERT INTO point_histories (user_id, type, amount, balance_after, reference_id, order_id, created_at) \
             VALUES (1, 'PAYMENT', -30, 70, x'00000000000000000000000000000001', x'00000000000000000000000000000002', NOW(3))",
        )
        .await;
    let page = async |before, limit| {
        points::list_history(&environment.database.pool(), user(1), before, limit).await.expect("read")
    };
    let all = page(None, 10).await;
    let [payment, charge] = &all[..] else { panic!("{all:?}") };
    assert_eq!((payment.kind, payment.amount, payment.balance_after), (LedgerType::Payment, -30, 70));
    assert!(payment.payment_id.is_some() && payment.order_id.is_some() && payment.charge_id.is_none());
    assert_eq!((charge.kind, charge.amount), (LedgerType::Charge, 100));
    assert!(charge.charge_id.is_some() && charge.payment_id.is_none());
    assert_eq!(page(None, 1).await, all[..1]);
    assert_eq!(page(Some(payment.point_history_id), 10).await, all[1..]);
    assert_eq!(page(Some(charge.point_history_id), 10).await, []);
    environment.end().await;
}
