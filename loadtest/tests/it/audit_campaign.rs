//! The audit of a campaign: it finds nothing in a valid one, and every planted difference.

use std::time::Duration;

use bytes::Bytes;
use dibs_common::{
    domain::campaign::Campaign,
    identifiers::{ClaimId, UserId},
    redis::scripts::{ClaimRequest, Decision, claim},
    testing::{FIRST, TestEnvironment},
};
use dibs_loadtest::{
    audit::{AuditReport, audit},
    record::{ClaimObservation, ClaimResponse, ClientRecord, Receipt},
    stores::Stores,
};
use dibs_worker::{assignments::assign_once, issuance::claim_worker, streams::ReclaimPolicy};
use fred::interfaces::HashesInterface as _;
use sqlx::Executor as _;
use tokio_util::sync::CancellationToken;

pub fn user(number: u64) -> UserId {
    number.try_into().expect("an id")
}

fn observation(number: u64, response: ClaimResponse) -> ClaimObservation {
    ClaimObservation { user: user(number), response, uncertain_attempts: 0 }
}

/// A campaign of which users 1 to 3 hold a confirmed coupon, and their record of it.
pub async fn confirmed_campaign(environment: &TestEnvironment) -> (Campaign, ClientRecord) {
    let campaign = environment.campaign(10).await;
    let request =
        |number| ClaimRequest { user: user(number), claim: ClaimId::generate(), request: Bytes::new(), trace: None };
    let requests: Vec<ClaimRequest> = (1..=3).map(request).collect();
    let decided = claim(&environment.redis, campaign.partition, campaign.id, "", &requests).await.expect("redis");
    confirm_all(environment).await;
    let mut record = ClientRecord::default();
    for (request, decision) in requests.iter().zip(decided.expect("a known campaign").decisions) {
        let Decision::Accepted(accepted) = decision else { panic!("{decision:?}") };
        let receipt = Receipt { claim_id: accepted.claim_id, sequence: accepted.sequence };
        record.observations.push(ClaimObservation {
            user: request.user,
            response: ClaimResponse::Accepted(receipt),
            uncertain_attempts: 0,
        });
    }
    (campaign, record)
}

async fn confirm_all(environment: &TestEnvironment) {
    let policy = ReclaimPolicy { min_idle: Duration::ZERO, poll_interval: Duration::ZERO };
    claim_worker(&environment.database, &environment.redis, FIRST, policy).drain(FIRST).await.expect("drained");
}

pub fn stores(environment: &TestEnvironment) -> Stores {
    Stores { database: environment.database.clone(), redis: environment.redis.clone() }
}

/// The invariants with a difference.
pub fn broken(report: &AuditReport) -> Vec<&'static str> {
    let wrong = report.checks.iter().filter(|check| check.differences() > 0);
    wrong.map(dibs_loadtest::audit::Check::invariant).collect()
}

async fn audited(
    environment: &TestEnvironment,
    campaign: &Campaign,
    record: Option<&ClientRecord>,
) -> Vec<&'static str> {
    broken(&audit(&stores(environment), campaign.id, record).await.expect("an audit"))
}

#[tokio::test]
async fn a_campaign_without_a_fault_has_no_differences() {
    let environment = TestEnvironment::new().await;
    let (campaign, mut record) = confirmed_campaign(&environment).await;
    let ClaimResponse::Accepted(first) = record.observations[0].response else { panic!("accepted before") };
    record.observations.push(observation(1, ClaimResponse::AlreadyIssued(Some(first.claim_id))));
    record.observations.push(observation(2, ClaimResponse::AlreadyIssued(None)));
    record.observations.push(observation(4, ClaimResponse::Exhausted));
    assert_eq!(audited(&environment, &campaign, None).await, Vec::<&str>::new());
    assert_eq!(audited(&environment, &campaign, Some(&record)).await, Vec::<&str>::new());
    environment.end().await;
}

#[tokio::test]
async fn every_difference_in_the_database_is_found() {
    let environment = TestEnvironment::new().await;
    for (fault, expected) in [
        ("DELETE FROM user_coupons WHERE user_id = 1 AND coupon_id = ", &["I3", "I11"][..]),
        ("UPDATE user_coupons SET user_id = 9 WHERE user_id = 1 AND coupon_id = ", &["I3", "I4"]),
        ("UPDATE user_coupons SET sequence = 2 WHERE coupon_id = ", &["I3", "I4"]),
        ("UPDATE coupons SET issued_quantity = 2 WHERE coupon_id = ", &["I11"]),
        ("UPDATE coupons SET rejected_quantity = 2 WHERE coupon_id = ", &["I11"]),
        ("UPDATE coupons SET total_quantity = 11 WHERE coupon_id = ", &["I11"]),
        ("UPDATE coupons SET total_quantity = 2, issued_quantity = 2 WHERE coupon_id = ", &["I1", "I11"]),
        (
            "INSERT INTO claim_rejections SELECT user_coupon_id, coupon_id, user_id, sequence, 'X', accepted_at, \
             issued_at FROM user_coupons WHERE user_id = 1 AND coupon_id = ",
            &["I3", "I4", "I11"],
        ),
    ] {
        let (campaign, _) = confirmed_campaign(&environment).await;
        let sql = format!("{fault}{}", campaign.id);
        environment.database.pool().execute(sqlx::AssertSqlSafe(sql)).await.expect(fault);
        assert_eq!(audited(&environment, &campaign, None).await, expected, "{fault}");
    }
    environment.end().await;
}

