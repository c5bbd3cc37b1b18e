use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use dibs_common::{
    Error, clock,
    domain::{
        campaign::{Campaign, CampaignState, CampaignTerms},
        event::Epoch,
    },
    identifiers::{ClaimId, new_uuid},
    redis::{
        campaign_state,
        keys::ISSUANCE_GROUP,
        scripts::{
            CampaignCounts, ClaimRequest, Decision, Decisions, RateLimit, acknowledge, assign, campaign_put,
            campaign_update, claim, enqueue, enqueue_all, rate_limit, return_slots,
        },
        streams::{ClaimEntry, ClaimStream, Delivery},
    },
    testing::{FIRST, TestEnvironment, eventually, open_terms},
};
use fred::{
    interfaces::{ClientLike as _, KeysInterface as _, StreamsInterface as _},
    types::{ClusterHash, CustomCommand},
};

use crate::support::{user, with_campaign};

fn request(number: u64) -> ClaimRequest {
    ClaimRequest { user: user(number), claim: ClaimId::generate(), request: Bytes::new(), trace: None }
}

async fn decide(environment: &TestEnvironment, campaign: &Campaign, requests: &[ClaimRequest]) -> Decisions {
    let decided = claim(&environment.redis, campaign.partition, campaign.id, "", requests).await.expect("redis");
    decided.expect("a known campaign")
}

async fn decisions(environment: &TestEnvironment, campaign: &Campaign, requests: &[ClaimRequest]) -> Vec<Decision> {
    decide(environment, campaign, requests).await.decisions
}

/// The entries on the stream, pending at a consumer of that name.
async fn read(environment: &TestEnvironment, consumer: &str) -> (ClaimStream, Vec<Delivery<ClaimEntry>>) {
    let stream = ClaimStream::open(&environment.redis, FIRST, consumer.into()).await.expect("opened");
    let deliveries = stream.read(500).await.expect("read");
    (stream, deliveries)
}

async fn clear(environment: &TestEnvironment) {
    let (stream, deliveries) = read(environment, "clearing").await;
    let ids: Vec<String> = deliveries.into_iter().map(|delivery| delivery.id).collect();
    if !ids.is_empty() {
        stream.acknowledge(&ids).await.expect("acknowledged");
    }
}

/// Ends a test that left entries on the stream.
async fn end(environment: TestEnvironment) {
    clear(&environment).await;
    environment.end().await;
}

#[tokio::test]
async fn claim_accepts_in_order_until_exhausted_and_appends_one_entry() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(2).await;
    let requests = [request(1), request(2), request(3)];
    let decided = decide(&environment, &campaign, &requests).await;
    let [Decision::Accepted(first), Decision::Accepted(second), Decision::Exhausted] = decided.decisions[..] else {
        panic!("{decided:?}");
    };
    assert_eq!((first.claim_id, first.sequence), (requests[0].claim, 1));
    assert_eq!((second.claim_id, second.sequence), (requests[1].claim, 2));
    assert_eq!((decided.remaining, first.accepted_at), (0, decided.now));
    let (_, deliveries) = read(&environment, "reader").await;
    let [delivery] = &deliveries[..] else { panic!("one entry for one call: {deliveries:?}") };
    let entry = delivery.entry.as_ref().expect("decode");
    let accepted: Vec<_> = entry.claims.iter().map(|claim| (claim.user, claim.record)).collect();
    assert_eq!(accepted, [(user(1), first), (user(2), second)]);
    let counts = campaign_state::counts(&environment.redis, campaign.partition, campaign.id)
        .await
        .expect("redis")
        .expect("known");
    assert_eq!((counts.claimed, counts.total, counts.sequence), (2, 2, 2));
    let stream = ClaimStream::open(&environment.redis, FIRST, "reader".into()).await.expect("opened");
    stream.acknowledge(std::slice::from_ref(&delivery.id)).await.expect("acknowledged");
    environment.end().await;
}

