//! The table `campaign_rebuilds`: rebuilds that administrators requested.

use sqlx::{MySqlConnection, MySqlPool};
use uuid::Uuid;

use super::{
    Database, admin_actions, campaigns,
    decode::{identifier, parse},
    retention::delete_older,
    retrying, with_timeout,
};
use crate::{
    clock::Timestamp,
    domain::{
        admin_action::{ActionContext, NewAdminAction},
        rebuild::Rebuild,
    },
    error::{Error, Result},
    identifiers::{CouponId, RebuildId},
};

#[derive(sqlx::FromRow)]
struct RebuildRow {
    rebuild_id: Uuid,
    coupon_id: u64,
    status: String,
    requested_at: Timestamp,
    done_at: Option<Timestamp>,
    claimed: Option<u32>,
}

const COLUMNS: &str = "rebuild_id, coupon_id, status, requested_at, done_at, claimed";

impl RebuildRow {
    fn decode(self) -> Result<Rebuild, sqlx::Error> {
        Ok(Rebuild {
            rebuild_id: RebuildId(self.rebuild_id),
            coupon_id: identifier(self.coupon_id)?,
            status: parse("campaign_rebuilds.status", &self.status)?,
            requested_at: self.requested_at,
            done_at: self.done_at,
            claimed: self.claimed,
        })
    }
}

/// Requests a rebuild, with its action. A repeat of the operation returns the first.
pub async fn request(database: &Database, coupon: CouponId, context: &ActionContext) -> Result<Rebuild> {
    let requested = retrying("request_rebuild", || with_timeout(insert(database, coupon, context))).await?;
    requested.ok_or(Error::CouponNotFound(coupon))
}

async fn insert(
    database: &Database,
    coupon: CouponId,
    context: &ActionContext,
) -> Result<Option<Rebuild>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    // Two attempts of one request come one after the other.
    if campaigns::lock(&mut transaction, &[coupon]).await?.is_empty() {
        return Ok(None);
    }
    let id = RebuildId(context.operation);
    if let Some(existing) = find_by_id(&mut transaction, coupon, id).await? {
        return Ok(Some(existing));
    }
    let sql =
        "INSERT INTO campaign_rebuilds /* rebuilds::insert */ (rebuild_id, coupon_id, requested_at) VALUES (?, ?, ?)";
    sqlx::query(sql).bind(id.0).bind(coupon.get()).bind(context.at).execute(&mut *transaction).await?;
    let rebuild = find_by_id(&mut transaction, coupon, id).await?;
    let action = NewAdminAction::created("campaign.rebuild", &coupon, &Requested { rebuild_id: id });
    admin_actions::insert(&mut transaction, context, &action).await?;
    transaction.commit().await?;
    Ok(rebuild)
}

/// What `admin_actions` shows of it.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Requested {
    rebuild_id: RebuildId,
}

async fn find_by_id(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    id: RebuildId,
) -> Result<Option<Rebuild>, sqlx::Error> {
    let sql = format!(
        "SELECT /* rebuilds::find_by_id */ {COLUMNS} FROM campaign_rebuilds WHERE rebuild_id = ? AND coupon_id = ?"
    );
    let row: Option<RebuildRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).bind(coupon.get()).fetch_optional(connection).await?;
    row.map(RebuildRow::decode).transpose()
}

pub async fn find(pool: &MySqlPool, coupon: CouponId, id: RebuildId) -> Result<Option<Rebuild>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    find_by_id(&mut connection, coupon, id).await
}

/// At most `limit` rebuilds that are to be executed, the oldest first.
pub async fn list_pending(connection: &mut MySqlConnection, limit: u32) -> Result<Vec<Rebuild>, sqlx::Error> {
    let sql = format!(
        "SELECT /* rebuilds::list_pending */ {COLUMNS} FROM campaign_rebuilds WHERE status = 'PENDING' \
         ORDER BY rebuild_id LIMIT ?"
    );
    let rows: Vec<RebuildRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(limit).fetch_all(connection).await?;
    rows.into_iter().map(RebuildRow::decode).collect()
}

pub async fn mark_done(
    connection: &mut MySqlConnection,
    id: RebuildId,
    claimed: u32,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let sql = "UPDATE campaign_rebuilds /* rebuilds::mark_done */ SET status = 'DONE', done_at = ?, claimed = ? \
               WHERE rebuild_id = ?";
    sqlx::query(sql).bind(now).bind(claimed).bind(id.0).execute(connection).await.map(drop)
}

/// Deletes at most `limit` rebuilds that were done before `before`. Returns their number.
pub async fn purge(pool: &MySqlPool, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    let sql = "DELETE FROM campaign_rebuilds /* rebuilds::purge */ WHERE done_at < ? ORDER BY done_at LIMIT ?";
    delete_older(pool, sql, before, limit).await
}
