//! Entries of claims and commands that fail for good: one row each, redriven or dropped, and no claim without an
//! outcome.

use std::time::Duration;

use dibs_common::{
    clock,
    db::{self, dead_letters::DeadLettersPage},
    dead_letters::{drop_letter, drop_source, redrive_source, request_redrive},
    domain::{
        claim::{ClaimOutcome, ClaimRejectReason},
        dead_letter::{CLAIMS, COMMANDS, DeadLetter, DeadLetterStatus},
    },
    error::Error,
    identifiers::DeadLetterId,
    redis::{
        campaign_state, scripts,
        streams::{self, ClaimEntry, FailedEntry},
    },
    testing::{FIRST, TestEnvironment, action, eventually},
};
use dibs_worker::redrive_once;
use fred::interfaces::{KeysInterface as _, StreamsInterface as _};

use crate::{
    campaign_test::CampaignTest,
    support::{consumer, user},
};

/// The letters of a source, the newest first.
pub async fn letters(environment: &TestEnvironment, source: &str) -> Vec<DeadLetter> {
    let page = DeadLettersPage { source: Some(source.into()), limit: 100, ..DeadLettersPage::default() };
    db::dead_letters::list(&environment.database.pool(), &page).await.expect("letters")
}

/// The only letter of a source.
pub async fn only_letter(environment: &TestEnvironment, source: &str) -> DeadLetter {
    let letters = letters(environment, source).await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    letter.clone()
}

/// Lets the database refuse issuances to a user, until [`repair`].
async fn break_user(environment: &TestEnvironment, number: u64) {
    environment.execute(&format!("ALTER TABLE user_coupons ADD CONSTRAINT broken CHECK (user_id <> {number})")).await;
}

async fn repair(environment: &TestEnvironment) {
    environment.execute("ALTER TABLE user_coupons DROP CONSTRAINT broken").await;
}

impl CampaignTest {
    async fn with_a_dead_claim() -> (Self, DeadLetter) {
        let test = Self::new(5).await;
        break_user(&test, 7).await;
        test.accept([7]).await;
        test.work().await;
        repair(&test).await;
        let letter = only_letter(&test, CLAIMS).await;
        (test, letter)
    }
}

/// Puts the entry of a letter on its stream again, without a change of the letter.
async fn append_again(test: &CampaignTest, letter: &DeadLetter) {
    let (partition, fields) = streams::stored_entry(letter).expect("an entry");
    streams::append::<ClaimEntry>(&test.redis, partition, fields).await.expect("appended");
}

async fn redriven(environment: &TestEnvironment) -> usize {
    redrive_once(&environment.database, &environment.redis).await.expect("a round")
}

pub async fn dropped(environment: &TestEnvironment, source: &str) -> u64 {
    drop_source(&environment.database, &environment.redis, source, &action()).await.expect("dropped")
}

async fn drop_now(environment: &TestEnvironment, id: DeadLetterId) -> Result<(), Error> {
    drop_letter(&environment.database, &environment.redis, id, &action()).await
}

async fn redrive_now(environment: &TestEnvironment, id: DeadLetterId) {
    request_redrive(&environment.database, id, &action()).await.expect("requested");
    assert_eq!(redriven(environment).await, 1);
}

