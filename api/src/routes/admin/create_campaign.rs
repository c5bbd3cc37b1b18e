use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dibs_common::{
    clock, db,
    domain::campaign::{Campaign, CampaignState, CampaignTerms},
    error::{Error, Result},
    redis::scripts::{CampaignCounts, campaign_put},
};
use uuid::Uuid;

use crate::{
    app::SharedApp,
    extract::{Administrator, JsonBody, OperationId},
    problem::{ApiError, Problem},
    routes::coupons::show::CampaignView,
};

/// Make a campaign
///
/// It takes claims from `opensAt` on.
#[utoipa::path(
    post, path = "/admin/coupons", tag = "administration", request_body = CampaignTerms,
    responses(
        (status = 201, description = "made", body = CampaignView),
        (status = 400, description = "VALIDATION_FAILED, MALFORMED_JSON", body = Problem),
        (status = 401, description = "UNAUTHENTICATED", body = Problem),
        (status = 403, description = "FORBIDDEN", body = Problem),
        (status = 503, description = "DEPENDENCY_UNAVAILABLE", body = Problem),
    ),
)]
pub async fn create_campaign(
    State(app): State<SharedApp>,
    _: Administrator,
    OperationId(operation): OperationId,
    JsonBody(terms): JsonBody<CampaignTerms>,
) -> Result<Response, ApiError> {
    let terms = terms.as_kept();
    let errors = terms.errors();
    if !errors.is_empty() {
        return Err(ApiError(Error::ValidationFailed(errors)));
    }
    // In a task of its own: a client that goes away must not leave the campaign half made.
    let making = app.tasks.spawn(make(app.clone(), terms, operation));
    let campaign = making.await.map_err(Error::internal)??;
    let location = format!("/coupons/{}", campaign.id);
    let view = CampaignView::new(campaign, 0);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// The database first, then Redis: a worker makes up for the second when it fails.
async fn make(app: SharedApp, terms: CampaignTerms, operation: Uuid) -> Result<Campaign> {
    let partition = app.settings.shared.choose_partition();
    let created = db::campaigns::create(app.database.pool(), &terms, partition, operation, clock::now());
    let db::campaigns::CreatedCampaign { id, partition, is_new } = db::within(created).await?;
    let campaign = Campaign { id, terms, partition, state: CampaignState::Active, issued: 0, rejected: 0 };
    app.claims.created(&campaign).await;
    if !is_new {
        // Redis holds what became of it, or a worker makes it again with its counts.
        return Ok(campaign);
    }
    if let Err(error) = campaign_put(&app.redis, &campaign, CampaignCounts::default()).await {
        tracing::warn!(coupon = %id, cause = error.chain(), "redis does not know the new campaign yet; a worker will tell it");
    }
    Ok(campaign)
}
