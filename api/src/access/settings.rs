use std::{
    fs,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use dibs_common::{
    config::secret,
    error::{Error, Result},
    integrations::jwks::{KeySetUrl, MAX_KEY_SET_BYTES},
};
use jsonwebtoken::Algorithm;
use secrecy::{ExposeSecret as _, SecretString};

use super::{user_tokens::TokenRules, verification_keys::VerificationKeys};

/// How callers of the shop's routes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// By a gateway in front: every call counts as one of the gateway, which acts for any user.
    Trusted,
    /// By an API key or the token of a user.
    Required,
}

/// The signature algorithms of tokens, as RFC 7518 and RFC 8037 spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenAlgorithm {
    #[value(name = "HS256")]
    Hs256,
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
}

impl From<TokenAlgorithm> for Algorithm {
    fn from(algorithm: TokenAlgorithm) -> Self {
        match algorithm {
            TokenAlgorithm::Hs256 => Self::HS256,
            TokenAlgorithm::Rs256 => Self::RS256,
            TokenAlgorithm::Es256 => Self::ES256,
            TokenAlgorithm::EdDsa => Self::EdDSA,
        }
    }
}

/// How callers are known.
#[derive(Clone, Debug, Args)]
pub struct AuthSettings {
    /// How callers are known: 'required', by API keys and tokens, or 'trusted', by a gateway in front. Left out, it is
    /// trusted on a loopback address; elsewhere the choice has to be made
    #[arg(long, env, value_enum, ignore_case = true)]
    pub auth_mode: Option<AuthMode>,
    /// The secret of users' tokens (HS256), at least 32 characters; during rotation several, with a space between them
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub auth_jwt_secret: Option<SecretString>,
    /// Where the issuer of users' tokens publishes its keys, a JSON Web Key Set, http or https
    #[arg(long, env)]
    pub auth_jwks_url: Option<String>,
    /// The file of such a key set, read again when it changes
    #[arg(long, env)]
    pub auth_jwks_file: Option<PathBuf>,
    /// The signature algorithms that count, with commas between them. Left out: HS256 with a secret, the others with a
    /// key set
    #[arg(long, env, value_enum, ignore_case = true, value_delimiter = ',')]
    pub auth_jwt_algorithms: Vec<TokenAlgorithm>,
    /// The issuer that tokens have to name; required with a key set
    #[arg(long, env)]
    pub auth_jwt_issuer: Option<String>,
    /// The audience that tokens have to name; required with a key set
    #[arg(long, env)]
    pub auth_jwt_audience: Option<String>,
    /// How long after its expiry, and before its beginning, a token counts, 0 to 300 seconds
    #[arg(long, env, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=300))]
    pub auth_jwt_leeway_seconds: u32,
    /// The claim of a token that is the user's id
    #[arg(long, env, default_value = "sub")]
    pub auth_jwt_user_claim: String,
}

/// Where the keys of tokens come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    Secret(SecretString),
    Url(KeySetUrl),
    File(PathBuf),
}

impl AuthSettings {
    /// The mode of an API at `address`.
    ///
    /// # Errors
    /// When it is left out and others than this machine reach the address; when tokens are configured that it ignores.
    pub fn mode(&self, address: SocketAddr) -> Result<AuthMode> {
        let mode = match self.auth_mode {
            Some(mode) => mode,
            // `::ffff:127.0.0.1` is this machine as well.
            None if address.ip().to_canonical().is_loopback() => AuthMode::Trusted,
            None => {
                let why = format!(
                    "expected 'required' (API keys and tokens) or 'trusted' (a gateway in front decides who calls), as \
                     others reach API_ADDRESS {address}"
                );
                return Err(Error::Setting("AUTH_MODE", why));
            }
        };
        match self.key_source()? {
            Some(_) if mode == AuthMode::Trusted => Err(Error::Setting(
                "AUTH_MODE",
                "expected 'required', as the keys of users' tokens are set; 'trusted' looks at no token".into(),
            )),
            _ => Ok(mode),
        }
    }

    /// Where the keys of tokens come from; none: there are no tokens.
    pub fn key_source(&self) -> Result<Option<KeySource>> {
        let secret = self.auth_jwt_secret.as_ref().filter(|secret| !secret.expose_secret().trim().is_empty());
        let url = given(self.auth_jwks_url.as_deref());
        let file = self.auth_jwks_file.as_ref().filter(|file| !file.as_os_str().is_empty());
        match (secret, url, file) {
            (None, None, None) => Ok(None),
            (Some(secret), None, None) => {
                VerificationKeys::of_secrets(secret)?;
                Ok(Some(KeySource::Secret(secret.clone())))
            }
            (None, Some(url), None) => {
                let url = KeySetUrl::at(url).map_err(|why| Error::Setting("AUTH_JWKS_URL", why))?;
                Ok(Some(KeySource::Url(url)))
            }
            (None, None, Some(file)) => Ok(Some(KeySource::File(file.clone()))),
            _ => {
                let why = "expected one of AUTH_JWT_SECRET, AUTH_JWKS_URL and AUTH_JWKS_FILE, got several";
                Err(Error::Setting("AUTH_JWT_SECRET", why.into()))
            }
        }
    }

