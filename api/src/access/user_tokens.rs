//! Tokens of users: JSON Web Tokens, verified as RFC 8725 advises.
//!
//! The configuration fixes the algorithms, and each key is for one of them. Issuer and audience are compared, an expiry
//! is required. A verified token is remembered by its hash until it expires or the keys are replaced.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dibs_common::{clock, error::CredentialFault, identifiers::UserId};
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};

use super::{
    token_cache::{TokenCache, VerifiedToken},
    verification_keys::VerificationKeys,
};

/// Verified tokens that are remembered, about 15 MB.
const REMEMBERED_TOKENS: usize = 100_000;
/// A longer token is refused before it is decoded, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Types of tokens (RFC 7519, section 5.1, and RFC 9068), in lower case. Others have another purpose.
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// What a token has to say.
#[derive(Clone, Debug)]
pub struct TokenRules {
    pub algorithms: Vec<Algorithm>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway_seconds: u32,
    /// The claim that is the user's id.
    pub user_claim: String,
}

pub struct UserTokens {
    rules: TokenRules,
    keys: ArcSwap<VerificationKeys>,
    cache: TokenCache,
}

/// Why a token does not count.
#[derive(Debug)]
pub enum TokenFault {
    Refused(CredentialFault),
    /// No key is known that it could be signed with: the issuer may have published a new one.
    UnknownKey,
}

impl UserTokens {
    pub fn new(rules: TokenRules, keys: VerificationKeys) -> Self {
        Self { rules, keys: ArcSwap::from_pointee(keys), cache: TokenCache::new(REMEMBERED_TOKENS) }
    }

    pub const fn rules(&self) -> &TokenRules {
        &self.rules
    }

    /// Replaces the keys. Tokens of keys that are gone do not count from now on.
    pub fn replace_keys(&self, keys: VerificationKeys) {
        self.keys.store(Arc::new(keys));
        self.cache.invalidate();
    }

    /// The user of a token with this hash.
    pub fn verify(&self, token: &[u8], hash: [u8; 32]) -> Result<UserId, TokenFault> {
        let now = clock::now().timestamp_millis();
        if let Some(user) = self.cache.find(&hash, now) {
            return Ok(user);
        }
        // Before the keys are read: when they are replaced meanwhile, the result counts for this call only.
        let generation = self.cache.generation();
        let claims = self.claims(token)?;
        let user = user_of(claims.get(&self.rules.user_claim)).ok_or(TokenFault::Refused(CredentialFault::NoUser))?;
        let expires_at = expiry_millis(&claims, self.rules.leeway_seconds);
        self.cache.insert(hash, VerifiedToken { user, expires_at, generation });
        Ok(user)
    }

    /// The claims of a token whose signature is right and that counts now.
    fn claims(&self, token: &[u8]) -> Result<Map<String, Value>, TokenFault> {
        let unknown = TokenFault::Refused(CredentialFault::Unknown);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(unknown);
        }
        let Ok(header) = decode_header(token) else { return Err(unknown) };
        if !self.rules.algorithms.contains(&header.alg) || !is_supported(&header) {
            return Err(unknown);
        }
        let keys = self.keys.load();
        let candidates = keys.candidates(&header);
        if candidates.is_empty() {
            return Err(TokenFault::UnknownKey);
        }
        let validation = self.rules.validation(header.alg);
        let mut fault = CredentialFault::Unknown;
        for key in candidates {
            match decode::<Map<String, Value>>(token, key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                // With another key its signature may be right.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(error) => fault = fault_of(error.kind()),
            }
        }
        Err(TokenFault::Refused(fault))
    }
}

impl TokenRules {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_seconds.into();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        // Without one, a token that names an audience is refused: it is for another service.
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Whether Dibs knows everything that the header demands. A critical extension that is not supported makes a token
/// invalid (RFC 7515, section 4.1.11).
fn is_supported(header: &Header) -> bool {
    let kind = header.typ.as_ref().map(|kind| kind.to_ascii_lowercase());
    header.crit.is_none() && kind.is_none_or(|kind| TYPES.contains(&kind.as_str()))
}

fn fault_of(kind: &ErrorKind) -> CredentialFault {
    match kind {
        ErrorKind::ExpiredSignature => CredentialFault::Expired,
        ErrorKind::ImmatureSignature => CredentialFault::NotYetValid,
        ErrorKind::InvalidAudience => CredentialFault::WrongAudience,
        ErrorKind::InvalidIssuer => CredentialFault::WrongIssuer,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "aud" => CredentialFault::WrongAudience,
            "iss" => CredentialFault::WrongIssuer,
            _ => CredentialFault::NoExpiry,
        },
        _ => CredentialFault::Unknown,
    }
}

/// An id as a number, or as text in its one spelling.
fn user_of(claim: Option<&Value>) -> Option<UserId> {
    let number = match claim? {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => {
            let number: u64 = text.parse().ok()?;
            (number.to_string() == *text).then_some(number)?
        }
        _ => return None,
    };
    number.try_into().ok()
}

/// When a token ceases to count; at once, for a fraction: such a token is verified each time.
fn expiry_millis(claims: &Map<String, Value>, leeway_seconds: u32) -> i64 {
    let seconds = claims.get("exp").and_then(Value::as_i64).unwrap_or(0);
    seconds.saturating_add(leeway_seconds.into()).saturating_mul(1_000)
}
