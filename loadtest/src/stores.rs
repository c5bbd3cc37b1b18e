//! The database and the Redis that are looked into.

use std::collections::HashMap;

use bytes::Bytes;
use clap::Args;
use dibs_common::{
    db::{self, Database},
    domain::campaign::Campaign,
    identifiers::CouponId,
    keys::{Keys, Partition},
    redis::{Redis, redis_error},
};
use fred::interfaces::StreamsInterface as _;
use secrecy::SecretString;

use crate::failure::{Context, Failure, Result};

const DATABASE_CONNECTIONS: u32 = 4;
const REDIS_CONNECTIONS: usize = 2;
const DEAD_LETTERS_AT_ONCE: u64 = 100;

/// Where they are.
#[derive(Clone, Debug, Args)]
pub struct StoreArguments {
    /// The database of the stack: mysql://user:password@host:port/database
    #[arg(long, env, hide_env_values = true)]
    pub database_url: SecretString,
    /// The Redis of the stack
    #[arg(long, env, hide_env_values = true, default_value = "redis://127.0.0.1:6379")]
    pub redis_url: SecretString,
    /// What every Redis key of the stack begins with
    #[arg(long, env, default_value = "")]
    pub redis_key_prefix: String,
}

/// Connections to both.
#[derive(Clone)]
pub struct Stores {
    /// The source of truth.
    pub database: Database,
    /// What admits claims.
    pub redis: Redis,
}

impl Stores {
    /// Connects to both.
    pub async fn connect(arguments: &StoreArguments) -> Result<Self> {
        let database = Database::new(&arguments.database_url, DATABASE_CONNECTIONS).context("DATABASE_URL")?;
        database.ping().await.context("connecting to the database")?;
        let keys = Keys::new(&*arguments.redis_key_prefix);
        let redis =
            Redis::connect(&arguments.redis_url, keys, REDIS_CONNECTIONS).await.context("connecting to Redis")?;
        Ok(Self { database, redis })
    }

    /// The campaign as the database has it.
    pub async fn campaign(&self, coupon: CouponId) -> Result<Campaign> {
        let found = db::campaign(self.database.pool(), coupon).await.context("reading the campaign")?;
        found.ok_or_else(|| Failure::new(format!("the database has no coupon {coupon}")))
    }

    /// Entries on the stream of `partition` that wait to be confirmed.
    pub async fn backlog(&self, partition: Partition) -> Result<u64> {
        let key = self.redis.keys.claim_stream(partition);
        self.redis.client().xlen(key).await.map_err(redis_error).context("the length of the stream")
    }

    /// Commands on the stream of `partition` that wait to be carried out.
    pub async fn order_backlog(&self, partition: Partition) -> Result<u64> {
        let key = self.redis.keys.order_stream(partition);
        self.redis.client().xlen(key).await.map_err(redis_error).context("the length of a stream of commands")
    }

    /// Dead letters of a campaign: entries that nobody will try again by himself.
    pub async fn dead_letters(&self, partition: Partition, coupon: CouponId) -> Result<u64> {
        let key = self.redis.keys.dead_claims(partition);
        let (mut found, mut start) = (0, "-".to_owned());
        loop {
            let page: Vec<(String, HashMap<String, Bytes>)> = self
                .redis
                .client()
                .xrange_values(&key, &*start, "+", Some(DEAD_LETTERS_AT_ONCE))
                .await
                .map_err(redis_error)
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