/// A campaign of another epoch counts claims that the database may have lost.
#[tokio::test]
async fn campaign_put_replaces_a_campaign_of_another_epoch() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(5).await;
    decide(&environment, &campaign, &[request(1), request(2)]).await;
    let restored = Campaign { epoch: Epoch(1_790_000_000), ..campaign.clone() };
    assert_eq!(campaign_update(&environment.redis, &restored).await.expect("redis"), None);
    assert_eq!(campaign_state::compare(&environment.redis, &campaign).await.expect("redis").counts, Some((2, 2)));
    assert!(campaign_put(&environment.redis, &restored, CampaignCounts::default()).await.expect("put").is_new);
    let held = campaign_state::compare(&environment.redis, &restored).await.expect("redis");
    assert_eq!((held.counts, held.epoch), (Some((0, 0)), restored.epoch));
    assert!(campaign_update(&environment.redis, &restored).await.expect("redis").is_some());
    assert!(matches!(decisions(&environment, &restored, &[request(1)]).await[..], [Decision::Accepted(_)]));
    end(environment).await;
}

#[tokio::test]
async fn claim_replays_the_answer_of_a_repeated_claim_id_also_after_the_end() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(1).await;
    let repeated = request(1);
    let accepted = decisions(&environment, &campaign, std::slice::from_ref(&repeated)).await;
    let [Decision::Accepted(record)] = accepted[..] else { panic!("{accepted:?}") };
    let twice = [repeated.clone(), repeated.clone()];
    assert_eq!(decisions(&environment, &campaign, &twice).await, [Decision::Replayed(record); 2]);
    let closed = Campaign { state: CampaignState::Closed, ..campaign.clone() };
    campaign_put(&environment.redis, &closed, CampaignCounts::default()).await.expect("put");
    assert_eq!(decisions(&environment, &campaign, &twice[..1]).await, [Decision::Replayed(record)]);
    let unanswered = ClaimStream::unanswered(&environment.redis, FIRST, campaign.id).await.expect("redis");
    assert_eq!(unanswered.len(), 1, "a replay appends nothing");
    end(environment).await;
}

#[tokio::test]
async fn claim_returns_the_first_claim_to_a_user_at_the_limit_also_within_one_call() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign_of(CampaignTerms { per_user_limit: 2, ..open_terms() }).await;
    let made = decisions(&environment, &campaign, &[request(1), request(1), request(1)]).await;
    let [Decision::Accepted(first), Decision::Accepted(_), Decision::AlreadyClaimed(returned)] = made[..] else {
        panic!("{made:?}");
    };
    assert_eq!(returned, first);
    assert_eq!(decisions(&environment, &campaign, &[request(1)]).await, [Decision::AlreadyClaimed(first)]);
    end(environment).await;
}

/// A caller whose response was lost claims again, when the window is over at the latest.
#[tokio::test]
async fn claim_returns_the_first_claim_to_a_holder_also_when_the_campaign_takes_no_claims() {
    let environment = TestEnvironment::new().await;
    for per_user_limit in [1, 2] {
        let terms = CampaignTerms { per_user_limit, total_quantity: 2, ..open_terms() };
        let campaign = environment.campaign_of(terms).await;
        let [Decision::Accepted(first)] = decisions(&environment, &campaign, &[request(1)]).await[..] else {
            panic!("accepted");
        };
        let is_at_limit = per_user_limit == 1;
        let mut over = campaign.clone();
        over.terms.closes_at = clock::now() - TimeDelta::seconds(1);
        let paused = Campaign { state: CampaignState::Paused, ..campaign.clone() };
        let closed = Campaign { state: CampaignState::Closed, ..campaign.clone() };
        let mut exhausted = campaign.clone();
        exhausted.terms.total_quantity = 1;
        let held = Decision::AlreadyClaimed(first);
        let while_paused = if is_at_limit { held } else { Decision::Paused };
        for (changed, of_holder, of_other) in [
            (over, held, Decision::Closed),
            (closed, held, Decision::Closed),
            (paused, while_paused, Decision::Paused),
            (exhausted, held, Decision::Exhausted),
        ] {
            campaign_put(&environment.redis, &changed, CampaignCounts::default()).await.expect("put");
            let decided = decisions(&environment, &changed, &[request(1), request(2)]).await;
            assert_eq!(decided, [of_holder, of_other]);
        }
        clear(&environment).await;
    }
    environment.end().await;
}

