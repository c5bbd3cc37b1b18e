use chrono::TimeDelta;
use dibs_common::{
    Error, clock,
    domain::{
        campaign::{Campaign, CampaignState, CampaignTerms},
        claim::ClaimRecord,
        order::{Action, Command, CommandKind},
        ranking::Scores,
    },
    identifiers::{ClaimId, CommandId, OrderId, new_uuid},
    redis::{
        campaign_state, pending_commands, sales,
        scripts::{CampaignCounts, ClaimRequest, Decision, campaign_put, claim},
        streams::ClaimStream,
    },
    testing::{FIRST, TestEnvironment, open_terms},
};
use fred::interfaces::{KeysInterface as _, SortedSetsInterface as _};

use crate::support::{product, user, with_campaign};

/// Claims for these users, and empties the stream.
async fn claim_for(environment: &TestEnvironment, campaign: &Campaign, users: &[u64]) -> Vec<Decision> {
    let requests: Vec<ClaimRequest> = users
        .iter()
        .map(|number| ClaimRequest {
            user: user(*number),
            claim: ClaimId::generate(),
            request: bytes::Bytes::new(),
            trace: None,
        })
        .collect();
    let decided = claim(&environment.redis, FIRST, campaign.id, "", &requests).await.expect("redis").expect("known");
    let stream = ClaimStream::open(&environment.redis, FIRST, "test".into()).await.expect("opened");
    let entries: Vec<String> = stream.read(100).await.expect("read").into_iter().map(|entry| entry.id).collect();
    if !entries.is_empty() {
        stream.acknowledge(&entries).await.expect("acknowledged");
    }
    decided.decisions
}

#[tokio::test]
async fn counts_say_whether_a_campaign_is_sold_out() {
    let environment = TestEnvironment::new().await;
    let campaign = environment.campaign(2).await;
    let counts = async |campaign: &Campaign| {
        campaign_state::counts(&environment.redis, FIRST, campaign.id).await.expect("redis").expect("known")
    };
    let (now, later) = (clock::now(), clock::now() + TimeDelta::hours(2));
    assert!(!counts(&campaign).await.sold_out(now));
    claim_for(&environment, &campaign, &[1, 2, 3]).await;
    let sold = counts(&campaign).await;
    assert_eq!((sold.claimed, sold.total, sold.sequence), (2, 2, 2));
    assert!(sold.sold_out(now) && !sold.sold_out(later), "not after its end");
    let paused = Campaign { state: CampaignState::Paused, ..campaign.clone() };
    campaign_put(&environment.redis, &paused, CampaignCounts::default()).await.expect("redis");
    assert!(!counts(&campaign).await.sold_out(now), "a paused campaign may get more quantity");
    campaign_state::delete(&environment.redis, FIRST, campaign.id).await.expect("deleted");
    assert!(campaign_state::counts(&environment.redis, FIRST, campaign.id).await.expect("redis").is_none());
    environment.end().await;
}

#[tokio::test]
async fn the_latest_claim_and_all_holders_are_read_from_the_records() {
    let environment = TestEnvironment::new().await;
    let terms = CampaignTerms { per_user_limit: 2, total_quantity: 5_000, ..open_terms() };
    let campaign = environment.campaign_of(terms).await;
    let latest = async |number| {
        campaign_state::latest_claim(&environment.redis, FIRST, campaign.id, user(number)).await.expect("redis")
    };
    assert_eq!(latest(9).await, None);
    assert_eq!(campaign_state::holders(&environment.redis, FIRST, campaign.id).await.expect("redis"), [0; 0]);
    let decisions = claim_for(&environment, &campaign, &[9, 4, 9]).await;
    let Decision::Accepted(second) = decisions[2] else { panic!("{decisions:?}") };
    assert_eq!(latest(9).await, Some(second));
    // More than one page of a scan.
    let many: Vec<u64> = (100..2_600).collect();
    for users in many.chunks(500) {
        claim_for(&environment, &campaign, users).await;
    }
    let holders = campaign_state::holders(&environment.redis, FIRST, campaign.id).await.expect("redis");
    assert_eq!(holders, [vec![4, 9], many].concat());
    environment.end().await;
}

