use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use dibs_common::{
    clock,
    db::{self, claim_refusals::ClaimRefusal},
    domain::{
        campaign::CampaignTerms,
        claim::{CLOCK_TOLERANCE, ClaimRejectReason},
    },
    identifiers::{ClaimId, CouponId, Partition},
    redis::{
        campaign_state,
        scripts::{campaign_update, return_slots},
    },
    testing::{TestEnvironment, eventually, open_terms},
};
use dibs_worker::campaigns::reconcile_all;
use futures::future::join_all;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::app::{Answer, ONLY, TestApp, claim_body};

#[tokio::test]
async fn an_accepted_claim_is_pending_and_then_issued() {
    let (app, coupon) = TestApp::with_campaign(3).await;

    let accepted = app.claim(coupon, 7).await;
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.header("location"), Some(format!("/coupons/{coupon}/claims/7").as_str()));
    assert_eq!(accepted.body["status"], "PENDING");
    assert_eq!((&accepted.body["sequence"], &accepted.body["remaining"]), (&json!(1), &json!(2)));
    assert_eq!((&accepted.body["userId"], &accepted.body["couponId"]), (&json!(7), &json!(coupon)));
    assert_eq!(accepted.header("x-request-id"), accepted.body["claimId"].as_str());

    let pending = app.claim_state(coupon, 7).await;
    assert_eq!((pending.status.as_u16(), &pending.body["status"]), (200, &json!("PENDING")));
    app.work().await;
    let issued = app.claim_state(coupon, 7).await;
    assert_eq!(issued.body["status"], "ISSUED");
    for field in ["claimId", "sequence", "acceptedAt"] {
        assert_eq!(issued.body[field], accepted.body[field]);
    }
    assert_eq!(issued.body["userCouponId"], accepted.body["claimId"]);
    app.end().await;
}

/// I3: a request that came by Kafka and was refused at once has an outcome that its user can read, until a claim of the
/// user is accepted.
#[tokio::test]
async fn i3_a_refusal_without_a_waiting_caller_can_be_read() {
    let (app, coupon) = TestApp::with_campaign(3).await;
    assert_eq!(app.claim_state(coupon, 7).await.code(), "CLAIM_NOT_FOUND");
    let (claim, user) = (ClaimId::generate(), 7.try_into().expect("an id"));
    let refusal = ClaimRefusal { claim, coupon, user, code: ClaimRejectReason::CampaignPaused };
    for _ in 0..2 {
        db::claim_refusals::insert_batch(&app.environment.database.pool(), &[refusal], clock::now())
            .await
            .expect("written");
    }
    let refused = app.claim_state(coupon, 7).await;
    assert_eq!((&refused.body["status"], &refused.body["code"]), (&json!("REJECTED"), &json!("CAMPAIGN_PAUSED")));
    assert_eq!((&refused.body["claimId"], &refused.body["sequence"]), (&json!(claim), &json!(0)));
    app.claim(coupon, 7).await;
    assert_eq!(app.claim_state(coupon, 7).await.body["status"], "PENDING");
    app.work().await;
    assert_eq!(app.claim_state(coupon, 7).await.body["status"], "ISSUED");
    app.end().await;
}

#[tokio::test]
async fn a_second_claim_names_the_first() {
    let (app, coupon) = TestApp::with_campaign(3).await;
    let first = app.claim(coupon, 7).await;
    let second = app.claim(coupon, 7).await;
    assert_eq!((second.status.as_u16(), second.code()), (409, "COUPON_ALREADY_ISSUED"));
    assert_eq!(second.body["claim"]["claimId"], first.body["claimId"]);
    app.work().await;
    assert_eq!(app.claim(coupon, 7).await.code(), "COUPON_ALREADY_ISSUED");
    app.end().await;
}

#[tokio::test]
async fn a_user_may_claim_up_to_the_limit_of_the_campaign() {
    let app = TestApp::new().await;
    let coupon = app.environment.campaign_of(CampaignTerms { per_user_limit: 2, ..open_terms() }).await.id;
    assert_eq!(app.claim(coupon, 7).await.status, 202);
    app.work().await;
    assert_eq!(app.claim(coupon, 7).await.status, 202);
    let third = app.claim(coupon, 7).await;
    assert_eq!(third.code(), "COUPON_ALREADY_ISSUED");
    assert_eq!(third.body["claim"]["sequence"], 1);
    app.work().await;
    assert_eq!(app.environment.count("SELECT SUM(ordinal) FROM user_coupons WHERE user_id = 7").await, 3);
    app.end().await;
}

