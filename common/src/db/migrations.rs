//! The tables, and whether they are those that this version expects.

use std::time::Duration;

use sqlx::{Executor as _, migrate::Migrator};

use super::{
    Database, database_error,
    errors::is_missing_table,
    server::{self, Server},
    within, within_limit,
};
use crate::{
    error::{Error, Result},
    retry::{self, RetryPolicy},
};

const LEASES: &str = include_str!("../../../migrations/0021_leases.sql");
const DDL_TIMEOUT: Duration = Duration::from_mins(1);
/// How long to wait for another process that migrates, and how often it is looked at.
const WAIT_LIMIT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A migration, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationDifference {
    /// `dibs-worker migrate` was not run.
    Missing(i64),
    /// A newer version has migrated.
    Unknown(i64),
    /// Its file was edited after it had been applied.
    Changed(i64),
    /// It began, and did not end.
    Failed(i64),
}

impl Database {
    /// Brings the tables up to date. Several processes may call it at once: the first migrates, the others wait.
    pub async fn migrate(&self) -> Result<()> {
        let pool = self.pool();
        let server = within_limit(DDL_TIMEOUT, server::find(&pool)).await?;
        server.check()?;
        // The lease needs its table before any migration.
        within_limit(DDL_TIMEOUT, pool.execute(LEASES)).await?;
        let policy = RetryPolicy::constant(POLL_INTERVAL).within(WAIT_LIMIT);
        let lease = retry::await_value(policy, async || match self.try_lease("migrate").await {
            // A server that has just answered is slow, and not gone.
            Err(Error::DependencyUnavailable { .. }) => Ok(None),
            taken => taken,
        });
        let lease = lease.await?;
        let lease = lease.ok_or_else(|| {
            Error::internal("another process has been migrating for a minute; try again when it is done")
        })?;
        let migrated = self.migrate_under_lease(&server).await;
        // What was migrated stays, and a lease that cannot be released expires.
        if let Err(error) = lease.release().await {
            tracing::debug!(cause = error.chain(), "the lease of the migration was not released");
        }
        migrated
    }

    async fn migrate_under_lease(&self, server: &Server) -> Result<()> {
        let mut connection = self.pool().acquire().await.map_err(database_error)?;
        let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
        // A Galera cluster refuses the client library's own lock.
        migrator.set_locking(!server.is_galera);
        migrator.run(&mut *connection).await.map_err(Error::internal)
    }

    /// Where the tables differ from what this version expects.
    pub async fn find_migration_differences(&self) -> Result<Vec<MigrationDifference>> {
        let sql =
            "SELECT /* migrations::find_migration_differences */ version, checksum, success FROM _sqlx_migrations";
        let pool = self.pool();
        let applied = async {
            match sqlx::query_as(sql).fetch_all(&pool).await {
                // An empty database.
                Err(error) if is_missing_table(&error) => Ok(Vec::new()),
                applied => applied,
            }
        };
        let applied: Vec<(i64, Vec<u8>, bool)> = within(applied).await?;
        Ok(differences(&applied))
    }
}

fn differences(applied: &[(i64, Vec<u8>, bool)]) -> Vec<MigrationDifference> {
    let expected = MIGRATIONS.iter().filter_map(|migration| {
        let version = migration.version;
        match applied.iter().find(|(applied, ..)| *applied == version) {
            None => Some(MigrationDifference::Missing(version)),
            Some((.., false)) => Some(MigrationDifference::Failed(version)),
            Some((_, checksum, true)) => {
                (**checksum != *migration.checksum).then_some(MigrationDifference::Changed(version))
            }
        }
    });
    let unknown = applied.iter().filter(|(version, ..)| !MIGRATIONS.version_exists(*version));
    expected.chain(unknown.map(|(version, ..)| MigrationDifference::Unknown(*version))).collect()
}
