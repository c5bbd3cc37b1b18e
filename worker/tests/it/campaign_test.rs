//! A test about one campaign: an environment, a campaign that is open in it, and what tests do and ask about it.

use std::{ops::Deref, time::Duration};

use dibs_common::{
    db::{self, issuances::UserClaim},
    domain::{
        campaign::{Campaign, CampaignTerms},
        claim::{Claim, ClaimOutcome},
    },
    identifiers::ClaimId,
    redis::{
        campaign_state::{self, Counts},
        scripts::{self, Decisions},
        streams::ClaimStream,
    },
    testing::{FIRST, TestEnvironment, eventually, open_terms},
};
use dibs_worker::campaigns;

use crate::support::{accept, request, user, work};

pub struct CampaignTest {
    environment: TestEnvironment,
    pub campaign: Campaign,
}

impl Deref for CampaignTest {
    type Target = TestEnvironment;

    fn deref(&self) -> &TestEnvironment {
        &self.environment
    }
}

impl CampaignTest {
    pub async fn new(total_quantity: u32) -> Self {
        Self::of(CampaignTerms { total_quantity, ..open_terms() }).await
    }

    pub async fn of(terms: CampaignTerms) -> Self {
        let environment = TestEnvironment::new().await;
        let campaign = environment.campaign_of(terms).await;
        Self { environment, campaign }
    }

    /// Claims of these users are on the stream.
    pub async fn with_accepted(total_quantity: u32, users: impl IntoIterator<Item = u64>) -> Self {
        let test = Self::new(total_quantity).await;
        test.accept(users).await;
        test
    }

    /// These users hold coupons.
    pub async fn with_issued(total_quantity: u32, users: impl IntoIterator<Item = u64>) -> Self {
        let test = Self::with_accepted(total_quantity, users).await;
        test.work().await;
        test
    }

    /// Claims as these users, in one call; all are accepted.
    pub async fn accept(&self, users: impl IntoIterator<Item = u64>) -> Vec<ClaimId> {
        accept(self, &self.campaign, users).await
    }

    /// What the script decides on claims of these users; none when Redis does not know the campaign.
    pub async fn decide<const N: usize>(&self, users: [u64; N]) -> Option<Decisions> {
        scripts::claim(&self.redis, FIRST, self.campaign.id, "", &users.map(request)).await.expect("redis")
    }

    /// Works until nothing is left that can be ended.
    pub async fn work(&self) {
        work(self).await;
    }

    pub async fn reconcile(&self) {
        campaigns::reconcile_all(&self.database, &self.redis).await.expect("reconciled");
    }

    pub async fn rebuild(&self) {
        campaigns::rebuild(&self.database, &self.redis, &self.campaign).await.expect("rebuilt");
    }

    pub async fn set_total(&self, quantity: u32) {
        self.execute(&format!("UPDATE coupons SET total_quantity = {quantity}")).await;
    }

    /// Coupons that users hold.
    pub async fn issued(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM user_coupons").await
    }

    /// Coupons that the campaign counts as issued.
    pub async fn issued_quantity(&self) -> i64 {
        self.count("SELECT issued_quantity FROM coupons").await
    }

    /// Waits until users hold so many coupons.
    pub async fn eventually_issued(&self, count: i64) {
        let what = format!("{count} coupons are issued");
        eventually(&what, Duration::from_secs(5), async || self.issued().await == count).await;
    }

    /// Claims that were rejected after their acceptance.
    pub async fn rejected(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM claim_rejections").await
    }

    /// What Redis holds; none when it does not know the campaign.
    pub async fn held(&self) -> Option<Counts> {
        campaign_state::counts(&self.redis, FIRST, self.campaign.id).await.expect("redis")
    }

    /// Accepted claims, as Redis counts them.
    pub async fn claimed(&self) -> u32 {
        self.held().await.expect("a known campaign").claimed
    }

    pub async fn unanswered(&self) -> Vec<Claim> {
        ClaimStream::unanswered(&self.redis, FIRST, self.campaign.id).await.expect("redis")
    }

    /// The claims of a user that have an outcome, latest first.
    pub async fn claims_of(&self, number: u64) -> Vec<UserClaim> {
        db::issuances::list_of_user(&self.database.pool(), self.campaign.id, user(number)).await.expect("read")
    }

    pub async fn outcomes(&self, number: u64) -> Vec<ClaimOutcome> {
        self.claims_of(number).await.into_iter().map(|claim| claim.outcome).collect()
    }

    /// Works until nothing is left, and ends with so many coupons that users hold and the campaign counts.
    pub async fn end_with_issued(self, count: i64) {
        self.work().await;
        assert_eq!((self.issued().await, self.issued_quantity().await), (count, count));
        self.end().await;
    }

    /// Ends the environment; fails when something is left.
    pub async fn end(self) {
        self.environment.end().await;
    }
}
