//! The key set of an issuer: fetched at the start, every few minutes, and when a token names a key that is not known.

use std::{path::PathBuf, sync::Arc, time::Duration};

use dibs_common::{
    error::{Error, Result},
    integrations::jwks::KeySetUrl,
    retry::{self, Backoff, RetryPolicy},
    supervisor::{Lifetime, Supervisor, Task},
};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::{Mutex, Semaphore},
    task::spawn_blocking,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    settings::read_key_set,
    user_tokens::{TokenRules, UserTokens},
    verification_keys::VerificationKeys,
};

// A key that its issuer has withdrawn counts until then.
const REFRESH_INTERVAL: Duration = Duration::from_mins(5);
/// Between two fetches that tokens of unknown keys cause: a caller that invents keys must not make Dibs flood the issuer.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// Calls that wait for such a fetch at once.
const MAX_WAITING: usize = 256;
/// How long the start waits for the issuer.
const FIRST_FETCH: RetryPolicy =
    RetryPolicy::exponential(Duration::from_millis(200), Duration::from_secs(2)).within(Duration::from_secs(10));
const FILE_INTERVAL: Duration = Duration::from_secs(2);

pub struct KeySet {
    url: KeySetUrl,
    tokens: Arc<UserTokens>,
    last_fetch: Mutex<Instant>,
    waiting: Arc<Semaphore>,
}

impl KeySet {
    /// Fetches the keys for the first time.
    ///
    /// # Errors
    /// The setting by name when there is no usable key set within 10 s: without keys every user would be refused.
    pub async fn fetch_first(url: KeySetUrl, rules: TokenRules) -> Result<(Arc<Self>, Arc<UserTokens>)> {
        if url.is_unprotected() {
            tracing::warn!(
                "AUTH_JWKS_URL is http: a host on the way can replace the keys, and make tokens of any user"
            );
        }
        let mut backoff = Backoff::new(FIRST_FETCH);
        let keys = loop {
            match fetch(&url, &rules).await {
                Ok(keys) => break keys,
                Err(_) if backoff.pause().await => {}
                Err(why) => return Err(Error::Setting("AUTH_JWKS_URL", format!("the key set cannot be used: {why}"))),
            }
        };
        let tokens = Arc::new(UserTokens::new(rules, keys));
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        let set = Self { url, tokens: Arc::clone(&tokens), last_fetch: Mutex::new(Instant::now()), waiting };
        Ok((Arc::new(set), tokens))
    }

    /// Fetches the keys again, unless that was done a moment ago. A failure keeps the last ones.
    pub fn refresh_for_unknown_key(self: &Arc<Self>) -> BoxFuture<'static, Result<()>> {
        let set = Arc::clone(self);
        let refresh = async move {
            let _permit = Arc::clone(&set.waiting).try_acquire_owned().map_err(|_| Error::Overloaded)?;
            // A call that waited here finds the keys that the one before has fetched.
            let mut last = set.last_fetch.lock().await;
            if last.elapsed() >= MIN_INTERVAL {
                set.fetch_again().await;
                // Also after a failure: an issuer that is down is not asked for each call.
                *last = Instant::now();
            }
            Ok(())
        };
        refresh.boxed()
    }

    async fn fetch_again(&self) {
        match fetch(&self.url, self.tokens.rules()).await {
            Ok(keys) => self.tokens.replace_keys(keys),
            Err(why) => {
                metrics::counter!("dibs_key_set_failures_total").increment(1);
                tracing::warn!(why, "key set of AUTH_JWKS_URL not fetched; the last keys count");
            }
        }
    }

    pub fn task(self: &Arc<Self>, supervisor: &Supervisor) -> Task {
        let (set, stopping) = (Arc::clone(self), supervisor.stopping.clone());
        Task::new("key_set", Lifetime::UntilStopping, move || {
            let (set, stopping) = (Arc::clone(&set), stopping.clone());
            async move {
                let mut rounds = retry::every(REFRESH_INTERVAL, &stopping);
                while rounds.next().await {
                    let mut last = set.last_fetch.lock().await;
                    // The first round begins right after the start has fetched.
                    if last.elapsed() >= MIN_INTERVAL {
                        set.fetch_again().await;
                        *last = Instant::now();
                    }
                }
                Ok(())
            }
        })
    }
}

async fn fetch(url: &KeySetUrl, rules: &TokenRules) -> Result<VerificationKeys, String> {
    VerificationKeys::of_key_set(&url.fetch().await?, &rules.algorithms)
}

/// The tokens whose keys are in `file`, which is read again whenever it changes.
pub fn read_and_watch(file: PathBuf, rules: TokenRules, supervisor: &Supervisor) -> Result<Arc<UserTokens>> {
    let wrong = |why| Error::Setting("AUTH_JWKS_FILE", why);
    let text = read_key_set(&file).map_err(wrong)?;
    let keys = VerificationKeys::of_key_set(&text, &rules.algorithms).map_err(wrong)?;
    let tokens = Arc::new(UserTokens::new(rules, keys));
    let (watched, stopping) = (Arc::clone(&tokens), supervisor.stopping.clone());
    supervisor.spawn(Task::new("key_set", Lifetime::UntilStopping, move || {
        let key_file = KeyFile { file: file.clone(), tokens: Arc::clone(&watched), last: text.clone() };
        key_file.watch(stopping.clone()).map(Ok)
    }));
    Ok(tokens)
}

struct KeyFile {
    file: PathBuf,
    tokens: Arc<UserTokens>,
    /// The text whose keys count.
    last: String,
}

impl KeyFile {
    async fn watch(mut self, stopping: CancellationToken) {
        let mut is_failing = false;
        let mut rounds = retry::every(FILE_INTERVAL, &stopping);
        while rounds.next().await {
            match self.reread().await {
                Ok(()) => is_failing = false,
                // Logged once, and not every two seconds.
                Err(why) if !std::mem::replace(&mut is_failing, true) => {
                    tracing::warn!(why, "AUTH_JWKS_FILE not read; the last keys count");
                }
                Err(_) => {}
            }
        }
    }

    async fn reread(&mut self) -> Result<(), String> {
        let file = self.file.clone();
        // A file on a network may take its time.
        let text = spawn_blocking(move || read_key_set(&file)).await.map_err(|error| error.to_string())??;
        if text != self.last {
            self.tokens.replace_keys(VerificationKeys::of_key_set(&text, &self.tokens.rules().algorithms)?);
            self.last = text;
            tracing::info!("keys of AUTH_JWKS_FILE replaced");
        }
        Ok(())
    }
}
