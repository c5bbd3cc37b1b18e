//! The table `coupons`: campaigns.

use std::collections::BTreeSet;

use chrono::NaiveDateTime;
use sqlx::{MySqlConnection, MySqlExecutor, MySqlPool};
use uuid::Uuid;

use super::{
    Database,
    decode::{find_row, identifier, parse},
    epochs, is_duplicate,
};
use crate::{
    clock::{TimeRange, Timestamp},
    domain::{
        campaign::{Campaign, CampaignState, CampaignTerms, Discount, Validity},
        event::Epoch,
    },
    identifiers::{CouponId, Partition},
};

#[derive(sqlx::FromRow)]
struct CampaignRow {
    coupon_id: u64,
    name: String,
    discount_type: String,
    discount_value: i64,
    discount_max_amount: Option<i64>,
    minimum_order_amount: i64,
    total_quantity: u32,
    issued_quantity: u32,
    revoked_quantity: u32,
    rejected_quantity: u32,
    per_user_limit: u16,
    opens_at: Timestamp,
    closes_at: Timestamp,
    validity_days: Option<u32>,
    valid_until: Option<Timestamp>,
    state: String,
    revision: u32,
    partition_number: u16,
    enforced_terms: Option<String>,
    enforced_since: Option<Timestamp>,
    epoch: u64,
}

// With the epoch of the database: what Redis holds of an earlier one is of another history, and is rebuilt.
const COLUMNS: &str = "coupon_id, name, discount_type, discount_value, discount_max_amount, minimum_order_amount, \
    total_quantity, issued_quantity, revoked_quantity, rejected_quantity, per_user_limit, opens_at, closes_at, validity_days, \
    valid_until, state, revision, partition_number, enforced_terms, enforced_since, (SELECT MAX(epoch) FROM epochs) AS epoch";

impl CampaignRow {
    fn decode(self) -> Result<Campaign, sqlx::Error> {
        let validity = match (self.validity_days, self.valid_until) {
            (Some(days), None) => Validity::Days(days),
            (None, Some(until)) => Validity::Until(until),
            _ => return Err(sqlx::Error::Decode(format!("coupon {}: not one validity", self.coupon_id).into())),
        };
        let state = parse("coupons.state", &self.state)?;
        let terms = CampaignTerms {
            discount: Discount {
                kind: parse("coupons.discount_type", &self.discount_type)?,
                value: self.discount_value,
                max_amount: self.discount_max_amount,
            },
            name: self.name,
            minimum_order_amount: self.minimum_order_amount,
            total_quantity: self.total_quantity,
            per_user_limit: self.per_user_limit,
            opens_at: self.opens_at,
            closes_at: self.closes_at,
            validity,
        };
        // Others: an administrator changed the row, and Redis does not have that yet.
        let is_enforced = self.enforced_terms.is_some_and(|enforced| enforced == enforceable(state, &terms));
        Ok(Campaign {
            id: identifier(self.coupon_id)?,
            partition: Partition(self.partition_number),
            state,
            revision: self.revision,
            issued: self.issued_quantity,
            revoked: self.revoked_quantity,
            rejected: self.rejected_quantity,
            epoch: Epoch(self.epoch),
            enforced_since: self.enforced_since.filter(|_| is_enforced),
            terms,
        })
    }
}

/// The terms whose change takes effect when Redis has it, as `coupons.enforced_terms` spells them.
fn enforceable(state: CampaignState, terms: &CampaignTerms) -> String {
    let (opens_at, closes_at) = (terms.opens_at.timestamp_millis(), terms.closes_at.timestamp_millis());
    format!("{} {opens_at} {closes_at}", state.into_str())
}

/// A campaign that this call or an earlier one of the same operation created.
#[derive(Clone, Copy, Debug)]
pub struct CreatedCampaign {
    pub id: CouponId,
    pub partition: Partition,
    pub epoch: Epoch,
    /// Whether this call created it.
    pub is_new: bool,
}

