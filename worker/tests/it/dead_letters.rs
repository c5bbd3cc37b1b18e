//! Entries of claims and commands that fail for good: one row each, redriven or dropped, and no claim without an outcome.

use std::time::Duration;

use dibs_common::{
    clock,
    db::{self, dead_letters::DeadLettersPage},
    dead_letters::{drop_letter, drop_source, request_redrive},
    domain::{
        campaign::Campaign,
        claim::{ClaimOutcome, ClaimRejectReason},
        dead_letter::{CLAIMS, COMMANDS, DeadLetter, DeadLetterStatus},
    },
    error::Error,
    identifiers::DeadLetterId,
    redis::{
        campaign_state, scripts,
        streams::{self, ClaimEntry, FailedEntry},
    },
    testing::{FIRST, TestEnvironment, eventually},
};
use dibs_worker::{campaigns::rebuild, redrive_once, redrive_source};
use fred::interfaces::{KeysInterface as _, StreamsInterface as _};

use crate::support::{accept, consumer, user, work};

/// The letters of a source, the newest first.
pub async fn letters(place: &TestEnvironment, source: &str) -> Vec<DeadLetter> {
    let page = DeadLettersPage { source: Some(source.into()), limit: 100, ..DeadLettersPage::default() };
    db::dead_letters::list(&place.database.pool(), &page).await.expect("letters")
}

/// The only letter of a source.
pub async fn only_letter(place: &TestEnvironment, source: &str) -> DeadLetter {
    let letters = letters(place, source).await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    letter.clone()
}

/// Lets the database refuse issuances to a user, until [`repair`].
async fn break_user(place: &TestEnvironment, number: u64) {
    place.execute(&format!("ALTER TABLE user_coupons ADD CONSTRAINT broken CHECK (user_id <> {number})")).await;
}

async fn repair(place: &TestEnvironment) {
    place.execute("ALTER TABLE user_coupons DROP CONSTRAINT broken").await;
}

/// A campaign whose user 7 has a dead-lettered claim.
async fn with_a_dead_claim(place: &TestEnvironment) -> (Campaign, DeadLetter) {
    let campaign = place.campaign(5).await;
    break_user(place, 7).await;
    accept(place, &campaign, [7]).await;
    work(place).await;
    repair(place).await;
    (campaign, only_letter(place, CLAIMS).await)
}

async fn outcomes(place: &TestEnvironment, campaign: &Campaign, number: u64) -> Vec<ClaimOutcome> {
    let claims = db::issuances::list_of_user(&place.database.pool(), campaign.id, user(number)).await.expect("read");
    claims.into_iter().map(|claim| claim.outcome).collect()
}

async fn claimed(place: &TestEnvironment, campaign: &Campaign) -> u32 {
    campaign_state::counts(&place.redis, FIRST, campaign.id).await.expect("redis").expect("known").claimed
}

async fn drop_now(place: &TestEnvironment, id: DeadLetterId) -> Result<(), Error> {
    drop_letter(&place.database, &place.redis, id, clock::now()).await
}

async fn redrive_now(place: &TestEnvironment, id: DeadLetterId) {
    request_redrive(&place.database, id, clock::now()).await.expect("requested");
    assert_eq!(redrive_once(&place.database, &place.redis).await.expect("redriven"), 1);
}

