//! What a soak took.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fred::{interfaces::ClientLike as _, types::InfoKind};
use sqlx::AssertSqlSafe;

use crate::{
    numbers::{grouped, grouped_rate, per_second, real},
    output::Table,
    processes::{DedicatedStack, Program, Usage},
    stores::Stores,
};

/// Time, CPU, memory and disk of so many claims.
pub async fn render(stack: &DedicatedStack, stores: &Stores, claims: u64, elapsed: Duration) -> Result<String> {
    let usage = |program| stack.stack().usage(program);
    let (api, worker, own) = (usage(Program::Api)?, usage(Program::Worker)?, Usage::of(std::process::id())?);
    let (redis, redis_peak) = redis_memory(stores).await?;
    let mut table = Table::new(&["what", "amount"], 1);
    for (what, amount) in [
        ("claims", grouped(claims)),
        ("time, audits included", format!("{:.1} s", elapsed.as_secs_f64())),
        ("claims a second", grouped_rate(per_second(claims, elapsed))),
        ("CPU of the API, a claim", micros(api.cpu, claims)),
        ("CPU of the worker, a claim", micros(worker.cpu, claims)),
        ("CPU of the load test, a claim", micros(own.cpu, claims)),
        ("peak memory of the API", mebibytes(api.peak_bytes)),
        ("peak memory of the worker", mebibytes(worker.peak_bytes)),
        ("peak memory of the load test", mebibytes(own.peak_bytes)),
        ("memory of Redis", mebibytes(redis)),
        ("peak memory of Redis since its last start", mebibytes(redis_peak)),
        ("tables and indexes in MySQL", mebibytes(database_bytes(stores).await?)),
    ] {
        table.row([what, &*amount]);
    }
    Ok(table.render("What it took"))
}

fn micros(cpu: Duration, claims: u64) -> String {
    format!("{:.1} us", cpu.as_secs_f64() * 1e6 / real(claims.max(1)))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes >> 20))
}

/// Memory in use, and its peak.
async fn redis_memory(stores: &Stores) -> Result<(u64, u64)> {
    let info: String = stores.redis.client().info(Some(InfoKind::Memory)).await.context("INFO memory")?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    field("used_memory:").zip(field("used_memory_peak:")).context("INFO memory has no used_memory")
}

async fn database_bytes(stores: &Stores) -> Result<u64> {
    let pool = stores.database.pool();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT /* database_bytes */ CONVERT(TABLE_NAME USING utf8mb4) FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = DATABASE()",
    )
    .fetch_all(&pool)
    .await
    .context("listing the tables")?;
    // MySQL remembers sizes for a day, until a table is analysed.
    let analyze = tables.iter().map(|table| format!("`{table}`")).collect::<Vec<_>>().join(", ");
    sqlx::raw_sql(AssertSqlSafe(format!("ANALYZE TABLE {analyze}"))).execute(&pool).await.context("ANALYZE TABLE")?;
    let bytes = sqlx::query_scalar(
        "SELECT /* database_bytes */ CAST(SUM(DATA_LENGTH + INDEX_LENGTH) AS UNSIGNED) FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = DATABASE()",
    );
    bytes.fetch_one(&pool).await.context("measuring the tables")
}

#[cfg(test)]
mod tests {
    use dibs_common::testing::TestEnvironment;

    use super::*;

    #[test]
    fn cpu_is_divided_by_the_claims() {
        assert_eq!((micros(Duration::from_secs(3), 100_000), mebibytes(5 << 20)), ("30.0 us".into(), "5 MiB".into()));
    }

    #[tokio::test]
    async fn the_stores_say_how_large_they_are() {
        let environment = TestEnvironment::new().await;
        let stores = Stores { database: environment.database.clone(), redis: environment.redis.clone() };
        let (used, peak) = redis_memory(&stores).await.expect("memory");
        assert!(used > 0 && peak >= used);
        assert!(database_bytes(&stores).await.expect("a size") > 0);
        environment.end().await;
    }
}
