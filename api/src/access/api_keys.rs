//! The API keys that count now, as this process holds them. A call compares hashes in memory: no call asks MySQL, and
//! neither does one with an invented key.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database, api_keys::UsableKey},
    error::{CredentialFault, Dependency, Error, Result},
    identifiers::ApiKeyId,
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};
use tokio_util::sync::CancellationToken;

use super::Credential;

/// A revoked key counts for up to so long. The documents name it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// How many refreshes pass between two notes of use: a minute.
const REFRESHES_PER_NOTE: u32 = 30;

#[derive(Default)]
pub struct ApiKeys {
    /// None until they were read once.
    known: ArcSwapOption<KnownKeys>,
}

type KnownKeys = HashMap<[u8; 32], Arc<KnownKey>>;

struct KnownKey {
    id: ApiKeyId,
    credential: Arc<Credential>,
    expires_at: Option<Timestamp>,
    /// Since the last note of its use.
    was_used: AtomicBool,
}

impl ApiKeys {
    /// The credential whose key has this hash. Comparing hashes gives nothing away: a caller cannot choose them.
    pub fn find(&self, hash: &[u8; 32]) -> Result<Arc<Credential>> {
        let known = self.known.load();
        let Some(known) = known.as_ref() else {
            return Err(Error::unavailable(Dependency::MySql, "the API keys were not read yet"));
        };
        let key = known.get(hash).ok_or(Error::Unauthenticated(CredentialFault::Unknown))?;
        if key.expires_at.is_some_and(|expires| expires <= clock::now()) {
            return Err(Error::Unauthenticated(CredentialFault::Expired));
        }
        // Read first: a write by each call would send the line from core to core.
        if !key.was_used.load(Ordering::Relaxed) {
            key.was_used.store(true, Ordering::Relaxed);
        }
        Ok(Arc::clone(&key.credential))
    }

    /// Reads the keys again.
    pub async fn refresh(&self, database: &Database) -> Result<()> {
        let usable = db::within(db::api_keys::list_usable(&database.pool(), clock::now())).await?;
        let before = self.known.load_full();
        let known = usable.into_iter().map(|key| (key.hash, known_key(key, before.as_deref())));
        self.known.store(Some(Arc::new(known.collect())));
        Ok(())
    }

    async fn note_use(&self, database: &Database) -> Result<()> {
        let Some(known) = self.known.load_full() else { return Ok(()) };
        let used = known.values().filter(|key| key.was_used.swap(false, Ordering::Relaxed));
        let used: Vec<ApiKeyId> = used.map(|key| key.id).collect();
        db::within(db::api_keys::note_use(&database.pool(), &used, clock::now())).await
    }

    /// Keeps the keys fresh, and notes their use once a minute and at the end.
    async fn run(self: Arc<Self>, database: Database, stopping: CancellationToken) -> Result<()> {
        let mut rounds = retry::every(REFRESH_INTERVAL, &stopping);
        let mut is_failing = false;
        for round in 1u32.. {
            if !rounds.next().await {
                break;
            }
            match self.refresh(&database).await {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(cause = error.chain(), "API keys not read; the last ones count");
                    }
                }
            }
            if round.is_multiple_of(REFRESHES_PER_NOTE) {
                self.note_use_or_log(&database).await;
            }
        }
        self.note_use_or_log(&database).await;
        Ok(())
    }

    async fn note_use_or_log(&self, database: &Database) {
        if let Err(error) = self.note_use(database).await {
            tracing::debug!(cause = error.chain(), "use of API keys not noted");
        }
    }

    pub fn task(self: &Arc<Self>, database: &Database, supervisor: &Supervisor) -> Task {
        let (keys, database, stopping) = (Arc::clone(self), database.clone(), supervisor.stopping.clone());
        Task::new("api_keys", Lifetime::UntilStopping, move || {
            Arc::clone(&keys).run(database.clone(), stopping.clone())
        })
    }
}

/// The same as before, where nothing of it has changed: its note of use is kept.
fn known_key(key: UsableKey, before: Option<&KnownKeys>) -> Arc<KnownKey> {
    let UsableKey { id, hash, name, scopes, expires_at } = key;
    let credential = Credential { name, scopes };
    match before.and_then(|before| before.get(&hash)) {
        Some(same) if *same.credential == credential && same.expires_at == expires_at => Arc::clone(same),
        _ => Arc::new(KnownKey { id, credential: Arc::new(credential), expires_at, was_used: AtomicBool::new(false) }),
    }
}
