use std::fmt::Write as _;

use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

/// A URL for logs and messages: scheme, host, port and path. The rest can hold secrets, names included: user info
/// (a token can be the user name), query (`sentinelPassword=..`) and fragment are shown as `***`.
///
/// Text that is no URL with a host is `***` as a whole.
pub fn describe_url(url: &SecretString) -> String {
    describe(url.expose_secret().trim()).unwrap_or_else(|| "***".into())
}

fn describe(text: &str) -> Option<String> {
    let url: Url = text.parse().ok()?;
    // `shop:secret@db/dibs` parses as the path `secret@db/dibs` of the scheme `shop`, which has no host.
    let host = url.host_str().filter(|host| !host.is_empty())?;
    // A `/`, `?` or `#` inside a password that is not percent-encoded moves the password's end behind the host.
    if [Some(url.path()), url.query(), url.fragment()].into_iter().flatten().any(|part| part.contains('@')) {
        return None;
    }
    let mut description = format!("{}://", url.scheme());
    if !url.username().is_empty() || url.password().is_some() {
        description.push_str("***@");
    }
    description.push_str(host);
    if let Some(port) = url.port() {
        write!(description, ":{port}").ok()?;
    }
    description.push_str(url.path());
    for (mark, part) in [("?***", url.query()), ("#***", url.fragment())] {
        description.push_str(if part.is_some() { mark } else { "" });
    }
    Some(description)
}

pub(super) fn check_database_url(url: &str) -> Result<(), String> {
    const EXPECTED: &str = "expected mysql://user:password@host:port/database";
    if url.is_empty() {
        return Err(format!("it is not set; {EXPECTED}"));
    }
    if !["mysql://", "mariadb://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(EXPECTED.into());
    }
    let parsed: sqlx::mysql::MySqlConnectOptions = url.parse().map_err(|error| format!("{EXPECTED}: {error}"))?;
    // Without a database the connection succeeds, and each query fails.
    match parsed.get_database() {
        Some(database) if !database.is_empty() => Ok(()),
        _ => Err(format!("{EXPECTED}, but it names no database")),
    }
}

pub(super) fn check_redis_url(url: &str) -> Result<(), String> {
    const EXPECTED: &str = "expected redis://, rediss://, redis-cluster:// or redis-sentinel:// and host:port";
    if url.is_empty() {
        return Err(format!("it is not set; {EXPECTED}"));
    }
    let known = ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];
    if !url.split_once("://").is_some_and(|(scheme, _)| known.contains(&scheme)) {
        return Err(EXPECTED.into());
    }
    match fred::types::config::Config::from_url(url) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{EXPECTED}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_described_without_its_secrets() {
        for (url, described) in [
            ("mysql://shop:secret@db:3306/dibs", "mysql://***@db:3306/dibs"),
            ("mysql://shop:s@cret@db/dibs?ssl-key=secret", "mysql://***@db/dibs?***"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:secret@[::1]:6379/0", "redis://***@[::1]:6379/0"),
            ("redis-cluster://secret@one:7000?node=two:7001&node=three:7002", "redis-cluster://***@one:7000?***"),
            (
                "redis-sentinel://shop:secret@one:26379/0?sentinelServiceName=main&node=two:26379&sentinelUsername=secret\
                 &sentinelPassword=secret",
                "redis-sentinel://***@one:26379/0?***",
            ),
            // A token as user name, in the query, and in the fragment.
            ("https://secret@hooks.example/in", "https://***@hooks.example/in"),
            ("https://hooks.example:8443/in?token=secret", "https://hooks.example:8443/in?***"),
            ("https://hooks.example/?secret#secret", "https://hooks.example/?***#***"),
            (" https://hooks.example/in\n", "https://hooks.example/in"),
        ] {
            assert_eq!(describe_url(&url.into()), described);
        }
    }

    #[test]
    fn text_that_is_no_url_with_a_host_is_not_shown() {
        for text in [
            "",
            "secret",
            "shop:secret@db:3306/dibs",
            "mailto:secret@example.com",
            "mysql://shop:se/cret@db/dibs",
            "mysql://shop:12/secret@db/dibs",
            "mysql://shop:12?secret@db/dibs",
            "mysql://shop:12#secret@db/dibs",
            "redis://:secret",
            "https://",
        ] {
            assert_eq!(describe_url(&text.into()), "***", "{text}");
        }
    }

    #[test]
    fn invalid_urls_are_refused_with_what_was_expected() {
        assert!(check_database_url("postgres://host/db").is_err());
        assert!(check_database_url("mysql://root@127.0.0.1:3306").is_err_and(|error| error.contains("no database")));
        assert!(check_redis_url("http://host").is_err());
        assert_eq!(check_database_url("mysql://root@host/dibs"), Ok(()));
        assert_eq!(check_redis_url("redis-sentinel://host:26379/0?sentinelServiceName=main"), Ok(()));
    }
}