#[tokio::test]
async fn claim_refuses_outside_the_window_and_while_paused_and_when_closed() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    let window = |opens: i64, closes: i64| CampaignTerms {
        opens_at: now + TimeDelta::seconds(opens),
        closes_at: now + TimeDelta::seconds(closes),
        ..open_terms()
    };
    let early = environment.campaign_of(window(60, 120)).await;
    let decided = decide(&environment, &early, &[request(1)]).await;
    assert_eq!((decided.decisions, decided.opens_at), (vec![Decision::NotOpen], early.terms.opens_at));
    let late = environment.campaign_of(window(-120, -60)).await;
    assert_eq!(decisions(&environment, &late, &[request(1)]).await, [Decision::Closed]);
    let open = environment.campaign(1).await;
    for (state, expected) in [(CampaignState::Paused, Decision::Paused), (CampaignState::Closed, Decision::Closed)] {
        let changed = Campaign { state, ..open.clone() };
        campaign_put(&environment.redis, &changed, CampaignCounts::default()).await.expect("put");
        assert_eq!(decisions(&environment, &open, &[request(1)]).await, [expected]);
    }
    environment.end().await;
}

#[tokio::test]
async fn claim_decides_nothing_on_a_campaign_that_redis_does_not_hold() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let decided = claim(&environment.redis, campaign.partition, campaign.id, "", &[request(1)]).await.expect("redis");
    assert!(decided.is_none());
    assert_eq!(environment.keys().await, Vec::<String>::new());
    environment.end().await;
}

/// An administrator who assigns a coupon is not held up by its window or a pause, but by all else.
#[tokio::test]
async fn an_assigned_claim_is_accepted_whatever_the_window_says_until_the_campaign_is_closed() {
    let environment = TestEnvironment::new().await;
    let now = clock::now();
    let give_all = async |campaign: &Campaign, requests: &[ClaimRequest]| {
        let given = assign(&environment.redis, campaign.partition, campaign.id, requests).await.expect("redis");
        given.expect("a known campaign").decisions
    };
    for (opens, closes, state) in
        [(60, 120, CampaignState::Active), (-120, -60, CampaignState::Active), (-60, 60, CampaignState::Paused)]
    {
        let (opens_at, closes_at) = (now + TimeDelta::seconds(opens), now + TimeDelta::seconds(closes));
        let terms = CampaignTerms { opens_at, closes_at, total_quantity: 1, ..open_terms() };
        let campaign = Campaign { state, ..environment.campaign_of(terms).await };
        campaign_put(&environment.redis, &campaign, CampaignCounts::default()).await.expect("put");
        let requests = [request(1), request(1), request(2)];
        let given = give_all(&campaign, &requests).await;
        let [Decision::Accepted(first), Decision::AlreadyClaimed(returned), Decision::Exhausted] = given[..] else {
            panic!("{given:?}");
        };
        assert_eq!((first.claim_id, returned), (requests[0].claim, first));
        assert_eq!(give_all(&campaign, &requests[..1]).await, [Decision::Replayed(first)]);
        let closed = Campaign { state: CampaignState::Closed, ..campaign };
        campaign_put(&environment.redis, &closed, CampaignCounts::default()).await.expect("put");
        assert_eq!(give_all(&closed, &requests[1..]).await, [Decision::AlreadyClaimed(first), Decision::Closed]);
    }
    let unknown = environment.campaign_in_database(open_terms()).await;
    let given = assign(&environment.redis, unknown.partition, unknown.id, &[request(1)]).await.expect("redis");
    assert!(given.is_none());
    end(environment).await;
}

#[tokio::test]
async fn campaign_put_creates_and_updates_also_to_a_total_below_what_is_claimed() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let put = async |total_quantity| {
        let terms = CampaignTerms { total_quantity, ..campaign.terms.clone() };
        let campaign = Campaign { terms, ..campaign.clone() };
        campaign_put(&environment.redis, &campaign, CampaignCounts::default()).await.expect("put").is_new
    };
    assert!(put(3).await);
    decisions(&environment, &campaign, &[request(1), request(2)]).await;
    for total in [1, 2] {
        assert!(!put(total).await);
        let decided = decide(&environment, &campaign, &[request(3)]).await;
        assert_eq!((decided.decisions, decided.remaining), (vec![Decision::Exhausted], 0));
    }
    assert!(!put(3).await);
    assert!(matches!(decisions(&environment, &campaign, &[request(3)]).await[..], [Decision::Accepted(_)]));
    end(environment).await;
}