/// Inserts a campaign. A repeat of `operation` returns the existing one, with the partition that it was created in.
pub async fn create(
    connection: &mut MySqlConnection,
    terms: &CampaignTerms,
    partition: Partition,
    operation: Uuid,
    now: Timestamp,
) -> Result<CreatedCampaign, sqlx::Error> {
    let (days, until) = validity_columns(terms.validity);
    // Nearly always the operation is new, so the insert comes first, without a read before it.
    let inserted = sqlx::query(
        "INSERT INTO coupons /* campaigns::create */ (name, discount_type, discount_value, discount_max_amount, \
         minimum_order_amount, total_quantity, per_user_limit, opens_at, closes_at, validity_days, valid_until, \
         partition_number, operation_id, enforced_terms, enforced_since, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(terms.name.trim())
    .bind(terms.discount.kind.into_str())
    .bind(terms.discount.value)
    .bind(terms.discount.max_amount)
    .bind(terms.minimum_order_amount)
    .bind(terms.total_quantity)
    .bind(terms.per_user_limit)
    .bind(terms.opens_at.naive_utc())
    .bind(terms.closes_at.naive_utc())
    .bind(days)
    .bind(until)
    .bind(partition.0)
    .bind(operation)
    // Redis accepts no claim before it has these terms.
    .bind(enforceable(CampaignState::Active, terms))
    .bind(now)
    .bind(now)
    .bind(now)
    .execute(&mut *connection)
    .await;
    let epoch = epochs::position(&mut *connection).await?.epoch;
    match inserted {
        Ok(inserted) => {
            Ok(CreatedCampaign { id: identifier(inserted.last_insert_id())?, partition, epoch, is_new: true })
        }
        Err(error) if is_duplicate(&error) => {
            let sql = "SELECT /* campaigns::create */ coupon_id, partition_number FROM coupons WHERE operation_id = ?";
            let (id, partition): (u64, u16) = sqlx::query_as(sql).bind(operation).fetch_one(connection).await?;
            Ok(CreatedCampaign { id: identifier(id)?, partition: Partition(partition), epoch, is_new: false })
        }
        Err(error) => Err(error),
    }
}

/// Stores since when Redis enforces the state and window of `campaign`. The time stays while they do.
pub async fn set_enforced(
    executor: impl MySqlExecutor<'_>,
    campaign: &Campaign,
    since: Timestamp,
) -> Result<(), sqlx::Error> {
    let terms = enforceable(campaign.state, &campaign.terms);
    sqlx::query(
        "UPDATE coupons /* campaigns::set_enforced */ SET enforced_terms = ?, enforced_since = ? WHERE coupon_id = ? \
         AND (enforced_terms IS NULL OR enforced_terms <> ?)",
    )
    .bind(&terms)
    .bind(since)
    .bind(campaign.id.get())
    .bind(&terms)
    .execute(executor)
    .await
    .map(drop)
}

/// Stores that Redis does not hold the campaign.
pub async fn clear_enforced(executor: impl MySqlExecutor<'_>, coupon: CouponId) -> Result<(), sqlx::Error> {
    let sql = "UPDATE coupons /* campaigns::clear_enforced */ SET enforced_terms = NULL, enforced_since = NULL WHERE coupon_id = ?";
    sqlx::query(sql).bind(coupon.get()).execute(executor).await.map(drop)
}

/// At most `limit` campaigns whose claim window ended before `moment`, that Redis may hold, and that have no pending
/// assignment.
pub async fn list_ended(pool: &MySqlPool, moment: Timestamp, limit: u32) -> Result<Vec<Campaign>, sqlx::Error> {
    let sql = format!(
        // A pending assignment would have its campaign rebuilt at once.
        "SELECT /* campaigns::list_ended */ {COLUMNS} FROM coupons WHERE enforced_since IS NOT NULL AND closes_at < ? \
         AND coupon_id NOT IN (SELECT coupon_id FROM assignments WHERE status = 'PENDING') LIMIT ?"
    );
    let rows: Vec<CampaignRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(moment).bind(limit).fetch_all(pool).await?;
    rows.into_iter().map(CampaignRow::decode).collect()
}

/// The campaign of that id, if it exists.
pub async fn find(pool: &MySqlPool, coupon: CouponId) -> Result<Option<Campaign>, sqlx::Error> {
    let sql = format!("SELECT /* campaigns::find */ {COLUMNS} FROM coupons WHERE coupon_id = ?");
    find_row(pool, sql, coupon.get()).await?.map(CampaignRow::decode).transpose()
}

/// At most `limit` campaigns whose claim window ends after `moment`, by id, after the campaign `after`.
pub async fn list_not_ended(
    pool: &MySqlPool,
    moment: Timestamp,
    after: Option<CouponId>,
    limit: u32,
) -> Result<Vec<Campaign>, sqlx::Error> {
    let sql = format!(
        "SELECT /* campaigns::list_not_ended */ {COLUMNS} FROM coupons WHERE closes_at > ? AND coupon_id > ? \
         ORDER BY coupon_id LIMIT ?"
    );
    let rows: Vec<CampaignRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(moment)
        .bind(after.map_or(0, CouponId::get))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.into_iter().map(CampaignRow::decode).collect()
}

/// The partitions that campaigns live in. Campaigns are few, so this reads all of them.
pub async fn list_partitions(pool: &MySqlPool) -> Result<Vec<Partition>, sqlx::Error> {
    let sql = "SELECT /* campaigns::list_partitions */ DISTINCT partition_number FROM coupons";
    let numbers: Vec<u16> = sqlx::query_scalar(sql).fetch_all(pool).await?;
    Ok(numbers.into_iter().map(Partition).collect())
}

/// Locks the campaigns of a batch and reads them. Locks are taken in id order, so that two batches cannot deadlock.
pub async fn lock(connection: &mut MySqlConnection, coupons: &[CouponId]) -> Result<Vec<Campaign>, sqlx::Error> {
    // Prepared: nearly all batches are of one campaign, and so share one statement.
    let ids = vec!["?"; coupons.len()].join(", ");
    let sql = format!(
        "SELECT /* campaigns::lock: the quantity is checked and raised under this lock */ {COLUMNS} FROM coupons \
         WHERE coupon_id IN ({ids}) ORDER BY coupon_id FOR UPDATE"
    );
    let mut query = sqlx::query_as::<_, CampaignRow>(sqlx::AssertSqlSafe(sql));
    for coupon in coupons {
        query = query.bind(coupon.get());
    }
    query.fetch_all(connection).await?.into_iter().map(CampaignRow::decode).collect()
}

/// Those of the campaigns that another session has locked.
pub async fn find_locked(database: &Database, coupons: &BTreeSet<CouponId>) -> Result<BTreeSet<CouponId>, sqlx::Error> {
    let mut transaction = database.begin_batch().await?;
    let mut locked = BTreeSet::new();
    for coupon in coupons {
        // SKIP LOCKED returns no row for one that is locked, and none for one that does not exist.
        let exists = "SELECT /* campaigns::find_locked */ 1 FROM coupons WHERE coupon_id = ?";
        let exists: Option<i64> =
            sqlx::query_scalar(exists).bind(coupon.get()).fetch_optional(&mut *transaction).await?;
        let free = "SELECT /* campaigns::find_locked */ 1 FROM coupons WHERE coupon_id = ? FOR UPDATE SKIP LOCKED";
        let free: Option<i64> = sqlx::query_scalar(free).bind(coupon.get()).fetch_optional(&mut *transaction).await?;
        if exists.is_some() && free.is_none() {
            locked.insert(*coupon);
        }
    }
    // Those that were free are locked by this session now.
    transaction.rollback().await?;
    Ok(locked)
}

/// Stores the terms and the state of a campaign that the caller has locked, and its revision.
pub async fn update(connection: &mut MySqlConnection, campaign: &Campaign, now: Timestamp) -> Result<(), sqlx::Error> {
    let terms = &campaign.terms;
    let (days, until) = validity_columns(terms.validity);
    sqlx::query(
        "UPDATE coupons /* campaigns::update */ SET name = ?, minimum_order_amount = ?, total_quantity = ?, \
         opens_at = ?, closes_at = ?, validity_days = ?, valid_until = ?, state = ?, revision = ?, updated_at = ? \
         WHERE coupon_id = ?",
    )
    .bind(&terms.name)
    .bind(terms.minimum_order_amount)
    .bind(terms.total_quantity)
    .bind(terms.opens_at.naive_utc())
    .bind(terms.closes_at.naive_utc())
    .bind(days)
    .bind(until)
    .bind(campaign.state.into_str())
    .bind(campaign.revision)
    .bind(now)
    .bind(campaign.id.get())
    .execute(connection)
    .await
    .map(drop)
}

/// Times that administrators give are bound without a time zone. sqlx binds a time with one as TIMESTAMP, which ends in
/// 2038 on MariaDB: the server then stores NULL.
const fn validity_columns(validity: Validity) -> (Option<u32>, Option<NaiveDateTime>) {
    match validity {
        Validity::Days(days) => (Some(days), None),
        Validity::Until(until) => (None, Some(until.naive_utc())),
    }
}

/// Which campaigns to list.
#[derive(Clone, Debug, Default)]
pub struct CampaignsFilter {
    /// Only those whose name contains it.
    pub name: Option<String>,
    pub opens: TimeRange,
    pub closes: TimeRange,
    /// Only those with a lower id.
    pub before: Option<CouponId>,
    pub limit: u32,
}

/// A page of campaigns, the newest first.
pub async fn list(pool: &MySqlPool, wanted: &CampaignsFilter) -> Result<Vec<Campaign>, sqlx::Error> {
    let times = [
        ("opens_at >= ?", wanted.opens.from),
        ("opens_at < ?", wanted.opens.until),
        ("closes_at >= ?", wanted.closes.from),
        ("closes_at < ?", wanted.closes.until),
    ];
    let mut conditions = vec!["coupon_id < ?"];
    conditions.extend(times.iter().filter(|(_, time)| time.is_some()).map(|(condition, _)| *condition));
    // Not LIKE, whose wildcards a name may contain.
    conditions.extend(wanted.name.as_ref().map(|_| "LOCATE(?, name) > 0"));
    let sql = format!(
        "SELECT /* campaigns::list */ {COLUMNS} FROM coupons WHERE {} ORDER BY coupon_id DESC LIMIT ?",
        conditions.join(" AND ")
    );
    let mut query = sqlx::query_as::<_, CampaignRow>(sqlx::AssertSqlSafe(sql));
    query = query.bind(wanted.before.map_or(u64::MAX, CouponId::get));
    for time in times.into_iter().filter_map(|(_, time)| time) {
        query = query.bind(time.naive_utc());
    }
    if let Some(name) = &wanted.name {
        query = query.bind(name);
    }
    query.bind(wanted.limit).fetch_all(pool).await?.into_iter().map(CampaignRow::decode).collect()
}
