use dibs_common::{
    clock::Timestamp,
    db::{self, Database},
    domain::order::{Action, Command},
    error::Result,
    identifiers::{CommandId, OrderId},
    keys::Partition,
    redis::Redis,
    scripts,
    stream::OrderEntry,
};

/// Orders told to expire at once.
const PAGE: u32 = 500;
/// Coupons swept at once.
const COUPONS: u32 = 1_000;
/// Commands to expire wait behind fewer than so many others: they are in no hurry.
const LONGEST_STREAM: u64 = 5_000;

/// Finds orders that were not paid in time and puts a command for each on the stream. Remembers how far it got, so
/// that an order that waits for its command is not told again at once.
#[derive(Debug, Default)]
pub struct Expiry {
    after: Option<(Timestamp, OrderId)>,
}

impl Expiry {
    /// Tells the next overdue orders to expire; how many. None left begins again from the first, so that one whose
    /// command got lost is told again.
    pub async fn tell(&mut self, database: &Database, redis: &Redis, partitions: u16, now: Timestamp) -> Result<usize> {
        let overdue = db::within(db::overdue_orders(database.pool(), now, self.after, PAGE)).await?;
        for (expires_at, order, user) in &overdue {
            let command =
                Command { id: CommandId::generate(), user: *user, at: now, action: Action::Expire { order: *order } };
            let stream = redis.keys.order_stream(Partition::of_user(*user, partitions));
            let entry = OrderEntry { answers: String::new(), request: String::new(), command };
            scripts::enqueue(redis, stream, LONGEST_STREAM, entry.fields()?).await?;
            self.after = Some((*expires_at, *order));
        }
        if overdue.is_empty() {
            self.after = None;
        }
        Ok(overdue.len())
    }
}

/// Marks issued coupons whose validity is over; how many. They count as expired before that.
pub async fn expire_coupons(database: &Database, now: Timestamp) -> Result<u64> {
    db::retrying("expire coupons", || db::expire_coupons(database.pool(), now, COUPONS)).await
}
