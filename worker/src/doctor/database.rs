use dibs_common::{
    clock,
    db::{self, Database, MigrationDifference, diagnostics::ServerSettings, server::Server},
    error::Result,
};

use super::{
    Finding, Status, compare_clocks,
    processes::{self, describe_all},
    unavailable,
};
use crate::settings::WorkerSettings;

/// Part of the server's connections that others need: backups, people, this command.
const SPARE_CONNECTIONS: u64 = 10;
const EMPTY: &str = "nothing";

pub async fn check(settings: &WorkerSettings) -> Vec<Finding> {
    match findings(settings).await {
        Ok(findings) => findings,
        Err(error) => vec![unavailable("database", &error, "see docs/operations.md#dependency_unavailable")],
    }
}

async fn findings(settings: &WorkerSettings) -> Result<Vec<Finding>> {
    let database = settings.shared.database(1)?;
    database.ensure_login().await;
    database.log_in().await?;
    let server = db::within(db::server::find(&database.pool())).await?;
    let mut findings = vec![server_finding(&server)];
    let before = clock::now();
    let found = db::within(db::diagnostics::find_settings(&database.pool())).await?;
    findings.push(compare_clocks("database clock", found.clock, before, clock::now()));
    findings.extend(settings_findings(&found));
    let differences = database.find_migration_differences().await?;
    findings.push(migrations_finding(&differences));
    if differences.is_empty() {
        findings.push(constraints_finding(&database, &server).await?);
        let running = db::within(db::processes::list_running(&database.pool())).await?;
        findings.push(connections_finding(&database, &found, &running).await?);
        findings.extend(processes::check(&running));
    }
    Ok(findings)
}

fn server_finding(server: &Server) -> Finding {
    let finding = Finding::new("database", server.to_string(), "MySQL 8.4 or newer, or MariaDB 10.11 or newer");
    let finding = finding.unless(server.check().is_ok(), Status::Error, "use MySQL or MariaDB");
    finding.unless(server.is_recent_enough(), Status::Warning, "upgrade the server: Dibs is not tested on this version")
}

fn settings_findings(found: &ServerSettings) -> [Finding; 2] {
    [
        Finding::new("database time zone", &found.session_time_zone, "+00:00 in sessions of Dibs").unless(
            found.session_time_zone == "+00:00",
            Status::Error,
            "something between Dibs and the server changes the state of sessions; connect to the server itself",
        ),
        Finding::new(
            "database durability",
            format!("innodb_flush_log_at_trx_commit = {}", found.flush_log_at_commit),
            "1, so that what was answered outlives a crash of the server",
        )
        .unless(
            found.flush_log_at_commit == 1,
            Status::Warning,
            "SET PERSIST innodb_flush_log_at_trx_commit = 1 (MariaDB: SET GLOBAL, and in its configuration)",
        ),
    ]
}

fn migrations_finding(differences: &[MigrationDifference]) -> Finding {
    let list = |of: fn(&MigrationDifference) -> Option<i64>| {
        let numbers: Vec<String> = differences.iter().filter_map(of).map(|number| format!("{number:04}")).collect();
        if numbers.is_empty() { EMPTY.into() } else { numbers.join(", ") }
    };
    let missing = list(|difference| match difference {
        MigrationDifference::Missing(number) => Some(*number),
        _ => None,
    });
    let unknown = list(|difference| match difference {
        MigrationDifference::Unknown(number) => Some(*number),
        _ => None,
    });
    let changed = list(|difference| match difference {
        MigrationDifference::Changed(number) => Some(*number),
        _ => None,
    });
    let failed = list(|difference| match difference {
        MigrationDifference::Failed(number) => Some(*number),
        _ => None,
    });
    let found = format!("missing: {missing}; unknown: {unknown}; changed: {changed}; failed: {failed}");
    Finding::new("migrations", found, "those of this version, unchanged")
        .unless(failed == EMPTY, Status::Error, "docs/upgrade.md says how to repeat a migration")
        .unless(missing == EMPTY, Status::Error, "run dibs-worker migrate")
        .unless(changed == EMPTY, Status::Error, "use a released version, and a database that it has migrated")
        .unless(unknown == EMPTY, Status::Warning, "a newer version has migrated: finish the upgrade")
}

async fn constraints_finding(database: &Database, server: &Server) -> Result<Finding> {
    let (all, unenforced) = db::within(db::diagnostics::count_constraints(&database.pool(), server)).await?;
    let found = format!("{all} constraints, {unenforced} not enforced");
    let finding = Finding::new("CHECK constraints", found, "every one is enforced");
    Ok(finding.unless(
        all > 0 && unenforced == 0,
        Status::Error,
        "the database itself must refuse what is wrong: MariaDB: SET GLOBAL check_constraint_checks = ON; MySQL: ALTER \
         TABLE .. ALTER CHECK .. ENFORCED; or restore the tables",
    ))
}

async fn connections_finding(
    database: &Database,
    settings: &ServerSettings,
    running: &[db::processes::Running],
) -> Result<Finding> {
    let (now, most) = db::within(db::diagnostics::count_sessions(&database.pool())).await?;
    let pools: u64 = running.iter().map(|process| u64::from(process.database_connections)).sum();
    let limit = u64::try_from(settings.max_connections).unwrap_or(0);
    let found = format!(
        "{now} now, {most} at most so far, {pools} in the pools of {} processes, max_connections = {limit}",
        running.len()
    );
    let remedy = format!("raise max_connections, or run fewer processes ({})", describe_all(running));
    let expected = format!("pools and {SPARE_CONNECTIONS} more fit into max_connections");
    Ok(Finding::new("database connections", found, expected).unless(now + 2 <= limit, Status::Error, &remedy).unless(
        pools + SPARE_CONNECTIONS <= limit,
        Status::Warning,
        remedy,
    ))
}
