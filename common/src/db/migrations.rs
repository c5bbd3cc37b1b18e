//! The tables, and whether they are those that this version expects.

use sqlx::migrate::Migrator;

use super::{Database, database_error, errors::is_missing_table, within};
use crate::error::{Error, Result};

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
}

impl Database {
    /// Brings the tables up to date. Several processes may call it at once: the first migrates, the others wait.
    pub async fn migrate(&self) -> Result<()> {
        let mut connection = self.pool().acquire().await.map_err(database_error)?;
        // sqlx's own lock does nothing on MariaDB.
        let locked: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(CONCAT(DATABASE(), '.migrate'), 60)")
            .fetch_one(&mut *connection)
            .await
            .map_err(database_error)?;
        if locked != Some(1) {
            return Err(Error::internal("another process has been migrating for a minute; try again when it is done"));
        }
        let migrated = MIGRATIONS.run(&mut *connection).await;
        // Released before the result is looked at: the connection goes back to the pool either way.
        sqlx::query("DO RELEASE_LOCK(CONCAT(DATABASE(), '.migrate'))")
            .execute(&mut *connection)
            .await
            .map_err(database_error)?;
        migrated.map_err(Error::internal)
    }

    /// Where the tables differ from what this version expects.
    pub async fn find_migration_differences(&self) -> Result<Vec<MigrationDifference>> {
        let sql = "SELECT /* migrations::find_migration_differences */ version, checksum FROM _sqlx_migrations";
        let pool = self.pool();
        let applied = async {
            match sqlx::query_as(sql).fetch_all(&pool).await {
                // An empty database.
                Err(error) if is_missing_table(&error) => Ok(Vec::new()),
                applied => applied,
            }
        };
        let applied: Vec<(i64, Vec<u8>)> = within(applied).await?;
        Ok(differences(&applied))
    }
}

fn differences(applied: &[(i64, Vec<u8>)]) -> Vec<MigrationDifference> {
    let expected = MIGRATIONS.iter().filter_map(|migration| {
        let version = migration.version;
        match applied.iter().find(|(applied, _)| *applied == version) {
            None => Some(MigrationDifference::Missing(version)),
            Some((_, checksum)) => {
                (**checksum != *migration.checksum).then_some(MigrationDifference::Changed(version))
            }
        }
    });
    let unknown = applied.iter().filter(|(version, _)| !MIGRATIONS.version_exists(*version));
    expected.chain(unknown.map(|(version, _)| MigrationDifference::Unknown(*version))).collect()
}
