use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use chrono::TimeDelta;
use dibs_common::{
    clock,
    db::{
        Database,
        assignments::{
            find_state,
            users::{finish as finish_assignment, list_pending_users, update_outcomes},
        },
    },
    domain::{
        assignment::{Assignment, AssignmentState, AssignmentStatus},
        campaign::{Campaign, CampaignTerms},
    },
    redis::{Redis, scripts::claim},
    testing::{FIRST, TestEnvironment, eventually, open_terms},
};
use dibs_worker::assignments::{assign_once, submit};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{
    campaign_test::CampaignTest,
    support::{request, work},
};

async fn make(environment: &TestEnvironment, campaign: &Campaign, users: impl IntoIterator<Item = u64>) -> Assignment {
    environment.assign(campaign.id, users).await
}

async fn look(database: &Database, redis: &Redis) -> usize {
    assign_once(database, redis, &CancellationToken::new()).await.expect("looked")
}

/// An assignment whose claims are on the stream.
async fn with_submitted(total_quantity: u32, users: RangeInclusive<u64>) -> (CampaignTest, Assignment) {
    let test = CampaignTest::new(total_quantity).await;
    let assignment = make(&test, &test.campaign, users).await;
    Box::pin(look(&test.database, &test.redis)).await;
    (test, assignment)
}

/// Executes every assignment, and confirms its claims; at most `rounds` looks are needed.
async fn finish(environment: &TestEnvironment, rounds: usize) {
    for _ in 0..rounds {
        if look(&environment.database, &environment.redis).await == 0 {
            return;
        }
        work(environment).await;
    }
    assert_eq!(look(&environment.database, &environment.redis).await, 0, "not done after {rounds} looks");
}

async fn state(environment: &TestEnvironment, assignment: Assignment) -> AssignmentState {
    let state = find_state(&environment.database.pool(), assignment.coupon, &assignment.id.into()).await;
    state.expect("read").expect("an assignment")
}

fn refused(codes: &[(&str, u32)]) -> BTreeMap<String, u32> {
    codes.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
}

const HOLDERS: &str = "SELECT COUNT(DISTINCT user_id) FROM user_coupons";
const ISSUED: &str = "SELECT COUNT(*) FROM user_coupons";
const PUBLISHED: &str =
    "SELECT SUM(JSON_LENGTH(payload, '$.issuances')) FROM outbox_events WHERE type = 'coupon.issued'";

/// The steps of an assignment, in their order, each done twice; all processes die after so many of them.
async fn die_after(environment: &TestEnvironment, campaign: &Campaign, assignment: Assignment, steps: usize) {
    let waiting = async || {
        let pool = &environment.database.pool();
        let waiting = list_pending_users(pool, assignment.id, None, 250);
        waiting.await.expect("read")
    };
    let mut seen = waiting().await;
    let mut outcomes = Vec::new();
    for step in 1..=steps {
        for _twice in 0..2 {
            match step {
                1 | 4 => {
                    outcomes = submit(&environment.database, &environment.redis, assignment.id, campaign, &seen)
                        .await
                        .expect("given");
                }
                2 | 5 => {
                    update_outcomes(&environment.database, assignment.id, &outcomes).await.expect("written");
                }
                3 => work(environment).await,
                _ => {
                    let finished = finish_assignment(&environment.database, assignment.id, clock::now());
                    assert!(finished.await.expect("finished"));
                }
            }
        }
        if step == 3 {
            seen = waiting().await;
        }
    }
}

#[tokio::test]
async fn i4_a_death_between_any_two_steps_of_an_assignment_changes_nothing() {
    for steps in 0..=6 {
        let test = CampaignTest::with_accepted(5, [2]).await;
        let assignment = make(&test, &test.campaign, 1..=8).await;
        die_after(&test, &test.campaign, assignment, steps).await;
        finish(&test, 3).await;
        let state = state(&test, assignment).await;
        assert_eq!(state.assignment.status, AssignmentStatus::Done, "died after step {steps}");
        let expected = refused(&[("COUPON_ALREADY_ISSUED", 1), ("COUPON_EXHAUSTED", 3)]);
        assert_eq!((state.assigned, state.refused), (4, expected), "died after step {steps}");
        for counted in [ISSUED, HOLDERS, PUBLISHED, "SELECT issued_quantity FROM coupons"] {
            assert_eq!(test.count(counted).await, 5, "died after step {steps}: {counted}");
        }
        let first_come = "SELECT COUNT(*) FROM user_coupons WHERE user_id <= 5";
        let counted = (test.count(first_come).await, test.claimed().await);
        assert_eq!(counted, (5, 5), "died after step {steps}: the first in the list get it");
        test.end().await;
    }
}

