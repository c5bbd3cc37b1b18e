//! The table `api_keys`: credentials of servers and administrators, by the hash of each key.

use serde::Serialize;
use sqlx::{MySqlConnection, MySqlPool};

use super::{
    Database, admin_actions,
    decode::{find_row, identifier},
    is_duplicate, retrying, with_timeout,
};
use crate::{
    clock::Timestamp,
    domain::{
        access::{Scope, Scopes},
        admin_action::{ActionContext, ChangedFields, NewAdminAction},
        api_key::{ApiKey, MAX_USABLE_KEYS, NewApiKey},
    },
    error::{Error, Result},
    identifiers::ApiKeyId,
    secret::ApiKeySecret,
};

const COLUMNS: &str = "api_key_id, name, scopes, created_at, expires_at, revoked_at, last_used_at";

/// A key that counts now, as an API process holds it.
#[derive(Clone, Debug)]
pub struct UsableKey {
    pub id: ApiKeyId,
    pub hash: [u8; 32],
    pub name: String,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct ApiKeyRow {
    api_key_id: u64,
    name: String,
    scopes: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

impl ApiKeyRow {
    fn decode(self) -> Result<ApiKey, sqlx::Error> {
        Ok(ApiKey {
            api_key_id: identifier(self.api_key_id)?,
            name: self.name,
            scopes: scopes(&self.scopes).list(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
        })
    }
}

/// A scope that this version does not know allows nothing: a later version may have added it.
fn scopes(text: &str) -> Scopes {
    text.split(' ').filter_map(|scope| scope.parse::<Scope>().ok()).collect()
}

/// Creates a key; its id.
///
/// # Errors
/// [`Error::ApiKeyNameTaken`] and [`Error::ApiKeyLimitExceeded`]: nothing changed.
pub async fn create(
    database: &Database,
    new: &NewApiKey,
    secret: &ApiKeySecret,
    context: &ActionContext,
) -> Result<ApiKey> {
    retrying("create_api_key", || with_timeout(create_in_transaction(database, new, secret, context))).await?
}

async fn create_in_transaction(
    database: &Database,
    new: &NewApiKey,
    secret: &ApiKeySecret,
    context: &ActionContext,
) -> Result<Result<ApiKey>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    // Two at once may exceed the limit by one; it bounds memory, and is not exact.
    let usable: i64 = sqlx::query_scalar(
        "SELECT /* api_keys::create_in_transaction */ COUNT(*) FROM api_keys \
         WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
    )
    .bind(context.at)
    .fetch_one(&mut *transaction)
    .await?;
    if usable >= i64::from(MAX_USABLE_KEYS) {
        return Ok(Err(Error::ApiKeyLimitExceeded(MAX_USABLE_KEYS)));
    }
    let scopes: Vec<&str> = new.scopes.iter().map(Scope::into_str).collect();
    let inserted = sqlx::query(
        "INSERT INTO api_keys /* api_keys::create_in_transaction */ (name, key_hash, scopes, created_at, expires_at) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&new.name)
    .bind(secret.hash().as_slice())
    .bind(scopes.join(" "))
    .bind(context.at)
    // Without a time zone, see `campaigns::create`: a caller may ask for any year.
    .bind(new.expires_at.map(|expires| expires.naive_utc()))
    .execute(&mut *transaction)
    .await;
    let inserted = match inserted {
        Err(error) if is_duplicate(&error) => return Ok(Err(Error::ApiKeyNameTaken(new.name.clone()))),
        inserted => inserted?,
    };
    let id: ApiKeyId = identifier(inserted.last_insert_id())?;
    let key = ApiKey {
        api_key_id: id,
        name: new.name.clone(),
        scopes: new.scopes.clone(),
        created_at: context.at,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    admin_actions::insert(&mut transaction, context, &NewAdminAction::created("api_key.create", &id, &key)).await?;
    transaction.commit().await?;
    Ok(Ok(key))
}

/// Revokes a key; how it is then. Revoking it twice has no further effect.
pub async fn revoke(database: &Database, id: ApiKeyId, context: &ActionContext) -> Result<ApiKey> {
    let revoked = retrying("revoke_api_key", || with_timeout(revoke_in_transaction(database, id, context))).await?;
    revoked.ok_or(Error::ApiKeyNotFound(id))
}

async fn revoke_in_transaction(
    database: &Database,
    id: ApiKeyId,
    context: &ActionContext,
) -> Result<Option<ApiKey>, sqlx::Error> {
    #[derive(Serialize)]
    struct Revocation {
        revoked: bool,
    }
    let mut transaction = database.begin().await?;
    let Some(mut key) = lock(&mut transaction, id).await? else { return Ok(None) };
    if key.revoked_at.is_some() {
        return Ok(Some(key));
    }
    sqlx::query("UPDATE api_keys /* api_keys::revoke_in_transaction */ SET revoked_at = ? WHERE api_key_id = ?")
        .bind(context.at)
        .bind(id.get())
        .execute(&mut *transaction)
        .await?;
    key.revoked_at = Some(context.at);
    let fields = ChangedFields::between(&Revocation { revoked: false }, &Revocation { revoked: true });
    let action = NewAdminAction::changed("api_key.revoke", &id, &fields);
    admin_actions::insert(&mut transaction, context, &action).await?;
    transaction.commit().await?;
    Ok(Some(key))
}

async fn lock(connection: &mut MySqlConnection, id: ApiKeyId) -> Result<Option<ApiKey>, sqlx::Error> {
    let sql = format!("SELECT /* api_keys::lock */ {COLUMNS} FROM api_keys WHERE api_key_id = ? FOR UPDATE");
    find_row(connection, sql, id.get()).await?.map(ApiKeyRow::decode).transpose()
}

/// A page of keys, the newest first.
pub async fn list(pool: &MySqlPool, before: Option<ApiKeyId>, limit: u32) -> Result<Vec<ApiKey>, sqlx::Error> {
    let sql = format!(
        "SELECT /* api_keys::list */ {COLUMNS} FROM api_keys WHERE api_key_id < ? ORDER BY api_key_id DESC LIMIT ?"
    );
    let query = sqlx::query_as::<_, ApiKeyRow>(sqlx::AssertSqlSafe(sql));
    let rows = query.bind(before.map_or(u64::MAX, ApiKeyId::get)).bind(limit).fetch_all(pool).await?;
    rows.into_iter().map(ApiKeyRow::decode).collect()
}

/// The key of that name.
pub async fn find_by_name(pool: &MySqlPool, name: &str) -> Result<Option<ApiKey>, sqlx::Error> {
    let sql = format!("SELECT /* api_keys::find_by_name */ {COLUMNS} FROM api_keys WHERE name = ?");
    let query = sqlx::query_as::<_, ApiKeyRow>(sqlx::AssertSqlSafe(sql)).bind(name);
    query.fetch_optional(pool).await?.map(ApiKeyRow::decode).transpose()
}

/// The keys that count now: a bounded number, see [`create`].
pub async fn list_usable(pool: &MySqlPool, now: Timestamp) -> Result<Vec<UsableKey>, sqlx::Error> {
    type Row = (u64, Vec<u8>, String, String, Option<Timestamp>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT /* api_keys::list_usable */ api_key_id, key_hash, name, scopes, expires_at FROM api_keys \
         WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?) ORDER BY api_key_id LIMIT ?",
    )
    .bind(now)
    .bind(MAX_USABLE_KEYS * 2)
    .fetch_all(pool)
    .await?;
    let usable = |(id, hash, name, text, expires_at): Row| {
        let hash = hash.try_into().map_err(|_| sqlx::Error::Decode("api_keys.key_hash has not 32 bytes".into()))?;
        Ok(UsableKey { id: identifier(id)?, hash, name, scopes: scopes(&text), expires_at })
    };
    rows.into_iter().map(usable).collect()
}

/// Notes that these keys were used.
pub async fn note_use(pool: &MySqlPool, keys: &[ApiKeyId], now: Timestamp) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let sql = format!(
        "UPDATE api_keys /* api_keys::note_use */ SET last_used_at = ? WHERE api_key_id IN ({}) \
         AND (last_used_at IS NULL OR last_used_at < ?)",
        ids.join(",")
    );
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(now).bind(now).execute(pool).await.map(drop)
}
