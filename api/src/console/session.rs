//! Who is logged in. A session is a random id in a cookie; Redis has its hash, and which credential it belongs to. The
//! credential is looked up for each page, so a key that is revoked ends its sessions when it ends its calls.

use std::{sync::Arc, time::Duration};

use dibs_common::{
    clock,
    domain::access::Scope,
    error::{CredentialFault, Error, Result},
    redis::{Redis, texts},
    secret::{hexadecimal, random_text, sha256},
};
use moka::future::Cache;
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Credential, Credentials, Found};

/// How long a session lasts.
pub const SESSION: Duration = Duration::from_hours(8);
/// Sessions that a process remembers for a time without Redis.
const MAX_REMEMBERED: u64 = 1_000;

pub struct Sessions {
    credentials: Arc<Credentials>,
    redis: Redis,
    /// Sessions that this process has seen. Only they count while Redis cannot be reached, as the console is needed most
    /// then.
    seen: Cache<String, Stored>,
}

/// A session, as Redis has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    kind: Kind,
    /// Of a key its hash. Of `ADMIN_TOKEN`, which may be short, a hash together with the id of the session, which Redis
    /// does not have.
    proof: String,
    expires_at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    ApiKey,
    AdminToken,
}

/// A session whose credential counts now.
#[derive(Clone, Debug)]
pub struct Session {
    id: String,
    stored: Stored,
    pub credential: Arc<Credential>,
}

impl Session {
    /// The token that every form carries. It follows from the id, which no other site can read.
    pub fn csrf(&self) -> String {
        hexadecimal(&sha256(format!("csrf {}", self.id).as_bytes()))
    }
}

impl Sessions {
    pub fn new(credentials: &Arc<Credentials>, redis: &Redis) -> Self {
        let seen = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(SESSION).build();
        Self { credentials: Arc::clone(credentials), redis: redis.clone(), seen }
    }

    /// Begins a session with a credential of an administrator; the id for the cookie.
    pub async fn begin(&self, token: &str) -> Result<String> {
        let Found::Caller(Caller::Server(credential)) = self.credentials.find(token.as_bytes())? else {
            return Err(Error::Unauthenticated(CredentialFault::Unknown));
        };
        if !credential.scopes.allow(Scope::AdminRead) {
            return Err(Error::ScopeRequired(Scope::AdminRead));
        }
        let id = random_text()?;
        let (kind, proof) = match self.credentials.token_fingerprint(&id) {
            Some(proof) if self.credentials.is_admin_token(token.as_bytes()) => (Kind::AdminToken, proof),
            _ => (Kind::ApiKey, sha256(token.as_bytes())),
        };
        let expires_at = clock::now().timestamp() + i64::try_from(SESSION.as_secs()).unwrap_or(i64::MAX);
        let stored = Stored { kind, proof: hexadecimal(&proof), expires_at };
        let text = serde_json::to_string(&stored).map_err(Error::internal)?;
        texts::set(&self.redis, &self.key(&id), &text, SESSION).await?;
        self.seen.insert(hash(&id), stored).await;
        Ok(id)
    }

    /// The session of a cookie.
    pub async fn find(&self, id: &str) -> Result<Session> {
        let expired = || Error::Unauthenticated(CredentialFault::Expired);
        let stored = match texts::get(&self.redis, &self.key(id)).await {
            Ok(Some(text)) => {
                let stored: Stored = serde_json::from_str(&text).map_err(|_| expired())?;
                self.seen.insert(hash(id), stored.clone()).await;
                stored
            }
            Ok(None) => {
                self.seen.invalidate(&hash(id)).await;
                return Err(expired());
            }
            Err(error) => self.seen.get(&hash(id)).await.ok_or(error)?,
        };
        let credential = self.credential(id, &stored)?;
        Ok(Session { id: id.to_owned(), stored, credential })
    }

    /// Whether the credential of a session still counts, without Redis.
    pub fn counts(&self, session: &Session) -> bool {
        self.credential(&session.id, &session.stored).is_ok()
    }

    /// Whether it was not ended elsewhere.
    pub async fn is_known(&self, session: &Session) -> bool {
        self.find(&session.id).await.is_ok()
    }

    pub async fn end(&self, session: &Session) -> Result<()> {
        self.seen.invalidate(&hash(&session.id)).await;
        texts::delete(&self.redis, &self.key(&session.id)).await
    }

    fn credential(&self, id: &str, stored: &Stored) -> Result<Arc<Credential>> {
        if stored.expires_at <= clock::now().timestamp() {
            return Err(Error::Unauthenticated(CredentialFault::Expired));
        }
        match stored.kind {
            Kind::AdminToken => {
                let is_same =
                    self.credentials.token_fingerprint(id).is_some_and(|now| hexadecimal(&now) == stored.proof);
                if is_same { Ok(self.credentials.administrator_itself()) } else { Err(unknown()) }
            }
            Kind::ApiKey => self.credentials.keys.find(&bytes(&stored.proof).ok_or_else(unknown)?),
        }
    }

    fn key(&self, id: &str) -> String {
        self.redis.keys.console_session(&hash(id))
    }
}

fn unknown() -> Error {
    Error::Unauthenticated(CredentialFault::Unknown)
}

/// What Redis may know of an id.
fn hash(id: &str) -> String {
    hexadecimal(&sha256(id.as_bytes()))
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}