#[tokio::test]
async fn campaign_put_takes_staged_claims_over_whole_and_only_for_an_unknown_campaign() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let at = (campaign.partition, campaign.id);
    let record = dibs_common::domain::claim::ClaimRecord {
        claim_id: ClaimId::generate(),
        sequence: 9,
        accepted_at: clock::now(),
    };
    let counts = CampaignCounts { claimed: 1, sequence: 9, rebuild: new_uuid() };
    campaign_state::write_staged(&environment.redis, at.0, at.1, counts.rebuild, &[(user(1), vec![record])])
        .await
        .expect("staged");
    assert!(campaign_put(&environment.redis, &campaign, counts).await.expect("put").is_new);
    assert_eq!(decisions(&environment, &campaign, &[request(1)]).await, [Decision::AlreadyClaimed(record)]);
    let late = CampaignCounts { claimed: 0, sequence: 0, rebuild: new_uuid() };
    campaign_state::write_staged(&environment.redis, at.0, at.1, late.rebuild, &[(user(2), vec![record])])
        .await
        .expect("staged");
    assert!(!campaign_put(&environment.redis, &campaign, late).await.expect("put").is_new);
    let counts = campaign_state::counts(&environment.redis, campaign.partition, campaign.id)
        .await
        .expect("redis")
        .expect("known");
    assert_eq!((counts.claimed, counts.sequence), (1, 9), "a rebuild that ends late changes nothing");
    assert!(environment.keys().await.iter().all(|key| !key.contains("staged")), "nothing staged is left");
    environment.end().await;
}

#[tokio::test]
async fn return_slots_returns_a_slot_once() {
    let environment = TestEnvironment::new().await;
    let campaign =
        environment.campaign_of(CampaignTerms { per_user_limit: 2, total_quantity: 3, ..open_terms() }).await;
    let requests = [request(1), request(1), request(2)];
    decisions(&environment, &campaign, &requests).await;
    let slots = [(user(1), requests[0].claim), (user(2), requests[2].claim)];
    let back = async || return_slots(&environment.redis, campaign.partition, campaign.id, &slots).await;
    assert_eq!(back().await.expect("redis"), 2);
    assert_eq!(back().await.expect("redis"), 0);
    let counts = campaign_state::counts(&environment.redis, campaign.partition, campaign.id)
        .await
        .expect("redis")
        .expect("known");
    assert_eq!((counts.claimed, counts.sequence), (1, 3));
    let kept = campaign_state::latest_claim(&environment.redis, campaign.partition, campaign.id, user(1))
        .await
        .expect("redis");
    assert_eq!(kept.map(|record| record.claim_id), Some(requests[1].claim));
    campaign_state::delete(&environment.redis, campaign.partition, campaign.id).await.expect("forgotten");
    assert!(matches!(back().await, Err(Error::CampaignUnavailable(coupon)) if coupon == campaign.id));
    end(environment).await;
}

#[tokio::test]
async fn acknowledge_removes_entries_and_what_was_pending() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(5).await;
    decisions(&environment, &campaign, &[request(1)]).await;
    decisions(&environment, &campaign, &[request(2)]).await;
    let (stream, deliveries) = read(&environment, "reader").await;
    let ids: Vec<String> = deliveries.iter().map(|delivery| delivery.id.clone()).collect();
    let key = environment.redis.keys.claim_stream(FIRST);
    assert_eq!(acknowledge(&environment.redis, key.clone(), ISSUANCE_GROUP, &ids).await.expect("redis"), 2);
    assert_eq!(acknowledge(&environment.redis, key, ISSUANCE_GROUP, &ids).await.expect("redis"), 0);
    assert_eq!(stream.len().await.expect("redis"), 0);
    assert_eq!(stream.reclaim(Duration::ZERO, 10).await.expect("redis").len(), 0);
    environment.end().await;
}

/// Large values that Redis has freed in the background since its start.
async fn lazily_freed(environment: &TestEnvironment) -> u64 {
    let info = CustomCommand::new_static("INFO", ClusterHash::Random, false);
    let info: String = environment.redis.client().custom(info, vec!["memory"]).await.expect("redis");
    let freed = info.lines().find_map(|line| line.strip_prefix("lazyfreed_objects:"));
    freed.and_then(|freed| freed.trim().parse().ok()).expect("a number of freed objects")
}

