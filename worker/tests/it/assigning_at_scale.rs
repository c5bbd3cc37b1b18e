//! A short form of `dibs-loadtest assignments`: a list is uploaded in parts, and the worker is killed while it issues.

use std::time::Duration;

use dibs_common::{
    assignments::{NewAssignment, UserList, create},
    clock,
    db::assignments::{
        find_state,
        uploads::{self, UPLOAD_TIMEOUT},
        users::ListUser,
    },
    domain::{
        assignment::{AssignmentKey, AssignmentStatus},
        campaign::Campaign,
    },
    error::Error,
    identifiers::AssignmentId,
    testing::{ASSIGNMENT_RULES, TestEnvironment, action, eventually},
};
use dibs_worker::assignments::clean_up;
use tokio_util::sync::CancellationToken;

use crate::{commands::start, support::user};

const USERS: u32 = 30_000;
const PART: usize = 2_000;
const LIMIT: Duration = Duration::from_mins(1);
const ISSUED: &str = "SELECT COUNT(*) FROM user_coupons";
const LISTED: &str = "SELECT COUNT(*) FROM assignment_users";

/// Uploads a list without an effect.
async fn upload(environment: &TestEnvironment, campaign: &Campaign, users: u32) -> AssignmentId {
    let (database, upload) = (&environment.database, AssignmentId::generate());
    uploads::begin(&database.pool(), upload, campaign.id, clock::now()).await.expect("begun");
    let users: Vec<ListUser> = (1..=users).map(|id| ListUser::new(user(id.into()))).collect();
    for part in users.chunks(PART) {
        let repeated = uploads::add(database, upload, part, clock::now()).await.expect("added");
        assert!(repeated.is_empty());
    }
    upload
}

fn key() -> AssignmentKey {
    AssignmentKey::try_from("everyone".to_owned()).expect("a key")
}

async fn complete(
    environment: &TestEnvironment,
    campaign: &Campaign,
    id: AssignmentId,
    requested: u32,
) -> Result<(), Error> {
    let (key, list) = (key(), UserList::Uploaded);
    let new = NewAssignment { id, coupon: campaign.id, key: &key, requested, list, list_hash: &[1; 32] };
    create(&environment.database, new, &ASSIGNMENT_RULES, &action()).await.map(drop)
}

#[tokio::test]
async fn i2_and_i4_each_user_of_a_list_has_one_coupon_through_kills_of_the_worker() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(USERS).await;
    let id = upload(&environment, &campaign, USERS).await;
    let mut worker = start(&environment, &["run"]);
    complete(&environment, &campaign, id, USERS).await.expect("complete");
    for part in [1, 3] {
        let due = i64::from(USERS / 4 * part);
        eventually("a part is issued", LIMIT, async || environment.count(ISSUED).await >= due).await;
        worker.kill().await.expect("killed");
        assert!(environment.count(ISSUED).await < USERS.into(), "killed in the middle");
        worker = start(&environment, &["run"]);
    }
    let state = async || {
        let state = find_state(&environment.database.pool(), campaign.id, &key()).await;
        state.expect("read").expect("an assignment")
    };
    eventually("all have it", LIMIT, async || state().await.assignment.status == AssignmentStatus::Done).await;
    assert_eq!((state().await.assigned, state().await.refused.len()), (USERS, 0));
    let all = i64::from(USERS);
    environment
        .expect_counts([
            (ISSUED, all),
            ("SELECT COUNT(DISTINCT user_id) FROM user_coupons", all),
            ("SELECT issued_quantity FROM coupons", all),
            ("SELECT COUNT(*) FROM assignment_users WHERE outcome = 'ISSUED'", all),
            ("SELECT SUM(JSON_LENGTH(payload, '$.issuances')) FROM outbox_events WHERE type = 'coupon.issued'", all),
        ])
        .await;
    eventually("the stream is empty", LIMIT, async || {
        environment.stream_length(&environment.redis.keys.claim_stream(campaign.partition)).await == 0
    })
    .await;
    worker.kill().await.expect("killed");
    environment.end().await;
}

#[tokio::test]
async fn a_list_that_has_gone_silent_is_removed_and_can_no_longer_be_completed() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(USERS).await;
    let (silent, stopping) = (upload(&environment, &campaign, 5_000).await, CancellationToken::new());
    let later = clock::now() + UPLOAD_TIMEOUT;
    let other = upload(&environment, &campaign, 10).await;
    clean_up(&environment.database, later - chrono::TimeDelta::minutes(1), &stopping).await.expect("nothing to do");
    environment.expect_counts([(LISTED, 5_010)]).await;
    let past = "UPDATE assignment_uploads SET expires_at = NOW(3) - INTERVAL 1 DAY";
    environment.execute(&format!("{past} WHERE assignment_id = x'{}'", silent.0.simple())).await;
    clean_up(&environment.database, clock::now(), &stopping).await.expect("removed");
    environment.expect_counts([(LISTED, 10)]).await;
    let refused = complete(&environment, &campaign, silent, 5_000).await.expect_err("removed");
    assert!(matches!(refused, Error::RequestTimeout(900)), "{refused}");
    let more = [ListUser::new(user(7))];
    uploads::add(&environment.database, silent, &more, clock::now()).await.expect_err("removed");
    complete(&environment, &campaign, other, 10).await.expect("complete");
    environment.expect_counts([("SELECT COUNT(*) FROM assignments", 1)]).await;
    environment.execute("UPDATE assignments SET status = 'DONE', done_at = NOW(3)").await;
    environment.end().await;
}

#[tokio::test]
async fn a_user_who_is_in_a_list_twice_is_named_by_place() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(USERS).await;
    let upload = upload(&environment, &campaign, 10).await;
    let part: Vec<ListUser> = [11, 3, 12, 11, 10].map(|id| ListUser::new(user(id))).to_vec();
    let repeated = uploads::add(&environment.database, upload, &part, clock::now()).await.expect("added");
    assert_eq!(repeated, [1, 3, 4]);
    environment.expect_counts([(LISTED, 12)]).await;
    environment.end().await;
}
