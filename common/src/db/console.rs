//! What only the console shows. Each statement reads a bounded number of rows.

use chrono::NaiveDate;
use sqlx::MySqlPool;

use super::decode::identifier;
use crate::{
    clock::Timestamp,
    identifiers::{CouponId, OrderId, ProductId, UserId, first_uuid_at},
};

/// Coupons of all campaigns among which those of one are looked for: no index has them by campaign and time.
const SEARCHED_COUPONS: u32 = 5_000;
/// The same, for one point of a curve.
const SEARCHED_FOR_POINT: u32 = 200;
/// Dead letters that are grouped.
const GROUPED_LETTERS: u32 = 10_000;
const MAX_GROUPS: u32 = 50;
const MAX_SINKS: u32 = 50;

/// An issued coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestClaim {
    pub user: UserId,
    pub sequence: u32,
    pub accepted_at: Timestamp,
    pub issued_at: Timestamp,
    /// As `user_coupons.status` has it.
    pub status: String,
}

/// The latest issued coupons of a campaign whose claims were made before `moment`, the newest first.
pub async fn list_latest_claims(
    pool: &MySqlPool,
    coupon: CouponId,
    moment: Timestamp,
    limit: u32,
) -> Result<Vec<LatestClaim>, sqlx::Error> {
    type Row = (u64, u32, Timestamp, Timestamp, String);
    // Ids begin with the time of the request, so the primary key has the latest last.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT /* console::list_latest_claims */ user_id, sequence, accepted_at, issued_at, status FROM \
         (SELECT coupon_id, user_id, sequence, accepted_at, issued_at, status FROM user_coupons \
         WHERE user_coupon_id < ? ORDER BY user_coupon_id DESC LIMIT ?) AS latest \
         WHERE coupon_id = ? ORDER BY sequence DESC LIMIT ?",
    )
    .bind(first_uuid_at(moment))
    .bind(SEARCHED_COUPONS)
    .bind(coupon.get())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let claim = |(user, sequence, accepted_at, issued_at, status)| {
        Ok(LatestClaim { user: identifier(user)?, sequence, accepted_at, issued_at, status })
    };
    rows.into_iter().map(claim).collect()
}

/// How many claims of a campaign were accepted at each of these moments, as far as one can see from few rows: the
/// sequence of the first coupon after it. None where there is no coupon near.
pub async fn list_curve(
    pool: &MySqlPool,
    coupon: CouponId,
    moments: &[Timestamp],
) -> Result<Vec<Option<u64>>, sqlx::Error> {
    let point = format!(
        "(SELECT CAST(MIN(sequence) AS UNSIGNED) FROM (SELECT coupon_id, sequence FROM user_coupons \
         WHERE user_coupon_id >= ? ORDER BY user_coupon_id LIMIT {SEARCHED_FOR_POINT}) AS near WHERE coupon_id = ?)"
    );
    let mut curve = Vec::with_capacity(moments.len());
    // Some at a time: each is a search of its own in the primary key.
    for moments in moments.chunks(16) {
        let points = (0..moments.len()).map(|place| format!("SELECT {place} AS place, {point} AS point"));
        let points = points.collect::<Vec<_>>().join(" UNION ALL ");
        let sql = format!("SELECT /* console::list_curve */ point FROM ({points}) AS points ORDER BY place");
        let query = sqlx::query_scalar::<_, Option<u64>>(sqlx::AssertSqlSafe(sql));
        let query = moments.iter().fold(query, |query, moment| query.bind(first_uuid_at(*moment)).bind(coupon.get()));
        curve.extend(query.fetch_all(pool).await?);
    }
    Ok(curve)
}

/// Dead letters that are alike.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LetterGroup {
    pub source: String,
    pub kind: String,
    /// The beginning of the reason.
    pub reason: String,
    pub letters: i64,
    pub oldest: Timestamp,
    pub newest: Timestamp,
}

/// The latest DEAD letters by source, type and reason; the most first.
pub async fn group_letters(pool: &MySqlPool) -> Result<Vec<LetterGroup>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* console::group_letters */ source, kind, reason, COUNT(*) AS letters, MIN(dead_lettered_at) AS oldest, \
         MAX(dead_lettered_at) AS newest FROM (SELECT source, kind, LEFT(reason, 160) AS reason, dead_lettered_at \
         FROM dead_letters WHERE status = 'DEAD' ORDER BY dead_letter_id DESC LIMIT ?) AS latest \
         GROUP BY source, kind, reason ORDER BY letters DESC, source, kind, reason LIMIT ?",
    )
    .bind(GROUPED_LETTERS)
    .bind(MAX_GROUPS)
    .fetch_all(pool)
    .await
}

