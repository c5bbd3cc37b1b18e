use chrono::TimeDelta;
use dibs_common::{
    clock, db,
    domain::campaign::{Campaign, CampaignTerms, Discount, DiscountType, Validity},
    identifiers::{CouponId, Partition, new_uuid},
    testing::{TestEnvironment, open_terms},
};

use crate::support::connection;

#[tokio::test]
async fn a_campaign_is_found_as_it_was_created() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    let terms = CampaignTerms {
        name: "한가위 'sale'".into(),
        discount: Discount { kind: DiscountType::Percent, value: 30, max_amount: Some(5_000) },
        minimum_order_amount: 20_000,
        validity: Validity::Until(now + TimeDelta::days(2)),
        ..open_terms()
    };
    let mut connection = environment.database.pool().acquire().await.expect("a connection");
    let created = db::campaigns::create(&mut connection, &terms, Partition(3), new_uuid(), now).await.expect("created");
    drop(connection);
    assert!(created.is_new);
    let found = db::campaigns::find(&environment.database.pool(), created.id).await.expect("read").expect("it exists");
    assert_eq!((found.terms, found.partition), (terms, Partition(3)));
    assert_eq!((found.issued, found.rejected), (0, 0));
    let unknown = CouponId::try_from(created.id.get() + 1).expect("an id");
    assert!(db::campaigns::find(&environment.database.pool(), unknown).await.expect("read").is_none());
    environment.end().await;
}

#[tokio::test]
async fn a_repeated_operation_returns_the_campaign_of_the_first() {
    let environment = TestEnvironment::new().await;
    let mut connection = environment.database.pool().acquire().await.expect("a connection");
    let operation = new_uuid();
    let first = db::campaigns::create(&mut connection, &open_terms(), Partition(1), operation, clock::now())
        .await
        .expect("created");
    let repeat = db::campaigns::create(&mut connection, &open_terms(), Partition(2), operation, clock::now())
        .await
        .expect("found");
    drop(connection);
    assert_eq!((repeat.id, repeat.partition, repeat.is_new), (first.id, Partition(1), false));
    assert_eq!(environment.count("SELECT COUNT(*) FROM coupons").await, 1);
    environment.end().await;
}

#[tokio::test]
async fn campaigns_that_have_not_ended_are_listed_page_by_page() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    let ended = CampaignTerms { closes_at: now - TimeDelta::seconds(1), ..open_terms() };
    let mut campaigns = Vec::new();
    for terms in [open_terms(), ended, open_terms(), open_terms()] {
        campaigns.push(environment.campaign_in_database(terms).await.id);
    }
    let page = async |after, limit| -> Vec<CouponId> {
        let page = db::campaigns::list_not_ended(&environment.database.pool(), now, after, limit).await.expect("read");
        page.iter().map(|campaign| campaign.id).collect()
    };
    assert_eq!(page(None, 2).await, [campaigns[0], campaigns[2]]);
    assert_eq!(page(Some(campaigns[2]), 2).await, [campaigns[3]]);
    assert_eq!(page(Some(campaigns[3]), 2).await, []);
    environment.end().await;
}

#[tokio::test]
async fn locked_campaigns_come_by_id_and_wait_for_their_holder() {
    let environment = TestEnvironment::new().await;
    let (one, other) = (
        environment.campaign_in_database(open_terms()).await.id,
        environment.campaign_in_database(open_terms()).await.id,
    );
    let mut transaction = environment.database.begin().await.expect("begun");
    let locked: Vec<Campaign> = db::campaigns::lock(&mut transaction, &[other, one]).await.expect("locked");
    assert_eq!(locked.iter().map(|campaign| campaign.id).collect::<Vec<_>>(), [one, other]);
    let mut second = connection(&environment).await;
    let skipped: Vec<u64> = sqlx::query_scalar("SELECT coupon_id FROM coupons FOR UPDATE SKIP LOCKED")
        .fetch_all(&mut *second)
        .await
        .expect("read");
    assert_eq!(skipped, [0; 0], "both rows are locked");
    drop(second);
    transaction.rollback().await.expect("rolled back");
    environment.end().await;
}
