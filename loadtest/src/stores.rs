//! MySQL and Redis of a stack.

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use clap::Args;
use dibs_common::{
    db::{self, Database},
    domain::campaign::Campaign,
    identifiers::{CouponId, Partition},
    redis::{
        Redis,
        keys::{Keys, ORDERS_GROUP},
    },
};
use fred::{interfaces::StreamsInterface as _, types::Value};
use futures::future::try_join_all;
use secrecy::SecretString;

const DATABASE_CONNECTIONS: u32 = 4;
const REDIS_CONNECTIONS: usize = 2;
const DEAD_LETTER_PAGE: u64 = 100;
/// What `CLAIM_PARTITIONS` may be at most.
const MAX_PARTITIONS: u16 = 1024;

#[derive(Clone, Debug, Args)]
pub struct StoreArguments {
    /// Database of the stack: mysql://user:password@host:port/database
    #[arg(long, env, hide_env_values = true)]
    pub database_url: SecretString,
    /// Redis of the stack
    #[arg(long, env, hide_env_values = true, default_value = "redis://127.0.0.1:6379")]
    pub redis_url: SecretString,
    /// Prefix of all Redis keys of the stack
    #[arg(long, env, default_value = "")]
    pub redis_key_prefix: String,
}

/// Commands without an outcome, of all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandsLeft {
    /// Entries on the streams.
    pub waiting: u64,
    /// Entries that a worker read and has not acknowledged.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
}

impl CommandsLeft {
    /// Whether every stream is drained. A dead letter stays until it is redriven, so waiting for it is pointless.
    pub const fn is_drained(self) -> bool {
        self.waiting == 0 && self.pending == 0
    }
}

#[derive(Clone)]
pub struct Stores {
    pub database: Database,
    pub redis: Redis,
}

impl Stores {
    pub async fn connect(arguments: &StoreArguments) -> Result<Self> {
        let database = Database::new(&arguments.database_url, DATABASE_CONNECTIONS).context("DATABASE_URL")?;
        database.ping().await.context("connecting to the database")?;
        let keys = Keys::new(&*arguments.redis_key_prefix);
        let redis =
            Redis::connect(&arguments.redis_url, keys, REDIS_CONNECTIONS).await.context("connecting to Redis")?;
        Ok(Self { database, redis })
    }

    pub async fn close(self) {
        self.database.close().await;
        self.redis.close().await;
    }

    /// The campaign as MySQL has it.
    pub async fn campaign(&self, coupon: CouponId) -> Result<Campaign> {
        let found = db::campaigns::find(self.database.pool(), coupon).await.context("reading the campaign")?;
        found.ok_or_else(|| anyhow!("the database has no coupon {coupon}"))
    }

    /// Claims of `partition` that are not confirmed yet.
    pub async fn backlog(&self, partition: Partition) -> Result<u64> {
        let key = self.redis.keys.claim_stream(partition);
        self.redis.client().xlen(key).await.context("reading the length of a claim stream")
    }

    pub async fn commands_left(&self) -> Result<CommandsLeft> {
        // All possible partitions: their number is a setting of the stack, and can be raised.
        let partitions = (0..MAX_PARTITIONS).map(|number| self.commands_left_of(Partition(number)));
        let mut left = CommandsLeft::default();
        for of_partition in try_join_all(partitions).await? {
            left.waiting += of_partition.waiting;
            left.pending += of_partition.pending;
            left.dead += of_partition.dead;
        }
        Ok(left)
    }

    /// Events that the ranking has not applied yet.
    pub async fn events_left(&self) -> Result<u64> {
        let left: i64 = sqlx::query_scalar(
            "SELECT /* events_left */ CAST((SELECT COUNT(*) FROM outbox_events WHERE sequence IS NULL) + last_sequence - \
             COALESCE((SELECT delivered_through FROM sinks WHERE name = 'ranking'), 0) AS SIGNED) FROM outbox_sequence",
        )
        .fetch_one(self.database.pool())
        .await
        .context("counting events")?;
        Ok(left.unsigned_abs())
    }

    async fn commands_left_of(&self, partition: Partition) -> Result<CommandsLeft> {
        let (client, keys) = (self.redis.client(), &self.redis.keys);
        let stream = keys.order_stream(partition);
        let waiting = client.xlen(&stream).await.context("reading the length of an order stream")?;
        let dead = client.xlen(keys.dead_orders(partition)).await.context("dead letters")?;
        // XPENDING fails while there is no group, and then no entry is pending.
        let pending: Value = client.xpending(&stream, ORDERS_GROUP, ()).await.unwrap_or(Value::Null);
        let pending = pending.into_array().first().and_then(Value::as_u64).unwrap_or(0);
        Ok(CommandsLeft { waiting, pending, dead })
    }

    /// Dead letters of a campaign.
    pub async fn dead_letters(&self, partition: Partition, coupon: CouponId) -> Result<u64> {
        let key = self.redis.keys.dead_claims(partition);
        let (mut found, mut start) = (0, "-".to_owned());
        loop {
            let page: Vec<(String, HashMap<String, Bytes>)> = self
                .redis
                .client()
                .xrange_values(&key, &*start, "+", Some(DEAD_LETTER_PAGE))
                .await
                .context("reading dead letters")?;
            let own = coupon.to_string();
            let is_own = |fields: &HashMap<String, Bytes>| fields.get("coupon").is_some_and(|id| *id == own.as_bytes());
            found += page.iter().filter(|(_, fields)| is_own(fields)).count() as u64;
            match page.last() {
                Some((last, _)) => start = format!("({last}"),
                None => return Ok(found),
            }
        }
    }
}