#[tokio::test]
async fn the_window_is_the_campaigns() {
    let app = TestApp::new().await;
    let now = clock::now();
    let window = async |opens: i64, closes: i64| {
        let (opens_at, closes_at) = (now + TimeDelta::seconds(opens), now + TimeDelta::seconds(closes));
        app.environment.campaign_of(CampaignTerms { opens_at, closes_at, ..open_terms() }).await
    };
    let early = window(100, 200).await;
    let refused = app.claim(early.id, 7).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "CAMPAIGN_NOT_OPEN"));
    let opens_at: DateTime<Utc> = refused.body["opensAt"].as_str().expect("a time").parse().expect("a time");
    assert_eq!(opens_at, early.terms.opens_at);
    let seconds: i64 = refused.header("retry-after").expect("when").parse().expect("seconds");
    assert!((90..=100).contains(&seconds), "{seconds}");
    let late = window(-200, -100).await;
    let refused = app.claim(late.id, 7).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "CAMPAIGN_CLOSED"));
    app.end().await;
}

/// The window that counts is that of now, not of when the process met the campaign.
#[tokio::test]
async fn a_campaign_that_ended_early_and_left_redis_is_closed() {
    let (app, coupon) = TestApp::with_campaign(2).await;
    assert_eq!(app.claim(coupon, 1).await.status, 202);
    app.work().await;
    let campaign =
        db::campaigns::find(&app.environment.database.pool(), coupon).await.expect("read").expect("it exists");
    campaign_state::remove(&app.environment.redis, campaign.partition, coupon).await.expect("redis");
    assert_eq!(app.claim(coupon, 2).await.code(), "CAMPAIGN_UNAVAILABLE");
    app.environment.execute("UPDATE coupons SET closes_at = opens_at + INTERVAL 1 SECOND").await;
    eventually("the claim is refused for good", Duration::from_secs(5), async || {
        app.claim(coupon, 2).await.code() == "CAMPAIGN_CLOSED"
    })
    .await;
    assert_eq!(app.claim(coupon, 1).await.code(), "COUPON_ALREADY_ISSUED");
    app.end().await;
}

/// A caller whose response was lost claims again, whenever that is.
#[tokio::test]
async fn a_holder_finds_the_claim_after_the_window_and_after_redis_forgot_the_campaign() {
    let app = TestApp::new().await;
    let closes_at = clock::now() + TimeDelta::milliseconds(1_500);
    let campaign = app.environment.campaign_of(CampaignTerms { closes_at, ..open_terms() }).await;
    let accepted = app.claim(campaign.id, 1).await;
    assert_eq!(accepted.status, 202);
    app.work().await;
    eventually("the window is over", Duration::from_secs(10), async || {
        app.get(&format!("/coupons/{}", campaign.id)).await.body["status"] == "CLOSED"
    })
    .await;
    for redis_holds_it in [true, false] {
        if !redis_holds_it {
            campaign_state::remove(&app.environment.redis, campaign.partition, campaign.id).await.expect("redis");
        }
        let again = app.claim(campaign.id, 1).await;
        assert_eq!((again.status.as_u16(), again.code()), (409, "COUPON_ALREADY_ISSUED"), "{redis_holds_it}");
        assert_eq!(again.body["claim"]["claimId"], accepted.body["claimId"]);
        let other = app.claim(campaign.id, 3).await;
        assert_eq!((other.status.as_u16(), other.code()), (422, "CAMPAIGN_CLOSED"), "{redis_holds_it}");
    }
    app.end().await;
}

#[tokio::test]
async fn a_waiting_caller_gets_the_issued_coupon() {
    let (app, coupon) = TestApp::with_campaign(3).await;
    let stopping = CancellationToken::new();
    let (worker, stop) = (app.worker(ONLY), stopping.clone());
    let working = tokio::spawn(async move { worker.run([ONLY], stop).await });
    let issued = app.claim_and_wait(coupon, 7).await;
    assert_eq!((issued.status.as_u16(), &issued.body["status"]), (200, &json!("ISSUED")));
    assert_eq!(issued.body["userCouponId"], issued.body["claimId"]);
    assert_eq!(issued.header("preference-applied"), Some("wait=10"));
    let state = app.claim_state(coupon, 7).await;
    assert_eq!(state.body["validUntil"], issued.body["validUntil"]);
    stopping.cancel();
    working.await.expect("drained");
    app.end().await;
}