#[tokio::test]
async fn every_difference_in_redis_is_found() {
    let environment = TestEnvironment::new().await;
    let (client, keys) = (environment.redis.client(), &environment.redis.keys);

    let (campaign, _) = confirmed_campaign(&environment).await;
    let claims = keys.claims(campaign.partition, campaign.id);
    client.hdel::<(), _, _>(&claims, "1").await.expect("deleted");
    assert_eq!(audited(&environment, &campaign, None).await, ["I4", "I11"], "a claim is missing");

    let (campaign, _) = confirmed_campaign(&environment).await;
    client.hset::<(), _, _>(keys.campaign(campaign.partition, campaign.id), ("claimed", 11)).await.expect("set");
    assert_eq!(audited(&environment, &campaign, None).await, ["I1", "I11"], "more is claimed than the quantity");

    let (campaign, _) = confirmed_campaign(&environment).await;
    client.hset::<(), _, _>(keys.campaign(campaign.partition, campaign.id), ("sequence", 1)).await.expect("set");
    assert_eq!(audited(&environment, &campaign, None).await, ["I11"], "a sequence would be assigned twice");

    let (campaign, _) = confirmed_campaign(&environment).await;
    let (one, other) = (keys.claims(campaign.partition, campaign.id), "1");
    let record: Bytes = client.hget(&one, other).await.expect("read");
    client.hset::<(), _, _>(&one, (other, [&record[..], &record[..]].concat().as_slice())).await.expect("set");
    assert_eq!(audited(&environment, &campaign, None).await, ["I3", "I11"], "a user has two claims");

    environment.lose_redis().await;
    assert_eq!(audited(&environment, &campaign, None).await, ["I4", "I11"], "everything is lost");
    environment.end().await;
}

#[tokio::test]
async fn every_difference_from_the_clients_record_is_found() {
    let environment = TestEnvironment::new().await;
    let (campaign, valid) = confirmed_campaign(&environment).await;
    let ClaimResponse::Accepted(first) = valid.observations[0].response else { panic!("accepted before") };
    let unknown = ClaimResponse::Accepted(Receipt { claim_id: ClaimId::generate(), sequence: 4 });
    let with = |more: ClaimObservation| {
        let mut record = valid.clone();
        record.observations.push(more);
        record
    };
    let unrecorded = ClientRecord { observations: valid.observations[1..].to_vec(), ..ClientRecord::default() };
    let uncertain = ClaimObservation {
        uncertain_attempts: 1,
        ..observation(1, ClaimResponse::AlreadyIssued(Some(first.claim_id)))
    };
    let mut uncertain_first = unrecorded.clone();
    uncertain_first.observations.push(uncertain);
    for (what, record, expected) in [
        ("a 202 without a row", with(observation(4, unknown.clone())), &["I3"][..]),
        ("two 202 of one user", with(observation(1, unknown)), &["I2", "I3"]),
        ("a 409 without a coupon", with(observation(4, ClaimResponse::AlreadyIssued(None))), &["I3"]),
        (
            "a 409 with the claim of another user",
            with(observation(2, ClaimResponse::AlreadyIssued(Some(first.claim_id)))),
            &["I3"],
        ),
        ("an issuance without a response", unrecorded, &["I4"]),
        ("an issuance of an uncertain attempt", uncertain_first, &[]),
        ("a claim without a final response", with(observation(4, ClaimResponse::Unanswered)), &["responses"]),
        ("an unexpected response", with(observation(4, ClaimResponse::Unexpected("500".into()))), &["responses"]),
    ] {
        assert_eq!(audited(&environment, &campaign, Some(&record)).await, expected, "{what}");
    }
    environment.end().await;
}

#[tokio::test]
async fn valid_assignments_pass_and_every_difference_in_them_is_found() {
    let environment = TestEnvironment::new().await;
    let campaign_with = async || {
        let (campaign, record) = confirmed_campaign(&environment).await;
        let assignment = environment.assign(campaign.id, [1, 8]).await.id;
        while assign_once(&environment.database, &environment.redis, &CancellationToken::new()).await.expect("looked")
            > 0
        {
            confirm_all(&environment).await;
        }
        (campaign, record, assignment.0.simple().to_string())
    };
    let (campaign, record, _) = Box::pin(campaign_with()).await;
    assert_eq!(audited(&environment, &campaign, Some(&record)).await, Vec::<&str>::new());
    for (fault, expected) in [
        ("UPDATE assignment_users SET outcome = 'ISSUED' WHERE user_id = 1", &["I4"][..]),
        ("UPDATE assignment_users SET outcome = 'COUPON_EXHAUSTED' WHERE user_id = 8", &["I4"]),
        ("UPDATE assignment_users SET outcome = NULL WHERE user_id = 1", &["I4"]),
        ("DELETE FROM assignment_users WHERE user_id = 1", &["I4"]),
        ("DELETE FROM assignment_users WHERE user_id = 8", &["I4", "I4"]),
        ("UPDATE assignment_outcomes SET users = 2 WHERE outcome = 'ISSUED'", &["I4"]),
        ("UPDATE assignments SET status = 'REJECTED', done_at = NULL WHERE TRUE", &["I4"]),
    ] {
        let (campaign, record, assignment) = Box::pin(campaign_with()).await;
        environment.execute(&format!("{fault} AND assignment_id = x'{assignment}'")).await;
        assert_eq!(audited(&environment, &campaign, Some(&record)).await, expected, "{fault}");
    }
    environment.end().await;
}