#[tokio::test]
async fn staged_claims_expire_unless_a_rebuild_ends() {
    let (environment, campaign) = with_campaign(|_| ()).await;
    let rebuild = new_uuid();
    let record = ClaimRecord { claim_id: ClaimId::generate(), sequence: 1, accepted_at: clock::now() };
    let write = async |records: &[_]| {
        campaign_state::write_staged(&environment.redis, FIRST, campaign.id, rebuild, records).await.expect("redis");
    };
    write(&[]).await;
    assert_eq!(environment.keys().await, Vec::<String>::new());
    write(&[(user(1), vec![record])]).await;
    let staged = environment.redis.keys.staged_claims(FIRST, campaign.id, rebuild);
    let expires: i64 = environment.redis.client().ttl(&staged).await.expect("redis");
    assert!((3_590..=3_600).contains(&expires), "{expires}");
    let counts = CampaignCounts { claimed: 1, sequence: 1, rebuild };
    campaign_put(&environment.redis, &campaign, counts).await.expect("redis");
    let found = campaign_state::latest_claim(&environment.redis, FIRST, campaign.id, user(1)).await.expect("redis");
    assert_eq!(found, Some(record));
    let expires: i64 =
        environment.redis.client().ttl(environment.redis.keys.claims(FIRST, campaign.id)).await.expect("redis");
    assert_eq!(expires, -1, "claims never expire");
    environment.end().await;
}

#[tokio::test]
async fn a_day_of_many_products_is_staged_and_read_in_pages() {
    let environment = TestEnvironment::new().await;
    let (day, rebuild) = (chrono::NaiveDate::default(), new_uuid());
    let key = environment.redis.keys.daily_sales(day);
    let staged = environment.redis.keys.staged(&key, rebuild);
    let scores: Scores = (1..=2_500).map(|number| (product(number), i64::try_from(number).expect("small"))).collect();
    sales::write_staged(&environment.redis, &staged, &Scores::new(), 1).await.expect("redis");
    assert_eq!(environment.keys().await, Vec::<String>::new());
    sales::write_staged(&environment.redis, &staged, &scores, 1).await.expect("redis");
    let expires: i64 = environment.redis.client().ttl(&staged).await.expect("redis");
    assert!((10_790..=10_800).contains(&expires), "{expires}");
    environment.redis.client().rename::<(), _, _>(&staged, &key).await.expect("renamed");
    assert_eq!(sales::daily(&environment.redis, day).await.expect("redis"), scores);
    sales::write_staged(&environment.redis, &staged, &scores, -1).await.expect("redis");
    sales::delete_staged(&environment.redis, [key].into_iter(), rebuild).await.expect("redis");
    assert!(environment.keys().await.iter().all(|key| !key.contains("staged")));
    environment.end().await;
}

#[tokio::test]
async fn an_invalid_member_is_a_defect() {
    let environment = TestEnvironment::new().await;
    let day = chrono::NaiveDate::default();
    let key = environment.redis.keys.daily_sales(day);
    let member = vec![(1.0, "tea")];
    environment.redis.client().zadd::<(), _, _>(key, None, None, false, false, member).await.expect("added");
    let failed = sales::daily(&environment.redis, day).await.expect_err("not a product");
    assert!(!failed.is_transient());
    environment.end().await;
}

#[tokio::test]
async fn an_absent_window_has_no_info_no_products_and_no_ranks() {
    let environment = TestEnvironment::new().await;
    assert_eq!(sales::applied(&environment.redis).await.expect("redis"), None);
    assert_eq!(sales::window_info(&environment.redis, 3).await.expect("redis"), None);
    assert_eq!(sales::window(&environment.redis, 3, 10).await.expect("redis"), []);
    assert_eq!(sales::window_rank(&environment.redis, 3, product(1)).await.expect("redis"), None);
    environment.end().await;
}

#[tokio::test]
async fn a_pending_command_is_remembered_for_a_day() {
    let environment = TestEnvironment::new().await;
    let order = OrderId::generate();
    let pay = Command {
        id: CommandId::generate(),
        user: user(1),
        at: clock::now(),
        action: Action::Pay { order },
        trace: None,
    };
    assert_eq!(pending_commands::find(&environment.redis, pay.id).await.expect("redis"), None);
    pending_commands::remember(&environment.redis, &pay).await.expect("redis");
    let found = pending_commands::find(&environment.redis, pay.id).await.expect("redis").expect("remembered");
    assert_eq!((found.kind, found.order, found.user), (CommandKind::Pay, order, Some(user(1))));
    let key = environment.redis.keys.pending_command(pay.id);
    let expires: i64 = environment.redis.client().ttl(&key).await.expect("redis");
    assert!((86_390..=86_400).contains(&expires), "{expires}");
    let of_earlier_version = format!("PAY {order}");
    environment.redis.client().set::<(), _, _>(&key, of_earlier_version, None, None, false).await.expect("set");
    let found = pending_commands::find(&environment.redis, pay.id).await.expect("redis").expect("remembered");
    assert_eq!((found.order, found.user), (order, None));
    environment.redis.client().set::<(), _, _>(&key, "PAY", None, None, false).await.expect("set");
    let failed = pending_commands::find(&environment.redis, pay.id).await.expect_err("invalid");
    assert!(matches!(failed, Error::Internal(_)), "{failed:?}");
    environment.end().await;
}