/// A rebuild and a late rebuild replace and drop the claims of many holders. Neither may hold up other clients: DEL of
/// a million holders takes 380 ms, so the values are freed in the background.
#[tokio::test]
async fn a_rebuild_with_many_holders_frees_them_in_the_background() {
    const HOLDERS: u64 = 2_000;
    let environment = TestEnvironment::new().await;
    let freed_before = lazily_freed(&environment).await;
    let campaign = environment.campaign_in_database(open_terms()).await;
    for round in 0..3 {
        let record = dibs_common::domain::claim::ClaimRecord {
            claim_id: ClaimId::generate(),
            sequence: 1,
            accepted_at: clock::now(),
        };
        let counts = CampaignCounts { claimed: 1, sequence: 1, rebuild: new_uuid() };
        let holders: Vec<_> = (1..=HOLDERS).map(|number| (user(number), vec![record])).collect();
        campaign_state::write_staged(&environment.redis, FIRST, campaign.id, counts.rebuild, &holders)
            .await
            .expect("staged");
        // The first creates, the second replaces the claims of the first, the third is late: its claims are dropped.
        if round == 1 {
            campaign_state::delete(&environment.redis, FIRST, campaign.id).await.expect("deleted");
        }
        let put = campaign_put(&environment.redis, &campaign, counts).await.expect("put");
        assert_eq!(put.is_new, round < 2);
    }
    let freed = async || lazily_freed(&environment).await - freed_before >= 2;
    eventually("the replaced and the late claims are freed", Duration::from_secs(10), freed).await;
    let keys =
        vec![environment.redis.keys.campaign(FIRST, campaign.id), environment.redis.keys.claims(FIRST, campaign.id)];
    environment.redis.client().unlink::<(), _>(keys).await.expect("deleted");
    environment.end().await;
}

#[tokio::test]
async fn a_quota_may_come_at_once_and_then_each_part_of_the_window_allows_one_more() {
    let environment = TestEnvironment::new().await;
    let limits = [
        RateLimit { quota: 4, window: Duration::from_secs(4) },
        RateLimit { quota: 3, window: Duration::from_mins(1) },
    ];
    let count = async |clients: &[[&str; 2]]| {
        let keys = clients
            .iter()
            .map(|scopes| scopes.map(|client| environment.redis.keys.rate_limit("test", client)).to_vec());
        rate_limit(&environment.redis, &limits, keys.collect::<Vec<_>>()).await.expect("redis")
    };
    let allowed = |decisions: &[dibs_common::redis::scripts::RateDecision]| decisions.iter().all(|one| one.is_allowed);
    // Two clients in one call; requests of a call count one after the other.
    let first = count(&[["a", "x"], ["a", "y"], ["a", "x"], ["b", "x"], ["b", "x"], ["a", "z"], ["a", "z"]]).await;
    assert_eq!(first.iter().map(|one| allowed(one)).collect::<Vec<_>>(), [true, true, true, true, false, true, false]);
    let remaining: Vec<[u32; 2]> = first.iter().map(|one| [one[0].remaining, one[1].remaining]).collect();
    assert_eq!(remaining, [[3, 2], [2, 2], [1, 1], [3, 0], [3, 0], [0, 2], [0, 2]]);
    assert!(!first[4][1].is_allowed && first[4][0].is_allowed, "only the second limit refuses");
    assert!(first[6][0].wait <= Duration::from_secs(1), "{:?}", first[6]);
    // What is refused does not count.
    assert_eq!(count(&[["b", "w"]]).await[0][0].remaining, 2);
    eventually("one more is allowed", Duration::from_secs(5), async || allowed(&count(&[["a", "v"]]).await[0])).await;
    environment.end().await;
}

#[tokio::test]
async fn entries_are_appended_in_their_order_while_there_is_room() {
    let environment = TestEnvironment::new().await;
    let stream = environment.redis.keys.order_stream(FIRST);
    let entry = |value: &str| vec!["name".to_owned(), value.to_owned(), "more".to_owned(), String::new()];
    let entries = ["a", "b", "c"].map(entry).to_vec();
    assert_eq!(enqueue_all(&environment.redis, stream.clone(), 2, entries).await.expect("redis"), 2);
    assert!(matches!(enqueue(&environment.redis, stream.clone(), 2, entry("d")).await, Err(Error::Overloaded)));
    enqueue(&environment.redis, stream.clone(), 3, entry("e")).await.expect("there is room");
    let found: Vec<(String, Vec<(String, String)>)> =
        environment.redis.client().xrange(&stream, "-", "+", None).await.expect("redis");
    let values: Vec<&str> = found.iter().map(|(_, fields)| fields[0].1.as_str()).collect();
    assert_eq!((values, found[0].1.len()), (vec!["a", "b", "e"], 2));
    environment.redis.client().unlink::<(), _>(stream).await.expect("deleted");
    environment.end().await;
}