#[tokio::test]
async fn a_caller_who_waits_in_vain_has_an_accepted_claim() {
    let (app, coupon) = TestApp::with_campaign(3).await;
    let request = app.request(reqwest::Method::POST, "/coupons/issue").header("prefer", "wait=1");
    let accepted = Answer::of(request.json(&claim_body(coupon, 7))).await;
    assert_eq!((accepted.status.as_u16(), &accepted.body["status"]), (202, &json!("PENDING")));
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn sold_out_is_remembered_and_holders_still_read_their_claim() {
    let (app, coupon) = TestApp::with_campaign(2).await;
    let first = app.claim(coupon, 1).await;
    app.claim(coupon, 2).await;
    let refused = app.claim(coupon, 3).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "COUPON_EXHAUSTED"));
    let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
    eventually("it is remembered", Duration::from_secs(1), async || batcher.remembers_exhausted()).await;
    assert_eq!(app.claim(coupon, 3).await.code(), "COUPON_EXHAUSTED");
    let holder = app.claim(coupon, 1).await;
    assert_eq!(holder.code(), "COUPON_ALREADY_ISSUED");
    assert_eq!(holder.body["claim"]["claimId"], first.body["claimId"]);
    app.work().await;
    app.end().await;
}

#[tokio::test]
async fn a_returned_slot_is_claimable_within_a_second() {
    let app = TestApp::new().await;
    let campaign = app.environment.campaign(1).await;
    app.claim(campaign.id, 1).await;
    assert_eq!(app.claim(campaign.id, 2).await.code(), "COUPON_EXHAUSTED");
    let batcher = app.app.claims.batcher(campaign.id).await.expect("a batcher");
    eventually("it is remembered", Duration::from_secs(1), async || batcher.remembers_exhausted()).await;
    app.work().await;

    let held = batcher.claims_of_user(&app.environment.redis, user(1)).await.expect("redis").pop().expect("a claim");
    let slots = [(user(1), held.claim_id)];
    assert_eq!(return_slots(&app.environment.redis, ONLY, campaign.id, &slots).await.expect("redis"), 1);
    eventually("the slot is claimable", Duration::from_secs(1), async || app.claim(campaign.id, 3).await.status == 202)
        .await;
    // The database has issued its one coupon: the second check refuses, and the user can read why.
    app.work().await;
    let state = app.claim_state(campaign.id, 3).await;
    assert_eq!((&state.body["status"], &state.body["code"]), (&json!("REJECTED"), &json!("COUPON_EXHAUSTED")));
    app.end().await;
}

