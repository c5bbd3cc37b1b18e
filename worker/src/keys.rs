//! `dibs-worker keys`: API keys, for an operator who has no credential yet.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use dibs_common::{
    clock,
    db::{self, Database},
    domain::{
        access::Scope,
        admin_action::ActionContext,
        api_key::{ApiKey, NewApiKey},
    },
    error::{Error, Result},
    identifiers::{ApiKeyId, new_uuid},
    json::parse_time,
    secret::ApiKeySecret,
};
use serde_json::json;

/// As `admin_actions.actor` has it.
const ACTOR: &str = "dibs-worker";

/// What to do with API keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Create one, and print it: it is not shown again
    Create(CreateKey),
    /// List them, the newest first
    List(ListKeys),
    /// Revoke one, by its name or its id; API processes refuse it within 2 s
    Revoke(RevokeKey),
}

#[derive(Clone, Debug, Args)]
pub struct CreateKey {
    /// Whose key it is; the actor in the list of actions
    pub name: String,
    /// What it may do: claims, orders, points, read, admin, admin:read; several with commas between them
    #[arg(long, required = true, value_delimiter = ',', value_parser = scope)]
    pub scopes: Vec<Scope>,
    /// When it ceases to count, such as 2027-01-01T00:00:00Z; left out, it does not expire
    #[arg(long, value_parser = time)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct ListKeys {
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
    /// Print JSON, an object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct RevokeKey {
    /// The name of the key, or its id
    pub key: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|_| "expected claims, orders, points, read, admin or admin:read".into())
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    parse_time(text).ok_or_else(|| "expected a time of RFC 3339, such as 2027-01-01T00:00:00Z".into())
}

/// What the command prints.
pub async fn run(database: &Database, command: KeysCommand) -> Result<Vec<String>> {
    match command {
        KeysCommand::Create(create) => create_key(database, create).await.map(|line| vec![line]),
        KeysCommand::List(ListKeys { limit, json }) => {
            let keys = db::within(db::api_keys::list(&database.pool(), None, limit)).await?;
            Ok(keys.iter().map(|key| line(key, json)).collect())
        }
        KeysCommand::Revoke(RevokeKey { key, json }) => {
            let id = key_id(database, &key).await?;
            let revoked = db::api_keys::revoke(database, id, &context()).await?;
            Ok(vec![line(&revoked, json)])
        }
    }
}

fn context() -> ActionContext {
    ActionContext::of_process(ACTOR, new_uuid(), clock::now())
}

async fn create_key(database: &Database, create: CreateKey) -> Result<String> {
    let CreateKey { name, scopes, expires_at, json } = create;
    let (new, context) = (NewApiKey { name, scopes, expires_at }, context());
    let errors = new.errors_at(context.at);
    if !errors.is_empty() {
        return Err(Error::ValidationFailed(errors));
    }
    let secret = ApiKeySecret::generate()?;
    let key = db::api_keys::create(database, &new, &secret, &context).await?;
    if !json {
        // Alone on its line, so that a script can store it.
        return Ok(secret.expose().to_owned());
    }
    let mut shown = json!(key);
    shown["secret"] = secret.expose().into();
    Ok(shown.to_string())
}

/// The id of the key with this name; otherwise the text is the id.
async fn key_id(database: &Database, text: &str) -> Result<ApiKeyId> {
    if let Some(key) = db::within(db::api_keys::find_by_name(&database.pool(), text)).await? {
        return Ok(key.api_key_id);
    }
    let id = text.parse::<u64>().ok().and_then(|id| id.try_into().ok());
    id.ok_or_else(|| Error::field("key", format!("expected the name or the id of a key; there is no '{text}'")))
}

fn line(key: &ApiKey, is_json: bool) -> String {
    if is_json {
        return json!(key).to_string();
    }
    let ApiKey { api_key_id, name, scopes, created_at, expires_at, revoked_at, last_used_at } = key;
    let scopes: Vec<&str> = scopes.iter().map(Scope::into_str).collect();
    let optional = |label: &str, time: &Option<DateTime<Utc>>| {
        time.map(|time| format!(" {label} {}", clock::text(time))).unwrap_or_default()
    };
    format!(
        "{api_key_id} {name} {} created {}{}{}{}",
        scopes.join(","),
        clock::text(*created_at),
        optional("expires", expires_at),
        optional("revoked", revoked_at),
        optional("used", last_used_at)
    )
}
