//! The table `admin_actions`: what administrators changed. A row is written in the transaction of the change.

use serde_json::value::RawValue;
use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::decode::identifier;
use crate::{
    clock::{TimeRange, Timestamp},
    domain::admin_action::{ActionContext, AdminAction, NewAdminAction},
    identifiers::AdminActionId,
};

/// Inserts an action. The key on `operation_id` refuses a second one of the same request.
pub async fn insert(
    connection: &mut MySqlConnection,
    context: &ActionContext,
    action: &NewAdminAction,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO admin_actions /* admin_actions::insert */ (operation_id, actor, action, target_id, before_state, \
         after_state, reason, request_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(context.operation)
    .bind(&context.actor)
    .bind(action.action)
    .bind(&action.target_id)
    .bind(&action.before)
    .bind(&action.after)
    .bind(&context.reason)
    .bind(&context.request_id)
    .bind(context.at)
    .execute(connection)
    .await
    .map(drop)
}

/// Whether an attempt of the request before this one made its change.
pub async fn is_done(connection: &mut MySqlConnection, operation: Uuid) -> Result<bool, sqlx::Error> {
    let sql = "SELECT /* admin_actions::is_done */ 1 FROM admin_actions WHERE operation_id = ?";
    let done: Option<i64> = sqlx::query_scalar(sql).bind(operation).fetch_optional(connection).await?;
    Ok(done.is_some())
}

/// Which actions to list.
#[derive(Clone, Debug, Default)]
pub struct AdminActionsFilter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub target_id: Option<String>,
    pub done: TimeRange,
    /// Only those with a lower id.
    pub before: Option<AdminActionId>,
    pub limit: u32,
}

#[derive(sqlx::FromRow)]
struct AdminActionRow {
    admin_action_id: u64,
    actor: String,
    action: String,
    target_id: String,
    before_state: Option<String>,
    after_state: Option<String>,
    reason: Option<String>,
    request_id: String,
    created_at: Timestamp,
}

impl AdminActionRow {
    fn decode(self) -> Result<AdminAction, sqlx::Error> {
        Ok(AdminAction {
            admin_action_id: identifier(self.admin_action_id)?,
            actor: self.actor,
            action: self.action,
            target_id: self.target_id,
            before: self.before_state.map(json).transpose()?,
            after: self.after_state.map(json).transpose()?,
            reason: self.reason,
            request_id: self.request_id,
            created_at: self.created_at,
        })
    }
}

fn json(text: String) -> Result<Box<RawValue>, sqlx::Error> {
    RawValue::from_string(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A page of actions, the newest first.
pub async fn list(pool: &MySqlPool, wanted: &AdminActionsFilter) -> Result<Vec<AdminAction>, sqlx::Error> {
    let texts = [("actor = ?", &wanted.actor), ("action = ?", &wanted.action), ("target_id = ?", &wanted.target_id)];
    let times = [("created_at >= ?", wanted.done.from), ("created_at < ?", wanted.done.until)];
    let mut conditions = vec!["admin_action_id < ?"];
    conditions.extend(texts.iter().filter(|(_, text)| text.is_some()).map(|(condition, _)| *condition));
    conditions.extend(times.iter().filter(|(_, time)| time.is_some()).map(|(condition, _)| *condition));
    // As text: MySQL and MariaDB give their JSON columns different types.
    let sql = format!(
        "SELECT /* admin_actions::list */ admin_action_id, actor, action, target_id, \
         CAST(before_state AS CHAR) AS before_state, CAST(after_state AS CHAR) AS after_state, reason, request_id, \
         created_at FROM admin_actions WHERE {} ORDER BY admin_action_id DESC LIMIT ?",
        conditions.join(" AND ")
    );
    let mut query = sqlx::query_as::<_, AdminActionRow>(sqlx::AssertSqlSafe(sql));
    query = query.bind(wanted.before.map_or(u64::MAX, AdminActionId::get));
    for text in texts.into_iter().filter_map(|(_, text)| text.as_ref()) {
        query = query.bind(text);
    }
    for time in times.into_iter().filter_map(|(_, time)| time) {
        // Without a time zone, see `campaigns::create`: a caller may ask for any year.
        query = query.bind(time.naive_utc());
    }
    query.bind(wanted.limit).fetch_all(pool).await?.into_iter().map(AdminActionRow::decode).collect()
}