/// How many letters of a source there are in each status, each up to the number that is grouped.
pub async fn count_letters(pool: &MySqlPool, source: &str) -> Result<[u64; 4], sqlx::Error> {
    let mut counts = [0; 4];
    for (count, status) in counts.iter_mut().zip(["DEAD", "REDRIVE", "SENT", "DROPPED"]) {
        let counted: i64 = sqlx::query_scalar(
            "SELECT /* console::count_letters */ COUNT(*) FROM \
             (SELECT 1 FROM dead_letters WHERE status = ? AND source = ? LIMIT ?) AS counted",
        )
        .bind(status)
        .bind(source)
        .bind(GROUPED_LETTERS)
        .fetch_one(pool)
        .await?;
        *count = counted.unsigned_abs();
    }
    Ok(counts)
}

/// How many letters are DEAD, up to the number that is grouped.
pub async fn count_dead_letters(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT /* console::count_dead_letters */ COUNT(*) FROM \
         (SELECT 1 FROM dead_letters WHERE status = 'DEAD' LIMIT ?) AS counted",
    )
    .bind(GROUPED_LETTERS)
    .fetch_one(pool)
    .await?;
    Ok(count.unsigned_abs())
}

/// How far a sink is.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SinkRow {
    pub name: String,
    pub delivered_through: u64,
    pub last_sequence: u64,
    /// When the oldest undelivered event was inserted.
    pub waiting_since: Option<Timestamp>,
    /// When a process last served it, or delivered.
    pub updated_at: Timestamp,
    /// Messages in the retry queue.
    pub queued: i64,
}

/// All sinks, by name.
pub async fn list_sinks(pool: &MySqlPool) -> Result<Vec<SinkRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* console::list_sinks */ s.name, s.delivered_through, q.last_sequence, e.created_at AS waiting_since, \
         s.updated_at, (SELECT COUNT(*) FROM webhook_retry_queue r WHERE r.sink = s.name) AS queued FROM sinks s \
         JOIN outbox_sequence q LEFT JOIN outbox_events e ON e.sequence = s.delivered_through + 1 \
         ORDER BY s.name LIMIT ?",
    )
    .bind(MAX_SINKS)
    .fetch_all(pool)
    .await
}

/// A message in the retry queue.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct QueuedMessage {
    pub sink: String,
    pub kind: String,
    pub aggregate_id: String,
    pub attempts: u32,
    pub next_attempt_at: Timestamp,
    pub last_response: Option<String>,
}

/// The first messages of the retry queues.
pub async fn list_queued(pool: &MySqlPool, limit: u32) -> Result<Vec<QueuedMessage>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* console::list_queued */ sink, kind, aggregate_id, attempts, next_attempt_at, last_response \
         FROM webhook_retry_queue ORDER BY sink, epoch, sequence, place LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// A payment of an order.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PaymentRow {
    pub payment_id: uuid::Uuid,
    pub status: String,
    pub amount: i64,
    pub code: Option<String>,
    pub created_at: Timestamp,
    pub cancelled_at: Option<Timestamp>,
}

/// The payments of an order, the first first.
pub async fn list_payments(pool: &MySqlPool, order: OrderId, limit: u32) -> Result<Vec<PaymentRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* console::list_payments */ payment_id, status, amount, code, created_at, cancelled_at FROM payments \
         WHERE order_id = ? ORDER BY payment_id LIMIT ?",
    )
    .bind(order.0)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Dead letters about an order, by status, of one source.
pub async fn list_letters_about(
    pool: &MySqlPool,
    source: &str,
    aggregate_id: &str,
) -> Result<Vec<(u64, String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* console::list_letters_about */ dead_letter_id, kind, status FROM dead_letters \
         WHERE source = ? AND aggregate_id = ? ORDER BY dead_letter_id LIMIT 20",
    )
    .bind(source)
    .bind(aggregate_id)
    .fetch_all(pool)
    .await
}

/// Units of a product sold on each stored day from `first` on.
pub async fn list_days_of_product(
    pool: &MySqlPool,
    product: ProductId,
    first: NaiveDate,
) -> Result<Vec<(NaiveDate, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT /* console::list_days_of_product */ day, quantity FROM product_daily_sales \
         WHERE product_id = ? AND day >= ? ORDER BY day LIMIT 100",
    )
    .bind(product.get())
    .bind(first)
    .fetch_all(pool)
    .await
}
