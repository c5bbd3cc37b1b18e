use dibs_common::{
    clock::TimeRange, db::admin_actions::AdminActionsFilter, domain::admin_action::AdminAction,
    identifiers::AdminActionId, json,
};

use crate::routes::prelude::*;

/// Which actions.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ActionsQuery {
    /// Only those of this credential.
    actor: Option<String>,
    /// Only those of this kind, such as `campaign.pause`.
    action: Option<String>,
    /// Only those on this, such as a coupon id.
    target_id: Option<String>,
    /// Only those at that time or later.
    #[serde(default, deserialize_with = "json::optional_time")]
    from: Option<DateTime<Utc>>,
    /// Only those before that time.
    #[serde(default, deserialize_with = "json::optional_time")]
    until: Option<DateTime<Utc>>,
}

problems! { AdminProblems: 400 "VALIDATION_FAILED" }

/// List what administrators changed
#[utoipa::path(
    get, path = "/admin/actions", operation_id = "listAdminActions",
    tag = "support", params(ActionsQuery, Page::<AdminActionId>),
    responses((status = 200, description = "the newest first", body = List<AdminAction, AdminActionId>), Problems),
)]
pub async fn actions(
    app: SharedApp,
    _: Administrator,
    ListParams { filter, page }: ListParams<ActionsQuery, AdminActionId>,
) -> JsonResult<List<AdminAction, AdminActionId>> {
    let wanted = AdminActionsFilter {
        actor: filter.actor,
        action: filter.action,
        target_id: filter.target_id,
        done: TimeRange { from: filter.from, until: filter.until },
        before: page.cursor,
        limit: page.rows(),
    };
    let actions = db::within(db::admin_actions::list(&app.database.pool(), &wanted)).await?;
    Ok(page.list(actions, |action| action.admin_action_id))
}