    /// What tokens have to say, given where their keys come from.
    pub fn rules(&self, source: &KeySource) -> Result<TokenRules> {
        let is_secret = matches!(source, KeySource::Secret(_));
        let (issuer, audience) = (given(self.auth_jwt_issuer.as_deref()), given(self.auth_jwt_audience.as_deref()));
        // A key set signs tokens for every service of its issuer; only the shop itself has a secret.
        for (setting, value) in [("AUTH_JWT_ISSUER", issuer), ("AUTH_JWT_AUDIENCE", audience)] {
            if value.is_none() && !is_secret {
                return Err(Error::Setting(setting, "expected one, as tokens are signed with a key set".into()));
            }
        }
        let user_claim = self.auth_jwt_user_claim.trim();
        if user_claim.is_empty() {
            return Err(Error::Setting("AUTH_JWT_USER_CLAIM", "expected the name of a claim".into()));
        }
        Ok(TokenRules {
            algorithms: self.algorithms(is_secret)?,
            issuer: issuer.map(str::to_owned),
            audience: audience.map(str::to_owned),
            leeway_seconds: self.auth_jwt_leeway_seconds,
            user_claim: user_claim.to_owned(),
        })
    }

    fn algorithms(&self, is_secret: bool) -> Result<Vec<Algorithm>> {
        let possible: &[TokenAlgorithm] = if is_secret {
            &[TokenAlgorithm::Hs256]
        } else {
            &[TokenAlgorithm::Rs256, TokenAlgorithm::Es256, TokenAlgorithm::EdDsa]
        };
        let chosen = match self.auth_jwt_algorithms.as_slice() {
            [] => possible,
            chosen => chosen,
        };
        if chosen.iter().any(|algorithm| !possible.contains(algorithm)) {
            let expected =
                if is_secret { "HS256 with AUTH_JWT_SECRET" } else { "RS256, ES256 or EdDSA with a key set" };
            return Err(Error::Setting("AUTH_JWT_ALGORITHMS", format!("expected {expected}")));
        }
        Ok(chosen.iter().copied().map(Algorithm::from).collect())
    }
}

/// An empty setting is none.
fn given(setting: Option<&str>) -> Option<&str> {
    setting.map(str::trim).filter(|text| !text.is_empty())
}

/// The text of a key set in a file.
pub fn read_key_set(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    // One byte more shows that a file is too long, without reading all of it.
    let limit = MAX_KEY_SET_BYTES as u64 + 1;
    let read = fs::File::open(file).and_then(|file| file.take(limit).read_to_string(&mut text));
    match read {
        Ok(read) if read <= MAX_KEY_SET_BYTES => Ok(text),
        Ok(_) => Err(format!("expected at most {MAX_KEY_SET_BYTES} bytes")),
        Err(error) => Err(format!("{} cannot be read: {error}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Given {
        #[command(flatten)]
        auth: AuthSettings,
    }

    const SECRET: &str = "--auth-jwt-secret=0123456789abcdef0123456789abcdef";
    const URL: [&str; 3] = ["--auth-jwks-url=http://127.0.0.1:9/", "--auth-jwt-issuer=i", "--auth-jwt-audience=a"];

    fn settings(arguments: &[&str]) -> AuthSettings {
        Given::try_parse_from([&["test"], arguments].concat()).expect("settings").auth
    }

    fn mode(address: &str, arguments: &[&str]) -> Result<AuthMode> {
        settings(arguments).mode(address.parse().expect("an address"))
    }

    #[test]
    fn trusted_is_the_default_on_a_loopback_address_only() {
        for address in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert_eq!(mode(address, &[]).ok(), Some(AuthMode::Trusted), "{address}");
        }
        for address in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080"] {
            let refused = mode(address, &[]).expect_err("refused").to_string();
            assert!(refused.starts_with("AUTH_MODE: ") && refused.contains(address), "{refused}");
            assert_eq!(mode(address, &["--auth-mode=trusted"]).ok(), Some(AuthMode::Trusted));
            assert_eq!(mode(address, &["--auth-mode=required"]).ok(), Some(AuthMode::Required));
        }
        let refused = mode("127.0.0.1:1", &[SECRET]).expect_err("tokens that nothing looks at").to_string();
        assert!(refused.starts_with("AUTH_MODE: expected 'required'"), "{refused}");
    }

    fn refused(arguments: &[&str]) -> String {
        let settings = settings(arguments);
        let rules = settings.key_source().and_then(|source| source.map(|source| settings.rules(&source)).transpose());
        rules.map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn wrong_settings_of_tokens_are_refused_with_a_sentence_that_names_them() {
        for right in [&[][..], &[SECRET], &URL, &["--auth-jwt-secret=", "--auth-jwks-url="]] {
            assert_eq!(refused(right), "", "{right:?}");
        }
        assert!(refused(&["--auth-jwt-secret=short"]).starts_with("AUTH_JWT_SECRET: expected at least 32 characters"));
        assert!(refused(&[&[SECRET], &URL[..]].concat()).contains("got several"));
        assert!(refused(&["--auth-jwks-url=ftp://host"]).starts_with("AUTH_JWKS_URL: "));
        assert!(refused(&["--auth-jwks-url=http://user:secret@host"]).starts_with("AUTH_JWKS_URL: "));
        assert!(refused(&URL[..1]).starts_with("AUTH_JWT_ISSUER: "));
        assert!(refused(&URL[..2]).starts_with("AUTH_JWT_AUDIENCE: "));
        assert!(refused(&[SECRET, "--auth-jwt-algorithms=RS256"]).starts_with("AUTH_JWT_ALGORITHMS: expected HS256"));
        let mixed = [&URL[..], &["--auth-jwt-algorithms=ES256,HS256"]].concat();
        assert!(refused(&mixed).starts_with("AUTH_JWT_ALGORITHMS: expected RS256"));
        assert!(refused(&[SECRET, "--auth-jwt-user-claim= "]).starts_with("AUTH_JWT_USER_CLAIM: "));
    }
}
