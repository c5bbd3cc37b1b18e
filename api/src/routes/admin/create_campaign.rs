use axum::{extract::State, http::StatusCode, response::Response};
use dibs_common::{
    clock, db,
    domain::campaign::{Campaign, CampaignState, CampaignTerms},
    error::Result,
    redis::scripts::{CampaignCounts, campaign_put},
};
use uuid::Uuid;

use crate::{
    app::SharedApp,
    extract::{Administrator, JsonBody, OperationId},
    problem::{ApiError, Problem},
    routes::coupons::show::CampaignView,
    routes::responses::{AdminProblems, located, validate},
};

/// Create a campaign
///
/// It takes claims from `opensAt` on.
#[utoipa::path(
    post, path = "/admin/coupons", tag = "administration", request_body = CampaignTerms,
    responses(
        (status = 201, description = "created", body = CampaignView),
        (status = 400, description = "VALIDATION_FAILED, MALFORMED_JSON", body = Problem),
        AdminProblems,
    ),
)]
pub async fn create_campaign(
    State(app): State<SharedApp>,
    _: Administrator,
    OperationId(operation): OperationId,
    JsonBody(terms): JsonBody<CampaignTerms>,
) -> Result<Response, ApiError> {
    let terms = terms.normalized();
    validate(terms.errors_at(clock::now()))?;
    let campaign = app.run_to_end(create(app.clone(), terms, operation)).await?;
    let location = format!("/coupons/{}", campaign.id);
    let view = CampaignView::new(campaign, 0);
    Ok(located(StatusCode::CREATED, location, view))
}

/// The database first, then Redis: where the second fails, the worker's reconciliation writes it.
async fn create(app: SharedApp, terms: CampaignTerms, operation: Uuid) -> Result<Campaign> {
    let partition = app.settings.shared.choose_partition();
    let pool = &app.database.pool();
    let created = db::campaigns::create(pool, &terms, partition, operation, clock::now());
    let db::campaigns::CreatedCampaign { id, partition, is_new } = db::within(created).await?;
    let campaign =
        Campaign { id, terms, partition, state: CampaignState::Active, issued: 0, rejected: 0, enforced_since: None };
    app.claims.created(&campaign).await;
    if !is_new {
        // An attempt before this one created it. Redis has its counts, which must not be reset; if it lost them, the worker
        // restores them from the rows.
        return Ok(campaign);
    }
    if let Err(error) = campaign_put(&app.redis, &campaign, CampaignCounts::default()).await {
        tracing::warn!(coupon = %id, cause = error.chain(), "campaign not written to redis; the worker will write it");
    }
    Ok(campaign)
}
