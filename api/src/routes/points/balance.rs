use dibs_common::identifiers::UserId;

use crate::routes::prelude::*;

/// Whose points.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BalanceQuery {
    user_id: UserId,
}

/// What a user can spend.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    user_id: UserId,
    /// Won; 0 for a user who was never seen.
    balance: i64,
}

/// Look at a user's points
#[utoipa::path(
    get, path = "/points", operation_id = "getPoints", tag = "points", params(BalanceQuery),
    responses((status = 200, description = "what the user can spend now", body = Balance), ReadProblems),
)]
pub async fn balance(
    app: SharedApp,
    QueryParams(BalanceQuery { user_id }): QueryParams<BalanceQuery>,
) -> JsonResult<Balance> {
    let balance = db::within(db::points::find_balance(&app.database.pool(), user_id)).await?;
    Ok(Json(Balance { user_id, balance }))
}
