//! Which database server it is, and whether Dibs works on it.

use std::fmt;

use sqlx::MySqlExecutor;

use super::{Database, within};
use crate::error::{Error, Result};

/// The oldest versions that Dibs is tested on.
const OLDEST_MYSQL: (u32, u32) = (8, 4);
const OLDEST_MARIADB: (u32, u32) = (10, 11);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    MySql,
    MariaDb,
    /// It speaks MySQL's protocol, but Dibs does not work on it: its name, and why.
    Unsupported(&'static str, &'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub kind: ServerKind,
    /// As the server spells it.
    pub version: String,
    /// Whether it is a node of a Galera cluster.
    pub is_galera: bool,
}

/// The servers of others that speak the protocol, by what their version or comment contains.
const UNSUPPORTED: [(&str, &str, &str); 3] = [
    (
        "tidb",
        "TiDB",
        "its CHECK constraints are off unless they are switched on, and its locks are optimistic by default",
    ),
    ("vitess", "Vitess", "transactions that lock rows of several shards are not atomic there"),
    ("oceanbase", "OceanBase", "it was never tested"),
];

impl Server {
    fn of(version: &str, comment: &str, is_galera: bool) -> Self {
        let text = format!("{version} {comment}").to_lowercase();
        let unsupported = UNSUPPORTED.iter().find(|(mark, ..)| text.contains(mark));
        let kind = match unsupported {
            Some((_, name, why)) => ServerKind::Unsupported(name, why),
            None if text.contains("mariadb") => ServerKind::MariaDb,
            None => ServerKind::MySql,
        };
        Self { kind, version: version.to_owned(), is_galera }
    }

    pub fn is_mariadb(&self) -> bool {
        self.kind == ServerKind::MariaDb
    }

    /// Whether Dibs is tested on this version or an older one.
    pub fn is_recent_enough(&self) -> bool {
        // MariaDB may begin with `5.5.5-`, for old replicas.
        let version = self.version.strip_prefix("5.5.5-").unwrap_or(&self.version);
        let mut numbers = version.split(['.', '-']).map_while(|part| part.parse().ok());
        let found: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        found >= if self.is_mariadb() { OLDEST_MARIADB } else { OLDEST_MYSQL }
    }

    /// Refuses a server on which Dibs loses or sells too much.
    pub fn check(&self) -> Result<()> {
        let ServerKind::Unsupported(name, why) = self.kind else { return Ok(()) };
        Err(Error::Setting("DATABASE_URL", format!("{name} is not supported: {why}; expected MySQL or MariaDB")))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            ServerKind::MySql => "MySQL",
            ServerKind::MariaDb if self.is_galera => "MariaDB Galera",
            ServerKind::MariaDb => "MariaDB",
            ServerKind::Unsupported(name, _) => name,
        };
        write!(formatter, "{name} {}", self.version)
    }
}

impl Database {
    /// Refuses a server on which Dibs does not work. One that does not answer yet is not refused.
    pub async fn check_server(&self) -> Result<()> {
        match within(find(&self.pool())).await {
            Ok(server) => server.check(),
            Err(error) => {
                tracing::debug!(cause = error.chain(), "kind of the database server not known yet");
                Ok(())
            }
        }
    }
}

/// Which server answers.
pub async fn find(executor: impl MySqlExecutor<'_>) -> Result<Server, sqlx::Error> {
    // No variable of one server alone in a SELECT: the other would refuse it.
    let variables: Vec<(String, String)> = sqlx::query_as(
        "SHOW GLOBAL VARIABLES WHERE /* server::find */ Variable_name IN ('version', 'version_comment', 'wsrep_on')",
    )
    .fetch_all(executor)
    .await?;
    let value = |name: &str| variables.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value);
    Ok(Server::of(value("version"), value("version_comment"), value("wsrep_on") == "ON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str, comment: &str) -> Server {
        Server::of(version, comment, false)
    }

    #[test]
    fn servers_are_known_by_what_they_say_and_unsupported_ones_are_refused_by_name() {
        for (version, comment, shown, is_recent) in [
            ("9.7.0", "MySQL Community Server - GPL", "MySQL 9.7.0", true),
            ("8.4.3", "Source distribution", "MySQL 8.4.3", true),
            ("8.0.39", "MySQL Community Server - GPL", "MySQL 8.0.39", false),
            ("10.11.6-MariaDB-0+deb12u1", "Debian 12", "MariaDB 10.11.6-MariaDB-0+deb12u1", true),
            ("5.5.5-10.6.1-MariaDB", "mariadb.org binary distribution", "MariaDB 5.5.5-10.6.1-MariaDB", false),
        ] {
            let server = server(version, comment);
            assert_eq!((server.to_string().as_str(), server.is_recent_enough()), (shown, is_recent));
            server.check().expect("supported");
        }
        for (version, comment, name) in [
            ("8.0.11-TiDB-v8.5.0", "TiDB Server (Apache License 2.0) Community Edition, MySQL 8.0 compatible", "TiDB"),
            ("8.0.30-Vitess", "Version: 21.0.0", "Vitess"),
        ] {
            let refused = server(version, comment).check().expect_err("unsupported").to_string();
            assert!(refused.starts_with(&format!("DATABASE_URL: {name} is not supported")), "{refused}");
        }
    }
}