/// One poisoned entry among many: the others get their outcomes in the same read, and the letter says all about it.
#[tokio::test]
async fn bisection_isolates_the_failing_entry_and_the_others_get_their_outcomes() {
    let test = CampaignTest::new(100).await;
    break_user(&test, 37).await;
    for number in 1..=64 {
        test.accept([number]).await;
    }
    let mut worker = consumer(&test, "worker").await;
    assert_eq!(worker.run_once().await, 64);
    assert_eq!(test.issued().await, 63);
    assert_eq!(letters(&test, CLAIMS).await, [], "it is dead-lettered after five attempts");
    test.work().await;
    let letter = only_letter(&test, CLAIMS).await;
    let coupon = test.campaign.id.to_string();
    assert_eq!((letter.kind.as_str(), letter.aggregate_id.as_deref()), ("claims.v1", Some(coupon.as_str())));
    assert_eq!((letter.attempts, letter.redrivable, letter.status), (5, true, DeadLetterStatus::Dead));
    assert!(letter.source_key.starts_with("0/claims/"), "{letter:?}");
    assert!(letter.payload.contains(r#""claims":"#) && letter.reason.contains("broken"), "{letter:?}");
    repair(&test).await;
    redrive_now(&test, letter.id).await;
    test.end_with_issued(64).await;
}

#[tokio::test]
async fn a_redriven_claim_keeps_its_id() {
    let (test, letter) = CampaignTest::with_a_dead_claim().await;
    let record = campaign_state::latest_claim(&test.redis, FIRST, test.campaign.id, user(7)).await.expect("redis");
    assert_eq!(redrive_source(&test.database, CLAIMS, &action()).await.expect("requested"), 1);
    assert!(matches!(drop_now(&test, letter.id).await, Err(Error::DeadLetterRedriven(_))));
    assert_eq!(redriven(&test).await, 1);
    assert_eq!(redriven(&test).await, 0);
    test.work().await;
    let claims = test.claims_of(7).await;
    assert_eq!(claims.iter().map(|claim| claim.record.claim_id).collect::<Vec<_>>(), [record.expect("held").claim_id]);
    assert!(matches!(claims[0].outcome, ClaimOutcome::Issued { .. }));
    assert_eq!(only_letter(&test, CLAIMS).await.status, DeadLetterStatus::Sent);
    drop_now(&test, letter.id).await.expect("one that was sent stays so");
    assert_eq!(only_letter(&test, CLAIMS).await.status, DeadLetterStatus::Sent);
    assert_eq!(test.outcomes(7).await.len(), 1);
    test.end().await;
}

/// A death between the append and the status appends the entry twice.
#[tokio::test]
async fn i2_a_claim_that_is_redriven_twice_is_issued_once() {
    let (test, letter) = CampaignTest::with_a_dead_claim().await;
    append_again(&test, &letter).await;
    redrive_now(&test, letter.id).await;
    test.work().await;
    assert_eq!(test.outcomes(7).await.len(), 1);
    assert_eq!(test.issued_quantity().await, 1);
    test.end().await;
}

/// The row is committed, and the worker dies before the entry leaves its stream: the entry comes again.
#[tokio::test]
async fn a_death_between_the_row_and_the_acknowledgement_leaves_one_row() {
    let test = CampaignTest::new(5).await;
    break_user(&test, 7).await;
    test.accept([7]).await;
    let mut worker = consumer(&test, "worker").await;
    for _ in 1..=4 {
        worker.run_once().await;
    }
    let mortal = streams::ClaimStream::open(&test.redis, FIRST, "mortal".into()).await.expect("opened");
    let delivery = mortal.reclaim(Duration::ZERO, 10).await.expect("reclaimed").remove(0);
    assert_eq!(delivery.attempts, 5);
    let fields = mortal.fields(&delivery.id).await.expect("redis").expect("on the stream");
    let failed = FailedEntry {
        partition: FIRST,
        id: &delivery.id,
        fields: &fields,
        reason: "it broke",
        attempts: 5,
        redrivable: true,
    };
    let letter = streams::dead_letter::<ClaimEntry>(failed);
    let mut connection = test.database.pool().acquire().await.expect("a connection");
    assert!(db::dead_letters::insert(&mut connection, &letter, clock::now()).await.expect("inserted"));
    drop(connection);
    test.work().await;
    let letter = only_letter(&test, CLAIMS).await;
    assert_eq!((letter.reason.as_str(), mortal.len().await.expect("a length")), ("it broke", 0));
    repair(&test).await;
    redrive_now(&test, letter.id).await;
    test.work().await;
    assert_eq!(test.outcomes(7).await.len(), 1);
    test.end().await;
}

/// I3: the user of a dropped claim reads an outcome, the quantity is free again, and dropping twice changes nothing.
#[tokio::test]
async fn i3_a_dropped_claim_is_rejected_and_its_quantity_is_free_again() {
    let (test, letter) = CampaignTest::with_a_dead_claim().await;
    assert_eq!(test.claimed().await, 1);
    for _ in 0..2 {
        drop_now(&test, letter.id).await.expect("dropped");
        let failed = ClaimOutcome::Rejected(ClaimRejectReason::ClaimFailed);
        assert_eq!(test.outcomes(7).await, [failed]);
        assert_eq!((test.claimed().await, test.count("SELECT rejected_quantity FROM coupons").await), (0, 1));
    }
    let letter = only_letter(&test, CLAIMS).await;
    assert!(letter.status == DeadLetterStatus::Dropped && letter.dropped_at.is_some(), "{letter:?}");
    assert!(matches!(
        request_redrive(&test.database, letter.id, &action()).await,
        Err(Error::DeadLetterNotRedrivable(_))
    ));
    test.accept([7]).await;
    test.work().await;
    assert_eq!(test.outcomes(7).await.len(), 2, "the user may claim again");
    assert_eq!(db::dead_letters::purge(&test.database.pool(), clock::now(), 10).await.expect("purged"), 1);
    test.end().await;
}

/// I3 and I11: Redis is lost or rebuilds the campaign when the letter is dropped. The letter stays DEAD until the
/// quantity is back.
#[tokio::test]
async fn i11_a_drop_that_cannot_return_the_quantity_is_repeated() {
    let (test, letter) = CampaignTest::with_a_dead_claim().await;
    campaign_state::delete(&test.redis, FIRST, test.campaign.id).await.expect("forgotten");
    assert!(matches!(drop_now(&test, letter.id).await, Err(Error::CampaignUnavailable(_))));
    assert_eq!(only_letter(&test, CLAIMS).await.status, DeadLetterStatus::Dead);
    test.rebuild().await;
    drop_now(&test, letter.id).await.expect("dropped");
    assert_eq!((test.claimed().await, test.outcomes(7).await.len()), (0, 1));
    test.end().await;
}

/// A claim was issued before its letter is dropped: by a worker that was slow, or by a redrive.
#[tokio::test]
async fn i3_a_drop_rejects_no_claim_that_was_issued() {
    let (test, letter) = CampaignTest::with_a_dead_claim().await;
    append_again(&test, &letter).await;
    test.work().await;
    assert_eq!(dropped(&test, CLAIMS).await, 1);
    assert!(matches!(test.outcomes(7).await[..], [ClaimOutcome::Issued { .. }]));
    assert_eq!(test.claimed().await, 1);
    test.end().await;
}

/// A dead-lettered claim holds its quantity also after Redis was lost, and a redrive waits for a rebuild.
#[tokio::test]
async fn i11_a_rebuild_counts_dead_lettered_claims_and_a_redrive_waits_for_it() {
    let (test, letter) = CampaignTest::with_a_dead_claim().await;
    test.lose_redis().await;
    test.rebuild().await;
    assert_eq!(test.claimed().await, 1);
    let rebuilding =
        test.database.try_lease(&format!("rebuild {}", test.campaign.id)).await.expect("mysql").expect("free");
    request_redrive(&test.database, letter.id, &action()).await.expect("requested");
    assert_eq!(redriven(&test).await, 0);
    rebuilding.release().await.expect("released");
    // The server frees the lock a moment after the connection says so.
    eventually("the letter is redriven", Duration::from_secs(3), async || redriven(&test).await == 1).await;
    test.work().await;
    assert_eq!((test.claimed().await, test.outcomes(7).await.len()), (1, 1));
    test.end().await;
}

/// An entry of another version has no claims that could be rejected. It is redriven under a key of its own, and
/// dropped.
#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_redrivable_and_can_be_dropped() {
    let environment = TestEnvironment::new().await;
    let stream = environment.redis.keys.order_stream(FIRST);
    let fields = ["type", "orders.v9", "command", "{"].map(str::to_owned).to_vec();
    scripts::enqueue(&environment.redis, stream.clone(), 10, fields).await.expect("enqueued");
    crate::orders::work(&environment).await;
    let letter = only_letter(&environment, COMMANDS).await;
    assert_eq!((letter.kind.as_str(), letter.aggregate_id, letter.redrivable), ("unknown", None, true));
    redrive_now(&environment, letter.id).await;
    let left: u64 = environment.redis.client().xlen(&stream).await.expect("a length");
    assert_eq!(left, 1);
    crate::orders::work(&environment).await;
    assert_eq!(letters(&environment, COMMANDS).await.len(), 2, "it failed again, as another entry");
    assert_eq!(dropped(&environment, COMMANDS).await, 1);
    environment.end().await;
}

#[tokio::test]
async fn a_letter_whose_payload_is_no_entry_goes_back_to_dead() {
    let (test, letter) = CampaignTest::with_a_dead_claim().await;
    test.execute("UPDATE dead_letters SET payload = '[]'").await;
    request_redrive(&test.database, letter.id, &action()).await.expect("requested");
    assert_eq!(redriven(&test).await, 0);
    let letter = only_letter(&test, CLAIMS).await;
    assert!(letter.status == DeadLetterStatus::Dead && letter.reason.contains("payload"), "{letter:?}");
    drop_now(&test, letter.id).await.expect("dropped");
    test.redis.client().del::<(), _>(test.redis.keys.claim_stream(FIRST)).await.expect("deleted");
    test.end().await;
}
