use dibs_common::{
    clock,
    error::Result,
    redis::diagnostics::{self, ServerFacts},
};

use super::{Finding, Status, compare_clocks, unavailable};
use crate::settings::WorkerSettings;

pub async fn check(settings: &WorkerSettings) -> Vec<Finding> {
    match findings(settings).await {
        Ok(findings) => findings,
        Err(error) => vec![unavailable("redis", &error, "see docs/operations.md#dependency_unavailable")],
    }
}

async fn findings(settings: &WorkerSettings) -> Result<Vec<Finding>> {
    let redis = settings.shared.redis(1).await?;
    let before = clock::now();
    let servers = diagnostics::find(&redis).await?;
    let after = clock::now();
    redis.close().await;
    let mut findings = Vec::new();
    for server in &servers {
        let name = if server.address.is_empty() { "redis".into() } else { format!("redis {}", server.address) };
        findings.push(kind(&name, server));
        findings.push(compare_clocks(&format!("{name} clock"), server.clock, before, after));
        findings.extend(durability(&name, server));
        findings.push(eviction(&name, server));
    }
    Ok(findings)
}

fn kind(name: &str, server: &ServerFacts) -> Finding {
    let info = |field: &str| server.info.get(field).map_or("", String::as_str);
    let found = format!("{} {}, {}, {}", server.name, server.version, info("redis_mode"), info("role"));
    let major: u32 = server.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let oldest = if server.name == "Valkey" { 8 } else { 7 };
    Finding::new(name, found, "Redis 7 or newer, or Valkey 8 or newer; a primary")
        .unless(info("role") == "master", Status::Error, "let REDIS_URL lead to the primary")
        .unless(major >= oldest, Status::Error, "upgrade the server")
}

/// Claims that were answered are on streams of Redis until a worker has confirmed them.
fn durability(name: &str, server: &ServerFacts) -> [Finding; 2] {
    let appends = server.setting("appendonly", "aof_enabled").unwrap_or("unknown");
    let fsync = server.setting("appendfsync", "").unwrap_or("not readable");
    let is_on = matches!(appends, "yes" | "1");
    let written = server.info.get("aof_last_write_status").map_or("ok", String::as_str);
    [
        Finding::new(
            format!("{name} persistence"),
            format!("appendonly {appends}, last write {written}"),
            "appendonly yes, so that accepted claims outlive a restart",
        )
        .unless(is_on, Status::Error, "CONFIG SET appendonly yes, and set it in the server's configuration")
        .unless(written == "ok", Status::Error, "the append-only file cannot be written: look at the disk"),
        Finding::new(format!("{name} fsync"), format!("appendfsync {fsync}"), "appendfsync always").unless(
            !is_on || fsync == "always",
            Status::Warning,
            "CONFIG SET appendfsync always: with everysec a crash of the machine loses the claims of a second",
        ),
    ]
}

fn eviction(name: &str, server: &ServerFacts) -> Finding {
    let policy = server.setting("maxmemory-policy", "maxmemory_policy").unwrap_or("unknown");
    let lazy = server.setting("lazyfree-lazy-expire", "").unwrap_or("not readable");
    Finding::new(
        format!("{name} eviction"),
        format!("maxmemory-policy {policy}, lazyfree-lazy-expire {lazy}"),
        "maxmemory-policy noeviction, lazyfree-lazy-expire yes",
    )
    .unless(
        policy == "noeviction",
        Status::Error,
        "CONFIG SET maxmemory-policy noeviction, and set it in the server's configuration: Redis would drop campaigns",
    )
    .unless(
        lazy != "no",
        Status::Warning,
        "CONFIG SET lazyfree-lazy-expire yes: a large key that expires holds up claims",
    )
}
