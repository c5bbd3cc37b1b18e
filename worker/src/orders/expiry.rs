use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock::Timestamp,
    db::{self, Database, orders::OverdueOrder},
    domain::order::{Action, Command},
    error::{Error, Result},
    identifiers::{CommandId, OrderId, Partition, UserId},
    redis::{Redis, scripts, streams::OrderEntry},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// Overdue orders of one query, how many of their commands are sent to Redis at once, and queries of one run.
const PAGE_SIZE: u32 = 500;
const MAX_CONCURRENCY: usize = 32;
const MAX_PAGES: usize = 20;
/// A command to expire is sent when fewer commands wait on its stream: those of callers come first.
const MAX_STREAM_LENGTH: u64 = 5_000;
/// How long an order gets no second command. Then the first may be lost.
const RESEND_AFTER: TimeDelta = TimeDelta::seconds(60);
/// Coupons of one transaction, and its time limit.
const COUPON_BATCH_SIZE: u32 = 1_000;
const COUPON_BATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds orders that were not paid in time and puts a command for each on the stream. Remembers how far it got, so
/// that an order that waits for its command gets no second one at once.
#[derive(Debug, Default)]
pub struct Expiry {
    round: Option<Round>,
}

/// One way through all overdue orders, from the first on.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Timestamp,
    after: Option<(Timestamp, OrderId)>,
}

impl Expiry {
    /// Sends a command to expire for each overdue order that got none in the last minute. Returns how many.
    pub async fn send_commands(
        &mut self,
        database: &Database,
        redis: &Redis,
        partitions: u16,
        now: Timestamp,
    ) -> Result<usize> {
        let round = self.round.filter(|round| now - round.began < RESEND_AFTER);
        let mut round = round.unwrap_or(Round { began: now, after: None });
        let mut count = 0;
        for _ in 0..MAX_PAGES {
            let overdue = db::within(db::orders::list_overdue(&database.pool(), now, round.after, PAGE_SIZE)).await?;
            let mut commands = Vec::with_capacity(overdue.len());
            for OverdueOrder { order, user, .. } in &overdue {
                commands.push(send_one(redis, partitions, now, *order, *user));
            }
            // The position moves after the page: after an error the whole page is sent again.
            let sent: Vec<bool> = stream::iter(commands).buffered(MAX_CONCURRENCY).try_collect().await?;
            count += sent.iter().filter(|sent| **sent).count();
            if let Some(OverdueOrder { expires_at, order, .. }) = overdue.last() {
                round.after = Some((*expires_at, *order));
            }
            self.round = Some(round);
            if overdue.len() < PAGE_SIZE as usize {
                break;
            }
        }
        Ok(count)
    }
}

/// Whether there was room for the command; without, the next round sends it.
async fn send_one(redis: &Redis, partitions: u16, now: Timestamp, order: OrderId, user: UserId) -> Result<bool> {
    // By a command and not by an UPDATE here: the order may be paid at this moment, and the worker decides both in
    // turn.
    let command = Command { id: CommandId::generate(), user, at: now, action: Action::Expire { order }, trace: None };
    let stream = redis.keys.order_stream(Partition::of_user(user, partitions));
    // No caller waits for its outcome.
    let entry = OrderEntry { reply_channel: String::new(), request: String::new(), command };
    match scripts::enqueue(redis, stream, MAX_STREAM_LENGTH, entry.fields()?).await {
        Ok(()) => Ok(true),
        Err(Error::Overloaded) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks some issued coupons whose validity was over at `moment`, with an event of it. Returns how many; none when there
/// is nothing left to look at. They count as expired before that.
pub async fn expire_coupons(database: &Database, moment: Timestamp, now: Timestamp) -> Result<Option<u64>> {
    db::retrying("expire_coupons", || async {
        let sweep = db::coupon_expiry::expire(database, moment, COUPON_BATCH_SIZE, now);
        let swept = tokio::time::timeout(COUPON_BATCH_TIMEOUT, sweep).await;
        swept.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
    })
    .await
}
