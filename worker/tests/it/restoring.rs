//! `MySQL` is restored to a state that is older than Redis and than what receivers got.

use std::{collections::BTreeMap, time::Duration};

use dibs_common::{
    clock, db,
    domain::{
        campaign::Campaign,
        event::Position,
        ranking::{KEPT_DAYS, business_day, last_days},
    },
    identifiers::UserId,
    integrations::messages::messages,
    redis::{campaign_state, database_position, sales, scripts::remember_position},
    supervisor::Supervisor,
    testing::{FIRST, SavedRows, TestEnvironment, eventually},
};
use dibs_worker::{Worker, campaigns::Reconciler, epoch, settings::Retention, webhooks::Webhooks};
use tokio_util::sync::CancellationToken;

use crate::{
    commands::{ended, start},
    ranking::{RULES, ZONE, buy, deliver_all, expect_scores_of_orders, shop, sums},
    receiver::TestReceiver,
    support::{accept, user, work},
};

const LIMIT: Duration = Duration::from_secs(20);

/// The ids of all messages, and what each is about.
async fn message_ids(environment: &TestEnvironment) -> BTreeMap<String, String> {
    let mut connection = environment.database.pool().acquire().await.expect("a connection");
    let events = db::outbox::list_between(&mut connection, 1..=u64::from(u32::MAX), &[]).await.expect("events");
    let messages = events.iter().flat_map(|event| messages(event).expect("decoded"));
    messages.map(|message| (message.id.to_string(), message.data.to_string())).collect()
}

/// Whether MySQL knows the claim that Redis holds of a user; none when Redis holds none.
async fn is_issued(environment: &TestEnvironment, campaign: &Campaign, user: UserId) -> Option<bool> {
    let held = campaign_state::latest_claim(&environment.redis, FIRST, campaign.id, user).await.expect("redis")?;
    let claims = db::issuances::list_of_user(&environment.database.pool(), campaign.id, user).await.expect("rows");
    Some(claims.iter().any(|claim| claim.record.claim_id == held.claim_id))
}

/// No claim that Redis holds is pending, and the counts are those of MySQL.
async fn expect_none_pending(environment: &TestEnvironment, campaign: &Campaign) {
    let holders = campaign_state::holders(&environment.redis, FIRST, campaign.id).await.expect("redis");
    for holder in &holders {
        assert_eq!(is_issued(environment, campaign, user(*holder)).await, Some(true), "user {holder}");
    }
    let counts = campaign_state::counts(&environment.redis, FIRST, campaign.id).await.expect("redis").expect("known");
    assert_eq!(i64::from(counts.claimed), environment.count("SELECT issued_quantity FROM coupons").await);
    assert_eq!(holders.len(), counts.claimed as usize);
}

async fn reconcile(environment: &TestEnvironment) {
    let mut reconciler = Reconciler::new(environment.database.clone(), environment.redis.clone(), Retention::DEFAULT);
    reconciler.round().await.expect("reconciled");
}

#[tokio::test]
async fn after_restored_all_is_as_mysql_says_and_new_events_have_new_ids() {
    let (environment, products) = shop(2).await;
    let campaign = environment.campaign(10).await;
    accept(&environment, &campaign, 1..=2).await;
    work(&environment).await;
    buy(&environment, products[0], 1, clock::now()).await;
    deliver_all(&environment).await;
    let backup = SavedRows::of(&environment).await;
    let kept_ids = message_ids(&environment).await;

    accept(&environment, &campaign, 3..=5).await;
    work(&environment).await;
    buy(&environment, products[1], 7, clock::now()).await;
    deliver_all(&environment).await;
    let mut lost_ids = message_ids(&environment).await;
    lost_ids.retain(|id, _| !kept_ids.contains_key(id));
    // Accepted, and on the stream while MySQL is restored.
    accept(&environment, &campaign, [6]).await;
    backup.restore(&environment).await;

    let (succeeded, out, _) = ended(start(&environment, &["restored"])).await;
    assert!(succeeded && out.contains("begins after sequence "), "{out}");
    reconcile(&environment).await;
    assert_eq!(is_issued(&environment, &campaign, user(3)).await, None, "its slot is returned");
    work(&environment).await;
    assert_eq!(is_issued(&environment, &campaign, user(6)).await, Some(true), "it was on the stream");
    accept(&environment, &campaign, 3..=4).await;
    work(&environment).await;
    expect_none_pending(&environment, &campaign).await;
    assert_eq!(environment.count("SELECT COUNT(*) FROM user_coupons").await, 5);

    // As many orders as were lost, and more: their events get the same sequences.
    for quantity in 1..=5 {
        buy(&environment, products[0], quantity, clock::now()).await;
    }
    deliver_all(&environment).await;
    expect_scores_of_orders(&environment, "after the restore").await;
    let ids = message_ids(&environment).await;
    assert!(kept_ids.iter().all(|(id, data)| ids.get(id) == Some(data)), "events of the backup keep their ids");
    assert!(!lost_ids.is_empty() && lost_ids.keys().all(|id| !ids.contains_key(id)), "{lost_ids:?} {ids:?}");
    environment.end().await;
}

fn worker(environment: &TestEnvironment, receiver: &TestReceiver, stopping: &CancellationToken) -> Worker {
    Worker {
        webhooks: Webhooks { data_platform: Some(receiver.endpoint()), notifications: Some(receiver.endpoint()) },
        rules: RULES,
        ..Worker::new(&environment.database, &environment.redis, Supervisor::new(stopping.clone()))
    }
}