/// One poisoned entry among many: the others get their outcomes in the same read, and the letter says all about it.
#[tokio::test]
async fn bisection_isolates_the_failing_entry_and_the_others_get_their_outcomes() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(100).await;
    break_user(&place, 37).await;
    for number in 1..=64 {
        accept(&place, &campaign, [number]).await;
    }
    let mut worker = consumer(&place, "worker").await;
    assert_eq!(worker.run_once().await, 64);
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 63);
    assert_eq!(letters(&place, CLAIMS).await, [], "it is dead-lettered after five attempts");
    work(&place).await;
    let letter = only_letter(&place, CLAIMS).await;
    let coupon = campaign.id.to_string();
    assert_eq!((letter.kind.as_str(), letter.aggregate_id.as_deref()), ("claims.v1", Some(coupon.as_str())));
    assert_eq!((letter.attempts, letter.redrivable, letter.status), (5, true, DeadLetterStatus::Dead));
    assert!(letter.source_key.starts_with("0/claims/"), "{letter:?}");
    assert!(letter.payload.contains(r#""claims":"#) && letter.reason.contains("broken"), "{letter:?}");
    repair(&place).await;
    redrive_now(&place, letter.id).await;
    work(&place).await;
    assert_eq!(place.count("SELECT COUNT(*) FROM user_coupons").await, 64);
    place.end().await;
}

#[tokio::test]
async fn a_redriven_claim_keeps_its_id() {
    let place = TestEnvironment::new().await;
    let (campaign, letter) = with_a_dead_claim(&place).await;
    let record = campaign_state::latest_claim(&place.redis, FIRST, campaign.id, user(7)).await.expect("redis");
    assert_eq!(redrive_source(&place.database.pool(), CLAIMS).await.expect("requested"), 1);
    assert!(matches!(drop_now(&place, letter.id).await, Err(Error::DeadLetterRedriven(_))));
    assert_eq!(redrive_once(&place.database, &place.redis).await.expect("redriven"), 1);
    assert_eq!(redrive_once(&place.database, &place.redis).await.expect("nothing is left"), 0);
    work(&place).await;
    let claims = db::issuances::list_of_user(&place.database.pool(), campaign.id, user(7)).await.expect("read");
    assert_eq!(claims.iter().map(|claim| claim.record.claim_id).collect::<Vec<_>>(), [record.expect("held").claim_id]);
    assert!(matches!(claims[0].outcome, ClaimOutcome::Issued { .. }));
    assert_eq!(only_letter(&place, CLAIMS).await.status, DeadLetterStatus::Sent);
    drop_now(&place, letter.id).await.expect("one that was sent stays so");
    assert_eq!(only_letter(&place, CLAIMS).await.status, DeadLetterStatus::Sent);
    assert_eq!(outcomes(&place, &campaign, 7).await.len(), 1);
    place.end().await;
}

/// A death between the append and the status appends the entry twice.
#[tokio::test]
async fn i2_a_claim_that_is_redriven_twice_is_issued_once() {
    let place = TestEnvironment::new().await;
    let (campaign, letter) = with_a_dead_claim(&place).await;
    let (partition, fields) = streams::stored_entry(&letter).expect("an entry");
    streams::append::<ClaimEntry>(&place.redis, partition, fields).await.expect("appended");
    redrive_now(&place, letter.id).await;
    work(&place).await;
    assert_eq!(outcomes(&place, &campaign, 7).await.len(), 1);
    assert_eq!(place.count("SELECT issued_quantity FROM coupons").await, 1);
    place.end().await;
}

/// The row is committed, and the worker dies before the entry leaves its stream: the entry comes again.
#[tokio::test]
async fn a_death_between_the_row_and_the_acknowledgement_leaves_one_row() {
    let place = TestEnvironment::new().await;
    let campaign = place.campaign(5).await;
    break_user(&place, 7).await;
    accept(&place, &campaign, [7]).await;
    let mut worker = consumer(&place, "worker").await;
    for _ in 1..=4 {
        worker.run_once().await;
    }
    let mortal = streams::ClaimStream::open(&place.redis, FIRST, "mortal".into()).await.expect("opened");
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
    let mut connection = place.database.pool().acquire().await.expect("a connection");
    assert!(db::dead_letters::insert(&mut connection, &letter, clock::now()).await.expect("inserted"));
    drop(connection);
    work(&place).await;
    let letter = only_letter(&place, CLAIMS).await;
    assert_eq!((letter.reason.as_str(), mortal.len().await.expect("a length")), ("it broke", 0));
    repair(&place).await;
    redrive_now(&place, letter.id).await;
    work(&place).await;
    assert_eq!(outcomes(&place, &campaign, 7).await.len(), 1);
    place.end().await;
}

/// I3: the user of a dropped claim reads an outcome, the quantity is free again, and dropping twice changes nothing.
#[tokio::test]
async fn i3_a_dropped_claim_is_rejected_and_its_quantity_is_free_again() {
    let place = TestEnvironment::new().await;
    let (campaign, letter) = with_a_dead_claim(&place).await;
    assert_eq!(claimed(&place, &campaign).await, 1);
    for _ in 0..2 {
        drop_now(&place, letter.id).await.expect("dropped");
        let failed = ClaimOutcome::Rejected(ClaimRejectReason::ClaimFailed);
        assert_eq!(outcomes(&place, &campaign, 7).await, [failed]);
        assert_eq!(
            (claimed(&place, &campaign).await, place.count("SELECT rejected_quantity FROM coupons").await),
            (0, 1)
        );
    }
    let letter = only_letter(&place, CLAIMS).await;
    assert!(letter.status == DeadLetterStatus::Dropped && letter.dropped_at.is_some(), "{letter:?}");
    assert!(matches!(
        request_redrive(&place.database, letter.id, clock::now()).await,
        Err(Error::DeadLetterNotRedrivable(_))
    ));
    accept(&place, &campaign, [7]).await;
    work(&place).await;
    assert_eq!(outcomes(&place, &campaign, 7).await.len(), 2, "the user may claim again");
    assert_eq!(db::dead_letters::purge(&place.database.pool(), clock::now(), 10).await.expect("purged"), 1);
    place.end().await;
}

/// I3 and I11: Redis is lost or rebuilds the campaign when the letter is dropped. The letter stays DEAD until the
/// quantity is back.
#[tokio::test]
async fn i11_a_drop_that_cannot_return_the_quantity_is_repeated() {
    let place = TestEnvironment::new().await;
    let (campaign, letter) = with_a_dead_claim(&place).await;
    campaign_state::delete(&place.redis, FIRST, campaign.id).await.expect("forgotten");
    assert!(matches!(drop_now(&place, letter.id).await, Err(Error::CampaignUnavailable(_))));
    assert_eq!(only_letter(&place, CLAIMS).await.status, DeadLetterStatus::Dead);
    rebuild(&place.database, &place.redis, &campaign).await.expect("rebuilt");
    drop_now(&place, letter.id).await.expect("dropped");
    assert_eq!((claimed(&place, &campaign).await, outcomes(&place, &campaign, 7).await.len()), (0, 1));
    place.end().await;
}

/// A claim was issued before its letter is dropped: by a worker that was slow, or by a redrive.
#[tokio::test]
async fn i3_a_drop_rejects_no_claim_that_was_issued() {
    let place = TestEnvironment::new().await;
    let (campaign, letter) = with_a_dead_claim(&place).await;
    let (partition, fields) = streams::stored_entry(&letter).expect("an entry");
    streams::append::<ClaimEntry>(&place.redis, partition, fields).await.expect("appended");
    work(&place).await;
    assert_eq!(drop_source(&place.database, &place.redis, CLAIMS, clock::now()).await.expect("dropped"), 1);
    assert!(matches!(outcomes(&place, &campaign, 7).await[..], [ClaimOutcome::Issued { .. }]));
    assert_eq!(claimed(&place, &campaign).await, 1);
    place.end().await;
}

/// A dead-lettered claim holds its quantity also after Redis was lost, and a redrive waits for a rebuild.
#[tokio::test]
async fn i11_a_rebuild_counts_dead_lettered_claims_and_a_redrive_waits_for_it() {
    let place = TestEnvironment::new().await;
    let (campaign, letter) = with_a_dead_claim(&place).await;
    place.lose_redis().await;
    rebuild(&place.database, &place.redis, &campaign).await.expect("rebuilt");
    assert_eq!(claimed(&place, &campaign).await, 1);
    let rebuilding = place.database.try_lease(&format!("rebuild {}", campaign.id)).await.expect("mysql").expect("free");
    request_redrive(&place.database, letter.id, clock::now()).await.expect("requested");
    assert_eq!(redrive_once(&place.database, &place.redis).await.expect("waits"), 0);
    rebuilding.release().await.expect("released");
    // The server frees the lock a moment after the connection says so.
    eventually("the letter is redriven", Duration::from_secs(3), async || {
        redrive_once(&place.database, &place.redis).await.expect("redriven") == 1
    })
    .await;
    work(&place).await;
    assert_eq!((claimed(&place, &campaign).await, outcomes(&place, &campaign, 7).await.len()), (1, 1));
    place.end().await;
}

/// An entry of another version has no claims that could be rejected. It is redriven under a key of its own, and dropped.
#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_redrivable_and_can_be_dropped() {
    let place = TestEnvironment::new().await;
    let stream = place.redis.keys.order_stream(FIRST);
    let fields = ["type", "orders.v9", "command", "{"].map(str::to_owned).to_vec();
    scripts::enqueue(&place.redis, stream.clone(), 10, fields).await.expect("enqueued");
    crate::orders::work(&place).await;
    let letter = only_letter(&place, COMMANDS).await;
    assert_eq!((letter.kind.as_str(), letter.aggregate_id, letter.redrivable), ("unknown", None, true));
    redrive_now(&place, letter.id).await;
    let left: u64 = place.redis.client().xlen(&stream).await.expect("a length");
    assert_eq!(left, 1);
    crate::orders::work(&place).await;
    assert_eq!(letters(&place, COMMANDS).await.len(), 2, "it failed again, as another entry");
    assert_eq!(drop_source(&place.database, &place.redis, COMMANDS, clock::now()).await.expect("dropped"), 1);
    place.end().await;
}

#[tokio::test]
async fn a_letter_whose_payload_is_no_entry_goes_back_to_dead() {
    let place = TestEnvironment::new().await;
    let (_, letter) = with_a_dead_claim(&place).await;
    place.execute("UPDATE dead_letters SET payload = '[]'").await;
    request_redrive(&place.database, letter.id, clock::now()).await.expect("requested");
    assert_eq!(redrive_once(&place.database, &place.redis).await.expect("tried"), 0);
    let letter = only_letter(&place, CLAIMS).await;
    assert!(letter.status == DeadLetterStatus::Dead && letter.reason.contains("payload"), "{letter:?}");
    drop_now(&place, letter.id).await.expect("dropped");
    place.redis.client().del::<(), _>(place.redis.keys.claim_stream(FIRST)).await.expect("deleted");
    place.end().await;
}
