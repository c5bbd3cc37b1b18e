use dibs_common::{
    clock,
    db::{
        self,
        assignments::users::{self, list_pending_users},
    },
    domain::{
        assignment::{AssignmentOutcome, AssignmentStatus},
        claim::ClaimRejectReason,
    },
    identifiers::{AssignmentId, ClaimId, CouponId},
    testing::{TestEnvironment, open_terms},
};

use crate::support::confirm;

/// An assignment of a new campaign to users 1 to `users`.
async fn assignment(environment: &TestEnvironment, users: u64) -> (AssignmentId, CouponId) {
    let coupon = environment.campaign_in_database(open_terms()).await.id;
    let created = environment.assign(coupon, 1..=users).await;
    assert_eq!((created.requested, created.status), (3, AssignmentStatus::Pending));
    (created.id, coupon)
}

async fn pending(environment: &TestEnvironment, id: AssignmentId) -> Vec<(u64, ClaimId, Option<AssignmentOutcome>)> {
    let users = list_pending_users(&environment.database.pool(), id, None, 10).await.expect("read");
    users.iter().map(|pending| (pending.user.get(), pending.claim, pending.found)).collect()
}

#[tokio::test]
async fn users_without_an_outcome_are_listed_in_order_after_a_position() {
    let environment = TestEnvironment::new().await;
    let (id, _) = assignment(&environment, 3).await;
    let all = pending(&environment, id).await;
    assert_eq!(all.iter().map(|(user, ..)| *user).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].1), "claims ascend");
    let after = Some(all[0].1);
    let page = list_pending_users(&environment.database.pool(), id, after, 1).await.expect("read");
    assert_eq!(page.iter().map(|pending| pending.user.get()).collect::<Vec<_>>(), [2]);
    let none = list_pending_users(&environment.database.pool(), AssignmentId::generate(), None, 9).await;
    assert!(none.expect("read").is_empty());
    environment.end().await;
}

#[tokio::test]
async fn a_pending_user_shows_the_outcome_that_the_claim_has_by_now() {
    let environment = TestEnvironment::new().await;
    let (id, coupon) = assignment(&environment, 3).await;
    let campaign = db::campaigns::find(&environment.database.pool(), coupon).await.expect("read").expect("it exists");
    let [(_, issued, _), (_, rejected, _), _] = pending(&environment, id).await[..] else { panic!("three users") };
    let mut claim = crate::support::accepted(&campaign, 1, 1);
    claim.record.claim_id = issued;
    confirm(&environment, &campaign, &[claim]).await.expect("issued");
    environment
        .execute(&format!(
            "INSERT INTO claim_rejections (claim_id, coupon_id, user_id, sequence, code, accepted_at, rejected_at) \
             VALUES (x'{}', {coupon}, 2, 2, 'COUPON_EXHAUSTED', NOW(3), NOW(3))",
            rejected.0.simple()
        ))
        .await;
    let found: Vec<_> = pending(&environment, id).await.into_iter().map(|(.., found)| found).collect();
    let exhausted = AssignmentOutcome::Rejected(ClaimRejectReason::CouponExhausted);
    assert_eq!(found, [Some(AssignmentOutcome::Issued), Some(exhausted), None]);
    environment.end().await;
}

#[tokio::test]
async fn an_assignment_is_done_once_every_user_has_an_outcome_that_never_changes() {
    let environment = TestEnvironment::new().await;
    let (id, coupon) = assignment(&environment, 3).await;
    let pool = &environment.database.pool();
    let listed = async || db::assignments::list_pending(pool, 10).await.expect("read").len();
    let finish = async || users::finish(&environment.database, id, clock::now()).await.expect("written");
    let claims: Vec<ClaimId> = pending(&environment, id).await.into_iter().map(|(_, claim, _)| claim).collect();
    let update = async |claim: ClaimId, outcome| {
        users::update_outcomes(&environment.database, id, &[(claim, outcome)]).await.expect("written");
    };
    update(claims[0], AssignmentOutcome::Issued).await;
    update(claims[0], AssignmentOutcome::Rejected(ClaimRejectReason::CampaignClosed)).await;
    update(claims[1], AssignmentOutcome::Rejected(ClaimRejectReason::CampaignClosed)).await;
    assert!(!finish().await, "one user has no outcome");
    assert_eq!((pending(&environment, id).await.len(), listed().await), (1, 1));
    update(claims[2], AssignmentOutcome::Issued).await;
    assert!(finish().await && finish().await, "also when it is done");
    assert_eq!(listed().await, 0);
    let state = db::assignments::find_state(pool, coupon, &id.into()).await.expect("read").expect("it exists");
    assert_eq!((state.assignment.status, state.assigned), (AssignmentStatus::Done, 2));
    assert_eq!(state.refused.into_iter().collect::<Vec<_>>(), [("CAMPAIGN_CLOSED".to_owned(), 1)]);
    assert!(state.done_at.is_some());
    assert!(db::assignments::find_state(pool, coupon, &AssignmentId::generate().into()).await.expect("read").is_none());
    users::update_outcomes(&environment.database, id, &[]).await.expect("nothing to write");
    environment.end().await;
}