const UNDELIVERED: &str = "SELECT COUNT(*) FROM outbox_events e JOIN sinks s \
                           ON COALESCE(e.sequence, 1000000) > s.delivered_through";

async fn is_ranked(environment: &TestEnvironment) -> bool {
    for day in last_days(business_day(clock::now(), ZONE), KEPT_DAYS) {
        if sales::daily(&environment.redis, day).await.expect("redis") != sums(environment, day).await {
            return false;
        }
    }
    true
}

/// A failover to a replica that was behind: the worker goes on running, and `restored` is not run.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_notices_by_itself_that_mysql_was_restored() {
    let (environment, products) = shop(2).await;
    let (campaign, receiver) = (environment.campaign(10).await, TestReceiver::new().await);
    for sink in ["data-platform", "notifications", "ranking"] {
        db::outbox::register_sink(&environment.database.pool(), sink, clock::now()).await.expect("registered");
    }
    let stopping = CancellationToken::new();
    let working = tokio::spawn(worker(&environment, &receiver, &stopping).run(1));
    let delivered = async || environment.count(UNDELIVERED).await == 0;
    let issued = async |count| environment.count("SELECT COUNT(*) FROM user_coupons").await == count;

    accept(&environment, &campaign, 1..=2).await;
    buy(&environment, products[0], 1, clock::now()).await;
    eventually("two are issued", LIMIT, || issued(2)).await;
    eventually("all is delivered", LIMIT, delivered).await;
    let backup = SavedRows::of(&environment).await;
    accept(&environment, &campaign, 3..=5).await;
    buy(&environment, products[1], 7, clock::now()).await;
    eventually("three more are issued", LIMIT, || issued(5)).await;
    eventually("all is delivered again", LIMIT, delivered).await;
    let lost_position = database_position::find(&environment.redis).await.expect("redis").expect("remembered");
    backup.restore(&environment).await;

    // These would get the sequences of the lost events.
    for quantity in 2..=9 {
        buy(&environment, products[0], quantity, clock::now()).await;
    }
    let freed = async || is_issued(&environment, &campaign, user(3)).await.is_none();
    eventually("the slots of lost claims are returned", LIMIT, freed).await;
    accept(&environment, &campaign, [3, 7]).await;
    eventually("they are issued", LIMIT, || issued(4)).await;
    eventually("all is delivered once more", LIMIT, delivered).await;
    eventually("the ranking is that of the orders", LIMIT, || is_ranked(&environment)).await;
    stopping.cancel();
    working.await.expect("stopped");

    expect_none_pending(&environment, &campaign).await;
    let position = db::epochs::position(&environment.database.pool()).await.expect("a position");
    assert!(position.epoch > lost_position.epoch && position.sequence > lost_position.sequence, "{position}");
    assert_eq!(environment.count("SELECT COUNT(*) FROM epochs").await, 2, "it is noticed once");
    let mut messages: BTreeMap<String, String> = BTreeMap::new();
    for arrival in receiver.arrivals() {
        let data = arrival.message["data"].to_string();
        let first = messages.entry(arrival.id.clone()).or_insert_with(|| data.clone());
        assert_eq!(*first, data, "{} names two events", arrival.id);
    }
    environment.end().await;
}

/// The campaign has ended long ago, so that no reconciliation looks at it any more.
#[tokio::test]
async fn claims_of_a_campaign_that_is_long_over_are_not_pending_after_a_restore() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(10).await;
    let backup = SavedRows::of(&environment).await;
    accept(&environment, &campaign, 1..=3).await;
    work(&environment).await;
    backup.restore(&environment).await;
    environment
        .execute("UPDATE coupons SET opens_at = NOW() - INTERVAL 2 DAY, closes_at = NOW() - INTERVAL 1 DAY")
        .await;
    reconcile(&environment).await;
    assert_eq!(is_issued(&environment, &campaign, user(1)).await, Some(false), "no restore is known");
    let (succeeded, ..) = ended(start(&environment, &["restored"])).await;
    assert!(succeeded);
    reconcile(&environment).await;
    assert_eq!(is_issued(&environment, &campaign, user(1)).await, None);
    environment.end().await;
}

#[tokio::test]
async fn no_event_gets_a_sequence_while_mysql_is_behind_what_redis_remembers() {
    let (environment, products) = shop(1).await;
    buy(&environment, products[0], 1, clock::now()).await;
    deliver_all(&environment).await;
    let position = epoch::check(&environment.database, &environment.redis, Position::default()).await.expect("checked");
    assert_eq!(database_position::find(&environment.redis).await.expect("redis"), Some(position));
    let late = Position { sequence: position.sequence - 1, ..position };
    assert!(!remember_position(&environment.redis, late).await.expect("redis"), "it never goes back");
    let ahead = Position { sequence: position.sequence + 1, ..position };
    assert!(remember_position(&environment.redis, ahead).await.expect("redis"));
    buy(&environment, products[0], 1, clock::now()).await;
    let behind = db::outbox::sequence_events_after(&environment.database, ahead).await.expect("asked");
    assert_eq!(behind, db::outbox::Sequencing::Behind);
    let begun = epoch::check(&environment.database, &environment.redis, Position::default()).await.expect("checked");
    assert!(begun.epoch > ahead.epoch && begun.sequence == position.sequence, "{begun}");
    let again = epoch::check(&environment.database, &environment.redis, Position::default()).await.expect("checked");
    assert_eq!(again, begun, "it is noticed once");
    environment.end().await;
}
