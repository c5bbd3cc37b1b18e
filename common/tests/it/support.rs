use dibs_common::{
    clock,
    db::{self, issuances::PlannedClaims},
    domain::{
        campaign::{Campaign, CampaignTerms},
        claim::{self, Claim, ClaimRecord, ExistingClaims, IssuancePlan},
    },
    identifiers::{ClaimId, ProductId, UserId},
    testing::{TestEnvironment, open_terms},
};
use sqlx::MySqlConnection;

pub fn user(number: u64) -> UserId {
    number.try_into().expect("an id")
}

pub fn product(number: u64) -> ProductId {
    number.try_into().expect("an id")
}

/// An environment, and a campaign that Redis does not hold.
pub async fn with_campaign(change: impl FnOnce(&mut CampaignTerms)) -> (TestEnvironment, Campaign) {
    let environment = TestEnvironment::new().await;
    let mut terms = open_terms();
    change(&mut terms);
    let campaign = environment.campaign_in_database(terms).await;
    (environment, campaign)
}

pub fn accepted(campaign: &Campaign, number: u64, sequence: u32) -> Claim {
    let record = ClaimRecord { claim_id: ClaimId::generate(), sequence, accepted_at: clock::now() };
    Claim { coupon: campaign.id, user: user(number), record, request: String::new(), is_assigned: false, trace: None }
}

/// Plans claims as the worker does, and inserts the batch in a transaction.
pub async fn confirm(
    environment: &TestEnvironment,
    campaign: &Campaign,
    claims: &[Claim],
) -> Result<IssuancePlan, sqlx::Error> {
    let mut transaction = environment.database.begin().await?;
    let campaigns = db::campaigns::lock(&mut transaction, &[campaign.id]).await?;
    let plan = claim::confirm(&campaigns, &ExistingClaims::default(), claims, clock::now());
    let batch = PlannedClaims { campaigns: &campaigns, claims, plan: &plan };
    db::issuances::insert_batch(&mut transaction, batch, clock::now(), environment.database.statement_bytes()).await?;
    transaction.commit().await?;
    Ok(plan)
}

/// Issues a coupon to each user, with sequences from 1, and returns the claims.
pub async fn issue(environment: &TestEnvironment, campaign: &Campaign, users: &[u64]) -> Vec<Claim> {
    let claims: Vec<Claim> =
        users.iter().zip(1..).map(|(number, sequence)| accepted(campaign, *number, sequence)).collect();
    confirm(environment, campaign, &claims).await.expect("issued");
    claims
}

pub async fn connection(environment: &TestEnvironment) -> sqlx::pool::PoolConnection<sqlx::MySql> {
    environment.database.pool().acquire().await.expect("a connection")
}

pub async fn insert_event(connection: &mut MySqlConnection, kind: &str, payload: &str) {
    sqlx::query(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) VALUES ('ORDER', '1', ?, ?, ?)",
    )
    .bind(kind)
    .bind(payload)
    .bind(clock::now())
    .execute(connection)
    .await
    .expect("inserted");
}