fn user(number: u64) -> dibs_common::identifiers::UserId {
    number.try_into().expect("an id")
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_whole_claim_or_none() {
    let (app, coupon) = TestApp::with_campaign(100).await;
    let batcher = app.app.claims.batcher(coupon).await.expect("a batcher");
    let claimed = async || batcher.claimed(&app.environment.redis).await.expect("redis").expect("counted");
    for number in 1..=20_u32 {
        let body = claim_body(coupon, number.into()).to_string();
        let length = body.len();
        let request = format!(
            "POST /coupons/issue HTTP/1.1\r\nhost: dibs\r\ncontent-type: application/json\r\nprefer: wait=10\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        let mut connection = tokio::net::TcpStream::connect(app.address).await.expect("connected");
        // Half of them are cut off somewhere in the request, half while they wait for the outcome.
        let cut = if number <= 10 { request.len() * number as usize / 11 } else { request.len() };
        connection.write_all(&request.as_bytes()[..cut]).await.expect("sent");
        if number > 10 {
            eventually("it is accepted", Duration::from_secs(5), async || claimed().await == number - 10).await;
        }
    }
    eventually("no request is in progress", Duration::from_secs(5), async || {
        app.app.in_progress.load(std::sync::atomic::Ordering::Relaxed) == 0
    })
    .await;
    assert_eq!(claimed().await, 10);
    app.work().await;
    assert_eq!(app.environment.count("SELECT COUNT(*) FROM user_coupons").await, 10);
    app.end().await;
}

/// I1, I2 and I3 under a burst: many users at once, each several times.
async fn burst(partitions: u16) -> BTreeMap<String, usize> {
    let app = TestApp::at(TestEnvironment::with_partitions(partitions).await).await;
    let coupon = app.environment.campaign(100).await.id;
    let claims = (0..600_u64).map(|number| app.claim(coupon, number % 200 + 1));
    let answers = join_all(claims).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for answer in &answers {
        let kind = if answer.status == 202 { "ACCEPTED" } else { answer.code() };
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    app.work().await;
    for answer in answers.iter().filter(|answer| answer.status == 202) {
        let user = answer.body["userId"].as_u64().expect("an id");
        let state = app.claim_state(coupon, user).await;
        assert_eq!((&state.body["status"], &state.body["claimId"]), (&json!("ISSUED"), &answer.body["claimId"]));
    }
    app.environment
        .expect_counts([
            ("SELECT COUNT(DISTINCT user_id) FROM user_coupons", 100),
            ("SELECT COUNT(*) FROM user_coupons", 100),
            ("SELECT issued_quantity FROM coupons", 100),
        ])
        .await;
    app.end().await;
    counts
}

#[tokio::test]
async fn i3_every_accepted_claim_has_exactly_one_issuance_in_a_burst() {
    let counts = burst(1).await;
    assert_eq!(counts["ACCEPTED"], 100);
    assert_eq!(counts.values().sum::<usize>(), 600);
}

#[tokio::test]
async fn one_partition_or_sixteen_the_answers_are_the_same() {
    let (one, sixteen) = (burst(1).await, burst(16).await);
    // Which user wins differs; how many get which answer does not, except how the losers' repeats fall.
    assert_eq!(one["ACCEPTED"], sixteen["ACCEPTED"]);
    assert_eq!(one.keys().collect::<Vec<_>>(), sixteen.keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_id_travels_from_the_caller_to_the_stream() {
    let app = TestApp::new().await;
    let coupon: CouponId = app.environment.campaign(2).await.id;
    let request = app.request(reqwest::Method::POST, "/coupons/issue").header("x-request-id", "from-the-shop");
    let accepted = Answer::of(request.json(&claim_body(coupon, 7))).await;
    assert_eq!(accepted.header("x-request-id"), Some("from-the-shop"));
    let unanswered =
        dibs_common::redis::streams::ClaimStream::unanswered(&app.environment.redis, Partition(0), coupon).await;
    let requests: Vec<String> = unanswered.expect("redis").into_iter().map(|claim| claim.request).collect();
    assert_eq!(requests, ["from-the-shop"]);
    assert_eq!(app.worker(ONLY).drain(ONLY).await.expect("drained"), 1);
    app.end().await;
}

/// Redis returned to older terms, and accepted a claim on a paused campaign: the waiting caller reads why there is no
/// coupon.
#[tokio::test]
async fn a_waiting_caller_reads_why_the_second_check_rejects_a_claim() {
    let app = TestApp::new().await;
    let campaign = app.environment.campaign(5).await;
    for (user, change, status, code) in [
        (1, "state = 'PAUSED'", 409, "CAMPAIGN_PAUSED"),
        (2, "state = 'CLOSED'", 422, "CAMPAIGN_CLOSED"),
        (3, "state = 'ACTIVE', opens_at = closes_at - INTERVAL 1 MINUTE", 409, "CAMPAIGN_NOT_OPEN"),
    ] {
        app.environment.execute(&format!("UPDATE coupons SET {change}")).await;
        reconcile_all(&app.environment.database, &app.environment.redis).await.expect("reconciled");
        let changed = db::campaigns::find(&app.environment.database.pool(), campaign.id).await.expect("read");
        let since = changed.and_then(|changed| changed.enforced_since).expect("enforced");
        eventually("claims come after the tolerance", Duration::from_secs(5), async || {
            clock::now() > since + CLOCK_TOLERANCE * 2
        })
        .await;
        campaign_update(&app.environment.redis, &campaign).await.expect("redis").expect("held");
        let (answer, ()) = tokio::join!(app.claim_and_wait(campaign.id, user), async {
            eventually("the claim is on the stream", Duration::from_secs(5), async || {
                app.environment.stream_length(&app.environment.redis.keys.claim_stream(campaign.partition)).await == 1
            })
            .await;
            app.work().await;
        });
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code));
        let state = app.claim_state(campaign.id, user).await;
        assert_eq!((&state.body["status"], &state.body["code"]), (&json!("REJECTED"), &json!(code)));
    }
    app.end().await;
}