/// Redis forgets the campaign, what it accepted and the stream, before and after a part was issued.
#[tokio::test]
async fn i11_an_assignment_goes_on_after_redis_was_lost_in_the_middle() {
    let (test, assignment) = with_submitted(600, 1..=700).await;
    test.lose_redis().await;
    assert_eq!(look(&test.database, &test.redis).await, 1, "it waits for the campaign");
    test.reconcile().await;
    // The hundred beyond the quantity were refused before the loss, and stay so.
    look(&test.database, &test.redis).await;
    assert_eq!(test.claimed().await, 600);
    test.work().await;
    test.lose_redis().await;
    test.reconcile().await;
    assert_eq!(test.claimed().await, 600, "a rebuild counts what was assigned");
    finish(&test, 3).await;
    let state = state(&test, assignment).await;
    assert_eq!((state.assigned, state.refused), (600, refused(&[("COUPON_EXHAUSTED", 100)])));
    for counted in [ISSUED, HOLDERS, PUBLISHED] {
        assert_eq!(test.count(counted).await, 600, "{counted}");
    }
    test.end().await;
}

#[tokio::test]
async fn an_assignment_waits_while_redis_is_unreachable_and_goes_on() {
    let test = CampaignTest::new(5).await;
    let assignment = make(&test, &test.campaign, 1..=3).await;
    let (settings, _database, proxy) = test.behind_proxies().await;
    let redis = settings.redis(1).await.expect("redis");
    proxy.shut();
    assert_eq!(look(&test.database, &redis).await, 1);
    assert_eq!(state(&test, assignment).await.assignment.status, AssignmentStatus::Pending);
    proxy.open();
    eventually("all are assigned", Duration::from_secs(10), async || {
        let left = look(&test.database, &redis).await;
        test.work().await;
        left == 0
    })
    .await;
    assert_eq!(state(&test, assignment).await.assigned, 3);
    test.end().await;
}

/// A campaign that is over may still be assigned. The reconciler does not rebuild such a campaign.
#[tokio::test]
async fn an_assignment_of_a_campaign_that_is_long_over_makes_it_known_to_redis_and_holds_up_no_other() {
    let environment = TestEnvironment::new().await;
    let open = environment.campaign(5).await;
    let vanished = make(&environment, &environment.campaign(5).await, [1]).await;
    let now = clock::now();
    let (opens_at, closes_at) = (now - TimeDelta::hours(9), now - TimeDelta::hours(8));
    let over = environment.campaign_in_database(CampaignTerms { opens_at, closes_at, ..open_terms() }).await;
    let (late, other) = (make(&environment, &over, 1..=2).await, make(&environment, &open, 1..=3).await);
    environment.execute(&format!("DELETE FROM coupons WHERE coupon_id = {}", vanished.coupon)).await;
    for _ in 0..3 {
        assert!(look(&environment.database, &environment.redis).await > 0, "one cannot be executed");
        work(&environment).await;
    }
    assert_eq!(state(&environment, late).await.assigned, 2);
    assert_eq!(state(&environment, other).await.assigned, 3);
    assert_eq!(state(&environment, vanished).await.assignment.status, AssignmentStatus::Pending);
    environment.end().await;
}

/// Redis accepts more than the database has: the second check refuses, and the assignment says so.
#[tokio::test]
async fn an_assigned_claim_that_the_second_check_rejects_has_that_outcome() {
    let (test, assignment) = with_submitted(5, 1..=5).await;
    test.execute("UPDATE coupons SET total_quantity = 3").await;
    test.work().await;
    finish(&test, 3).await;
    let state = state(&test, assignment).await;
    assert_eq!((state.assigned, state.refused), (3, refused(&[("COUPON_EXHAUSTED", 2)])));
    assert_eq!(test.claimed().await, 3, "two slots were returned");
    test.end().await;
}

/// I1 and I2: claims and assignments of the same coupon at once, by several workers.
#[tokio::test]
async fn i1_claims_and_assignments_at_once_never_exceed_the_quantity() {
    let test = CampaignTest::of(CampaignTerms { total_quantity: 500, per_user_limit: 2, ..open_terms() }).await;
    let one = make(&test, &test.campaign, 1..=400).await;
    let other = make(&test, &test.campaign, 200..=600).await;
    let claiming = join_all((0..10).map(async |call| {
        let users = call * 60 + 1..=call * 60 + 60;
        let requests: Vec<_> = users.map(request).collect();
        claim(&test.redis, FIRST, test.campaign.id, "", &requests).await.expect("redis");
    }));
    let working = join_all((0..4).map(async |_| look(&test.database, &test.redis).await));
    tokio::join!(claiming, working, test.work());
    test.work().await;
    finish(&test, 3).await;
    assert_eq!(test.issued().await, 500);
    assert_eq!(test.count(PUBLISHED).await, 500);
    let most = "SELECT MAX(held) FROM (SELECT COUNT(*) AS held FROM user_coupons GROUP BY user_id) AS holders";
    assert!(test.count(most).await <= 2);
    for assignment in [one, other] {
        let state = state(&test, assignment).await;
        assert_eq!(state.assigned + state.refused.values().sum::<u32>(), assignment.requested);
    }
    assert_eq!(test.claimed().await, 500);
    test.end().await;
}
