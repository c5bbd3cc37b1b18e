use dibs_common::{campaigns, domain::campaign::CampaignTerms};

use crate::routes::{coupons::show::CampaignView, prelude::*};

problems! { AdminProblems: 400 "VALIDATION_FAILED, MALFORMED_JSON" }

/// Create a campaign
///
/// It takes claims from `opensAt` on.
#[utoipa::path(
    post, path = "/admin/coupons", operation_id = "createCampaign",
    tag = "campaigns", request_body = CampaignTerms, params(ActionQuery),
    responses((status = 201, description = "created", body = CampaignView, headers(("Location"))), Problems),
)]
pub async fn create_campaign(
    app: SharedApp,
    Action(context): Action,
    JsonBody(terms): JsonBody<CampaignTerms>,
) -> ApiResult {
    let terms = terms.normalized();
    validate(terms.errors_at(context.at))?;
    let partition = app.settings.shared.choose_partition();
    let creating = app.clone();
    let campaign = app.run_to_end(async move {
        campaigns::create(&creating.database, &creating.redis, terms, partition, &context).await
    });
    let campaign = campaign.await?;
    app.claims.created(&campaign).await;
    let location = format!("/coupons/{}", campaign.id);
    Ok(located(StatusCode::CREATED, location, CampaignView::new(campaign, 0)))
}
