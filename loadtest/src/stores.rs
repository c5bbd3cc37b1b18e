//! MySQL and Redis of a stack.

use anyhow::{Context as _, Result, anyhow};
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

// Few, so that an audit does not take the connections of the stack that it looks into.
const DATABASE_CONNECTIONS: u32 = 4;
const REDIS_CONNECTIONS: usize = 2;
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
    /// Rows of `dead_letters` that are neither redriven nor dropped.
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
        let found = db::campaigns::find(&self.database.pool(), coupon).await.context("reading the campaign")?;
        found.ok_or_else(|| anyhow!("the database has no coupon {coupon}"))
    }

    /// Entries of `partition` that are not confirmed yet, each of up to 250 claims.
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
        }
        left.dead = self.count_dead("source = 'commands'").await?;
        Ok(left)
    }

    /// Events that the ranking has not applied yet.
    pub async fn events_left(&self) -> Result<u64> {
        let left: i64 = sqlx::query_scalar(
            // Events without a sequence are not numbered yet; the others are left from the sink's progress on.
            "SELECT /* events_left */ CAST((SELECT COUNT(*) FROM outbox_events WHERE sequence IS NULL) + last_sequence - \
             COALESCE((SELECT delivered_through FROM sinks WHERE name = 'ranking'), 0) AS SIGNED) FROM outbox_sequence",
        )
        .fetch_one(&self.database.pool())
        .await
        .context("counting events")?;
        Ok(left.unsigned_abs())
    }

    async fn commands_left_of(&self, partition: Partition) -> Result<CommandsLeft> {
        let (client, keys) = (self.redis.client(), &self.redis.keys);
        let stream = keys.order_stream(partition);
        let waiting = client.xlen(&stream).await.context("reading the length of an order stream")?;
        // XPENDING fails while there is no group, and then no entry is pending.
        let pending: Value = client.xpending(&stream, ORDERS_GROUP, ()).await.unwrap_or(Value::Null);
        let pending = pending.into_array().first().and_then(Value::as_u64).unwrap_or(0);
        Ok(CommandsLeft { waiting, pending, dead: 0 })
    }

    /// Dead letters of a campaign's claims that are neither redriven nor dropped: these claims have no outcome.
    pub async fn dead_letters(&self, coupon: CouponId) -> Result<u64> {
        self.count_dead(&format!("source = 'claims' AND aggregate_id = '{coupon}'")).await
    }

    async fn count_dead(&self, condition: &str) -> Result<u64> {
        let sql = format!(
            "SELECT /* count_dead */ COUNT(*) FROM dead_letters WHERE {condition} AND status IN ('DEAD', 'REDRIVE')"
        );
        let dead: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&self.database.pool())
            .await
            .context("counting dead letters")?;
        Ok(dead.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use dibs_common::testing::{FIRST, TestEnvironment};
    use fred::{interfaces::KeysInterface as _, types::streams::XID};

    use super::*;

    fn stores(environment: &TestEnvironment) -> Stores {
        Stores { database: environment.database.clone(), redis: environment.redis.clone() }
    }

    #[tokio::test]
    async fn stores_are_connected_by_the_urls_of_the_stack() {
        let environment = TestEnvironment::new().await;
        let mut arguments = StoreArguments {
            database_url: environment.settings.database_url.clone(),
            redis_url: environment.settings.redis_url.clone(),
            redis_key_prefix: environment.settings.redis_key_prefix.clone(),
        };
        let campaign = environment.campaign(3).await;
        let stores = Stores::connect(&arguments).await.expect("connected");
        assert_eq!(stores.campaign(campaign.id).await.expect("a campaign").terms, campaign.terms);
        stores.close().await;
        arguments.database_url = "mysql://dibs@127.0.0.1:1/dibs".into();
        let error = Stores::connect(&arguments).await.err().expect("no server");
        assert!(format!("{error:#}").starts_with("connecting to the database: "), "{error:#}");
        environment.end().await;
    }

    #[tokio::test]
    async fn an_unknown_campaign_is_an_error() {
        let environment = TestEnvironment::new().await;
        let unknown = CouponId::try_from(999).expect("an id");
        let error = stores(&environment).campaign(unknown).await.expect_err("unknown").to_string();
        assert_eq!(error, "the database has no coupon 999");
        environment.end().await;
    }

    #[tokio::test]
    async fn commands_are_waiting_or_pending_until_they_are_acknowledged() {
        let environment = TestEnvironment::new().await;
        let stores = stores(&environment);
        let (client, stream) = (stores.redis.client(), stores.redis.keys.order_stream(FIRST));
        assert!(stores.commands_left().await.expect("counts").is_drained());
        let entry = ("type", "orders.v1");
        let _id: String = client.xadd(&stream, false, None::<()>, "*", entry).await.expect("added");
        let left = stores.commands_left().await.expect("counts");
        assert_eq!(left, CommandsLeft { waiting: 1, pending: 0, dead: 0 });
        client.xgroup_create::<(), _, _, _>(&stream, ORDERS_GROUP, "0", true).await.expect("a group");
        let read = client.xreadgroup(ORDERS_GROUP, "worker", None, None, false, &stream, XID::NewInGroup).await;
        let _entries: Value = read.expect("read");
        let left = stores.commands_left().await.expect("counts");
        assert_eq!((left.waiting, left.pending, left.is_drained()), (1, 1, false));
        client.del::<(), _>(&stream).await.expect("deleted");
        environment.end().await;
    }

    #[tokio::test]
    async fn the_backlog_is_that_of_the_partition() {
        let environment = TestEnvironment::with_partitions(2).await;
        let stores = stores(&environment);
        let (client, stream) = (stores.redis.client(), stores.redis.keys.claim_stream(Partition(1)));
        let entry = ("type", "claims.v1");
        let _id: String = client.xadd(&stream, false, None::<()>, "*", entry).await.expect("added");
        let backlogs = [stores.backlog(Partition(0)).await.ok(), stores.backlog(Partition(1)).await.ok()];
        assert_eq!(backlogs, [Some(0), Some(1)]);
        client.del::<(), _>(&stream).await.expect("deleted");
        environment.end().await;
    }

    #[tokio::test]
    async fn events_are_left_until_the_ranking_has_applied_them() {
        let environment = TestEnvironment::new().await;
        let stores = stores(&environment);
        assert_eq!(stores.events_left().await.expect("a count"), 0);
        environment
            .execute(
                "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
                 VALUES ('ORDER', 'x', 'order.paid', '{}', NOW(3))",
            )
            .await;
        assert_eq!(stores.events_left().await.expect("a count"), 1, "not sequenced");
        db::outbox::sequence_events(&environment.database).await.expect("sequenced");
        assert_eq!(stores.events_left().await.expect("a count"), 1, "not delivered");
        environment.end().await;
    }
}
