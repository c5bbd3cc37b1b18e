use std::sync::Arc;

use arc_swap::ArcSwapOption;
use dibs_common::{
    config::SecretFiles,
    db::Database,
    domain::{
        access::{Scope, Scopes},
        api_key::KEY_PREFIX,
    },
    error::{CredentialFault, Error, Result},
    secret::{constant_time_eq, sha256},
    supervisor::Supervisor,
};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    AuthMode, Caller, Credential,
    api_keys::ApiKeys,
    key_set::KeySet,
    settings::KeySource,
    user_tokens::{TokenFault, UserTokens},
    verification_keys::VerificationKeys,
};
use crate::settings::{ApiSettings, check_admin_token};

/// The name of the credential that the setting of this name holds.
const ADMIN_TOKEN: &str = "ADMIN_TOKEN";

/// Everything that a caller can be known by.
pub struct Credentials {
    pub mode: AuthMode,
    pub keys: Arc<ApiKeys>,
    admin_token: ArcSwapOption<SecretString>,
    administrator: Arc<Credential>,
    tokens: Option<Arc<UserTokens>>,
    /// Where new keys of tokens may have been published.
    key_set: Option<Arc<KeySet>>,
}

/// What a credential is.
pub enum Found {
    Caller(Caller),
    /// A token of an unknown key. Find it again when this has ended.
    AfterRefresh(BoxFuture<'static, Result<()>>),
}

impl Credentials {
    /// Reads the keys, and begins to keep them fresh.
    ///
    /// # Errors
    /// A wrong setting by name; also a key set that cannot be fetched.
    pub async fn start(settings: &ApiSettings, database: &Database, supervisor: &Supervisor) -> Result<Arc<Self>> {
        let keys = Arc::<ApiKeys>::default();
        supervisor.spawn(keys.task(database, supervisor));
        let (tokens, key_set) = match settings.auth.key_source()? {
            None => (None, None),
            Some(source) => {
                let rules = settings.auth.rules(&source)?;
                match source {
                    KeySource::Secret(secret) => {
                        let keys = VerificationKeys::of_secrets(&secret)?;
                        (Some(Arc::new(UserTokens::new(rules, keys))), None)
                    }
                    KeySource::Url(url) => {
                        let (set, tokens) = KeySet::fetch_first(url, rules).await?;
                        supervisor.spawn(set.task(supervisor));
                        (Some(tokens), Some(set))
                    }
                    KeySource::File(file) => (Some(super::key_set::read_and_watch(file, rules, supervisor)?), None),
                }
            }
        };
        let credentials = Arc::new(Self {
            mode: settings.auth.mode(settings.api_address)?,
            keys,
            admin_token: ArcSwapOption::from_pointee(settings.admin_token.clone()),
            administrator: Arc::new(Credential {
                name: ADMIN_TOKEN.into(),
                scopes: Scopes::default().with(Scope::Admin),
            }),
            tokens,
            key_set,
        });
        Ok(credentials)
    }

    /// Replaces the secrets that are in files whenever these change.
    pub fn watch(self: &Arc<Self>, files: &SecretFiles, supervisor: &Supervisor) {
        let credentials = Arc::clone(self);
        let mut watch = files.watch();
        watch.on_change(ADMIN_TOKEN, move |token| {
            check_admin_token(&token)?;
            credentials.admin_token.store(Some(Arc::new(token)));
            Ok(())
        });
        if let Some(tokens) = self.tokens.clone() {
            watch.on_change("AUTH_JWT_SECRET", move |secret| {
                tokens.replace_keys(VerificationKeys::of_secrets(&secret)?);
                Ok(())
            });
        }
        watch.spawn(supervisor);
    }

    /// The caller who has the token of an `Authorization` header.
    pub fn find(&self, token: &[u8]) -> Result<Found> {
        if let Some(caller) = self.administrator(token) {
            return Ok(Found::Caller(caller));
        }
        let hash = sha256(token);
        // The prefix decides: a key never gets as far as the parser of tokens.
        if token.starts_with(KEY_PREFIX.as_bytes()) {
            return self.keys.find(&hash).map(|key| Found::Caller(Caller::Server(key)));
        }
        let Some(tokens) = &self.tokens else { return Err(Error::Unauthenticated(CredentialFault::Unknown)) };
        match tokens.verify(token, hash) {
            Ok(user) => Ok(Found::Caller(Caller::User(user))),
            Err(TokenFault::Refused(fault)) => Err(Error::Unauthenticated(fault)),
            Err(TokenFault::UnknownKey) => match &self.key_set {
                Some(set) => Ok(Found::AfterRefresh(set.refresh_for_unknown_key())),
                None => Err(Error::Unauthenticated(CredentialFault::Unknown)),
            },
        }
    }

    /// The credential that `ADMIN_TOKEN` stands for.
    pub fn administrator_itself(&self) -> Arc<Credential> {
        Arc::clone(&self.administrator)
    }

    pub fn is_admin_token(&self, token: &[u8]) -> bool {
        self.administrator(token).is_some()
    }

    /// A hash of `ADMIN_TOKEN` as it is now, together with `salt`, from which the token cannot be guessed without it.
    pub fn token_fingerprint(&self, salt: &str) -> Option<[u8; 32]> {
        let token = self.admin_token.load();
        token.as_ref().map(|token| sha256(format!("{salt} {}", token.expose_secret()).as_bytes()))
    }

    fn administrator(&self, token: &[u8]) -> Option<Caller> {
        let expected = self.admin_token.load();
        let expected = expected.as_ref()?;
        // In constant time: otherwise the response time would give the token away byte by byte.
        let is_equal = constant_time_eq(token, expected.expose_secret().as_bytes());
        is_equal.then(|| Caller::Server(Arc::clone(&self.administrator)))
    }
}
